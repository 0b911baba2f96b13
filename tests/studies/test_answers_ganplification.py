"""GANplification: benchmarks against exact values, generators of known worth, a small run."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from scipy import stats

from experiments.amplification.ganplification import models as parts
from experiments.amplification.ganplification import study
from jgen.amplification import sample_quantile_mse
from jgen.nets import num_parameters

SMALL = study.SMOKE
EQUIVALENT = {"10": 241, "20": 440, "50": 1041}


@pytest.fixture(scope="module")
def metrics(smoke):
    return json.loads((smoke("ganplification") / "metrics.json").read_text())


@pytest.mark.study
def test_the_fit_is_worth_what_its_information_says(metrics):
    """Humps that do not overlap give 241, 440 and 1041; that they do takes 0.3 % at most."""
    for quantiles, events in EQUIVALENT.items():
        exact = metrics[f"equivalent/exact_fit/camel/{quantiles}"]
        assert exact == pytest.approx(events, rel=0.004)
        found, error = (metrics[f"equivalent/fit/camel/{quantiles}{e}"] for e in ("", "_error"))
        assert abs(found - exact) < 3 * error + 0.02 * exact
        assert error < 0.05 * exact
    assert metrics["fit/not_converged"] < 0.01


@pytest.mark.study
def test_training_sets_are_worth_themselves(metrics):
    for quantiles, num in (("10", 10), ("20", 20), ("50", 50)):
        exact = (1 - 1 / num) / (num * SMALL.num_train)
        found, error = (metrics[f"mse/sample/camel/{quantiles}{e}"] for e in ("", "_error"))
        assert abs(found - exact) < 3 * error
        assert error < 0.05 * exact


def test_every_training_set_has_its_own_error():
    sets = np.repeat([-4.05, 4.05, 6.0], 20).reshape(3, 20, 1)
    sets[0, 10:] *= -1  # half of the first set on either side
    found = parts.sample_errors("camel", sets)["10"]
    np.testing.assert_allclose(found, [(2 * 0.4**2 + 8 * 0.01) / 10] + 2 * [0.09])


def test_generators_of_known_worth():
    """The truth is worth what it generates; a ring 5 % too large has an error in closed form."""
    toy = parts.TOYS["ring"]

    def judge(shift):
        sample = lambda params, key, cond=None: toy.sample(key) * (1 + shift / 4)
        return study.generated_errors(config, "ring", sample, None, jax.random.key(0))

    config = dataclasses.replace(SMALL, num_gen=50_000)
    for name, errors in judge(0.0).items():
        bins = parts.num_bins("ring", name)
        expected = sample_quantile_mse(bins, config.sizes)
        # A chi-square with bins - 1 degrees of freedom, the largest of several sizes.
        assert np.all(errors < expected * (1 + 4.5 * (2 / (bins - 1)) ** 0.5))
    errors = judge(0.2)
    assert errors["angle 10"][-1] < 3 * sample_quantile_mse(10, config.num_gen)
    # Radii are N(4.2, 1.05) then.
    inner = stats.norm.ppf(np.arange(11) / 10)
    exact = np.mean((np.diff(stats.norm.cdf((inner - 0.2) / 1.05)) - 0.1) ** 2)
    assert errors["radius 10"][-1] == pytest.approx(exact, rel=0.1)


def test_paper_size_is_the_architecture_of_the_paper():
    model = study.make_model(study.PAPER_SIZE, "ring", "gan")
    generator = jax.eval_shape(model.init, jax.random.key(0))["generator"]
    layers = sorted({leaf.shape for leaf in jax.tree.leaves(generator) if leaf.ndim == 2})
    assert layers == [(256, 2), (256, 256), (1000, 256)]
    weights = 1000 * 256 + 6 * 256**2 + 256 * 2
    assert sum(leaf.size for leaf in jax.tree.leaves(generator)) == weights + 7 * 256 + 2


@pytest.mark.parametrize("function", parts.TOYS)
@pytest.mark.parametrize("generator", ["gan", "flow", "autoregressive"])
def test_every_generator_makes_events_of_every_function(function, generator):
    model = parts.make_model(SMALL, function, generator)
    key = jax.random.key(0)
    params = jax.eval_shape(model.init, key)
    x = jax.eval_shape(model.sample, params, key, None)
    assert x.shape == (parts.TOYS[function].dim,)
    assert num_parameters(model.init) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data-sets", 1), "data_sets must be at least 2"),
        (("--num-validation", 100), "num_validation must be between 1 and the 100 training"),
    ],
)
def test_bad_options(command, options, message):
    with pytest.raises(SystemExit, match=message):
        command("ganplification", *options)

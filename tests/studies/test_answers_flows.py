"""Exact answers of the study of flows: data sets, baselines, every family, the smoke run."""

import itertools
import json

import jax
import numpy as np
import pytest
from scipy import stats

from experiments import study as harness
from experiments.models import comparison
from experiments.models import flows as study
from experiments.models.data import DataSet, make_data
from experiments.models.zoo import FLOWS, FlowSizes, make_flow
from jgen.bijectors import standardize
from jgen.estimate import Estimate, Judged
from jgen.nets import num_parameters

SMALL = study.SMOKE


@pytest.mark.study
def test_metrics_of_the_smoke_run(smoke):
    metrics = json.loads((smoke("flows") / "metrics.json").read_text())
    # The entropy of the moons and what 1000 events of it have; -log p has a variance below one.
    assert metrics["entropy/moons"] == pytest.approx(0.289, abs=0.002)
    assert abs(metrics["truth/moons"] - metrics["entropy/moons"]) < 4 / 1000**0.5
    for name, family in itertools.product(SMALL.data, SMALL.families):
        where = f"{family}/{name}"
        assert 0 < metrics[f"nll/{where}_error"] < 2
        assert 0 < metrics[f"w1/{where}_truth"] < metrics[f"w1/{where}"]
        baseline = metrics[f"truth/{name}" if name == "moons" else f"mapped_mixture/{name}"]
        gap = metrics[f"nll/{where}"] - baseline
        assert metrics[f"gap/{where}"] == pytest.approx(gap, abs=1e-3)
    # A linear flow is a Gaussian, no better than the best one: in closed form, of the moons.
    x = make_data(SMALL, "moons")
    best = -stats.multivariate_normal(x.train.mean(0), np.cov(x.train.T)).logpdf(x.test).mean()
    assert best - 0.05 < metrics["nll/linear/moons"] < best + 0.1
    assert metrics["gap/flow-matching/moons"] < metrics["gap/linear/moons"]


def test_splits_share_no_digit_and_pixels_are_normal_one_by_one():
    digits = make_data(SMALL, "digits")
    levels = [np.floor(17 * digits.once(x)) for x in (digits.train, digits.test)]
    assert [len(a) for a in levels] == [1437 - 143, 360]
    train, test = ({a.tobytes() for a in part} for part in levels)
    assert not train & test
    z = np.asarray(jax.jit(jax.vmap(lambda x: digits.bijector.forward(x)[0]))(digits.train))
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=0.1)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=0.1)


def test_the_mixture_is_a_density_in_the_units_of_the_data():
    """A Gaussian of other units: behind any map the mixture's likelihood is that of its own."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(4000, 2)) * [100, 0.1] + [500, 3]).astype(np.float32)
    scale = standardize(x.mean(axis=0), 2 * x.std(axis=0))
    data = DataSet(x[:2500], x[2500:3000], x[3000:], scale)
    expected = stats.norm.logpdf((x[3000:] - [500, 3]) / [100, 0.1]).sum(axis=1) - np.log(10)
    for mapped in (False, True):
        found = study.mixture_log_prob(SMALL, data, mapped=mapped)
        # Ten Gaussians have some sixty parameters, half a nat each on 2500 events.
        assert abs(np.mean(found - expected)) < 0.03


def test_events_count_once_however_many_copies():
    data = DataSet(*[np.zeros((4, 1))] * 3, None, repeats=2)
    mean, error = data.mean(np.array([1.0, 3.0, 4.0, 4.0]))
    assert (mean, error) == (3.0, pytest.approx(np.std([2, 4], ddof=1) / 2**0.5))


@pytest.mark.parametrize("family", FLOWS)
def test_every_family_is_a_model_of_vectors(family):
    dim = 64 if family == "glow" else 3
    key = jax.random.key(0)
    for judged in (False, True):
        model = make_flow(family, FlowSizes(), dim, judged=judged)
        params = jax.eval_shape(model.init, key)
        x = jax.eval_shape(model.sample, params, key, None)
        assert x.shape == (dim,)
        assert jax.eval_shape(model.log_prob, params, key, x, None).shape == ()


def test_truth_and_what_belongs_to_no_family_have_rows_of_their_own():
    metrics = {
        "entropy/moons": 0.289,
        "n/maf/moons": 2,
        "w1/maf/moons": Judged(Estimate(0.5, 0.1), Estimate(0.25, 0.1)),
        "w1/iaf/jets": Judged(Estimate(2.0, 0.1), Estimate(1.0, 0.1)),
        "w1/iaf/digits": 3.0,
    }
    lines = comparison.tables(metrics, ["moons", "jets"], {"n": "N", "w1": "W1", "no": "No"})
    assert [line.split() for line in lines.splitlines()] == [
        ["N", "moons", "jets"], ["entropy", "0.289", "-"], ["maf", "2", "-"], [],
        ["W1", "moons", "jets"], ["truth", "0.25(10)", "1.00(10)"], ["maf", "0.50(10)", "-"],
        ["iaf", "-", "2.00(10)"]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--families maf waf", "families must be of linear"),
        ("--num-test 5", "num_test must be at least 100, got 5"),
        ("--families glow --data moons", "nothing to train"),
        ("--regularisations", "regularisations must name at least one"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(SystemExit, match=message):
        harness.run(study.STUDY, ["--preset", "smoke", "--dry-run", *options.split()])


def test_parameters_by_hand():
    model = study.build(SMALL)["linear moons"]
    # Shift and scale, a triangle with its scales, and the reflections' vectors.
    assert num_parameters(model.init) == 4 + 4 + 2 + 4

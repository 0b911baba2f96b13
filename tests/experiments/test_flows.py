"""Flow study: maps and baselines of the data sets, every family, a small run."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest
from scipy import stats

from experiments import _flows as parts
from experiments import _flows_data as data_sets
from experiments import _judging
from experiments import flows as study
from experiments._command_line import run
from experiments._flows_families import FAMILIES, Sizes, make_model
from jgen.generative_model import Batch, GenerativeModel

SMALL = study.SMOKE


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, study.main(SMALL, out)


@pytest.fixture(scope="module")
def digits():
    return data_sets.make_data("digits", 1, 1, 0)


def test_metrics_hold_every_family_beside_its_baseline(finished):
    out, metrics = finished
    assert json.loads((out / "metrics.json").read_text()) == metrics
    # The entropy of the moons and what 1000 events of it have; -log p has a variance below one.
    assert metrics["entropy/moons"] == pytest.approx(0.289, abs=0.002)
    assert abs(metrics["truth/moons"] - metrics["entropy/moons"]) < 4 / 1000**0.5
    for name, family in parts.pairs(SMALL):
        where = f"{family}/{name}"
        assert 0 < metrics[f"nll_error/{where}"] < 1
        assert metrics[f"ms_sample/{where}"] > 0
        assert metrics[f"ms_log_prob/{where}"] > 0
        assert metrics[f"w1/{where}"] > 0
        baseline = metrics[f"truth/{name}" if name == "moons" else f"mapped_mixture/{name}"]
        gap = metrics[f"nll/{where}"] - baseline
        assert metrics[f"gap/{where}"] == pytest.approx(gap, abs=1e-3)
    # A linear flow is a Gaussian, no better than the best one: in closed form, of the moons.
    x = data_sets.make_data("moons", SMALL.num_train, SMALL.num_test, SMALL.seed)
    best = -stats.multivariate_normal(x.train.mean(0), np.cov(x.train.T)).logpdf(x.test).mean()
    assert best - 0.05 < metrics["nll/linear/moons"] < best + 0.1
    assert metrics["gap/flow-matching/moons"] < metrics["gap/linear/moons"]


def test_a_run_can_be_drawn_again_and_goes_on(finished, capsys):
    out, metrics = finished
    figures = ["densities-moons", "jets", "digits", "gaps"]
    for name in figures:
        (out / "figures" / f"{name}.png").unlink()
    before = (out / "moons" / "linear" / "results.npz").stat().st_mtime_ns
    capsys.readouterr()
    assert study.main(SMALL, out, plot_only=True) == metrics
    assert (out / "moons" / "linear" / "results.npz").stat().st_mtime_ns == before
    assert all((out / "figures" / f"{name}.png").stat().st_size > 1000 for name in figures)
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["NLL", "[nats]", "moons", "jets", "digits"]
    assert table[1].split()[:4] == ["entropy", "0.289", "+-", "0.000"]


def test_digits_behind_the_map_are_normal_one_by_one(digits):
    """Round trip, the determinant by finite differences, and the density by counting."""
    x = digits.test[:200].astype(np.float32)
    forward = jax.jit(jax.vmap(lambda x: digits.bijector.forward(x, None)))
    z, log_det = forward(x)
    back, log_det_back = jax.jit(jax.vmap(lambda z: digits.bijector.inverse(z, None)))(z)
    np.testing.assert_allclose(back, x, atol=2e-6)
    np.testing.assert_allclose(log_det_back, -log_det, atol=1e-3)
    # Density of independent pixels: 17 times the frequency of the level, with half a count more.
    train = np.floor(17 * digits.train[:: digits.repeats]).astype(int)
    level = np.floor(17 * x).astype(int)
    counts = np.stack([(train == n).sum(axis=0) for n in range(17)])
    share = (counts + 0.5) / (len(train) + 17 * 0.5)
    expected = np.log(17 * share[level, np.arange(64)[None]]).sum(axis=1)
    found = stats.norm.logpdf(np.asarray(z, np.float64)).sum(axis=1) + np.asarray(log_det)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    z_train = np.asarray(forward(digits.train)[0])
    np.testing.assert_allclose(z_train.mean(axis=0), 0, atol=0.1)
    np.testing.assert_allclose(z_train.std(axis=0), 1, atol=0.1)


def test_splits_share_no_digit(digits):
    levels = [np.floor(17 * x[:: digits.repeats]) for x in (digits.train, digits.test)]
    assert [len(a) for a in levels] == [1437 - 143, 360]
    train, test = ({a.tobytes() for a in part} for part in levels)
    assert not train & test


def test_new_noise_keeps_the_levels(digits):
    seen = []
    keep = lambda params, key, batch: seen.append(batch.x)
    model = data_sets.with_new_noise(GenerativeModel(None, keep, None))
    for seed in (0, 1):
        model.loss(None, jax.random.key(seed), Batch(digits.train[:50]))
    a, b = (np.asarray(x) for x in seen)
    assert abs(a - b).max() > 0.01
    np.testing.assert_array_equal(np.floor(17 * a), np.floor(17 * digits.train[:50]))
    assert abs(np.mean(17 * a - np.floor(17 * a)) - 0.5) < 4 * 12**-0.5 / a.size**0.5


def test_map_of_the_jets_against_autodiff():
    data = data_sets.make_data("jets", 2000, 100, 0)
    x = np.concatenate([data.test[:20], [[500.01, 20, 0.5, 0.5], [999.99, 20, 0.5, 0.5]]])
    x = x.astype(np.float32)

    @jax.jit
    @jax.vmap
    def there_and_back(x):
        forward = lambda x: data.bijector.forward(x, None)
        z, log_det = forward(x)
        return log_det, jax.jacfwd(lambda x: forward(x)[0])(x), data.bijector.inverse(z, None)[0]

    log_det, jacobian, back = there_and_back(x)
    np.testing.assert_allclose(np.linalg.slogdet(jacobian)[1], log_det, rtol=1e-4)
    np.testing.assert_allclose(back, x, rtol=1e-5)


def test_the_mixture_is_a_density_in_the_units_of_the_data():
    """A Gaussian of other units: behind any map the mixture's likelihood is that of its own."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(4000, 2)) * [100, 0.1] + [500, 3]).astype(np.float32)
    scale = data_sets.standardize(x.mean(axis=0), 2 * x.std(axis=0))
    data = data_sets.DataSet(x[:2500], x[2500:3000], x[3000:], scale)
    expected = stats.norm.logpdf((x[3000:] - [500, 3]) / [100, 0.1]).sum(axis=1) - np.log(10)
    for mapped in (False, True):
        found = parts.mixture_log_prob(SMALL, data, mapped=mapped)
        # Ten Gaussians have some sixty parameters, half a nat each on 2500 events.
        assert abs(np.mean(found - expected)) < 0.03


def test_events_count_once_however_many_copies():
    data = data_sets.DataSet(*[np.zeros((4, 1))] * 3, None, repeats=2)
    mean, error = _judging.events_mean(data, np.array([1.0, 3.0, 4.0, 4.0]))
    assert (mean, error) == (3.0, pytest.approx(np.std([2, 4], ddof=1) / 2**0.5))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_a_model_of_vectors(family):
    dim = 64 if family == "glow" else 3
    key = jax.random.key(0)
    for judged in (False, True):
        model = make_model(family, Sizes(), dim, judged=judged)
        params = jax.eval_shape(model.init, key)
        x = jax.eval_shape(model.sample, params, key, None)
        assert x.shape == (dim,)
        assert jax.eval_shape(model.log_prob, params, key, x, None).shape == ()


def test_bad_options(tmp_path, capsys):
    for options, message in (
        ({"families": ("maf", "waf")}, r"unknown families \['waf'\]; there are linear"),
        ({"data": ()}, "must name at least one each"),
        ({"num_test": 5}, "num_test must be at least 100, got 5"),
        ({"families": ("glow",), "data": ("moons",)}, "nothing to train"),
    ):
        with pytest.raises(ValueError, match=message):
            study.main(dataclasses.replace(SMALL, **options), tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
    with pytest.raises(ValueError, match="run without --plot-only"):
        study.main(SMALL, tmp_path / "none", plot_only=True)
    run("flows", study.__doc__, study.PRESETS, study.main, study.count_parameters,
        ["--dry-run", "--preset", "smoke"])  # fmt: skip
    parameters = json.loads(capsys.readouterr().out)["parameters"]
    # Shift and scale, a triangle with its scales, and the reflections' vectors.
    assert parameters["linear moons"] == 4 + 4 + 2 + 4
    assert math.prod(parameters.values()) > 0

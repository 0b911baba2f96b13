"""The uncertainty study: bins and errors against simulated truths, and the smoke run."""

import dataclasses
import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from experiments import _uncertainty_training as training
from experiments import shower_uncertainty as study
from experiments._uncertainty import (
    bin_pulls,
    calibration_numbers,
    contents,
    coverage_curve,
    fill_bins,
    join,
    merge_edges,
)
from jgen.nets.sequence import SequenceConfig
from jgen.nets.vit import ViTConfig
from jgen.solvers import SolverConfig
from jgen.transforms import draw_weights

EDGES = np.linspace(-3, 3, 25)


def bins_of(reference, generated, training=None, smallest=20):
    training = reference if training is None else training
    return fill_bins(lambda values: EDGES, training, reference, generated, smallest=smallest)


def test_merged_bins_hold_enough_and_lose_nothing():
    rng = np.random.default_rng(0)
    values = np.round(rng.normal(size=500), 1)
    inner = merge_edges(EDGES, values, 30)
    assert set(inner) <= set(EDGES)
    counts = np.histogram(values, np.concatenate([[-np.inf], inner, [np.inf]]))[0]
    assert counts.sum() == 500
    assert counts.min() >= 30
    # Nothing is merged without need: two neighbours of a bin width could not be smaller.
    assert len(merge_edges(EDGES, values, 1)) == len(np.unique(np.digitize(values, EDGES))) - 1
    assert len(merge_edges(EDGES, np.zeros(500), 30)) == 0


def test_contents_are_those_of_numpy():
    """All sums by hand, for observables with layers and for one without."""
    rng = np.random.default_rng(1)
    reference, generated = rng.normal(size=(203, 2)), rng.normal(size=(4, 203, 2))
    training = rng.normal(size=(150, 2))
    bins = join([bins_of(reference, generated, training), bins_of(*_first(reference, generated))])
    parts = [merge_edges(EDGES, training[:, k], 20 * 150 / 203) for k in range(2)]
    parts.append(merge_edges(EDGES, reference[:, 0], 20))
    found, start = contents(bins), 0
    assert len(bins.truth) == sum(len(part) + 1 for part in parts)
    for k, inner in zip((0, 1, 0), parts, strict=True):
        rows, edges = slice(start, start + len(inner) + 1), [-np.inf, *inner, np.inf]
        start = rows.stop
        counts = lambda v: np.histogram(v, edges)[0]  # noqa: B023
        np.testing.assert_array_equal(found.reference[rows], counts(reference[:, k]))
        np.testing.assert_array_equal(
            found.members[:, rows], [counts(one[:, k]) for one in generated]
        )
        # The covariance of indicators, by numpy: of the mean over members, and within showers.
        inside = np.digitize(generated[:, :, k], inner)[..., None] == np.arange(len(inner) + 1)
        mean = inside.mean(axis=0)
        np.testing.assert_allclose(found.mean_variance[rows], 203 * mean.var(axis=0, ddof=1))
        cov = 203 * np.array([np.cov(inside[:, :, b]) for b in range(len(inner) + 1)])
        noise = np.trace(cov, axis1=1, axis2=2) - cov.mean(axis=(1, 2)) * 4
        np.testing.assert_allclose(found.noise[rows], noise / 3)
    without = contents(bins, left_out=7)
    kept = np.arange(203) % 20 != 7
    edges = [-np.inf, *parts[0], np.inf]
    np.testing.assert_array_equal(
        without.reference[: len(edges) - 1], np.histogram(reference[kept, 0], edges)[0]
    )


def _first(reference, generated):
    return reference[:, 0], generated[:, :, 0]


def simulated(rng, num_members, *, spread, bias=0.0, common=True, n=400, columns=12):
    """Members x = noise + shift, of which the truth is like one, with `common` noise or not."""
    shape = (1 if common else num_members, n, columns)
    noise = np.broadcast_to(rng.normal(size=shape), (num_members, n, columns))
    shifts = spread * rng.normal(size=(num_members, 1, columns))
    # A part of the noise is always a member's own, as where networks disagree on a shower.
    own = 0.3 * rng.normal(size=(num_members, n, columns))
    generated = (noise + own) / np.hypot(1, 0.3) + shifts + bias
    truth = rng.normal(size=(6 * n, columns)) + spread * rng.normal(size=(1, columns))
    return truth[n:], truth[:n], generated


@pytest.mark.parametrize("common", [True, False])
@pytest.mark.parametrize("spread", [0.0, 0.15])
def test_calibrated_members_have_the_expected_pulls_and_coverage(common, spread):
    """Over repeated studies; whatever part of the noise the members share."""
    rng = np.random.default_rng(2)
    squares, expected, inside = [], [], []
    for _ in range(40):
        train, reference, generated = simulated(rng, 6, spread=spread, common=common)
        found = contents(bins_of(reference, generated, train, smallest=30))
        pulls = bin_pulls(found)
        squares.append(np.mean(pulls.values**2))
        expected.append(pulls.expected_width**2)
        bound = stats.t.ppf(0.84135, pulls.degrees_of_freedom)
        inside.append(np.mean(np.abs(pulls.values) < bound))
    error = np.std(inside) / 40**0.5
    assert abs(np.mean(inside) - 0.6827) < 4 * error + 0.015  # Welch's degrees are approximate
    error = np.std(squares) / 40**0.5
    assert abs(np.mean(squares) - np.mean(expected)) < 4 * error + 0.06


@pytest.mark.parametrize("common", [True, False])
def test_spread_is_the_networks_without_sampling_noise(common):
    """The unbiased variance of the networks agrees with shifts of a normal density."""
    rng = np.random.default_rng(3)
    found = {0.0: [], 0.15: []}
    for spread, values in found.items():
        for _ in range(40):
            train, reference, generated = simulated(rng, 6, spread=spread, common=common)
            one = contents(bins_of(reference, generated, train, smallest=30))
            values.append(np.mean(one.network_variance))
    mean, error = np.mean(found[0.0]), np.std(found[0.0]) / 40**0.5
    assert abs(mean) < 4 * error
    assert np.mean(found[0.15]) > 20 * error


def test_numbers_tell_a_bias_from_a_spread():
    rng = np.random.default_rng(4)
    good = bins_of(*simulated(rng, 6, spread=0.1, columns=40)[1:])
    biased = bins_of(*simulated(rng, 6, spread=0.02, bias=0.3, columns=40)[1:])
    numbers = calibration_numbers({"good": good, "biased": biased}, "m")
    assert abs(numbers["coverage_68/m/good"] - 0.6827) < 0.08
    assert numbers["coverage_68/m/biased"] < 0.5
    assert numbers["pull_width/m/biased"] > 1.5 * numbers["pull_width/m/biased_expected"]
    assert numbers["actual_error/m/biased"] > 4 * numbers["predicted_error/m/biased"]
    ratio = numbers["actual_error/m/good"] / numbers["predicted_error/m/good"]
    assert 0.7 < ratio < 1.4
    assert all(math.isfinite(v) for v in numbers.values())
    curve = coverage_curve(good)
    np.testing.assert_allclose(curve.expected, curve.levels)
    assert np.all(np.abs(curve.observed - curve.levels) < 5 * curve.error + 0.08)


@pytest.mark.parametrize(("bias", "ratio"), [(0.4, 1.0), (0.0, 2**0.5)])
def test_jackknife_gives_the_error_of_a_new_sample(bias, ratio):
    """Of the same members: their shifts are kept, showers are made again.

    Without a bias the pulls' width is a square of fluctuations alone, of which the jackknife's
    variance is twice the true one (Efron and Stein 1981), as documented.
    """
    rng = np.random.default_rng(5)
    shifts, widths, errors = bias + 0.05 * rng.normal(size=(6, 1, 12)), [], []
    for _ in range(150):
        reference = rng.normal(size=(400, 12))
        generated = rng.normal(size=(1, 400, 12)) + shifts
        numbers = calibration_numbers({"x": bins_of(reference, generated, smallest=40)}, "m")
        widths.append(numbers["pull_width/m/x"])
        errors.append(numbers["pull_width/m/x_error"])
    observed = ratio * np.std(widths, ddof=1)
    # Four standard errors of a standard deviation of 150.
    assert np.mean(errors) == pytest.approx(observed, rel=4 / (2 * 149) ** 0.5)


def test_bad_input():
    values = np.zeros((100, 2))
    with pytest.raises(ValueError, match="as many showers as the reference, 100, got 90"):
        bins_of(values, np.zeros((3, 90, 2)))
    with pytest.raises(ValueError, match="no two bins with 20 of 100 showers"):
        bins_of(values, np.zeros((3, 100, 2)))
    smoke = study.SMOKE
    one = smoke.calodream
    for config, message in (
        (dataclasses.replace(smoke, members=3), "at least 4"),
        (dataclasses.replace(smoke, layer=45), "layer must be one of the 45 layers"),
        (dataclasses.replace(smoke, smallest_bin=1), "smallest_bin must be at least 5"),
        (
            dataclasses.replace(
                smoke, posterior=dataclasses.replace(smoke.posterior, prior_scale=0.0)
            ),
            "prior_scale",
        ),
        (
            dataclasses.replace(smoke, calodream=dataclasses.replace(one, space="latent")),
            "networks in voxels",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            study.check_options(config)


# One training step of networks and solvers that are smaller than the smoke preset's.
_ONE = dataclasses.replace(study.SMOKE.calodream.energy_training, steps=1, batch_size=8)
_SOLVER = SolverConfig("euler", 1)
TINY = dataclasses.replace(
    study.SMOKE,
    method="bayesian",
    calodream=dataclasses.replace(
        study.SMOKE.calodream,
        num_test=60,
        parallel_network=SequenceConfig(width=8, heads=1, blocks=1, mlp_width=8),
        shape_network=ViTConfig(patch=(15, 16, 3), width=8, heads=1, blocks=1, mlp_width=8),
        energy_training=_ONE,
        shape_training=_ONE,
        energy_solver=_SOLVER,
        shape_solver=_SOLVER,
    ),
    posterior=dataclasses.replace(study.SMOKE.posterior, energy_training=_ONE, shape_training=_ONE),
    smallest_bin=10,
)


def test_the_divergence_counts_in_units_of_the_loss():
    """Loss minus the inner one, against the closed form for weights at the prior's mean."""
    config = TINY
    config = dataclasses.replace(
        config, posterior=dataclasses.replace(config.posterior, prior_scale=0.5, temperature=3.0)
    )
    model = training._trained_model(config, "bayesian", "energy", num_train=7)
    key = jax.random.key(1)
    shapes = jax.eval_shape(model.init, key)
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    inner = training._model(config.calodream, "energy")
    batch = training.Batch(jnp.zeros((2, 45)), jnp.zeros(2))
    narrow = params | {"log_scale": jax.tree.map(lambda a: a - 20.0, params["log_scale"])}
    num = sum(leaf.size for leaf in jax.tree.leaves(params["mean"]))
    divergence = num * (math.log(0.5) + 20.0 - 0.5)
    weights_key, loss_key = jax.random.split(key)
    data = jax.jit(inner.loss)(jax.jit(draw_weights)(narrow, weights_key), loss_key, batch)
    difference = jax.jit(model.loss)(narrow, key, batch) - data
    assert float(difference) == pytest.approx(3.0 * 2 / 45 * divergence / 7, rel=1e-5)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "smoke"
    return out, study.main(TINY, out)


def test_a_run_leaves_metrics_and_figures(finished):
    out, metrics = finished
    assert json.loads((out / "metrics.json").read_text()) == metrics
    for name in ("E_tot", "E_layer", "width_r", "sparsity", "all"):
        for quantity in ("pull_width", "coverage_68"):
            for suffix in ("", "_error", "_expected"):
                assert math.isfinite(metrics[f"{quantity}/bayesian/{name}{suffix}"])
    assert metrics["loss/bayesian/shape"] > 0
    # Nearly untrained scales are where they started.
    assert metrics["scale/shape"] == pytest.approx(TINY.posterior.initial_scale, rel=0.01)
    for name in ("bayesian", "coverage", "pulls", "training_bayesian_shape"):
        for suffix in (".pdf", ".png"):
            assert (out / "figures" / f"{name}{suffix}").stat().st_size > 1000


def test_draws_differ_by_their_networks_alone(finished):
    """Incident energies and noise are the same, so that narrow posteriors make close showers."""
    out, _ = finished
    geometry = study.get_geometry("ds2")
    first, second = (study.read_showers(out / f"bayesian/samples-{i}.h5", geometry) for i in (0, 1))
    np.testing.assert_array_equal(first.energies, second.energies)
    assert np.any(first.voxels != second.voxels)
    totals = [np.log(one.voxels.sum(axis=1) / one.energies) for one in (first, second)]
    assert np.corrcoef(totals)[0, 1] > 0.99


def test_a_run_resumes_and_makes_a_lost_sample_again(finished):
    out, metrics = finished
    path = out / "bayesian" / "samples-2.h5"
    before = study.read_showers(path, study.get_geometry("ds2")).voxels
    path.unlink()
    with pytest.raises(ValueError, match="run without --plot-only"):
        study.main(TINY, out, plot_only=True)
    again = study.main(TINY, out)
    voxels = study.read_showers(path, study.get_geometry("ds2")).voxels
    np.testing.assert_array_equal(voxels, before)
    assert again == metrics


def test_an_ensemble_of_the_same_showers_has_the_same_metrics(finished, tmp_path):
    """And --plot-only draws a run whose samples are there."""
    out, metrics = finished
    config, folder = dataclasses.replace(TINY, method="ensemble"), tmp_path / "run"
    study.RunFolder(folder, config)
    shutil.copytree(out / "bayesian", folder / "ensemble")
    found = study.main(config, folder, plot_only=True)
    renamed = {k.replace("/bayesian", "/ensemble"): v for k, v in metrics.items()}
    assert found == {k: v for k, v in renamed.items() if not k.startswith("scale/")}
    assert (folder / "figures" / "ensemble.png").exists()


def test_members_of_an_ensemble_are_its_rows():
    config = study.SMOKE
    assert training._training(config, "ensemble", "shape").ensemble == config.members == 4
    stacked = {"energy": {"w": np.arange(4)}, "shape": {"w": 10 * np.arange(4)}}
    members = list(training._members(config, "ensemble", stacked))
    assert [(m["energy"]["w"], m["shape"]["w"]) for m in members] == [
        (0, 0), (1, 10), (2, 20), (3, 30),
    ]  # fmt: skip

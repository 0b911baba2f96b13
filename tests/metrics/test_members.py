"""Members in the bins of observables, against simulated truths."""

import math

import numpy as np
import pytest
from scipy import stats

from jgen.estimate import flatten
from jgen.metrics import join_bins, member_bins
from jgen.metrics.members import merge_edges

EDGES = np.linspace(-3, 3, 25)


def bins_of(reference, generated, training=None, smallest=20):
    return member_bins(
        lambda values: EDGES, reference, generated, training=training, smallest=smallest
    )


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
    bins = join_bins(
        [bins_of(reference, generated, training), bins_of(*_first(reference, generated))]
    )
    parts = [merge_edges(EDGES, training[:, k], 20 * 150 / 203) for k in range(2)]
    parts.append(merge_edges(EDGES, reference[:, 0], 20))
    found, start = bins.contents(), 0
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
    without = bins.contents(left_out=7)
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
        pulls = bins_of(reference, generated, train, smallest=30).pulls
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
            one = bins_of(reference, generated, train, smallest=30).contents()
            values.append(np.mean(one.network_variance))
    mean, error = np.mean(found[0.0]), np.std(found[0.0]) / 40**0.5
    assert abs(mean) < 4 * error
    assert np.mean(found[0.15]) > 20 * error


def test_numbers_tell_a_bias_from_a_spread():
    rng = np.random.default_rng(4)
    good = bins_of(*simulated(rng, 6, spread=0.1, columns=40)[1:])
    biased = bins_of(*simulated(rng, 6, spread=0.02, bias=0.3, columns=40)[1:])
    found = {"good": good.metrics(), "biased": biased.metrics()}
    assert abs(found["good"]["coverage_68"].value - 0.6827) < 0.08
    assert found["biased"]["coverage_68"].value < 0.5
    width = found["biased"]["pull_width"]
    assert width.value > 1.5 * width.expected
    errors = {
        name: (m["actual_error"].value, m["predicted_error"].value) for name, m in found.items()
    }
    assert errors["biased"][0] > 4 * errors["biased"][1]
    assert 0.7 < errors["good"][0] / errors["good"][1] < 1.4
    flat = flatten(found)
    assert all(math.isfinite(v) for v in flat.values())
    assert flat["good/coverage_68_expected"] == 0.6827
    assert flat["good/num_bins"] == len(good.truth)
    curve = good.coverage()
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
        width = bins_of(reference, generated, smallest=40).metrics()["pull_width"]
        widths.append(width.value)
        errors.append(width.error)
    observed = ratio * np.std(widths, ddof=1)
    # Four standard errors of a standard deviation of 150.
    assert np.mean(errors) == pytest.approx(observed, rel=4 / (2 * 149) ** 0.5)


def test_bad_input():
    values = np.zeros((100, 2))
    with pytest.raises(ValueError, match="with as many events, 100, got .3, 90, 2"):
        bins_of(values, np.zeros((3, 90, 2)))
    with pytest.raises(ValueError, match="two or more members"):
        bins_of(values, np.zeros((1, 100, 2)))
    with pytest.raises(ValueError, match="no two bins with 20 of 100 events"):
        bins_of(values, np.zeros((3, 100, 2)))

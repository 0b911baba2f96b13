import itertools

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from jgen.amplification import (
    bin_fractions,
    fit_quantile_mse,
    jensen_shannon,
    jsd_equivalent_events,
    mean_and_error,
    median_splits,
    mse_equivalent_events,
    prefix_sizes,
    product_bins,
    quantile_mse,
    quantiles,
    sample_jensen_shannon,
    sample_quantile_edges,
    sample_quantile_mse,
    split_bins,
)


def held(truth, interval):
    return np.mean((interval.low <= truth) & (truth <= interval.high))


@pytest.mark.parametrize(("num_bins", "num"), [(2, 2), (3, 4), (4, 3)])
def test_error_of_a_sample_is_exact(num_bins, num):
    # All ways to throw the events into the bins.
    ways = np.array(list(itertools.product(range(num_bins), repeat=num)))
    fractions = np.stack([np.bincount(way, minlength=num_bins) for way in ways]) / num
    expected = (1 - 1 / num_bins) / (num_bins * num)
    assert np.mean(quantile_mse(fractions)) == pytest.approx(expected, rel=1e-12)
    assert sample_quantile_mse(num_bins, num) == pytest.approx(expected, rel=1e-12)


def test_sample_lines_of_the_paper():
    found = [sample_quantile_mse(num_bins, 100) for num_bins in (10, 20, 50)]
    np.testing.assert_allclose(found, [9.0e-4, 4.75e-4, 1.96e-4], rtol=1e-12)


def test_equivalent_events_of_a_sample_are_its_events():
    for n_gen in (np.inf, 5000):
        mse = sample_quantile_mse(10, 300) + sample_quantile_mse(10, n_gen)
        found = mse_equivalent_events(mse, 10, n_gen)
        assert float(found.value) == pytest.approx(300)
        assert found.low < 300 < found.high
    hidden = mse_equivalent_events(sample_quantile_mse(10, 5000), 10, 4000)
    assert np.isinf(hidden.value)
    assert np.isinf(hidden.high)


def test_intervals_hold_the_size_of_a_sample():
    rng = np.random.default_rng(0)
    for num_bins in (10, 50):
        n, n_gen = 40 * num_bins, 400 * num_bins
        memorised = rng.multinomial(n, np.full(num_bins, 1 / num_bins), size=200) / n
        drawn = rng.multinomial(n_gen, memorised) / n_gen
        assert 0.60 < held(n, mse_equivalent_events(quantile_mse(drawn), num_bins, n_gen)) < 0.76
        divergence = jensen_shannon(drawn, np.full((1, num_bins), 1 / num_bins))
        assert 0.60 < held(n, jsd_equivalent_events(divergence, num_bins, n_gen)) < 0.76


def test_product_bins_are_those_of_numpy():
    rng = np.random.default_rng(1)
    events = rng.normal(size=(2000, 3))
    edges = [sample_quantile_edges(c, 3 + i) for i, c in enumerate(events.T)]
    finite = [np.concatenate([[-2.0], e[1:-1], [2.0]]) for e in edges]
    events[0] = [e[-1] for e in finite]
    events[1] = [e[1] for e in finite]
    counts, _ = np.histogramdd(events, finite)
    bins = product_bins(events, finite)
    np.testing.assert_array_equal(np.bincount(bins[bins >= 0], minlength=60), counts.ravel())
    assert np.sum(bins == -1) == len(events) - counts.sum()
    # Quantile bins without an end lose nothing and hold equal shares.
    one = product_bins(events[2:, 0], edges[:1])
    assert np.ptp(np.bincount(one)) <= 3
    assert product_bins(events, edges).min() == 0


def test_fractions_of_prefixes():
    rng = np.random.default_rng(2)
    bins, sizes = rng.integers(-1, 5, 5000), prefix_sizes(4000, 10)
    found = bin_fractions(bins, 5, sizes)
    expected = [[np.mean(bins[:n] == j) for j in range(5)] for n in sizes]
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def camel_parts():
    """Densities and cumulative functions of the humps, and their derivatives by (mean, width)."""
    pdf, cdf = stats.norm.pdf, stats.norm.cdf

    def density(x, mean):
        z = x - mean
        return pdf(z), np.stack([pdf(z) * z, pdf(z) * (z**2 - 1)])

    def cumulative(x, mean):
        z = np.clip(x - mean, -40, 40)
        return cdf(z), np.stack([-pdf(z), -pdf(z) * z])

    return density, cumulative


@pytest.mark.parametrize(("num_bins", "expected"), [(10, 240.944), (20, 438.849), (50, 1037.995)])
def test_fit_benchmark_of_the_camel_back(num_bins, expected):
    # Expected numbers are from finite differences of scipy's functions.
    # Five parameters: two means, two widths, the share of the hump on the left; n = 100.
    def gradient(function, x):
        (left, by_left), (right, by_right) = function(x, -4.0), function(x, 4.0)
        return (left + right) / 2, np.stack([*by_left / 2, *by_right / 2, left - right], axis=-1)

    density, cumulative = camel_parts()
    x = np.linspace(-14, 14, 20_001)
    p, by = gradient(density, x)
    fisher = np.einsum("xi,xj,x->ij", by, by, 1 / p) * (x[1] - x[0])
    grid = np.linspace(-12, 12, 400_001)
    inner = np.interp(np.arange(1, num_bins) / num_bins, gradient(cumulative, grid)[0], grid)
    _, by = gradient(cumulative, np.concatenate([[-40.0], inner, [40.0]]))
    mse = fit_quantile_mse(np.linalg.inv(fisher) / 100, np.diff(by, axis=0))
    assert float(mse_equivalent_events(mse, num_bins).value) == pytest.approx(expected, abs=1e-2)


def split_by_hand(sample, rows, level, depth):
    """The bins of median splits as lists of rows, by recursion."""
    if level == depth:
        return [rows]
    values = sample[rows, level % sample.shape[1]]
    threshold = np.sort(values)[len(rows) // 2]
    halves = rows[values < threshold], rows[values >= threshold]
    return [b for half in halves for b in split_by_hand(sample, half, level + 1, depth)]


def test_median_splits_are_those_by_hand(monkeypatch):
    monkeypatch.setattr(quantiles, "_CHUNK", 300)
    sample = np.random.default_rng(3).normal(size=(1000, 3))
    splits = median_splits(sample, 5)
    bins = split_bins(splits, sample)
    for number, rows in enumerate(split_by_hand(sample, np.arange(1000), 0, 5)):
        np.testing.assert_array_equal(np.sort(rows), np.flatnonzero(bins == number))
    # Halves differ by one event at most, and fewer levels are the same bins without their bits.
    assert np.ptp(np.bincount(bins, minlength=32)) <= 1
    np.testing.assert_array_equal(split_bins(median_splits(sample, 3), sample), bins >> 2)
    chosen = median_splits(sample, 2, axes=(2, 2))
    thresholds = np.quantile(sample[:, 2], [0.25, 0.5, 0.75])
    by_axis = np.searchsorted(thresholds, sample[:, 2], side="right")
    assert np.mean(split_bins(chosen, sample) == by_axis) > 0.99


def test_ties_stay_together():
    sample = np.repeat([[0.0, 1.0]], 64, axis=0)
    sample[:16, 1] = np.arange(16) / 16
    splits = median_splits(sample, 4)
    bins = split_bins(splits, sample)
    assert len(np.unique(bins[16:])) == 1
    assert np.bincount(bins, minlength=16).sum() == 64


def test_divergence_is_that_of_scipy():
    rng = np.random.default_rng(4)
    g, p = rng.dirichlet(np.ones(20), size=(2, 3))
    g[:, :4], p[:, 3:6] = 0, 0
    g, p = (h / h.sum(axis=-1, keepdims=True) for h in (g, p))
    np.testing.assert_allclose(jensen_shannon(g, p), jensenshannon(g, p, axis=-1) ** 2, rtol=1e-10)
    assert jensen_shannon([1.0, 0.0], [0.0, 1.0]) == pytest.approx(np.log(2))
    assert jensen_shannon(p[0], p[0]) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("q", [4, 64])
def test_expected_divergence_of_samples(q):
    rng = np.random.default_rng(5)
    n, m = 100 * q, 200 * q
    flat = np.full(q, 1 / q)
    g, p = (rng.multinomial(k, flat, size=2000) / k for k in (n, m))
    for one, other, expected in (
        (g, flat[None], sample_jensen_shannon(q, n)),
        (g, p, sample_jensen_shannon(q, n, m)),
    ):
        found = jensen_shannon(one, other)
        # Chi-square of q - 1; the expansion's next order is below half a percent.
        bar = 4 * np.sqrt(2 / (q - 1) / 2000) + 0.005
        assert np.mean(found) == pytest.approx(expected, rel=bar)
        assert np.std(found) == pytest.approx(expected * np.sqrt(2 / (q - 1)), rel=0.1)


def test_bins_of_a_finite_validation_sample_count_its_fluctuations_once():
    rng = np.random.default_rng(6)
    n, m, levels, found = 1000, 3000, 4, []
    for _ in range(150):
        validation, generated = rng.random((m, 2)), rng.random((n, 2))
        splits = median_splits(validation, levels)
        g, p = (
            np.bincount(split_bins(splits, x), minlength=16) / len(x)
            for x in (generated, validation)
        )
        found.append(jensen_shannon(g, p))
    mean, error = mean_and_error(found)
    assert abs(mean - sample_jensen_shannon(16, n, m)) < 3 * error + 0.01 * mean
    assert error == pytest.approx(np.std(found, ddof=1) / np.sqrt(150))
    n_equiv = jsd_equivalent_events(mean, 16, num_validation=m).value
    assert n_equiv == pytest.approx(n, rel=3 * (1 + n / m) * error / mean + 0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample_quantile_edges(np.zeros(9), 3), "same value"),
        (lambda: sample_quantile_edges(np.arange(2), 3), "at least as large"),
        (lambda: product_bins(np.zeros((3, 2)), [np.arange(3)]), "2 coordinates"),
        (lambda: product_bins(np.zeros(3), [np.array([0.0, 0.0])]), "increasing numbers"),
        (lambda: product_bins(np.array([np.nan]), [np.arange(2)]), "NaN"),
        (lambda: bin_fractions(np.array([0, 3]), 2, np.array([1])), "from -1 to 1"),
        (lambda: bin_fractions(np.array([0, 1]), 2, np.array([3])), "at most 2"),
        (lambda: fit_quantile_mse(np.eye(2), np.zeros((4, 3))), "jacobian"),
        (lambda: mse_equivalent_events(0.1, 1), "from 2 to"),
        (lambda: mse_equivalent_events(0.1, 3, level=68), "between 0 and 1"),
        (lambda: mean_and_error([1.0]), "two repetitions"),
        (lambda: median_splits(np.zeros((7, 2)), 3), "cannot fill the 8 bins"),
        (
            lambda: median_splits(np.zeros((9, 2)), 2, axes=(0, 2)),
            "numbers from 0 to 1",
        ),
        (lambda: split_bins(median_splits(np.zeros((9, 2)), 2), np.zeros(3)), "observable 1"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

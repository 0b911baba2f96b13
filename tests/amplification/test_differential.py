import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jgen.amplification import (
    differential,
    differential_amplification,
    differential_on_training_set,
    equivalent_events,
    expected_distance,
    kolmogorov_band,
    ks_distances,
    log_density_ratio,
    prefix_sizes,
    refinement_mask,
)
from jgen.amplification.kolmogorov import (
    MEAN,
    STD,
    kolmogorov_cdf,
    kolmogorov_quantile,
    size_interval,
)

LEVELS = (0.682689, 0.954500, 0.997300)


def held(truth, interval):
    return np.mean((interval.low <= truth) & (truth <= interval.high))


def normal_grid(mean, width, num):
    """Values without fluctuations of their own, in an order that makes every prefix fair."""
    u = (np.arange(num) + 0.5) / num
    return mean + width * stats.norm.ppf(np.random.default_rng(0).permutation(u))


def test_moments_and_quantiles_of_the_kolmogorov_distribution():
    assert pytest.approx(stats.kstwobign.mean(), rel=1e-8) == MEAN
    assert pytest.approx(stats.kstwobign.std(), rel=1e-6) == STD
    p = np.array([0.01, 0.16, 0.5, 0.84, 0.999])
    np.testing.assert_allclose(kolmogorov_quantile(p), stats.kstwobign.ppf(p), rtol=1e-6)
    np.testing.assert_allclose(kolmogorov_cdf(kolmogorov_quantile(p)), p, rtol=1e-9)
    bands = [kolmogorov_band(level) for level in LEVELS]
    np.testing.assert_allclose(bands, [(0.617, 1.126), (0.476, 1.496), (0.381, 1.911)], atol=6e-4)


def test_printed_band_covers_more_than_it_says():
    low, high = kolmogorov_band(LEVELS[0], printed=True)
    assert (low, high) == pytest.approx((-0.0907, 1.8282), abs=1e-4)
    assert float(stats.kstwobign.cdf(high)) == pytest.approx(0.9975, abs=1e-4)


@pytest.mark.parametrize("level", LEVELS[:2])
@pytest.mark.parametrize("n", [10.0, 300.0, 1000.0, 5000.0, 1e6, np.inf])
def test_size_interval_covers_every_size_exactly_and_is_never_empty(n, level):
    # Evenly spaced quantiles of K instead of random ones: the coverage without fluctuations.
    k = kolmogorov_quantile((np.arange(10_000) + 0.5) / 10_000)
    low, high = size_interval(k * np.sqrt(1 / n + 1e-3), 1e-3, level)
    assert np.mean((low <= n) & (n <= high)) == pytest.approx(level, abs=2e-3)
    assert np.all(low < np.inf)
    assert np.all(low < high)
    # A distance that a perfect generator exceeds often enough gives a limit.
    limit = k * np.sqrt(1 / n + 1e-3) < np.sqrt(1e-3) * kolmogorov_quantile(level)
    np.testing.assert_array_equal(np.isinf(high), limit)


@pytest.mark.parametrize("n", [500.0, 2000.0, 20_000.0])
def test_size_interval_orders_measurements_by_their_likelihood_ratio(n):
    # By brute force: distances in units of the floor, likelihoods of all scales of at least one.
    k, scale = np.linspace(0.1, 4, 2000), np.sqrt(1 + 1000 / n)
    likelihood = stats.kstwobign.pdf(k / scale) / scale
    scales = np.geomspace(1, 6, 1500)
    each = np.log(np.maximum(stats.kstwobign.pdf(k[:, None] / scales[None]), 1e-300))
    best = np.max(each - np.log(scales)[None], axis=1)
    order = np.argsort(best - np.log(np.maximum(likelihood, 1e-300)))
    accepted = np.zeros(len(k), bool)
    accepted[order[np.cumsum(likelihood[order]) * (k[1] - k[0]) < LEVELS[0]]] = True
    low, high = size_interval(k / np.sqrt(1000), 1e-3)
    assert np.sum(((low <= n) & (n <= high)) != accepted) <= 4


@pytest.mark.parametrize("ties", [False, True])
def test_distances_of_all_prefixes_equal_those_of_scipy(ties, monkeypatch):
    monkeypatch.setattr(differential, "_CHUNK", 97)
    rng = np.random.default_rng(1)
    values, reference = rng.normal(0.1, 1, 3000), rng.normal(size=401)
    if ties:
        values, reference = values.round(1), reference.round(1)
        values[:5], reference[:3] = -np.inf, np.inf
    sizes = np.array([1, 2, 3, 50, 97, 98, 400, 401, 2999, 3000])
    expected = [stats.ks_2samp(values[:n], reference, method="asymp").statistic for n in sizes]
    np.testing.assert_array_equal(ks_distances(reference, values, sizes), expected)
    single = values.astype(np.float32)
    expected = [stats.ks_2samp(single[:n], reference, method="asymp").statistic for n in sizes]
    np.testing.assert_array_equal(ks_distances(reference, single, sizes), expected)


def test_sizes_are_even_in_the_logarithm():
    np.testing.assert_array_equal(prefix_sizes(10_000, 10, 1), [10, 100, 1000, 10_000])
    sizes = prefix_sizes(54_321)
    assert sizes[0] == 100
    assert sizes[-1] == 54_321
    assert np.all(np.diff(sizes) > 0)
    np.testing.assert_array_equal(prefix_sizes(5, 5), [5])


def test_truth_against_truth_stays_in_the_bands_at_the_stated_rates():
    rng = np.random.default_rng(2)
    num, n, m = 500, 400, 4000
    d = [ks_distances(rng.random(n), rng.random(m), np.array([50, m])) for _ in range(num)]
    for i, size in enumerate((50, m)):
        distances = np.array(d)[:, i]
        for level in LEVELS:
            low, high = (expected_distance(n, size, k) for k in kolmogorov_band(level))
            inside = np.mean((distances > low) & (distances < high))
            # Small samples differ by discrete steps of the distance; see the module.
            assert inside == pytest.approx(level, abs=3 * np.sqrt(level * (1 - level) / num) + 4e-3)
    assert np.mean(distances) == pytest.approx(expected_distance(n, m), rel=0.04)


@pytest.mark.parametrize("n_equiv", [150, 1000, 4000])
def test_interval_holds_the_size_of_a_memorised_sample(n_equiv):
    rng = np.random.default_rng(3)
    n_ref, n_gen, repetitions = 1000, 10_000, 200
    distances = []
    for _ in range(repetitions):
        values = rng.choice(rng.random(n_equiv), n_gen)
        distances.append(ks_distances(rng.random(n_ref), values, np.array([n_gen]))[0])
    found = equivalent_events(np.array(distances), n_ref, n_gen)
    assert 0.60 < held(n_equiv, found) < 0.76
    # Eq. 36 with the distance's mean, whose error is that of K's mean.
    error = 3 * STD / MEAN / np.sqrt(repetitions) + 0.01
    scale = (np.mean(distances) / MEAN) ** 2 - 1 / n_ref - 1 / n_gen
    assert abs(scale * n_equiv - 1) < 2 * error * n_equiv * (1 / n_equiv + 1 / n_ref + 1 / n_gen)


def test_forecast_solves_the_papers_equation():
    reference = (np.arange(1000) + 0.5) / 1000
    values = reference[reference > 0.1]  # distance exactly 0.1
    found = differential_amplification(values, reference, 500, np.array([900]))
    assert found.distances[-1] == pytest.approx(0.1)
    expected = 1 / ((0.1 / MEAN) ** 2 - 1 / 1000 - 1 / 900)
    assert float(found.n_equiv.value) == pytest.approx(expected)
    assert float(found.amplification.value) == pytest.approx(expected / 500)
    assert found.n_equiv.low < expected < found.n_equiv.high
    paper = differential_on_training_set(values, reference, np.array([900]))
    assert float(paper.n_equiv.value) == pytest.approx(1 / ((0.1 / MEAN) ** 2 - 1 / 1000))
    k = kolmogorov_band(printed=True)[1]
    assert float(paper.n_equiv.high) == pytest.approx(1 / ((0.1 / k) ** 2 - 1 / 1000))
    assert paper.n_equiv.low == 0
    perfect = differential_amplification(reference, reference, 500)
    assert np.isinf(perfect.n_equiv.value)
    assert np.isinf(perfect.n_equiv.high)
    assert perfect.probability < 1e-6


def test_memoriser_is_worth_nothing_but_its_training_events():
    rng = np.random.default_rng(4)
    n, n_gen, held_out = 500, 20_000, []
    for _ in range(60):
        training = rng.random(n)
        values = rng.choice(training, n_gen)
        paper = differential_on_training_set(values, training)
        assert np.isinf(paper.n_equiv.value)
        assert paper.probability < 1e-3
        held_out.append(differential_amplification(values, rng.random(4 * n), n).distances[-1])
    value = equivalent_events(np.mean(held_out), 4 * n, n_gen).value / n
    assert value == pytest.approx(1.0, abs=3 * 2 * STD / MEAN / np.sqrt(60) * 1.3)


def test_a_fit_seems_perfect_on_its_own_training_set():
    """A Gaussian's mean and width fitted to 1000 events, 600 times; grids have no noise."""
    rng, grid, truth = (
        np.random.default_rng(5),
        normal_grid(0, 1, 20_000),
        normal_grid(0, 1, 20_001),
    )
    own, true = [], []
    for data in rng.normal(size=(600, 1000)):
        fitted, size = data.mean() + data.std() * grid, np.array([len(grid)])
        own.append(ks_distances(data, fitted, size)[0] * np.sqrt(1000))
        true.append(ks_distances(truth, fitted, size)[0])
    assert np.mean(own) == pytest.approx(0.637, abs=4 * np.std(own) / np.sqrt(600))
    infinite = np.mean(np.array(own) <= MEAN)
    assert infinite == pytest.approx(0.92, abs=4 * np.sqrt(0.92 * 0.08 / 600))
    # Against the truth the same fits are worth about 4.7 times their training set.
    assert (MEAN / np.mean(true)) ** 2 / 1000 == pytest.approx(4.7, rel=0.12)


@pytest.mark.parametrize("width", [0.2, 1.0])
def test_a_shifted_radius_loses_amplification(width):
    rng = np.random.default_rng(7)
    held_out = rng.normal(1, 0.1, 2000)
    good = differential_amplification(rng.normal(1, 0.1, 50_000), held_out, 1000)
    spoiled = differential_amplification(rng.normal(1 + 0.1 * width, 0.1, 50_000), held_out, 1000)
    assert good.n_equiv.high > spoiled.n_equiv.high
    # The largest gap of two normal distributions shifted by s widths is 2 Phi(s / 2) - 1.
    gap = 2 * stats.norm.cdf(width / 2) - 1
    assert abs(spoiled.distances[-1] - gap) < 3 * STD / np.sqrt(2000) + 1 / np.sqrt(2000)
    assert spoiled.amplification.high < 0.25


def test_density_ratio_is_exact_and_refinement_keeps_its_window():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(1003, 2)).astype(np.float32)
    found = log_density_ratio(
        lambda x: -0.5 * jnp.sum(x**2), lambda x: -0.5 * jnp.sum((x - 0.1) ** 2), x, batch_size=100
    )
    expected = 0.01 - 0.1 * x.sum(axis=1)
    np.testing.assert_allclose(found, expected, atol=3e-6)
    mask = refinement_mask(found)
    np.testing.assert_array_equal(mask, (np.exp(found) >= 0.95) & (np.exp(found) <= 1.05))
    assert 0 < mask.sum() < len(mask)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ks_distances([1.0], [1.0, np.nan], np.array([1])), "1 of 2 values are NaN"),
        (lambda: ks_distances([], [1.0], np.array([1])), "reference need the shape"),
        (lambda: ks_distances([1.0], [1.0, 2.0], np.array([1, 3])), "at most the 2 values"),
        (lambda: ks_distances([1.0], [1.0, 2.0], np.array([1.0])), "must be integers"),
        (lambda: prefix_sizes(10), "between 1 and the 10"),
        (lambda: kolmogorov_band(68), "between 0 and 1"),
        (lambda: size_interval(np.array(-0.1), 0.1), "zero or positive"),
        (lambda: equivalent_events(0.1, 0), "must be positive"),
        (lambda: refinement_mask(np.zeros(2), 1.05, 0.95), "0 < low < high"),
        (lambda: log_density_ratio(None, None, np.zeros((0, 2))), "no events"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

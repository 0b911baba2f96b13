"""Averaging amplification: formulas by hand, coverage of its intervals, generators of known G."""

import jax
import numpy as np
import pytest
from scipy import stats

from jgen.amplification import (
    averaging_amplification,
    calibration,
    region_fractions,
    true_amplification,
)
from jgen.generative_model import draw_chunks
from jgen.toys import (
    bootstrap_weights,
    ideal_amplification,
    memoriser,
    normal_probability,
    quantile_edges,
    radial_fit,
    ring,
)

RADII = quantile_edges(ring().marginals[0], 20)


def holds(interval, truth):
    return (interval.low <= truth) & (truth <= interval.high)


def test_fractions_of_prefixes_by_hand():
    values = np.array([0.5, 2.0, -1.0, 1.0, 3.0, 0.0, 9.0, 2.5], np.float32)
    found = region_fractions(values, [0.0, 1.0, 3.0], [1, 4, 5, 8])
    # [0, 1) and [1, 3], the last edge included; -1 and 9 are nowhere.
    expected = [[1, 0], [1 / 4, 2 / 4], [1 / 5, 3 / 5], [2 / 8, 4 / 8]]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("cuts", [(), (1,), (300, 301, 700), (500, 1000)])
def test_fractions_do_not_depend_on_chunks(cuts):
    values = np.random.default_rng(0).normal(size=1000)
    sizes, edges = [1, 299, 300, 500, 501, 950], [-np.inf, -1.0, 0.3, 2.0]
    counts = [np.histogram(np.clip(values[:n], -9, 9), [-10, -1.0, 0.3, 2.0])[0] for n in sizes]
    found = region_fractions(iter(np.split(values, cuts)), edges, sizes)
    np.testing.assert_array_equal(found, np.array(counts) / np.array(sizes)[:, None])
    np.testing.assert_array_equal(region_fractions(values, edges, sizes), found)


def test_long_arrays_are_read_in_pieces():
    rng = np.random.default_rng(1)
    values = rng.random(2_200_001, np.float32)
    edges, sizes = np.linspace(0, 1, 5), [10, 1 << 20, (1 << 20) + 1, 2_200_001]
    found = region_fractions(values, edges, sizes)
    expected = [np.histogram(values[:n], edges)[0] / n for n in sizes]
    np.testing.assert_array_equal(found, expected)


def test_formulas_by_hand():
    """Two regions, three members, one size; Eqs. 14-19 with numbers."""
    fractions = np.array([[[0.10, 0.5]], [[0.12, 0.5]], [[0.14, 0.5]]])
    found = averaging_amplification(fractions, [1000], 200)
    np.testing.assert_allclose(found.integrals, [[0.12, 0.5]])
    assert found.variance == pytest.approx(0.02**2)
    binomial = 0.12 * 0.88 + 0.25
    assert found.stat_variance == pytest.approx(binomial / 1000)
    model = 0.02**2 - binomial / 1000
    assert found.model_variance == pytest.approx(model)
    assert found.n_equiv.value == pytest.approx(binomial / model)
    assert found.amplification.value == pytest.approx(binomial / model / 200)
    # All of the variance is in one region: two degrees of freedom.
    assert found.degrees_of_freedom == pytest.approx(2)
    quantiles = stats.chi2.ppf([0.025, 0.975], 2)
    wide = averaging_amplification(fractions, [1000], 200, level=0.95)
    low, high = 2 * 0.02**2 / quantiles - binomial / 1000
    assert wide.n_equiv.low == pytest.approx(binomial / low)
    assert high < 0
    assert wide.n_equiv.high == np.inf


def test_deviations_from_the_truth_by_hand():
    fractions = np.array([[[0.1]], [[0.3]]])
    found = true_amplification([0.25], fractions, [50], 10)
    variance = (0.15**2 + 0.05**2) / 2
    assert found.variance == pytest.approx(variance)
    assert found.degrees_of_freedom == 2
    assert found.n_equiv.value == pytest.approx(0.1875 / (variance - 0.1875 / 50))


@pytest.mark.parametrize("noise", [0.3, 3.0])
def test_degrees_of_freedom_of_correlated_regions(noise):
    """Against the moments of a simulated sum of variances, for members that are few."""
    rng = np.random.default_rng(2)
    members, regions, repetitions = 8, 12, 4000
    root = rng.normal(size=(2, regions))  # two parameters move all regions
    x = rng.normal(size=(repetitions, members, 2)) @ root
    x = 0.5 + 1e-3 * np.swapaxes(x + noise * rng.normal(size=x.shape), 0, 1)
    covariance = root.T @ root + noise**2 * np.eye(regions)
    expected = (members - 1) * np.trace(covariance) ** 2 / np.trace(covariance @ covariance)
    # Each repetition takes the place of a size.
    found = averaging_amplification(x, np.full(repetitions, np.inf), 1)
    moment = 2 * found.variance.mean() ** 2 / found.variance.var()
    assert moment == pytest.approx(expected, rel=5 * (2 / repetitions) ** 0.5)
    # A ratio of two estimates is somewhat off; with tr(S^2) as it is there would be 29 of 75.
    mean = 1 / np.mean(1 / found.degrees_of_freedom)
    assert mean == pytest.approx(expected, rel=0.15)
    one = averaging_amplification(x[..., :1], np.full(repetitions, np.inf), 1)
    np.testing.assert_array_equal(one.degrees_of_freedom, members - 1)


def synthetic(seed, *, members, model, num_gen, regions=1):
    """200 studies of `members` with normal errors of two parameters and binomial noise.

    Returns fractions [members, 200, regions], the repetitions in the place of sizes.
    """
    rng = np.random.default_rng(seed)
    p = np.full(regions, 0.05)
    direction = np.stack([np.ones(regions), np.linspace(-1, 1, regions)])
    direction *= model / np.linalg.norm(direction)
    shifts = rng.normal(size=(members, 200, 2)) @ direction
    rest = 1 - (p + shifts).sum(axis=-1, keepdims=True)
    counts = rng.multinomial(num_gen, np.concatenate([p + shifts, rest], axis=-1))
    return counts[..., :-1] / num_gen, np.sum(p * (1 - p)) / model**2


@pytest.mark.parametrize(
    ("members", "regions", "num_gen"),
    [(10, 1, 10**7), (10, 1, 150_000), (50, 1, 10**6), (10, 15, 10**7), (50, 15, 10**6)],
)  # fmt: skip
def test_intervals_cover(members, regions, num_gen):
    """68% intervals hold the truth in 60 to 76% of 200 studies; sampling noise small or large."""
    model = 1e-3 if regions == 1 else 3e-3
    fractions, truth = synthetic(3, members=members, model=model, num_gen=num_gen, regions=regions)
    found = averaging_amplification(fractions, np.full(200, num_gen), 1)
    covered = np.mean(holds(found.n_equiv, truth))
    assert 0.60 <= covered <= 0.76
    # Both sides miss; the estimate is where the truth is.
    assert np.mean(found.n_equiv.low > truth) > 0.08
    assert np.mean(found.n_equiv.high < truth) > 0.08
    # Claims of twice the spread would not pass.
    assert np.mean(holds(found.n_equiv, 4 * truth)) < 0.5


def test_a_hidden_model_variance_gives_lower_limits():
    """sigma_model far below the noise: negative half of the time, limits that hold, never NaN."""
    members, num_gen = 10, 10_000
    fractions, truth = synthetic(4, members=members, model=1e-5, num_gen=num_gen)
    found = averaging_amplification(fractions, np.full(200, num_gen), 100)
    negative = found.model_variance <= 0
    assert 0.4 < np.mean(negative) < 0.75
    assert np.all(np.isinf(found.n_equiv.value[negative]))
    assert np.all(np.isinf(found.n_equiv.high[negative]))
    limits = found.n_equiv.low
    assert np.all(np.isfinite(limits) & (limits > 0))
    # Not stronger than that of s^2 = I (1 - I) / n_gen, by hand.
    strongest = num_gen / (9 / stats.chi2.ppf(stats.norm.cdf(-1), 9) - 1)
    np.testing.assert_allclose(limits[negative], strongest, rtol=1e-9)
    assert np.all(limits <= strongest * (1 + 1e-9))
    assert np.mean(holds(found.n_equiv, truth)) > 0.60
    np.testing.assert_allclose(found.amplification.low, limits / 100)


def test_members_that_coincide_and_empty_regions():
    same = averaging_amplification(np.full((5, 1, 1), 0.2), [np.inf], 10)
    assert same.model_variance == 0
    assert same.amplification.value == same.amplification.low == np.inf
    # No event yet in a rare region says nothing.
    empty = averaging_amplification(np.zeros((5, 1, 1)), [100], 10)
    assert (empty.n_equiv.low, empty.n_equiv.high) == (0, np.inf)


@pytest.fixture(scope="module")
def ring_members():
    """Fractions [sets, members, sizes, regions] of bootstrap members of the radial fit.

    Exact integrals, plus members of data sets of their own in `independent` [members, regions].
    """
    num_sets, members, num_train = 40, 50, 1000
    fit = radial_fit(2)

    def one(key):
        key_data, key_weights = jax.random.split(key)
        data = jax.vmap(ring().sample)(jax.random.split(key_data, num_train))
        weight = jax.vmap(lambda k: bootstrap_weights(k, num_train))(
            jax.random.split(key_weights, members)
        )
        return fit.fit(data, None), jax.vmap(fit.fit, in_axes=(None, 0))(data, weight)

    centres, params = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(5), num_sets))
    integrals = lambda p: normal_probability(
        RADII[:-1],
        RADII[1:],
        np.asarray(p["mean"], np.float64)[..., None],
        np.asarray(p["width"], np.float64)[..., None],
    )
    return integrals(centres), integrals(params)[:, :, None]


REGIONS = {"2": slice(1, 2), "2-19": slice(1, 19), "20": slice(19, 20)}


@pytest.mark.parametrize(("name", "expected"), [("2", 7.0), ("2-19", 20.8), ("20", 1.9)])
def test_the_ring_fit_has_its_known_amplification(ring_members, name, expected):
    """Bootstrap members of 40 data sets of 1000, and the deviations of the 40 fits themselves."""
    centres, members = ring_members
    rows = REGIONS[name]
    exact = ideal_amplification(RADII[:-1][rows], RADII[1:][rows], 1.0, 0.1, num_train=1000)
    assert exact == pytest.approx(expected, abs=0.1)
    found = [averaging_amplification(f[..., rows], [np.inf], 1000) for f in members]
    # 1 / G is what is linear in variances; its mean over data sets has no bias but curvature.
    inverse = np.array([1 / f.amplification.value[0] for f in found])
    error = inverse.std(ddof=1) / len(inverse) ** 0.5
    assert abs(inverse.mean() - 1 / exact) < 4 * error
    assert error * exact < 0.06
    truth = np.full(20, 0.05)[rows]
    true = true_amplification(truth, centres[:, None, rows], [np.inf], 1000, level=0.997)
    assert holds(true.amplification, exact)
    assert not holds(true.amplification, 3 * exact)
    # Not every data set alike: intervals hold the value of all data sets for about as many.
    assert 0.4 < np.mean([holds(f.amplification, exact) for f in found]) < 0.9


def test_the_ring_fit_from_generated_events():
    """Ten members, 10^5 events each, from draw_chunks to the interval; and the memoriser."""
    key = jax.random.key(6)
    data = jax.vmap(ring().sample)(jax.random.split(key, 200))
    sizes = [1000, 10_000, 40_000]
    found = {}
    for name, fit in {"fit": radial_fit(2), "memoriser": memoriser()}.items():
        fractions = []
        for i in range(10):
            params = fit.fit(data, bootstrap_weights(jax.random.fold_in(key, i), 200))
            chunks = draw_chunks(fit.sample, params, key, sizes[-1], batch_size=10_000)
            radii = (np.linalg.norm(x, axis=1) for x in chunks)
            fractions.append(region_fractions(radii, RADII, sizes))
        found[name] = averaging_amplification(
            np.array(fractions)[..., 1:19], sizes, 200, level=0.997
        )
    exact = ideal_amplification(RADII[1:19], RADII[2:20], 1.0, 0.1, num_train=200)
    amplification = found["fit"].amplification
    assert amplification.low[-1] < exact < amplification.high[-1]
    memory = found["memoriser"].amplification
    assert memory.low[-1] < 1 < memory.high[-1] < 4
    assert memory.high[-1] < amplification.low[-1]


def test_calibration_sees_a_common_bias():
    rng = np.random.default_rng(7)
    truth, spread = np.full(400, 0.05), 1e-3
    centre = truth + spread * rng.normal(size=400)
    fractions = centre + spread * rng.normal(size=(8, 400))
    found = calibration(truth, fractions)
    assert stats.kstest(found.mean.values, stats.t(7).cdf).pvalue > 0.01
    assert found.members.shape == (8, 400)
    by_hand = (fractions[2, 9] - 0.05) / (2**0.5 * np.std(fractions[:, 9], ddof=1))
    assert found.members[2, 9] == pytest.approx(by_hand)
    biased = calibration(truth, fractions + 5 * spread)
    assert np.median(biased.mean.values) > 3
    # The spread of members does not change by it.
    before, after = (
        averaging_amplification(f[:, None], [np.inf], 1) for f in (fractions, fractions + 5e-3)
    )
    np.testing.assert_allclose(before.variance, after.variance)


def test_bad_input():
    good = np.full((3, 2, 1), 0.1)
    for call, message in (
        (lambda: region_fractions([0.0], [0, 1], [1, 1]), "increasing positive numbers"),
        (lambda: region_fractions(np.zeros(3), [0, 0], [1]), "increasing numbers, got"),
        (lambda: region_fractions(np.zeros(3), [0, 1], [4]), "there are 3 values"),
        (lambda: region_fractions(np.array([0, np.nan]), [0, 1], [2]), "1 of 2 values are NaN"),
        (lambda: region_fractions(np.zeros((3, 1)), [0, 1], [2]), "one observable"),
        (lambda: averaging_amplification(good[:1], [1, 2], 1), "two or more members"),
        (lambda: averaging_amplification(good[0], [1, 2], 1), r"\[members, sizes, regions\]"),
        (lambda: averaging_amplification(good, [1], 1), r"\[members, sizes, regions\]"),
        (lambda: averaging_amplification(20 * good, [1, 2], 1), "between 0 and 1"),
        (lambda: averaging_amplification(good, [1, 2], 0), "must be positive"),
        (
            lambda: averaging_amplification(good, [1, 2], 1, level=1.0),
            "level must be between",
        ),
        (lambda: true_amplification([0.1, 0.2], good, [1, 2], 1), "1 probabilities"),
        (lambda: calibration([2.0], good[:, 0]), "1 probabilities"),
    ):
        with pytest.raises(ValueError, match=message):
            call()

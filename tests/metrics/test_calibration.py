import numpy as np
import pytest
from scipy import stats

from jgen.metrics.calibration import calibration_curve, coverage, pulls

LEVELS = np.array([0.3, 0.6827, 0.95])


def ensemble(members, num, *, seed=0, spread=1.0):
    """Members and truth alike around a centre, in quantities of different widths.

    `spread` times the deviations of the members from their mean is what they claim.
    """
    rng = np.random.default_rng(seed)
    centre, width = rng.normal(size=num), np.exp(rng.normal(size=num))
    values = centre + width * rng.normal(size=(members + 1, num))
    predictions, truth = values[:-1], values[-1]
    mean = predictions.mean(axis=0)
    return truth, mean + spread * (predictions - mean)


def test_pulls_of_calibrated_members_follow_student():
    found = pulls(*ensemble(5, 20_000))
    assert np.all(found.degrees_of_freedom == 4)
    assert stats.kstest(found.values, stats.t(4).cdf).pvalue > 0.01
    # A normal distribution, and half the spread, are excluded.
    assert stats.kstest(found.values, stats.norm.cdf).pvalue < 1e-6
    narrow = pulls(*ensemble(5, 20_000, spread=0.5))
    assert stats.kstest(narrow.values, stats.t(4).cdf).pvalue < 1e-6
    np.testing.assert_allclose(narrow.values, 2 * found.values, rtol=1e-9)


def test_expected_width():
    found = pulls(*ensemble(9, 40_000))
    assert found.expected_width == pytest.approx((8 / 6) ** 0.5)
    # The variance of t_8 has the kurtosis 3 + 6 / (8 - 4).
    error = found.expected_width * (3.5 / 40_000) ** 0.5 / 2
    assert abs(found.width - found.expected_width) < 4 * error
    assert pulls(*ensemble(5, 10)).expected_width == pytest.approx(2**0.5)
    assert pulls(*ensemble(3, 10)).expected_width == np.inf


def test_pull_by_hand():
    predictions = np.array([[1.0], [3.0], [5.0]])  # mean 3, variance 4
    assert pulls([0.0], predictions).values == pytest.approx(3 / (4 * 4 / 3) ** 0.5)
    found = pulls([0.0], predictions, 2.0)
    assert found.values == pytest.approx(3 / (4 * 4 / 3 + 4) ** 0.5)
    # Welch-Satterthwaite: (a + b)^2 / (a^2 / 2) with a = 16 / 3, b = 4.
    assert found.degrees_of_freedom == pytest.approx((28 / 3) ** 2 / ((16 / 3) ** 2 / 2))


def test_truth_error_alone_is_normal():
    found = pulls(np.array([0.0, 1.0]), np.ones((3, 2)), 0.5)
    np.testing.assert_allclose(found.values, [2, 0])
    assert np.all(np.isinf(found.degrees_of_freedom))
    assert found.expected_width == 1
    covered = coverage(np.array([0.0, 1.0]), np.ones((3, 2)), [0.5, 0.99], truth_error=0.5)
    np.testing.assert_allclose(covered.observed, [0.5, 1])


@pytest.mark.parametrize("members", [2, 5, 40])
@pytest.mark.parametrize("interval", ["student", "normal", "quantile"])
def test_coverage_of_calibrated_members_is_the_expected_one(interval, members):
    found = coverage(*ensemble(members, 20_000), LEVELS, interval=interval)
    np.testing.assert_array_less(np.abs(found.observed - found.expected), 4 * found.error)
    np.testing.assert_array_less(found.error, 0.5 / 20_000**0.5 + 1e-12)
    if interval != "normal":
        np.testing.assert_allclose(found.expected, LEVELS)
    narrow = coverage(*ensemble(members, 20_000, spread=0.5), LEVELS, interval=interval)
    off = np.abs(narrow.observed - narrow.expected) > 4 * narrow.error
    # Two or five members' ranks cannot see much above the level (M - 1) / (M + 1).
    assert np.all(off[LEVELS < (members - 1) / (members + 1)] if interval == "quantile" else off)
    assert np.any(off)


def test_error_is_the_spread_of_repeated_coverages():
    for interval in ("student", "normal", "quantile"):
        found = [coverage(*ensemble(4, 50, seed=i), LEVELS, interval=interval) for i in range(400)]
        spread = np.std([f.observed for f in found], axis=0)
        np.testing.assert_allclose(spread, found[0].error, rtol=4 * (1 / 800) ** 0.5)


def test_normal_intervals_of_few_members_cover_less():
    """One sigma of five: |t_4| < (1 + 1/5)^(-1/2); of very many, the level itself."""
    truth, predictions = ensemble(5, 10)
    level = [2 * stats.norm.cdf(1) - 1]
    found = coverage(truth, predictions, level, interval="normal")
    assert found.expected == pytest.approx(2 * stats.t(4).cdf(1.2**-0.5) - 1)
    truth, predictions = ensemble(5000, 10)
    found = coverage(truth, predictions, level, interval="normal")
    assert found.expected == pytest.approx(level, abs=2e-4)


def test_truth_errors_widen_the_intervals():
    truth, predictions = ensemble(5, 20_000)
    error = np.linspace(0.2, 2, 20_000)
    noisy = truth + error * np.random.default_rng(1).normal(size=20_000)
    for interval in ("student", "normal"):
        found = coverage(noisy, predictions, LEVELS, interval=interval, truth_error=error)
        # Welch-Satterthwaite is an approximation.
        np.testing.assert_allclose(found.observed, found.expected, atol=0.02)
        without = coverage(noisy, predictions, LEVELS, interval=interval)
        assert np.all(without.observed < without.expected - 0.05)


@pytest.mark.parametrize("counts", [False, True])
def test_ranks_hold_their_level_for_any_distribution(counts):
    """Also for small counts, with their ties."""
    rng = np.random.default_rng(5)
    shape = (8, 20_000)
    values = rng.poisson(1.5, shape) if counts else rng.exponential(size=shape)
    predictions, truth = values[:-1], values[-1]
    found = coverage(truth, predictions, LEVELS, interval="quantile")
    np.testing.assert_array_less(np.abs(found.observed - LEVELS), 4 * found.error)
    shifted = coverage(truth + 2, predictions, LEVELS, interval="quantile")
    assert np.all(np.abs(shifted.observed - LEVELS)[:2] > 0.1)


def test_ranks_by_hand():
    """Truth above one of three members has the probability [1/4, 1/2], of which half is inside."""
    predictions = np.array([[0.0], [2.0], [3.0]])
    found = coverage([1.0], predictions, [0.25, 0.5, 0.9], interval="quantile")
    np.testing.assert_allclose(found.observed, [0.5, 1, 1])
    tied = coverage([2.0], predictions, [0.25, 0.5], interval="quantile")
    np.testing.assert_allclose(tied.observed, [0.5, 1])


def test_calibration_curve_is_the_diagonal_for_few_members():
    truth, predictions = ensemble(5, 40_000)
    found = calibration_curve(truth, predictions, num_bins=8)
    np.testing.assert_array_less(np.abs(found.observed - found.predicted), 4 * found.error)
    assert found.predicted[-1] > 5 * found.predicted[0]
    narrow = calibration_curve(*ensemble(5, 40_000, spread=0.5), num_bins=8)
    assert np.all(narrow.observed - narrow.predicted > 4 * narrow.error)


def test_calibration_curve_sees_a_spread_that_is_right_only_on_average():
    """Small deviations with spreads of large ones, and the other way round."""
    rng = np.random.default_rng(2)
    width = np.repeat([1.0, 3.0], 5000)
    truth = width * rng.normal(size=10_000)
    predictions = width[::-1] * rng.normal(size=(50, 10_000))
    found = calibration_curve(truth, predictions, num_bins=2)
    # Means of 25 members have a fifth of the spread that is predicted.
    np.testing.assert_allclose(found.predicted, [1.04**0.5, 9.36**0.5], rtol=0.02)
    np.testing.assert_allclose(found.observed, [9.04**0.5, 1.36**0.5], rtol=0.05)


def test_calibration_curve_with_truth_errors_and_its_error():
    rng = np.random.default_rng(3)
    deviation = []
    for _ in range(300):
        values = rng.normal(size=(5, 100))
        truth = values[-1] + 2 * rng.normal(size=100)
        found = calibration_curve(truth, values[:-1], num_bins=1, truth_error=2.0)
        deviation.append((found.observed[0] - found.predicted[0]) / found.error[0])
    assert abs(np.mean(deviation)) < 0.4
    assert np.std(deviation) == pytest.approx(1, abs=0.25)


def test_quantities_may_have_any_shape():
    truth, predictions = ensemble(6, 24)
    shaped = pulls(truth.reshape(4, 6), predictions.reshape(6, 4, 6))
    np.testing.assert_array_equal(shaped.values.ravel(), pulls(truth, predictions).values)
    for interval in ("student", "normal", "quantile"):
        a = coverage(truth, predictions, LEVELS, interval=interval)
        b = coverage(truth.reshape(4, 6), predictions.reshape(6, 4, 6), LEVELS, interval=interval)
        np.testing.assert_array_equal(a.observed, b.observed)
    a = calibration_curve(truth, predictions, num_bins=3)
    b = calibration_curve(truth.reshape(4, 6), predictions.reshape(6, 4, 6), num_bins=3)
    np.testing.assert_array_equal(a.observed, b.observed)
    assert pulls(truth[0], predictions[:, 0]).values.shape == ()


def test_bad_input():
    good, truth = np.arange(12.0).reshape(4, 3), np.zeros(3)
    cases = {
        "two or more members": (good[:1], truth),
        r"\[members, \*truth\]": (good, np.zeros(4)),
        "1 of 3 truth are not finite": (good, np.array([0, np.nan, 0])),
        "truth's shape": (good, truth, np.ones(2)),
        "cannot be negative": (good, truth, -1.0),
        "1 of 3 quantities have neither": (np.where([True, False, True], good, 1.0), truth),
    }
    for match, args in cases.items():
        with pytest.raises(ValueError, match=match):
            pulls(args[1], args[0], *args[2:])
    for levels in ([], [0.5, 1.0], 0.5):
        with pytest.raises(ValueError, match="numbers between 0 and 1"):
            coverage(truth, good, levels)
    with pytest.raises(ValueError, match="one of student, normal, quantile"):
        coverage(truth, good, [0.5], interval="gauss")
    with pytest.raises(ValueError, match="takes no truth_error"):
        coverage(truth, good, [0.5], interval="quantile", truth_error=1.0)
    with pytest.raises(ValueError, match="two halves"):
        calibration_curve(truth, good[:3], num_bins=1)
    with pytest.raises(ValueError, match="num_bins must be from 1 to 1"):
        calibration_curve(truth, good, num_bins=2)

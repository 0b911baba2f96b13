import jax
import numpy as np
import pytest
from scipy.stats import spearmanr, wasserstein_distance

from jgen.metrics import (
    quantile_divergence,
    rank_correlation_distance,
    sliced_wasserstein,
    wasserstein,
)
from jgen.random import numpy_generator


def test_agrees_with_scipy_in_every_column():
    rng = np.random.default_rng(0)
    # Rounding makes ties.
    x, y = rng.normal(size=(50, 3)).round(1), rng.gamma(2.0, size=(80, 3)).round(1)
    v, w = rng.random(50), rng.random(80)
    plain, weighted = wasserstein(x, y).value, wasserstein(x, y, v, w).value
    for k in range(3):
        assert plain[k] == pytest.approx(wasserstein_distance(x[:, k], y[:, k]), rel=1e-12)
        expected = wasserstein_distance(x[:, k], y[:, k], v, w)
        assert weighted[k] == pytest.approx(expected, rel=1e-12)
        assert wasserstein(x[:, k], y[:, k]).value == pytest.approx(plain[k], rel=1e-12)


def test_shift_scale_and_equality():
    x = np.random.default_rng(1).normal(size=100)
    assert wasserstein(x, x[::-1]).value == pytest.approx(0.0, abs=1e-14)
    assert wasserstein(x, x + 2.5).value == pytest.approx(2.5)
    assert wasserstein(x, 3 * x).value == pytest.approx(2 * np.mean(np.abs(np.sort(x))))


def test_bootstrap_error_is_the_spread_of_repeated_samples():
    rng = np.random.default_rng(2)
    found = [
        wasserstein(
            rng.normal(size=400), rng.normal(0.7, size=600), num_bootstrap=60, key=jax.random.key(i)
        )
        for i in range(150)
    ]
    spread = np.std([f.value for f in found])
    # For a shift this large W1 is the difference of means.
    assert spread == pytest.approx(np.sqrt(1 / 400 + 1 / 600), rel=0.15)
    assert np.mean([f.error for f in found]) == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize("columns", [1, 4])
def test_quoted_errors_cover_truth_against_truth(columns):
    """Of replicas alone they are 1.3 times too large and cover 80 %."""
    rng = np.random.default_rng(9)
    found = [
        wasserstein(*rng.normal(size=(2, 300, columns)), num_bootstrap=60, key=jax.random.key(i))
        for i in range(200)
    ]
    value, error = np.array([f.estimate for f in found]).T
    assert np.std(value) / np.mean(error) == pytest.approx(0.95, abs=0.15)
    # 60 to 76 %, and one standard deviation of 200 tries.
    assert 0.57 < np.mean(np.abs(value - value.mean()) < error) < 0.79


def test_replicas_resample_the_same_events_in_all_columns():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(100, 1)), rng.normal(1.0, size=(100, 1))
    found = wasserstein(np.hstack([x, 2 * x]), np.hstack([y, 2 * y]), num_bootstrap=20)
    np.testing.assert_allclose(found.replicas[:, 1], 2 * found.replicas[:, 0], rtol=1e-12)
    assert len(np.unique(found.replicas[:, 0])) == 20
    np.testing.assert_allclose(found.error, found.replicas.std(axis=0))


def test_replicas_are_drawn_in_chunks(monkeypatch):
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=30), rng.normal(size=40)
    monkeypatch.setattr("jgen.metrics.distances._CHUNK", 70 * 3)
    chunked = wasserstein(x, y, num_bootstrap=8)
    # Three a chunk, and two in the last one.
    assert chunked.replicas.shape == (8,)
    assert len(np.unique(chunked.replicas)) == 8
    assert wasserstein(x, y, num_bootstrap=0).replicas.shape == (0,)
    assert np.isnan(wasserstein(x, y, num_bootstrap=0).error)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="shapes"):
        wasserstein(np.zeros((4, 2)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match="shapes"):
        wasserstein(np.zeros(0), np.zeros(4))
    with pytest.raises(ValueError, match="1 entries of generated"):
        wasserstein(np.zeros(2), np.array([0.0, np.inf]))
    with pytest.raises(ValueError, match="need weights"):
        wasserstein(np.zeros(2), np.zeros(3), np.ones(3))
    with pytest.raises(ValueError, match="not all zero"):
        wasserstein(np.zeros(2), np.zeros(3), np.zeros(2))


def test_sliced_distance_of_a_shift_is_known():
    """W1 along u is |a u|: its mean over directions is 1, 2 / pi and 1 / 2 of |a| in 1, 2, 3-D."""
    rng = np.random.default_rng(5)
    for shift, mean, num in (([5.0], 1, 1), ([3.0, -4.0], 2 / np.pi, 64), ([3, 0, 4], 0.5, 4000)):
        x = rng.normal(size=(20, len(shift)))
        found = sliced_wasserstein(x, x + shift, num_directions=num, num_bootstrap=0)
        # Of directions drawn in space the spread of |a u| is |a| / sqrt(12).
        assert found.value == pytest.approx(5 * mean, rel=1e-3 if num < 100 else 0.04)
        assert np.isnan(found.error)


def test_sliced_distance_in_one_dimension_is_the_distance():
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(50, 1)), rng.normal(0.5, size=(70, 1))
    line, sliced = wasserstein(x, y, num_bootstrap=9), sliced_wasserstein(x, y, num_bootstrap=9)
    assert sliced.value == line.value[0]
    assert sliced.error == line.error[0]
    np.testing.assert_array_equal(sliced.replicas, line.replicas[:, 0])


def test_weights_of_a_sliced_distance_are_repeated_events():
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(30, 3)), rng.normal(0.5, size=(40, 3))
    times = rng.integers(0, 4, 30), rng.integers(0, 4, 40)
    weighted = sliced_wasserstein(x, y, *times, num_bootstrap=0)
    repeated = (np.repeat(s, t, axis=0) for s, t in zip((x, y), times, strict=True))
    assert weighted.value == pytest.approx(sliced_wasserstein(*repeated, num_bootstrap=0).value)


def test_estimate_is_the_mean_over_columns():
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(50, 2)), rng.normal(1.0, size=(60, 2))
    found = wasserstein(x, y, num_bootstrap=15)
    assert found.estimate == (found.value.mean(), found.replicas.mean(axis=1).std())
    assert str(found) == str(found.estimate)
    column = wasserstein(x[:, 0], y[:, 0], num_bootstrap=15)
    assert column.estimate == (column.value, column.error)
    assert np.isnan(wasserstein(x, y, num_bootstrap=0).estimate.error)


def test_bad_samples_for_directions():
    with pytest.raises(ValueError, match=r"\[n, d\] and \[m, d\], got \(5, 2\) and \(4, 3\)"):
        sliced_wasserstein(np.zeros((5, 2)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match="num_directions must be a whole number from 1 .*, got 0"):
        sliced_wasserstein(np.zeros((5, 2)), np.ones((4, 2)), num_directions=0)


def test_keys_are_the_seeds_of_numpy():
    for n in (0, 7, 2**31 + 5):
        expected = np.random.default_rng(n).random(3)
        np.testing.assert_array_equal(numpy_generator(jax.random.key(n)).random(3), expected)
    default = numpy_generator(None).random(3)
    np.testing.assert_array_equal(default, np.random.default_rng(0).random(3))
    first, second = (numpy_generator(k) for k in jax.random.split(jax.random.key(0)))
    assert first.random() != second.random()
    wrong = (
        (3, "a typed key is needed"),
        (jax.random.PRNGKey(3), "a typed key is needed"),
        (jax.random.key(3, impl="rbg"), "keys of the kind 'rbg'"),
        (jax.random.split(jax.random.key(3)), "one key is needed"),
    )
    for bad, message in wrong:
        with pytest.raises(ValueError, match=message):
            wasserstein([0.0, 1.0], [0.5, 2.0], key=bad)


def test_divergence_in_bins_of_equal_counts():
    x = np.arange(1000) / 1000
    # Uniform on [0, 1], and on its first half: log 2.
    assert quantile_divergence(x, x / 2, 10) == pytest.approx(np.log(2), abs=0.01)
    # Half of all in each of two values, against a quarter and three.
    steps, other = np.repeat([0.0, 1.0], 50), np.repeat([0.0, 1.0], [25, 75])
    expected = 0.25 * np.log(0.5) + 0.75 * np.log(1.5)
    assert quantile_divergence(steps, other) == pytest.approx(expected)
    rng = np.random.default_rng(3)
    same = [quantile_divergence(rng.normal(size=4000), rng.normal(size=6000)) for _ in range(40)]
    assert np.mean(same) == pytest.approx(99 / 2 * (1 / 4000 + 1 / 6000), rel=0.1)
    for bad in ([np.nan, 1.0], [], [[1.0]]):
        with pytest.raises(ValueError, match="reference must be"):
            quantile_divergence(np.array(bad), x)


def test_divergence_counts_all_events():
    """Also those that are where the reference has none, in bins of its own values."""
    rng = np.random.default_rng(4)
    x = np.where(rng.random(5000) < 0.3, 0, rng.exponential(size=5000))
    moved = np.where(x == 0, -1, x)
    assert quantile_divergence(x, moved) == pytest.approx(0, abs=1e-12)  # the first has no end
    # Events that were there are now in the lowest bin, of 0.35 in place of 0.3 and a bit.
    lost = np.where(x > np.quantile(x, 0.95), -1, x)
    assert quantile_divergence(x, lost) == pytest.approx(0.355 * np.log(0.355 / 0.305), rel=0.1)
    # Fewer events than bins: each has one of its own, of 1 / 50.
    few = rng.normal(size=50)
    assert quantile_divergence(few, few) == 0
    assert quantile_divergence(few, np.repeat(few[:25], 100)) == pytest.approx(np.log(2))
    assert min(quantile_divergence(few, rng.normal(size=5000)) for _ in range(20)) > 0.1
    with pytest.raises(ValueError, match="bins of equal counts are one"):
        quantile_divergence(np.ones(50), np.zeros(50))


def test_rank_correlations_are_those_of_scipy():
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(60, 3)) @ rng.normal(size=(3, 3)) for _ in range(2))
    x, y = np.maximum(x, 0).round(1), np.exp(y)  # with ties
    expected = np.linalg.norm(spearmanr(x).statistic - spearmanr(y).statistic)
    found = rank_correlation_distance(x, y, num_bootstrap=10)
    assert found.value == pytest.approx(expected, rel=1e-10)
    assert 0 < found.error < found.value
    assert rank_correlation_distance(x, np.exp(x), num_bootstrap=2).value == pytest.approx(0)
    constant = np.column_stack([x[:, 0], np.ones(60)])
    assert rank_correlation_distance(constant, constant, num_bootstrap=0).value == 0
    with pytest.raises(ValueError, match="need the shapes"):
        rank_correlation_distance(x, x[:, :2])
    with pytest.raises(ValueError, match="two columns or more"):
        rank_correlation_distance(x[:, :1], y[:, :1])

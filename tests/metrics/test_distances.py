import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from jgen.metrics import wasserstein


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
        wasserstein(rng.normal(size=400), rng.normal(0.7, size=600), num_bootstrap=60, seed=i)
        for i in range(150)
    ]
    spread = np.std([f.value for f in found])
    # For a shift this large W1 is the difference of means.
    assert spread == pytest.approx(np.sqrt(1 / 400 + 1 / 600), rel=0.15)
    assert np.mean([f.error for f in found]) == pytest.approx(spread, rel=0.15)


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
    with pytest.raises(ValueError, match="1 entries of the second sample"):
        wasserstein(np.zeros(2), np.array([0.0, np.inf]))
    with pytest.raises(ValueError, match="need weights"):
        wasserstein(np.zeros(2), np.zeros(3), np.ones(3))
    with pytest.raises(ValueError, match="not all zero"):
        wasserstein(np.zeros(2), np.zeros(3), np.zeros(2))

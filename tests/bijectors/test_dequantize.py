"""Levels with noise, and the map that makes them normal one by one."""

import jax
import numpy as np
import pytest
from scipy import stats

from jgen.bijectors import dequantize, level_gaussian, level_of

NUM = 5
# The second component is always dark, the third one never in the middle.
LEVELS = np.random.default_rng(0).choice(NUM, (400, 3), p=[0.4, 0.1, 0.2, 0.05, 0.25])
LEVELS[:, 1] = 0
LEVELS[:, 2] = np.where(LEVELS[:, 2] == 2, 4, LEVELS[:, 2])


def test_noise_keeps_the_level():
    x = dequantize(np.random.default_rng(1), LEVELS, NUM)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(level_of(x, NUM), LEVELS)
    u = NUM * x - LEVELS
    assert abs(u.mean() - 0.5) < 4 * 12**-0.5 / u.size**0.5
    np.testing.assert_array_equal(level_of(np.float32([-0.1, 0.999, 1.0, 1.3]), NUM), [0, 4, 4, 4])


def test_normal_one_by_one():
    """Round trip, and the density by counting: num_levels times the frequency of the level."""
    x = dequantize(np.random.default_rng(1), LEVELS, NUM)
    bijector = level_gaussian(LEVELS, NUM, prior=0.25)
    z, log_det = jax.jit(jax.vmap(lambda x: bijector.forward(x)))(x)
    back, log_det_back = jax.jit(jax.vmap(lambda z: bijector.inverse(z)))(z)
    np.testing.assert_allclose(back, x, atol=2e-6)
    np.testing.assert_allclose(log_det_back, -log_det, atol=1e-3)
    counts = np.stack([(LEVELS == n).sum(axis=0) for n in range(NUM)]) + 0.25
    share = counts / (len(LEVELS) + NUM * 0.25)
    expected = np.log(NUM * share[LEVELS, np.arange(3)]).sum(axis=1)
    found = stats.norm.logpdf(np.asarray(z, np.float64)).sum(axis=1) + np.asarray(log_det)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    for column in np.asarray(z).T:
        assert stats.kstest(column, "norm").pvalue > 1e-3


def test_determinant_against_autodiff():
    bijector = level_gaussian(LEVELS, NUM)
    for x in (np.float32([0.31, 0.05, 0.93]), np.float32([0.99, 0.19, 0.01])):
        jacobian = jax.jacfwd(lambda x: bijector.forward(x)[0])(x)
        expected = np.linalg.slogdet(np.asarray(jacobian, np.float64))[1]
        np.testing.assert_allclose(bijector.forward(x)[1], expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("levels", "prior", "message"),
    [
        (np.array([[0, 5]]), 0.5, "integers from 0 to 4, got int64 from 0 to 5"),
        (np.array([[0.0, 1.0]]), 0.5, "integers from 0 to 4, got float64"),
        (np.array([0, 1]), 0.5, r"levels \[n, dim\]"),
        (np.array([[0, 1]]), 0.0, "prior must be positive"),
    ],
)
def test_bad_levels(levels, prior, message):
    with pytest.raises(ValueError, match=message):
        level_gaussian(levels, NUM, prior)

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.paths import convert, interpolate, linear, on_unit_interval, variance_preserving
from jgen.solvers import runge_kutta

PATHS = {"linear": linear(), "sigma_min": linear(0.01), "vp": variance_preserving()}
KINDS = ("velocity", "score", "noise", "data")


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_ends_are_noise_and_data(path):
    x0, x1 = jnp.array([1.0, -2.0]), jnp.array([0.5, 3.0])
    start, _ = interpolate(path, path.t_min, x0, x1)
    end, _ = interpolate(path, path.t_max, x0, x1)
    np.testing.assert_allclose(start, x0, atol=0.03)  # VP keeps alpha(0) = 0.0066 of the data
    np.testing.assert_allclose(end, x1, atol=0.04)  # and sigma(t_max) = 0.01


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_velocity_is_the_time_derivative(x64, path):
    x0, x1, t, h = jnp.array([1.0, -2.0]), jnp.array([0.5, 3.0]), 0.37, 1e-6
    _, velocity = interpolate(path, t, x0, x1)
    ahead, behind = (interpolate(path, t + s, x0, x1)[0] for s in (h, -h))
    np.testing.assert_allclose(velocity, (ahead - behind) / (2 * h), rtol=1e-8)


def test_variance_preserving_coefficients_against_their_integral(x64):
    """Alpha = exp(-1/2 int beta) of 2011.13456, Eq. 33, by quadrature."""
    path, t = variance_preserving(0.1, 20.0), 0.3
    s = np.linspace(0, 1 - t, 100_001)
    beta = 0.1 + s * 19.9
    expected = np.exp(-0.5 * np.trapezoid(beta, s))
    np.testing.assert_allclose(path.alpha(t), expected, rtol=1e-9)
    np.testing.assert_allclose(path.alpha(t) ** 2 + path.sigma(t) ** 2, 1, rtol=1e-12)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(KINDS, 2)))
def test_predictions_convert_into_each_other(path, source, target, key):
    """For a known pair (x0, x1) all four are known."""
    x0, x1, t = *jax.random.normal(key, (2, 5)), 0.6
    x, velocity = interpolate(path, t, x0, x1)
    known = {"velocity": velocity, "noise": x0, "data": x1, "score": -x0 / path.sigma(t)}
    found = convert(path, t, x, known[source], source, target)
    np.testing.assert_allclose(found, known[target], rtol=1e-5, atol=1e-5)


def gaussian_velocity(path, mean, std):
    """Marginal velocity when data are N(mean, std^2), from E[x1 | x]."""

    def velocity(t, x):
        variance = (path.alpha(t) * std) ** 2 + path.sigma(t) ** 2
        data = mean + path.alpha(t) * std**2 / variance * (x - path.alpha(t) * mean)
        return convert(path, t, x, data, "data", "velocity")

    return velocity


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_exact_gaussian_flow(x64, path):
    """The flow of Gaussian data is linear: x0 at t_min goes to the same quantile at t_max."""
    mean, std, x0 = 0.7, 0.4, jnp.linspace(-2, 2, 5)
    moments = lambda t: (path.alpha(t) * mean, np.hypot(path.alpha(t) * std, path.sigma(t)))
    (m0, s0), (m1, s1) = moments(path.t_min), moments(path.t_max)
    velocity = on_unit_interval(path, gaussian_velocity(path, mean, std))
    # Midpoint never evaluates the data end, where sigma = 0 makes this conversion 0/0.
    x1 = runge_kutta("midpoint", 4000)(velocity, x0)
    np.testing.assert_allclose(x1, m1 + s1 * (x0 - m0) / s0, atol=1e-6)


def test_bad_input():
    with pytest.raises(ValueError, match="sigma_min must be in"):
        linear(1.0)
    with pytest.raises(ValueError, match="0 < beta_min < beta_max"):
        variance_preserving(2.0, 1.0)
    with pytest.raises(ValueError, match="unknown prediction 'eps'; one of velocity, score"):
        convert(linear(), 0.5, jnp.ones(2), jnp.ones(2), "eps", "data")

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.paths import convert, linear
from jgen.solvers import EulerMaruyama, runge_kutta

PATH, MEAN, STD = linear(), 0.7, 0.4


def velocity(t, x):
    variance = (PATH.alpha(t) * STD) ** 2 + PATH.sigma(t) ** 2
    data = MEAN + PATH.alpha(t) * STD**2 / variance * (x - PATH.alpha(t) * MEAN)
    return convert(PATH, t, x, data, "data", "velocity")


def score(t, x, u):
    return convert(PATH, t, x, u, "velocity", "score")


def test_without_noise_it_is_euler(key):
    x0 = jnp.linspace(-1, 1, 4)
    sde = EulerMaruyama(16, noise_level=lambda t: 0.0 * t)
    np.testing.assert_allclose(
        sde(velocity, score, x0, key), runge_kutta("euler", 16)(velocity, x0), rtol=1e-6
    )


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_marginal_does_not_depend_on_the_noise_level(key, strength):
    n = 40_000
    key0, key1 = jax.random.split(key)
    x0 = jax.random.normal(key0, (n,))
    sde = EulerMaruyama(200, noise_level=lambda t: strength * jnp.sqrt(1 - t))
    x = jax.vmap(lambda k, x: sde(velocity, score, x, k))(jax.random.split(key1, n), x0)
    # Five standard errors, and 200 steps leave a weak error below 0.005.
    np.testing.assert_allclose(x.mean(), MEAN, atol=5 * STD / n**0.5 + 0.005)
    np.testing.assert_allclose(x.std(), STD, atol=5 * STD / (2 * n) ** 0.5 + 0.005)


def test_weak_order_one(x64):
    """The SDE is linear for Gaussian data, so the variance follows without sampling.

    With noise handed in, x(1) is affine in (x0, increments): its variance is the sum of the
    squared coefficients, which autodiff gives exactly.
    """

    def variance(steps):
        sde = EulerMaruyama(steps)
        end = lambda x0, noise: sde(velocity, score, x0, noise)
        gradients = jax.grad(end, (0, 1))(jnp.zeros(()), jnp.zeros(steps))
        return sum(jnp.sum(g**2) for g in gradients)

    errors = np.array([abs(variance(n) - STD**2) for n in (64, 128, 256)])
    np.testing.assert_allclose(np.log2(errors[:-1] / errors[1:]), 1, atol=0.1)


def test_bad_steps():
    with pytest.raises(ValueError, match="steps must be a whole number from 1 .*got 0"):
        EulerMaruyama(0)

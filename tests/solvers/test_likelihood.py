import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.solvers import (
    OdeSolver,
    log_likelihood,
    normal_log_prob,
    runge_kutta,
    velocity_and_divergence,
)

MATRIX = np.array([[0.3, 0.8, 0.0], [-0.5, 0.1, 0.2], [0.1, 0.0, -0.7]])


def nonlinear(t, x):
    return jnp.tanh(MATRIX @ x) * (1 + t)


def test_exact_divergence_is_the_trace_of_the_jacobian(x64):
    x = jnp.array([0.2, -1.0, 0.5])
    u, div = velocity_and_divergence(nonlinear, 0.3, x)
    np.testing.assert_allclose(u, nonlinear(0.3, x), rtol=1e-12)
    np.testing.assert_allclose(div, jnp.trace(jax.jacfwd(nonlinear, 1)(0.3, x)), rtol=1e-12)


def test_hutchinson_is_unbiased(x64, key):
    x = jnp.array([0.2, -1.0, 0.5])
    probes = jax.random.rademacher(key, (20_000, 1, 3), x.dtype)
    estimates = jax.vmap(lambda p: velocity_and_divergence(nonlinear, 0.3, x, p)[1])(probes)
    exact = velocity_and_divergence(nonlinear, 0.3, x)[1]
    error = estimates.std() / len(estimates) ** 0.5
    assert error > 0
    np.testing.assert_allclose(estimates.mean(), exact, atol=4 * error)


def test_linear_flow_against_the_matrix_exponential(x64):
    """x1 = exp(A) x0 has log p1(x1) = log p0(x0) - tr A."""
    x0 = jnp.array([0.2, -1.0, 0.5])
    x1 = jax.scipy.linalg.expm(MATRIX) @ x0
    expected = normal_log_prob(x0) - np.trace(MATRIX)
    field = lambda t, x: MATRIX @ x
    found = log_likelihood(field, x1, normal_log_prob, runge_kutta("rk4", 100))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


class OwnSolver(OdeSolver):
    """Any solver of an equation, here RK4."""

    def __call__(self, velocity, x0):
        return runge_kutta("rk4", 100)(velocity, x0)


@pytest.mark.parametrize("solver", [runge_kutta("rk4", 100), OwnSolver()])
def test_linear_flow_of_many_dimensions(x64, solver):
    """Where a Runge-Kutta method loops over its stages; a solver of one's own is called."""
    matrix = jax.random.normal(jax.random.key(0), (20, 20)) / 5
    x0 = jnp.linspace(-1, 1, 20)
    x1 = jax.scipy.linalg.expm(matrix) @ x0
    field = lambda t, x: matrix @ x
    solve = lambda x1: log_likelihood(field, x1, normal_log_prob, solver)
    np.testing.assert_allclose(solve(x1), normal_log_prob(x0) - jnp.trace(matrix), rtol=1e-8)
    found = jax.grad(solve)(x1)
    np.testing.assert_allclose(found, -jax.scipy.linalg.expm(-matrix).T @ x0, atol=1e-7)


def test_density_integrates_to_one(x64):
    field = lambda t, x: jnp.sin(2 * x) * (1 - t)
    grid = jnp.linspace(-6, 6, 801)
    solver = runge_kutta("rk4", 50)
    log_p = jax.vmap(lambda x: log_likelihood(field, x, normal_log_prob, solver))(grid[:, None])
    np.testing.assert_allclose(np.trapezoid(np.exp(log_p), grid), 1, rtol=1e-6)


def test_bad_input():
    args = (nonlinear, jnp.ones(3), normal_log_prob, runge_kutta("euler", 2))
    with pytest.raises(ValueError, match="unknown divergence 'skilling'"):
        log_likelihood(*args, divergence="skilling")
    with pytest.raises(ValueError, match="needs a key"):
        log_likelihood(*args, divergence="hutchinson")

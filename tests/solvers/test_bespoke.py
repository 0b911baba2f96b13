import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jgen.solvers import (
    TABLEAUS,
    NonStationary,
    Reference,
    RungeKutta,
    Tableau,
    global_truncation_error,
    global_truncation_errors,
    load_solver,
    local_truncation_error,
    references,
    runge_kutta,
    save_solver,
    trajectory,
)

RK4 = RungeKutta(TABLEAUS["rk4"], 400)


def field(t, x):
    return jnp.sin(4 * t) * x - 0.5 * x**3 + jnp.cos(7 * t)


@pytest.mark.parametrize("name", TABLEAUS)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_reproduces_every_runge_kutta_method(x64, name, steps):
    x0 = jnp.linspace(-1, 2, 7)
    solver = runge_kutta(name, steps)
    bespoke = NonStationary.from_runge_kutta(solver)
    assert bespoke.n_eval == solver.n_eval
    np.testing.assert_allclose(bespoke.times, solver.times.ravel(), atol=1e-15)
    found, expected = jax.jit(lambda x: (bespoke(field, x), solver(field, x)))(x0)
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)


def test_euler_start_is_euler(x64):
    x0 = jnp.linspace(-1, 2, 7)
    expected = runge_kutta("euler", 8)(field, x0)
    np.testing.assert_allclose(NonStationary.euler(8)(field, x0), expected, rtol=1e-13)


def test_decreasing_stage_times_are_refused():
    tableau = Tableau("odd", ((), (1.0,), (0.0, 0.5)), (0.2, 0.3, 0.5), (0.0, 1.0, 0.5), 1)
    with pytest.raises(ValueError, match="stage times of odd are not monotone"):
        NonStationary.from_runge_kutta(RungeKutta(tableau, 2))


def test_times_are_monotone_whatever_the_parameters(key):
    log_dt = 30 * jax.random.normal(key, (12,))
    grid = NonStationary(jnp.ones(12), jnp.zeros((12, 12)), log_dt).grid
    assert grid[0] == 0
    assert np.all(np.diff(grid) >= 0)
    np.testing.assert_allclose(grid[-1], 1, rtol=1e-6)


def test_hermite_reference_is_fourth_order(x64):
    """Fourth order in the state, third in its slope: the largest error over many times."""

    @jax.jit
    def found(times):
        nodes = trajectory(RungeKutta(TABLEAUS["rk4"], 1024), field, jnp.array([0.4]))
        few = lambda every: Reference(*[a[::every] for a in nodes])
        return [jax.vmap(few(every).at)(times) for every in (1, 64, 32)]

    exact, *coarse = found(jnp.linspace(0, 1, 333))
    errors = [[np.abs(a - b).max() for a, b in zip(c, exact, strict=True)] for c in coarse]
    np.testing.assert_allclose(np.log2(np.divide(*errors)), [4, 3], atol=0.3)


def test_local_error_is_the_sum_of_one_step_errors(x64, key):
    """Against a plain loop that integrates to every time and calls the field there."""
    n, x0 = 4, jnp.array([0.4, -1.0])
    k1, k2, k3 = jax.random.split(key, 3)
    solver = NonStationary(
        1 + 0.1 * jax.random.normal(k1, (n,)),
        NonStationary.euler(n).b + 0.1 * jax.random.normal(k2, (n, n)),
        0.3 * jax.random.normal(k3, (n,)),
    )
    reference = Reference(*jax.jit(trajectory, static_argnums=(0, 1))(RK4, field, x0))
    exact = jax.jit(lambda t: runge_kutta("rk4", 400)(lambda tau, x: t * field(t * tau, x), x0))
    total, grid = 0.0, solver.grid
    for i in range(n):
        step = solver.a[i] * x0
        for j in range(i + 1):
            step = step + solver.b[i, j] * field(grid[j], exact(grid[j]))
        total += jnp.mean((step - exact(grid[i + 1])) ** 2)
    found = jax.jit(local_truncation_error)(solver, reference)
    np.testing.assert_allclose(found, total, rtol=1e-6)


def test_gradients_match_finite_differences(x64, key):
    solver, x0 = NonStationary.euler(3), jnp.array([0.4, -1.0])
    reference = Reference(*jax.jit(trajectory, static_argnums=(0, 1))(RK4, field, x0))
    losses = (
        lambda s: local_truncation_error(s, reference),
        lambda s: global_truncation_error(s, field, x0, reference.states[-1]),
    )
    for loss in losses:
        check_grads(jax.jit(loss), (solver,), order=1, modes=["rev"], rtol=1e-4)


def test_errors_of_many_events_are_those_of_each(key):
    velocity = lambda params, t, x, cond: params * field(t, x) + cond
    x0, cond = jax.random.normal(key, (7, 3)), jnp.linspace(0, 1, 7)[:, None]
    pool = references(velocity, jnp.float32(2.0), x0, cond)
    solver = NonStationary.euler(4)
    found = global_truncation_errors(solver, velocity, jnp.float32(2.0), pool, cond, batch_size=3)

    @jax.jit
    def error(x0, cond):
        bound = lambda t, x: velocity(2.0, t, x, cond)
        x1 = RungeKutta(TABLEAUS["midpoint"], 100)(bound, x0)
        return jnp.mean((RungeKutta(TABLEAUS["euler"], 4)(bound, x0) - x1) ** 2)

    for i in range(7):
        np.testing.assert_allclose(found[i], error(x0[i], cond[i]), rtol=1e-4)


def test_a_stored_solver_is_the_same(tmp_path, key):
    solver = NonStationary(*[jax.random.normal(key, s) for s in ((5,), (5, 5), (5,))])
    save_solver(tmp_path / "deep" / "solver.npz", solver)
    restored = load_solver(tmp_path / "deep" / "solver.npz")
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(solver), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    x0 = jnp.linspace(-1, 2, 7)
    np.testing.assert_array_equal(restored(field, x0), solver(field, x0))

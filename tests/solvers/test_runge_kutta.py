import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.solvers import TABLEAUS, RungeKutta, runge_kutta, trajectory
from jgen.solvers.runge_kutta import looped

ORDERS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4, "kutta38": 4}


def field(t, x):
    """Nonlinear and non-autonomous, so that every order condition matters."""
    return jnp.array([[-0.5, 2.0], [-2.0, -0.3]]) @ x + jnp.sin(3 * t) - 0.3 * x**3


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_order_of_convergence(x64, name, order):
    x0 = jnp.array([1.0, -0.5])
    exact = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, x, _: field(t, x)),
        diffrax.Dopri8(),
        0,
        1,
        1e-3,
        x0,
        stepsize_controller=diffrax.PIDController(rtol=1e-13, atol=1e-13),
        max_steps=10**5,
    ).ys[-1]
    steps = np.array([32, 64, 128])
    errors = [jnp.linalg.norm(runge_kutta(name, int(n))(field, x0) - exact) for n in steps]
    slopes = -np.diff(np.log(errors)) / np.diff(np.log(steps))
    # The slope itself converges like 1/n; 0.1 excludes the neighbouring order by far.
    np.testing.assert_allclose(slopes, order, atol=0.1)
    assert TABLEAUS[name].order == order


@pytest.mark.parametrize("name", ORDERS)
def test_evaluations_are_counted_and_timed(name):
    solver, seen = runge_kutta(name, 3), []
    with jax.disable_jit():
        solver(lambda t, x: (seen.append(float(t)), x)[1], jnp.ones(2))
    assert len(seen) == solver.n_eval
    np.testing.assert_allclose(seen, solver.times.ravel(), rtol=1e-6)


def test_velocity_may_get_precomputed_features_of_time():
    solver = runge_kutta("rk4", 5)
    x0 = jnp.array([0.3, 1.0])
    features = jax.vmap(jax.vmap(lambda t: {"sin": jnp.sin(3 * t)}))(jnp.asarray(solver.times))
    direct = solver(lambda t, x: jnp.sin(3 * t) * x, x0)
    embedded = solver(lambda f, x: f["sin"] * x, x0, features)
    np.testing.assert_allclose(embedded, direct, rtol=1e-6)


@pytest.mark.parametrize("name", ORDERS)
def test_a_loop_over_stages_is_the_same_solution(name):
    solver, x0 = runge_kutta(name, 3), {"a": jnp.array([0.3, 1.0]), "b": jnp.array(2.0)}
    velocity = lambda t, x: {"a": jnp.sin(3 * t) * x["a"] + x["b"], "b": -x["a"][0] * t}
    for found, expected in zip(
        *map(jax.tree.leaves, (looped(solver, velocity, x0), solver(velocity, x0))), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ORDERS)
def test_a_loop_over_stages_compiles_the_velocity_once(name):
    """And its sums are sums: a GPU or a TPU rounds dot products; nothing is scattered."""
    solve = lambda x0: looped(runge_kutta(name, 3), lambda t, x: jnp.tanh(x + t), x0)
    assert str(jax.make_jaxpr(solve)(jnp.ones(2))).count(" tanh ") == 1
    program = str(jax.make_jaxpr(jax.vmap(solve))(jnp.ones((5, 2))))
    assert not [name for name in ("dot_general", "scatter", "gather") if name in program]


@pytest.mark.parametrize("way", [lambda *args: args[0](*args[1:]), looped])
@pytest.mark.parametrize(
    ("x0", "slope"),
    [("float32", "bfloat16"), ("float32", "int32"), ("complex64", "float32"), ("bfloat16", None)],
)
def test_state_keeps_its_type_when_slopes_are_narrower(way, x0, slope):
    """Of a network in half precision, say, or a plain number."""
    slope = 2.0 if slope is None else jnp.full(3, 2, slope)
    x1 = way(runge_kutta("rk4", 2), lambda t, x: slope, jnp.zeros(3, x0))
    assert x1.dtype == x0
    np.testing.assert_allclose(x1.astype(complex), 2.0, rtol=1e-2 if x0 == "bfloat16" else 1e-6)


@pytest.mark.parametrize("way", [lambda *args: args[0](*args[1:]), looped])
def test_slopes_of_another_type_are_refused(way):
    """Nothing is rounded to whole numbers or to reals."""
    for x0, slope in ((jnp.zeros(3, int), 0.5), (jnp.zeros(3), 1j), (jnp.zeros(3), jnp.ones(2))):
        with pytest.raises((TypeError, ValueError)):
            way(runge_kutta("rk4", 2), lambda t, x: slope, x0)  # noqa: B023


def test_states_may_be_pytrees():
    x = runge_kutta("heun", 50)(
        lambda t, x: {"a": x["b"], "b": -x["a"]}, {"a": jnp.array(1.0), "b": jnp.array(0.0)}
    )
    np.testing.assert_allclose([x["a"], x["b"]], [np.cos(1), -np.sin(1)], atol=1e-4)


def test_trajectory_ends_where_the_solver_does(x64):
    solver, x0 = runge_kutta("rk4", 20), jnp.array([1.0, 2.0])
    states, velocities = trajectory(solver, field, x0)
    assert states.shape == velocities.shape == (21, 2)
    np.testing.assert_allclose(states[-1], solver(field, x0), rtol=1e-12)
    np.testing.assert_allclose(velocities[7], field(7 / 20, states[7]), rtol=1e-12)


def test_bad_input():
    with pytest.raises(ValueError, match="method must be one of euler, midpoint.*'rk5'"):
        runge_kutta("rk5", 2)
    with pytest.raises(ValueError, match="steps must be a whole number from 1 .*got 0"):
        RungeKutta(TABLEAUS["euler"], 0)

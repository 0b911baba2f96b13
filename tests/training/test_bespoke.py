"""Training of bespoke solvers on fields whose solutions are known or cheap."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgen.sets import SetCondition, masked
from jgen.solvers import (
    NonStationary,
    global_truncation_error,
    global_truncation_errors,
    load_solver,
    runge_kutta,
)
from jgen.training import bespoke_training, keep_best_solver


def field(t, x):
    return jnp.sin(4 * t) * x - 0.5 * x**3 + jnp.cos(7 * t)


@pytest.mark.parametrize("objective", ["global", "local"])
def test_trained_solver_beats_midpoint_and_rk4_at_eight_evaluations(key, objective):
    velocity = lambda params, t, x, cond: params * field(t, x) + cond * jnp.sin(20 * t)
    k0, k1, k2 = jax.random.split(key, 3)
    x0, cond = jax.random.normal(k0, (256, 3)), jax.random.uniform(k1, (256, 1))
    params = jnp.float32(2.0)
    training = bespoke_training(velocity, params, x0, cond)
    solver, history = training.train(
        NonStationary.euler(8), k2, objective=objective, steps=2000, optimizer=optax.adam(3e-3)
    )

    def rmse(s):
        one = lambda x, c, y: global_truncation_error(
            s, lambda t, z: velocity(params, t, z, c), x, y
        )
        return float(jnp.sqrt(jnp.mean(jax.vmap(one)(x0, cond, training.reference.states[:, -1]))))

    assert rmse(solver) < 0.5 * min(rmse(runge_kutta("midpoint", 4)), rmse(runge_kutta("rk4", 2)))
    assert history["held_out_rmse"].min() < 0.3 * history["held_out_rmse"][0]
    assert len({len(values) for values in history.values()}) == 1


def test_training_keeps_the_best_solver(key):
    """A step size that wrecks the solver must not cost the start."""
    training = bespoke_training(
        lambda params, t, x, cond: field(t, x), None, jax.random.normal(key, (16, 2))
    )
    start = NonStationary.euler(4)
    wreck = {"objective": "global", "steps": 3, "optimizer": optax.sgd(0.5)}
    solver, history = training.train(start, key, **wreck)
    ends = training.reference.states[12:, [0, -1]]
    held_out = lambda s: np.mean([global_truncation_error(s, field, *pair) for pair in ends]) ** 0.5
    assert held_out(solver) <= held_out(start) * (1 + 1e-6)
    assert training.error(start) == pytest.approx(held_out(start), rel=1e-5)
    assert history["held_out_rmse"][0] == training.error(start)


def test_bad_options(key):
    velocity = lambda params, t, x, cond: x
    training = bespoke_training(velocity, None, jnp.ones((4, 1)))
    with pytest.raises(ValueError, match="objective must be one of global, local, got 'both'"):
        training.train(NonStationary.euler(2), key, objective="both")
    with pytest.raises(ValueError, match="steps must be a whole number from 1 .*got 0"):
        training.train(NonStationary.euler(2), key, steps=0)
    with pytest.raises(ValueError, match="1 trajectories are too few"):
        bespoke_training(velocity, None, jnp.ones((1, 1)))


def test_one_solver_is_learned_for_one_dimensional_flows_that_differ_in_context(key):
    """Scalars with a context each, as the layer energies of an autoregressive network are."""
    velocity = lambda params, t, x, context: jnp.sin(5 * t + context[0]) - params * context[1] * x
    k0, k1, k2 = jax.random.split(key, 3)
    x0, contexts = jax.random.normal(k0, (400,)), jax.random.uniform(k1, (400, 2))
    training = bespoke_training(velocity, jnp.float32(3.0), x0, contexts)
    start = NonStationary.from_runge_kutta(runge_kutta("midpoint", 2))
    for objective in ("global", "local"):
        solver, history = training.train(
            start, k2, objective=objective, steps=500, optimizer=optax.adam(3e-3)
        )
        held = jax.tree.map(lambda a: a[300:], (training.reference, contexts))
        errors = global_truncation_errors(solver, velocity, jnp.float32(3.0), *held)
        rmse = float(errors.mean()) ** 0.5
        assert rmse == pytest.approx(history["held_out_rmse"].min(), rel=1e-4)
        # 0.46 (global) at these few steps; a solver that learned nothing has 1.
        assert rmse < 0.7 * history["held_out_rmse"][0]


def test_the_best_solver_on_held_out_flows_is_kept_and_stays(tmp_path):
    """The exponential, where the errors of all solvers are known."""
    x0 = jax.random.normal(jax.random.key(0), (20,))
    training = bespoke_training(
        lambda params, t, x, cond: params * x, jnp.float32(1.0), x0, solver=runge_kutta("rk4", 20)
    )
    np.testing.assert_allclose(training.reference.states[:, -1], x0 * np.e, rtol=1e-5)
    midpoint = NonStationary.from_runge_kutta(runge_kutta("midpoint", 2))
    # One step of Kutta's rule, which is of fourth order.
    np.testing.assert_allclose(
        training.start(4)(lambda t, x: x, jnp.ones(())), 1 + 1 + 1 / 2 + 1 / 6 + 1 / 24, rtol=1e-6
    )
    path = tmp_path / "solvers" / "energy-bespoke-4.npz"
    keep = lambda **solvers: keep_best_solver(path, solvers, training.error)
    assert keep(euler=NonStationary.euler(4))["objective"] == "euler"
    kept = keep(euler=NonStationary.euler(4), midpoint=midpoint)
    assert kept["objective"] == "midpoint"
    held = np.sqrt(np.mean(np.asarray(x0[15:]) ** 2))
    for name, value in {"euler": np.e - 1.25**4, "midpoint": np.e - 1.625**2}.items():
        assert kept["held_out_rmse"][name] == pytest.approx(value * held, rel=1e-3)
    np.testing.assert_array_equal(load_solver(path).b, midpoint.b)
    # A later study with worse solvers leaves it and its record alone.
    assert keep(euler=NonStationary.euler(4)) == kept
    np.testing.assert_array_equal(load_solver(path).b, midpoint.b)
    assert json.loads(path.with_suffix(".json").read_text()) == kept


def test_solvers_of_sets_do_not_see_their_padding(key):
    """Events of two points with and without two rows of garbage behind them."""
    velocity = lambda params, t, x, cond: masked(field(t, x), cond)
    x0, cond = jax.random.normal(key, (8, 2, 1)), SetCondition(np.full(8, 2))
    padded = jnp.concatenate([x0, jnp.full((8, 2, 1), 1e30)], axis=1)
    start = NonStationary.from_runge_kutta(runge_kutta("midpoint", 1))
    for objective in ("global", "local"):
        solvers = [
            bespoke_training(velocity, None, x, cond, batch_size=4).train(
                start, key, objective=objective, steps=3, optimizer=optax.adam(1e-2)
            )
            for x in (x0, padded)
        ]
        for a, b in zip(*map(jax.tree.leaves, solvers), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)

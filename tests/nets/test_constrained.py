"""Velocities that end on what is asked."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import Batch, TrainConfig, draw, fit, models, solvers
from jgen.nets import Network, constrained, epic, velocity_mlp
from jgen.sets import SetCondition
from jgen.training import OptimizerConfig

SLOPES = np.array([[0.6, -0.8, 0.0], [0.5, 0.5, 1.0]], np.float32)


def off(x, cond):
    return SLOPES @ x - cond[-2:]


def straight(params, t, x, cond):
    """A network that sees four numbers: two of its own and what is missed."""
    assert cond.shape == (4,)
    return jnp.zeros_like(x)


def test_the_correction_of_a_linear_surface_is_the_expected_velocity():
    """Of an event at (1 - t) noise from its place: the mean of a normal, given its numbers."""
    network = constrained(Network(lambda key: {}, straight, 4), off, 2, width=0.1)
    params = network.init(jax.random.key(0))
    assert network.num_cond == 2
    params["gain"] = params["gain"].at[-1].set(100.0)  # a gain of one
    rng = np.random.default_rng(0)
    x, asked = jnp.float32(rng.normal(size=3)), jnp.float32(rng.normal(size=2))
    for t in (0.3, 0.9):
        left = 1 - t
        # An error e ~ N(0, left^2), seen through S (x - e) = asked + N(0, 0.1^2).
        found = network.apply(params, t, x, asked)
        lack = asked - SLOPES @ x
        matrix = left**2 * SLOPES @ SLOPES.T + 0.01 * np.eye(2)
        expected = left**2 * SLOPES.T @ np.linalg.solve(matrix, lack) / left
        np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("weight", "seen"),
    [
        (1, lambda t, first: first * np.sin(2 * np.pi * t)),
        (16, lambda t, first: first),
        (18, lambda t, first: np.sin(2 * np.pi * t)),
    ],
)
def test_the_gain_is_a_function_of_time_and_the_first_numbers_of_the_condition(weight, seen):
    """Weights of a number are of eight sines, eight cosines and one; those of none are behind."""
    network = constrained(Network(lambda key: {}, straight, 4), off, 2, gain_cond=1)
    params, x = network.init(jax.random.key(0)), jnp.ones(3)
    np.testing.assert_array_equal(np.flatnonzero(params["gain"]), 16)
    assert jax.nn.sigmoid(params["gain"][16]) == pytest.approx(0.998, abs=1e-3)
    params["gain"] = jnp.zeros_like(params["gain"])
    full = {**params, "gain": params["gain"].at[-1].set(300.0)}  # a gain of one
    params["gain"] = params["gain"].at[weight].set(300.0)
    for t, first in itertools.product((0.4, 0.6), (1.0, -1.0)):
        asked = jnp.array([first, 0.5])
        found, expected = (network.apply(p, t, x, asked) for p in (params, full))
        assert (expected != 0).any()
        gain = 1.0 if seen(t, first) > 0 else 0.0
        np.testing.assert_allclose(found, gain * expected, rtol=1e-5)


def test_too_few_numbers_for_the_gain_are_refused():
    with pytest.raises(ValueError, match="gains see 2 numbers of the condition, but it has 1"):
        constrained(Network(lambda key: {}, straight, 3), off, 2, gain_cond=2)
    network = constrained(Network(lambda key: {}, straight), off, 2, gain_cond=3)
    with pytest.raises(ValueError, match="gains see 3 numbers of the condition, but it has 2"):
        network.apply(network.init(jax.random.key(0)), 0.5, jnp.ones(3), jnp.ones(2))
    with pytest.raises(ValueError, match="gain_cond"):
        constrained(Network(lambda key: {}, straight), off, 2, gain_cond=-1)


def test_events_end_where_they_are_asked_to():
    """Sums of squares, given; a plain network of the same size and training misses them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 4)).astype(np.float32)
    radius = np.log(np.sum(x**2, axis=1, keepdims=True))
    data = Batch(x, radius)
    missed = lambda x, cond: jnp.log(jnp.maximum(jnp.sum(x**2), 1e-3))[None] - cond
    config = TrainConfig(600, 128, optimizer=OptimizerConfig(5e-3))
    width = {}
    for name, num in (("plain", 1), ("constrained", 2)):
        network = velocity_mlp(4, num, hidden=(32, 32))
        network = constrained(network, missed, 1) if num == 2 else network
        model = models.flow_matching(network, 4)
        params = fit(model, data, jax.random.key(0), config, progress=False).one
        made = draw(model, params, jax.random.key(1), len(x), radius)
        width[name] = np.std(np.log(np.sum(made**2, axis=1)) - radius[:, 0])
    assert width["constrained"] < 0.06 < 3 * 0.06 < width["plain"]


@pytest.mark.parametrize("cond", [None, np.ones(1, np.float32)])
def test_velocities_have_the_precision_of_the_event(cond):
    """Of parameters in single precision, also where JAX takes double unless it is told."""
    network = constrained(
        Network(lambda key: {}, lambda p, t, x, c: 0 * x + c[-1]), lambda x, c: x, 1
    )
    params = network.init(jax.random.key(0))
    with jax.enable_x64(True):
        assert network.apply(params, 0.3, jnp.ones(1, jnp.float32), cond).dtype == jnp.float32


def test_sets_keep_their_symmetry_and_their_padding():
    """Permuted points give permuted velocities; padded rows have none and change nothing."""
    mean = lambda x, cond: (
        jnp.sum(jnp.where(jnp.arange(len(x))[:, None] < cond.n, x, 0)[:, :1], axis=0)
        - cond.cond[-1:]
    )
    network = constrained(epic(3, 3), mean, 1)
    params = network.init(jax.random.key(0))
    cond = SetCondition(jnp.int32(4), jnp.array([0.3, 1.2]))
    x = jax.random.normal(jax.random.key(1), (6, 3))
    v = network.apply(params, 0.7, x, cond)
    order = jnp.array([2, 0, 3, 1, 4, 5])
    np.testing.assert_allclose(network.apply(params, 0.7, x[order], cond), v[order], atol=1e-5)
    assert (v[4:] == 0).all()
    np.testing.assert_allclose(network.apply(params, 0.7, x.at[4:].set(9.0), cond), v, atol=1e-5)
    assert np.isfinite(network.apply(params, 1.0, x, cond)).all()


def test_steep_numbers_that_are_alike_leave_finite_velocities():
    """Twice the same number, whose two slopes rounding cannot tell apart: as once."""
    found = []
    for num in (1, 2):
        steep = lambda x, cond, num=num: jnp.full(num, 300 * (jnp.sum(x) - cond[0]))
        network = constrained(Network(lambda key: {}, lambda p, t, x, c: 0 * x), steep, num)
        params = network.init(jax.random.key(0))
        found.append(network.apply(params, 0.0, jnp.ones(3), jnp.ones(1)))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3)


def test_log_densities_are_those_of_what_is_drawn():
    """By the derivative of the sampler, which is the other way of solving the same flow."""
    network = constrained(
        velocity_mlp(3, 3, hidden=(8,)), lambda x, cond: jnp.stack([x[0], x[1] ** 2]) - cond, 2
    )
    solver = solvers.runge_kutta("rk4", 200)
    model = models.flow_matching(network, 3, solver=solver)
    params, cond = model.init(jax.random.key(0)), jnp.array([0.3])
    x0 = jax.random.normal(jax.random.key(1), (3,))
    run = lambda x0: solver(lambda t, x: network.apply(params, t, x, cond), x0)
    expected = jnp.sum(jax.scipy.stats.norm.logpdf(x0))
    expected -= jnp.linalg.slogdet(jax.jacfwd(run)(x0))[1]
    found = model.log_prob(params, jax.random.key(2), run(x0), cond)
    np.testing.assert_allclose(found, expected, atol=1e-2)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (1, 2)])
def test_numbers_of_another_shape_are_refused(shape):
    network = constrained(velocity_mlp(3, 2), lambda x, cond: jnp.zeros(shape), 2)
    with pytest.raises(ValueError, match=r"missed must give numbers \[2\], got the shape"):
        network.apply(network.init(jax.random.key(0)), 0.5, jnp.zeros(3), None)


def test_a_network_without_room_is_refused():
    with pytest.raises(ValueError, match="must take 2 numbers beside its condition, but it has 1"):
        constrained(velocity_mlp(3, 1), off, 2)
    with pytest.raises(ValueError, match="width must be positive"):
        constrained(velocity_mlp(3, 4), off, 2, width=0.0)


def test_a_forgotten_number_is_told_by_the_condition_that_is_left():
    """The network's only number is taken by what is missed, and `missed` asks a condition, too."""
    network = constrained(velocity_mlp(3, 1), lambda x, cond: x[:1] - cond, 1)
    with pytest.raises(ValueError, match=r"x of shape \(3,\) and no condition: "):
        models.flow_matching(network, 3)
    network = constrained(velocity_mlp(3, 2), lambda x, cond: x - cond, 1)
    with pytest.raises(ValueError, match=r"x of shape \(3,\) and a condition of shape \(1,\): "):
        models.flow_matching(network, 3)

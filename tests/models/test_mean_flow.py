"""MeanFlow of a normal distribution, whose average velocity is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from jgen import Batch, draw
from jgen.models import flow_matching, instantaneous, mean_flow
from jgen.nets import Network, velocity_mlp
from jgen.solvers import runge_kutta

MEAN, WIDTH = 0.7, 0.3
std = lambda t: jnp.sqrt((1 - t) ** 2 + (WIDTH * t) ** 2)


def average_velocity(t, s, x):
    """(x(s) - x(t)) / (s - t) for x(s) = m(s) + std(s) / std(t) (x(t) - m(t)), without 0/0."""
    slope = WIDTH**2 * (s + t) - (2 - s - t)
    return MEAN + slope / (std(t) * (std(s) + std(t))) * (x - MEAN * t)


def apply(params, t, x, cond):
    """The exact network, with errors that are its parameters."""
    s = t + cond[0]
    return average_velocity(t, s, x) + params["shift"] + params["wide"] * (s - t) * x


NETWORK = Network(lambda key: {"shift": jnp.zeros(()), "wide": jnp.zeros(())}, apply)
EXACT = NETWORK.init(None)
velocity = lambda t, x, cond=None: average_velocity(t, t, x)


def test_the_exact_average_velocity_satisfies_the_identity():
    """With the exact velocity as teacher the loss of the exact network is zero, event by event."""
    model = mean_flow(NETWORK, (2,), teacher=velocity, equal=0.0)
    x = MEAN + WIDTH * np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
    loss = jax.jit(model.loss)
    assert loss(EXACT, jax.random.key(0), Batch(x)) < 1e-10
    assert loss(EXACT | {"wide": 0.1}, jax.random.key(0), Batch(x)) > 1e-4


@pytest.mark.parametrize("equal", [0.0, 0.5])
def test_on_data_the_gradient_vanishes_at_the_exact_network(equal):
    model = mean_flow(NETWORK, (1,), equal=equal)
    x = MEAN + WIDTH * np.random.default_rng(1).normal(size=(64, 2000, 1)).astype(np.float32)
    gradient = jax.jit(jax.vmap(jax.grad(model.loss), (None, 0, 0)))
    keys = jax.random.split(jax.random.key(1), 64)
    for params, zero in ((EXACT, True), (EXACT | {"shift": jnp.float32(0.1)}, False)):
        for name, values in gradient(params, keys, Batch(x)).items():
            pull = jnp.mean(values) / (jnp.std(values) / 8)
            assert (abs(pull) < 4) == zero, (name, pull)


@pytest.mark.parametrize("steps", [1, 3])
def test_steps_of_any_width_are_exact(steps):
    model = mean_flow(NETWORK, (2,), steps=steps)
    z = model.noise(jax.random.key(2), None)
    np.testing.assert_allclose(model.sample_from(EXACT, z), MEAN + WIDTH * z, atol=1e-6)
    events = draw(model, EXACT, jax.random.key(3), 4000)
    assert abs(np.mean(events) - MEAN) < 4 * WIDTH / np.sqrt(8000)


def test_intervals_of_width_zero_are_a_flow_with_a_density():
    solver = runge_kutta("rk4", 20)
    model = flow_matching(instantaneous(NETWORK), (1,), likelihood_solver=solver)
    log_prob = model.log_prob(EXACT, None, jnp.array([0.9]), None)
    assert log_prob == pytest.approx(norm.logpdf(0.9, MEAN, WIDTH), abs=1e-4)


def test_the_condition_follows_the_width():
    network = velocity_mlp(2, 3, hidden=(4,))
    model = mean_flow(network, (2,))
    params, cond = model.init(jax.random.key(4)), jnp.ones((5, 2))
    assert jnp.isfinite(model.loss(params, jax.random.key(5), Batch(jnp.ones((5, 2)), cond)))
    assert draw(model, params, jax.random.key(6), 5, cond).shape == (5, 2)


@pytest.mark.parametrize(
    "options", [{"equal": 1.5}, {"equal": float("nan")}, {"power": -1.0}, {"steps": 0}]
)
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        mean_flow(NETWORK, (2,), **options)

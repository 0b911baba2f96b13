"""Events of continuous numbers and discrete states: flow matching beside a jump process.

The states take part in the path from noise to data: at time t a state is that of the data with
probability t, else any of them, all equally likely. A network that sees both parts learns the
velocity of the numbers and, by cross-entropy, the probabilities p(k_1 | x_t, k_t, t) of the data's
state. The rates p(k) / (1 - t) of jumps to the state k then have the marginals of this path
(2402.04997, Sec. 3), side by side with the velocity's (2509.01736 for particles of jets).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real

from jgen.arrays import finite_array, real_array
from jgen.checks import check_not_negative, check_shape, check_sizes
from jgen.generative_model import GenerativeModel, from_noise, mean_loss
from jgen.models.parts import applied, check_prediction_network
from jgen.nets.network import NetworkLike, as_network
from jgen.paths import interpolate, linear
from jgen.random import normal
from jgen.sets import event_mean, masked
from jgen.solvers.sampler import check_steps
from jgen.typing import Key


class MixedEvent(NamedTuple):
    """Points with continuous numbers and a state each; also many events, with axes in front.

    Attributes:
      points: numbers, the features on the last axis.
      states: whole numbers from zero on, one for every row of `points`.
    """

    points: Real[Array, "*rows d"]
    states: Real[Array, "*rows"]


def mixed_events(points: Any, states: Any, num_states: int) -> MixedEvent:
    """Events on the host, checked: the door for data of `mixed_flow_matching`.

    Args:
      points: numbers, features on the last axis.
      states: from 0 to `num_states` - 1, one for every row of points; zero in padding.
      num_states: how many there are.

    Raises:
      ValueError: for numbers that are not finite, or states that are not whole, out of range, or
        not one a row.
    """
    check_sizes(num_states=num_states)
    points, states = finite_array(points, "points"), real_array(states, "states", booleans=False)
    if points.shape[:-1] != states.shape:
        raise ValueError(
            f"states must be one for every row of points, of shape {points.shape[:-1]} for points "
            f"{points.shape}, got {states.shape}"
        )
    bad = ~((states >= 0) & (states < num_states) & (states == np.floor(states)))
    if bad.any():
        raise ValueError(
            f"states must be whole numbers from 0 to {num_states - 1}, but {bad.sum()} of "
            f"{states.size} are not, the first is {states[bad][0]}"
        )
    return MixedEvent(points.astype(np.float32), states.astype(np.int32))


def mixed_flow_matching(
    network: NetworkLike,
    shape: int | tuple[int, ...],
    num_states: int,
    *,
    defined: Bool[np.ndarray, "num_states d"] | None = None,
    weight: float = 1.0,
    steps: int = 20,
) -> GenerativeModel:
    """Flow matching of points of one `shape`, and jumps between `num_states` states of each.

    Events are a `MixedEvent`. Make those of training with `mixed_events`: fit makes all numbers
    floats, and where a state is none of them the loss is not a number. The path is `linear()`, the
    loss of an event the mean squared error of the velocity plus `weight` times the mean
    cross-entropy of the states. `log_prob` is None.

    The network sees the state of a row as ones and zeros behind its numbers, and has the velocity
    and the logits in their places: one network with two heads.

    A step from t to t + h is one of Heun's method, whose second call sees the states behind their
    jumps. A state jumps with probability h / (1 - t) to one of the probabilities at t, where all
    that the network sees is of one time: of a single state that is exact for any h, so that rare
    states do not suffer from few steps. That all states jump on their own, and numbers at the same
    time, is the error, of order h.

    Args:
      network: apply(params, t, x, cond) -> array of x's shape (*shape[:-1], d + num_states).
      shape: of an event's points, the d features on the last axis; (d,) is one point.
      num_states: of a point.
      defined: which of the features there are in each state; all unless given. The others are
        noise in the data, so that whatever stands there is not learned, and zero in events drawn.
        They are not left out of the loss: velocities of points that have the feature alone would
        not carry the noise of all points to the data.
      weight: of the cross-entropy.
      steps: of the sampling, of two calls each.

    Raises:
      ValueError: for a network of another shape, fewer than two states or another table `defined`.
    """
    network, shape = as_network(network), check_shape(shape)
    check_sizes(num_states=num_states)
    check_not_negative(weight=weight)
    if num_states < 2:
        raise ValueError(f"num_states must be at least 2, got {num_states}; use flow_matching")
    num_features = shape[-1]
    table = _checked_table(defined, num_states, num_features)
    check_prediction_network(network, (*shape[:-1], num_features + num_states))
    check_steps(steps)
    path = linear()

    def predict(params, t, event, cond):
        one_hot = jax.nn.one_hot(event.states, num_states, dtype=event.points.dtype)
        x = masked(jnp.concatenate([event.points, one_hot], axis=-1), cond)
        both = applied(network, params, t, x, cond)
        return both[..., :num_features], both[..., num_features:]

    def loss(params, key, batch):
        def single(key, event, cond):
            key_t, key_x, key_states, key_absent = jax.random.split(key, 4)
            x1, given = event.points, masked(event.states, cond)
            states = given.astype(jnp.int32)
            if table is not None:
                x1 = jnp.where(
                    jnp.asarray(table)[states], x1, normal(key_absent, x1.shape, x1.dtype)
                )
            x0, t = normal(key_x, x1.shape, x1.dtype), jax.random.uniform(key_t)
            x, target = interpolate(path, t, masked(x0, cond), masked(x1, cond))
            chance = _uniform(key_states, (*states.shape, 2))
            noisy = jnp.where(chance[..., 0] < t, states, _any_state(chance[..., 1], num_states))
            u, logits = predict(params, t, MixedEvent(x, noisy), cond)
            entropy = _cross_entropy(logits, states)
            is_state = (given == states) & (states >= 0) & (states < num_states)
            entropy = event_mean(jnp.where(is_state, entropy, jnp.nan), cond)
            return event_mean((u - target) ** 2, cond) + weight * entropy

        return mean_loss(single, key, batch)

    return from_noise(network.init, loss, *_sampling(predict, shape, num_states, table, steps))


def _sampling(predict, shape, num_states, table, steps) -> tuple[Callable, Callable]:
    """The functions `noise` and `sample_from` of the model."""

    def noise(key, cond=None):
        key_x, key_start, key_jumps = jax.random.split(key, 3)
        return {
            "points": normal(key_x, shape),
            "states": _uniform(key_start, (*shape[:-1], 1)),
            "jumps": _uniform(key_jumps, (steps, *shape[:-1], 2)),
        }

    def sample_from(params, noise, cond=None):
        def step(event, inputs):
            i, chance = inputs
            u, logits = predict(params, i / steps, event, cond)
            cumulative = jnp.cumsum(jax.nn.softmax(logits), axis=-1)[..., :-1]
            target = jnp.sum(chance[..., :1] >= cumulative, axis=-1)
            states = jnp.where(chance[..., 1] * (steps - i) < 1, target, event.states)
            ahead = MixedEvent(event.points + u / steps, states)
            u_ahead, _ = predict(params, (i + 1) / steps, ahead, cond)
            return MixedEvent(event.points + (u + u_ahead) / (2 * steps), states), None

        points, states = noise["points"], _any_state(noise["states"][..., 0], num_states)
        inputs = jnp.arange(steps), noise["jumps"]
        end = jax.lax.scan(step, MixedEvent(points, states), inputs)[0]
        points, states = masked(end.points, cond), masked(end.states, cond)
        if table is not None:
            points = jnp.where(jnp.asarray(table)[states], points, 0)
        return MixedEvent(points, states)

    return noise, sample_from


def _checked_table(defined, num_states, num_features) -> np.ndarray | None:
    if defined is None:
        return None
    table = real_array(defined, "defined")
    if table.shape != (num_states, num_features) or table.dtype != bool:
        raise ValueError(
            f"defined must be a table of booleans [{num_states}, {num_features}], a row each state "
            f"and a column each feature, got {table.dtype}{list(table.shape)}"
        )
    return table


def _cross_entropy(
    logits: Float[Array, "*rows k"], states: Int[Array, "*rows"]
) -> Float[Array, "*rows"]:
    chosen = jnp.take_along_axis(logits, states[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def _any_state(chance: Float[Array, "*rows"], num_states: int) -> Int[Array, "*rows"]:
    """One of the states, all equally likely."""
    return jnp.minimum((chance * num_states).astype(jnp.int32), num_states - 1)


def _uniform(key: Key, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Drawn flat, as `jgen.random.normal` and for the same reason."""
    return jax.random.uniform(key, (math.prod(shape),)).reshape(shape)

"""Repulsive ensembles (2106.11642): members push each other's functions apart."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.checks import check_not_negative
from jgen.generative_model import Batch, GenerativeModel, num_events
from jgen.training.step import Axis, Step, over_members
from jgen.typing import Key, Params

Function = Callable[[Params, Key, Batch], Array]
"""(params, key, batch) -> values [batch] of one member's function."""


@dataclass(frozen=True)
class RepulsionConfig:
    """Forces in a repulsive ensemble."""

    strength: float = 1.0
    """Factor on the repulsion, 1 is that of 2106.11642; 0 leaves it out."""
    prior_scale: float = 1.0
    """Standard deviation of the normal prior of every weight; 0 leaves the prior out, as a model
    with a prior of its own needs it."""

    def check(self) -> None:
        """Raise a ValueError for values out of range."""
        check_not_negative(strength=self.strength, prior_scale=self.prior_scale)


class Neighbours(NamedTuple):
    """What every member has to know of all of them.

    Attributes:
      key: given to every member's function, the same for all.
      batch: events at which the functions are compared, the same for all.
      values: of every member's function there [members, batch].
      width: of the kernel.
    """

    key: Key
    batch: Batch
    values: Float[Array, "members batch"]
    width: Float[Array, ""]


def log_prob_values(model: GenerativeModel) -> Function:
    """Values log p(x_b | cond_b) of a batch: the function in whose space members repel by default.

    Raises:
      ValueError: if the model has no density.
    """
    if model.log_prob is None:
        raise ValueError(
            "a repulsive ensemble compares its members' log_prob, which this model does not have; "
            "give fit another function(params, key, batch) -> values [batch]"
        )

    def function(params, key, batch):
        keys = jax.random.split(key, num_events(batch))
        return jax.vmap(model.log_prob, (None, 0, 0, 0))(params, keys, batch.x, batch.cond)

    return function


def loss_values(model: GenerativeModel) -> Function:
    """Loss of every event of a batch at common noise: a function space for any model.

    Faster than `log_prob_values` where a density has to be integrated, as in flow matching, whose
    members then repel each other in how well they predict the same velocities.
    """

    def function(params, key, batch):
        keys = jax.random.split(key, num_events(batch))
        one = lambda k, event: model.loss(params, k, jax.tree.map(lambda a: a[None], event))
        return jax.vmap(one)(keys, batch)

    return function


def kernel_width(values: Float[Array, "members batch"]) -> Float[Array, ""]:
    """Width h = median |f_i - f_j|^2 / log(M + 1) over all M^2 pairs, also those with i = j."""
    squares = jnp.sum((values[:, None] - values[None]) ** 2, axis=-1)
    # Members that start as one function have no distance; they must not divide zero by zero.
    return jnp.maximum(jnp.median(squares) / math.log(len(values) + 1), 1e-30)


def repulsion(
    function: Function, config: RepulsionConfig, num_train: int
) -> Callable[[Params, Neighbours], Array]:
    """What a repulsive ensemble adds to the loss of member i, as (params, neighbours) -> scalar.

        strength / num_train sum_j k(f_i, stop f_j) / stop sum_j k(f_i, f_j)
        + |params|^2 / (2 num_train prior_scale^2),  k(f, g) = exp(-|f - g|^2 / h)

    With a loss of mean -log p over the events, num_train times its gradient is minus the
    functional Wasserstein gradient flow of 2106.11642 that leads to the posterior. The value of
    the first term is a constant; only its gradient matters. |f - g|^2 sums over the batch, and h
    of `kernel_width` follows it, so that the batch size does not matter to the kernel.

    The kernel, its width and the sum with j = i are those of the authors' code
    (ratschlab/repulsive_ensembles; 2 sigma^2 there is h here). Deviations: they estimate the
    prior's gradient in function space, this prior is one of weights; and there the values are a
    regression's or classifier's outputs, here numbers like log p at common events. What
    2412.12069 chose for its amplitudes has not been checked.
    """

    def penalty(params, neighbours):
        total = jnp.zeros(())
        if config.strength:
            own = function(params, neighbours.key, neighbours.batch)
            others = jax.lax.stop_gradient(neighbours.values)
            squares = jnp.sum((own[None] - others) ** 2, axis=-1)
            overlap = jnp.sum(jnp.exp(-squares / jax.lax.stop_gradient(neighbours.width)))
            force = overlap / jax.lax.stop_gradient(overlap)
            total = total + config.strength / num_train * force
        if config.prior_scale:
            square = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
            total = total + square / (2 * num_train * config.prior_scale**2)
        return total

    return penalty


def repulsive_update(
    step: Step,
    function: Function,
    key: Key,
    axis: Axis,
    batch_size: int,
    place_batch: Callable[[Batch], Batch] = lambda batch: batch,
) -> Callable:
    """Update of all members, (states, keys, data_set, data) -> (states, metrics), in two phases.

    First the values of all members' functions on events that all of them share, then each
    member's own step, which is told those values. So members may come side by side or one after
    another; either way all of them move at once.

    Args:
      step: of one member, made with the `repulsion` as its penalty.
      function: the same as there.
      key: of the common events.
      axis: as `over_members` has it.
      batch_size: number of common events.
      place_batch: sharding hint for them.
    """
    values_of = over_members(function, axis, num_shared=2)

    def one(state, key, data_set, data, neighbours):
        return step.update(state, key, data, data_set, neighbours)

    advance = over_members(one, axis, num_shared=2)

    def update(states, keys, data_set, data):
        key_rows, key_values = jax.random.split(jax.random.fold_in(key, states.step[0]))
        rows = jax.random.randint(key_rows, (batch_size,), 0, num_events(data))
        batch = place_batch(jax.tree.map(lambda a: a[rows], data))
        values = values_of(states.params, key_values, batch)
        neighbours = Neighbours(key_values, batch, values, kernel_width(values))
        return advance(states, keys, data_set, data, neighbours)

    return update

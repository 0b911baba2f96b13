"""Validation of members: their losses, the best so far, and when there will be none better."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jgen.generative_model import Batch, num_events
from jgen.training.config import TrainConfig
from jgen.typing import Params


class Best(NamedTuple):
    """Smallest validation loss so far, with its step and parameters, for each member."""

    loss: jax.Array
    step: jax.Array
    params: Params


def validate(measure, config, key, state, best, data_set, stacks):
    """Validation loss of one member on its data set, and its best parameters so far."""
    # One batch at a time, since under vmap every member gets a copy of what it picks.
    own = data_set if config.data_sets > 1 else 0
    shapes = [jax.tree.leaves(stack)[0].shape[1:3] for stack in stacks]
    # The same noise at every validation.
    keys = jax.random.split(key, sum(batches for batches, _ in shapes))
    total, first = 0.0, 0
    for stack, (batches, size) in zip(stacks, shapes, strict=True):

        def one(n, stack=stack, first=first):
            batch = jax.tree.map(lambda a: a[own, n], stack)
            return measure(state.average, keys[first + n], batch)

        total += size * jnp.sum(jax.lax.map(one, jnp.arange(batches)))
        first += batches
    loss = total / sum(batches * size for batches, size in shapes)
    better = loss < best.loss
    new = Best(loss, state.step, state.average if config.keep == "best" else None)
    return jax.tree.map(lambda n, b: jnp.where(better, n, b), new, best), loss


def exhausted(
    loss: Float[np.ndarray, " members"],
    best_step: Int[np.ndarray, " members"],
    step: int,
    config: TrainConfig,
) -> bool:
    """Whether every member has had `config.patience` validations without a smaller loss.

    A function of the best losses and their steps alone, so that nothing else has to be stored for a
    resumption. Losses are infinite before the first validation.
    """
    without = (step - best_step) // config.validate_every
    return bool((np.isfinite(loss) & (without >= config.patience)).all())


def stacks_of(data: Batch, batch_size: int) -> list[Batch]:
    """Events as stacks [batches, size, ...] of no more than two sizes, each event in one batch.

    There is no padding, which would need weights: couplings and some games take none.
    """
    num = num_events(data)
    least = -(-num // batch_size)
    # Batches of one size, if there is one that is not much smaller: the loss is compiled once.
    count = next((n for n in range(least, 2 * least) if num % n == 0), least)
    size, larger = divmod(num, count)

    def stack(first, batches, size):
        last = first + batches * size
        cut = lambda a: np.asarray(a)[first:last].reshape(batches, size, *np.shape(a)[1:])
        return jax.tree.map(cut, data)

    rest = stack(larger * (size + 1), count - larger, size)
    return [stack(0, larger, size + 1), rest] if larger else [rest]


def data_sets_of(data: Batch, num: int) -> list[Batch]:
    """The data sets that lie one after another in `data`."""
    size = num_events(data) // num
    return [jax.tree.map(lambda a: a[i * size : (i + 1) * size], data) for i in range(num)]  # noqa: B023

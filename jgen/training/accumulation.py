"""Minibatches in parts, one after another: less memory for the same gradient."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jgen.generative_model import Batch, GenerativeModel, loss_at, num_events
from jgen.typing import Key, Params


def check_event_keys(model: GenerativeModel, data: Batch, option: str) -> None:
    """Refuse what needs a loss that is a mean over events, each with a key of its own.

    Such a loss takes an array of keys, as `mean_loss` does. What splits one key, as games,
    couplings and draws of weights that all events share do, does not.

    Args:
      model: whose loss is looked at; nothing is computed.
      data: events, as the loss takes them.
      option: of the configuration, which messages name.

    Raises:
      ValueError: if the loss takes one key for all events.
    """

    def loss(key, data):
        return loss_at(model, model.init(key), jax.random.split(key, num_events(data)), data)

    try:
        jax.eval_shape(loss, jax.random.key(0), data)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{option} is for models whose loss is a mean over events, each with a key of its "
            f"own; that of this model takes one key for all of them, so use {option}=1"
        ) from error


def accumulated(
    loss: Callable[..., Array],
    parts: int,
    place_batch: Callable[[Batch], Batch] = lambda batch: batch,
) -> Callable[..., tuple[Array, Params]]:
    """Value and gradient of a loss, summed over equal parts of the minibatch.

    Every event keeps the key that it has in the whole minibatch, and weights are those of
    `mean_loss`, a sum over all events, so both are those of the whole up to rounding. The device
    holds what one part needs.

    Args:
      loss: (params, keys, batch, progress) -> mean over the events of a batch, each with its key.
      parts: that divide the events of a minibatch.
      place_batch: sharding hint for a part.

    Returns:
      The function (params, key, batch, progress) -> (value, gradient).
    """

    def value_and_grad(params: Params, key: Key, batch: Batch, progress: Array | float):
        cut = lambda a: a.reshape(parts, -1, *a.shape[1:])
        stacked = jax.tree.map(cut, (jax.random.split(key, num_events(batch)), batch))

        def one(keys, batch):
            return jax.value_and_grad(loss)(params, keys, place_batch(batch), progress)

        def add(total, part):
            return jax.tree.map(jnp.add, total, one(*part)), None

        first = jax.tree.map(lambda a: a[0], stacked)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(one, *first))
        total, _ = jax.lax.scan(add, zeros, stacked)
        return jax.tree.map(lambda a: a / parts, total)

    return value_and_grad

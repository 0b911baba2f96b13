"""Minibatches of sets in groups of like length, each padded no further than it needs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jgen.generative_model import Batch, GenerativeModel, loss_at, num_events
from jgen.sets import SetCondition
from jgen.training.accumulation import check_event_keys

_TRIALS = 1000
"""Minibatches that are tried for the lengths of their groups."""


def check_buckets(model: GenerativeModel, data: Batch, axis: str) -> None:
    """Refuse groups of what has no length, or cannot be cut, or where they would save nothing.

    Raises:
      ValueError: if events are no sets, the model's loss takes one key for all of them, as games
        and couplings do, or members are computed side by side.
    """
    if not isinstance(data.cond, SetCondition):
        raise ValueError(
            "buckets are for events that are sets of points, whose condition is a "
            f"jgen.sets.SetCondition, got {type(data.cond).__name__}; use buckets=1"
        )
    if axis == "vmap":
        raise ValueError(
            "buckets save nothing where members are computed side by side, since both ways of a "
            'choice are then taken; use axis="scan" or buckets=1'
        )
    check_event_keys(model, data, "buckets")


def bucket_rows(n: Int[np.ndarray, " num"], batch_size: int, buckets: int) -> tuple[int, ...]:
    """Rows that hold the points of each group of a sorted minibatch, in nearly all minibatches.

    Args:
      n: numbers of points of the training events.
      batch_size: events of a minibatch, a multiple of `buckets`.
      buckets: groups.
    """
    trials = np.random.default_rng(0).choice(np.asarray(n), (_TRIALS, batch_size))
    last = np.sort(trials, axis=1).reshape(_TRIALS, buckets, -1)[:, :, -1].max(axis=0)
    last[-1] = np.max(n)
    return tuple(int(rows) for rows in np.maximum(last, 1))


def bucketed_loss(model: GenerativeModel, rows: tuple[int, ...]) -> Callable[..., Array]:
    """The loss (params, key or keys, batch, progress) of a model of sets, in groups of like length.

    It has the value of `loss_at`, since every event has the same key in both. A minibatch that does
    not fit into the groups is computed as it is.

    Args:
      model: whose loss is `mean_loss` of one-event losses.
      rows: of each group, from the shortest events to the longest.
    """

    def loss(params, key, batch, progress):
        order = jnp.argsort(batch.cond.n)
        keys = (key if jnp.ndim(key) else jax.random.split(key, num_events(batch)))[order]
        batch = jax.tree.map(lambda a: a[order], batch)
        n = batch.cond.n.reshape(len(rows), -1)

        def whole():
            return loss_at(model, params, keys, batch, progress)

        def apart():
            total = 0.0
            for group, num in enumerate(rows):
                cut = slice(group * n.shape[1], (group + 1) * n.shape[1])
                part = jax.tree.map(lambda a: a[cut], batch)  # noqa: B023
                part = part._replace(x=jax.tree.map(lambda a: a[:, :num], part.x))  # noqa: B023
                total += loss_at(model, params, keys[cut], part, progress)
            return total / len(rows)

        return jax.lax.cond(jnp.all(n[:, -1] <= np.array(rows)), apart, whole)

    return loss

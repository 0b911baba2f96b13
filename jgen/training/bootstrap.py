"""Bootstrap: every member of an ensemble trains on its own resampled data, which nobody stores."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jgen.random import member_keys, stream
from jgen.typing import Key


def resampled(key: Key, positions: Int[Array, " n"], num: int) -> Int[Array, " n"]:
    """Rows of the data that stand at some positions of a member's resampled set.

    Position j of the set, which has as many events as the data, holds row
    randint(fold_in(bootstrap key, j)): a function of (key, j), so that a minibatch needs its own
    positions only and a resumed training has the same set.

    Args:
      key: the member's key, that of its training steps.
      positions: in the resampled set, 0 to num - 1.
      num: number of events.
    """
    key = stream(key, "bootstrap")
    return jax.vmap(lambda j: jax.random.randint(jax.random.fold_in(key, j), (), 0, num))(positions)


def bootstrap_rows(key: Key, member: int, num: int) -> Int[np.ndarray, " num"]:
    """Rows of the data that make the set of one member of a bootstrap ensemble, on the host.

    `np.bincount(rows, minlength=num)` says how often each event was there; about 37 % of them
    were not: a validation sample for this member ("out of bag"). Where the training data are
    several data sets, rows count within the member's own one and `num` is its size.

    Args:
      key: the key that `fit` was given.
      member: number of the member.
      num: number of training events of the member's data set.

    Raises:
      ValueError: if member is negative or num not positive.
    """
    if member < 0 or num < 1:
        raise ValueError(
            f"member counts from 0 and num is the number of events, got {member} and {num}"
        )
    own = member_keys(stream(key, "train"), 1, first=member)[0]
    return np.asarray(jax.jit(resampled, static_argnums=2)(own, jnp.arange(num), num))

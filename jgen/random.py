"""Named key streams: every random number is a function of (seed, stream name, member, step).

Nothing random is stored, so a resumed run draws what the uninterrupted one would have drawn, and
adding ensemble members leaves the old ones as they were.
"""

import math
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jgen.typing import Key


def stream(key: Key, name: str) -> Key:
    """The key stream called `name`; streams of different names are independent.

    Raises:
      TypeError: if `key` is not a typed key.
    """
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise TypeError(
            f"stream {name!r} needs a typed key, got an array of {key.dtype}: "
            "make keys with jax.random.key(seed), not jax.random.PRNGKey(seed)"
        )
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def numpy_generator(key: Key | None) -> np.random.Generator:
    """Random numbers of numpy from a key; None is `jax.random.key(0)`.

    That of `jax.random.key(n)` is `np.random.default_rng(n)`, the published code's where it has a
    seed n.

    Raises:
      TypeError: if `key` is neither a typed key nor None.
    """
    if key is None:
        return np.random.default_rng(0)
    if not jnp.issubdtype(getattr(key, "dtype", None), jax.dtypes.prng_key):
        raise TypeError(f"a typed key is needed, got {key!r}: make one with jax.random.key(seed)")
    words = np.asarray(jax.random.key_data(key), np.uint32).ravel()
    return np.random.default_rng(int.from_bytes(words.astype(">u4").tobytes(), "big"))


def member_keys(key: Key, num: int, first: int = 0) -> Key:
    """Keys [num] of members `first`, `first` + 1, ... of a stream."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, first + jnp.arange(num))


def normal(key: Key, shape: tuple[int, ...], dtype: jnp.dtype | None = None) -> Array:
    """Standard normal array, the same numbers as `jax.random.normal`.

    Drawn flat and reshaped: under vmap XLA on CPU compiles a draw of several axes ten times as
    slowly and runs it at half the speed.
    """
    dtype = jnp.result_type(float) if dtype is None else dtype
    return jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)

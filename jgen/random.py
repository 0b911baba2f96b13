"""Named key streams: every random number is a function of (seed, stream name, member, step).

Nothing random is stored, so a resumed run draws what the uninterrupted one would have drawn, and
adding ensemble members leaves the old ones as they were.
"""

import math
import zlib

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
from jaxtyping import Array

from jgen.typing import Key

_KIND = "threefry2x32"


def check_key(key: Key) -> None:
    """Refuse what is not one typed key of the kind whose numbers `jax.vmap` leaves alone.

    Keys of other kinds ("rbg", "unsafe_rbg") give other numbers within a batch than alone, so that
    an event would depend on how many are drawn at once, and a bootstrap member on its neighbours.

    Raises:
      ValueError: says what came and how to make a key.
    """
    make = "make keys with jax.random.key(seed)"
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        came = f"an array of {dtype}" if dtype is not None else f"{type(key).__name__} {key!r}"
        raise ValueError(f"a typed key is needed, got {came}: {make}, not jax.random.PRNGKey")
    if (kind := str(jax.random.key_impl(key))) != _KIND:
        raise ValueError(
            f"keys of the kind {kind!r} depend on their neighbours under jax.vmap, so that results "
            f"would depend on batch sizes: {make} of the default kind, or with "
            f"jax.random.key(seed, impl={_KIND!r})"
        )
    if key.shape:
        raise ValueError(f"one key is needed, got an array of keys of shape {key.shape}")


def stream(key: Key, name: str) -> Key:
    """The key stream called `name`; streams of different names are independent.

    Raises:
      ValueError: if `key` is none that `check_key` takes.
    """
    check_key(key)
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def numpy_generator(key: Key | None) -> np.random.Generator:
    """Random numbers of numpy from a key; None is `jax.random.key(0)`.

    That of `jax.random.key(n)` is `np.random.default_rng(n)`, the published code's where it has a
    seed n.

    Raises:
      ValueError: if `key` is neither None nor one that `check_key` takes.
    """
    if key is None:
        return np.random.default_rng(0)
    check_key(key)
    words = np.asarray(jax.random.key_data(key), np.uint32).ravel()
    return np.random.default_rng(int.from_bytes(words.astype(">u4").tobytes(), "big"))


def member_keys(key: Key, num: int, first: int = 0) -> jaxtyping.Key[Array, " num"]:
    """Keys [num] of members `first`, `first` + 1, ... of a stream."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, first + jnp.arange(num))


def normal(key: Key, shape: tuple[int, ...], dtype: jnp.dtype | None = None) -> Array:
    """Standard normal array, the same numbers as `jax.random.normal`.

    Drawn flat and reshaped: under vmap XLA on CPU compiles a draw of several axes ten times as
    slowly and runs it at half the speed.
    """
    dtype = jnp.result_type(float) if dtype is None else dtype
    return jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)

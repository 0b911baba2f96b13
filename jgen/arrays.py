"""The door for numbers: what users hand over becomes an array of real numbers, or is refused."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Real


class SampleWarning(UserWarning):
    """Samples that can be compared, but numbers may not mean what they seem to."""


def real_array(values: Any, name: str, *, booleans: bool = True) -> Real[np.ndarray, "..."]:
    """Numbers on the host in the machine's byte order, without a copy where none is needed.

    Integers, half, single and double precision stay what they are; other floats become what holds
    them.

    Args:
      values: an array of numpy or JAX, or lists of numbers.
      name: what messages call it.
      booleans: whether they count as numbers.

    Raises:
      ValueError: if entries are masked, of different lengths, or no real numbers.
    """
    check_unmasked(values, name)
    try:
        array = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} is no array of numbers ({error}); pass one") from error
    dtype = array.dtype
    if dtype.kind in ("fiub" if booleans else "fiu"):
        if dtype == np.longdouble:
            return array.astype(np.float64)
        return array.astype(dtype.newbyteorder("="), copy=False)
    # Such as bfloat16, which numpy does not know.
    if jnp.issubdtype(dtype, jnp.floating):
        return array.astype(np.float32)
    raise ValueError(
        f"{name} must be an array of real numbers, got {describe(values, array)}: convert it, "
        "such as with x.astype(float)"
    )


def check_unmasked(values: Any, name: str) -> None:
    """Refuse a masked array, whose hidden numbers would become data.

    Raises:
      ValueError: if an entry is masked.
    """
    if not isinstance(values, np.ma.MaskedArray):
        return
    if num := int(np.ma.getmaskarray(values).sum()):
        raise ValueError(
            f"{num} of {values.size} entries of {name} are masked, and what is behind a mask is no "
            "data: drop these events, or fill them with values that you mean"
        )


def describe(values: Any, array: np.ndarray) -> str:
    """What came, in a few words."""
    if array.dtype == object:
        return f"{type(values).__name__} of Python objects"
    kinds = {"c": "complex numbers", "U": "text", "S": "text", "b": "booleans", "V": "records"}
    return f"{kinds.get(array.dtype.kind, 'entries')} ({array.dtype})"

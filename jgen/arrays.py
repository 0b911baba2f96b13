"""The door for numbers: what users hand over becomes an array of real numbers, or is refused."""

import linecache
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Real

from jgen.typing import PyTree

# Bits of a column's range that single precision has to keep.
_FEWEST_BITS = 10

Numbers = Real[np.ndarray, "..."] | Bool[np.ndarray, "..."]
"""Real numbers on the host; a boolean counts as one."""


class SampleWarning(UserWarning):
    """Samples that can be compared, but numbers may not mean what they seem to."""


@contextmanager
def quiet_samples() -> Iterator[None]:
    """Without `SampleWarning`s, where they are said elsewhere or hold for the truth as well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SampleWarning)
        yield


def real_array(values: Any, name: str, *, booleans: bool = True) -> Numbers:
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


def cast_array(array: np.ndarray, name: str, dtype: type | np.dtype = np.float32) -> np.ndarray:
    """Numbers in the precision that programs use, without a copy where none is needed.

    Args:
      array: real numbers, as `real_array` returns them.
      name: what messages call them.
      dtype: of floats.

    Raises:
      ValueError: if finite numbers are too large for it and would become infinite.
    """
    with np.errstate(over="ignore"):
        out = array.astype(dtype, copy=False)
    if out is array or not (infinite := np.isinf(out)).any():
        return out
    lost = infinite & np.isfinite(array)
    if lost.any():
        raise ValueError(
            f"{name} has {lost.sum()} numbers such as {array[lost][0]:.3g}, beyond the largest of "
            f"{out.dtype}, {np.finfo(out.dtype).max:.3g}: choose other units, or drop those events"
        )
    return out


def double_array(values: Any, name: str) -> Float[np.ndarray, "..."]:
    """`real_array` in double precision."""
    return real_array(values, name).astype(np.float64, copy=False)


def sample_array(values: Any, name: str) -> Real[np.ndarray, " n"] | Bool[np.ndarray, " n"]:
    """`real_array` of one number an event: not empty and without NaN; infinities are allowed."""
    array = real_array(values, name)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"{name} need the shape [n], one number an event, got {array.shape}")
    # The smallest is NaN if any is.
    if np.isnan(array.min()):
        bad = int(np.isnan(array).sum())
        raise ValueError(f"{bad} of {len(array)} {name} are NaN: drop or repair those events")
    return array


def edge_array(values: Any, name: str = "edges") -> Float[np.ndarray, " edges"]:
    """`double_array` of increasing edges of bins, which may begin and end with an infinity."""
    edges = double_array(values, name)
    if edges.ndim != 1 or len(edges) < 2 or not np.all(edges[1:] > edges[:-1]):
        raise ValueError(f"{name} must be two or more increasing numbers, got {edges}")
    return edges


def finite_array(values: Any, name: str, ndim: int | None = None) -> Float[np.ndarray, "..."]:
    """`double_array` of finite numbers, not empty, with so many axes if that is given."""
    return _array_of(values, name, ndim, "finite", np.isfinite)


def not_negative_array(values: Any, name: str, ndim: int | None = None) -> Float[np.ndarray, "..."]:
    """The same of numbers from zero on."""
    what = "zero or positive and finite"
    return _array_of(values, name, ndim, what, lambda a: (a >= 0) & (a < np.inf))


def positive_array(values: Any, name: str, ndim: int | None = None) -> Float[np.ndarray, "..."]:
    """The same of positive numbers, of which infinity, a limit, is one."""
    return _array_of(values, name, ndim, "positive", lambda a: a > 0)


def fraction_array(values: Any, name: str, ndim: int | None = None) -> Float[np.ndarray, "..."]:
    """The same of numbers from 0 to 1."""
    return _array_of(values, name, ndim, "between 0 and 1", lambda a: (a >= 0) & (a <= 1))


def _array_of(values, name, ndim, what, holds):
    array = double_array(values, name)
    if not array.size or ndim not in (None, array.ndim):
        axes = "some numbers" if ndim is None else f"{ndim} axes and some numbers"
        raise ValueError(f"{name} must be an array with {axes}, got the shape {array.shape}")
    bad = ~holds(array)
    if bad.any():
        raise ValueError(
            f"{name} must be {what}, but {bad.sum()} of {bad.size} entries are not, the first is "
            f"{array[bad][0]}: repair or drop them"
        )
    return array


def evenly(values: Numbers, size: int) -> Numbers:
    """So many rows at even distances, since files may be sorted; all of them as they are."""
    num = len(values)
    return values if size == num else values[np.arange(size) * num // size]


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


def event_arrays(
    tree: PyTree, name: str, dtype: type | np.dtype = np.float32, *, integers: bool = False
) -> PyTree:
    """A pytree of arrays on the host as models take them.

    Args:
      tree: what users have, of any real type.
      name: what messages call it.
      dtype: that all become.
      integers: whether integers and booleans stay what they are, as labels do.

    Raises:
      ValueError: as `real_array` and `cast_array`, and for integers of more than 32 bits.
    """

    def cast(path, leaf):
        where = name + jax.tree_util.keystr(path)
        array = real_array(leaf, where)
        if integers and array.dtype.kind in "iub":
            if array.dtype.itemsize == 8 and array.size and np.abs(array).max() >= 2**31:
                raise ValueError(f"{where} has integers of more than 32 bits; make them smaller")
            return array
        return cast_array(array, where, dtype)

    # A list of numbers is an array, one of arrays is a pytree.
    is_leaf = lambda x: isinstance(x, list) and not any(hasattr(entry, "dtype") for entry in x)
    return jax.tree_util.tree_map_with_path(cast, tree, is_leaf=is_leaf)


def check_finite_events(tree: PyTree, name: str) -> None:
    """Refuse NaN and infinities in arrays of events; integers have none.

    Raises:
      ValueError: says in which array, and for how many events.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        if not np.issubdtype(array.dtype, np.floating) or np.isfinite(array).all():
            continue
        bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1) if array.ndim else [True]
        raise ValueError(
            f"{name}{jax.tree_util.keystr(path)} holds values that are not finite numbers, in "
            f"{np.sum(bad)} of {len(bad)} events: drop or repair them"
        )


def warn_of_rounding(tree: PyTree, name: str) -> None:
    """Warn where single precision keeps hardly anything of how numbers differ from event to event.

    Such as a mass of 91 GeV in keV of which nothing but a width of a few keV is of interest.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        # Of what comes in single precision it is lost already.
        wide = array.dtype.kind in "fiu" and array.dtype.itemsize >= 4 and array.dtype != np.float32
        if not wide or not array.ndim or not array.size:
            continue
        largest = np.abs(array).max(axis=0).astype(np.float64)
        width = np.ptp(array.astype(np.float64), axis=0)
        single = np.finfo(np.float32)
        bad = (width > 0) & (width < 2**_FEWEST_BITS * single.eps * largest)
        bad |= (largest > 0) & (largest < single.tiny)
        if bad.any():
            first = tuple(int(i) for i in np.argwhere(bad)[0])
            warnings.warn(
                f"{name}{jax.tree_util.keystr(path)} changes by {width[first]:.3g} at "
                f"{largest[first]:.3g} in column {first}, of which single precision keeps next to "
                "nothing: subtract the offset, or choose other units, in double precision first",
                SampleWarning,
                stacklevel=4,
            )


def shapes_of(tree: PyTree) -> str:
    """Types and shapes in a few words."""
    one = lambda a: f"{a.dtype}{list(a.shape)}"
    return one(tree) if hasattr(tree, "dtype") else str(jax.tree.map(one, tree))


@contextmanager
def explained(what: str, **inputs: PyTree) -> Iterator[None]:
    """Errors from deep inside as one that says what was given.

    Those that code raises for its own reasons stay what they are.

    Args:
      what: that refuses its inputs.
      inputs: arrays by name; None is left out.

    Raises:
      ValueError: for what a library raises, with the first line of its message.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, FloatingPointError, MemoryError):
        raise
    except Exception as error:
        if _raised_on_purpose(error):
            raise
        given = ", ".join(f"{n} {shapes_of(t)}" for n, t in inputs.items() if t is not None)
        given = given or "events without conditions"
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{what} does not take {given}: is the number of columns, the condition or the type "
            f"another than it was made for? ({type(error).__name__}: {reason})"
        ) from error


def _raised_on_purpose(error: Exception) -> bool:
    """Whether the last line was a `raise` outside of installed libraries."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    path = trace.tb_frame.f_code.co_filename
    line = linecache.getline(path, trace.tb_lineno).strip()
    return line.startswith("raise ") and "site-packages" not in path

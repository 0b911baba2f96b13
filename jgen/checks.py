"""Checks of options where they come in: a sentence instead of an error from far inside.

    check_sizes(width=config.width, heads=config.heads)
    check_positive(prior_scale=prior_scale)

Each takes the options by their names and raises a ValueError that says what came and what is
allowed.
"""

import math
import types
import typing
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from jgen.typing import PyTree

LARGEST_COUNT = 2**31 - 1
"""Steps and events are counted in 32 bits on the device."""
LARGEST_SIZE = 10**6
"""Widths and numbers of components: a square matrix of as many rows is 4 TB."""
LARGEST_DEPTH = 1000
"""Layers: each is traced, or has parameters of its own."""
_LARGEST_MODEL = 10**11
"""Parameters: 400 GB in single precision."""


def check_whole(least: int = 1, most: int = LARGEST_COUNT, **numbers: Any) -> None:
    """Refuse what is no whole number from `least` to `most`; for several see `check_wholes`."""
    for name, value in numbers.items():
        if not (_is_whole(value) and least <= value <= most):
            raise ValueError(f"{name} must be a whole number from {least} to {most}, got {value!r}")


def check_wholes(least: int = 1, most: int = LARGEST_COUNT, **numbers: Any) -> None:
    """Refuse what is no tuple or list of whole numbers from `least` to `most`."""
    for name, value in numbers.items():
        many = isinstance(value, tuple | list)
        if not (many and all(_is_whole(v) and least <= v <= most for v in value)):
            raise ValueError(
                f"{name} must be whole numbers from {least} to {most}, a tuple, got {value!r}"
            )


def check_sizes(**sizes: Any) -> None:
    """Refuse widths, numbers of components or heads that no network can have."""
    check_whole(1, LARGEST_SIZE, **sizes)


def check_cond(num_cond: Any) -> None:
    """Refuse what is no number of numbers in a condition; 0 is none."""
    check_whole(0, LARGEST_SIZE, num_cond=num_cond)


def check_depths(**depths: Any) -> None:
    """Refuse numbers of layers that no network can have."""
    check_whole(1, LARGEST_DEPTH, **depths)


def check_widths(least: int = 0, **widths: Any) -> None:
    """Refuse what are no widths of `least` or more hidden layers."""
    for name, value in widths.items():
        if not isinstance(value, tuple | list) or not least <= len(value) <= LARGEST_DEPTH:
            raise ValueError(
                f"{name} must be the widths of {least} to {LARGEST_DEPTH} layers, got {value!r}"
            )
    check_wholes(1, LARGEST_SIZE, **widths)


def check_shape(shape: Any, name: str = "shape") -> tuple[int, ...]:
    """The shape of an array, of a whole number or several.

    Raises:
      ValueError: for anything else.
    """
    shape = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    if not all(_is_whole(n) and n >= 1 for n in shape) or math.prod(shape) > LARGEST_COUNT:
        raise ValueError(
            f"{name} must be whole numbers from 1 on, the sizes of an array's axes, got {shape}"
        )
    return shape


def check_positive(**numbers: Any) -> None:
    """Refuse what is no finite positive number."""
    _check_numbers(numbers, "positive and finite", lambda v: v > 0)


def check_positive_or_infinite(**numbers: Any) -> None:
    """Refuse what is no positive number; infinity, a limit, is one."""
    _check_numbers(numbers, "positive", lambda v: v > 0, infinite=True)


def check_not_negative(**numbers: Any) -> None:
    """Refuse what is no finite number from zero on."""
    _check_numbers(numbers, "zero or positive and finite", lambda v: v >= 0)


def check_finite(**numbers: Any) -> None:
    """Refuse what is no finite number."""
    _check_numbers(numbers, "finite", lambda v: True)


def check_fraction(**numbers: Any) -> None:
    """Refuse what is no number in [0, 1)."""
    _check_numbers(numbers, "in [0, 1)", lambda v: 0 <= v < 1)


def check_open_fraction(**numbers: Any) -> None:
    """Refuse what is no number in (0, 1)."""
    _check_numbers(numbers, "between 0 and 1", lambda v: 0 < v < 1)


def check_known(choices: Any, **names: Any) -> None:
    """Refuse names that are not among the choices: a `Literal`, or some names."""
    known = typing.get_args(choices) or tuple(choices)
    for name, value in names.items():
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(str, known))}, got {value!r}")


def check_literals(config: Any) -> None:
    """Refuse fields of a dataclass that are not among the choices of their `Literal`, if any.

    Also tuples that have not as many entries as their type says.
    """
    for name, kind in typing.get_type_hints(type(config)).items():
        value = getattr(config, name, None)
        if isinstance(kind, types.UnionType) and value is not None:  # tuple[float, float] | None
            kind = next((k for k in kind.__args__ if typing.get_origin(k) is tuple), kind)
        if typing.get_origin(kind) is tuple:
            kinds = typing.get_args(kind)
            kind = kinds[0]
            value = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
            if Ellipsis not in kinds and len(value) != len(kinds):
                raise ValueError(f"{name} must be {len(kinds)} values, got {value}")
        else:
            value = [value]
        if typing.get_origin(kind) is typing.Literal:
            for one in value:
                check_known(kind, **{name: one})


def check_memory(shapes: PyTree, name: str = "the model", copies: int = 1) -> None:
    """Refuse parameters that no memory holds.

    Args:
      shapes: arrays, or what `jax.eval_shape` returns.
      name: of what they are parameters of.
      copies: of them.
    """
    num = copies * sum(math.prod(np.shape(leaf)) for leaf in jax.tree.leaves(shapes))
    if num > _LARGEST_MODEL:
        raise ValueError(
            f"{name} has {num:.2g} parameters, {4 * num:.2g} bytes in single precision, which no "
            "memory holds; choose smaller sizes"
        )


def _check_numbers(numbers, what, holds, infinite=False):
    for name, value in numbers.items():
        if isinstance(value, jax.core.Tracer):
            continue  # its value is not known while a program is made
        if not (_is_number(value) and (infinite or math.isfinite(value)) and holds(value)):
            raise ValueError(f"{name} must be {what}, got {value!r}")


def _is_number(value) -> bool:
    return np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iuf"


def _is_whole(value) -> bool:
    return np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iu"

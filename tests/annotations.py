"""Annotations of a package, checked in every call: types, dtypes and shapes.

Arguments may be arrays of numpy or of JAX, integers where floats are asked for, and lists where
arrays of numpy are. What a function refuses itself stays its ValueError.
"""

import collections
import functools
import inspect
import types
import typing

import jax
import jaxtyping
import numpy as np
from beartype import BeartypeConf, beartype
from jax.typing import ArrayLike

_jaxtyped = jaxtyping.jaxtyped


def check(package: str) -> None:
    """Check a package that is not imported yet."""
    jaxtyping.jaxtyped = lambda typechecker: checked
    jaxtyping.install_import_hook(package, None)


def checked(function):
    """A function whose calls are checked; fields of classes are not, functions refuse bad ones."""
    if inspect.isclass(function):
        return function
    strict = _jaxtyped(function, typechecker=_typechecker)

    @functools.wraps(function)
    def call(*args, **kwargs):
        try:
            return strict(*args, **kwargs)
        except jaxtyping.TypeCheckError as error:
            if f" parameters of {function.__module__}.{function.__qualname__}." in str(error):
                result = function(*args, **kwargs)  # may refuse them in its own words
                _ = next(result) if inspect.isgenerator(result) else None
            raise

    return call


def _typechecker(function):
    for name, hint in function.__annotations__.items():
        function.__annotations__[name] = _widened(hint, name == "return")
    return beartype(conf=BeartypeConf(is_pep484_tower=True))(function)


def _widened(hint, is_result):
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if parts and origin is not collections.abc.Callable:
        origin = typing.Union if origin is types.UnionType else origin
        return origin[tuple(_widened(part, is_result) for part in parts)]
    if hint in (int, float) and not is_result:
        return hint | (np.integer if hint is int else np.number)
    kind = getattr(hint, "array_type", hint)
    if kind not in (jax.Array, np.ndarray) or (is_result and kind is jax.Array):
        return hint
    wide = np.ndarray | np.generic if is_result else ArrayLike
    if hint is not kind:
        real = hint.dtype is jaxtyping.Float and not is_result
        wide = (jaxtyping.Real if real else hint.dtype)[wide, hint.dim_str]
    return wide | list | tuple if kind is np.ndarray and not is_result else wide

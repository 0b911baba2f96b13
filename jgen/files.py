"""Files: atomic writes, and trees of arrays in one file.

A reader sees the old file or the new one, never half of one. `save` and `load` keep parameters of
one model or of a stacked ensemble with their tree, their types and a user's notes, without pickle:

    save("flow.npz", fitted.params, metadata={"data": "moons", "steps": 2000})
    params = load("flow.npz", model)
"""

import importlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np

from jgen.arrays import check_unmasked
from jgen.typing import PyTree

_HEADER = "__tree__"
# numpy writes no other types; their bits are kept in integers of the same size.
_BITS = {1: np.uint8, 2: np.uint16, 4: np.uint32}


def make_folder(path: str | os.PathLike) -> Path:
    """Make a folder, and those above it, unless it is there.

    Raises:
      ValueError: if one of them is a file.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{error.filename} is in the way of a folder; choose another") from error
    return path


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path`, moved there in one step when the block ends well.

    Makes the folder if need be. A process killed in the block leaves the old file.
    """
    path = Path(path)
    make_folder(path.parent)
    partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_json(path: str | os.PathLike, advice: str = "restore it") -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
      ValueError: if it is damaged; says the file and what to do, `advice`.
    """
    path = Path(path)
    try:
        found = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:  # of JSON and of its characters
        what = str(error) if path.stat().st_size else "it is empty"
        raise ValueError(f"{path} is damaged ({what}); {advice}") from error
    if not isinstance(found, dict):
        raise ValueError(
            f"{path} is damaged (it holds a {type(found).__name__}, no object); {advice}"
        )
    return found


def save(
    path: str | os.PathLike, params: PyTree, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write a tree of arrays, numbers and strings into one .npz file, atomically.

    Args:
      path: of the file.
      params: dictionaries, lists, tuples, NamedTuples and None around arrays of any type that JAX
        has, bfloat16 and float8 among them, numbers and strings; of one model or of an ensemble.
      metadata: whatever JSON can hold; `load_metadata` reads it.

    Raises:
      ValueError: for a leaf that is none of these; names its path.
    """
    arrays: dict[str, np.ndarray] = {}
    header = {"tree": _describe(params, "", arrays), "metadata": dict(metadata or {})}
    try:
        text = json.dumps(header)
    except TypeError as error:
        raise ValueError(f"metadata must be what JSON can hold: {error}") from error
    arrays[_HEADER] = np.frombuffer(text.encode(), np.uint8)
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


def load(path: str | os.PathLike, like: PyTree = None) -> PyTree:
    """Read what `save` wrote; leaves are numpy arrays with the types they had.

    Args:
      path: of the file.
      like: a `GenerativeModel` or `Network`, its `init`, or parameters, that the file has to fit:
        the same tree, shapes and types, all with one axis of ensemble members more if the file
        holds those of an ensemble. Needed only for trees with NamedTuples of your own.

    Raises:
      ValueError: if the file is none of `save`, does not fit, naming the first path that differs,
        or has NaN where a model's parameters are wanted.
    """
    header, arrays = _read(Path(path))
    with damage_named(path):
        stored = dict(_leaves(header["tree"], arrays))
        if like is None:
            return _rebuild(header["tree"], arrays, path)
    init = getattr(like, "init", like)
    expected = jax.eval_shape(init, jax.random.key(0)) if callable(init) else like
    wanted = {_name(p): leaf for p, leaf in jax.tree_util.tree_leaves_with_path(expected)}
    _compare(path, stored, wanted)
    return jax.tree_util.tree_map_with_path(lambda p, _: stored[_name(p)], expected)


def load_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """The notes that `save` was given."""
    return _read(Path(path))[0]["metadata"]


def _read(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    with damage_named(path):
        with np.load(path) as file:
            arrays = dict(file)
        header = json.loads(arrays.pop(_HEADER).tobytes().decode())
        return {name: header[name] for name in ("tree", "metadata")}, arrays


class _RefusedError(ValueError):
    """What a sound file is refused for."""


@contextmanager
def damage_named(path: str | os.PathLike, writer: str = "jgen.save") -> Iterator[None]:
    """Whatever goes wrong in the block is the fault of the file at `path`."""
    try:
        yield
    except (FileNotFoundError, MemoryError, _RefusedError):
        raise
    except Exception as error:  # zipfile, zlib, struct, json, pickle and numpy have many kinds
        raise ValueError(
            f"{path} is no file of {writer}, or was cut off or changed: "
            f"{type(error).__name__}: {error}"
        ) from error


def _describe(tree: PyTree, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """What JSON says of a tree; its arrays go into `arrays`, named by their paths."""
    below = lambda name: f"{path}/{name}" if path else str(name)
    if tree is None:
        return None
    if isinstance(tree, str):
        return {"text": tree}
    if isinstance(tree, Mapping):
        if bad := [key for key in tree if not isinstance(key, str)]:
            raise ValueError(f"{path or 'params'} has the key {bad[0]!r}; keys must be strings")
        return {"dict": {k: _describe(v, below(k), arrays) for k, v in tree.items()}}
    if hasattr(tree, "_fields"):
        fields = {f: _describe(getattr(tree, f), below(f), arrays) for f in tree._fields}
        return {"named": [type(tree).__module__, type(tree).__qualname__], "fields": fields}
    if isinstance(tree, list | tuple):
        kind = "list" if isinstance(tree, list) else "tuple"
        return {kind: [_describe(v, below(i), arrays) for i, v in enumerate(tree)]}
    return _describe_array(tree, path or "params", arrays)


def _describe_array(leaf: Any, path: str, arrays: dict[str, np.ndarray]) -> dict:
    is_key = isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    if is_key or not isinstance(leaf, jax.Array | np.ndarray | np.generic | int | float | complex):
        raise ValueError(
            f"{path} is a {type(leaf).__name__}{' of PRNG keys' if is_key else ''}; save arrays, "
            "numbers and strings (of a key, jax.random.key_data)"
        )
    check_unmasked(leaf, path)
    array = np.asarray(leaf)
    if array.dtype.kind in "OSUMm":
        raise ValueError(f"{path} is an array of {array.dtype}; save numbers")
    name = array.dtype.name
    if array.dtype.kind not in "biufc" or hasattr(ml_dtypes, name):
        array = array.view(_BITS[array.dtype.itemsize])
    arrays[path] = array
    return {"array": path, "dtype": name}


def _array(description: dict, arrays: dict[str, np.ndarray]) -> np.ndarray:
    name, array = description["dtype"], arrays[description["array"]]
    return array.view(getattr(ml_dtypes, name)) if hasattr(ml_dtypes, name) else array


def _rebuild(tree: Any, arrays: dict[str, np.ndarray], path: Any) -> PyTree:
    """The tree of a description."""
    again = lambda value: _rebuild(value, arrays, path)
    if tree is None:
        return None
    if "text" in tree:
        return tree["text"]
    if "dict" in tree:
        return {k: again(v) for k, v in tree["dict"].items()}
    if "list" in tree:
        return [again(v) for v in tree["list"]]
    if "tuple" in tree:
        return tuple(again(v) for v in tree["tuple"])
    if "named" in tree:
        module, name = tree["named"]
        # A file says what is imported, so only what is jgen's own.
        if module.split(".")[0] not in ("jgen", "experiments"):
            raise _RefusedError(
                f"{path} holds a {name} of {module}; give load(path, like) a model or parameters"
            )
        kind = getattr(importlib.import_module(module), name)
        return kind(**{k: again(v) for k, v in tree["fields"].items()})
    return _array(tree, arrays)


def _leaves(tree: Any, arrays: dict[str, np.ndarray], path: str = "") -> Iterator[tuple]:
    """(path, array) of all leaves of a description."""
    if tree is None or "text" in tree:
        return
    if "array" in tree:
        yield path, _array(tree, arrays)
        return
    inner = tree.get("dict") or tree.get("fields") or tree.get("list") or tree.get("tuple") or {}
    pairs = inner.items() if isinstance(inner, dict) else enumerate(inner)
    for name, value in pairs:
        yield from _leaves(value, arrays, f"{path}/{name}" if path else str(name))


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _compare(path: Any, stored: dict, wanted: dict) -> None:
    """Refuse a file of another tree, with the first path that differs."""
    for name in sorted(stored.keys() | wanted.keys()):
        if name not in stored:
            raise ValueError(f"{path} is of another model: it has no {name!r}, which this one has")
        if name not in wanted:
            raise ValueError(
                f"{path} has {name!r}, which the model has not: it is of another model"
            )
    first = next(iter(wanted), None)
    stacked = first is not None and np.ndim(stored[first]) == np.ndim(wanted[first]) + 1
    for name, leaf in wanted.items():
        array = stored[name]
        shape = array.shape[1:] if stacked else array.shape
        dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
        if shape != np.shape(leaf) or array.dtype != dtype:
            raise ValueError(
                f"{path} is of another model: {name!r} has shape {array.shape} and type "
                f"{array.dtype}, this one's {np.shape(leaf)} and {dtype}"
            )
        if jax.numpy.issubdtype(array.dtype, jax.numpy.inexact) and np.isnan(array).any():
            raise ValueError(f"{path} is damaged: {name!r} holds NaN, and so would all events")

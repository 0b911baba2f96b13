"""Events from whatever holds them in columns, ROOT files among them, and back.

    from jgen.columns import read_root, to_batch, to_columns, write_root

    columns = read_root("jets.root", "events")
    batch = to_batch(columns, ("pt", "eta", "phi"), cond=("jet_pt",))
    ...
    write_root("generated.root", to_columns(x, ("pt", "eta", "phi")))

Columns come as a frame of pandas, a dictionary, records of awkward or a structured array of numpy.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Real

from jgen.arrays import Numbers, check_unmasked, real_array
from jgen.files import atomic_path
from jgen.generative_model import Batch
from jgen.sets import SetCondition, count_array, padded_rows


def to_batch(
    data: Any,
    names: Sequence[str] = (),
    *,
    cond: str | Sequence[str] = (),
    weight: str = "",
    rows: int | None = None,
) -> Batch:
    """Events of columns, as models are trained on them.

    Columns with a number an event become x [events, columns]. A column of arrays that are as long
    for all events, [events, k], counts as k columns. Columns with a list an event, ragged ones of
    awkward or lists of arrays, are the points of sets: x [events, rows, columns], padded with
    zeros, and their number is in the `SetCondition`.

    Args:
      data: a frame of pandas, a dictionary of columns, records of awkward, whose inner fields are
        named "jet.pt", or a structured array of numpy.
      names: columns of the events, in this order; all that are not named elsewhere unless given.
      cond: columns of the condition, a vector an event; the name of one alone keeps its type, as
        labels do.
      weight: column of the weights.
      rows: points of a set that are kept, leading ones; the longest event's number unless given.

    Raises:
      ValueError: for data of another kind, columns that are not there, do not belong together, or
        are no numbers.
    """
    _check_names(names)
    one = isinstance(cond, str)
    given = (cond,) if one else tuple(cond)
    there = _names(data)
    names = tuple(names) or tuple(n for n in there if n not in (*given, weight))
    _check_once(names)
    if not names:
        raise ValueError(f"no column is left for the events; found {', '.join(map(str, there))}")
    used = dict.fromkeys((*names, *given, *((weight,) if weight else ())))
    columns = {name: flat_column(_pick(data, name, there), str(name)) for name in used}
    _check_lengths(columns)
    flat = lambda wanted: np.concatenate([_wide(columns[n][0]) for n in wanted], axis=1)
    for name in (*given, weight):
        if name and columns[name][1] is not None:
            raise ValueError(f"{name} has a list an event, but conditions and weights are numbers")
    x, n = _events({name: columns[name] for name in names}, rows)
    condition = None
    if given:
        condition = columns[cond][0] if one else _floats(flat(given))
        # The name of one alone keeps its type, but that of sets is a vector, too.
        _check_single(columns, () if one and n is None else given)
    if n is not None:
        vector = None if condition is None else _floats(_wide(condition)).astype(np.float32)
        condition = SetCondition(n, vector)
    return Batch(x, condition, columns[weight][0] if weight else None)


def to_columns(
    x: Real[np.ndarray, "*shape"], names: Sequence[str], n: Int[np.ndarray, " num"] | None = None
) -> dict[str, Any]:
    """Events as columns, sets of points as ragged ones of awkward.

    Args:
      x: [events, columns], or sets [events, rows, columns].
      names: of the columns.
      n: numbers of points, of sets.

    Raises:
      ValueError: for arrays that are neither, numbers that do not fit, and a name given twice.
    """
    x = real_array(x, "x")
    _check_names(names)
    _check_once(names)
    if x.ndim != (2 if n is None else 3) or x.shape[-1] != len(names):
        shape = "[events, columns]" if n is None else "[events, rows, columns]"
        raise ValueError(f"x must be {shape} with {len(names)} columns, got the shape {x.shape}")
    if n is None:
        return {name: np.ascontiguousarray(x[:, i]) for i, name in enumerate(names)}
    awkward = _library("awkward")
    n = count_array(n, *x.shape[:2])
    points = x[np.arange(x.shape[1]) < n[:, None]]
    ragged = lambda i: awkward.unflatten(np.ascontiguousarray(points[:, i]), n)
    return {name: ragged(i) for i, name in enumerate(names)}


def read_root(path: str | os.PathLike, tree: str = "", names: Sequence[str] = ()) -> dict[str, Any]:
    """Columns of a TTree or RNTuple, ragged ones as arrays of awkward; needs `uproot`.

    Args:
      path: of the file.
      tree: its name; may be left out if there is only one.
      names: branches that are read; all unless given, but those that only count entries of others.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it cannot be read, or has no such tree or branch.
    """
    _check_names(names)
    uproot, awkward, path = _library("uproot"), _library("awkward"), Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; check the path and the working directory")
    try:
        file = uproot.open(path)
    except Exception as error:  # it raises whatever the bytes lead to
        raise ValueError(f"{path}: no readable ROOT file ({_first_line(error)})") from error
    with file:
        kinds = file.classnames(cycle=False).items()
        trees = [name for name, kind in kinds if kind in ("TTree", "ROOT::RNTuple")]
        chosen = tree or (trees[0] if len(trees) == 1 else "")
        if chosen not in trees:
            wrong = f"no tree {tree!r}" if tree else f"{len(trees)} trees"
            raise ValueError(f"{path} has {wrong}; found {', '.join(trees) or 'none'}")
        source = file[chosen]
        there = source.keys(recursive=False)
        if missing := [name for name in names if name not in there]:
            raise ValueError(f"{path}:{chosen} has no branch {missing[0]!r}; found {sorted(there)}")
        counters = {
            branch.count_branch.name
            for branch in getattr(source, "branches", ())
            if branch.count_branch is not None
        }
        read = list(names) or [name for name in there if name not in counters]
        try:
            arrays = source.arrays(read)
        except Exception as error:
            raise ValueError(f"{path}: {chosen} is damaged ({_first_line(error)})") from error
    return {name: _plain(arrays[name], awkward) for name in read}


def write_root(path: str | os.PathLike, columns: Any, tree: str = "events") -> None:
    """Columns as a TTree of a new file; needs `uproot`.

    Args:
      path: of the file, which is replaced.
      columns: as `to_columns` makes them, or a frame of pandas. A ragged one, NAME, gets a branch
        nNAME beside it, with the numbers of its entries.
      tree: its name.

    Raises:
      ValueError: for columns that are no numbers, or not of as many events.
    """
    uproot = _library("uproot")
    if not hasattr(columns, "keys") or not len(columns.keys()):
        raise ValueError(
            "columns must be a dictionary of name -> array, or a frame of pandas, of one at least, "
            f"got {type(columns).__name__}"
        )
    columns = {name: columns[name] for name in columns.keys()}  # noqa: SIM118, a frame has keys
    for name in (tree, *columns):
        if not (isinstance(name, str) and name):
            raise ValueError(f"trees and branches need names, got {name!r}")
    if ";" in tree:
        raise ValueError(f"what stands behind ; is the cycle of a tree: no name, got {tree!r}")
    made = {name: flat_column(column, name) for name, column in columns.items()}
    _check_lengths(made)
    for name, (values, counts) in made.items():
        # ROOT has no half precision.
        columns[name] = values.astype(np.float32) if values.dtype == np.float16 else values
        if counts is not None:
            columns[name] = _library("awkward").unflatten(columns[name], counts)
    with atomic_path(path) as partial, uproot.recreate(partial) as file:
        file.mktree(tree, columns)


def flat_column(values: Any, name: str) -> tuple[Numbers, Int[np.ndarray, " events"] | None]:
    """All numbers of a column one after another, and how many each event has.

    Args:
      values: an array of numpy, pandas or awkward, or a list.
      name: what messages call it.

    Returns:
      Numbers and counts of a column with a list an event, which a list of lists is, whatever their
      lengths. Of a column [events] or [events, k] itself and None.

    Raises:
      ValueError: for what is no column of numbers.
    """
    check_unmasked(values, name)
    if hasattr(values, "layout"):
        awkward = _library("awkward")
        try:
            if values.layout.purelist_isregular:
                return _column(awkward.to_numpy(values), name), None
            if values.ndim == 2:
                counts = real_array(awkward.to_numpy(awkward.num(values)), name)
                return real_array(awkward.to_numpy(awkward.flatten(values)), name), counts
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} is no column of numbers: {_first_line(error)}") from error
        raise ValueError(f"{name} must have a number or a list of them an event, got {values.type}")
    entries = values if isinstance(values, list | tuple) else np.asarray(values)
    of_objects = isinstance(entries, list | tuple) or entries.dtype == object
    if not of_objects or not any(np.ndim(e) or isinstance(e, list) for e in entries):
        return _column(entries, name), None
    lists = [real_array(entry, name) for entry in entries]
    if any(one.ndim != 1 for one in lists):
        raise ValueError(f"{name} must have a list of numbers an event, or a number an event")
    return np.concatenate(lists), np.array([len(one) for one in lists])


def _column(values, name):
    array = real_array(values, name)
    if array.ndim not in (1, 2):
        raise ValueError(
            f"{name} has the shape {array.shape}, but columns are [events] or [events, numbers]"
        )
    return array


def _events(columns, rows):
    """(x, None), or (padded x, numbers of points) of ragged columns."""
    ragged = [name for name, (_, counts) in columns.items() if counts is not None]
    if not ragged:
        if rows is not None:
            raise ValueError("rows are of sets, but every column has a number an event")
        return _floats(np.concatenate([_wide(v) for v, _ in columns.values()], axis=1)), None
    if flat := [name for name in columns if name not in ragged]:
        raise ValueError(
            f"{ragged[0]} has a list an event and {flat[0]} a number: name the latter in cond"
        )
    counts = columns[ragged[0]][1]
    for name in ragged[1:]:
        if not np.array_equal(columns[name][1], counts):
            raise ValueError(f"{ragged[0]} and {name} have lists of different lengths")
    return padded_rows(np.stack([columns[name][0] for name in ragged], axis=1), counts, rows)


def _names(data):
    """Names of the columns, or a refusal of what has none."""
    if isinstance(data, Mapping):
        return list(data)
    if isinstance(data, np.ndarray) and data.dtype.names:
        return list(data.dtype.names)
    if hasattr(data, "layout") and getattr(data, "fields", None):
        return list(data.fields)
    if hasattr(data, "columns") and hasattr(data, "__getitem__"):
        return list(data.columns)
    raise ValueError(
        "events with names are a frame of pandas, a dictionary of columns, records of awkward or a "
        f"structured array of numpy, got {type(data).__name__}; a plain array x is Batch(x)"
    )


def _check_names(names):
    """Refuse one string where names are asked for: it would be a name for each letter."""
    if isinstance(names, str):
        raise ValueError(f"names must be a list of names, got {names!r}; give [{names!r}]")


def _check_single(columns, names):
    """Refuse whole numbers that single precision, in which conditions are, does not tell apart."""
    for name in names:
        values = columns[name][0]
        if values.dtype.kind not in "iu" or not values.size:
            continue
        largest = np.abs(values.astype(np.float64)).max()
        if largest > 2**24:
            raise ValueError(
                f"{name} has whole numbers up to {largest:.0f}, which single precision does not "
                "tell apart beyond 16777216; number classes from zero, or divide by a scale"
            )


def _check_once(names):
    if twice := [name for name in names if list(names).count(name) > 1]:
        raise ValueError(f"column {twice[0]!r} is there twice; give each a name of its own")


def _pick(data, name, there):
    if name in there:
        return data[name]
    first, *inner = str(name).split(".")
    if hasattr(data, "layout") and first in there:
        picked = data[first]
        for field in inner:
            if field not in picked.fields:
                break
            picked = picked[field]
        else:
            return picked
    raise ValueError(f"there is no column {name!r}; found {', '.join(map(str, there))}")


def _check_lengths(columns):
    lengths = {n: len(v if counts is None else counts) for n, (v, counts) in columns.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise ValueError(f"columns must be of as many events, one at least, got {lengths}")


def _wide(values):
    return values.reshape(len(values), -1)


def _floats(array):
    """Single precision stays, everything else becomes double, which training narrows."""
    return array if array.dtype == np.float32 else array.astype(np.float64)


def _plain(array, awkward):
    return awkward.to_numpy(array) if array.layout.purelist_isregular else array


def _first_line(error):
    return str(error).strip().split("\n")[0]


def _library(name):
    try:
        return __import__(name)
    except ImportError as error:
        raise ValueError(f'this needs {name}: pip install "jgen[hep]"') from error

"""Events of anybody's files, .npy or HDF5: [events] or [events, columns], only what is needed."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from jaxtyping import Float

# Numbers looked at together: 2^24 of float64 are 128 MiB, however wide the file is.
_CHUNK = 1 << 24


class EventFile(NamedTuple):
    """A file whose layout was checked, not its values.

    Attributes:
      path: of the file.
      dataset: in an HDF5 file; empty for .npy.
      num: events in it.
      num_columns: numbers an event; one for an array [events].
    """

    path: Path
    dataset: str
    num: int
    num_columns: int


def open_events(path: str | Path, dataset: str = "") -> EventFile:
    """Look at the layout of a file.

    Args:
      path: of an HDF5 or .npy file, told apart by what is in them.
      dataset: in an HDF5 file, such as "group/name"; may be left out if there is only one.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it cannot be read or holds something else; the message says what to do.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; check the path and the working directory")
    if h5py.is_hdf5(path):
        dataset = _find_dataset(path, dataset)
    else:
        dataset = ""
    with _opened(path, dataset) as array:
        shape, dtype = array.shape, array.dtype
    where = f"{path}:{dataset}" if dataset else path
    if dtype.kind not in "fiub":
        raise ValueError(f"{where} holds {dtype}, but events must be real numbers")
    if len(shape) not in (1, 2):
        raise ValueError(
            f"{where} has the shape {shape}; it must be [events] or [events, columns]: reshape the "
            "features of an event to one axis"
        )
    if 0 in shape:
        raise ValueError(f"{where} has the shape {shape}: there are no events in it")
    return EventFile(path, dataset, shape[0], 1 if len(shape) == 1 else shape[1])


def read_columns(
    file: EventFile, columns: Sequence[int], stop: int | None = None
) -> Float[np.ndarray, "num columns"]:
    """The first `stop` events, a few columns of them, in chunks: nothing else stays in memory.

    Single precision stays what it is, everything else becomes double. Columns are contiguous.

    Raises:
      ValueError: if the file has not these columns, or a number in them is not finite.
    """
    if bad := [c for c in columns if not 0 <= c < file.num_columns]:
        raise ValueError(
            f"{file.path} has {file.num_columns} columns, counted from 0, but column {bad[0]} is "
            "asked for; choose others with --column"
        )
    stop = file.num if stop is None else stop
    columns, step = list(columns), max(1, _CHUNK // file.num_columns)
    with _opened(file.path, file.dataset) as array:
        dtype = np.float32 if array.dtype in (np.float16, np.float32) else np.float64
        out = np.empty((stop, len(columns)), dtype, order="F")
        for start in range(0, stop, step):
            chunk = array[start : min(start + step, stop)].reshape(-1, file.num_columns)
            chunk = chunk[:, columns]
            _check_finite(file, chunk, start, columns)
            out[start : start + len(chunk)] = chunk
    return out


def digest(paths: Sequence[Path]) -> str:
    """One number for the contents of files, so that a changed one is noticed."""
    parts = []
    for path in paths:
        with path.open("rb") as file:
            parts.append(hashlib.file_digest(file, "sha256").hexdigest())
    return " ".join(parts)


def _check_finite(file, chunk, start, columns):
    """Refuse NaN and infinity, naming the first."""
    finite = np.isfinite(chunk)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise ValueError(
            f"{file.path}: column {columns[column]} of event {start + row} is "
            f"{chunk[row, column]}; repair or drop such events in all files alike"
        )


def _find_dataset(path: Path, dataset: str) -> str:
    """The name of the array, which may be left out where there is no choice."""
    found = []
    with _opened_hdf5(path) as file:
        file.visititems(lambda name, x: found.append(name) if isinstance(x, h5py.Dataset) else None)
    if dataset.strip("/") in found:
        return dataset.strip("/")
    if not dataset and len(found) == 1:
        return found[0]
    if not found:
        raise ValueError(f"{path} is an HDF5 file without any dataset")
    wrong = f"has no dataset {dataset!r}" if dataset else f"holds {len(found)} datasets"
    raise ValueError(f"{path} {wrong}; choose one with --dataset: {', '.join(sorted(found)[:20])}")


@contextmanager
def _opened_hdf5(path: Path) -> Iterator[h5py.File]:
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: not a readable HDF5 file ({error}); is it complete?") from error
    with file:
        yield file


@contextmanager
def _opened(path: Path, dataset: str) -> Iterator[np.ndarray | h5py.Dataset]:
    """What can be sliced by rows without reading the rest."""
    if dataset:
        with _opened_hdf5(path) as file:
            yield file[dataset]
        return
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(
            f"{path}: neither HDF5 nor a readable .npy file ({error}); write events with numpy.save"
            " or h5py, and check that the file is complete"
        ) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError(f"{path} is a .npz archive; save one array of it with numpy.save")
    yield array

"""Tables [events] or [events, columns] in files, .npy or HDF5, read where they are sliced.

table = open_table("events.h5", "ttbar/jets").select((3, 0))
table.shape         # of all events, nothing was read yet
table[:10_000]      # an array [10000, 2]
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float

# Numbers read together: 2^24 of float64 are 128 MiB, however wide the file is.
_CHUNK = 1 << 24


@dataclasses.dataclass(frozen=True)
class Table:
    """A file whose layout was checked, not its values; see `open_table`.

    Attributes:
      path: of the file.
      dataset: in an HDF5 file; empty for .npy.
      num: events in it.
      num_columns: numbers an event; one for an array [events].
      columns: those that are read, counted from 0.
    """

    path: Path
    dataset: str
    num: int
    num_columns: int
    columns: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(events, columns that are read)."""
        return self.num, len(self.columns)

    def __len__(self) -> int:
        """Events."""
        return self.num

    def __str__(self) -> str:
        """What messages call it."""
        return f"{self.path}:{self.dataset}" if self.dataset else str(self.path)

    def select(self, columns: Sequence[int]) -> "Table":
        """The same table with a few of the file's columns.

        Raises:
          ValueError: if the file has not these columns, or one is asked for twice.
        """
        columns = tuple(columns)
        if bad := [c for c in columns if not 0 <= c < self.num_columns]:
            raise ValueError(
                f"{self} has {self.num_columns} columns, counted from 0, but column {bad[0]} "
                "is asked for; choose others"
            )
        if not columns or len(set(columns)) != len(columns):
            raise ValueError(f"columns must be different numbers, one at least, got {columns}")
        return dataclasses.replace(self, columns=columns)

    def __getitem__(self, rows: slice) -> Float[np.ndarray, "rows columns"]:
        """Neighbouring events, read in chunks, so that other columns need no memory.

        Single precision stays what it is, everything else becomes double. Columns are contiguous.
        """
        first, stop, step = rows.indices(self.num)
        if step != 1:
            raise ValueError(f"a table gives neighbouring events, got steps of {step}")
        columns, step = list(self.columns), max(1, _CHUNK // self.num_columns)
        with _opened(self.path, self.dataset) as array:
            dtype = np.float32 if array.dtype in (np.float16, np.float32) else np.float64
            out = np.empty((max(stop - first, 0), len(columns)), dtype, order="F")
            for start in range(first, stop, step):
                chunk = array[start : min(start + step, stop)].reshape(-1, self.num_columns)
                out[start - first : start - first + len(chunk)] = chunk[:, columns]
        return out


def open_table(path: str | os.PathLike, dataset: str = "") -> Table:
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
    dataset = _find_dataset(path, dataset) if h5py.is_hdf5(path) else ""
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
    num_columns = 1 if len(shape) == 1 else shape[1]
    return Table(path, dataset, shape[0], num_columns, tuple(range(num_columns)))


def _find_dataset(path: Path, dataset: str) -> str:
    """The name of the array, which may be left out where there is no choice."""
    names = []
    with _opened_hdf5(path) as file:
        file.visititems(lambda name, x: names.append(name) if isinstance(x, h5py.Dataset) else None)
    if dataset.strip("/") in names:
        return dataset.strip("/")
    if not dataset and len(names) == 1:
        return names[0]
    if not names:
        raise ValueError(f"{path} is an HDF5 file without any dataset")
    wrong = f"has no dataset {dataset!r}" if dataset else f"holds {len(names)} datasets"
    raise ValueError(f"{path} {wrong}; choose one dataset of: {', '.join(sorted(names)[:20])}")


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

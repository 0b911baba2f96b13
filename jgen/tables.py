"""Arrays in files: HDF5 datasets of any shape, and tables [events] or [events, columns].

`open_hdf5`, `hdf5_dataset` and `read_rows` are the one door to HDF5: what is no array of numbers is
refused with the file's name. Tables are .npy or HDF5 and are read where they are sliced.

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
            single = array.dtype.kind == "f" and array.dtype.itemsize <= 4
            dtype = np.float32 if single else np.float64
            out = np.empty((max(stop - first, 0), len(columns)), dtype, order="F")
            for start in range(first, stop, step):
                chunk = read_rows(array, start, min(start + step, stop))
                chunk = chunk.reshape(-1, self.num_columns)
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
        why = "no such file; check the path and the working directory"
        why = "a folder; name a file in it" if path.is_dir() else why
        raise FileNotFoundError(f"{path}: {why}")
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


@contextmanager
def open_hdf5(path: str | os.PathLike) -> Iterator[h5py.File]:
    """An HDF5 file to read.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; check the path and the working directory")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: not a readable HDF5 file ({error}); is it complete?") from error
    with file:
        yield file


def hdf5_dataset(
    file: h5py.File, name: str, need: Sequence[str] = (), *, booleans: bool = True
) -> h5py.Dataset:
    """An array of real numbers in a file, also behind links, whose values were not read yet.

    Args:
      file: open.
      name: of the dataset.
      need: all that the file should have, for the message.
      booleans: whether they count as numbers.

    Raises:
      ValueError: if it is missing, no array of real numbers, or what it points to is gone; names
        the file and says what is there.
    """
    path, link = file.filename, file.get(name, getlink=True)
    if link is None:
        wanted = " and ".join(map(repr, need or (name,)))
        raise ValueError(
            f"{path}: dataset {name!r} is missing; found {sorted(file)}, need {wanted}"
        )
    try:
        found = file[name]
    except (KeyError, OSError) as error:
        inside, target = getattr(link, "path", name), getattr(link, "filename", path)
        raise ValueError(
            f"{path}: {name!r} is a link to {inside!r} of {target}, which is not there: put the "
            "file beside this one, or write the numbers into it"
        ) from error
    where = f"{path}: {name!r}"
    if not isinstance(found, h5py.Dataset):
        inside = f", with {sorted(found)} in it" if isinstance(found, h5py.Group) else ""
        raise ValueError(f"{where} is a {type(found).__name__.lower()}{inside}, and no dataset")
    if found.shape is None:
        raise ValueError(f"{where} is a dataset without any values; write the file again")
    dtype = found.dtype
    if dtype.kind not in ("fiub" if booleans else "fiu"):
        text = h5py.check_string_dtype(dtype) or dtype.kind in "SU"
        lists = h5py.check_vlen_dtype(dtype) and not text
        kind = "text" if text else "lists of different lengths" if lists else dtype
        raise ValueError(f"{where} holds {kind}, but events must be real numbers in one array")
    if missing := _missing_sources(found):
        raise ValueError(
            f"{where} takes its values from {missing}: without it they would be fill values. "
            "Put the file beside this one, as it was"
        )
    if found.size and not found.is_virtual and not found.external and not _stored(found):
        raise ValueError(
            f"{where} has the shape {found.shape}, but no values were ever written: without them "
            "they would be fill values. Write the file again"
        )
    return found


def read_rows(
    array: np.ndarray | h5py.Dataset, start: int = 0, stop: int | None = None
) -> np.ndarray:
    """Rows of a dataset or of an array in the machine's byte order.

    Raises:
      ValueError: if they cannot be read.
    """
    try:
        rows = array[start:stop]
    except OSError as error:
        raise ValueError(
            f"{array.file.filename}: {array.name} cannot be read ({error}); is the file complete, "
            "and the plugin of its compression installed?"
        ) from error
    return rows.astype(rows.dtype.newbyteorder("="), copy=False)


def _missing_sources(dataset: h5py.Dataset) -> str:
    """What a virtual or external dataset takes values from and that is gone, or not as large."""
    folders = [Path(dataset.file.filename).parent, Path()]
    there = lambda name: [folder / name for folder in folders if (folder / name).exists()]
    stored = 0
    for name, offset, size in dataset.external or ():
        if not there(name):
            return f"{name}, which is not there"
        stored += max(0, min(size, there(name)[0].stat().st_size - offset))
    if dataset.external and stored < dataset.nbytes:
        return f"{dataset.external[0][0]}, which is shorter than {dataset.nbytes} bytes"
    if not dataset.is_virtual:
        return ""
    sources = dataset.virtual_sources()
    for space, name, inside, whole in sources:
        # Such a pattern stands for many files.
        if "%" in name:
            continue
        found = [Path(dataset.file.filename)] if name == "." else there(name)
        if not found:
            return f"{name}, which is not there"
        with open_hdf5(found[0]) as file:
            source = file.get(inside)
            if source is None:
                return f"{inside!r} of {name}, which is not there"
            short = any(n < m for n, m in zip(source.shape, whole.shape, strict=False))
            if short or source.size < space.get_select_npoints():
                return f"{inside!r} of {name}, which has the shape {source.shape} and is too small"
            if missing := _missing_sources(source):
                return missing
    mapped = sum(space.get_select_npoints() for space, *_ in sources)
    if mapped < dataset.size and not any("%" in name for _, name, *_ in sources):
        return f"files that it names for {mapped} of {dataset.size} only"
    return ""


def _stored(dataset: h5py.Dataset) -> bool:
    """Whether there is anything of it in the file."""
    return dataset.id.get_storage_size() > 0


def _find_dataset(path: Path, dataset: str) -> str:
    """The name of the array, which may be left out where there is no choice."""
    with open_hdf5(path) as file:
        if dataset and file.get(dataset, getlink=True) is not None:
            hdf5_dataset(file, dataset)
            return dataset.strip("/")
        names = _dataset_names(file)
    if not dataset and len(names) == 1:
        return names[0]
    if not names:
        raise ValueError(f"{path} is an HDF5 file without any dataset")
    wrong = f"has no dataset {dataset!r}" if dataset else f"holds {len(names)} datasets"
    raise ValueError(f"{path} {wrong}; choose one dataset of: {', '.join(sorted(names)[:20])}")


def _dataset_names(file: h5py.File) -> list[str]:
    """Names of all datasets, also behind links; one for each array."""
    names, seen, groups = [], set(), [("", file)]
    while groups:
        prefix, group = groups.pop()
        # Hard links first, so that aliases are left out.
        soft = lambda key, group=group: not isinstance(group.get(key, getlink=True), h5py.HardLink)
        for key in sorted(group, key=soft):
            try:
                found = group[key]
            except (KeyError, OSError):
                continue  # a link to nowhere; asked for by name it is refused
            info = h5py.h5o.get_info(found.id)
            if (info.fileno, info.addr) in seen:
                continue
            seen.add((info.fileno, info.addr))
            if isinstance(found, h5py.Group):
                groups.append((f"{prefix}{key}/", found))
            elif isinstance(found, h5py.Dataset):
                names.append(prefix + key)
    return names


def _is_text(path: Path) -> bool:
    """Whether it begins with words or numbers, such as a .csv file."""
    with open(path, "rb") as file:
        start = file.read(1024)
    return bool(start) and all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in start)


@contextmanager
def _opened(path: Path, dataset: str) -> Iterator[np.ndarray | h5py.Dataset]:
    """What can be sliced by rows without reading the rest."""
    if dataset:
        with open_hdf5(path) as file:
            yield hdf5_dataset(file, dataset)
        return
    if _is_text(path):
        raise ValueError(
            f"{path}: a text file, but events are read from HDF5 or .npy files; make one with "
            'numpy.save("events.npy", numpy.loadtxt(PATH, delimiter=",")), with skiprows=1 if '
            "there is a line of names"
        )
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

"""Events that stay in files: training data with random access, and what reads ahead of a training.

A training asks for the rows of some steps at once, sorted and without repetition. Which rows a step
has is a function of the member's key and the step, as it is for data in memory, so no position has
to be stored for a resumption, and the minibatches are those that the same events in memory give.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Int

from jgen.arrays import real_array
from jgen.generative_model import Batch, num_events
from jgen.tables import hdf5_dataset, open_hdf5, read_rows

# Events that are read together take so many bytes, or are those of so many steps; besides them, the
# host and the device hold those of the steps before.
_CHUNK, _STEPS = 1 << 26, 1000
# Events that tell a source from another one, since all of them would take long to read.
_PROBE = 64

Rows = Int[np.ndarray, " n"]


@runtime_checkable
class DataSource(Protocol):
    """Training events that need not fit into memory."""

    def __len__(self) -> int:
        """Number of events."""

    def __getitem__(self, rows: Rows) -> Batch:
        """Events of rows, which increase, as numpy arrays with as many events on the first axis.

        Called in a thread of its own, once for many steps. Weights must have a mean of one.
        """


@dataclasses.dataclass(frozen=True)
class HDF5Events:
    """Events in HDF5 files of equal layout, read where a training needs them.

    Neighbouring rows are read together, and so are all rows of a chunk of the file. Events are
    drawn at random, so files are read fastest without chunks, or with a chunk for each event,
    `create_dataset(..., chunks=(1, *event_shape))`; of chunks of many events all are read and
    unpacked for a few of them.

    Attributes:
      paths: of the files, one after another.
      x: dataset of the events [n, ...].
      cond: dataset of the conditions, if there are any.
      weight: dataset of the weights [n], of mean one, if there are any.
      prepare: what is done to the events after reading, on the host, such as a preprocessing.
    """

    paths: Sequence[str | os.PathLike]
    x: str
    cond: str | None = None
    weight: str | None = None
    prepare: Callable[[Batch], Batch] = lambda batch: batch

    def __post_init__(self):
        if isinstance(self.paths, str | os.PathLike) or not self.paths:
            raise ValueError(f"paths must be a list of files, got {self.paths!r}; use [path]")
        _ = self._ends  # looks at the files

    @functools.cached_property
    def _ends(self) -> Int[np.ndarray, " files"]:
        """Row after the last one of each file."""
        lengths, events = [], []
        for path in self.paths:
            with open_hdf5(path) as file:
                shapes = {n: hdf5_dataset(file, n).shape for n in self._names().values()}
            events.append({n: shape[1:] for n, shape in shapes.items()})
            if () in shapes.values() or events[-1] != events[0]:
                raise ValueError(
                    f"{path} has datasets {shapes}, but events of {self.paths[0]} have the shapes "
                    f"{events[0]}; they must be [n, ...], of one shape in all files"
                )
            found = {n: shape[0] for n, shape in shapes.items()}
            if len(set(found.values())) != 1:
                raise ValueError(
                    f"{path} has datasets of other lengths, {found}; an event is a row of each"
                )
            lengths.append(found[self.x])
        return np.cumsum(lengths, dtype=np.int64)

    def _names(self) -> dict[str, str]:
        names = {name: getattr(self, name) for name in Batch._fields}
        return {name: dataset for name, dataset in names.items() if dataset is not None}

    def __len__(self) -> int:
        """Events of all files."""
        return int(self._ends[-1])

    def __getitem__(self, rows: Rows) -> Batch:
        """Events of rows that increase, prepared.

        Raises:
          ValueError: for rows that do not, or that are not there.
        """
        rows = real_array(rows, "rows")
        if rows.ndim != 1 or rows.dtype.kind not in "iu" or not len(rows):
            raise ValueError(f"rows must be whole numbers [n], got {rows.dtype}{list(rows.shape)}")
        if rows[0] < 0 or rows[-1] >= len(self) or np.any(rows[1:] < rows[:-1]):
            raise ValueError(f"rows must increase and be from 0 to {len(self) - 1}, got {rows}")
        columns, first = {name: [] for name in self._names()}, 0
        for path, end in zip(self.paths, self._ends, strict=True):
            own = rows[(rows >= first) & (rows < end)] - first
            if len(own):
                with open_hdf5(path) as file:
                    for name, dataset in self._names().items():
                        columns[name].append(_read(hdf5_dataset(file, dataset), own))
            first = end
        return self.prepare(Batch(**{n: np.concatenate(parts) for n, parts in columns.items()}))


def _read(dataset, rows: Rows) -> np.ndarray:
    """Increasing rows of a dataset; those of a chunk, and neighbours, by one slice."""
    size = dataset.chunks[0] if dataset.chunks else 1
    block = rows // size
    # Rows of one chunk by one slice, whatever lies between them.
    begins = np.flatnonzero(np.diff(block, prepend=-2) > (1 if size == 1 else 0))
    out = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
    for begin, end in zip(begins, [*begins[1:], len(rows)], strict=True):
        own = rows[begin:end]
        out[begin:end] = read_rows(dataset, own[0], own[-1] + 1)[own - own[0]]
    return out


@dataclasses.dataclass(frozen=True)
class Records:
    """A source of single events as `grain` has them, such as a `grain.MapDataset`.

    Attributes:
      events: len(events), and events[i] -> a `Batch` of one event, without the axis of events.
    """

    events: Any

    def __len__(self) -> int:
        """Number of events."""
        return len(self.events)

    def __getitem__(self, rows: Rows) -> Batch:
        """Events of some rows, stacked."""
        some = [self.events[int(row)] for row in rows]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *some)


def is_source(data: Any) -> bool:
    """Whether something has the functions of a `DataSource` and is no array or collection."""
    # A frame takes names of columns where a source takes rows.
    if isinstance(data, Batch | Sequence | Mapping) or any(
        hasattr(data, name) for name in ("dtype", "columns")
    ):
        return False
    return isinstance(data, DataSource)


def probe(source: DataSource, num: int = _PROBE) -> Batch:
    """A few events from all over a source.

    Raises:
      ValueError: if it is empty or does not give them.
    """
    if not len(source):
        raise ValueError("data is a source without events")
    return events_of(source, np.unique(np.linspace(0, len(source) - 1, num).astype(np.int64)))


def events_of(source: DataSource, rows: Rows) -> Batch:
    """Events of a source, if it gives as many as it was asked for."""
    events = source[rows]
    if not isinstance(events, Batch) or num_events(events) != len(rows):
        raise ValueError(
            f"a source must give a Batch of {len(rows)} events for as many rows, got "
            + (f"{num_events(events)}" if isinstance(events, Batch) else type(events).__name__)
        )
    return events


class ReadAhead:
    """Events of a source for one step after another, read in a thread, a chunk of steps ahead."""

    def __init__(
        self,
        source: DataSource,
        rows: Callable[[Int[np.ndarray, " steps"]], Int[np.ndarray, "steps members batch"]],
        convert: Callable[[Batch], Batch],
        event_bytes: float,
        last: int,
    ):
        """Nothing is read before the first step.

        Args:
          source: of events.
          rows: (steps) -> the rows of each of them.
          convert: what is read -> checked events as the training takes them.
          event_bytes: of one event.
          last: step that is the last one.
        """
        self._source, self._rows, self._convert, self._last = source, rows, convert, last
        batch = rows(np.zeros(1, np.int32)).size
        self._steps = int(np.clip(_CHUNK / max(event_bytes * batch, 1), 1, min(_STEPS, last + 1)))
        self._capacity = min(self._steps * batch, len(source))

    def chunks(self, first: int) -> Iterator[tuple[Int[np.ndarray, "steps members batch"], Batch]]:
        """Positions of each step's events among those of the chunk, and these, from a step on.

        All chunks have as many events, the last one repeated, so that one program takes them.
        """
        with ThreadPoolExecutor(1, "read ahead") as thread:
            starts = range(first, self._last + 1, self._steps)
            ahead = thread.submit(self._load, first) if starts else None
            for start in starts:
                chunk, following = ahead.result(), start + self._steps
                if following in starts:
                    ahead = thread.submit(self._load, following)
                yield chunk

    def _load(self, first):
        rows = self._rows(np.arange(first, first + self._steps, dtype=np.int32))
        unique, positions = np.unique(rows[: self._last + 1 - first], return_inverse=True)
        events = self._convert(events_of(self._source, unique))
        return positions.astype(np.int32), jax.tree.map(self._padded, events)

    def _padded(self, array):
        out = np.empty((self._capacity, *array.shape[1:]), array.dtype)
        out[: len(array)], out[len(array) :] = array, array[-1]
        return out

"""What the studies of many trainings share: kept results, timed draws and densities, means."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from experiments._flows_data import DataSet
from jgen.files import atomic_path
from jgen.generative_model import GenerativeModel, draw
from jgen.typing import Key, Params

# Events at once, for times and for the device's memory.
_CHUNK = 1000


def stored(path: Path, compute: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays of a file, computed and written first if it is not there.

    A study that goes on after an interruption thus finds what it had finished.
    """
    if not path.exists():
        found = compute()
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.savez(file, **found)
    with np.load(path) as file:
        return dict(file)


def timed_draw(
    model: GenerativeModel, params: Params, key: Key, num: int
) -> tuple[np.ndarray, float]:
    """Events [num, dim] and milliseconds for one of them, without the compilation."""
    draw(model, params, key, _CHUNK, batch_size=_CHUNK)  # compiles
    start = time.perf_counter()
    samples = draw(model, params, key, num, batch_size=_CHUNK)
    return samples, 1e3 * (time.perf_counter() - start) / num


def timed_log_prob(
    model: GenerativeModel, params: Params, key: Key, points: Float[np.ndarray, "n dim"]
) -> tuple[np.ndarray, float]:
    """Log-densities [n] and milliseconds for one of them, without the compilation."""
    many = jax.jit(jax.vmap(lambda params, x: model.log_prob(params, key, x, None), (None, 0)))
    padded = np.pad(points, ((0, -len(points) % _CHUNK), (0, 0)), mode="edge")
    chunks = padded.reshape(-1, _CHUNK, points.shape[1])
    many(params, chunks[0]).block_until_ready()
    start = time.perf_counter()
    found = np.concatenate([np.asarray(many(params, chunk)) for chunk in chunks])
    return found[: len(points)], 1e3 * (time.perf_counter() - start) / len(padded)


def events_mean(data: DataSet, values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Mean and standard error over test events, whose copies count as one."""
    values = np.asarray(values, np.float64).reshape(-1, data.repeats).mean(axis=1)
    return values.mean(), values.std(ddof=1) / len(values) ** 0.5


def table_block(
    metrics: Mapping[str, float],
    title: str,
    columns: Sequence[str],
    rows: Mapping[str, str],
    digits: int,
) -> list[str]:
    """Lines of a table: a heading, a row for each label, and an empty line.

    Args:
      metrics: name -> number, errors of kind/... in kind_error/...
      title: heading of the rows.
      columns: data sets.
      rows: label -> name of the metrics without the data set, such as "nll/flow".
      digits: behind the point.
    """

    def cell(name):
        if name not in metrics:
            return "-"
        kind, _, rest = name.partition("/")
        error = metrics.get(f"{kind}_error/{rest}")
        value = f"{metrics[name]:.{digits}f}"
        return value if error is None else f"{value} +- {error:.{digits}f}"

    line = lambda first, cells: "".join([f"{first:<26}", *(f"{c:>20}" for c in cells)]).rstrip()
    found = [line(label, [cell(f"{name}/{d}") for d in columns]) for label, name in rows.items()]
    return [line(title, columns), *found, ""]

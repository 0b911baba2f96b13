"""Events that are sets of points of any number: jets of constituents, showers of hits.

The number of points is part of the condition, p(n | c) p(points | n, c), by
`jgen.transforms.chain`. Arrays are padded with zeros to a common number of rows, and the condition
says how many of them are points, the first n. Models then ignore the others: they carry no noise,
no loss and no density, and any amount of padding gives the same numbers. Networks that take such
events are in `jgen.nets.sets`. Where lengths differ much, `buckets` of `TrainConfig` and `draw`
spare most of the padding's cost.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Real

from jgen.arrays import cast_array, real_array
from jgen.checks import check_whole
from jgen.typing import Cond, PyTree


class SetCondition(NamedTuple):
    """The condition of an event that is a set.

    Attributes:
      n: number of points, a whole number.
      cond: what else is given, a vector; None without.
    """

    n: Int[Array, ""]
    cond: Float[Array, " num_cond"] | None = None


def valid(n: Int[Array, ""], rows: int) -> Bool[Array, " rows"]:
    """Which rows of an event are points."""
    return jnp.arange(rows) < n


def masked(x: Real[Array, "..."], cond: Cond) -> Real[Array, "..."]:
    """An event, or noise of its shape, with zeros in rows that are no points.

    What is not conditioned on a number of points stays as it is.
    """
    if not isinstance(cond, SetCondition):
        return x
    rows = valid(cond.n, x.shape[0]).reshape(-1, *(1,) * (x.ndim - 1))
    return jnp.where(rows, x, jnp.zeros((), x.dtype))


def event_mean(values: Float[Array, "..."], cond: Cond) -> Float[Array, ""]:
    """Mean of an event's values over the features of its points, zero of an event without any.

    Every event then has the same weight in a mean over events, whatever its number of points. Of
    fewer rows than the condition has points, the mean is over these rows.
    """
    if not isinstance(cond, SetCondition):
        return jnp.mean(values)
    count = jnp.clip(cond.n, 1, values.shape[0]) * (values.size // values.shape[0])
    return jnp.sum(masked(values, cond)) / count


def event_size(x: Float[Array, "..."], cond: Cond) -> int | Int[Array, ""]:
    """How many numbers an event is."""
    if not isinstance(cond, SetCondition):
        return x.size
    return cond.n * (x.size // x.shape[0])


def check_counts(cond: Cond, events: PyTree = None) -> None:
    """Refuse numbers of points that padded events cannot have.

    Args:
      cond: of all events; what is not conditioned on a number of points is taken.
      events: padded [num, rows, ...] where they are sets, an array or a pytree of arrays; anything
        else without numbers of points. None where they are not known yet.

    Raises:
      ValueError: for numbers that are not whole, or not between zero and the rows of an event.
    """
    if not isinstance(cond, SetCondition):
        return
    n, shapes = np.asarray(cond.n), [np.shape(a) for a in jax.tree.leaves(events)]
    if n.ndim != 1 or n.dtype.kind not in "iu" or any(len(shape) < 2 for shape in shapes):
        given = "".join(f"events {shape} and " for shape in shapes[:1])
        raise ValueError(
            "sets of points are arrays [events, rows, ...] with a whole number of points an event, "
            f"got {given}numbers {n.dtype}{list(n.shape)}"
        )
    for rows in {shape[1] for shape in shapes}:
        if n.size and not 0 <= n.min() <= n.max() <= rows:
            raise ValueError(
                f"events have {rows} rows, so numbers of points must be from 0 to {rows}, got "
                f"{n.min()} to {n.max()}"
            )


def count_array(n: ArrayLike, num: int, rows: int) -> Int[np.ndarray, " num"]:
    """Numbers of points of `num` events with so many rows, on the host.

    Raises:
      ValueError: for numbers that are not whole, not as many as events, or not from 0 to `rows`.
    """
    n = real_array(n, "numbers of points", booleans=False)
    if n.shape != (num,) or n.dtype.kind not in "iu":
        raise ValueError(
            f"{num} events need as many whole numbers of points [{num}], got {n.dtype}"
            f"{list(n.shape)}"
        )
    if num and not 0 <= n.min() <= n.max() <= rows:
        raise ValueError(
            f"events have {rows} rows, so numbers of points must be from 0 to {rows}, got "
            f"{n.min()} to {n.max()}"
        )
    return n


def padded(
    events: list[Real[np.ndarray, "_ d"]], rows: int | None = None
) -> tuple[Float[np.ndarray, "num rows d"], Int[np.ndarray, " num"]]:
    """Arrays of points as one padded array [num, rows, d] in float32, and their numbers of points.

    Args:
      events: the points of each event; leading ones are kept where `rows` are fewer.
      rows: the longest event's unless given.

    Raises:
      ValueError: if there are no events, they are no tables with the same columns, or a value is
        not finite.
    """
    if not len(events):
        raise ValueError("there are no events")
    shapes = {np.shape(event)[1:] for event in events}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ValueError(f"every event must be [points, d] with the same d, got {sorted(shapes)}")
    values = np.concatenate([real_array(event, "an event") for event in events])
    return padded_rows(values, np.array([len(event) for event in events]), rows)


def padded_rows(
    values: Real[np.ndarray, "total d"], counts: Int[np.ndarray, " num"], rows: int | None = None
) -> tuple[Float[np.ndarray, "num rows d"], Int[np.ndarray, " num"]]:
    """`padded` of all points one after another and the number of points of each event.

    Raises:
      ValueError: if a value is not finite, or there is no room for a point.
    """
    counts = np.asarray(counts)
    if rows is None and not counts.any():
        raise ValueError("no event has a point")
    rows = int(counts.max()) if rows is None else rows
    check_whole(rows=rows)
    n = np.minimum(counts, rows).astype(np.int32)
    # Where each point stands in its event.
    place = np.arange(len(values)) - np.repeat(np.cumsum(counts) - counts, counts)
    x = np.zeros((len(counts), rows, values.shape[1]), np.float32)
    x[np.arange(rows) < n[:, None]] = cast_array(values[place < rows], "events")
    if not np.isfinite(x).all():
        raise ValueError("points must be finite: drop those events")
    return x, n


def points(
    x: Real[np.ndarray, "num rows d"], n: Int[np.ndarray, " num"]
) -> list[Real[np.ndarray, "_ d"]]:
    """The points of each event of a padded array: the inverse of `padded`."""
    x = real_array(x, "x")
    return [event[:k] for event, k in zip(x, count_array(n, *x.shape[:2]), strict=True)]

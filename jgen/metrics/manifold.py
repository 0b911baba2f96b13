"""Precision, recall, density and coverage: is the sample where the truth is, and everywhere?"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Real

from jgen.arrays import finite_array
from jgen.checks import check_sizes, check_whole
from jgen.metrics.frechet import scaled_features

# Distances held at once; 2^24 float64 numbers are 128 MiB.
_CHUNK = 2**24
# Balls are open; this keeps rounding from letting in the neighbour that sets the radius.
_OPEN = 1 - 1e-10


class Manifold(NamedTuple):
    """How two samples overlap, judged by balls that reach to the k-th neighbour in the sample.

    Attributes:
      precision: fraction of generated events in a ball of any reference event (arXiv:1904.06991).
      recall: fraction of reference events in a ball of any generated event (arXiv:1904.06991).
      density: mean number of reference balls that a generated event is in, over k
        (arXiv:2002.09797). It may exceed 1, and is 1 on average for truth against truth.
      coverage: fraction of reference balls with a generated event in them (arXiv:2002.09797).
        For truth against truth see `expected_coverage`; it is not 1.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall_density_coverage(
    reference: Real[np.ndarray, "n d"], generated: Real[np.ndarray, "m d"], *, k: int = 5
) -> Manifold:
    """Precision, recall, density and coverage of two samples, Euclidean distances.

    Features are scaled by `jgen.metrics.frechet.scaled_features`. The k-th neighbour of an event is
    searched in its own sample without the event itself. Balls do not contain their boundary, as in
    the authors' code of arXiv:2002.09797; an event with k exact copies in its sample so has an
    empty ball. Distances are computed in blocks: memory grows with n + m, time with (n + m)^2 d.

    Raises:
      ValueError: if the samples do not fit together (see `scaled_features`) or have no more than
        k events, or k is not positive.
    """
    reference, generated = scaled_features(reference, generated)
    check_whole(0, k=k)
    if not 1 <= k < min(len(reference), len(generated)):
        raise ValueError(
            f"the neighbour number {k} needs at least 1 <= k and {k + 1} events of each sample, "
            f"got {len(reference)} and {len(generated)}"
        )
    # Distances come from differences of squared lengths, which the origin nearby keeps small.
    centre = reference.mean(axis=0, keepdims=True)
    reference, generated = reference - centre, generated - centre
    reference_radii, generated_radii = (_radii(sample, k) for sample in (reference, generated))
    # Per generated event: reference balls around it. Per reference event: is it in a ball of the
    # other sample, and is an event of the other sample in its ball?
    around = np.zeros(len(generated), np.int64)
    recalled = np.zeros(len(reference), bool)
    covered = np.zeros(len(reference), bool)
    for rows, distances in _distances(reference, generated):
        inside = distances < reference_radii[rows, None]
        around += inside.sum(axis=0)
        covered[rows] = inside.any(axis=1)
        recalled[rows] = (distances < generated_radii[None]).any(axis=1)
    return Manifold(
        precision=float(np.mean(around > 0)),
        recall=float(np.mean(recalled)),
        density=float(np.mean(around)) / k,
        coverage=float(np.mean(covered)),
    )


def expected_coverage(num_reference: int, num_generated: int, k: int = 5) -> float:
    """Mean coverage of truth against truth, for any continuous distribution.

    1 - prod_{i=1..k} (n - i) / (n + m - i) for n reference and m generated events: none of the m is
    nearer than the k-th neighbour if the k nearest of all n + m - 1 others are reference events
    (arXiv:2002.09797). It tends to 1 - 2^{-k} for n = m.

    Raises:
      ValueError: unless numbers are whole and positive, and k is below `num_reference`.
    """
    check_whole(1, 10**15, num_reference=num_reference, num_generated=num_generated)
    check_sizes(k=k)
    if not k < num_reference:
        raise ValueError(f"k must be below the {num_reference} reference events, got {k}")
    n, m, i = num_reference, num_generated, np.arange(1, k + 1)
    return float(1 - np.prod((n - i) / (n + m - i)))


def nearest_neighbours(
    sample: Real[np.ndarray, "n d"], others: Real[np.ndarray, "m d"] | None = None
) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Euclidean distances to the nearest event, and its row.

    Time grows with n m d, memory with n + m. Rounding makes distances of copies 1e-7 of the
    features' size or so instead of zero.

    Args:
      sample: events whose neighbours are searched.
      others: where they are searched; None searches the sample without the event itself.

    Raises:
      ValueError: if the samples are no finite tables of the same columns, or of too few events.
    """
    found = finite_array(sample, "sample")
    where = found if others is None else finite_array(others, "others")
    if found.ndim != 2 or where.shape[1:] != found.shape[1:] or len(where) < 1 + (others is None):
        raise ValueError(
            "neighbours need samples [n, d] and [m, d] of the same d, or one of two events or "
            f"more, got {found.shape} and {where.shape}"
        )
    centre = where.mean(axis=0, keepdims=True)
    found, where = found - centre, where - centre
    squares, rows = np.empty(len(found)), np.empty(len(found), np.int64)
    for block, distances in _distances(found, where):
        if others is None:
            own = np.arange(block.start, block.stop)
            distances[own - block.start, own] = np.inf
        rows[block] = distances.argmin(axis=1)
        squares[block] = distances.min(axis=1)
    return np.sqrt(squares), rows


def _radii(sample, k):
    """Squared distances [n] to the k-th neighbour, a hair smaller, so that balls are open."""
    radii = np.empty(len(sample))
    for rows, distances in _distances(sample, sample):
        own = np.arange(rows.start, rows.stop)
        distances[own - rows.start, own] = np.inf
        radii[rows] = np.partition(distances, k - 1, axis=1)[:, k - 1]
    return radii * _OPEN


def _distances(x, y):
    """Squared distances of all pairs: slices of rows, and the distances [rows, m] of those."""
    x_squares, y_squares = np.sum(x**2, axis=1), np.sum(y**2, axis=1)
    size = max(1, _CHUNK // len(y))
    for first in range(0, len(x), size):
        rows = slice(first, min(first + size, len(x)))
        distances = x[rows] @ y.T
        distances *= -2
        distances += x_squares[rows, None]
        distances += y_squares[None]
        yield rows, np.maximum(distances, 0, out=distances)

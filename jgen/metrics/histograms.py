"""Histograms with statistical errors, and the separation power of two of them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Real

from jgen.arrays import double_array
from jgen.estimate import Estimate
from jgen.random import numpy_generator
from jgen.typing import Key

# The CaloChallenge's guard against bins that are empty in both histograms (arXiv:2410.21611).
_EMPTY = 1e-16


class Histogram(NamedTuple):
    """A one-dimensional histogram; entries outside the edges are kept apart.

    Attributes:
      edges: increasing bin edges [num_bins + 1], in the units of the values. Bins are half open,
        [low, high), and the last one is closed, as in numpy.
      counts: sum of weights a bin [num_bins].
      variances: sum of squared weights a bin [num_bins]; without weights, the counts.
      underflow: sum of weights below the first edge, minus infinity included.
      overflow: sum of weights above the last edge, infinity included.
    """

    edges: Float[np.ndarray, " num_edges"]
    counts: Float[np.ndarray, " num_bins"]
    variances: Float[np.ndarray, " num_bins"]
    underflow: float
    overflow: float

    @property
    def total(self) -> float:
        """Sum of all weights, inside and outside the edges."""
        return float(self.counts.sum()) + self.underflow + self.overflow

    @property
    def contents(self) -> Float[np.ndarray, " num_bins"]:
        """Bin contents normalised to one inside the edges; zero if nothing is inside."""
        return _normalised(self.counts)

    @property
    def fractions(self) -> Float[np.ndarray, " num_bins"]:
        """Bin contents as fractions of everything, entries outside the edges included."""
        return self.counts / (self.total or 1.0)

    @property
    def fraction_errors(self) -> Float[np.ndarray, " num_bins"]:
        """Poisson errors of the fractions, sqrt(sum of squared weights) over the total."""
        return np.sqrt(self.variances) / (self.total or 1.0)

    @property
    def outside(self) -> tuple[float, float]:
        """Fractions of everything in the underflow and in the overflow."""
        return self.underflow / (self.total or 1.0), self.overflow / (self.total or 1.0)


def histogram(
    values: Real[np.ndarray, " n"],
    edges: Real[np.ndarray, " num_edges"],
    weights: Real[np.ndarray, " n"] | None = None,
) -> Histogram:
    """Fill a histogram in float64.

    Raises:
      ValueError: if a value or weight is NaN, the edges do not increase or the shapes differ.
    """
    values, edges = double_array(values, "values"), double_array(edges, "edges")
    if values.ndim != 1:
        raise ValueError(f"values need the shape [n], got {values.shape}: histogram each column")
    if edges.ndim != 1 or len(edges) < 2 or not np.all(np.diff(edges) > 0):
        raise ValueError(f"edges must be two or more increasing numbers, got {edges}")
    weights = np.ones_like(values) if weights is None else double_array(weights, "weights")
    if weights.shape != values.shape:
        raise ValueError(f"{len(values)} values need as many weights, got shape {weights.shape}")
    for name, array in (("values", values), ("weights", weights)):
        if bad := int(np.isnan(array).sum()):
            raise ValueError(f"{bad} of {len(array)} {name} are NaN: drop or repair those events")
    # Bin 0 is the underflow, the last one the overflow; the uppermost edge belongs to its bin.
    num_bins = len(edges) - 1
    index = np.searchsorted(edges, values, side="right")
    index[values == edges[-1]] = num_bins
    sums = np.bincount(index, weights, num_bins + 2)
    squares = np.bincount(index, weights**2, num_bins + 2)
    return Histogram(edges, sums[1:-1], squares[1:-1], float(sums[0]), float(sums[-1]))


class Separation(NamedTuple):
    """Separation power of two histograms, with what it does not see.

    Attributes:
      value: the separation power, in [0, 1].
      error: its statistical spread.
      underflow: fractions of each sample below the edges.
      overflow: fractions of each sample above the edges.
    """

    value: float
    error: float
    underflow: tuple[float, float]
    overflow: tuple[float, float]

    @property
    def estimate(self) -> Estimate:
        """Value and error alone."""
        return Estimate(self.value, self.error)

    def __str__(self) -> str:
        """As an `Estimate`."""
        return str(self.estimate)


def separation(
    reference: Histogram, generated: Histogram, *, num_bootstrap: int = 200, key: Key | None = None
) -> Separation:
    """Separation power S = 1/2 sum_i (p_i - q_i)^2 / (p_i + q_i + 1e-16) of contents p and q.

    As in the CaloChallenge (arXiv:2410.21611, Sec. 4.2) the contents are normalised to one *inside
    the edges*, so a wrong rate of entries outside them is invisible in the value; look at the
    fractions beside it. S is 0 for equal and 1 for disjoint contents; here it is also 0 if nothing
    is inside the edges of either sample, and 1 if that is so for one only.

    The error is the spread of S when both sets of bin counts are drawn again from a multinomial
    distribution (with the effective number of entries, if there are weights). It says how far
    another pair of samples scatters. It does not remove the bias: S of two samples of the same
    distribution is not zero but on average `separation_floor`, so quote a truth-against-truth
    value of the same size beside it.

    Raises:
      ValueError: if the edges differ or a bin content is negative.
    """
    p, q = reference, generated
    if p.edges.shape != q.edges.shape or not np.allclose(p.edges, q.edges, rtol=1e-12, atol=0):
        raise ValueError("the histograms have different edges: fill both with those of one of them")
    for name, h in (("reference", p), ("generated", q)):
        if np.any(h.counts < 0):
            raise ValueError(
                f"the histogram of {name} has negative contents (negative weights?), for which the "
                "separation power is not defined: use wider bins or positive weights"
            )
    rng = numpy_generator(key)
    replicas = _power(_resampled(rng, p, num_bootstrap), _resampled(rng, q, num_bootstrap))
    (p_under, p_over), (q_under, q_over) = p.outside, q.outside
    return Separation(
        float(_power(p.counts, q.counts)),
        float(np.std(replicas)) if num_bootstrap else float("nan"),
        (p_under, q_under),
        (p_over, q_over),
    )


def separation_floor(num_bins: int, num_p: int, num_q: int) -> float:
    """Expected separation power of two samples of one distribution, (B-1)/4 (1/n + 1/m).

    For equal sizes N it is (B-1)/(2N). B counts the bins the distribution fills; the formula is the
    leading order in 1/n and needs several entries a bin. It follows from S = 1/4 sum d^2/p for
    small differences d of variance p (1-p) (1/n + 1/m).
    """
    return (num_bins - 1) / 4 * (1 / num_p + 1 / num_q)


def _normalised(counts):
    total = counts.sum(axis=-1, keepdims=True)
    return counts / np.where(total > 0, total, 1.0)


def _power(p, q):
    """Separation power over the last axis of bin counts."""
    p_empty, q_empty = p.sum(axis=-1) == 0, q.sum(axis=-1) == 0
    p, q = _normalised(p), _normalised(q)
    value = 0.5 * np.sum((p - q) ** 2 / (p + q + _EMPTY), axis=-1)
    return np.where(p_empty != q_empty, 1.0, value)


def _resampled(rng, h, num):
    total = h.counts.sum()
    if total == 0:
        return np.zeros((num, len(h.counts)))
    effective = max(1, round(total**2 / h.variances.sum()))
    return rng.multinomial(effective, h.counts / total, size=num).astype(np.float64)

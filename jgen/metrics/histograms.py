"""Histograms with statistical errors, and the separation power of two of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float, Real

from jgen.arrays import double_array, edge_array
from jgen.checks import check_positive_or_infinite, check_whole
from jgen.estimate import Estimate
from jgen.metrics.distances import event_weights, floor_error
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
      outside_variances: sums of squared weights below and above; NaN where they are not known.
    """

    edges: Float[np.ndarray, " num_edges"]
    counts: Float[np.ndarray, " num_bins"]
    variances: Float[np.ndarray, " num_bins"]
    underflow: float
    overflow: float
    outside_variances: tuple[float, float] = (np.nan, np.nan)

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
      ValueError: if a value or weight is NaN, a weight is infinite, the edges do not increase, or
        the shapes differ.
    """
    values, edges = double_array(values, "values"), edge_array(edges)
    if values.ndim != 1:
        raise ValueError(f"values need the shape [n], got {values.shape}: histogram each column")
    weights = np.ones_like(values) if weights is None else double_array(weights, "weights")
    if weights.shape != values.shape:
        raise ValueError(f"{len(values)} values need as many weights, got shape {weights.shape}")
    for name, array in (("values", values), ("weights", weights)):
        if bad := int(np.isnan(array).sum()):
            raise ValueError(f"{bad} of {len(array)} {name} are NaN: drop or repair those events")
    if bad := int(np.isinf(weights).sum()):
        raise ValueError(f"{bad} of {len(weights)} weights are infinite: drop those events")
    index, num_bins = _bins(values, edges), len(edges) - 1
    sums = np.bincount(index, weights, num_bins + 2)
    with np.errstate(over="ignore"):
        squares = np.bincount(index, weights**2, num_bins + 2)
    if not np.isfinite(squares).all():
        raise ValueError(
            f"weights reach {np.abs(weights).max():.3g}, and their squares are infinite: divide "
            "them by their mean"
        )
    outside = float(squares[0]), float(squares[-1])
    return Histogram(edges, sums[1:-1], squares[1:-1], float(sums[0]), float(sums[-1]), outside)


def to_hist(histogram: Histogram, name: str = "", label: str = "") -> Any:
    """A `hist.Hist` with our contents and variances, for `mplhep` and whatever else takes them.

    It is what `hist` fills itself, bin by bin, but for values at the last edge: they are inside
    here, as in numpy, and there they are above. A figure of ours takes a `hist.Hist` as it is.

    Args:
      histogram: made by `histogram`.
      name: of its axis, for `hist`.
      label: of its axis, for figures.

    Raises:
      ValueError: if hist is not installed, or for what `histogram` has not made.
    """
    if not isinstance(histogram, Histogram):
        raise ValueError(
            f"to_hist takes what jgen.metrics.histogram makes, got {type(histogram).__name__}; "
            "give it histogram(values, edges)"
        )
    try:
        import hist
    except ImportError as error:
        raise ValueError('this needs hist: pip install "jgen[hep]"') from error
    axis = hist.axis.Variable(histogram.edges, name=name, label=label)
    made = hist.Hist(axis, storage=hist.storage.Weight())
    low, high = histogram.outside_variances
    view = made.view(flow=True)
    view.value = np.concatenate([[histogram.underflow], histogram.counts, [histogram.overflow]])
    view.variance = np.concatenate([[low], histogram.variances, [high]])
    return made


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

    Also called the triangular discriminator, in unfolding (1911.09107).

    As in the CaloChallenge (arXiv:2410.21611, Sec. 4.2) the contents are normalised to one *inside
    the edges*, so a wrong rate of entries outside them is invisible in the value; look at the
    fractions beside it. S is 0 for equal and 1 for disjoint contents; here it is also 0 if nothing
    is inside the edges of either sample, and 1 if that is so for one only.

    The error says how far S of other pairs of samples scatters, from replicas whose bin counts are
    drawn from multinomial distributions (with the effective number of entries, if there are
    weights); see `QuadraticReplicas`. It does not remove the bias: S of two samples of the same
    distribution is not zero but on average `separation_floor`, so quote a truth-against-truth value
    of the same size beside it.

    Raises:
      ValueError: if the edges differ or a bin content is negative.
    """
    check_whole(0, num_bootstrap=num_bootstrap)
    p, q = reference, generated
    if not isinstance(p, Histogram) or not isinstance(q, Histogram):
        raise ValueError("histograms are compared: make them with histogram(values, edges)")
    if p.edges.shape != q.edges.shape or not np.allclose(p.edges, q.edges, rtol=1e-12, atol=0):
        raise ValueError("the histograms have different edges: fill both with those of one of them")
    for name, h in (("reference", p), ("generated", q)):
        if np.any(h.counts < 0):
            raise ValueError(
                f"the histogram of {name} has negative contents (negative weights?), for which the "
                "separation power is not defined: use wider bins or positive weights"
            )
    rng = numpy_generator(key)
    contents, sizes = [h.contents for h in (p, q)], [_effective(h) for h in (p, q)]
    pooled = _normalised(np.dot(sizes, contents))
    drawn, null = (
        tuple(_multinomial(rng, size, c, num_bootstrap) for size, c in zip(sizes, of, strict=True))
        for of in (contents, (pooled, pooled))
    )
    replicas = separation_replicas(p.counts, q.counts, drawn, null)
    (p_under, p_over), (q_under, q_over) = p.outside, q.outside
    value, error = float(replicas.observed), float(replicas.error)
    return Separation(value, error, (p_under, q_under), (p_over, q_over))


class QuadraticReplicas(NamedTuple):
    """Replicas of a number that is quadratic in differences of means, such as a separation power.

    For true differences delta, noise of covariance C and weights w, a number d w d has the variance
    2 tr(wC)^2 + 4 (w delta) C (w delta). In a replica of resampled events the observed d, which has
    noise of its own, takes the place of delta, so that replicas scatter too far: for two samples of
    one distribution their variance is three times 2 tr(wC)^2, too large by a factor of three. That
    term by itself, V, is the variance of `null`, and what belongs to delta is left of the replicas'
    variance if 2 V is taken off, or if it is scaled by (m + 2 s) / (3 m + 2 s) for a number that
    is larger by s than its mean m in `null`. The error is the root of the largest of the three,
    since each of them fails low where bins have few entries, and at most that of the replicas; for
    numbers that are no larger than those of truth it is the root of V, see `floor_error`.

    Attributes:
      observed: the number.
      replicas: the number in samples of resampled events.
      null: the number in samples whose events are dealt out anew from both.
    """

    observed: Float[np.ndarray, " *columns"]
    replicas: Float[np.ndarray, " num_bootstrap *columns"]
    null: Float[np.ndarray, " num_bootstrap *columns"]

    @property
    def error(self) -> Float[np.ndarray, " *columns"]:
        """How far it scatters from one pair of samples to another; NaN without replicas."""
        if not len(self.replicas):
            return np.full(self.replicas.shape[1:], np.nan)
        spread, null, floor = (
            self.replicas.var(axis=0),
            self.null.var(axis=0),
            self.null.mean(axis=0),
        )
        above = np.maximum(self.observed - floor, 0)
        # Nothing is observed and nothing drawn: whatever the share, the spread is zero.
        share = (floor + 2 * above) / np.maximum(3 * floor + 2 * above, _EMPTY)
        largest = np.maximum(np.maximum(null, spread - 2 * null), spread * share)
        far = np.sqrt(np.minimum(largest, spread))
        return floor_error(self.observed, np.sqrt(null), far, floor)

    @property
    def mean(self) -> "QuadraticReplicas":
        """Of the mean over columns."""
        return QuadraticReplicas(*(a.mean(axis=-1) for a in self))


def dealt_out(rng: np.random.Generator, n: int, m: int, num: int) -> Bool[np.ndarray, "num both"]:
    """Which n of n + m events make the first sample, when both samples are dealt out anew."""
    return rng.permuted(np.tile(np.arange(n + m) < n, (num, 1)), axis=1)


def separation_replicas(
    reference: Real[np.ndarray, " bins"],
    generated: Real[np.ndarray, " bins"],
    drawn: tuple[Real[np.ndarray, "num_bootstrap bins"], Real[np.ndarray, "num_bootstrap bins"]],
    null: tuple[Real[np.ndarray, "num_bootstrap bins"], Real[np.ndarray, "num_bootstrap bins"]],
) -> QuadraticReplicas:
    """Separation power of two histograms and its replicas.

    Args:
      reference: bin counts inside the edges.
      generated: the same of the other sample.
      drawn: counts of resampled events of both samples.
      null: counts of two samples that are dealt out anew.
    """
    return QuadraticReplicas(
        np.asarray(_power(reference, generated)), _power(*drawn), _power(*null)
    )


class ColumnSeparations(NamedTuple):
    """Separation powers of the columns of two samples.

    Attributes:
      value: the separation powers.
      error: their statistical spreads, NaN without replicas.
      replicas: a column each. A replica draws the same events for every column, so errors of means
        over columns follow from it.
      underflow: differences of the fractions of both samples below the edges.
      overflow: the same above the edges.
    """

    value: Float[np.ndarray, " columns"]
    error: Float[np.ndarray, " columns"]
    replicas: QuadraticReplicas
    underflow: Float[np.ndarray, " columns"]
    overflow: Float[np.ndarray, " columns"]

    @property
    def estimate(self) -> Estimate:
        """Mean over the columns; its error comes from the replicas' means."""
        return Estimate(float(np.mean(self.value)), float(self.replicas.mean.error))


def column_separations(
    reference: Real[np.ndarray, "n k"],
    generated: Real[np.ndarray, "m k"],
    edges: Sequence[Real[np.ndarray, " _"]],
    reference_weights: Real[np.ndarray, " n"] | None = None,
    generated_weights: Real[np.ndarray, " m"] | None = None,
    *,
    num_bootstrap: int = 100,
    key: Key | None = None,
) -> ColumnSeparations:
    """`separation` of every column, with errors from events that are resampled as a whole.

    The columns of an event belong together (the layers of a shower), so the error of a mean over
    columns is neither that of independent ones nor that of one column.

    Args:
      reference: one sample.
      generated: the other sample.
      edges: bin edges of each column.
      reference_weights: of the events, not negative; ones unless given.
      generated_weights: the same of the other sample.
      num_bootstrap: replicas for the error; 0 for none.
      key: of the bootstrap.

    Raises:
      ValueError: as `histogram` and `wasserstein`, or if the numbers of columns and edges differ.
    """
    check_whole(0, num_bootstrap=num_bootstrap)
    samples = [double_array(reference, "reference"), double_array(generated, "generated")]
    if any(s.ndim != 2 or not len(s) or s.shape[1] != len(edges) for s in samples):
        raise ValueError(
            f"samples [n, k] and [m, k] need k sets of edges, got shapes {samples[0].shape} and "
            f"{samples[1].shape} and {len(edges)} sets"
        )
    given = reference_weights, generated_weights
    weights = [event_weights(w, len(s)) for w, s in zip(given, samples, strict=True)]
    weights = [w / w.mean() for w in weights]
    rng = numpy_generator(key)
    drawn = [
        rng.multinomial(len(w), np.full(len(w), 1 / len(w)), size=num_bootstrap) * w
        for w in weights
    ]
    pooled = np.concatenate(samples)
    first = dealt_out(rng, *map(len, samples), num_bootstrap) * np.concatenate(weights)
    outside, found = [], []
    for k, e in enumerate(edges):
        p, q = (histogram(s[:, k], e, w) for s, w in zip(samples, weights, strict=True))
        outside.append(np.abs(np.subtract(p.outside, q.outside)))
        again = (_drawn_counts(s[:, k], e, w) for s, w in zip(samples, drawn, strict=True))
        one = _drawn_counts(pooled[:, k], e, first)
        null = one, p.counts + q.counts - one
        found.append(separation_replicas(p.counts, q.counts, tuple(again), null))
    replicas = QuadraticReplicas(*(np.stack(a, axis=-1) for a in zip(*found, strict=True)))
    return ColumnSeparations(replicas.observed, replicas.error, replicas, *np.array(outside).T)


def separation_floor(num_bins: int, num_p: int, num_q: int) -> float:
    """Expected separation power of two samples of one distribution, (B-1)/4 (1/n + 1/m).

    For equal sizes N it is (B-1)/(2N). B counts the bins the distribution fills; the formula is the
    leading order in 1/n and needs several entries a bin. It follows from S = 1/4 sum d^2/p for
    small differences d of variance p (1-p) (1/n + 1/m).

    Raises:
      ValueError: for numbers that are not positive; numbers of events may be infinite.
    """
    check_whole(num_bins=num_bins)
    check_positive_or_infinite(num_p=num_p, num_q=num_q)
    return (num_bins - 1) / 4 * (1 / num_p + 1 / num_q)


def _bins(values, edges):
    """Bins of values: 0 is the underflow, the last the overflow; the last edge is in its bin."""
    index = np.searchsorted(edges, values, side="right")
    index[values == edges[-1]] = len(edges) - 1
    return index


def _drawn_counts(values, edges, drawn):
    """Contents [replicas, bins] inside the edges of values with weights [replicas, n]."""
    index, num = _bins(values, np.asarray(edges)), len(values)
    entries = scipy.sparse.csr_array(
        (np.ones(num), (index, np.arange(num))), shape=(len(edges) + 1, num)
    )
    return (entries @ drawn.T).T[:, 1:-1]


def _normalised(counts):
    total = counts.sum(axis=-1, keepdims=True)
    return counts / np.where(total > 0, total, 1.0)


def _power(p, q):
    """Separation power over the last axis of bin counts."""
    p_empty, q_empty = p.sum(axis=-1) == 0, q.sum(axis=-1) == 0
    p, q = _normalised(p), _normalised(q)
    value = 0.5 * np.sum((p - q) ** 2 / (p + q + _EMPTY), axis=-1)
    return np.where(p_empty != q_empty, 1.0, value)


def _effective(h):
    """Effective number of the entries inside the edges."""
    return max(1, round(h.counts.sum() ** 2 / h.variances.sum())) if h.counts.sum() else 0


def _multinomial(rng, size, contents, num):
    if not size:
        return np.zeros((num, len(contents)))
    return rng.multinomial(size, contents, size=num).astype(np.float64)

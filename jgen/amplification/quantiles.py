"""Amplification against a known truth, seen by bins of equal probability.

GANplification (arXiv:2008.06545): the mean squared error of the probabilities of quantile bins.
Calomplification (arXiv:2202.07352): the Jensen-Shannon divergence over bins of iterated median
splits. Both know what a sample of n events gives, so that an error tells a number of events; for
both, chi-square statistics in the limit of full bins, the interval is that of a chi-square.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Real
from scipy import stats

from jgen.amplification.averaging import ONE_SIGMA, Interval, size_array
from jgen.arrays import (
    edge_array,
    finite_array,
    not_negative_array,
    positive_array,
    real_array,
    sample_array,
)
from jgen.checks import (
    check_open_fraction,
    check_positive_or_infinite,
    check_whole,
    check_wholes,
)

# Events that are sorted into bins at once.
_CHUNK = 2**18
# Numbers of bins are held in 32 bits.
_MOST_LEVELS = 30


class MedianSplits(NamedTuple):
    """Bins from iterated median splits, see `median_splits`.

    Attributes:
      axes: observable that each level splits [levels].
      thresholds: for each level one number a bin of the level above, [1], [2], [4], ...; an event
        at a threshold is in the upper bin.
    """

    axes: tuple[int, ...]
    thresholds: tuple[Float[np.ndarray, " bins"], ...]


def sample_quantile_edges(sample: Real[np.ndarray, " n"], num: int) -> Float[np.ndarray, " edges"]:
    """Edges of `num` bins of equal probability in a large true sample, -inf and inf at the ends.

    Where the truth is known, take exact edges instead: those of a sample of n events move the
    errors of what is compared as if it had n events more to fluctuate with.

    Raises:
      ValueError: if there are fewer events than bins, NaN, or so many ties that edges coincide.
    """
    check_whole(num=num)
    sample = sample_array(sample, "sample").astype(np.float64, copy=False)
    if num > len(sample):
        raise ValueError(
            f"{num} quantile bins need a sample [n] with n at least as large, got "
            f"shape {sample.shape}"
        )
    inner = np.quantile(sample, np.arange(1, num) / num)
    if np.any(np.diff(inner) <= 0):
        raise ValueError(
            f"{num} bins of equal probability do not exist, because many events have the same "
            "value: take fewer bins"
        )
    return np.concatenate([[-np.inf], inner, [np.inf]])


def product_bins(
    events: Real[np.ndarray, " num *d"], edges: Sequence[Real[np.ndarray, " _edges"]]
) -> Int[np.ndarray, " num"]:
    """Bin of each event in the product of one-dimensional bins, such as 7 x 7; -1 if outside.

    The bin of coordinates (i, j, ...) is numbered with the last one fastest. Bins are half open,
    [low, high), and the last one of an axis is closed, as in numpy. In polar coordinates pass
    those.

    Args:
      events: coordinates of events; [num] is taken as one coordinate.
      edges: increasing edges of each coordinate.

    Raises:
      ValueError: if coordinates and edges do not fit, edges do not increase, or a number is NaN.
    """
    events = _events(events)
    edges = [edge_array(e) for e in edges]
    if len(edges) != events.shape[1]:
        raise ValueError(
            f"events have {events.shape[1]} coordinates and need as many arrays of two or more "
            f"edges, got the shapes {[e.shape for e in edges]}"
        )
    bins, inside = np.zeros(len(events), np.int64), np.ones(len(events), bool)
    for column, e in zip(events.T, edges, strict=True):
        index = np.searchsorted(e, column, side="right") - 1
        index[column == e[-1]] = len(e) - 2
        inside &= (index >= 0) & (index <= len(e) - 2)
        bins = bins * (len(e) - 1) + index
    return np.where(inside, bins, -1)


def bin_fractions(
    bins: Int[np.ndarray, " num"], num_bins: int, sizes: Int[np.ndarray, " sizes"]
) -> Float[np.ndarray, "sizes num_bins"]:
    """Shares of the first n events that lie in each bin, for all sizes n in one pass.

    Args:
      bins: bin of each event in the order they were drawn; -1 for events in none.
      num_bins: number of bins.
      sizes: increasing numbers of events, such as those of `prefix_sizes`.

    Raises:
      ValueError: if the sizes do not increase or exceed the events, or bins are out of range.
    """
    check_whole(num_bins=num_bins)
    bins, sizes = sample_array(bins, "bins"), size_array(sizes)
    if bins.dtype.kind not in "iu" or bins.min() < -1 or bins.max() >= num_bins:
        raise ValueError(
            f"bins must be whole numbers [num] from -1 to {num_bins - 1}, got {bins.dtype} from "
            f"{bins.min()} to {bins.max()}"
        )
    if sizes[-1] > len(bins):
        raise ValueError(f"sizes must increase from 1 or more to at most {len(bins)}, got {sizes}")
    blocks = np.split(bins[: sizes[-1]], sizes[:-1])
    counts = [np.bincount(block + 1, minlength=num_bins + 1)[1:] for block in blocks]
    return np.cumsum(counts, axis=0) / sizes[:, None]


def quantile_mse(fractions: Real[np.ndarray, "*shape bins"]) -> Float[np.ndarray, " *shape"]:
    """Mean over N bins of (x_j - 1/N)^2 (arXiv:2008.06545, Eq. 2).

    Raises:
      ValueError: for what are no fractions of events.
    """
    fractions = _histograms(fractions, "fractions")
    return np.mean((fractions - 1 / fractions.shape[-1]) ** 2, axis=-1)


def sample_quantile_mse(
    num_bins: int, num: Real[np.ndarray, " *shape"]
) -> Float[np.ndarray, " *shape"]:
    """Exact expectation of `quantile_mse` for a true sample of `num` events, (1 - 1/N) / (N n).

    Raises:
      ValueError: for numbers that are not positive; `num` may be infinite.
    """
    check_whole(num_bins=num_bins)
    return (1 - 1 / num_bins) / (num_bins * positive_array(num, "num"))


def fit_quantile_mse(
    covariance: Real[np.ndarray, "p p"], jacobian: Real[np.ndarray, "bins p"]
) -> float:
    """Expected quantile error of a fit, to first order in the errors of its parameters.

    trace(J C J^T) / N, the benchmark of someone who knows the family of the truth
    (arXiv:2008.06545, Fig. 2).

    Args:
      covariance: of the fitted parameters; for a maximum-likelihood fit to n events the inverse
        of the Fisher information over n.
      jacobian: derivatives of the bins' probabilities by the parameters.

    Raises:
      ValueError: if the shapes do not fit, or a number is not finite.
    """
    covariance, jacobian = (
        finite_array(covariance, "covariance"),
        finite_array(jacobian, "jacobian"),
    )
    if jacobian.ndim != 2 or covariance.shape != (jacobian.shape[1],) * 2:
        raise ValueError(
            f"a covariance [p, p] and a jacobian [bins, p] are needed, got {covariance.shape} and "
            f"{jacobian.shape}"
        )
    return float(np.einsum("ip,pq,iq->", jacobian, covariance, jacobian) / len(jacobian))


def mse_equivalent_events(
    mse: Real[np.ndarray, " *shape"],
    num_bins: int,
    num_generated: float = np.inf,
    *,
    level: float = ONE_SIGMA,
) -> Interval:
    """True events whose sample has the quantile error of a generator.

    (1 - 1/N) / (N mse), less what the finite number of generated events adds; infinite where only
    that is seen. The interval, of a chi-square with N - 1 degrees of freedom, holds for errors as
    those of a sample, independent in all bins. A fit of few parameters fluctuates more: average
    `mse` over independent trainings and see `mean_and_error`. Both ends may be infinite where
    finite generated samples would differ more than this one does: generate more.

    Args:
      mse: of a generator, or the mean over several.
      num_bins: N.
      num_generated: events behind `mse`, infinite for a limit.
      level: coverage of the interval.

    Raises:
      ValueError: for fewer than two bins, an unusable level, or a negative or infinite `mse`.
    """
    check_whole(2, num_bins=num_bins)
    check_positive_or_infinite(num_generated=num_generated)
    statistic = num_bins**2 * not_negative_array(mse, "mse")
    return _chi_square_events(statistic, num_bins, 1 / num_generated, level)


def mean_and_error(
    values: Real[np.ndarray, " repetitions *shape"],
) -> tuple[Float[np.ndarray, " *shape"], Float[np.ndarray, " *shape"]]:
    """Mean over independent repetitions and its standard error, spread / sqrt(repetitions).

    The papers draw the spread itself, the error of a single training.

    Raises:
      ValueError: for fewer than two repetitions, or values that are not finite.
    """
    values = finite_array(values, "values")
    if values.ndim == 0 or len(values) < 2:
        raise ValueError(f"an error needs two repetitions or more, got shape {values.shape}")
    return values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))


def median_splits(
    sample: Real[np.ndarray, " num *d"], levels: int, axes: Iterable[int] | None = None
) -> MedianSplits:
    """Halve a sample again and again at the medians of one observable after the other.

    The bins of a k-d tree: level l splits each of the 2^l bins above it at its own median, so that
    all hold the same number of events of the sample but for one event a level, and for ties, which
    stay together (arXiv:2202.07352; 14 levels are its 16k bins).

    Args:
      sample: the large validation sample that the bins are made for, observables as columns.
      levels: number of splits, for 2^levels bins.
      axes: observable of each level; None takes them in turn.

    Raises:
      ValueError: if there are fewer events than bins, NaN, or an axis that does not exist.
    """
    check_whole(1, _MOST_LEVELS, levels=levels)
    sample = _events(sample)
    num, d = sample.shape
    axes = tuple(i % d for i in range(levels)) if axes is None else tuple(axes)
    check_wholes(0, d - 1, axes=axes)
    if len(axes) != levels:
        raise ValueError(f"{levels} levels need as many axes from 0 to {d - 1}, got {axes}")
    if num < 2**levels:
        raise ValueError(
            f"{num} events cannot fill the {2**levels} bins of {levels} levels: take fewer levels"
        )
    node, thresholds = np.zeros(num, np.int64), []
    for level, axis in enumerate(axes):
        order = np.lexsort((sample[:, axis], node))
        start = np.searchsorted(node[order], np.arange(2**level + 1))
        # Ties can leave a bin empty; its threshold sends everything down.
        middle = np.minimum((start[:-1] + start[1:]) // 2, num - 1)
        median = np.where(np.diff(start) > 0, sample[order[middle], axis], np.inf)
        thresholds.append(median)
        node = 2 * node + (sample[:, axis] >= median[node])
    return MedianSplits(axes, tuple(thresholds))


def split_bins(
    splits: MedianSplits, events: Real[np.ndarray, " num *d"]
) -> Int[np.ndarray, " num"]:
    """Bin of each event, 0 to 2^levels - 1.

    The bins of the first l levels are these numbers shifted right by (levels - l) bits, so one
    assignment serves for all numbers of bins.

    Raises:
      ValueError: if events have too few observables or NaN.
    """
    events = _events(events)
    if events.shape[1] <= max(splits.axes):
        raise ValueError(
            f"the bins split observable {max(splits.axes)}, but events have {events.shape[1]}"
        )
    out = np.empty(len(events), np.int32)
    for first in range(0, len(events), _CHUNK):
        block = events[first : first + _CHUNK]
        node = np.zeros(len(block), np.int32)
        for axis, thresholds in zip(splits.axes, splits.thresholds, strict=True):
            node = 2 * node + (block[:, axis] >= thresholds[node])
        out[first : first + _CHUNK] = node
    return out


def jensen_shannon(
    reference: Real[np.ndarray, "*#shape bins"], generated: Real[np.ndarray, "*#shape bins"]
) -> Float[np.ndarray, " *shape"]:
    """Jensen-Shannon divergence of two normalised histograms in nats, from 0 to log 2.

    1/2 sum [g log(2 g / (g + p)) + p log(2 p / (g + p))] of the reference p and the generated g
    (arXiv:2202.07352, Eq. 5).

    Raises:
      ValueError: if their bins differ, or a content is negative, NaN or a count.
    """
    p, g = _histograms(reference, "reference"), _histograms(generated, "generated")
    if p.shape[-1] != g.shape[-1]:
        raise ValueError(f"histograms need the same bins, got the shapes {p.shape} and {g.shape}")
    p, g = np.broadcast_arrays(p, g)
    mean = (g + p) / 2

    def part(x):
        # Empty bins give nothing, and where x is positive so is the mean.
        ratio = np.divide(x, mean, out=np.ones_like(mean), where=x > 0)
        return np.sum(x * np.log(ratio), axis=-1)

    # Of equal histograms rounding may leave less than nothing.
    return np.maximum((part(g) + part(p)) / 2, 0)


def sample_jensen_shannon(num_bins: int, n: float, m: float = np.inf) -> float:
    """Expected divergence of samples of n and m events of one distribution.

    (q - 1) / 8 (1/n + 1/m), the limit of small differences: bins must hold many more than one
    event. In a simulation with 64 equal bins and infinite m the mean was 0.2 % above it at 100
    events a bin, 1 % at 30, 4 % at 10, 21 % at 3 and 36 % at one (20,000 samples, +-0.2 %).

    Raises:
      ValueError: for numbers that are not positive; numbers of events may be infinite.
    """
    check_whole(num_bins=num_bins)
    check_positive_or_infinite(n=n, m=m)
    return (num_bins - 1) / 8 * (1 / n + 1 / m)


def jsd_equivalent_events(
    divergence: Real[np.ndarray, " *shape"],
    num_bins: int,
    num_generated: float = np.inf,
    num_validation: float = np.inf,
    *,
    level: float = ONE_SIGMA,
) -> Interval:
    """True events whose sample has the Jensen-Shannon divergence of a generator.

    (q - 1) / (8 JSD) less what the finite generated and validation samples add, valid as
    `sample_jensen_shannon` is, so also in bins that n_equiv events would fill. Interval as in
    `mse_equivalent_events`. It makes no difference that the bins were made from the validation
    sample: then its fluctuations are in the edges instead of in its contents.

    Raises:
      ValueError: for fewer than two bins, an unusable level, or a negative or infinite divergence.
    """
    check_whole(2, num_bins=num_bins)
    check_positive_or_infinite(num_generated=num_generated, num_validation=num_validation)
    floor = 1 / num_generated + 1 / num_validation
    statistic = 8 * not_negative_array(divergence, "divergence")
    return _chi_square_events(statistic, num_bins, floor, level)


def _chi_square_events(statistic, num_bins, floor, level):
    """Equivalent events from a statistic that is chi-square (num_bins - 1) times (1/n + floor)."""
    check_open_fraction(level=level)
    freedom = num_bins - 1
    quantiles = stats.chi2.ppf([(1 - level) / 2, (1 + level) / 2], freedom)
    with np.errstate(divide="ignore"):
        return Interval(
            *(1 / np.maximum(statistic / c - floor, 0.0) for c in (freedom, *quantiles))
        )


def _histograms(values, name):
    """Fractions of events [..., bins]; those of each histogram add up to one, or less."""
    values = not_negative_array(values, name)
    if not values.ndim or values.sum(axis=-1).max() > 1 + 1e-5:
        raise ValueError(
            f"{name} must be fractions of events [..., bins] that add up to one at most, got "
            f"{values.sum(axis=-1).max()} and the shape {values.shape}: divide counts by their sum"
        )
    return values


def _events(events):
    events = real_array(events, "events")
    events = events[:, None] if events.ndim == 1 else events
    if events.ndim != 2 or 0 in events.shape:
        raise ValueError(f"events need the shape [num, coordinates], got {events.shape}")
    if np.isnan(events.min()):
        raise ValueError("events have NaN: repair the coordinates or drop the events")
    return events

"""Averaging amplification (arXiv:2509.08048, Sec. 3): what generated events are worth in regions.

Members (of an ensemble, or draws of a Bayesian network's weights) generate n_gen events each. The
fractions of them in a region have the mean I and scatter with the variance

    s^2 = sigma_model^2 + I (1 - I) / n_gen                                             (Eq. 15, 17)

and n_equiv true events would scatter with I (1 - I) / n_equiv. The generator is worth the n_equiv
whose scatter is its sigma_model; amplification is G = n_equiv / n_train. Several regions enter with
sums of their variances (Eq. 19).

Deviations from the paper: variances have M - 1 in the denominator (Eq. 15 as printed has M, and M
members are then too good by (M - 1) / M), and every number has an interval. Eq. 16 is read as
sigma_stat^2.

What the interval holds. It is that of a variance known from M members only. With M normal members,
(M - 1) s^2 / E[s^2] is chi-square with M - 1 degrees of freedom, s^2 with the noise of n_gen in it,
and the interval of E[s^2] is carried over to sigma_model^2 by subtracting the noise, which is known
well. Summed over regions the members' fractions are correlated, since regions share events and the
errors of few parameters: with their covariance S the sum of variances, tr S, then behaves like a
chi-square with (M - 1) (tr S)^2 / tr(S^2) degrees of freedom (Satterthwaite), and both traces are
estimated without bias, because tr(S^2) of M members is too large by (tr S)^2 / (M - 1). What the
interval does not hold: members that do not scatter as their trainings are wrong (a plain ensemble
on one data set scatters by its optimisation alone), a bias they have in common (see `calibration`),
and that another training set would give another spread.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Real
from scipy import stats

from jgen.arrays import double_array, edge_array, fraction_array, positive_array, real_array
from jgen.checks import check_open_fraction, check_positive
from jgen.metrics.calibration import Pulls, pulls

ONE_SIGMA = float(2 * stats.norm.cdf(1) - 1)
"""Probability of one standard deviation, 0.6827."""

_CHUNK = 1 << 20  # values looked at together, so that memory does not grow with their number


class Interval(NamedTuple):
    """A number with a central interval; `high` is infinite where there is a lower limit only."""

    value: Float[np.ndarray, " sizes"]
    low: Float[np.ndarray, " sizes"]
    high: Float[np.ndarray, " sizes"]

    def __str__(self) -> str:
        """Of single numbers, 2.1 [1.7, 2.6], or a lower limit."""
        ends = f"> {self.low:.2g}" if np.isinf(self.high) else f"{self.low:.2g}, {self.high:.2g}"
        return f"{self.value:.2g} [{ends}]"

    @property
    def last(self) -> "Interval":
        """That of the largest size, in plain numbers."""
        return Interval(*(float(end[-1]) for end in self))

    def over(self, num: float) -> "Interval":
        """In units of `num`, such as equivalent events in those of the training set."""
        return Interval(*(end / num for end in self))


class Averaging(NamedTuple):
    """Variances and what follows from them, one number a size; sums over the regions.

    Attributes:
      sizes: generated events a member, n_gen.
      integrals: mean fractions I [sizes, regions].
      variance: s^2 of the members, or their mean squared deviation from the truth.
      stat_variance: I (1 - I) / n_gen.
      model_variance: their difference; negative where noise hides it.
      degrees_of_freedom: of the chi-square that the variance behaves like.
      n_equiv: true events that the generator is worth; infinite where the model variance is not
        positive, with a lower limit.
      amplification: the same over n_train, G.
    """

    sizes: Float[np.ndarray, " sizes"]
    integrals: Float[np.ndarray, "sizes regions"]
    variance: Float[np.ndarray, " sizes"]
    stat_variance: Float[np.ndarray, " sizes"]
    model_variance: Float[np.ndarray, " sizes"]
    degrees_of_freedom: Float[np.ndarray, " sizes"]
    n_equiv: Interval
    amplification: Interval


class Calibration(NamedTuple):
    """Do members scatter around their mean as the truth does, region by region.

    Attributes:
      mean: pulls of the members' mean, Student t with M - 1 degrees of freedom if calibrated.
      members: (I_member - truth) / (sqrt(2) s) [members, regions]: calibrated members and truth
        both scatter by s around a centre, so the width over many data sets is one. Those of one
        data set are correlated.
    """

    mean: Pulls
    members: Float[np.ndarray, "members regions"]


def region_fractions(
    values: Real[np.ndarray, " num"] | Iterable[Real[np.ndarray, " _"]],
    edges: Real[np.ndarray, " num_edges"],
    sizes: Real[np.ndarray, " sizes"],
) -> Float[np.ndarray, "sizes regions"]:
    """Fractions of the first n events in regions, for every n of `sizes` in one pass (Eq. 10).

    Prefixes of one sample are nested, so that neighbouring sizes are correlated.

    Args:
      values: one observable of one member's events; an array, or chunks of it as
        `jgen.generative_model.draw_chunks` yields them, which are read up to the largest size.
      edges: increasing edges of neighbouring regions, half open [low, high), the last one closed;
        -inf and inf are allowed. Events outside count in n, but in no region. For regions of
        another form pass the number of each event's region and edges between the integers.
      sizes: increasing numbers of events.

    Raises:
      ValueError: if the sizes or edges do not increase, a value is NaN or there are too few.
    """
    edges, sizes = edge_array(edges), size_array(sizes)
    counts = np.zeros((len(sizes), len(edges) - 1), np.int64)
    start = 0
    for chunk in _pieces(values):
        # A chunk is cut where a prefix ends; each part counts in the first prefix that has it.
        first = np.searchsorted(sizes, start, side="right")
        ends = np.minimum(sizes[first:] - start, len(chunk))
        begin = 0
        for row, end in enumerate(ends, first):
            counts[row] += _count(chunk[begin:end], edges)
            begin = end
        start += len(chunk)
        if start >= sizes[-1]:
            break
    if start < sizes[-1]:
        raise ValueError(
            f"the largest size is {sizes[-1]}, but there are {start} values: draw more events or "
            "leave out that size"
        )
    return np.cumsum(counts, axis=0) / sizes[:, None]


def averaging_amplification(
    fractions: Real[np.ndarray, "members sizes regions"],
    sizes: Real[np.ndarray, " sizes"],
    num_train: float,
    *,
    level: float = ONE_SIGMA,
) -> Averaging:
    """Amplification in regions from the spread of members, with intervals (Eqs. 14-19).

    Where the model variance comes out negative there is no number but a lower limit: the lower end
    of n_equiv then belongs to the expected spread of a perfect generator, s^2 = I (1 - I) / n_gen,
    so that a fluctuation to even smaller spreads makes no stronger claim. (The limits at sizes at
    which no event is in the regions are zero.) Intervals hold the truth
    with the probability `level` where sigma_model is well above the noise, and with up to
    (1 + level) / 2 where it is far below.

    Args:
      fractions: of generated events in regions that do not overlap; take regions out by indexing.
      sizes: generated events behind them; inf for integrals without noise.
      num_train: events that each member was trained on.
      level: probability of the intervals.

    Raises:
      ValueError: for fewer than two members, fractions outside [0, 1] or of another shape, or a
        level or number of events that cannot be.
    """
    fractions, sizes = _checked(fractions, sizes, num_train, level)
    deviation = fractions - fractions.mean(axis=0)
    return _estimate(fractions.mean(axis=0), deviation, len(fractions) - 1, sizes, num_train, level)


def true_amplification(
    truth: Real[np.ndarray, " regions"],
    fractions: Real[np.ndarray, "members sizes regions"],
    sizes: Real[np.ndarray, " sizes"],
    num_train: float,
    *,
    level: float = ONE_SIGMA,
) -> Averaging:
    """The same with deviations from a known truth in place of the members' mean (Eq. 11).

    The mean is over members: with one trained on each of many independent data sets (pseudo-
    experiments) it is the true sigma_model, and its interval holds. Members of a single data set
    have their errors in common. For calibrated ones, which scatter around a centre that is itself
    off, the result is on average twice sigma_model^2 from the spread; look at `calibration`.

    Args:
      truth: probabilities of the regions.
      fractions: as for `averaging_amplification`.
      sizes: generated events behind them.
      num_train: events that each member was trained on.
      level: probability of the intervals.

    Raises:
      ValueError: as `averaging_amplification`, or if there is not one probability a region.
    """
    fractions, sizes = _checked(fractions, sizes, num_train, level)
    truth = _check_truth(truth, fractions.shape[2])
    integrals = np.broadcast_to(truth, fractions.shape[1:])
    deviation = fractions - truth
    return _estimate(integrals, deviation, len(fractions), sizes, num_train, level)


def calibration(
    truth: Real[np.ndarray, " regions"], fractions: Real[np.ndarray, "members regions"]
) -> Calibration:
    """Pulls of the members of one data set where the truth is known.

    Averaging sees the spread of members only; a bias that they share shows here. The fractions
    should be those of the largest n_gen: with its noise in s, pulls come out too narrow unless
    n_gen is far above n_equiv.

    Raises:
      ValueError: if there is not one truth a region, or as `jgen.metrics.pulls`.
    """
    fractions = fraction_array(fractions, "fractions", 2)
    truth = _check_truth(truth, fractions.shape[-1])
    of_mean = pulls(truth, fractions)
    spread = fractions.std(axis=0, ddof=1)
    return Calibration(of_mean, (fractions - truth) / (2**0.5 * spread))


def _estimate(integrals, deviation, freedom, sizes, num_train, level) -> Averaging:
    """From deviations [members, sizes, regions] of which `freedom` are independent."""
    binomial = np.sum(integrals * (1 - integrals), axis=-1)
    stat = binomial / sizes
    variance = np.sum(deviation**2, axis=(0, 2)) / freedom
    degrees = _degrees_of_freedom(deviation, freedom)
    above, below = (stats.chi2.ppf(0.5 * (1 + side * level), degrees) for side in (1, -1))
    smallest = variance * degrees / above - stat
    # The largest model variance that fits is never that of less spread than the noise's.
    largest = np.maximum(variance, stat) * degrees / below - stat
    equivalent = [_ratio(binomial, v) for v in (variance - stat, largest, smallest)]
    # Without any event in a region, or outside, nothing is known.
    equivalent[1] = np.where(binomial > 0, equivalent[1], 0.0)
    return Averaging(
        sizes,
        integrals,
        variance,
        stat,
        variance - stat,
        degrees,
        Interval(*equivalent),
        Interval(*equivalent).over(num_train),
    )


def _degrees_of_freedom(deviation, freedom):
    """Satterthwaite's degrees of freedom of a sum of correlated variances, one a size.

    For a Wishart matrix, E tr(S^2) = (1 + 1/m) tr(C^2) + (tr C)^2 / m and E (tr S)^2 = (tr C)^2 +
    2 tr(C^2) / m, solved for the covariance C. They are m for one region or full correlation, and
    m times the number of regions for equal, independent ones.
    """
    m, (num_members, _, num_regions) = freedom, deviation.shape
    if num_regions == 1 or m == 1:
        return np.full(deviation.shape[1], float(m))
    by_size = np.moveaxis(deviation, 1, 0)
    transposed = np.swapaxes(by_size, 1, 2)
    # tr(S^2) is that of the smaller Gram matrix.
    gram = by_size @ transposed if num_members < num_regions else transposed @ by_size
    trace = np.sum(deviation**2, axis=(0, 2)) / m
    square = np.sum(gram**2, axis=(1, 2)) / m**2
    trace_c2 = (square - trace**2 / m) * m**2 / ((m - 1) * (m + 2))
    trace2_c = trace**2 - 2 * trace_c2 / m
    # Few members may find the covariance of many regions to be flatter than it can be.
    degrees = np.full(len(trace), float(m * num_regions))
    np.divide(m * trace2_c, trace_c2, out=degrees, where=trace_c2 > 0)
    return np.clip(degrees, m, m * num_regions)


def _ratio(binomial, variance):
    """Binomial variance over model variance, infinite where there is none."""
    out = np.full(np.shape(variance), np.inf)
    return np.divide(binomial, variance, out=out, where=variance > 0)


def _pieces(values):
    """Chunks of an array or of chunks, none of them long."""
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise ValueError(f"values must be an array or chunks of one, got {type(values).__name__}")
    for chunk in (values,) if hasattr(values, "ndim") else values:
        chunk = real_array(chunk, "values")
        if chunk.ndim != 1:
            raise ValueError(f"values need the shape [num], got {chunk.shape}: one observable")
        for first in range(0, len(chunk), _CHUNK):
            yield chunk[first : first + _CHUNK]


def _count(values, edges):
    """Entries of neighbouring regions."""
    if bad := int(np.isnan(values).sum()):
        raise ValueError(f"{bad} of {len(values)} values are NaN: drop or repair those events")
    index = np.searchsorted(edges, values, side="right")
    index[values == edges[-1]] = len(edges) - 1
    return np.bincount(index, minlength=len(edges) + 1)[1:-1]


def size_array(sizes: Int[np.ndarray, " sizes"]) -> Int[np.ndarray, " sizes"]:
    """Increasing numbers of events.

    Raises:
      ValueError: for anything else.
    """
    array = real_array(sizes, "sizes", booleans=False)
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "iu":
        raise ValueError(f"sizes must be integers [sizes], got {array.dtype} {array.shape}")
    if array[0] < 1 or np.any(array[1:] <= array[:-1]):
        raise ValueError(f"sizes must be increasing positive numbers of events, got {array}")
    return array.astype(np.int64, copy=False)


def _checked(fractions, sizes, num_train, level):
    fractions, sizes = double_array(fractions, "fractions"), positive_array(sizes, "sizes")
    if fractions.ndim != 3 or sizes.shape != fractions.shape[1:2] or not fractions.size:
        raise ValueError(
            "fractions need the shape [members, sizes, regions] with as many sizes as given, got "
            f"{fractions.shape} and {sizes.shape}"
        )
    if len(fractions) < 2:
        raise ValueError("a spread needs two or more members, got one: train or draw more")
    if not np.all((fractions >= 0) & (fractions <= 1)):
        raise ValueError("fractions must be between 0 and 1; divide counts by their n_gen")
    check_positive(num_train=num_train)
    check_open_fraction(level=level)
    return fractions, sizes


def _check_truth(truth, num_regions):
    truth = double_array(truth, "truth")
    if truth.shape != (num_regions,) or not np.all((truth >= 0) & (truth <= 1)):
        raise ValueError(
            f"truth must be {num_regions} probabilities, one a region, got {truth} of shape "
            f"{truth.shape}"
        )
    return truth

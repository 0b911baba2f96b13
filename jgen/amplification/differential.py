"""Differential amplification: what generated events are worth at full resolution.

The Kolmogorov-Smirnov distance of generated events to n_ref true ones falls with n_gen until the
generator's own error shows; it stays where n_equiv true events would have brought it
(arXiv:2509.08048, Sec. 4). n_equiv is a number for one summary statistic y of the events: an
observable, the ratio of a classifier (`jgen.metrics.cross_fitted_log_ratio`) or the true one
(`log_density_ratio`). The reference needs events that the generator was not fitted to: see
`differential_amplification`, and `differential_on_training_set` for what happens otherwise.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real

from jgen.amplification.averaging import ONE_SIGMA, Interval, size_array
from jgen.amplification.kolmogorov import (
    MEAN,
    expected_distance,
    kolmogorov_band,
    kolmogorov_cdf,
    size_interval,
)
from jgen.arrays import real_array, sample_array
from jgen.checks import check_positive, check_positive_or_infinite, check_whole

# Generated values sorted at once; 2^20 float64 numbers are 8 MiB.
_CHUNK = 2**20


class Differential(NamedTuple):
    """Result of `differential_amplification` for one set of generated values.

    Attributes:
      sizes: numbers of generated events.
      distances: Kolmogorov-Smirnov distance of the first so many to the reference.
      num_reference: events of the reference.
      num_train: events that the generator was trained on.
      n_equiv: true events that the generated ones are worth; infinite where the generator's
        error does not show, and with a lower limit where the upper end is infinite.
      probability: of a distance at most as large as the last one if the generator were perfect. A
        value near zero is no praise: the generated events are nearer to the reference than true
        ones would be, so the generator may have seen it.
    """

    sizes: Int[np.ndarray, " sizes"]
    distances: Float[np.ndarray, " sizes"]
    num_reference: int
    num_train: int
    n_equiv: Interval
    probability: float

    @property
    def amplification(self) -> Interval:
        """G = n_equiv / n_train with its interval (arXiv:2509.08048, Eq. 4)."""
        return self.n_equiv.over(self.num_train)


def prefix_sizes(num: int, first: int = 100, per_decade: int = 10) -> Int[np.ndarray, " sizes"]:
    """Increasing numbers of events from `first` to `num`, evenly spaced in the logarithm.

    Raises:
      ValueError: if `first` is not between 1 and `num`, or a number is not whole.
    """
    check_whole(1, 10**15, num=num, first=first)
    check_whole(1, 10**6, per_decade=per_decade)
    if not 1 <= first <= num:
        raise ValueError(f"first must be between 1 and the {num} events there are, got {first}")
    steps = 1 + round(per_decade * np.log10(num / first))
    return np.unique(np.rint(np.geomspace(first, num, max(steps, 2))).astype(np.int64))


def ks_distances(
    reference: Real[np.ndarray, " n_ref"],
    values: Real[np.ndarray, " num"],
    sizes: Int[np.ndarray, " sizes"],
) -> Float[np.ndarray, " sizes"]:
    """Kolmogorov-Smirnov distance of the first n values to a reference, for all sizes n at once.

    Each value is looked at once: of the generated events only the numbers below and at each
    reference value matter, and those add up from one prefix to the next. Ties, within a sample
    and between them, are treated exactly (arXiv:2509.08048, Eq. 33).

    Args:
      reference: summary statistic of true events. Infinities count.
      values: the same of generated events in the order they were drawn.
      sizes: increasing numbers of generated events, see `prefix_sizes`.

    Raises:
      ValueError: if an array is empty or has NaN, or the sizes do not increase or are too large.
    """
    values, reference = sample_array(values, "values"), sample_array(reference, "reference")
    sizes = size_array(sizes)
    if sizes[-1] > len(values):
        raise ValueError(
            f"sizes must increase from 1 or more to at most the {len(values)} values there are, "
            f"got {sizes[0]} to {sizes[-1]}"
        )
    steps, counts = np.unique(np.asarray(reference, np.float64), return_counts=True)
    cumulative = np.concatenate([[0.0], np.cumsum(counts) / len(reference)])
    below, upto = np.zeros(len(steps), np.int64), np.zeros(len(steps), np.int64)
    distances, start = np.empty(len(sizes)), 0
    for i, size in enumerate(sizes):
        for first in range(start, size, _CHUNK):
            block = np.sort(values[first : min(first + _CHUNK, size)].astype(np.float64))
            below += np.searchsorted(block, steps, side="left")
            upto += np.searchsorted(block, steps, side="right")
        start = size
        # The difference is extreme just below a reference value or at it.
        ends = np.abs(below / size - cumulative[:-1]), np.abs(upto / size - cumulative[1:])
        distances[i] = max(ends[0].max(), ends[1].max())
    return distances


def equivalent_events(
    distance: Real[np.ndarray, " *shape"],
    num_reference: float,
    num_generated: float = np.inf,
    *,
    level: float = ONE_SIGMA,
) -> Interval:
    """n_equiv of a generator whose events have a distance to a reference that it never saw.

    The estimate is arXiv:2509.08048, Eq. 36, solved:
    1/n_equiv = (D / <K>)^2 - 1/n_ref - 1/n_gen, infinite where that is not positive. The paper has
    no last term because its D is that of infinitely many generated events; with it the largest
    sample at hand need not be far down the plateau.

    The interval is that of `size_interval`: it contains the fluctuation of the one reference (30 %
    of D, far more than the spread over members shows) and becomes a lower limit where D does not
    stand out. It assumes that the generator's error looks like that of a sample of n_equiv events;
    the error of a fit is smoother. For the mean and width of a Gaussian fitted to 1000 events,
    against 1000 others, the interval of 68 % held 4.7 n_train, where the mean D puts such fits,
    in 61 % of 1000 repetitions. For the mean distance over members it is an approximation: they
    share the reference.

    Args:
      distance: D, of any number of generators.
      num_reference: true events that were compared with.
      num_generated: generated events, infinite for a limit.
      level: coverage of the interval.

    Raises:
      ValueError: for negative distances, sizes that are not positive, or an unusable level.
    """
    check_positive_or_infinite(num_reference=num_reference, num_generated=num_generated)
    floor = 1 / num_reference + 1 / num_generated
    low, high = size_interval(distance, floor, level)
    return Interval(_solve(distance, MEAN, floor), low, high)


def differential_amplification(
    values: Real[np.ndarray, " num"],
    held_out: Real[np.ndarray, " n_ref"],
    num_train: int,
    sizes: Int[np.ndarray, " sizes"] | None = None,
    *,
    level: float = ONE_SIGMA,
) -> Differential:
    """Forecast of amplification from true events that the generator was not trained on.

    Args:
      values: summary statistic of generated events in the order they were drawn.
      held_out: the same of true events that the generator has not seen, nor its selection.
      num_train: events that it was trained on, for G.
      sizes: increasing numbers of generated events; None takes `prefix_sizes`. The last one gives
        n_equiv.
      level: coverage of the interval.

    Raises:
      ValueError: as `ks_distances` and `equivalent_events`.
    """
    check_positive(num_train=num_train)
    values, held_out = sample_array(values, "values"), sample_array(held_out, "held_out")
    sizes = _default_sizes(values) if sizes is None else size_array(sizes)
    distances = ks_distances(held_out, values, sizes)
    num_reference, last = len(held_out), distances[-1]
    n_equiv = equivalent_events(last, num_reference, sizes[-1], level=level)
    probability = float(kolmogorov_cdf(last / expected_distance(num_reference, sizes[-1], 1.0)))
    return Differential(sizes, distances, num_reference, num_train, n_equiv, probability)


def differential_on_training_set(
    values: Real[np.ndarray, " num"],
    training: Real[np.ndarray, " n_train"],
    sizes: Int[np.ndarray, " sizes"] | None = None,
    *,
    level: float = ONE_SIGMA,
) -> Differential:
    """The forecast as published: against the training set, uncalibrated.

    This is arXiv:2509.08048, Eqs. 36-37 with the interval of Eq. 37 as printed (`kolmogorov_band`),
    kept to redraw the paper's figures. Do not quote it: the generator was fitted to these events,
    so that its distance to them is smaller than to others. A Gaussian fitted to 1000 radii has a
    mean of sqrt(n) D of 0.637 instead of 0.869, which gives infinity nine times out of ten where
    the truth is about 5; a generator that does nothing but repeat its training events, worth no
    more than them, gives infinity every time. Use `differential_amplification`.

    Raises:
      ValueError: as `ks_distances`, or for an unusable level.
    """
    values, training = sample_array(values, "values"), sample_array(training, "training")
    sizes = _default_sizes(values) if sizes is None else size_array(sizes)
    distances = ks_distances(training, values, sizes)
    num, last = len(training), distances[-1]
    ends = [MEAN, *kolmogorov_band(level, printed=True)]
    # A lower end of K at or below zero excludes nothing.
    n_equiv = [_solve(last, k, 1 / num) if k > 0 else np.float64(0.0) for k in ends]
    probability = float(kolmogorov_cdf(last / expected_distance(num, sizes[-1], 1.0)))
    return Differential(sizes, distances, num, num, Interval(*n_equiv), probability)


def log_density_ratio(
    log_prob_true: Callable[[Array], Array],
    log_prob_model: Callable[[Array], Array],
    events: Float[np.ndarray, " num *event"],
    *,
    batch_size: int = 2**16,
) -> Float[np.ndarray, " num"]:
    """The true log p_true(x) - log p_model(x) of many events, the sharpest summary statistic.

    Every new function compiles a program. Members of one model share it if they are given as
    `jax.tree_util.Partial(model.log_prob, params, None)`.

    Args:
      log_prob_true: (x) -> nats of ONE event, as `log_prob` of a toy.
      log_prob_model: the same of the generator, its parameters bound.
      events: generated or true events.
      batch_size: events computed at once, so that any number fits.

    Raises:
      ValueError: without events, or if they are no real numbers.
    """
    check_whole(batch_size=batch_size)
    events = real_array(events, "events")
    if not events.size or not events.ndim:
        raise ValueError(f"there are no events to score: they have the shape {events.shape}")
    densities = [
        f if isinstance(f, jax.tree_util.Partial) else jax.tree_util.Partial(f)
        for f in (log_prob_true, log_prob_model)
    ]
    batch_size = min(batch_size, len(events))
    out = np.empty(len(events), np.float32)
    for start in range(0, len(events), batch_size):
        # The last chunk repeats its last event, so that it runs in the same program.
        rows = np.minimum(start + np.arange(batch_size), len(events) - 1)
        ratio = _log_ratio(*densities, events[rows])
        out[start : start + batch_size] = ratio[: len(events) - start]
    return out


def refinement_mask(
    log_ratio: Real[np.ndarray, " num"], low: float = 0.95, high: float = 1.05
) -> Bool[np.ndarray, " num"]:
    """Events whose likelihood ratio lies between `low` and `high` (arXiv:2509.08048, Fig. 10).

    Cut generated and reference events alike, and count n_train after the cut, too: what is
    compared are the distributions in the region of phase space that remains.

    Args:
      log_ratio: in nats, as from `log_density_ratio`.
      low: smallest ratio that is kept.
      high: largest one.

    Raises:
      ValueError: if the bounds are not positive and increasing, or a ratio is NaN.
    """
    check_positive_or_infinite(low=low, high=high)
    if not low < high:
        raise ValueError(f"bounds of a ratio must have 0 < low < high, got {low} and {high}")
    log_ratio = sample_array(log_ratio, "log_ratio")
    return (log_ratio >= np.log(low)) & (log_ratio <= np.log(high))


@jax.jit
def _log_ratio(log_prob_true, log_prob_model, events):
    return jax.vmap(lambda x: log_prob_true(x) - log_prob_model(x))(events)


def _solve(distance, k, floor):
    """The n at which k sqrt(1/n + floor) is the distance; infinite if it is below for all."""
    excess = np.maximum((np.asarray(distance, np.float64) / k) ** 2 - floor, 0.0)
    with np.errstate(divide="ignore"):
        return 1 / excess


def _default_sizes(values):
    return prefix_sizes(len(values), min(100, len(values)))

"""Frechet and kernel physics distance: two samples of many features in one number each.

Both are defined in arXiv:2211.10295 and used by the CaloChallenge (arXiv:2410.21611) on its 362
high-level features. Published tables list both times 1e3; the values here are not multiplied.
Everything is float64, because small differences of large sums are what is wanted.
"""

import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Real
from scipy.optimize import nnls

from jgen.arrays import SampleWarning, double_array, finite_array
from jgen.checks import check_whole
from jgen.estimate import Estimate
from jgen.metrics.distances import event_weights
from jgen.random import numpy_generator
from jgen.typing import Key

# Kernel entries held at once; 2^24 float64 numbers are 128 MiB.
_CHUNK = 2**24
# Random splits of both samples behind the statistical error of a Frechet distance.
_SPLITS = 10


class Moments(NamedTuple):
    """Mean [d] and covariance [d, d] of a sample or of a Gaussian."""

    mean: Float[np.ndarray, " d"]
    covariance: Float[np.ndarray, "d d"]


class FrechetPhysicsDistance(NamedTuple):
    """Frechet physics distance, with the points it was extrapolated from.

    Attributes:
      value: intercept of the fit, never negative.
      error: of the intercept, from the scatter of the points about the line, as published. The
        points share their events, so it does not contain the statistical error of the samples.
      sizes: batch sizes [num_sizes].
      distances: mean Frechet distance of the batches of each size [num_sizes].
      statistical: error of the samples, at a given scale of the features.
    """

    value: float
    error: float
    sizes: Int[np.ndarray, " num_sizes"]
    distances: Float[np.ndarray, " num_sizes"]
    statistical: float

    @property
    def estimate(self) -> Estimate:
        """Value, and both errors in quadrature."""
        return Estimate(self.value, float(np.hypot(self.error, self.statistical)))

    def __str__(self) -> str:
        """As an `Estimate`."""
        return str(self.estimate)


class KernelPhysicsDistance(NamedTuple):
    """Kernel physics distance.

    Attributes:
      value: median of the batches; it may be negative.
      error: half the 68 % range of the batches.
      batches: squared maximum mean discrepancy of each batch [num_batches].
    """

    value: float
    error: float
    batches: Float[np.ndarray, " num_batches"]

    @property
    def estimate(self) -> Estimate:
        """Value and error alone."""
        return Estimate(self.value, self.error)

    def __str__(self) -> str:
        """As an `Estimate`."""
        return str(self.estimate)


def moments(sample: Real[np.ndarray, "n d"]) -> Moments:
    """Mean and unbiased covariance of a sample of two or more events.

    Raises:
      ValueError: if it is no finite table of two or more events.
    """
    sample = _table(sample, "sample")
    mean = sample.mean(axis=0)
    centred = sample - mean
    return Moments(mean, centred.T @ centred / (len(sample) - 1))


def frechet_distance(reference: Moments, generated: Moments) -> float:
    """Frechet distance d^2 = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^{1/2}).

    It is the squared Wasserstein-2 distance of two Gaussians (arXiv:1706.08500). The trace of the
    root is that of (S1^{1/2} S2 S1^{1/2})^{1/2}, the sum of the singular values of S1^{1/2}
    S2^{1/2}, and both roots follow from `eigh`: always real, where the root of the product S1 S2
    itself may turn complex for covariances without full rank. Eigenvalues and distances that are
    negative by rounding are set to zero.

    Raises:
      ValueError: if the shapes do not fit, or a covariance is not symmetric or has an eigenvalue
        that is negative beyond rounding.
    """
    (m1, s1), (m2, s2) = (_checked(*m) for m in (reference, generated))
    if m1.shape != m2.shape:
        raise ValueError(
            f"the reference has {len(m1)} features and the generated distribution {len(m2)}: "
            "compute the same ones for both"
        )
    # Not the roots of the eigenvalues of the product: squaring costs half of the digits.
    overlap = np.linalg.svd(_root(s1).T @ _root(s2), compute_uv=False).sum()
    squared = np.sum((m1 - m2) ** 2) + np.trace(s1) + np.trace(s2) - 2 * overlap
    return max(0.0, float(squared))


def frechet_physics_distance(
    reference: Real[np.ndarray, "n d"],
    generated: Real[np.ndarray, "m d"],
    reference_weights: Real[np.ndarray, " n"] | None = None,
    generated_weights: Real[np.ndarray, " m"] | None = None,
    *,
    min_samples: int | None = None,
    max_samples: int | None = None,
    num_sizes: int = 10,
    num_batches: int = 20,
    key: Key | None = None,
) -> FrechetPhysicsDistance:
    """Frechet distance extrapolated to infinite batches (FPD, arXiv:2211.10295).

    Features are scaled by `scaled_features`. For sizes N at regular intervals in 1/N, the Frechet
    distance of batches drawn *with replacement* is averaged, and a line in 1/N, with neither
    intercept nor slope negative, is fitted to the averages. With `jax.random.key(n)` the batches
    are those of jetnet 0.2.5 with the seed n.

    The limit of such batches is the distance of the two samples as they are: what the fit removes
    is the bias of the batches, not the one of the samples, which is of order 1/n and far above
    zero for few events. So quote truth against truth of the same size beside it, as the
    CaloChallenge does. Where the smallest batches have fewer events than there are features, their
    covariances lose rank and the line is a poor model: compare with truth against truth only.

    Args:
      reference: features of true events; sets the scale.
      generated: the same features of generated events.
      reference_weights: event weights, not negative: batches are drawn in proportion to them.
      generated_weights: the same of the generated events.
      min_samples: smallest batch. None: 10_000, as in the CaloChallenge, or one fifth of the
        smaller sample if that is less.
      max_samples: largest batch. None: 50_000, or the smaller sample if that is less.
      num_sizes: batch sizes between the two.
      num_batches: batches of each size.
      key: of the batches.

    Raises:
      ValueError: if the samples do not fit together (see `scaled_features`), or the batches are
        too few or too small for a fit, or weights are unusable.
    """
    reference, generated = scaled_features(reference, generated)
    weights = reference_weights, generated_weights
    events = min(len(reference), len(generated))
    check_whole(num_sizes=num_sizes, num_batches=num_batches)
    given = {"min_samples": min_samples, "max_samples": max_samples}
    check_whole(**{name: num for name, num in given.items() if num is not None})
    low = max(2, min(10_000, events // 5)) if min_samples is None else min_samples
    high = min(50_000, events) if max_samples is None else max_samples
    if not 2 <= low < high or num_sizes < 3:
        raise ValueError(
            f"the fit needs 2 <= min_samples < max_samples, 3 sizes and 1 batch; got batches of "
            f"{low} to {high} events (from samples of {events}), {num_sizes} sizes and "
            f"{num_batches} batches: pass more events or other sizes"
        )
    # Cut to integers, not rounded, as jetnet does, so that the batches are the same.
    sizes = (1 / np.linspace(1 / low, 1 / high, num_sizes)).astype(np.int64)
    rng = numpy_generator(key)

    draws = [
        _with_replacement(rng, len(sample), given)
        for sample, given in zip((reference, generated), weights, strict=True)
    ]

    def distance(size):
        first, second = (
            moments(sample[draw(size)])
            for sample, draw in zip((reference, generated), draws, strict=True)
        )
        return frechet_distance(first, second)

    distances = np.array([np.mean([distance(n) for _ in range(num_batches)]) for n in sizes])
    both = [event_weights(w, len(s)) for w, s in zip(weights, (reference, generated), strict=True)]
    statistical = _statistical_error(rng, (reference, generated), both)
    return FrechetPhysicsDistance(*_intercept(sizes, distances), sizes, distances, statistical)


def polynomial_mmd(
    reference: Real[np.ndarray, "n d"],
    generated: Real[np.ndarray, "m d"],
    reference_weights: Real[np.ndarray, " n"] | None = None,
    generated_weights: Real[np.ndarray, " m"] | None = None,
) -> float:
    """Unbiased squared maximum mean discrepancy of the kernel k(x, y) = (x.y / d + 1)^4.

    The mean of k over pairs of different events of one sample, plus that of the other, minus twice
    the mean over pairs of both (Gretton et al., JMLR 13, 723). It averages to zero for samples of
    one distribution, so it is often negative there. With weights a pair counts as the product of
    its two weights.

    Raises:
      ValueError: if the samples are no finite tables of two or more events with the same columns,
        or weights are unusable, or a single event has all of the weight.
    """
    x, y = _table(reference, "reference"), _table(generated, "generated")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"samples need the same columns, got shapes {x.shape} and {y.shape}")
    v, w = event_weights(reference_weights, len(x)), event_weights(generated_weights, len(y))
    within = 0.0
    for sample, weights in ((x, v), (y, w)):
        kernel = (np.sum(sample**2, axis=1) / sample.shape[1] + 1) ** 4
        weights = weights / weights.max()
        pairs = weights.sum() ** 2 - np.sum(weights**2)
        if not pairs > 0:
            raise ValueError("a single event has all of the weight, and is no pair: drop weights")
        within += (_kernel_sum(sample, sample, weights, weights) - weights**2 @ kernel) / pairs
    return float(within - 2 * _kernel_sum(x, y, v, w) / (v.sum() * w.sum()))


def kernel_physics_distance(
    reference: Real[np.ndarray, "n d"],
    generated: Real[np.ndarray, "m d"],
    reference_weights: Real[np.ndarray, " n"] | None = None,
    generated_weights: Real[np.ndarray, " m"] | None = None,
    *,
    num_batches: int = 10,
    batch_size: int = 10_000,
    key: Key | None = None,
) -> KernelPhysicsDistance:
    """Median over batches of `polynomial_mmd` (KPD, arXiv:2211.10295).

    Features are scaled by `scaled_features`. A batch has `batch_size` events of each sample, or
    half of the sample if it is smaller than two batches.

    Deviation: the events of a batch are all different, while jetnet draws them with replacement.
    Then two events of a batch are the same one now and then, which adds (E k(x, x) - E k(x, x'))/n
    for each sample of n events: for the 362 features of the bundled showers (own Geant4 sample, EM
    physics only, 1-30 GeV) 4e-6 at 100_000 showers each, below the errors of published values, but
    3e-4 at 1600. Batches of different events have no bias at any size. (The median of batches
    still has a small one: their distribution leans to the right, so truth against truth has a
    median slightly below zero.)

    The error is the spread of batches, not of their median. For half batches it is about the
    statistical error of the whole samples where they differ, and too large by up to the square
    root of three where they do not.

    Args:
      reference: features of true events; sets the scale.
      generated: the same features of generated events.
      reference_weights: event weights, not negative.
      generated_weights: the same of the generated events.
      num_batches: pairs of batches, at least 2.
      batch_size: events of a batch, at most half of the sample.
      key: of the batches.

    Raises:
      ValueError: if the samples do not fit together (see `scaled_features`), are smaller than 4
        events, the batches are too few or too small, or weights are unusable.
    """
    check_whole(num_batches=num_batches, batch_size=batch_size)
    samples = scaled_features(reference, generated)
    given = (reference_weights, generated_weights)
    weights = [event_weights(w, len(sample)) for w, sample in zip(given, samples, strict=True)]
    sizes = [min(batch_size, len(sample) // 2) for sample in samples]
    if min(sizes) < 2 or num_batches < 2:
        raise ValueError(
            f"needs 2 batches of 2 events and samples of 4, got {num_batches} batches of "
            f"{batch_size} from samples of {len(reference)} and {len(generated)}"
        )
    rng = numpy_generator(key)

    def distance():
        first, second = (
            rng.choice(len(sample), size=size, replace=False)
            for sample, size in zip(samples, sizes, strict=True)
        )
        return polynomial_mmd(
            samples[0][first], samples[1][second], weights[0][first], weights[1][second]
        )

    batches = np.array([distance() for _ in range(num_batches)])
    # These percentiles, slightly inside one standard deviation, are jetnet's.
    low, median, high = np.percentile(batches, [16.275, 50, 83.725])
    return KernelPhysicsDistance(float(median), float(high - low) / 2, batches)


def scaled_features(
    reference: Real[np.ndarray, "n d"], generated: Real[np.ndarray, "m d"]
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]]:
    """Both samples in float64, every feature divided by its largest |value| in `reference`.

    A feature that is zero in all of `reference` is divided by one, as in jetnet; if it is not zero
    in `generated` it counts in its own units. This scale is the published one; where it hides a
    column, a warning says so.

    Raises:
      ValueError: if the samples are no tables with the same columns, have fewer than two events,
        or are not finite.
    """
    reference, generated = (
        double_array(sample, name)
        for name, sample in (("reference", reference), ("generated", generated))
    )
    for name, sample in (("reference", reference), ("generated", generated)):
        if sample.ndim != 2 or len(sample) < 2 or sample.shape[1] == 0:
            raise ValueError(
                f"{name} needs the shape [events, features] with two or more events, "
                f"got {sample.shape}"
            )
        bad = np.flatnonzero(~np.isfinite(sample).all(axis=0))
        if len(bad):
            raise ValueError(
                f"{name} is not finite in {len(bad)} of {sample.shape[1]} columns, the first is "
                f"column {bad[0]}: repair the feature or drop the events"
            )
    if reference.shape[1] != generated.shape[1]:
        raise ValueError(
            f"reference has {reference.shape[1]} columns and generated {generated.shape[1]}: "
            "compute the same features for both"
        )
    for note in scale_notes(reference):
        warnings.warn(note, SampleWarning, stacklevel=3)
    largest = np.abs(reference).max(axis=0, keepdims=True)
    largest[largest == 0] = 1
    return reference / largest, generated / largest


def scale_notes(reference: Float[np.ndarray, "n d"]) -> tuple[str, ...]:
    """Columns that the published scale of `scaled_features` hides, in sentences.

    One value may set the scale of all others: the largest is ten times as large as the next, or as
    what one event in a thousand exceeds. Or the column hardly changes at all beside its offset.
    """
    size, notes = np.abs(reference), []
    next_one = -max(2, len(size) // 1000)
    ordinary = np.partition(size, next_one, axis=0)[next_one]
    largest, width = size.max(axis=0), np.ptp(reference, axis=0)
    alone = (ordinary > 0) & (largest > 10 * ordinary)
    if alone.any():
        column = int(np.argmax(alone))
        notes.append(
            f"{alone.sum()} of {len(alone)} columns are scaled by a value that hardly any other "
            f"comes near, such as column {column}: {largest[column]:.3g} beside "
            f"{ordinary[column]:.3g}. Distances do not see the rest of them: repair the feature or "
            "drop the events."
        )
    narrow = (width > 0) & (width < 1e-4 * largest)
    if narrow.any():
        column = int(np.argmax(narrow))
        notes.append(
            f"{narrow.sum()} of {len(narrow)} columns hardly change beside their size, such as "
            f"column {column}: by {width[column]:.3g} at {largest[column]:.3g}. Distances scaled "
            "by the size do not see that: subtract the offset."
        )
    return tuple(notes)


def _table(sample, name):
    sample = finite_array(sample, name, ndim=2)
    if len(sample) < 2:
        raise ValueError(f"{name} needs two or more events, got the shape {sample.shape}")
    return sample


def _checked(mean, covariance):
    mean, covariance = double_array(mean, "mean"), double_array(covariance, "covariance")
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(
            f"needs a mean [d] and a covariance [d, d], got {mean.shape} and {covariance.shape}"
        )
    if not np.allclose(covariance, covariance.T, rtol=0, atol=1e-8 * np.abs(covariance).max()):
        raise ValueError("a covariance is not symmetric (or not finite): use that of a sample")
    return mean, covariance


def _root(covariance):
    """R with R R^T = covariance: its root up to a rotation, which changes no singular value."""
    eigenvalues, vectors = np.linalg.eigh(covariance)
    scale = len(covariance) * np.abs(eigenvalues).max()
    # Covariances that were computed in float32 pass, too.
    if eigenvalues[0] < -scale * np.finfo(np.float32).eps:
        raise ValueError(
            f"a covariance has the eigenvalue {eigenvalues[0]:.3g}, beside a largest one of "
            f"{eigenvalues[-1]:.3g}: covariances have no negative ones"
        )
    # What rounding leaves of a vanishing eigenvalue would count with its root, a million times it.
    rounding = scale * np.finfo(np.float64).eps
    return vectors * np.sqrt(np.where(eigenvalues > rounding, eigenvalues, 0))


def _intercept(sizes, distances):
    """Intercept and its error of the line in 1/N, both coefficients bounded from below by zero."""
    design = np.stack([np.ones(len(sizes)), sizes[0] / sizes], axis=1)
    (intercept, _), residual = nnls(design, distances)
    variance = residual**2 / (len(sizes) - 2) * np.linalg.inv(design.T @ design)[0, 0]
    return float(intercept), float(np.sqrt(variance))


def _statistical_error(rng, samples, weights):
    """Error of the distance of two samples, from that of halves without a common event."""

    def distance(rows):
        parts = [(s[r], w[r]) for s, w, r in zip(samples, weights, rows, strict=True)]
        if any(w.sum() == 0 for _, w in parts):
            raise ValueError("half of a sample has no weight: pass more events that have weights")
        return frechet_distance(*(_weighted_moments(*part) for part in parts))

    whole = distance([slice(None)] * 2)
    halves = []
    for _ in range(_SPLITS):
        drawn = [np.array_split(rng.permutation(len(s)), 2) for s in samples]
        halves.append([distance(rows) for rows in zip(*drawn, strict=True)])
    halves = np.array(halves)
    # Half of the events have twice the variance, and four times where all of it is the floor, which
    # doubles in halves.
    floor = np.clip((halves.mean() - whole) / whole, 0, 1) if whole > 0 else 1.0
    variance = np.mean(np.diff(halves, axis=1) ** 2) / 4 * (1 - floor / 2)
    return float(np.sqrt(variance))


def _weighted_moments(sample, weights):
    share = weights / weights.sum()
    mean = share @ sample
    centred = (sample - mean) * np.sqrt(share)[:, None]
    return Moments(mean, centred.T @ centred)


def _with_replacement(rng, num, weights):
    """(size) -> indices of `num` events, as often as their weights say."""
    if weights is None:
        return lambda size: rng.integers(num, size=size)
    weights = event_weights(weights, num)
    return lambda size: rng.choice(num, size=size, p=weights / weights.sum())


def _kernel_sum(x, y, x_weights, y_weights):
    """Weighted sum of the kernel over all pairs, in blocks of rows to save memory."""
    rows = max(1, _CHUNK // len(y))
    total = 0.0
    for first in range(0, len(x), rows):
        kernel = x[first : first + rows] @ y.T
        kernel /= x.shape[1]
        kernel += 1
        # Squared twice: numpy's general power is much slower.
        kernel *= kernel
        kernel *= kernel
        total += x_weights[first : first + rows] @ kernel @ y_weights
    return total

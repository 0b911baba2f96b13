"""Does a predicted spread describe the errors that are made: pulls, coverage, calibration curve.

The spread is that of members: an ensemble's, or of several draws of a Bayesian network's weights.
Members are calibrated if they scatter around their centre as the truth does, so that the truth
could be one of them. (Independent measurements of the truth, whose mean is better than each, are
not members in this sense.) A few members know their own spread badly, and even a perfect ensemble
then covers less than it seems to; everything here is measured against what a perfect ensemble of
the same size gives, exact for normal members.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Real
from scipy import stats

from jgen.arrays import double_array
from jgen.checks import check_whole

Interval = Literal["student", "normal", "quantile"]


class Pulls(NamedTuple):
    """Deviations from the truth in units of their predicted error.

    Attributes:
      values: (mean - truth) / error, of the truth's shape.
      degrees_of_freedom: of the Student t distribution that calibrated normal members give.
    """

    values: Float[np.ndarray, " *shape"]
    degrees_of_freedom: Float[np.ndarray, " *shape"]

    @property
    def width(self) -> float:
        """Root mean square of the pulls."""
        return float(np.sqrt(np.mean(self.values**2)))

    @property
    def expected_width(self) -> float:
        """The same for calibrated members, sqrt(nu / (nu - 2)); infinite for three or fewer."""
        nu = self.degrees_of_freedom
        variance = np.full(nu.shape, np.inf)
        np.divide(1.0, 1 - 2 / nu, out=variance, where=nu > 2)
        return float(np.sqrt(np.mean(variance)))


class Coverage(NamedTuple):
    """How often intervals hold the truth; one number a level.

    Attributes:
      levels: what the intervals claim.
      observed: fraction of the truths inside.
      expected: the same for calibrated members; below the level where the interval forgets that
        there are few of them.
      error: standard deviation of the observed fraction for calibrated members and *independent*
        truths. Bins of a histogram share their members, so that their errors are larger.
    """

    levels: Float[np.ndarray, " num_levels"]
    observed: Float[np.ndarray, " num_levels"]
    expected: Float[np.ndarray, " num_levels"]
    error: Float[np.ndarray, " num_levels"]


class CalibrationCurve(NamedTuple):
    """Predicted and observed size of the deviations, in bins of the predicted one.

    Attributes:
      predicted: root mean square of the predicted errors in a bin, units of the truth.
      observed: root mean square of mean minus truth; equal to `predicted` for calibrated members.
      error: standard error of `observed`, for independent truths.
    """

    predicted: Float[np.ndarray, " num_bins"]
    observed: Float[np.ndarray, " num_bins"]
    error: Float[np.ndarray, " num_bins"]


def pulls(
    truth: Real[np.ndarray, " *shape"],
    predictions: Real[np.ndarray, " members *shape"],
    truth_error: Real[np.ndarray, " *shape"] | float = 0.0,
) -> Pulls:
    """Pulls t = (mean - truth) / sqrt((1 + 1/M) spread^2 + truth_error^2) of M members.

    `spread` is the members' standard deviation with M - 1 in the denominator; the 1/M is the error
    of their mean. For calibrated normal members and an exact truth, t follows a Student t
    distribution with M - 1 degrees of freedom, so five perfect members give pulls of width
    sqrt(2), not 1. With a truth error the number of degrees of freedom is that of Welch and
    Satterthwaite, an approximation.

    Args:
      truth: the true values.
      predictions: one value a member and quantity, for example contents of histogram bins.
      truth_error: standard deviations of normal errors of the truth, for example statistical ones.

    Raises:
      ValueError: for fewer than two members, shapes that differ, values that are not finite, a
        negative error, or a quantity without any error.
    """
    truth, predictions, truth_error = _checked(truth, predictions, truth_error)
    num = len(predictions)
    variance = (1 + 1 / num) * predictions.var(axis=0, ddof=1)
    total = variance + truth_error**2
    if bad := int((total == 0).sum()):
        raise ValueError(
            f"{bad} of {total.size} quantities have neither spread nor truth error, so no pull: "
            "drop them (empty bins?)"
        )
    # Where all of the error is the truth's, the pull is normal: infinitely many degrees.
    share = variance / total
    degrees = np.full(total.shape, np.inf)
    np.divide(num - 1.0, share**2, out=degrees, where=share > 1e-8)
    return Pulls((predictions.mean(axis=0) - truth) / np.sqrt(total), degrees)


def coverage(
    truth: Real[np.ndarray, " *shape"],
    predictions: Real[np.ndarray, " members *shape"],
    levels: Real[np.ndarray, " num_levels"],
    *,
    interval: Interval = "student",
    truth_error: Real[np.ndarray, " *shape"] | float = 0.0,
) -> Coverage:
    """Fraction of truths inside central intervals of the members, for every level.

    Args:
      truth: the true values.
      predictions: one value a member and quantity.
      levels: probabilities between 0 and 1 that the intervals claim to hold.
      interval: "student" is mean +- c sqrt((1 + 1/M) spread^2 + truth_error^2) with c of Student's
        t, which holds its level for calibrated normal members. "normal" is the habitual
        mean +- z sqrt(spread^2 + truth_error^2), which covers less, see `Coverage.expected`: with
        five perfect members and an exact truth 58.7% at one standard deviation, not 68.3%.
        "quantile" asks where the truth ranks among the members and assumes no shape: the M + 1
        ranks are equally probable, each stands for 1 / (M + 1) of probability and counts with the
        part of it inside the interval, ties share their ranks. It holds its level for
        calibrated members of any distribution, but cannot see how far outside all of them a
        truth lies: at levels above (M - 1) / (M + 1) it hardly ever fails.
      truth_error: standard deviations of normal errors of the truth.

    Raises:
      ValueError: as `pulls` does, for levels outside (0, 1), an unknown interval, or a truth error
        with "quantile".
    """
    levels = double_array(levels, "levels")
    if levels.ndim != 1 or not levels.size or not np.all((levels > 0) & (levels < 1)):
        raise ValueError(f"levels are a list of numbers between 0 and 1, got {levels}")
    if interval == "quantile":
        return _rank_coverage(*_checked(truth, predictions, truth_error), levels)
    if interval not in ("student", "normal"):
        raise ValueError(f"unknown interval {interval!r}; one of student, normal, quantile")
    of_mean = pulls(truth, predictions, truth_error)
    distance, degrees = np.abs(of_mean.values).ravel(), of_mean.degrees_of_freedom.ravel()
    upper = (1 + levels[:, None]) / 2
    if interval == "student":
        bounds = stats.t.ppf(upper, degrees[None])
    else:
        # In units of the pull, whose error has the factor 1 + 1/M that this interval leaves out.
        truth, predictions, truth_error = _checked(truth, predictions, truth_error)
        variance = predictions.var(axis=0, ddof=1)
        ratio = (variance + truth_error**2) / (
            (1 + 1 / len(predictions)) * variance + truth_error**2
        )
        bounds = stats.norm.ppf(upper) * np.sqrt(ratio).ravel()[None]
    probability = 2 * stats.t.cdf(bounds, degrees[None]) - 1
    error = np.sqrt(np.mean(probability * (1 - probability), axis=1) / distance.size)
    observed = np.mean(distance[None] <= bounds, axis=1)
    return Coverage(levels, observed, probability.mean(axis=1), error)


def calibration_curve(
    truth: Real[np.ndarray, " *shape"],
    predictions: Real[np.ndarray, " members *shape"],
    *,
    num_bins: int = 10,
    truth_error: Real[np.ndarray, " *shape"] | float = 0.0,
) -> CalibrationCurve:
    """Are the deviations large where the spread is large? Coverage alone does not tell.

    One half of the members sorts the quantities into bins of equally many by its spread; the
    other half, of size H, predicts the mean square deviation of its own mean,
    (1 + 1/H) spread^2 + truth_error^2. With the same members for both, bins of large spread would
    hold the upward fluctuations of the spread, and a perfect small ensemble would look
    overcautious there. This way both columns agree on average for calibrated normal members of
    any number.

    Args:
      truth: the true values.
      predictions: one value a member and quantity; at least four members.
      num_bins: number of bins; each needs two quantities or more.
      truth_error: standard deviations of normal errors of the truth.

    Raises:
      ValueError: as `pulls` does, for fewer than four members, or too many bins.
    """
    truth, predictions, truth_error = _checked(truth, predictions, truth_error)
    if len(predictions) < 4:
        raise ValueError(f"two halves of two or more members are needed, got {len(predictions)}")
    check_whole(num_bins=num_bins)
    if num_bins > truth.size // 2:
        raise ValueError(
            f"num_bins must be from 1 to {truth.size // 2}, two of the {truth.size} quantities in "
            f"each bin, got {num_bins}"
        )
    sorting, judging = np.split(predictions, [len(predictions) // 2])
    order = np.argsort(sorting.var(axis=0, ddof=1), axis=None, kind="stable")
    predicted = (1 + 1 / len(judging)) * judging.var(axis=0, ddof=1) + truth_error**2
    squares = (judging.mean(axis=0) - truth) ** 2
    bins = np.array_split(order, num_bins)
    mean = np.array([squares.ravel()[rows].mean() for rows in bins])
    spread = np.array([squares.ravel()[rows].std(ddof=1) / len(rows) ** 0.5 for rows in bins])
    root = np.sqrt(mean)
    # Propagated from the mean square to its root.
    error = np.divide(spread, 2 * root, out=np.zeros_like(root), where=root > 0)
    return CalibrationCurve(np.sqrt([predicted.ravel()[rows].mean() for rows in bins]), root, error)


def _rank_coverage(truth, predictions, truth_error, levels):
    if np.any(truth_error > 0):
        raise ValueError(
            'interval="quantile" takes no truth_error: add such errors to the members, or use '
            '"student"'
        )
    slots = len(predictions) + 1
    below = np.sum(predictions < truth[None], axis=0).ravel()
    not_above = np.sum(predictions <= truth[None], axis=0).ravel()
    inside = _overlap(below / slots, (not_above + 1) / slots, levels)
    # For calibrated members every rank is equally probable.
    ranks = np.arange(slots)
    each = _overlap(ranks / slots, (ranks + 1) / slots, levels)
    error = np.sqrt(np.maximum(np.mean(each**2, axis=1) - levels**2, 0) / truth.size)
    return Coverage(levels, inside.mean(axis=1), levels, error)


def _overlap(low, high, levels):
    """Parts [num_levels, n] of the intervals [low, high] inside the central ones of the levels."""
    levels, low, high = levels[:, None], low[None], high[None]
    inside = np.minimum(high, (1 + levels) / 2) - np.maximum(low, (1 - levels) / 2)
    return np.maximum(inside, 0) / (high - low)


def _checked(truth, predictions, truth_error):
    predictions, truth = double_array(predictions, "predictions"), double_array(truth, "truth")
    if predictions.ndim < 1 or predictions.shape[1:] != truth.shape:
        raise ValueError(
            f"predictions need the shape [members, *truth], got {predictions.shape} for a truth of "
            f"shape {truth.shape}"
        )
    if len(predictions) < 2 or not truth.size:
        raise ValueError(
            "a spread needs two or more members and one or more quantities, got "
            f"{len(predictions)} and {truth.size}"
        )
    if np.shape(truth_error) not in ((), truth.shape):
        raise ValueError(
            f"truth_error needs the truth's shape {truth.shape} or one number, got "
            f"{np.shape(truth_error)}"
        )
    truth_error = np.broadcast_to(double_array(truth_error, "truth_error"), truth.shape)
    arrays = {"predictions": predictions, "truth": truth, "truth_error": truth_error}
    for name, array in arrays.items():
        if bad := int((~np.isfinite(array)).sum()):
            raise ValueError(f"{bad} of {array.size} {name} are not finite: drop those quantities")
    if np.any(truth_error < 0):
        raise ValueError("truth_error is a standard deviation and cannot be negative")
    return truth, predictions, truth_error

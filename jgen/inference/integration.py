"""What weights of importance sampling say: integrals with errors, and events of weight one.

Weights come in one array a channel, as `jgen.inference.channel_weights` makes them, or as one
array. Errors are first-order and come from the points at hand: with heavy tails they are too small,
and so is the integral, until a point of the tail is drawn. `largest_share` near 1 / n and an
`effective_sample_size` of many points are what an error can be believed by.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Real

from jgen.arrays import double_array
from jgen.checks import check_fraction, check_positive, check_whole
from jgen.estimate import Estimate
from jgen.inference.importance import Points
from jgen.random import numpy_generator
from jgen.typing import Key, PyTree

Weights = Real[np.ndarray, " n"] | Sequence[Real[np.ndarray, " n"]]
"""One array, or one a channel."""


class Unweighting(NamedTuple):
    """What is lost by events of weight one.

    Attributes:
      efficiency: share of points that are kept, with probability min(1, w / limit).
      limit: the weight from which on all are kept.
      overweight: share of the integral that is above the limit, which kept events of weight one
        would miss.
    """

    efficiency: float
    limit: float
    overweight: float


class Unweighted(NamedTuple):
    """Events that were kept.

    Attributes:
      x: arrays with leading axis [kept].
      weight: one, or w / limit of those above the limit; negative where the integrand is.
    """

    x: PyTree
    weight: Float[np.ndarray, " kept"]


def channel_weights(points: Sequence[Points]) -> tuple[Float[np.ndarray, " n"], ...]:
    """Weights of each channel's points, whose means add up to the integral.

    Raises:
      ValueError: for values of the integrand, or densities, that are not finite.
    """
    weights = []
    for channel, p in enumerate(points):
        value = double_array(p.value, "value")
        log_factor = double_array(p.log_share, "log_share") - double_array(p.log_q, "log_q")
        # A share or a density may be anything where the integrand is zero.
        w = np.where(value == 0, 0, value * np.exp(np.where(value == 0, 0, log_factor)))
        if bad := np.flatnonzero(~np.isfinite(w)).tolist():
            event = jax.tree.map(lambda a: np.asarray(a)[bad[0]].tolist(), p.x)  # noqa: B023
            raise ValueError(
                f"{len(bad)} weights of channel {channel} are not finite, the first at x = {event}:"
                " look at the integrand and the mapping there"
            )
        weights.append(w)
    return tuple(weights)


def integral(weights: Weights) -> Estimate:
    """Sum over channels of the mean weight, with its standard error.

    Raises:
      ValueError: for weights that are not finite, or fewer than two of a channel.
    """
    means, variances, nums = _moments(weights)
    return Estimate(float(means.sum()), float(np.sum(variances / nums) ** 0.5))


def relative_deviation(weights: Weights) -> Estimate:
    """Standard deviation a point over the integral: sqrt(n) times the relative error of n points.

    Raises:
      ValueError: as `integral`, or for an integral of zero.
    """
    channels = _checked(weights)
    means, variances, nums = _moments(channels)
    total, value = nums.sum(), means.sum()
    if value == 0:
        raise ValueError("the integral is zero, to which no deviation is relative")
    spread = total * np.sum(variances / nums)
    if spread == 0:
        return Estimate(0.0, 0.0)
    error = 0.0
    for w, mean, variance, n in zip(channels, means, variances, nums, strict=True):
        influence = 0.5 * total / n * ((w - mean) ** 2 - variance) / spread - (w - mean) / value
        error += np.var(influence) / n
    relative = spread**0.5 / abs(value)
    return Estimate(float(relative), float(relative * error**0.5))


def best_numbers(weights: Weights, num: int) -> list[int]:
    """How to deal out `num` points to the channels: in proportion to their standard deviations.

    Raises:
      ValueError: as `integral`.
    """
    check_whole(num=num)
    _, variances, _ = _moments(weights)
    total = np.sum(variances**0.5)
    share = variances**0.5 / total if total > 0 else np.full(len(variances), 1 / len(variances))
    return [max(2, round(num * s)) for s in share]


def combined_weights(weights: Weights) -> Float[np.ndarray, " total"]:
    """Weights of all points, one channel after another, whose mean is the integral.

    Raises:
      ValueError: as `integral`.
    """
    channels = _checked(weights)
    total = sum(map(len, channels))
    return np.concatenate([w * (total / len(w)) for w in channels])


def largest_share(weights: Weights) -> float:
    """Share of the integral that a single point has; of n equal ones 1 / n.

    Raises:
      ValueError: as `integral`, or if all are zero.
    """
    w = _absolute(weights)
    return float(w.max() / w.sum())


def bootstrap_maximum(weights: Weights, num: int) -> float:
    """Median of the largest weight of `num` points, over bootstrap replicas (2001.10028).

    In the limit of infinitely many replicas, where it is a quantile: the weight that a share of
    2^(-1 / num) is not above. Of replicas of as many points as there are it is the largest weight.

    Raises:
      ValueError: as `integral`, or for no number of points.
    """
    check_whole(num=num)
    w = np.sort(_absolute(weights))
    return float(w[min(int(np.ceil(len(w) * 2 ** (-1 / num))), len(w)) - 1])


def overweight_limit(weights: Weights, share: float = 1e-3) -> float:
    """Smallest limit above which there is no more than this share of the integral (2001.10028).

    Raises:
      ValueError: as `integral`, or for a share that is not in [0, 1).
    """
    check_fraction(share=share)
    w = np.sort(_absolute(weights))[::-1]
    # Above the limit w_k: the sum of the k larger ones less k times the limit.
    excess = np.cumsum(w) - w * np.arange(1, len(w) + 1)
    k = int(np.searchsorted(excess, share * w.sum(), side="right")) - 1
    # Between w_k and w_k+1 the excess is linear in the limit.
    return float((np.sum(w[: k + 1]) - share * w.sum()) / (k + 1))


def unweighting(weights: Weights, limit: float) -> Unweighting:
    """Efficiency of unweighting by a limit, see `bootstrap_maximum` and `overweight_limit`.

    Raises:
      ValueError: as `integral`, or for a limit that is not positive.
    """
    check_positive(limit=limit)
    w = _absolute(weights)
    over = np.maximum(w - limit, 0).sum() / w.sum()
    return Unweighting(float(np.minimum(1, w / limit).mean()), float(limit), float(over))


def unweighted(points: Sequence[Points], key: Key, limit: float) -> Unweighted:
    """Keep points with probability min(1, |w| / limit).

    Args:
      points: of all channels.
      key: typed PRNG key.
      limit: of combined weights.

    Raises:
      ValueError: as `channel_weights`, or for a limit that is not positive.
    """
    check_positive(limit=limit)
    w = combined_weights(channel_weights(points)) / limit
    kept = numpy_generator(key).uniform(size=len(w)) < np.abs(w)
    x = jax.tree.map(lambda *a: np.concatenate(a)[kept], *[p.x for p in points])
    return Unweighted(x, np.sign(w[kept]) * np.maximum(np.abs(w[kept]), 1))


def _checked(weights) -> list[np.ndarray]:
    many = isinstance(weights, tuple | list) and len(weights) > 0 and np.ndim(weights[0]) == 1
    channels = [double_array(w, "weights") for w in (weights if many else [weights])]
    for w in channels:
        if w.ndim != 1 or len(w) < 2:
            raise ValueError(f"two or more weights [n] of each channel are needed, got {w.shape}")
        if not np.isfinite(w).all():
            raise ValueError(f"{int(np.sum(~np.isfinite(w)))} weights are not finite")
    return channels


def _moments(weights):
    channels = _checked(weights)
    mean, variance = (np.array([f(w) for w in channels]) for f in (np.mean, np.var))
    nums = np.array([len(w) for w in channels])
    return mean, variance * nums / (nums - 1), nums


def _absolute(weights):
    w = np.abs(combined_weights(weights))
    if not w.any():
        raise ValueError("all weights are zero: no point is where the integrand is not")
    return w

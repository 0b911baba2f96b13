"""Distances of one-dimensional samples, column by column, and Wasserstein's along directions."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Real
from scipy.stats import rankdata

from jgen.arrays import double_array, finite_array
from jgen.checks import check_sizes, check_whole
from jgen.estimate import Estimate
from jgen.random import numpy_generator
from jgen.typing import Key

# Bootstrap weights held at once; 2^24 float64 numbers are 128 MiB.
_CHUNK = 2**24


class Wasserstein(NamedTuple):
    """Wasserstein-1 distance of two samples; one number a column, scalars for samples [n].

    Attributes:
      value: the distance, in the units of the column.
      error: how far it scatters from one pair of samples to another, see `floor_error`; NaN
        without replicas.
      replicas: distances of bootstrapped samples [num_bootstrap, *columns]. A replica draws the
        same events for every column, so errors of means over columns follow from it.
      null: what they would be of samples of one distribution: integral of |D* - D| for the
        differences D* and D of the distribution functions of resampled and given samples.
    """

    value: Float[np.ndarray, " *columns"]
    error: Float[np.ndarray, " *columns"]
    replicas: Float[np.ndarray, " num_bootstrap *columns"]
    null: Float[np.ndarray, " num_bootstrap *columns"]

    @property
    def mean(self) -> "Wasserstein":
        """Of the mean over columns."""
        value, (replicas, null) = (
            np.mean(self.value),
            (a.reshape(len(a), self.value.size).mean(axis=1) for a in (self.replicas, self.null)),
        )
        return Wasserstein(value, _error(value, replicas, null), replicas, null)

    @property
    def estimate(self) -> Estimate:
        """Mean over the columns; its error comes from the means of the replicas."""
        mean = self.mean
        return Estimate(float(mean.value), float(mean.error))

    def __str__(self) -> str:
        """As an `Estimate`."""
        return str(self.estimate)


def wasserstein(
    reference: Real[np.ndarray, " n *columns"],
    generated: Real[np.ndarray, " m *columns"],
    reference_weights: Real[np.ndarray, " n"] | None = None,
    generated_weights: Real[np.ndarray, " m"] | None = None,
    *,
    num_bootstrap: int = 100,
    key: Key | None = None,
) -> Wasserstein:
    """Exact W1 = integral |F(z) - G(z)| dz of the weighted empirical distributions.

    Events are resampled with replacement, both samples independently. The error is a spread, not
    the bias: W1 of two samples of one distribution is positive (about 1.8 sigma / sqrt(n) for
    normal samples of n events each), and that of replicas is larger still.

    Args:
      reference: one sample, [n] or [n, k]; the columns are compared one by one.
      generated: the other sample, [m] or [m, k].
      reference_weights: event weights, not negative, of any normalisation.
      generated_weights: the same of the other sample.
      num_bootstrap: replicas for the error; 0 for none.
      key: of the bootstrap.

    Raises:
      ValueError: if the columns differ, a sample is empty or not finite, or weights are unusable.
    """
    check_whole(0, num_bootstrap=num_bootstrap)
    x, y = double_array(reference, "reference"), double_array(generated, "generated")
    if x.ndim not in (1, 2) or x.shape[1:] != y.shape[1:] or 0 in (*x.shape, *y.shape):
        raise ValueError(
            f"samples need the shapes [n] and [m] or [n, k] and [m, k], got {x.shape} and {y.shape}"
        )
    for name, sample in (("reference", x), ("generated", y)):
        if bad := int((~np.isfinite(sample)).sum()):
            raise ValueError(f"{bad} entries of {name} are not finite: drop the events")
    columns = x.shape[1:]
    x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
    x_weights, y_weights = (
        event_weights(w, len(sample))
        for w, sample in ((reference_weights, x), (generated_weights, y))
    )

    values = np.concatenate([x, y])
    order = np.argsort(values, axis=0, kind="stable")
    gaps = np.diff(np.take_along_axis(values, order, axis=0), axis=0)
    # F - G just above each value is the running sum of the weights of x less those of y.
    signed = _signed(x_weights[None], y_weights[None])
    value = _distance(signed, order, gaps)[0]

    rng = numpy_generator(key)
    size = max(1, _CHUNK // len(values))
    replicas = [np.empty((2, 0, len(value)))]
    for first in range(0, num_bootstrap, size):
        num = min(size, num_bootstrap - first)
        replica = _signed(_resample(rng, x_weights, num), _resample(rng, y_weights, num))
        both = _distance(replica, order, gaps), _distance(replica - signed, order, gaps)
        replicas.append(np.stack(both))
    replicas, null = np.concatenate(replicas, axis=1).reshape(2, num_bootstrap, *columns)
    value = value.reshape(columns)
    return Wasserstein(value, np.asarray(_error(value, replicas, null)), replicas, null)


def sliced_wasserstein(
    reference: Real[np.ndarray, "n d"],
    generated: Real[np.ndarray, "m d"],
    reference_weights: Real[np.ndarray, " n"] | None = None,
    generated_weights: Real[np.ndarray, " m"] | None = None,
    *,
    num_directions: int = 64,
    num_bootstrap: int = 100,
    key: Key | None = None,
) -> Wasserstein:
    """Sliced Wasserstein-1 distance: the mean of W1 over projections on directions of length one.

    Directions are the only one of a line, equal angles of half a turn in a plane, and beyond drawn
    from the uniform distribution on the sphere (Bonneel et al., J. Math. Imaging Vis. 51, 22).
    Columns should have a common scale.

    Args:
      reference: one sample.
      generated: the other sample.
      reference_weights: event weights, not negative, of any normalisation.
      generated_weights: the same of the other sample.
      num_directions: in more than one dimension.
      num_bootstrap: replicas for the error; 0 for none.
      key: of the directions and the bootstrap.

    Raises:
      ValueError: for samples that are not [n, d] and [m, d], no direction, or as `wasserstein`.
    """
    reference, generated = (
        double_array(x, name) for x, name in ((reference, "reference"), (generated, "generated"))
    )
    shapes = reference.shape, generated.shape
    if {len(shape) for shape in shapes} != {2} or shapes[0][1] != shapes[1][1]:
        raise ValueError(
            f"samples need the shapes [n, d] and [m, d], got {shapes[0]} and {shapes[1]}"
        )
    check_sizes(num_directions=num_directions)
    u = _directions(shapes[0][1], num_directions, key)
    along = wasserstein(
        reference @ u,
        generated @ u,
        reference_weights,
        generated_weights,
        num_bootstrap=num_bootstrap,
        key=key,
    )
    return along.mean


def floor_error(
    value: Float[np.ndarray, "*columns"],
    near: Float[np.ndarray, "*columns"],
    far: Float[np.ndarray, "*columns"],
    floor: Float[np.ndarray, "*columns"],
) -> Float[np.ndarray, "*columns"]:
    """Standard error of a number that is positive for samples of one distribution, too.

    There its noise has not the size that replicas of the samples show: what they have by chance
    seems to be true, and they scatter about it, by 1.3 times as much as W1 does. So the spread of
    truth counts up to one standard deviation above the mean of truth, that of replicas from two on,
    and in between variances are interpolated. The law of truth is skewed, so that the right error
    covers 65 to 78 % of it.

    Args:
      value: the number.
      near: its standard deviation for samples of one distribution.
      far: that in replicas.
      floor: its mean for samples of one distribution.
    """
    above = np.where(near > 0, (value - floor) / np.where(near > 0, near, 1), np.inf)
    share = np.clip(above - 1, 0, 1)
    between = np.sqrt(near**2 + share * np.maximum(far**2 - near**2, 0))
    return np.where(share < 1, between, far)


def _error(value, replicas, null):
    if not len(replicas):
        return np.full(np.shape(value), np.nan)
    return floor_error(value, null.std(axis=0), replicas.std(axis=0), null.mean(axis=0))


def quantile_divergence(
    reference: Real[np.ndarray, " n"], generated: Real[np.ndarray, " m"], num_bins: int = 100
) -> float:
    """Kullback-Leibler divergence KL(generated || reference) in nats, of histograms (2312.00123).

    Bins have equal counts of the reference; the first and the last have no end. Without ties the
    mean of two samples of one distribution is about (num_bins - 1) (1 / n + 1 / m) / 2.

    Deviation: bins that are empty in the reference are joined to others, not left out, where
    events would count for nothing. So the divergence is never negative.

    Args:
      reference: true values.
      generated: others.
      num_bins: of which few values, or those that come several times, may leave fewer.

    Raises:
      ValueError: for samples that are empty or not finite, or a reference of one value in most
        events.
    """
    check_whole(2, num_bins=num_bins)
    x, y = finite_array(reference, "reference", 1), finite_array(generated, "generated", 1)
    edges = np.unique(np.quantile(x, np.linspace(0, 1, num_bins + 1)[1:-1]))
    bins = lambda v: np.searchsorted(edges, v, side="right")
    empty = np.flatnonzero(np.bincount(bins(x), minlength=len(edges) + 1) == 0)
    # An empty bin loses its lower edge; the first one, which has none, its upper edge.
    edges = np.delete(edges, np.maximum(empty - 1, 0))
    if not len(edges):
        raise ValueError(
            f"{num_bins} bins of equal counts are one, since most values of reference are the same "
            f"({np.median(x):.6g}): leave those out, or compare fractions"
        )
    p, q = (np.bincount(bins(v), minlength=len(edges) + 1) / len(v) for v in (x, y))
    filled = q > 0
    return max(0.0, float(np.sum(q[filled] * np.log(q[filled] / p[filled]))))


def _directions(dim, num, key):
    """Unit vectors [dim, num], of a line the only one."""
    if dim == 1:
        return np.ones((1, 1))
    if dim == 2:
        angles = np.pi * np.arange(num) / num
        return np.stack([np.cos(angles), np.sin(angles)])
    u = numpy_generator(key).normal(size=(dim, num))
    return u / np.linalg.norm(u, axis=0)


def event_weights(weights: Real[np.ndarray, " n"] | None, num: int) -> Float[np.ndarray, " n"]:
    """Weights of `num` events in float64, ones for None.

    Raises:
      ValueError: if there are not as many, or they are negative, not finite or all zero.
    """
    weights = np.ones(num) if weights is None else double_array(weights, "weights")
    if weights.shape != (num,):
        raise ValueError(f"{num} events need weights [{num}], got shape {weights.shape}")
    if not np.all(weights >= 0) or not 0 < weights.sum() < np.inf:
        raise ValueError("weights must be finite, not negative, and not all zero")
    return weights


def _signed(x_weights, y_weights):
    """Weights [replicas, n + m], normalised to +1 over x and -1 over y."""
    x_weights = x_weights / x_weights.sum(axis=1, keepdims=True)
    return np.concatenate([x_weights, -y_weights / y_weights.sum(axis=1, keepdims=True)], axis=1)


def _distance(signed, order, gaps):
    """Distances [replicas, k]; the sorted values are shared by all replicas."""
    out = np.empty((len(signed), order.shape[1]))
    for k in range(order.shape[1]):
        out[:, k] = np.abs(np.cumsum(signed[:, order[:-1, k]], axis=1)) @ gaps[:, k]
    return out


def _resample(rng, weights, num):
    """Weights [num, n] times how often each event is drawn."""
    n = len(weights)
    drawn = rng.integers(n, size=(num, n)) + n * np.arange(num)[:, None]
    return np.bincount(drawn.ravel(), minlength=num * n).reshape(num, n) * weights


def rank_correlation_distance(
    reference: Real[np.ndarray, "n k"],
    generated: Real[np.ndarray, "m k"],
    *,
    num_bootstrap: int = 100,
) -> Estimate:
    """Frobenius distance of the matrices of Spearman's rank correlations of k columns.

    Unlike those of the values they do not hang on a few events of large values. The error is the
    spread of resampled events; the distance of two samples of one distribution is positive. A
    column that does not vary is correlated with nothing.

    Args:
      reference: one sample.
      generated: the other sample.
      num_bootstrap: resamplings behind the error; 0 for none.

    Raises:
      ValueError: for samples that are not [n, k] and [m, k] of two events or more and two columns
        or more, or not finite.
    """
    check_whole(0, num_bootstrap=num_bootstrap)
    samples = [
        finite_array(x, name, ndim=2)
        for x, name in ((reference, "reference"), (generated, "generated"))
    ]
    shapes = [x.shape for x in samples]
    if shapes[0][1] != shapes[1][1] or min(min(shape) for shape in shapes) < 2:
        raise ValueError(
            "samples need the shapes [n, k] and [m, k] of two events or more and two columns or "
            f"more, got {shapes}"
        )
    distance = lambda a, b: float(np.linalg.norm(_rank_correlation(a) - _rank_correlation(b)))
    rng = np.random.default_rng(0)
    again = lambda x: x[rng.integers(len(x), size=len(x))]
    replicas = [distance(*map(again, samples)) for _ in range(num_bootstrap)]
    error = float(np.std(replicas)) if replicas else float("nan")
    return Estimate(distance(*samples), error)


def _rank_correlation(x):
    ranks = rankdata(x, axis=0) - (len(x) + 1) / 2
    norm = np.sqrt((ranks**2).sum(axis=0))
    ranks = ranks / np.where(norm > 0, norm, 1)
    matrix = ranks.T @ ranks
    np.fill_diagonal(matrix, 1)
    return matrix

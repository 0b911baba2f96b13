"""What a toy is: a density, and where its coordinates are independent, exact regions."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Real
from scipy.special import ndtr, ndtri

from jgen.checks import check_sizes, check_whole
from jgen.random import check_key
from jgen.typing import Key


class Marginal(NamedTuple):
    """Distribution of one coordinate, in float64 numpy and elementwise.

    Attributes:
      lower: smallest value of the coordinate.
      upper: largest one.
      probability: (low, high) -> probability of being between.
      quantile: (p) -> value below which the probability p lies.
    """

    lower: float
    upper: float
    probability: Callable[[Real[np.ndarray, "..."], Real[np.ndarray, "..."]], np.ndarray]
    quantile: Callable[[Real[np.ndarray, "..."]], np.ndarray]


class Toy(NamedTuple):
    """A distribution of which everything is known; functions of ONE event, as a model's are.

    Attributes:
      dim: dimensions of an event.
      sample: (key) -> x [dim].
      log_prob: (x) -> scalar in nats, the density in x (Cartesian).
      coordinates: (x) -> [dim], coordinates that are independent of each other; None where no
        such are known.
      marginals: the distribution of each of them, or None.
    """

    dim: int
    sample: Callable[[Key], Float[Array, " dim"]]
    log_prob: Callable[[Float[Array, " dim"]], Float[Array, ""]]
    coordinates: Callable[[Float[Array, " dim"]], Float[Array, " dim"]] | None = None
    marginals: tuple[Marginal, ...] | None = None


def quantile_edges(marginal: Marginal, num: int) -> Float[np.ndarray, " num_edges"]:
    """Edges of `num` regions of equal probability, from the smallest value to the largest.

    Raises:
      ValueError: if `num` is not positive.
    """
    check_sizes(num=num)
    return marginal.quantile(np.arange(num + 1) / num)


def region_probability(
    toy: Toy, low: Real[np.ndarray, "... dim"], high: Real[np.ndarray, "... dim"]
) -> Float[np.ndarray, "..."]:
    """Probability of boxes in the independent coordinates, the product over coordinates.

    Args:
      toy: the distribution.
      low: lower edges of the boxes; -inf for no edge.
      high: upper edges; inf for no edge.

    Raises:
      ValueError: if the toy has no independent coordinates, the boxes have not its dimensions or
        an edge is not a number.
    """
    if toy.marginals is None:
        raise ValueError(
            "this toy has no independent coordinates in which boxes are exact: take one with "
            "marginals, as gaussian, camel_back or ring"
        )
    low, high = np.broadcast_arrays(np.asarray(low, np.float64), np.asarray(high, np.float64))
    if low.ndim == 0 or low.shape[-1] != toy.dim:
        raise ValueError(
            f"edges need the shape [..., {toy.dim}], one number a coordinate, got {low.shape}"
        )
    if np.isnan(low).any() or np.isnan(high).any() or np.any(low > high):
        raise ValueError("edges must be numbers with low <= high; -inf and inf are allowed")
    each = [m.probability(low[..., i], high[..., i]) for i, m in enumerate(toy.marginals)]
    return np.prod(each, axis=0)


def make_marginal(
    lower: float,
    upper: float,
    probability: Callable,
    quantile: Callable | None = None,
    bracket: tuple[float, float] | None = None,
) -> Marginal:
    """A marginal of functions that need not know where its domain ends.

    Args:
      lower: end of the domain.
      upper: other end.
      probability: (low, high) -> probability, right inside the domain.
      quantile: its inverse; without, it is computed by bisection in `bracket`.
      bracket: finite values outside of which the probability is zero in float64.
    """

    def clipped(low, high):
        return probability(np.clip(low, lower, upper), np.clip(high, lower, upper))

    if quantile is None:
        quantile = _inverse(clipped, lower, upper, bracket)
    return Marginal(lower, upper, clipped, quantile)


def normal_probability(
    low: Real[np.ndarray, "..."],
    high: Real[np.ndarray, "..."],
    mean: Real[np.ndarray, "..."] = 0.0,
    width: Real[np.ndarray, "..."] = 1.0,
) -> Float[np.ndarray, "..."]:
    """Probability of a normal variable to lie between `low` and `high`, in float64, elementwise.

    Intervals above the mean are mirrored to below it, where no digits are lost in 1 - p.
    """
    low, high = ((np.asarray(edge, np.float64) - mean) / width for edge in (low, high))
    mirror = low > -high
    below, above = np.where(mirror, -high, low), np.where(mirror, -low, high)
    return ndtr(above) - ndtr(below)


def normal_marginal(mean: float = 0.0, width: float = 1.0) -> Marginal:
    """A normal coordinate."""
    return make_marginal(
        -np.inf,
        np.inf,
        lambda low, high: normal_probability(low, high, mean, width),
        lambda p: mean + width * ndtri(np.asarray(p, np.float64)),
    )


def _inverse(probability, lower, upper, bracket):
    """Quantile function by bisection; the upper half counts from above, as exact as the lower."""

    def quantile(p):
        p = np.asarray(p, np.float64)
        low, high = (np.full(p.shape, edge) for edge in bracket)
        for _ in range(64):  # a bracket of 80 widths is then narrower than a rounding error
            middle = 0.5 * (low + high)
            below = np.where(
                p <= 0.5, probability(lower, middle) < p, probability(middle, upper) > 1 - p
            )
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        inside = np.where(p <= 0, lower, 0.5 * (low + high))
        return np.where(p >= 1, upper, inside)

    return quantile


def true_events(toy: Toy, key: Key, num: int) -> Float[np.ndarray, "num dim"]:
    """Independent events of a toy; those of one and the same toy come from one program.

    Raises:
      ValueError: if `num` is not positive and whole, or for a key that `check_key` refuses.
    """
    check_key(key)
    check_whole(num=num)
    return np.asarray(_sample(toy.sample, jax.random.split(key, num)))


@functools.partial(jax.jit, static_argnames="sample")
def _sample(sample, keys):
    return jax.vmap(sample)(keys)

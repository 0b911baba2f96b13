"""Distribution functions as sums of linear pieces, and normal scores by them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.stats import norm

SCORES = np.concatenate([[-4.0], np.linspace(-3, 3, 61), [4.0]])
"""Normal scores at which quantiles are known."""
_PER_UNIT = 10
_KNOTS = np.linspace(-4, 4, 8 * _PER_UNIT + 1)  # the scores are among them


class Pieces(NamedTuple):
    """Functions [...] that are linear between rising knots, and beyond them.

    A function is a sum over its pieces: look-ups in as many tables as points are no operation of
    ONNX.

    Attributes:
      start: where each piece begins.
      width: of each; the last has no end.
      slope: of each.
      first: the value where the first begins.
    """

    start: Float[Array, "*n pieces"]
    width: Float[Array, "*n pieces"]
    slope: Float[Array, "*n pieces"]
    first: Float[Array, "*n"]

    def of(self, *index: Int[Array, ""]) -> "Pieces":
        """One of the functions."""
        return Pieces(*(a[index] for a in self))

    def __call__(self, x: Float[Array, ""]) -> Float[Array, ""]:
        """The value of one function."""
        low = np.where(np.arange(self.start.shape[-1]) == 0, -np.inf, 0).astype(np.float32)
        inside = jnp.clip(x - self.start, low, self.width)
        return self.first + jnp.sum(self.slope * inside)


def table(values: Array | np.ndarray) -> Array:
    """As float32."""
    return jnp.asarray(values, jnp.float32)


def pieces(knots: Array | np.ndarray, values: Array | np.ndarray) -> Pieces:
    """Linear between values at knots, of any number of functions [..., num]."""
    xp = np if isinstance(knots, np.ndarray) and isinstance(values, np.ndarray) else jnp
    knots, values = xp.broadcast_arrays(knots, values)
    width = xp.diff(knots)
    slope = xp.diff(values) / width
    endless = xp.full((*width.shape[:-1], 1), np.inf, width.dtype)
    width = xp.concatenate([width[..., :-1], endless], axis=-1)
    return Pieces(*map(table, (knots[..., :-1], width, slope, values[..., 0])))


def normal_score(quantiles: np.ndarray) -> Pieces:
    """Normal scores of values in distributions whose quantiles at `SCORES` are known."""
    return pieces(quantiles, SCORES)


def scored_value(quantiles: np.ndarray) -> Pieces:
    """The inverse of `normal_score`."""
    return pieces(SCORES, quantiles)


class Table(NamedTuple):
    """Functions [...] that are linear between knots from -4 to 4 of one distance, and beyond them.

    A look-up in one table, which ONNX knows, and for many functions faster than a sum over pieces.

    Attributes:
      values: at the knots, of one function after another.
      num: functions by axis.
    """

    values: Float[Array, " entries"]
    num: tuple[int, ...]

    def __call__(self, z: Float[Array, ""], *index: Int[Array, ""]) -> Float[Array, ""]:
        """The value of one function."""
        place, first = (z - _KNOTS[0]) * _PER_UNIT, 0
        left = jnp.clip(jnp.floor(place), 0, len(_KNOTS) - 2)
        for i, size in zip(index, self.num, strict=True):
            first = first * size + i
        entry = first * len(_KNOTS) + left.astype(int)
        low, high = self.values[entry], self.values[entry + 1]
        return low + (place - left) * (high - low)


def scored_values(quantiles: np.ndarray) -> Table:
    """The inverses of `normal_score`, as tables."""
    place = np.clip(np.searchsorted(SCORES, _KNOTS, side="right") - 1, 0, len(SCORES) - 2)
    share = (_KNOTS - SCORES[place]) / np.diff(SCORES)[place]
    values = (1 - share) * quantiles[..., place] + share * quantiles[..., place + 1]
    return Table(table(values.ravel()), quantiles.shape[:-1])


def each(pieces: Pieces, x: Float[Array, " n"]) -> Float[Array, " n"]:
    """Of n functions and numbers."""
    return jax.vmap(lambda one, x: one(x))(pieces, x)


def quantiles(sample: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """At `SCORES`, rising even where values are repeated.

    At the ends, beyond which few values are, the extremes of the sample, or what a normal
    distribution of its width has there if that is further.
    """
    at = norm.cdf(SCORES[1:-1])
    if weights is None:
        inner = np.quantile(sample, at)
    else:
        order = np.argsort(sample)
        below = np.cumsum(weights[order]) - weights[order] / 2
        inner = np.interp(at, below / np.sum(weights), sample[order])
    width = (inner[-1] - inner[0]) / 6 + 1e-3
    low, high = min(inner[0] - width, sample.min()), max(inner[-1] + width, sample.max())
    rise = 1e-5 * (width + np.abs(inner).max())  # seen by float32
    return np.concatenate([[low], inner, [high]]) + rise * SCORES

"""Distribution functions as sums of linear pieces, and normal scores by them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.stats import norm

SCORES = np.concatenate([[-4.0], np.linspace(-3, 3, 61), [4.0]])
"""Normal scores at which quantiles are known."""


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


def table(values: np.ndarray) -> Array:
    """As float32."""
    return jnp.asarray(values, jnp.float32)


def pieces(knots: np.ndarray, values: np.ndarray) -> Pieces:
    """Linear between values at knots, of any number of functions [..., num]."""
    knots, values = np.broadcast_arrays(knots, values)
    width, slope = np.diff(knots), np.diff(values) / np.diff(knots)
    width = np.concatenate([width[..., :-1], np.full((*width.shape[:-1], 1), np.inf)], axis=-1)
    return Pieces(*map(table, (knots[..., :-1], width, slope, values[..., 0])))


def normal_score(quantiles: np.ndarray) -> Pieces:
    """Normal scores of values in distributions whose quantiles at `SCORES` are known."""
    return pieces(quantiles, SCORES)


def scored_value(quantiles: np.ndarray) -> Pieces:
    """The inverse of `normal_score`."""
    return pieces(SCORES, quantiles)


def each(pieces: Pieces, x: Float[Array, " n"]) -> Float[Array, " n"]:
    """Of n functions and numbers."""
    return jax.vmap(lambda one, x: one(x))(pieces, x)


def quantiles(sample: np.ndarray) -> np.ndarray:
    """At `SCORES`, rising even where values are repeated.

    At the ends, beyond which few values are, the extremes of the sample, or what a normal
    distribution of its width has there if that is further.
    """
    inner = np.quantile(sample, norm.cdf(SCORES[1:-1]))
    width = (inner[-1] - inner[0]) / 6 + 1e-3
    low, high = min(inner[0] - width, sample.min()), max(inner[-1] + width, sample.max())
    rise = 1e-5 * (width + np.abs(inner).max())  # seen by float32
    return np.concatenate([[low], inner, [high]]) + rise * SCORES

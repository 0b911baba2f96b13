"""Elementwise maps with known log-determinant, for preprocessing."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.sets import masked
from jgen.typing import Cond, PyTree


class Bijector(NamedTuple):
    """An invertible map of one event between physical space x and model space z.

    Attributes:
      forward: (x, cond) -> (z, log |dz/dx|).
      inverse: (z, cond) -> (x, log |dx/dz|).
      has_log_det: false where the map changes the dimension (normalising voxels to layer energies
        does), so that a density in z says nothing about one in x; log_det is then None.
    """

    forward: Callable[[PyTree, Cond], tuple[PyTree, Array | None]]
    inverse: Callable[[PyTree, Cond], tuple[PyTree, Array | None]]
    has_log_det: bool = True


def standardize(mean: Float[Array, "*x"], std: Float[Array, "*x"]) -> Bijector:
    """Map x to z = (x - mean) / std.

    Raises:
      ValueError: if a standard deviation is not positive.
    """
    if not bool((std > 0).all()):
        raise ValueError("standardize needs positive standard deviations; drop constant features")
    # Summed over the event, whether std is one number or one a component.
    log_det = lambda x: -jnp.sum(jnp.log(jnp.broadcast_to(std, x.shape)))
    return Bijector(
        lambda x, cond=None: ((x - mean) / std, log_det(x)),
        lambda z, cond=None: (z * std + mean, -log_det(z)),
    )


def logit(alpha: float = 1e-6) -> Bijector:
    """Log-odds of y = (1 - 2 alpha) x + alpha, for x in [0, 1] (2405.09629).

    Both logarithms are taken of sums of positive numbers, so that float32 resolves either end.
    """
    if not 0 <= alpha < 0.5:
        raise ValueError(f"alpha must be in [0, 0.5), got {alpha}")

    def parts(x):
        return (1 - 2 * alpha) * x + alpha, (1 - 2 * alpha) * (1 - x) + alpha

    def log_det(x):
        low, high = parts(x)
        return jnp.sum(jnp.log1p(-2 * alpha) - jnp.log(low) - jnp.log(high))

    def forward(x, cond=None):
        low, high = parts(x)
        return jnp.log(low) - jnp.log(high), log_det(x)

    def inverse(z, cond=None):
        x = (1 / (1 + jnp.exp(-z)) - alpha) / (1 - 2 * alpha)
        return x, -log_det(x)

    return Bijector(forward, inverse)


def log() -> Bijector:
    """Z = log x of positive x, such as energies and transverse momenta."""
    return Bijector(
        lambda x, cond=None: (jnp.log(x), -jnp.sum(jnp.log(x))),
        lambda z, cond=None: (jnp.exp(z), jnp.sum(z)),
    )


def per_point(bijector: Bijector) -> Bijector:
    """The same bijector on every point of a set, with zeros in rows that are no points.

    The condition is a `jgen.sets.SetCondition`, of which points are given nothing.
    """

    def mapped(function, x, cond):
        y, log_det = jax.vmap(lambda point: function(point, None))(x)
        return masked(y, cond), jnp.sum(masked(log_det, cond))

    return Bijector(
        lambda x, cond=None: mapped(bijector.forward, x, cond),
        lambda z, cond=None: mapped(bijector.inverse, z, cond),
    )

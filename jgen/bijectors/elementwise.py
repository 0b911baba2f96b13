"""Elementwise maps with known log-determinant, for preprocessing."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

from jgen.arrays import cast_array
from jgen.sets import masked
from jgen.typing import Cond, PyTree


class Bijector(NamedTuple):
    """An invertible map of one event between physical space x and model space z.

    Attributes:
      forward: (x, cond) -> (z, log |dz/dx|).
      inverse: (z, cond) -> (x, log |dx/dz|).
      has_log_det: false where the map changes the dimension (normalising voxels to layer energies
        does), so that a density in z says nothing about one in x; log_det is then None.
      num_cond: numbers in the condition; 0 for a map that does without, None if unknown.
    """

    forward: Callable[[PyTree, Cond], tuple[PyTree, Array | None]]
    inverse: Callable[[PyTree, Cond], tuple[PyTree, Array | None]]
    has_log_det: bool = True
    num_cond: int | None = None


def standardize(mean: ArrayLike | Sequence[float], std: ArrayLike | Sequence[float]) -> Bijector:
    """Map x to z = (x - mean) / std.

    Args:
      mean: one number, or one a component; numbers and lists become single precision.
      std: likewise.

    Raises:
      ValueError: for a mean that is not finite, or a standard deviation that is not positive and
        finite; on a call, if x has not as many components.
    """
    mean, std = _constant("means", mean), _constant("standard deviations", std)
    if not bool((std > 0).all()):
        raise ValueError("standardize needs positive standard deviations; drop constant features")
    shape = np.broadcast_shapes(mean.shape, std.shape)

    def check(x):
        found = jnp.shape(x)
        same = all(n in (1, m) for n, m in zip(shape[::-1], found[::-1], strict=False))
        if len(shape) > len(found) or not same:
            raise ValueError(f"the means are of components {shape}, but x has the shape {found}")
        return x

    # Summed over the event, whether std is one number or one a component.
    log_det = lambda x: -jnp.sum(jnp.log(jnp.broadcast_to(std, x.shape)))
    return Bijector(
        lambda x, cond=None: ((check(x) - mean) / std, log_det(x)),
        lambda z, cond=None: (check(z) * std + mean, -log_det(z)),
        num_cond=0,
    )


def _constant(what, values):
    array = values if hasattr(values, "dtype") else np.asarray(values, object)
    if array.dtype == object:
        try:
            array = np.asarray(values, np.float32)
        except (TypeError, ValueError):
            raise ValueError(f"the {what} must be numbers, got {values!r}") from None
    real = jnp.issubdtype(array.dtype, np.floating) or jnp.issubdtype(array.dtype, np.integer)
    if not real or not np.isfinite(np.asarray(array, np.float64)).all():
        raise ValueError(f"the {what} must be finite real numbers, got {array}")
    if not jax.config.jax_enable_x64:
        small = cast_array(np.asarray(array), f"the {what}")
        if ((small == 0) & (np.asarray(array) != 0)).any():
            raise ValueError(
                f"the {what} have numbers that single precision takes for zero, the least of them "
                f"{np.abs(array).min():.3g}: choose other units"
            )
    return array


def logit(alpha: float = 1e-6) -> Bijector:
    """Log-odds of y = (1 - 2 alpha) x + alpha, for x in [0, 1] (2405.09629).

    Both logarithms are taken of sums of positive numbers, so that float32 resolves either end.
    """
    if not isinstance(alpha, int | float) or not 0 <= alpha < 0.5:
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

    return Bijector(forward, inverse, num_cond=0)


def log() -> Bijector:
    """Z = log x of positive x, such as energies and transverse momenta."""
    return Bijector(
        lambda x, cond=None: (jnp.log(x), -jnp.sum(jnp.log(x))),
        lambda z, cond=None: (jnp.exp(z), jnp.sum(z)),
        num_cond=0,
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

"""Priors of a simulator's parameters, with the map that makes them standard normal.

Whoever infers parameters works in z = `prior.normalized.forward(theta)`: there the prior is N(0, 1)
in every component, nothing has bounds, and no mass can leak out of the prior's support.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jax.scipy.stats import norm
from jaxtyping import Array, Float, Real

from jgen.arrays import double_array
from jgen.bijectors import Bijector, standardize
from jgen.typing import Key

# The smallest distance of a number below one from one, in single precision.
_EDGE = 2.0**-24


class Prior(NamedTuple):
    """A prior of independent parameters; functions of ONE vector theta.

    Attributes:
      dim: number of parameters.
      sample: (key) -> theta [dim].
      log_prob: (theta) -> scalar in nats, -inf outside of the support.
      normalized: between theta and z, which is standard normal if theta follows the prior.
    """

    dim: int
    sample: Callable[[Key], Float[Array, " dim"]]
    log_prob: Callable[[Float[Array, " dim"]], Float[Array, ""]]
    normalized: Bijector


def uniform_prior(low: Real[np.ndarray, " dim"], high: Real[np.ndarray, " dim"]) -> Prior:
    """Independent parameters, uniform between `low` and `high`.

    Raises:
      ValueError: unless there is one finite number a parameter, and `low` < `high`.
    """
    low, high = _numbers(low=low, high=high)
    if not np.all(low < high):
        raise ValueError(f"low must be below high for every parameter, got {low} and {high}")
    width = high - low

    def forward(theta, cond=None):
        # A draw may be on the edge by rounding; it is as near to it as single precision knows.
        z = ndtri(jnp.clip((theta - low) / width, _EDGE, 1 - _EDGE))
        return z, -jnp.sum(norm.logpdf(z) + jnp.log(width))

    def inverse(z, cond=None):
        return low + width * norm.cdf(z), jnp.sum(norm.logpdf(z) + jnp.log(width))

    def log_prob(theta):
        inside = jnp.all((theta >= low) & (theta <= high))
        return jnp.where(inside, -jnp.sum(jnp.log(width)), -jnp.inf)

    sample = lambda key: low + width * jax.random.uniform(key, low.shape)
    return Prior(len(low), sample, log_prob, Bijector(forward, inverse, num_cond=0))


def normal_prior(mean: Real[np.ndarray, " dim"], std: Real[np.ndarray, " dim"]) -> Prior:
    """Independent normal parameters.

    Raises:
      ValueError: unless there is one finite number a parameter, and `std` is positive.
    """
    mean, std = _numbers(mean=mean, std=std)
    if not np.all(std > 0):
        raise ValueError(f"standard deviations must be positive, got {std}")

    def log_prob(theta):
        z = (theta - mean) / std
        return jnp.sum(-0.5 * z**2 - jnp.log(std)) - 0.5 * len(std) * math.log(2 * math.pi)

    sample = lambda key: mean + std * jax.random.normal(key, mean.shape)
    return Prior(len(mean), sample, log_prob, standardize(mean, std))


def _numbers(**arrays):
    (name, first), (other, second) = arrays.items()
    first, second = double_array(first, name), double_array(second, other)
    if first.shape != second.shape or first.ndim != 1 or not first.size:
        raise ValueError(
            f"{name} and {other} need the shape [dim], one number a parameter, got {first.shape} "
            f"and {second.shape}"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError(f"{name} and {other} must be finite, got {first} and {second}")
    return first.astype(np.float32), second.astype(np.float32)

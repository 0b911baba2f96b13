"""Discrete data as continuous: (level + noise) / number of levels, and a map that makes it normal.

A density of the dequantised events bounds the probability of the levels: E_u[log p((k + u) / L)] +
dim log(1 / L) <= log P(k) (Theis et al., 1511.01844, Sec. 3.1).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jgen.arrays import real_array
from jgen.bijectors.elementwise import Bijector
from jgen.checks import check_positive, check_sizes

# The largest float32 below one is 1 - 2^-24; a level's noise stays below it.
_BELOW_ONE = 1 - 1e-6


def dequantize(
    rng: np.random.Generator, levels: Int[np.ndarray, "*n"], num_levels: int
) -> Float[np.ndarray, "*n"]:
    """Levels k = 0 ... num_levels - 1 as (k + u) / num_levels in [0, 1) with uniform noise u.

    Raises:
      ValueError: for a level out of range.
    """
    _check_levels(levels, num_levels)
    noise = np.minimum(rng.random(np.shape(levels)), _BELOW_ONE)
    return ((levels + noise) / num_levels).astype(np.float32)


def level_of(x: Float[Array, "*n"], num_levels: int) -> Int[Array, "*n"]:
    """The level k of dequantised events (k + u) / num_levels; beyond [0, 1) the nearest one."""
    return jnp.clip(jnp.floor(num_levels * x), 0, num_levels - 1).astype(int)


def level_gaussian(
    levels: Int[np.ndarray, "n dim"], num_levels: int, prior: float = 0.5
) -> Bijector:
    """The map under which dequantised events are standard normal, one component by one.

    z = quantile of the normal distribution at F(x), with F the distribution function that has the
    frequency of each level among these events, and `prior` more counts of it, spread evenly over
    its bin. What is left to learn is how the components depend on each other; one that always has
    the same level is a normal number.

    Args:
      levels: events that the frequencies are those of, integers from 0 to num_levels - 1.
      num_levels: how many there are.
      prior: counts added to each level, so that none has probability zero.

    Raises:
      ValueError: for levels of another shape or out of range, or a prior that is not positive.
    """
    levels = np.asarray(levels)
    check_positive(prior=prior)
    if levels.ndim != 2 or not len(levels):
        raise ValueError(f"level_gaussian needs levels [n, dim], got {levels.shape}")
    _check_levels(levels, num_levels)
    num, dim = levels.shape
    counts = prior + np.stack([np.bincount(c, minlength=num_levels) for c in levels.T])
    share = counts / (num + num_levels * prior)
    below = np.cumsum(share, axis=1) - share
    above = np.cumsum(share[:, ::-1], axis=1)[:, ::-1] - share
    share, below, above = (a.astype(np.float32) for a in (share, below, above))
    column = np.arange(dim)

    def log_det(z, level):
        density = jnp.log(num_levels * jnp.asarray(share)[column, level])
        return jnp.sum(density - jax.scipy.stats.norm.logpdf(z))

    def forward(x, cond=None):
        level = level_of(x, num_levels)
        # The ends would be infinite where the level is the first or the last one.
        u = jnp.clip(num_levels * x - level, 1e-6, _BELOW_ONE)
        width = jnp.asarray(share)[column, level]
        low = jnp.asarray(below)[column, level] + width * u
        high = jnp.asarray(above)[column, level] + width * (1 - u)
        # Of both tails the smaller one has the digits.
        z = jnp.where(low < high, 1, -1) * jax.scipy.special.ndtri(jnp.minimum(low, high))
        return z, log_det(z, level)

    def inverse(z, cond=None):
        low = jax.scipy.stats.norm.cdf(z)
        level = jnp.sum(low[:, None] >= below[:, 1:], axis=1)
        width = jnp.asarray(share)[column, level]
        u = jnp.where(
            z < 0,
            (low - jnp.asarray(below)[column, level]) / width,
            1 - (jax.scipy.stats.norm.cdf(-z) - jnp.asarray(above)[column, level]) / width,
        )
        return (level + jnp.clip(u, 1e-6, _BELOW_ONE)) / num_levels, -log_det(z, level)

    return Bijector(forward, inverse, num_cond=0)


def _check_levels(levels: np.ndarray, num_levels: int) -> None:
    check_sizes(num_levels=num_levels)
    levels = real_array(levels, "levels")
    if levels.dtype.kind not in "iu" or (levels < 0).any() or (levels >= num_levels).any():
        raise ValueError(
            f"levels must be integers from 0 to {num_levels - 1}, got {levels.dtype} from "
            f"{levels.min()} to {levels.max()}"
        )

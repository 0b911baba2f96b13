"""Entropy of a toy: the smallest average -log q that any model q of its events can reach."""

import jax
import jax.numpy as jnp
import numpy as np

from jgen.estimate import Estimate
from jgen.toys.toy import Toy


def entropy(toy: Toy, num: int = 1000) -> Estimate:
    """- integral of p log p in one or two dimensions, in nats.

    The trapezoidal rule on a grid around all of 10,000 events and beyond them by half their range.
    For densities made of Gaussians it is exact to rounding as soon as the spacing is as small as
    their widths. The error is the change from half as many points an axis, plus what the density
    lacks of one.

    Args:
      toy: the distribution.
      num: points on each axis, an even number.

    Raises:
      ValueError: for more than two dimensions, where -mean(log_prob) of samples is the way.
    """
    if toy.dim > 2:
        raise ValueError(
            f"quadrature is for one and two dimensions, got {toy.dim}: take the mean of -log_prob "
            "over samples and its standard error"
        )
    if num < 4 or num % 2:
        raise ValueError(f"num must be an even number of four or more points, got {num}")
    events = np.asarray(jax.jit(jax.vmap(toy.sample))(jax.random.split(jax.random.key(0), 10_000)))
    low, high = events.min(axis=0), events.max(axis=0)
    margin = 0.5 * (high - low)
    axes = [np.linspace(a, b, num) for a, b in zip(low - margin, high + margin, strict=True)]
    # One line of the last axis at a time; the sums are in double precision.
    lines = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, num, toy.dim)
    line = jax.vmap(toy.log_prob)
    log_p = np.asarray(jax.jit(lambda x: jax.lax.map(line, x))(jnp.asarray(lines)), np.float64)
    log_p = log_p.reshape((num,) * toy.dim)
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    p = np.exp(log_p)
    plogp = p * log_p
    half = (slice(None, None, 2),) * toy.dim
    value = -cell * plogp.sum()
    coarse = -cell * 2**toy.dim * plogp[half].sum()
    return Estimate(float(value), float(abs(value - coarse) + abs(1 - cell * p.sum())))

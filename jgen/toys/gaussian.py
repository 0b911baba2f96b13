"""The unit Gaussian of arXiv:2509.08048, Sec. 3.2, and its relatives."""

import math

import jax.numpy as jnp

from jgen.checks import check_finite, check_positive, check_sizes
from jgen.random import normal
from jgen.toys.toy import Toy, normal_marginal


def gaussian(dim: int = 1, mean: float = 0.0, width: float = 1.0) -> Toy:
    """Independent normal components of the same mean and width (Eq. 20 for the defaults).

    Raises:
      ValueError: if `dim` or `width` is not positive.
    """
    check_sizes(dim=dim)
    check_finite(mean=mean)
    check_positive(width=width)

    def log_prob(x):
        return jnp.sum(normal_log_prob(x, mean, width))

    return Toy(
        dim,
        lambda key: mean + width * normal(key, (dim,)),
        log_prob,
        lambda x: x,
        (normal_marginal(mean, width),) * dim,
    )


def normal_log_prob(x, mean, width):
    """Log-density of a normal distribution in nats, elementwise."""
    return -0.5 * ((x - mean) / width) ** 2 - jnp.log(width) - 0.5 * math.log(2 * math.pi)

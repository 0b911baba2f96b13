"""The camel back of GANplification (arXiv:2008.06545, Eq. 1)."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jgen.checks import check_not_negative, check_positive
from jgen.random import normal
from jgen.toys.gaussian import normal_log_prob
from jgen.toys.toy import Toy, make_marginal, normal_probability


def camel_back(mean: float = 4.0, width: float = 1.0) -> Toy:
    """Two humps in one dimension, (N(-mean, width) + N(mean, width)) / 2.

    Raises:
      ValueError: if `width` is not positive or `mean` negative.
    """
    check_positive(width=width)
    check_not_negative(mean=mean)

    def sample(key):
        key_hump, key_normal = jax.random.split(key)
        return jax.random.rademacher(key_hump, (1,), float) * mean + width * normal(
            key_normal, (1,)
        )

    def log_prob(x):
        humps = jnp.logaddexp(
            normal_log_prob(x[0], mean, width), normal_log_prob(x[0], -mean, width)
        )
        return humps - math.log(2)

    def probability(low, high):
        return 0.5 * (
            normal_probability(low, high, mean, width) + normal_probability(low, high, -mean, width)
        )

    reach = mean + 40 * width
    marginal = make_marginal(-np.inf, np.inf, probability, bracket=(-reach, reach))
    return Toy(1, sample, log_prob, lambda x: x, (marginal,))

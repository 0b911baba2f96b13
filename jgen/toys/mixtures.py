"""Gaussian mixtures in the plane: modes on a circle, and arms of a pinwheel."""

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from jgen.checks import check_finite, check_positive, check_sizes
from jgen.random import normal
from jgen.toys.arcs import length
from jgen.toys.gaussian import normal_log_prob
from jgen.toys.toy import Toy


def eight_gaussians(radius: float = 2.0, width: float = 0.2) -> Toy:
    """Eight equal round Gaussians at angles of 0, 45, ... 315 degrees on a circle.

    The usual test for lost modes. Common choices of (radius, width) are (sqrt(2), 0.02 / sqrt(2))
    in 1704.00028 and (4, 0.5) / sqrt(2) in 1810.01367; the default is in between.

    Args:
      radius: of the circle that the means lie on.
      width: standard deviation of each in each of both coordinates.

    Raises:
      ValueError: if radius or width is not positive.
    """
    check_positive(radius=radius, width=width)

    def sample(key):
        key_mode, key_normal = jax.random.split(key)
        mean = radius * _direction(jax.random.randint(key_mode, (), 0, 8), 8)
        return mean + width * normal(key_normal, (2,))

    def log_prob(x):
        means = radius * jax.vmap(_direction, (0, None))(jnp.arange(8), 8)
        each = normal_log_prob(x[None], means, width).sum(axis=1)
        return logsumexp(each) - math.log(8)

    return Toy(2, sample, log_prob)


def pinwheel(
    arms: int = 5, radial_width: float = 0.3, tangential_width: float = 0.1, rate: float = 0.25
) -> Toy:
    """Gaussians around a circle of radius one, twisted into the arms of a pinwheel.

    z is normal around (1, 0) with widths `radial_width` and `tangential_width`; x is z turned by
    the angle 2 pi k / arms + rate exp(|z|), with k = 0, 1, ... as likely. The angle depends on the
    radius alone, so the twist keeps areas and p(x) is the mixture's density at the point turned
    back. In 1603.06277 it is rate exp(z_1), which has no inverse in closed form and for large z
    none at all: the arms look the same. Ten radial widths out the angle grows no more,
    so that it stays a number.

    Args:
      arms: their number.
      radial_width: standard deviation of z_1.
      tangential_width: standard deviation of z_2.
      rate: how much the arms are twisted, in radians.

    Raises:
      ValueError: if a width is not positive or there is no arm.
    """
    check_sizes(arms=arms)
    check_positive(radial_width=radial_width, tangential_width=tangential_width)
    check_finite(rate=rate)
    mean, width = jnp.array([1.0, 0.0]), jnp.array([radial_width, tangential_width])

    def twist(x):
        return rate * jnp.exp(jnp.minimum(length(x), 1 + 10 * radial_width))

    def sample(key):
        key_arm, key_normal = jax.random.split(key)
        z = mean + width * normal(key_normal, (2,))
        direction = _direction(jax.random.randint(key_arm, (), 0, arms), arms)
        return _turn(_turn(z, direction), _unit(twist(z)))

    def log_prob(x):
        back = jax.vmap(_direction, (0, None))(-jnp.arange(arms), arms)
        z = jax.vmap(_turn, (None, 0))(_turn(x, _unit(-twist(x))), back)
        return logsumexp(normal_log_prob(z, mean[None], width[None]).sum(axis=1)) - math.log(arms)

    return Toy(2, sample, log_prob)


def _unit(angle):
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def _direction(index, num):
    return _unit(2 * math.pi * index / num)


def _turn(x, direction):
    """A vector turned by the angle of a direction (cos, sin)."""
    cos, sin = direction
    return jnp.stack([cos * x[0] - sin * x[1], sin * x[0] + cos * x[1]])

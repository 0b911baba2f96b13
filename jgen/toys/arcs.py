"""Moons and circles of scikit-learn, of which the density is known: arcs under a Gaussian.

Events are uniform on circular arcs and shifted by a normal vector. The density is that of an arc
convolved with a Gaussian: a Bessel function for a whole circle, an integral over the angle for half
of one. Other than in `jgen.toys.ring`, whose radius is normal, the noise acts on all of the plane:
the radius of `circles` follows a Rice distribution.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import i0e, logsumexp
from jaxtyping import Array, Float

from jgen.checks import check_fraction, check_positive
from jgen.random import normal
from jgen.toys.toy import Toy

_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(48)
# Half an integral's window in standard deviations of its integrand; exp(-10^2 / 2) is left out.
_REACH = 10.0


def moons(noise: float = 0.05) -> Toy:
    """Two interleaved half circles of radius one, as scikit-learn's `make_moons`.

    One runs over the centre (0, 0), (cos t, sin t), and one under (1, 1/2), (1 - cos t,
    1/2 - sin t), t in [0, pi], with equal shares. They are the limit of many points of `make_moons`
    with the same noise, shuffled and unscaled: mean (1/2, 1/4). Coordinates are not independent.

    Args:
      noise: standard deviation of the normal shift in each of both coordinates.

    Raises:
      ValueError: if the noise is not positive, without which there is no density.
    """
    _check_noise(noise)

    def sample(key):
        key_moon, key_angle, key_noise = jax.random.split(key, 3)
        x = _on_circle(jax.random.uniform(key_angle, maxval=math.pi))
        below = jnp.array([1.0, 0.5]) - x
        x = jnp.where(jax.random.bernoulli(key_moon), x, below)
        return x + noise * normal(key_noise, (2,))

    def log_prob(x):
        return jnp.logaddexp(
            _half_circle_log_prob(x, noise),
            _half_circle_log_prob(jnp.array([1.0, 0.5]) - x, noise),
        ) - math.log(2)

    return Toy(2, sample, log_prob)


def circles(factor: float = 0.5, noise: float = 0.05) -> Toy:
    """Two circles around the origin of radii one and `factor`, as scikit-learn's `make_circles`.

    Both have half of the events: the limit of many points of `make_circles` with the same
    arguments. The radius and the angle are independent, but no marginals of them are offered.

    Args:
      factor: radius of the inner circle.
      noise: standard deviation of the normal shift in each of both coordinates.

    Raises:
      ValueError: if the noise is not positive or `factor` not between 0 and 1.
    """
    _check_noise(noise)
    check_fraction(factor=factor)

    def sample(key):
        key_circle, key_angle, key_noise = jax.random.split(key, 3)
        radius = jnp.where(jax.random.bernoulli(key_circle), 1.0, factor)
        x = radius * _on_circle(jax.random.uniform(key_angle, maxval=2 * math.pi))
        return x + noise * normal(key_noise, (2,))

    def log_prob(x):
        return jnp.logaddexp(
            _circle_log_prob(x, 1.0, noise), _circle_log_prob(x, factor, noise)
        ) - math.log(2)

    return Toy(2, sample, log_prob)


def length(x: Float[Array, " dim"]) -> Float[Array, ""]:
    """Length of a vector with the gradient zero at the origin, where it has none."""
    square = jnp.sum(x**2)
    inside = square > 0
    return jnp.where(inside, jnp.sqrt(jnp.where(inside, square, 1.0)), 0.0)


def _circle_log_prob(x, radius, noise):
    """exp(-(R^2 + a^2) / 2 s^2) I_0(R a / s^2) / (2 pi s^2): R / s is Rice distributed."""
    r = length(x)
    exponent = -0.5 * ((r - radius) / noise) ** 2 - 2 * math.log(noise) - math.log(2 * math.pi)
    return exponent + jnp.log(i0e(r * radius / noise**2))


def _half_circle_log_prob(x, noise):
    """Log of the integral over t in [0, pi] of N(x; (cos t, sin t), noise^2) dt / pi.

    The integrand is exp(k cos(t - phi)) in t, with k = R / noise^2: a peak of width k^(-1/2) or,
    where phi is not on the arc, the ends of one. Each quarter is integrated by Gauss and Legendre
    in a window around its largest value, so that points far away are as exact as near ones. Of a
    quarter whose largest values may be at both ends the other quarter's is far larger.
    """
    # The integral does not depend on the window, so neither does its gradient, which the angle
    # of the origin would spoil.
    fixed = jax.lax.stop_gradient(x)
    phi = jnp.arctan2(fixed[1], fixed[0])
    centre = jnp.array([0.25, 0.75]) * math.pi
    away = (phi - centre + math.pi) % (2 * math.pi) - math.pi
    nearest = jnp.clip(away, -math.pi / 4, math.pi / 4)
    reach = _REACH * noise / jnp.sqrt(jnp.maximum(length(fixed), noise**2))
    low = jnp.maximum(nearest - reach, -math.pi / 4)
    high = jnp.minimum(nearest + reach, math.pi / 4)
    half = 0.5 * (high - low)[:, None]
    t = centre[:, None] + low[:, None] + half * (1 + _NODES.astype(x.dtype))[None]
    distance = (x[0] - jnp.cos(t)) ** 2 + (x[1] - jnp.sin(t)) ** 2
    log_weight = jnp.log(half * _NODE_WEIGHTS.astype(x.dtype)[None])
    log_integral = logsumexp(-0.5 * distance / noise**2 + log_weight)
    return log_integral - 2 * math.log(noise) - math.log(2 * math.pi**2)


def _on_circle(angle):
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def _check_noise(noise):
    # Without noise there is no density.
    check_positive(noise=noise)

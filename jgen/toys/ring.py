"""Gaussian rings and shells in any dimension: a normal radius, flat on the sphere.

The signed radius r ~ N(mean, width) multiplies a unit vector u that is flat on the sphere. A
negative r is the mirrored direction, so that R = |r| has the density N(R; mean) + N(R; -mean) on
R >= 0. That is the shell of GANplification (arXiv:2008.06545, Eq. 4: mean 4, width 1). For the ring
of arXiv:2509.08048, Eq. 5 (mean 1, width 0.1), the second term is below 1e-21 and R is normal.

In Cartesian coordinates p(x) = p(R) / (A R^(dim - 1)), A the area of the unit sphere.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import betainc, betaincinv

from jgen.checks import check_not_negative, check_positive, check_sizes
from jgen.random import normal
from jgen.toys.gaussian import normal_log_prob
from jgen.toys.toy import Marginal, Toy, make_marginal, normal_probability
from jgen.typing import Key


def ring(dim: int = 2, mean: float = 1.0, width: float = 0.1) -> Toy:
    """Ring (two dimensions) or shell (more); independent coordinates are those of `spherical`.

    Raises:
      ValueError: if `dim` is below two, `width` not positive or `mean` negative.
    """
    check_sizes(dim=dim)
    if dim < 2:
        raise ValueError(
            f"a ring needs two dimensions or more, got {dim}; in one it is jgen.toys.camel_back"
        )
    check_positive(width=width)
    check_not_negative(mean=mean)
    angles = [_polar_marginal(0.5 * (dim - k)) for k in range(1, dim - 1)]
    return Toy(
        dim,
        lambda key: sample_ring(key, dim, mean, width),
        lambda x: ring_log_prob(x, mean, width),
        spherical,
        (_radius_marginal(mean, width), *angles, _azimuth_marginal()),
    )


def sample_ring(key: Key, dim: int, mean: Array, width: Array) -> Float[Array, " dim"]:
    """One event of a ring whose mean and width may be parameters."""
    key_direction, key_radius = jax.random.split(key)
    direction = normal(key_direction, (dim,))
    radius = mean + width * normal(key_radius, ())
    return radius * direction / jnp.linalg.norm(direction)


def ring_log_prob(x: Float[Array, " dim"], mean: Array, width: Array) -> Float[Array, ""]:
    """Log-density in nats of one event; mean and width may be parameters."""
    dim, radius = len(x), jnp.linalg.norm(x)
    # The mirrored directions: N(R; -mean) = N(R; mean) exp(-2 R mean / width^2).
    mirrored = jax.nn.softplus(-2 * radius * mean / width**2)
    log_area = math.log(2) + 0.5 * dim * math.log(math.pi) - math.lgamma(0.5 * dim)
    log_radial = normal_log_prob(radius, mean, width) + mirrored
    return log_radial - (dim - 1) * jnp.log(radius) - log_area


def spherical(x: Float[Array, " dim"]) -> Float[Array, " dim"]:
    """(R, phi_1, ..., phi_(dim-1)) of one event, angles in radians.

    x_1 = R cos(phi_1), x_2 = R sin(phi_1) cos(phi_2), and so on; x_dim has only sines.
    The last angle is in (-pi, pi], the others are in [0, pi].
    """
    # Lengths of (x_k, ..., x_dim) from the last to the first, so that nothing is subtracted.
    lengths = jnp.sqrt(jnp.cumsum(x[::-1] ** 2))[::-1]
    polar = jnp.arctan2(lengths[1:-1], x[:-2])
    return jnp.concatenate([lengths[:1], polar, jnp.arctan2(x[-1:], x[-2:-1])])


def _radius_marginal(mean: float, width: float) -> Marginal:
    def probability(low, high):
        mirrored = normal_probability(low, high, -mean, width)
        return normal_probability(low, high, mean, width) + mirrored

    return make_marginal(0.0, np.inf, probability, bracket=(0.0, mean + 40 * width))


def _polar_marginal(a: float) -> Marginal:
    """Density sin(phi)^(2 a - 1) on [0, pi]: sin^2(phi / 2) is Beta(a, a)."""

    def probability(low, high):
        # By the symmetry of the sphere every interval is moved to where both terms are small.
        mirror = low + high > math.pi
        below = np.where(mirror, math.pi - high, low)
        above = np.where(mirror, math.pi - low, high)
        return betainc(a, a, np.sin(above / 2) ** 2) - betainc(a, a, np.sin(below / 2) ** 2)

    def quantile(p):
        p = np.asarray(p, np.float64)
        half = 2 * np.arcsin(np.sqrt(betaincinv(a, a, np.minimum(p, 1 - p))))
        return np.where(p <= 0.5, half, math.pi - half)

    return make_marginal(0.0, math.pi, probability, quantile)


def _azimuth_marginal() -> Marginal:
    return make_marginal(
        -math.pi,
        math.pi,
        lambda low, high: (high - low) / (2 * math.pi),
        lambda p: math.pi * (2 * np.asarray(p, np.float64) - 1),
    )

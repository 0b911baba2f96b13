"""Integrands on the unit cube whose integrals are known: two camels' humps, and a ring with cuts.

f = camel(4)
f.value(jnp.full(4, 0.3)), f.integral, f.flat_deviation
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import erf

from jgen.checks import check_positive, check_sizes
from jgen.toys.ring import ring, spherical
from jgen.toys.toy import region_probability


class ToyIntegrand(NamedTuple):
    """A function of which importance sampling knows nothing, and we everything.

    Attributes:
      dim: dimensions of the cube.
      value: (x [dim]) -> f(x).
      integral: over the unit cube.
      flat_deviation: standard deviation of f at flat points over the integral.
    """

    dim: int
    value: Callable[[Float[Array, " dim"]], Float[Array, ""]]
    integral: float
    flat_deviation: float


def camel(dim: int, width: float = 0.2) -> ToyIntegrand:
    """Two Gaussian humps on the diagonal, at 1/3 and 2/3 (VEGAS; 2001.05486).

    f = (exp(-|x - 1/3|^2 / w^2) + exp(-|x - 2/3|^2 / w^2)) / (2 (w sqrt(pi))^dim), which is
    normalised in all of space. No grid of single components can have two humps on a diagonal.

    Raises:
      ValueError: if `dim` or `width` is not positive.
    """
    check_sizes(dim=dim)
    check_positive(width=width)
    log_norm = -math.log(2) - dim * math.log(width * math.pi**0.5)

    def value(x):
        exponents = [-jnp.sum((x - c) ** 2) / width**2 for c in (1 / 3, 2 / 3)]
        return jnp.exp(jnp.logaddexp(*exponents) + log_norm)

    # Of one component: of a hump, of its square, and of the product of both humps, which is a
    # Gaussian at 1/2 with the square's width times exp(-(1/3)^2 / (2 width^2)).
    hump, square, middle = (
        _gaussian(*a) for a in ((1 / 3, width), (1 / 3, width / 2**0.5), (0.5, width / 2**0.5))
    )
    per_hump = (hump / (width * math.pi**0.5)) ** dim
    product = middle * math.exp(-1 / (18 * width**2))
    second = 0.5 * (square**dim + product**dim) / (width * math.pi**0.5) ** (2 * dim)
    return ToyIntegrand(dim, value, per_hump, (second / per_hump**2 - 1) ** 0.5)


def _gaussian(center: float, width: float) -> float:
    """Integral of exp(-(x - center)^2 / width^2) from 0 to 1."""
    ends = erf((1 - center) / width) + erf(center / width)
    return 0.5 * math.pi**0.5 * width * float(ends)


def cut_ring(mean: float = 0.3, width: float = 0.03) -> ToyIntegrand:
    """A Gaussian ring around the middle of the square, cut off inside, outside and in a quadrant.

    The density of `ring(2, mean, width)` at x - 1/2, zero for radii below `mean` and from 0.5 on,
    and where x_1 < 1/2 < x_2: as acceptance cuts do, the edges cross what is large.

    Raises:
      ValueError: for a mean that is not between 0 and 0.5, or a width that is not positive.
    """
    check_positive(mean=mean, width=width)
    if mean >= 0.5:
        raise ValueError(f"the ring must fit into the square, mean below 0.5, got {mean}")
    toy = ring(2, mean, width)

    def value(x):
        y = x - 0.5
        radius = spherical(y)[0]
        inside = (radius >= mean) & (radius < 0.5) & ~((y[0] < 0) & (y[1] > 0))
        # Where it is cut the density may be anything, at the centre infinite.
        density = jnp.exp(toy.log_prob(jnp.where(inside, y, jnp.array([mean, 0.0], x.dtype))))
        return jnp.where(inside, density, 0)

    angles = (-math.pi, math.pi / 2)
    low, high = np.array([mean, angles[0]]), np.array([0.5, angles[1]])
    integral = float(region_probability(toy, low, high))
    # The square of the density N(R) / (2 pi R), by quadrature in the radius.
    nodes, weights = np.polynomial.legendre.leggauss(400)
    radius = mean + (0.5 - mean) * (nodes + 1) / 2
    signs = np.array([[1], [-1]])
    normal = np.exp(-0.5 * ((radius - signs * mean) / width) ** 2).sum(axis=0)
    normal /= width * math.sqrt(2 * math.pi)
    density = normal / (2 * math.pi * radius)
    second = 1.5 * math.pi * np.sum(weights * density**2 * radius) * (0.5 - mean) / 2
    return ToyIntegrand(2, value, integral, float((second / integral**2 - 1) ** 0.5))

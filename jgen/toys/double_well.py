"""A particle in two wells: the energy of the Boltzmann generators' first example (1812.01729).

U(x, v) = a x^4 - b x^2 + c x + v^2 / 2 in units of kT, the density exp(-U) / Z. The position x and
v are independent and v is standard normal, so everything is an integral over x, done here in
float64. The wall is the local maximum of U between the wells; right of it is x > wall.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.interpolate import CubicSpline
from scipy.special import ndtri

from jgen.checks import check_finite, check_positive
from jgen.random import normal
from jgen.toys.toy import Toy, make_marginal, normal_marginal
from jgen.typing import Cond

# The integrals end where U is so far above its minimum, in kT: exp(-60) is 1e-26.
_DEPTH = 60.0
_POINTS = 20_001


class DoubleWell(NamedTuple):
    """Two wells and all that is exact about them.

    Attributes:
      toy: events (x, v) [2]: samples, log-density and marginals, which are those of x and of v.
      energy: (event, cond) -> U in kT, without a use for the condition.
      log_z: log of the integral of exp(-U) over x and v.
      wall: x of the local maximum between the wells.
      minima: x of the left and of the right minimum.
      population_right: probability of x > wall.
      free_energy_difference: F(right) - F(left) = -log(p_right / p_left) in kT, positive where the
        left well is the more likely one.
      potential: (x) -> U(x, 0), elementwise, in float64 numpy.
    """

    toy: Toy
    energy: Callable[[Float[Array, "2"], Cond], Float[Array, ""]]
    log_z: float
    wall: float
    minima: tuple[float, float]
    population_right: float
    free_energy_difference: float
    potential: Callable[[np.ndarray], np.ndarray]


def double_well(quartic: float = 1.0, quadratic: float = 4.0, tilt: float = 0.5) -> DoubleWell:
    """Wells of depth quadratic^2 / (4 quartic) kT, the left one lower for a positive tilt.

    The default is the tilted well of log Z = 5.4269 and a free-energy difference of 1.3222 kT; the
    well of the Boltzmann generators, (1/4, 3, 1), has log Z = 12.0649 and 4.7776 kT: the right one
    holds 0.8 %.

    A sample of x is a normal variable at the same quantile, by linear interpolation in a table of
    20,001 points in float32: it is exact to about 1e-7 in probability.

    Args:
      quartic: a, positive.
      quadratic: b, positive.
      tilt: c.

    Raises:
      ValueError: if a or b is not positive, or c so large that there is one well only.
    """
    check_positive(quartic=quartic, quadratic=quadratic)
    check_finite(tilt=tilt)
    left, wall, right = _stationary_points(quartic, quadratic, tilt)
    potential = lambda x: ((quartic * x**2 - quadratic) * x + tilt) * x

    def energy(event, cond=None):
        x, v = event
        return potential(x) + 0.5 * v**2

    grid = _grid(quartic, quadratic, tilt, min(potential(left), potential(right)))
    density = np.exp(-potential(grid))
    integral = CubicSpline(grid, density).antiderivative()
    z_x = float(integral(grid[-1]))
    log_z = float(np.log(z_x) + 0.5 * np.log(2 * np.pi))

    def probability(low, high):
        low, high = (np.clip(np.asarray(x, np.float64), grid[0], grid[-1]) for x in (low, high))
        return np.maximum(integral(high) - integral(low), 0.0) / z_x

    p_left, p_right = float(probability(-np.inf, wall)), float(probability(wall, np.inf))
    toy = Toy(
        2,
        _sampler(grid, density / z_x),
        lambda event: -energy(event) - log_z,
        lambda event: event,
        (
            make_marginal(-np.inf, np.inf, probability, bracket=(grid[0], grid[-1])),
            normal_marginal(),
        ),
    )
    difference = float(np.log(p_left / p_right))
    return DoubleWell(toy, energy, log_z, wall, (left, right), p_right, difference, potential)


def _stationary_points(quartic, quadratic, tilt):
    """The left minimum, the wall and the right minimum."""
    roots = np.roots([4 * quartic, 0, -2 * quadratic, tilt])
    if np.max(np.abs(roots.imag)) > 1e-9 * np.max(np.abs(roots)) or len(np.unique(roots)) < 3:
        steepest = (2 * quadratic / 3) ** 1.5 / quartic**0.5
        raise ValueError(
            f"a tilt of {tilt} leaves one well; with these terms it must be below {steepest:.4g}"
        )
    return tuple(float(x) for x in np.sort(roots.real))


def _grid(quartic, quadratic, tilt, lowest):
    ends = np.roots([quartic, 0, -quadratic, tilt, -lowest - _DEPTH])
    ends = ends.real[np.abs(ends.imag) < 1e-9 * np.max(np.abs(ends))]
    return np.linspace(ends.min(), ends.max(), _POINTS)


def _sampler(grid, density):
    """(key) -> (x, v), x by the quantile of a normal variable."""
    below = CubicSpline(grid, density).antiderivative()(grid)
    above = CubicSpline(-grid[::-1], density[::-1]).antiderivative()(-grid[::-1])[::-1]
    # Each tail from its own side, where it has its digits.
    z = np.where(below < 0.5, ndtri(np.clip(below, 0, 1)), -ndtri(np.clip(above, 0, 1)))
    keep = np.abs(z) < 8
    z, x = np.maximum.accumulate(z[keep]).astype(np.float32), grid[keep].astype(np.float32)

    def sample(key):
        z_x, v = normal(key, (2,))
        return jnp.stack([jnp.interp(z_x, z, x), v])

    return sample

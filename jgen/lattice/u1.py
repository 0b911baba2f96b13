"""U(1) gauge theory in two dimensions: Wilson's action and its exact answers.

    S(theta) = -beta sum_P cos(theta_P),   theta_P = theta_0(x) + theta_1(x + 0)
                                                     - theta_0(x + 1) - theta_1(x)

Links are angles [2, L, L] on a periodic lattice, direction first; their measure is d theta, 2 pi a
link. In two dimensions plaquettes are independent but for one constraint, that they sum to a
multiple of 2 pi, so that everything is a sum over Bessel functions (2003.06413 trains flows on it).
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import special

from jgen.typing import Cond, Energy


def plaquettes(links: Float[Array, "2 l l"]) -> Float[Array, "l l"]:
    """Plaquette angles theta_P, not reduced to an interval."""
    first, second = links
    return first + jnp.roll(second, -1, 0) - jnp.roll(first, -1, 1) - second


def wilson(beta: float) -> Energy:
    """Wilson's action as an energy (links, cond=None) -> S; no condition enters."""

    def energy(links: Float[Array, "2 l l"], cond: Cond = None) -> Float[Array, ""]:
        return -beta * jnp.sum(jnp.cos(plaquettes(links)))

    return energy


def gauge_transformed(
    links: Float[Array, "2 l l"], angles: Float[Array, "l l"]
) -> Float[Array, "2 l l"]:
    """Links after the rotation of every site by an angle; plaquettes do not change."""
    return jnp.stack([links[mu] + angles - jnp.roll(angles, -1, mu) for mu in (0, 1)])


def topological_charge(links: Float[Array, "2 l l"]) -> Float[Array, ""]:
    """Q = sum_P theta_P / 2 pi with angles in [-pi, pi): an integer on a periodic lattice."""
    angles = plaquettes(links)
    return jnp.sum((angles + jnp.pi) % (2 * jnp.pi) - jnp.pi) / (2 * jnp.pi)


def exact_log_z(beta: float, length: int) -> float:
    """Log Z = log sum_n I_n(beta)^V + 2 V log 2 pi, n over all integers.

    Raises:
      ValueError: if beta is not positive.
    """
    _, log_power = _bessel(beta, length)
    volume = length**2
    return float(special.logsumexp(log_power) + volume * (beta + 2 * math.log(2 * math.pi)))


def exact_plaquette(beta: float, length: int) -> float:
    """<cos theta_P> = sum_n I_n' I_n^(V - 1) / sum_n I_n^V at beta.

    Raises:
      ValueError: if beta is not positive.
    """
    n, log_power = _bessel(beta, length)
    slope = (special.ive(n - 1, beta) + special.ive(n + 1, beta)) / (2 * special.ive(n, beta))
    weight = special.softmax(log_power)
    return float(np.sum(weight * slope))


def _bessel(beta: float, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Orders n and V log(I_n(beta) exp(-beta)), as far as they are above the smallest number."""
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}")
    reach = int(20 + 4 * beta)
    n = np.arange(-reach, reach + 1)
    scaled = special.ive(n, beta)
    n, scaled = n[scaled > 0], scaled[scaled > 0]
    return n, length**2 * np.log(scaled)

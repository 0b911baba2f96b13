"""Scalar phi^4 theory on a periodic square lattice in two dimensions, in lattice units.

    S(phi) = sum_x [ sum_mu (phi(x + mu) - phi(x))^2 + m^2 phi(x)^2 + lam phi(x)^4 ]

This is the convention of the flow papers (1904.12072, Eq. 20; 2101.08176; 2207.00283), whose
kinetic and mass terms lack the factor 1/2 of the textbooks. Fields are configurations [L, L] with
density exp(-S) / Z, so S is an energy in units of kT.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.typing import Cond, Energy


def phi4_action(phi: Float[Array, "l l"], m_squared: Array, lam: Array) -> Float[Array, ""]:
    """Action S of one configuration; see the head of this file."""
    kinetic = sum((jnp.roll(phi, -1, axis) - phi) ** 2 for axis in (0, 1))
    return jnp.sum(kinetic + m_squared * phi**2 + lam * phi**4)


def phi4(m_squared: float, lam: float) -> Energy:
    """The action as an energy (phi, cond=None) -> S.

    Args:
      m_squared: m^2, negative where the potential of one site has two wells.
      lam: the coupling. A condition [2] of an event holds (m^2, lam) in their place.

    Raises:
      ValueError: if the density cannot be normalised.
    """
    if lam < 0 or (lam == 0 and m_squared <= 0):
        raise ValueError(
            "the density needs lam > 0, or lam = 0 and m_squared > 0, to be normalisable; got "
            f"m_squared {m_squared} and lam {lam}"
        )

    def energy(phi: Float[Array, "l l"], cond: Cond = None) -> Float[Array, ""]:
        return phi4_action(phi, *((m_squared, lam) if cond is None else (cond[0], cond[1])))

    return energy


def lattice_momenta(length: int) -> Float[np.ndarray, "l l"]:
    """Squared lattice momenta sum_mu 4 sin^2(p_mu / 2), the eigenvalues of minus the Laplacian."""
    one = 4 * np.sin(np.pi * np.arange(length) / length) ** 2
    return one[:, None] + one


def free_log_z(length: int, m_squared: float) -> float:
    """Exact log Z of the free field, lam = 0: (V log pi - log det(m^2 - Laplacian)) / 2.

    Raises:
      ValueError: if `m_squared` is not positive.
    """
    if not m_squared > 0:
        raise ValueError(f"a free field needs m_squared > 0, got {m_squared}")
    log_det = np.log(lattice_momenta(length) + m_squared).sum()
    return float(length**2 * math.log(math.pi) - log_det) / 2


def free_propagator(length: int, m_squared: float) -> Float[np.ndarray, "l l"]:
    """Exact two-point function <phi(x) phi(0)> of the free field, by displacement x.

    Raises:
      ValueError: if `m_squared` is not positive.
    """
    if not m_squared > 0:
        raise ValueError(f"a free field needs m_squared > 0, got {m_squared}")
    return np.fft.ifft2(0.5 / (lattice_momenta(length) + m_squared)).real

"""Squared matrix elements at leading order from textbooks; cross-sections in GeV^-2.

As in Ellis, Stirling, Webber, QCD and Collider Physics: summed over final spins and colours,
averaged over initial ones, in natural units. All are functions of the invariant mass squared s
[GeV^2] and the cosine of the angle between the first incoming and the first outgoing particle,
elementwise.
"""

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.checks import check_positive

GEV2_TO_PB = 0.3893793721e9
"""Picobarn in a GeV^-2, (hbar c)^2."""


@dataclass(frozen=True)
class ElectroweakParameters:
    """Inputs of `muon_pair`."""

    alpha: float = 1 / 128.9
    """Electromagnetic coupling at the Z's mass."""
    sin2_theta: float = 0.2315
    """Squared sine of the weak mixing angle."""
    z_mass: float = 91.1876
    """In GeV."""
    z_width: float = 2.4952
    """In GeV."""


def muon_pair(
    s: Float[Array, "..."],
    cosine: Float[Array, "..."],
    parameters: ElectroweakParameters = ElectroweakParameters(),
) -> Float[Array, "..."]:
    """|M|^2 of e+ e- -> gamma*, Z -> mu+ mu-, massless (Ellis, Stirling, Webber).

    16 pi^2 alpha^2 [(1 + c^2) A + c B], c of the angle between electron and muon.
    """
    s, cosine = jnp.asarray(s), jnp.asarray(cosine)
    symmetric, odd = _muon_couplings(s, parameters)
    factor = (4 * math.pi * parameters.alpha) ** 2
    return factor * ((1 + cosine**2) * symmetric + cosine * odd)


def muon_pair_cross_section(
    s: float, parameters: ElectroweakParameters = ElectroweakParameters()
) -> float:
    """The total, 4 pi alpha^2 A / (3 s), in GeV^-2."""
    check_positive(s=s)
    symmetric, _ = _muon_couplings(s, parameters)
    return 4 * math.pi * parameters.alpha**2 / (3 * s) * float(symmetric)


def _muon_couplings(s, p):
    """A and B: 1 and 0 without the Z."""
    axial = -0.5
    vector = axial + 2 * p.sin2_theta
    resonance = (s - p.z_mass**2) ** 2 + (p.z_width * p.z_mass) ** 2
    strength = 1 / (4 * p.sin2_theta * (1 - p.sin2_theta))
    interference = strength * s * (s - p.z_mass**2) / resonance
    square = strength**2 * s**2 / resonance
    both = vector**2 + axial**2
    symmetric = 1 + 2 * vector**2 * interference + both**2 * square
    return symmetric, 4 * axial**2 * interference + 8 * vector**2 * axial**2 * square


def quarks_to_top(
    s: Float[Array, "..."],
    cosine: Float[Array, "..."],
    mass: float = 172.5,
    alpha_s: float = 0.118,
) -> Float[Array, "..."]:
    """|M|^2 of q qbar -> t tbar, t of `mass` [GeV] (Ellis, Stirling, Webber).

    g^4 (4 / 9) (tau_1^2 + tau_2^2 + rho / 2), tau = (1 -+ beta c) / 2 and rho = 4 m^2 / s.
    """
    one, two, rho = _invariants(s, cosine, mass)
    return (4 * math.pi * alpha_s) ** 2 * 4 / 9 * (one**2 + two**2 + rho / 2)


def gluons_to_top(
    s: Float[Array, "..."],
    cosine: Float[Array, "..."],
    mass: float = 172.5,
    alpha_s: float = 0.118,
) -> Float[Array, "..."]:
    """|M|^2 of g g -> t tbar, t of `mass` [GeV] (Ellis, Stirling, Webber).

    g^4 (1 / (6 tau_1 tau_2) - 3 / 8) (tau_1^2 + tau_2^2 + rho - rho^2 / (4 tau_1 tau_2)).
    """
    one, two, rho = _invariants(s, cosine, mass)
    colour = 1 / (6 * one * two) - 3 / 8
    kinematics = one**2 + two**2 + rho - rho**2 / (4 * one * two)
    return (4 * math.pi * alpha_s) ** 2 * colour * kinematics


def _invariants(s, cosine, mass):
    rho = 4 * mass**2 / s
    # Below the threshold nothing is made, and nothing must be NaN.
    along = jnp.sqrt(jnp.maximum(1 - rho, 0)) * cosine
    return 0.5 * (1 - along), 0.5 * (1 + along), rho


def top_cross_sections(
    s: Float[np.ndarray, "..."], mass: float = 172.5, alpha_s: float = 0.118
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Totals of q qbar and of g g -> t tbar in GeV^-2, zero below the threshold.

    In closed form (Nason, Dawson, Ellis, Nucl. Phys. B303 (1988) 607), in float64 on
    the host.
    """
    s = np.asarray(s, np.float64)
    above = s > 4 * mass**2
    rho = np.where(above, 4 * mass**2 / np.where(above, s, 1), 1.0)
    beta = np.sqrt(1 - rho)
    unit = math.pi * alpha_s**2 / mass**2
    quarks = unit * beta * rho * (2 + rho) / 27
    # 2 atanh(beta) is log((1 + beta) / (1 - beta)).
    gluons = unit * rho / 192 * (2 * np.arctanh(beta) * (rho**2 + 16 * rho + 16))
    gluons -= unit * rho / 192 * beta * (28 + 31 * rho)
    return quarks, np.where(above, gluons, 0.0)

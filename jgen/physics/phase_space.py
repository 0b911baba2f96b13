"""Lorentz-invariant phase space from uniform numbers, for one event; momenta (E, px, py, pz).

The measure is dPhi_n = prod_i d^3p_i / ((2 pi)^3 2 E_i) (2 pi)^4 delta^4(P - sum_i p_i) in the
centre-of-mass system. A cross-section is the mean of |M|^2 over the flux 2 s times the volume.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.checks import check_not_negative, check_positive, check_whole
from jgen.physics.four_vectors import boost


def rambo(u: Float[Array, "n 4"], energy: float | Float[Array, ""]) -> Float[Array, "n 4"]:
    """Momenta of n massless particles, flat in phase space (RAMBO, Comput. Phys. Commun. 40, 359).

    Isotropic momenta whose energies have the density E exp(-E), boosted and scaled to their
    centre-of-mass system: every event has the same weight, `massless_volume`.

    Args:
      u: uniform numbers in [0, 1), four for each particle.
      energy: of the centre-of-mass system [GeV].

    Returns:
      Momenta [GeV].

    Raises:
      ValueError: if there are fewer than two particles.
    """
    if u.shape[0] < 2:
        raise ValueError(f"phase space needs two particles or more, got {u.shape[0]}")
    cosine, phi = 2 * u[:, 0] - 1, 2 * math.pi * u[:, 1]
    # Of 1 - u, which is never zero.
    q0 = -jnp.log((1 - u[:, 2]) * (1 - u[:, 3]))
    q = _directions(cosine, phi) * jnp.stack([q0] * 3, 1)
    total, momentum = jnp.sum(q0), jnp.sum(q, 0)
    mass = jnp.sqrt(total**2 - momentum @ momentum)
    rest = jnp.concatenate([q0[:, None], q], 1) @ boost(-momentum / mass).T
    return energy / mass * rest


def massless_volume(num: int, energy: float) -> float:
    """Volume of the phase space of `num` massless particles [GeV^(2 num - 4)].

    (2 pi)^(4 - 3 n) (pi / 2)^(n - 1) s^(n - 2) / (Gamma(n) Gamma(n - 1)).

    Raises:
      ValueError: if there are fewer than two particles or no energy.
    """
    check_whole(2, 100, num=num)
    check_positive(energy=energy)
    flat = (2 * math.pi) ** (4 - 3 * num) * (math.pi / 2) ** (num - 1)
    return flat * energy ** (2 * num - 4) / (math.gamma(num) * math.gamma(num - 1))


def two_body(
    cosine: Float[Array, ""],
    phi: Float[Array, ""],
    energy: Float[Array, ""] | float,
    masses: tuple[float, float] = (0.0, 0.0),
) -> Float[Array, "2 4"]:
    """Momenta [GeV] of two particles back to back; flat in cosine and phi, see `two_body_volume`.

    Args:
      cosine: of the first particle's polar angle.
      phi: its azimuth.
      energy: of the centre-of-mass system [GeV], above the sum of the masses.
      masses: of both [GeV].
    """
    first, second = masses
    momentum = 0.5 * energy * _momentum_share(energy, first, second)
    p = momentum * _directions(cosine[None], phi[None])[0]
    energies = [jnp.sqrt(momentum**2 + m**2) for m in (first, second)]
    return jnp.stack([jnp.append(energies[0], p), jnp.append(energies[1], -p)])


def two_body_volume(energy: float, masses: tuple[float, float] = (0.0, 0.0)) -> float:
    """Volume of two-body phase space, 2 |p| / (8 pi E), without a unit.

    Raises:
      ValueError: for an energy below the threshold.
    """
    check_positive(energy=energy)
    check_not_negative(first_mass=masses[0], second_mass=masses[1])
    if energy < sum(masses):
        raise ValueError(f"an energy of {energy} GeV is below the threshold, {sum(masses)} GeV")
    return float(_momentum_share(energy, *masses)) / (8 * math.pi)


def _directions(cosine: Float[Array, " n"], phi: Float[Array, " n"]) -> Float[Array, "n 3"]:
    sine = jnp.sqrt((1 - cosine) * (1 + cosine))
    return jnp.stack([sine * jnp.cos(phi), sine * jnp.sin(phi), cosine], -1)


def _momentum_share(energy, first, second):
    """2 |p| / E: one without masses."""
    sums, differences = (first + second) / energy, (first - second) / energy
    return ((1 - sums**2) * (1 - differences**2)) ** 0.5

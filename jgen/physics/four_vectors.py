"""Four-vectors (E, px, py, pz) on the last axis, in GeV and radians; pure jnp, any leading axes.

Differences of large numbers are avoided where the vector allows it, but a mass or a rapidity of an
energy and a momentum knows no more than both do: of light particles far forward take float64.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

METRIC = np.array([1.0, -1.0, -1.0, -1.0], np.float32)
"""Diagonal of the Minkowski metric."""


def four_vector(
    pt: Float[Array, "*n"],
    phi: Float[Array, "*n"],
    eta: Float[Array, "*n"],
    mass: Float[Array, "*n"],
) -> Float[Array, "*n 4"]:
    """(E, px, py, pz) of transverse momentum, azimuth, pseudorapidity and mass."""
    px, py, pz = pt * jnp.cos(phi), pt * jnp.sin(phi), pt * jnp.sinh(eta)
    return jnp.stack([jnp.sqrt((pt * jnp.cosh(eta)) ** 2 + mass**2), px, py, pz], axis=-1)


def minkowski(p: Float[Array, "*n 4"], q: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """Product p.q with the metric (+, -, -, -) [GeV^2]."""
    return p[..., 0] * q[..., 0] - jnp.sum(p[..., 1:] * q[..., 1:], axis=-1)


def mass_squared(p: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """E^2 - |p|^2 as (E - |p|) (E + |p|) [GeV^2]; of rounding it may be negative."""
    momentum = jnp.linalg.norm(p[..., 1:], axis=-1)
    return (p[..., 0] - momentum) * (p[..., 0] + momentum)


def mass(p: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """Invariant mass [GeV], zero where rounding makes its square negative."""
    square = mass_squared(p)
    # The root has no derivative at zero.
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def transverse_momentum(p: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """Momentum transverse to the beam [GeV]."""
    return jnp.hypot(p[..., 1], p[..., 2])


def azimuth(p: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """Angle around the beam, in [-pi, pi]."""
    return jnp.arctan2(p[..., 2], p[..., 1])


def pseudorapidity(p: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """arsinh(pz / pT): exact at any angle, infinite along the beam."""
    return jnp.arcsinh(p[..., 3] / transverse_momentum(p))


def rapidity(p: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """arsinh(pz / mT) with mT^2 = pT^2 + m^2, which boosts along the beam add to."""
    square = transverse_momentum(p) ** 2 + jnp.maximum(mass_squared(p), 0)
    return jnp.arcsinh(p[..., 3] / jnp.sqrt(square))


def angle_difference(a: Float[Array, "*n"], b: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Difference a - b around the circle, in [-pi, pi)."""
    return wrapped(a - b)


def wrapped(angle: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """An angle in [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def delta_r(p: Float[Array, "*n 4"], q: Float[Array, "*n 4"]) -> Float[Array, "*n"]:
    """Distance of two directions in pseudorapidity and azimuth."""
    return jnp.hypot(
        pseudorapidity(p) - pseudorapidity(q), angle_difference(azimuth(p), azimuth(q))
    )


def boost(beta_gamma: Float[Array, "3"]) -> Float[Array, "4 4"]:
    """Matrix of the system that the old one moves in with the velocity beta gamma.

    A particle at rest is given the momentum m beta gamma; the inverse has the opposite sign.
    """
    gamma = jnp.sqrt(1 + jnp.sum(beta_gamma**2))
    space = jnp.eye(3, dtype=beta_gamma.dtype) + jnp.outer(beta_gamma, beta_gamma) / (1 + gamma)
    first = jnp.append(gamma, beta_gamma)
    return jnp.concatenate([first[None], jnp.concatenate([beta_gamma[:, None], space], 1)])


def rotation(quaternion: Float[Array, "4"]) -> Float[Array, "4 4"]:
    """Rotation of space by a quaternion, of any length but zero; normal ones are uniform."""
    w, v = quaternion[0], quaternion[1:]
    x, y, z = v
    cross = jnp.array([[0, -z, y], [z, 0, -x], [-y, x, 0]], v.dtype)
    square = jnp.sum(quaternion**2)
    inner = jnp.eye(3, dtype=v.dtype) + 2 * (w * cross + cross @ cross) / square
    return jnp.eye(4, dtype=v.dtype).at[1:, 1:].set(inner)

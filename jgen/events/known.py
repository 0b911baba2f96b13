"""What is known of top pairs before any training, as further inputs of networks.

The base is far from the data, in log pT by two and in log m^2 by seven standard deviations. Its
mean is known, so that networks see events, and make velocities, without the mean of the path.

Transverse momenta balance, tops and W have a mass, jets are apart: events lie near thin surfaces,
which a network finds late, since hardly any of its loss depends on them. An event on a straight
path x_t = x1 + (1 - t) (x0 - x1) is off such a surface c(x1) = 0, of width one, by the noise that
is left, of variances v (1 - t)^2. Were c linear and all normal, the expected velocity would be

    -(1 - t) v dc/dx c / (1 + (1 - t)^2 dc/dx v dc/dx),

and phi(d / s) / Phi(d / s) away from a jet whose distance is d above the least one, where s is the
noise left in it. Networks see these pulls, and how far off an event is. To the velocity u that they
make, the pulls of the event x_t + (1 - t) u that it heads for are added, each times a gain of their
making, so that the last steps of a flow end on the surfaces. All of it, and the masses and angles
of pairs, stays as it is in rotations about the beam, the symmetry that published spurions leave.
Nothing of this is published.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.events.base import base_moments
from jgen.events.coordinates import UNIT, Coordinates, resonance_members, seen_momenta
from jgen.physics import mass, mass_squared, wrapped
from jgen.physics.four_vectors import METRIC

_OF_DATA = np.array([1.0, 0.0, 2.0, 1.0])  # variances of their coordinates
_OF_ANGLES = 2.0  # variance of noise minus data, once events are turned towards each other
_SHARP = 0.35  # recoil of width one over its median: its peak is narrower than its tail
_LEAST = 0.01  # noise of distances at the end of a path
_MOST = 6.0  # of a pull
_LIGHTEST = 1e-3  # of the masses that are looked at, in units


class Known(NamedTuple):
    """What `known_of` makes.

    Attributes:
      centred: (t, z) -> events on their path without its mean, which all else here takes.
      features: (t, z) -> numbers of every particle, for a network to see.
      corrected: (t, z, v, gains) -> a velocity v and its own pulls at z + (1 - t) v, the event that
        it heads for, each times a gain of every particle; and the mean path's velocity.
      num_features: of a particle.
      num_gains: of a particle.
    """

    centred: Callable[[Float[Array, ""], Float[Array, "n 4"]], Float[Array, "n 4"]]
    features: Callable[[Float[Array, ""], Float[Array, "n 4"]], Float[Array, "n k"]]
    corrected: Callable[..., Float[Array, "n 4"]]
    num_features: int
    num_gains: int


def known_of(coordinates: Coordinates, min_distance: float) -> Known:
    """Features of events and corrections of velocities.

    Args:
      coordinates: of the events, `check_coordinates` holds.
      min_distance: of any two particles in eta and phi.
    """
    num, surfaces = coordinates.num, _surfaces(coordinates)
    means, variances = base_moments(coordinates)
    variances = variances + _OF_DATA
    variances[:, 1] = _OF_ANGLES

    def centred(t: Float[Array, ""], z: Float[Array, "n 4"]) -> Float[Array, "n 4"]:
        return z - (1 - jnp.asarray(t, z.dtype)) * jnp.asarray(means, z.dtype)

    def forces(left, z):
        """Of every particle [n, k, 4], and what is needed for features too."""
        apart = z[:, None, 1:3] - z[None, :, 1:3]
        apart = apart.at[..., 0].set(wrapped(apart[..., 0]))
        values, slopes = surfaces(z)
        push, none = _pushes(left, apart, min_distance), jnp.zeros_like(z[:, :1])
        push = jnp.concatenate([none, push, none], axis=1)
        found = jnp.concatenate([_pulls(left, values, slopes, variances), push[:, None]], axis=1)
        return jnp.clip(found, -_MOST, _MOST), values, apart

    def features(t: Float[Array, ""], z: Float[Array, "n 4"]) -> Float[Array, "n k"]:
        found, values, apart = forces(1 - jnp.asarray(t, z.dtype), z)
        masses = jnp.broadcast_to(values[1:].reshape(1, -1), (num, values[1:].size))
        off = jnp.arcsinh(jnp.concatenate([_turned(values[0], z[:, 1]), masses], axis=1))
        # Multivectors hardly know the mass of a jet.
        own, pairs = z[:, jnp.array([0, 2, 3])], _pairs(coordinates, z, apart)
        return jnp.concatenate([found.reshape(num, -1), off, own, pairs], axis=1)

    def corrected(
        t: Float[Array, ""],
        z: Float[Array, "n 4"],
        v: Float[Array, "n 4"],
        gains: Float[Array, "n k"],
    ) -> Float[Array, "n 4"]:
        left = 1 - jnp.asarray(t, z.dtype)
        found, *_ = forces(left, z + left * v)
        return v + jnp.sum(gains[..., None] * found, axis=1) - jnp.asarray(means, v.dtype)

    kinds = 2 + len(coordinates.peaks)
    return Known(centred, features, corrected, 5 * kinds + 3 + 4 * num, kinds)


def _surfaces(coordinates):
    """How far off an event z is, balance and masses in pairs [k, 2], and slopes [k, 2, n, 4]."""
    members = resonance_members(coordinates.num)
    centres, widths = coordinates.peaks.T / UNIT
    recoil = _SHARP * coordinates.recoil / UNIT
    momenta = partial(seen_momenta, coordinates)

    def surfaces(z):
        along = lambda e: jax.jvp(momenta, (z,), (jnp.broadcast_to(e[None], z.shape),))[1]
        p, moves = momenta(z), jax.vmap(along, out_axes=-1)(jnp.eye(4, dtype=z.dtype))
        inside = jnp.asarray(members, z.dtype)
        total = jnp.sum(inside[:, :, None] * p[None], axis=1)
        masses = jnp.maximum(mass(total), _LIGHTEST)
        lowered = total * jnp.asarray(METRIC, z.dtype)[None] / masses[:, None]
        of_masses = jnp.einsum("ki,ka,iac->kic", inside, lowered, moves)
        values = [jnp.sum(p[:, 1:3], axis=0) / recoil, (masses - centres) / widths]
        slopes = [jnp.moveaxis(moves[:, 1:3], 1, 0) / recoil, of_masses / widths[:, None, None]]
        values, slopes = (jnp.concatenate(a).astype(z.dtype) for a in (values, slopes))
        return values.reshape(-1, 2), slopes.reshape(-1, 2, *z.shape)

    return surfaces


def _pulls(left, values, slopes, variances):
    """Of every particle towards the surfaces [n, k, 4]."""
    moves = jnp.asarray(variances, slopes.dtype)[None, None] * slopes
    noise = left**2 * jnp.einsum("kaic,kbic->kab", moves, slopes)
    # Two as one: balance, so that it turns with the event, and the masses of a top and its W.
    (x, y), (xx, yy), xy = values.T, 1 + jnp.diagonal(noise, axis1=1, axis2=2).T, noise[:, 0, 1]
    expected = jnp.stack([yy * x - xy * y, xx * y - xy * x], axis=1)
    expected /= (xx * yy - xy**2)[:, None]
    found = -left * expected[..., None, None] * moves
    found = jnp.concatenate([found[:1].sum(axis=1), found[1:].reshape(-1, *slopes.shape[2:])])
    return jnp.moveaxis(found, 0, 1)


def _pushes(left, apart, min_distance):
    """Away from others [n, 2] in phi and eta, of differences [n, n, 2] of angles."""
    # Of a particle and itself, or of two in one place, there is no direction.
    square = jnp.where(_others(apart), jnp.sum(apart**2, axis=-1), 1)
    distance = jnp.sqrt(jnp.maximum(square, 1e-6))
    off = (distance - min_distance) / ((2 * _OF_ANGLES) ** 0.5 * left + _LEAST)
    normal = jax.scipy.stats.norm
    strength = jnp.minimum(jnp.exp(normal.logpdf(off) - normal.logcdf(off)), _MOST)
    along = apart / distance[..., None]
    return jnp.sum((strength * _others(apart))[..., None] * along, axis=1)


def _turned(vector, phi):
    """A transverse vector in the directions of all particles, along and across, [n, 2]."""
    (x, y), cos, sin = vector, jnp.cos(phi), jnp.sin(phi)
    return jnp.stack([x * cos + y * sin, y * cos - x * sin], axis=1)


def _pairs(coordinates, z, apart):
    """Angles between a particle and each slot, and scaled log (p_i + p_j)^2, [n, 4 n]."""
    p = seen_momenta(coordinates, z)
    square = jnp.maximum(mass_squared(p[:, None] + p[None]), 1e-10)
    logs = (jnp.log(square) - coordinates.edges[0]) / coordinates.edges[1]
    phi, eta = apart[..., 0], apart[..., 1]
    # Single precision does not know the own mass so well.
    return jnp.concatenate([jnp.cos(phi), jnp.sin(phi), eta, logs * _others(z)], axis=1)


def _others(a):
    return ~np.eye(len(a), dtype=bool)

"""What the flow of events starts from: normal momenta and masses that pass the cuts.

    px, py, pz, log m^2 ~ N(0, 1), independent, in units of 206.6 GeV,

given that every pT is above the cut and every two particles are apart (2509.08048).

Deviation from the published code: no pool is kept. Momenta above the cut are drawn in closed form,
again and again until they are apart, in a loop of its own for every event, inside of the loss.

What the density is not. Events that flow back to where two particles are close have the density of
the same formula, as if it went on there; the generator makes none of them. Densities of a model
then integrate to more than one, by the ratio of both acceptances at most: 1.89 for six particles,
or 0.64 nats. The published code does the same.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Bool, Float

from jgen.checks import check_not_negative, check_sizes
from jgen.events.coordinates import (
    EPSILON,
    MIN_PT,
    UNIT,
    Coordinates,
    check_coordinates,
    mapped_slots,
    of_momenta,
    scaled,
    unscaled,
)
from jgen.events.files import check_events
from jgen.models import Base
from jgen.physics import wrapped
from jgen.random import normal
from jgen.solvers import normal_log_prob
from jgen.typing import Key

MIN_DISTANCE = 0.5
"""Of any two particles in eta and phi."""
_CHUNKS, _CHUNK = 64, 1 << 14  # small enough for the cache


def event_base(coordinates: Coordinates, min_distance: float = MIN_DISTANCE) -> Base:
    """The base in the coordinates of an event, [n, 4].

    Args:
      coordinates: of the events; its cut on pT is that of the base.
      min_distance: of any two particles in eta and phi.

    Raises:
      ValueError: if hardly any candidates pass the cuts, or for coordinates that are none.
    """
    check_coordinates(coordinates)
    num, cut = coordinates.num, coordinates.min_pt / UNIT
    log_acceptance = float(np.log(acceptance(num, coordinates.min_pt, min_distance)))
    first, second = np.triu_indices(num, 1)

    def far_apart(state):
        _, pt, phi, eta = state
        square = (eta[first] - eta[second]) ** 2 + wrapped(phi[first] - phi[second]) ** 2
        return jnp.all(square > min_distance**2)

    def again(state):
        key, *now = jax.random.split(state[0], 4)
        around = jax.random.uniform(now[0], (num,))
        # Half a step of these numbers at least: at zero, pT would be the cut, which may be zero.
        above = jax.random.uniform(now[1], (num,), minval=2.0**-24)
        # Two normal numbers whose length is above the cut.
        pt = jnp.sqrt(cut**2 - 2 * jnp.log1p(-above))
        return key, pt, jnp.pi * (2 * around - 1), jnp.arcsinh(normal(now[2], (num,)) / pt)

    def sample(key: Key) -> Float[Array, "n 4"]:
        key, key_mass = jax.random.split(key)
        start = again((key,))
        _, pt, phi, eta = jax.lax.while_loop(lambda state: ~far_apart(state), again, start)
        parts = pt * jnp.cos(phi), pt * jnp.sin(phi), pt * jnp.sinh(eta), normal(key_mass, (num,))
        return _coordinates(coordinates, jnp.stack(parts, axis=1))

    def log_prob(z: Float[Array, "n 4"]) -> Float[Array, ""]:
        with jax.enable_x64(True):
            double = z.astype(jnp.float64)
            normals, log_det = mapped_slots(lambda x: _normals(coordinates, x), double)
            total = normal_log_prob(normals) + log_det - log_acceptance
            massive = jnp.all(unscaled(coordinates, double)[:, 3] > np.log(EPSILON))
            return jnp.where(massive, total, -jnp.inf).astype(z.dtype)

    return Base(sample, log_prob)


def base_moments(
    coordinates: Coordinates,
) -> tuple[Float[np.ndarray, "n 4"], Float[np.ndarray, "n 4"]]:
    """Means and variances of the base in coordinates, by quadrature.

    They are those of particles that need not be apart. A distance of 0.5 between six moves means by
    less than a tenth of a standard deviation, and makes variances of log pT and eta larger by up to
    a fifth.
    """
    cut, middles = coordinates.min_pt / UNIT, lambda num: (np.arange(num) + 0.5) / num
    transverse = lambda num: np.sqrt(cut**2 - 2 * np.log1p(-middles(num)))
    normals = scipy.special.ndtri(middles(500))
    # At the cut, where it is -inf, the logarithm wants many points.
    log_pt, log_m2 = np.log(transverse(100_000) - cut + EPSILON), np.log(np.exp(normals) + EPSILON)
    eta = np.arcsinh(normals / transverse(500)[:, None])
    means = np.array([log_pt.mean(), 0, 0, log_m2.mean()])
    variances = np.array([log_pt.var(), np.pi**2 / 3, eta.var(), log_m2.var()])
    means, variances = (np.tile(a, (coordinates.num, 1)) for a in (means, variances))
    means[:, (0, 3)] = (means[:, (0, 3)] - coordinates.mean) / coordinates.std
    variances[:, (0, 3)] /= coordinates.std**2
    return means, variances


def _coordinates(coordinates, drawn):
    """Coordinates of normal (px, py, pz, log m^2), in their precision."""
    with jax.enable_x64(True):
        momentum, square = drawn[:, :3].astype(jnp.float64), jnp.exp(drawn[:, 3:])
        energy = jnp.sqrt(jnp.sum(momentum**2, axis=1, keepdims=True) + square)
        p = jnp.concatenate([energy, momentum], axis=1)
        z = scaled(coordinates, of_momenta(p, coordinates.min_pt / UNIT))
        return z.astype(drawn.dtype)


def _normals(coordinates, z):
    """Normal (px, py, pz, log m^2) of coordinates."""
    log_pt, phi, eta, log_m2 = jnp.moveaxis(unscaled(coordinates, z), -1, 0)
    pt = jnp.exp(log_pt) + coordinates.min_pt / UNIT - EPSILON
    # Below the smallest mass there is none; what stands there is not used.
    square = jnp.exp(jnp.maximum(log_m2, np.log(EPSILON) + 1e-6)) - EPSILON
    parts = pt * jnp.cos(phi), pt * jnp.sin(phi), pt * jnp.sinh(eta), jnp.log(square)
    return jnp.stack(parts, axis=-1)


@functools.lru_cache(maxsize=32)
def acceptance(num: int, min_pt: float = MIN_PT, min_distance: float = MIN_DISTANCE) -> float:
    """Fraction of events of `num` normal momenta that pass the cuts, by Monte Carlo.

    A million candidates give 0.1 % of it for six particles and 0.25 % for ten.

    Args:
      num: particles.
      min_pt: cut on pT [GeV]; alone it passes exp(-num min_pt^2 / (2 206.6^2)).
      min_distance: of any two in eta and phi.

    Raises:
      ValueError: if fewer than one in ten thousand passes.
    """
    check_sizes(num=num)
    check_not_negative(min_pt=min_pt, min_distance=min_distance)
    rng, passed = np.random.default_rng(0), 0
    for _ in range(_CHUNKS):
        p = rng.standard_normal((3, num, _CHUNK), np.float32)
        pt = np.hypot(p[0], p[1])
        good = (pt > min_pt / UNIT).all(axis=0)
        passed += np.sum(good & _apart(np.arcsinh(p[2] / pt), np.arctan2(p[1], p[0]), min_distance))
    fraction = float(passed / (_CHUNKS * _CHUNK))
    if fraction < 1e-4:
        raise ValueError(
            f"of {num} particles a fraction {fraction:.1g} of candidates passes pT > {min_pt:g} GeV"
            f" and a distance of {min_distance:g}: lower the cuts"
        )
    return fraction


def apart(
    events: Float[np.ndarray, "num n 4"], min_distance: float = MIN_DISTANCE
) -> Bool[np.ndarray, " num"]:
    """Whether all particles of an event (E, px, py, pz) are apart in eta and phi."""
    check_not_negative(min_distance=min_distance)
    events = check_events(events)
    eta = np.arcsinh(events[..., 3] / np.hypot(events[..., 1], events[..., 2]))
    phi = np.arctan2(events[..., 2], events[..., 1])
    return _apart(eta.T, phi.T, min_distance)


def _apart(eta, phi, min_distance):
    """Of particles on the first axis, on the host."""
    first, second = np.triu_indices(len(eta), 1)
    close = np.zeros(eta.shape[1], bool)
    for i, j in zip(first, second, strict=True):
        turn = np.abs(phi[i] - phi[j])
        close |= np.hypot(eta[i] - eta[j], np.minimum(turn, 2 * np.pi - turn)) <= min_distance
    return ~close

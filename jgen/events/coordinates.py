"""Jets in the coordinates that their generators learn: (log(pT - cut), phi, eta, log m^2).

Of every particle, log pT above the cut and log m^2 are standardised by its slot in the event; phi
and eta are as they are (2508.14898, 2509.08048). Momenta are in units of 206.6 GeV. All of it is in
double precision, on the host as within compiled programs, since m^2 is a small difference.

Deviation from the published code: m^2 is not the absolute value of E^2 - p^2, which no map undoes;
where rounding made it negative `to_coordinates` takes zero.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jgen.arrays import cast_array, double_array, finite_array
from jgen.bijectors import Bijector
from jgen.checks import check_finite, check_not_negative, check_positive
from jgen.events.files import check_events
from jgen.physics import (
    azimuth,
    mass_squared,
    pseudorapidity,
    transverse_momentum,
)

UNIT = 206.6
"""Energies and momenta of one [GeV]."""
EPSILON = 1e-5
"""Added to pT - cut and to m^2, in units, before the logarithm."""
PEAKED = ((0, 1, 2), (1, 2), (3, 4, 5), (4, 5))
"""Particles of t, W+, tbar and W-, whose masses have a peak."""
MIN_PT = 22.0
"""The cut on pT of the data of 2509.08048 [GeV]."""
# Of log pT, phi, eta and log m^2: far beyond any event, where float64 still knows the mass.
_SEEN = (-np.inf, -np.inf, -8.0, -np.inf), (5.0, np.inf, 8.0, 10.0)


class Coordinates(NamedTuple):
    """How the particles of an event are scaled; made by `fit_coordinates`, plain numbers.

    Attributes:
      mean: of log(pT - cut) and log m^2 of each slot.
      std: their standard deviations.
      min_pt: cut on pT [GeV].
      edges: mean and standard deviation of log (p_i + p_j)^2, in units, for `jgen.nets.lloca`.
      peaks: median and the middle 30 % of the masses of t, W+, tbar and W- [GeV].
      recoil: median pT of all particles together [GeV].
    """

    mean: Float[np.ndarray, "n 2"]
    std: Float[np.ndarray, "n 2"]
    min_pt: float
    edges: tuple[float, float]
    peaks: Float[np.ndarray, "k 2"]
    recoil: float

    @property
    def num(self) -> int:
        """Particles of an event."""
        return len(self.mean)

    @property
    def periodic(self) -> np.ndarray:
        """Which coordinates [n, 4] are angles."""
        return np.broadcast_to(np.array([False, True, False, False]), (self.num, 4))


def check_coordinates(coordinates: Any) -> None:
    """Refuse what `fit_coordinates` cannot have made, such as arrays put together by hand.

    Raises:
      ValueError: for another kind of value, other shapes, or scales that are not positive.
    """
    if not isinstance(coordinates, Coordinates):
        kind = type(coordinates).__name__
        raise ValueError(f"coordinates are those of `fit_coordinates`, got {kind}")
    mean = finite_array(coordinates.mean, "means of coordinates", 2)
    std = finite_array(coordinates.std, "standard deviations of coordinates", 2)
    if mean.shape[1] != 2 or std.shape != mean.shape:
        raise ValueError(
            "means and standard deviations of coordinates are of log(pT - cut) and log m^2 of each "
            f"particle, both [n, 2], got the shapes {mean.shape} and {std.shape}"
        )
    if not (std > 0).all():
        raise ValueError(f"standard deviations of coordinates must be positive, got {std.min():g}")
    check_not_negative(min_pt=coordinates.min_pt)
    if np.shape(coordinates.edges) != (2,):
        raise ValueError(
            "edges of coordinates are a mean and a standard deviation, got the shape "
            f"{np.shape(coordinates.edges)}"
        )
    check_finite(**{"the mean of edges": coordinates.edges[0]})
    check_positive(**{"the standard deviation of edges": coordinates.edges[1]})
    peaks = double_array(coordinates.peaks, "peaks of coordinates")
    if peaks.shape != (expected := (len(resonance_members(len(mean))), 2)) or not (peaks > 0).all():
        raise ValueError(
            f"peaks of coordinates are positive centres and widths {list(expected)}, got the shape "
            f"{peaks.shape}"
        )
    check_positive(recoil=coordinates.recoil)


def fit_coordinates(events: Float[np.ndarray, "num n 4"], min_pt: float = MIN_PT) -> Coordinates:
    """Means and standard deviations of events (E, px, py, pz) [GeV].

    They belong to a trained model: `jgen.save` and `jgen.load` keep them beside its parameters.

    Raises:
      ValueError: for events that `check_events` refuses, with a pT below the cut, or a slot in
        which all are the same.
    """
    check_not_negative(min_pt=min_pt)
    events = check_events(events)
    parts = _parts_of(events, min_pt)
    logs = parts[..., (0, 3)]
    mean, std = logs.mean(axis=0), logs.std(axis=0)
    if not (std > 0).all():
        raise ValueError("pT and mass of every slot must differ from event to event")
    with jax.enable_x64(True):
        p = jnp.asarray(events / UNIT)
        first, second = np.triu_indices(events.shape[1], 1)
        squares = np.asarray(mass_squared(p[:, first] + p[:, second]))
    edges = np.log(np.maximum(squares, 1e-10))
    edges = float(edges.mean()), float(edges.std())
    return Coordinates(mean, std, float(min_pt), edges, *_known_of(events))


def _known_of(events):
    """Peaks of masses and the recoil."""
    members = resonance_members(events.shape[1])
    peaks = np.zeros((len(members), 2))
    for peak, rows in zip(peaks, members, strict=True):
        total = events[:, rows > 0].sum(axis=1)
        masses = np.sqrt(np.maximum(total[:, 0] ** 2 - (total[:, 1:] ** 2).sum(axis=1), 0))
        low, peak[0], high = np.quantile(masses, [0.35, 0.5, 0.65])
        peak[1] = high - low
    return peaks, float(np.median(np.hypot(*events[..., 1:3].sum(axis=1).T)))


def resonance_members(num: int) -> Float[np.ndarray, "k n"]:
    """One where a particle belongs to a top or W, of those whose particles there are."""
    inside = [rows for rows in PEAKED if max(rows) < num]
    return np.array([[float(i in rows) for i in range(num)] for rows in inside]).reshape(-1, num)


def of_momenta(
    p: Float[Array, "*n 4"], min_pt: float, *, limited: bool = False
) -> Float[Array, "*n 4"]:
    """(log(pT - cut), phi, eta, log m^2) of four-momenta, all in units; before the scaling.

    With `limited`, an m^2 that rounding made negative is zero.
    """
    square = mass_squared(p)
    square = jnp.maximum(square, 0) if limited else square
    logs = jnp.log(transverse_momentum(p) - min_pt + EPSILON), jnp.log(square + EPSILON)
    return jnp.stack([logs[0], azimuth(p), pseudorapidity(p), logs[1]], axis=-1)


def to_momenta(parts: Float[Array, "*n 4"], min_pt: float) -> Float[Array, "*n 4"]:
    """The inverse of `of_momenta`."""
    log_pt, phi, eta, log_m2 = jnp.moveaxis(parts, -1, 0)
    pt = jnp.exp(log_pt) + min_pt - EPSILON
    square = (pt * jnp.cosh(eta)) ** 2 + jnp.exp(log_m2) - EPSILON
    return jnp.stack(
        [jnp.sqrt(square), pt * jnp.cos(phi), pt * jnp.sin(phi), pt * jnp.sinh(eta)], axis=-1
    )


def scaled(coordinates: Coordinates, parts: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """Standardised logarithms of pT and m^2 beside phi and eta."""
    shift, scale = _affine(coordinates, parts.dtype)
    return (parts - shift) / scale


def unscaled(coordinates: Coordinates, z: Float[Array, "*n 4"]) -> Float[Array, "*n 4"]:
    """The inverse of `scaled`."""
    shift, scale = _affine(coordinates, z.dtype)
    return z * scale + shift


def _affine(coordinates, dtype):
    shift, scale = np.zeros((coordinates.num, 4)), np.ones((coordinates.num, 4))
    shift[:, (0, 3)], scale[:, (0, 3)] = coordinates.mean, coordinates.std
    return jnp.asarray(shift, dtype), jnp.asarray(scale, dtype)


def seen_momenta(coordinates: Coordinates, z: Float[Array, "n 4"]) -> Float[Array, "n 4"]:
    """Four-momenta in units of coordinates that are limited before they overflow."""
    parts = unscaled(coordinates, z)
    low, high = (jnp.broadcast_to(jnp.array(a, z.dtype), z.shape) for a in _SEEN)
    return to_momenta(jnp.clip(parts, low, high), coordinates.min_pt / UNIT)


def event_map(coordinates: Coordinates) -> Bijector:
    """Events (E, px, py, pz) [GeV] to coordinates and back, [n, 4]; with log-determinants.

    Both are made in double precision by one automatic derivative and have the precision of their
    arguments. In float32, m^2 of momenta knows no more than E^2 times 1e-7; below zero it counts as
    zero, as in `to_coordinates`. Events with a pT below the cut have no density: their
    log-determinant is -inf.
    """
    check_coordinates(coordinates)
    cut = coordinates.min_pt / UNIT

    def to(p):
        return scaled(coordinates, of_momenta(p / UNIT, cut))

    def back(z):
        return to_momenta(unscaled(coordinates, z), cut) * UNIT

    def forward(x, cond=None):
        with jax.enable_x64(True):
            double = x.astype(jnp.float64)
            low = jnp.any(transverse_momentum(double) < coordinates.min_pt)
            energy = jnp.maximum(double[:, 0], jnp.linalg.norm(double[:, 1:], axis=1))
            double = jnp.concatenate([energy[:, None], double[:, 1:]], axis=1)
            z, log_det = mapped_slots(to, double)
            z, log_det = jnp.where(low, 0, z), jnp.where(low, -jnp.inf, log_det)
            return z.astype(x.dtype), log_det.astype(x.dtype)

    def inverse(z, cond=None):
        with jax.enable_x64(True):
            x, log_det = mapped_slots(back, z.astype(jnp.float64))
            return x.astype(z.dtype), log_det.astype(z.dtype)

    return Bijector(forward, inverse, num_cond=0)


def mapped_slots(
    function: Callable[[Array], Array], x: Float[Array, "n 4"]
) -> tuple[Float[Array, "n 4"], Float[Array, ""]]:
    """A function that does not mix slots, and its log-determinant."""
    # The derivative with respect to one number of all slots at once.
    columns = lambda e: jax.jvp(function, (x,), (jnp.broadcast_to(e, x.shape),))[1]
    jacobians = jax.vmap(columns, out_axes=-1)(jnp.eye(4, dtype=x.dtype))
    return function(x), jnp.sum(jnp.linalg.slogdet(jacobians)[1])


def to_coordinates(
    coordinates: Coordinates, events: Float[np.ndarray, "num n 4"]
) -> Float[np.ndarray, "num n 4"]:
    """What models are trained on, float32, of events (E, px, py, pz) [GeV].

    Raises:
      ValueError: for events that `check_events` refuses, of another number of particles, or with a
        pT below the cut.
    """
    events = _of_num(coordinates, check_events(events))
    parts = _parts_of(events, coordinates.min_pt)
    parts[..., (0, 3)] = (parts[..., (0, 3)] - coordinates.mean) / coordinates.std
    return cast_array(parts, "coordinates")


def log_jacobian(
    coordinates: Coordinates, events: Float[np.ndarray, "num n 4"]
) -> Float[np.ndarray, " num"]:
    """Log |dz/dp| of the coordinates z of events, with momenta p in units of 206.6 GeV.

    Added to a log-density in coordinates it makes the one in four-momentum space that papers give.

    Raises:
      ValueError: for events that `check_events` refuses, or of another number of particles.
    """
    events = _of_num(coordinates, check_events(events))
    parts = _parts_of(events, coordinates.min_pt)
    # Of the events that the coordinates stand for, whose m^2 is not negative.
    with jax.enable_x64(True):
        cut = coordinates.min_pt / UNIT
        one = lambda x: event_map(coordinates).forward(x, None)[1]
        p = to_momenta(jnp.asarray(parts), cut) * UNIT
        found = np.asarray(jax.jit(jax.vmap(one))(p))
    return found + 4 * coordinates.num * np.log(UNIT)


def to_events(
    coordinates: Coordinates, z: Float[np.ndarray, "num n 4"]
) -> Float[np.ndarray, "num n 4"]:
    """Events (E, px, py, pz) [GeV] of coordinates, float64; m^2 below zero becomes zero.

    Raises:
      ValueError: for another number of particles, or numbers that are not finite or whose momenta
        are not.
    """
    events, finite = _momenta(coordinates, z)
    if not finite.all():
        raise ValueError(
            f"{(~finite).sum()} of {len(events)} events have momenta that are not finite, the first"
            f" is number {np.argmin(finite)}: leave them out with `finite_events`, train for longer"
            ", or with a smaller learning rate"
        )
    return events


def finite_events(
    coordinates: Coordinates, z: Float[np.ndarray, "num n 4"]
) -> tuple[Float[np.ndarray, "kept n 4"], Bool[np.ndarray, " num"]]:
    """`to_events` of those whose momenta are finite, and which they are.

    A velocity that was learned may send an event to infinity; published generators leave it out.

    Raises:
      ValueError: for another number of particles.
    """
    events, finite = _momenta(coordinates, z)
    return events[finite], finite


def _momenta(coordinates, z):
    z = np.array(_of_num(coordinates, double_array(z, "coordinates")))
    logs = z[..., (0, 3)] * coordinates.std + coordinates.mean
    z[..., (0, 3)] = np.maximum(logs, [-np.inf, np.log(EPSILON)])
    with jax.enable_x64(True):
        events = np.asarray(to_momenta(jnp.asarray(z), coordinates.min_pt / UNIT)) * UNIT
    # What single precision cannot hold is no energy of this world either.
    finite = np.abs(events) < np.finfo(np.float32).max
    return events, finite.all(axis=(1, 2))


def _parts_of(events, min_pt):
    """Coordinates before the scaling, in double precision on the host."""
    low = np.hypot(events[..., 1], events[..., 2]) < min_pt
    if low.any():
        raise ValueError(
            f"{low.any(axis=1).sum()} of {len(events)} events have a pT below the cut of {min_pt:g}"
            " GeV: leave them out, or lower min_pt"
        )
    with jax.enable_x64(True):
        p = jnp.asarray(events / UNIT)
        light = mass_squared(p) < 0
        energy = jnp.where(light, jnp.linalg.norm(p[..., 1:], axis=-1), p[..., 0])
        parts = np.array(of_momenta(p.at[..., 0].set(energy), min_pt / UNIT))
    # Of a massless energy that was rounded up or down again.
    parts[..., 3] = np.maximum(parts[..., 3], np.log(EPSILON))
    return parts


def _of_num(coordinates, events):
    check_coordinates(coordinates)
    if events.ndim != 3 or events.shape[1:] != (coordinates.num, 4):
        raise ValueError(
            f"events are arrays [num, {coordinates.num}, 4], got the shape {events.shape}"
        )
    return events

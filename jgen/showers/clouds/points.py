"""Showers on a cylindrical grid as points, and back, of one shower; `jax.vmap` makes many.

A point is (x, y [mm], z [layers], energy [MeV]). It lies at random in its voxel, uniformly in the
angle and in the square of the radius, and in the middle of its layer. Points are sorted by layer.
The way back is the sum of energies in voxels.

Networks without interaction make independent points, and of independent points many fall into the
same voxel: as many points as a shower of 10 GeV has hits give only 80 % of them. So a voxel becomes
several points, in equal parts. In a place where a share p of the voxels is hit, independent points
of rate -log(1 - p) hit as many, and their number in a voxel that is hit is Poisson without zero.
Voxels of more energy are more points, though not strictly: were the number independent of the
energy, a part of a voxel would often have less energy than any voxel has, and were it a function of
the energy, all parts would have about the same.
(The published points are finer than voxels to begin with, 2305.04847; those of a voxel are all that
a file in the CaloChallenge's layout has.)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array, Float, Int

from jgen.sets import valid
from jgen.showers.data import Geometry
from jgen.typing import Key

# Of a voxel, so that rounding in float32 moves no point into the next one.
_MARGIN = 1e-4
# Points of one voxel; a Poisson number of mean 4 exceeds it once in 10^6.
_MOST_PARTS = 16
# Steps of Newton's method for the rates of a layer, and the largest.
_RATE_STEPS, _HIGHEST_RATE = 12, 6.0
# Correlation of the number of points of a voxel with its energy. Of 0, 0.3, 0.45 and 0.6 the one
# with which independent points of Geant4 showers make Geant4's voxel energies best: their log10 has
# W1 distances of 0.042, 0.017, 0.021 and 0.030.
_CORRELATION = 0.3
# Steps of Newton's method for the Moebius map, and the largest |a| of one.
_STEPS, _LONGEST_STEP = 10, 0.5


class Totals(NamedTuple):
    """Numbers of a shower as a whole.

    Attributes:
      n: points of each layer.
      energy: of each layer [MeV].
      inner: share of it in the innermost ring.
      centre: of gravity, x and y [mm].
    """

    n: Int[Array, " layers"]
    energy: Float[Array, " layers"]
    inner: Float[Array, " layers"]
    centre: Float[Array, "2"]


def poisson_parts(
    key: Key,
    voxels: Float[Array, "layers angles rings"],
    scores: Float[Array, "layers angles rings"],
    rates: Float[Array, "layers rings"],
) -> Int[Array, "layers angles rings"]:
    """Numbers of points: Poisson of these rates, but not zero, of voxels with energy; else zero.

    Args:
      key: of the numbers.
      voxels: energies [MeV].
      scores: normal scores of the energies among those of their places.
      rates: of the Poisson distributions.
    """
    k = jnp.arange(1, _MOST_PARTS)[None, None]
    rates = jnp.maximum(rates, 1e-6)[..., None]
    log_p = k * jnp.log(rates) - jax.scipy.special.gammaln(k + 1.0) - jnp.log(jnp.expm1(rates))
    below = jnp.cumsum(jnp.exp(log_p), axis=-1)[:, None]
    noise = jax.random.normal(key, (voxels.size,)).reshape(voxels.shape)
    u = ndtr(_CORRELATION * scores + np.sqrt(1 - _CORRELATION**2) * noise)
    return jnp.where(voxels > 0, 1 + jnp.sum(u[..., None] > below, axis=-1), 0)


def rates_of_hits(
    hits: Int[Array, " layers"], rates: Float[Array, "layers rings"], num_angles: int
) -> Float[Array, "layers rings"]:
    """Rates [layers, rings] in a shower: those of the average one times a factor in each layer.

    With the factor, independent points hit as many voxels of the layer as the shower has hit. The
    average rates would not do: showers of one energy differ, and in one with more hits than others
    points fall into the same voxel more often.

    Args:
      hits: voxels hit.
      rates: of the average shower of this energy.
      num_angles: voxels of a ring.
    """
    rates = jnp.maximum(rates, 1e-6)
    most = _HIGHEST_RATE / jnp.max(rates, axis=1)

    def step(_, factor):
        missed = jnp.exp(-factor[:, None] * rates)
        more = hits - num_angles * jnp.sum(1 - missed, axis=1)
        return jnp.minimum(factor + more / (num_angles * jnp.sum(rates * missed, axis=1)), most)

    # The number of hits is concave in the factor: from below, no step goes too far.
    factor = jax.lax.fori_loop(0, _RATE_STEPS, step, jnp.zeros(len(rates)))
    return factor[:, None] * rates


def to_points(
    geometry: Geometry,
    key: Key,
    voxels: Float[Array, "layers angles rings"],
    parts: Int[Array, "layers angles rings"],
    slots: int,
) -> tuple[Float[Array, "slots 4"], Int[Array, ""]]:
    """Points of a shower, padded with zeros, and how many there are.

    Args:
      geometry: a regular one.
      key: of the places within voxels.
      voxels: energies [MeV].
      parts: points of each voxel, zero where there is no energy.
      slots: rows; the last points are lost of a shower that has more.
    """
    voxels, parts = voxels.ravel(), parts.ravel()
    num = jnp.minimum(jnp.sum(parts), slots)
    voxel = jnp.repeat(jnp.arange(voxels.size), parts, total_repeat_length=slots)
    layer, angle, ring = jnp.unravel_index(voxel, geometry.shape)
    u = _MARGIN + (1 - 2 * _MARGIN) * jax.random.uniform(key, (2 * slots,)).reshape(2, slots)
    alpha = -np.pi + 2 * np.pi / geometry.shape[1] * (angle + u[0])
    squares = jnp.asarray(np.square(geometry.layers[0].r_edges), jnp.float32)
    radius = jnp.sqrt(squares[ring] + (squares[ring + 1] - squares[ring]) * u[1])
    energy = voxels[voxel] / jnp.maximum(parts[voxel], 1)
    columns = radius * jnp.cos(alpha), radius * jnp.sin(alpha), layer + 0.5, energy
    points = jnp.stack(columns, axis=1)
    return jnp.where(valid(num, slots)[:, None], points, 0), num


def to_voxels(
    geometry: Geometry, points: Float[Array, "slots 4"], n: Int[Array, ""]
) -> Float[Array, "layers angles rings"]:
    """Sums of the energies [MeV] of the first n points; those outside count in the next voxel."""
    energy = jnp.where(valid(n, len(points)), points[:, 3], 0)
    sums = jnp.zeros(geometry.num_voxels, points.dtype)
    return sums.at[voxel_of(geometry, points)].add(energy).reshape(geometry.shape)


def voxel_of(geometry: Geometry, points: Float[Array, "slots 4"]) -> Int[Array, " slots"]:
    """Index of the voxel of each point, for those outside of the next one."""
    num_z, num_alpha, num_r = geometry.shape
    x, y, z, _ = points.T
    angle = jnp.floor((jnp.arctan2(y, x) + np.pi) * (num_alpha / (2 * np.pi))).astype(int)
    layer = jnp.clip(jnp.floor(z).astype(int), 0, num_z - 1)
    return (layer * num_alpha + angle % num_alpha) * num_r + ring_of(geometry, x**2 + y**2)


def ring_of(geometry: Geometry, square: Float[Array, "*n"]) -> Int[Array, "*n"]:
    """Ring of a square of the radius [mm^2], the last for what is outside."""
    inner = np.square(geometry.layers[0].r_edges[1:-1]).astype(np.float32)
    return jnp.sum(square[..., None] >= inner.reshape(*(1,) * square.ndim, -1), axis=-1)


def totals(geometry: Geometry, points: Float[Array, "slots 4"], n: Int[Array, ""]) -> Totals:
    """Points and energies of layers, and the centre of gravity."""
    rows, num = valid(n, len(points)), geometry.num_layers
    energy = jnp.where(rows, points[:, 3], 0)
    layer = jnp.clip(jnp.floor(points[:, 2]).astype(int), 0, num - 1)
    by_layer = lambda a: jax.ops.segment_sum(a, layer, num)
    total, energies = jnp.sum(energy), by_layer(energy)
    centre = jnp.sum(energy[:, None] * points[:, :2], axis=0) / jnp.where(total > 0, total, 1)
    inner = by_layer(jnp.where(_is_inner(geometry, points), energy, 0))
    return Totals(by_layer(rows.astype(jnp.int32)), energies, factors(energies, inner), centre)


def _is_inner(geometry, points):
    return ring_of(geometry, points[:, 0] ** 2 + points[:, 1] ** 2) == 0


def group_energies(
    inner: Float[Array, " layers"], outer: Float[Array, " layers"], whole: Totals
) -> tuple[Float[Array, " layers"], Float[Array, " layers"]]:
    """Energies that the innermost ring and all others of each layer should have.

    Args:
      inner: what the ring has; where there is none, there will be none.
      outer: what the others have, likewise.
      whole: numbers of the shower.
    """
    share = jnp.where(outer > 0, jnp.where(inner > 0, whole.inner, 0), 1)
    return whole.energy * share, whole.energy * (1 - share)


def layer_of_rows(n: Int[Array, " layers"], slots: int) -> Int[Array, " slots"]:
    """Layer of each row of a shower's points, which are sorted by it; of padding the last."""
    layer = jnp.searchsorted(jnp.cumsum(n), jnp.arange(slots), side="right")
    return jnp.minimum(layer, len(n) - 1)


def calibrated(
    geometry: Geometry, points: Float[Array, "slots 4"], target: Totals
) -> Float[Array, "slots 4"]:
    """Points with the energies of `target` in each layer and its innermost ring, and its centre.

    Independent points share the energy of a layer among rings at random, in showers the narrow core
    keeps its part: without the second the mean radius of showers varies too much.

    The published last step shifts all points to the centre of gravity (2309.05704, Sec. 3.3), which
    moves the narrow core of an electron shower, fills the rings around it and makes the mean radius
    of all showers wrong by a standard deviation. Here the points are turned about the axis, see
    `turned`: radii and energies stay.

    Args:
      geometry: a regular one.
      points: sorted by layer, target.n of each.
      target: numbers of the shower.
    """
    layer, rows = layer_of_rows(target.n, len(points)), valid(jnp.sum(target.n), len(points))
    energy = jnp.where(rows, points[:, 3], 0)
    group = 2 * layer + jnp.where(_is_inner(geometry, points), 0, 1)
    now = jax.ops.segment_sum(energy, group, 2 * len(target.n)).reshape(-1, 2)
    wanted = jnp.stack(group_energies(*now.T, target), axis=1)
    energy = energy * factors(now, wanted).ravel()[group]
    plane = turned(points[:, :2], energy, target.centre)
    moved = jnp.concatenate([plane, points[:, 2:3], energy[:, None]], axis=1)
    return jnp.where(rows[:, None], moved, 0)


def turned(
    plane: Float[Array, "slots 2"], energy: Float[Array, " slots"], centre: Float[Array, "2"]
) -> Float[Array, "slots 2"]:
    """Points turned about the axis until their centre of gravity is `centre`.

    The Moebius map z -> (z + a) / (1 + conj(a) z) of the unit circle takes angles to one side and
    keeps their order. Its two numbers are found by Newton's method. A centre that points of these
    radii and energies hardly have, of few points most of all, is approached and not reached.

    Args:
      plane: x and y [mm].
      energy: of each point, zero of padding.
      centre: of gravity, x and y [mm].
    """
    radius = jnp.hypot(plane[:, 0], plane[:, 1])
    # Complex numbers as two rows, which not all that programs are exported to knows otherwise.
    direction = (plane / jnp.where(radius > 0, radius, 1)[:, None]).T
    weight = (energy * radius / jnp.maximum(jnp.sum(energy), 1e-30))[None]
    total, length = jnp.sum(weight), lambda z: jnp.sqrt(z[0] ** 2 + z[1] ** 2)
    one = jnp.array([[1.0], [0.0]])

    def step(_, state):
        z, nearest, least = state
        missing = centre - jnp.sum(weight * z, axis=1)
        nearer = length(missing) < least
        nearest = jnp.where(nearer, z, nearest)
        # To first order a map moves the centre by total * a + second * conj(a).
        second = -jnp.sum(weight * _product(z, z), axis=1)
        square = jnp.sum(second**2)
        determinant = jnp.maximum(total**2 - square, 1e-6 * total**2 + 1e-30)
        a = (missing * total - _product(_conjugate(missing), second)) / determinant
        a = (a * jnp.minimum(1.0, _LONGEST_STEP / jnp.maximum(length(a), 1e-30)))[:, None]
        # Maps one after the other are one of the kind.
        below = one + _product(_conjugate(a), z)
        z = _product(z + a, _conjugate(below)) / jnp.sum(below**2, axis=0, keepdims=True)
        return z, nearest, jnp.where(nearer, length(missing), least)

    start = direction, direction, jnp.full_like(total, jnp.inf)
    _, z, _ = jax.lax.fori_loop(0, _STEPS, step, start)
    z = z / jnp.maximum(length(z), 1e-30)[None]  # many maps are rounded
    return radius[:, None] * z.T


def _product(a: Float[Array, "2 ..."], b: Float[Array, "2 ..."]) -> Float[Array, "2 ..."]:
    """Of complex numbers, real and imaginary parts in rows."""
    return jnp.stack([a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]])


def _conjugate(a: Float[Array, "2 ..."]) -> Float[Array, "2 ..."]:
    return jnp.stack([a[0], -a[1]])


def cut(
    voxels: Float[Array, "layers angles rings"], energy: Float[Array, " layers"], threshold: float
) -> Float[Array, "layers angles rings"]:
    """Voxels below the threshold [MeV] emptied, those above scaled to the energies of layers."""
    kept = jnp.where(voxels < threshold, 0, voxels).reshape(len(energy), -1)
    return (kept * factors(jnp.sum(kept, axis=1), energy)[:, None]).reshape(voxels.shape)


def factors(now: Float[Array, "*n"], wanted: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Wanted / now, zero where there is none now."""
    return jnp.where(now > 0, wanted / jnp.where(now > 0, now, 1), 0)

"""A box of square cells, for generators that see a shower as one array."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jgen.showers.data.geometry import Geometry

# Far below the threshold of any cell; the logarithm of a mean of zero stays finite.
_SMALLEST_MEAN = 1e-9


def cartesian_cells(
    voxels: Float[np.ndarray, "n num_voxels"],
    geometry: Geometry,
    rng: np.random.Generator,
    *,
    layers: int,
    side: int,
) -> Float[np.ndarray, "n z y x"]:
    """Energies [MeV] of cells of `layers` layers and `side` x `side` squares over regular voxels.

    Of DS2, 3 layers and side 10 give 15 x 10 x 10 cells of 8.37 mm. Those in the corners, outside
    of the largest ring, are always empty.

    Squares cut through rings, and the read-out does not say where in its voxel an energy was left.
    So each voxel of each shower gives its whole energy to one cell: that of a point drawn uniformly
    in its ring sector. Each merged layer keeps its energy, every cell is a sum of energies that
    were read out, and no small ones are invented, as they would be if voxels were split in
    proportion to areas: those would change the spectrum of single cells. The price is randomness
    that Geant4 did not make: another generator moves a voxel on the border of two cells from one to
    the other. And within a voxel the energy falls with the radius, which uniform points do not
    know.

    Args:
      voxels: energies [MeV], as in `Geometry`.
      geometry: of the voxels; all layers have the same binning.
      rng: draws two numbers for each voxel that is not empty.
      layers: that are merged to one.
      side: cells on either side of the square that the largest ring touches.

    Raises:
      ValueError: if `layers` does not divide those of the geometry, there is no cell, or the voxels
        are not the geometry's.
    """
    num_z = geometry.shape[0]
    if layers < 1 or num_z % layers:
        raise ValueError(
            f"{layers} layers do not divide the {num_z} of {geometry.name}; choose a divisor"
        )
    if side < 1:
        raise ValueError(f"a layer needs at least one cell, got side {side}")
    if voxels.ndim != 2 or voxels.shape[1] != geometry.num_voxels:
        raise ValueError(
            f"{geometry.name} has {geometry.num_voxels} voxels a shower, got {voxels.shape}"
        )
    shower, voxel = np.nonzero(voxels)
    z, alpha, r = np.unravel_index(voxel, geometry.shape)
    edges = np.asarray(geometry.layers[0].r_edges)
    index = [shower, z // layers]
    for coordinate in points_in_sectors(geometry, rng, alpha, r)[::-1]:
        # In units of cells, from the edge of the square; rounding must not leave it.
        scaled = (coordinate / edges[-1] + 1) * side / 2
        index.append(np.clip(scaled.astype(int), 0, side - 1))
    shape = (len(voxels), num_z // layers, side, side)
    where = np.ravel_multi_index(index, shape)
    sums = np.bincount(where, voxels[shower, voxel], minlength=np.prod(shape))
    return sums.reshape(shape).astype(voxels.dtype)


def points_in_sectors(
    geometry: Geometry,
    rng: np.random.Generator,
    alpha: Int[np.ndarray, " n"],
    r: Int[np.ndarray, " n"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Coordinates (x, y) [mm] of points, each uniform in the area of one ring sector.

    Args:
      geometry: all of whose layers have the same binning.
      rng: draws two numbers a point.
      alpha: bins of the angle.
      r: bins of the radius.
    """
    squares = np.asarray(geometry.layers[0].r_edges) ** 2
    low, high = squares[r], squares[r + 1]
    radius = np.sqrt(low + (high - low) * rng.random(len(r)))
    angle = -np.pi + 2 * np.pi / geometry.shape[1] * (alpha + rng.random(len(r)))
    return radius * np.cos(angle), radius * np.sin(angle)


def turned(
    voxels: Float[np.ndarray, "n num_voxels"], geometry: Geometry, rng: np.random.Generator
) -> Float[np.ndarray, "n num_voxels"]:
    """Showers, each turned by a random number of bins of the angle, and half of them reflected.

    A particle that comes in along the axis makes these as often as the showers themselves.

    Args:
      voxels: energies [MeV], as in `Geometry`.
      geometry: all of whose layers have the same binning.
      rng: draws two numbers a shower.
    """
    num, alphas = len(voxels), geometry.shape[1]
    order = np.arange(alphas) + rng.integers(alphas, size=(num, 1))
    order = np.where(rng.random((num, 1)) < 0.5, order, -order) % alphas
    blocks = voxels.reshape(num, *geometry.shape)
    return np.take_along_axis(blocks, order[:, None, :, None], axis=2).reshape(num, -1)


def cell_radii(side: int, half_width: float) -> Float[np.ndarray, "y x"]:
    """Distances of the centres of a layer's cells from the axis, in the unit of `half_width`."""
    line = (np.arange(side) + 0.5) / side * 2 - 1
    return half_width * np.hypot(line[:, None], line)


def box_observables(
    energies: Float[np.ndarray, " n"], cells: Float[np.ndarray, "n z y x"], half_width: float
) -> dict[str, Float[np.ndarray, " n"]]:
    """What single showers in a box are compared in.

    Args:
      energies: incident energies [MeV].
      cells: energies of cells [MeV].
      half_width: of a layer [mm].

    Returns:
      `response`, the visible energy over the incident one; `num_hits`, cells that are not empty;
      `depth` and `length`, mean and standard deviation of the energy in depth [cells]; `radius`,
      its mean distance from the axis [mm]; `hottest_cell`, the largest energy over the incident.
    """
    cells = np.asarray(cells, np.float64)
    total = np.maximum(cells.sum(axis=(1, 2, 3)), 1e-12)
    layers, image = cells.sum(axis=(2, 3)), cells.sum(axis=1)
    z, r = np.arange(layers.shape[1]), cell_radii(image.shape[1], half_width)
    depth = layers @ z / total
    return {
        "response": total / energies,
        "num_hits": (cells > 0).sum(axis=(1, 2, 3)).astype(np.float64),
        "depth": depth,
        "length": np.sqrt(np.maximum(layers @ z**2 / total - depth**2, 0)),
        "radius": (image * r).sum(axis=(1, 2)) / total,
        "hottest_cell": cells.max(axis=(1, 2, 3)) / energies,
    }


def ring_means(
    cells: Float[np.ndarray, "n z y x"], half_width: float
) -> tuple[Float[np.ndarray, "n z 1 rings"], Float[np.ndarray, " edges"]]:
    """Mean energies of the cells in rings one cell wide around the axis, and the rings' edges.

    The result has the axes (shower, layer, angle, radius) of regular voxels.
    """
    side = cells.shape[-1]
    edges = np.arange(side // 2 + 1) * half_width * 2 / side
    index = np.digitize(cell_radii(side, half_width), edges) - 1
    means = [cells[:, :, index == ring].mean(axis=2) for ring in range(side // 2)]
    return np.stack(means, axis=2)[:, :, None], edges


def compressed(energies: Array, scale: float) -> Array:
    """Logarithm log(1 + E / scale): linear below `scale` [MeV], zero stays zero."""
    return jnp.log1p(energies / scale)


def decompressed(x: Array, scale: float) -> Array:
    """Energies E [MeV] of `compressed` numbers; negative ones give zero."""
    return scale * jnp.expm1(jnp.maximum(x, 0))


def poisson_deviance(x: Float[Array, "*cells"], y: Float[Array, "*cells"]) -> Float[Array, ""]:
    """Deviance 2 sum [m - e + e log(e / m)] of energies e from their means m, summed over cells.

    Both are `compressed`, and count energies in units of its scale. On average it is least where m
    is the mean of e, whatever the distribution of e, and so it keeps the energy that a squared
    error of compressed numbers loses in cells that are empty in most showers. Fluctuations
    of variance m have equal weight, those of a sum of quanta as large as the scale.
    """
    energies, means = jnp.expm1(x), jnp.expm1(y) + _SMALLEST_MEAN
    xlogy = jax.scipy.special.xlogy
    return 2 * jnp.sum(means - energies + xlogy(energies, energies) - xlogy(energies, means))


def cut_and_scaled(
    energies: Float[Array, "*cells"], total: Float[Array, ""], threshold: float
) -> Float[Array, "*cells"]:
    """A shower of the given total energy without cells below the threshold, all in MeV.

    What is below the threshold after a first scaling is cut, and the rest is scaled again: upwards,
    so that no cell falls below. A shower without any cell left stays empty.
    """
    scaled = energies * (total / jnp.maximum(jnp.sum(energies), 1e-12))
    kept = jnp.where(scaled >= threshold, scaled, 0)
    return kept * (total / jnp.maximum(jnp.sum(kept), 1e-12))

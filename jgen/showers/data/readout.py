"""Cylindrical read-outs: deposits of a shower into the voxels of the CaloChallenge."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from jgen.arrays import finite_array, not_negative_array, real_array
from jgen.checks import check_finite, check_not_negative, check_positive
from jgen.showers.data.geometry import Geometry, Layer


@dataclass(frozen=True)
class Grid:
    """A cylindrical read-out around the incident particle."""

    num_z: int = 45
    """Layers."""
    num_alpha: int = 16
    """Angular bins, from -pi to pi."""
    num_r: int = 9
    """Radial bins."""
    r_step: float = 4.65
    """Width of a radial bin [mm]."""
    z_step: float = 3.4
    """Depth of a layer [mm]."""

    @property
    def num_voxels(self) -> int:
        """Voxels of a shower."""
        return self.num_z * self.num_alpha * self.num_r

    def geometry(self, name: str, threshold: float) -> Geometry:
        """What files of such showers are read and drawn with.

        Args:
          name: of the geometry.
          threshold: on a voxel's energy in the file [MeV].
        """
        edges = tuple(round(i * self.r_step, 6) for i in range(self.num_r + 1))
        layers = tuple(Layer(i, edges, self.num_alpha) for i in range(self.num_z))
        return Geometry(name, layers, threshold=threshold, histogram_floor=threshold)


GRIDS = {"ds2": Grid(45, 16, 9, 4.65), "ds3": Grid(45, 50, 18, 2.325)}
"""Read-outs of the CaloChallenge (2410.21611)."""


def shower_coordinates(
    positions: Float[np.ndarray, "n 3"], inner_radius: float
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Depth, angle and radius around a particle that flies along x.

    As in Par04 the direction x becomes the axis, y stays and z turns into its opposite.

    Args:
      positions: x, y, z in the detector [mm].
      inner_radius: x where the shower's depth is zero [mm].

    Returns:
      Depth [mm], alpha in [-pi, pi], r [mm].

    Raises:
      ValueError: if positions are not [n, 3] real numbers.
    """
    check_finite(inner_radius=inner_radius)
    positions = real_array(positions, "positions")
    if positions.ndim != 2 or positions.shape[1] != 3:
        raise ValueError(f"positions need the shape [n, 3], got {positions.shape}")
    x, y, z = positions.T
    return x - inner_radius, np.arctan2(y, -z), np.hypot(y, z)


def voxelise(
    energies: Float[np.ndarray, " n"],
    depth: Float[np.ndarray, " n"],
    alpha: Float[np.ndarray, " n"],
    radius: Float[np.ndarray, " n"],
    grid: Grid,
    threshold: float = 0.0,
    sampling_fraction: float = 1.0,
) -> Float[np.ndarray, " num_voxels"]:
    """Sum the deposits of one shower in the voxels of a grid; those outside of it are lost.

    Args:
      energies: deposited in the active material [MeV].
      depth: along the axis, from the front of the calorimeter [mm].
      alpha: angle around the axis, in [-pi, pi].
      radius: distance from the axis [mm].
      grid: the read-out.
      threshold: a voxel with that energy in active material or less is empty [MeV].
      sampling_fraction: what voxels are divided by after that.

    Returns:
      Energies [MeV], layer after layer, within a layer alpha by alpha, r fastest.

    Raises:
      ValueError: if there are not as many of all, one is not finite, an energy, a radius or the
        threshold is negative, or the sampling fraction is not positive.
    """
    check_not_negative(threshold=threshold)
    check_positive(sampling_fraction=sampling_fraction)
    energies, depth, alpha, radius = _deposits(energies, depth, alpha, radius)
    i_z = np.floor(depth / grid.z_step).astype(np.int64)
    i_alpha = np.floor((alpha + np.pi) * (grid.num_alpha / (2 * np.pi))).astype(np.int64)
    i_alpha %= grid.num_alpha  # pi is -pi
    i_r = np.floor(radius / grid.r_step).astype(np.int64)
    inside = (i_z >= 0) & (i_z < grid.num_z) & (i_r < grid.num_r)
    index = (i_z * grid.num_alpha + i_alpha) * grid.num_r + i_r
    voxels = np.bincount(index[inside], energies[inside], minlength=grid.num_voxels)
    return np.where(voxels > threshold, voxels, 0.0) / sampling_fraction


def _deposits(energies, depth, alpha, radius):
    """Arrays [n] of finite numbers; n may be zero, for a shower that deposits nothing."""
    given = {"energies": energies, "depth": depth, "alpha": alpha, "radius": radius}
    arrays = {name: real_array(values, name) for name, values in given.items()}
    if any(a.ndim != 1 or a.shape != arrays["energies"].shape for a in arrays.values()):
        shapes = [a.shape for a in arrays.values()]
        raise ValueError(f"deposits need energy, depth, alpha and radius [n] each, got {shapes}")
    if len(arrays["energies"]):
        for name, values in arrays.items():
            check = not_negative_array if name in ("energies", "radius") else finite_array
            check(values, name)
    return arrays.values()

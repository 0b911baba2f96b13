"""Coarser read-outs: neighbouring voxels of a regular grid as one."""

import numpy as np

from jgen.checks import check_shape
from jgen.showers.data.geometry import Geometry, Layer
from jgen.showers.data.hdf5 import Showers, check_showers

Block = tuple[int, int, int]


def merged_geometry(geometry: Geometry, block: Block) -> Geometry:
    """A regular geometry of which blocks of (layers, angles, radii) are one voxel.

    The threshold stays: a merged voxel is empty or has at least that of the voxels in it.

    Raises:
      ValueError: if the geometry is not regular, or cannot be cut into such blocks.
    """
    shape, block = geometry.shape, check_shape(block, "block")
    if len(block) != 3 or any(n % b for n, b in zip(shape, block, strict=True)):
        raise ValueError(
            f"{geometry.name!r} of shape {shape} (layers, angles, radii) cannot be cut into blocks "
            f"of {block}; choose divisors"
        )
    layers, angles, radii = (n // b for n, b in zip(shape, block, strict=True))
    edges = geometry.layers[0].r_edges[:: block[2]]
    return Geometry(
        f"{geometry.name}-{layers}x{angles}x{radii}",
        tuple(Layer(i, edges, angles) for i in range(layers)),
        geometry.threshold,
        geometry.histogram_floor,
    )


def merged(showers: Showers, geometry: Geometry, block: Block) -> Showers:
    """Showers of `merged_geometry`, whose voxels are sums over blocks.

    Raises:
      ValueError: as `merged_geometry`, or if the showers are not of the geometry.
    """
    check_showers(showers, geometry)
    coarse = merged_geometry(geometry, block)
    pairs = [size for pair in zip(coarse.shape, block, strict=True) for size in pair]
    parts = np.asarray(showers.voxels, np.float64).reshape(-1, *pairs)
    voxels = parts.sum(axis=(2, 4, 6)).reshape(len(parts), -1)
    return Showers(showers.energies, voxels.astype(np.float32))

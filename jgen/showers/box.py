"""A small box of larger cells, for generators that see a shower as one array."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.showers.geometry import Geometry


def merged_cells(
    voxels: Float[np.ndarray, "n num_voxels"], geometry: Geometry, layers: int, angles: int
) -> Float[np.ndarray, "n z alpha r"]:
    """Energies [MeV] of cells of `layers` x `angles` neighbouring voxels of a regular geometry.

    Of DS2, 3 layers and 2 angles give 15 x 8 x 9 cells. Each is an exact sum of what was read out.
    A Cartesian box of the same size, such as the 10 x 10 x 15 of 2008.06545, would have to split
    the energies of rings among squares, which invents small energies and so changes the spectrum
    of single cells that a post-processor is to learn.

    Raises:
      ValueError: if the numbers do not divide those of the geometry, or the voxels are not its own.
    """
    num_z, num_alpha, num_r = geometry.shape
    if layers < 1 or angles < 1 or num_z % layers or num_alpha % angles:
        raise ValueError(
            f"{layers} layers and {angles} angles do not divide the {num_z} layers and {num_alpha} "
            f"angles of {geometry.name}; choose divisors"
        )
    if voxels.ndim != 2 or voxels.shape[1] != geometry.num_voxels:
        raise ValueError(
            f"{geometry.name} has {geometry.num_voxels} voxels a shower, got {voxels.shape}"
        )
    shape = (len(voxels), num_z // layers, layers, num_alpha // angles, angles, num_r)
    return voxels.reshape(shape).sum(axis=(2, 4))


def compressed(energies: Array, scale: float) -> Array:
    """Logarithm log(1 + E / scale): linear below `scale` [MeV], zero stays zero."""
    return jnp.log1p(energies / scale)


def decompressed(x: Array, scale: float) -> Array:
    """Energies E [MeV] of `compressed` numbers; negative ones give zero."""
    return scale * jnp.expm1(jnp.maximum(x, 0))


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

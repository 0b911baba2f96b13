"""Energies of voxels after all: those of independent points become those of the training sample.

Of independent points the spectrum of voxels is smeared. In showers a particle that crosses a cell
leaves 2 MeV, and hardly any cell has less. The parts that a voxel is divided into do not know this:
alone in a voxel they fill the place below the edge. A monotone map mends the spectrum, of each ring
and of voxels that as many points are in on average, from quantiles of showers made by the network
to those of the training sample.

What energies of layers then miss is given to or taken from what voxels have above the edge: one
factor for all would move it, by as much as layers differ.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jgen.showers.clouds.pieces import table
from jgen.showers.clouds.points import Totals, factors, group_energies

EDGE = 2.3
"""What hardly any particle leaves less than that crosses a cell, in DS2 and DS3 [MeV]."""
# Largest factor of what is above the edge; where another is asked for, all voxels are scaled.
_LARGEST = 3.0
# Knots of the map in the logarithm of the energy [MeV].
_KNOTS = np.linspace(np.log(0.01), np.log(1000), 251)
_STEP = _KNOTS[1] - _KNOTS[0]
# Ranges of density of a ring, of as many voxels each, and the fewest hits in one.
_DENSITIES, _FEWEST = 12, 2000
_QUANTILES = 200


class Spectrum(NamedTuple):
    """A map of voxel energies.

    Attributes:
      densities: points a voxel, where ranges of a ring end.
      shifts: of the logarithm of the energy at `_KNOTS`, in each ring and range.
    """

    densities: Float[np.ndarray, "rings ends"]
    shifts: Float[np.ndarray, "rings ranges knots"]

    def mapped(
        self,
        voxels: Float[Array, "layers angles rings"],
        density: Float[Array, "layers rings"],
    ) -> Float[Array, "layers angles rings"]:
        """Energies [MeV] of voxels, empty ones staying empty, by the map of their density."""
        ranges = jnp.sum(density[..., None] >= table(self.densities)[None], axis=-1)
        num, count = self.shifts.shape[1:]
        first = (jnp.arange(voxels.shape[2])[None] * num + ranges) * count
        place = jnp.clip((jnp.log(jnp.maximum(voxels, 1e-6)) - _KNOTS[0]) / _STEP, 0, count - 1)
        left = jnp.minimum(jnp.floor(place), count - 2)
        entry = first[:, None] + left.astype(int)
        values = table(self.shifts.ravel())
        shift = values[entry] + (place - left) * (values[entry + 1] - values[entry])
        return voxels * jnp.exp(shift)

    def then(self, made: "Sample", true: "Sample") -> "Spectrum":
        """The map after which voxels have the spectrum of others.

        Args:
          made: voxels with this map.
          true: others.
        """
        shifts = np.array(self.shifts)
        for ring, ends in enumerate(self.densities):
            (low, at), (high, wanted) = _hits(*made, ring), _hits(*true, ring)
            at, wanted = np.digitize(at, ends), np.digitize(wanted, ends)
            for i, shift in enumerate(shifts[ring]):
                more = _shifts(low[at == i], high[wanted == i])
                shift += np.interp(_KNOTS + shift, _KNOTS, more)
        return self._replace(shifts=shifts)


class Sample(NamedTuple):
    """Showers that the map is found with.

    Attributes:
      voxels: energies [MeV].
      density: points a voxel by layer and ring, see `densities`.
    """

    voxels: Float[np.ndarray, "n layers angles rings"]
    density: Float[np.ndarray, "n layers rings"]


def unchanged(true: Sample) -> Spectrum:
    """The map to begin with: none, with ranges of density in which a sample has as many hits."""
    rings = range(true.voxels.shape[-1])
    ends = np.stack([_ends(*_hits(*true, ring)) for ring in rings])
    return Spectrum(ends, np.zeros((len(rings), _DENSITIES, len(_KNOTS)), np.float32))


def densities(
    n: Float[Array, "*n layers"] | Int[Array, "*n layers"] | np.ndarray,
    inside: Float[np.ndarray, "layers edges"],
    num_angles: int,
) -> Array | np.ndarray:
    """Points a voxel [..., layers, rings] of showers with so many points in their layers."""
    return n[..., None] * (np.diff(inside, axis=1) / num_angles).astype(np.float32)


def _ends(logs, places):
    """Of ranges with as many hits each; where hits are few, some are at infinite density."""
    num = max(1, min(_DENSITIES, len(logs) // _FEWEST))
    ends = np.quantile(places, np.linspace(0, 1, num + 1)[1:-1]) if num > 1 else []
    return np.concatenate([ends, np.full(_DENSITIES - num, np.inf)]).astype(np.float32)


def _hits(voxels, density, ring):
    """Logarithms of energies in a ring, and densities."""
    hit = voxels[..., ring] > 0
    places = np.broadcast_to(density[:, :, None, ring], hit.shape)
    return np.log(voxels[..., ring][hit]), places[hit]


def _shifts(made, true):
    """At the knots, of quantiles to quantiles; beyond the outermost ones as these."""
    num = min(_QUANTILES, min(len(made), len(true)) // 20)
    if num < 2:
        return np.zeros(len(_KNOTS))
    at = np.linspace(0, 1, num + 1)
    at = (at[1:] + at[:-1]) / 2
    low, high = np.quantile(made, at), np.quantile(true, at)
    return np.interp(_KNOTS, low, high - low)


def energies_kept(
    voxels: Float[Array, "layers angles rings"], whole: Totals
) -> Float[Array, "layers angles rings"]:
    """Voxels with the energies of a shower's layers and innermost ring.

    What is above `EDGE` is scaled, or all where that does not do.
    """
    inner, outer = voxels[..., :1], voxels[..., 1:]
    sums = (jnp.sum(part, axis=(1, 2)) for part in (inner, outer))
    wanted = group_energies(*sums, whole)
    return jnp.concatenate([_scaled(*one) for one in zip((inner, outer), wanted, strict=True)], 2)


def _scaled(voxels, energy):
    low = jnp.minimum(voxels, EDGE)
    total, below, above = (jnp.sum(a, axis=(1, 2)) for a in (voxels, low, voxels - low))
    factor = factors(above, energy - below)
    one = (factor > 1 / _LARGEST) & (factor < _LARGEST)
    some = low + (voxels - low) * factor[:, None, None]
    return jnp.where(one[:, None, None], some, voxels * factors(total, energy)[:, None, None])

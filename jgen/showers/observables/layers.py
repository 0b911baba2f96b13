"""What follows from the energies of the layers alone."""

import numpy as np
from jaxtyping import Float

from jgen.showers.data import Showers


def layer_energies(showers: Showers, num_layers: int) -> Float[np.ndarray, "n layers"]:
    """Energies [MeV] of the layers."""
    return showers.voxels.reshape(len(showers.voxels), num_layers, -1).sum(axis=2)


def layer_observables(
    layers: Float[np.ndarray, "n layers"], incident: Float[np.ndarray, " n"]
) -> dict[str, Float[np.ndarray, " n"]]:
    """Observables of showers that follow from their layer energies, in float64.

    Args:
      layers: energies [MeV].
      incident: incident energies [MeV].

    Returns:
      `E_ratio` = E_tot / E_inc; `depth`, the energy-weighted mean number of the layer, counted from
      0, and `length`, its standard deviation; both are 0 for a shower without energy.
    """
    layers = np.asarray(layers, np.float64)
    total = layers.sum(axis=1)
    weights = layers / np.where(total > 0, total, 1)[:, None]
    number = np.arange(layers.shape[1])
    depth = weights @ number
    square = np.sum(weights * (number[None] - depth[:, None]) ** 2, axis=1)
    return {"E_ratio": total / incident, "depth": depth, "length": np.sqrt(square)}

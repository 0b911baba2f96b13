"""What follows from the energies of the layers alone."""

import numpy as np
from jaxtyping import Float

from jgen.arrays import finite_array, not_negative_array, positive_array, real_array
from jgen.checks import check_sizes
from jgen.showers.data import Showers


def layer_energies(showers: Showers, num_layers: int) -> Float[np.ndarray, "n layers"]:
    """Energies [MeV] of the layers.

    Raises:
      ValueError: if the voxels are no table, or cannot be divided into so many layers.
    """
    check_sizes(num_layers=num_layers)
    voxels = real_array(showers.voxels, "voxels")
    if voxels.ndim != 2 or voxels.shape[1] % num_layers:
        raise ValueError(f"voxels {voxels.shape} cannot be divided into {num_layers} layers")
    return voxels.reshape(len(voxels), num_layers, -1).sum(axis=2)


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

    Raises:
      ValueError: unless there is one positive incident energy a shower, and all are finite.
    """
    layers = not_negative_array(layers, "layers", ndim=2)
    incident = positive_array(finite_array(incident, "incident"), "incident", ndim=1)
    if len(incident) != len(layers):
        raise ValueError(
            f"one incident energy a shower is needed, got {len(incident)} for {len(layers)} showers"
        )
    total = layers.sum(axis=1)
    weights = layers / np.where(total > 0, total, 1)[:, None]
    number = np.arange(layers.shape[1])
    depth = weights @ number
    square = np.sum(weights * (number[None] - depth[:, None]) ** 2, axis=1)
    return {"E_ratio": total / incident, "depth": depth, "length": np.sqrt(square)}

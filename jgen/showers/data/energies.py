"""Incident energies that generators are asked for."""

import numpy as np
from jaxtyping import Float

from jgen.arrays import cast_array, real_array


def checked_energies(
    energies: Float[np.ndarray, " n"], energy_range: tuple[float, float]
) -> Float[np.ndarray, " n"]:
    """Incident energies as float32; beyond the training sample numbers mean nothing.

    Args:
      energies: incident energies [MeV].
      energy_range: lowest and highest of the training sample [MeV].

    Raises:
      ValueError: if the energies are not one or more numbers [n] within the range.
    """
    low, high = energy_range
    energies = cast_array(real_array(energies, "energies"), "energies")
    inside = (energies >= low * (1 - 1e-3)) & (energies <= high * (1 + 1e-3))
    if energies.ndim != 1 or not len(energies) or not np.all(inside):
        ends = f", from {energies.min():.6g} to {energies.max():.6g}" if energies.size else ""
        raise ValueError(
            f"energies must be one or more numbers [n] from {low:.6g} to {high:.6g} MeV, those "
            f"of the training sample, got shape {energies.shape}{ends}"
        )
    return energies

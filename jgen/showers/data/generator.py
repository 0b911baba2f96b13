"""What trained generators of showers have in common."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from jgen.generative_model import GenerativeModel, draw
from jgen.showers.data.energies import checked_energies
from jgen.showers.data.hdf5 import Showers
from jgen.typing import Key, Params


class ShowerGenerator:
    """Base of dataclasses that are trained generators.

    Attributes:
      model: of showers in MeV given the incident energy in MeV.
      params: its parameters.
      energy_range: incident energies [MeV] of the training sample.
    """

    model: GenerativeModel
    params: Params
    energy_range: tuple[float, float]

    def draw(
        self,
        key: Key,
        energies: Float[np.ndarray, " n"],
        *,
        batch_size: int = 100,
        progress: bool = False,
    ) -> Showers:
        """One shower for each incident energy [MeV].

        More than fit into memory are made by `jgen.showers.generate_showers`.

        Args:
          key: typed PRNG key.
          energies: incident energies [MeV].
          batch_size: showers made at a time; attention over n tokens takes 4 n^2 bytes a head of
            each.
          progress: show a progress bar.

        Raises:
          ValueError: if the energies are not one or more numbers [n] that `checked` allows.
        """
        energies = self.checked(energies)
        args = (self.model, self.params, key, len(energies), energies)
        voxels = draw(*args, batch_size=min(batch_size, len(energies)), progress=progress)
        return Showers(energies, voxels.reshape(len(energies), -1))

    def checked(self, energies: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Incident energies as float32, those within `energy_range`.

        Raises:
          ValueError: as `checked_energies`.
        """
        return checked_energies(energies, self.energy_range)

    def __getstate__(self) -> dict[str, Any]:
        """Fields alone: what a first draw has compiled is not for other processes."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

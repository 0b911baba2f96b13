"""Options and data of the BIB-AE study."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.study import at_least
from jgen import showers as shower_tools
from jgen.showers import bib_ae, box, get_geometry, read_showers, sample_path

GEOMETRY = get_geometry("ds2")
HALF_WIDTH = GEOMETRY.layers[0].r_edges[-1]
"""Of a layer of the box [mm]."""


@dataclass(frozen=True)
class DataConfig:
    """Showers and their box."""

    data: Path | None = None
    """CaloChallenge file in DS2 voxels; the bundled Geant4 showers unless given."""
    layers: int = 3
    """Layers that make one cell of the box."""
    side: int = 10
    """Cells on either side of a layer of the box."""
    copies: int = 8
    """Of each training shower, for the networks: turned, reflected, its voxels in other cells."""
    num_test: int = 1000
    """Showers at the end of the file that are kept for the comparison."""
    num_validation: int = 200
    """Showers before these that stop the trainings of the flows."""
    seed: int = 0
    """Seed of the points by which voxels get their cells, and of the copies."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x) of the box."""
        return GEOMETRY.shape[0] // self.layers, self.side, self.side

    def check(self) -> None:
        """Refuse bad options."""
        at_least(self, layers=1, side=1, copies=1, num_test=100, num_validation=2)
        if GEOMETRY.shape[0] % self.layers:
            raise ValueError(
                f"data.layers is {self.layers}, which does not divide the {GEOMETRY.shape[0]} "
                "layers of the showers; choose a divisor"
            )


@dataclass(frozen=True)
class Config(bib_ae.BibAeConfig):
    """A BIB-AE of electron showers."""

    data: DataConfig = DataConfig()
    """Showers."""
    num_bins: int = 4
    """Bins of the incident energy, equal in its logarithm."""
    num_repeats: int = 5
    """Showers generated for the energy of each test shower."""
    classifier_epochs: int = 50
    """Of the classifier test; 0 leaves it out."""


class Showers(NamedTuple):
    """Showers in the box.

    Attributes:
      energies: incident [n], MeV.
      cells: [n, z, y, x], MeV.
    """

    energies: np.ndarray
    cells: np.ndarray

    @property
    def log_response(self) -> np.ndarray:
        """Logarithm of visible over incident energy [n]."""
        return np.log(self.cells.sum(axis=(1, 2, 3), dtype=np.float64) / self.energies)

    def in_rows(self) -> shower_tools.Showers:
        """Cells of a shower in one row."""
        return shower_tools.Showers(self.energies, self.cells.reshape(len(self.cells), -1))

    @property
    def observables(self) -> dict[str, np.ndarray]:
        """See `jgen.showers.box.box_observables`."""
        return box.box_observables(self.energies, self.cells, HALF_WIDTH)


class Data(NamedTuple):
    """Disjoint sets of showers.

    Attributes:
      train, validation, test: showers.
      copies: showers that networks are trained on, made of the first of these.
    """

    train: Showers
    validation: Showers
    test: Showers
    copies: Showers


@functools.lru_cache(maxsize=1)
def load_data(config: DataConfig) -> Data:
    """Read, split and put into cells."""
    showers = read_showers(config.data or sample_path(), GEOMETRY)
    num = len(showers.energies) - config.num_test - config.num_validation
    rng = np.random.default_rng(config.seed)
    cells_of = lambda voxels: box.cartesian_cells(
        voxels, GEOMETRY, rng, layers=config.layers, side=config.side
    )
    every = Showers(showers.energies, cells_of(showers.voxels))
    cut = [num, num + config.num_validation]
    pieces = zip(*(np.split(array, cut) for array in every), strict=True)
    train, *others = (Showers(*piece) for piece in pieces)
    turned = lambda: box.turned(showers.voxels[:num], GEOMETRY, rng)
    cells = [train.cells, *(cells_of(turned()) for _ in range(config.copies - 1))]
    copies = Showers(np.tile(train.energies, config.copies), np.concatenate(cells))
    return Data(train, *others, copies)

"""Showers of the BIB-AE study in their box."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jgen.showers import get_geometry, read_showers, sample_path
from jgen.showers.box import cartesian_cells

GEOMETRY = get_geometry("ds2")


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
    scale: float = 10.0
    """Networks see log(1 + E / scale) of a cell, in MeV: linear for most cells that are hit."""
    seed: int = 0
    """Seed of the points by which voxels get their cells, and of the copies."""


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


class Data(NamedTuple):
    """Disjoint sets of showers, and the numbers that the training set scales conditions with.

    Attributes:
      train, validation, test: showers.
      copies: showers that networks are trained on, made of the first of these.
      centre: mean of the logarithms (incident energy / MeV, response).
      width: their standard deviation.
    """

    train: Showers
    validation: Showers
    test: Showers
    copies: Showers
    centre: np.ndarray
    width: np.ndarray


def load_data(config: DataConfig) -> Data:
    """Read, split and put into cells."""
    showers = read_showers(config.data or sample_path(), GEOMETRY)
    held = config.num_test + config.num_validation
    num = len(showers.energies) - held
    if not 2 <= config.num_validation or not 100 <= config.num_test <= num:
        raise ValueError(
            f"{num + held} showers are too few for {config.num_test} to test on, "
            f"{config.num_validation} to validate on and as many as the former to train on; "
            "num_test must be 100 or more, and num_validation 2"
        )
    rng = np.random.default_rng(config.seed)
    box = lambda voxels: cartesian_cells(
        voxels, GEOMETRY, rng, layers=config.layers, side=config.side
    )
    every = Showers(showers.energies, box(showers.voxels))
    cut = [num, num + config.num_validation]
    pieces = zip(*(np.split(array, cut) for array in every), strict=True)
    train, *others = (Showers(*piece) for piece in pieces)
    cells = [box(turned(showers.voxels[:num], rng)) for _ in range(config.copies - 1)]
    copies = Showers(np.tile(train.energies, config.copies), np.concatenate([train.cells, *cells]))
    logs = np.stack([np.log(train.energies), train.log_response], axis=1)
    return Data(train, *others, copies, logs.mean(axis=0), logs.std(axis=0))


def turned(voxels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Showers [n, voxels], each turned by a random number of bins of the angle, half reflected.

    Their incident particle is on the axis, so that these are as likely as the showers themselves.
    """
    num, alphas = len(voxels), GEOMETRY.shape[1]
    order = np.arange(alphas) + rng.integers(alphas, size=(num, 1))
    order = np.where(rng.random((num, 1)) < 0.5, order, -order) % alphas
    blocks = voxels.reshape(num, *GEOMETRY.shape)
    return np.take_along_axis(blocks, order[:, None, :, None], axis=2).reshape(num, -1)


def conditions(data: Data, showers: Showers) -> np.ndarray:
    """Standardised logarithms [n, 2] of incident energy and response."""
    logs = np.stack([np.log(showers.energies), showers.log_response], axis=1)
    return np.float32((logs - data.centre) / data.width)


def box_shape(config: DataConfig) -> tuple[int, int, int]:
    """(z, y, x) of the box."""
    return GEOMETRY.shape[0] // config.layers, config.side, config.side

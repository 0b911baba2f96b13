"""Calorimeter geometries of the CaloChallenge: concentric rings of voxels around the shower axis.

The numbers restate the public binning files of the Fast Calorimeter Simulation Challenge
(arXiv:2410.21611). The incident particle enters at the origin along z; every layer is binned in
the angle alpha, from -pi to pi, and in the radius r.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Layer(NamedTuple):
    """One calorimeter layer.

    Attributes:
      id: layer number in the detector; DS1 keeps ATLAS numbers, which skip values.
      r_edges: radial bin edges [mm], increasing.
      num_alpha: number of equal bins in the angle, starting at -pi.
    """

    id: int
    r_edges: tuple[float, ...]
    num_alpha: int

    @property
    def num_r(self) -> int:
        """Number of radial bins."""
        return len(self.r_edges) - 1

    @property
    def num_voxels(self) -> int:
        """Number of voxels in the layer."""
        return self.num_alpha * self.num_r


@dataclass(frozen=True)
class Geometry:
    """A voxelised calorimeter.

    A shower is one flat vector: layer after layer, within a layer alpha by alpha, r fastest.

    Attributes:
      name: the key in `GEOMETRIES`.
      layers: the layers along the shower axis.
      threshold: voxels below it are zeroed before any observable is computed [MeV].
      histogram_floor: lowest edge of the official logarithmic energy histograms [MeV].
    """

    name: str
    layers: tuple[Layer, ...]
    threshold: float
    histogram_floor: float

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def num_voxels(self) -> int:
        """Length of the flat voxel vector."""
        return sum(layer.num_voxels for layer in self.layers)

    @property
    def layer_ids(self) -> tuple[int, ...]:
        """Detector numbers of all layers, in order."""
        return tuple(layer.id for layer in self.layers)

    @property
    def alpha_layer_ids(self) -> tuple[int, ...]:
        """Detector numbers of the layers binned in alpha, the only ones with an eta and a phi."""
        return tuple(layer.id for layer in self.layers if layer.num_alpha > 1)

    @cached_property
    def layer_slices(self) -> tuple[slice, ...]:
        """Where each layer sits in the flat voxel vector."""
        ends = np.cumsum([layer.num_voxels for layer in self.layers]).tolist()
        return tuple(slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True))

    @property
    def is_regular(self) -> bool:
        """Whether all layers share one binning, so that a shower is a (z, alpha, r) block."""
        return len({layer[1:] for layer in self.layers}) == 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n_z, n_alpha, n_r) of a regular grid.

        Raises:
          ValueError: if the layers differ in their binning.
        """
        if not self.is_regular:
            raise ValueError(
                f"geometry {self.name!r} is not a regular grid: its layers have "
                f"{[layer.num_voxels for layer in self.layers]} voxels; use `layer_slices`, or a "
                "regular geometry (ds2, ds3)"
            )
        return self.num_layers, self.layers[0].num_alpha, self.layers[0].num_r

    @cached_property
    def r(self) -> Float[np.ndarray, " num_voxels"]:
        """Radius of every voxel centre [mm]."""
        return self._centres[0]

    @cached_property
    def eta(self) -> Float[np.ndarray, " num_voxels"]:
        """Transverse coordinate r cos(alpha) of every voxel centre [mm], called eta."""
        return _frozen(self._centres[0] * np.cos(self._centres[1]))

    @cached_property
    def phi(self) -> Float[np.ndarray, " num_voxels"]:
        """Transverse coordinate r sin(alpha) of every voxel centre [mm], called phi."""
        return _frozen(self._centres[0] * np.sin(self._centres[1]))

    @cached_property
    def _centres(self) -> tuple[np.ndarray, np.ndarray]:
        radius, angle = [], []
        for layer in self.layers:
            edges = np.linspace(-np.pi, np.pi, layer.num_alpha + 1)
            alpha, r = np.meshgrid(_midpoints(edges), _midpoints(layer.r_edges), indexing="ij")
            angle.append(alpha.ravel())
            radius.append(r.ravel())
        return _frozen(np.concatenate(radius)), _frozen(np.concatenate(angle))


def _midpoints(edges: Iterable[float]) -> np.ndarray:
    edges = np.asarray(edges, dtype=np.float64)
    return edges[:-1] + 0.5 * np.diff(edges)


def _frozen(x: np.ndarray) -> np.ndarray:
    """Cached arrays are shared by every caller, so nobody may write to them."""
    x.flags.writeable = False
    return x


def _cylinder(name: str, num_layers: int, num_alpha: int, num_r: int, step: float) -> Geometry:
    """A regular grid with radial bins of one width `step` [mm]."""
    edges = tuple(round(i * step, 6) for i in range(num_r + 1))
    layers = tuple(Layer(i, edges, num_alpha) for i in range(num_layers))
    # Read-out keeps deposits above 0.5 keV; divided by the sampling fraction 0.033.
    return Geometry(name, layers, threshold=15.15e-3, histogram_floor=15.15e-3)


def _barrel(name: str, layers: tuple[Layer, ...]) -> Geometry:
    """A dataset-1 geometry.

    No read-out threshold is published for dataset 1, and the official feature code applies none
    there; its 10 MeV is only the lower edge of the logarithmic histograms.
    """
    layers = tuple(layer._replace(r_edges=tuple(map(float, layer.r_edges))) for layer in layers)
    return Geometry(name, layers, threshold=0.0, histogram_floor=10.0)


_PRESAMPLER = Layer(0, (0, 5, 10, 30, 50, 100, 200, 400, 600), 1)
_BACK = Layer(3, (0, 50, 100, 200, 400, 600), 1)
_HADRONIC = (0, 10, 20, 30, 50, 80, 100, 130, 160, 200, 250, 300, 350, 400)

_PHOTON_LAYERS = (
    _PRESAMPLER,
    Layer(1, (0, 2, 4, 6, 8, 10, 12, 15, 20, 30, 40, 50, 70, 90, 120, 150, 200), 10),
    Layer(
        2,
        (0, 2, 5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 130, 160, 200, 250, 300, 350, 400),
        10,
    ),
    _BACK,
    Layer(12, (0, 100, 200, 400, 1000, 2000), 1),
)

_PION_LAYERS = (
    _PRESAMPLER,
    Layer(1, (0, 1, 4, 7, 10, 15, 30, 50, 90, 150, 200), 10),
    Layer(2, (0, 5, 10, 20, 30, 50, 80, 130, 200, 300, 400), 10),
    _BACK,
    Layer(12, (*_HADRONIC, 1000, 2000), 10),
    Layer(13, (*_HADRONIC, 600, 1000, 2000), 10),
    Layer(14, (0, 50, 100, 150, 200, 250, 300, 400, 600, 1000, 2000), 1),
)

GEOMETRIES: dict[str, Geometry] = {
    "ds1-photons": _barrel("ds1-photons", _PHOTON_LAYERS),
    "ds1-pions": _barrel("ds1-pions", _PION_LAYERS),
    "ds2": _cylinder("ds2", num_layers=45, num_alpha=16, num_r=9, step=4.65),
    "ds3": _cylinder("ds3", num_layers=45, num_alpha=50, num_r=18, step=2.325),
}


def get_geometry(name: str) -> Geometry:
    """Look up a CaloChallenge geometry.

    Args:
      name: one of "ds1-photons" (368 voxels), "ds1-pions" (533), "ds2" (6480), "ds3" (40500).

    Raises:
      ValueError: for any other name.
    """
    if name not in GEOMETRIES:
        raise ValueError(f"unknown geometry {name!r}; choose one of {sorted(GEOMETRIES)}")
    return GEOMETRIES[name]

"""The calorimeter of the simulation."""

import math
from dataclasses import dataclass

from experiments.study import positive
from jgen.showers import Grid


@dataclass(frozen=True)
class Detector:
    """A sampling calorimeter of concentric cylinders; those of Geant4's example Par04."""

    num_layers: int = 90
    """Pairs of an absorber and an active layer, the absorber first."""
    absorber: str = "G4_W"
    """Material of the absorber, a name of Geant4's NIST database."""
    absorber_thickness: float = 1.4
    """Thickness of an absorber [mm]."""
    active: str = "G4_Si"
    """Material that measures energies."""
    active_thickness: float = 0.3
    """Thickness of an active layer [mm]."""
    inner_radius: float = 800.0
    """Radius of the first absorber [mm]."""
    half_length: float = 1000.0
    """Half the length of the cylinders [mm]."""
    opening: float = 0.24
    """Angle the cylinders span around the particle [rad]. Par04's are full, 2 pi, which takes twice
    the time, for particles far outside of the read-out."""

    @property
    def depth(self) -> float:
        """Thickness of all layers [mm]."""
        return self.num_layers * self._pitch

    @property
    def _pitch(self) -> float:
        return self.absorber_thickness + self.active_thickness

    def check(self) -> None:
        """Raise a ValueError for a calorimeter that cannot be built."""
        lengths = ("absorber_thickness", "active_thickness", "inner_radius")
        positive(self, "num_layers", *lengths, block="detector.")
        if not 0 < self.opening <= 2 * math.pi + 1e-9:
            raise ValueError(f"detector.opening must be in (0, 2 pi], got {self.opening}")


def check_grid(name: str, grid: Grid, detector: Detector) -> None:
    """Raise a ValueError unless the grid fits into the detector."""
    positive(grid, "num_z", "num_alpha", "num_r", "r_step", "z_step", block=f"{name}.")
    pitch = detector.depth / detector.num_layers
    pairs = grid.z_step / pitch
    if round(pairs) < 1 or abs(pairs - round(pairs)) > 1e-6:
        raise ValueError(
            f"{name}.z_step = {grid.z_step} mm is not a whole number of pairs of layers, each "
            f"{pitch:g} mm; its layers would sample unequally"
        )
    if grid.num_z * grid.z_step > detector.depth + 1e-6:
        raise ValueError(
            f"{name} is {grid.num_z * grid.z_step:g} mm deep, the detector only "
            f"{detector.depth:g} mm; lower {name}.num_z or raise detector.num_layers"
        )
    width = min(
        detector.half_length,
        detector.inner_radius * math.sin(min(detector.opening, math.pi) / 2),
    )
    if grid.num_r * grid.r_step > width:
        raise ValueError(
            f"{name} reaches to r = {grid.num_r * grid.r_step:g} mm, the detector only to "
            f"{width:g} mm; raise detector.opening, inner_radius or half_length"
        )

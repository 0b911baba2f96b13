"""Phase space, matrix elements of textbooks and a toy parton density, in GeV and radians."""

from jgen.physics.matrix_elements import (
    GEV2_TO_PB,
    ElectroweakParameters,
    gluons_to_top,
    muon_pair,
    muon_pair_cross_section,
    quarks_to_top,
    top_cross_sections,
)
from jgen.physics.parton_density import toy_parton_density
from jgen.physics.phase_space import (
    boosted,
    massless_volume,
    rambo,
    two_body,
    two_body_volume,
)

__all__ = [
    "GEV2_TO_PB",
    "ElectroweakParameters",
    "boosted",
    "gluons_to_top",
    "massless_volume",
    "muon_pair",
    "muon_pair_cross_section",
    "quarks_to_top",
    "rambo",
    "top_cross_sections",
    "toy_parton_density",
    "two_body",
    "two_body_volume",
]

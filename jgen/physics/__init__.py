"""Four-vectors, phase space, matrix elements of textbooks, a toy parton density: GeV, radians."""

from jgen.physics.four_vectors import (
    angle_difference,
    azimuth,
    boost,
    delta_r,
    four_vector,
    mass,
    mass_squared,
    minkowski,
    pseudorapidity,
    rapidity,
    rotation,
    transverse_momentum,
    wrapped,
)
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
    massless_volume,
    rambo,
    two_body,
    two_body_volume,
)

__all__ = [
    "ElectroweakParameters",
    "GEV2_TO_PB",
    "angle_difference",
    "azimuth",
    "boost",
    "delta_r",
    "four_vector",
    "gluons_to_top",
    "mass",
    "mass_squared",
    "massless_volume",
    "minkowski",
    "muon_pair",
    "muon_pair_cross_section",
    "pseudorapidity",
    "quarks_to_top",
    "rambo",
    "rapidity",
    "rotation",
    "top_cross_sections",
    "toy_parton_density",
    "transverse_momentum",
    "two_body",
    "two_body_volume",
    "wrapped",
]

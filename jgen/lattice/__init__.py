"""Fields on a lattice: scalar phi^4 theory and its flows, observables.

`u1` is U(1) gauge theory in two dimensions, with exact answers: `u1.wilson(beta)` is an energy.
"""

from jgen.lattice import u1
from jgen.lattice.flows import (
    checkerboard_flow,
    equivariant_flow,
    equivariant_velocity,
)
from jgen.lattice.observables import (
    correlator,
    magnetization,
    observables,
    second_moment_length,
    spectrum,
    two_point,
)
from jgen.lattice.phi4 import free_log_z, free_propagator, lattice_momenta, phi4, phi4_action
from jgen.lattice.symmetries import displacement_orbits

__all__ = [
    "checkerboard_flow",
    "correlator",
    "displacement_orbits",
    "equivariant_flow",
    "equivariant_velocity",
    "free_log_z",
    "free_propagator",
    "lattice_momenta",
    "magnetization",
    "observables",
    "phi4",
    "phi4_action",
    "second_moment_length",
    "spectrum",
    "two_point",
    "u1",
]

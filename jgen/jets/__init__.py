"""Jets: constituents as sets of points, substructure, features of whole jets, and their files."""

from jgen.jets.columns import from_columns, to_columns
from jgen.jets.comparison import (
    DISTANCES,
    JetSample,
    coverage_and_mmd,
    energy_movers_distance,
    jet_distances,
    jet_sample,
)
from jgen.jets.constituents import (
    PARTICLES,
    Constituents,
    check_constituents,
    read_jetnet,
    read_jets,
    sample_jets_path,
    write_jetnet,
    write_jets,
)
from jgen.jets.energy_flow import energy_flow_polynomials, graphs, prime_graphs
from jgen.jets.features import (
    FEATURES,
    LABELS,
    JetFeatures,
    check_features,
    compute_features,
    read_features,
    sample_path,
    write_features,
)
from jgen.jets.kinematics import finished, jet_kinematics, mean_image
from jgen.jets.observables import OBSERVABLES, jet_observable, jet_observables, smeared
from jgen.jets.particles import (
    CHARGE_STATES,
    DISPLACED,
    PARTICLE_FEATURES,
    ParticleMap,
    charge_states,
    compare_particles,
    defined_features,
    particle_divergences,
    particle_map,
    particle_numbers,
)
from jgen.jets.preprocessing import (
    SAMPLE_PT_RANGE,
    draw_multiplicities,
    feature_map,
    point_map,
)
from jgen.jets.soft_drop import Groomed, soft_drop
from jgen.jets.substructure import n_subjettiness

__all__ = [
    "CHARGE_STATES",
    "DISPLACED",
    "DISTANCES",
    "FEATURES",
    "LABELS",
    "OBSERVABLES",
    "PARTICLES",
    "PARTICLE_FEATURES",
    "SAMPLE_PT_RANGE",
    "Constituents",
    "Groomed",
    "JetFeatures",
    "JetSample",
    "ParticleMap",
    "charge_states",
    "check_constituents",
    "check_features",
    "compare_particles",
    "compute_features",
    "coverage_and_mmd",
    "defined_features",
    "draw_multiplicities",
    "energy_flow_polynomials",
    "energy_movers_distance",
    "feature_map",
    "finished",
    "from_columns",
    "graphs",
    "jet_distances",
    "jet_kinematics",
    "jet_observable",
    "jet_observables",
    "jet_sample",
    "mean_image",
    "n_subjettiness",
    "particle_divergences",
    "particle_map",
    "particle_numbers",
    "point_map",
    "prime_graphs",
    "read_features",
    "read_jetnet",
    "read_jets",
    "sample_jets_path",
    "sample_path",
    "smeared",
    "soft_drop",
    "to_columns",
    "write_features",
    "write_jetnet",
    "write_jets",
]

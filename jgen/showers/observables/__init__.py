"""What showers are described by, as the CaloChallenge defines it, and its bins."""

from jgen.showers.observables.binning import (
    binning,
    judged_observables,
    layers_of,
    official_binning,
)
from jgen.showers.observables.features import (
    compute_high_level_inputs,
    compute_observables,
    high_level_inputs,
    shower_depth,
    shower_observables,
)
from jgen.showers.observables.layers import layer_energies, layer_observables

__all__ = [
    "binning",
    "compute_high_level_inputs",
    "compute_observables",
    "high_level_inputs",
    "judged_observables",
    "layer_energies",
    "layer_observables",
    "layers_of",
    "shower_observables",
    "official_binning",
    "shower_depth",
]

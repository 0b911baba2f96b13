"""Jets: substructure, features of whole jets and their files."""

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
from jgen.jets.preprocessing import SAMPLE_PT_RANGE, feature_map
from jgen.jets.substructure import n_subjettiness

__all__ = [
    "FEATURES",
    "LABELS",
    "SAMPLE_PT_RANGE",
    "JetFeatures",
    "check_features",
    "compute_features",
    "feature_map",
    "n_subjettiness",
    "read_features",
    "sample_path",
    "write_features",
]

"""Calorimeter showers: geometry, files, observables, preprocessing."""

from jgen.showers.evaluation import Evaluation, EvaluationConfig, evaluate
from jgen.showers.evaluation_report import load_evaluation, save_evaluation, summary_table
from jgen.showers.features import (
    compute_high_level_inputs,
    compute_observables,
    high_level_inputs,
    observables,
    official_binning,
)
from jgen.showers.geometry import GEOMETRIES, Geometry, Layer, get_geometry
from jgen.showers.hdf5 import (
    Showers,
    check_showers,
    count_showers,
    iterate_showers,
    read_showers,
    sample_path,
    write_showers,
)
from jgen.showers.preprocessing import (
    Fractions,
    ShowerPreprocessing,
    Statistics,
    fit_statistics,
    from_fractions,
    load_preprocessing,
    save_preprocessing,
    to_fractions,
)
from jgen.showers.response import Profile, ResponseTest, response_test
from jgen.showers.separations import (
    apply_threshold,
    judged_observables,
    low_level_inputs,
    separations,
)

__all__ = [
    "GEOMETRIES",
    "Evaluation",
    "EvaluationConfig",
    "Fractions",
    "Geometry",
    "Layer",
    "Profile",
    "ResponseTest",
    "ShowerPreprocessing",
    "Showers",
    "Statistics",
    "apply_threshold",
    "check_showers",
    "compute_high_level_inputs",
    "compute_observables",
    "count_showers",
    "evaluate",
    "fit_statistics",
    "from_fractions",
    "get_geometry",
    "high_level_inputs",
    "iterate_showers",
    "judged_observables",
    "load_evaluation",
    "load_preprocessing",
    "low_level_inputs",
    "observables",
    "official_binning",
    "read_showers",
    "response_test",
    "sample_path",
    "save_evaluation",
    "save_preprocessing",
    "separations",
    "summary_table",
    "to_fractions",
    "write_showers",
]

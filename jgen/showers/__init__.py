"""Calorimeter showers: geometry, files, observables, evaluation, and CaloDREAM.

`jgen.showers.calodream` makes, trains, loads and draws; `jgen.showers.box` has square cells.
"""

from jgen.showers import box, calodream
from jgen.showers.calodream import ShowerPreprocessing, generate_showers
from jgen.showers.data import (
    GEOMETRIES,
    Geometry,
    Layer,
    Showers,
    check_showers,
    count_showers,
    get_geometry,
    in_chunks,
    iterate_showers,
    read_showers,
    sample_path,
    write_showers,
)
from jgen.showers.evaluation import (
    Evaluation,
    EvaluationConfig,
    Profile,
    ResponseTest,
    apply_threshold,
    evaluate,
    low_level_inputs,
    response_test,
    separations,
    summary_table,
)
from jgen.showers.observables import (
    binning,
    compute_high_level_inputs,
    compute_observables,
    high_level_inputs,
    judged_observables,
    official_binning,
    shower_observables,
)

__all__ = [
    "Evaluation",
    "EvaluationConfig",
    "GEOMETRIES",
    "Geometry",
    "Layer",
    "Profile",
    "ResponseTest",
    "ShowerPreprocessing",
    "Showers",
    "apply_threshold",
    "binning",
    "box",
    "calodream",
    "check_showers",
    "compute_high_level_inputs",
    "compute_observables",
    "count_showers",
    "evaluate",
    "generate_showers",
    "get_geometry",
    "high_level_inputs",
    "in_chunks",
    "iterate_showers",
    "judged_observables",
    "low_level_inputs",
    "shower_observables",
    "official_binning",
    "read_showers",
    "response_test",
    "sample_path",
    "separations",
    "summary_table",
    "write_showers",
]

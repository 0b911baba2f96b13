"""How showers are judged: the CaloChallenge's tests, each beside truth against truth."""

from jgen.showers.evaluation.judge import (
    compared_observables,
    layer_distances,
    observable_distances,
    shower_judge,
)
from jgen.showers.evaluation.protocol import Evaluation, EvaluationConfig, evaluate
from jgen.showers.evaluation.report import summary_table
from jgen.showers.evaluation.response import Profile, ResponseTest, response_test
from jgen.showers.evaluation.separations import (
    apply_threshold,
    low_level_inputs,
    separations,
    voxel_counts,
)

__all__ = [
    "Evaluation",
    "EvaluationConfig",
    "Profile",
    "ResponseTest",
    "apply_threshold",
    "compared_observables",
    "evaluate",
    "layer_distances",
    "low_level_inputs",
    "observable_distances",
    "response_test",
    "separations",
    "shower_judge",
    "summary_table",
    "voxel_counts",
]

"""How showers are judged: the CaloChallenge's tests, each beside truth against truth."""

from jgen.showers.evaluation.copies import Fingerprints, copies, fingerprints
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
from jgen.showers.evaluation.structure import (
    LayerMoments,
    alignments,
    azimuths,
    deep_holes,
    hole_depths,
    holes,
    layer_moments,
    layer_residuals,
    structure,
)

__all__ = [
    "Evaluation",
    "EvaluationConfig",
    "Fingerprints",
    "LayerMoments",
    "Profile",
    "ResponseTest",
    "alignments",
    "apply_threshold",
    "azimuths",
    "compared_observables",
    "copies",
    "evaluate",
    "fingerprints",
    "deep_holes",
    "hole_depths",
    "holes",
    "layer_distances",
    "layer_moments",
    "layer_residuals",
    "low_level_inputs",
    "observable_distances",
    "response_test",
    "separations",
    "shower_judge",
    "structure",
    "summary_table",
    "voxel_counts",
]

"""How showers are judged: the CaloChallenge's tests, each beside truth against truth."""

from jgen.showers.evaluation.protocol import Evaluation, EvaluationConfig, evaluate
from jgen.showers.evaluation.report import summary_table
from jgen.showers.evaluation.response import Profile, ResponseTest, response_test
from jgen.showers.evaluation.separations import apply_threshold, low_level_inputs, separations

__all__ = [
    "Evaluation",
    "EvaluationConfig",
    "Profile",
    "ResponseTest",
    "apply_threshold",
    "evaluate",
    "low_level_inputs",
    "response_test",
    "separations",
    "summary_table",
]

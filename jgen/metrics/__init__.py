"""How good is a sample: histograms, distances, classifiers, and truth against truth beside each."""

from jgen.metrics.classifier import (
    ClassifierConfig,
    ClassifierResult,
    area_under_curve,
    auc_error,
    classifier_test,
)
from jgen.metrics.comparison import (
    ClassifierComparison,
    Comparison,
    classifier_comparison,
    compare,
)
from jgen.metrics.distances import Wasserstein, wasserstein
from jgen.metrics.histograms import (
    Histogram,
    Separation,
    histogram,
    separation,
    separation_floor,
)

__all__ = [
    "ClassifierComparison",
    "ClassifierConfig",
    "ClassifierResult",
    "Comparison",
    "Histogram",
    "Separation",
    "Wasserstein",
    "area_under_curve",
    "auc_error",
    "classifier_comparison",
    "classifier_test",
    "compare",
    "histogram",
    "separation",
    "separation_floor",
    "wasserstein",
]

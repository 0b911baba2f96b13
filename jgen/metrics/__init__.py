"""How good is a sample: histograms, distances, classifiers, and truth against truth beside each."""

from jgen.metrics.baselines import (
    bernoulli_mixture_log_prob,
    gaussian_mixture_log_prob,
    pca_log_prob,
)
from jgen.metrics.calibration import (
    CalibrationCurve,
    Coverage,
    Pulls,
    calibration_curve,
    coverage,
    pulls,
)
from jgen.metrics.classifier import (
    ClassifierConfig,
    ClassifierResult,
    area_under_curve,
    auc_error,
    calochallenge_classifier,
    classifier_test,
    trained_classifier,
)
from jgen.metrics.classifier_training import Classifier
from jgen.metrics.comparison import (
    ClassifierComparison,
    Comparison,
    classifier_comparison,
    compare,
)
from jgen.metrics.cross_fitting import CrossFitted, cross_fitted_log_ratio
from jgen.metrics.distances import (
    Wasserstein,
    quantile_divergence,
    rank_correlation_distance,
    sliced_wasserstein,
    wasserstein,
)
from jgen.metrics.frechet import (
    FrechetPhysicsDistance,
    KernelPhysicsDistance,
    Moments,
    frechet_distance,
    frechet_physics_distance,
    kernel_physics_distance,
    moments,
    polynomial_mmd,
)
from jgen.metrics.histograms import (
    ColumnSeparations,
    Histogram,
    QuadraticReplicas,
    Separation,
    column_separations,
    dealt_out,
    histogram,
    separation,
    separation_floor,
    separation_replicas,
    to_hist,
)
from jgen.metrics.manifold import (
    Manifold,
    expected_coverage,
    nearest_neighbours,
    precision_recall_density_coverage,
)
from jgen.metrics.members import Calibrated, MemberBins, join_bins, member_bins
from jgen.metrics.ratios import RatioConfig, weighted_log_ratio
from jgen.metrics.set_classifier import SetClassifierConfig, set_classifier_auc
from jgen.metrics.two_sample import c2st

__all__ = [
    "Calibrated",
    "MemberBins",
    "join_bins",
    "member_bins",
    "bernoulli_mixture_log_prob",
    "c2st",
    "gaussian_mixture_log_prob",
    "pca_log_prob",
    "CalibrationCurve",
    "Coverage",
    "Pulls",
    "calibration_curve",
    "coverage",
    "pulls",
    "Classifier",
    "ClassifierComparison",
    "ClassifierConfig",
    "ClassifierResult",
    "ColumnSeparations",
    "Comparison",
    "CrossFitted",
    "FrechetPhysicsDistance",
    "Histogram",
    "KernelPhysicsDistance",
    "Manifold",
    "Moments",
    "RatioConfig",
    "Separation",
    "SetClassifierConfig",
    "QuadraticReplicas",
    "Wasserstein",
    "area_under_curve",
    "auc_error",
    "calochallenge_classifier",
    "classifier_comparison",
    "classifier_test",
    "column_separations",
    "compare",
    "cross_fitted_log_ratio",
    "dealt_out",
    "expected_coverage",
    "frechet_distance",
    "frechet_physics_distance",
    "histogram",
    "kernel_physics_distance",
    "moments",
    "nearest_neighbours",
    "polynomial_mmd",
    "precision_recall_density_coverage",
    "quantile_divergence",
    "rank_correlation_distance",
    "separation",
    "separation_floor",
    "separation_replicas",
    "to_hist",
    "set_classifier_auc",
    "sliced_wasserstein",
    "trained_classifier",
    "wasserstein",
    "weighted_log_ratio",
]

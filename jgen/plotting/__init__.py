"""Figures for papers; the only room that imports matplotlib."""

from jgen.plotting.amplification import divergence_curves, variance_curves
from jgen.plotting.boltzmann import (
    ExactMarginal,
    Landscape,
    chain_traces,
    energy_landscapes,
    exact_marginals,
    free_energy_profiles,
)
from jgen.plotting.classifier import roc_curves, weight_distributions
from jgen.plotting.curves import Curve, quality_curves, training_curves
from jgen.plotting.densities import density_pictures, image_rows, likelihood_chart
from jgen.plotting.differential import (
    cumulative_distributions,
    ks_curves,
    quantile_error_curves,
    refinement_map,
)
from jgen.plotting.equivalents import equivalent_events_chart
from jgen.plotting.forecast import forecast_figures
from jgen.plotting.gallery import Images, Line, Plane, sample_gallery
from jgen.plotting.histograms import Panel, Weighted, histogram_grid, ratio_histogram
from jgen.plotting.integration import importance_weights, pull_quantiles
from jgen.plotting.jets import jet_images
from jgen.plotting.lattice import bound_curves, field_configurations, two_point_functions
from jgen.plotting.power import power_map
from jgen.plotting.shower_report import observable_panel, shower_figures
from jgen.plotting.shower_tests import response_figure, summary_figure, threshold_figure
from jgen.plotting.showers import (
    longitudinal_profile,
    longitudinal_view,
    polar_view,
    shower_points,
    single_showers,
)
from jgen.plotting.style import save, style
from jgen.plotting.uncertainty import (
    coverage_curves,
    member_grid,
    member_histogram,
    pull_distribution,
)

__all__ = [
    "Curve",
    "ExactMarginal",
    "Images",
    "Landscape",
    "Line",
    "Panel",
    "Plane",
    "Weighted",
    "bound_curves",
    "chain_traces",
    "coverage_curves",
    "cumulative_distributions",
    "density_pictures",
    "divergence_curves",
    "energy_landscapes",
    "equivalent_events_chart",
    "exact_marginals",
    "field_configurations",
    "forecast_figures",
    "free_energy_profiles",
    "histogram_grid",
    "image_rows",
    "importance_weights",
    "jet_images",
    "ks_curves",
    "likelihood_chart",
    "longitudinal_profile",
    "longitudinal_view",
    "member_grid",
    "member_histogram",
    "observable_panel",
    "polar_view",
    "power_map",
    "pull_distribution",
    "pull_quantiles",
    "quality_curves",
    "quantile_error_curves",
    "ratio_histogram",
    "refinement_map",
    "response_figure",
    "roc_curves",
    "sample_gallery",
    "save",
    "shower_figures",
    "shower_points",
    "single_showers",
    "style",
    "summary_figure",
    "threshold_figure",
    "training_curves",
    "two_point_functions",
    "variance_curves",
    "weight_distributions",
]

"""Figures for papers; the only room that imports matplotlib."""

from jgen.plotting.classifier import roc_curves, weight_distributions
from jgen.plotting.curves import Curve, quality_curves, training_curves
from jgen.plotting.histograms import Panel, histogram_grid, ratio_histogram
from jgen.plotting.shower_report import shower_figures
from jgen.plotting.showers import (
    longitudinal_profile,
    longitudinal_view,
    polar_view,
    single_showers,
)
from jgen.plotting.style import save

__all__ = [
    "Curve",
    "Panel",
    "histogram_grid",
    "longitudinal_profile",
    "longitudinal_view",
    "polar_view",
    "quality_curves",
    "ratio_histogram",
    "roc_curves",
    "save",
    "shower_figures",
    "single_showers",
    "training_curves",
    "weight_distributions",
]

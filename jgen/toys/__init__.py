"""Distributions of which everything is known, and generators whose amplification is known.

Whole benchmarks stand in modules of their own: `jgen.toys.ring_controls` (spoiled generators of a
ring), `jgen.toys.camel_fit` (the fit of GANplification), `jgen.toys.simulators` (tasks of
simulation-based inference).
"""

from jgen.toys.arcs import circles, moons
from jgen.toys.camel import camel_back
from jgen.toys.double_well import DoubleWell, double_well
from jgen.toys.entropy import entropy
from jgen.toys.fits import (
    Fit,
    FitError,
    bootstrap_weights,
    fit_error,
    ideal_amplification,
    memoriser,
    normal_fit,
    radial_fit,
)
from jgen.toys.gaussian import gaussian
from jgen.toys.gaussian_mixture import (
    GaussianMixture,
    gaussian_mixture,
    mixture_on_path,
    mixture_prediction,
    mixture_toy,
)
from jgen.toys.integrands import ToyIntegrand, camel, cut_ring
from jgen.toys.mixtures import eight_gaussians, pinwheel
from jgen.toys.ring import ring, spherical
from jgen.toys.smeared import Normal, unfolded_gaussian
from jgen.toys.string_break import (
    KAON,
    PION,
    BreakMoments,
    Chain,
    break_moments,
    fragment,
    mean_z,
    string_break,
)
from jgen.toys.toy import (
    Marginal,
    Toy,
    normal_probability,
    quantile_edges,
    region_probability,
    true_events,
)

__all__ = [
    "KAON",
    "PION",
    "BreakMoments",
    "Chain",
    "DoubleWell",
    "Fit",
    "FitError",
    "GaussianMixture",
    "Marginal",
    "Normal",
    "Toy",
    "ToyIntegrand",
    "bootstrap_weights",
    "break_moments",
    "camel",
    "camel_back",
    "circles",
    "cut_ring",
    "double_well",
    "eight_gaussians",
    "entropy",
    "fit_error",
    "fragment",
    "gaussian",
    "gaussian_mixture",
    "ideal_amplification",
    "mean_z",
    "memoriser",
    "mixture_on_path",
    "mixture_prediction",
    "mixture_toy",
    "moons",
    "normal_fit",
    "normal_probability",
    "pinwheel",
    "quantile_edges",
    "radial_fit",
    "region_probability",
    "ring",
    "spherical",
    "string_break",
    "true_events",
    "unfolded_gaussian",
]

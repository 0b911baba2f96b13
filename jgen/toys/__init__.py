"""Distributions of which everything is known, and generators whose amplification is known."""

from jgen.toys.arcs import circles, moons
from jgen.toys.camel import camel_back
from jgen.toys.entropy import Entropy, entropy
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
from jgen.toys.mixtures import eight_gaussians, pinwheel
from jgen.toys.ring import ring, spherical
from jgen.toys.toy import Marginal, Toy, normal_probability, quantile_edges, region_probability

__all__ = [
    "Entropy",
    "Fit",
    "FitError",
    "Marginal",
    "Toy",
    "bootstrap_weights",
    "camel_back",
    "circles",
    "eight_gaussians",
    "entropy",
    "fit_error",
    "gaussian",
    "ideal_amplification",
    "memoriser",
    "moons",
    "normal_fit",
    "normal_probability",
    "pinwheel",
    "quantile_edges",
    "radial_fit",
    "region_probability",
    "ring",
    "spherical",
]

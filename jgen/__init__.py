"""Generative networks for particle physics as pure functions in JAX.

A generative model is four pure functions; `fit` trains one or an ensemble, `draw` samples it.
"""

from jgen.estimate import Estimate, Judged
from jgen.files import load, load_metadata, save
from jgen.generative_model import Batch, GenerativeModel, draw, log_densities
from jgen.training import OptimizerConfig, TrainConfig, fit, member

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Estimate",
    "GenerativeModel",
    "Judged",
    "OptimizerConfig",
    "TrainConfig",
    "draw",
    "fit",
    "load",
    "load_metadata",
    "log_densities",
    "member",
    "save",
]

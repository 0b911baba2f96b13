"""Functions from generative models to generative models; they compose."""

from jgen.transforms.bayesian import BayesianConfig, bayesian, draw_weights
from jgen.transforms.causal_layers import causal_layers
from jgen.transforms.composition import chain, preprocessed
from jgen.transforms.dequantized import dequantized
from jgen.transforms.latent import latent
from jgen.transforms.mixture import mixture
from jgen.transforms.reverse_kl import reverse_kl

__all__ = [
    "BayesianConfig",
    "bayesian",
    "causal_layers",
    "chain",
    "dequantized",
    "draw_weights",
    "latent",
    "mixture",
    "preprocessed",
    "reverse_kl",
]

"""Families of generative models, one a file."""

from jgen.models.autoregressive_flow_matching import autoregressive_flow_matching
from jgen.models.flow_matching import flow_matching
from jgen.models.vae import (
    Autoencoder,
    Elbo,
    Likelihood,
    bernoulli,
    elbo,
    elbo_of_events,
    encoder_decoder,
    gaussian,
    reconstruct,
    vae,
)

__all__ = [
    "Autoencoder",
    "Elbo",
    "Likelihood",
    "autoregressive_flow_matching",
    "bernoulli",
    "elbo",
    "elbo_of_events",
    "encoder_decoder",
    "flow_matching",
    "gaussian",
    "reconstruct",
    "vae",
]

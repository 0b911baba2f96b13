"""Families of generative models, one a file."""

from jgen.models.autoregressive import Head, autoregressive, binned, gaussian_mixture
from jgen.models.autoregressive_flow_matching import autoregressive_flow_matching
from jgen.models.flow import Base, flow, sample_and_log_prob, standard_normal, uniform
from jgen.models.flow_matching import flow_matching
from jgen.models.gan import gan
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
    "Base",
    "Elbo",
    "Head",
    "Likelihood",
    "autoregressive",
    "autoregressive_flow_matching",
    "bernoulli",
    "binned",
    "elbo",
    "elbo_of_events",
    "encoder_decoder",
    "flow",
    "flow_matching",
    "gan",
    "gaussian",
    "gaussian_mixture",
    "reconstruct",
    "sample_and_log_prob",
    "standard_normal",
    "uniform",
    "vae",
]

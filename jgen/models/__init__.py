"""Families of generative models, one a file."""

from jgen.models.autoregressive import Head, autoregressive, binned, equal_bins, gaussian_mixture
from jgen.models.autoregressive_flow_matching import autoregressive_flow_matching
from jgen.models.bib_ae import (
    BibAeWeights,
    bib_ae,
    post_processor,
    sorted_spectrum,
    vae_gan,
    voxel_score,
)
from jgen.models.bridge import bridge
from jgen.models.consistency import (
    consistency,
    consistency_function,
    distilled,
    doubling,
    noised,
    trajectory_ends,
)
from jgen.models.diffusion import (
    diffusion,
    guided,
    log_normal_times,
    preconditioned,
    preconditioned_weighting,
    variational_bound,
    with_unconditional,
)
from jgen.models.flow import Base, flow, sample_and_log_prob, standard_normal, uniform
from jgen.models.flow_matching import flow_matching
from jgen.models.gan import gan
from jgen.models.geodesic_flow_matching import geodesic_flow_matching, on_circles
from jgen.models.guided_flow import guided_loss, student_pass, teacher_pass
from jgen.models.likelihoods import Likelihood, bernoulli, distribution, gaussian, with_width
from jgen.models.mean_flow import instantaneous, mean_flow, with_interval
from jgen.models.mixed_flow_matching import MixedEvent, mixed_events, mixed_flow_matching
from jgen.models.vae import (
    Autoencoder,
    Elbo,
    elbo,
    elbo_of_events,
    encoder_decoder,
    importance_bound,
    log_importance_weights,
    log_importance_weights_of_events,
    nested_bounds,
    reconstruct,
    vae,
)

__all__ = [
    "Autoencoder",
    "Base",
    "BibAeWeights",
    "Elbo",
    "Head",
    "Likelihood",
    "MixedEvent",
    "autoregressive",
    "autoregressive_flow_matching",
    "bernoulli",
    "bib_ae",
    "binned",
    "bridge",
    "consistency",
    "consistency_function",
    "diffusion",
    "distilled",
    "distribution",
    "doubling",
    "elbo",
    "elbo_of_events",
    "encoder_decoder",
    "equal_bins",
    "flow",
    "flow_matching",
    "gan",
    "gaussian",
    "gaussian_mixture",
    "geodesic_flow_matching",
    "guided",
    "guided_loss",
    "importance_bound",
    "instantaneous",
    "log_importance_weights",
    "log_importance_weights_of_events",
    "log_normal_times",
    "mean_flow",
    "mixed_events",
    "mixed_flow_matching",
    "nested_bounds",
    "noised",
    "on_circles",
    "preconditioned",
    "preconditioned_weighting",
    "post_processor",
    "reconstruct",
    "sample_and_log_prob",
    "sorted_spectrum",
    "standard_normal",
    "student_pass",
    "teacher_pass",
    "trajectory_ends",
    "uniform",
    "vae",
    "vae_gan",
    "variational_bound",
    "voxel_score",
    "with_interval",
    "with_unconditional",
    "with_width",
]

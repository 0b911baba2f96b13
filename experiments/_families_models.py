"""The families of the study: a generative model of each, in the data's own units."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
import optax

from experiments import _flows_families as flows
from experiments._flows_data import NUM_LEVELS, DataSet
from jgen.bijectors import autoregressive_flow, coupling_flow, rational_quadratic
from jgen.generative_model import GenerativeModel
from jgen.models import (
    autoregressive,
    binned,
    consistency,
    diffusion,
    encoder_decoder,
    flow,
    flow_matching,
    gan,
    gaussian,
    log_normal_times,
    preconditioned,
    preconditioned_weighting,
    vae,
    with_width,
)
from jgen.nets import Network, made, mlp
from jgen.nets.adversarial import critic_mlp, generator_mlp
from jgen.paths import edm
from jgen.solvers import Denoised, EDMHeun, runge_kutta
from jgen.training import TrainConfig, make_optimizer, per_player
from jgen.transforms import preprocessed
from jgen.typing import Params


@dataclass(frozen=True)
class Sizes:
    """Sizes of the models of one kind of data."""

    hidden: tuple[int, ...] = (64, 64, 64)
    """Widths of the hidden layers of generator, critic, encoder, decoder, velocity and denoiser."""
    causal_hidden: tuple[int, ...] = (64, 64, 64)
    """Widths of the autoregressive network's, which components share among them."""
    num_noise: int = 16
    """Random numbers that go into the generators of the GANs."""
    num_latent: int = 2
    """Numbers in the VAE's latent, at least; one of dim / 4 if that is more."""
    num_importance: int = 200
    """Draws of the encoder in the VAE's bound IWAE_K."""
    flow_hidden: tuple[int, ...] = (64, 64)
    """Widths of the network in each layer of the flow."""
    flow_depth: int = 8
    """Layers of the flow."""
    num_bins: int = 128
    """Bins a component of the autoregressive model; the digits have their grey levels."""
    penalty: float = 10.0
    """Weight of WGAN-GP's penalty, that of the paper; its authors' code for toys has 0.1."""
    critic_steps: int = 5
    """Steps of WGAN-GP's critic for one of its generator, those of the paper."""
    intervals: int = 18
    """Intervals of the consistency model's grid of times, those of the paper."""
    huber: float = 0.03
    """Difference in which its distance turns from a square to an absolute value, in units of
    sqrt(dim). The paper's 0.00054 is for images."""
    solver_steps: int = 20
    """Steps of the samplers: midpoint for flow matching, EDM's for diffusion, two calls each."""
    likelihood_steps: int = 25
    """Steps of the classical Runge-Kutta method for the density of flow matching; diffusion, whose
    path spans more scales, has twice as many."""

    def check(self) -> None:
        """Raise a ValueError for sizes that no model can have."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if min(value if isinstance(value, tuple) else (value,), default=0) <= 0:
                raise ValueError(f"{field.name} must be positive, got {value}")


def make_model(
    family: str, sizes: Sizes, data: DataSet, teacher: Params | None = None
) -> GenerativeModel:
    """The model of a family.

    Args:
      family: one of `FAMILIES`.
      sizes: of the model.
      data: the data set, for its dimension, fixed map and the range of the bins.
      teacher: parameters of "flow-matching" that "consistency" is distilled from; it is sampled
        without them.
    """
    if family == "autoregressive":
        return _autoregressive(sizes, data)
    options = {"teacher": teacher} if family == "consistency" else {}
    return preprocessed(_FAMILIES[family](sizes, data.dim, **options), data.bijector)


def calls_an_event(family: str, sizes: Sizes, dim: int) -> int:
    """Passes through the network, or through all layers of the flow, that an event takes."""
    if family == "autoregressive":
        return dim
    if family in ("diffusion", "flow-matching"):
        return 2 * sizes.solver_steps + (family == "diffusion")
    return 1


def players(
    family: str, sizes: Sizes, training: TrainConfig
) -> optax.GradientTransformation | None:
    """Optimiser of both players of a GAN; None for the other families, which have one."""
    if family not in ("gan", "wgan-gp"):
        return None
    every = sizes.critic_steps if family == "wgan-gp" else 1
    return per_player(
        {
            "generator": make_optimizer(training.optimizer, max(training.steps // every, 1)),
            "critic": make_optimizer(training.optimizer, training.steps),
        },
        every={"generator": every},
    )


def _gan(sizes: Sizes, dim: int) -> GenerativeModel:
    """The generator maximises log D (1406.2661, Sec. 3)."""
    return gan(*_adversaries(sizes, dim), objective="non_saturating")


def _wgan_gp(sizes: Sizes, dim: int) -> GenerativeModel:
    """The same two networks in the game of 1704.00028."""
    return gan(*_adversaries(sizes, dim), objective="wasserstein", gradient_penalty=sizes.penalty)


def _adversaries(sizes, dim):
    generator = generator_mlp(dim, num_noise=sizes.num_noise, hidden=sizes.hidden)
    return generator, critic_mlp(dim, hidden=sizes.hidden)


def _vae(sizes: Sizes, dim: int) -> GenerativeModel:
    """Normal likelihood of one trained width for all components."""
    latent = max(sizes.num_latent, dim // 4)
    encoder = mlp(dim, 2 * latent, hidden=sizes.hidden)
    decoder = mlp(latent, dim, hidden=sizes.hidden)
    encode = lambda params, x, cond: tuple(encoder.apply(params, x).reshape(2, latent))
    decode = Network(decoder.init, lambda params, r, cond: decoder.apply(params, r))
    autoencoder = encoder_decoder(encoder._replace(apply=encode), with_width(decode, 0.3))
    return vae(
        autoencoder, (latent,), likelihood=gaussian(None), num_importance=sizes.num_importance
    )


def _flow(sizes: Sizes, dim: int) -> GenerativeModel:
    """Rational-quadratic couplings; in one dimension, where nothing can couple, autoregressive."""
    make = coupling_flow if dim > 1 else autoregressive_flow
    spline = rational_quadratic(8, 4.0)
    return flow(make(dim, spline, sizes.flow_depth, hidden=sizes.flow_hidden), dim)


def _diffusion(sizes: Sizes, dim: int) -> GenerativeModel:
    """EDM (2206.00364), of data of unit variance.

    Deviation: noise begins at 20, not 80 (at standard deviations of 1, not 0.5). Hardly a time of
    the training is beyond, where an untrained network would move the mean.
    """
    path = edm(sigma_max=20.0)
    return diffusion(
        preconditioned(flows.velocity_field(dim, sizes.hidden), path, 1.0),
        (dim,),
        path=path,
        prediction="data",
        weighting=preconditioned_weighting(path, 1.0),
        times=log_normal_times(path),
        sampler=Denoised(EDMHeun(sizes.solver_steps)),
        likelihood_solver=runge_kutta("rk4", 2 * sizes.likelihood_steps),
    )


def _flow_matching(sizes: Sizes, dim: int) -> GenerativeModel:
    return flow_matching(
        flows.velocity_field(dim, sizes.hidden),
        (dim,),
        solver=runge_kutta("midpoint", sizes.solver_steps),
        likelihood_solver=runge_kutta("rk4", sizes.likelihood_steps),
    )


def _consistency(sizes: Sizes, dim: int, teacher: Params | None = None) -> GenerativeModel:
    """Distilled from the velocity of flow matching, and sampled with one call."""
    return consistency(
        flows.velocity_field(dim, sizes.hidden),
        (dim,),
        teacher=teacher,
        intervals=sizes.intervals,
        huber=sizes.huber,
    )


def _autoregressive(sizes: Sizes, data: DataSet) -> GenerativeModel:
    """Histograms: bins of equal width behind the map, and of the digits their grey levels."""
    if data.repeats > 1:
        edges = np.tile(np.arange(NUM_LEVELS + 1) / NUM_LEVELS, (data.dim, 1))
        return _of_bins(sizes, edges)
    z = np.asarray(jax.jit(jax.vmap(lambda x: data.bijector.forward(x, None)[0]))(data.train))
    return preprocessed(_of_bins(sizes, equal_bins(z, sizes.num_bins)), data.bijector)


def equal_bins(z: np.ndarray, num: int) -> np.ndarray:
    """Edges [dim, num + 1] of bins of equal width, a tenth of the range of z beyond it."""
    low, high = z.min(axis=0), z.max(axis=0)
    margin = 0.1 * (high - low)
    return np.linspace(low - margin, high + margin, num + 1, axis=1)


def _of_bins(sizes, edges):
    head = binned(edges)
    network = made(len(edges), head.num_outputs, hidden=sizes.causal_hidden)
    return autoregressive(network, head, len(edges))


_FAMILIES: dict[str, Callable[..., GenerativeModel]] = {
    "gan": _gan,
    "wgan-gp": _wgan_gp,
    "vae": _vae,
    "flow": _flow,
    "diffusion": _diffusion,
    "flow-matching": _flow_matching,
    "consistency": _consistency,
}
FAMILIES = (*_FAMILIES, "autoregressive")
"""All families."""

"""The models of both studies, of events [dim]: flows of every bijector, and the other families."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.models.data import TOYS, DataSet
from experiments.study import positive
from jgen import GenerativeModel, bijectors, models, nets, solvers
from jgen.bijectors import Bijector, Element, TrainableBijector
from jgen.paths import edm
from jgen.training import TrainConfig, game_optimizer
from jgen.transforms import preprocessed
from jgen.typing import Params


@dataclass(frozen=True)
class FlowSizes:
    """Sizes of the flows, shared by the families so that they can be compared."""

    hidden: tuple[int, ...] = (64, 64)
    """Widths of the network in each coupling or autoregressive layer."""
    depth: int = 8
    """Coupling or autoregressive layers."""
    residual_depth: int = 16
    """Residual layers, each with a Lipschitz constant of at most 0.97."""
    residual_hidden: tuple[int, ...] = (32, 32)
    """Widths of the network in each of them."""
    simple_depth: int = 32
    """Planar or radial layers, each of a handful of numbers."""
    num_bins: int = 8
    """Bins of the splines."""
    bound: float = 4.0
    """Splines act on [-bound, bound] and are the identity beyond."""
    velocity_hidden: tuple[int, ...] = (64, 64, 64)
    """Widths of the velocity field of the continuous flows."""
    solver_steps: int = 8
    """Steps of the classical Runge-Kutta method while the continuous flow trains. With four, the
    training finds velocities for which the solver's error is large and the likelihood wrong."""
    fine_steps: int = 16
    """Steps when both continuous flows are judged."""
    glow_depth: int = 3
    """Steps of each of Glow's two levels."""
    glow_hidden: tuple[int, ...] = (32, 32)
    """Channels of the networks in Glow."""


def make_flow(family: str, sizes: FlowSizes, dim: int, *, judged: bool = False) -> GenerativeModel:
    """A flow of events [dim]; both versions have the same parameters.

    Args:
      family: one of `FLOWS`.
      sizes: of the flow.
      dim: numbers of an event; digits have 64, and are images for Glow.
      judged: the continuous flows with more steps of the solver and the exact divergence, instead
        of those that train them.
    """
    if family not in ("continuous", "flow-matching"):
        return models.flow(BIJECTORS[family](sizes, dim), dim)
    # One velocity field, trained by the likelihood or by flow matching.
    network = nets.velocity_mlp(dim, hidden=sizes.velocity_hidden, time_features=0)
    solver = solvers.runge_kutta("rk4", sizes.fine_steps if judged else sizes.solver_steps)
    if family == "flow-matching":
        return models.flow_matching(network, (dim,), solver=solver)
    # Beyond a few components the exact divergence costs too much in every step of the training.
    divergence = "exact" if judged or dim <= 4 else "hutchinson"
    return models.flow(bijectors.continuous(network, solver=solver, divergence=divergence), dim)


def _couplings(element: Callable[[FlowSizes], Element]):
    return lambda s, dim: bijectors.coupling_flow(dim, element(s), s.depth, hidden=s.hidden)


def _autoregressive(element: Callable[[FlowSizes], Element]):
    return lambda s, dim: bijectors.autoregressive_flow(dim, element(s), s.depth, hidden=s.hidden)


def _affine(sizes):
    return bijectors.affine()


def _rational(sizes):
    return bijectors.rational_quadratic(sizes.num_bins, sizes.bound)


def _simple(layer: Callable[[int], TrainableBijector]):
    """Many layers of a handful of numbers, and a linear map."""
    return lambda sizes, dim: bijectors.compose(
        bijectors.repeated(layer(dim), sizes.simple_depth), bijectors.plu(dim)
    )


def _glow_steps(sizes: FlowSizes, dim: int) -> TrainableBijector:
    """Glow's step on vectors, with a rotation where its 1x1 convolution is: Householder's."""
    element, fixed = bijectors.affine(), dim // 2
    num_params = (dim - fixed) * element.num_params
    step = bijectors.compose(
        bijectors.actnorm(dim),
        bijectors.householder(dim, min(dim, 8)),
        bijectors.coupling(
            nets.conditioner(fixed, num_params, hidden=sizes.hidden), element, fixed
        ),
    )
    return bijectors.repeated(bijectors.compose(step, bijectors.flip()), sizes.depth)


def _glow(sizes: FlowSizes, dim: int) -> TrainableBijector:
    """Glow on images of eight by eight pixels, of events that are their raveled pixels."""
    image = Bijector(
        lambda x, cond=None: (x.reshape(8, 8, 1), jnp.zeros(())),
        lambda z, cond=None: (z.reshape(-1), jnp.zeros(())),
    )
    pixels = bijectors.glow((8, 8, 1), 2, sizes.glow_depth, hidden=sizes.glow_hidden)
    return bijectors.compose(image, pixels)


def _residual(sizes: FlowSizes, dim: int) -> TrainableBijector:
    layer = bijectors.residual(dim, hidden=sizes.residual_hidden, lipschitz=0.97)
    return bijectors.repeated(layer, sizes.residual_depth)


BIJECTORS: dict[str, Callable[[FlowSizes, int], TrainableBijector]] = {
    "linear": lambda s, dim: bijectors.compose(bijectors.actnorm(dim), bijectors.qr(dim)),
    "planar": _simple(bijectors.planar),
    "radial": _simple(bijectors.radial),
    "nice": _couplings(lambda s: bijectors.additive()),
    "realnvp": _couplings(_affine),
    "glow-steps": _glow_steps,
    "glow": _glow,
    "maf": _autoregressive(_affine),
    "iaf": lambda s, dim: bijectors.inverted(_autoregressive(_affine)(s, dim)),
    "coupling-quadratic": _couplings(lambda s: bijectors.quadratic(s.num_bins, s.bound)),
    "coupling-cubic": _couplings(lambda s: bijectors.cubic(s.num_bins, s.bound)),
    "coupling-rqs": _couplings(_rational),
    "maf-rqs": _autoregressive(_rational),
    "residual": _residual,
}
"""Flows of one bijector, from data to a standard normal base."""
FLOWS = (*BIJECTORS, "continuous", "flow-matching")
"""All flows."""
SKIPPED = {
    **{("glow", name): "images only" for name in (*TOYS, "jets")},
    ("iaf", "digits"): "64 passes a density",
    ("residual", "digits"): "a 64 x 64 Jacobian a layer",
}
"""Pairs of family and data set that make no sense, and why."""


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
    mean_flow_hidden: tuple[int, ...] = (128, 128, 128)
    """Widths of MeanFlow's, which learns all intervals of time."""
    huber: float = 0.03
    """Difference in which the consistency model's distance turns from a square to an absolute
    value, in units of sqrt(dim). The paper's 0.00054 is for images."""
    solver_steps: int = 20
    """Steps of the samplers: midpoint for flow matching, EDM's for diffusion, two calls each."""
    likelihood_steps: int = 25
    """Steps of the classical Runge-Kutta method for the density of flow matching; diffusion, whose
    path spans more scales, has twice as many."""

    def check(self) -> None:
        """Raise a ValueError for sizes that no model can have."""
        positive(self, *(field.name for field in dataclasses.fields(self)))


def make_model(
    family: str, sizes: Sizes, data: DataSet, teacher: Params | None = None
) -> GenerativeModel:
    """The model of a family, in the data's own units.

    Args:
      family: one of `FAMILIES`.
      sizes: of the model.
      data: the data set, for its dimension, fixed map and the range of the bins.
      teacher: parameters of the family that `TEACHERS` names, for the training; models are sampled
        without them.
    """
    if family == "autoregressive":
        return _bins(sizes, data)
    options = {"teacher": teacher} if family in TEACHERS else {}
    return preprocessed(_MODELS[family](sizes, data.dim, **options), data.bijector)


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
    every = {"generator": sizes.critic_steps if family == "wgan-gp" else 1}
    both = dict.fromkeys(("generator", "critic"), training.optimizer)
    return game_optimizer(both, training.steps, every)


def _gan(sizes: Sizes, dim: int) -> GenerativeModel:
    """The generator maximises log D (1406.2661, Sec. 3)."""
    return models.gan(*_adversaries(sizes, dim), objective="non_saturating")


def _wgan_gp(sizes: Sizes, dim: int) -> GenerativeModel:
    """The same two networks in the game of 1704.00028."""
    options = {"objective": "wasserstein", "gradient_penalty": sizes.penalty}
    return models.gan(*_adversaries(sizes, dim), **options)


def _adversaries(sizes, dim):
    generator = nets.generator_mlp(dim, num_noise=sizes.num_noise, hidden=sizes.hidden)
    return generator, nets.critic_mlp(dim, hidden=sizes.hidden)


def _vae(sizes: Sizes, dim: int) -> GenerativeModel:
    """Normal likelihood of one trained width for all components."""
    latent = max(sizes.num_latent, dim // 4)
    autoencoder = models.encoder_decoder(
        nets.encoder_mlp(dim, latent, hidden=sizes.hidden),
        models.with_width(nets.decoder_mlp(latent, dim, hidden=sizes.hidden), 0.3),
        models.gaussian(None),
    )
    return models.vae(autoencoder, (latent,), num_importance=sizes.num_importance)


def _flow(sizes: Sizes, dim: int) -> GenerativeModel:
    """Rational-quadratic couplings; in one dimension, where nothing can couple, autoregressive."""
    flow_sizes = FlowSizes(sizes.flow_hidden, sizes.flow_depth)
    return make_flow("coupling-rqs" if dim > 1 else "maf-rqs", flow_sizes, dim)


def _diffusion(sizes: Sizes, dim: int) -> GenerativeModel:
    """EDM (2206.00364), of data of unit variance.

    Deviation: noise begins at 20, not 80 (at standard deviations of 1, not 0.5). Hardly a time of
    the training is beyond, where an untrained network would move the mean.
    """
    path = edm(sigma_max=20.0)
    return models.diffusion(
        models.preconditioned(_velocity(sizes, dim), path, 1.0),
        (dim,),
        path=path,
        prediction="data",
        weighting=models.preconditioned_weighting(path, 1.0),
        times=models.log_normal_times(path),
        sampler=solvers.Denoised(solvers.EDMHeun(sizes.solver_steps)),
        likelihood_solver=solvers.runge_kutta("rk4", 2 * sizes.likelihood_steps),
    )


def _flow_matching(sizes: Sizes, dim: int) -> GenerativeModel:
    return models.flow_matching(
        _velocity(sizes, dim),
        (dim,),
        solver=solvers.runge_kutta("midpoint", sizes.solver_steps),
        likelihood_solver=solvers.runge_kutta("rk4", sizes.likelihood_steps),
    )


def _consistency(sizes: Sizes, dim: int, teacher: Params | None = None) -> GenerativeModel:
    """Distilled from the velocity of flow matching, and sampled with one call."""
    options = {"intervals": sizes.intervals, "huber": sizes.huber}
    return models.consistency(_velocity(sizes, dim), (dim,), teacher=teacher, **options)


def _mean_flow(sizes: Sizes, dim: int, teacher: Params | None = None) -> GenerativeModel:
    """Average velocities of flow matching's velocity, sampled with one call."""
    if teacher is not None:
        teacher = functools.partial(_velocity(sizes, dim).apply, teacher)
    network = nets.velocity_mlp(dim, 1, hidden=sizes.mean_flow_hidden, time_features=0)
    return models.mean_flow(network, (dim,), teacher=teacher)


def _velocity(sizes, dim):
    return nets.velocity_mlp(dim, hidden=sizes.hidden, time_features=0)


def _bins(sizes: Sizes, data: DataSet) -> GenerativeModel:
    """Histograms: bins of equal width behind the map, and of the digits their grey levels."""
    if data.levels is not None:
        edges = np.tile(np.arange(data.levels + 1) / data.levels, (data.dim, 1))
    else:
        z = jax.jit(jax.vmap(lambda x: data.bijector.forward(x, None)[0]))(data.train)
        edges = models.equal_bins(np.asarray(z), sizes.num_bins)
    head = models.binned(edges)
    network = nets.made(data.dim, head.num_outputs, hidden=sizes.causal_hidden)
    model = models.autoregressive(network, head, data.dim)
    return model if data.levels is not None else preprocessed(model, data.bijector)


_MODELS: dict[str, Callable[..., GenerativeModel]] = {
    "gan": _gan,
    "wgan-gp": _wgan_gp,
    "vae": _vae,
    "flow": _flow,
    "diffusion": _diffusion,
    "flow-matching": _flow_matching,
    "consistency": _consistency,
    "mean-flow": _mean_flow,
}
TEACHERS = {"consistency": "flow-matching", "mean-flow": "flow-matching"}
"""Families that are distilled, and the one that they are distilled from on the same data."""
FAMILIES = (*_MODELS, "autoregressive")
"""All families."""

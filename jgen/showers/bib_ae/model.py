"""The BIB-AE of showers in a box of cells, with a post-processor (2005.05334): models of its parts.

All are of compressed cells [z, y, x], `jgen.showers.box.compressed`, given two standardised
logarithms, of the incident energy and of the response E_vis / E_inc. They are trained one after
another, as `train` does: `response_model`, which draws the response beforehand; `game_model`;
`latent_model`, a density estimate of the encoded latents; and `post_models`.

Deviations from 2005.05334: dense networks for convolutions; the visible energy is a condition,
where the BIB-AE generates it; a reconstruction term, the Poisson deviance; a flow for the density
estimate of the latent, for which 2112.09709 has kernels; noise and another loss in the
post-processor.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import optax
from jaxtyping import Array

from jgen import bijectors, models, nets, transforms
from jgen.checks import check_not_negative, check_positive, check_sizes
from jgen.generative_model import GenerativeModel
from jgen.models import Autoencoder
from jgen.models.mmd import check_scales
from jgen.nets import Network
from jgen.showers import box
from jgen.training import OptimizerConfig, TrainConfig, game_optimizer
from jgen.typing import Cond, Key, Params

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class AutoencoderConfig:
    """The BIB-AE."""

    num_latent: int = 16
    """Numbers of the latent."""
    hidden: tuple[int, ...] = (256, 128)
    """Widths of the encoder's hidden layers, and of the decoder's from its end."""
    critic_hidden: tuple[int, ...] = (64, 64)
    """Widths of the pair critic's hidden layers."""
    latent_hidden: tuple[int, ...] = (64, 64)
    """Widths of the latent critic's hidden layers."""
    weights: models.BibAeWeights = models.BibAeWeights(
        critic=1.0, latent_critic=1.0, latent_mmd=10.0, kl=0.5, reconstruction=0.5
    )
    """Weights of the terms; with a Poisson deviance, 0.5 is that of a log-likelihood."""
    every: int = 2
    """Encoder and decoder move at every so many steps of the critics (published: 5)."""
    training: TrainConfig = TrainConfig(
        6000,
        64,
        ema_decay=0.998,
        optimizer=OptimizerConfig(5e-4, beta1=0.5, beta2=0.9),
        log_every=100,
        save_every=3000,
    )
    """Training; both critics have its optimiser."""
    learning_rate: float = 1e-3
    """Of encoder and decoder."""

    def check(self) -> None:
        """Refuse bad options."""
        check_sizes(num_latent=self.num_latent, every=self.every)
        check_positive(learning_rate=self.learning_rate)
        # The latents of a minibatch are compared with one another.
        if self.training.batch_size < 2:
            raise ValueError(f"batch_size must be at least 2, got {self.training.batch_size}")

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Of all players."""
        fast = self.training.optimizer
        slow = dataclasses.replace(fast, learning_rate=self.learning_rate)
        players = {"encoder": slow, "decoder": slow, "critic": fast, "latent_critic": fast}
        every = {"encoder": self.every, "decoder": self.every}
        return game_optimizer(players, self.training.steps, every)


_DENSITY = TrainConfig(2000, 200, keep="best", validate_every=100, log_every=100, save_every=2000)


@dataclass(frozen=True)
class FlowsConfig:
    """Density estimates of the response and of the latent, both given the energy."""

    depth: int = 4
    """Couplings of the latent's flow."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of its networks."""
    response: TrainConfig = _DENSITY
    """Training of the response's flow, which keeps the parameters of smallest validation loss."""
    latent: TrainConfig = dataclasses.replace(_DENSITY, steps=3000, save_every=3000)
    """Training of the latent's flow, likewise."""


_POST = TrainConfig(
    2500, 8, ema_decay=0.99, optimizer=OptimizerConfig(5e-3), log_every=100, save_every=2500
)


@dataclass(frozen=True)
class PostConfig:
    """The post-processor, and one of the published loss beside it."""

    hidden: tuple[int, ...] = (32, 32)
    """Widths of the layers of either, for each cell."""
    floor: float = 0.01
    """Cells are weighted with 1 / (y + floor) in the score, y = log(1 + E / scale)."""
    training: TrainConfig = _POST
    """Training."""
    scales: tuple[float, ...] = (0.05, 0.2)
    """Of the published loss: widths of the kernel, in log(1 + E / scale)."""
    window: int = 16
    """Sorted cells that are compared with one another."""
    stride: int = 16
    """Ranks between windows."""
    num: int = 448
    """Largest cells of a shower that are looked at."""
    mse: float = 0.1
    """Weight of the squared change."""
    mmd: float = 5.0
    """Weight of the sorted-kernel MMD."""
    sorted_training: TrainConfig = dataclasses.replace(_POST, steps=500)
    """Training with the published loss."""

    def check(self) -> None:
        """Refuse bad options."""
        check_sizes(window=self.window, stride=self.stride)
        check_positive(floor=self.floor)
        check_not_negative(mse=self.mse, mmd=self.mmd)
        check_scales(self.scales)


@dataclass(frozen=True)
class BibAeConfig:
    """Sizes and trainings of all parts."""

    autoencoder: AutoencoderConfig = AutoencoderConfig()
    """Encoder, decoder and critics."""
    flows: FlowsConfig = FlowsConfig()
    """Response and latent."""
    post: PostConfig = PostConfig()
    """Post-processor."""
    scale: float = 10.0
    """Networks see log(1 + E / scale) of a cell, in MeV: linear for most cells that are hit."""
    seed: int = 0
    """Seed of everything random."""

    def check(self) -> None:
        """Refuse bad options."""
        check_positive(scale=self.scale)
        self.autoencoder.check()
        self.post.check()


def networks(config: BibAeConfig, shape: Shape) -> tuple[Autoencoder, Network, Network]:
    """Autoencoder, pair critic and latent critic."""
    one = config.autoencoder
    decoder = nets.decoder_mlp(
        one.num_latent, shape, 2, hidden=one.hidden[::-1], output=jax.nn.softplus
    )
    encoder = nets.encoder_mlp(shape, one.num_latent, 2, hidden=one.hidden)
    return (
        models.encoder_decoder(encoder, decoder, models.gaussian()),
        nets.pair_critic(shape, 2, hidden=one.critic_hidden),
        nets.latent_critic(one.num_latent, hidden=one.latent_hidden),
    )


def response_model() -> GenerativeModel:
    """p(response | energy), one number given one, both standardised logarithms."""
    spline = bijectors.rational_quadratic(8, 5.0)
    return models.flow(bijectors.autoregressive_flow(1, spline, 1, 1, hidden=(32, 32)), 1)


def game_model(config: BibAeConfig, shape: Shape) -> GenerativeModel:
    """The BIB-AE of compressed cells."""
    one = config.autoencoder
    return models.bib_ae(
        *networks(config, shape), (one.num_latent,), one.weights, distance=box.poisson_deviance
    )


def latent_model(config: BibAeConfig, shape: Shape, coder_params: Params) -> GenerativeModel:
    """Compressed cells, from the density estimate of the latent."""
    one, num = config.flows, config.autoencoder.num_latent
    spline = bijectors.rational_quadratic(8, 5.0)
    density = bijectors.coupling_flow(num, spline, one.depth, 2, hidden=one.hidden)
    return transforms.latent(models.flow(density, num), networks(config, shape)[0], coder_params)


def post_models(
    config: BibAeConfig,
    shape: Shape,
    coder_params: Params = None,
    generate: Callable[[Key, Cond], Array] | None = None,
) -> dict[str, GenerativeModel]:
    """Post-processors of compressed cells: "sorted" with the published loss, and "post" with ours.

    Args:
      config: sizes and losses.
      shape: of the cells.
      coder_params: of encoder and decoder, whose reconstructions they are trained on.
      generate: (key, cond) -> compressed cells that they change when they generate. Without both
        the models can be initialised only.

    Raises:
      ValueError: if the published loss looks at more cells than there are.
    """
    one, coder, cells = config.post, networks(config, shape)[0], math.prod(shape)
    if not one.window <= one.num <= cells:
        raise ValueError(
            f"post.window must be at most post.num, and that at most the {cells} cells of "
            f"{shape}, got {one.window} and {one.num}; choose PostConfig(num=..., window=...)"
        )
    parts = (
        nets.elementwise_map(shape, 2, hidden=one.hidden),
        lambda key, x, cond: models.reconstruct(coder, coder_params, key, x, cond),
        generate,
    )
    published = models.sorted_spectrum(
        one.scales, window=one.window, stride=one.stride, num=one.num, mse=one.mse, mmd=one.mmd
    )
    return {
        "sorted": models.post_processor(*parts, published),
        "post": models.post_processor(*parts, models.voxel_score(one.floor)),
    }

"""Options, data and models of the BIB-AE study."""

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optax

from experiments.study import at_least
from jgen import (
    Batch,
    GenerativeModel,
    OptimizerConfig,
    TrainConfig,
    bijectors,
    models,
    nets,
    transforms,
)
from jgen.checks import check_not_negative, check_positive
from jgen.models.mmd import check_scales
from jgen.showers import box, get_geometry, read_showers, sample_path
from jgen.training import make_optimizer, per_player
from jgen.typing import Params

GEOMETRY = get_geometry("ds2")
HALF_WIDTH = GEOMETRY.layers[0].r_edges[-1]
"""Of a layer of the box [mm]."""


@dataclass(frozen=True)
class DataConfig:
    """Showers and their box."""

    data: Path | None = None
    """CaloChallenge file in DS2 voxels; the bundled Geant4 showers unless given."""
    layers: int = 3
    """Layers that make one cell of the box."""
    side: int = 10
    """Cells on either side of a layer of the box."""
    copies: int = 8
    """Of each training shower, for the networks: turned, reflected, its voxels in other cells."""
    num_test: int = 1000
    """Showers at the end of the file that are kept for the comparison."""
    num_validation: int = 200
    """Showers before these that stop the trainings of the flows."""
    scale: float = 10.0
    """Networks see log(1 + E / scale) of a cell, in MeV: linear for most cells that are hit."""
    seed: int = 0
    """Seed of the points by which voxels get their cells, and of the copies."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x) of the box."""
        return GEOMETRY.shape[0] // self.layers, self.side, self.side

    def check(self) -> None:
        """Refuse bad options."""
        at_least(self, layers=1, side=1, copies=1, num_test=100, num_validation=2)
        check_positive(scale=self.scale)
        if GEOMETRY.shape[0] % self.layers:
            raise ValueError(
                f"data.layers is {self.layers}, which does not divide the {GEOMETRY.shape[0]} "
                "layers of the showers; choose a divisor"
            )


_GAME = OptimizerConfig(learning_rate=5e-4, beta1=0.5, beta2=0.9)


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
        steps=6000,
        batch_size=64,
        ema_decay=0.998,
        optimizer=_GAME,
        log_every=100,
        save_every=3000,
    )
    """Training; both critics have its optimiser."""
    learning_rate: float = 1e-3
    """Of encoder and decoder."""

    def check(self) -> None:
        """Refuse bad options."""
        at_least(self, num_latent=1, every=1)
        check_positive(learning_rate=self.learning_rate)
        at_least(self.training, batch_size=2)

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Of all players."""
        steps, game = self.training.steps, self.training.optimizer
        slow = dataclasses.replace(game, learning_rate=self.learning_rate)
        slow = make_optimizer(slow, max(steps // self.every, 1))
        fast = make_optimizer(game, steps)
        return per_player(
            {"encoder": slow, "decoder": slow, "critic": fast, "latent_critic": fast},
            {"encoder": self.every, "decoder": self.every},
        )


@dataclass(frozen=True)
class FlowsConfig:
    """Density estimates of the response and of the latent, both given the energy."""

    depth: int = 4
    """Couplings of the latent's flow."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of its networks."""
    response: TrainConfig = TrainConfig(
        steps=2000, batch_size=200, keep="best", validate_every=100, log_every=100, save_every=2000
    )
    """Training of the response's flow, stopped where the validation loss is smallest."""
    latent: TrainConfig = TrainConfig(
        steps=3000, batch_size=200, keep="best", validate_every=100, log_every=100, save_every=3000
    )
    """Training of the latent's flow, stopped likewise."""


_POST = TrainConfig(
    steps=2500,
    batch_size=8,
    ema_decay=0.99,
    optimizer=OptimizerConfig(learning_rate=5e-3),
    log_every=100,
    save_every=2500,
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
        at_least(self, stride=1, window=1)
        check_positive(floor=self.floor)
        check_not_negative(mse=self.mse, mmd=self.mmd)
        check_scales(self.scales)


@dataclass(frozen=True)
class Config:
    """A BIB-AE of electron showers."""

    data: DataConfig = DataConfig()
    """Showers."""
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    """Encoder, decoder and critics."""
    flows: FlowsConfig = FlowsConfig()
    """Response and latent."""
    post: PostConfig = PostConfig()
    """Post-processor."""
    num_bins: int = 4
    """Bins of the incident energy, equal in its logarithm."""
    num_repeats: int = 5
    """Showers generated for the energy of each test shower."""
    classifier_epochs: int = 50
    """Of the classifier test; 0 leaves it out."""
    seed: int = 0
    """Seed of everything random."""


class Showers(NamedTuple):
    """Showers in the box.

    Attributes:
      energies: incident [n], MeV.
      cells: [n, z, y, x], MeV.
    """

    energies: np.ndarray
    cells: np.ndarray

    @property
    def log_response(self) -> np.ndarray:
        """Logarithm of visible over incident energy [n]."""
        return np.log(self.cells.sum(axis=(1, 2, 3), dtype=np.float64) / self.energies)

    @property
    def logs(self) -> np.ndarray:
        """Logarithms [n, 2] of incident energy [MeV] and response."""
        return np.stack([np.log(self.energies), self.log_response], axis=1)

    @property
    def observables(self) -> dict[str, np.ndarray]:
        """See `jgen.showers.box.box_observables`."""
        return box.box_observables(self.energies, self.cells, HALF_WIDTH)


class Data(NamedTuple):
    """Disjoint sets of showers, and the numbers that the training set scales conditions with.

    Attributes:
      train, validation, test: showers.
      copies: showers that networks are trained on, made of the first of these.
      centre, width: mean and standard deviation of the training set's `logs` [2].
    """

    train: Showers
    validation: Showers
    test: Showers
    copies: Showers
    centre: np.ndarray
    width: np.ndarray

    def batch(self, showers: Showers, scale: float) -> Batch:
        """Compressed cells given standardised logarithms of incident energy and response."""
        cond = np.float32((showers.logs - self.centre) / self.width)
        return Batch(np.asarray(box.compressed(showers.cells, scale)), cond)


@functools.lru_cache(maxsize=1)
def load_data(config: DataConfig) -> Data:
    """Read, split and put into cells."""
    showers = read_showers(config.data or sample_path(), GEOMETRY)
    num = len(showers.energies) - config.num_test - config.num_validation
    rng = np.random.default_rng(config.seed)
    cells_of = lambda voxels: box.cartesian_cells(
        voxels, GEOMETRY, rng, layers=config.layers, side=config.side
    )
    every = Showers(showers.energies, cells_of(showers.voxels))
    cut = [num, num + config.num_validation]
    pieces = zip(*(np.split(array, cut) for array in every), strict=True)
    train, *others = (Showers(*piece) for piece in pieces)
    turned = lambda: box.turned(showers.voxels[:num], GEOMETRY, rng)
    cells = [train.cells, *(cells_of(turned()) for _ in range(config.copies - 1))]
    copies = Showers(np.tile(train.energies, config.copies), np.concatenate(cells))
    return Data(train, *others, copies, train.logs.mean(axis=0), train.logs.std(axis=0))


def networks(config: Config):
    """Autoencoder, pair critic and latent critic."""
    one, shape = config.autoencoder, config.data.shape
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


def game_model(config: Config) -> GenerativeModel:
    """The BIB-AE of compressed cells."""
    one = config.autoencoder
    return models.bib_ae(
        *networks(config), (one.num_latent,), one.weights, distance=box.poisson_deviance
    )


def latent_model(config: Config, coder_params: Params) -> GenerativeModel:
    """Compressed cells, from the density estimate of the latent."""
    one, num = config.flows, config.autoencoder.num_latent
    spline = bijectors.rational_quadratic(8, 5.0)
    density = bijectors.coupling_flow(num, spline, one.depth, 2, hidden=one.hidden)
    return transforms.latent(models.flow(density, num), networks(config)[0], coder_params)


def post_models(config: Config, coder_params: Params, generate) -> dict[str, GenerativeModel]:
    """Post-processors of compressed cells: "sorted" with the published loss, and "post" with ours.

    Args:
      config: of the study.
      coder_params: of encoder and decoder, whose reconstructions they are trained on.
      generate: (key, cond) -> compressed cells that they change when they generate.
    """
    one, coder = config.post, networks(config)[0]
    parts = (
        nets.elementwise_map(config.data.shape, 2, hidden=one.hidden),
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

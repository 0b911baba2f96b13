"""Data, models and trainings of the BIB-AE study."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jgen.bijectors import autoregressive_flow, coupling_flow, rational_quadratic
from jgen.generative_model import Batch, GenerativeModel, draw
from jgen.models import (
    BibAeWeights,
    bib_ae,
    encoder_decoder,
    flow,
    gaussian,
    post_processor,
    reconstruct,
)
from jgen.nets.voxel_autoencoder import (
    latent_critic,
    pair_critic,
    voxel_decoder,
    voxel_encoder,
    voxel_map,
)
from jgen.random import stream
from jgen.showers import get_geometry, read_showers, sample_path
from jgen.showers.box import compressed, cut_and_scaled, decompressed, merged_cells
from jgen.training import (
    OptimizerConfig,
    TrainConfig,
    fit,
    make_optimizer,
    member,
    per_player,
)
from jgen.transforms import latent
from jgen.typing import Params

GEOMETRY = get_geometry("ds2")
_GAME = OptimizerConfig(learning_rate=5e-4, beta1=0.5, beta2=0.9)


@dataclass(frozen=True)
class DataConfig:
    """Showers and their box."""

    data: Path | None = None
    """CaloChallenge file in DS2 voxels; the bundled Geant4 showers unless given."""
    layers: int = 3
    """Layers that make one cell of the box."""
    angles: int = 2
    """Angles that make one cell."""
    num_test: int = 1000
    """Showers at the end of the file that are kept for the comparison."""
    num_validation: int = 200
    """Showers before these that stop the trainings of the flows."""
    scale: float = 0.1
    """Networks see log(1 + E / scale) of a cell, in MeV."""


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
    weights: BibAeWeights = BibAeWeights(
        critic=10.0, latent_critic=1.0, latent_mmd=100.0, kl=0.2, reconstruction=0.5
    )
    """Weights of the terms."""
    every: int = 2
    """Encoder and decoder move at every so many steps of the critics (published: 5)."""
    training: TrainConfig = TrainConfig(
        steps=10_000,
        batch_size=64,
        ema_decay=0.998,
        optimizer=_GAME,
        log_every=100,
        save_every=3000,
    )
    """Training; both critics have its optimiser."""
    learning_rate: float = 1e-3
    """Of encoder and decoder."""


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


@dataclass(frozen=True)
class PostConfig:
    """The post-processor."""

    hidden: tuple[int, ...] = (32, 32)
    """Widths of its layers, for each cell."""
    scales: tuple[float, ...] = (0.2, 1.0)
    """Widths of the kernel, in log(1 + E / scale)."""
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
    training: TrainConfig = TrainConfig(
        steps=800, batch_size=32, ema_decay=0.99, log_every=100, save_every=800
    )
    """Training."""


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
      cells: [n, z, alpha, r], MeV.
    """

    energies: np.ndarray
    cells: np.ndarray

    @property
    def log_response(self) -> np.ndarray:
        """Logarithm of visible over incident energy [n]."""
        return np.log(self.cells.sum(axis=(1, 2, 3), dtype=np.float64) / self.energies)


class Data(NamedTuple):
    """Disjoint sets of showers, and the numbers that the training set scales conditions with.

    Attributes:
      train, validation, test: showers.
      centre: mean of the logarithms (incident energy / MeV, response).
      width: their standard deviation.
    """

    train: Showers
    validation: Showers
    test: Showers
    centre: np.ndarray
    width: np.ndarray


def load_data(config: DataConfig) -> Data:
    """Read, merge cells and split."""
    showers = read_showers(config.data or sample_path(), GEOMETRY)
    cells = merged_cells(showers.voxels, GEOMETRY, config.layers, config.angles)
    every = Showers(showers.energies, cells)
    held = config.num_test + config.num_validation
    if not 2 <= config.num_validation or not 100 <= config.num_test <= (len(cells) - held):
        raise ValueError(
            f"{len(cells)} showers are too few for {config.num_test} to test on, "
            f"{config.num_validation} to validate on and as many as the former to train on; "
            "num_test must be 100 or more"
        )
    cut = [len(cells) - held, len(cells) - config.num_test]
    parts = [Showers(*(np.split(a, cut)[i] for a in every)) for i in range(3)]
    logs = np.stack([np.log(parts[0].energies), parts[0].log_response], axis=1)
    return Data(*parts, logs.mean(axis=0), logs.std(axis=0))


def conditions(data: Data, showers: Showers) -> np.ndarray:
    """Standardised logarithms [n, 2] of incident energy and response."""
    logs = np.stack([np.log(showers.energies), showers.log_response], axis=1)
    return np.float32((logs - data.centre) / data.width)


def box_shape(config: DataConfig) -> tuple[int, int, int]:
    """(z, alpha, r) of the box."""
    num_z, num_alpha, num_r = GEOMETRY.shape
    return num_z // config.layers, num_alpha // config.angles, num_r


def networks(config: Config):
    """Encoder, decoder, pair critic and latent critic."""
    one, shape = config.autoencoder, box_shape(config.data)
    return (
        voxel_encoder(shape, 2, one.num_latent, hidden=one.hidden),
        voxel_decoder(shape, 2, one.num_latent, hidden=one.hidden[::-1]),
        pair_critic(shape, 2, hidden=one.critic_hidden),
        latent_critic(one.num_latent, hidden=one.latent_hidden),
    )


def response_model(config: Config) -> GenerativeModel:
    """p(response | energy), one number given one, both standardised logarithms."""
    del config
    return flow(autoregressive_flow(1, rational_quadratic(8, 5.0), 1, 1, hidden=(32, 32)), 1)


def game_model(config: Config) -> GenerativeModel:
    """The BIB-AE of compressed cells."""
    return bib_ae(*networks(config), (config.autoencoder.num_latent,), config.autoencoder.weights)


def latent_model(config: Config, coder_params: Params) -> GenerativeModel:
    """Compressed cells, from the density estimate of the latent."""
    one = config.flows
    num = config.autoencoder.num_latent
    density = flow(
        coupling_flow(num, rational_quadratic(8, 5.0), one.depth, 2, hidden=one.hidden), num
    )
    coder = encoder_decoder(*networks(config)[:2])
    return latent(density, coder, coder_params, likelihood=gaussian())


def post_model(config: Config, coder_params: Params, generate) -> GenerativeModel:
    """The post-processor of compressed cells."""
    one = config.post
    coder = encoder_decoder(*networks(config)[:2])
    return post_processor(
        voxel_map(box_shape(config.data), 2, hidden=one.hidden),
        lambda key, x, cond: reconstruct(coder, gaussian(), coder_params, key, x, cond),
        generate,
        one.scales,
        window=one.window,
        stride=one.stride,
        num=one.num,
        mse=one.mse,
        mmd=one.mmd,
    )


def train(config: Config, data: Data, folder: Path) -> tuple[dict, dict]:
    """Train all parts one after another; returns models and parameters by name."""
    batch = lambda showers: Batch(
        np.asarray(compressed(showers.cells, config.data.scale)), conditions(data, showers)
    )
    train_batch, validation = batch(data.train), batch(data.validation)
    only_response = lambda b: Batch(b.cond[:, 1:], b.cond[:, :1])

    def run(name, model, events, training, validation=None, optimizer=None):
        key = stream(jax.random.key(config.seed), name)
        fitted = fit(
            model, events, key, training, validation=validation, optimizer=optimizer,
            folder=folder / name, name=name,
        )  # fmt: skip
        return member(fitted.params, 0)

    models = {"response": response_model(config), "game": game_model(config)}
    params = {
        "response": run(
            "response", models["response"], only_response(train_batch), config.flows.response,
            only_response(validation),
        )
    }  # fmt: skip
    params["game"] = run(
        "game", models["game"], train_batch, config.autoencoder.training,
        optimizer=_players(config.autoencoder),
    )  # fmt: skip
    coder_params = {name: params["game"][name] for name in ("encoder", "decoder")}
    models["latent"] = latent_model(config, coder_params)
    params["latent"] = run("latent", models["latent"], train_batch, config.flows.latent, validation)
    generate = lambda key, cond: models["latent"].sample(params["latent"], key, cond)
    models["post"] = post_model(config, coder_params, generate)
    params["post"] = run("post", models["post"], train_batch, config.post.training)
    return models, params


def _players(config: AutoencoderConfig):
    steps = config.training.steps
    game = config.training.optimizer
    slow = OptimizerConfig(
        learning_rate=config.learning_rate, beta1=game.beta1, beta2=game.beta2,
        schedule=game.schedule,
    )  # fmt: skip
    slow, fast = make_optimizer(slow, max(steps // config.every, 1)), make_optimizer(game, steps)
    return per_player(
        {"encoder": slow, "decoder": slow, "critic": fast, "latent_critic": fast},
        {"encoder": config.every, "decoder": config.every},
    )


GENERATED = ("prior", "without", "with")


def generate(
    config: Config, data: Data, models: dict, params: dict, energies: np.ndarray
) -> dict[str, np.ndarray]:
    """Showers [n, z, alpha, r] in MeV for incident energies, by how they were made.

    prior: the latent from N(0, 1), no post-processor. without, with: the latent from its density
    estimate, without and with post-processor. Each has "/free" beside it: its visible energy [n]
    before cells were cut and scaled to the response that was drawn first.
    """
    centre, width = np.float32(data.centre), np.float32(data.width)
    samplers = {
        "prior": lambda key, cond: models["game"].sample(params["game"], key, cond),
        "without": lambda key, cond: models["latent"].sample(params["latent"], key, cond),
        "with": lambda key, cond: models["post"].sample(params["post"], key, cond),
    }
    found = {}
    for name, sampler in samplers.items():

        def sample(_, key, energy, sampler=sampler):
            key_response, key_shape = jax.random.split(key)
            log_energy = ((jnp.log(energy) - centre[0]) / width[0])[None]
            response = models["response"].sample(params["response"], key_response, log_energy)
            cond = jnp.concatenate([log_energy, response])
            cells = decompressed(sampler(key_shape, cond), config.data.scale)
            total = energy * jnp.exp(response[0] * width[1] + centre[1])
            return cut_and_scaled(cells, total, GEOMETRY.threshold), jnp.sum(cells)

        # The same key for all three: they differ in what is compared and in nothing else.
        key = stream(jax.random.key(config.seed), "sample")
        model = GenerativeModel(None, None, sample)
        found[name], found[f"{name}/free"] = draw(model, {}, key, len(energies), energies)
    return found

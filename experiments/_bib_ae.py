"""Options, models and trainings of the BIB-AE study."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments._bib_ae_data import GEOMETRY, Data, DataConfig, box_shape, conditions
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
    sorted_spectrum,
    voxel_score,
)
from jgen.nets.voxel_autoencoder import (
    latent_critic,
    pair_critic,
    voxel_decoder,
    voxel_encoder,
    voxel_map,
)
from jgen.random import stream
from jgen.showers.box import (
    compressed,
    cut_and_scaled,
    decompressed,
    poisson_deviance,
)
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
    weights: BibAeWeights = BibAeWeights(
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
    one = config.autoencoder
    return bib_ae(*networks(config), (one.num_latent,), one.weights, distance=poisson_deviance)


def latent_model(config: Config, coder_params: Params) -> GenerativeModel:
    """Compressed cells, from the density estimate of the latent."""
    one = config.flows
    num = config.autoencoder.num_latent
    density = flow(
        coupling_flow(num, rational_quadratic(8, 5.0), one.depth, 2, hidden=one.hidden), num
    )
    coder = encoder_decoder(*networks(config)[:2])
    return latent(density, coder, coder_params, likelihood=gaussian())


def post_models(config: Config, coder_params: Params, generate) -> dict[str, GenerativeModel]:
    """Post-processors of compressed cells: "post", and "sorted" with the published loss."""
    one = config.post
    coder = encoder_decoder(*networks(config)[:2])
    parts = (
        voxel_map(box_shape(config.data), 2, hidden=one.hidden),
        lambda key, x, cond: reconstruct(coder, gaussian(), coder_params, key, x, cond),
        generate,
    )
    published = sorted_spectrum(
        one.scales, window=one.window, stride=one.stride, num=one.num, mse=one.mse, mmd=one.mmd
    )
    return {
        "sorted": post_processor(*parts, published),
        "post": post_processor(*parts, voxel_score(one.floor)),
    }


def train(config: Config, data: Data, folder: Path) -> tuple[dict, dict]:
    """Train all parts one after another; returns models and parameters by name."""
    batch = lambda showers: Batch(
        np.asarray(compressed(showers.cells, config.data.scale)), conditions(data, showers)
    )
    train_batch, validation = batch(data.copies), batch(data.validation)
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
    models |= post_models(config, coder_params, generate)
    one = config.post
    for name, training in (("sorted", one.sorted_training), ("post", one.training)):
        params[name] = run(name, models[name], train_batch, training)
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


GENERATED = {"prior": "game", "without": "latent", "sorted": "sorted", "with": "post"}


def generate(
    config: Config, data: Data, models: dict, params: dict, energies: np.ndarray
) -> dict[str, np.ndarray]:
    """Showers [n, z, y, x] in MeV for incident energies, by how they were made.

    prior: the latent from N(0, 1), no post-processor. without: the latent from its density
    estimate. sorted, with: as without, and a post-processor of the published loss or of ours. Each
    has "/free" beside it: its visible energy [n] over the one that was drawn first, before cells
    were cut and scaled to that.
    """
    centre, width = np.float32(data.centre), np.float32(data.width)

    def sample(_, key, energy):
        key_response, key_shape = jax.random.split(key)
        log_energy = ((jnp.log(energy) - centre[0]) / width[0])[None]
        response = models["response"].sample(params["response"], key_response, log_energy)
        cond = jnp.concatenate([log_energy, response])
        total = energy * jnp.exp(response[0] * width[1] + centre[1])
        found = {}
        for name, part in GENERATED.items():
            cells = models[part].sample(params[part], key_shape, cond)
            cells = decompressed(cells, config.data.scale)
            found[name] = cut_and_scaled(cells, total, GEOMETRY.threshold)
            found[f"{name}/free"] = jnp.sum(cells) / total
        return found

    key = stream(jax.random.key(config.seed), "sample")
    return draw(GenerativeModel(None, None, sample), {}, key, len(energies), energies)

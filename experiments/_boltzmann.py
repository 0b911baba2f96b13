"""Boltzmann generators of double wells: configuration, flows, chains and the autoencoder."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jgen.bijectors import affine, coupling_flow, standardize
from jgen.files import atomic_path
from jgen.files import load as load_params
from jgen.files import save as save_params
from jgen.generative_model import Batch, GenerativeModel, draw
from jgen.inference import draw_weighted, hamiltonian, independence_metropolis, log_weights
from jgen.inference import random_walk as walk
from jgen.models import (
    Autoencoder,
    encoder_decoder,
    flow,
    gaussian,
    importance_bound,
    log_importance_weights_of_events,
    vae,
    with_width,
)
from jgen.models.vae import elbo_of_events
from jgen.nets import Network, conditioner
from jgen.random import stream
from jgen.toys import double_well
from jgen.training import OptimizerConfig, TrainConfig, fit, member
from jgen.transforms import preprocessed, reverse_kl

Well = Literal["tilted", "hard"]
Training = Literal["plain", "annealed", "finished", "mixed"]

WELLS = {"tilted": double_well(), "hard": double_well(0.25, 3.0, 1.0)}


@dataclass(frozen=True)
class FlowConfig:
    """Affine couplings, trained without data."""

    depth: int = 8
    """Couplings."""
    hidden: tuple[int, ...] = (32, 32)
    """Widths of the network of each."""
    training: TrainConfig = TrainConfig(
        steps=4000,
        batch_size=512,
        log_every=100,
        save_every=1000,
        optimizer=OptimizerConfig(learning_rate=2e-3),
    )
    """Training; its batch is the events that the flow makes at every step."""
    hottest: float = 5.0
    """Temperature that an annealed training starts at, in units of the target's; it falls linearly
    to one."""
    annealing: float = 0.5
    """Fraction of the training until it is one."""
    likelihood: float = 0.5
    """Weight of the likelihood in a mixed training and in a finishing one."""
    finish: TrainConfig = TrainConfig(
        steps=2000,
        batch_size=512,
        log_every=100,
        save_every=1000,
        optimizer=OptimizerConfig(learning_rate=5e-4),
    )
    """Training that goes on from the annealed flow."""


@dataclass(frozen=True)
class ChainConfig:
    """Markov chains, all started in the left minimum."""

    chains: int = 10
    """Their number."""
    steps: int = 20_000
    """Metropolis steps of each, and proposals of an independence chain."""
    width: float = 0.3
    """Standard deviation of a random walk's steps."""
    step_size: float = 0.15
    """Of the leapfrog integrator of Hamiltonian trajectories."""
    max_steps: int = 19
    """Their longest trajectory; ten steps on average, and a tenth as many trajectories as
    `steps`, so that gradients are as many as the walk's energies."""


@dataclass(frozen=True)
class VaeConfig:
    """Variational autoencoder trained on exact events of the tilted well."""

    num_train: int = 20_000
    """Training events."""
    num_latent: int = 2
    """Components of the latent."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of encoder and decoder."""
    training: TrainConfig = TrainConfig(
        steps=6000,
        batch_size=256,
        log_every=100,
        save_every=2000,
        optimizer=OptimizerConfig(learning_rate=2e-3),
    )
    """Training."""
    num_test: int = 2000
    """Events that its bounds are averaged over."""
    num_importance: int = 1000
    """K of the importance-weighted bound."""


@dataclass(frozen=True)
class Config:
    """Boltzmann generators of double wells, Markov chains and an autoencoder beside them."""

    wells: tuple[Well, ...] = ("tilted", "hard")
    """tilted: U = x^4 - 4 x^2 + x / 2 + v^2 / 2; hard: x^4 / 4 - 3 x^2 + x + v^2 / 2."""
    trainings: tuple[Training, ...] = ("plain", "annealed", "finished", "mixed")
    """Of the hard well's flows. plain: reverse KL. annealed: that from a high temperature on.
    finished: the annealed one trained on, half with the likelihood of its own events after
    reweighting and random walks. mixed: half with the likelihood of short walks in both wells."""
    flow: FlowConfig = FlowConfig()
    """The flows."""
    chain: ChainConfig = ChainConfig()
    """The Markov chains."""
    vae: VaeConfig = VaeConfig()
    """The autoencoder."""
    num_gen: int = 500_000
    """Events of each flow, and of the target for the forward sample size."""
    num_walk: int = 5000
    """Events in each minimum of short random walks, every tenth step: data of the mixed training,
    and what a forward sample size without exact events is taken from."""
    num_corrected: int = 50_000
    """Events that the annealed flow is finished on: its own, drawn again by their weights and moved
    by random walks."""
    corrected_steps: int = 100
    """Steps of these walks."""
    sample_batch: int = 10_000
    """Events generated at once."""
    seed: int = 0
    """Seed of everything random."""


def trainings(config: Config, well: Well) -> tuple[str, ...]:
    """How the flows of a well are trained."""
    return ("plain",) if well == "tilted" else config.trainings


def check_options(config: Config) -> None:
    """Refuse bad options before the folder is made."""
    if not config.wells or not config.trainings:
        raise ValueError("wells must name at least one of tilted and hard, and trainings one")
    chain = config.chain
    for name, value, least in (
        ("num_gen", config.num_gen, chain.chains * chain.steps),
        ("num_walk", config.num_walk, 10),
        ("num_corrected", config.num_corrected, 1),
        ("chain.chains", chain.chains, 2),
        ("chain.steps", chain.steps, 100),
        ("vae.num_test", config.vae.num_test, 2),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if not (0 < config.flow.annealing <= 1 and config.flow.hottest >= 1):
        raise ValueError(
            "annealing must be in (0, 1] and hottest at least 1, got "
            f"{config.flow.annealing} and {config.flow.hottest}"
        )
    config.flow.training.check()
    config.flow.finish.check()
    config.vae.training.check()


@functools.cache
def make_flow(config: FlowConfig) -> GenerativeModel:
    """The flow."""
    return flow(coupling_flow(2, affine(), config.depth, hidden=config.hidden), 2)


def short_walks(config: Config, well: Well) -> np.ndarray:
    """Events [2 num_walk, 2], as many of walks from the left minimum as from the right one.

    Ten walks each, whose first tenth is left out.
    """
    key, target = stream(jax.random.key(config.seed), f"short walks {well}"), WELLS[well]
    start = np.repeat(np.array([[x, 0.0] for x in target.minima], np.float32), 10, axis=0)
    each = -(-config.num_walk // 10)
    num = each + -(-each // 9)
    run = walk(key, target.energy, start, num, width=config.chain.width, thin=10)
    return np.asarray(run.x)[:, -each:].reshape(2, -1, 2)[:, : config.num_walk].reshape(-1, 2)


def flow_events(config: Config, well: Well, method: Training, out: Path) -> dict[str, np.ndarray]:
    """What a flow generates, trained before or read again.

    x [num_gen, 2] and their `log_weight`; `log_weight_exact` of as many events of the target, and
    `log_weight_walks` of the short walks.
    """
    path = out / f"{well}-{method}.npz"
    if not path.exists():
        model = make_flow(config.flow)
        trained, data = objective(config, well, method, out)
        training = config.flow.finish if method == "finished" else config.flow.training
        params = _fit(config, trained, data, training, out / f"{well}-{method}")
        key, target = stream(jax.random.key(config.seed), f"{well} {method}"), WELLS[well]
        keys = jax.random.split(key, 3)
        size = {"batch_size": config.sample_batch}
        own = draw_weighted(model, params, keys[0], config.num_gen, target.energy, **size)
        exact = exact_events(well, stream(key, "exact"), config.num_gen)
        weights = lambda x, key: log_weights(model, params, key, x, target.energy, **size)
        found = {
            "x": own.x,
            "log_weight": own.log_weight,
            "log_weight_exact": weights(exact, keys[1]),
            "log_weight_walks": weights(short_walks(config, well), keys[2]),
        }
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.savez(file, **{k: np.asarray(v, np.float32) for k, v in found.items()})
    with np.load(path) as file:
        return dict(file)


def corrected_events(config: Config, well: Well, out: Path) -> np.ndarray:
    """Events [num_corrected, 2] that follow the target, from the annealed flow and random walks.

    Weights put the populations of the wells right, and walks bring what the flow leaves out within
    them.
    """
    found, key = flow_events(config, well, "annealed", out), jax.random.key(config.seed)
    log_weight = found["log_weight"].astype(np.float64)
    weight = np.exp(log_weight - log_weight.max())
    rng = np.random.default_rng(config.seed)
    start = rng.choice(len(weight), config.num_corrected, p=weight / weight.sum())
    run = walk(
        stream(key, f"corrected {well}"),
        WELLS[well].energy,
        found["x"][start],
        1,
        width=config.chain.width,
        thin=config.corrected_steps,
    )
    return np.asarray(run.x)[:, 0]


def exact_events(well: Well, key: jax.Array, num: int) -> np.ndarray:
    """Events [num, 2] of the target itself."""
    return np.asarray(_exact(WELLS[well].toy.sample, num, key))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _exact(sample, num, key):
    return jax.vmap(sample)(jax.random.split(key, num))


def objective(
    config: Config, well: Well, method: Training, out: Path
) -> tuple[GenerativeModel, Batch | None]:
    """What a flow is trained on: the model with its loss, and the data if there are any."""
    model = make_flow(config.flow)
    one, reverse = config.flow, functools.partial(reverse_kl, energy=WELLS[well].energy)
    if method == "plain":
        return reverse(model), None
    if method == "annealed":
        hot = lambda done: 1 + (one.hottest - 1) * jnp.maximum(0.0, 1 - done / one.annealing)
        return reverse(model, temperature=hot), None
    if method == "mixed":
        return reverse(model, likelihood=one.likelihood), Batch(short_walks(config, well))
    data = Batch(corrected_events(config, well, out))
    start = load_params(out / f"{well}-annealed" / "params.npz", model.init)
    return reverse(model._replace(init=lambda key: start), likelihood=one.likelihood), data


def _fit(config, model, data, training, folder):
    if (folder / "params.npz").exists():
        return load_params(folder / "params.npz", model.init)
    key = stream(jax.random.key(config.seed), folder.name)
    params = member(fit(model, data, key, training, folder=folder, name=folder.name).params, 0)
    save_params(folder / "params.npz", params)
    return params


def chain_events(config: Config, well: Well, out: Path) -> dict[str, np.ndarray]:
    """Chains of x and v [chains, num, 2] and mean acceptances, of `walk` and `hmc`."""
    path = out / f"{well}-chains.npz"
    if not path.exists():
        key, energy = stream(jax.random.key(config.seed), f"chains {well}"), WELLS[well].energy
        one = config.chain
        start = np.tile([[WELLS[well].minima[0], 0.0]], (one.chains, 1))
        runs = {
            "walk": walk(stream(key, "walk"), energy, start, one.steps, width=one.width),
            "hmc": hamiltonian(
                stream(key, "hmc"),
                energy,
                start,
                one.steps // 10,
                step_size=one.step_size,
                max_steps=one.max_steps,
            ),
        }
        found = {name: np.asarray(run.x) for name, run in runs.items()}
        found |= {f"{name}_acceptance": np.asarray(run.acceptance) for name, run in runs.items()}
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.savez(file, **found)
    with np.load(path) as file:
        return dict(file)


def metropolis(
    config: Config, well: Well, method: Training, found: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Independence chains on a flow's events: x [chains, steps, 2] and acceptances [chains]."""
    shape = (config.chain.chains, config.chain.steps)
    num = shape[0] * shape[1]
    key = stream(jax.random.key(config.seed), f"metropolis {well} {method}")
    run = jax.vmap(independence_metropolis)(
        jax.random.split(key, shape[0]), found["log_weight"][:num].reshape(shape)
    )
    index = np.asarray(run.index)[..., None]
    x = np.take_along_axis(found["x"][:num].reshape(*shape, 2), index, axis=1)
    return x, np.asarray(run.accepted).mean(axis=1)


def make_vae(config: VaeConfig, data: np.ndarray) -> tuple[GenerativeModel, Autoencoder]:
    """The autoencoder as a model of events, and what its bounds are of, standardised events."""
    encoder = conditioner(2, 2 * config.num_latent, hidden=config.hidden)
    pair = lambda params, x, cond: tuple(encoder.apply(params, x, cond).reshape(2, -1))
    # Started at zero the decoder would ignore its latent, and the encoder have nothing to learn.
    inner = conditioner(config.num_latent, 2, hidden=config.hidden)
    decoder = with_width(Network(inner.init, inner.apply), 0.5)
    autoencoder = encoder_decoder(Network(encoder.init, pair), decoder, gaussian(None))
    model = vae(
        autoencoder,
        (config.num_latent,),
        num_importance=config.num_importance,
    )
    return preprocessed(model, standardize(data.mean(axis=0), data.std(axis=0))), autoencoder


def vae_results(config: Config, out: Path) -> dict[str, np.ndarray]:
    """Generated events `x`, and log-densities [num_test] of exact events.

    Those are `elbo` and `iwae` of the autoencoder and `exact` of the target.
    """
    path = out / "tilted-vae.npz"
    if not path.exists():
        one, key = config.vae, stream(jax.random.key(config.seed), "vae")
        train = exact_events("tilted", stream(key, "train"), one.num_train)
        test = exact_events("tilted", stream(key, "test"), one.num_test)
        model, autoencoder = make_vae(one, train)
        params = _fit(config, model, Batch(train), one.training, out / "tilted-vae")
        mean, scale = train.mean(axis=0), train.std(axis=0)
        data = Batch((test - mean) / scale)
        log_det = -np.log(scale).sum()
        keys = jax.random.split(stream(key, "bounds"), 3)
        bound = elbo_of_events(autoencoder, params, keys[0], data)
        weights = log_importance_weights_of_events(
            autoencoder, params, keys[1], data, num=one.num_importance
        )
        found = {
            "x": draw(model, params, keys[2], config.num_gen, batch_size=config.sample_batch),
            "elbo": bound.reconstruction - bound.kl + log_det,
            "iwae": np.asarray(importance_bound(weights)) + log_det,
            "exact": np.asarray(jax.vmap(WELLS["tilted"].toy.log_prob)(test)),
        }
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.savez(file, **found)
    with np.load(path) as file:
        return dict(file)

"""Distributions, quantile bins and generators of the GANplification study."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import jax
import numpy as np
import optax

from experiments.study import at_least, known
from jgen import GenerativeModel, OptimizerConfig, TrainConfig, amplification, models, nets, toys
from jgen.bijectors import standardize
from jgen.checks import check_positive
from jgen.nets.transformers.causal import CausalConfig
from jgen.solvers import runge_kutta
from jgen.training import game_optimizer
from jgen.transforms import preprocessed

Function = Literal["camel", "ring", "shell"]
Generator = Literal["gan", "flow", "autoregressive"]

TOYS = {"camel": toys.camel_back(4, 1), "ring": toys.ring(2, 4, 1), "shell": toys.ring(5, 4, 1)}
# Coordinates that are binned, and the bins of each. Of ring and shell the first one is the radius.
QUANTILES = {
    "camel": {"10": ((0,), 10), "20": ((0,), 20), "50": ((0,), 50)},
    "ring": {"radius 10": ((0,), 10), "angle 10": ((1,), 10), "7x7": ((0, 1), 7)},
    "shell": {"radius 10": ((0,), 10), "angle 10": ((1,), 10), "3^5": ((0, 1, 2, 3, 4), 3)},
}
# All toys have this root mean square distance to the origin.
_SCALE = 17**0.5


@dataclass(frozen=True)
class GanConfig:
    """A GAN with batch statistics; the defaults are smaller than the paper's for two cores."""

    num_noise: int = 32
    """Uniform random numbers in [-1, 1] that go into the generator."""
    hidden: tuple[int, ...] = (64, 64, 64)
    """Widths of the generator's hidden layers, with ELU between them."""
    dropout: float = 0.1
    """Fraction of the generator's hidden units that are dropped, in generation too."""
    embedding: tuple[int, ...] = (32, 32, 16)
    """Widths of the critic's layers on the differences to all events of the minibatch."""
    critic_hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of the critic behind that; the paper's are not known to us."""
    learning_rate: float = 1e-3
    """Of the generator; the critic's is that of the training."""
    every: int = 1
    """The generator moves at every so many steps of the critic."""
    training: TrainConfig = TrainConfig(
        steps=6000,
        batch_size=50,
        ema_decay=0.999,
        optimizer=OptimizerConfig(learning_rate=1e-3, beta1=0.5),
        log_every=100,
        save_every=2000,
    )
    """Training; its ensemble and data sets are set by the study."""

    def check(self) -> None:
        """Refuse a player that never moves."""
        at_least(self, every=1)
        check_positive(learning_rate=self.learning_rate)


@dataclass(frozen=True)
class FlowConfig:
    """Flow matching."""

    hidden: tuple[int, ...] = (128, 128, 128)
    """Widths of the velocity's hidden layers."""
    solver_steps: int = 10
    """Midpoint steps of the solver."""
    training: TrainConfig = TrainConfig(
        steps=3000, batch_size=100, keep="best", validate_every=50, log_every=100, save_every=1000
    )
    """Training, stopped where the validation loss is smallest."""


@dataclass(frozen=True)
class AutoregressiveConfig:
    """Autoregressive transformer with Gaussian mixtures."""

    network: CausalConfig = CausalConfig(width=32, blocks=1)
    """Sizes of the transformer."""
    num_gauss: int = 10
    """Gaussians of a mixture."""
    training: TrainConfig = TrainConfig(
        steps=1000, batch_size=50, keep="best", validate_every=10, log_every=100, save_every=1000
    )
    """Training, stopped where the validation loss is smallest."""


@dataclass(frozen=True)
class Config:
    """Generators trained on few events of known distributions."""

    functions: tuple[Function, ...] = ("camel", "ring", "shell")
    """Distributions: camel back (1-D), Gaussian ring (2-D) and spherical shell (5-D)."""
    generators: tuple[Generator, ...] = ("gan", "flow", "autoregressive")
    """What is trained on each."""
    num_train: int = 100
    """Training events, those for validation among them."""
    num_validation: int = 20
    """Of these, held out to stop the training of flow and autoregressive model. A GAN, whose loss
    says nothing, trains on all of them for a fixed number of steps."""
    data_sets: int = 5
    """Independent training sets, a generator of each kind for every one of them."""
    num_gen: int = 50_000
    """Events that each generator generates."""
    sizes_per_decade: int = 5
    """Points of the curves over generated events, from 100 on."""
    num_fits: int = 4000
    """Training sets of the camel back that the five-parameter fit is repeated for."""
    gan: GanConfig = GanConfig()
    """The GAN."""
    flow: FlowConfig = FlowConfig()
    """Flow matching."""
    autoregressive: AutoregressiveConfig = AutoregressiveConfig()
    """The autoregressive model."""
    sample_batch: int = 10_000
    """Events generated at once."""
    seed: int = 0
    """Seed of everything random."""

    @property
    def sizes(self) -> np.ndarray:
        """Numbers of generated events of the curves."""
        return amplification.prefix_sizes(self.num_gen, 100, self.sizes_per_decade)

    def check(self) -> None:
        """Refuse options that do not fit together."""
        known(self, functions=tuple(TOYS), generators=("gan", "flow", "autoregressive"))
        at_least(self, data_sets=2, num_gen=1000, num_fits=100, num_train=10)
        at_least(self, sizes_per_decade=1, sample_batch=1)
        if not 1 <= self.num_validation < self.num_train:
            raise ValueError(
                f"num_validation must be between 1 and the {self.num_train} training events less "
                f"one, got {self.num_validation}"
            )


def make_model(config: Config, function: Function, generator: Generator) -> GenerativeModel:
    """The model, in the Cartesian coordinates of the events."""
    dim = TOYS[function].dim
    if generator == "gan":
        one = config.gan
        model = models.gan(
            nets.generator_mlp(
                dim,
                num_noise=one.num_noise,
                noise="uniform",
                hidden=one.hidden,
                activation=jax.nn.elu,
                dropout=one.dropout,
            ),
            nets.critic_mlp(dim, hidden=one.critic_hidden, embedding=one.embedding),
        )
    elif generator == "flow":
        velocity = nets.velocity_mlp(dim, hidden=config.flow.hidden)
        solver = runge_kutta("midpoint", config.flow.solver_steps)
        model = models.flow_matching(velocity, (dim,), solver=solver)
    else:
        one = config.autoregressive
        head = models.gaussian_mixture(one.num_gauss)
        network = nets.causal(dim, head.num_outputs, config=one.network)
        model = models.autoregressive(network, head, dim)
    scale = np.full(dim, _SCALE / dim**0.5, np.float32)
    return preprocessed(model, standardize(np.zeros_like(scale), scale))


def event_bins(function: Function, events: np.ndarray) -> dict[str, np.ndarray]:
    """Bin of each event, by quantiles."""
    toy = TOYS[function]
    coordinates = np.asarray(jax.jit(jax.vmap(toy.coordinates))(events))
    bins = {}
    for name, (columns, num) in QUANTILES[function].items():
        edges = [toys.quantile_edges(toy.marginals[i], num) for i in columns]
        bins[name] = amplification.product_bins(coordinates[:, columns], edges)
    return bins


def sample_errors(function: Function, sets: np.ndarray) -> dict[str, np.ndarray]:
    """Quantile errors [sets] of data sets [sets, n, d] as they are, by quantiles."""
    num, size, dim = sets.shape
    errors = {}
    for name, bins in event_bins(function, sets.reshape(-1, dim)).items():
        total = num_bins(function, name)
        rows = np.repeat(np.arange(num), size) * total + bins
        counts = np.bincount(rows, minlength=num * total).reshape(num, total)
        errors[name] = amplification.quantile_mse(counts / size)
    return errors


def num_bins(function: Function, quantiles: str) -> int:
    """All bins of some quantiles."""
    columns, num = QUANTILES[function][quantiles]
    return num ** len(columns)


def training_of(
    config: Config, generator: Generator
) -> tuple[TrainConfig, optax.GradientTransformation | None]:
    """Training of all data sets in one program, and the optimiser of both players of a GAN."""
    one = getattr(config, generator)
    sets = {"ensemble": config.data_sets, "data_sets": config.data_sets}
    training = dataclasses.replace(one.training, **sets)
    if generator != "gan":
        return training, None
    generator = dataclasses.replace(training.optimizer, learning_rate=one.learning_rate)
    players = {"generator": generator, "critic": training.optimizer}
    return training, game_optimizer(players, training.steps, {"generator": one.every})

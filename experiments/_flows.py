"""Trainings of the flow study, and what each of them is judged by."""

import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from experiments._flows_data import TOYS, DataName, DataSet, with_new_noise
from experiments._flows_families import FAMILIES, Sizes, make_model
from experiments._judging import stored, timed_draw, timed_log_prob
from jgen.bijectors import standardize
from jgen.generative_model import Batch, GenerativeModel
from jgen.metrics import wasserstein
from jgen.random import stream
from jgen.training import OptimizerConfig, TrainConfig, fit, member
from jgen.transforms import preprocessed
from jgen.typing import Params

SKIPPED = {
    ("glow", "moons"): "images only",
    ("glow", "circles"): "images only",
    ("glow", "eight-gaussians"): "images only",
    ("glow", "jets"): "images only",
    ("iaf", "digits"): "64 passes a density",
    ("residual", "digits"): "a 64 x 64 Jacobian a layer",
}
"""Pairs of family and data set that make no sense, and why."""


def _training(
    steps: int, batch_size: int, rate: float, decay: float = 0.0, **options
) -> TrainConfig:
    optimizer = OptimizerConfig(learning_rate=rate, clip_norm=1.0, weight_decay=decay)
    options = {"ema_decay": 0.99, "log_every": 100, "save_every": 2000} | options
    return TrainConfig(steps, batch_size, optimizer=optimizer, **options)


@dataclass(frozen=True)
class Trainings:
    """How the families are trained on one kind of data."""

    usual: TrainConfig = _training(1500, 256, 5e-3, ema_decay=0.995)
    """By likelihood in closed form."""
    continuous: TrainConfig = _training(800, 128, 2e-2)
    """The continuous flow by its likelihood, through the solver."""
    matching: TrainConfig = _training(14_000, 512, 1e-2, ema_decay=0.999)
    """The same velocity by flow matching, whose loss is random in noise and time: its steps are
    cheap, and many are needed."""


@dataclass(frozen=True)
class Config:
    """Every family of bijectors on every data set."""

    data: tuple[DataName, ...] = ("moons", "circles", "eight-gaussians", "jets", "digits")
    """Data sets."""
    families: tuple[str, ...] = FAMILIES
    """Families, see experiments/_flows_families.py."""
    num_train: int = 50_000
    """Training events of a toy, and at most of the jets; there are 1294 digits for it."""
    num_test: int = 10_000
    """Test events of a toy, and at most of the jets; of the digits 360, each with five noises."""
    num_draw: int = 5000
    """Events drawn from each model; not more than there are training events are compared."""
    grid: int = 100
    """Points an axis of the density pictures of the toys."""
    sizes: Sizes = Sizes()
    """Sizes of the flows."""
    toys: Trainings = Trainings()
    """Trainings on the toys."""
    jets: Trainings = Trainings(
        usual=_training(1000, 256, 2e-3, keep="best", validate_every=100),
        continuous=_training(400, 128, 1e-2, keep="best", validate_every=50),
        matching=_training(4000, 512, 1e-2, ema_decay=0.998, keep="best", validate_every=500),
    )
    """Trainings on the jets, stopped where the validation loss is smallest."""
    digits: Trainings = Trainings(
        usual=_training(600, 128, 3e-3, 1e-2, keep="best", validate_every=50),
        continuous=_training(600, 128, 8e-3, 1e-2, keep="best", validate_every=50),
        matching=_training(5000, 128, 6e-3, 1e-2, keep="best", validate_every=250),
    )
    """Trainings on the digits, stopped likewise; weights decay."""
    regularisations: tuple[float, ...] = (1e-4, 1e-3, 3e-3, 1e-2)
    """What the mixture of ten Gaussians may add to the diagonal of its covariances, in units of
    the columns' variances; the validation events choose."""
    seed: int = 0
    """Seed of everything random."""


def pairs(config: Config) -> list[tuple[DataName, str]]:
    """All (data set, family) that are trained, in their order."""
    return [(d, f) for d in config.data for f in config.families if (f, d) not in SKIPPED]


def check_options(config: Config) -> None:
    """Refuse bad options before the folder is made."""
    if not config.data or not config.families:
        raise ValueError("data and families must name at least one each")
    if unknown := set(config.families) - set(FAMILIES):
        raise ValueError(f"unknown families {sorted(unknown)}; there are {', '.join(FAMILIES)}")
    for name, least in (("num_train", 1000), ("num_test", 100), ("num_draw", 100), ("grid", 2)):
        if getattr(config, name) < least:
            raise ValueError(f"{name} must be at least {least}, got {getattr(config, name)}")
    if not config.regularisations:
        raise ValueError("regularisations must name at least one")
    for kind in (config.toys, config.jets, config.digits):
        for training in (kind.usual, kind.continuous, kind.matching):
            training.check()
    if not pairs(config):
        raise ValueError("nothing to train: Glow is for digits, and IAF is not trained on them")


def judged_model(config: Config, data: DataSet, family: str) -> GenerativeModel:
    """The model in the data's own units, with the solver that it is judged with."""
    return preprocessed(make_model(family, config.sizes, data.dim, judged=True), data.bijector)


def train_and_judge(
    config: Config, name: DataName, family: str, data: DataSet, folder: Path
) -> dict[str, np.ndarray]:
    """Results of one training; those of a finished one are read from its folder.

    Returns:
      log_prob [test], samples [num_draw, dim], density [grid, grid] (of toys), and the numbers
      train_s [seconds], ms_sample and ms_log_prob [milliseconds an event].
    """

    def compute():
        start = time.perf_counter()
        params = _train(config, name, family, data, folder)
        seconds = time.perf_counter() - start
        key = stream(jax.random.key(config.seed), f"judge {name} {family}")
        found = _judge(config, judged_model(config, data, family), params, data, key)
        return {"train_s": seconds, **found}

    return stored(folder / "results.npz", compute)


def density_points(config: Config, data: DataSet) -> tuple[np.ndarray, tuple]:
    """Points [grid^2, 2] around the test events, and (left, right, bottom, top)."""
    low, high = data.test.min(axis=0), data.test.max(axis=0)
    margin = 0.08 * (high - low)
    (left, bottom), (right, top) = low - margin, high + margin
    x = np.linspace(left, right, config.grid), np.linspace(bottom, top, config.grid)
    points = np.stack(np.meshgrid(*x), axis=-1).reshape(-1, 2)
    return points.astype(np.float32), (left, right, bottom, top)


def _train(config, name, family, data, folder) -> Params:
    model = preprocessed(make_model(family, config.sizes, data.dim), data.bijector)
    training = _schedule(config, name, family)
    fitted = fit(
        with_new_noise(model) if name == "digits" else model,
        Batch(data.train),
        stream(jax.random.key(config.seed), f"{name} {family}"),
        training,
        validation=Batch(data.validation) if training.keep == "best" else None,
        folder=folder,
        name=f"{name}, {family}",
    )
    return member(fitted.params, 0)


def _schedule(config: Config, name: DataName, family: str) -> TrainConfig:
    trainings = config.toys if name in TOYS else getattr(config, name)
    special = {"flow-matching": trainings.matching, "continuous": trainings.continuous}
    return special.get(family, trainings.usual)


def _judge(config, model, params, data, key) -> dict[str, np.ndarray]:
    points = data.test
    if data.exact:
        points = np.concatenate([points, density_points(config, data)[0]])
    log_prob, ms_log_prob = timed_log_prob(model, params, key, points)
    samples, ms_sample = timed_draw(model, params, key, config.num_draw)
    found = {"log_prob": log_prob[: len(data.test)], "samples": samples}
    found |= {"ms_sample": ms_sample, "ms_log_prob": ms_log_prob}
    if data.exact:
        found["density"] = np.exp(log_prob[len(data.test) :]).reshape(config.grid, config.grid)
    return found


def mean_wasserstein(config: Config, data: DataSet, samples: np.ndarray) -> tuple[float, float]:
    """W1 to the test events in their standard deviations, the mean over columns, and its error."""
    num = min(config.num_draw, len(data.train) // data.repeats)
    std = data.test.std(axis=0)
    return wasserstein(samples[:num] / std, data.test / std, num_bootstrap=20).estimate


def baselines(config: Config, data: DataSet, path: Path) -> dict[str, np.ndarray]:
    """Log-densities of the test events that families are compared with, kept in a file.

    `truth` of toys; `mixture` and `mapped_mixture` of other data, see `mixture_log_prob`.
    """

    def compute():
        if data.exact:
            return {"truth": jax.jit(jax.vmap(data.exact[1]))(data.test)}
        return {
            "mixture": mixture_log_prob(config, data, mapped=False),
            "mapped_mixture": mixture_log_prob(config, data, mapped=True),
        }

    return stored(path, compute)


def mixture_log_prob(config: Config, data: DataSet, *, mapped: bool) -> np.ndarray:
    """Log-densities of the test events under a mixture of ten Gaussians (scikit-learn).

    Args:
      config: of the study.
      data: the data set.
      mapped: fit behind the map that the flows train behind, its log-determinant included; else
        in units of the standard deviation of each column.
    """
    std = data.train.std(axis=0)
    forward = data.bijector.forward if mapped else standardize(np.zeros_like(std), std).forward
    prepared = jax.jit(jax.vmap(lambda x: forward(x, None)))
    z, z_validation = (np.asarray(prepared(x)[0]) for x in (data.train, data.validation))
    # Threads of the small products would only wait for each other.
    with threadpool_limits(1):
        mixtures = [
            GaussianMixture(10, reg_covar=r, random_state=0).fit(z) for r in config.regularisations
        ]
        best = max(mixtures, key=lambda mixture: mixture.score(z_validation))
    z_test, log_det = prepared(data.test)
    return best.score_samples(np.asarray(z_test)) + np.asarray(log_det)

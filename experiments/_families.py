"""Trainings of the study of families, and what each of them is judged by."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import jax
import numpy as np

from experiments._families_models import FAMILIES, Sizes, make_model, players
from experiments._flows_data import TOYS, DataSet, with_new_noise
from experiments._judging import stored, timed_draw, timed_log_prob
from jgen.files import load as load_params
from jgen.files import save as save_params
from jgen.generative_model import Batch
from jgen.metrics import ClassifierConfig, classifier_test, sliced_wasserstein
from jgen.random import stream
from jgen.training import (
    OptimizerConfig,
    TrainConfig,
    fit,
    member,
)
from jgen.typing import Params

DataName = Literal["moons", "eight-gaussians", "camel", "jets", "digits"]
Family = Literal[FAMILIES]


# Family -> its field of `Kind`, where that has another name.
_GROUPS = {
    "gan": "adversarial",
    "wgan-gp": "adversarial",
    "diffusion": "paths",
    "flow-matching": "paths",
    "consistency": "distillation",
}


def _training(steps: int, batch_size: int, rate: float, **options) -> TrainConfig:
    adam = ("beta1", "beta2", "weight_decay")
    optimizer = OptimizerConfig(rate, **{n: options.pop(n) for n in adam if n in options})
    return TrainConfig(
        steps, batch_size, optimizer=optimizer, log_every=200, save_every=5000, **options
    )


def _decaying(steps: int, rate: float, **options) -> TrainConfig:
    return _training(steps, 128, rate, weight_decay=1e-2, keep="best", **options)


@dataclass(frozen=True)
class Kind:
    """How the families are made and trained on one kind of data."""

    sizes: Sizes = Sizes()
    """Sizes of the models."""
    adversarial: TrainConfig = _training(15_000, 256, 1e-3, ema_decay=0.999, beta1=0.5, beta2=0.9)
    """Both GANs."""
    vae: TrainConfig = _training(6000, 256, 5e-3, ema_decay=0.998)
    """VAE."""
    flow: TrainConfig = _training(2000, 256, 5e-3, ema_decay=0.995)
    """Flow, whose steps are dear."""
    autoregressive: TrainConfig = _training(4000, 256, 5e-3, ema_decay=0.998)
    """Autoregressive model."""
    paths: TrainConfig = _training(14_000, 512, 1e-2, ema_decay=0.999)
    """Diffusion and flow matching, whose losses are random in noise and time."""
    distillation: TrainConfig = _training(12_000, 256, 2e-3, ema_decay=0.999)
    """Consistency model."""


@dataclass(frozen=True)
class Config:
    """Every family on every data set."""

    data: tuple[DataName, ...] = ("moons", "eight-gaussians", "camel", "jets", "digits")
    """Data sets."""
    families: tuple[Family, ...] = FAMILIES
    """Families."""
    num_train: int = 50_000
    """Training events of a toy, and at most of the jets; there are 1294 digits for it."""
    num_test: int = 10_000
    """Test events of a toy, and at most of the jets; of the digits 360, each with five noises."""
    num_draw: int = 10_000
    """Events drawn from each model."""
    toys: Kind = Kind(sizes=Sizes(penalty=0.1))
    """Models and trainings of the toys."""
    jets: Kind = Kind(
        sizes=Sizes(penalty=0.1),
        flow=_training(1500, 256, 2e-3, ema_decay=0.99, keep="best", validate_every=100),
        vae=_training(6000, 256, 2e-3, ema_decay=0.998, keep="best", validate_every=200),
        autoregressive=_training(4000, 256, 5e-3, ema_decay=0.998, keep="best", validate_every=200),
        paths=_training(10_000, 512, 5e-3, ema_decay=0.999, keep="best", validate_every=500),
    )
    """Those of the jets; what has a loss that says something stops where that of the validation
    events is smallest."""
    digits: Kind = Kind(
        sizes=Sizes(hidden=(128, 128, 128), causal_hidden=(512, 512)),
        adversarial=_training(8000, 128, 5e-4, ema_decay=0.999, beta1=0.5, beta2=0.9),
        flow=_decaying(600, 3e-3, ema_decay=0.99, validate_every=50),
        vae=_decaying(3000, 2e-3, ema_decay=0.995, validate_every=100),
        autoregressive=_decaying(800, 2e-3, ema_decay=0.99, validate_every=50),
        paths=_decaying(5000, 5e-3, ema_decay=0.998, validate_every=250),
        distillation=_training(5000, 128, 1e-3, ema_decay=0.998),
    )
    """Those of the digits, stopped likewise; weights decay."""
    num_directions: int = 64
    """Directions of the sliced Wasserstein distance."""
    bootstrap: int = 20
    """Resamplings behind its error."""
    classifier: ClassifierConfig = ClassifierConfig(
        hidden=(64, 64), learning_rate=1e-3, batch_size=256, epochs=20, num_seeds=2
    )
    """Classifier of generated against test events."""
    seed: int = 0
    """Seed of everything random."""


def pairs(config: Config) -> list[tuple[DataName, Family]]:
    """All (data set, family) that are judged, in their order."""
    return [(name, family) for name in config.data for family in config.families]


def check_options(config: Config) -> None:
    """Refuse bad options before the folder is made."""
    if not config.data or not config.families:
        raise ValueError("data and families must name at least one each")
    for field, known in (("data", get_args(DataName)), ("families", FAMILIES)):
        if unknown := set(getattr(config, field)) - set(known):
            raise ValueError(f"unknown {field} {sorted(unknown)}; there are {', '.join(known)}")
    for name, least in (("num_train", 1000), ("num_test", 100), ("num_draw", 100)):
        if getattr(config, name) < least:
            raise ValueError(f"{name} must be at least {least}, got {getattr(config, name)}")
    if config.bootstrap < 2:
        raise ValueError(f"an error needs two resamplings or more, got {config.bootstrap}")
    for name, family in pairs(config):
        kind = kind_of(config, name)
        kind.sizes.check()
        training_of(kind, family).check()


def kind_of(config: Config, name: DataName) -> Kind:
    """Options of a data set."""
    return config.toys if name in TOYS else getattr(config, name)


def training_of(kind: Kind, family: Family) -> TrainConfig:
    """Training of a family."""
    return getattr(kind, _GROUPS.get(family, family))


def trained(
    config: Config, name: DataName, family: Family, data: DataSet, out: Path
) -> tuple[Params, float]:
    """Parameters of a family and the seconds that their training took, compilation included.

    Those of a finished training are read from its folder. A consistency model needs those of flow
    matching on the same data, whose training is not counted.
    """
    kind, folder = kind_of(config, name), out / name / family

    def train():
        is_distilled = family == "consistency"
        teacher = trained(config, name, "flow-matching", data, out)[0] if is_distilled else None
        model = make_model(family, kind.sizes, data, teacher)
        training = training_of(kind, family)
        start = time.perf_counter()
        fitted = fit(
            with_new_noise(model) if name == "digits" else model,
            Batch(data.train),
            stream(jax.random.key(config.seed), f"{name} {family}"),
            training,
            validation=Batch(data.validation) if training.keep == "best" else None,
            optimizer=players(family, kind.sizes, training),
            folder=folder,
            name=f"{name}, {family}",
        )
        save_params(folder / "params.npz", member(fitted.params, 0))
        return {"seconds": time.perf_counter() - start}

    seconds = stored(folder / "training.npz", train)["seconds"]
    init = make_model(family, kind.sizes, data).init
    return load_params(folder / "params.npz", init), float(seconds)


def train_and_judge(
    config: Config, name: DataName, family: Family, data: DataSet, out: Path
) -> dict[str, np.ndarray]:
    """Results of one training; those of a finished one are read from its folder.

    Returns:
      samples [num_draw, dim], log_prob [test] where there is a density or a bound, what `compared`
      returns, and the numbers train_s [seconds] and ms_sample [milliseconds an event].
    """

    def judge():
        params, seconds = trained(config, name, family, data, out)
        model = make_model(family, kind_of(config, name).sizes, data)
        key = stream(jax.random.key(config.seed), f"judge {name} {family}")
        samples, ms_sample = timed_draw(model, params, key, config.num_draw)
        found = {"samples": samples, "ms_sample": ms_sample, "train_s": seconds}
        if model.log_prob is not None:
            found["log_prob"] = timed_log_prob(model, params, key, data.test)[0]
        return found | compared(config, name, data, samples)

    return stored(out / name / family / "results.npz", judge)


def truth(config: Config, name: DataName, data: DataSet, path: Path) -> dict[str, np.ndarray]:
    """Training events in the place of samples, and log p of the test events of a toy."""

    def compute():
        samples = data.train[:: data.repeats][: config.num_draw]
        found = {"samples": samples} | compared(config, name, data, samples)
        if data.exact:
            found["log_prob"] = jax.jit(jax.vmap(data.exact[1]))(data.test)
        return found

    return stored(path, compute)


def compared(
    config: Config, name: DataName, data: DataSet, samples: np.ndarray
) -> dict[str, np.ndarray]:
    """Distances of a sample to the test events: pairs (value, error) of sw1 and auc.

    Samples are cut to the common size of test, training and drawn events, and are in units of the
    test events' standard deviations; pixels in units of the root mean square of theirs, some being
    dark in all digits but for the noise.
    """
    test, train = data.test[:: data.repeats], data.train[:: data.repeats]
    size = min(len(test), len(train), config.num_draw)
    std = test.std(axis=0)
    if name == "digits":
        std = np.sqrt(np.mean(std**2))
    reference, samples = test[:size] / std, samples[:size] / std
    distance = sliced_wasserstein(
        samples,
        reference,
        num_directions=config.num_directions,
        num_bootstrap=config.bootstrap,
    )
    key = stream(jax.random.key(config.seed), f"classifier {name}")
    found = classifier_test(reference, samples, key, config.classifier)
    return {
        "sw1": np.array([distance.value, distance.error]),
        "auc": np.array(found.auc_estimate),
    }

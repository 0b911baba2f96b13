"""Samplers, targets, trainings and errors of the study of diffusion."""

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from jgen.bijectors import standardize
from jgen.files import atomic_path
from jgen.generative_model import Batch, GenerativeModel, draw
from jgen.metrics import sliced_wasserstein
from jgen.models import diffusion, log_normal_times, preconditioned, preconditioned_weighting
from jgen.nets import Network, velocity_mlp
from jgen.paths import (
    edm,
    linear,
    reverse_sde_noise,
    sub_variance_preserving,
    variance_exploding,
    variance_preserving,
)
from jgen.random import stream
from jgen.solvers import (
    DDIM,
    Ancestral,
    AnnealedLangevin,
    EDMHeun,
    EulerMaruyama,
    PredictorCorrector,
    Sampler,
    runge_kutta,
)
from jgen.toys import gaussian_mixture, mixture_prediction, mixture_toy, moons
from jgen.training import OptimizerConfig, TrainConfig, fit, member
from jgen.transforms import preprocessed

Trained = Literal["linear velocity", "vp noise", "vp v", "sub-vp v", "edm data"]

PATHS = {
    "linear": linear(),
    "vp": variance_preserving(),
    "sub-vp": sub_variance_preserving(),
    "ve": variance_exploding(0.01, 50.0),
    "edm": edm(),
}
# Three modes of different sizes and weights.
MIXTURE = gaussian_mixture(
    [[-1.0, 0.5], [1.0, 1.0], [0.5, -1.5]], [[0.3, 0.2], [0.2, 0.5], [0.4, 0.4]], [0.5, 0.3, 0.2]
)
MOONS = moons(0.05)
# Of moons(0.05), their mean and the root mean square of each coordinate around it.
_MEAN, _SCALE = np.array([0.5, 0.25], np.float32), np.array([0.868, 0.497], np.float32)

# Name in figures -> (path, network calls -> sampler).
SAMPLERS = {
    "Euler": ("vp", lambda n: runge_kutta("euler", n)),
    "Heun": ("vp", lambda n: runge_kutta("heun", n // 2)),
    "RK4": ("vp", lambda n: runge_kutta("rk4", n // 4)),
    "DDIM": ("vp", DDIM),
    "Ancestral": ("vp", Ancestral),
    "Reverse SDE": ("vp", lambda n: EulerMaruyama(n, reverse_sde_noise(PATHS["vp"]))),
    "Ancestral VE": ("ve", Ancestral),
    "Predictor-corrector VE": ("ve", lambda n: PredictorCorrector(Ancestral(n // 2), 1, 0.5)),
    "Annealed Langevin VE": ("ve", lambda n: AnnealedLangevin(n // 8, 8, 0.2)),
    "EDM Heun": ("edm", lambda n: EDMHeun(n // 2)),
    "EDM Heun, churn": ("edm", lambda n: EDMHeun(n // 2, churn=n / 8, churn_range=(0.05, 5.0))),
}


@dataclass(frozen=True)
class Config:
    """Options of the study."""

    samplers: tuple[str, ...] = tuple(SAMPLERS)
    """Which of the samplers, by their names in the figures."""
    calls: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    """Network calls of an event; multiples of eight, so that every sampler can have them."""
    num_events: int = 5000
    """Events of every sampler."""
    num_reference: int = 100_000
    """True events that they are compared with."""
    num_floor: int = 10
    """Samples of true events, compared in the same way."""
    num_directions: int = 16
    """Directions in which the Wasserstein distance is averaged."""
    trained: tuple[Trained, ...] = ("linear velocity", "vp noise", "vp v", "edm data")
    """Networks that are trained on moons: path and prediction."""
    hidden: tuple[int, ...] = (96, 96, 96)
    """Widths of the networks' hidden layers."""
    num_train: int = 50_000
    """Training events."""
    num_test: int = 4000
    """Events of the likelihood."""
    likelihood_steps: int = 50
    """Steps of classical Runge-Kutta for it."""
    training: TrainConfig = TrainConfig(
        steps=14_000,
        batch_size=512,
        ema_decay=0.999,
        optimizer=OptimizerConfig(learning_rate=1e-2, clip_norm=1.0),
        save_every=2000,
    )
    """Of each network."""
    seed: int = 0
    """Of everything."""


def check_options(config: Config) -> None:
    """Refuse options that do not fit together, before anything is computed."""
    if not config.calls or any(n < 8 or n % 8 for n in config.calls):
        raise ValueError(f"calls must be multiples of 8, got {config.calls}")
    if unknown := set(config.samplers) - set(SAMPLERS):
        raise ValueError(f"unknown samplers {sorted(unknown)}; some of {list(SAMPLERS)}")
    if "vp v" not in config.trained:
        raise ValueError(f'trained must have "vp v", which the samplers run, got {config.trained}')
    if config.num_floor < 2:
        raise ValueError(f"the floor's error needs two samples or more, got {config.num_floor}")
    config.training.check()


def exact_model(sampler: Sampler, path: str) -> GenerativeModel:
    """The mixture with its exact score."""
    prediction = mixture_prediction(MIXTURE, PATHS[path], "v")
    network = Network(lambda key: {}, lambda params, t, x, cond: prediction(t, x))
    return diffusion(network, (2,), path=PATHS[path], prediction="v", sampler=sampler)


def moons_model(config: Config, name: Trained, sampler: Sampler | None = None) -> GenerativeModel:
    """A model of moons in their own coordinates, with a network in standardised ones."""
    path_name, prediction = name.split()
    path = PATHS[path_name]
    network, options = velocity_mlp(2, hidden=config.hidden), {}
    if path_name == "edm":
        network = preconditioned(network, path, 1.0)
        weighting = preconditioned_weighting(path, 1.0)
        options = {"weighting": weighting, "times": log_normal_times(path)}
    model = diffusion(
        network,
        (2,),
        path=path,
        prediction=prediction,
        sampler=sampler,
        likelihood_solver=runge_kutta("rk4", config.likelihood_steps),
        **options,
    )
    return preprocessed(model, standardize(_MEAN, _SCALE))


def train(config: Config, name: Trained, folder: Path):
    """Parameters of one network on moons."""
    x = _truth(MOONS, config.num_train, stream(jax.random.key(config.seed), "train"))
    fitted = fit(
        moons_model(config, name),
        Batch(x),
        stream(jax.random.key(config.seed), name),
        config.training,
        folder=folder,
        name=name,
    )
    return member(fitted.params, 0)


def divergence_from_truth(config: Config, name: Trained, params) -> tuple[float, float]:
    """Kullback-Leibler divergence of the model from the truth in nats, and its error.

    The mean of log p of the truth less that by the probability-flow ODE, over test events: the same
    ones on both sides, so that what is left of the fluctuation of the sample is small.
    """
    key = stream(jax.random.key(config.seed), "test")
    x = _truth(MOONS, config.num_test, key)
    model = moons_model(config, name)
    one = jax.jit(jax.vmap(lambda x: MOONS.log_prob(x) - model.log_prob(params, key, x, None)))
    found = np.asarray(one(x), np.float64)
    return float(found.mean()), float(found.std() / len(found) ** 0.5)


def sampler_errors(config: Config, params, path: Path) -> dict[str, np.ndarray]:
    """Errors [calls] of "exact <sampler>" and "trained <sampler>", floors [num_floor] of both."""
    if not path.exists():
        found = {}
        for target, toy in (("exact", mixture_toy(MIXTURE)), ("trained", MOONS)):
            reference = _truth(toy, config.num_reference, _key(config, f"reference {target}"))
            keys = jax.random.split(_key(config, f"floor {target}"), config.num_floor)
            floors = [_truth(toy, config.num_events, key) for key in keys]
            found[f"floor {target}"] = np.array([_distance(config, x, reference) for x in floors])
            for name in samplers_of(config, target):
                where, make = SAMPLERS[name]
                errors = []
                for calls in config.calls:
                    sampler = make(calls)
                    if target == "exact":
                        model, parameters = exact_model(sampler, where), {}
                    else:
                        model, parameters = moons_model(config, "vp v", sampler), params
                    x = draw(
                        model,
                        parameters,
                        _key(config, f"{target} {name} {calls}"),
                        config.num_events,
                        batch_size=config.num_events,
                    )
                    errors.append(_distance(config, x, reference))
                found[f"{target} {name}"] = np.array(errors)
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.savez(file, **found)
    with np.load(path) as file:
        return dict(file)


def samplers_of(config: Config, target: Literal["exact", "trained"]) -> list[str]:
    """Those that sample a target: the trained network has the variance-preserving path."""
    return [n for n in config.samplers if target == "exact" or SAMPLERS[n][0] == "vp"]


def _distance(config, x, reference):
    options = {"num_directions": config.num_directions, "num_bootstrap": 0}
    return float(sliced_wasserstein(x, reference, **options).value)


def _key(config, name):
    return stream(jax.random.key(config.seed), name)


def _truth(toy, num, key):
    return draw(_as_model(toy.sample), {}, key, num, batch_size=1000)


@functools.cache
def _as_model(sample) -> GenerativeModel:
    """Without parameters; the same one every time, so that it is compiled once."""
    return GenerativeModel(None, None, lambda params, key, cond: sample(key))


def smaller(training: TrainConfig, steps: int) -> TrainConfig:
    """The same training with fewer steps."""
    return dataclasses.replace(training, steps=steps, save_every=max(steps, 1))

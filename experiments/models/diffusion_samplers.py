"""Error against network calls for every sampler of diffusion, with exact and trained networks.

    python -m experiments diffusion_samplers

takes about 7 minutes of processor time, the preset smoke one minute with its start and compilation.

A three-component Gaussian mixture in the plane has its score in closed form, so that the error of
a sampler is its own: figures/exact-vp and figures/exact-ve-edm show the sliced Wasserstein-1
distance to the truth against network calls, beside that of true events of the same number.
figures/trained-vp shows the same for a network that was trained on moons (noise 0.05), on the
variance-preserving path. Networks of several paths and predictions are judged by their negative
log-likelihood from the probability-flow ODE, less that of the truth on the same events: a
Kullback-Leibler divergence. Numbers: results/models.md.
"""

import functools
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np

from experiments.study import Run, Study, at_least, known, main, table, variant
from jgen import (
    Batch,
    Estimate,
    GenerativeModel,
    OptimizerConfig,
    TrainConfig,
    draw,
    log_densities,
    models,
    nets,
    paths,
    plotting,
    solvers,
    toys,
)
from jgen.bijectors import standardize
from jgen.estimate import mean_estimate
from jgen.metrics import sliced_wasserstein
from jgen.toys import Toy
from jgen.transforms import preprocessed
from jgen.typing import Key, Params

Trained = Literal["linear velocity", "vp noise", "vp v", "sub-vp v", "edm data"]
Target = Literal["exact", "trained"]

PATHS = {
    "linear": paths.linear(),
    "vp": paths.variance_preserving(),
    "sub-vp": paths.sub_variance_preserving(),
    "ve": paths.variance_exploding(0.01, 50.0),
    "edm": paths.edm(),
}
# Three modes of different sizes and weights.
MIXTURE = toys.gaussian_mixture(
    [[-1.0, 0.5], [1.0, 1.0], [0.5, -1.5]], [[0.3, 0.2], [0.2, 0.5], [0.4, 0.4]], [0.5, 0.3, 0.2]
)
MOONS = toys.moons(0.05)
TARGETS: dict[Target, Toy] = {"exact": toys.mixture_toy(MIXTURE), "trained": MOONS}
"""What is sampled: the mixture with its exact score, moons with a trained network."""
# Of moons(0.05), their mean and the root mean square of each coordinate around it.
MEAN, SCALE = np.array([0.5, 0.25], np.float32), np.array([0.868, 0.497], np.float32)


_reverse = paths.reverse_sde_noise(PATHS["vp"])
_corrected = lambda n: solvers.PredictorCorrector(solvers.Ancestral(n // 2), 1, 0.5)
_churned = lambda n: solvers.EDMHeun(n // 2, churn=n / 8, churn_range=(0.05, 5.0))
# Name in figures -> (path, network calls -> sampler).
SAMPLERS = {
    "Euler": ("vp", lambda n: solvers.runge_kutta("euler", n)),
    "Heun": ("vp", lambda n: solvers.runge_kutta("heun", n // 2)),
    "RK4": ("vp", lambda n: solvers.runge_kutta("rk4", n // 4)),
    "DDIM": ("vp", solvers.DDIM),
    "Ancestral": ("vp", solvers.Ancestral),
    "Reverse SDE": ("vp", lambda n: solvers.EulerMaruyama(n, _reverse)),
    "Ancestral VE": ("ve", solvers.Ancestral),
    "Predictor-corrector VE": ("ve", _corrected),
    "Annealed Langevin VE": ("ve", lambda n: solvers.AnnealedLangevin(n // 8, 8, 0.2)),
    "EDM Heun": ("edm", lambda n: solvers.EDMHeun(n // 2)),
    "EDM Heun, churn": ("edm", _churned),
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


DEFAULT = Config()
SMOKE = variant(
    DEFAULT,
    samplers=("Heun", "Ancestral", "EDM Heun"),
    calls=(16, 64),
    num_events=1000,
    num_reference=10_000,
    num_floor=4,
    trained=("vp v", "edm data"),
    hidden=(32, 32),
    num_train=2000,
    num_test=200,
    likelihood_steps=10,
    training={"steps": 200, "save_every": 200},
)


def check(config: Config) -> None:
    """Refuse options that do not fit together."""
    known(config, samplers=tuple(SAMPLERS))
    at_least(config, num_events=1, num_reference=1, num_floor=2, num_directions=1)
    at_least(config, num_train=1, num_test=2, likelihood_steps=1)
    if not config.calls or any(n < 8 or n % 8 for n in config.calls):
        raise ValueError(f"calls must be multiples of 8, got {config.calls}")
    if "vp v" not in config.trained:
        raise ValueError(f'trained must have "vp v", which the samplers run, got {config.trained}')


def build(config: Config) -> dict[str, GenerativeModel]:
    """Of every training."""
    return {name: moons_model(config, name) for name in config.trained}


def exact_model(sampler: solvers.Sampler, path: str) -> GenerativeModel:
    """The mixture with its exact score."""
    prediction = toys.mixture_prediction(MIXTURE, PATHS[path], "v")
    network = nets.Network(lambda key: {}, lambda params, t, x, cond: prediction(t, x))
    return models.diffusion(network, (2,), path=PATHS[path], prediction="v", sampler=sampler)


def moons_model(
    config: Config, name: Trained, sampler: solvers.Sampler | None = None
) -> GenerativeModel:
    """A model of moons in their own coordinates, with a network in standardised ones."""
    path_name, prediction = name.split()
    path = PATHS[path_name]
    network, options = nets.velocity_mlp(2, hidden=config.hidden), {}
    if path_name == "edm":
        network = models.preconditioned(network, path, 1.0)
        weighting = models.preconditioned_weighting(path, 1.0)
        options = {"weighting": weighting, "times": models.log_normal_times(path)}
    model = models.diffusion(
        network,
        (2,),
        path=path,
        prediction=prediction,
        sampler=sampler,
        likelihood_solver=solvers.runge_kutta("rk4", config.likelihood_steps),
        **options,
    )
    return preprocessed(model, standardize(MEAN, SCALE))


def samplers_of(config: Config, target: Target) -> list[str]:
    """Those that sample a target: the trained network has the variance-preserving path."""
    return [n for n in config.samplers if target == "exact" or SAMPLERS[n][0] == "vp"]


def compute(config: Config, run: Run) -> dict[str, Any]:
    """Train, sample with everything and compare with the truth.

    error/<exact or trained>/<sampler>/<calls>   sliced W1 to the truth
    floor/<exact or trained>                     that of true events, with the spread as its error
    nll/<path>/<prediction>                      in nats, with the error of
    excess/<path>/<prediction>                   the same less that of the truth on the same events
    nll/exact                                    the entropy of moons
    """
    entropy = toys.entropy(MOONS).value
    metrics, params = {"nll/exact": entropy}, {}
    for name in config.trained:
        model, where = moons_model(config, name), name.replace(" ", "_")
        train = lambda: Batch(true_events(MOONS, config.num_train, run.key("train")))
        params[name] = run.fit(where, model, train, config.training, key=run.key(name)).one
        ratio = run.cached(f"{where}/log_ratio", log_ratio, config, run, model, params[name])
        excess = mean_estimate(ratio)
        label = name.replace(" ", "/")
        metrics[f"nll/{label}"] = excess._replace(value=entropy + excess.value)
        metrics[f"excess/{label}"] = excess
    for target in TARGETS:
        errors = sampler_errors(config, run, target, params["vp v"])
        floor = errors.pop("floor")
        metrics[f"floor/{target}"] = Estimate(floor.mean(), floor.std(ddof=1))
        for name, values in errors.items():
            for calls, value in zip(config.calls, values, strict=True):
                metrics[f"error/{target}/{slug(name)}/{calls}"] = value
    return metrics


def log_ratio(config: Config, run: Run, model: GenerativeModel, params: Params) -> np.ndarray:
    """Values log p - log q [num_test] of true events, whose mean is a divergence in nats.

    The same events on both sides: what is left of the fluctuation of the sample is small.
    """
    x = true_events(MOONS, config.num_test, run.key("test"))
    exact = np.asarray(jax.jit(jax.vmap(MOONS.log_prob))(x), np.float64)
    return exact - log_densities(model, params, run.key("test"), x)


def sampler_errors(
    config: Config, run: Run, target: Target, params: Params
) -> dict[str, np.ndarray]:
    """Errors [calls] of each sampler of a target, and "floor" [num_floor] of true events."""
    toy = TARGETS[target]
    # Drawn once, if anything is left to do.
    reference = functools.cache(
        lambda: true_events(toy, config.num_reference, run.key(f"reference {target}"))
    )

    def distance(x):
        options = {"num_directions": config.num_directions, "num_bootstrap": 0}
        return float(sliced_wasserstein(reference(), x, **options).value)

    def floor():
        keys = jax.random.split(run.key(f"floor {target}"), config.num_floor)
        return np.array([distance(true_events(toy, config.num_events, key)) for key in keys])

    def errors(name):
        path, make = SAMPLERS[name]
        values = []
        for calls in config.calls:
            if target == "exact":
                model, parameters = exact_model(make(calls), path), {}
            else:
                model, parameters = moons_model(config, "vp v", make(calls)), params
            key, num = run.key(f"{target} {name} {calls}"), config.num_events
            values.append(distance(draw(model, parameters, key, num, batch_size=num)))
        return np.array(values)

    return {"floor": run.cached(f"{target}/floor", floor)} | {
        name: run.cached(f"{target}/{slug(name)}", errors, name)
        for name in samplers_of(config, target)
    }


def true_events(toy: Toy, num: int, key: Key) -> np.ndarray:
    """Events [num, 2] of the truth."""
    return draw(_sample_function(toy), {}, key, num)


@functools.cache
def _sample_function(toy: Toy):
    """The same one every time, so that it is compiled once."""
    return lambda params, key, cond: toy.sample(key)


def slug(name: str) -> str:
    """The name of a sampler in metrics and files."""
    return name.lower().replace(",", "").replace("-", "_").replace(" ", "_")


def report(config: Config, run: Run, metrics: dict[str, Any]) -> str:
    """Error against network calls in figures, errors over the floor and likelihoods as text."""
    errors = {
        (target, name): [metrics[f"error/{target}/{slug(name)}/{n}"] for n in config.calls]
        for target in TARGETS
        for name in samplers_of(config, target)
    }
    figures = {
        "exact-vp": ("exact", ("vp",)),
        "exact-ve-edm": ("exact", ("ve", "edm")),
        "trained-vp": ("trained", ("vp",)),
    }
    for figure, (target, among) in figures.items():
        curves = {
            name: plotting.Curve.of(config.calls, values)
            for (of, name), values in errors.items()
            if of == target and SAMPLERS[name][0] in among
        }
        if curves:
            ylabel, floor = "Sliced Wasserstein distance", metrics[f"floor/{target}"]
            plot = plotting.quality_curves(curves, ylabel, truth=floor, log_y=True)
            plot.axes[0].set_ylim(top=10 * plot.axes[0].get_ylim()[1])  # room for the legend
            run.save(figure, plot)
    rows = {
        f"{target} {name}": np.array(values) / metrics[f"floor/{target}"].value
        for (target, name), values in errors.items()
    }
    kinds = ("nll", "excess")
    likelihoods = {
        name: [metrics[f"{kind}/{name.replace(' ', '/')}"] for kind in kinds]
        for name in config.trained
    }
    return "\n\n".join(
        [
            table(list(map(str, config.calls)), rows, title="error / floor, network calls"),
            table(["nats", "less truth"], likelihoods, title="negative log-likelihood"),
        ]
    )


STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, build)

if __name__ == "__main__":
    main(STUDY)

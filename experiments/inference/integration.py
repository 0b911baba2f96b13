"""Neural importance sampling beside VEGAS, where every integral is known.

    python -m experiments integration

takes seven minutes on one core. Flows on the unit cube learn the camel in 2 to 16 dimensions, a
ring with cuts, e+ e- -> mu+ mu- and pp -> t tbar at leading order, the last also with two channels
of learned shares. A table has the standard deviation a point beside
those of a grid of our own, of VEGAS with stratification (`pip install -e ".[benchmarks]"`, left out
if it is not there) and of flat points, and efficiencies of unweighting. A hundred repetitions with
the trained flows, and trainings of ten seeds, say whether errors are right. Numbers:
results/inference.md.
"""

import functools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from experiments.inference import baselines
from experiments.inference.integrands import TARGETS, Target, target
from experiments.study import Run, Study, at_least, known, main, positive, table, variant
from jgen import GenerativeModel, OptimizerConfig, TrainConfig, bijectors, models, nets, plotting
from jgen import inference as inf
from jgen.estimate import Estimate, Judged
from jgen.plotting import Curve
from jgen.training import member

SEEDS = "camel-4"
METHODS = {"flow": "Flow", "grid": "Grid", "vegas": "VEGAS", "flat": "Flat"}
BARS = {"camel-4": 0.08, "camel-8": 0.3, "camel-16": 0.6}


@dataclass(frozen=True)
class Config:
    """Integrals by flows."""

    targets: tuple[Literal[tuple(TARGETS)], ...] = tuple(TARGETS)
    """What is integrated."""
    num_bins: int = 10
    """Of each spline."""
    rounds: int = 1
    """Turns of all masks; of two dimensions twice as many."""
    hidden: tuple[int, ...] = (32, 32, 32)
    """Widths of the couplings' networks."""
    low: TrainConfig = TrainConfig(
        2000, 1024, log_every=50, save_every=500, optimizer=OptimizerConfig(5e-3)
    )
    """Training in up to four dimensions, by the variance; a batch is so many points a channel."""
    high: TrainConfig = TrainConfig(
        2000, 512, log_every=50, save_every=500, optimizer=OptimizerConfig(5e-3)
    )
    """Training in more, by the Kullback-Leibler divergence: of few points with weights of long
    tails it is the less noisy one."""
    seeds: TrainConfig = TrainConfig(
        300, 512, ensemble=10, log_every=50, save_every=100, optimizer=OptimizerConfig(5e-3)
    )
    """Training of several seeds on the camel in 4 dimensions."""
    repetitions: int = 100
    """Integrals of one trained flow."""
    num: int = 5000
    """Points of each of them."""
    grid_sizes: tuple[int, ...] = (50_000,) * 5
    """Points in each adaption of our grid, and in each iteration of VEGAS."""
    seed: int = 0
    """Base of all key streams."""


DEFAULT = Config()
SMOKE = variant(
    DEFAULT,
    targets=("camel-4", "top-channels"),
    hidden=(8,),
    num_bins=4,
    low={"steps": 20, "batch_size": 64},
    high={"steps": 20, "batch_size": 64},
    seeds={"steps": 10, "batch_size": 64, "ensemble": 2},
    repetitions=10,
    num=200,
    grid_sizes=(1000,) * 2,
)


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, repetitions=3, num=10, grid_sizes=100)
    positive(config, "grid_sizes")
    known(config, targets=tuple(TARGETS))
    if len(set(config.targets)) < len(config.targets):
        raise ValueError(f"targets must be different ones, got {config.targets}")
    if config.low.ensemble != 1 or config.high.ensemble != 1:
        raise ValueError("a target has one flow; members are an option of seeds")


def make_sampler(config: Config, what: Target) -> inf.ImportanceSampler:
    """Flows of a target, with shares that a network learns where there are two channels."""
    rounds = config.rounds * (2 if what.dim == 2 else 1)
    layers = bijectors.cube_flow(
        what.dim, num_bins=config.num_bins, rounds=rounds, hidden=config.hidden
    )
    flow = models.flow(layers, models.uniform(what.dim))
    channels, network = len(what.mappings), None
    divergence = "variance" if _is_low(what) else "kl"
    if channels > 1:
        network = nets.conditioner(what.dim, channels, hidden=(32,))
    return inf.importance_sampler(
        flow, what.integrand, what.mappings, network=network, divergence=divergence
    )


def _is_low(what: Target) -> bool:
    return what.dim <= 4


def build(config: Config) -> dict[str, GenerativeModel]:
    """The flows by target."""
    return {name: make_sampler(config, target(name)).model for name in config.targets}


def flow_weights(config: Config, run: Run, name: str) -> tuple[np.ndarray, ...]:
    """Weights [repetitions * num] of each channel of a trained flow."""
    what = target(name)
    sampler = make_sampler(config, what)
    fitted = run.fit(name, sampler.model, None, config.low if _is_low(what) else config.high)
    num = config.repetitions * config.num // max(1, len(what.mappings))
    return inf.channel_weights(inf.draw_points(sampler, fitted.one, run.key(f"{name} draw"), num))


def pulls_of(weights: tuple[np.ndarray, ...], exact: float, parts: int) -> np.ndarray:
    """(Integral - exact) / error of parts of the points of all channels."""
    split = zip(*[np.array_split(w, parts) for w in weights], strict=True)
    estimates = np.array([inf.integral(part) for part in split])
    return (estimates[:, 0] - exact) / estimates[:, 1]


def pull_metrics(pulls: np.ndarray) -> dict[str, Any]:
    """Mean, width, and probabilities of a normal distribution to look like that or worse."""
    num, largest = len(pulls), float(np.abs(pulls).max())
    return {
        "mean": Estimate(float(pulls.mean()), num**-0.5),
        "width": Estimate(float(pulls.std(ddof=1)), (2 * num) ** -0.5),
        "normal": float(stats.kstest(pulls, "norm").pvalue),
        "largest": largest,
        "tail": float(-np.expm1(num * np.log1p(-2 * stats.norm.sf(largest)))),
    }


def metrics_of(config: Config, run: Run, name: str) -> dict[str, Any]:
    """Of one target, by name."""
    what = target(name)
    weights = run.cached(f"{name}/weights", flow_weights, config, run, name)
    others = run.cached(f"{name}/grid", baselines.grid_weights, config, run, name)
    all_weights = inf.combined_weights(weights)
    maximum = inf.bootstrap_maximum(weights, config.num)
    metrics = {
        "integral": Judged(inf.integral(weights), what.exact),
        "deviation/flow": inf.relative_deviation(weights),
        "deviation/grid": inf.relative_deviation(others["grid"]),
        "deviation/flat": what.flat_deviation or inf.relative_deviation(others["flat"]),
        "ess": inf.effective_sample_size(_log(all_weights)),
        "largest_share": inf.largest_share(weights),
        "efficiency": inf.unweighting(weights, maximum).efficiency,
        "overweight": inf.unweighting(weights, maximum).overweight,
        "efficiency_overweight": inf.unweighting(weights, inf.overweight_limit(weights)).efficiency,
        "grid_efficiency_overweight": inf.unweighting(
            others["grid"], inf.overweight_limit(others["grid"])
        ).efficiency,
        "seconds": float(sum(row.get("seconds", 0.0) for row in run.history(name))),
    }
    pulls = pull_metrics(pulls_of(weights, what.exact, config.repetitions))
    metrics |= {f"pulls/{key}": value for key, value in pulls.items()}
    if baselines.has_vegas():
        found = run.cached(f"{name}/vegas", baselines.vegas_result, config, name)
        metrics["vegas"] = Judged(Estimate(found["value"], found["error"]), what.exact)
        metrics["deviation/vegas"] = found["deviation"]
    return metrics


def _log(weights: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(weights)


def seed_weights(config: Config, run: Run) -> np.ndarray:
    """Weights [seeds, repetitions * num / seeds] of flows of different seeds."""
    sampler = make_sampler(config, target(SEEDS))
    params = run.fit("seeds", sampler.model, None, config.seeds).params
    num = config.repetitions * config.num // config.seeds.ensemble
    draw = functools.partial(inf.draw_points, sampler)
    keys = [run.key(f"seed {i} draw") for i in range(config.seeds.ensemble)]
    drawn = [draw(member(params, i), key, num) for i, key in enumerate(keys)]
    return np.stack([inf.channel_weights(points)[0] for points in drawn])


def compute(config: Config, run: Run) -> dict:
    """Numbers by TARGET/NAME, see `metrics_of`, and of the seeds."""
    metrics = {}
    for name in config.targets:
        own = metrics_of(config, run, name)
        metrics |= {f"{name}/{key}": value for key, value in own.items()}
    weights, exact = run.cached("seeds/weights", seed_weights, config, run), target(SEEDS).exact
    pulls = np.concatenate([pulls_of((w,), exact, 1) for w in weights])
    deviations = np.array([inf.relative_deviation(w).value for w in weights])
    error = float(deviations.std(ddof=1) / len(weights) ** 0.5) if len(weights) > 1 else 0.0
    metrics["seeds/deviation"] = Estimate(float(deviations.mean()), error)
    metrics["seeds/largest_pull"] = float(np.abs(pulls).max())
    metrics["seeds/chi2_p"] = float(stats.chi2.sf(np.sum(pulls**2), len(pulls)))
    return metrics


def report(config: Config, run: Run, metrics: dict) -> str:
    """Draw weights, pulls and what dimensions cost; tabulate integrals and efficiencies."""
    names, of = config.targets, lambda name, key: metrics.get(f"{name}/{key}")
    weights = {name: run.stage(f"{name}/weights") for name in names}
    others = {name: run.stage(f"{name}/grid") for name in names}
    panels = {
        name: {"Flow": inf.combined_weights(weights[name]), "Grid": others[name]["grid"]}
        | {"Flat": others[name]["flat"]}
        for name in names
    }
    run.save("weights", plotting.importance_weights(panels))
    pulls = {n: pulls_of(weights[n], target(n).exact, config.repetitions) for n in names}
    run.save("pulls", plotting.pull_quantiles(pulls))
    camels = [name for name in names if name.startswith("camel")]
    if camels:
        run.save("dimensions", _dimensions(metrics, camels))
    integrals = {
        name: [target(name).exact, of(name, "integral").value]
        + [of(name, "vegas") and of(name, "vegas").value]
        + [of(name, f"deviation/{method}") for method in METHODS]
        + [BARS.get(name)]
        for name in names
    }
    columns = ["exact", "flow", "VEGAS", *(f"sd {label}" for label in METHODS.values()), "bar"]
    parts = [table(columns, integrals, title="Integral, and sd a point over it")]
    keys = ("efficiency", "overweight", "efficiency_overweight", "grid_efficiency_overweight")
    rows = {n: [of(n, key) for key in ("ess", "largest_share", *keys, "seconds")] for n in names}
    columns = ["ESS", "largest w", "eff", "overweight", "eff 0.1 %", "grid 0.1 %", "train s"]
    parts.append(table(columns, rows, title="Weights"))
    keys = ("mean", "width", "normal", "largest", "tail")
    rows = {name: [of(name, f"pulls/{key}") for key in keys] for name in names}
    parts.append(table(["mean", "width", "KS p", "largest", "its p"], rows, title="Pulls"))
    line = (
        f"{config.seeds.ensemble} seeds of {SEEDS}: sd {metrics['seeds/deviation']}, largest pull "
        f"{metrics['seeds/largest_pull']:.2f}, chi2 p {metrics['seeds/chi2_p']:.2g}"
    )
    missing = "" if any(of(n, "vegas") for n in names) else "\nvegas is not installed: left out"
    return "\n\n".join([*parts, line + missing])


def _dimensions(metrics: dict, camels: list[str]):
    """Deviation and efficiency of the camels against the dimension."""
    sizes = [target(name).dim for name in camels]

    def curve(key):
        if f"{camels[0]}/{key}" in metrics:
            return Curve.of(sizes, [metrics[f"{name}/{key}"] for name in camels])
        return None

    deviations = {label: curve(f"deviation/{method}") for method, label in METHODS.items()}
    efficiencies = {"Flow": "efficiency_overweight", "Grid": "grid_efficiency_overweight"}
    panels = {
        "Standard deviation a point": {k: c for k, c in deviations.items() if c is not None},
        "Efficiency, 0.1 % overweight": {k: curve(key) for k, key in efficiencies.items()},
    }
    return plotting.quality_curves(
        panels, "Value", xlabel="Dimensions of the camel", log_y=True, num_columns=2
    )


STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, build)

if __name__ == "__main__":
    main(STUDY)

"""Speed of normalizing flows next to zuko, nflows and flowjax: densities, gradients and samples.

    export XLA_FLAGS=--xla_cpu_multi_thread_eigen=false
    taskset -c 0 python -m experiments.benchmarks.flows

Two flows of the same widths in every library: couplings with rational-quadratic splines
(1906.04032) and masked autoregressive layers with affine maps (1705.07057). Of each one evaluation
of the loss -log p with its gradient by the parameters, one of log p, and one draw of as many
events. Parameters are random, the base is normal, activations are rectifiers; jgen and flowjax are
compiled, zuko and nflows run PyTorch eagerly. Everybody has one thread, as above.

All libraries take turns in one run. Times are CPU milliseconds of the process, which other work on
the machine disturbs least, those with `wall` of the clock; each is the median of its repeats, and a
ratio below one says that jgen is faster. About a minute on one core. The libraries come with
`pip install -e .[benchmarks]`; one that is missing is left out, and those of PyTorch are on a GPU.
The same --out measures again.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from experiments._command_line import run
from experiments.benchmarks._flow_rivals import (
    ON_PYTORCH,
    RIVALS,
    Contestant,
    Sizes,
    jax_contestant,
)
from experiments.benchmarks._timing import measure, random_params, ratio
from jgen.bijectors import (
    TrainableBijector,
    affine,
    autoregressive,
    compose,
    coupling,
    flip,
    rational_quadratic,
    repeated,
)
from jgen.models import flow
from jgen.nets import num_parameters
from jgen.nets.conditioners import conditioner
from jgen.nets.made import made
from jgen.plotting import save
from jgen.plotting.style import REFERENCE, TEXT_WIDTH, color, new_figure, styled
from jgen.training import RunFolder

FLOWS = {"coupling": "RQ coupling", "maf": "MAF"}
PROGRAMS = {"gradient": "log p and gradient", "log_prob": "log p", "sample": "sample"}


@dataclass(frozen=True)
class Config:
    """Sizes of the flows, and how often they are measured."""

    dim: int = 8
    """Components of an event."""
    depth: int = 5
    """Layers."""
    bins: int = 8
    """Pieces of a spline."""
    bound: float = 5.0
    """Splines act within +-bound."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the networks, equal ones."""
    batches: tuple[int, ...] = (1024,)
    """Events at a time."""
    libraries: tuple[str, ...] = tuple(RIVALS)
    """What jgen is compared with, where it is installed."""
    repeats: int = 31
    """Repeats of one program."""


def main(config: Config, out: Path, *, plot_only: bool = False) -> dict[str, float]:
    """Measure and plot; returns the metrics, which metrics.json holds too.

    LIBRARY is jgen or a rival, FLOW coupling or maf, PROGRAM gradient, log_prob or sample, SIZE the
    number of events at once.

        ms/LIBRARY/FLOW/PROGRAM/SIZE     median CPU time, wall_ms by the clock
        ratio/LIBRARY/FLOW/...           median of jgen's time over the library's next to it
        ratio_low/..., ratio_high/...    between them lie two thirds of these ratios
        wall_ratio/LIBRARY/FLOW/...      that of the times by the clock
        compile_s/LIBRARY/FLOW/...       seconds to trace and compile, in no other number
        parameters/LIBRARY/FLOW          trainable numbers
    """
    _check(config)
    folder = RunFolder(out, config)
    if not plot_only:
        rivals, metrics = _installed(config.libraries), {}
        tasks = [(kind, size) for kind in FLOWS for size in config.batches]
        for kind, size in (bar := tqdm(tasks, desc="benchmark", unit="flow")):
            bar.set_postfix_str(f"{FLOWS[kind]}, {size} events")
            metrics |= _measure(config, rivals, kind, size)
        folder.write_metrics(metrics)
    metrics = folder.read_json("metrics.json")
    if metrics is None:
        raise FileNotFoundError(f"{out} has no metrics.json to plot; run without --plot-only first")
    if any(name.startswith("ratio/") for name in metrics):
        save(_ratio_bars(metrics), folder.figure("flow_ratios"))
    print("\n".join(f"{name:<40}{value:>12.4g}" for name, value in metrics.items()))
    return metrics


def count_parameters(config: Config) -> dict[str, int]:
    """Trainable parameters of both flows."""
    return {kind: num_parameters(_bijector(kind, _sizes(config)).init) for kind in FLOWS}


def _check(config: Config) -> None:
    if min(config.repeats, *(config.batches or (0,))) < 1:
        raise ValueError(
            f"batches and repeats must be at least 1, got {config.batches} and {config.repeats}"
        )
    unknown = set(config.libraries) - set(RIVALS)
    if unknown:
        raise ValueError(f"unknown libraries {sorted(unknown)}; known are {', '.join(RIVALS)}")
    # With equal halves all couplings have the same sizes in every library.
    if config.dim < 2 or config.dim % 2:
        raise ValueError(f"dim must be even, got {config.dim}")


def _installed(libraries: tuple[str, ...]) -> tuple[str, ...]:
    """Those that can be compared with; of the others it is said why not."""
    found = []
    for name in libraries:
        if importlib.util.find_spec(name) is None:
            tqdm.write(f"{name} is left out: pip install -e .[benchmarks]")
        elif name in ON_PYTORCH and jax.default_backend() != "cpu":
            tqdm.write(f"{name} is left out: compared with on a CPU only")
        else:
            found.append(name)
    if any(name in ON_PYTORCH for name in found):
        import torch

        torch.set_num_threads(1)
    return tuple(found)


def _sizes(config: Config) -> Sizes:
    return Sizes(config.dim, config.depth, config.bins, config.bound, config.hidden)


def _bijector(kind: str, sizes: Sizes) -> TrainableBijector:
    """Layers as the other libraries have them, without the linear ones of `coupling_flow`."""
    dim, hidden = sizes.dim, sizes.hidden
    if kind == "maf":
        network = made(dim, affine().num_params, hidden=hidden, activation=jax.nn.relu)
        layer = autoregressive(network, affine(), dim)
    else:
        spline, half = rational_quadratic(sizes.bins, sizes.bound), dim // 2
        outputs = half * spline.num_params
        network = conditioner(half, outputs, hidden=hidden, activation=jax.nn.relu)
        layer = coupling(network, spline, half)
    return repeated(compose(layer, flip()), sizes.depth)


def _own(kind: str, sizes: Sizes, x: np.ndarray) -> Contestant:
    model = flow(_bijector(kind, sizes), sizes.dim)

    def log_prob(params, x):
        return jax.vmap(lambda x: model.log_prob(params, None, x))(x)

    def sample(params, key, num):
        return jax.vmap(lambda key: model.sample(params, key))(jax.random.split(key, num))

    return jax_contestant(random_params(model.init), log_prob, sample, x)


def _measure(config: Config, rivals: tuple[str, ...], kind: str, size: int) -> dict[str, float]:
    """Metrics of one flow in all libraries."""
    x = np.random.default_rng(0).standard_normal((size, config.dim))
    makers = {"jgen": _own} | {name: RIVALS[name] for name in rivals}
    contestants = {name: make(kind, _sizes(config), x) for name, make in makers.items()}
    metrics = {}
    for name, contestant in contestants.items():
        metrics[f"parameters/{name}/{kind}"] = float(contestant.parameters)
        for program, seconds in contestant.compile_s.items():
            metrics[f"compile_s/{name}/{kind}/{program}/{size}"] = seconds
    for program in PROGRAMS:
        programs = {name: c.programs[program] for name, c in contestants.items()}
        times = measure(programs, config.repeats)
        for name, found in times.items():
            what = f"{name}/{kind}/{program}/{size}"
            metrics[f"ms/{what}"] = float(np.median(found.cpu))
            metrics[f"wall_ms/{what}"] = float(np.median(found.wall))
            if name != "jgen":
                ratios = times["jgen"].cpu / found.cpu
                metrics[f"ratio/{what}"] = ratio(times["jgen"].cpu, found.cpu)
                metrics[f"ratio_low/{what}"] = float(np.quantile(ratios, 1 / 6))
                metrics[f"ratio_high/{what}"] = float(np.quantile(ratios, 5 / 6))
                metrics[f"wall_ratio/{what}"] = ratio(times["jgen"].wall, found.wall)
    return metrics


@styled
def _ratio_bars(metrics: dict[str, float]):
    """Ratios of all programs, a colour a library, with the spread of two thirds."""
    names = [name.removeprefix("ratio/") for name in metrics if name.startswith("ratio/")]
    libraries = list(dict.fromkeys(name.split("/")[0] for name in names))
    rows = list(dict.fromkeys(name.partition("/")[2] for name in names))
    figure = new_figure(0.8 * TEXT_WIDTH, 1.0 + 0.14 * len(rows) * (1 + len(libraries)))
    axes = figure.subplots()
    height = 0.8 / len(libraries)
    for i, library in enumerate(libraries):
        values, low, high = (
            np.array([metrics[f"{what}/{library}/{row}"] for row in rows])
            for what in ("ratio", "ratio_low", "ratio_high")
        )
        place = np.arange(len(rows)) + height * (i - 0.5 * (len(libraries) - 1))
        spread = [values - low, high - values]
        axes.barh(place, values, height, xerr=spread, color=color(i), label=library)
    axes.axvline(1, color=REFERENCE, linestyle="--", linewidth=0.8)
    labels = []
    for row in rows:
        kind, program, size = row.split("/")
        labels.append(f"{FLOWS[kind]}, {PROGRAMS[program]}, {size}")
    axes.set_yticks(range(len(rows)), labels)
    axes.tick_params(axis="y", which="both", length=0)
    axes.invert_yaxis()
    axes.set_xlabel("CPU time of jgen / other library")
    figure.legend(loc="outside upper center", ncols=len(libraries))
    return figure


DEFAULT = Config()
SMOKE = Config(dim=4, depth=2, bins=3, hidden=(6, 6), batches=(5,), repeats=2)
PRESETS = {"default": DEFAULT, "smoke": SMOKE}


if __name__ == "__main__":
    run("benchmarks.flows", __doc__, PRESETS, main, count_parameters)

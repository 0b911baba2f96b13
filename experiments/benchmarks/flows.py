"""Speed of normalizing flows next to zuko, nflows and flowjax: densities, gradients and samples.

    export XLA_FLAGS=--xla_cpu_multi_thread_eigen=false
    taskset -c 0 python -m experiments benchmarks.flows

Two flows of the same widths in every library: couplings with rational-quadratic splines
(1906.04032) and masked autoregressive layers with affine maps (1705.07057). Of each one evaluation
of the loss -log p with its gradient by the parameters, one of log p, and one draw of as many
events. Parameters are random, the base is normal, activations are rectifiers; jgen and flowjax are
compiled, zuko and nflows run PyTorch eagerly. Everybody has one thread, as above.

All libraries take turns in one run. Times are CPU milliseconds of the process, which other work on
the machine disturbs least, those with `wall` of the clock; each is the median of its repeats, and a
ratio below one says that jgen is faster. About a minute on one core. The libraries come with
`pip install -e .[benchmarks]`; one that is missing is left out, and those of PyTorch are on a GPU.
Numbers: results/benchmarks.md.
"""

from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

from experiments.benchmarks.rivals import RIVALS, Contestant, Sizes, jax_contestant
from experiments.benchmarks.timing import bars, installed, measure, random_params, ratio
from experiments.study import Run, Study, at_least, known, main, positive, table
from jgen import GenerativeModel, bijectors, models, nets

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
    seed: int = 0
    """Seed of the events."""


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, repeats=1, depth=1, bins=2)
    positive(config, "batches")
    if config.libraries:
        known(config, libraries=tuple(RIVALS))
    # With equal halves all couplings have the same sizes in every library.
    if config.dim < 2 or config.dim % 2:
        raise ValueError(f"dim must be even and positive, got {config.dim}")


def build(config: Config) -> dict[str, GenerativeModel]:
    """Both flows, with layers as the other libraries have them."""
    dim, options = config.dim, {"hidden": config.hidden, "activation": jax.nn.relu}
    affine = bijectors.affine()
    network = nets.made(dim, affine.num_params, **options)
    layers = {"maf": bijectors.autoregressive(network, affine, dim)}
    spline = bijectors.rational_quadratic(config.bins, config.bound)
    network = nets.conditioner(dim // 2, dim // 2 * spline.num_params, **options)
    layers = {"coupling": bijectors.coupling(network, spline, dim // 2)} | layers
    turned = {kind: bijectors.compose(layer, bijectors.flip()) for kind, layer in layers.items()}
    stacks = {kind: bijectors.repeated(layer, config.depth) for kind, layer in turned.items()}
    return {kind: models.flow(stack, dim) for kind, stack in stacks.items()}


def compute(config: Config, run: Run) -> dict[str, float]:
    """Measure.

    LIBRARY is jgen or a rival, FLOW coupling or maf, PROGRAM gradient, log_prob or sample, SIZE the
    number of events at once.

    ms/LIBRARY/FLOW/PROGRAM/SIZE     median CPU time, wall_ms by the clock
    ratio/LIBRARY/FLOW/...           median of jgen's time over the library's next to it
    ratio_low/..., ratio_high/...    between them lie two thirds of these ratios
    wall_ratio/LIBRARY/FLOW/...      that of the times by the clock
    compile_s/LIBRARY/FLOW/...       seconds to trace and compile, in no other number
    parameters/LIBRARY/FLOW          trainable numbers
    """
    metrics = {}
    for kind in FLOWS:
        for size in config.batches:
            metrics |= run.cached(f"{kind}/{size}", partial(measure_flow, config, kind, size))
    return metrics


def measure_flow(config: Config, kind: str, size: int) -> dict[str, float]:
    """Metrics of one flow in all libraries that are installed."""
    x = np.random.default_rng(config.seed).standard_normal((size, config.dim))
    sizes = Sizes(config.dim, config.depth, config.bins, config.bound, config.hidden)
    contestants = {"jgen": own(build(config)[kind], x)}
    contestants |= {name: RIVALS[name](kind, sizes, x) for name in installed(config.libraries)}
    metrics = {}
    for name, contestant in contestants.items():
        metrics[f"parameters/{name}/{kind}"] = float(contestant.parameters)
        for program, seconds in contestant.compile_s.items():
            metrics[f"compile_s/{name}/{kind}/{program}/{size}"] = seconds
    for program in PROGRAMS:
        programs = {name: c.programs[program] for name, c in contestants.items()}
        times = measure(programs, config.repeats)
        for name, other in times.items():
            what = f"{name}/{kind}/{program}/{size}"
            metrics[f"ms/{what}"] = float(np.median(other.cpu))
            metrics[f"wall_ms/{what}"] = float(np.median(other.wall))
            if name != "jgen":
                ratios = times["jgen"].cpu / other.cpu
                metrics[f"ratio/{what}"] = ratio(times["jgen"].cpu, other.cpu)
                metrics[f"ratio_low/{what}"] = float(np.quantile(ratios, 1 / 6))
                metrics[f"ratio_high/{what}"] = float(np.quantile(ratios, 5 / 6))
                metrics[f"wall_ratio/{what}"] = ratio(times["jgen"].wall, other.wall)
    return metrics


def own(model: GenerativeModel, x: np.ndarray) -> Contestant:
    """The flow of jgen."""

    def log_prob(params, x):
        return jax.vmap(lambda x: model.log_prob(params, None, x))(x)

    def sample(params, key, num):
        return jax.vmap(lambda key: model.sample(params, key))(jax.random.split(key, num))

    return jax_contestant(random_params(model.init), log_prob, sample, x)


def report(config: Config, run: Run, metrics: dict[str, float]) -> str:
    """Ratios of all programs with the spread of two thirds, or jgen's times if it is alone."""
    kind = "ratio" if any(name.startswith("ratio/") for name in metrics) else "ms"
    ends = ("ratio", "ratio_low", "ratio_high") if kind == "ratio" else ("ms", "ms", "ms")
    series: dict[str, dict] = {}
    for name in metrics:
        first, _, rest = name.partition("/")
        if first == kind:
            library, flow, program, size = rest.split("/")
            row = f"{FLOWS[flow]}, {PROGRAMS[program]}, {size}"
            values = tuple(metrics[f"{end}/{rest}"] for end in ends)
            series.setdefault(library, {})[row] = values
    label = "CPU time of jgen / other library" if kind == "ratio" else "CPU time [ms]"
    run.save("flow_ratios", bars(series, label))
    return table(["median"], {name: [value] for name, value in metrics.items()}, digits=4)


DEFAULT = Config()
SMOKE = Config(dim=4, depth=2, bins=3, hidden=(6, 6), batches=(5,), repeats=2)
STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, build)

if __name__ == "__main__":
    main(STUDY)

"""Speed of CaloDREAM: networks, sampling and ensembles, next to PyTorch where it is installed.

    python -m experiments benchmarks.showers

Everything is measured in one run, programs that are compared in turn, and each number is the
median of its repeats. Times are CPU milliseconds of the process, which other work on the machine
disturbs least; those with `wall` in their name are of the clock and the ones to read on a GPU.
PyTorch runs on one thread, and so does jgen with

    export XLA_FLAGS=--xla_cpu_multi_thread_eigen=false
    taskset -c 0 python -m experiments benchmarks.showers

About 5 minutes on one core and the time of five draws of showers. PyTorch comes with
`pip install -e .[benchmarks]`; without it and on a GPU it is left out. Its ratios belong to the
processor: on some, a matrix product alone takes the one library twice as long as the other.
Numbers: results/benchmarks.md.
"""

import dataclasses
import time
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.timing import (
    compare,
    ensemble_programs,
    flops,
    installed,
    measure,
    medians,
    peak_flops,
    random_array,
    random_params,
    ratio_figure,
    ratios,
    step_program,
)
from experiments.showers import presets
from experiments.study import Run, Study, at_least, main, table, variant
from jgen import Batch, GenerativeModel, draw, models
from jgen.nets import (
    Network,
    TransfusionConfig,
    ViTConfig,
    num_parameters,
    transfusion,
    velocity_mlp,
)
from jgen.showers import calodream, get_geometry
from jgen.solvers import SolverConfig
from jgen.training import make_optimizer, make_step

GEOMETRY = get_geometry("ds2")
NUM_COND = 1 + GEOMETRY.num_layers
EVENT_SHAPES = {"mlp": (16,), "vit": GEOMETRY.shape}
"""Of one event of each ensemble."""


@dataclass(frozen=True)
class Config:
    """What is measured, and how often."""

    vit: ViTConfig = ViTConfig()
    """Shape network, the published one."""
    energy: TransfusionConfig = TransfusionConfig()
    """Energy network, the published one."""
    energy_solver: SolverConfig = SolverConfig("kutta38", 50)
    """Solver of each layer energy, the published one."""
    vit_batches: tuple[int, ...] = (4, 16)
    """Showers in a pass of the shape network."""
    vit_ds3: ViTConfig = ViTConfig(patch=(3, 5, 2), width=240, heads=6, blocks=6, mlp_width=720)
    """Shape network of dataset 3, the published one."""
    vit_ds3_batches: tuple[int, ...] = (4,)
    """Showers in a pass of it; only its velocity is measured, beside no other library."""
    bfloat16: bool = False
    """Measure both shape networks in bfloat16, too. A CPU has no fast arithmetic for it."""
    peak_size: int = 2048
    """Rows and columns of the matrix product that the utilisation is relative to."""
    energy_batches: tuple[int, ...] = (4, 16)
    """Showers in a pass of the energy network."""
    calodream: presets.Config = presets.DEFAULT
    """Networks and solvers of the showers that are drawn end to end."""
    shower_batches: tuple[int, ...] = (32,)
    """Showers drawn at once."""
    accumulate: tuple[int, ...] = (1, 2, 4, 8)
    """Parts of a minibatch of the shape network's training, the default one; the first is what the
    others are compared with."""
    ensemble: int = 8
    """Members of the ensembles."""
    ensemble_batch: int = 32
    """Minibatch of one member."""
    ensemble_networks: tuple[Literal["mlp", "vit"], ...] = ("mlp", "vit")
    """Networks to measure ensembles of: fully connected ones and vision transformers."""
    ensemble_vit: ViTConfig = ViTConfig(width=48, heads=4, blocks=2, mlp_width=96)
    """Sizes of these vision transformers."""
    repeats: int = 5
    """Repeats of one pass."""
    sample_repeats: int = 3
    """Repeats of sampling."""
    ensemble_repeats: int = 15
    """Repeats of one step of an ensemble."""
    seed: int = 0
    """Seed of the showers that are drawn."""


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, repeats=1, sample_repeats=1, ensemble_repeats=1, peak_size=1)
    at_least(config, ensemble=1, ensemble_batch=1, accumulate=1)
    at_least(config, vit_batches=1, vit_ds3_batches=1, energy_batches=1, shower_batches=1)


def build(config: Config) -> dict[str, Any]:
    """All networks that are measured."""
    networks = {
        "vit": vit(config.vit),
        "vit_ds3": vit(config.vit_ds3, "ds3"),
        "energy": transfusion(GEOMETRY.num_layers, config.energy),
    }
    networks |= {f"ensemble/{name}": model for name, model in ensemble_models(config).items()}
    parts = calodream.parts(config.calodream)
    return networks | {f"showers/{name}": part.model for name, part in parts.items()}


def vit(sizes: ViTConfig, geometry: str = "ds2") -> Network:
    """Velocity network of the shapes."""
    config = calodream.CaloDreamConfig(geometry=geometry, shape_network=sizes)
    return calodream.parts(config)["shape"].network


def ensemble_models(config: Config) -> dict[str, GenerativeModel]:
    """What ensembles are trained of."""
    mlp = velocity_mlp(*EVENT_SHAPES["mlp"], NUM_COND, hidden=(64, 64, 64))
    return {
        "mlp": models.flow_matching(mlp, EVENT_SHAPES["mlp"]),
        "vit": models.flow_matching(vit(config.ensemble_vit), GEOMETRY.shape),
    }


def compute(config: Config, run: Run) -> dict[str, float]:
    """Measure, each task by itself: none holds its networks longer than it runs.

    SIZE is the number of showers at once. Names with `_wall_` are wall-clock time.

    vit_ms/forward/SIZE        velocity; vit_ms/gradient/SIZE: gradient of a squared error
    vit_ds3_ms/forward/SIZE    velocity of dataset 3's; NAME_bf16_ms/...: both in bfloat16
    utilisation/NAME/SIZE      operations a second of a velocity's matrix products over those
                               of one large matrix product in the same precision, by the clock
    energy_ms/contexts/SIZE    transformer on given ratios (teacher forcing)
    energy_ms/forward/SIZE     the same and the velocities of all layers
    energy_ms/sample/SIZE      all layer energies
    torch_ms/vit/forward/SIZE  PyTorch's, and so on
    ratio/vit/forward/SIZE     jgen's time over PyTorch's, and so on
    showers_per_second/SIZE    end to end, by the clock
    training_ms/accumulate/N   one step of the shape network in N parts
    training_ratio/accumulate/N  its time over that of the first N
    ensemble_ms/NETWORK/HOW    one step of all members: sequential, vmap or scan
    ensemble_ratio/NETWORK/HOW its time over the sequential one's
    compile_s/PROGRAM          seconds to trace and compile, in no other number
    """
    tasks, batches = {}, {"vit": config.vit_batches, "vit_ds3": config.vit_ds3_batches}
    for dtype in ("float32", "bfloat16") if config.bfloat16 else ("float32",):
        for name, n in ((name, n) for name, sizes in batches.items() for n in sizes):
            tasks[f"{name}/{dtype}/{n}"] = partial(measure_shapes, config, name, dtype, n)
    tasks |= {f"energy/{n}": partial(measure_energy, config, n) for n in config.energy_batches}
    tasks |= {f"showers/{n}": partial(measure_showers, config, n) for n in config.shower_batches}
    tasks["training"] = partial(measure_training, config)
    for name in config.ensemble_networks:
        tasks[f"ensemble/{name}"] = partial(measure_ensemble, config, name)
    metrics = {}
    for name, task in tasks.items():
        metrics |= run.cached(f"measured/{name}", task)
    return metrics


def pytorch_networks() -> ModuleType | None:
    """The module of PyTorch's networks, None where nothing can be compared with them."""
    if not installed(("torch",)):
        return None
    from experiments.benchmarks import pytorch

    return pytorch


def measure_shapes(config: Config, name: str, dtype: str, size: int) -> dict[str, float]:
    """The velocity of a shape network in one precision, and its rate of operations.

    Of dataset 2's in float32 also the gradient, and both beside PyTorch's.
    """
    geometry = "ds3" if name == "vit_ds3" else "ds2"
    sizes = dataclasses.replace(getattr(config, name), dtype=dtype)
    network, shape = vit(sizes, geometry), get_geometry(geometry).shape
    apply = jax.vmap(network.apply, in_axes=(None, 0, 0, 0))
    x, cond = random_array(size, *shape), random_array(size, NUM_COND)
    args = (random_params(network.init), jnp.linspace(0, 1, size), x, cond)
    label = name if dtype == "float32" else f"{name}_bf16"
    programs, rivals = {"forward": (apply, args)}, {}
    if label == "vit":
        loss = lambda *args: jnp.mean((apply(*args[:-1]) - args[-1]) ** 2)
        programs["gradient"] = (jax.grad(loss), (*args, -x))
        if pytorch := pytorch_networks():
            total = num_parameters(network.init)
            rivals = pytorch.vit_programs(shape, NUM_COND, sizes, size, total)
    metrics = {}
    for kind, (function, inputs) in programs.items():
        metrics |= compare(f"{label}/{kind}", size, function, inputs, rivals, config.repeats)
    operations = flops(apply, *args)
    rate = operations / (1e-3 * metrics[f"{label}_wall_ms/forward/{size}"])
    return metrics | {
        f"gflop_per_shower/{label}": 1e-9 * operations / size,
        f"utilisation/{label}/{size}": rate / peak_flops(dtype, config.peak_size),
    }


def measure_energy(config: Config, size: int) -> dict[str, float]:
    """Contexts, velocities and samples of the energy network, beside PyTorch's."""
    num, solver = GEOMETRY.num_layers, config.energy_solver.make()
    network = transfusion(num, config.energy)
    params, rivals, pytorch = random_params(network.init), {}, pytorch_networks()
    if pytorch:
        total = num_parameters(network.init)
        rivals = pytorch.energy_programs(num, config.energy, solver, size, total)

    def forward(params, ratios, energy, t, x):
        features = jax.vmap(network.embed_time, (None, 0))(params, t)
        contexts = network.contexts(params, ratios, energy)
        return jax.vmap(network.velocity, (None, 0, 0, 0))(params, features, x, contexts)

    sample = models.autoregressive_flow_matching(network, GEOMETRY.num_layers, solver=solver).sample
    keys = jax.random.split(jax.random.key(0), size)
    ratios, energy = random_array(size, num), jnp.linspace(0, 1, size)
    t = jnp.broadcast_to(jnp.linspace(0, 1, num), (size, num))
    programs = {
        "contexts": (network.contexts, (ratios, energy), config.repeats),
        "forward": (forward, (ratios, energy, t, ratios), config.repeats),
        "sample": (sample, (keys, energy), config.sample_repeats),
    }
    metrics = {}
    for kind, (function, args, repeats) in programs.items():
        function = jax.vmap(function, in_axes=(None, *[0] * len(args)))
        metrics |= compare(f"energy/{kind}", size, function, (params, *args), rivals, repeats)
    return metrics


def measure_showers(config: Config, size: int) -> dict[str, float]:
    """Showers a second from end to end."""
    geometry = get_geometry(config.calodream.geometry)
    # The statistics of no data set: how long a shower takes does not depend on them.
    moments = [f(s) for s in (geometry.shape[0], geometry.shape) for f in (np.zeros, np.ones)]
    statistics = calodream.Statistics(*moments)
    preprocessing = calodream.ShowerPreprocessing(geometry, statistics, 1e3, 1e6)
    parts = calodream.parts(config.calodream)
    model = calodream.shower_model(parts["energy"].model, parts["shape"].model, preprocessing)
    params, energies = random_params(model.init), calodream.incident_energies(size, 1e3, 1e6)
    program = lambda: draw(
        model, params, jax.random.key(config.seed), size, energies, batch_size=size
    )
    begin = time.perf_counter()
    program()
    first = time.perf_counter() - begin
    times = measure({"draw": program}, config.sample_repeats)["draw"]
    cpu, wall = (1e-3 * float(np.median(t)) for t in times)
    return {
        f"compile_s/showers/{size}": max(first - wall, 0.0),  # the first call compiles and runs
        f"showers_per_second/{size}": size / wall,
        f"showers_per_cpu_second/{size}": size / cpu,
    }


def measure_training(config: Config) -> dict[str, float]:
    """One step of the default training of the shape network, whole and in parts."""
    training, programs, metrics = config.calodream.shape_training, {}, {}
    model = calodream.parts(config.calodream)["shape"].model
    size = training.batch_size
    data = Batch(random_array(4 * size, *GEOMETRY.shape), random_array(4 * size, NUM_COND))
    optimizer = make_optimizer(training.optimizer, training.steps)
    make = partial(make_step, model, optimizer, size, ema_decay=training.ema_decay)
    for n in config.accumulate:
        programs[f"accumulate/{n}"], seconds = step_program(make(accumulate=n), data)
        metrics[f"compile_s/accumulate/{n}"] = seconds
    times = measure(programs, config.ensemble_repeats)
    first, *others = times
    for name in times:
        metrics |= medians("training", name, times[name])
    for name in others:
        metrics |= ratios("training", name, times[name], times[first])
    return metrics


def measure_ensemble(config: Config, name: str) -> dict[str, float]:
    """One training step of all members: one after another, vmapped, and scanned over."""
    num = 4 * config.ensemble_batch
    data = Batch(random_array(num, *EVENT_SHAPES[name]), random_array(num, NUM_COND))
    ways, model = ("sequential", "vmap", "scan"), ensemble_models(config)[name]
    programs, seconds = ensemble_programs(model, data, config.ensemble, config.ensemble_batch, ways)
    metrics = {f"compile_s/ensemble/{name}/{way}": value for way, value in seconds.items()}
    times = measure(programs, config.ensemble_repeats)
    for way, own in times.items():
        metrics |= medians("ensemble", f"{name}/{way}", own)
        if way != "sequential":
            metrics |= ratios("ensemble", f"{name}/{way}", own, times["sequential"])
    return metrics


def report(config: Config, run: Run, metrics: dict[str, float]) -> str:
    """Draw all ratios of times, in two colours for what they are relative to."""
    kinds = {
        "ratio": "jgen / PyTorch",
        "ensemble_ratio": "Ensemble / its members in sequence",
        "training_ratio": "Minibatch in parts / whole",
    }
    if figure := ratio_figure(metrics, kinds):
        run.save("ratios", figure)
    return table(["median"], {name: [value] for name, value in metrics.items()}, digits=4)


_TINY_VIT = ViTConfig(width=12, heads=2, blocks=1, mlp_width=12)
_TINY_ENERGY = TransfusionConfig(layers=1, feed_forward=16, head_width=16, head_layers=3)
_TINY_CALODREAM = {
    "energy_network": _TINY_ENERGY,
    "shape_network": _TINY_VIT,
    **dict.fromkeys(("energy_solver", "shape_solver"), SolverConfig("euler", 2)),
}
DEFAULT = Config()
SMOKE = variant(
    DEFAULT,
    vit=_TINY_VIT,
    energy=_TINY_ENERGY,
    energy_solver=SolverConfig("kutta38", 2),
    vit_batches=(2,),
    vit_ds3=variant(_TINY_VIT, patch=(9, 10, 6)),
    vit_ds3_batches=(2,),
    peak_size=256,
    energy_batches=(2,),
    calodream=_TINY_CALODREAM,
    shower_batches=(2,),
    accumulate=(1, 2),
    ensemble=2,
    ensemble_batch=4,
    ensemble_networks=("mlp",),  # the others compile for long
    repeats=2,
    sample_repeats=2,
    ensemble_repeats=3,
)
STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, build)

if __name__ == "__main__":
    main(STUDY)

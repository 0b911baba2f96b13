"""Speed of CaloDREAM: networks, sampling and ensembles, next to PyTorch where it is installed.

    python -m experiments.benchmarks.showers

Everything is measured in one run, programs that are compared in turn, and each number is the
median of its repeats. Times are CPU milliseconds of the process, which other work on the machine
disturbs least; those with `wall` in their name are of the clock and the ones to read on a GPU.
PyTorch runs on one thread, and so does jgen with

    export XLA_FLAGS=--xla_cpu_multi_thread_eigen=false
    taskset -c 0 python -m experiments.benchmarks.showers

About 5 minutes on one core and the time of five draws of showers. PyTorch comes with
`pip install -e .[benchmarks]`; without it and on a GPU it is left out. Its ratios belong to the
processor: on some, a matrix product alone takes the one library twice as long as the other. The
same --out measures again.
"""

import dataclasses
import importlib.util
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from experiments._command_line import run
from experiments.benchmarks._timing import (
    Program,
    compiled,
    flops,
    measure,
    medians,
    peak_flops,
    random_array,
    random_params,
    ratio,
)
from experiments.showers import presets
from jgen.generative_model import Batch, GenerativeModel, draw
from jgen.models import autoregressive_flow_matching, flow_matching
from jgen.nets import Network, num_parameters, velocity_mlp
from jgen.nets.transfusion import TransfusionConfig, transfusion
from jgen.nets.vit import ViTConfig
from jgen.plotting import save
from jgen.plotting.style import REFERENCE, TEXT_WIDTH, color, new_figure, styled
from jgen.random import member_keys
from jgen.showers import ShowerPreprocessing, get_geometry
from jgen.showers.calodream import (
    CaloDreamConfig,
    Statistics,
    incident_energies,
    parts,
    shower_model,
)
from jgen.solvers import SolverConfig
from jgen.training import OptimizerConfig, RunFolder, make_optimizer, make_step, member
from jgen.training.step import TrainState, over_members
from jgen.typing import Key

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


def main(config: Config, out: Path, *, plot_only: bool = False) -> dict[str, float]:
    """Measure and plot; returns the metrics, which metrics.json holds too.

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
        ensemble_ms/NETWORK/HOW    one step of all members: sequential, vmap or scan
        ensemble_ratio/NETWORK/HOW its time over the sequential one's
        compile_s/PROGRAM          seconds to trace and compile, in no other number
    """
    if min(config.repeats, config.sample_repeats, config.ensemble_repeats) < 1:
        raise ValueError("every number of repeats must be at least 1")
    folder = RunFolder(out, config)
    if not plot_only:
        metrics, tasks = {}, _tasks(config, _load_pytorch())
        for name, task in (bar := tqdm(tasks.items(), desc="benchmark", unit="measurement")):
            bar.set_postfix_str(name)
            metrics |= task()
        folder.write_metrics(metrics)
    metrics = folder.read_json("metrics.json")
    if metrics is None:
        raise FileNotFoundError(f"{out} has no metrics.json to plot; run without --plot-only first")
    save(_ratio_bars(metrics), folder.figure("ratios"))
    return metrics


def count_parameters(config: Config) -> dict[str, int]:
    """Trainable parameters of all networks that are measured."""
    inits = {
        "vit": _vit(config.vit).init,
        "vit_ds3": _vit(config.vit_ds3, "ds3").init,
        "energy": transfusion(GEOMETRY.num_layers, config.energy).init,
    }
    inits |= {f"ensemble/{name}": model.init for name, model in _ensemble_models(config).items()}
    counts = {name: num_parameters(init) for name, init in inits.items()}
    table = parts(config.calodream).items()
    return counts | {f"showers/{name}": num_parameters(p.model.init) for name, p in table}


def _load_pytorch():
    """The module of PyTorch's networks, None where nothing can be compared with them."""
    missing = importlib.util.find_spec("torch") is None
    if missing or jax.default_backend() != "cpu":
        reason = "pip install -e .[benchmarks]" if missing else "compared with on a CPU only"
        print(f"PyTorch is left out: {reason}")
        return None
    import torch

    from experiments.benchmarks import _pytorch

    torch.set_num_threads(1)
    return _pytorch


def _tasks(config: Config, pytorch) -> dict[str, Callable[[], dict[str, float]]]:
    """The measurements; none holds its networks longer than it runs."""
    tasks = {f"vit/{n}": partial(_measure_vit, config, pytorch, n) for n in config.vit_batches}
    rows = [("vit_ds3", "ds3", "float32", n) for n in config.vit_ds3_batches]
    if config.bfloat16:
        rows += [("vit", "ds2", "bfloat16", n) for n in config.vit_batches]
        rows += [("vit_ds3", "ds3", "bfloat16", n) for n in config.vit_ds3_batches]
    for name, geometry, dtype, n in rows:
        tasks[f"{name}/{dtype}/{n}"] = partial(_measure_velocity, config, name, geometry, dtype, n)
    for n in config.energy_batches:
        tasks[f"energy/{n}"] = partial(_measure_energy, config, pytorch, n)
    for n in config.shower_batches:
        tasks[f"showers/{n}"] = partial(_measure_showers, config, n)
    for name in config.ensemble_networks:
        tasks[f"ensemble/{name}"] = partial(_measure_ensemble, config, name)
    return tasks


def _compare(
    what: str, size: int, function: Callable, args: tuple, rivals: dict[str, Program], repeats: int
) -> dict[str, float]:
    """Metrics of one program of jgen, and of PyTorch's beside it if that is among the rivals."""
    network, kind = what.split("/")
    program, seconds = compiled(function, *args)
    programs = {network: lambda: program(*args)}
    if kind in rivals:
        programs["torch"] = rivals[kind]
    times = measure(programs, repeats)
    metrics = {f"compile_s/{what}/{size}": seconds}
    metrics |= medians(network, f"{kind}/{size}", times[network])
    if kind in rivals:
        metrics |= medians("torch", f"{what}/{size}", times["torch"])
        metrics[f"ratio/{what}/{size}"] = ratio(times[network].cpu, times["torch"].cpu)
    return metrics


def _vit(sizes: ViTConfig, geometry: str = "ds2") -> Network:
    """Velocity network of the shapes."""
    return parts(CaloDreamConfig(geometry=geometry, shape_network=sizes))["shape"].network


def _measure_vit(config: Config, pytorch, size: int) -> dict[str, float]:
    network = _vit(config.vit)
    apply = jax.vmap(network.apply, in_axes=(None, 0, 0, 0))
    params, rivals = random_params(network.init), {}
    if pytorch:
        total = num_parameters(network.init)
        rivals = pytorch.vit_programs(GEOMETRY.shape, NUM_COND, config.vit, size, total)

    def loss(params, t, x, cond, target):
        return jnp.mean((apply(params, t, x, cond) - target) ** 2)

    args = (params, *_arguments(GEOMETRY.shape, size))
    target = -args[2]
    metrics = {}
    for kind, function, extra in (("forward", apply, ()), ("gradient", jax.grad(loss), (target,))):
        metrics |= _compare(f"vit/{kind}", size, function, (*args, *extra), rivals, config.repeats)
    wall = metrics[f"vit_wall_ms/forward/{size}"]
    return metrics | _utilisation(config, "vit", "float32", size, apply, args, wall)


def _arguments(shape: tuple[int, ...], size: int) -> tuple[jax.Array, ...]:
    """Times, voxels and conditions of a pass of a shape network."""
    return jnp.linspace(0, 1, size), random_array(size, *shape), random_array(size, NUM_COND)


def _measure_velocity(config: Config, name: str, geometry: str, dtype: str, size: int):
    """The velocity alone, of one of the shape networks in one precision."""
    sizes = dataclasses.replace(getattr(config, name), dtype=dtype)
    network = _vit(sizes, geometry)
    apply = jax.vmap(network.apply, in_axes=(None, 0, 0, 0))
    args = (random_params(network.init), *_arguments(get_geometry(geometry).shape, size))
    label = name if dtype == "float32" else f"{name}_bf16"
    metrics = _compare(f"{label}/forward", size, apply, args, {}, config.repeats)
    wall = metrics[f"{label}_wall_ms/forward/{size}"]
    return metrics | _utilisation(config, label, dtype, size, apply, args, wall)


def _utilisation(config, label, dtype, size, function, args, wall_ms) -> dict[str, float]:
    rate = flops(function, *args) / (1e-3 * wall_ms)
    return {
        f"gflop_per_shower/{label}": 1e-9 * flops(function, *args) / size,
        f"utilisation/{label}/{size}": rate / peak_flops(dtype, config.peak_size),
    }


def _measure_energy(config: Config, pytorch, size: int) -> dict[str, float]:
    num, solver = GEOMETRY.num_layers, config.energy_solver.make()
    network = transfusion(num, config.energy)
    params, rivals = random_params(network.init), {}
    if pytorch:
        total = num_parameters(network.init)
        rivals = pytorch.energy_programs(num, config.energy, solver, size, total)

    def forward(params, ratios, energy, t, x):
        features = jax.vmap(network.embed_time, (None, 0))(params, t)
        contexts = network.contexts(params, ratios, energy)
        return jax.vmap(network.velocity, (None, 0, 0, 0))(params, features, x, contexts)

    sample = autoregressive_flow_matching(network, GEOMETRY.num_layers, solver=solver).sample
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
        metrics |= _compare(f"energy/{kind}", size, function, (params, *args), rivals, repeats)
    return metrics


def _measure_showers(config: Config, size: int) -> dict[str, float]:
    geometry = get_geometry(config.calodream.geometry)
    # The statistics of no data set: how long a shower takes does not depend on them.
    moments = [f(s) for s in (geometry.shape[0], geometry.shape) for f in (np.zeros, np.ones)]
    preprocessing = ShowerPreprocessing(geometry, Statistics(*moments), 1e3, 1e6)
    table = parts(config.calodream)
    model = shower_model(table["energy"].model, table["shape"].model, preprocessing)
    params, energies = random_params(model.init), incident_energies(size, 1e3, 1e6)
    program = lambda: draw(model, params, jax.random.key(0), size, energies, batch_size=size)
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


def _ensemble_models(config: Config) -> dict[str, GenerativeModel]:
    mlp = velocity_mlp(*EVENT_SHAPES["mlp"], NUM_COND, hidden=(64, 64, 64))
    return {
        "mlp": flow_matching(mlp, EVENT_SHAPES["mlp"]),
        "vit": flow_matching(_vit(config.ensemble_vit), GEOMETRY.shape),
    }


def _measure_ensemble(config: Config, name: str) -> dict[str, float]:
    """One training step of all members: one after another, vmapped, and scanned over."""
    optimizer = make_optimizer(OptimizerConfig(), 1000)
    step = make_step(_ensemble_models(config)[name], optimizer, config.ensemble_batch)
    num = 4 * config.ensemble_batch
    data = Batch(random_array(num, *EVENT_SHAPES[name]), random_array(num, NUM_COND))
    keys, init = member_keys(jax.random.key(0), config.ensemble), jax.jit(jax.vmap(step.init))
    programs, metrics = {}, {}
    for how in ("sequential", "vmap", "scan"):
        states = init(keys)  # for each its own, since a step takes the memory of its state
        if how == "sequential":
            function = step.update
            runs = [(member(states, i), keys[i]) for i in range(config.ensemble)]
        else:
            function, runs = over_members(step.update, how), [(states, keys)]
        update, seconds = compiled(function, *runs[0], data, donate_argnums=0)
        metrics[f"compile_s/ensemble/{name}/{how}"] = seconds
        programs[how] = partial(next, _steps(update, runs, data))
    times = measure(programs, config.ensemble_repeats)
    for how, found in times.items():
        metrics |= medians("ensemble", f"{name}/{how}", found)
    for how in ("vmap", "scan"):
        for label, own, one in zip(("", "_wall"), times[how], times["sequential"], strict=True):
            metrics[f"ensemble{label}_ratio/{name}/{how}"] = ratio(own, one)
    return metrics


def _steps(update: Callable, runs: list[tuple[TrainState, Key]], data: Batch) -> Iterator[None]:
    """Train each of `runs` by one step, one run after the other, whenever asked."""
    states = [state for state, _ in runs]
    while True:
        for i, (_, key) in enumerate(runs):
            states[i], _ = jax.block_until_ready(update(states[i], key, data))
        yield


@styled
def _ratio_bars(metrics: dict[str, float]):
    """All ratios of times as bars, in two colours for what they are relative to."""
    kinds = {"ratio": "jgen / PyTorch", "ensemble_ratio": "Ensemble / its members in sequence"}
    rows = [name for kind in kinds for name in metrics if name.startswith(f"{kind}/")]
    figure = new_figure(0.8 * TEXT_WIDTH, 1.2 + 0.22 * len(rows))
    axes = figure.subplots()
    for i, (kind, label) in enumerate(kinds.items()):
        values = [metrics[name] if name.startswith(f"{kind}/") else np.nan for name in rows]
        if np.isfinite(values).any():
            axes.barh(range(len(rows)), values, color=color(i), label=label)
    axes.axvline(1, color=REFERENCE, linestyle="--", linewidth=0.8)
    labels = [f"{name.partition('/')[2]}   {metrics[name]:.2f}" for name in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.tick_params(axis="y", which="both", length=0)
    axes.invert_yaxis()
    axes.set_xlabel("Ratio of CPU times")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


_TINY_VIT = ViTConfig(width=12, heads=2, blocks=1, mlp_width=12)
_TINY_ENERGY = TransfusionConfig(layers=1, feed_forward=16, head_width=16, head_layers=3)
_TINY_CALODREAM = dataclasses.replace(
    presets.DEFAULT,
    energy_network=_TINY_ENERGY,
    shape_network=_TINY_VIT,
    energy_solver=SolverConfig("euler", 2),
    shape_solver=SolverConfig("euler", 2),
)
DEFAULT = Config()
SMOKE = Config(
    vit=_TINY_VIT,
    energy=_TINY_ENERGY,
    energy_solver=SolverConfig("kutta38", 2),
    vit_batches=(2,),
    vit_ds3=dataclasses.replace(_TINY_VIT, patch=(9, 10, 6)),
    vit_ds3_batches=(2,),
    peak_size=256,
    energy_batches=(2,),
    calodream=_TINY_CALODREAM,
    shower_batches=(2,),
    ensemble=2,
    ensemble_batch=4,
    ensemble_networks=("mlp",),  # the others compile for long
    repeats=2,
    sample_repeats=2,
    ensemble_repeats=3,
)
PRESETS = {"default": DEFAULT, "smoke": SMOKE}


if __name__ == "__main__":
    run("benchmarks.showers", __doc__, PRESETS, main, count_parameters)

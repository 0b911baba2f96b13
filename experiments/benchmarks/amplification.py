"""Speed of amplification studies: members trained together, 10^7 events drawn, scanned and counted.

    python -m experiments.benchmarks.amplification

Members are autoregressive transformers of the ring (2509.08048), small as in experiments.ring_*.
They take their training steps one after another (a program a member), in one program that scans
over them, in one that has them side by side (vmap) and, where there are several devices, spread
over these (shard). What is compared takes turns in one run, each number is the median of its
repeats, and times are as in experiments.benchmarks.showers: CPU milliseconds of the process, those
with `wall` in their name of the clock, which are the ones to read on a GPU.

Then one of them draws 10^7 two-dimensional events, and of their radii all Kolmogorov-Smirnov
distances to 1000 others, for all numbers of generated events, and the fractions in 20 regions are
computed. Takes 2 minutes of processor time on one core. The same --out measures again.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from experiments._command_line import run
from experiments.benchmarks._timing import Program, compiled, measure, random_params, ratio
from jgen.amplification import ks_distances, prefix_sizes, region_fractions
from jgen.generative_model import Batch, GenerativeModel, draw_chunks
from jgen.models import autoregressive, gaussian_mixture
from jgen.nets import num_parameters
from jgen.nets.causal import CausalConfig, causal
from jgen.plotting import Curve, quality_curves, save
from jgen.random import member_keys
from jgen.toys import ring
from jgen.training import OptimizerConfig, RunFolder, make_layout, make_optimizer, make_step, member
from jgen.training.mesh import put
from jgen.training.step import over_members

DIM = 2
"""Components of an event."""
NUM_REGIONS = 20
"""Regions of the radius, of equal probability, as in the paper."""


@dataclass(frozen=True)
class Config:
    """What is measured, and how often."""

    network: CausalConfig = CausalConfig()
    """Transformer."""
    num_gauss: int = 20
    """Gaussians of a component's mixture."""
    members: tuple[int, ...] = (1, 10, 50)
    """Numbers of members."""
    batch_size: int = 256
    """Minibatch of a member."""
    num_train: int = 1000
    """Training events, and events of the reference."""
    num_events: int = 10_000_000
    """Events that are drawn, and whose radii are looked at."""
    sample_batch: int = 2**14
    """Events drawn at a time."""
    repeats: int = 7
    """Repeats of one step of all members."""
    scan_repeats: int = 3
    """Repeats of a pass over all radii."""


def main(config: Config, out: Path, *, plot_only: bool = False) -> dict[str, float]:
    """Measure and plot; returns the metrics, which metrics.json holds too.

    HOW is sequential, scan, vmap or shard, M the number of members.

        step_ms/HOW/M           of a member and training step, step_wall_ms by the clock
        step_ratio/HOW/M        over that of the sequential ones, step_wall_ratio by the clock
        events_per_second       drawn, by the clock; events_per_cpu_second
        ks_seconds              all distances to the reference, ks_wall_seconds by the clock
        regions_seconds         all fractions in regions, regions_wall_seconds by the clock
        compile_s/HOW/M         seconds to trace and compile, in no other number
    """
    _check(config)
    folder = RunFolder(out, config)
    if not plot_only:
        metrics = {}
        for num in (bar := tqdm(config.members, desc="benchmark", unit="ensemble")):
            bar.set_postfix_str(f"{num} members")
            metrics |= _measure_members(config, num)
        drawn, radii = _measure_events(config)
        folder.write_metrics(metrics | drawn | _measure_passes(config, radii))
    metrics = folder.read_json("metrics.json")
    if metrics is None:
        raise FileNotFoundError(f"{out} has no metrics.json to plot; run without --plot-only first")
    save(_figure(config, metrics), folder.figure("members"))
    print("\n".join(f"{name:<32}{value:>12.4g}" for name, value in metrics.items()))
    return metrics


def count_parameters(config: Config) -> dict[str, int]:
    """Trainable parameters of one member."""
    return {"transformer": num_parameters(_model(config).init)}


def _check(config: Config) -> None:
    smallest = min(config.repeats, config.scan_repeats, *(config.members or (0,)))
    if smallest < 1:
        raise ValueError(
            f"members and repeats must be at least 1, got {config.members}, {config.repeats} and "
            f"{config.scan_repeats}"
        )
    if config.num_events < 1000:
        raise ValueError(f"num_events must be at least 1000 to be timed, got {config.num_events}")
    for num in config.members:
        make_layout(num, config.batch_size)


def _model(config: Config) -> GenerativeModel:
    head = gaussian_mixture(config.num_gauss)
    return autoregressive(causal(DIM, head.num_outputs, config=config.network), head, DIM)


def _ring_events(num: int, seed: int) -> np.ndarray:
    keys = jax.random.split(jax.random.key(seed), num)
    return np.asarray(jax.jit(jax.vmap(ring(DIM).sample))(keys))


def _measure_members(config: Config, num: int) -> dict[str, float]:
    """One training step of `num` members, in all ways."""
    programs, metrics = _programs(config, num)
    times = measure(programs, config.repeats)
    for how, found in times.items():
        for clock, own, one in zip(("", "_wall"), found, times["sequential"], strict=True):
            metrics[f"step{clock}_ms/{how}/{num}"] = float(np.median(own)) / num
            if how != "sequential":
                metrics[f"step{clock}_ratio/{how}/{num}"] = ratio(own, one)
    return metrics


def _programs(config: Config, num: int) -> tuple[dict[str, Program], dict[str, float]]:
    """Each trains `num` members by a step; and the seconds that compiling them took."""
    data = Batch(_ring_events(config.num_train, seed=0))
    optimizer = make_optimizer(OptimizerConfig(), 1000)
    make = partial(make_step, _model(config), optimizer, config.batch_size)
    step, keys = make(), member_keys(jax.random.key(0), num)
    init = jax.jit(jax.vmap(step.init))
    programs, metrics = {}, {}
    for how in ("sequential", "scan", "vmap") + (("shard",) if jax.device_count() > 1 else ()):
        states, shared = init(keys), data  # states of its own, since a step takes their memory
        if how == "sequential":
            function = step.update
            runs = [(member(states, i), keys[i]) for i in range(num)]
        elif how == "shard":
            layout = make_layout(num, config.batch_size)
            function = over_members(make(place_batch=layout.place_batch).update, "vmap")
            runs = [tuple(put(a, layout.members) for a in (states, keys))]
            shared = put(data, layout.shared)
        else:
            function, runs = over_members(step.update, how), [(states, keys)]
        update, seconds = compiled(function, *runs[0], shared, donate_argnums=0)
        metrics[f"compile_s/{how}/{num}"] = seconds
        programs[how] = partial(next, _steps(update, runs, shared))
    return programs, metrics


def _steps(update: Callable, runs: list[tuple], data: Batch) -> Iterator[list]:
    """Train each of `runs` by one step whenever asked; gives their losses to wait for."""
    states = [state for state, _ in runs]
    while True:
        losses = []
        for i, (_, keys) in enumerate(runs):
            states[i], metrics = update(states[i], keys, data)
            losses.append(metrics["loss"])
        yield losses


def _measure_events(config: Config) -> tuple[dict[str, float], np.ndarray]:
    """Speed of drawing, and the radii of all events in single precision."""
    model = _model(config)
    params, radii = random_params(model.init), np.empty(config.num_events, np.float32)
    chunks = partial(draw_chunks, model, params, jax.random.key(0), batch_size=config.sample_batch)
    list(chunks(config.sample_batch))  # to compile
    cpu, wall, start = time.process_time(), time.perf_counter(), 0
    for events in chunks(config.num_events, progress=True):
        radii[start : start + len(events)] = np.hypot(events[:, 0], events[:, 1])
        start += len(events)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    metrics = {
        "events_per_second": config.num_events / wall,
        "events_per_cpu_second": config.num_events / cpu,
    }
    return metrics, radii


def _measure_passes(config: Config, radii: np.ndarray) -> dict[str, float]:
    """A pass over all radii for the distances, and one for the regions."""
    reference = np.linalg.norm(_ring_events(config.num_train, seed=1), axis=1)
    edges = ring(DIM).marginals[0].quantile(np.linspace(0, 1, NUM_REGIONS + 1))
    sizes = prefix_sizes(len(radii))
    programs = {
        "ks": lambda: ks_distances(reference, radii, sizes),
        "regions": lambda: region_fractions(radii, edges, sizes),
    }
    metrics = {}
    for name, found in measure(programs, config.scan_repeats).items():
        metrics[f"{name}_seconds"] = 1e-3 * float(np.median(found.cpu))
        metrics[f"{name}_wall_seconds"] = 1e-3 * float(np.median(found.wall))
    return metrics


def _figure(config: Config, metrics: dict[str, float]):
    """Time of a member's step against the number of members, by the clock on accelerators."""
    clock = "" if jax.default_backend() == "cpu" else "_wall"
    names = [n.split("/")[1] for n in metrics if n.startswith(f"step{clock}_ms/")]
    curves = {
        how.capitalize(): Curve(
            np.array(config.members),
            np.array([metrics[f"step{clock}_ms/{how}/{num}"] for num in config.members]),
        )
        for how in dict.fromkeys(names)
    }
    label = "CPU time" if clock == "" else "Time"
    values = np.concatenate([curve.value for curve in curves.values()])
    return quality_curves(
        curves,
        f"{label} of a member's step [ms]",
        xlabel="Members",
        log_y=bool(values.max() > 8 * values.min()),
    )


DEFAULT = Config()
SMOKE = Config(
    network=CausalConfig(width=8, heads=2, blocks=1, feed_forward=8),
    num_gauss=2,
    members=(1, 2),
    batch_size=16,
    num_train=50,
    num_events=2000,
    sample_batch=512,
    repeats=2,
    scan_repeats=2,
)
PRESETS = {"default": DEFAULT, "smoke": SMOKE}


if __name__ == "__main__":
    run("benchmarks.amplification", __doc__, PRESETS, main, count_parameters)

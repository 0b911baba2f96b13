"""Speed of amplification studies: members trained together, 10^7 events drawn, scanned and counted.

    python -m experiments benchmarks.amplification

Members are autoregressive transformers of the ring (2509.08048), small as in the studies of rings.
They take their training steps one after another (a program a member), in one program that scans
over them, in one that has them side by side (vmap) and, where there are several devices, spread
over these (shard). What is compared takes turns in one run, each number is the median of its
repeats, and times are as in benchmarks.showers: CPU milliseconds of the process, those
with `wall` in their name of the clock, which are the ones to read on a GPU.

Then one of them draws 10^7 two-dimensional events, and of their radii all Kolmogorov-Smirnov
distances to 1000 others, for all numbers of generated events, and the fractions in 20 regions are
computed. Takes 2 minutes of processor time on one core.
Numbers: results/benchmarks.md.
"""

import time
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

from experiments.benchmarks.timing import (
    Times,
    ensemble_programs,
    measure,
    medians,
    random_params,
    ratios,
)
from experiments.study import Run, Study, at_least, main, positive, table
from jgen import Batch, GenerativeModel, amplification, models, plotting, toys
from jgen.generative_model import draw_chunks
from jgen.nets import CausalConfig, causal
from jgen.training import make_layout

DIM = 2
"""Components of an event."""
RING = toys.ring(DIM)
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
    seed: int = 0
    """Seed of everything random."""


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, repeats=1, scan_repeats=1, num_train=1, batch_size=1, sample_batch=1)
    at_least(config, num_events=1000)  # to be timed
    positive(config, "members")
    for num in config.members:
        make_layout(num, config.batch_size)


def build(config: Config) -> dict[str, GenerativeModel]:
    """One member."""
    head = models.gaussian_mixture(config.num_gauss)
    network = causal(DIM, head.num_outputs, config=config.network)
    return {"transformer": models.autoregressive(network, head, DIM)}


def compute(config: Config, run: Run) -> dict[str, float]:
    """Measure; WAY is sequential, scan, vmap or shard, M the number of members.

    step_ms/WAY/M           of a member and training step, step_wall_ms by the clock
    step_ratio/WAY/M        over that of the sequential ones, step_wall_ratio by the clock
    events_per_second       drawn, by the clock; events_per_cpu_second
    ks_seconds              all distances to the reference, ks_wall_seconds by the clock
    regions_seconds         all fractions in regions, regions_wall_seconds by the clock
    compile_s/WAY/M         seconds to trace and compile, in no other number
    """
    (model,) = build(config).values()
    metrics, events = {}, toys.true_events(RING, run.key("train"), config.num_train)
    for num in config.members:
        members = partial(measure_members, config, model, events, num)
        metrics |= run.cached(f"members/{num}", members)
    return metrics | run.cached("events", partial(measure_events, config, run, model))


def measure_members(
    config: Config, model: GenerativeModel, events: np.ndarray, num: int
) -> dict[str, float]:
    """One training step of `num` members, in all ways."""
    ways = ("sequential", "scan", "vmap") + (("shard",) if jax.device_count() > 1 else ())
    programs, seconds = ensemble_programs(model, Batch(events), num, config.batch_size, ways)
    metrics = {f"compile_s/{way}/{num}": value for way, value in seconds.items()}
    times = measure(programs, config.repeats)
    for way, own in times.items():
        of_one = Times(*(values / num for values in own))
        metrics |= medians("step", f"{way}/{num}", of_one)
        if way != "sequential":
            metrics |= ratios("step", f"{way}/{num}", own, times["sequential"])
    return metrics


def measure_events(config: Config, run: Run, model: GenerativeModel) -> dict[str, float]:
    """Speed of drawing, and of a pass over all radii for the distances and for the regions."""
    params, radii = random_params(model.init), np.empty(config.num_events, np.float32)
    chunks = partial(draw_chunks, model, params, run.key("draw"), batch_size=config.sample_batch)
    list(chunks(config.sample_batch))  # to compile
    cpu, wall, start = time.process_time(), time.perf_counter(), 0
    for events in chunks(config.num_events, progress=True):
        radii[start : start + len(events)] = np.hypot(events[:, 0], events[:, 1])
        start += len(events)
    metrics = {
        "events_per_second": config.num_events / (time.perf_counter() - wall),
        "events_per_cpu_second": config.num_events / (time.process_time() - cpu),
    }
    reference = np.linalg.norm(
        toys.true_events(RING, run.key("reference"), config.num_train), axis=1
    )
    edges = RING.marginals[0].quantile(np.linspace(0, 1, NUM_REGIONS + 1))
    sizes = amplification.prefix_sizes(len(radii))
    programs = {
        "ks": lambda: amplification.ks_distances(reference, radii, sizes),
        "regions": lambda: amplification.region_fractions(radii, edges, sizes),
    }
    for name, times in measure(programs, config.scan_repeats).items():
        metrics[f"{name}_seconds"] = 1e-3 * float(np.median(times.cpu))
        metrics[f"{name}_wall_seconds"] = 1e-3 * float(np.median(times.wall))
    return metrics


def report(config: Config, run: Run, metrics: dict[str, float]) -> str:
    """Draw a member's step against the number of members, by the clock on accelerators."""
    clock = "" if jax.default_backend() == "cpu" else "_wall"
    ways = [n.split("/")[1] for n in metrics if n.startswith(f"step{clock}_ms/")]
    curves = {
        way.capitalize(): plotting.Curve.of(
            config.members, [metrics[f"step{clock}_ms/{way}/{num}"] for num in config.members]
        )
        for way in dict.fromkeys(ways)
    }
    values = np.concatenate([curve.value for curve in curves.values()])
    figure = plotting.quality_curves(
        curves,
        f"{'Time' if clock else 'CPU time'} of a member's step [ms]",
        xlabel="Members",
        log_y=bool(values.max() > 8 * values.min()),
    )
    run.save("members", figure)
    return table(["median"], {name: [value] for name, value in metrics.items()}, digits=4)


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
STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, build)

if __name__ == "__main__":
    main(STUDY)

"""Training from a file that does not fit into memory, next to the same training in memory.

    python -m experiments benchmarks.files --gigabytes 20

writes synthetic showers (noise in the place of CaloDREAM's standardised voxels), takes the file out
of the system's cache, limits the memory of the process and trains CaloDREAM's default shape network
from the file and, in turn, from a few of its showers in memory. The file stays in the run folder;
delete it afterwards. Writing takes a minute for 20 GB, the rest 3 minutes on 2 CPU cores.
Numbers: results/benchmarks.md.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import h5py
import jax
import numpy as np

from experiments.showers import presets
from experiments.study import Run, Study, at_least, main, positive, table, variant
from jgen import Batch, GenerativeModel, TrainConfig, fit
from jgen.files import atomic_path
from jgen.showers import calodream, get_geometry
from jgen.training import HDF5Events

try:
    import resource
except ImportError:  # not on Windows, which has no such limits
    resource = None

BLOCK = 500
"""Showers written together."""


@dataclass(frozen=True)
class Config:
    """What is written and trained."""

    gigabytes: float = 2.0
    """Size of the file [10^9 bytes]."""
    memory: float = 4.0
    """Limit of the memory that the process allocates [10^9 bytes]; 0: none."""
    in_memory: int = 2000
    """Showers of the training in memory."""
    calodream: presets.Config = presets.DEFAULT
    """Shape network and its training."""
    steps: int = 200
    """Steps of one training."""
    repeats: int = 2
    """Trainings of each kind, in turn."""
    seed: int = 0
    """Seed of the showers and trainings."""


def check(config: Config) -> None:
    """Refuse bad options."""
    positive(config, "gigabytes")
    at_least(config, memory=0, in_memory=BLOCK, steps=20, repeats=1)


def build(config: Config) -> dict[str, GenerativeModel]:
    """The network."""
    return {"shape": calodream.parts(config.calodream)["shape"].model}


def compute(config: Config, run: Run) -> dict:
    """Write, train and measure.

    gigabytes                size of the file
    gigabytes_per_second     of writing it
    ms_per_step/PLACE        memory or file: mean by the clock, without the first tenth of steps
    ratio                    of the two, file over memory
    peak_gigabytes           most memory that the process had resident, compilation included
    read_gigabytes           showers that the trainings from the file took
    """
    if config.memory and resource is not None:
        limit = int(1e9 * config.memory)
        resource.setrlimit(
            resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1])
        )
    path = run.path / "showers.h5"
    written = run.cached("written", write, path, config)
    return written | run.cached("measured", measure, path, config)


def write(path: Path, config: Config) -> dict[str, float]:
    """Showers and conditions, without chunks, and the seconds that it took."""
    geometry, rng = get_geometry(config.calodream.geometry), np.random.default_rng(config.seed)
    num_cond = 1 + geometry.num_layers
    size = 4 * (np.prod(geometry.shape) + num_cond)
    num = BLOCK * max(int(1e9 * config.gigabytes / size / BLOCK), 2)
    begin = time.perf_counter()
    with atomic_path(path) as partial:
        with h5py.File(partial, "w") as file:
            x = file.create_dataset("x", (num, *geometry.shape), np.float32)
            cond = file.create_dataset("cond", (num, num_cond), np.float32)
            for first in range(0, num, BLOCK):
                rows = slice(first, first + BLOCK)
                x[rows] = 3.4 * rng.random((BLOCK, *geometry.shape), np.float32) - 1.7
                cond[rows] = rng.standard_normal((BLOCK, num_cond), np.float32)
        forget(partial)
    seconds = time.perf_counter() - begin
    return {"gigabytes": 1e-9 * size * num, "gigabytes_per_second": 1e-9 * size * num / seconds}


def forget(path: Path) -> None:
    """Write a file to the disk and take it out of the system's cache, where that can be asked."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(path: Path, config: Config) -> dict[str, float]:
    """Milliseconds of a step in both ways, and the memory that they took."""
    source, seconds = HDF5Events([path], "x", "cond"), {"memory": [], "file": []}
    few: Batch = source[np.arange(config.in_memory)]
    model = calodream.parts(config.calodream)["shape"].model
    training = variant(config.calodream.shape_training, steps=config.steps, log_every=1)
    for repeat in range(config.repeats):
        for place, data in (("memory", few), ("file", source)):
            key = jax.random.key(config.seed + repeat)
            fitted = fit(model, data, key, training, name=place)
            rows = [row["seconds"] for row in fitted.history if "seconds" in row]
            seconds[place] += rows[config.steps // 10 :]
    times = {f"ms_per_step/{place}": 1e3 * np.mean(values) for place, values in seconds.items()}
    metrics = times | {"ratio": times["ms_per_step/file"] / times["ms_per_step/memory"]}
    if resource is not None:
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        metrics["peak_gigabytes"] = 1024e-9 * kilobytes
    drawn = config.repeats * config.steps * training.batch_size
    return metrics | {"read_gigabytes": 1e-9 * drawn * few.x[0].nbytes}


def report(config: Config, run: Run, metrics: dict) -> str:
    """Tabulate the metrics; there are no figures."""
    return table(["value"], {name: [value] for name, value in metrics.items()}, digits=4)


DEFAULT = Config()
SMOKE = variant(
    DEFAULT,
    gigabytes=0.03,
    in_memory=BLOCK,
    memory=0,
    calodream=variant(presets.SMOKE, shape_training=TrainConfig(20, 8)),
    steps=20,
    repeats=1,
)
STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, build)

if __name__ == "__main__":
    main(STUDY)

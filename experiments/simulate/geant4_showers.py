"""Calorimeter showers with Geant4, written as CaloChallenge files.

    pip install -e ".[simulation]"
    python -m experiments simulate.geant4_showers

simulates 1000 electrons and writes them in the voxels of dataset 2 and of dataset 3, ds2.h5 and
ds3.h5, for `read_showers(path, get_geometry("ds2"))`. Other detectors and read-outs are options;

    --grids custom --custom.num-alpha 32 --custom.num-z 30 --custom.z-step 5.1

writes custom.h5, for `read_showers(path, file_geometry(path))`, in which `file_geometry` is below.

Geant4's data: geant4-pybind offers to download them the first time it is imported in a terminal,
`python -c "import geant4_pybind"`; or set GEANT4_DATA_DIR to the folder that holds G4EMLOW and
the others. With all of them the physics list is FTFP_BERT, with G4EMLOW alone its electromagnetic
part, which the log and the files' attributes tell.

Shower i depends on the seed and on i alone. Runs with `--first 0 --num 1000` and `--first 1000
--num 1000`, on any machines, are two halves of one sample: `read_showers([one, other], ...)`.
A run that was stopped goes on with the same command; `--processes` uses more cores.

Time: 14 ms of a core per GeV, 2 minutes for the default, seconds for the smoke preset; a GPU is not
used. Expected of the default with electromagnetic physics: response 0.956 +- 0.002, deviation
0.065, occupancy 0.064 (ds2) and 0.022 (ds3).
"""

import contextlib
import dataclasses
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
from tqdm import tqdm

from experiments.simulate.detector import Detector, check_grid
from experiments.simulate.physics import ADVICE, choose_physics
from experiments.simulate.processes import gather
from experiments.study import Run, Study, at_least, main, positive, table
from jgen.files import atomic_path
from jgen.plotting.style import REFERENCE, TEXT_WIDTH, color, log_axis, new_figure, styled
from jgen.showers import (
    GRIDS,
    Geometry,
    Grid,
    Showers,
    iterate_showers,
    read_showers,
    shower_coordinates,
    voxelise,
    write_showers,
)
from jgen.training import MetricsLog

PARTS = "parts"
"""Folder where chunks lie until they are one file."""
_TIMED = ("showers", "energy", "seconds", "cpu_seconds")


@dataclass(frozen=True)
class Config:
    """One sample of showers."""

    particle: Literal["e-", "e+", "gamma", "pi+"] = "e-"
    """Incident particle; pi+ needs FTFP_BERT."""
    energy_range: tuple[float, float] = (1e3, 30e3)
    """Kinetic energies are log-uniform between these [MeV]."""
    energies: tuple[float, ...] = ()
    """Kinetic energies instead of a range [MeV]; showers take them in turn."""
    num: int = 1000
    """Showers to simulate."""
    first: int = 0
    """Number of the first shower in the sample that the seed defines."""
    seed: int = 0
    """Seed of everything random."""
    physics: Literal["auto", "FTFP_BERT", "G4EmStandardPhysics"] = "auto"
    """Physics list; auto takes FTFP_BERT if its data are installed."""
    cut: float = 0.7
    """Production cut of secondary particles [mm]."""
    threshold: float = 0.5e-3
    """Voxels with that energy in active material or less are empty [MeV]."""
    sampling_fraction: float = 0.033
    """Voxel energies are divided by it."""
    detector: Detector = Detector()
    """The calorimeter."""
    grids: tuple[Literal["ds2", "ds3", "custom"], ...] = ("ds2", "ds3")
    """Read-outs, a file each of the same showers."""
    custom: Grid = Grid()
    """The read-out `custom`."""
    chunk: int = 100
    """Showers between two writes: what a killed process loses at most."""
    processes: int = 1
    """Processes that simulate; any number gives the same showers."""

    def grid(self, name: str) -> Grid:
        """One of the read-outs."""
        return self.custom if name == "custom" else GRIDS[name]

    def geometry(self, name: str) -> Geometry:
        """How `jgen.showers` calls this read-out."""
        return self.grid(name).geometry(name, self.threshold / self.sampling_fraction)


def stored(config: Config) -> Config:
    """What a run is: the number of processes changes no shower, a run may go on with another."""
    return dataclasses.replace(config, processes=1)


def inputs(config: Config) -> str:
    """The physics list; Geant4 and its data must be there."""
    return choose_physics(config.physics, config.particle)


def compute(config: Config, run: Run) -> dict[str, float]:
    """Simulate, write and summarise.

    showers_per_second     of one process, by the clock
    ms_per_gev             CPU time per incident energy
    response/GRID          mean of E_tot / E_inc, response_std/GRID its deviation
    occupancy/GRID         mean fraction of voxels with energy
    """
    files = _files(config, run)
    if not all(path.exists() for path in files.values()):
        if run.read_only:
            raise ValueError(f"{run.path} is not finished; run without --plot-only first")
        physics = inputs(config)
        _keep_physics(run, physics)
        _simulate(config, physics, run)
        _merge(config, run, files)
    if not run.read_only:  # a kill after the last file was written leaves this behind
        shutil.rmtree(run.path / PARTS, ignore_errors=True)
    return _metrics(config, run, files)


def _files(config: Config, run: Run) -> dict[str, Path]:
    return {name: run.path / f"{name}.h5" for name in config.grids}


def file_geometry(path: str | os.PathLike) -> Geometry:
    """The geometry of a file that this study wrote, from its attributes."""
    with h5py.File(path) as file:
        if "grid" not in file.attrs:
            raise ValueError(f"{path} was not written by this study; it has no attribute 'grid'")
        grid = Grid(**json.loads(file.attrs["grid"]))
        return grid.geometry(file.attrs["geometry"], float(file.attrs["threshold"]))


def draw_event(config: Config, index: int) -> tuple[float, tuple[int, int]]:
    """Kinetic energy [MeV] and the seeds of Geant4's engine for shower number `index`."""
    rng = np.random.default_rng([config.seed, index])
    first, second = rng.integers(1, 2**32, 2)
    low, high = np.log(config.energy_range)
    energy = np.exp(rng.uniform(low, high))
    if config.energies:
        energy = config.energies[index % len(config.energies)]
    # As the file holds it.
    return float(np.float32(energy)), (int(first), int(second))


def check(config: Config) -> None:
    """Raise a ValueError for options that make no sense."""
    positive(config, "num", "chunk", "processes", "cut", "sampling_fraction")
    at_least(config, first=0, seed=0, threshold=0)
    low, high = config.energy_range
    if not 0 < low <= high < np.inf or not all(0 < e < np.inf for e in config.energies):
        raise ValueError(
            f"energies must be positive and a range increasing, in MeV; got energy_range "
            f"{config.energy_range} and energies {config.energies}"
        )
    if not config.grids or len(set(config.grids)) < len(config.grids):
        raise ValueError(f"grids must be different ones, at least one, got {config.grids}")
    for name in config.grids:
        check_grid(name, config.grid(name), config.detector)


def _keep_physics(folder: Run, physics: str) -> None:
    """Refuse to go on with other physics than the run began with."""
    new = {"physics": physics, "geant4_pybind": version("geant4_pybind")}
    begun = folder.read_json("physics.json") or new
    if begun != new:
        raise ValueError(
            f"{folder.path} began with {begun}, now it would be {new}; choose another --out, or "
            "the same package and data of Geant4"
        )
    print(f"physics list: {physics}")
    folder.write_json("physics.json", new)


def _part(parts: Path, grid: str, start: int) -> Path:
    return parts / f"{grid}-{start:012d}.h5"


def _numbers(config: Config) -> dict[int, range]:
    """Numbers of the showers of each chunk, by the first one."""
    end = config.first + config.num
    starts = range(config.first, end, config.chunk)
    return {start: range(start, min(start + config.chunk, end)) for start in starts}


def _simulate(config: Config, physics: str, folder: Run) -> None:
    """Write all chunks that are not there yet."""
    parts, log = folder.path / PARTS, MetricsLog(folder.path / "metrics.jsonl")
    numbers = _numbers(config)
    todo = [
        start
        for start in numbers
        if not all(_part(parts, name, start).exists() for name in config.grids)
    ]
    finished = config.num - sum(len(numbers[start]) for start in todo)
    num = min(config.processes, len(todo))
    # Geant4 ends its process when it meets a problem, and can be set up only once in each.
    messages = gather(_chunks, [(config, physics, todo[k::num], parts) for k in range(num)])
    with (
        contextlib.closing(messages),
        tqdm(total=config.num, initial=finished, desc="Geant4", unit="shower") as bar,
    ):
        for row in messages:
            if row is None:
                bar.update()
            else:
                log.append(row)
                bar.set_postfix_str(f"{1e6 * row['cpu_seconds'] / row['energy']:.1f} ms/GeV")


def _chunks(config: Config, physics: str, starts: list[int], parts: Path) -> Iterator[dict | None]:
    """Simulate and write the chunks that begin with `starts`; the body of one process.

    Yields:
      None after each shower, and a row of metrics.jsonl after each chunk.
    """
    try:
        # Loads Geant4, and is the first thing to fail without its data.
        from experiments.simulate import geant4
    except ImportError as error:
        raise ValueError(f"Geant4 could not be loaded: {error}; {ADVICE}") from error
    detector, numbers = config.detector, _numbers(config)
    simulation = geant4.Simulation(detector, config.particle, physics, config.cut)
    attributes = {"physics_list": physics, "geant4": geant4.version()}
    for start in starts:
        begin, begin_cpu = time.perf_counter(), time.process_time()
        energies, voxels = [], {name: [] for name in config.grids}
        for index in numbers[start]:
            energy, seeds = draw_event(config, index)
            deposits = simulation.shower(energy, seeds)
            where = shower_coordinates(deposits[:, 1:], detector.inner_radius)
            for name, showers in voxels.items():
                cut = config.threshold, config.sampling_fraction
                shower = voxelise(deposits[:, 0], *where, config.grid(name), *cut)
                showers.append(shower.astype(np.float32))
            energies.append(energy)
            yield None
        for name, showers in voxels.items():
            chunk = Showers(np.array(energies, np.float32), np.stack(showers))
            _write(_part(parts, name, start), chunk, config, name, attributes)
        yield {
            "step": start,
            "showers": len(energies),
            "energy": sum(energies),
            "seconds": time.perf_counter() - begin,
            "cpu_seconds": time.process_time() - begin_cpu,
        }


def _write(
    path: Path,
    showers: Showers | Iterator[Showers],
    config: Config,
    grid: str,
    attributes: dict[str, str],
) -> None:
    """Write a file with attributes that say where it comes from."""
    geometry = config.geometry(grid)
    with atomic_path(path) as partial:
        write_showers(partial, showers, geometry)
        with h5py.File(partial, "r+") as file:
            file.attrs["config"] = json.dumps(dataclasses.asdict(stored(config)))
            file.attrs["geometry"] = grid
            file.attrs["grid"] = json.dumps(dataclasses.asdict(config.grid(grid)))
            file.attrs["threshold"] = geometry.threshold
            file.attrs.update(attributes)


def _merge(config: Config, folder: Run, files: dict[str, Path]) -> None:
    """Put all chunks together, in the order of their showers."""
    parts = folder.path / PARTS
    for name, path in files.items():
        paths = [_part(parts, name, start) for start in _numbers(config)]
        with h5py.File(paths[0]) as file:
            attributes = {key: file.attrs[key] for key in ("physics_list", "geant4")}
        chunks = (read_showers(part, config.geometry(name)) for part in paths)
        # Among the chunks first: what a kill leaves there goes away with them.
        _write(parts / path.name, chunks, config, name, attributes)
        os.replace(parts / path.name, path)


def _metrics(config: Config, folder: Run, files: dict[str, Path]) -> dict[str, float]:
    rows = MetricsLog(folder.path / "metrics.jsonl").read()
    total = {key: sum(row[key] for row in rows) for key in _TIMED}
    metrics = {}
    if rows:  # a kill can come between a file and its line
        metrics["showers_per_second"] = total["showers"] / total["seconds"]
        metrics["ms_per_gev"] = 1e6 * total["cpu_seconds"] / total["energy"]
    for name, path in files.items():
        _, responses, _, occupancies = _observe(path, config.geometry(name))
        metrics[f"response/{name}"] = responses.mean()
        metrics[f"response_std/{name}"] = responses.std()
        metrics[f"occupancy/{name}"] = occupancies.mean()
    return metrics


def report(config: Config, run: Run, metrics: dict[str, float]) -> str:
    """The response and the longitudinal profile of every read-out."""
    for name, path in _files(config, run).items():
        energies, responses, profiles, _ = _observe(path, config.geometry(name))
        run.save(name, _figure(energies, responses, profiles))
    return table(["value"], {name: [value] for name, value in metrics.items()}, digits=5)


def _observe(path: Path, geometry: Geometry) -> tuple[np.ndarray, ...]:
    """Incident energies, E_tot / E_inc, layer energies / E_inc and occupancies of a file."""
    parts = []
    for chunk in iterate_showers(path, geometry, 500):
        layers = chunk.voxels.reshape(-1, *geometry.shape).sum((2, 3), dtype=np.float64)
        profile = layers / chunk.energies[:, None]
        parts.append((chunk.energies, profile.sum(1), profile, np.mean(chunk.voxels > 0, axis=1)))
    return tuple(np.concatenate(values) for values in zip(*parts, strict=True))


@styled
def _figure(energies, responses, profiles):
    """The response over energy, and the mean longitudinal profile with its error."""
    figure = new_figure(TEXT_WIDTH, 2.8)
    left, right = figure.subplots(1, 2)
    left.plot(energies / 1e3, responses, ".", color=color(0), markersize=2)
    left.axhline(responses.mean(), color=REFERENCE, linewidth=0.8)
    left.set_xscale("log")
    log_axis(left.xaxis)
    left.set(xlabel="Incident energy [GeV]", ylabel="$E_{tot}$ / $E_{inc}$")
    mean, error = profiles.mean(0), profiles.std(0) / np.sqrt(len(profiles))
    edges = np.arange(len(mean) + 1) - 0.5
    right.stairs(mean + error, edges, baseline=mean - error, fill=True, color=color(0), alpha=0.3)
    right.stairs(mean, edges, color=color(0), baseline=None)
    right.set(xlabel="Layer", ylabel="Mean $E_{layer}$ / $E_{inc}$", xlim=(edges[0], edges[-1]))
    return figure


DEFAULT = Config()
# The CaloChallenge's sizes: 1 GeV to 1 TeV, 100,000 showers to train on and as many to test with.
DS2 = Config(num=200_000, energy_range=(1e3, 1e6), grids=("ds2",))
SMOKE = Config(num=20, energy_range=(0.5e3, 2e3), grids=("ds2",), chunk=5)
PRESETS = {
    "default": DEFAULT,
    "smoke": SMOKE,
    "ds2": DS2,
    "ds3": dataclasses.replace(DS2, grids=("ds3",)),
}
STUDY = Study(PRESETS, compute, report, check, inputs=inputs, stored=stored)

if __name__ == "__main__":
    main(STUDY)

"""Dijets with Pythia 8: QCD background with sidebands, and W' -> X Y, for searches of resonances.

    pip install -e ".[simulation]"
    python -m experiments simulate.pythia_dijets

simulates events like those that are bundled with `jgen.jets`, at 13 TeV, in the features of the LHC
Olympics: m_jj, m_j1, dm [TeV], tau21_1, tau21_2, the lighter of both jets first. They are in
dijets.h5, for `read_dijets(path)`.

A chunk of collisions depends on the seed and on its number alone, so that runs with other `--first`
are other parts of one sample. A run that was stopped goes on with the same command; `--processes`
uses more cores.

Time: 4 ms of a core a collision, of which two thirds pass; 6 minutes for the default, seconds for
the smoke preset.
"""

import contextlib
import dataclasses
import importlib.util
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from tqdm import tqdm

from experiments.simulate.processes import gather
from experiments.study import Run, Study, at_least, main, positive, table, variant
from jgen import plotting
from jgen.estimate import mean_estimate
from jgen.jets import DIJET_FEATURES, Dijets, read_dijets, write_dijets
from jgen.plotting import Panel
from jgen.training import MetricsLog

NAMES = ("background", "signal")
"""Their labels are 0 and 1."""
PARTS = "parts"
"""Folder where chunks lie until they are one file."""
PACKAGES = ("pythia8mc", "fastjet")
_LABELS = (
    "$m_{jj}$ [TeV]",
    "$m_{j1}$ [TeV]",
    "$m_{j2} - m_{j1}$ [TeV]",
    r"$\tau_{21}$ of the lighter jet",
    r"$\tau_{21}$ of the heavier jet",
)


@dataclass(frozen=True)
class Config:
    """One sample of dijets."""

    num_background: int = 84_000
    """Collisions of background to simulate."""
    num_signal: int = 12_000
    """Collisions of signal."""
    first: int = 0
    """Number of the first chunk of either, in the sample that the seed defines."""
    masses: tuple[float, float, float] = (3500.0, 500.0, 100.0)
    """Of W', X and Y [GeV]."""
    edges: tuple[float, float] = (2.8, 4.6)
    """Events are kept whose m_jj is between these [TeV]."""
    flattening: float = 3.0
    """Background collisions are chosen with this power of the partons' pT, weights are dropped."""
    radius: float = 1.0
    """Of the anti-kT jets."""
    seed: int = 0
    """Seed of everything random."""
    chunk: int = 3000
    """Collisions between two writes: what a killed process loses at most."""
    processes: int = 1
    """Processes that simulate; any number gives the same events."""


def stored(config: Config) -> Config:
    """What a run is: the number of processes changes no event, a run may go on with another."""
    return dataclasses.replace(config, processes=1)


def check(config: Config) -> None:
    """Refuse bad options."""
    positive(config, "num_background", "num_signal", "chunk", "processes", "masses", "radius")
    at_least(config, seed=0, first=0, flattening=0)
    low, high = config.edges
    if not 2.4 <= low < high <= 13:
        raise ValueError(
            f"edges must be increasing, from 2.4 TeV, below which the jets' pT cuts, to 13, got "
            f"{config.edges}"
        )
    if config.masses[0] <= sum(config.masses[1:]):
        raise ValueError(f"W' must be heavier than X and Y together, got masses {config.masses}")
    if config.flattening > 8 or config.radius > 1.5:
        raise ValueError(
            f"flattening must be at most 8 and radius 1.5, got {config.flattening} and "
            f"{config.radius}"
        )


def inputs(config: Config) -> None:
    """The packages must be there."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f'{", ".join(missing)} not installed; run `pip install -e ".[simulation]"` first'
        )


def chunks(config: Config) -> dict[str, tuple[int, int, int]]:
    """Label, number of collisions and Pythia's seed of each chunk, by its name."""
    found = {}
    for label, num in enumerate((config.num_background, config.num_signal)):
        for i, start in enumerate(range(0, num, config.chunk), config.first):
            seed = np.random.default_rng([config.seed, label, i]).integers(1, 900_000_001)
            found[f"{NAMES[label]}-{i:06d}"] = label, min(config.chunk, num - start), int(seed)
    return found


def _path(run: Run) -> Path:
    return run.path / "dijets.h5"


def compute(config: Config, run: Run) -> dict:
    """Simulate, write and summarise.

    kept/SAMPLE              events of all that were simulated
    milliseconds/SAMPLE      CPU time a collision
    median/SAMPLE/FEATURE    of the features
    correlation/FEATURE      with m_jj, of the background from 3.1 to 3.9 TeV
    """
    if not _path(run).exists():
        if run.read_only:
            raise ValueError(f"{run.path} is not finished; run without --plot-only first")
        inputs(config)
        _keep_versions(run)
        _simulate(config, run)
        _merge(config, run)
    if not run.read_only:  # a kill after the last file was written leaves this behind
        shutil.rmtree(run.path / PARTS, ignore_errors=True)
    return _metrics(config, run)


def _keep_versions(run: Run) -> None:
    """Refuse to go on with other programs than the run began with."""
    new = {name: version(name) for name in PACKAGES}
    begun = run.read_json("versions.json") or new
    if begun != new:
        raise ValueError(
            f"{run.path} began with {begun}, now it would be {new}; choose another --out, or the "
            "same packages"
        )
    run.write_json("versions.json", new)


def _simulate(config: Config, run: Run) -> None:
    """Write all chunks that are not there yet."""
    parts, log = run.path / PARTS, MetricsLog(run.path / "metrics.jsonl")
    parts.mkdir(exist_ok=True)
    sizes = {name: num for name, (_, num, _) in chunks(config).items()}
    todo = [name for name in sizes if not (parts / f"{name}.npy").exists()]
    done = sum(sizes.values()) - sum(sizes[name] for name in todo)
    num = min(config.processes, len(todo))
    # Pythia ends its process when it meets some problems.
    messages = gather(_chunks, [(config, todo[k::num], parts) for k in range(num)])
    with (
        contextlib.closing(messages),
        tqdm(total=sum(sizes.values()), initial=done, desc="Pythia", unit="collision") as bar,
    ):
        for row in messages:
            log.append(row)
            bar.update(row["collisions"])


def _chunks(config: Config, names: list[str], parts: Path) -> Iterator[dict]:
    """Simulate and write some chunks, the body of one process; yields rows of metrics.jsonl."""
    # Loads Pythia and fastjet.
    from experiments.simulate import pythia

    low, high = config.edges
    settings = (
        # Jets lose some mass to what is outside of them, and rarely gain any.
        pythia.background_settings((1e3 * low - 200, 1e3 * high + 500), config.flattening),
        pythia.signal_settings(*config.masses),
    )
    for name in names:
        label, num, seed = chunks(config)[name]
        begin = time.process_time()
        found = pythia.features(settings[label], seed, num, config.radius)
        found = found[(found[:, 0] >= low) & (found[:, 0] < high)]
        partial = parts / f".{name}.npy"
        np.save(partial, found)
        os.replace(partial, parts / f"{name}.npy")
        seconds = time.process_time() - begin
        yield {"step": label, "collisions": num, "kept": len(found), "seconds": seconds}


def _merge(config: Config, run: Run) -> None:
    """Put all chunks together, in the order of their numbers."""
    features, labels = [], []
    for name, (label, _, _) in chunks(config).items():
        features.append(np.load(run.path / PARTS / f"{name}.npy"))
        labels.append(np.full(len(features[-1]), label, np.int8))
    write_dijets(_path(run), Dijets(np.concatenate(features), np.concatenate(labels)))


def _metrics(config: Config, run: Run) -> dict:
    events, metrics = read_dijets(_path(run)), {}
    rows = MetricsLog(run.path / "metrics.jsonl").read()
    for label, name in enumerate(NAMES):
        features = events.features[events.labels == label].astype(np.float64)
        metrics[f"kept/{name}"] = len(features)
        some = [row for row in rows if row["step"] == label]
        if some:  # a kill can come between a file and its line
            num = sum(row["collisions"] for row in some)
            metrics[f"milliseconds/{name}"] = 1e3 * sum(row["seconds"] for row in some) / num
        for column, values in zip(DIJET_FEATURES, features.T, strict=True):
            metrics[f"median/{name}/{column}"] = np.median(values)
    background = events.features[events.labels == 0].astype(np.float64)
    near = background[(background[:, 0] > 3.1) & (background[:, 0] < 3.9)]
    scaled = (near - near.mean(axis=0)) / near.std(axis=0)
    for i, column in enumerate(DIJET_FEATURES[1:], 1):
        metrics[f"correlation/{column}"] = mean_estimate(scaled[:, 0] * scaled[:, i])
    return metrics


def report(config: Config, run: Run, metrics: dict) -> str:
    """Draw the features of signal and background, and tabulate the metrics."""
    events = read_dijets(_path(run))
    high = (config.edges[1], 0.8, 1.2, 1, 1)
    low = (config.edges[0], 0, 0, 0, 0)
    panels = []
    for column, name in enumerate(_LABELS):
        background, signal = (events.features[events.labels == k, column] for k in (0, 1))
        edges = np.linspace(low[column], high[column], 41)
        panels.append(Panel(edges, background, {"W' -> X Y": signal}, name, reference_label="QCD"))
    run.save("features", plotting.histogram_grid(panels))
    return table(["value"], {name: [value] for name, value in metrics.items()}, digits=4)


DEFAULT = Config()
SMOKE = variant(DEFAULT, num_background=400, num_signal=200, chunk=150)
PRESETS = {"default": DEFAULT, "smoke": SMOKE}
STUDY = Study(PRESETS, compute, report, check, inputs=inputs, stored=stored)

if __name__ == "__main__":
    main(STUDY)

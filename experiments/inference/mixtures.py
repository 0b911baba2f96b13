"""Jets of two classes before and after a detector: a simulation, data of another mixture, truth."""

import functools

import numpy as np

from experiments.study import Run
from jgen.inference import Unfolded
from jgen.jets import (
    OBSERVABLES,
    Constituents,
    jet_observables,
    read_jets,
    sample_jets_path,
    smeared,
)
from jgen.metrics import histogram
from jgen.random import numpy_generator

LEAST_SHARE = 0.015
"""Of a jet's pT: softer constituents are not counted, since files have the leading ones alone."""


@functools.lru_cache(maxsize=2)
def load(data: str, classes: tuple[str, str], rows: int) -> Constituents:
    """The jets of two classes."""
    jets = read_jets(data or sample_jets_path()).of(*classes).leading(rows)
    smallest = np.bincount(jets.labels, minlength=2).min()
    if smallest < 200:
        raise ValueError(f"a class has {smallest} jets; two hundred are needed")
    return jets


def samples(jets: Constituents, run: Run) -> dict:
    """Observables of simulated pairs, of the data before and after the detector, and of a truth."""
    rng = numpy_generator(run.key("jets"))
    after = smeared(jets, run.key("detector"))
    first, second = (rng.permutation(np.flatnonzero(jets.labels == k)) for k in (0, 1))
    # As many as there are: two fifths of the second class in the simulation.
    half = min(int(0.4 * len(second)), len(first) // 2)
    more = min(int(0.3 * len(second)), int((len(first) - half) / 2 / 0.3 * 0.7))
    less = int(more * 0.3 / 0.7)
    cut = lambda rows, k: np.split(rows, [half, half + k, half + 2 * k])[:3]
    parts = [np.concatenate(both) for both in zip(cut(first, less), cut(second, more), strict=True)]
    before, measured = (jet_observables(j, LEAST_SHARE) for j in (jets, after))
    names = ("simulation", "data", "truth")
    made = {name: before[rows] for name, rows in zip(names, parts, strict=True)}
    return made | {f"{name} reco": measured[rows] for name, rows in zip(names, parts, strict=True)}


def opened(edges: np.ndarray) -> np.ndarray:
    """Edges whose outer bins have all that is beyond."""
    return np.concatenate([[-np.inf], edges[1:-1], [np.inf]])


def binning(bins: int, samples: dict, column: int, *, even: bool = False) -> np.ndarray:
    """Edges of bins with as many true jets each, or of one width."""
    true = samples["truth"][:, column]
    edges = np.unique(np.quantile(true, np.linspace(0, 1, bins + 1)))
    if even:
        edges = np.linspace(*np.quantile(true, [0.005, 0.995]), bins + 1)
    return np.unique(np.round(edges)) - 0.5 if OBSERVABLES[column] == "constituents" else edges


def contents(edges: np.ndarray, samples: dict, unfolded: dict[str, Unfolded], column: int) -> dict:
    """Histograms of the truth, the prior, the data and what is unfolded."""
    # Whatever lies outside belongs to the bins at the ends.
    inside = lambda x: np.clip(x, edges[0], edges[-1])
    plain = {"truth": "truth", "prior": "simulation", "data": "data"}
    made = {
        name: histogram(inside(samples[sample][:, column]), edges) for name, sample in plain.items()
    }
    for method, found in unfolded.items():
        events, _ = found.sample()
        weights = found.weights[:, -1].mean(axis=0)
        made[method] = histogram(inside(events[:, column]), edges, weights)
    return made

"""Metrics, figures and table of the BIB-AE study."""

import functools
import math

import jax
import numpy as np
from scipy.stats import norm

from experiments.showers.bib_ae.data import GEOMETRY, HALF_WIDTH, Config, Data, Showers, load_data
from experiments.study import Run, metric_table
from jgen import Estimate, metrics, plotting
from jgen.amplification import jensen_shannon
from jgen.estimate import mean_ratio, width_ratio
from jgen.plotting import Panel
from jgen.showers import box
from jgen.showers.evaluation import voxel_counts
from jgen.typing import Key

GENERATED = {"prior": "game", "without": "latent", "sorted": "sorted", "with": "post"}
"""How showers are made -> the model they come from.

prior: the latent from N(0, 1), no post-processor. without: the latent from its density estimate.
sorted, with: as without, and a post-processor of the published loss or of ours.
"""
LABELS = {
    "with": "With post-processor",
    "sorted": "Published loss",
    "without": "Without",
    "prior": "Normal latent",
}
OBSERVABLES = {
    "response": r"$E_\mathrm{vis} / E_\mathrm{inc}$",
    "num_hits": "Cells above threshold",
    "depth": "Centre in depth [cells]",
    "length": "Width in depth [cells]",
    "radius": "Mean radius [mm]",
    "hottest_cell": r"$E_\mathrm{max} / E_\mathrm{inc}$",
}
_NUM_REPLICAS = 100


def energy_bins(config: Config, data: Data) -> dict[str, tuple[float, float]]:
    """Name -> (lower, upper edge) of the bins of the incident energy [MeV]."""
    low, high = data.test.energies.min(), data.test.energies.max()
    edges = np.geomspace(low, high * 1.001, config.num_bins + 1)
    pairs = zip(edges[:-1], edges[1:], strict=True)
    return {f"{a / 1000:.1f}-{b / 1000:.1f}_gev": (a, b) for a, b in pairs}


def within(energies: np.ndarray, values: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """Values of the showers whose energies are in a bin."""
    return values[(energies >= bounds[0]) & (energies < bounds[1])]


def check_bins(config: Config, data: Data) -> None:
    """Refuse bins of the energy that have no width, before anything is trained."""
    test, train = data.test.energies, data.train.energies[: len(data.test.energies)]
    for name, bounds in energy_bins(config, data).items():
        fewest = min(len(within(energies, energies, bounds)) for energies in (test, train))
        if fewest < 2:
            raise ValueError(
                f"each of num_bins={config.num_bins} bins of the energy needs two showers to test "
                f"on and two to train on, but {name} has {fewest}: choose fewer bins, or another "
                "num_test"
            )


def measure(config: Config, data: Data, samples: dict[str, np.ndarray], key: Key) -> dict:
    """All metrics."""
    test, num = data.test, len(data.test.energies)
    sets = {name: Showers(samples["energies"], samples[name]) for name in GENERATED}
    sets["truth"] = Showers(*(a[:num] for a in data.train))
    results = {}
    for name, showers in sets.items():
        for label, bounds in energy_bins(config, data).items():
            pair = [within(s.energies, np.exp(s.log_response), bounds) for s in (showers, test)]
            results[f"visible_energy_mean/{label}/{name}"] = mean_ratio(*pair)
            results[f"visible_energy_width/{label}/{name}"] = width_ratio(*pair)
        results[f"spectrum_jsd/{name}"] = spectrum_jsd(test.cells, showers.cells, config.seed)
        hits = [s.observables["num_hits"] for s in (showers, test)]
        results[f"num_hits_mean/{name}"] = mean_ratio(*hits)
        if name != "truth":
            # Latents that the decoder never saw give any energy: quantiles do not mind.
            low, median, high = np.quantile(samples[f"{name}/free"], norm.cdf([-1, 0, 1]))
            results[f"free_energy_median/{name}"] = median
            results[f"free_energy_width/{name}"] = (high - low) / 2
    first = slice(None, None, config.num_repeats)  # one generated shower for each test shower
    paired = {name: Showers(*(a[first] for a in sets[name])) for name in ("with", "sorted")}
    results |= metrics.compare(
        test.observables,
        sets["truth"].observables,
        paired["with"].observables,
        lambda name, values: np.linspace(*np.quantile(values, [0.002, 0.998]), 31),
        key=jax.random.key(config.seed),
    ).metrics
    if config.classifier_epochs:
        results |= classifiers(config, test, sets["truth"], paired, key)
    return results


def classifiers(
    config: Config, test: Showers, truth: Showers, made: dict[str, Showers], key: Key
) -> dict:
    """Classifiers of all cells, and of the observables."""
    options = metrics.ClassifierConfig(
        hidden=(128, 128), learning_rate=1e-3, batch_size=200,
        epochs=config.classifier_epochs, num_seeds=2,
    )  # fmt: skip
    flat = lambda s: np.log1p(s.cells.reshape(len(s.cells), -1) / config.scale)
    cells = lambda s: np.column_stack([np.log(s.energies), flat(s)])
    few = lambda s: np.column_stack([np.log(s.energies), *s.observables.values()])
    inputs = {"cells_sorted": (cells, "sorted"), "cells": (cells, "with")}
    results = {}
    for tag, (of, name) in (inputs | {"observables": (few, "with")}).items():
        triple = (of(test), of(truth), of(made[name]))
        results |= metrics.classifier_comparison(*triple, key, tag, options).metrics
    return results


def spectrum_edges() -> np.ndarray:
    """Bins of the energies of cells [MeV], logarithmic."""
    return np.geomspace(GEOMETRY.threshold, 5000, 51)


def spectrum_jsd(reference: np.ndarray, cells: np.ndarray, seed: int) -> Estimate:
    """Jensen-Shannon divergence of the spectra of cells [n, z, y, x] in bits.

    The error is a bootstrap's of showers, whose cells are not independent.
    """
    counts = [spectrum_counts(c) for c in (reference, cells)]
    fractions = lambda c: c / c.sum(axis=-1, keepdims=True)
    divergence = lambda p, q: jensen_shannon(fractions(p), fractions(q)) / math.log(2)
    value = divergence(*(c.sum(axis=0) for c in counts))
    rng = np.random.default_rng(seed)
    again = lambda c: rng.multinomial(len(c), np.full(len(c), 1 / len(c)), _NUM_REPLICAS) @ c
    return Estimate(float(value), float(divergence(*map(again, counts)).std()))


def spectrum_counts(cells: np.ndarray) -> np.ndarray:
    """Cells of each shower in the bins of the spectrum [n, bins]; empty cells are below them."""
    return voxel_counts(cells.reshape(len(cells), -1), spectrum_edges())[:, 1:-1]


def report(config: Config, run: Run, results: dict) -> str:
    """Draw everything; tables of responses, spectra and classifiers."""
    data = load_data(config.data)
    figures(config, run, data, run.stage("samples"))
    kinds = ("visible_energy_mean", "visible_energy_width")
    rows = {f"{kind} {b}": f"{kind}/{b}" for kind in kinds for b in energy_bins(config, data)}
    tables = [metric_table(results, ("with", "truth"), rows, title="over Geant4's")]
    kinds = ("spectrum_jsd", "num_hits_mean", "free_energy_median", "free_energy_width")
    rows = {kind: kind for kind in kinds}
    tables.append(metric_table(results, (*GENERATED, "truth"), rows))
    if config.classifier_epochs:
        names = ("auc_cells_sorted", "auc_cells", "auc_observables")
        tables.append("\n".join(f"{name:<20}{results[name]}" for name in names))
    return "\n\n".join(tables)


def figures(config: Config, run: Run, data: Data, samples: dict[str, np.ndarray]) -> None:
    """All figures."""
    test, own, shown = data.test, data.test.observables, ("sorted", "with")
    three, hits = ("without", *shown), lambda cells: cells[cells > 0]
    made = {name: Showers(samples["energies"], samples[name]).observables for name in LABELS}
    panel = functools.partial(Panel, reference_label="Geant4")
    label = lambda of, names: {LABELS[name]: of(name) for name in names}

    spectrum = panel(
        spectrum_edges(),
        hits(test.cells),
        label(lambda name: hits(samples[name]), three),
        "Energy of a cell [MeV]",
        log_x=True,
        log_y=True,
    )
    counts = panel(
        np.geomspace(0.5 * own["num_hits"].min(), test.cells[0].size, 31),
        own["num_hits"],
        label(lambda name: made[name]["num_hits"], three),
        OBSERVABLES["num_hits"],
        log_x=True,
    )
    run.save("spectrum", plotting.histogram_grid([spectrum, counts]))
    panels = []
    for name, xlabel in OBSERVABLES.items():
        edges = np.linspace(*np.quantile(own[name], [0.002, 0.998]), 26)
        of = label(lambda how: made[how][name], shown)  # noqa: B023
        panels.append(panel(edges, own[name], of, xlabel))
    run.save("observables", plotting.histogram_grid(panels))
    panels = []
    for name, bounds in energy_bins(config, data).items():
        reference = within(test.energies, own["response"], bounds)
        edges = np.linspace(*np.quantile(reference, [0.005, 0.995]), 21)
        of = within(samples["energies"], made["with"]["response"], bounds)
        energies = name.removesuffix("_gev").replace("-", " to ")
        title = f"{OBSERVABLES['response']}, {energies} GeV"
        panels.append(panel(edges, reference, {LABELS["with"]: of}, title))
    run.save("visible-energy", plotting.histogram_grid(panels, num_columns=2))
    cells = label(samples.get, three)
    profile = plotting.longitudinal_profile(test.cells, cells, ratio_range=(0.0, 2.0))
    run.save("longitudinal-profile", profile)
    (reference, edges), (rings, _) = (
        box.ring_means(cells, HALF_WIDTH) for cells in (test.cells, samples["with"])
    )
    image = plotting.longitudinal_view(reference, rings, r_edges=edges, generated_label="BIB-AE")
    run.save("average-image", image)

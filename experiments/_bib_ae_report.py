"""Metrics, figures and table of the BIB-AE study."""

import jax
import numpy as np
from scipy.stats import norm

from experiments._bib_ae import GENERATED, Config
from experiments._bib_ae_data import GEOMETRY, Data, Showers
from jgen.estimate import flatten
from jgen.metrics import (
    ClassifierConfig,
    classifier_comparison,
    compare,
)
from jgen.plotting import Panel, histogram_grid, longitudinal_profile, longitudinal_view, save
from jgen.random import stream
from jgen.training import RunFolder

LABELS = {
    "with": "With post-processor",
    "sorted": "Published loss",
    "without": "Without",
    "prior": "Normal latent",
}
_NUM_REPLICAS = 100


def energy_bins(config: Config, data: Data) -> list[tuple[str, float, float]]:
    """(name, lower, upper edge) of the bins of the incident energy [MeV]."""
    low, high = data.test.energies.min(), data.test.energies.max()
    edges = np.geomspace(low, high * 1.001, config.num_bins + 1)
    pairs = zip(edges[:-1], edges[1:], strict=True)
    return [(f"{a / 1000:.1f}-{b / 1000:.1f}_gev", a, b) for a, b in pairs]


def radii(side: int) -> np.ndarray:
    """Distances [side, side] of the centres of cells from the axis, in mm."""
    line = (np.arange(side) + 0.5) / side * 2 - 1
    return GEOMETRY.layers[0].r_edges[-1] * np.hypot(line[:, None], line)


def observables(showers: Showers) -> dict[str, np.ndarray]:
    """What single showers are compared in; energies in MeV, depths in cells, radii in mm."""
    cells = np.asarray(showers.cells, np.float64)
    total = np.maximum(cells.sum(axis=(1, 2, 3)), 1e-12)
    layers, image = cells.sum(axis=(2, 3)), cells.sum(axis=1)
    z, r = np.arange(layers.shape[1]), radii(image.shape[1])
    depth = layers @ z / total
    return {
        "response": total / showers.energies,
        "num_hits": (cells > 0).sum(axis=(1, 2, 3)).astype(np.float64),
        "depth": depth,
        "length": np.sqrt(np.maximum(layers @ z**2 / total - depth**2, 0)),
        "radius": (image * r).sum(axis=(1, 2)) / total,
        "hottest_cell": cells.max(axis=(1, 2, 3)) / showers.energies,
    }


_LABELS = {
    "response": r"$E_\mathrm{vis} / E_\mathrm{inc}$",
    "num_hits": "Cells above threshold",
    "depth": "Centre in depth [cells]",
    "length": "Width in depth [cells]",
    "radius": "Mean radius [mm]",
    "hottest_cell": r"$E_\mathrm{max} / E_\mathrm{inc}$",
}


def measure(config: Config, data: Data, made: dict[str, np.ndarray]) -> dict[str, float]:
    """All metrics."""
    test, num = data.test, len(data.test.energies)
    sets = {name: Showers(made["energies"], made[name]) for name in GENERATED}
    sets["truth"] = Showers(*(a[:num] for a in data.train))
    metrics = {}
    for name, showers in sets.items():
        metrics |= _responses(config, data, name, showers)
        metrics |= _spectrum(config, name, test.cells, showers.cells)
        ours, theirs = (observables(s)["num_hits"] for s in (showers, test))
        metrics |= _ratio(f"num_hits_mean/{name}", ours, theirs)
        if name != "truth":
            # Latents that the decoder never saw give any energy: quantiles do not mind.
            low, median, high = np.quantile(made[f"{name}/free"], norm.cdf([-1, 0, 1]))
            metrics[f"free_energy_median/{name}"] = median
            metrics[f"free_energy_width/{name}"] = (high - low) / 2
    first = slice(None, None, config.num_repeats)  # one generated shower for each test shower
    paired = {name: Showers(*(a[first] for a in s)) for name, s in sets.items() if name != "truth"}
    compared = compare(
        observables(test),
        observables(sets["truth"]),
        observables(paired["with"]),
        lambda name, values: np.linspace(*np.quantile(values, [0.002, 0.998]), 31),
        seed=config.seed,
    )
    metrics |= flatten(compared.metrics)
    if config.classifier_epochs:
        metrics |= _classifiers(config, test, sets["truth"], paired)
    return {name: float(value) for name, value in metrics.items()}


def _classifiers(config, test, truth, paired):
    """Of all cells, and of the observables."""
    log_energy = lambda s: np.log(s.energies)[:, None]
    cells = lambda s: np.concatenate(
        [log_energy(s), np.log1p(s.cells.reshape(len(s.cells), -1) / config.data.scale)], axis=1
    )
    few = lambda s: np.stack([log_energy(s)[:, 0], *observables(s).values()], axis=1)
    options = ClassifierConfig(
        hidden=(128, 128), learning_rate=1e-3, batch_size=200,
        epochs=config.classifier_epochs, num_seeds=2,
    )  # fmt: skip
    key = stream(jax.random.key(config.seed), "classifier")
    metrics = {}
    for tag, inputs, name in (
        ("cells_sorted", cells, "sorted"),
        ("cells", cells, "with"),
        ("observables", few, "with"),
    ):
        triple = (inputs(test), inputs(truth), inputs(paired[name]))
        metrics |= flatten(classifier_comparison(*triple, key, tag, options).metrics)
    return metrics


def _responses(config, data, name, showers):
    """Mean and width of the response in bins of the incident energy."""
    metrics, suffix = {}, "" if name == "with" else f"/{name}"
    ours, theirs = (np.exp(s.log_response) for s in (showers, data.test))
    for label, low, high in energy_bins(config, data):
        pick = lambda s, r, low=low, high=high: r[(s.energies >= low) & (s.energies < high)]
        pair = pick(showers, ours), pick(data.test, theirs)
        metrics |= _ratio(f"visible_energy_mean/{label}{suffix}", *pair)
        where, ratio = f"visible_energy_width/{label}{suffix}", pair[0].std() / pair[1].std()
        error = ratio * np.hypot(*(0.5 * _excess(v) / len(v) ** 0.5 for v in pair))
        metrics |= {where: ratio, f"{where}_error": error}
    return metrics


def _excess(values):
    """Standard deviation of (v - mean)^2 over the variance: sqrt(2) for normal values."""
    squares = (values - values.mean()) ** 2
    return squares.std() / squares.mean()


def _ratio(name, ours, theirs):
    ratio = ours.mean() / theirs.mean()
    error = ratio * np.hypot(*(v.std() / v.mean() / len(v) ** 0.5 for v in (ours, theirs)))
    return {name: ratio, f"{name}_error": error}


def spectrum_edges() -> np.ndarray:
    """Bins of the energies of cells [MeV], logarithmic."""
    return np.geomspace(GEOMETRY.threshold, 5000, 51)


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence in bits of counts [..., bins], normalised here."""
    p, q = (a / a.sum(axis=-1, keepdims=True) for a in (p, q))
    middle = (p + q) / 2
    part = lambda a: np.sum(
        np.where(a > 0, a * np.log2(np.where(a > 0, a, 1) / np.where(a > 0, middle, 1)), 0), axis=-1
    )
    return (part(p) + part(q)) / 2


def _spectrum(config, name, reference, cells):
    """The error is a bootstrap's of showers, whose cells are not independent."""
    counts = [_counts(c) for c in (reference, cells)]
    value = jensen_shannon(*(c.sum(axis=0) for c in counts))
    rng = np.random.default_rng(config.seed)
    again = lambda c: rng.multinomial(len(c), np.full(len(c), 1 / len(c)), _NUM_REPLICAS) @ c
    replicas = jensen_shannon(*(again(c) for c in counts))
    return {f"spectrum_jsd/{name}": value, f"spectrum_jsd/{name}_error": replicas.std()}


def _counts(cells: np.ndarray) -> np.ndarray:
    """Cells of each shower in the bins of the spectrum [n, bins]."""
    edges, flat = spectrum_edges(), cells.reshape(len(cells), -1)
    index = np.searchsorted(edges, flat, side="right") - 1
    inside = (flat > 0) & (index >= 0) & (index < len(edges) - 1)
    rows = np.repeat(np.arange(len(flat)), inside.sum(axis=1))
    flat_index = rows * (len(edges) - 1) + index[inside]
    return np.bincount(flat_index, minlength=len(flat) * (len(edges) - 1)).reshape(len(flat), -1)


def plot(config: Config, folder: RunFolder, data: Data, made: dict[str, np.ndarray]) -> None:
    """All figures."""
    test, shown = data.test, ("sorted", "with")
    hits = lambda cells: cells[cells > 0]
    own = observables(test)
    found = {name: observables(Showers(made["energies"], made[name])) for name in LABELS}
    three = ("without", *shown)
    panel = Panel(
        spectrum_edges(),
        hits(test.cells),
        {LABELS[name]: hits(made[name]) for name in three},
        "Energy of a cell [MeV]",
        log_x=True,
        log_y=True,
        ratio_range=(0.0, 2.0),
    )
    counts = Panel(
        np.geomspace(0.5 * own["num_hits"].min(), test.cells[0].size, 31),
        own["num_hits"],
        {LABELS[name]: found[name]["num_hits"] for name in three},
        _LABELS["num_hits"],
        log_x=True,
        ratio_range=(0.0, 2.0),
    )
    save(histogram_grid([panel, counts]), folder.figure("spectrum"))

    panels = [
        Panel(
            np.linspace(*np.quantile(own[name], [0.002, 0.998]), 26),
            own[name],
            {LABELS[made]: found[made][name] for made in shown},
            _LABELS[name],
            ratio_range=(0.0, 2.0),
        )
        for name in _LABELS
    ]
    save(histogram_grid(panels), folder.figure("observables"))
    panels = []
    for label, low, high in energy_bins(config, data):
        pick = lambda e, r, low=low, high=high: r[(e >= low) & (e < high)]
        reference = pick(test.energies, own["response"])
        edges = np.linspace(*np.quantile(reference, [0.005, 0.995]), 21)
        name = label.removesuffix("_gev").replace("-", " to ")
        title = rf"$E_\mathrm{{vis}} / E_\mathrm{{inc}}$, {name} GeV"
        ours = {LABELS["with"]: pick(made["energies"], found["with"]["response"])}
        panels.append(Panel(edges, reference, ours, title, ratio_range=(0.0, 2.0)))
    save(histogram_grid(panels, num_columns=2), folder.figure("visible-energy"))
    samples = {LABELS[name]: made[name] for name in three}
    profile = longitudinal_profile(test.cells, samples, ratio_range=(0.0, 2.0))
    save(profile, folder.figure("longitudinal-profile"))
    rings, edges = zip(*(_in_rings(cells) for cells in (test.cells, made["with"])), strict=True)
    image = longitudinal_view(*rings, r_edges=edges[0], generated_label="BIB-AE")
    save(image, folder.figure("average-image"))


def _in_rings(cells):
    """Mean energy [n, z, 1, ring] of the cells around the axis, and edges of the rings [mm]."""
    side = cells.shape[-1]
    edges = np.arange(side // 2 + 1) * GEOMETRY.layers[0].r_edges[-1] * 2 / side
    index = np.digitize(radii(side), edges) - 1
    means = [cells[:, :, index == ring].mean(axis=2) for ring in range(side // 2)]
    return np.stack(means, axis=2)[:, :, None], edges


def table(config: Config, metrics: dict[str, float]) -> str:
    """The bars of the study as text."""
    number = lambda name: f"{metrics[name]:.3f} +- {metrics[f'{name}_error']:.3f}"
    lines = [f"{'response over that of Geant4':<30}{'mean':>18}{'width':>18}{'truth: width':>18}"]
    names = [n.split("/")[1] for n in metrics if n.startswith("visible_energy_mean/")]
    for label in dict.fromkeys(n.removesuffix("_error") for n in names):
        mean, width = f"visible_energy_mean/{label}", f"visible_energy_width/{label}"
        truth = number(f"{width}/truth")
        lines.append(f"{label:<30}{number(mean):>18}{number(width):>18}{truth:>18}")
    titles = f"{'spectrum JSD [bits]':>22}{'cells hit':>18}{'free energy: median':>22}{'width':>8}"
    lines.append(f"\n{'':<30}{titles}")
    for name in (*GENERATED, "truth"):
        jsd = f"{metrics[f'spectrum_jsd/{name}']:.5f} +- "
        jsd += f"{metrics[f'spectrum_jsd/{name}_error']:.5f}"
        free = ""
        if name != "truth":
            median, width = (metrics[f"free_energy_{part}/{name}"] for part in ("median", "width"))
            free = f"{median:>22.3f}{width:>8.3f}"
        lines.append(f"{name:<30}{jsd:>22}{number(f'num_hits_mean/{name}'):>18}{free}")
    if config.classifier_epochs:
        for tag in ("cells_sorted", "cells", "observables"):
            truth = number(f"auc_{tag}_truth")
            lines.append(f"{'AUC ' + tag:<30}{number(f'auc_{tag}'):>18}, truth {truth}")
    return "\n".join(lines)

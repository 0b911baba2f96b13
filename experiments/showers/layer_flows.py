"""L2LFlows and CaloFlow: showers layer by layer from flows with an exact density (2302.11594).

    python -m experiments layer_flows

merges the bundled Geant4 showers from 1 to 4 GeV, or those of --data, to 9 layers of 4 x 9 cells,
and trains a flow of the energies of the layers, nine flows of the cells of a layer given the five
before it, all nine under one vmap, and a student of these (CaloFlow v2, 2210.14245), which makes
all cells of a layer in one pass. Both are compared with Geant4: distances beside those of truth
against truth, rank correlations of layers, a classifier, and milliseconds a shower. The stacked
training is timed against one of layer after layer. The preset full has all 45 layers of 16 x 9.
The preset convolutional has couplings of the image of a layer (2405.20407), which need no student.

Time: seven minutes on one core, convolutional twenty (smoke: one and a half).
Numbers: results/showers.md.
"""

import functools
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.showers import presets
from experiments.study import Run, Study, at_least, main, table, variant
from jgen import draw, metrics, plotting
from jgen.estimate import Estimate, mean_estimate
from jgen.generative_model import GenerativeModel, SampleFunction
from jgen.metrics import ClassifierConfig, rank_correlation_distance, wasserstein
from jgen.plotting import Panel
from jgen.showers import (
    Geometry,
    Showers,
    compute_high_level_inputs,
    count_showers,
    get_geometry,
    layer_energies,
    layer_flows,
    layer_observables,
    merged,
    read_showers,
    sample_path,
)
from jgen.showers.calodream import milliseconds_per_shower
from jgen.showers.evaluation import observable_distances
from jgen.showers.layer_flows import (
    CellsConfig,
    EnergyConfig,
    LayerFlowsConfig,
    LayerPreprocessing,
    Trained,
)
from jgen.typing import Key, Params

LABELS = {"teacher": "MAF", "student": "IAF student", "couplings": "Convolutional couplings"}
"""Of what makes cells."""
WHOLE = {
    "response": r"$E_\mathrm{tot}$ / $E_\mathrm{inc}$",
    "hits": "Cells hit",
    "depth": "Mean depth [merged layers]",
    "radius": "Mean radius [mm]",
}
"""Observables of a shower as a whole."""


@dataclass(frozen=True)
class Config(LayerFlowsConfig):
    """Layer flows, and the showers that they learn from and are judged by."""

    data: tuple[str, ...] = ()
    """CaloChallenge HDF5 files; without any, the bundled Geant4 sample."""
    max_energy: float = 4000.0
    """Showers above this incident energy [MeV] are left out; 0 takes all."""
    num_test: int = 400
    """Showers at the end of the files that are kept for the comparison, and as many to generate."""
    sample_batch: int = 100
    """Showers generated at a time."""
    timing: tuple[int, ...] = (1, 100)
    """Batch sizes to measure milliseconds a shower at."""
    bootstrap: int = 20
    """Resamplings behind the errors of distances."""
    classifier: ClassifierConfig = presets.JUDGE
    """Classifier of high-level features, of each sampler."""


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, num_test=40, max_energy=0, sample_batch=1, timing=1, bootstrap=2)


@functools.lru_cache(maxsize=1)
def load_showers(config: Config) -> tuple[Showers, Showers]:
    """Training showers, and those of the reference, which are merged; they are disjoint."""
    if not config.data and config.geometry != "ds2":
        raise ValueError("the bundled showers have the geometry ds2; give --data FILE for others")
    fine, files = get_geometry(config.geometry), config.data or sample_path()
    showers = read_showers(files, fine, 0, count_showers(files))
    if config.max_energy:
        showers = Showers(*(a[showers.energies <= config.max_energy] for a in showers))
    num = len(showers.energies) - config.num_test
    if num - config.num_validation < config.num_test:
        raise ValueError(
            f"there are {num + config.num_test} showers, too few for {config.num_test} in the "
            f"reference, as many at least to train on, and {config.num_validation} to validate; "
            "give more --data, a larger --max-energy, or a smaller --num-test"
        )
    train, reference = (Showers(*(a[rows] for a in showers)) for rows in (np.s_[:num], np.s_[num:]))
    return train, merged(reference, fine, config.block)


def build(config: Config) -> dict[str, GenerativeModel]:
    """The networks by name; the student's have the form of the teacher's."""
    maps = LayerPreprocessing(config.merged_geometry, (0.0, 1.0), (1.0, 2.0))
    return layer_flows.parts(config.energies, config.cells, maps)._asdict()


def compute(config: Config, run: Run) -> dict:
    """Train, sample, judge and time; SAMPLER is teacher (MAF) or student (IAF), or couplings.

    w1/SAMPLER/layers            1-D Wasserstein distance to Geant4 of the energies of layers, each
                                 over its standard deviation, mean over layers; w1/truth/... of
                                 other Geant4 showers
    w1/SAMPLER/OBSERVABLE        of the observables `WHOLE`, likewise
    correlation/SAMPLER          Frobenius distance of the rank correlations of layers
    distance/SAMPLER/OBSERVABLE  others, as `observable_distances` gives them
    auc/SAMPLER                  of a classifier of high-level features
    conservation/SAMPLER         largest relative difference of the energy of the cells of a layer
                                 and the one that it was given
    lost/SAMPLER                 energy of layers of which no cell was above the threshold, over all
    ms_per_shower/SAMPLER/SIZE, speedup/SIZE   from energies to showers in memory
    student_kl                   log-density of the student's cells by itself less that by the
                                 teacher, nats a shower
    step_ms/stacked, step_ms/in_turn, stacked_speedup   gradients of the flows of all layers under
                                 one vmap, and one layer after another
    train_seconds/PART           by the clock
    """
    showers, reference = load_showers(config)
    trained = layer_flows.train(config, showers, run)
    first = Showers(*(a[: config.num_test] for a in showers))
    truth = merged(first, get_geometry(config.geometry), config.block)
    common = trained.geometry, run.key("classifier")
    results = run.cached("judged/truth", judge, config, *common, "truth", reference, truth)
    for name in config.samplers:
        made = trained.with_sampler(name)
        sample = layer_flows.layers_and_cells(made.parts, made.preprocessing)
        args = sample, made.params, run.key("sample"), truth.energies
        drawn = run.cached(f"samples/{name}", generate, config, *args)
        showers = Showers(truth.energies, drawn["voxels"])
        results |= run.cached(f"judged/{name}", judge, config, *common, name, reference, showers)
        results |= conserved(name, drawn["layers"], showers)
        results |= run.cached(f"timing/{name}", milliseconds, config, name, *args)
    if "student" in config.samplers:
        for size in config.timing:
            times = (results[f"ms_per_shower/{name}/{size}"] for name in config.samplers)
            results[f"speedup/{size}"] = next(times) / next(times)
        results |= run.cached("divergence", divergence, config, trained, run.key("divergence"))
    results |= run.cached("steps", step_times, config, trained)
    for name in ("energies", *config.samplers):
        seconds = sum(row.get("seconds", 0.0) for row in run.history(name))
        results[f"train_seconds/{name}"] = seconds
    return results


def generate(config: Config, sample: SampleFunction, params: Params, key, energies) -> dict:
    """Energies that layers were given, and the showers."""
    args = sample, params, key, len(energies), energies
    layers, voxels = draw(*args, batch_size=config.sample_batch, progress=True)
    return {"layers": layers, "voxels": voxels.reshape(len(voxels), -1)}


def milliseconds(config: Config, name: str, sample, params, key, energies) -> dict[str, float]:
    """A shower, in batches of each size."""
    found = {}
    for size in config.timing:
        repeats = 20 if size < 10 else 5
        times = milliseconds_per_shower(sample, params, key, energies, (size,), repeats=repeats)
        found[f"ms_per_shower/{name}/{size}"] = times[size]
    return found


def conserved(name: str, given: np.ndarray, showers: Showers) -> dict[str, float]:
    """How far cells are from adding up to the energies of their layers."""
    given = np.asarray(given, np.float64)
    found = layer_energies(Showers(showers.energies, np.float64(showers.voxels)), given.shape[1])
    filled = found > 0
    off = np.abs(found / given - 1)[filled]
    lost = np.where(filled, 0, given).sum() / given.sum()
    return {f"conservation/{name}": float(off.max()), f"lost/{name}": float(lost)}


def whole_showers(geometry: Geometry, showers: Showers) -> dict[str, np.ndarray]:
    """The observables `WHOLE`, and the energies of layers."""
    layers, voxels = layer_energies(showers, geometry.num_layers), showers.voxels
    found = layer_observables(layers, showers.energies)
    total = np.maximum(voxels.sum(axis=1, dtype=np.float64), 1e-30)
    return {
        "layers": layers,
        "response": found["E_ratio"],
        "hits": np.sum(voxels > geometry.threshold, axis=1),
        "depth": found["depth"],
        "radius": voxels @ geometry.r / total,
    }


def judge(
    config: Any, geometry: Geometry, key: Key, name: str, truth: Showers, showers: Showers
) -> dict:
    """Distances and the AUC of one sample; of the configuration are `bootstrap`, `classifier`."""
    num = config.bootstrap
    first, second = (whole_showers(geometry, s) for s in (truth, showers))
    found = {}
    for observable, true in first.items():
        width = true.std(axis=0)
        width = np.where(width > 0, width, 1)
        distance = wasserstein(true / width, second[observable] / width, num_bootstrap=num)
        found[f"w1/{name}/{observable}"] = distance.estimate
    layers = first["layers"], second["layers"]
    found[f"correlation/{name}"] = rank_correlation_distance(*layers, num_bootstrap=num)
    distances = observable_distances(geometry, truth, showers, num_bootstrap=num)
    found |= {f"distance/{name}/{observable}": d for observable, d in distances.items()}
    features = [compute_high_level_inputs(geometry, s) for s in (truth, showers)]
    told = metrics.classifier_test(*features, key, config.classifier)
    return found | {f"auc/{name}": told.auc_estimate}


def divergence(config: Config, trained: Trained, key: Key) -> dict[str, Estimate]:
    """Of the student's cells from the teacher's, given energies of layers of the energy flow."""
    teacher, student = (trained.with_sampler(name).parts for name in config.samplers)

    def one(params, key, energy):
        keys = jax.random.split(key, 3)
        layers = teacher.energies.sample(params["energies"], keys[0], energy)
        cond = layer_flows.cells_condition(energy, layers)
        cells, log_q = student.cells.sample_and_log_prob(params["student"], keys[1], cond)
        return log_q - teacher.cells.log_prob(params["teacher"], keys[2], cells, cond)

    energies = load_showers(config)[1].energies
    args = one, dict(trained.networks), key, len(energies), energies
    return {"student_kl": mean_estimate(draw(*args))}


def step_times(config: Config, trained: Trained, repeats: int = 5) -> dict[str, float]:
    """Milliseconds of a gradient of all layers at once and of one after another, best of some."""
    maps, made, key = trained.preprocessing, trained.parts, jax.random.key(0)
    params = trained.networks[trained.sampler]
    some = Showers(*(a[: config.cell_training.batch_size] for a in load_showers(config)[0]))
    some = merged(some, get_geometry(config.geometry), config.block)
    some = jax.tree.map(jnp.asarray, layer_flows.as_batch(some, maps.geometry))
    one = layer_flows.layer_model(config.cells, maps)
    batch = layer_flows.layer_batch(maps, key, some, config.cells.before)
    pick = lambda tree, n: jax.tree.map(lambda a: a[n], tree)
    single = jax.jit(jax.grad(one.loss))
    stacked = jax.jit(jax.grad(layer_flows.trained_cells(made, maps).loss))
    layers = range(maps.geometry.num_layers)
    pieces = [(pick(params, n), key, pick(batch, n)) for n in layers]
    runs = {
        "stacked": lambda: stacked(params, key, some),
        "in_turn": lambda: [single(*piece) for piece in pieces],
    }
    found = {}
    for name, function in runs.items():
        jax.block_until_ready(function())
        times = []
        for _ in range(repeats):
            begin = time.perf_counter()
            jax.block_until_ready(function())
            times.append(time.perf_counter() - begin)
        found[f"step_ms/{name}"] = 1e3 * min(times)
    return found | {"stacked_speedup": found["step_ms/in_turn"] / found["step_ms/stacked"]}


def report(config: Config, run: Run, results: dict) -> str:
    """Draw energies of layers, observables of whole showers and cells; tabulate all."""
    geometry, (showers, reference) = config.merged_geometry, load_showers(config)
    energies = showers.energies[: config.num_test]
    made = {
        LABELS[name]: Showers(energies, run.stage(f"samples/{name}")["voxels"])
        for name in config.samplers
    }
    true = whole_showers(geometry, reference)
    others = {label: whole_showers(geometry, s) for label, s in made.items()}
    panels = []
    for i in np.linspace(0, geometry.num_layers - 1, min(9, geometry.num_layers)).astype(int):
        high = np.quantile(true["layers"][:, i], 0.998)
        edges = np.geomspace(max(high * 1e-3, 0.1), max(high * 1.5, 1.0), 26)
        samples = {label: values["layers"][:, i] for label, values in others.items()}
        panels.append(_panel(edges, true["layers"][:, i], samples, f"$E_{{{i}}}$ [MeV]", True))
    run.save("layer_energies", plotting.histogram_grid(panels))
    run.save("observables", plotting.histogram_grid(observable_panels(geometry, reference, made)))
    grid = lambda showers: showers.voxels.reshape(-1, *geometry.shape)
    profiles = {label: grid(showers) for label, showers in made.items()}
    run.save("longitudinal_profile", plotting.longitudinal_profile(grid(reference), profiles))
    for name in ("energies", *config.samplers):
        run.save(f"training_{name}", plotting.training_curves({name: run.history(name)}))
    return tables(config, results)


def observable_panels(
    geometry: Geometry, reference: Showers, made: dict[str, Showers]
) -> list[Panel]:
    """Of the observables `WHOLE` and the energies of cells, for samples by label."""
    true = whole_showers(geometry, reference)
    others = {label: whole_showers(geometry, showers) for label, showers in made.items()}
    panels = []
    for name, label in WHOLE.items():
        low, high = np.quantile(true[name], [0.002, 0.998])
        edges = np.linspace(low, high, 31)
        if name == "hits":  # bins of as many whole numbers each
            step = max(1, round((high - low) / 30))
            edges = np.arange(np.floor(low) - 0.5, high + step, step)
        samples = {sampler: values[name] for sampler, values in others.items()}
        panels.append(_panel(edges, true[name], samples, label, False))
    hits = lambda showers: showers.voxels[showers.voxels > geometry.threshold]
    edges = np.geomspace(geometry.threshold, hits(reference).max(), 41)
    cells = {label: hits(showers) for label, showers in made.items()}
    return [*panels, _panel(edges, hits(reference), cells, "Energy of a cell [MeV]", True)]


def _panel(edges, true, samples, label: str, log_x: bool) -> Panel:
    return Panel(edges, true, samples, label, log_x=log_x, reference_label="Geant4")


def quality_table(results: dict, labels: dict[str, str]) -> str:
    """What `judge` has found, of samples by name, in rows with labels."""
    columns = {"layers": "w1", **dict.fromkeys(WHOLE, "w1")}
    rows = {
        label: [*(results[f"{kind}/{name}/{observable}"] for observable, kind in columns.items())]
        + [results[f"distance/{name}/E_voxel"], results[f"correlation/{name}"]]
        + [results[f"auc/{name}"]]
        for name, label in labels.items()
    }
    return table([*columns, "log10 E_cell", "rank corr.", "AUC"], rows, title="W1 / sd")


def tables(config: Config, results: dict) -> str:
    """Distances beside the truth's, and costs."""
    names = ("truth", *config.samplers)
    text = [quality_table(results, dict(zip(names, names, strict=True)))]
    costs = {
        name: [results[f"conservation/{name}"], results[f"lost/{name}"]]
        + [results[f"ms_per_shower/{name}/{size}"] for size in config.timing]
        + [results[f"train_seconds/{name}"]]
        for name in config.samplers
    }
    headings = ["off", "lost", *(f"ms, {size}" for size in config.timing), "training [s]"]
    text.append(table(headings, costs, title="energies and costs"))
    names = [n for n in results if n.startswith(("speedup", "student_kl", "step", "stacked"))]
    text.append(table(["value"], {name: [results[name]] for name in names}))
    return "\n\n".join(text)


DEFAULT = Config()
_SHORT = {"steps": 20, "batch_size": 32, "validate_every": 10, "log_every": 5}
SMOKE = variant(
    DEFAULT,
    block=(15, 4, 3),
    num_test=100,
    num_validation=30,
    copies=1,
    energies=EnergyConfig(1, 4, (8,)),
    cells=CellsConfig("autoregressive", 2, (8, 4), 1, 4, (12,)),
    energy_training=_SHORT,
    cell_training=_SHORT,
    student_training=_SHORT,
    sample_batch=50,
    timing=(1, 10),
    bootstrap=5,
    classifier=ClassifierConfig(hidden=(16,), batch_size=20, epochs=2, num_seeds=1),
)
FULL = variant(DEFAULT, block=(1, 1, 1), cells=CellsConfig(hidden=(128,)))
CONVOLUTIONAL = variant(
    DEFAULT,
    cells=CellsConfig("convolutional", embedding=(32, 16), depth=6, hidden=(24, 24)),
    cell_training={"batch_size": 64},
)
PRESETS = {"default": DEFAULT, "smoke": SMOKE, "convolutional": CONVOLUTIONAL, "full": FULL}
STUDY = Study(PRESETS, compute, report, check, build, load_showers)

if __name__ == "__main__":
    main(STUDY)

"""Two energy networks of CaloDREAM: one layer energy after another, or all of them at once.

    python -m experiments.energy_networks

trains the autoregressive network of the paper (2405.09629, Sec. 3.1) and a parallel transformer
(as in the authors' later code, 2601.05289) on the layer energy ratios of the bundled Geant4
showers, and puts their quality and their speed into one table: log-likelihood of other showers,
classifier test on the ratios, separation powers of the layer energies, milliseconds a shower.
Takes 10 minutes on one core, trainings 6 of them.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from experiments import _calodream as study
from experiments._calodream_presets import DEFAULT as DEFAULT_STUDY
from experiments._calodream_presets import SMOKE as SMOKE_STUDY
from experiments._command_line import run
from jgen.estimate import flatten
from jgen.files import atomic_path
from jgen.generative_model import Batch, GenerativeModel, draw
from jgen.metrics import ClassifierConfig, classifier_comparison, compare
from jgen.nets import num_parameters
from jgen.plotting import Panel, histogram_grid, save
from jgen.random import stream
from jgen.showers import Geometry, ShowerPreprocessing, Showers
from jgen.showers.calodream import training_data
from jgen.showers.calodream.generation import milliseconds_per_shower
from jgen.showers.observables import binning
from jgen.training import MetricsLog, RunFolder, fit, member
from jgen.typing import Params

FORMS = ("autoregressive", "parallel")


@dataclass(frozen=True)
class Config:
    """One comparison of energy networks."""

    calodream: study.Config = dataclasses.replace(DEFAULT_STUDY, num_test=1600)
    """Data, both networks, their common training (energy_training) and solver."""
    num_likelihood: int = 200
    """Reference showers whose log-likelihood is computed."""
    classifier: ClassifierConfig = ClassifierConfig(
        batch_size=128, epochs=40, num_seeds=3, patience=5
    )
    """Classifier test on the ratios."""
    batches: tuple[int, ...] = (1, 100)
    """Showers at once, for the timing."""


def main(config: Config, out: Path, *, plot_only: bool = False) -> dict[str, float]:
    """Train, judge and time both networks; returns the metrics.

    For each form F: log_likelihood/F [nats a shower, in standardised ratios], auc_u/F,
    separation/E_layer/F and separation/E_tot/F with their _error, _truth and _truth_error,
    ms_per_shower/F/BATCH, calls/F (of the velocity network a shower), train_seconds/F,
    parameters/F.
    """
    study.check_options(config.calodream)
    if not config.batches or min(config.batches) < 1:
        raise ValueError(f"batches are numbers of showers of at least 1, got {config.batches}")
    folder = RunFolder(out, config)
    showers, reference = study.load_showers(config.calodream)
    preprocessing = study.load_or_fit_preprocessing(config.calodream, showers, folder)
    samples = {form: folder.path / f"{form}.npy" for form in FORMS}
    metrics = folder.read_json("metrics.json")
    if metrics is None:
        if plot_only:
            raise ValueError(f"{out} has no metrics to plot; run without --plot-only first")
        sets = [
            _Sample(s, training_data(study.chunks(s), preprocessing)[0])
            for s in (showers, reference)
        ]
        metrics = {}
        for form in FORMS:
            metrics |= _one_form(config, form, *sets, preprocessing, folder)
        folder.write_metrics(metrics)
    made = {form: np.load(path) for form, path in samples.items()}
    save(_figure(preprocessing, reference, made), folder.figure("layer_energies"))
    print(_table(metrics))
    return metrics


class _Sample(NamedTuple):
    """Showers, and what the energy networks see of them."""

    showers: Showers
    batch: Batch


def count_parameters(config: Config) -> dict[str, int]:
    """Trainable parameters of both networks."""
    return {form: num_parameters(_model(config, form).init) for form in FORMS}


def _model(config: Config, form: str) -> GenerativeModel:
    return study.make_energy_model(dataclasses.replace(config.calodream, energies=form))


def _one_form(
    config: Config,
    form: str,
    trained: _Sample,
    reference: _Sample,
    preprocessing: ShowerPreprocessing,
    folder: RunFolder,
) -> dict[str, float]:
    model, key = _model(config, form), stream(jax.random.key(config.calodream.seed), form)
    training = config.calodream.energy_training
    fitted = fit(model, trained.batch, key, training, folder=folder.path / form, name=form)
    params = member(fitted.params, 0)

    # Incident energies of the training sample, not the reference's own: see experiments.calodream.
    num = len(reference.batch.x)
    energies, cond = (np.resize(a, num) for a in (trained.showers.energies, trained.batch.cond))
    u = draw(model, params, stream(key, "sample"), num, cond, progress=True)
    layers = preprocessing.layer_energies(u, energies)
    with atomic_path(folder.path / f"{form}.npy") as partial:
        np.save(partial, layers)
    rows = MetricsLog(folder.path / form / "metrics.jsonl").read()
    metrics = {
        f"parameters/{form}": num_parameters(model.init),
        f"train_seconds/{form}": sum(row.get("seconds", 0.0) for row in rows),
        f"calls/{form}": config.calodream.energy_solver.make().n_eval
        * (preprocessing.geometry.num_layers if form == "autoregressive" else 1),
    }
    found = _likelihood(config, model, params, reference.batch)
    found |= _quality(config, preprocessing, reference, trained, (energies, cond, u, layers))
    metrics |= {f"{name}/{form}": value for name, value in found.items()}
    times = milliseconds_per_shower(model, params, stream(key, "time"), cond, config.batches)
    return metrics | {f"ms_per_shower/{form}/{size}": ms for size, ms in times.items()}


def _likelihood(config: Config, model: GenerativeModel, params: Params, truth: Batch):
    """Mean log-likelihood of reference showers and its standard error."""
    num = min(config.num_likelihood, len(truth.x))

    @jax.jit
    def log_prob(params, x, cond):
        one = lambda xc: model.log_prob(params, jax.random.key(0), *xc)
        return jax.lax.map(one, (x, cond), batch_size=20)

    values = np.asarray(log_prob(params, truth.x[:num], truth.cond[:num]), np.float64)
    return {
        "log_likelihood": values.mean(),
        "log_likelihood_error": values.std(ddof=1) / num**0.5,
    }


def _quality(config, preprocessing, reference, trained, made) -> dict[str, float]:
    """Classifier test on the ratios and separation powers of energies, truth beside both."""
    geometry = preprocessing.geometry
    energies, cond, u, layers = made
    inputs = [np.column_stack([s.batch.cond, s.batch.x]) for s in (reference, trained)]
    inputs.append(np.column_stack([cond, u]))
    key = stream(jax.random.key(config.calodream.seed), "classifier")
    found = classifier_comparison(*inputs, key, "u", config.classifier, progress=True)

    def observed(layers, incident):
        return {"E_layer": layers, "E_tot": layers.sum(axis=1) / incident}

    parts = [
        observed(_layer_energies(geometry, s.showers), s.showers.energies)
        for s in (reference, trained)
    ]
    parts.append(observed(layers, energies))
    table = compare(*parts, lambda name, values: binning(geometry, name, values))
    separations = {n: v for n, v in table.metrics.items() if "separation" in n}
    return flatten(found.metrics | separations)


def _layer_energies(geometry: Geometry, showers: Showers) -> np.ndarray:
    """Energies [showers, layers] in MeV."""
    return showers.voxels.reshape(len(showers.voxels), geometry.num_layers, -1).sum(axis=2)


def _figure(preprocessing: ShowerPreprocessing, reference: Showers, made: dict[str, np.ndarray]):
    """Energies of six layers."""
    geometry = preprocessing.geometry
    true = _layer_energies(geometry, reference)
    panels = []
    for i in np.linspace(1, geometry.num_layers - 4, 6).round().astype(int):
        edges = binning(geometry, "E_layer", true[:, i])
        samples = {form: layers[:, i] for form, layers in made.items()}
        panels.append(Panel(edges[::2], true[:, i], samples, f"$E_{{{i}}}$ [MeV]", log_x=True))
    return histogram_grid(panels)


def _table(metrics: dict[str, float]) -> str:
    """Quality and speed, one column a form; truth against truth where there is such a number."""
    suffix = f"/{FORMS[0]}"
    names = [name for name in metrics if suffix in name and "calibrated" not in name]
    names = [n for n in names if not n.partition(suffix)[0].endswith(("_error", "_truth"))]
    lines = [f"{'':<28}" + "".join(f"{column:>20}" for column in (*FORMS, "truth"))]
    for name in names:
        stem, _, tail = name.partition(suffix)
        cells = [_cell(metrics, stem, f"/{form}{tail}") for form in FORMS]
        cells.append(_cell(metrics, f"{stem}_truth", name.removeprefix(stem)))
        lines.append(f"{stem + tail:<28}" + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(lines)


def _cell(metrics: dict[str, float], stem: str, tail: str) -> str:
    if stem + tail not in metrics:
        return ""
    error = metrics.get(f"{stem}_error{tail}")
    return f"{metrics[stem + tail]:.4g}" + ("" if error is None else f" +- {error:.1g}")


DEFAULT = Config()
SMOKE = dataclasses.replace(
    DEFAULT,
    calodream=SMOKE_STUDY,
    num_likelihood=20,
    classifier=SMOKE_STUDY.evaluation.classifier,
    batches=(1, 20),
)
PRESETS = {"default": DEFAULT, "smoke": SMOKE}


if __name__ == "__main__":
    run("energy_networks", __doc__, PRESETS, main, count_parameters)

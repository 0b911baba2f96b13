"""Two energy networks of CaloDREAM: one layer energy after another, or all of them at once.

    python -m experiments energy_networks

trains the autoregressive network of the paper (2405.09629, Sec. 3.1) and a parallel transformer
(as in the authors' later code, 2601.05289) on the layer energy ratios of the bundled Geant4
showers, and puts their quality and their speed into one table: log-likelihood of other showers,
classifier test on the ratios, separation powers of the layer energies, milliseconds a shower.

Time: 10 minutes on one core, trainings 6 of them. Numbers: results/showers.md.
"""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from experiments.showers import presets
from experiments.study import Run, Study, at_least, main, metric_table, positive
from jgen import Batch, draw, log_densities, member, plotting
from jgen.estimate import mean_estimate
from jgen.generative_model import GenerativeModel
from jgen.metrics import ClassifierConfig, classifier_comparison, compare
from jgen.nets import num_parameters
from jgen.random import stream
from jgen.showers import (
    ShowerPreprocessing,
    Showers,
    binning,
    calodream,
    get_geometry,
    layer_energies,
)

FORMS = ("autoregressive", "parallel")


@dataclass(frozen=True)
class Config:
    """One comparison of energy networks."""

    calodream: presets.Config = dataclasses.replace(presets.DEFAULT, num_test=1600)
    """Data, both networks, their common training (energy_training) and solver."""
    num_likelihood: int = 200
    """Reference showers whose log-likelihood is computed."""
    classifier: ClassifierConfig = ClassifierConfig(
        batch_size=128, epochs=40, num_seeds=3, patience=5
    )
    """Classifier test on the ratios."""
    batches: tuple[int, ...] = (1, 100)
    """Showers at once, for the timing."""
    seed: int = 0
    """Seed of everything random."""


class Sample(NamedTuple):
    """Showers by their energies.

    Attributes:
      incident: energies [n] in MeV.
      layers: energies [n, layers] in MeV.
      cond: scaled incident energies [n].
      u: standardised ratios [n, layers].
    """

    incident: np.ndarray
    layers: np.ndarray
    cond: np.ndarray
    u: np.ndarray

    @property
    def inputs(self) -> np.ndarray:
        """What the classifier sees."""
        return np.column_stack([self.cond, self.u])

    @property
    def observables(self) -> dict[str, np.ndarray]:
        """What the separation powers are of."""
        return {"E_layer": self.layers, "E_tot": self.layers.sum(axis=1) / self.incident}


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, num_likelihood=2)
    positive(config, "batches")


def inputs(config: Config) -> tuple[Showers, Showers]:
    """Training and reference showers."""
    return presets.load_showers(config.calodream)


def build(config: Config) -> dict[str, GenerativeModel]:
    """The energy models by form."""
    return {
        form: calodream.parts(dataclasses.replace(config.calodream, energies=form))["energy"].model
        for form in FORMS
    }


def compute(config: Config, run: Run) -> dict:
    """Train, judge and time both networks.

    For each form F: log_likelihood/F [nats a shower, in standardised ratios], auc_u/F,
    separation/E_layer/F and separation/E_tot/F, ms_per_shower/BATCH/F, calls/F (of the velocity
    network a shower), train_seconds/F, parameters/F.
    """
    showers = inputs(config)
    preprocessing = calodream.fit_preprocessing(config.calodream, showers[0], run)
    train, test = (_sample(preprocessing, s) for s in showers)
    metrics = {}
    for form, model in build(config).items():
        metrics |= _one_form(config, run, form, model, preprocessing, train, test)
    return metrics


def _sample(preprocessing: ShowerPreprocessing, showers: Showers) -> Sample:
    batch = calodream.training_data(showers, preprocessing).energy
    layers = layer_energies(showers, preprocessing.geometry.num_layers)
    return Sample(showers.energies, layers, batch.cond, batch.x)


def _one_form(
    config: Config,
    run: Run,
    form: str,
    model: GenerativeModel,
    preprocessing: ShowerPreprocessing,
    train: Sample,
    test: Sample,
) -> dict:
    """Train one network, draw from it, judge and time it."""
    geometry, key = preprocessing.geometry, run.key(form)
    fitted = run.fit(form, model, Batch(train.u, train.cond), config.calodream.energy_training)
    params = member(fitted.params, 0)

    def samples():
        # Incident energies of the training sample, not the reference's own: see calodream.py.
        incident, cond = (np.resize(a, len(test.u)) for a in (train.incident, train.cond))
        u = draw(model, params, stream(key, "sample"), len(cond), cond, progress=True)
        layers = preprocessing.layer_energies(u, incident)
        return Sample(incident, layers, cond, u)._asdict()

    def quality():
        few = slice(config.num_likelihood)
        log_prob = log_densities(model, params, key, test.u[few], test.cond[few], batch_size=20)
        inputs, judged = zip(*((s.inputs, s.observables) for s in (test, train, made)), strict=True)
        told = classifier_comparison(
            *inputs, run.key("classifier"), "u", config.classifier, progress=True
        )
        table = compare(*judged, lambda name, values: binning(geometry, name, values)).metrics
        distances = {name: value for name, value in table.items() if "separation" in name}
        return {"log_likelihood": mean_estimate(log_prob), **told.metrics, **distances}

    def times():
        by_size = calodream.milliseconds_per_shower(
            model, params, stream(key, "time"), made.cond, config.batches
        )
        return {f"ms_per_shower/{size}": ms for size, ms in by_size.items()}

    made = Sample(**run.cached(f"samples/{form}", samples))
    results = run.cached(f"quality/{form}", quality) | run.cached(f"times/{form}", times)
    steps = geometry.num_layers if form == "autoregressive" else 1
    return {
        f"parameters/{form}": num_parameters(model.init),
        f"train_seconds/{form}": fitted.seconds,
        f"calls/{form}": config.calodream.energy_solver.make().n_eval * steps,
        **{f"{name}/{form}": value for name, value in results.items()},
    }


def report(config: Config, run: Run, metrics: dict) -> str:
    """Draw the energies of six layers and tabulate quality and speed, a column a form."""
    geometry = get_geometry(config.calodream.geometry)
    test = layer_energies(inputs(config)[1], geometry.num_layers)
    made, panels = {form: run.stage(f"samples/{form}")["layers"] for form in FORMS}, []
    for i in np.linspace(1, geometry.num_layers - 4, 6).round().astype(int):
        edges, true = binning(geometry, "E_layer", test[:, i])[::2], test[:, i]
        of, label = {form: layers[:, i] for form, layers in made.items()}, f"$E_{{{i}}}$ [MeV]"
        options = {"log_x": True, "reference_label": "Geant4"}
        panels.append(plotting.Panel(edges, true, of, label, **options))
    run.save("layer_energies", plotting.histogram_grid(panels))
    names = dict.fromkeys(n.rpartition("/")[0] for n in metrics if "calibrated" not in n)
    return metric_table(metrics, FORMS, {name: name for name in names}, digits=4)


DEFAULT = Config()
SMOKE = dataclasses.replace(
    DEFAULT,
    calodream=presets.SMOKE,
    num_likelihood=20,
    classifier=presets.SMOKE.evaluation.classifier,
    batches=(1, 20),
)
STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, build, inputs)

if __name__ == "__main__":
    main(STUDY)

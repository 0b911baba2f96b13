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
from experiments.study import Run, Study, at_least, main, table
from jgen import Batch, draw, log_densities, plotting
from jgen.estimate import mean_estimate
from jgen.generative_model import GenerativeModel
from jgen.metrics import ClassifierConfig, classifier_comparison, compare
from jgen.nets import num_parameters
from jgen.random import stream
from jgen.showers import Geometry, ShowerPreprocessing, Showers, binning, calodream, get_geometry
from jgen.typing import Params

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
    if not config.batches or min(config.batches) < 1:
        raise ValueError(f"batches are numbers of showers of at least 1, got {config.batches}")


def build(config: Config) -> dict[str, GenerativeModel]:
    """The energy models by form."""
    return {
        form: calodream.parts(dataclasses.replace(config.calodream, energies=form))["energy"].model
        for form in FORMS
    }


def compute(config: Config, run: Run) -> dict:
    """Train, judge and time both networks.

    For each form F: log_likelihood/F [nats a shower, in standardised ratios], auc_u/F,
    separation/E_layer/F and separation/E_tot/F, ms_per_shower/F/BATCH, calls/F (of the velocity
    network a shower), train_seconds/F, parameters/F.
    """
    showers, reference = presets.load_showers(config.calodream)
    preprocessing = calodream.fit_preprocessing(config.calodream, showers, run)
    train, test = (_sample(preprocessing, s) for s in (showers, reference))
    solver, metrics = config.calodream.energy_solver.make(), {}
    for form, model in build(config).items():
        calls = solver.n_eval * (preprocessing.geometry.num_layers if form == FORMS[0] else 1)
        training = config.calodream.energy_training
        fitted = run.fit(form, model, Batch(train.u, train.cond), training)
        one = (model, fitted.one)
        metrics[f"parameters/{form}"] = num_parameters(model.init)
        metrics[f"train_seconds/{form}"] = fitted.seconds
        metrics[f"calls/{form}"] = calls
        draws = lambda: _draw(run, form, *one, preprocessing, train, len(test.u))  # noqa: B023
        made = Sample(**run.cached(f"samples/{form}", draws))
        judge = lambda: _quality(config, run, *one, preprocessing.geometry, test, train, made)  # noqa: B023
        quality = run.cached(f"quality/{form}", judge)
        metrics |= {f"{name}/{form}": value for name, value in quality.items()}
        time = lambda: _times(config, run, form, *one, made.cond)  # noqa: B023
        times = run.cached(f"times/{form}", time)
        metrics |= {f"ms_per_shower/{form}/{size}": ms for size, ms in times.items()}
    return metrics


def _sample(preprocessing: ShowerPreprocessing, showers: Showers) -> Sample:
    batch = calodream.training_data(showers, preprocessing).energy
    layers = _layer_energies(preprocessing.geometry, showers)
    return Sample(showers.energies, layers, batch.cond, batch.x)


def _layer_energies(geometry: Geometry, showers: Showers) -> np.ndarray:
    """Energies [showers, layers] in MeV."""
    return showers.voxels.reshape(len(showers.voxels), geometry.num_layers, -1).sum(axis=2)


def _draw(
    run: Run,
    form: str,
    model: GenerativeModel,
    params: Params,
    preprocessing: ShowerPreprocessing,
    train: Sample,
    num: int,
) -> dict[str, np.ndarray]:
    """A `Sample` at incident energies of the training sample, not at the reference's own.

    See `experiments.showers.calodream`.
    """
    incident, cond = (np.resize(a, num) for a in (train.incident, train.cond))
    key = stream(run.key(form), "sample")
    u = draw(model, params, key, num, cond, progress=True)
    return Sample(incident, preprocessing.layer_energies(u, incident), cond, u)._asdict()


def _quality(
    config: Config,
    run: Run,
    model: GenerativeModel,
    params: Params,
    geometry: Geometry,
    test: Sample,
    train: Sample,
    made: Sample,
) -> dict:
    """Log-likelihood, classifier test on the ratios and separation powers of energies."""
    num = min(config.num_likelihood, len(test.u))
    log_prob = log_densities(
        model, params, run.key("likelihood"), test.u[:num], test.cond[:num], batch_size=20
    )
    key, samples = run.key("classifier"), (test, train, made)
    inputs = (s.inputs for s in samples)
    found = classifier_comparison(*inputs, key, "u", config.classifier, progress=True)
    energies = (s.observables for s in samples)
    separations = compare(*energies, lambda name, values: binning(geometry, name, values)).metrics
    return {
        "log_likelihood": mean_estimate(log_prob),
        **found.metrics,
        **{name: v for name, v in separations.items() if "separation" in name},
    }


def _times(
    config: Config, run: Run, form: str, model: GenerativeModel, params: Params, cond: np.ndarray
) -> dict[str, float]:
    """Milliseconds a shower by batch size."""
    key = stream(run.key(form), "time")
    times = calodream.milliseconds_per_shower(model, params, key, cond, config.batches)
    return {str(size): ms for size, ms in times.items()}


def report(config: Config, run: Run, metrics: dict) -> str:
    """Draw the energies of six layers and tabulate quality and speed, a column a form."""
    geometry = get_geometry(config.calodream.geometry)
    test = _layer_energies(geometry, presets.load_showers(config.calodream)[1])
    made, panels = {form: run.stage(f"samples/{form}")["layers"] for form in FORMS}, []
    for i in np.linspace(1, geometry.num_layers - 4, 6).round().astype(int):
        true = test[:, i]
        panels.append(
            plotting.Panel(
                binning(geometry, "E_layer", true)[::2],
                true,
                {form: layers[:, i] for form, layers in made.items()},
                f"$E_{{{i}}}$ [MeV]",
                log_x=True,
                reference_label="Geant4",
            )
        )
    run.save("layer_energies", plotting.histogram_grid(panels))
    names = [n for n in metrics if f"/{FORMS[0]}" in n and "calibrated" not in n]
    rows = {}
    for name in names:
        both = [metrics[name.replace(FORMS[0], form)] for form in FORMS]
        judged = hasattr(both[0], "truth")
        rows[name.replace(f"/{FORMS[0]}", "")] = [
            *(m.value if judged else m for m in both),
            both[0].truth if judged else None,
        ]
    return table([*FORMS, "truth"], rows, digits=4)


DEFAULT = Config()
SMOKE = dataclasses.replace(
    DEFAULT,
    calodream=presets.SMOKE,
    num_likelihood=20,
    classifier=presets.SMOKE.evaluation.classifier,
    batches=(1, 20),
)
PRESETS = {"default": DEFAULT, "smoke": SMOKE}
STUDY = Study(
    PRESETS,
    compute,
    report,
    check,
    build,
    inputs=lambda config: presets.load_showers(config.calodream),
)

if __name__ == "__main__":
    main(STUDY)

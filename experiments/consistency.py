"""Consistency functions of showers: one call of a network against many (2303.01469, 2101.02388).

    python -m experiments.consistency --model runs/calodream

distils both networks of a CaloDREAM (2405.09629) into consistency functions, which make a shower
with one call of each network, and compares them with their teacher: milliseconds a shower, and the
1-D Wasserstein distances of all observables to Geant4 beside those of truth against truth, for
Euler's and the midpoint method with 1 to 25 calls and for the consistency functions. Without
--model a small teacher is trained first, in the run folder. An autoregressive energy network is not
distilled but solved as its configuration says, in all rows.

The functions learn the ends of trajectories that the teacher solves once, with 24 calls each.
Distillation over several intervals of time, each with a target from the function itself, did worse
the more intervals there were.

Measured of the default preset, 1000 showers: all eleven distances are within 1.32 times those of
the teacher with 25 steps of Euler's method, and one call takes 15 times less time, 2.7 against 40
ms a shower on one core. By high-level features a classifier tells both from Geant4: AUC 0.9998(7)
and the teacher's 0.995(4), that of other Geant4 showers being 0.52(4).

Both are cut at `cut` = 1e-6, chosen on training showers, which matters more than the distillation.
It takes the teacher's distances of the sparsity, the depth and the voxels' energies from 6.9, 8.8
and 392 times the truth's down to 3.2, 7.2 and 317, but those of <r> and the widths up, from 3.0 to
5.3 and by 10 to 13 %. At the published 1e-7 such functions had 1.5 to 2.5 times the teacher's
distances of sparsity and depth; over the teacher at 1e-7 those of the default preset have 2.3 times
its <r>. Two calls of the midpoint method, at 1.5 times the time of one, are better in <r> and in
the widths, and worse in sparsity and depth.

Fifteen minutes of processor time on one core with a given teacher, which takes about ten more. The
preset smoke takes 75 s of processor time, mostly to compile.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from experiments import _calodream as study
from experiments import _calodream_presets as presets
from experiments._command_line import run
from experiments._consistency import (
    Distillation,
    auc,
    distances,
    distil,
    observables,
    parts,
    student,
    teacher,
)
from experiments._consistency_report import LABELS, figures, print_table
from jgen.files import atomic_path
from jgen.generative_model import draw
from jgen.metrics import ClassifierConfig
from jgen.plotting import save
from jgen.random import stream
from jgen.showers import Showers
from jgen.showers.calodream import training_data
from jgen.showers.calodream.generation import milliseconds_per_shower
from jgen.training import OptimizerConfig, RunFolder, TrainConfig, load_config

_STUDENT = "consistency/1"


@dataclass(frozen=True)
class Config:
    """One distillation and its comparison with the teacher."""

    model: str = ""
    """Run folder of a finished experiments.calodream; without, one is trained in OUT/calodream."""
    calodream: study.Config = dataclasses.replace(presets.DEFAULT, energies="parallel")
    """What is trained if there is no model."""
    trajectories: str = "midpoint-24"
    """Solver of the teacher's trajectories that the consistency functions learn from."""
    energy: Distillation = Distillation(5000)
    """Distillation of the energy network."""
    shape: Distillation = Distillation(3000)
    """Distillation of the shape network."""
    cut: float = 1e-6
    """Decoded voxels up to this fraction of their layer are empty, for all samplers. 1e-6 is the
    scale below which the logit of the preprocessing tells nothing apart; the published 1e-7 leaves
    voxels that should be empty in layers with little energy, of which they then have a share."""
    solvers: tuple[str, ...] = (
        "euler-1", "euler-4", "euler-25", "midpoint-2", "midpoint-8",
    )  # fmt: skip
    """Solvers of the teacher, METHOD-CALLS; bespoke ones must have been stored with the model."""
    teacher: str = "euler-25"
    """The one of them that the consistency functions are compared with."""
    num_showers: int = 1000
    """Showers to compare."""
    batch: int = 100
    """Showers at once, for the timing."""
    bootstrap: int = 20
    """Resamplings behind the errors of the distances."""
    classifier: ClassifierConfig = ClassifierConfig(
        batch_size=128, epochs=30, num_seeds=2, patience=4
    )
    """Classifier of high-level features, of the teacher and of the consistency functions."""
    seed: int = 0
    """Seed of everything random."""

    @property
    def rows(self) -> tuple[str, ...]:
        """All samplers, METHOD/CALLS, the consistency functions last."""
        solvers = [name.replace("-", "/") for name in self.solvers]
        return (*solvers, _STUDENT)

    @property
    def judged(self) -> tuple[str, str]:
        """The teacher and the consistency functions."""
        return self.teacher.replace("-", "/"), _STUDENT


def main(config: Config, out: Path, *, plot_only: bool = False) -> dict[str, float]:
    """Distil, measure and plot; returns the metrics, which metrics.json holds too.

    w1/METHOD/CALLS/OBSERVABLE   1-D Wasserstein distance to Geant4 and, with _error, its error:
                                 means over layers [MeV, mm, layers, decades of a voxel's energy];
                                 w1/truth/OBSERVABLE is that of other Geant4 showers
    ms_per_shower/METHOD/CALLS   from energies to showers in memory
    speedup                      of the consistency functions to their teacher
    largest_w1_ratio             largest of the ratios of their distances to the teacher's
    auc/METHOD/CALLS             of a classifier of high-level features against Geant4, with
                                 auc_error/METHOD/CALLS; auc/truth is that of other Geant4 showers
    """
    model_config = _check(config)
    folder = RunFolder(out, config)
    metrics = folder.read_json("metrics.json")
    if metrics is None:
        if plot_only:
            raise ValueError(f"{out} has no metrics to plot; run without --plot-only first")
        metrics = _measure_all(config, model_config, folder)
    if jax.process_index() == 0:
        print_table(config.rows, metrics)
        geometry = study.get_geometry(model_config.geometry)
        samples = {label: dict(np.load(path)) for label, path in _stored(config, folder).items()}
        for name, figure in figures(geometry, config.rows, metrics, samples):
            save(figure, folder.figure(name))
    return metrics


def count_parameters(config: Config) -> dict[str, int]:
    """Trainable parameters of the teacher's networks, as many as of the consistency functions."""
    return study.count_parameters(_check(config))


def _check(config: Config) -> study.Config:
    """Refuse bad options; returns the model's configuration."""
    if config.teacher not in config.solvers:
        raise ValueError(f"the teacher {config.teacher!r} is none of the solvers {config.solvers}")
    if not 0 <= config.cut < 1:
        raise ValueError(f"cut must be at least 0 and less than 1, got {config.cut}")
    if config.num_showers < 40:
        raise ValueError(f"num_showers is {config.num_showers}; a comparison needs 40 at least")
    numbers = {"bootstrap": config.bootstrap, "batch": config.batch}
    for part in ("energy", "shape"):
        numbers[f"{part}.trajectories"] = getattr(config, part).trajectories
        getattr(config, part).training.check()
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    model = load_config(study.Config, config.model) if config.model else config.calodream
    if model.space != "voxel":
        raise ValueError("this study distils models of voxels; the model's space is a latent one")
    trained = study.Trained(model, Path(config.model or "calodream"), None, {})
    for part in parts(model):
        for name in (*config.solvers, config.trajectories):
            trained.solver(part, name)
    return model


def _stored(config: Config, folder: RunFolder) -> dict[str, Path]:
    """Where the observables of the histograms are, by label."""
    method, _, calls = config.teacher.partition("-")
    labels = {"Geant4": "truth", f"Teacher, {calls} calls": config.judged[0]}
    labels["Consistency, 1 call"] = _STUDENT
    return {
        label: folder.path / "observables" / f"{row.replace('/', '-')}.npz"
        for label, row in labels.items()
    }


def _measure_all(config: Config, model_config: study.Config, folder: RunFolder) -> dict[str, float]:
    path = Path(config.model or folder.path / "calodream")
    showers, reference = study.load_showers(model_config)
    if config.num_showers > min(len(showers.energies), len(reference.energies)):
        raise ValueError(
            f"num_showers is {config.num_showers}, but there are {len(showers.energies)} showers "
            f"to train on and {len(reference.energies)} others; ask for as many at most"
        )
    if config.model:
        trained = study.load_trained(path)
    else:
        trained = study.train(model_config, showers, RunFolder(path, model_config))
    preprocessing = dataclasses.replace(trained.preprocessing, cut=config.cut)
    trained = dataclasses.replace(trained, preprocessing=preprocessing)
    batches = training_data(showers, trained.preprocessing)
    key, params = jax.random.key(config.seed), {}
    for part, batch in zip(("energy", "shape"), batches, strict=True):
        if part in parts(trained.config):
            params[part] = distil(
                trained,
                part,
                config.trajectories,
                batch.cond,
                key,
                getattr(config, part),
                folder,
            )
    if jax.process_index() != 0:
        return {}
    # Energies of the training sample, another draw from the spectrum of the reference.
    truth, other = (Showers(*[a[: config.num_showers] for a in s]) for s in (reference, showers))
    task = _Task(config, trained, params, truth, folder)
    metrics = task.compare("truth", other)
    for row in tqdm(config.rows, desc="samplers", unit="sampler"):
        metrics |= task.measure(row, other.energies)
    metrics |= _summary(config, metrics)
    folder.write_metrics(metrics)
    return metrics


@dataclass(frozen=True)
class _Task:
    """What the measurement of a sampler needs."""

    config: Config
    trained: study.Trained
    params: dict
    truth: Showers
    folder: RunFolder

    def measure(self, row: str, energies: np.ndarray) -> dict[str, float]:
        """Draw with one sampler, time and compare; what is there is taken from the run folder."""
        stored = f"samplers/{row.replace('/', '-')}.json"
        found = self.folder.read_json(stored)
        if found is None:
            method, _, calls = row.partition("/")
            model, params = (
                student(self.trained, self.params)
                if row == _STUDENT
                else teacher(self.trained, f"{method}-{calls}")
            )
            key, size = jax.random.key(self.config.seed), self.config.batch
            times = milliseconds_per_shower(
                model, params, stream(key, "time"), energies, (size,), repeats=5
            )
            voxels = draw(
                model, params, stream(key, "showers"), len(energies), energies, batch_size=size
            )
            found = self.compare(row, Showers(energies, voxels.reshape(len(energies), -1)))
            found[f"ms_per_shower/{row}"] = times[size]
            self.folder.write_json(stored, found)
        return found

    def compare(self, row: str, showers: Showers) -> dict[str, float]:
        """Distances to the truth, and for the teacher and its students an AUC."""
        geometry, config = self.trained.geometry, self.config
        found = distances(geometry, self.truth, showers, config.bootstrap)
        found = {f"w1/{row}/{name}": value for name, value in found.items()}
        if row in (*config.judged, "truth"):
            key = stream(jax.random.key(config.seed), "classifier")
            result = auc(geometry, self.truth, showers, key, config.classifier)
            found |= {f"{name}/{row}": value for name, value in result.items()}
        for path in _stored(config, self.folder).values():
            if path.stem == row.replace("/", "-"):
                with atomic_path(path) as partial:
                    np.savez(partial, **observables(geometry, showers))
        return found


def _summary(config: Config, metrics: dict[str, float]) -> dict[str, float]:
    """Speed and fidelity of the consistency functions over those of their teacher."""
    of, row = config.judged
    ratios = [metrics[f"w1/{row}/{name}"] / metrics[f"w1/{of}/{name}"] for name in LABELS]
    time = metrics[f"ms_per_shower/{of}"] / metrics[f"ms_per_shower/{row}"]
    return {"speedup": time, "largest_w1_ratio": max(ratios)}


_OPTIMIZER = OptimizerConfig(learning_rate=2e-3, warmup=0.05, clip_norm=1.0)
_ENERGY = TrainConfig(steps=1000, batch_size=128, optimizer=_OPTIMIZER, ema_decay=0.99)
_SHAPE = TrainConfig(steps=1000, batch_size=32, optimizer=_OPTIMIZER, ema_decay=0.99)
DEFAULT = Config(
    energy=Distillation(5000, training=_ENERGY), shape=Distillation(3000, training=_SHAPE)
)
_SMOKE = Distillation(40, training=TrainConfig(steps=10, batch_size=16, log_every=1))
SMOKE = dataclasses.replace(
    DEFAULT,
    calodream=dataclasses.replace(
        presets.SMOKE,
        energies="parallel",
        shape_network=dataclasses.replace(presets.SMOKE.shape_network, blocks=1),
    ),
    trajectories="euler-2",
    energy=_SMOKE,
    shape=_SMOKE,
    solvers=("euler-2",),
    teacher="euler-2",
    num_showers=60,
    batch=20,
    bootstrap=5,
    classifier=ClassifierConfig(hidden=(16,), batch_size=20, epochs=2, num_seeds=1),
)
PRESETS = {"default": DEFAULT, "smoke": SMOKE}


if __name__ == "__main__":
    run("consistency", __doc__, PRESETS, main, count_parameters)

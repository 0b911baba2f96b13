"""Consistency functions of showers: one call of a network against many (2303.01469, 2101.02388).

    python -m experiments consistency --model runs/calodream-default

takes fifteen minutes of processor time on one core with a given teacher, which takes about ten
more; the preset smoke takes 75 s, mostly to compile. Numbers: results/showers.md.

Distils both networks of a CaloDREAM (2405.09629) into consistency functions, which make a shower
with one call of each network, and compares them with their teacher: milliseconds a shower, and the
1-D Wasserstein distances of all observables to Geant4 beside those of truth against truth, for
Euler's and the midpoint method with 1 to 25 calls and for the consistency functions. Without
--model a small teacher is trained first, in the run folder. An autoregressive energy network is not
distilled but solved as its configuration says, in all rows.

The functions learn the ends of trajectories that the teacher solves once, with 24 calls each.
"""

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np

from experiments.showers import presets
from experiments.showers.presets import given_or_trained, model_config
from experiments.study import Run, Study, at_least, main, positive, table, variant
from jgen import Batch, Estimate, TrainConfig, draw, metrics, models, plotting
from jgen.plotting import Curve
from jgen.plotting.shower_labels import observable_label
from jgen.showers import Showers, calodream, compute_high_level_inputs, get_geometry
from jgen.showers.calodream import Trained
from jgen.showers.evaluation import compared_observables, observable_distances
from jgen.typing import Params

STUDENT = "consistency/1"
OBSERVABLES = (
    "E_tot", "E_layer", "EC_eta", "EC_phi", "EC_r", "width_eta", "width_phi", "width_r",
    "sparsity", "depth", "E_voxel",
)  # fmt: skip
_LABELS = {"E_voxel": r"$\log_{10} E_\mathrm{voxel}$"}
_TIME = "Time [ms / shower]"


@dataclass(frozen=True)
class Distillation:
    """How the consistency function of one network is made."""

    trajectories: int
    """Trajectories of the teacher to learn from, solved once; the training showers' conditions are
    taken in turn."""
    huber: float = 0.05
    """c of the distance, see `jgen.models.distilled`."""
    training: TrainConfig = TrainConfig()
    """Its training."""

    def check(self) -> None:
        """Refuse bad options."""
        at_least(self, trajectories=1)
        positive(self, "huber")


@dataclass(frozen=True)
class Config:
    """One distillation and its comparison with the teacher."""

    model: str = ""
    """Run folder of a finished calodream; without, one is trained in OUT/calodream."""
    calodream: presets.Config = variant(presets.DEFAULT, energies="parallel")
    """What is trained if there is no model."""
    trajectories: str = "midpoint-24"
    """Solver of the teacher's trajectories that the consistency functions learn from."""
    energy: Distillation = Distillation(
        5000,
        training=variant(presets.DEFAULT.energy_training, steps=1000, optimizer=presets.ADAMW),
    )
    """Distillation of the energy network."""
    shape: Distillation = Distillation(
        3000,
        training=variant(presets.DEFAULT.shape_training, steps=1000, optimizer=presets.ADAMW),
    )
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
    classifier: metrics.ClassifierConfig = presets.JUDGE
    """Classifier of high-level features, of the teacher and of the consistency functions."""
    seed: int = 0
    """Seed of everything random."""

    @property
    def rows(self) -> tuple[str, ...]:
        """All samplers, METHOD/CALLS, the consistency functions last."""
        return (*(name.replace("-", "/") for name in self.solvers), STUDENT)

    @property
    def judged(self) -> dict[str, str]:
        """Label -> row of what is drawn and told by a classifier: truth, teacher and students."""
        method, _, calls = self.teacher.partition("-")
        return {
            "Geant4": "truth",
            f"Teacher, {calls} calls": f"{method}/{calls}",
            "Consistency, 1 call": STUDENT,
        }


def distilled_parts(config: presets.Config) -> tuple[str, ...]:
    """What there is to distil: the shapes, and energies that are made in parallel."""
    return ("energy", "shape") if config.energies == "parallel" else ("shape",)


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, num_showers=40, bootstrap=1, batch=1)
    if config.teacher not in config.solvers:
        raise ValueError(f"the teacher {config.teacher!r} is none of the solvers {config.solvers}")
    if not 0 <= config.cut < 1:
        raise ValueError(f"cut must be at least 0 and less than 1, got {config.cut}")
    model = model_config(config)
    if model.space != "voxel":
        raise ValueError("this study distils models of voxels; the model's space is a latent one")
    trained = Trained(model, config.model or "calodream", None, {})
    for part in distilled_parts(model):
        for name in (*config.solvers, config.trajectories):
            trained.solver(part, name)


def inputs(config: Config) -> tuple[Showers, Showers]:
    """Training and reference showers."""
    showers, reference = presets.load_showers(model_config(config))
    for sample in (showers, reference):
        presets.check_enough("num_showers", config.num_showers, sample)
    return showers, reference


def build(config: Config) -> dict:
    """The teacher's networks; those of the consistency functions have as many parameters."""
    parts = calodream.parts(model_config(config))
    return {name: part.model for name, part in parts.items()}


def compute(config: Config, run: Run) -> dict:
    """Distil and measure.

    w1/METHOD/CALLS/OBSERVABLE   1-D Wasserstein distance to Geant4, mean over layers
                                 [MeV, mm, layers, decades of a voxel's energy];
                                 w1/truth/OBSERVABLE is that of other Geant4 showers
    ms_per_shower/METHOD/CALLS   from energies to showers in memory
    speedup                      of the consistency functions to their teacher
    largest_w1_ratio             largest of the ratios of their distances to the teacher's
    auc/METHOD/CALLS             of a classifier of high-level features against Geant4;
                                 auc/truth is that of other Geant4 showers
    """
    showers, reference = inputs(config)
    trained = given_or_trained(config, showers, run)
    preprocessing = dataclasses.replace(trained.preprocessing, cut=config.cut)
    trained = dataclasses.replace(trained, preprocessing=preprocessing)
    students = distil(config, trained, showers, run)
    # Energies of the training sample, another draw from the spectrum of the reference.
    truth, other = (Showers(*[a[: config.num_showers] for a in s]) for s in (reference, showers))
    results = {}
    for row in ("truth", *config.rows):
        args = (config, trained, students, row, truth, other, run)
        results |= run.cached(f"samplers/{row.replace('/', '-')}", measure, *args)["metrics"]
    teacher = config.judged[f"Teacher, {config.teacher.partition('-')[2]} calls"]
    distances = {
        row: np.array([results[f"w1/{row}/{name}"].value for name in OBSERVABLES])
        for row in (teacher, STUDENT)
    }
    results["speedup"] = results[f"ms_per_shower/{teacher}"] / results[f"ms_per_shower/{STUDENT}"]
    results["largest_w1_ratio"] = np.max(distances[STUDENT] / distances[teacher])
    return results


def distil(config: Config, trained: Trained, showers: Showers, run: Run) -> dict[str, Params]:
    """Parameters of the consistency functions by part, trained from the teacher's."""

    def ends(part: str) -> Batch:
        """Ends of trajectories of the teacher and their conditions."""
        one, num = trained.parts[part], getattr(config, part).trajectories
        cond = getattr(calodream.training_data(showers, trained.preprocessing), one.data).cond
        cond = np.resize(cond, (num, *cond.shape[1:]))
        solver = trained.solver(part, config.trajectories)
        model = models.trajectory_ends(one.network, one.shape, solver=solver)
        solve = lambda: draw(
            model, trained.params[part], run.key(f"trajectories {part}"), num, cond,
            batch_size=min(num, 100), progress=True,
        )  # fmt: skip
        return Batch(run.cached(f"{part}/trajectories", solve), cond)

    return {
        part: run.fit(
            part,
            _function(trained, part, getattr(config, part).huber),
            functools.partial(ends, part),
            getattr(config, part).training,
            key=run.key(f"distil {part}"),
        ).one
        for part in distilled_parts(trained.config)
    }


def _function(trained, part, huber=0.05):
    """The consistency function of one network, of the network's own form."""
    one = trained.parts[part]
    return models.distilled(one.network, one.shape, teacher=trained.params[part], huber=huber)


def sampler(trained: Trained, students: dict[str, Params], row: str):
    """Model of showers in MeV and its parameters.

    The consistency functions, or a solver METHOD/CALLS of each network that has been distilled.
    """
    if row != STUDENT:
        solved = trained.with_solvers(**dict.fromkeys(students, row.replace("/", "-")))
        return solved.model, solved.params
    made = {part: one.model for part, one in trained.parts.items()}
    made |= {part: _function(trained, part) for part in students}
    model = calodream.shower_model(made["energy"], made["shape"], trained.preprocessing)
    return model, trained.params | students


def measure(
    config: Config,
    trained: Trained,
    students: dict[str, Params],
    row: str,
    truth: Showers,
    other: Showers,
    run: Run,
) -> dict:
    """Metrics of one sampler, at the energies of other true showers, and what figures show of it.

    Of the row "truth", those other showers themselves are compared with the truth.
    """
    geometry, showers, results = trained.geometry, other, {}
    if row != "truth":
        model, params = sampler(trained, students, row)
        times = calodream.milliseconds_per_shower(
            model, params, run.key("time"), other.energies, (config.batch,), repeats=5
        )
        results[f"ms_per_shower/{row}"] = times[config.batch]
        num = len(other.energies)
        voxels = draw(
            model, params, run.key("showers"), num, other.energies, batch_size=config.batch
        )
        showers = Showers(other.energies, voxels.reshape(num, -1))
    distances = observable_distances(geometry, truth, showers, num_bootstrap=config.bootstrap)
    results |= {f"w1/{row}/{name}": value for name, value in distances.items()}
    if row not in config.judged.values():
        return {"metrics": results}
    features = [compute_high_level_inputs(geometry, s) for s in (truth, showers)]
    result = metrics.classifier_test(*features, run.key("classifier"), config.classifier)
    results[f"auc/{row}"] = result.auc_estimate
    return {"metrics": results, "observables": compared_observables(geometry, showers)}


def report(config: Config, run: Run, results: dict) -> str:
    """Draw distances and AUCs against time, and observables; a table of distances."""
    methods = {}
    for row in config.rows:
        methods.setdefault(row.partition("/")[0], []).append(row)

    def curve(rows, name, scale=1.0):
        values = [Estimate(*np.divide(results[name.format(row)], scale)) for row in rows]
        return Curve.of([results[f"ms_per_shower/{row}"] for row in rows], values)

    truth = {name: results[f"w1/truth/{name}"].value for name in OBSERVABLES}
    label = lambda name: _LABELS.get(name) or observable_label(name, unit=False)
    panels = {
        label(name): {
            method: curve(rows, f"w1/{{}}/{name}", truth[name]) for method, rows in methods.items()
        }
        for name in OBSERVABLES
    }
    figure = plotting.quality_curves(
        panels, "$W_1$ / $W_1$ of truth", xlabel=_TIME, truth=1.0, log_y=True, num_columns=4
    )
    run.save("w1_time", figure)
    told = [row for row in config.judged.values() if row != "truth"]
    curves = {row.partition("/")[0]: curve([row], "auc/{}") for row in told}
    figure = plotting.quality_curves(
        curves, "AUC of high-level features", xlabel=_TIME, truth=results["auc/truth"]
    )
    run.save("auc_time", figure)

    geometry = get_geometry(model_config(config).geometry)
    reference, *made = (
        (label, run.stage(f"samplers/{row.replace('/', '-')}")["observables"])
        for label, row in config.judged.items()
    )
    names = ("E_tot", "E_layer", "EC_r", "width_eta", "width_r", "sparsity")
    layer = 4 * geometry.num_layers // 9
    panels = [
        plotting.observable_panel(geometry, reference[1], dict(made), name, layer) for name in names
    ]
    run.save("observables", plotting.histogram_grid(panels))

    cells = {
        row: [results[f"ms_per_shower/{row}"]]
        + [results[f"w1/{row}/{name}"].value / truth[name] for name in OBSERVABLES]
        for row in config.rows
    }
    lines = [table(["ms", *OBSERVABLES], cells, title="W1 / W1 of truth")]
    names = ("speedup", "largest_w1_ratio", *(f"auc/{row}" for row in config.judged.values()))
    return "\n\n".join([*lines, table(["value"], {name: [results[name]] for name in names})])


DEFAULT = Config()
_SMOKE = Distillation(40, training=TrainConfig(steps=10, batch_size=16, log_every=1))
SMOKE = variant(
    DEFAULT,
    calodream=variant(presets.SMOKE, energies="parallel", shape_network={"blocks": 1}),
    trajectories="euler-2",
    energy=_SMOKE,
    shape=_SMOKE,
    solvers=("euler-2",),
    teacher="euler-2",
    num_showers=60,
    batch=20,
    bootstrap=5,
    classifier=metrics.ClassifierConfig(hidden=(16,), batch_size=20, epochs=2, num_seeds=1),
)
STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, build, inputs)

if __name__ == "__main__":
    main(STUDY)

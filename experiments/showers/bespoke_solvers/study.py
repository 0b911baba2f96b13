"""Bespoke non-stationary solvers of CaloDREAM's networks (2405.09629, Fig. 9), kept with the model.

    python -m experiments bespoke_solvers --model runs/calodream-default

takes an hour on two cores, the preset smoke two minutes. Numbers: results/showers.md.

Learns solvers of both networks, for global and for local truncation errors, and compares them with
Euler, midpoint and Kutta's 3/8 rule at equal numbers of network evaluations and by the clock: error
to a fine solution, distances of layer energies, and how well classifiers tell showers from Geant4.
The better of the two is stored as MODEL/solvers/PART-bespoke-N.npz, and then

    python -m experiments generate --model runs/calodream-default --solver bespoke-8

uses it. Without --model a CaloDREAM is trained first, in the run folder. The paper learns solvers
of the shape network only.

Learned solvers start from midpoint or Kutta's rule, whichever is better, and are not left for a
worse one on held-out trajectories.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.showers import presets
from experiments.showers.bespoke_solvers.training import SolverTraining, learn, trajectories
from experiments.showers.presets import given_or_trained, model_config
from experiments.study import Run, Study, at_least, main, table, variant
from jgen import Estimate, GenerativeModel, draw, plotting
from jgen.metrics import ClassifierConfig
from jgen.plotting import Curve
from jgen.showers import Showers, calodream, layer_distances, shower_judge
from jgen.showers.calodream import Flow, Trained
from jgen.solvers import NonStationary, SolverConfig, runge_kutta
from jgen.training import keep_best_solver, timed_draw

RUNGE_KUTTA = ("euler", "midpoint", "kutta38")
BESPOKE = {"bns_gte": "global", "bns_lte": "local"}
SOLVERS = (*RUNGE_KUTTA, *BESPOKE)
TITLES = {
    "energy": {
        "rmse": "RMSE of $u$ to the fine solution",
        "separation": "Separation of layer energies",
        "wasserstein": r"$W_1$ of layer energies [MeV]",
    },
    "shape": {
        "rmse": "RMSE to the fine solution",
        "auc_high": "AUC high",
        "auc_low": "AUC low",
        "fpd": "Frechet physics distance",
    },
}


@dataclass(frozen=True)
class Config:
    """One comparison of solvers."""

    model: str = ""
    """Run folder of a finished calodream; without, one is trained in OUT/calodream."""
    calodream: presets.Config = presets.DEFAULT
    """What is trained if there is no model."""
    energy: SolverTraining = SolverTraining(
        (4, 8, 16, 32), SolverConfig("rk4", 25), num_pool=64, global_evaluations=2400, batch_size=4
    )
    """Solvers of the energy network."""
    shape: SolverTraining = SolverTraining()
    """Solvers of the shape network."""
    num_energies: int = 1000
    """Showers to draw layer energies of."""
    num_error: int = 64
    """Shapes to measure the error on."""
    num_showers: int = 400
    """Showers for classifiers and Frechet distances; 0 leaves them out."""
    fpd_batches: int = 3
    """Batches of each of five sizes of the Frechet distance."""
    classifier: ClassifierConfig = presets.JUDGE
    """Classifier tests."""
    seed: int = 0
    """Seed of everything random."""


DEFAULT = Config()
_SMOKE = SolverTraining((8,), SolverConfig("rk4", 16), 24, 40, 200, 8)
SMOKE = variant(
    DEFAULT,
    calodream=presets.SMOKE,
    energy=variant(_SMOKE, num_pool=8, batch_size=2),
    shape=_SMOKE,
    num_energies=100,
    num_error=16,
    num_showers=100,
    classifier=presets.SMOKE.evaluation.classifier,
)


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, num_energies=2, num_error=1, num_showers=0, fpd_batches=1)
    if 0 < config.num_showers < 40:
        raise ValueError(
            f"num_showers is {config.num_showers}, too few for the classifiers: 40 at least, or 0"
        )
    model_config(config)


def inputs(config: Config) -> tuple[Showers, Showers]:
    """Training and reference showers."""
    showers, reference = presets.load_showers(model_config(config))
    presets.check_enough("num_showers", config.num_showers, reference)
    presets.check_enough("energy.num_pool", config.energy.num_pool, showers)
    return showers, reference


def build(config: Config) -> dict[str, Any]:
    """The networks, and the coefficients of solvers that are free."""
    parts = {name: part.model for name, part in calodream.parts(model_config(config)).items()}
    for n in sorted({*config.energy.n_evals, *config.shape.n_evals}):
        parts[f"bespoke-{n}"] = lambda key, n=n: jnp.zeros(n + n * (n + 1) // 2 + n - 1)
    return parts


class Task(NamedTuple):
    """What the comparison of one network's solvers needs.

    Attributes:
      flow: that solvers are learned on.
      model: (solver) -> the model.
      num, cond: samples and their conditions, the same for all solvers.
      judge: samples -> metrics.
      truth: metrics of truth against truth, or of the fine solution against another of its draws.
      bespoke: the model as a function of params {"solver", "network"}: with the solver as a
        parameter one program serves all bespoke ones of equal n_eval.
    """

    flow: Flow
    model: Callable[[Any], GenerativeModel]
    num: int
    cond: np.ndarray
    judge: Callable[[np.ndarray], dict]
    truth: dict
    bespoke: Callable


def compute(config: Config, run: Run) -> dict:
    """Learn solvers and measure all; PART/METRIC/SOLVER/N_EVAL, at the same noise and conditions.

    energy/rmse         root mean squared difference of the standardised u to the fine solution
    energy/separation   of layer energies to those of the fine solution, mean over layers;
    energy/wasserstein  energy/separation_truth has that of another draw of the fine solution
    shape/rmse          as above, of what the shape model samples: standardised voxels, or in
                        a latent space decoded fractions
    shape/auc_high      classifier of high-level features; auc_low of voxels; fpd: Frechet
                        physics distance, with no more meaning than beside fpd_truth
    PART/ms             milliseconds a shower by the clock, of this network alone
    """
    showers, reference = inputs(config)
    trained, metrics = given_or_trained(config, showers, run), {}
    for part, prepare in (("energy", energy_task), ("shape", shape_task)):
        training = getattr(config, part)
        task = functools.cache(functools.partial(prepare, config, trained, showers, reference, run))
        pool = functools.cache(lambda: trajectories(task().flow, training))  # noqa: B023
        truth = run.cached(f"{part}/truth", lambda: task().truth)  # noqa: B023
        metrics |= {f"{part}/{metric}_truth": value for metric, value in truth.items()}
        for n in training.n_evals:
            path, key = calodream.solver_path(trained.folder, part, n), run.key(f"{part} solvers")

            def learned():
                solvers = learn(pool(), training, n, key)  # noqa: B023
                if run.is_writer:
                    keep_best_solver(path, solvers, pool().error)  # noqa: B023
                return {name: vars(solver) for name, solver in solvers.items()}

            stored = run.cached(f"solvers/{part}-{n}", learned)
            for name in SOLVERS:
                solver = NonStationary(**stored[BESPOKE[name]]) if name in BESPOKE else name
                stage, args = f"{part}/{name}-{n}", (part, solver, n, trained, run)
                row = run.cached(stage, lambda: measure(task(), *args))  # noqa: B023
                metrics |= {f"{part}/{metric}/{name}/{n}": value for metric, value in row.items()}
    return metrics


def measure(
    task: Task, part: str, solver: str | NonStationary, n_eval: int, trained: Trained, run: Run
) -> dict:
    """Metrics of one solver, a bespoke one or the name of a Runge-Kutta method."""
    params = trained.params[part]
    if isinstance(solver, NonStationary):
        model, params = task.bespoke, {"solver": solver, "network": params}
    else:
        stages = len(runge_kutta(solver, 1).tableau.b)
        model = task.model(runge_kutta(solver, n_eval // stages))
    size = min(model_config(run.config).sample_batch, -(-task.num // 3))
    x, ms = timed_draw(model, params, run.key(part), task.num, task.cond, batch_size=size)
    return task.judge(x) | {"ms": ms}


def conditions(trained: Trained, showers: Showers, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Incident energies [MeV] of the training sample, repeated if need be, and scaled ones.

    They are another draw from the spectrum of the reference.
    """
    energies = np.resize(showers.energies, num)
    scaled = trained.preprocessing.condition(energies.astype(np.float64))
    return energies.astype(np.float32), scaled.astype(np.float32)


def _models(trained: Trained, part: str):
    """(solver) -> model of one network, and the same as a function of the solver."""
    model = lambda solver: trained.with_solvers(**{part: solver}).parts[part].model

    def bespoke(params, key, cond):
        return model(params["solver"]).sample(params["network"], key, cond)

    return model, bespoke


def energy_task(
    config: Config, trained: Trained, showers: Showers, reference: Showers, run: Run
) -> Task:
    """Layer energies, compared with those of a fine solution."""
    num, size = config.num_energies, model_config(config).sample_batch
    energies, cond = conditions(trained, showers, num)
    few = Showers(*[a[: config.energy.num_pool] for a in showers])
    flow = calodream.energy_flow(trained, few, run.key("energy trajectories"))
    model, bespoke = _models(trained, "energy")
    fine = model(config.energy.fine().make())
    fine_u, another_u = (
        draw(fine, trained.params["energy"], run.key(name), num, cond, batch_size=size)
        for name in ("energy", "another energy")
    )
    to_layers = lambda u: np.asarray(trained.preprocessing.layer_energies(u, energies), np.float64)
    fine_layers = to_layers(fine_u)
    distances = lambda u: layer_distances(trained.geometry, fine_layers, to_layers(u))
    judge = lambda u: {"rmse": root_mean_square(u - fine_u)} | distances(u)
    return Task(flow, model, num, cond, judge, distances(another_u), bespoke)


def shape_task(
    config: Config, trained: Trained, showers: Showers, reference: Showers, run: Run
) -> Task:
    """Shapes from the same noise and energies, and showers with them, compared with Geant4."""
    few, rows = config.num_error, slice(config.num_showers)
    num, size = max(config.num_showers, few), model_config(config).sample_batch
    energies, cond = conditions(trained, showers, num + config.shape.num_pool)
    u = draw(
        trained.parts["energy"].model, trained.params["energy"], run.key("conditions"), len(cond),
        cond, batch_size=size,
    )  # fmt: skip
    cond = calodream.shape_condition(cond, u)
    flow = calodream.shape_flow(trained, cond[num:], run.key("shape trajectories"))
    model, bespoke = _models(trained, "shape")
    fine = draw(
        model(config.shape.fine().make()), trained.params["shape"], run.key("shape"), few,
        cond[:few], batch_size=32,
    )  # fmt: skip
    told, truth = None, {}
    if config.num_showers:
        first, other = (Showers(*[a[rows] for a in s]) for s in (reference, showers))
        told = shower_judge(
            trained.geometry, first, run.key("classifiers"), config.classifier,
            fpd_batches=config.fpd_batches,
        )  # fmt: skip
        truth = told(other)

    def judge(x):
        metrics = {"rmse": root_mean_square(x[:few] - fine)}
        if told:
            voxels = trained.preprocessing.decode(u[rows], x[rows], energies[rows])
            metrics |= told(Showers(energies[rows], voxels.reshape(len(voxels), -1)))
        return metrics

    return Task(flow, model, num, cond[:num], judge, truth, bespoke)


def root_mean_square(difference: np.ndarray) -> Estimate:
    """Of a difference [showers, ...] to a fine solution, with its error over showers."""
    flat = np.asarray(difference, np.float64).reshape(len(difference), -1)
    squares = np.mean(flat**2, axis=1)
    rmse = float(np.sqrt(squares.mean()))
    error = squares.std() / len(squares) ** 0.5 / (2 * rmse) if rmse else 0.0
    return Estimate(rmse, float(error))


def report(config: Config, run: Run, metrics: dict) -> str:
    """Draw each metric against n_eval and against time; a table of each network."""
    tables = []
    for part, titles in TITLES.items():
        columns, rows = getattr(config, part).n_evals, {}
        time_label = f"Time of the {part} network [ms / shower]"
        read = lambda metric, name: [metrics[f"{part}/{metric}/{name}/{n}"] for n in columns]  # noqa: B023
        for metric in (*titles, "ms"):
            if f"{part}/{metric}/{SOLVERS[0]}/{columns[0]}" in metrics:
                rows |= {f"{metric} {name}": read(metric, name) for name in SOLVERS}
        tables.append(table(list(map(str, columns)), rows, title=f"{part} network, n_eval"))
        for metric, title in titles.items():
            if f"{metric} {SOLVERS[0]}" not in rows:
                continue
            for suffix, xlabel in (("", {}), ("_time", {"xlabel": time_label})):
                curves = {}
                for name in SOLVERS:
                    cost = read("ms", name) if suffix else columns
                    curves[name] = Curve.of(cost, read(metric, name))
                # Distances that are zero, as those of few showers may be, have no logarithm.
                lowest = min(curve.value.min() for curve in curves.values())
                log_y = not metric.startswith("auc") and bool(lowest > 0)
                truth = metrics.get(f"{part}/{metric}_truth")
                figure = plotting.quality_curves(curves, title, truth=truth, log_y=log_y, **xlabel)
                run.save(f"{part}_{metric}{suffix}", figure)
    return "\n\n".join(tables)


STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, build, inputs)

if __name__ == "__main__":
    main(STUDY)

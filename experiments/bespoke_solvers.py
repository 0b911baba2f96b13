"""Bespoke non-stationary solvers of CaloDREAM's networks (2405.09629, Fig. 9), kept with the model.

    python -m experiments.bespoke_solvers --model runs/calodream-default

learns solvers of both networks, for global and for local truncation errors, and compares them with
Euler, midpoint and Kutta's 3/8 rule at equal numbers of network evaluations and by the clock: error
to a fine solution, distances of layer energies, and how well classifiers tell showers from Geant4.
The better of the two is stored as MODEL/solvers/PART-bespoke-N.npz, and then

    python -m experiments.generate_showers --model runs/calodream-default --solver bespoke-8

uses it. Without --model a CaloDREAM is trained first, in the run folder. The paper learns solvers
of the shape network only.

Learned solvers start from midpoint or Kutta's rule, whichever is better, and are not left for a
worse one on held-out trajectories.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from experiments import _calodream as study
from experiments import _calodream_presets as presets
from experiments._bespoke_quality import (
    compare_layers,
    root_mean_square,
    shower_judge,
    timed_draw,
)
from experiments._bespoke_report import BESPOKE, RUNGE_KUTTA, figures, print_table
from experiments._bespoke_training import (
    OBJECTIVES,
    Flow,
    SolverTraining,
    best_start,
    energy_flow,
    make_judge,
    make_pool,
    shape_flow,
    store_best,
    train_solver,
)
from experiments._command_line import run
from jgen.generative_model import GenerativeModel, draw
from jgen.metrics import ClassifierConfig
from jgen.plotting import save
from jgen.random import stream
from jgen.showers import Showers
from jgen.showers.calodream import Solver, shape_condition
from jgen.solvers import NonStationary, SolverConfig, load_solver, runge_kutta, save_solver
from jgen.training import RunFolder, load_config


@dataclass(frozen=True)
class Config:
    """One comparison of solvers."""

    model: str = ""
    """Run folder of a finished experiments.calodream; without, one is trained in OUT/calodream."""
    calodream: study.Config = presets.DEFAULT
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
    classifier: ClassifierConfig = ClassifierConfig(
        batch_size=128, epochs=30, num_seeds=2, patience=4
    )
    """Classifier tests."""
    seed: int = 0
    """Seed of everything random."""


def main(config: Config, out: Path, *, plot_only: bool = False) -> dict[str, float]:
    """Train solvers, measure them and plot; returns the metrics.

    metrics.json has PART/METRIC/SOLVER/N_EVAL, all at the same noise and conditions:

        energy/rmse         root mean squared difference of the standardised u to the fine solution
        energy/separation   of layer energies to those of the fine solution, mean over layers;
        energy/wasserstein  energy/separation_truth has that of another draw of the fine solution
        shape/rmse          as above, of what the shape model samples: standardised voxels, or in
                            a latent space decoded fractions
        shape/auc_high      classifier of high-level features; auc_low of voxels; fpd: Frechet
                            physics distance, with no more meaning than beside fpd_truth
        PART/ms             milliseconds a shower by the clock, of this network alone
    """
    _check(config)
    model_config = load_config(study.Config, config.model) if config.model else config.calodream
    folder = RunFolder(out, config)
    metrics = folder.read_json("metrics.json")
    if plot_only and metrics is None:
        raise ValueError(f"{out} has no metrics to plot; run without --plot-only first")
    if metrics is None:
        metrics = _measure_all(config, model_config, folder)
    if jax.process_index() == 0:
        n_evals = {"energy": config.energy.n_evals, "shape": config.shape.n_evals}
        print_table(n_evals, metrics)
        for name, figure in figures(n_evals, metrics):
            save(figure, folder.figure(name))
    return metrics


def _measure_all(config: Config, model_config: study.Config, folder: RunFolder) -> dict[str, float]:
    path = Path(config.model or folder.path / "calodream")
    showers, reference = study.load_showers(model_config)
    if config.model:
        trained = study.load_trained(path)
    else:
        trained = study.train(model_config, showers, RunFolder(path, model_config))
    task = _Task(config, trained, showers, reference, folder)
    if jax.process_index() != 0:
        return {}
    metrics = {**_study_energies(task), **_study_shapes(task)}
    folder.write_metrics(metrics)
    return metrics


def _check(config: Config) -> None:
    """Refuse bad options before the folder is made."""
    config.energy.check("energy")
    config.shape.check("shape")
    for name, least in (("num_energies", 2), ("num_error", 1), ("num_showers", 0)):
        if getattr(config, name) < least:
            raise ValueError(f"{name} must be at least {least}, got {getattr(config, name)}")
    if 0 < config.num_showers < 40:
        raise ValueError(
            f"num_showers is {config.num_showers}, too few for the classifiers: 40 at least, or 0"
        )


def count_parameters(config: Config) -> dict[str, int]:
    """Trainable parameters of the networks and of the solvers."""
    model = load_config(study.Config, config.model) if config.model else config.calodream
    n_evals = sorted({*config.energy.n_evals, *config.shape.n_evals})
    solvers = {f"bespoke-{n}": n + n * (n + 1) // 2 + n - 1 for n in n_evals}
    return study.count_parameters(model) | solvers


@dataclass(frozen=True)
class _Task:
    """What both networks' studies need."""

    config: Config
    trained: study.Trained
    train: Showers
    reference: Showers
    folder: RunFolder

    def __post_init__(self):
        """Refuse more showers than there are."""
        for name, showers, most in (
            ("num_showers", self.config.num_showers, self.reference),
            ("energy.num_pool", self.config.energy.num_pool, self.train),
        ):
            if showers > len(most.energies):
                raise ValueError(
                    f"{name} is {showers}, but the model's sample for it has "
                    f"{len(most.energies)} showers; ask for as many at most"
                )

    def key(self, name: str) -> jax.Array:
        return stream(jax.random.key(self.config.seed), name)

    def conditions(self, num: int) -> tuple[np.ndarray, np.ndarray]:
        """Incident energies [MeV] of the training sample, repeated if need be, and scaled ones.

        They are another draw from the spectrum of the reference.
        """
        energies = np.resize(self.train.energies, num)
        scaled = self.trained.preprocessing.condition(energies.astype(np.float64))
        return energies.astype(np.float32), scaled.astype(np.float32)


def _solvers(
    task: _Task, part: str, training: SolverTraining, make_flow: Callable[[], Flow]
) -> Iterator[tuple[tuple[str, int], Solver]]:
    """All solvers of one network by (name, n_eval); learned ones are kept in the run folder."""
    flow = pool = judge = None
    for n in training.n_evals:
        for name in RUNGE_KUTTA:
            stages = len(runge_kutta(name, 1).tableau.b)
            yield (name, n), runge_kutta(name, n // stages)
        paths = {o: task.folder.path / "solvers" / f"{part}-{o}-{n}.npz" for o in OBJECTIVES}
        stored = f"solvers/{part}-stored-{n}.json"
        if task.folder.read_json(stored) is None:
            if flow is None:
                flow = make_flow()
                pool = make_pool(flow, training)
                judge = make_judge(flow, pool)
            start, key = best_start(judge, n), task.key(f"{part} solvers")
            for objective, path in paths.items():
                if not path.exists():
                    save_solver(path, train_solver(flow, pool, training, objective, start, key))
            solvers = {objective: load_solver(path) for objective, path in paths.items()}
            task.folder.write_json(stored, store_best(task.trained.folder, part, solvers, judge))
        for name, objective in BESPOKE.items():
            yield (name, n), load_solver(paths[objective])


def _study_energies(task: _Task) -> dict[str, float]:
    """Draw layer energies with every solver, from the same noise, and compare with a fine one."""
    config, trained, num = task.config, task.trained, task.config.num_energies
    energies, cond = task.conditions(num)
    make_flow = lambda: energy_flow(
        trained,
        Showers(*[a[: config.energy.num_pool] for a in task.train]),
        task.key("energy trajectories"),
    )
    solvers = dict(_solvers(task, "energy", config.energy, make_flow))
    fine = trained.energy(_fine(config.energy))
    params, size = trained.params["energy"], trained.config.sample_batch
    fine_u, another_u = (
        draw(fine, params, task.key(name), num, cond, batch_size=size)
        for name in ("energy", "another energy")
    )
    to_layers = lambda u: np.asarray(trained.preprocessing.layer_energies(u, energies), np.float64)
    fine_layers = to_layers(fine_u)

    def judge(u):
        distances = compare_layers(trained.geometry, fine_layers, to_layers(u))
        return root_mean_square(u - fine_u) | distances

    truth = compare_layers(trained.geometry, fine_layers, to_layers(another_u))
    metrics = {f"energy/{name}_truth": value for name, value in truth.items()}
    return metrics | _measure(task, "energy", solvers, trained.energy, params, (num, cond), judge)


def _study_shapes(task: _Task) -> dict[str, float]:
    """Draw shapes with every solver, from the same noise and energies, and judge them."""
    config, trained = task.config, task.trained
    num = max(config.num_showers, config.num_error)
    energies, cond = task.conditions(num + config.shape.num_pool)
    u = draw(
        trained.energy(),
        trained.params["energy"],
        task.key("conditions"),
        len(cond),
        cond,
        batch_size=trained.config.sample_batch,
    )
    cond = shape_condition(cond, u)
    make_flow = lambda: shape_flow(trained, cond[num:], task.key("shape trajectories"))
    solvers = dict(_solvers(task, "shape", config.shape, make_flow))
    params, few = trained.params["shape"], config.num_error
    fine = draw(
        trained.shape(_fine(config.shape)),
        params,
        task.key("shape"),
        few,
        cond[:few],
        batch_size=32,
    )
    rows = slice(config.num_showers)
    judge_showers, truth = _judge_of(task, rows)

    def judge(x):
        found = root_mean_square(x[:few] - fine)
        if judge_showers:
            voxels = trained.preprocessing.decode(u[rows], x[rows], energies[rows])
            found |= judge_showers(Showers(energies[rows], voxels.reshape(len(voxels), -1)))
        return found

    metrics = {f"shape/{name}_truth": value for name, value in truth.items()}
    return metrics | _measure(
        task, "shape", solvers, trained.shape, params, (num, cond[:num]), judge
    )


def _judge_of(task: _Task, rows: slice):
    """The judge of showers, and what it says of true ones; neither without showers."""
    if not rows.stop:
        return None, {}
    reference, train = (Showers(*[a[rows] for a in s]) for s in (task.reference, task.train))
    config = task.config
    judge = shower_judge(
        task.trained.geometry,
        reference,
        task.key("classifiers"),
        config.classifier,
        config.fpd_batches,
    )
    truth = task.folder.read_json("truth.json")
    if truth is None:
        truth = judge(train)
        task.folder.write_json("truth.json", truth)
    return judge, truth


def _fine(training: SolverTraining) -> Solver:
    """A solver of twice the steps that the references were made with."""
    return SolverConfig(training.reference.method, 2 * training.reference.steps).make()


def _measure(task, part, solvers, make_model, params, sample, judge) -> dict[str, float]:
    """Draw with every solver and judge; what is measured is kept in the run folder."""
    name_of_file = f"{part}_solvers.json"
    rows = task.folder.read_json(name_of_file) or {}
    num, cond = sample
    # With the solver as a parameter one program serves all bespoke ones of equal n_eval.
    bespoke = GenerativeModel(
        init=None,
        loss=None,
        sample=lambda p, key, c: make_model(p["solver"]).sample(p["network"], key, c),
    )
    for (name, n), solver in (bar := tqdm(solvers.items(), desc=f"{part} solvers", unit="solver")):
        row = f"{name}/{n}"
        bar.set_postfix_str(row)
        if row in rows:
            continue
        is_bespoke = isinstance(solver, NonStationary)
        x, ms = timed_draw(
            bespoke if is_bespoke else make_model(solver),
            {"solver": solver, "network": params} if is_bespoke else params,
            task.key(part),
            num,
            cond,
            task.trained.config.sample_batch,
        )
        rows[row] = judge(x) | {"ms": ms}
        task.folder.write_json(name_of_file, rows)
    return {
        f"{part}/{metric}/{row}": value
        for row, values in rows.items()
        for metric, value in values.items()
    }


DEFAULT = Config()
_SMOKE = SolverTraining((8,), SolverConfig("rk4", 16), 24, 40, 200, 8)
SMOKE = dataclasses.replace(
    DEFAULT,
    calodream=presets.SMOKE,
    energy=dataclasses.replace(_SMOKE, num_pool=8, batch_size=2),
    shape=_SMOKE,
    num_energies=100,
    num_error=16,
    num_showers=100,
    classifier=presets.SMOKE.evaluation.classifier,
)
PRESETS = {"default": DEFAULT, "smoke": SMOKE}


if __name__ == "__main__":
    run("bespoke_solvers", __doc__, PRESETS, main, count_parameters)

"""Bespoke non-stationary solvers on the shape network: Fig. 9 of CaloDREAM (2405.09629).

    python -m experiments.bespoke_solvers --model runs/calodream-default

solves the shape network's flow with Euler, midpoint, RK4 and learned solvers at equal numbers of
network evaluations: error to a fine solution, and how well a classifier tells the showers from
Geant4. Without --model a CaloDREAM is trained first, in the run folder.

Time: about 15 minutes on 2 CPU cores with a model, of which the classifiers take a half. Expected:
the learned solvers have the smallest errors, at 8 evaluations 0.044 where midpoint has 0.086 and
RK4 0.120.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from experiments import calodream as study
from experiments._command_line import run
from jgen.files import atomic_path
from jgen.generative_model import GenerativeModel, draw
from jgen.metrics import ClassifierConfig, classifier_test
from jgen.plotting import Curve, quality_curves, save
from jgen.random import normal, stream
from jgen.showers import ShowerPreprocessing, Showers, compute_high_level_inputs
from jgen.showers.calodream import SolverConfig, shape_condition, shape_model, shape_network
from jgen.showers.evaluation import low_level_inputs
from jgen.solvers import (
    NonStationary,
    Reference,
    RungeKutta,
    references,
    runge_kutta,
    train_bespoke,
)
from jgen.training import RunFolder, load_config
from jgen.typing import Params

RUNGE_KUTTA = ("euler", "midpoint", "rk4")
BESPOKE = {"bns_gte": "global", "bns_lte": "local"}


@dataclass(frozen=True)
class Config:
    """One comparison of solvers."""

    model: str = ""
    """Run folder of a finished experiments.calodream; without, one is trained in OUT/calodream."""
    calodream: study.Config = study.DEFAULT
    """What is trained if there is no model."""
    n_evals: tuple[int, ...] = (4, 8, 16, 32, 64)
    """Numbers of network evaluations, multiples of four for RK4."""
    reference: SolverConfig = SolverConfig("rk4", 50)
    """Solver of the reference trajectories (the paper: midpoint with 100 steps)."""
    num_pool: int = 128
    """Reference trajectories to train solvers on."""
    num_error: int = 64
    """Other trajectories to measure the error on."""
    num_showers: int = 400
    """Showers for the classifiers; 0 leaves them out."""
    local_steps: int = 1000
    """Optimiser steps for the local truncation error, which calls no network."""
    global_evaluations: int = 480
    """Network evaluations along trained trajectories for the global truncation error, divided by
    n_eval to give its optimiser steps: its cost is the same for every n_eval."""
    batch_size: int = 8
    """Trajectories in an optimiser step."""
    learning_rate: float = 3e-3
    """Of Adam; for the global error of more than eight evaluations it falls as 1/n_eval."""
    classifier: ClassifierConfig = ClassifierConfig(
        batch_size=128, epochs=30, num_seeds=2, patience=4
    )
    """Classifier tests."""
    seed: int = 0
    """Seed of everything random."""


def main(config: Config, out: Path, *, plot_only: bool = False) -> dict[str, float]:
    """Train solvers, measure them and plot; returns the metrics.

    metrics.json has rmse/SOLVER/N_EVAL, the root mean squared error of the standardised voxels at
    t = 1, and auc_high/SOLVER/N_EVAL, auc_low/SOLVER/N_EVAL.
    """
    if bad := [n for n in config.n_evals if n < 4 or n % 4]:
        raise ValueError(f"n_evals must be multiples of 4 for RK4, got {bad}")
    model_config = load_config(study.Config, config.model) if config.model else config.calodream
    folder = RunFolder(out, config)
    if plot_only:
        stored = folder.read_json("metrics.json")
        if stored is None:
            raise ValueError(f"{out} has no metrics to plot; run without --plot-only first")
        _plot(config, stored, folder)
        return stored
    setup = _prepare(config, model_config, folder)
    if jax.process_index() != 0:
        return {}
    solvers = dict(_solvers(config, setup, folder))
    metrics = _errors(config, setup, solvers)
    if config.num_showers:
        metrics |= _classifiers(config, setup, solvers, folder)
    folder.write_metrics(metrics)
    _print_table(config, metrics)
    _plot(config, metrics, folder)
    return metrics


def count_parameters(config: Config) -> dict[str, int]:
    """Trainable parameters of the networks and of the solvers."""
    model = load_config(study.Config, config.model) if config.model else config.calodream
    solvers = {f"bns-{n}": n + n * (n + 1) // 2 + n - 1 for n in config.n_evals}
    return study.count_parameters(model) | solvers


@dataclass(frozen=True)
class _Setup:
    """A trained CaloDREAM and the conditions to solve its shape network at."""

    config: study.Config
    preprocessing: ShowerPreprocessing
    params: Params
    train: Showers
    reference: Showers
    energies: np.ndarray
    u: np.ndarray

    @property
    def geometry(self):
        return self.preprocessing.geometry

    @property
    def velocity(self):
        return shape_network(self.geometry, self.config.shape_network).apply

    @property
    def conditions(self) -> np.ndarray:
        """Scaled incident energies and layer ratios generated for them."""
        energy = self.preprocessing.condition(self.energies.astype(np.float64))
        return shape_condition(energy.astype(np.float32), self.u)

    def model(self, solver) -> GenerativeModel:
        return shape_model(self.geometry, self.config.shape_network, solver)


def _prepare(config: Config, model_config: study.Config, folder: RunFolder) -> _Setup:
    path = Path(config.model or folder.path / "calodream")
    model_folder = RunFolder(path, model_config)
    train, reference = study.load_showers(model_config)
    preprocessing = study.load_or_fit_preprocessing(model_config, train, model_folder)
    params = study.train_networks(model_config, train, preprocessing, model_folder)
    if config.num_showers > len(reference.energies):
        raise ValueError(
            f"num_showers is {config.num_showers}, but the model's reference sample has "
            f"{len(reference.energies)}; ask for as many at most"
        )
    # Energies of the training sample: another draw from the spectrum of the reference.
    num = max(config.num_showers, config.num_pool + config.num_error)
    energies = np.resize(train.energies, num)
    energy = preprocessing.condition(energies.astype(np.float64)).astype(np.float32)
    u = draw(
        study.make_models(model_config)["energy"],
        params["first"],
        stream(jax.random.key(config.seed), "energy"),
        num,
        energy,
        progress=True,
    )
    return _Setup(model_config, preprocessing, params["second"], train, reference, energies, u)


def _start(config: Config, setup: _Setup, first: int, num: int):
    """Noise and conditions of some trajectories."""
    key = stream(jax.random.key(config.seed), "trajectories")
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(num))
    x0 = jax.vmap(lambda k: normal(k, setup.geometry.shape))(keys)
    return x0, jnp.asarray(setup.conditions[first : first + num])


def _solvers(
    config: Config, setup: _Setup, folder: RunFolder
) -> Iterator[tuple[tuple[str, int], RungeKutta | NonStationary]]:
    """All solvers by (name, n_eval); learned ones are kept in the run folder."""
    pool = None
    for n in config.n_evals:
        for name in RUNGE_KUTTA:
            stages = len(runge_kutta(name, 1).tableau.b)
            yield (name, n), runge_kutta(name, n // stages)
        for name, objective in BESPOKE.items():
            path = folder.path / "solvers" / f"{name}-{n}.npz"
            if not path.exists():
                if pool is None:
                    x0, cond = _start(config, setup, 0, config.num_pool)
                    solver = config.reference.make()
                    make = jax.jit(
                        lambda p, x, c: references(setup.velocity, p, x, c, solver=solver)  # noqa: B023
                    )
                    pool = make(setup.params, x0, cond), cond
                save_solver(path, _train_solver(config, setup, n, objective, *pool))
            yield (name, n), load_solver(path)


def _train_solver(
    config: Config, setup: _Setup, n_eval: int, objective: str, pool: Reference, cond
) -> NonStationary:
    """Fit one solver, starting from midpoint, which belongs to the family.

    The paper starts from Euler. Since the best solver on held-out trajectories is kept, this start
    is never left for a worse one.
    """
    steps, rate = config.local_steps, config.learning_rate
    if objective == "global":
        steps = max(10, config.global_evaluations // n_eval)
        # Few steps along long trajectories: each must be small against weights of order 1/n.
        rate *= min(1.0, 8 / n_eval)
    schedule = optax.cosine_decay_schedule(rate, steps)
    solver, _ = train_bespoke(
        NonStationary.from_runge_kutta(runge_kutta("midpoint", n_eval // 2)),
        setup.velocity,
        setup.params,
        pool,
        cond,
        optax.adam(schedule),
        stream(jax.random.key(config.seed), f"{objective}-{n_eval}"),
        objective=objective,
        num_steps=steps,
        batch_size=config.batch_size,
        progress=True,
    )
    return solver


def save_solver(path: Path, solver: NonStationary) -> None:
    """Write a learned solver as one .npz file."""
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez(file, **dataclasses.asdict(solver))


def load_solver(path: Path) -> NonStationary:
    """Read what `save_solver` wrote."""
    with np.load(path) as file:
        return NonStationary(**{name: jnp.asarray(file[name]) for name in file.files})


def _errors(config: Config, setup: _Setup, solvers: dict) -> dict[str, float]:
    """Root mean squared error to a fine solution, with its error over trajectories."""
    x0, cond = _start(config, setup, config.num_pool, config.num_error)

    @jax.jit
    def solve(solver, params, x0, cond):
        one = lambda args: solver(lambda t, x: setup.velocity(params, t, x, args[1]), args[0])
        return jax.lax.map(one, (x0, cond), batch_size=32)

    fine = config.reference
    exact = solve(_Static(SolverConfig(fine.method, 2 * fine.steps).make()), setup.params, x0, cond)
    metrics = {}
    for (name, n), solver in solvers.items():
        solver = solver if isinstance(solver, NonStationary) else _Static(solver)
        error = solve(solver, setup.params, x0, cond) - exact
        squares = np.asarray(jnp.mean(error.reshape(len(x0), -1) ** 2, axis=1), np.float64)
        rmse = np.sqrt(squares.mean())
        metrics[f"rmse/{name}/{n}"] = rmse
        metrics[f"rmse_error/{name}/{n}"] = squares.std() / len(x0) ** 0.5 / (2 * rmse)
    return metrics


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Static:
    """A Runge-Kutta solver as an argument of a jitted function."""

    solver: RungeKutta

    def __call__(self, velocity, x0):
        return self.solver(velocity, x0)


def _classifiers(config: Config, setup: _Setup, solvers: dict, folder: RunFolder):
    """AUC of showers from each solver against the reference, from the same noise and energies."""
    num, key = config.num_showers, jax.random.key(config.seed)
    reference, train = (Showers(*[a[:num] for a in s]) for s in (setup.reference, setup.train))
    metrics = folder.read_json("classifiers.json") or {}

    def test(showers: Showers, suffix: str) -> None:
        for tag, inputs in (
            ("high", lambda s: compute_high_level_inputs(setup.geometry, s)),
            ("low", low_level_inputs),
        ):
            size = min(num, len(showers.energies))
            samples = [inputs(s)[:size] for s in (reference, showers)]
            found = classifier_test(*samples, stream(key, tag), config.classifier)
            error = np.hypot(found.spread("auc"), found.auc_statistical_error)
            metrics[f"auc_{tag}{suffix}"] = found.mean("auc")
            metrics[f"auc_{tag}_error{suffix}"] = float(error)
        folder.write_json("classifiers.json", metrics)

    if "auc_low_truth" not in metrics:
        test(train, "_truth")
    for (name, n), solver in (bar := tqdm(solvers.items(), desc="classifiers", unit="solver")):
        if f"auc_low/{name}/{n}" in metrics:
            continue
        x = draw(
            setup.model(solver),
            setup.params,
            stream(key, "sample"),
            num,
            setup.conditions[:num],
            batch_size=setup.config.sample_batch,
        )
        energies = setup.energies[:num]
        voxels = setup.preprocessing.decode(setup.u[:num], x, energies.astype(np.float32))
        test(Showers(energies, voxels.reshape(num, -1)), f"/{name}/{n}")
        bar.set_postfix({name: n, "auc_high": f"{metrics[f'auc_high/{name}/{n}']:.3f}"})
    return metrics


def _print_table(config: Config, metrics: dict[str, float]) -> None:
    """One row a metric and solver, one column an n_eval."""
    print(f"{'n_eval':<20}" + "".join(f"{n:>10}" for n in config.n_evals))
    for metric in ("rmse", "auc_high", "auc_low"):
        for name in (*RUNGE_KUTTA, *BESPOKE):
            values = [metrics.get(f"{metric}/{name}/{n}") for n in config.n_evals]
            if None not in values:
                print(f"{metric + ' ' + name:<20}" + "".join(f"{v:>10.4g}" for v in values))


def _plot(config: Config, metrics: dict[str, float], folder: RunFolder) -> None:
    labels = dict.fromkeys(RUNGE_KUTTA) | dict.fromkeys(BESPOKE)
    titles = {"rmse": "RMSE to the fine solution", "auc_high": "AUC high", "auc_low": "AUC low"}
    for metric, title in titles.items():
        if f"{metric}/euler/{config.n_evals[0]}" not in metrics:
            continue
        curves = {}
        for name in labels:
            values, errors = (
                np.array([metrics[f"{prefix}/{name}/{n}"] for n in config.n_evals])
                for prefix in (metric, f"{metric}_error")
            )
            curves[name] = Curve(np.array(config.n_evals), values, errors)
        truth = None
        if metric != "rmse":
            truth = (metrics[f"{metric}_truth"], metrics[f"{metric}_error_truth"])
        figure = quality_curves(curves, title, truth=truth, log_y=metric == "rmse")
        save(figure, folder.figure(metric))


DEFAULT = Config()
SMOKE = dataclasses.replace(
    DEFAULT,
    calodream=study.SMOKE,
    n_evals=(8,),
    reference=SolverConfig("rk4", 16),
    num_pool=24,
    num_error=16,
    num_showers=100,
    local_steps=40,
    global_evaluations=200,
    batch_size=8,
    classifier=study.SMOKE.evaluation.classifier,
)
PRESETS = {"default": DEFAULT, "smoke": SMOKE}


if __name__ == "__main__":
    run("bespoke_solvers", __doc__, PRESETS, main, count_parameters)

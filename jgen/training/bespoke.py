"""Training of bespoke solvers (`jgen.solvers.NonStationary`) for one velocity field.

    training = bespoke_training(network.apply, params, x0, cond)
    solver, _ = training.train(training.start(8), key)
    model = flow_matching(network, shape, solver=solver)    # eight evaluations an event

The network is frozen. CaloDREAM (2405.09629, App. A.1) draws a new x_0 and solves the reference
anew in every iteration; here a pool of reference solutions is made once and drawn from, a part of
it being held out.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from tqdm import trange

from jgen.checks import check_fraction, check_known, check_whole
from jgen.files import atomic_path, read_json
from jgen.sets import SetCondition, check_counts, masked
from jgen.solvers import (
    NonStationary,
    Reference,
    RungeKutta,
    global_truncation_errors,
    load_solver,
    local_truncation_error,
    references,
    runge_kutta,
    save_solver,
)
from jgen.training.optimizer import OptimizerConfig, make_optimizer
from jgen.training.step import gradient_step, initial_state
from jgen.typing import Key, Params, PyTree

Objective = Literal["global", "local"]


class BespokeTraining(NamedTuple):
    """Trajectories of one velocity field, solved precisely, to train and judge solvers on.

    Made by `bespoke_training`.

    Attributes:
      velocity: (params, t, x, cond) -> dx/dt of one trajectory.
      params: of the network.
      reference: solutions, leading axis trajectories.
      cond: conditions, leading axis trajectories, or None.
      num_train: trajectories to train on; those behind them are held out.
      batch_size: trajectories in an optimiser step.
      chunk: trajectories that are solved at once elsewhere.
    """

    velocity: Callable[[Params, Array, Array, PyTree], Array]
    params: Params
    reference: Reference
    cond: PyTree
    num_train: int
    batch_size: int
    chunk: int

    def error(self, solver: RungeKutta | NonStationary) -> float:
        """Root mean squared error at t = 1 on held-out trajectories."""
        if isinstance(solver, RungeKutta):
            solver = NonStationary.from_runge_kutta(solver)
        held_out = jax.tree.map(lambda a: a[self.num_train :], (self.reference, self.cond))
        return float(_mean_error(solver, self.velocity, self.params, held_out, self.chunk)) ** 0.5

    def start(self, n_eval: int) -> NonStationary:
        """Midpoint or Kutta's 3/8 rule, whichever has the smaller held-out error.

        Args:
          n_eval: a multiple of four, which both methods can have.
        """
        methods = runge_kutta("midpoint", n_eval // 2), runge_kutta("kutta38", n_eval // 4)
        return min(map(NonStationary.from_runge_kutta, methods), key=self.error)

    def train(
        self,
        start: NonStationary,
        key: Key,
        *,
        objective: Objective = "local",
        steps: int = 1000,
        optimizer: optax.GradientTransformation | None = None,
        progress: bool = False,
    ) -> tuple[NonStationary, dict[str, np.ndarray]]:
        """Fit a solver; the one with the smallest held-out error is returned, the start included.

        Args:
          start: where training starts, such as `NonStationary.euler(n)`.
          key: PRNG key of the minibatches.
          objective: "global", the error at t = 1 (2405.09629, Eq. 16), or "local", the sum of
            errors of single steps (Eq. 17), which calls no network.
          steps: optimiser steps.
          optimizer: any of optax's, Adam with a learning rate from 1e-3 down to zero unless given.
          progress: show a progress bar.

        Returns:
          The solver, and a history with arrays `step`, `loss` (objective) and `held_out_rmse`.

        Raises:
          ValueError: for an unknown objective or no step.
          FloatingPointError: if the loss stops being finite.
        """
        check_known(Objective, objective=objective)
        check_whole(steps=steps)
        if optimizer is None:
            optimizer = make_optimizer(OptimizerConfig(), steps)
        step = self._step(objective, optimizer)
        state, best = initial_state(start, optimizer), (np.inf, start)
        every, name = max(1, steps // 10), f"bespoke-{start.n_eval}, {objective}"
        history = {"step": [], "loss": [], "held_out_rmse": []}
        for i in (bar := trange(steps + 1, disable=not progress, desc=name)):
            solver = state.params
            if i < steps:
                state, metrics = step(state, key, self.params, (self.reference, self.cond))
            if i % every and i < steps:
                continue
            value, rmse = float(metrics["loss"]), self.error(solver)
            best = min(best, (rmse, solver), key=lambda pair: pair[0])
            for entries, entry in zip(history.values(), (i, value, rmse), strict=True):
                entries.append(entry)
            bar.set_postfix(loss=f"{value:.3g}", held_out=f"{rmse:.3g}")
            if not np.isfinite(value):
                raise FloatingPointError(f"bespoke solver: loss is {value} at step {i}")
        return best[1], {name: np.array(values) for name, values in history.items()}

    def _step(self, objective, optimizer):
        """The optimiser step, (state, key, params, pool); the network is no constant in it."""

        def loss(solver, key, batch):
            params, *events = batch
            if objective == "local":
                errors = jax.vmap(local_truncation_error, in_axes=(None, 0, 0))(solver, *events)
            else:
                errors = global_truncation_errors(
                    solver, self.velocity, params, *events, batch_size=self.batch_size
                )
            return jnp.mean(errors)

        descend = gradient_step(loss, optimizer)

        @jax.jit
        def step(state, key, params, pool):
            key = jax.random.fold_in(key, state.step)
            rows = jax.random.randint(key, (self.batch_size,), 0, self.num_train)
            return descend(state, key, (params, *jax.tree.map(lambda a: a[rows], pool)))

        return step


def bespoke_training(
    velocity: Callable[[Params, Array, Array, PyTree], Array],
    params: Params,
    x0: Float[Array, "trajectories ..."],
    cond: PyTree = None,
    *,
    solver: RungeKutta | None = None,
    batch_size: int = 32,
    chunk: int = 50,
    holdout: float = 0.25,
) -> BespokeTraining:
    """Solve trajectories precisely, to train and judge solvers on them.

    Args:
      velocity: (params, t, x, cond) -> dx/dt of one trajectory.
      params: of the network.
      x0: starts; padded rows of sets are ignored.
      cond: conditions, leading axis trajectories, or None.
      solver: of the reference; midpoint with 100 steps, as published, unless given.
      batch_size: trajectories in an optimiser step.
      chunk: trajectories that are solved at once elsewhere.
      holdout: fraction of the trajectories that are held out, the last ones.

    Raises:
      ValueError: if there are too few trajectories to hold some out, or numbers of points do not
        fit.
    """
    check_counts(cond, x0)
    if isinstance(cond, SetCondition):
        x0 = jax.vmap(masked)(x0, cond)
    check_whole(batch_size=batch_size, chunk=chunk)
    check_fraction(holdout=holdout)
    num_train = len(x0) - max(1, round(holdout * len(x0)))
    if num_train < 1:
        raise ValueError(
            f"{len(x0)} trajectories are too few: with a fraction {holdout} held out, one at least "
            "must be left to train on"
        )
    solver = runge_kutta("midpoint", 100) if solver is None else solver
    solve = jax.jit(lambda *args: references(velocity, *args, solver=solver, batch_size=chunk))
    reference = solve(params, x0, cond)
    return BespokeTraining(velocity, params, reference, cond, num_train, batch_size, chunk)


@partial(jax.jit, static_argnames=("velocity", "chunk"))
def _mean_error(solver, velocity, params, held_out, chunk):
    return jnp.mean(global_truncation_errors(solver, velocity, params, *held_out, batch_size=chunk))


def keep_best_solver(
    path: str | Path,
    solvers: Mapping[str, NonStationary],
    error: Callable[[NonStationary], float],
) -> dict[str, Any]:
    """Keep the solver with the smallest held-out error in a file, such as one beside a model.

    One that is there already stays unless a new one is better. A .json file beside it says what it
    is.

    Args:
      path: of the .npz file.
      solvers: objective -> solver, all of one n_eval.
      error: of a solver, `BespokeTraining.error`.

    Returns:
      What is in the .json file: `objective` of the solver that is kept, and the `held_out_rmse` of
      all by their objective.
    """
    path = Path(path)
    record = path.with_suffix(".json")
    kept = {"kept": load_solver(path)} if path.exists() and record.exists() else {}
    errors = {name: error(solver) for name, solver in (kept | dict(solvers)).items()}
    best = min(errors, key=errors.get)
    if best == "kept":
        return read_json(record, f"delete it and {path.name}, to train anew")
    content = {"objective": best, "held_out_rmse": {name: errors[name] for name in solvers}}
    save_solver(path, solvers[best])
    with atomic_path(record) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")
    return content

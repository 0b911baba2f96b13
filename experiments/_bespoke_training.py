"""Bespoke solvers of CaloDREAM's networks: the flows they are learned on, and their training."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from experiments._calodream import Trained, solver_path
from jgen.files import atomic_path
from jgen.nets.sequence import sequence
from jgen.random import member_keys, normal, stream
from jgen.showers import Showers, calodream
from jgen.showers.calodream import training_data
from jgen.solvers import (
    NonStationary,
    Reference,
    SolverConfig,
    global_truncation_errors,
    load_solver,
    references,
    runge_kutta,
    save_solver,
    train_bespoke,
)
from jgen.typing import Key, Params, PyTree

OBJECTIVES = ("global", "local")
_HOLDOUT = 0.25


@dataclass(frozen=True)
class SolverTraining:
    """How the bespoke solvers of one network are trained."""

    n_evals: tuple[int, ...] = (4, 8, 16, 32, 64)
    """Numbers of network evaluations, multiples of four so that Kutta's method has them too."""
    reference: SolverConfig = SolverConfig("rk4", 50)
    """Solver of the reference trajectories (the paper: midpoint with 100 steps). Errors are
    measured to one with twice as many steps."""
    num_pool: int = 128
    """Showers with reference trajectories to train solvers on; a quarter of them is held out."""
    local_steps: int = 1000
    """Optimiser steps for the local truncation error, which calls no network."""
    global_evaluations: int = 480
    """Network evaluations along trained trajectories for the global truncation error, divided by
    n_eval to give its optimiser steps: its cost is the same for every n_eval."""
    batch_size: int = 8
    """Showers in an optimiser step."""
    learning_rate: float = 3e-3
    """Of Adam; for the global error of more than eight evaluations it falls as 1/n_eval."""

    def check(self, name: str) -> None:
        """Raise a ValueError for values out of range; `name` is what they belong to."""
        if bad := [n for n in self.n_evals if n < 4 or n % 4]:
            raise ValueError(f"{name}: n_evals must be multiples of 4, got {bad}")
        for field in ("num_pool", "local_steps", "global_evaluations", "batch_size"):
            least = 4 if field == "num_pool" else 1
            if getattr(self, field) < least:
                raise ValueError(
                    f"{name}: {field} must be at least {least}, got {getattr(self, field)}"
                )


class Flow(NamedTuple):
    """A velocity field, and trajectories of it to learn solvers on.

    Attributes:
      velocity: (params, t, x, cond) -> dx/dt of one trajectory.
      params: of the network.
      x0: starts [trajectories, *x].
      cond: conditions, leading axis trajectories.
      per_shower: trajectories that belong to one shower; they follow each other.
    """

    velocity: Callable[[Params, Array, Array, PyTree], Array]
    params: Params
    x0: Float[Array, "trajectories ..."]
    cond: PyTree
    per_shower: int = 1


def energy_flow(trained: Trained, showers: Showers, key: Key) -> Flow:
    """The flow of the layer energies, at true showers.

    Of the parallel network it is that of all ratios. The autoregressive one has a one-dimensional
    flow for each layer, which differ in their contexts only, so one solver serves all of them; the
    contexts are those of the true ratios of the layers before (teacher forcing).
    """
    network = trained.config.parallel_network
    num, params = trained.geometry.num_layers, trained.params["energy"]
    batch, _ = training_data(showers, trained.preprocessing)
    x0 = _noise(key, len(batch.x), (num,))
    if trained.config.energies == "parallel":
        return Flow(sequence(num, 1, network).apply, params, x0, jnp.asarray(batch.cond))
    network = trained.parts["energy"].network

    def velocity(params, t, x, context):
        return network.velocity(params, network.embed_time(params, t), x, context)

    contexts = jax.jit(jax.vmap(network.contexts, in_axes=(None, 0, 0)))
    found = contexts(params, batch.x, batch.cond)
    return Flow(velocity, params, x0.reshape(-1), found.reshape(x0.size, -1), per_shower=num)


def shape_flow(trained: Trained, cond: Float[np.ndarray, "showers num_cond"], key: Key) -> Flow:
    """The flow of the shapes, in voxels or latents, at conditions of the shape network."""
    part = calodream.parts(trained.config)["shape"]
    x0 = _noise(key, len(cond), part.shape)
    return Flow(part.network.apply, trained.params["shape"], x0, jnp.asarray(cond))


def _noise(key: Key, num: int, shape: tuple[int, ...]) -> Array:
    return jax.jit(jax.vmap(lambda k: normal(k, shape)))(member_keys(key, num))


def make_pool(flow: Flow, training: SolverTraining) -> Reference:
    """Reference trajectories of a flow."""
    solve = jax.jit(
        lambda params, x0, cond: references(
            flow.velocity,
            params,
            x0,
            cond,
            solver=training.reference.make(),
            batch_size=32 * flow.per_shower,
        )
    )
    return solve(flow.params, flow.x0, flow.cond)


def make_judge(flow: Flow, pool: Reference) -> Callable[[NonStationary], float]:
    """A function of a solver: its root mean squared global error on held-out trajectories."""
    first = len(flow.x0) - max(1, round(_HOLDOUT * len(flow.x0)))
    held_out = jax.tree.map(lambda a: a[first:], (pool, flow.cond))
    errors = jax.jit(
        lambda solver, params, pool, cond: global_truncation_errors(
            solver, flow.velocity, params, pool, cond, batch_size=32 * flow.per_shower
        ).mean()
    )
    return lambda solver: float(errors(solver, flow.params, *held_out)) ** 0.5


def best_start(judge: Callable[[NonStationary], float], n_eval: int) -> NonStationary:
    """The Runge-Kutta method with the smallest held-out error, as a member of the family."""
    starts = [
        NonStationary.from_runge_kutta(runge_kutta(name, n_eval // stages))
        for name, stages in (("midpoint", 2), ("kutta38", 4))
    ]
    return min(starts, key=judge)


def train_solver(
    flow: Flow,
    pool: Reference,
    training: SolverTraining,
    objective: str,
    start: NonStationary,
    key: Key,
) -> NonStationary:
    """Fit one solver.

    The paper starts from Euler. Since the best solver on held-out trajectories is kept, a start
    from `best_start` is never left for a worse one.
    """
    n_eval = start.n_eval
    steps, rate = training.local_steps, training.learning_rate
    if objective == "global":
        steps = max(10, training.global_evaluations // n_eval)
        # Few steps along long trajectories: each must be small against weights of order 1/n.
        rate *= min(1.0, 8 / n_eval)
    solver, _ = train_bespoke(
        start,
        flow.velocity,
        flow.params,
        pool,
        flow.cond,
        optax.adam(optax.cosine_decay_schedule(rate, steps)),
        stream(key, f"{objective}-{n_eval}"),
        objective=objective,
        steps=steps,
        batch_size=training.batch_size * flow.per_shower,
        holdout=_HOLDOUT,
        progress=True,
    )
    return solver


def store_best(
    folder: Path,
    part: str,
    solvers: dict[str, NonStationary],
    judge: Callable[[NonStationary], float],
) -> dict[str, Any]:
    """Keep the solver with the smallest held-out error with the model.

    One that the model has from an earlier study stays unless a new one is better. A .json file
    beside the solver tells its objective.

    Args:
      folder: run folder of the model.
      part: "energy" or "shape".
      solvers: objective -> solver, all of one n_eval.
      judge: from `make_judge`.

    Returns:
      The .json file's content: `objective` of the stored solver, and `held_out_rmse` by objective.
    """
    path = solver_path(folder, part, next(iter(solvers.values())).n_eval)
    record = path.with_suffix(".json")
    known = path.exists() and record.exists()
    candidates = ({"stored": load_solver(path)} if known else {}) | solvers
    errors = {name: judge(solver) for name, solver in candidates.items()}
    best = min(errors, key=errors.get)
    if best == "stored":
        return json.loads(record.read_text())
    content = {"objective": best, "held_out_rmse": {name: errors[name] for name in solvers}}
    save_solver(path, solvers[best])
    with atomic_path(record) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")
    return content

"""How the study of bespoke solvers learns them."""

from dataclasses import dataclass
from typing import get_args

from experiments.study import at_least
from jgen import OptimizerConfig
from jgen.checks import check_positive
from jgen.random import stream
from jgen.showers.calodream import Flow
from jgen.solvers import NonStationary, SolverConfig
from jgen.training import BespokeTraining, bespoke_training, make_optimizer
from jgen.training.bespoke import Objective
from jgen.typing import Key


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

    def check(self) -> None:
        """Refuse bad options."""
        check_positive(learning_rate=self.learning_rate)
        at_least(self, num_pool=4, local_steps=1, global_evaluations=1, batch_size=1)
        if bad := [n for n in self.n_evals if n < 4 or n % 4]:
            raise ValueError(f"n_evals must be multiples of 4, got {bad}")

    def fine(self) -> SolverConfig:
        """Twice the steps of the reference."""
        return SolverConfig(self.reference.method, 2 * self.reference.steps)


def trajectories(flow: Flow, config: SolverTraining) -> BespokeTraining:
    """Reference trajectories of a flow, to train solvers on."""
    return bespoke_training(
        *flow[:4],
        solver=config.reference.make(),
        batch_size=config.batch_size * flow.per_shower,
        chunk=32 * flow.per_shower,
    )


def learn(
    training: BespokeTraining, config: SolverTraining, n_eval: int, key: Key
) -> dict[str, NonStationary]:
    """Solvers by objective.

    The paper starts from Euler. Since the best solver on held-out trajectories is kept, a start
    from the better Runge-Kutta method is never left for a worse one.
    """
    start, solvers = training.start(n_eval), {}
    for objective in get_args(Objective):
        steps, rate = config.local_steps, config.learning_rate
        if objective == "global":
            steps = max(10, config.global_evaluations // n_eval)
            # Few steps along long trajectories: each must be small against weights of order 1/n.
            rate *= min(1.0, 8 / n_eval)
        solvers[objective], _ = training.train(
            start,
            stream(key, f"{objective}-{n_eval}"),
            objective=objective,
            steps=steps,
            optimizer=make_optimizer(OptimizerConfig(rate), steps),
            progress=True,
        )
    return solvers

"""Explicit Runge-Kutta methods: a Butcher tableau is data, one step serves them all."""

from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.checks import check_known
from jgen.paths import Path, on_unit_interval
from jgen.solvers.sampler import Predict, check_steps
from jgen.typing import Key, PyTree, Velocity


class Tableau(NamedTuple):
    """Butcher tableau of an explicit method.

    Attributes:
      name: what the method is called.
      a: lower triangle, row i holds the i weights of stage i.
      b: weights of the step.
      c: stage times.
      order: order of convergence.
    """

    name: str
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    order: int


EULER = Tableau("euler", ((),), (1.0,), (0.0,), 1)
MIDPOINT = Tableau("midpoint", ((), (1 / 2,)), (0.0, 1.0), (0.0, 1 / 2), 2)
HEUN = Tableau("heun", ((), (1.0,)), (1 / 2, 1 / 2), (0.0, 1.0), 2)
RK4 = Tableau(
    "rk4",
    ((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
    (1 / 6, 1 / 3, 1 / 3, 1 / 6),
    (0.0, 1 / 2, 1 / 2, 1.0),
    4,
)
KUTTA38 = Tableau(
    "kutta38",
    ((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)),
    (1 / 8, 3 / 8, 3 / 8, 1 / 8),
    (0.0, 1 / 3, 2 / 3, 1.0),
    4,
)
"""Kutta's 3/8 rule, which torchdiffeq (and so CaloDREAM's code) calls "rk4"."""

TABLEAUS = {tableau.name: tableau for tableau in (EULER, MIDPOINT, HEUN, RK4, KUTTA38)}


class OdeSolver:
    """A solver of dx/dt = velocity(t, x) over [0, 1] as a sampler; it has no noise but x0.

    A class has `n_eval` and the call (velocity, x0) -> x1.
    """

    def noise(self, key: Key, shape: tuple[int, ...]) -> None:
        """None: the start decides."""

    def sample(self, path: Path, predict: Predict, x0: Array, noise: None = None) -> Array:
        """Solve the probability-flow equation of the path from t_min to t_max."""
        return self(on_unit_interval(path, lambda t, x: predict(t, x, "velocity")), x0)


@dataclass(frozen=True)
class RungeKutta(OdeSolver):
    """Solve dx/dt = velocity(t, x) from t = 0 to t = 1 in equal steps.

    Attributes:
      tableau: the method.
      steps: number of steps.
    """

    tableau: Tableau
    steps: int

    def __post_init__(self):
        """Check the number of steps."""
        check_steps(self.steps)

    @property
    def n_eval(self) -> int:
        """Number of velocity evaluations of one solution."""
        return self.steps * len(self.tableau.b)

    @property
    def times(self) -> Float[np.ndarray, "steps stages"]:
        """Times at which the velocity is evaluated."""
        starts = np.arange(self.steps)[:, None]
        return (starts + np.array(self.tableau.c)) / self.steps

    def __call__(self, velocity: Velocity, x0: PyTree, at: PyTree | None = None) -> PyTree:
        """Return x(1).

        Args:
          velocity: (t, x) -> dx/dt.
          x0: x(0), an array or a pytree.
          at: what the velocity gets in the place of t, with the leading axes of `times`. A network
            that embeds time can do so once for all stages, ahead of the loop.
        """
        h = 1 / self.steps

        def step(x, at_stages):
            slopes = []
            for i, row in enumerate(self.tableau.a):
                stage = jax.tree.map(lambda a: a[i], at_stages)  # noqa: B023
                slopes.append(velocity(stage, _advance(x, h, row, slopes)))
            return _advance(x, h, self.tableau.b, slopes), None

        times = jnp.asarray(self.times, jnp.result_type(float))
        return jax.lax.scan(step, x0, times if at is None else at)[0]


def looped(solver: RungeKutta, velocity: Velocity, x0: PyTree) -> PyTree:
    """Return x(1) as `solver` does, by a loop over its stages, too.

    The velocity is compiled once and not once a stage, which is for velocities that are slow to
    compile. Gradients through it take up to 1.4 times as long.

    Args:
      solver: the method and its steps.
      velocity: (t, x) -> dx/dt.
      x0: x(0), an array or a pytree.
    """
    stages = len(solver.tableau.b)
    # Row i: weights of its slope in the states of stages i + 1, i + 2 ..., the last the end.
    ahead = np.zeros((stages, stages))
    for later, row in enumerate((*solver.tableau.a[1:], solver.tableau.b)):
        for i, weight in enumerate(row):
            ahead[i, later - i] = weight / solver.steps

    def stage(x, states, now):
        """Add a slope to the states of the stages ahead, as it comes."""
        weights, t = now
        slope = velocity(t, jax.tree.map(lambda a: a[0], states))
        return jax.tree.map(partial(_added, weights), x, states, slope), None

    def step(x, times):
        states = jax.tree.map(lambda a: jnp.broadcast_to(a, (stages, *jnp.shape(a))), x)
        states, _ = jax.lax.scan(partial(stage, x), states, (weights, times))
        return jax.tree.map(lambda a: a[0], states), None

    times = jnp.asarray(solver.times, jnp.result_type(float))
    weights = jnp.asarray(ahead, times.dtype)
    return jax.lax.scan(step, x0, times)[0]


def _added(weights: Float[Array, " stages"], x: Array, states: Array, slope: Array) -> Array:
    """Drop the first of the states ahead and add a slope to the others and to a new one, x.

    Sums and no dot product, which a GPU or TPU rounds to fewer digits than float32 has.
    """
    weights = weights.astype(jnp.result_type(x, float)).reshape(-1, *(1 for _ in x.shape))
    return jnp.concatenate([states[1:], x[None]]) + weights * jnp.broadcast_to(slope, (1, *x.shape))


def _advance(x: PyTree, h: float, weights: tuple[float, ...], slopes: list[PyTree]) -> PyTree:
    """Return x + h sum_i weights_i slopes_i, the terms of weight zero left out."""
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            # A slope in half precision is not rounded once more by its weight.
            wide = lambda a, s: jnp.asarray(s, jnp.result_type(a, s))
            x = jax.tree.map(lambda a, s: a + (h * weight) * wide(a, s), x, slope)  # noqa: B023
    return x


def runge_kutta(name: str, steps: int) -> RungeKutta:
    """The solver of a method's name: euler, midpoint, heun, rk4 or kutta38.

    Raises:
      ValueError: for an unknown name or fewer than one step.
    """
    check_known(TABLEAUS, method=name)
    return RungeKutta(TABLEAUS[name], steps)


@dataclass(frozen=True)
class SolverConfig:
    """A Runge-Kutta solver as an option of a program."""

    method: Literal["euler", "midpoint", "heun", "rk4", "kutta38"] = "kutta38"
    """Method; the "rk4" of torchdiffeq is Kutta's 3/8 rule."""
    steps: int = 20
    """Number of equal steps."""

    def make(self) -> RungeKutta:
        """The solver."""
        return runge_kutta(self.method, self.steps)

    def check(self) -> None:
        """Raise a ValueError for an unknown method or less than one step."""
        self.make()


def trajectory(
    solver: RungeKutta, velocity: Velocity, x0: Array
) -> tuple[Float[Array, "nodes ..."], Float[Array, "nodes ..."]]:
    """States and velocities at the `steps` + 1 nodes of a solution, both ends included."""
    one = RungeKutta(solver.tableau, 1)
    h = 1 / solver.steps

    def step(x, t):
        local = lambda tau, y: h * velocity(t + h * tau, y)
        return one(local, x), (x, velocity(t, x))

    starts = jnp.arange(solver.steps) * h
    end, (states, velocities) = jax.lax.scan(step, x0, starts)
    final = velocity(jnp.ones(()), end)
    return (
        jnp.concatenate([states, end[None]]),
        jnp.concatenate([velocities, final[None]]),
    )

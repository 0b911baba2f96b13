"""Bespoke non-stationary solvers: a solver learned for one velocity field, the network frozen.

Method: 2403.01329. Used for showers in CaloDREAM, 2405.09629, Eqs. 15-17, whose step is

    x_{i+1} = a_i x_0 + sum_{j <= i} b_ij v(x_j, t_j),    i = 0 .. N-1,

with one velocity evaluation a step. The family contains every explicit Runge-Kutta method.
`jgen.training.bespoke_training` trains its members.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.checks import check_whole
from jgen.files import atomic_path, damage_named
from jgen.sets import event_mean
from jgen.solvers.runge_kutta import MIDPOINT, OdeSolver, RungeKutta, trajectory
from jgen.typing import Cond, Params, PyTree, Velocity

# exp(-1000) is zero in float32 and float64: a softmax entry that is zero exactly, yet has a finite
# (zero) gradient, which -inf would not.
_ZERO_INCREMENT = -1e3

_PRECISE = RungeKutta(MIDPOINT, 100)


@partial(jax.tree_util.register_dataclass, data_fields=["a", "b", "log_dt"], meta_fields=[])
@dataclass(frozen=True)
class NonStationary(OdeSolver):
    """A solver as a pytree of coefficients, called like any other solver.

    Times are a cumulative softmax, so that they are monotone and stay in [0, 1] by construction.
    (CaloDREAM's code takes absolute values, which keeps them monotone but not below one.) The
    softmax has one redundant parameter, so N + N(N+1)/2 + N - 1 are effective.

    Attributes:
      a: weights of x_0 [n].
      b: weights of the velocities [n, n]; what lies above the diagonal is ignored.
      log_dt: logits of the time increments [n].
    """

    a: Float[Array, " n"]
    b: Float[Array, "n n"]
    log_dt: Float[Array, " n"]

    @classmethod
    def euler(cls, n_eval: int) -> "NonStationary":
        """Euler's method in `n_eval` steps, the usual start of training."""
        check_whole(1, 10_000, n_eval=n_eval)
        b = np.tril(np.full((n_eval, n_eval), 1 / n_eval))
        return cls(jnp.ones(n_eval), jnp.asarray(b, jnp.result_type(float)), jnp.zeros(n_eval))

    @classmethod
    def from_runge_kutta(cls, solver: RungeKutta) -> "NonStationary":
        """Exactly the given Runge-Kutta solver; a repeated stage time is a zero increment.

        Zero increments have zero gradient: trained from here, those times stay together.

        Raises:
          ValueError: if the stage times of the tableau decrease, which no member of this family
            with monotone times can reproduce.
        """
        tableau, steps = solver.tableau, solver.steps
        stages = len(tableau.b)
        increments = np.diff(np.append(solver.times.ravel(), 1.0))
        if np.any(increments < -1e-12):
            raise ValueError(f"stage times of {tableau.name} are not monotone: {tableau.c}")
        # Evaluation i+1 starts from the step it lies in: all weights b of the finished steps, then
        # the stage's own row of a; the last evaluation of a step completes it instead.
        b = np.zeros((solver.n_eval, solver.n_eval))
        for i in range(solver.n_eval):
            step, stage = divmod(i + 1, stages)
            b[i, : step * stages] = np.tile(tableau.b, step)
            if stage:
                b[i, step * stages : i + 1] = tableau.a[stage]
        safe = np.where(increments > 1e-12, increments, 1.0)
        log_dt = np.where(increments > 1e-12, np.log(safe), _ZERO_INCREMENT)
        dtype = jnp.result_type(float)
        return cls(
            jnp.ones(solver.n_eval), jnp.asarray(b / steps, dtype), jnp.asarray(log_dt, dtype)
        )

    @property
    def n_eval(self) -> int:
        """Number of velocity evaluations of one solution."""
        return self.a.shape[-1]

    @property
    def grid(self) -> Float[Array, " n_plus_1"]:
        """Times t_0 = 0 .. t_N = 1."""
        increments = jax.nn.softmax(self.log_dt)
        return jnp.concatenate([jnp.zeros(1, increments.dtype), jnp.cumsum(increments)])

    @property
    def times(self) -> Float[Array, " n"]:
        """Times at which the velocity is evaluated."""
        return self.grid[:-1]

    def __call__(self, velocity: Velocity, x0: PyTree, at: PyTree | None = None) -> PyTree:
        """Return x(1); arguments as for `RungeKutta`.

        The loop carries all later states and adds each velocity to them as it comes. Unlike a
        buffer of past velocities this leaves reverse mode only one velocity a step to keep.
        """
        outer = lambda weights, x: jnp.expand_dims(weights, tuple(range(1, x.ndim + 1))) * x[None]

        def step(carry, inputs):
            later, x = carry
            i, t, column = inputs
            v = velocity(t, x)
            later = jax.tree.map(lambda s, d: s + outer(column, d), later, v)
            return (later, jax.tree.map(lambda s: s[i], later)), None

        inputs = (jnp.arange(self.n_eval), self.times if at is None else at, jnp.tril(self.b).T)
        later = jax.tree.map(lambda x: outer(self.a, x), x0)
        return jax.lax.scan(step, (later, x0), inputs)[0][1]


class Reference(NamedTuple):
    """A precise solution at equidistant nodes over [0, 1].

    Attributes:
      states: x(t) [nodes, *x].
      velocities: dx/dt [nodes, *x].
    """

    states: Float[Array, "nodes ..."]
    velocities: Float[Array, "nodes ..."]

    def at(self, t: Float[Array, ""]) -> tuple[Float[Array, "*x"], Float[Array, "*x"]]:
        """State and velocity at any t by cubic Hermite interpolation, differentiable in t."""
        intervals = self.states.shape[0] - 1
        k = jnp.clip(jnp.floor(jax.lax.stop_gradient(t) * intervals).astype(int), 0, intervals - 1)
        s = t * intervals - k
        x, y = self.states[k], self.states[k + 1]
        v, w = self.velocities[k] / intervals, self.velocities[k + 1] / intervals
        state = x + s * v + s**2 * (3 * (y - x) - 2 * v - w) + s**3 * (2 * (x - y) + v + w)
        slope = v + 2 * s * (3 * (y - x) - 2 * v - w) + 3 * s**2 * (2 * (x - y) + v + w)
        return state, slope * intervals


def global_truncation_error(
    solver: RungeKutta | NonStationary,
    velocity: Velocity,
    x0: Float[Array, "*x"],
    x1: Float[Array, "*x"],
    cond: Cond = None,
) -> Float[Array, ""]:
    """Squared error at t = 1, mean over components; one event (2405.09629, Eq. 16).

    Of an event that is a set, with a `jgen.sets.SetCondition`, the mean is over its points.
    """
    return event_mean((solver(velocity, x0) - x1) ** 2, cond)


def global_truncation_errors(
    solver: RungeKutta | NonStationary,
    velocity: Callable[[Params, Array, Array, PyTree], Array],
    params: Params,
    reference: Reference,
    cond: PyTree,
    *,
    batch_size: int = 50,
) -> Float[Array, " events"]:
    """`global_truncation_error` of many events, `batch_size` at a time.

    Args:
      solver: what is judged.
      velocity: (params, t, x, cond) -> dx/dt of one event.
      params: of the network.
      reference: precise solutions, leading axis events.
      cond: conditions, leading axis events, or None.
      batch_size: events solved at once.
    """

    def one(args):
        x0, x1, c = args
        return global_truncation_error(solver, lambda t, x: velocity(params, t, x, c), x0, x1, c)

    ends = (reference.states[:, 0], reference.states[:, -1], cond)
    return jax.lax.map(one, ends, batch_size=min(batch_size, ends[0].shape[0]))


def local_truncation_error(
    solver: NonStationary, reference: Reference, cond: Cond = None
) -> Float[Array, ""]:
    """Sum over steps of the squared error of one step from the reference; one event.

    2405.09629, Eq. 17, mean over components, of a set over those of its points. Since all
    velocities in it lie on the reference trajectory, they are its time derivative, and no network
    is called. (The published code adds the roots of the mean squares instead and re-integrates the
    trajectory in every iteration.)
    """
    states, velocities = jax.vmap(reference.at)(solver.grid)
    x0 = reference.states[0]
    sums = jnp.tensordot(jnp.tril(solver.b), velocities[:-1], axes=1)
    steps = jnp.tensordot(solver.a, x0, axes=0) + sums
    squares = (steps - states[1:]) ** 2
    return jnp.sum(jax.vmap(event_mean, (0, None))(squares, cond))


def references(
    velocity: Callable[[Params, Array, Array, PyTree], Array],
    params: Params,
    x0: Float[Array, "events ..."],
    cond: PyTree,
    *,
    solver: RungeKutta = _PRECISE,
    batch_size: int = 50,
) -> Reference:
    """Precise solutions [events, nodes, *x] to train solvers on, `batch_size` events at a time.

    Default: midpoint with 100 steps (2405.09629, App. A.1). Both objectives and all n_eval can
    share them.
    """

    def one(args):
        bound = lambda t, x: velocity(params, t, x, args[1])
        return Reference(*trajectory(solver, bound, args[0]))

    return jax.lax.map(one, (x0, cond), batch_size=min(batch_size, x0.shape[0]))


def save_solver(path: str | os.PathLike, solver: NonStationary) -> None:
    """Write a solver as one .npz file."""
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez(file, **{name: np.asarray(value) for name, value in vars(solver).items()})


def load_solver(path: str | os.PathLike) -> NonStationary:
    """Read what `save_solver` wrote.

    Raises:
      ValueError: if the file is none, or damaged.
    """
    with damage_named(path, "save_solver"), np.load(path) as file:
        solver = NonStationary(**{name: jnp.asarray(file[name]) for name in file.files})
        if solver.b.shape != (len(solver.a),) * 2 or solver.log_dt.shape != solver.a.shape:
            raise ValueError(f"coefficients of shapes {[a.shape for a in vars(solver).values()]}")
        return solver

"""Consistency models (2303.01469): learn the flow's map from any time to its end, for 1 to 4 calls.

The flow of a path's velocity carries x(t) to x(t_max). The consistency function f(t, x(t)) =
x(t_max) is constant along each of its trajectories, and that is what it is trained on: its values
at neighbouring times of a grid shall agree, from the end of the path on, where it is the identity.

The neighbour of x(t) on its trajectory comes from a trained path model, by a step of a solver
(distillation, Algorithm 2), or, without one, from the same noise and event: on average over the
pairs that meet in x(t) this is the step of the velocity, up to a bias that vanishes with the width
of the grid (training, Algorithm 3, improved in 2310.14189). Where one call is all that is wanted,
`distilled` learns f(t_min, .) alone, from trajectories that were solved once.

The papers' time runs from data to noise; here t = 0 is noise, as everywhere.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.checks import check_positive, check_shape, check_whole
from jgen.couplings import Coupling, paired
from jgen.generative_model import GenerativeModel, SampleFunction, from_noise, mean_loss
from jgen.models.parts import applied, check_prediction_network
from jgen.nets.network import Network, NetworkLike, as_network
from jgen.paths import (
    Path,
    Prediction,
    check_prediction,
    convert,
    interpolate,
    linear,
    on_unit_interval,
)
from jgen.random import normal
from jgen.sets import event_mean, masked
from jgen.solvers import NonStationary, RungeKutta, runge_kutta
from jgen.solvers.diffusion import forward_variance
from jgen.solvers.sampler import check_steps
from jgen.typing import Params, Schedule


def consistency(
    network: NetworkLike,
    shape: int | tuple[int, ...],
    *,
    path: Path | None = None,
    prediction: Prediction = "velocity",
    teacher: Params | None = None,
    solver: RungeKutta | NonStationary | None = None,
    coupling: Coupling | None = None,
    intervals: int | Schedule | None = None,
    huber: float | None = 0.00054,
    steps: int = 1,
) -> GenerativeModel:
    """Consistency model of events of one `shape`; see `consistency_function` for what it learns.

    The target is the function at the neighbour with the parameters of the same step and no gradient
    (2310.14189, Sec. 3.2, for training: with averaged parameters the objective does not become the
    right one on a fine grid). Distillation has it, too, where 2303.01469 averages: a loss has no
    memory. The average that training keeps (`ema_decay`) is what is to be sampled.

    Args:
      network: apply(params, t, x, cond) -> prediction, an array of x's shape, as for `diffusion`.
      shape: of one event.
      path: of the teacher, or to train on; `linear()` unless given.
      prediction: what the network predicts.
      teacher: parameters of the same network as a trained path model, one member's. They make the
        steps, and the training of the consistency function starts from them. Without, it is trained
        on data alone.
      solver: of a teacher's step from one time of the grid to the next; one step of Heun's method
        unless given.
      coupling: of noise and data, as the teacher's; they are independent unless given.
      intervals: between the times of the grid, which are equally spaced in t, or a schedule of
        them. Unless given, 18 with a teacher as in 2303.01469, else `doubling()`.
      huber: c of the distance sqrt(d^2 + c^2) - c, with d^2 the mean squared difference, so that c
        is that of 2310.14189, Sec. 3.3, in units of sqrt(dimension); None for d^2. Differences are
        divided by the width of the interval, the paper's weight in the time of the path.
      steps: calls of the network in sampling (2303.01469, Algorithm 1): after the first, noise
        is added again up to equally spaced times, and taken away. (The paper looks for good times.)

    Raises:
      ValueError: for numbers that are not positive or not whole, a solver without a teacher,
        parameters of another network, or a prediction that is singular at an end of the path.
    """
    network, path = as_network(network), linear() if path is None else path
    check_prediction(path, prediction)
    shape = check_shape(shape)
    check_prediction_network(network, shape)
    _check(network, teacher, solver, intervals, huber, steps)
    solver = runge_kutta("heun", 1) if solver is None else solver
    if intervals is None:
        intervals = doubling() if teacher is None else 18
    frozen = jax.tree.map(np.asarray, teacher)
    function = consistency_function(network, path, prediction)
    span = path.t_max - path.t_min

    def velocity(t, x, cond):
        value = applied(network, frozen, t, x, cond)
        return convert(path, t, x, value, prediction, "velocity")

    def loss(params, key, batch, progress=1.0):
        count = jnp.floor(intervals(progress)) if callable(intervals) else intervals
        if coupling is not None:
            key, key_pairs = jax.random.split(key)
            batch = paired(coupling, key_pairs, batch)

        def single(key, event, cond):
            key_t, key_x = jax.random.split(key)
            x0, x1 = (normal(key_x, event.shape, event.dtype), event) if coupling is None else event
            i = jnp.minimum(jnp.floor(count * jax.random.uniform(key_t)), count - 1)
            t, after = path.t_min + span * i / count, path.t_min + span * (i + 1) / count
            x0, x1 = masked(x0, cond), masked(x1, cond)
            x, _ = interpolate(path, t, x0, x1)
            if teacher is None:
                neighbour, _ = interpolate(path, after, x0, x1)
            else:
                step = lambda tau, y: (after - t) * velocity(t + tau * (after - t), y, cond)
                neighbour = solver(step, x)
            target = function(jax.lax.stop_gradient(params), after, neighbour, cond)
            square = event_mean((function(params, t, x, cond) - target) ** 2, cond)
            if huber is None:
                return square * count**2
            return count * (jnp.sqrt(square + huber**2) - huber)

        return mean_loss(single, key, batch)

    init = network.init if teacher is None else lambda key: jax.tree.map(jnp.asarray, frozen)
    return from_noise(init, loss, *_noise_and_sampler(function, path, shape, steps))


def trajectory_ends(
    network: NetworkLike,
    shape: int | tuple[int, ...],
    *,
    path: Path | None = None,
    prediction: Prediction = "velocity",
    solver: RungeKutta | NonStationary | None = None,
) -> SampleFunction:
    """(params, key, cond) -> (x(t_min), x(t_max)) of a trained path model, for `distilled`.

        pool = draw(trajectory_ends(network, shape), params, key, 10_000)

    Args:
      network: the path model's, as for `consistency`.
      shape: of one event.
      path: `linear()` unless given.
      prediction: what the network predicts.
      solver: from noise to data, midpoint with 12 steps unless given.

    Raises:
      ValueError: for an unknown prediction, or one that is singular at an end of the path.
    """
    network, path = as_network(network), linear() if path is None else path
    check_prediction(path, prediction)
    shape = check_shape(shape)
    check_prediction_network(network, shape)
    solver = runge_kutta("midpoint", 12) if solver is None else solver

    def sample(params, key, cond=None):
        x0 = masked(path.base_std * normal(key, shape), cond)
        velocity = lambda t, x: convert(
            path, t, x, applied(network, params, t, x, cond), prediction, "velocity"
        )
        return x0, solver(on_unit_interval(path, velocity), x0)

    return sample


def distilled(
    network: NetworkLike,
    shape: int | tuple[int, ...],
    *,
    teacher: Params,
    path: Path | None = None,
    prediction: Prediction = "velocity",
    huber: float | None = 0.05,
) -> GenerativeModel:
    """One call that makes what the teacher's solver makes of the same noise (2101.02388).

    It learns f(t_min, .) of `consistency_function` from a pool of the teacher's trajectories, made
    once by `trajectory_ends`: the `x` of a batch is the pair (x(t_min), x(t_max)). This is
    distillation with one interval, the steps of the solver having been made beforehand: a step of
    the training costs one call of the network and its gradient, and its target has no error of an
    earlier f. It ends at one call, there being no f at other times.

    Args:
      network: the teacher's.
      shape: of one event.
      teacher: its parameters, one member's, where the training starts.
      path: of the teacher, `linear()` unless given.
      prediction: what the network predicts.
      huber: c of the distance, the mean over components of sqrt(d^2 + c^2) - c; None for d^2, as
        in the paper. Where noise does not tell which of two values a component will take, such as
        a voxel that is empty or hit, d^2 gives what is between them, |d| the likelier one.

    Raises:
      ValueError: as `consistency`; in training, for events that are not pairs.
    """
    network, path = as_network(network), linear() if path is None else path
    model = consistency(network, shape, path=path, prediction=prediction, teacher=teacher)
    if huber is not None:
        check_positive(huber=huber)
    function = consistency_function(network, path, prediction)

    def loss(params, key, batch):
        if not isinstance(batch.x, tuple) or len(batch.x) != 2:
            raise ValueError(
                "the events must be pairs (noise, end of its trajectory): draw them from "
                "trajectory_ends(...)"
            )

        def single(key, event, cond):
            x0, x1 = event
            d = function(params, jnp.asarray(path.t_min, x0.dtype), x0, cond) - x1
            return event_mean(d**2 if huber is None else jnp.sqrt(d**2 + huber**2) - huber, cond)

        return mean_loss(single, key, batch)

    return model._replace(loss=loss)


def _noise_and_sampler(function, path, shape, steps) -> tuple[Callable, Callable]:
    """Draw events by `steps` calls of a consistency function, with noise [steps, *shape]."""

    def noise(key, cond=None):
        return jax.vmap(lambda key: normal(key, shape))(jax.random.split(key, steps))

    def sample_from(params, noise, cond=None):
        times = path.t_min + (path.t_max - path.t_min) * jnp.arange(steps) / steps
        first = function(params, times[0], path.base_std * noise[0], cond)

        def improve(x, inputs):
            t, z = inputs
            return function(params, t, noised(path, t, z, x), cond), None

        return jax.lax.scan(improve, first, (times[1:], noise[1:]))[0]

    return noise, sample_from


def consistency_function(
    network: Network, path: Path, prediction: Prediction = "velocity"
) -> Callable[..., Float[Array, "*x"]]:
    """f(params, t, x, cond), the network's estimate of x(t_max) on the trajectory through x(t) = x.

    It is the end of the line on which the network's prediction puts x(t), alpha(t_max) data +
    sigma(t_max) noise: one DDIM step. In terms of a velocity u this is c_skip x + c_out u with

        c_skip = (alpha' sigma_max - sigma' alpha_max) / w,  c_out = (alpha_max sigma - sigma_max
        alpha) / w,  w = alpha' sigma - sigma' alpha,

    on a linear path x + (1 - t) u. At t_max c_skip is 1 and c_out is 0, the boundary condition of
    2303.01469, Eq. 5, for any path, network and prediction. The parameters of a trained path model
    are a good start: they give E[x1 | x(t)] where the path ends without noise. With
    `preconditioned` as the network on `edm()`, c_skip differs from the paper's by terms of order
    sigma_max / sigma.
    """

    def function(params, t, x, cond=None):
        x = masked(x, cond)
        value = applied(network, params, t, x, cond)
        data, noise = (convert(path, t, x, value, prediction, kind) for kind in ("data", "noise"))
        end = jnp.asarray(path.t_max, jnp.result_type(t))
        return path.alpha(end) * data + path.sigma(end) * noise

    return function


def noised(
    path: Path, t: Float[Array, ""], noise: Float[Array, "*x"], end: Float[Array, "*x"]
) -> Float[Array, "*x"]:
    """x(t) drawn given x(t_max): noise is added as on the way from data to noise.

    On a path that ends at alpha = 1 with a width sigma_min this is 2303.01469, Algorithm 1.
    """
    last = jnp.asarray(path.t_max, jnp.result_type(t))
    ratio = path.alpha(t) / path.alpha(last)
    return ratio * end + jnp.sqrt(forward_variance(path, t, last)) * noise


def doubling(first: int = 10, last: int = 1280) -> Schedule:
    """Intervals from `first` to `last`, doubled after equal parts of the training.

    min(first 2^floor(p s), last) at a fraction p, with s = floor(log2(last / first)) + 1 parts
    (2310.14189, Sec. 3.4, Tab. 1): coarse grids learn fast, fine ones have little bias.

    Raises:
      ValueError: unless 1 <= first <= last.
    """
    check_whole(first=first, last=last)
    if not first <= last:
        raise ValueError(f"intervals must grow from at least 1, got {first} to {last}")
    parts = math.floor(math.log2(last / first)) + 1
    return lambda done: jnp.minimum(first * 2.0 ** jnp.floor(done * parts), last)


def _check(network, teacher, solver, intervals, huber, steps) -> None:
    if huber is not None:
        check_positive(huber=huber)
    check_steps(steps)
    if intervals is not None and not callable(intervals):
        check_whole(intervals=intervals)
    if teacher is None:
        if solver is not None:
            raise ValueError("a solver makes the steps of a teacher; give its parameters, too")
        return
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)
    if shapes(jax.eval_shape(network.init, jax.random.key(0))) != shapes(teacher):
        raise ValueError(
            "the teacher's parameters do not have the shapes of the network's; take those of one "
            "member, of a network of the same configuration"
        )

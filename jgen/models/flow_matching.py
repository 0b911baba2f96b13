"""Conditional flow matching (2210.02747): learn the velocity of a path from noise to data."""

import jax
import jax.numpy as jnp

from jgen.generative_model import GenerativeModel, mean_loss
from jgen.nets.network import Network
from jgen.paths import Path, convert, interpolate, linear, on_unit_interval
from jgen.random import normal
from jgen.solvers import (
    EulerMaruyama,
    NonStationary,
    RungeKutta,
    log_likelihood,
    normal_log_prob,
    runge_kutta,
)
from jgen.solvers.likelihood import Divergence


def flow_matching(
    network: Network,
    shape: tuple[int, ...],
    *,
    path: Path | None = None,
    solver: RungeKutta | NonStationary | EulerMaruyama | None = None,
    likelihood_solver: RungeKutta | None = None,
    divergence: Divergence = "exact",
    num_probes: int = 1,
) -> GenerativeModel:
    """Flow matching of events of one `shape`.

    The solver is only used to sample: models built with different solvers share their parameters.

    Args:
      network: velocity field, apply(params, t, x, cond) -> array of x's shape.
      shape: of one event.
      path: probability path, `linear()` unless given.
      solver: Runge-Kutta (default midpoint, 20 steps), bespoke, or Euler-Maruyama for the SDE.
      likelihood_solver: for `log_prob`; default is `solver` where that is a Runge-Kutta method,
        else midpoint with 50 steps.
      divergence: "exact" or "hutchinson"; with the latter `log_prob` is random in its key.
      num_probes: of the Hutchinson estimate.
    """
    path = linear() if path is None else path
    solver = runge_kutta("midpoint", 20) if solver is None else solver
    if likelihood_solver is None:
        is_rk = isinstance(solver, RungeKutta)
        likelihood_solver = solver if is_rk else runge_kutta("midpoint", 50)

    def velocity(params, cond):
        return on_unit_interval(path, lambda t, x: network.apply(params, t, x, cond))

    def loss(params, key, batch):
        def single(key, x1, cond):
            key_t, key_x = jax.random.split(key)
            t = jax.random.uniform(key_t, minval=path.t_min, maxval=path.t_max)
            x0 = normal(key_x, x1.shape, x1.dtype)
            x, target = interpolate(path, t, x0, x1)
            return jnp.mean((network.apply(params, t, x, cond) - target) ** 2)

        return mean_loss(single, key, batch)

    def sample(params, key, cond=None):
        key_x, key_sde = jax.random.split(key)
        x0 = normal(key_x, shape)
        if not isinstance(solver, EulerMaruyama):
            return solver(velocity(params, cond), x0)
        span = path.t_max - path.t_min

        def score(tau, x, u):
            return convert(path, path.t_min + span * tau, x, u / span, "velocity", "score")

        return solver(key_sde, velocity(params, cond), score, x0)

    def log_prob(params, key, x, cond=None):
        return log_likelihood(
            velocity(params, cond),
            x,
            normal_log_prob,
            likelihood_solver,
            divergence=divergence,
            key=key,
            num_probes=num_probes,
        )

    return GenerativeModel(network.init, loss, sample, log_prob)

"""Flow matching where some components are angles: straight paths around a circle (2302.03660).

On lines and circles geodesics are straight, so the conditional path is x_t = x0 + t (x1 - x0) with
the difference of angles taken the short way around, and x_t wrapped. Nothing else changes.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jgen.checks import check_known, check_sizes
from jgen.generative_model import GenerativeModel, from_noise, mean_loss
from jgen.models.flow import Base
from jgen.models.parts import applied, check_prediction_network
from jgen.nets.network import Network, NetworkLike, as_network
from jgen.physics import wrapped
from jgen.solvers import OdeSolver, RungeKutta, log_likelihood, runge_kutta
from jgen.solvers.likelihood import Divergence


def geodesic_flow_matching(
    network: NetworkLike,
    base: Base,
    periodic: Bool[np.ndarray, "*x"],
    *,
    solver: OdeSolver | None = None,
    likelihood_solver: RungeKutta | None = None,
    divergence: Divergence = "exact",
    num_probes: int = 1,
    align: Callable[[Array, Array], Array] | None = None,
) -> GenerativeModel:
    """Flow matching from any base to events with components that are angles, in [-pi, pi).

    The network sees angles in [-pi, pi) and makes a velocity that need not be the same at both
    ends; give it functions of an angle that are. Models with different solvers share parameters.

    Args:
      network: velocity field, apply(params, t, x, cond) -> array of x's shape.
      base: what t = 0 is, with angles for angles; its log-density is that in x.
      periodic: which components of an event are angles, in radians.
      solver: of the sampling, Runge-Kutta or bespoke; midpoint with 20 steps unless given.
      likelihood_solver: for `log_prob`; default is `solver` where that is a Runge-Kutta method,
        else midpoint with 50 steps.
      divergence: "exact" or "hutchinson"; with the latter `log_prob` is random in its key.
      num_probes: of the Hutchinson estimate.
      align: (x0, x1) -> what a symmetry that base and data share makes of x0 to bring it close to
        x1, which makes paths straighter and keeps the law of x0 (2306.15030).

    Raises:
      ValueError: if the base's events or the network's output have another shape than `periodic`.
      TypeError: for a sampler that solves no differential equation.
    """
    periodic = np.asarray(periodic)
    if periodic.dtype != bool:
        raise ValueError(f"periodic says True or False of every component, got {periodic.dtype}")
    _check_base(base, periodic.shape)
    check_sizes(num_probes=num_probes)
    check_known(Divergence, divergence=divergence)
    network = on_circles(network, periodic)
    check_prediction_network(network, periodic.shape)
    solver = runge_kutta("midpoint", 20) if solver is None else solver
    if likelihood_solver is None:
        fixed = isinstance(solver, RungeKutta)
        likelihood_solver = solver if fixed else runge_kutta("midpoint", 50)
    for given in (solver, likelihood_solver):
        if not isinstance(given, OdeSolver):
            raise TypeError(
                f"this model is sampled by a solver of dx/dt = u(t, x), such as "
                f'runge_kutta("midpoint", 20), got {given!r}'
            )

    def loss(params, key, batch):
        def single(key, x1, cond):
            key_t, key_x = jax.random.split(key)
            t, x0 = jax.random.uniform(key_t), base.sample(key_x)
            x0 = x0 if align is None else align(x0, x1)
            target = around(x1 - x0, periodic)
            return jnp.mean((applied(network, params, t, x0 + t * target, cond) - target) ** 2)

        return mean_loss(single, key, batch)

    def noise(key, cond=None):
        return base.sample(key)

    def sample_from(params, x0, cond=None):
        x1 = solver(lambda t, x: applied(network, params, t, x, cond), x0)
        return around(x1, periodic)

    def log_prob(params, key, x, cond=None):
        return log_likelihood(
            lambda t, x: applied(network, params, t, x, cond),
            x,
            base.log_prob,
            likelihood_solver,
            divergence=divergence,
            key=key,
            num_probes=num_probes,
        )

    return from_noise(network.init, loss, noise, sample_from, log_prob)


def around(x: Float[Array, "*x"], periodic: Bool[np.ndarray, "*x"]) -> Float[Array, "*x"]:
    """Angles among the components in [-pi, pi), the others as they are."""
    return jnp.where(periodic, wrapped(x), x)


def on_circles(network: NetworkLike, periodic: Bool[np.ndarray, "*x"]) -> Network:
    """A velocity field that takes angles however often they have gone around.

    What a bespoke solver of a `geodesic_flow_matching` is trained on.
    """
    network = as_network(network)

    def apply(params, t, x, cond=None):
        return network.apply(params, t, around(x, periodic), cond)

    return Network(network.init, apply, network.num_cond)


def _check_base(base, shape):
    made = jax.eval_shape(base.sample, jax.eval_shape(lambda: jax.random.key(0)))
    if made.shape != shape:
        raise ValueError(
            f"the base makes events of shape {made.shape}, but periodic has the shape {shape}"
        )

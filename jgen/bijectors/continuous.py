"""Continuous layers: the flow of a velocity field is a bijector (1806.07366, 1810.01367)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jgen.bijectors.trainable import TrainableBijector
from jgen.checks import check_sizes
from jgen.nets.network import NetworkLike, as_network
from jgen.paths import Path, linear, on_unit_interval
from jgen.solvers import RungeKutta, runge_kutta, velocity_and_divergence
from jgen.solvers.likelihood import Divergence

VelocityAndDivergence = Callable[..., tuple[Array, Array]]
"""(params, t, x, cond) -> (dx/dt, its divergence by x), one event."""


def continuous(
    network: NetworkLike,
    *,
    solver: RungeKutta | None = None,
    divergence: Divergence | VelocityAndDivergence = "exact",
    num_probes: int = 1,
    path: Path | None = None,
) -> TrainableBijector:
    """The flow dx/dt = v(t, x, cond) from the base at t = 0 to data at t = 1.

    The log-determinant is the integral of div v; it and the inverse are as exact as the solver.
    Parameters are those of `flow_matching(network, ...)`: a velocity that was flow-matched is a
    bijector with the same network, path and params, and one that likelihood trained samples there.

    Args:
      network: velocity field, apply(params, t, x, cond) -> array of x's shape; for likelihood
        training with a smooth activation.
      solver: Runge-Kutta method; rk4 with 16 steps unless given.
      divergence: "exact", at the cost of one tangent a component, or "hutchinson", an unbiased
        estimate with probes that stay fixed along the trajectory; it needs a key. Or a function
        (params, t, x, cond) -> (velocity, divergence), for a network whose divergence has a closed
        form: both come from it then, and `network.apply` is not called.
      num_probes: of the Hutchinson estimate.
      path: the path of flow matching, which sets the interval of times; `linear()` unless given. A
        flow-matched model's base is normal with the path's `base_std`.

    Raises:
      ValueError: for an unknown divergence; on the way to the base, if "hutchinson" comes without a
        key.
    """
    if not callable(divergence) and divergence not in ("exact", "hutchinson"):
        raise ValueError(f"unknown divergence {divergence!r}; exact, hutchinson or a function")
    check_sizes(num_probes=num_probes)
    solver = runge_kutta("rk4", 16) if solver is None else solver
    network, path = as_network(network), linear() if path is None else path

    span = path.t_max - path.t_min

    def flow(params, x, cond, key, backward):
        probes = None
        if divergence == "hutchinson":
            if key is None and backward:
                raise ValueError("the hutchinson divergence needs a key")
            if key is None:  # a sample, whose density nobody wants
                velocity = on_unit_interval(path, lambda t, x: network.apply(params, t, x, cond))
                return solver(velocity, x), jnp.full((), jnp.nan, x.dtype)
            probes = jax.random.rademacher(key, (num_probes, *x.shape), x.dtype)
        velocity = lambda t, x: network.apply(params, t, x, cond)
        sign = -span if backward else span

        def augmented(tau, state):
            t = path.t_min + span * (1 - tau if backward else tau)
            if callable(divergence):
                u, div = divergence(params, t, state[0], cond)
            else:
                u, div = velocity_and_divergence(velocity, t, state[0], probes)
            return sign * u, sign * div

        return solver(augmented, (x, jnp.zeros((), x.dtype)))

    return TrainableBijector(
        network.init,
        lambda params, x, cond=None, key=None: flow(params, x, cond, key, backward=True),
        lambda params, z, cond=None, key=None: flow(params, z, cond, key, backward=False),
        num_cond=network.num_cond,
    )

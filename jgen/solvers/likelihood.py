"""Log-likelihood of a continuous flow: log p(x1) = log p0(x0) - int_0^1 div u dt (1806.07366)."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.solvers.runge_kutta import OdeSolver, RungeKutta, looped
from jgen.typing import Key, Velocity

Divergence = Literal["exact", "hutchinson"]
_MANY = 16  # Dimensions above which an exact divergence is slow to compile.


def velocity_and_divergence(
    velocity: Velocity, t: Float[Array, ""], x: Float[Array, "*x"], probes: Array | None = None
) -> tuple[Float[Array, "*x"], Float[Array, ""]]:
    """Velocity and its divergence, by forward mode.

    Args:
      velocity: (t, x) -> dx/dt.
      t: time.
      x: the point.
      probes: [k, *x] vectors e with E[e e^T] = 1 for Hutchinson's estimate, mean of e . J e
        (1810.01367); None gives the exact trace at the cost of one tangent a dimension.
    """
    exact = probes is None
    if exact:
        probes = jnp.eye(x.size, dtype=x.dtype).reshape(x.size, *x.shape)
    u, tangents = jax.vmap(
        lambda e: jax.jvp(lambda y: velocity(t, y), (x,), (e,)), out_axes=(None, 0)
    )(probes)
    products = jnp.sum(tangents * probes)
    return u, products if exact else products / probes.shape[0]


def log_likelihood(
    velocity: Velocity,
    x1: Float[Array, "*x"],
    base_log_prob: Callable[[Array], Array],
    solver: OdeSolver,
    *,
    divergence: Divergence = "exact",
    key: Key | None = None,
    num_probes: int = 1,
) -> Float[Array, ""]:
    """Log-density of one event, solving state and divergence together from t = 1 back to t = 0.

    Args:
      velocity: (t, x) -> dx/dt on [0, 1].
      x1: the event.
      base_log_prob: log-density of the noise.
      solver: such as a Runge-Kutta method; its error is the error of the result.
      divergence: "exact", or "hutchinson" for an unbiased estimate of the integral.
      key: PRNG key of the Rademacher probes, which stay fixed along the trajectory.
      num_probes: number of probes.

    Raises:
      ValueError: for an unknown `divergence` or if "hutchinson" comes without a key.
    """
    if divergence not in ("exact", "hutchinson"):
        raise ValueError(f"unknown divergence {divergence!r}; exact or hutchinson")
    probes = None
    if divergence == "hutchinson":
        if key is None:
            raise ValueError("the hutchinson divergence needs a key")
        probes = jax.random.rademacher(key, (num_probes, *x1.shape), x1.dtype)

    def backward(tau, state):
        u, div = velocity_and_divergence(velocity, 1 - tau, state[0], probes)
        return -u, -div

    slow = probes is None and x1.size > _MANY and isinstance(solver, RungeKutta)
    solve = partial(looped, solver) if slow else solver
    x0, log_det = solve(backward, (x1, jnp.zeros((), x1.dtype)))
    return base_log_prob(x0) + log_det


def normal_log_prob(x: Float[Array, "*x"]) -> Float[Array, ""]:
    """Log-density of the standard normal distribution."""
    return jnp.sum(jax.scipy.stats.norm.logpdf(x))

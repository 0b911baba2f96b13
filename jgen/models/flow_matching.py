"""Conditional flow matching (2210.02747): learn the velocity of a path from noise to data."""

from jgen.couplings import Coupling
from jgen.generative_model import GenerativeModel
from jgen.models.diffusion import diffusion
from jgen.nets.network import NetworkLike
from jgen.paths import Path, linear
from jgen.solvers import RungeKutta, Sampler, runge_kutta
from jgen.solvers.likelihood import Divergence


def flow_matching(
    network: NetworkLike,
    shape: int | tuple[int, ...],
    *,
    path: Path | None = None,
    coupling: Coupling | None = None,
    solver: Sampler | None = None,
    likelihood_solver: RungeKutta | None = None,
    divergence: Divergence = "exact",
    num_probes: int = 1,
) -> GenerativeModel:
    """Flow matching of events of one `shape`: `diffusion` that predicts the velocity.

    The solver is only used to sample: models built with different solvers share their parameters.

    Args:
      network: velocity field, apply(params, t, x, cond) -> array of x's shape.
      shape: of one event.
      path: probability path, `linear()` unless given.
      coupling: of noise and data, see `jgen.couplings`; they are independent unless given.
      solver: Runge-Kutta (default midpoint, 20 steps), bespoke, Euler-Maruyama for the SDE, or any
        other sampler of `jgen.solvers` or your own.
      likelihood_solver: for `log_prob`; default is `solver` where that is a Runge-Kutta method,
        else midpoint with 50 steps.
      divergence: "exact" or "hutchinson"; with the latter `log_prob` is random in its key.
      num_probes: of the Hutchinson estimate.
    """
    return diffusion(
        network,
        shape,
        path=linear() if path is None else path,
        prediction="velocity",
        coupling=coupling,
        sampler=runge_kutta("midpoint", 20) if solver is None else solver,
        likelihood_solver=likelihood_solver,
        divergence=divergence,
        num_probes=num_probes,
    )

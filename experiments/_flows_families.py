"""The families of the flow study: a generative model for events [dim] of numbers of order one."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp

from jgen.bijectors import (
    Bijector,
    TrainableBijector,
    actnorm,
    additive,
    affine,
    autoregressive_flow,
    compose,
    continuous,
    coupling,
    coupling_flow,
    cubic,
    flip,
    glow,
    householder,
    inverted,
    planar,
    plu,
    qr,
    quadratic,
    radial,
    rational_quadratic,
    repeated,
    residual,
)
from jgen.generative_model import GenerativeModel
from jgen.models import flow, flow_matching
from jgen.nets import Network, conditioner, mlp
from jgen.solvers import runge_kutta


@dataclass(frozen=True)
class Sizes:
    """Sizes of the flows, shared by the families so that they can be compared."""

    hidden: tuple[int, ...] = (64, 64)
    """Widths of the network in each coupling or autoregressive layer."""
    depth: int = 8
    """Coupling or autoregressive layers."""
    residual_depth: int = 16
    """Residual layers, each with a Lipschitz constant of at most 0.97."""
    residual_hidden: tuple[int, ...] = (32, 32)
    """Widths of the network in each of them."""
    simple_depth: int = 32
    """Planar or radial layers, each of a handful of numbers."""
    num_bins: int = 8
    """Bins of the splines."""
    bound: float = 4.0
    """Splines act on [-bound, bound] and are the identity beyond."""
    velocity_hidden: tuple[int, ...] = (64, 64, 64)
    """Widths of the velocity field of the continuous flows."""
    solver_steps: int = 8
    """Steps of the classical Runge-Kutta method while the continuous flow trains. With four, the
    training finds velocities for which the solver's error is large and the likelihood wrong."""
    fine_steps: int = 16
    """Steps when both continuous flows are judged."""
    glow_depth: int = 3
    """Steps of each of Glow's two levels."""
    glow_hidden: tuple[int, ...] = (32, 32)
    """Channels of the networks in Glow."""


def make_model(family: str, sizes: Sizes, dim: int, *, judged: bool = False) -> GenerativeModel:
    """The model of a family; both versions have the same parameters.

    Args:
      family: one of `FAMILIES`.
      sizes: of the flow.
      dim: numbers of an event; digits have 64, and are images for Glow.
      judged: the continuous flows with more steps of the solver and the exact divergence, instead
        of those that train them.
    """
    if family in ("continuous", "flow-matching"):
        return _continuous(family, sizes, dim, judged)
    return flow(BIJECTORS[family](sizes, dim), dim)


def velocity_field(dim: int, hidden: tuple[int, ...]) -> Network:
    """Velocity field (t, x [dim]) -> [dim] that sees the time as it is.

    With the frequencies of an embedding a few steps of the solver are too coarse, and a training
    by likelihood makes use of that.
    """
    dense = mlp(dim + 1, dim, hidden=hidden)
    return Network(
        dense.init, lambda params, t, x, cond=None: dense.apply(params, jnp.append(x, t))
    )


def _continuous(family, sizes, dim, judged):
    """One velocity field, trained by the likelihood or by flow matching."""
    network = velocity_field(dim, sizes.velocity_hidden)
    solver = runge_kutta("rk4", sizes.fine_steps if judged else sizes.solver_steps)
    if family == "flow-matching":
        return flow_matching(network, (dim,), solver=solver)
    # Beyond a few components the exact divergence is too dear at every step of the training.
    divergence = "exact" if judged or dim <= 4 else "hutchinson"
    return flow(continuous(network, solver=solver, divergence=divergence), dim)


def _glow_steps(sizes: Sizes, dim: int) -> TrainableBijector:
    """Glow's step on vectors, with a rotation where its 1x1 convolution is: Householder's."""
    element, fixed = affine(), dim // 2
    network = conditioner(fixed, (dim - fixed) * element.num_params, hidden=sizes.hidden)
    step = compose(actnorm(dim), householder(dim, min(dim, 8)), coupling(network, element, fixed))
    return repeated(compose(step, flip()), sizes.depth)


def _glow(sizes: Sizes, dim: int) -> TrainableBijector:
    """Glow on images of eight by eight pixels, of events that are their raveled pixels."""
    image = Bijector(
        lambda x, cond=None: (x.reshape(8, 8, 1), jnp.zeros(())),
        lambda z, cond=None: (z.reshape(-1), jnp.zeros(())),
    )
    pixels = glow((8, 8, 1), 2, sizes.glow_depth, hidden=sizes.glow_hidden)
    return compose(image, pixels)


def _coupling(make: Callable) -> Callable[[Sizes, int], TrainableBijector]:
    return lambda sizes, dim: coupling_flow(dim, make(sizes), sizes.depth, hidden=sizes.hidden)


def _autoregressive(make: Callable) -> Callable[[Sizes, int], TrainableBijector]:
    return lambda sizes, dim: autoregressive_flow(
        dim, make(sizes), sizes.depth, hidden=sizes.hidden
    )


def _quadratic(sizes: Sizes):
    return quadratic(sizes.num_bins, sizes.bound)


def _cubic(sizes: Sizes):
    return cubic(sizes.num_bins, sizes.bound)


def _rational(sizes: Sizes):
    return rational_quadratic(sizes.num_bins, sizes.bound)


BIJECTORS = {
    "linear": lambda sizes, dim: compose(actnorm(dim), qr(dim)),
    "planar": lambda sizes, dim: compose(repeated(planar(dim), sizes.simple_depth), plu(dim)),
    "radial": lambda sizes, dim: compose(repeated(radial(dim), sizes.simple_depth), plu(dim)),
    "nice": _coupling(lambda sizes: additive()),
    "realnvp": _coupling(lambda sizes: affine()),
    "glow-steps": _glow_steps,
    "glow": _glow,
    "maf": _autoregressive(lambda sizes: affine()),
    "iaf": lambda sizes, dim: inverted(_autoregressive(lambda sizes: affine())(sizes, dim)),
    "coupling-quadratic": _coupling(_quadratic),
    "coupling-cubic": _coupling(_cubic),
    "coupling-rqs": _coupling(_rational),
    "maf-rqs": _autoregressive(_rational),
    "residual": lambda sizes, dim: repeated(
        residual(dim, hidden=sizes.residual_hidden, lipschitz=0.97), sizes.residual_depth
    ),
}
"""Families that are a bijector, from data to a standard normal base."""

FAMILIES = (*BIJECTORS, "continuous", "flow-matching")
"""All families."""

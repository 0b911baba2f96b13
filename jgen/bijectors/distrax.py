"""Bijectors and distributions of distrax, as layers, bases and likelihoods of ours.

    layer = distrax.ScalarAffine(shift=1.0, scale=2.0)
    base = distrax.Independent(distrax.Logistic(np.zeros(2), np.ones(2)), 1)
    model = flow(compose(layer, coupling_flow(2, affine(), depth=6)), base)

What takes a layer or a base takes theirs, too. distrax is imported by those who make such objects
and by nothing else, so that what breaks in it breaks nothing here.
"""

import sys
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from jgen.bijectors.elementwise import Bijector
from jgen.typing import Key


def is_distrax(thing: Any, kind: str) -> bool:
    """Whether it is a `distrax.Bijector` or `distrax.Distribution`, importing nothing."""
    module = sys.modules.get("distrax")
    return module is not None and isinstance(thing, getattr(module, kind))


def from_distrax(bijector: Any) -> Bijector:
    """A distrax bijector as a fixed map of whole events, forward where theirs is.

    Ours go from data to the base; one that was made to go from the base to data is
    `distrax.Inverse(...)` of itself. Axes of an event that theirs treats as a batch are independent
    components, whose log-determinants are added.

    Raises:
      TypeError: if it is none.
    """
    if not is_distrax(bijector, "Bijector"):
        raise TypeError(f"from_distrax needs a distrax.Bijector, got {bijector!r}")

    def run(function, x):
        y, log_det = function(x)
        return y, jnp.sum(log_det)

    return Bijector(
        lambda x, cond=None: run(bijector.forward_and_log_det, x),
        lambda z, cond=None: run(bijector.inverse_and_log_det, z),
        num_cond=0,
    )


def density(distribution: Any) -> tuple[Callable[[Key], Array], Callable[[Array], Array]]:
    """(key) -> z and z -> log p(z) in nats of a distrax distribution.

    Its batch axes are independent components of one event.

    Raises:
      TypeError: if it is none.
    """
    if not is_distrax(distribution, "Distribution"):
        raise TypeError(f"this density needs a distrax.Distribution, got {distribution!r}")
    shape = (*distribution.batch_shape, *distribution.event_shape)

    def log_prob(z):
        if jnp.shape(z) != shape:
            raise ValueError(f"the distribution is one of events {shape}, got {jnp.shape(z)}")
        return jnp.sum(distribution.log_prob(z))

    return lambda key: distribution.sample(seed=key), log_prob

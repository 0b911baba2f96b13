"""Increasing maps of one number, with parameters that a network makes: y = f(x; raw).

An element is what coupling and autoregressive layers apply to each component. All are the identity
at raw = 0, and finite with finite gradients for every finite raw and x of single precision that
does not overflow by itself.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.checks import check_positive

LINE = (-math.inf, math.inf)
"""The interval of a map that leaves every bounded one, see `Element.interval`."""


class Element(NamedTuple):
    """An increasing map of the real line, as pure functions.

    Attributes:
      num_params: length of `raw`.
      forward: (raw [num_params], x) -> (y, log dy/dx).
      inverse: (raw [num_params], y) -> (x, log dx/dy).
      interval: the smallest one that is mapped to itself, with the identity outside of it, as
        splines do; `LINE` for those that leave every interval; None where it is not known.
    """

    num_params: int
    forward: Callable[[Array, Array], tuple[Array, Array]]
    inverse: Callable[[Array, Array], tuple[Array, Array]]
    interval: tuple[float, float] | None = None


def additive() -> Element:
    """Shift y = x + raw, with log-determinant zero (NICE, 1410.8516)."""
    return Element(
        1,
        lambda raw, x: (x + raw[0], jnp.zeros_like(x)),
        lambda raw, y: (y - raw[0], jnp.zeros_like(y)),
        LINE,
    )


def affine(max_log_scale: float = 3.0) -> Element:
    """Map x to exp(s) x + t with s = m tanh(raw / m), |s| < m = `max_log_scale` (RealNVP).

    The paper, 1605.08803, has a tanh with a trained factor; a fixed bound keeps exp(s) finite.

    Raises:
      ValueError: if the bound is not positive.
    """
    check_positive(max_log_scale=max_log_scale)

    def parts(raw):
        return raw[0], soft_clamp(raw[1], max_log_scale)

    def forward(raw, x):
        shift, log_scale = parts(raw)
        return x * jnp.exp(log_scale) + shift, log_scale

    def inverse(raw, y):
        shift, log_scale = parts(raw)
        return (y - shift) * jnp.exp(-log_scale), -log_scale

    return Element(2, forward, inverse, LINE)


def swapped(element: Element) -> Element:
    """The inverse map as an element of the same parameters."""
    return element._replace(forward=element.inverse, inverse=element.forward)


def soft_clamp(x: Float[Array, "..."], bound: float) -> Float[Array, "..."]:
    """A number within +-bound, equal to x to first order at zero."""
    return bound * jnp.tanh(x / bound)


def on_components(
    function: Callable[[Array, Array], tuple[Array, Array]],
    raw: Float[Array, "..."],
    x: Float[Array, "*x"],
    num_params: int,
) -> tuple[Float[Array, "*x"], Float[Array, "*x"]]:
    """An element's `forward` or `inverse` on every component, and the logarithms one by one.

    Raises:
      ValueError: if the network did not make `num_params` numbers for each component.
    """
    if raw.size != x.size * num_params:
        raise ValueError(
            f"the network returned {raw.shape}, but {x.size} components with an element of "
            f"{num_params} parameters need {x.size * num_params} numbers"
        )
    y, log_slope = jax.vmap(function)(raw.reshape(-1, num_params), x.reshape(-1))
    return y.reshape(x.shape), log_slope.reshape(x.shape)

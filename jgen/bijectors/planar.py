"""Planar and radial layers (1505.05770): one bend along a direction or around a point.

Their constraints make them invertible for all values of the parameters; both are the identity at
the start. `conditioned` makes them depend on a condition.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.bijectors.elements import LINE
from jgen.bijectors.roots import monotone_root
from jgen.bijectors.trainable import TrainableBijector, check_event
from jgen.checks import check_sizes
from jgen.random import normal

_LEAST_SLOPE = 1e-3
"""Smallest factor by which a layer may shrink a length."""


def planar(num: int) -> TrainableBijector:
    """Map x to x + u tanh(w . x + b), w . u > -1 (1505.05770).

    With m(w . u) in the place of w . u as in the paper, but for m(a) = -1 + 1e-3 + softplus(a + c)
    with m(0) = 0: no shrinking by more than 1e-3, so that logarithms stay finite, and u = 0 is the
    identity. The inverse is a root of one number, a + (w . u) tanh(a) = w . z + b.
    """
    check_sizes(num=num)
    offset = math.log(math.expm1(1 - _LEAST_SLOPE))

    def init(key):
        return {"w": normal(key, (num,)) / num**0.5, "u": jnp.zeros(num), "b": jnp.zeros(())}

    def parts(params):
        w, u = params["w"], params["u"]
        a = w @ u
        along = jax.nn.softplus(a + offset) - 1 + _LEAST_SLOPE
        norm = jnp.maximum(w @ w, jnp.finfo(w.dtype).tiny)
        return w, u + (along - a) * w / norm, along, params["b"]

    def log_det(along, a):
        return jnp.log1p(along / jnp.cosh(jnp.clip(a, -40, 40)) ** 2)

    def forward(params, x, cond=None, key=None):
        w, u, along, b = parts(params)
        a = w @ x + b
        return x + u * jnp.tanh(a), log_det(along, a)

    def inverse(params, z, cond=None, key=None):
        w, u, along, b = parts(params)
        target = w @ z + b
        reach = jnp.abs(along)
        f = lambda a: a + along * jnp.tanh(a) - target
        a = monotone_root(f, target - reach, target + reach)
        return z - u * jnp.tanh(a), -log_det(along, a)

    return TrainableBijector(init, forward, inverse, num_cond=0, interval=LINE)


def radial(num: int) -> TrainableBijector:
    """Map x to x + beta (x - x0) / (alpha + r), r = |x - x0| (1505.05770).

    alpha > 0 and beta > -alpha, both by softplus. The inverse solves a quadratic equation for r.
    """
    check_sizes(num=num)
    start = math.log(math.expm1(1.0))

    def init(key):
        return {"center": normal(key, (num,)), "alpha": jnp.zeros(()), "beta": jnp.zeros(())}

    def parts(params):
        # alpha is one and beta is zero where both parameters are.
        alpha = _LEAST_SLOPE + (1 - _LEAST_SLOPE) * jax.nn.softplus(params["alpha"] + start)
        stretch = _LEAST_SLOPE + (1 - _LEAST_SLOPE) * jax.nn.softplus(params["beta"] + start)
        # beta = alpha (stretch - 1), so that 1 + beta / (alpha + r) is never below 1e-3.
        return params["center"], alpha, alpha * (stretch - 1)

    def log_det(r, alpha, beta):
        h = 1 / (alpha + r)
        return (num - 1) * jnp.log1p(beta * h) + jnp.log1p(beta * alpha * h**2)

    def forward(params, x, cond=None, key=None):
        check_event("radial layer", x.shape, (num,))
        center, alpha, beta = parts(params)
        r = _length(x - center)
        return x + beta * (x - center) / (alpha + r), log_det(r, alpha, beta)

    def inverse(params, z, cond=None, key=None):
        check_event("radial layer", z.shape, (num,))
        center, alpha, beta = parts(params)
        rho = _length(z - center)
        # rho = r (1 + beta / (alpha + r)), by the formula without cancellation.
        b = alpha + beta - rho
        root = jnp.sqrt(b**2 + 4 * alpha * rho)
        safe = jnp.where(b > 0, b + root, 1)
        r = jnp.where(b > 0, 2 * alpha * rho / safe, 0.5 * (root - b))
        x = center + (z - center) * (alpha + r) / (alpha + r + beta)
        return x, -log_det(r, alpha, beta)

    return TrainableBijector(init, forward, inverse, num_cond=0, interval=LINE)


def _length(x: Float[Array, " num"]) -> Float[Array, ""]:
    """Euclidean length with derivative zero at the origin."""
    square = x @ x
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)

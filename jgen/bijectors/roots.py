"""Roots that know their derivatives: what an inverse without a closed form is made of."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def monotone_root(
    f: Callable[[Array], Array], low: Float[Array, ""], high: Float[Array, ""]
) -> Float[Array, ""]:
    """The root of an increasing function of one number between `low` and `high`.

    Newton's steps where they stay in the bracket and shrink by half, bisection elsewhere; the
    derivative is that of the implicit function.
    """

    def solve(f, x):
        tolerance = 2 * jnp.finfo(x.dtype).eps
        slope = lambda x: jax.jvp(f, (x,), (jnp.ones_like(x),))

        # A step is the difference of points that are stored. Were it computed beside the new point,
        # a compiler that does so twice, with other rounding, could choose Newton's step for one
        # and bisection for the other, and end the loop far from the root.
        def unfinished(state):
            _, _, x, before, count = state
            return (jnp.abs(x - before) > tolerance * jnp.maximum(1, jnp.abs(x))) & (count < 200)

        def improve(state):
            low, high, x, before, count = state
            value, derivative = slope(x)
            low, high = jnp.where(value <= 0, x, low), jnp.where(value >= 0, x, high)
            newton = -value / derivative
            good = (x + newton >= low) & (x + newton <= high)
            good = good & (jnp.abs(newton) <= 0.5 * jnp.abs(x - before))
            return low, high, jnp.where(good, x + newton, 0.5 * (low + high)), x, count + 1

        return jax.lax.while_loop(unfinished, improve, (low, high, x, x + low - high, 0))[2]

    low, high = (jax.lax.stop_gradient(edge) for edge in (low, high))
    return jax.lax.custom_root(f, 0.5 * (low + high), solve, lambda g, y: y / g(jnp.ones_like(y)))


def fixed_point(
    contraction: Callable[[Array], Array], start: Float[Array, "*x"], rate: float
) -> Float[Array, "*x"]:
    """The fixed point of a map with Lipschitz constant at most `rate` < 1, to rounding error."""
    tolerance = 4 * float(jnp.finfo(start.dtype).eps)
    limit = 10 + math.ceil(math.log(tolerance) / math.log(rate))

    def unfinished(state):
        x, change, count = state
        # The error left is at most change rate / (1 - rate); rounding may keep it from vanishing.
        return (change > tolerance * jnp.maximum(1, jnp.max(jnp.abs(x)))) & (count < limit)

    def improve(state):
        x, _, count = state
        new = contraction(x)
        return new, jnp.max(jnp.abs(new - x)), count + 1

    state = (start, jnp.full((), jnp.inf, start.dtype), jnp.zeros((), int))
    return jax.lax.while_loop(unfinished, improve, state)[0]

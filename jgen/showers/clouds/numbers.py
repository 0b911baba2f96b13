"""Numbers that the Shower Flow makes of a shower, before they are standardised."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.showers.clouds.points import Totals
from jgen.typing import Key

MAXIMUM = 6
"""The layer of a shower's maximum, which hardly any shower leaves empty."""


def num_numbers(num_layers: int) -> int:
    """Of the Shower Flow: response, centre, points and energies of layers, one of which follows."""
    return 3 + num_layers + num_layers - 1


def raw_numbers(key: Key, whole: Totals, energy: Float[Array, ""]) -> tuple[Array, Array]:
    """Numbers of the Shower Flow before they are standardised, and which of them are known.

    log(visible / incident energy); x and y of the centre; the square root of the points of each
    layer with a uniform number added; and of all layers but one, where showers have their maximum,
    log energy a point over that of this one.
    """
    num = len(whole.n)
    visible = jnp.sum(whole.energy)
    roots = jnp.sqrt(whole.n + jax.random.uniform(key, (num,)))
    full = (whole.n > 0) & (whole.energy > 0)
    each = jnp.log(jnp.where(full, whole.energy, 1) / jnp.maximum(whole.n, 1))
    ratios = jnp.delete(each - each[MAXIMUM], MAXIMUM)
    known = jnp.delete(full & full[MAXIMUM], MAXIMUM)
    raw = jnp.concatenate([jnp.log(visible / energy)[None], whole.centre, roots, ratios])
    return raw, jnp.concatenate([jnp.ones(3 + num, bool), known])


def raw_totals(raw: Float[Array, " num"], energy: Float[Array, ""], slots: int) -> Totals:
    """The inverse of `raw_numbers`."""
    num = (len(raw) - 2) // 2
    response, centre, roots, ratios = jnp.split(raw, (1, 3, 3 + num))
    n = jnp.floor(jnp.square(jnp.maximum(roots, 0)))
    n = n.at[MAXIMUM].max(1)
    n = jnp.diff(jnp.minimum(jnp.cumsum(n), slots), prepend=0.0)
    ratios = jnp.insert(ratios, MAXIMUM, 0.0)
    shares = jax.nn.softmax(jnp.where(n > 0, ratios + jnp.log(jnp.maximum(n, 1)), -jnp.inf))
    return Totals(n.astype(jnp.int32), energy * jnp.exp(response) * shares, centre)

"""Numbers that the Shower Flow makes of a shower, before they are standardised."""

import jax
import jax.numpy as jnp
from jax.scipy.special import logit
from jaxtyping import Array, Float

from jgen.showers.clouds.points import Totals
from jgen.typing import Key

MAXIMUM = 6
"""The layer of a shower's maximum, which hardly any shower leaves empty."""

# Least share of energy, or of what is not in it.
_LEAST = 1e-5


def num_numbers(num_layers: int) -> int:
    """Of the Shower Flow: response, centre, and points, energies and shares of layers.

    One of the energies follows from the others.
    """
    return 3 + 3 * num_layers - 1


def raw_numbers(key: Key, whole: Totals, energy: Float[Array, ""]) -> tuple[Array, Array]:
    """Numbers of the Shower Flow before they are standardised, and which of them are known.

    log(visible / incident energy); x and y of the centre; the square root of the points of each
    layer with a uniform number added; of all layers but one, where showers have their maximum, log
    energy a point over that of this one; and the logit of the share of a layer's energy in the
    innermost ring.
    """
    num = len(whole.n)
    visible = jnp.sum(whole.energy)
    roots = jnp.sqrt(whole.n + jax.random.uniform(key, (num,)))
    full = (whole.n > 0) & (whole.energy > 0)
    each = jnp.log(jnp.where(full, whole.energy, 1) / jnp.maximum(whole.n, 1))
    ratios = jnp.delete(each - each[MAXIMUM], MAXIMUM)
    known = jnp.delete(full & full[MAXIMUM], MAXIMUM)
    divided = full & (whole.inner > 0) & (whole.inner < 1)
    shares = logit(jnp.clip(jnp.where(divided, whole.inner, 0.5), _LEAST, 1 - _LEAST))
    raw = jnp.concatenate([jnp.log(visible / energy)[None], whole.centre, roots, ratios, shares])
    return raw, jnp.concatenate([jnp.ones(3 + num, bool), known, divided])


def raw_totals(raw: Float[Array, " num"], energy: Float[Array, ""], slots: int) -> Totals:
    """The inverse of `raw_numbers`."""
    num = (len(raw) - 2) // 3
    response, centre, roots, ratios, inner = jnp.split(raw, (1, 3, 3 + num, 2 + 2 * num))
    n = jnp.floor(jnp.square(jnp.maximum(roots, 0)))
    n = n.at[MAXIMUM].max(1)
    n = jnp.diff(jnp.minimum(jnp.cumsum(n), slots), prepend=0.0)
    ratios = jnp.insert(ratios, MAXIMUM, 0.0)
    shares = jax.nn.softmax(jnp.where(n > 0, ratios + jnp.log(jnp.maximum(n, 1)), -jnp.inf))
    energies = energy * jnp.exp(response) * shares
    return Totals(n.astype(jnp.int32), energies, jax.nn.sigmoid(inner), centre)

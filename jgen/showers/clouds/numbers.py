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
# Energy of a layer [MeV] from which on it takes up what others lack.
_LARGE = 20.0
# Largest logarithm of an energy a point.
_MOST = 20.0


def num_numbers(num_layers: int) -> int:
    """Of the Shower Flow: response, centre, and points, energies and shares of layers."""
    return 3 + 3 * num_layers


def raw_numbers(key: Key, whole: Totals, energy: Float[Array, ""]) -> tuple[Array, Array]:
    """Numbers of the Shower Flow before they are standardised, and which of them are known.

    log(visible / incident energy); x and y of the centre; and of each layer the square root of its
    points with a uniform number added, the logarithm of the energy [MeV] a point, and the logit of
    the share of energy in the innermost ring.
    """
    num = len(whole.n)
    visible = jnp.sum(whole.energy)
    roots = jnp.sqrt(whole.n + jax.random.uniform(key, (num,)))
    full = (whole.n > 0) & (whole.energy > 0)
    each = jnp.log(jnp.where(full, whole.energy, 1) / jnp.maximum(whole.n, 1))
    divided = full & (whole.inner > 0) & (whole.inner < 1)
    shares = logit(jnp.clip(jnp.where(divided, whole.inner, 0.5), _LEAST, 1 - _LEAST))
    raw = jnp.concatenate([jnp.log(visible / energy)[None], whole.centre, roots, each, shares])
    return raw, jnp.concatenate([jnp.ones(3 + num, bool), full, divided])


def raw_totals(raw: Float[Array, " num"], energy: Float[Array, ""], slots: int) -> Totals:
    """The inverse of `raw_numbers`.

    Energies of layers that were not taken from a shower do not add up to its own. What is missing
    is given to the large ones: a layer with a particle or two keeps what these leave.
    """
    num = len(raw) // 3 - 1
    response, centre, roots, each, inner = jnp.split(raw, (1, 3, 3 + num, 3 + 2 * num))
    n = jnp.floor(jnp.square(jnp.maximum(roots, 0)))
    n = n.at[MAXIMUM].max(1)
    n = jnp.diff(jnp.minimum(jnp.cumsum(n), slots), prepend=0.0)
    energies, visible = n * jnp.exp(jnp.minimum(each, _MOST)), energy * jnp.exp(response)
    taken = energies / (energies + _LARGE)
    change = (visible - jnp.sum(energies)) / jnp.maximum(jnp.sum(taken * energies), 1e-9)
    energies = energies * (1 + jnp.maximum(change, -0.9) * taken)
    energies = energies * (visible / jnp.sum(energies))
    return Totals(n.astype(jnp.int32), energies, jax.nn.sigmoid(inner), centre)

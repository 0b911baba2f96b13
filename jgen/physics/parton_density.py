"""A parton density simple enough for integrals to be checked by quadrature."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def toy_parton_density(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x^-1.5 (1 - x)^4, not normalised: steep as gluons are, zero outside of (0, 1)."""
    inside = (x > 0) & (x < 1)
    safe = jnp.where(inside, x, 0.5)
    return jnp.where(inside, safe**-1.5 * (1 - safe) ** 4, 0)

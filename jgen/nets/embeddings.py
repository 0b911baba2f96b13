"""Embeddings of time, scalars and positions."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def sinusoidal(t: Float[Array, ""], features: int) -> Float[Array, " features"]:
    """Cos then sin of t at `features`/2 geometric frequencies from 1 down to almost 1e-4.

    The transformer embedding as used by DiT (2212.09748).
    """
    half = features // 2
    frequencies = np.exp(-np.log(1e4) * np.arange(half) / half).astype(np.float32)
    phase = t * frequencies
    return jnp.concatenate([jnp.cos(phase), jnp.sin(phase)])


def gaussian_fourier(
    t: Float[Array, ""], frequencies: Float[Array, " half"]
) -> Float[Array, " features"]:
    """Sin then cos of 2 pi t times given `frequencies` (2006.10739)."""
    phase = 2 * np.pi * t * frequencies
    return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)])

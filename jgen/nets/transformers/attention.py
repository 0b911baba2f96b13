"""What transformers share: softmax attention of one event's tokens, and layer normalisation."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jgen.nets.primitives.chunks import in_chunks
from jgen.nets.primitives.products import products

Attention = Literal["xla", "cudnn"]
"""Implementation: jgen's, compiled by XLA, or cuDNN's fused one on a GPU, for half precision."""


def attend(
    q: Float[Array, "n heads width"],
    k: Float[Array, "m heads width"],
    v: Float[Array, "m heads d"],
    mask: Bool[Array, " m"] | None = None,
    attention: Attention = "xla",
) -> Float[Array, "n heads d"]:
    """Values at the keys that a query is like, scores over sqrt(width), softmax in float32.

    Args:
      q: queries.
      k: keys.
      v: values.
      mask: keys that are seen, all unless given.
      attention: implementation.
    """
    if attention == "cudnn":
        seen = None if mask is None else mask[None, None, :]  # [heads, queries, keys]
        return jax.nn.dot_product_attention(q, k, v, mask=seen, implementation="cudnn")
    args = (q, k, v) if mask is None else (q, k, v, mask)
    return in_chunks(_mean_values, *args, numbers=q.shape[1] * len(q) * len(k))


def _mean_values(q, k, v, mask=None):
    # As jax.nn's, but that sums are divided by after the product with the values, a smaller array,
    # and that no gradient goes through the largest score: a third less time in training on a CPU.
    # So is heads in front, which makes every product one of contiguous matrices.
    accumulated = jnp.promote_types(q.dtype, jnp.float32)
    q, k, v = (jnp.swapaxes(a, 0, 1) for a in (q * q.shape[-1] ** -0.5, k, v))
    scores = products(q, k, accumulated, turned=True)
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    largest = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - largest)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    summed = products(weights.astype(v.dtype), v, accumulated)
    return jnp.swapaxes((summed / total).astype(v.dtype), 0, 1)


def layer_norm(x: Float[Array, "*n c"], epsilon: float = 1e-6) -> Float[Array, "*n c"]:
    """Mean zero and width one over the last axis, without parameters; float32 at least."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + epsilon)

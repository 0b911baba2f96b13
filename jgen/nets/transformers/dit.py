"""Transformer with adaLN-zero conditioning: the trunk of a DiT (2212.09748), without its patches.

Time and condition scale, shift and gate every block. At initialisation all gates and the last
layer are zero, so each block is the identity and the output zero.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jgen.checks import check_depths, check_finite, check_sizes
from jgen.nets.dense import Dense, is_matmul
from jgen.nets.embeddings import sinusoidal
from jgen.nets.primitives.chunks import is_in_chunks
from jgen.nets.transformers.attention import Attention, attend, layer_norm

_xavier = nn.initializers.xavier_uniform()
_zeros = nn.initializers.zeros
_normal = nn.initializers.normal(0.02)


def check_transformer(width: int, heads: int, blocks: int, mlp_width: int, scale: float) -> None:
    """Raise a ValueError for sizes and a `time_scale` that the transformer cannot have."""
    check_sizes(width=width, heads=heads, mlp_width=mlp_width)
    check_depths(blocks=blocks)
    check_finite(time_scale=scale)
    if width % heads or width % 2:
        raise ValueError(f"width {width} must be even and a multiple of heads, {heads}")


class DiT(nn.Module):
    """Transformer blocks and the last layer on the tokens of one event.

    Attributes:
      num_outputs: features of an output token.
      heads, blocks, mlp_width: sizes; the width is that of the tokens.
      time_scale: factor on t before its sinusoidal embedding.
      dtype: of matrix products; parameters, norms, softmax and output stay in float32.
      attention: implementation, see `jax.nn.dot_product_attention`.
    """

    num_outputs: int
    heads: int
    blocks: int
    mlp_width: int
    time_scale: float = 1.0
    dtype: str = "float32"
    attention: Attention = "xla"

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "n width"],
        t: Float[Array, ""],
        cond: Float[Array, " num_cond"],
        mask: Bool[Array, " n"] | None = None,
    ) -> Float[Array, "n num_outputs"]:
        """Output tokens at time t under the condition cond, from those that are valid."""
        width = tokens.shape[-1]
        embed = lambda n, name, init=_normal: Dense(n, kernel_init=init, name=name)
        time = sinusoidal(self.time_scale * t, 256)
        time = embed(width, "time_out")(nn.silu(embed(width, "time_in")(time)))
        hidden = nn.silu(embed(width, "cond_in", _xavier)(cond))
        c = nn.silu(time + embed(width, "cond_out", _xavier)(hidden))

        # One product makes the modulations of all blocks and of the last layer.
        rows = 6 * self.blocks + 2
        modulation = Dense(rows * width, kernel_init=_zeros, name="modulation")(c)
        modulation = modulation.reshape(rows, width)
        # The backward pass keeps matrix products and attention's results only and computes all
        # between them again: less work, on a CPU as on an accelerator, than moving it through
        # memory.
        block = nn.remat(_Block, prevent_cse=False, policy=_kept)
        scanned = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast),
            length=self.blocks,
        )
        trunk = scanned(self.heads, self.mlp_width, self.dtype, self.attention, name="blocks")
        tokens, _ = trunk(tokens, modulation[:-2].reshape(self.blocks, 6, width), mask)

        tokens = _modulate(tokens, modulation[-2], modulation[-1])
        last = Dense(self.num_outputs, dtype=self.dtype, kernel_init=_zeros, name="out")
        return last(tokens).astype(jnp.float32)


def _kept(*args, **options) -> bool:
    return is_matmul(*args, **options) or is_in_chunks(*args, **options)


class _Block(nn.Module):
    heads: int
    mlp_width: int
    dtype: str
    attention: Attention

    @nn.compact
    def __call__(self, x, modulation, mask):
        """One block on tokens x [n, width] with its modulation [6, width]."""
        n, width = x.shape
        dense = lambda n, name: Dense(n, dtype=self.dtype, kernel_init=_xavier, name=name)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation

        qkv = dense(3 * width, "qkv")(_modulate(x, shift_a, scale_a))
        q, k, v = (a.reshape(n, self.heads, -1) for a in jnp.split(qkv, 3, axis=1))
        attended = attend(q, k, v, mask, self.attention)
        x = x + gate_a[None] * dense(width, "attention_out")(attended.reshape(n, width))

        hidden = dense(self.mlp_width, "mlp_in")(_modulate(x, shift_m, scale_m))
        x = x + gate_m[None] * dense(width, "mlp_out")(_gelu(hidden))
        return x.astype(jnp.float32), None


def _modulate(x, shift, scale):
    return layer_norm(x) * (1 + scale)[None] + shift[None]


def _gelu(x):
    """Tanh-GELU in its equal form with one sigmoid."""
    return x * jax.nn.sigmoid(np.sqrt(8 / np.pi).astype(np.float32) * (x + 0.044715 * x**3))

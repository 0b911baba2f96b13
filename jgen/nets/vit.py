"""Vision transformer on a three-dimensional grid with adaLN-zero conditioning.

The shape network of CaloDREAM (2405.09629, Sec. 3.2), a DiT (2212.09748) on calorimeter patches.
"""

from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.nets.dense import Dense
from jgen.nets.embeddings import sinusoidal
from jgen.nets.network import Network, from_linen

_xavier = nn.initializers.xavier_uniform()
_zeros = nn.initializers.zeros
_normal = nn.initializers.normal(0.02)


@dataclass(frozen=True)
class ViTConfig:
    """Sizes of the network; defaults are the published ones for CaloChallenge dataset 2."""

    patch: tuple[int, int, int] = (3, 16, 1)
    """Voxels in a patch (layer, angle, radius)."""
    width: int = 480
    """Features of a token."""
    heads: int = 6
    """Attention heads."""
    blocks: int = 6
    """Transformer blocks."""
    mlp_width: int = 1920
    """Hidden features of a block's dense network."""
    time_scale: float = 1.0
    """Factor on t before its sinusoidal embedding. The published network has 1 (DiT has 1000), so
    that its largest phase is one radian and it sees little more than (t, t^2)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of matrix products; parameters, norms, softmax and output stay in float32."""


def patchify(
    x: Float[Array, "z a r"], patch: tuple[int, int, int]
) -> Float[Array, "tokens features"]:
    """Cut a grid into patches; tokens run over (z, a, r) with r fastest, features likewise."""
    (z, a, r), (pz, pa, pr) = x.shape, patch
    x = x.reshape(z // pz, pz, a // pa, pa, r // pr, pr)
    return x.transpose(0, 2, 4, 1, 3, 5).reshape(-1, pz * pa * pr)


def unpatchify(
    tokens: Float[Array, "tokens features"],
    shape: tuple[int, int, int],
    patch: tuple[int, int, int],
) -> Float[Array, "z a r"]:
    """Inverse of `patchify`."""
    (z, a, r), (pz, pa, pr) = shape, patch
    x = tokens.reshape(z // pz, a // pa, r // pr, pz, pa, pr)
    return x.transpose(0, 3, 1, 4, 2, 5).reshape(shape)


def _layer_norm(x):
    """Normalisation without affine parameters, statistics in float32."""
    x = x.astype(jnp.float32)
    mean = jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean((x - mean) ** 2, axis=-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-6)


@jax.checkpoint
def _gelu(x):
    """Tanh-GELU in its equal form with one sigmoid.

    It is computed again in the backward pass, for which a CPU needs less time than for moving the
    intermediate results through memory.
    """
    return x * jax.nn.sigmoid(np.sqrt(8 / np.pi).astype(np.float32) * (x + 0.044715 * x**3))


def _modulate(x, shift, scale):
    return _layer_norm(x) * (1 + scale)[None] + shift[None]


class _Block(nn.Module):
    config: ViTConfig

    @nn.compact
    def __call__(self, x, c):
        """One transformer block on tokens x [n, width] under the condition c [width]."""
        cfg, dtype = self.config, jnp.dtype(self.config.dtype)
        dense = lambda n, name: Dense(n, dtype=dtype, kernel_init=_xavier, name=name)
        modulation = Dense(6 * cfg.width, kernel_init=_zeros, name="modulation")(c)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = jnp.split(modulation, 6)

        qkv = dense(3 * cfg.width, "qkv")(_modulate(x, shift_a, scale_a))
        q, k, v = jnp.moveaxis(qkv.reshape(x.shape[0], 3, cfg.heads, -1), 1, 0)
        attended = jax.nn.dot_product_attention(q, k, v).reshape(x.shape)
        x = x + gate_a[None] * dense(cfg.width, "attention_out")(attended)

        hidden = dense(cfg.mlp_width, "mlp_in")(_modulate(x, shift_m, scale_m))
        x = x + gate_m[None] * dense(cfg.width, "mlp_out")(_gelu(hidden))
        return x.astype(jnp.float32), None


class _ViT(nn.Module):
    config: ViTConfig

    @nn.compact
    def __call__(self, t, x, cond):
        """Velocity at time t of the grid x under the condition cond, all of one event."""
        cfg, dtype = self.config, jnp.dtype(self.config.dtype)
        embed = lambda n, name, init=_normal: Dense(n, kernel_init=init, name=name)
        tokens = Dense(cfg.width, dtype=dtype, kernel_init=_xavier, name="patch_in")(
            patchify(x, cfg.patch)
        ).astype(jnp.float32)
        tokens = tokens + self._positions(x.shape)

        time = sinusoidal(cfg.time_scale * t, 256)
        time = embed(cfg.width, "time_out")(nn.silu(embed(cfg.width, "time_in")(time)))
        energy = nn.silu(embed(cfg.width, "cond_in", _xavier)(cond))
        c = nn.silu(time + embed(cfg.width, "cond_out", _xavier)(energy))

        blocks = nn.scan(
            _Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=cfg.blocks,
        )
        tokens, _ = blocks(cfg, name="blocks")(tokens, c)

        modulation = Dense(2 * cfg.width, kernel_init=_zeros, name="modulation")(c)
        tokens = _modulate(tokens, *jnp.split(modulation, 2))
        out = Dense(np.prod(cfg.patch), dtype=dtype, kernel_init=_zeros, name="patch_out")(tokens)
        return unpatchify(out.astype(jnp.float32), x.shape, cfg.patch)

    def _positions(self, shape):
        """Fourier features of the patch indices with learned frequencies [tokens, width].

        Frequencies are real numbers, as published, so that the code is not periodic in the angle.
        """
        counts = [n // p for n, p in zip(shape, self.config.patch, strict=True)]
        grid = np.meshgrid(*[np.arange(n) / n for n in counts], indexing="ij")
        sizes = np.diff([self.config.width // 2 * i // 3 for i in range(4)])
        parts = []
        for axis, name in ((2, "radius"), (1, "angle"), (0, "layer")):
            w = self.param(f"frequencies_{name}", nn.initializers.normal(1.0), (sizes[axis],))
            index = jnp.asarray(grid[axis].reshape(-1, 1), jnp.float32)
            phase = 2 * np.pi * index * w[None]
            parts += [jnp.sin(phase), jnp.cos(phase)]
        return jnp.concatenate(parts, axis=1)


def vit(shape: tuple[int, int, int], num_cond: int, config: ViTConfig) -> Network:
    """Velocity network (t, x [*shape], cond [num_cond]) -> [*shape].

    The output is zero at initialisation.

    Raises:
      ValueError: if the patch does not divide the grid, or heads the width, or the width is odd.
    """
    if any(n % p for n, p in zip(shape, config.patch, strict=True)):
        raise ValueError(f"patch {config.patch} does not divide the grid {shape} on every axis")
    if config.width % config.heads or config.width % 2:
        raise ValueError(
            f"width {config.width} must be even and a multiple of heads, {config.heads}"
        )
    example = (
        jax.ShapeDtypeStruct((), jnp.float32),
        jax.ShapeDtypeStruct(shape, jnp.float32),
        jax.ShapeDtypeStruct((num_cond,), jnp.float32),
    )
    return from_linen(_ViT(config), *example)

"""Vision transformer on a three-dimensional grid with adaLN-zero conditioning.

The shape network of CaloDREAM (2405.09629, Sec. 3.2), a DiT (2212.09748) on calorimeter patches.
"""

from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Real

from jgen.checks import check_cond, check_literals, check_shape
from jgen.nets.dense import Dense
from jgen.nets.network import Network, from_linen
from jgen.nets.transformers.dit import DiT, check_transformer

Shape = tuple[int, ...]


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
    attention: Literal["xla", "cudnn"] = "xla"
    """Implementation of attention; cudnn needs an NVIDIA GPU, bfloat16, and at most 128 features a
    head, a multiple of 8."""


def patchify(
    x: Real[Array, "*channels z a r"], patch: tuple[int, int, int]
) -> Real[Array, "tokens features"]:
    """Cut a grid into patches; tokens and features run over (z, a, r), r faster, channels fastest.

    Args:
      x: [z, a, r], or [channels, z, a, r].
      patch: sizes of a patch on the last three axes.
    """
    (z, a, r), (pz, pa, pr) = x.shape[-3:], patch
    x = x.reshape(-1, z // pz, pz, a // pa, pa, r // pr, pr)
    tokens = (z // pz) * (a // pa) * (r // pr)
    return x.transpose(1, 3, 5, 2, 4, 6, 0).reshape(tokens, -1)


def unpatchify(
    tokens: Real[Array, "tokens features"], shape: Shape, patch: tuple[int, int, int]
) -> Real[Array, "*channels z a r"]:
    """Inverse of `patchify` for a grid of the given shape."""
    (z, a, r), (pz, pa, pr) = shape[-3:], patch
    x = tokens.reshape(z // pz, a // pa, r // pr, pz, pa, pr, -1)
    return x.transpose(6, 0, 3, 1, 4, 2, 5).reshape(shape)


class _ViT(nn.Module):
    config: ViTConfig

    @nn.compact
    def __call__(self, t, x, cond):
        """Velocity at time t of the grid x under the condition cond, all of one event."""
        cfg, xavier = self.config, nn.initializers.xavier_uniform()
        patches = patchify(x, cfg.patch)
        embed = Dense(cfg.width, dtype=cfg.dtype, kernel_init=xavier, name="patch_in")
        tokens = embed(patches).astype(jnp.float32) + self._positions(x.shape[-3:])
        trunk = DiT(
            patches.shape[-1],
            cfg.heads,
            cfg.blocks,
            cfg.mlp_width,
            cfg.time_scale,
            cfg.dtype,
            cfg.attention,
            name="trunk",
        )
        return unpatchify(trunk(tokens, t, cond), x.shape, cfg.patch)

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


def _check_attention(config: ViTConfig) -> None:
    features = config.width // config.heads
    half = jnp.dtype(config.dtype) in (jnp.bfloat16, jnp.float16)
    if config.attention == "cudnn" and not (half and features <= 128 and features % 8 == 0):
        raise ValueError(
            "cudnn attention takes bfloat16 and at most 128 features a head, a multiple of 8, got "
            f"{config.dtype} and {features}; set dtype to bfloat16 or leave attention at xla"
        )


def vit(shape: Shape, num_cond: int, config: ViTConfig) -> Network:
    """Velocity network (t, x [*shape], cond [num_cond]) -> [*shape].

    The output is zero at initialisation.

    Args:
      shape: of the grid, (z, a, r) or (channels, z, a, r).
      num_cond: numbers in the condition.
      config: sizes.

    Raises:
      ValueError: for sizes that are no positive whole numbers, if the patch does not divide the
        grid, or heads the width, or the width is odd, or cudnn attention does not take these sizes
        or this precision.
    """
    shape, patch = check_shape(shape), check_shape(config.patch, "patch")
    check_cond(num_cond)
    check_literals(config)
    if (
        len(patch) != 3
        or len(shape) not in (3, 4)
        or any(n % p for n, p in zip(shape[-3:], patch, strict=True))
    ):
        raise ValueError(f"patch {config.patch} does not divide the grid {shape} on every axis")
    check_transformer(
        config.width, config.heads, config.blocks, config.mlp_width, config.time_scale
    )
    _check_attention(config)
    example = (
        jax.ShapeDtypeStruct((), jnp.float32),
        jax.ShapeDtypeStruct(tuple(shape), jnp.float32),
        jax.ShapeDtypeStruct((num_cond,), jnp.float32),
    )
    return from_linen(_ViT(config), *example, num_cond=num_cond)

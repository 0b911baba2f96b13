"""Transformer velocity network over a sequence of numbers, all of them at once."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from jgen.checks import check_cond, check_sizes
from jgen.nets.dense import Dense
from jgen.nets.network import Network, from_linen
from jgen.nets.transformers.dit import DiT, check_transformer


@dataclass(frozen=True)
class SequenceConfig:
    """Sizes of the network."""

    width: int = 128
    """Features of a token."""
    heads: int = 4
    """Attention heads."""
    blocks: int = 4
    """Transformer blocks."""
    mlp_width: int = 512
    """Hidden features of a block's dense network."""
    time_scale: float = 1000.0
    """Factor on t before its sinusoidal embedding."""


class _Sequence(nn.Module):
    config: SequenceConfig

    @nn.compact
    def __call__(self, t, x, cond):
        cfg = self.config
        positions = self.param("positions", nn.initializers.normal(1.0), (x.shape[0], cfg.width))
        tokens = Dense(cfg.width, name="value")(x[:, None]) + positions
        trunk = DiT(1, cfg.heads, cfg.blocks, cfg.mlp_width, cfg.time_scale, name="trunk")
        return trunk(tokens, t, jnp.ravel(cond))[:, 0]


def sequence(num: int, num_cond: int, config: SequenceConfig) -> Network:
    """Velocity network (t, x [num], cond of num_cond numbers) -> [num].

    Each number is a token, its value and a learned position; every token sees every other. The
    output is zero at initialisation.

    Raises:
      ValueError: for sizes that are no positive whole numbers, or if heads do not divide the
        width, or the width is odd.
    """
    check_sizes(num=num)
    check_cond(num_cond)
    check_transformer(
        config.width, config.heads, config.blocks, config.mlp_width, config.time_scale
    )
    example = (
        jax.ShapeDtypeStruct((), jnp.float32),
        jax.ShapeDtypeStruct((num,), jnp.float32),
        jax.ShapeDtypeStruct((num_cond,), jnp.float32),
    )
    return from_linen(_Sequence(config), *example, num_cond=num_cond)

"""Residual convolutional network of a three-dimensional grid, the strictest official classifier.

The ResNet-18 (1512.03385) with which the CaloChallenge (2410.21611) compares showers. Deviations:

- Group norm (1803.08494) inside the residual branches in place of batch norm, whose running
  averages a pair of pure functions cannot carry.
- No norm on the stem and on the shortcuts, only biases. A norm over one event divides its total
  energy out, and a network with norms there could not tell a shower from the same one scaled; a
  batch norm can. Shortcuts without a norm carry the scale to the output.
- The condition is not batch normalised either: hand it over in order of one.
"""

import functools
import math
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.checks import check_depths, check_shape, check_sizes, check_widths
from jgen.nets.convolution import convolve, padded, windows
from jgen.nets.dense import Dense, fan_in_uniform
from jgen.nets.network import Network, from_linen
from jgen.random import normal


@dataclass(frozen=True)
class ResNetConfig:
    """Sizes of the network; defaults are the official ones."""

    planes: tuple[int, ...] = (32, 64, 64, 128)
    """Channels of each stage; every stage but the first halves the grid."""
    blocks: int = 2
    """Residual blocks in a stage, two convolutions each."""
    groups: int = 8
    """Groups of channels that are normalised together; divides all of `planes`."""
    periodic: bool = False
    """Let windows reach around the angle, the second axis; the official network pads with zeros."""


def _kaiming(key, shape):
    """Normal of variance 2 over the outputs that an input reaches, for a ReLU (1502.01852)."""
    return normal(key, shape) * (2 / (math.prod(shape[:-2]) * shape[-1])) ** 0.5


def max_pool(x: Float[Array, "z a r c"], periodic: bool = False) -> Float[Array, "z2 a2 r2 c"]:
    """Largest of 3 x 3 x 3 voxels at stride 2; `x` must not be negative, as the padding is zero."""
    for axis in range(3):
        wider = padded(x, axis, 1, 1, periodic and axis == 1)
        x = functools.reduce(jnp.maximum, windows(wider, axis, 3, 2))
    return x


class _Conv(nn.Module):
    features: int
    size: int
    stride: int = 1
    use_bias: bool = False
    periodic: bool = False

    @nn.compact
    def __call__(self, x):
        shape = (self.size, self.size, self.size, x.shape[-1], self.features)
        kernel, stride = self.param("kernel", _kaiming, shape), (self.stride,) * 3
        y = convolve(x, kernel, stride, (self.size // 2,) * 3, self.periodic)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,))[None, None, None]
        return y


class _Block(nn.Module):
    features: int
    stride: int
    config: ResNetConfig

    @nn.compact
    def __call__(self, x):
        cfg = self.config
        # An event has no batch axis, so all axes belong to its statistics.
        norm = lambda: nn.GroupNorm(cfg.groups, epsilon=1e-5, reduction_axes=(0, 1, 2, 3))
        conv = functools.partial(_Conv, self.features, periodic=cfg.periodic)
        y = nn.relu(norm()(conv(3, self.stride)(x)))
        y = norm()(conv(3)(y))
        if self.stride > 1 or x.shape[-1] != self.features:
            x = conv(1, self.stride, use_bias=True, name="shortcut")(x)
        return nn.relu(x + y)


class _ResNet(nn.Module):
    config: ResNetConfig

    @nn.compact
    def __call__(self, x, cond):
        cfg = self.config
        stem = _Conv(cfg.planes[0], 7, 2, use_bias=True, periodic=cfg.periodic, name="stem")
        x = max_pool(nn.relu(stem(x[..., None])), cfg.periodic)
        for stage, features in enumerate(cfg.planes):
            for block in range(cfg.blocks):
                x = _Block(features, 2 if stage > 0 and block == 0 else 1, cfg)(x)
        features = jnp.concatenate([jnp.mean(x, axis=(0, 1, 2)), cond])
        bias_init = fan_in_uniform(len(features))
        head = Dense(1, kernel_init=fan_in_uniform(), bias_init=bias_init, name="head")
        return head(features)


def resnet3d(shape: tuple[int, int, int], *, config: ResNetConfig | None = None) -> Network:
    """Network (x [*shape], cond [1]) -> logit [1] of one event.

    A 7^3 stem and a 3^3 max pool, both at stride 2, stages of residual blocks, the mean over the
    grid; the condition, log10 of the incident energy, joins before the last layer.

    Args:
      shape: grid (layer, angle, radius).
      config: sizes; the official ones unless given.

    Raises:
      ValueError: if sizes are no positive whole numbers or the groups do not divide the channels.
    """
    config = config or ResNetConfig()
    shape = check_shape(shape)
    if len(shape) != 3:
        raise ValueError(f"the grid has three axes (layer, angle, radius), got the shape {shape}")
    check_widths(1, planes=config.planes)
    check_sizes(groups=config.groups)
    check_depths(blocks=config.blocks)
    if any(features % config.groups for features in config.planes):
        raise ValueError(f"planes {config.planes} must be multiples of groups, {config.groups}")
    return from_linen(
        _ResNet(config),
        jax.ShapeDtypeStruct(shape, jnp.float32),
        jax.ShapeDtypeStruct((1,), jnp.float32),
    )

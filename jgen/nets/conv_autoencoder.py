"""Convolutional autoencoder of showers on a cylindrical grid (layer, angle, radius).

The encoder and decoder of CaloDREAM's latent diffusion (2405.09629, Sec. 3.3, App. A.2, Tab. 4;
block structure as in the published code). Deviations, all made so that a rotated shower is encoded
and decoded as the same shower rotated:

- The angle is periodic in every convolution; the paper pads it with zeros.
- Feature maps are normalised over channels and voxels of one event, without state, where the
  published code has BatchNorm, whose running averages a pair of pure functions cannot carry.
- Encoder and decoder have a condition network each; the paper's share one.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jgen.checks import (
    LARGEST_SIZE,
    check_cond,
    check_literals,
    check_shape,
    check_sizes,
    check_whole,
    check_wholes,
)
from jgen.nets.convolution import NONE, ONE, Triple, convolve, transposed_convolve
from jgen.nets.dense import Dense, fan_in_uniform
from jgen.nets.network import Network, from_linen


@dataclass(frozen=True)
class ConvAutoencoderConfig:
    """Sizes of the autoencoder; defaults are the published ones for CaloChallenge dataset 2.

    Dataset 3 has kernel (5, 2, 3) and stride (2, 2, 1). Its latent shape is then (2, 21, 26, 16);
    the 9 layers of Tab. 4 do not follow from that stride.
    """

    channels: int = 64
    """Features of a voxel inside the network."""
    latent_channels: int = 2
    """Features of a latent cell."""
    kernel: Triple = (3, 2, 1)
    """Window (layer, angle, radius) of the convolution that makes the grid smaller."""
    stride: Triple = (3, 2, 1)
    """Its step; the angular one has to divide the number of angular bins."""
    angular_padding: int = 1
    """Voxels by which its first angular window starts to the left of voxel 0."""
    cond_width: int = 100
    """Features of the embedded condition."""
    repeat_seam: bool = True
    """Hand out the first angular latent cell once more at the end; decoding drops that copy. It
    gives the published shapes, 9 angular cells out of 16 voxels: with padding 1 the last window
    holds the same voxels as the first. The copy has its own noise and its own term in the KL."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of convolutions; parameters, norms and outputs stay in float32."""


class ConvAutoencoder(NamedTuple):
    """Networks of one shower x [layers, angles, radii] and its latent r [*latent_shape].

    Attributes:
      encoder: apply(params, x, cond) -> (mean, log_variance) of r.
      decoder: apply(params, r, cond) -> one number a voxel, the logit of a Bernoulli likelihood.
      latent_shape: (channels, layers, angles, radii) of r.
    """

    encoder: Network
    decoder: Network
    latent_shape: tuple[int, int, int, int]


class _Conv(nn.Module):
    """Convolution of the features and of two more channels, the positions of layer and radius.

    The positions (1807.03247) run from 0 to 1 and break translation symmetry there; the angle has
    none. Their share of the result is the same for all events, so it is computed by itself: under
    vmap once a batch.
    """

    features: int
    kernel: Triple = ONE
    stride: Triple = ONE
    padding: Triple = NONE
    transposed: bool = False
    use_bias: bool = True
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        num, dtype = x.shape[-1], jnp.dtype(self.dtype)
        # Inputs that one output sees; transposed, windows overlap only if longer than the stride.
        fan_in = (num + 2) * int(np.prod(self.kernel))
        fan_in = max(1, fan_in // int(np.prod(self.stride))) if self.transposed else fan_in
        init = _flat(fan_in_uniform(fan_in))
        # The input's channels are the axis before the last, or the last one if transposed.
        channels = (self.features, num + 2) if self.transposed else (num + 2, self.features)
        kernel = self.param("kernel", init, (*self.kernel, *channels), jnp.float32)
        for_x, for_positions = jnp.split(kernel, [num], axis=4 if self.transposed else 3)
        run = transposed_convolve if self.transposed else convolve

        def conv(x, kernel):
            y = run(x.astype(dtype), kernel.astype(dtype), self.stride, self.padding)
            return y.astype(jnp.float32)

        y = conv(x, for_x)
        constant = conv(jnp.asarray(_positions(x.shape[:3])), for_positions)
        if self.use_bias:
            bias = self.param("bias", init, (self.features,), jnp.float32)
            constant = constant + bias[None, None, None]
        return y + constant


def _flat(init):
    """Draw flat and reshape: XLA on a CPU compiles draws of five axes many times as slowly."""
    return lambda key, shape, dtype: init(key, (math.prod(shape),), dtype).reshape(shape)


def _positions(shape):
    layer, _, radius = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij")
    return np.stack([layer, radius], axis=-1).astype(np.float32)


class _Norm(nn.Module):
    """Group normalisation (1803.08494) in one group, channels and voxels of one event together.

    A norm of each channel by itself would take away again what the condition has added to it.
    """

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        x = x - jnp.mean(x)
        x = x * jax.lax.rsqrt(jnp.mean(x**2) + 1e-5)
        return x * scale[None, None, None] + bias[None, None, None]


class _Condition(nn.Module):
    width: int

    @nn.compact
    def __call__(self, cond):
        if cond is None:
            return None
        init = lambda n: {"kernel_init": fan_in_uniform(), "bias_init": fan_in_uniform(n)}
        hidden = nn.relu(Dense(self.width, **init(cond.shape[-1]), name="in")(cond))
        return Dense(self.width, **init(self.width), name="out")(hidden)


class _Features(nn.Module):
    """Two 3 x 3 x 3 convolutions, each with norm and SiLU; the condition c enters the first."""

    config: ConvAutoencoderConfig
    use_bias: bool = True

    @nn.compact
    def __call__(self, x, c):
        cfg = self.config
        for i in range(2):
            x = _Conv(
                cfg.channels,
                kernel=(3, 3, 3),
                padding=(1, 1, 1),
                use_bias=self.use_bias,
                dtype=cfg.dtype,
                name=f"conv_{i}",
            )(x)
            if i == 0 and c is not None:
                init = fan_in_uniform(c.shape[-1])
                shift = Dense(cfg.channels, kernel_init=init, bias_init=init, name="cond")(c)
                x = x + shift[None, None, None]
            x = nn.silu(_Norm(name=f"norm_{i}")(x))
        return x


def _resizing(config, **options):
    """The convolution that changes the grid."""
    return _Conv(
        config.channels,
        kernel=config.kernel,
        stride=config.stride,
        padding=(0, config.angular_padding, 0),
        dtype=config.dtype,
        **options,
    )


class _Encoder(nn.Module):
    config: ConvAutoencoderConfig

    @nn.compact
    def __call__(self, x, cond=None):
        """Mean and log-variance of the latent of the shower x."""
        cfg = self.config
        c = _Condition(cfg.cond_width, name="condition")(cond)
        x = _Features(cfg, name="features_0")(x[..., None], c)
        x = _resizing(cfg, name="down_0")(x)
        x = _Features(cfg, name="features_1")(x, c)
        x = _Conv(cfg.channels, dtype=cfg.dtype, name="down_1")(x)
        x = _Conv(cfg.latent_channels, dtype=cfg.dtype, name="bottleneck")(x)
        init = fan_in_uniform(cfg.latent_channels)
        x = Dense(2 * cfg.latent_channels, kernel_init=init, bias_init=init, name="latent")(x)
        x = jnp.moveaxis(x, -1, 0)
        if cfg.repeat_seam:
            x = jnp.concatenate([x, x[:, :, :1]], axis=2)
        return x[: cfg.latent_channels], x[cfg.latent_channels :]


class _Decoder(nn.Module):
    config: ConvAutoencoderConfig

    @nn.compact
    def __call__(self, r, cond=None):
        """Number a voxel of the latent r."""
        cfg = self.config
        c = _Condition(cfg.cond_width, name="condition")(cond)
        x = jnp.moveaxis(r[:, :, :-1] if cfg.repeat_seam else r, 0, -1)
        x = _Conv(cfg.channels, dtype=cfg.dtype, name="bottleneck")(x)
        x = _Conv(cfg.channels, dtype=cfg.dtype, name="up_1")(x)
        # Without bias, as published.
        x = _Features(cfg, use_bias=False, name="features_1")(x, c)
        x = _resizing(cfg, transposed=True, name="up_0")(x)
        x = _Features(cfg, use_bias=False, name="features_0")(x, c)
        return _Conv(1, dtype=cfg.dtype, name="out")(x)[..., 0]


def conv_autoencoder(
    shape: Triple, num_cond: int, config: ConvAutoencoderConfig
) -> ConvAutoencoder:
    """Encoder and decoder of showers of one `shape` under conditions [num_cond], 0 for none.

    Rotating x by the angular stride rotates r by one cell, and the other way round, exactly. (With
    `repeat_seam` that is said of r without its last angular cell.)

    Args:
      shape: (layers, angles, radii) of a shower.
      num_cond: length of the condition; with 0 it has to be None.
      config: sizes.

    Raises:
      ValueError: for sizes that are no positive whole numbers, or if windows of `config` do not
        tile the shape, which the decoder could then not give back.
    """
    check_cond(num_cond)
    latent_shape = _latent_shape(check_shape(shape), config)
    cond = [jax.ShapeDtypeStruct((num_cond,), jnp.float32)] if num_cond else []
    x, r = (jax.ShapeDtypeStruct(s, jnp.float32) for s in (shape, latent_shape))
    return ConvAutoencoder(
        from_linen(_Encoder(config), x, *cond, num_cond=num_cond),
        from_linen(_Decoder(config), r, *cond, num_cond=num_cond),
        latent_shape,
    )


def _latent_shape(shape, config):
    if len(shape) != 3:
        raise ValueError(f"a shower has the axes (layer, angle, radius), got the shape {shape}")
    check_literals(config)
    check_sizes(channels=config.channels, latent_channels=config.latent_channels)
    check_sizes(cond_width=config.cond_width)
    check_wholes(1, LARGEST_SIZE, kernel=config.kernel, stride=config.stride)
    check_whole(0, LARGEST_SIZE, angular_padding=config.angular_padding)
    if not len(config.kernel) == len(config.stride) == 3:
        raise ValueError(f"kernel and stride have three axes, got {config.kernel}, {config.stride}")
    counts = []
    for axis, name in ((0, "layers"), (2, "radii")):
        rest = shape[axis] - config.kernel[axis]
        if rest < 0 or rest % config.stride[axis]:
            raise ValueError(
                f"{shape[axis]} {name} are not kernel + a multiple of stride, with kernel "
                f"{config.kernel[axis]} and stride {config.stride[axis]}: the last ones would be "
                "lost; choose others"
            )
        counts.append(rest // config.stride[axis] + 1)
    if shape[1] % config.stride[1]:
        raise ValueError(
            f"the angular stride {config.stride[1]} does not divide {shape[1]} angles; choose one "
            "that does, so that the latent cells close around the axis"
        )
    angles = shape[1] // config.stride[1] + config.repeat_seam
    return (config.latent_channels, counts[0], angles, counts[1])

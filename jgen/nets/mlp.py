"""Fully connected networks."""

import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jgen.checks import (
    LARGEST_SIZE,
    check_cond,
    check_fraction,
    check_shape,
    check_sizes,
    check_whole,
    check_widths,
)
from jgen.nets.dense import Dense
from jgen.nets.embeddings import sinusoidal
from jgen.nets.network import Network, from_linen
from jgen.typing import Key


class MLP(nn.Module):
    """Dense layers with an activation and optional dropout between them.

    Attributes:
      features: widths of the hidden layers.
      num_outputs: width of the last layer, which has no activation.
      activation: between the layers.
      dropout: fraction of hidden units dropped where `kept` says which.
      zero_output: start the last layer at zero.
      dtype: of the matrix products.
    """

    features: tuple[int, ...]
    num_outputs: int
    activation: Callable[[Array], Array] = nn.silu
    dropout: float = 0.0
    zero_output: bool = False
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "... n_in"], *, kept: Sequence[Array] = ()
    ) -> Float[Array, "... n_out"]:
        """Apply the network, with dropout where there are `dropout_masks`."""
        for i, width in enumerate(self.features):
            x = self.activation(Dense(width, dtype=self.dtype)(x))
            if len(kept):
                x = jnp.where(kept[i], x / (1 - self.dropout), 0)
        init = nn.initializers.zeros if self.zero_output else nn.initializers.lecun_normal()
        return Dense(self.num_outputs, dtype=self.dtype, kernel_init=init)(x)


def dropout_masks(key: Key, hidden: Sequence[int], dropout: float) -> list[Bool[Array, " _width"]]:
    """Which units of the hidden layers are kept in one event; no list of them without dropout."""
    if dropout == 0:
        return []
    keep = lambda i, width: jax.random.bernoulli(jax.random.fold_in(key, i), 1 - dropout, (width,))
    return [keep(i, width) for i, width in enumerate(hidden)]


class _VelocityMLP(nn.Module):
    features: tuple[int, ...]
    time_features: int

    @nn.compact
    def __call__(self, t, x, cond=None):
        # Times in [0, 1] cover the frequencies of the embedding only if scaled up.
        inputs = [x, sinusoidal(1000 * t, self.time_features)]
        if cond is not None:
            inputs.append(jnp.ravel(cond))
        return MLP(self.features, x.shape[-1], zero_output=True)(jnp.concatenate(inputs))


def velocity_mlp(
    num_features: int,
    num_cond: int = 0,
    *,
    hidden: tuple[int, ...] = (128, 128, 128),
    time_features: int = 32,
) -> Network:
    """Velocity field (t, x [num_features], cond [num_cond]) -> [num_features] of low dimension.

    Args:
      num_features: of an event.
      num_cond: numbers of its condition.
      hidden: widths of the layers.
      time_features: sines and cosines of the time; the field then starts at zero. 0 shows the
        network the time as it is: the field is smooth in it, and few steps of a solver are enough.
        Training a continuous flow by its likelihood makes use of a solver that is too coarse.

    Raises:
      ValueError: for sizes that are no positive whole numbers, or time_features that are odd.
    """
    check_sizes(num_features=num_features)
    check_cond(num_cond)
    check_widths(hidden=hidden)
    check_whole(0, LARGEST_SIZE, time_features=time_features)
    if time_features % 2:
        raise ValueError(f"time_features must be even, got {time_features}")
    if time_features == 0:
        return _smooth_velocity(num_features, num_cond, hidden)
    example = [jax.ShapeDtypeStruct((), jnp.float32)]
    example.append(jax.ShapeDtypeStruct((num_features,), jnp.float32))
    if num_cond:
        example.append(jax.ShapeDtypeStruct((num_cond,), jnp.float32))
    module = _VelocityMLP(tuple(hidden), time_features)
    return from_linen(module, *example, num_cond=num_cond)


def _smooth_velocity(num_features: int, num_cond: int, hidden: tuple[int, ...]) -> Network:
    dense = mlp(num_features + 1 + num_cond, num_features, hidden=hidden)

    def apply(params, t, x, cond=None):
        rest = [] if cond is None else [jnp.ravel(cond)]
        return dense.apply(params, jnp.concatenate([jnp.append(x, t), *rest]))

    return Network(dense.init, apply, num_cond)


def encoder_mlp(
    shape: int | tuple[int, ...], num_latent: int, num_cond: int = 0, *, hidden: tuple[int, ...]
) -> Network:
    """Encoder (x of `shape`, cond [num_cond]) -> (mean, log_variance), each [num_latent]."""
    check_sizes(num_latent=num_latent)
    check_cond(num_cond)
    dense = mlp(math.prod(check_shape(shape)) + num_cond, 2 * num_latent, hidden=hidden)

    def apply(params, x, cond=None):
        return tuple(jnp.split(dense.apply(params, joined(x, cond)), 2))

    return Network(dense.init, apply, num_cond)


def decoder_mlp(
    num_latent: int,
    shape: int | tuple[int, ...],
    num_cond: int = 0,
    *,
    hidden: tuple[int, ...],
    output: Callable[[Array], Array] = lambda a: a,
) -> Network:
    """Decoder (r [num_latent], cond [num_cond]) -> numbers of `shape`, after `output`.

    They are the parameters of a likelihood, or an event: with `output=jax.nn.softplus` a positive
    one.
    """
    shape = check_shape(shape)
    check_sizes(num_latent=num_latent)
    check_cond(num_cond)
    dense = mlp(num_latent + num_cond, math.prod(shape), hidden=hidden)

    def apply(params, r, cond=None):
        return output(dense.apply(params, joined(r, cond))).reshape(shape)

    return Network(dense.init, apply, num_cond)


def joined(*arrays: Array | None) -> Float[Array, " n"]:
    """All numbers of the arrays in one vector."""
    return jnp.concatenate([jnp.ravel(a) for a in arrays if a is not None])


def mlp(
    num_inputs: int,
    num_outputs: int,
    *,
    hidden: tuple[int, ...],
    activation: Callable[[Array], Array] = nn.silu,
    dropout: float = 0.0,
) -> Network:
    """Plain network (x [num_inputs], kept=()) -> [num_outputs]; `dropout_masks` are kept units.

    Raises:
      ValueError: for sizes that are no positive whole numbers, or a dropout outside of [0, 1).
    """
    check_sizes(num_inputs=num_inputs, num_outputs=num_outputs)
    check_widths(hidden=hidden)
    check_fraction(dropout=dropout)
    module = MLP(tuple(hidden), num_outputs, activation, dropout)
    network = from_linen(module, jax.ShapeDtypeStruct((num_inputs,), jnp.float32))

    def apply(params, x, kept=()):
        return module.apply({"params": params}, x, kept=kept)

    return Network(network.init, apply, 0)

"""Networks that make the parameters of a flow's layers; their outputs are zero at the start.

A layer whose parameters are zero is the identity here. Deep flows that start elsewhere multiply
many random scales and may not train at all.
"""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.checks import check_cond, check_known, check_sizes, check_widths
from jgen.nets.convolution import padded, windows
from jgen.nets.dense import Dense
from jgen.nets.mlp import MLP
from jgen.nets.network import Network, from_linen

Padding = Literal["zero", "periodic", "around"]


class _Conditioner(nn.Module):
    features: tuple[int, ...]
    num_outputs: int
    activation: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x, cond=None):
        inputs = [jnp.ravel(x)] if cond is None else [jnp.ravel(x), jnp.ravel(cond)]
        network = MLP(self.features, self.num_outputs, self.activation, zero_output=True)
        return network(jnp.concatenate(inputs))


def conditioner(
    num_inputs: int,
    num_outputs: int,
    num_cond: int = 0,
    *,
    hidden: tuple[int, ...] = (64, 64),
    activation: Callable[[Array], Array] = nn.silu,
) -> Network:
    """Dense network (x, cond=None) -> [num_outputs], x and cond raveled and concatenated.

    Raises:
      ValueError: for sizes that are no positive whole numbers.
    """
    check_sizes(num_inputs=num_inputs, num_outputs=num_outputs)
    check_cond(num_cond)
    check_widths(hidden=hidden)
    example = [jax.ShapeDtypeStruct((num_inputs,), jnp.float32)]
    if num_cond:
        example.append(jax.ShapeDtypeStruct((num_cond,), jnp.float32))
    module = _Conditioner(tuple(hidden), num_outputs, activation)
    return from_linen(module, *example, num_cond=num_cond)


class _ImageConditioner(nn.Module):
    features: tuple[int, ...]
    num_outputs: int
    padding: Padding

    @nn.compact
    def __call__(self, x, cond=None):
        # A convolution is one matrix product of the nine neighbours of every pixel.
        for i, width in enumerate(self.features):
            x = Dense(width, name=f"convolution_{i}")(_neighbours(x, self.padding))
            if i == 0 and cond is not None:
                cond = cond if jnp.ndim(cond) == 3 else jnp.ravel(cond)
                shift = Dense(width, use_bias=False, name="condition")(cond)
                x = x + jnp.broadcast_to(shift, x.shape)
            x = nn.silu(x)
        last = Dense(self.num_outputs, kernel_init=nn.initializers.zeros, name="out")
        return last(_neighbours(x, self.padding))


def _neighbours(x: Float[Array, "h w c"], padding: Padding) -> Float[Array, "h w c9"]:
    for axis in range(2):
        x = padded(x, axis, 1, 1, padding == "periodic" or (padding == "around" and axis == 0))
    return jnp.concatenate([a for rows in windows(x, 0, 3) for a in windows(rows, 1, 3)], -1)


def image_conditioner(
    num_inputs: int,
    num_outputs: int,
    num_cond: int = 0,
    *,
    hidden: tuple[int, ...] = (32, 32),
    padding: Padding = "zero",
) -> Network:
    """3x3 convolutions of images (x [h, w, num_inputs], cond=None) -> [h, w, num_outputs].

    Args:
      num_inputs: channels of the image.
      num_outputs: numbers a pixel.
      num_cond: numbers in the condition, which shift the first layer's channels; an image of as
        many channels shifts those of each pixel.
      hidden: channels of the hidden layers.
      padding: "zero", "periodic" for lattices without an edge, or "around" where the first axis
        has none, such as an angle.

    Raises:
      ValueError: for an unknown padding or sizes that are no positive whole numbers.
    """
    check_known(Padding, padding=padding)
    check_sizes(num_inputs=num_inputs, num_outputs=num_outputs)
    check_cond(num_cond)
    check_widths(hidden=hidden)
    example = [jax.ShapeDtypeStruct((3, 3, num_inputs), jnp.float32)]
    if num_cond:
        example.append(jax.ShapeDtypeStruct((num_cond,), jnp.float32))
    module = _ImageConditioner(tuple(hidden), num_outputs, padding)
    return from_linen(module, *example, num_cond=num_cond)

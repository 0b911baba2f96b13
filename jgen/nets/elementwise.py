"""A network that changes every number of an event by itself."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jgen.checks import check_cond, check_shape, check_widths
from jgen.nets.mlp import MLP
from jgen.nets.network import Network, from_linen

_SMALLEST = 1e-5


class _ElementwiseMap(nn.Module):
    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, x, noise, cond=None):
        # The logarithm tells numbers apart that are almost zero.
        inputs = [x, jnp.log(jnp.expm1(x) + _SMALLEST) / 4, noise]
        inputs += [] if cond is None else [jnp.broadcast_to(c, x.shape) for c in jnp.ravel(cond)]
        change = MLP(self.hidden, 1, nn.tanh, zero_output=True)(jnp.stack(inputs, axis=-1))
        return nn.relu(x + change[..., 0])


def elementwise_map(shape: tuple[int, ...], num_cond: int, *, hidden: tuple[int, ...]) -> Network:
    """Map (x, noise, both of `shape`, cond [num_cond]) -> the same shape, each number by itself.

    Convolutions of size one, as of the BIB-AE's post-processor (2005.05334), for numbers
    x = log(1 + E) from zero on; they also see log E. Starts as the identity.

    Raises:
      ValueError: for sizes that are no positive whole numbers.
    """
    shape = check_shape(shape)
    check_cond(num_cond)
    check_widths(hidden=hidden)
    example = [jax.ShapeDtypeStruct(shape, jnp.float32)] * 2
    if num_cond:
        example.append(jax.ShapeDtypeStruct((num_cond,), jnp.float32))
    return from_linen(_ElementwiseMap(tuple(hidden)), *example, num_cond=num_cond)

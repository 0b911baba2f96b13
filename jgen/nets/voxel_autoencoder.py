"""Dense networks of an autoencoder of small voxel grids with critics, and of its post-processor.

The published BIB-AE (2005.05334) has three-dimensional convolutions for 27,000 cells. For a
thousand cells dense layers are as many parameters and far faster on a CPU.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jgen.nets.mlp import MLP, mlp
from jgen.nets.network import Network, from_linen

_SMALLEST = 1e-5


def voxel_encoder(
    shape: tuple[int, ...], num_cond: int, num_latent: int, *, hidden: tuple[int, ...]
) -> Network:
    """Encoder (x of `shape`, cond [num_cond]) -> (mean, log_variance), each [num_latent]."""
    network = mlp(math.prod(shape) + num_cond, 2 * num_latent, hidden=hidden)

    def apply(params, x, cond=None):
        return tuple(jnp.split(network.apply(params, _joined(x, cond)), 2))

    return Network(network.init, apply)


def voxel_decoder(
    shape: tuple[int, ...], num_cond: int, num_latent: int, *, hidden: tuple[int, ...]
) -> Network:
    """Decoder (r [num_latent], cond [num_cond]) -> positive numbers of `shape`."""
    network = mlp(num_latent + num_cond, math.prod(shape), hidden=hidden)

    def apply(params, r, cond=None):
        return jax.nn.softplus(network.apply(params, _joined(r, cond))).reshape(shape)

    return Network(network.init, apply)


def voxel_critic(shape: tuple[int, ...], num_cond: int, *, hidden: tuple[int, ...]) -> Network:
    """Critic (x of `shape`, cond [num_cond]) -> scalar."""
    return _critic(math.prod(shape) + num_cond, hidden)


def pair_critic(shape: tuple[int, ...], num_cond: int, *, hidden: tuple[int, ...]) -> Network:
    """Critic (x, y, cond [num_cond]) -> scalar of x, y and x - y, both of `shape`."""
    network = _critic(3 * math.prod(shape) + num_cond, hidden)
    return Network(
        network.init, lambda params, x, y, cond=None: network.apply(params, x, y, x - y, cond)
    )


def latent_critic(num_latent: int, *, hidden: tuple[int, ...]) -> Network:
    """Critic (r [num_latent]) -> scalar."""
    return _critic(num_latent, hidden)


def _critic(num_inputs, hidden):
    network = mlp(num_inputs, 1, hidden=hidden, activation=lambda a: nn.leaky_relu(a, 0.2))
    return Network(network.init, lambda params, *inputs: network.apply(params, _joined(*inputs))[0])


class _VoxelMap(nn.Module):
    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, x, noise, cond=None):
        # The logarithm tells voxels apart that are hardly ever hit.
        inputs = [x, jnp.log(jnp.expm1(x) + _SMALLEST) / 4, noise]
        inputs += [] if cond is None else [jnp.broadcast_to(c, x.shape) for c in jnp.ravel(cond)]
        change = MLP(self.hidden, 1, nn.tanh, zero_output=True)(jnp.stack(inputs, axis=-1))
        return nn.relu(x + change[..., 0])


def voxel_map(shape: tuple[int, ...], num_cond: int, *, hidden: tuple[int, ...]) -> Network:
    """Map (x, noise, both of `shape`, cond [num_cond]) -> the same shape, each voxel by itself.

    Convolutions of size one, as of the BIB-AE's post-processor (2005.05334), for numbers
    x = log(1 + E) from zero on; they also see log E. Starts as the identity.
    """
    example = [jax.ShapeDtypeStruct(shape, jnp.float32)] * 2
    if num_cond:
        example.append(jax.ShapeDtypeStruct((num_cond,), jnp.float32))
    return from_linen(_VoxelMap(tuple(hidden)), *example)


def _joined(*arrays):
    return jnp.concatenate([jnp.ravel(a) for a in arrays if a is not None])

"""Convolution of a three-dimensional grid as a sum of matrix products."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.nets.dense import matmul


def windows(x: Float[Array, "..."], axis: int, size: int, stride: int = 1) -> list[Array]:
    """The `size` voxels that every window along an axis sees, as arrays over the windows."""
    span = (x.shape[axis] - size) // stride * stride + 1
    return [jax.lax.slice_in_dim(x, i, i + span, stride, axis) for i in range(size)]


def convolve_valid(
    x: Float[Array, "z a r c_in"], kernel: Float[Array, "kz ka kr c_in c_out"], stride: int = 1
) -> Float[Array, "z2 a2 r2 c_out"]:
    """Convolution (without flipping the kernel) of all windows that fit into the grid.

    It is a sum of kz matrix products. On a CPU their gradients took a third to a twelfth of the
    time of those of XLA's convolution; and for an ensemble, whose members have their own kernels,
    they are batched products instead of one grouped convolution. The windows are ka kr times as
    large as the grid, so the backward pass builds them again instead of keeping them.

    Args:
      x: grid (layer, angle, radius) of channels, padded already.
      kernel: weights.
      stride: step along every axis.
    """
    sizes = kernel.shape[:3]

    @jax.checkpoint
    def product(x, kernel):
        x = jnp.stack(windows(x, 1, sizes[1], stride), axis=-2)
        x = jnp.stack(windows(x, 2, sizes[2], stride), axis=-2)
        x = x.reshape(*x.shape[:3], -1)
        layers = windows(x, 0, sizes[0], stride)
        flat = kernel.reshape(sizes[0], -1, kernel.shape[-1])
        return sum(matmul(x, w) for x, w in zip(layers, flat, strict=True))

    return product(x, kernel)

"""Convolutions of grids as sums of matrix products, padded with zeros or around a circle.

Grids are [..., channels]; those of showers have the axes (layer, angle, radius). On a CPU the
gradients of these products took a third to a twelfth of the time of those of XLA's convolution; and
for an ensemble, whose members have their own kernels, they are batched products instead of one
grouped convolution.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.nets.dense import matmul

Triple = tuple[int, int, int]
ONE = (1, 1, 1)
NONE = (0, 0, 0)


def padded(x: Array, axis: int, low: int, high: int, periodic: bool = False) -> Array:
    """More cells before and after those of an axis: zeros, or the other end of the axis."""
    widths = [(low, high) if i == axis else (0, 0) for i in range(x.ndim)]
    return jnp.pad(x, widths, mode="wrap" if periodic else "constant")


def windows(x: Float[Array, "..."], axis: int, size: int, stride: int = 1) -> list[Array]:
    """The `size` cells that every window along an axis sees, as arrays over the windows."""
    span = (x.shape[axis] - size) // stride * stride + 1
    return [jax.lax.slice_in_dim(x, i, i + span, stride, axis) for i in range(size)]


def convolve(
    x: Float[Array, "z a r c_in"],
    kernel: Float[Array, "kz ka kr c_in c_out"],
    stride: Triple = ONE,
    padding: Triple = NONE,
    periodic: bool = True,
) -> Float[Array, "z2 a2 r2 c_out"]:
    """Convolution (without flipping the kernel) of a grid with `padding` zeros on every side.

    Window j of an axis covers the cells j stride - padding + (0, ..., kernel - 1). A periodic angle
    has no sides: its cells are counted modulo their number, and there are as many windows as
    strides around the axis, whatever the kernel.

    Args:
      x: grid (layer, angle, radius) of channels.
      kernel: weights.
      stride: step along each axis.
      padding: cells before the first window's first one; of axes with an end, at that end, too.
      periodic: whether the angle is.
    """
    for axis in range(3):
        n, k, s, p = x.shape[axis], kernel.shape[axis], stride[axis], padding[axis]
        if periodic and axis == 1:
            covered = (-(-n // s) - 1) * s + k  # by all windows
            x = padded(x, axis, p, max(0, covered - n - p), periodic=True)
            x = jax.lax.slice_in_dim(x, 0, covered, axis=axis)
        else:
            x = padded(x, axis, p, p)
    return _convolve_valid(x, kernel, stride)


def transposed_convolve(
    r: Float[Array, "z2 a2 r2 c_in"],
    kernel: Float[Array, "kz ka kr c_out c_in"],
    stride: Triple,
    padding: Triple,
) -> Float[Array, "z a r c_out"]:
    """Transpose of `convolve` with a periodic angle, as a linear map from r to x."""
    n, k, s, p = (np.array(v) for v in (r.shape[:3], kernel.shape[:3], stride, padding))
    kernel, t = _blocks(kernel, s)
    for axis in range(3):
        r = padded(r, axis, t[axis] - 1, 0 if axis == 1 else t[axis] - 1, axis == 1)
    kernel = jnp.moveaxis(kernel[::-1, ::-1, ::-1], -1, 3).reshape(*t, kernel.shape[-1], -1)
    x = _convolve_valid(r, kernel, ONE)
    cells = np.array(x.shape[:3])
    x = x.reshape(*cells, *s, -1).transpose(0, 3, 1, 4, 2, 5, 6).reshape(*(cells * s), -1)
    stop = (n - 1) * s + k - p
    return jnp.roll(x[p[0] : stop[0], :, p[2] : stop[2]], -p[1], axis=1)


def _convolve_valid(x: Array, kernel: Array, stride: Triple) -> Array:
    """Of all windows that fit into the grid: a sum of kz matrix products.

    The windows are ka kr times as large as the grid, so the backward pass builds them again instead
    of keeping them.
    """
    sizes = kernel.shape[:3]

    @jax.checkpoint
    def product(x, kernel):
        x = jnp.stack(windows(x, 1, sizes[1], stride[1]), axis=-2)
        x = jnp.stack(windows(x, 2, sizes[2], stride[2]), axis=-2)
        x = x.reshape(*x.shape[:3], -1)
        layers = windows(x, 0, sizes[0], stride[0])
        flat = kernel.reshape(sizes[0], -1, kernel.shape[-1])
        return sum(matmul(x, w) for x, w in zip(layers, flat, strict=True))

    return product(x, kernel)


def _blocks(kernel, stride):
    """Kernel [*t, *stride, a, b] over blocks of `stride` cells, filled up with zeros, and t.

    A convolution with a stride is one without a stride whose channels are the cells of a block.
    """
    size = np.array(kernel.shape[:3])
    t = -(-size // stride)
    kernel = jnp.pad(kernel, [(0, n) for n in t * stride - size] + [(0, 0)] * 2)
    kernel = kernel.reshape(t[0], stride[0], t[1], stride[1], t[2], stride[2], *kernel.shape[3:])
    return kernel.transpose(0, 2, 4, 1, 3, 5, 6, 7), t

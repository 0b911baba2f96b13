"""Images: space to channels, and levels that let half of the channels go (1605.08803, Sec. 3.6)."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.bijectors.trainable import TrainableBijector, joint_interval
from jgen.checks import check_shape, check_sizes, check_whole


def squeeze(factor: int = 2) -> TrainableBijector:
    """Images [h, w, c] to [h / f, w / f, c f^2] and back.

    Raises:
      ValueError: if the factor is not positive; on a call, if it does not divide height and width.
    """
    check_sizes(factor=factor)
    zero = lambda x: jnp.zeros((), x.dtype)
    return TrainableBijector(
        lambda key: {},
        lambda params, x, cond=None, key=None: (_squeezed(x, factor), zero(x)),
        lambda params, z, cond=None, key=None: (_unsqueezed(z, factor), zero(z)),
        num_cond=0,
    )


def _squeezed(x: Float[Array, "h w c"], factor: int) -> Array:
    h, w, c = x.shape
    if h % factor or w % factor:
        raise ValueError(f"height and width must be multiples of {factor}, got the image {x.shape}")
    x = x.reshape(h // factor, factor, w // factor, factor, c)
    return x.transpose(0, 2, 4, 1, 3).reshape(h // factor, w // factor, c * factor**2)


def _unsqueezed(z: Float[Array, "h w c"], factor: int) -> Array:
    h, w, c = z.shape
    z = z.reshape(h, w, c // factor**2, factor, factor)
    return z.transpose(0, 3, 1, 4, 2).reshape(h * factor, w * factor, c // factor**2)


def multi_scale(shape: tuple[int, int, int], *levels: TrainableBijector) -> TrainableBijector:
    """Images of `shape` (h, w, c) to a flat latent vector [h w c].

    Each level squeezes by two, applies its bijector and, but for the last, hands half of the
    channels to the latent vector: level l = 0, 1, ... sees `level_shapes(shape, num_levels)[l]`.

    Raises:
      ValueError: if there is no level or the image is too small for so many.
    """
    shapes = level_shapes(shape, len(levels))
    # Channels of a level that go on to the next one.
    kept = [s[2] // 2 for s in shapes[:-1]]

    def init(key):
        keys = jax.random.split(key, len(levels))
        return [level.init(k) for level, k in zip(levels, keys, strict=True)]

    def keys_of(key):
        return [None] * len(levels) if key is None else jax.random.split(key, len(levels))

    def forward(params, x, cond=None, key=None):
        out, total = [], 0.0
        for i, (level, p, k) in enumerate(zip(levels, params, keys_of(key), strict=True)):
            x, log_det = level.forward(p, _squeezed(x, 2), cond, k)
            total = total + log_det
            if i < len(kept):
                out.append(jnp.ravel(x[..., kept[i] :]))
                x = x[..., : kept[i]]
        return jnp.concatenate([*out, jnp.ravel(x)]), total

    def inverse(params, z, cond=None, key=None):
        gone = [(h, w, c - c // 2) for h, w, c in shapes[:-1]]
        sizes = [math.prod(s) for s in [*gone, shapes[-1]]]
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
        *parts, last = jnp.split(z, ends)
        x, total = last.reshape(shapes[-1]), 0.0
        keys = keys_of(key)
        for i in reversed(range(len(levels))):
            if i < len(kept):
                x = jnp.concatenate([x, parts[i].reshape(gone[i])], -1)
            x, log_det = levels[i].inverse(params[i], x, cond, keys[i])
            x, total = _unsqueezed(x, 2), total + log_det
        return x, total

    def data_init(params, x, cond=None):
        out = []
        for i, (level, p) in enumerate(zip(levels, params, strict=True)):
            x = jax.vmap(lambda image: _squeezed(image, 2))(x)
            p = level.data_init(p, x, cond) if level.data_init else p
            out.append(p)
            if i < len(kept):
                one = lambda x, cond: level.forward(p, x, cond, jax.random.key(0))[0]  # noqa: B023
                x = jax.vmap(one)(x, cond)[..., : kept[i]]
        return out

    has_data_init = any(level.data_init for level in levels)
    sizes = [level.num_cond for level in levels]
    num_cond = None if None in sizes else max(sizes)
    sizes = num_cond, joint_interval(levels)
    return TrainableBijector(init, forward, inverse, data_init if has_data_init else None, *sizes)


def level_shapes(shape: tuple[int, int, int], num_levels: int) -> list[tuple[int, int, int]]:
    """Shapes of the images that the levels of `multi_scale` see, the largest first.

    Raises:
      ValueError: if there is no level, or height and width are not multiples of 2^num_levels.
    """
    shape = check_shape(shape)
    if len(shape) != 3:
        raise ValueError(f"an image has the shape (height, width, channels), got {shape}")
    h, w, c = shape
    check_whole(1, 31, num_levels=num_levels)
    if h % 2**num_levels or w % 2**num_levels:
        raise ValueError(
            "multi_scale needs a level or more, and height and width that are multiples of "
            f"2^levels, got {num_levels} levels and the shape {shape}"
        )
    shapes = []
    for _ in range(num_levels):
        h, w, c = h // 2, w // 2, 4 * c
        shapes.append((h, w, c))
        c //= 2
    return shapes

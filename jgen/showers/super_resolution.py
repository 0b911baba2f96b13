"""Super-resolution that conserves: a model of how coarse cells are shared out (2308.11700).

A fine array is cut into blocks, the coarse cells. A block's contents are the coarse cell's times
shares that add up to one, so whatever is drawn, adding up the blocks gives the coarse array back to
rounding, and a coarse cell of zero has fine cells of zero.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.checks import check_not_negative, check_open_fraction, check_shape
from jgen.generative_model import Batch, GenerativeModel, loss_at
from jgen.typing import Cond

Shape = tuple[int, ...]


def to_blocks(fine: Float[Array, "*fine"], block: Shape) -> Float[Array, "*cells size"]:
    """Contents of each coarse cell's fine cells, of one event.

    Raises:
      ValueError: if the array cannot be cut into such blocks.
    """
    shape = jnp.shape(fine)
    pairs = _pairs(shape, block)
    parts = jnp.reshape(fine, [size for pair in pairs for size in pair])
    order = [*range(0, 2 * len(pairs), 2), *range(1, 2 * len(pairs), 2)]
    return jnp.transpose(parts, order).reshape(*(n for n, _ in pairs), math.prod(block))


def from_blocks(parts: Float[Array, "*cells size"], block: Shape) -> Float[Array, "*fine"]:
    """The array whose `to_blocks` these are."""
    cells = parts.shape[:-1]
    order = [i + j * len(block) for i in range(len(block)) for j in (0, 1)]
    parts = jnp.transpose(parts.reshape(*cells, *block), order)
    return parts.reshape([n * b for n, b in zip(cells, block, strict=True)])


def coarsened(fine: Float[Array, "*fine"], block: Shape) -> Float[Array, "*cells"]:
    """Sums over blocks, of one event."""
    return jnp.sum(to_blocks(fine, block), axis=-1)


def _pairs(shape: Shape, block: Shape) -> list[tuple[int, int]]:
    block = check_shape(block, "block")
    if len(shape) != len(block) or any(n % b for n, b in zip(shape, block, strict=True)):
        raise ValueError(f"an array of shape {shape} cannot be cut into blocks of {block}")
    return [(n // b, b) for n, b in zip(shape, block, strict=True)]


def stick_breaking(u: Float[Array, "*n d"]) -> tuple[Float[Array, "*n size"], Float[Array, "*n"]]:
    """Shares of d + 1 places from d numbers, and log |d shares / d u| of the first d.

    Place i takes the fraction sigmoid(u_i - log(d - i)) of what those before it left, so that u = 0
    are equal shares.
    """
    shifted = u - _offsets(u)
    taken, kept = jax.nn.log_sigmoid(shifted), jax.nn.log_sigmoid(-shifted)
    left = jnp.cumsum(kept, axis=-1)
    before = left - kept
    shares = jnp.exp(jnp.concatenate([before + taken, left[..., -1:]], axis=-1))
    return shares, jnp.sum(before + taken + kept, axis=-1)


def stick_lengths(shares: Float[Array, "*n size"]) -> Float[Array, "*n d"]:
    """The numbers that `stick_breaking` makes positive shares of; they need not add up to one."""
    left = jnp.flip(jnp.cumsum(jnp.flip(shares, -1), axis=-1), -1)
    u = jnp.log(shares[..., :-1]) - jnp.log(left[..., 1:])
    return u + _offsets(u)


def _offsets(u):
    """Of each place, what makes equal shares of zeros."""
    d = u.shape[-1]
    return jnp.broadcast_to(jnp.log(d - jnp.arange(d, dtype=u.dtype)), u.shape)


def conserving(
    model: GenerativeModel,
    block: Shape,
    *,
    features: Callable[[Array], Cond] = lambda coarse: coarse,
    least: float = 1e-4,
    threshold: float = 0.0,
) -> GenerativeModel:
    """A model of fine arrays given coarse ones, from a model of how cells are shared out.

    Events are fine arrays with contents from zero on, conditions their `coarsened` ones. `log_prob`
    is the density of all but the last fine cell of each block, in units of the contents; blocks of
    zero count with that of equal shares as they are drawn.

    Args:
      model: of u [*cells, size - 1], see `stick_breaking`, given what `features` makes.
      block: fine cells along each axis in a coarse one.
      features: (coarse) -> condition of the model, such as its logarithm.
      least: smallest share in training and in densities: to smaller ones it is added. Empty cells,
        which no density has, are so a peak at it; dequantise data that are counts.
      threshold: fine cells with less than this become zero, and what they had goes to the others of
        the block in proportion; not where all have less. `log_prob` does not know of it.

    Raises:
      ValueError: for numbers out of range.
    """
    block = check_shape(block, "block")
    check_open_fraction(least=least)
    check_not_negative(threshold=threshold)
    size = math.prod(block)

    def shared(fine):
        parts = to_blocks(fine, block)
        total = jnp.sum(parts, axis=-1, keepdims=True)
        empty = total <= 0
        shares = jnp.where(empty, 1 / size, parts / jnp.where(empty, 1, total))
        return stick_lengths(shares + least), total[..., 0]

    def loss(params, key, batch, progress=1.0):
        u = jax.vmap(lambda x: shared(x)[0])(batch.x)
        batch = batch._replace(x=u, cond=jax.vmap(features)(batch.cond))
        return loss_at(model, params, key, batch, progress)

    def sample(params, key, cond):
        shares, _ = stick_breaking(model.sample(params, key, features(cond)))
        parts = shares * cond[..., None]
        kept = jnp.where(parts >= threshold, parts, 0)
        kept = jnp.where(jnp.any(kept > 0, axis=-1, keepdims=True), kept, parts)
        total = jnp.sum(kept, axis=-1, keepdims=True)
        # Once more by what rounding and the threshold took.
        return from_blocks(kept * (cond[..., None] / jnp.where(total > 0, total, 1)), block)

    def log_prob(params, key, x, cond):
        u, total = shared(x)
        log_det = stick_breaking(u)[1] + (size - 1) * jnp.log(jnp.where(total > 0, total, 1))
        return model.log_prob(params, key, u, features(cond)) - jnp.sum(log_det)

    density = None if model.log_prob is None else log_prob
    return GenerativeModel(model.init, loss, sample, density)


def each_cell(model: GenerativeModel) -> GenerativeModel:
    """A model of one coarse cell as one of all, which are independent given their conditions.

    Events are u [*cells, d] and conditions [*cells, f], of the model u [d] and [f]. Neighbours in
    the condition of a cell make its shares follow theirs.
    """

    def flat(values):
        return values.reshape(-1, values.shape[-1])

    def loss(params, key, batch, progress=1.0):
        # Cells are the events: each has the same weight.
        cells = batch._replace(x=jax.vmap(flat)(batch.x), cond=jax.vmap(flat)(batch.cond))
        num = cells.x.shape[1]
        merged = jax.tree.map(lambda a: a.reshape(-1, a.shape[-1]), (cells.x, cells.cond))
        weight = None if batch.weight is None else jnp.repeat(batch.weight, num)
        return loss_at(model, params, key, Batch(*merged, weight), progress)

    def sample(params, key, cond):
        keys = jax.random.split(key, flat(cond).shape[0])
        drawn = jax.vmap(model.sample, (None, 0, 0))(params, keys, flat(cond))
        return drawn.reshape(*cond.shape[:-1], drawn.shape[-1])

    def log_prob(params, key, x, cond):
        keys = jax.random.split(key, flat(cond).shape[0])
        return jnp.sum(jax.vmap(model.log_prob, (None, 0, 0, 0))(params, keys, flat(x), flat(cond)))

    density = None if model.log_prob is None else log_prob
    return GenerativeModel(model.init, loss, sample, density)

"""The grid of VEGAS, adapted to an integrand: what flows start from and are compared with."""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float

from jgen.bijectors import Bijector, grid
from jgen.checks import check_not_negative, check_sizes, check_whole, check_wholes
from jgen.inference.importance import Integrand
from jgen.random import stream
from jgen.typing import Key


def adapted_grid(
    integrand: Integrand,
    num: int,
    key: Key,
    *,
    num_bins: int = 64,
    damping: float = 0.8,
    sizes: Sequence[int] = (1000, 2000, 4000),
) -> Bijector:
    """A map of the unit cube to itself that makes an integrand flatter, one component at a time.

    Bins of each component shrink where the sum of squared weights in them is large, smoothed over
    neighbours and damped by a power (2009.05112, Sec. II). It does not see what depends on several
    components together.

    Args:
      integrand: (x) -> f, one event in the unit cube.
      num: components.
      key: typed PRNG key.
      num_bins: of each component.
      damping: power of the squared weights; 0 leaves the bins as they are.
      sizes: points of each adaption.

    Returns:
      The map from x to the cube in which the integrand is flatter: a layer before a `cube_flow`, or
      a factor of a channel's mapping.

    Raises:
      ValueError: for sizes out of range, or an integrand that is not finite somewhere.
    """
    check_sizes(num=num)
    check_whole(2, 10_000, num_bins=num_bins)
    check_not_negative(damping=damping)
    check_wholes(sizes=tuple(sizes))
    edges = np.tile(np.linspace(0, 1, num_bins + 1), (num, 1))
    values = jax.jit(jax.vmap(integrand))
    for i, size in enumerate(sizes):
        u = np.asarray(jax.random.uniform(stream(key, f"adaption {i}"), (size, num)))
        x, log_det = jax.vmap(grid(edges).inverse)(u)
        squares = np.square(np.asarray(values(x), np.float64) * np.exp(np.asarray(log_det)))
        if not np.isfinite(squares).all():
            bad = int(np.flatnonzero(~np.isfinite(squares))[0])
            raise ValueError(f"the integrand is not finite at x = {np.asarray(x[bad]).tolist()}")
        edges = _refined(edges, u, squares, damping)
    return grid(edges)


def _refined(
    edges: Float[np.ndarray, "num num_edges"],
    u: Float[np.ndarray, "n num"],
    squares: Float[np.ndarray, " n"],
    damping: float,
) -> Float[np.ndarray, "num num_edges"]:
    """New edges, between which there is as much of the damped squares."""
    num, bins = edges.shape[0], edges.shape[1] - 1
    out = np.empty_like(edges)
    for i in range(num):
        index = np.minimum((u[:, i] * bins).astype(int), bins - 1)
        count = np.maximum(np.bincount(index, minlength=bins), 1)
        mean = np.bincount(index, squares, bins) / count
        padded = np.pad(mean, 1, mode="edge")
        smooth = (padded[:-2] + 6 * padded[1:-1] + padded[2:]) / 8
        if smooth.sum() == 0:
            out[i] = edges[i]
            continue
        share = np.clip(smooth / smooth.sum(), 1e-30, 1 - 1e-15)
        flat = ((1 - share) / -np.log(share)) ** damping
        total = np.concatenate([[0], np.cumsum(flat)])
        out[i] = np.interp(np.linspace(0, total[-1], bins + 1), total, edges[i])
    out[:, 0], out[:, -1] = edges[:, 0], edges[:, -1]
    return out

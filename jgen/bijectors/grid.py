"""A grid of bins in each component: the map of VEGAS, piecewise linear."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jgen.arrays import finite_array
from jgen.bijectors.elementwise import Bijector


def grid(edges: Float[np.ndarray, "num num_edges"]) -> Bijector:
    """Map a box to the unit cube such that all bins of a component become equally wide.

    The density of the uniform in the cube, seen in the box, is a step function in each component
    (VEGAS, J. Comput. Phys. 27 (1978) 192). With two edges it is the linear map of a box.

    Args:
      edges: of the bins of each component, in increasing order; the same number for all.

    Raises:
      ValueError: unless edges are finite and increase.
    """
    edges = finite_array(edges, "edges", 2)
    num, bins = edges.shape[0], edges.shape[1] - 1
    if bins < 1 or not np.all(np.diff(edges) > 0):
        raise ValueError(
            "edges must be two or more increasing numbers for each component, got the shape "
            f"{edges.shape} and the smallest step {np.diff(edges).min() if bins else 'of none'}"
        )
    rows = np.arange(num)
    wide = edges.astype(np.float32)
    if not np.all(np.diff(wide) > 0):
        raise ValueError("edges are too close to differ in single precision: take fewer bins")

    def forward(x, cond=None):
        table = jnp.asarray(edges, x.dtype)
        index = jnp.sum(x[:, None] >= table[:, 1:-1], -1)
        left, width = table[rows, index], (table[:, 1:] - table[:, :-1])[rows, index]
        return (index + (x - left) / width) / bins, -jnp.sum(jnp.log(bins * width))

    def inverse(u, cond=None):
        table = jnp.asarray(edges, u.dtype)
        index = jnp.clip(jnp.floor(bins * u), 0, bins - 1).astype(int)
        left, width = table[rows, index], (table[:, 1:] - table[:, :-1])[rows, index]
        x = left + width * (bins * u - index)
        # Rounding must not leave the box, where an integrand may not be defined.
        inside = jnp.clip(x, table[:, 0], table[:, -1])
        return jnp.where((u >= 0) & (u <= 1), inside, x), jnp.sum(jnp.log(bins * width))

    return Bijector(forward, inverse, num_cond=0)

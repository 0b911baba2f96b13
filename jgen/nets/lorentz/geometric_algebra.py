"""The geometric algebra of spacetime, Cl(1,3), on arrays [..., 16, channels].

A multivector has the components 1 | e0 e1 e2 e3 | e01 e02 e03 e12 e13 e23 | e012 e013 e023 e123 |
e0123 with the metric (+, -, -, -), grades 0 to 4. All tables follow from sorted lists of indices.
Components come before channels, so that each is a contiguous block.
"""

from itertools import combinations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.physics.four_vectors import METRIC

BLADES = tuple(blade for grade in range(5) for blade in combinations(range(4), grade))
"""Indices of the basis vectors whose product a component is."""
GRADES = (slice(0, 1), slice(1, 5), slice(5, 11), slice(11, 15), slice(15, 16))
"""Components of each grade."""
VECTOR = GRADES[1]
PSEUDOSCALAR = 15


def _blade_product(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Product of two basis elements: its indices and its sign."""
    indices, sign = list(first + second), 1
    for end in range(len(indices) - 1, 0, -1):  # a sort that counts its exchanges
        for i in range(end):
            if indices[i] > indices[i + 1]:
                indices[i], indices[i + 1] = indices[i + 1], indices[i]
                sign = -sign
    left = []
    for index in indices:  # equal neighbours square to the metric
        if left and left[-1] == index:
            left.pop()
            sign *= int(METRIC[index])
        else:
            left.append(index)
    return tuple(left), sign


def _table() -> np.ndarray:
    table = np.zeros((16, 16, 16), np.float32)
    for a, first in enumerate(BLADES):
        for b, second in enumerate(BLADES):
            blade, sign = _blade_product(first, second)
            table[a, b, BLADES.index(blade)] = sign
    return table


PRODUCT = _table()
"""(xy)_c = sum_ab PRODUCT[a, b, c] x_a y_b, with 256 entries of +-1."""
INNER = np.array(
    [(-1) ** (len(b) * (len(b) - 1) // 2) * PRODUCT[i, i, 0] for i, b in enumerate(BLADES)],
    np.float32,
)
"""<x, y> = sum_a INNER[a] x_a y_a, the scalar part of reverse(x) y, which no Lorentz transformation
changes."""
DUAL = PRODUCT[np.arange(16), PSEUDOSCALAR, np.arange(16)[::-1]]
"""(x e0123)_(15 - a) = DUAL[a] x_a."""


def geometric_product(
    x: Float[Array, "*n 16 c"], y: Float[Array, "*n 16 c"]
) -> Float[Array, "*n 16 c"]:
    """Product xy, channel by channel: 256 multiplications with a sign each."""
    # Taken apart once, so that the gradient is put together once.
    left, right = jnp.unstack(x, axis=-2), jnp.unstack(y, axis=-2)
    parts = []
    for c in range(16):
        terms = [
            PRODUCT[a, b, c] * (left[a] * right[b])
            for a in range(16)
            for b in np.flatnonzero(PRODUCT[a, :, c])
        ]
        parts.append(sum(terms[1:], terms[0]))
    return jnp.stack(parts, axis=-2)


def dual(x: Float[Array, "*n 16 c"]) -> Float[Array, "*n 16 c"]:
    """Product x e0123 with the pseudoscalar on the right."""
    return weighed(DUAL, x)[..., ::-1, :]


def weighed(factors: Float[np.ndarray, " 16"], x: Float[Array, "*n 16 c"]) -> Array:
    """Every component times its factor."""
    return jnp.asarray(factors.reshape(*(1,) * (x.ndim - 2), 16, 1), x.dtype) * x


def embed_vector(p: Float[Array, "*n 4"]) -> Float[Array, "*n 16 1"]:
    """A four-vector as a multivector of grade 1, of one channel."""
    zeros = jnp.zeros((*p.shape[:-1], 1, 1), p.dtype)
    return jnp.concatenate([zeros, p[..., None], jnp.repeat(zeros, 11, axis=-2)], axis=-2)


def extract_vector(x: Float[Array, "*n 16 c"]) -> Float[Array, "*n 4 c"]:
    """The part of grade 1."""
    return x[..., VECTOR, :]

"""Products of the small matrices of events, whose derivatives are as fast as they are.

The gradient of a product of matrices is two products with one factor turned over. XLA leaves the
turning to the product, and its fast kernels for small matrices on a CPU take them as they lie in
memory or not at all: attention among six particles spends most of its backward pass there. The
primitive below turns such factors first on a CPU. It is bilinear: forward and reverse mode both
work.
"""

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.typing import DTypeLike
from jaxtyping import Array, Float

_SMALL = 32
"""Most rows and columns of matrices that are turned; larger ones lose by it."""


def plain_products(a: Array, b: Array, *, turn_a: bool, turn_b: bool, dtype: DTypeLike) -> Array:
    """What the primitive computes of its arguments and parameters, by one operation."""
    dims = ((a.ndim - (2 if turn_a else 1),), (b.ndim - (1 if turn_b else 2),))
    lead = tuple(range(a.ndim - 2))
    accumulated = jnp.promote_types(dtype, jnp.float32)
    out = jax.lax.dot_general(a, b, (dims, (lead, lead)), preferred_element_type=accumulated)
    return out.astype(dtype)


def _product_on_cpu(a, b, *, turn_a, turn_b, dtype):
    if max(*a.shape[-2:], *b.shape[-2:]) > _SMALL:
        return plain_products(a, b, turn_a=turn_a, turn_b=turn_b, dtype=dtype)
    # The barrier keeps XLA from putting the turning back into the product.
    turn = lambda x: jax.lax.optimization_barrier(jnp.swapaxes(x, -1, -2))
    a, b = (turn(x) if turned else x for x, turned in ((a, turn_a), (b, turn_b)))
    return plain_products(a, b, turn_a=False, turn_b=False, dtype=dtype)


_product_p = Primitive("jgen_product")
_product_p.def_impl(
    jax.jit(
        lambda *args, **options: _product_p.bind(*args, **options),
        static_argnames=("turn_a", "turn_b", "dtype"),
    )
)


@_product_p.def_abstract_eval
def _(a, b, *, turn_a, turn_b, dtype):
    (rows, inner), (others, columns) = (
        x.shape[:-3:-1] if turned else x.shape[-2:] for x, turned in ((a, turn_a), (b, turn_b))
    )
    if inner != others or a.shape[:-2] != b.shape[:-2]:
        raise ValueError(f"matrices of the shapes {a.shape} and {b.shape} have no product")
    return a.update(shape=(*a.shape[:-2], rows, columns), dtype=dtype, weak_type=False)


for _compute, _platform in ((plain_products, None), (_product_on_cpu, "cpu")):
    _rule = mlir.lower_fun(_compute, multiple_results=False)
    mlir.register_lowering(_product_p, _rule, platform=_platform)


def _transpose_a(ct, a, b, *, turn_a, turn_b, dtype):
    if turn_a:
        return _bind(b, ct, turn_b, True, a.aval.dtype)
    return _bind(ct, b, False, not turn_b, a.aval.dtype)


def _transpose_b(ct, a, b, *, turn_a, turn_b, dtype):
    if turn_b:
        return _bind(ct, a, True, turn_a, b.aval.dtype)
    return _bind(a, ct, not turn_a, False, b.aval.dtype)


ad.defbilinear(_product_p, _transpose_a, _transpose_b)


def _bind(a, b, turn_a, turn_b, dtype):
    return _product_p.bind(a, b, turn_a=turn_a, turn_b=turn_b, dtype=jnp.dtype(dtype))


def _batch(args, dims, **options):
    size = next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)

    def in_front(a, d):
        if d is None:
            return jnp.broadcast_to(a, (size, *a.shape))
        return jnp.moveaxis(a, d, 0)

    return _product_p.bind(*map(in_front, args, dims), **options), 0


batching.primitive_batchers[_product_p] = _batch


def products(
    a: Float[Array, "*k n c"],
    b: Float[Array, "*k c m"] | Float[Array, "*k m c"],
    dtype: DTypeLike,
    *,
    turned: bool = False,
) -> Float[Array, "*k n m"]:
    """Matrices a b, or a b^T where b is `turned`, summed in single precision at least.

    Args:
      a: matrices.
      b: as many.
      dtype: of the result.
      turned: whether b is given as [m, c].
    """
    return _bind(a, b, False, turned, dtype)

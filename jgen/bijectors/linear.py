"""Linear layers along the last axis: permutations, actnorm, PLU, Householder and QR products.

`permutation` and `actnorm` take events of any rank, the others vectors; `pixelwise` puts those on
images.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, Int

from jgen.bijectors.elements import LINE
from jgen.bijectors.trainable import NOWHERE, TrainableBijector, check_event
from jgen.checks import check_shape, check_whole
from jgen.random import normal

# Of rows and columns of a matrix whose triangles are arrays of the host.
_LARGEST_MATRIX = 10_000


def permutation(order: Int[np.ndarray, " num"]) -> TrainableBijector:
    """z_i = x_order[i] along the last axis.

    Raises:
      ValueError: if `order` is an array of values that are not 0 to num - 1, each once.
    """
    # Within `stacked` the order has no values yet; that function checks them beforehand.
    if not isinstance(order, jax.core.Tracer):
        order = np.asarray(order)
        if order.ndim != 1 or not np.array_equal(np.sort(order), np.arange(order.size)):
            raise ValueError(f"order must hold each of 0 to num - 1 once, got {order}")
    back = jnp.argsort(order) if isinstance(order, jax.core.Tracer) else np.argsort(order)

    def run(x, order):
        check_event("permutation", x.shape[-1:], order.shape)
        return x[..., order]

    return _fixed(lambda x: run(x, order), lambda z: run(z, back))


def flip() -> TrainableBijector:
    """Reverse the order of components along the last axis."""
    return _fixed(lambda x: jnp.flip(x, -1), lambda z: jnp.flip(z, -1))


def _fixed(forward, inverse):
    zero = lambda x: jnp.zeros((), x.dtype)
    return TrainableBijector(
        lambda key: {},
        lambda params, x, cond=None, key=None: (forward(x), zero(x)),
        lambda params, z, cond=None, key=None: (inverse(z), zero(z)),
        num_cond=0,
        interval=NOWHERE,
    )


def actnorm(shape: int | tuple[int, ...]) -> TrainableBijector:
    """Map x to (x + b) exp(s), componentwise (Glow, 1807.03039, Sec. 3.1).

    It is the identity at the start. Its `data_init` gives z mean zero and variance one over a
    batch, as in the paper; a component that is constant in the batch keeps its scale.
    """
    shape = check_shape(shape)

    def init(key):
        return {"shift": jnp.zeros(shape), "log_scale": jnp.zeros(shape)}

    def forward(params, x, cond=None, key=None):
        check_event("actnorm", x.shape, shape)
        log_scale = params["log_scale"]
        return (x + params["shift"]) * jnp.exp(log_scale), jnp.sum(log_scale)

    def inverse(params, z, cond=None, key=None):
        check_event("actnorm", z.shape, shape)
        log_scale = params["log_scale"]
        return z * jnp.exp(-log_scale) - params["shift"], -jnp.sum(log_scale)

    def data_init(params, x, cond=None):
        std = jnp.std(x, 0)
        # The standard deviation of a constant is its rounding, not zero.
        rounding = 4 * jnp.finfo(x.dtype).eps * jnp.max(jnp.abs(x), 0)
        std = jnp.where(std > rounding, std, 1)
        return {
            "shift": -jnp.mean(x, 0).astype(params["shift"].dtype),
            "log_scale": -jnp.log(std).astype(params["shift"].dtype),
        }

    return TrainableBijector(init, forward, inverse, data_init, 0, LINE)


def plu(num: int, order: Int[np.ndarray, " num"] | None = None) -> TrainableBijector:
    """Map x to L U x[order], a matrix with a determinant for free (Glow, 1807.03039).

    The permutation is fixed, L has ones and U has exp(s) on its diagonal; L U is the identity at
    the start. Deviation: the paper starts at a random rotation and multiplies P last.

    Args:
      num: components.
      order: the permutation; reversed unless given, so that couplings between find the other half
        of the components in the next layer.

    Raises:
      ValueError: if `num` is no whole number from 1 to 10,000, or `order` none of as many.
    """
    check_whole(1, _LARGEST_MATRIX, num=num)
    shuffle = flip() if order is None else permutation(order)
    below, above = np.tril(np.ones((num, num)), -1), np.triu(np.ones((num, num)), 1)

    def init(key):
        return {"off_diagonal": jnp.zeros((num, num)), "log_scale": jnp.zeros(num)}

    def factors(params):
        off = params["off_diagonal"]
        lower = jnp.where(below > 0, off, np.eye(num, dtype=off.dtype))
        return lower, jnp.where(above > 0, off, jnp.diag(jnp.exp(params["log_scale"])))

    def forward(params, x, cond=None, key=None):
        lower, upper = factors(params)
        x = shuffle.forward({}, x)[0]
        return lower @ (upper @ x), jnp.sum(params["log_scale"])

    def inverse(params, z, cond=None, key=None):
        lower, upper = factors(params)
        x = _solve(upper, _solve(lower, z, lower=True), lower=False)
        return shuffle.inverse({}, x)[0], -jnp.sum(params["log_scale"])

    return TrainableBijector(init, forward, inverse, num_cond=0, interval=LINE)


def householder(num: int, num_reflections: int | None = None) -> TrainableBijector:
    """Product of reflections 1 - 2 v v^T / |v|^2, orthogonal: log-determinant zero.

    As many reflections as components, the default, reach every rotation or its mirror image
    (1611.09630).
    """
    depth = num if num_reflections is None else num_reflections
    check_whole(1, _LARGEST_MATRIX, num=num, num_reflections=depth)
    zero = lambda x: jnp.zeros((), x.dtype)
    return TrainableBijector(
        lambda key: {"vectors": normal(key, (depth, num))},
        lambda params, x, cond=None, key=None: (_reflect(params["vectors"], x), zero(x)),
        lambda params, z, cond=None, key=None: (_reflect(params["vectors"][::-1], z), zero(z)),
        num_cond=0,
        interval=LINE,
    )


def qr(num: int) -> TrainableBijector:
    """Map x to Q R x, with Q a product of reflections and R triangular with exp(s) on its diagonal.

    The start is R = 1 and Q random (1901.11137).
    """
    orthogonal = householder(num)
    above = np.triu(np.ones((num, num)), 1)

    def init(key):
        scales = {"above": jnp.zeros((num, num)), "log_scale": jnp.zeros(num)}
        return orthogonal.init(key) | scales

    def triangle(params):
        return jnp.where(above > 0, params["above"], jnp.diag(jnp.exp(params["log_scale"])))

    def forward(params, x, cond=None, key=None):
        z, _ = orthogonal.forward(params, triangle(params) @ x)
        return z, jnp.sum(params["log_scale"])

    def inverse(params, z, cond=None, key=None):
        x, _ = orthogonal.inverse(params, z)
        return _solve(triangle(params), x, lower=False), -jnp.sum(params["log_scale"])

    return TrainableBijector(init, forward, inverse, num_cond=0, interval=LINE)


def _reflect(vectors: Float[Array, "depth num"], x: Float[Array, " num"]) -> Float[Array, " num"]:
    def reflection(x, v):
        # The floor is far below any vector that training reaches and keeps v = 0 finite.
        return x - 2 * v * (v @ x) / jnp.maximum(v @ v, jnp.finfo(v.dtype).tiny), None

    return jax.lax.scan(reflection, x, vectors.astype(x.dtype))[0]


def _solve(matrix: Float[Array, "n n"], y: Float[Array, " n"], lower: bool) -> Float[Array, " n"]:
    return solve_triangular(matrix.astype(y.dtype), y, lower=lower)

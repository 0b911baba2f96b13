"""Residual layers z = x + g(x) with Lipschitz constant of g below one (1811.00995, 1906.02735)."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.bijectors.elements import LINE
from jgen.bijectors.roots import fixed_point
from jgen.bijectors.trainable import TrainableBijector
from jgen.checks import (
    check_cond,
    check_known,
    check_open_fraction,
    check_sizes,
    check_widths,
)
from jgen.nets.dense import matmul
from jgen.random import normal
from jgen.typing import Cond, Key, Params, PyTree

LogDet = Literal["exact", "russian_roulette"]


def residual(
    num: int,
    num_cond: int = 0,
    *,
    hidden: tuple[int, ...] = (64, 64),
    lipschitz: float = 0.9,
    log_det: LogDet = "exact",
) -> TrainableBijector:
    """Layer z = x + g(x, cond) of events x [num], the identity at the start.

    g is a dense network with activation swish / 1.1 (1906.02735, Sec. 3.3). A weight whose spectral
    norm is above lipschitz^(1 / layers) is divided down to that, so that g as a whole keeps to the
    bound. The condition enters the first layer through a weight without a bound. The inverse
    iterates x <- z - g(x) to rounding error; its derivatives are those of the implicit function.

    Args:
      num: components of an event.
      num_cond: numbers in the condition; 0 without one.
      hidden: widths of g.
      lipschitz: bound of g's Lipschitz constant.
      log_det: "exact", by the Jacobian: for few components; or "russian_roulette", see
        `power_series_log_det`: unbiased for value and gradient, and random in the key, without
        which it is refused.

    Raises:
      ValueError: if the bound is not between 0 and 1, a size not positive or `log_det` unknown.
    """
    check_open_fraction(lipschitz=lipschitz)
    check_known(LogDet, log_det=log_det)
    check_sizes(num=num)
    check_widths(hidden=hidden)
    check_cond(num_cond)
    widths = (num, *hidden, num)
    bound = lipschitz ** (1 / (len(widths) - 1))

    def init(key) -> Params:
        keys = jax.random.split(key, len(widths))
        layers = []
        for i, (n_in, n_out) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            scale = n_in**-0.5 if i < len(hidden) else 0.0
            kernel = normal(keys[i], (n_in, n_out)) * scale
            layers.append({"kernel": kernel, "bias": jnp.zeros(n_out)})
        if num_cond:
            layers[0]["condition"] = normal(keys[-1], (num_cond, widths[1])) * num_cond**-0.5
        return layers

    def bounded(params, cond) -> list[tuple[Array, Array]]:
        """Weights within the bound and biases, once for all evaluations of g."""
        theta = [(_bounded(layer["kernel"], bound), layer["bias"]) for layer in params]
        if num_cond:
            kernel, bias = theta[0]
            theta[0] = kernel, bias + matmul(jnp.ravel(cond), params[0]["condition"])
        return theta

    def log_abs_det(theta, x, key):
        if log_det == "exact":
            jacobian = jax.jacfwd(lambda x: _dense(theta, x))(x)
            return jnp.linalg.slogdet(jnp.eye(num, dtype=x.dtype) + jacobian)[1]
        if key is None:
            raise ValueError("the russian_roulette log-determinant needs a key")
        return power_series_log_det(_dense, theta, x, key, lipschitz)

    def forward(params, x, cond=None, key=None):
        theta = bounded(params, _checked(cond, num_cond))
        return x + _dense(theta, x), log_abs_det(theta, x, key)

    def inverse(params, z, cond=None, key=None):
        theta = bounded(params, _checked(cond, num_cond))
        x = _solve(lambda x: _dense(theta, x), z, lipschitz)
        if log_det != "exact" and key is None:  # a sample, whose density nobody wants
            return x, jnp.full((), jnp.nan, x.dtype)
        return x, -log_abs_det(theta, x, key)

    return TrainableBijector(init, forward, inverse, num_cond=num_cond, interval=LINE)


def _dense(theta: list[tuple[Array, Array]], x: Float[Array, " num"]) -> Float[Array, " num"]:
    for i, (kernel, bias) in enumerate(theta):
        x = jax.nn.silu(x) / 1.1 if i else x
        x = matmul(x, kernel.astype(x.dtype)) + bias.astype(x.dtype)
    return x


def power_series_log_det(
    g: Callable[[PyTree, Array], Array],
    theta: PyTree,
    x: Float[Array, " num"],
    key: Key,
    lipschitz: float,
) -> Float[Array, ""]:
    """Unbiased estimate of log det(1 + J), J that of g(theta, x) in x (1906.02735).

        log det(1 + J) = E[ sum_{k=1}^N (-1)^{k+1} v^T J^k v / (k P(N >= k)) ]

    with signs v and a number of terms N that goes on with probability q at each; the gradient is
    that of Neumann's series with the same v and N, unbiased too, and takes no memory that grows
    with N. Deviations: q is the Lipschitz constant L, for which the variance is certainly finite
    (its terms go as (L^2 / q)^k), where the paper takes 1/2; and no terms are computed for sure.
    """
    key_signs, key_terms = jax.random.split(key)
    signs = jax.random.rademacher(key_signs, x.shape, x.dtype)
    # Uniform in (0, 1], so that the logarithm is finite.
    uniform = 1 - jax.random.uniform(key_terms, dtype=x.dtype)
    num_terms = 1 + jnp.floor(jnp.log(uniform) / jnp.log(lipschitz)).astype(int)
    # Gradients do not pass through the loop, whose number of rounds is random.
    detached = jax.lax.stop_gradient(theta)
    _, pullback = jax.vjp(lambda x: g(detached, x), jax.lax.stop_gradient(x))

    def term(state):
        k, power, value, neumann = state
        # (-1)^k / P(N >= k + 1), at k = 0, 1, ...
        weight = jnp.where(k % 2, -1, 1) / jnp.asarray(lipschitz, x.dtype) ** k
        neumann = neumann + weight * power
        (power,) = pullback(power)
        return k + 1, power, value + weight * (power @ signs) / (k + 1), neumann

    start = (jnp.zeros((), int), signs, jnp.zeros((), x.dtype), jnp.zeros_like(x))
    _, _, value, neumann = jax.lax.while_loop(lambda state: state[0] < num_terms, term, start)
    surrogate = neumann @ jax.jvp(lambda x: g(theta, x), (x,), (signs,))[1]
    return value + surrogate - jax.lax.stop_gradient(surrogate)


def _solve(g: Callable[[Array], Array], z: Float[Array, " num"], rate: float) -> Array:
    """The x with x + g(x) = z, with derivatives."""

    def solve(f, x):
        return fixed_point(lambda x: x - f(x), x, rate)

    def linear(matvec, b):
        return fixed_point(lambda v: v - (matvec(v) - b), b, rate)

    def tangent(matvec, b):
        return jax.lax.custom_linear_solve(matvec, b, linear, transpose_solve=linear)

    return jax.lax.custom_root(lambda x: x + g(x) - z, jax.lax.stop_gradient(z), solve, tangent)


def _bounded(kernel: Float[Array, "n m"], bound: float) -> Float[Array, "n m"]:
    """The kernel divided by its spectral norm over `bound`, where that is above one."""
    direction = jax.lax.stop_gradient(leading_singular_vector(kernel))
    image = kernel @ direction
    # Squares: a square root has no derivative where the kernel is zero.
    return kernel * jax.lax.rsqrt(jnp.maximum(image @ image / bound**2, 1))


def leading_singular_vector(matrix: Float[Array, "n m"]) -> Float[Array, " m"]:
    """Right singular vector of the largest singular value, by power iteration.

    2^7 steps of M = W^T W at once, by squaring, started from the best of all unit
    vectors. It is a function of the matrix alone, where the papers carry a vector from step to step
    of the training as a state, and no start is orthogonal to what is sought.
    """
    tiny = jnp.finfo(matrix.dtype).tiny ** 0.5
    power = matrix.T @ matrix
    for _ in range(7):
        power = power / (jnp.max(jnp.abs(power)) + tiny)
        power = power @ power
    best = power[:, jnp.argmax(jnp.diagonal(power))]
    best = best / (jnp.max(jnp.abs(best)) + tiny)
    return best / (jnp.sqrt(best @ best) + tiny)


def _checked(cond: Cond, num_cond: int) -> Cond:
    size = 0 if cond is None else jnp.size(cond)
    if size != num_cond:
        raise ValueError(f"cond has {size} numbers, but the layer was made for num_cond={num_cond}")
    return cond

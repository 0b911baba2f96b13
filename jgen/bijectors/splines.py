"""Monotone splines on an interval, the identity outside: elements of any flexibility.

On [-bound, bound] a spline of `num_bins` pieces, outside y = x. The slope is one at both ends, so
that the map is continuously differentiable (but see `free_edges`). What keeps single precision
finite, gradients too, where well-known implementations returned NaN:

- Outside the spline is evaluated at zero and discarded (where inside of where), so that neither a
  discriminant nor its derivative ever sees a point that no bin holds.
- Bins are at least `min_bin` of the interval wide and high, and slopes are bounded on both sides by
  a tanh of their logarithm, which has slope one at raw = 0. The papers use softplus, without an
  upper bound.
- Quadratic equations are solved by the one of their two formulas that has no cancellation, the
  discriminant clamped at zero.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jgen.bijectors.elements import Element, soft_clamp
from jgen.bijectors.roots import monotone_root
from jgen.checks import check_positive, check_whole

# A triangle of as many rows finds the bin of a value.
_MOST_BINS = 10_000
_MAX_LOG_SLOPE = math.log(1e3)


def rational_quadratic(
    num_bins: int = 8, bound: float = 3.0, *, min_bin: float = 1e-3, free_edges: bool = False
) -> Element:
    """Ratio of quadratics in every bin (neural spline flows, 1906.04032, Eq. 4).

    Parameters: widths [num_bins], heights [num_bins], slopes [num_bins - 1], or [num_bins + 1]
    with free edges.

    Args:
      num_bins: pieces.
      bound: of the interval.
      min_bin: smallest width and height of a bin, in units of the interval.
      free_edges: slopes at +-bound are free, the derivative jumps there: for data that fill the
        interval, such as a cube.

    Raises:
      ValueError: if a size is not positive or `num_bins` bins of `min_bin` do not fit.
    """
    _check(num_bins, bound, min_bin, least=1)

    # Without free edges the first bin has no slope on its left and the last none on its right.
    skip = 0 if free_edges else 1

    def bin_of(raw, value, by_height):
        width, height, log_slopes = jnp.split(raw, [num_bins, 2 * num_bins])
        w, h = (2 * bound * _fractions(logits, min_bin) for logits in (width, height))
        before, here = _bin_of(value, h if by_height else w, bound)
        # Of the slopes only those of this bin are computed; a logarithm that is left out is zero.
        left = _pick(here[skip:], log_slopes[: num_bins - skip])
        right = _pick(here[: num_bins - skip], log_slopes[1 - skip :])
        d0, d1 = (jnp.exp(soft_clamp(d, _MAX_LOG_SLOPE)) for d in (left, right))
        x0, y0 = (_pick(before, sizes) - bound for sizes in (w, h))
        return x0, _pick(here, w), y0, _pick(here, h), d0, d1

    def log_slope(xi, s, d0, d1):
        ends = xi * (1 - xi)
        numerator = d1 * xi**2 + 2 * s * ends + d0 * (1 - xi) ** 2
        return jnp.log(numerator) + 2 * (jnp.log(s) - jnp.log(s + (d0 + d1 - 2 * s) * ends))

    def forward(raw, x):
        x0, w, y0, h, d0, d1 = bin_of(raw, x, by_height=False)
        xi, s = _unit((x - x0) / w), h / w
        ends = xi * (1 - xi)
        y = y0 + h * (s * xi**2 + d0 * ends) / (s + (d0 + d1 - 2 * s) * ends)
        return y, log_slope(xi, s, d0, d1)

    def inverse(raw, y):
        x0, w, y0, h, d0, d1 = bin_of(raw, y, by_height=True)
        eta, s = _unit((y - y0) / h), h / w
        bend = eta * (d0 + d1 - 2 * s)
        # a + b = s > 0, so that there is a solution in [0, 1] and a > 0 wherever b < 0.
        xi = _unit(_quadratic_root(s - d0 + bend, d0 - bend, -s * eta))
        return x0 + w * xi, -log_slope(xi, s, d0, d1)

    num_slopes = num_bins + 1 if free_edges else num_bins - 1
    return _with_tails(Element(2 * num_bins + num_slopes, forward, inverse), bound)


def quadratic(num_bins: int = 8, bound: float = 3.0, *, min_bin: float = 1e-3) -> Element:
    """Integral of a piecewise linear slope (neural importance sampling, 1808.03856).

    Parameters: widths [num_bins] and slopes at the inner edges [num_bins - 1]. The slopes are
    scaled such that, with slopes of one at both ends, the interval maps to itself.

    Args:
      num_bins: pieces, two or more.
      bound: of the interval.
      min_bin: smallest width of a bin, in units of the interval.

    Raises:
      ValueError: if a size is not positive or `num_bins` bins of `min_bin` do not fit.
    """
    _check(num_bins, bound, min_bin, least=2)

    def bin_of(raw, value, by_height):
        width, log_slopes = jnp.split(raw, [num_bins])
        w = 2 * bound * _fractions(width, min_bin)
        slopes = jnp.exp(soft_clamp(log_slopes, _MAX_LOG_SLOPE))
        # Area below the slopes at the inner edges and below those of one at the ends.
        inner = 0.5 * jnp.sum(slopes * (w[:-1] + w[1:]))
        slopes = slopes * (2 * bound - 0.5 * (w[0] + w[-1])) / inner
        slopes = jnp.pad(slopes, 1, constant_values=1)
        d0, d1 = slopes[:-1], slopes[1:]
        h = 0.5 * (d0 + d1) * w
        before, here = _bin_of(value, h if by_height else w, bound)
        x0, y0 = (_pick(before, sizes) - bound for sizes in (w, h))
        return x0, _pick(here, w), y0, _pick(here, d0), _pick(here, d1)

    def forward(raw, x):
        x0, w, y0, d0, d1 = bin_of(raw, x, by_height=False)
        xi = _unit((x - x0) / w)
        return y0 + w * xi * (d0 + 0.5 * (d1 - d0) * xi), jnp.log(d0 + (d1 - d0) * xi)

    def inverse(raw, y):
        x0, w, y0, d0, d1 = bin_of(raw, y, by_height=True)
        xi = _unit(_quadratic_root(0.5 * (d1 - d0), d0, (y0 - y) / w))
        return x0 + w * xi, -jnp.log(d0 + (d1 - d0) * xi)

    return _with_tails(Element(2 * num_bins - 1, forward, inverse), bound)


def cubic(num_bins: int = 8, bound: float = 3.0, *, min_bin: float = 1e-3) -> Element:
    """Monotone cubic pieces with Steffen's slopes (cubic-spline flows, 1906.02145).

    Parameters: widths [num_bins] and heights [num_bins]. Deviations: the slopes at both ends are
    one, not free, and the outer bins are at least half as high as wide, which keeps them monotone
    with that slope; the inverse is computed by Newton's steps in a bracket, not by the formula for
    cubic equations, which loses digits in single precision.

    Args:
      num_bins: pieces, two or more.
      bound: of the interval.
      min_bin: smallest width and height of a bin, in units of the interval.

    Raises:
      ValueError: if a size is not positive or `num_bins` bins of `min_bin` do not fit.
    """
    _check(num_bins, bound, min_bin, least=2)
    outer = np.zeros(num_bins, bool)
    outer[[0, -1]] = True
    shares = np.where(outer, 0.5, 1.0) / (num_bins - 1)

    def bin_of(raw, value, by_height):
        width, height = jnp.split(raw, 2)
        w = 2 * bound * _fractions(width, min_bin)
        # The outer bins own half of their width; the remainder is shared, in equal slopes at zero.
        owned = jnp.where(outer, 0.5 * w, 0)
        free = _fractions(height + np.log(shares).astype(raw.dtype), num_bins * min_bin * shares)
        h = owned + (2 * bound - jnp.sum(owned)) * free
        s = h / w
        parabola = (s[:-1] * w[1:] + s[1:] * w[:-1]) / (w[:-1] + w[1:])
        slopes = jnp.minimum(2 * jnp.minimum(s[:-1], s[1:]), parabola)
        slopes = jnp.pad(slopes, 1, constant_values=1)
        before, here = _bin_of(value, h if by_height else w, bound)
        x0, y0 = (_pick(before, sizes) - bound for sizes in (w, h))
        d0, d1 = _pick(here, slopes[:-1]), _pick(here, slopes[1:])
        return x0, _pick(here, w), y0, _pick(here, h), d0, d1

    def hermite(xi, s, d0, d1):
        """Height over width and slope at xi, for a secant of slope s."""
        c2, c3 = 3 * s - 2 * d0 - d1, d0 + d1 - 2 * s
        return xi * (d0 + xi * (c2 + xi * c3)), d0 + xi * (2 * c2 + 3 * xi * c3)

    def forward(raw, x):
        x0, w, y0, h, d0, d1 = bin_of(raw, x, by_height=False)
        value, slope = hermite(_unit((x - x0) / w), h / w, d0, d1)
        return y0 + w * value, jnp.log(slope)

    def inverse(raw, y):
        x0, w, y0, h, d0, d1 = bin_of(raw, y, by_height=True)
        f = lambda xi: hermite(xi, h / w, d0, d1)[0] - (y - y0) / w
        xi = monotone_root(f, jnp.zeros_like(y), jnp.ones_like(y))
        return x0 + w * xi, -jnp.log(hermite(xi, h / w, d0, d1)[1])

    return _with_tails(Element(2 * num_bins, forward, inverse), bound)


def _check(num_bins: int, bound: float, min_bin: float, least: int) -> None:
    check_whole(least, _MOST_BINS, num_bins=num_bins)
    check_positive(bound=bound)
    if not 0 < min_bin * num_bins < 1:
        raise ValueError(
            f"min_bin must be positive and {num_bins} of it fit into one, got {min_bin}"
        )


def _fractions(
    logits: Float[Array, " k"], least: float | Float[np.ndarray, " k"]
) -> Float[Array, " k"]:
    """Positive numbers of sum one, not below `least`: of all, or of each."""
    rest = 1 - np.sum(np.broadcast_to(least, logits.shape))
    least = np.asarray(least, logits.dtype)
    return least + rest.astype(logits.dtype) * jax.nn.softmax(logits)


def _bin_of(
    value: Float[Array, ""], sizes: Float[Array, " k"], bound: float
) -> tuple[Bool[Array, " k"], Bool[Array, " k"]]:
    """Which bins are before `value` and which holds it, of `sizes` that fill [-bound, bound].

    The left edges are one product with a triangle of ones, the first exactly -bound.
    """
    num = len(sizes)
    triangle = np.triu(np.ones((num, num)), 1).astype(sizes.dtype)
    left = jnp.matmul(sizes, triangle, precision="highest") - bound
    index = jnp.sum(value >= left) - 1
    return np.arange(num) < index, np.arange(num) == index


def _pick(mask: Bool[Array, " k"], numbers: Float[Array, " k"]) -> Float[Array, ""]:
    """Sum over a mask: the derivative of an index would be a scatter, which is slow under vmap."""
    return jnp.sum(jnp.where(mask, numbers, 0))


def _unit(xi: Array) -> Array:
    """Clip to [0, 1], what rounding leaves outside, with derivative one everywhere."""
    return xi + jax.lax.stop_gradient(jnp.clip(xi, 0, 1) - xi)


def _quadratic_root(a: Array, b: Array, c: Array) -> Array:
    """The root of a x^2 + b x + c that is positive for c < 0 and continuous as a goes to zero.

    With c <= 0 but for rounding where b > 0, and with a > 0 wherever b < 0.
    """
    discriminant = b**2 - 4 * a * c
    # sqrt has no derivative at zero.
    positive = discriminant > 0
    root = jnp.where(positive, jnp.sqrt(jnp.where(positive, discriminant, 1)), 0)
    forward = b >= 0
    denominator = jnp.where(forward, b + root, 2 * a)
    numerator = jnp.where(forward, -2 * c, root - b)
    usable = denominator > 0
    return jnp.where(usable, numerator / jnp.where(usable, denominator, 1), 0)


def _with_tails(spline: Element, bound: float) -> Element:
    """The spline inside of +-bound, the identity outside."""

    def extended(function: Callable) -> Callable:
        def apply(raw, x):
            inside = jnp.abs(x) <= bound
            y, log_slope = function(raw, jnp.where(inside, x, 0))
            # Rounding must not leave the interval, beyond which a base density may be zero.
            y = jnp.where(jnp.abs(y) > bound, jnp.sign(y) * bound, y)
            return jnp.where(inside, y, x), jnp.where(inside, log_slope, 0)

        return apply

    both = extended(spline.forward), extended(spline.inverse)
    return Element(spline.num_params, *both, (-bound, bound))

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
from jaxtyping import Array, Float

from jgen.bijectors.elements import Element, soft_clamp
from jgen.bijectors.roots import monotone_root

_MAX_LOG_SLOPE = math.log(1e3)


def rational_quadratic(
    num_bins: int = 8, bound: float = 3.0, *, min_bin: float = 1e-3, free_edges: bool = False
) -> Element:
    """Ratio of quadratics in every bin (neural spline flows, 1906.04032, Eqs. 4 to 8).

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

    def bins(raw):
        width, height, log_slopes = jnp.split(raw, [num_bins, 2 * num_bins])
        slopes = jnp.exp(soft_clamp(log_slopes, _MAX_LOG_SLOPE))
        slopes = slopes if free_edges else jnp.pad(slopes, 1, constant_values=1)
        x, w = _partition(width, bound, min_bin)
        y, h = _partition(height, bound, min_bin)
        return x, w, y, h, slopes[:-1], slopes[1:]

    def log_slope(xi, s, d0, d1):
        ends = xi * (1 - xi)
        numerator = d1 * xi**2 + 2 * s * ends + d0 * (1 - xi) ** 2
        return jnp.log(numerator) + 2 * (jnp.log(s) - jnp.log(s + (d0 + d1 - 2 * s) * ends))

    def forward(raw, x):
        parts = bins(raw)
        x0, w, y0, h, d0, d1 = _bin_of(x, parts[0], parts)
        xi, s = _unit((x - x0) / w), h / w
        ends = xi * (1 - xi)
        y = y0 + h * (s * xi**2 + d0 * ends) / (s + (d0 + d1 - 2 * s) * ends)
        return y, log_slope(xi, s, d0, d1)

    def inverse(raw, y):
        parts = bins(raw)
        x0, w, y0, h, d0, d1 = _bin_of(y, parts[2], parts)
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

    def bins(raw):
        width, log_slopes = jnp.split(raw, [num_bins])
        x, w = _partition(width, bound, min_bin)
        slopes = jnp.exp(soft_clamp(log_slopes, _MAX_LOG_SLOPE))
        # Area below the slopes at the inner edges and below those of one at the ends.
        inner = 0.5 * jnp.sum(slopes * (w[:-1] + w[1:]))
        slopes = slopes * (2 * bound - 0.5 * (w[0] + w[-1])) / inner
        slopes = jnp.pad(slopes, 1, constant_values=1)
        areas = 0.5 * (slopes[:-1] + slopes[1:]) * w
        y = jnp.concatenate([jnp.full(1, -bound, w.dtype), jnp.cumsum(areas[:-1]) - bound])
        return x, w, y, slopes[:-1], slopes[1:]

    def forward(raw, x):
        parts = bins(raw)
        x0, w, y0, d0, d1 = _bin_of(x, parts[0], parts)
        xi = _unit((x - x0) / w)
        return y0 + w * xi * (d0 + 0.5 * (d1 - d0) * xi), jnp.log(d0 + (d1 - d0) * xi)

    def inverse(raw, y):
        parts = bins(raw)
        x0, w, y0, d0, d1 = _bin_of(y, parts[2], parts)
        # The left edge is the largest one below y, so that y - y0 is not negative.
        xi = _unit(_quadratic_root(0.5 * (d1 - d0), d0, (y0 - y) / w))
        return x0 + w * xi, -jnp.log(d0 + (d1 - d0) * xi)

    return _with_tails(Element(2 * num_bins - 1, forward, inverse), bound)


def cubic(num_bins: int = 8, bound: float = 3.0, *, min_bin: float = 1e-3) -> Element:
    """Monotone cubic pieces with Steffen's slopes (cubic-spline flows, 1906.02145).

    Parameters: widths [num_bins] and heights [num_bins]. Deviations: the slopes at both ends are
    one, not free, and the outer bins are at least half as high as wide, which keeps them monotone
    with that slope; the inverse is found by Newton's steps in a bracket, not by the formula for
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

    def bins(raw):
        width, height = jnp.split(raw, 2)
        x, w = _partition(width, bound, min_bin)
        # The outer bins own half of their width; the remainder is shared, in equal slopes at zero.
        owned = jnp.where(outer, 0.5 * w, 0)
        h = owned + (2 * bound - jnp.sum(owned)) * _fractions(height, min_bin, shares)
        y = jnp.concatenate([jnp.full(1, -bound, w.dtype), jnp.cumsum(h[:-1]) - bound])
        s = h / w
        parabola = (s[:-1] * w[1:] + s[1:] * w[:-1]) / (w[:-1] + w[1:])
        slopes = jnp.minimum(2 * jnp.minimum(s[:-1], s[1:]), parabola)
        slopes = jnp.pad(slopes, 1, constant_values=1)
        return x, w, y, h, slopes[:-1], slopes[1:]

    def hermite(xi, s, d0, d1):
        """Height over width and slope at xi, for a secant of slope s."""
        c2, c3 = 3 * s - 2 * d0 - d1, d0 + d1 - 2 * s
        return xi * (d0 + xi * (c2 + xi * c3)), d0 + xi * (2 * c2 + 3 * xi * c3)

    def forward(raw, x):
        parts = bins(raw)
        x0, w, y0, h, d0, d1 = _bin_of(x, parts[0], parts)
        value, slope = hermite(_unit((x - x0) / w), h / w, d0, d1)
        return y0 + w * value, jnp.log(slope)

    def inverse(raw, y):
        parts = bins(raw)
        x0, w, y0, h, d0, d1 = _bin_of(y, parts[2], parts)
        f = lambda xi: hermite(xi, h / w, d0, d1)[0] - (y - y0) / w
        xi = monotone_root(f, jnp.zeros_like(y), jnp.ones_like(y))
        return x0 + w * xi, -jnp.log(hermite(xi, h / w, d0, d1)[1])

    return _with_tails(Element(2 * num_bins, forward, inverse), bound)


def _check(num_bins: int, bound: float, min_bin: float, least: int) -> None:
    if num_bins < least or not bound > 0:
        raise ValueError(
            f"a spline needs {least} or more bins and a positive bound, got {num_bins} and {bound}"
        )
    if not 0 < min_bin * num_bins < 1:
        raise ValueError(
            f"min_bin must be positive and {num_bins} of it fit into one, got {min_bin}"
        )


def _fractions(
    logits: Float[Array, " k"], least: float, at_zero: np.ndarray | None = None
) -> Float[Array, " k"]:
    """Positive numbers of sum one, not below `least` times `len(logits) * at_zero`.

    `at_zero` is what they are where all logits are zero, equal unless given.
    """
    num = len(logits)
    at_zero = np.full(num, 1 / num) if at_zero is None else at_zero
    floor = least * num
    share = jax.nn.softmax(logits + np.log(at_zero).astype(logits.dtype))
    return floor * at_zero.astype(logits.dtype) + (1 - floor) * share


def _partition(logits: Float[Array, " k"], bound: float, least: float) -> tuple[Array, Array]:
    """Left edges and widths of bins that fill [-bound, bound]."""
    inner = 2 * bound * jnp.cumsum(_fractions(logits, least)[:-1]) - bound
    edges = jnp.pad(inner, 1, constant_values=(-bound, bound))
    # Widths of the rounded edges, so that neighbours meet.
    return edges[:-1], edges[1:] - edges[:-1]


def _unit(xi: Array) -> Array:
    """Clip to [0, 1] with derivative one at both ends, where that of `jnp.clip` is a half."""
    return jnp.where(xi < 0, 0, jnp.where(xi > 1, 1, xi))


def _bin_of(
    x: Float[Array, ""], left: Float[Array, " k"], parts: tuple[Array, ...]
) -> tuple[Array, ...]:
    """The numbers in `parts` of the bin with x, by its left edge.

    A sum over a mask: the derivative of an index would be a scatter, which is slow under vmap.
    """
    reached = x >= left[1:]
    here = jnp.pad(reached, (1, 0), constant_values=True)
    here = here & ~jnp.pad(reached, (0, 1), constant_values=False)
    return tuple(jnp.sum(jnp.where(here, part, 0)) for part in parts)


def _quadratic_root(a: Array, b: Array, c: Array) -> Array:
    """The root of a x^2 + b x + c that is positive for c < 0 and continuous as a goes to zero.

    With c <= 0, and with a > 0 wherever b < 0.
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

    return Element(spline.num_params, extended(spline.forward), extended(spline.inverse))

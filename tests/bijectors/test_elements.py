"""Increasing maps of one number: formulas, inverses and the ends of single precision."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import CubicHermiteSpline
from scipy.optimize import brentq

from jgen.bijectors import additive, affine, cubic, quadratic, rational_quadratic
from jgen.bijectors.roots import monotone_root

BOUND, BINS, LEAST = 2.0, 5, 1e-3
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
ELEMENTS = {
    "additive": additive(),
    "affine": affine(),
    "rational quadratic": rational_quadratic(BINS, BOUND),
    "free edges": rational_quadratic(BINS, BOUND, free_edges=True),
    "quadratic": quadratic(BINS, BOUND),
    "cubic": cubic(BINS, BOUND),
}
SPLINES = [name for name in ELEMENTS if name not in ("additive", "affine")]


@pytest.fixture
def raw():
    """Numbers a network may return, of the length an element needs."""
    return lambda element, scale=1.0: (
        scale * np.random.default_rng(3).normal(size=element.num_params)
    )


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def edges_of(fractions):
    return BOUND * (2 * np.concatenate([[0], np.cumsum(fractions)]) - 1)


def slopes_of(raw):
    return np.exp(np.log(1e3) * np.tanh(raw / np.log(1e3)))


def brute_rational_quadratic(raw, x):
    """1906.04032 Eq. 4, in the bin of x."""
    width, height, slope = np.split(raw, [BINS, 2 * BINS])
    xs = edges_of(LEAST + (1 - BINS * LEAST) * softmax(width))
    ys = edges_of(LEAST + (1 - BINS * LEAST) * softmax(height))
    d = np.concatenate([[1], slopes_of(slope), [1]])
    k = min(np.searchsorted(xs, x, side="right") - 1, BINS - 1)
    s, t = (ys[k + 1] - ys[k]) / (xs[k + 1] - xs[k]), (x - xs[k]) / (xs[k + 1] - xs[k])
    top = (ys[k + 1] - ys[k]) * (s * t**2 + d[k] * t * (1 - t))
    return ys[k] + top / (s + (d[k + 1] + d[k] - 2 * s) * t * (1 - t))


def brute_quadratic(raw, x):
    """The integral of a slope that is interpolated linearly between edges, by trapezoids."""
    xs = edges_of(LEAST + (1 - BINS * LEAST) * softmax(raw[:BINS]))
    inner = np.concatenate([[0], slopes_of(raw[BINS:]), [0]])
    ends = np.zeros(BINS + 1)
    ends[[0, -1]] = 1
    area = np.trapezoid(ends, xs)
    slope = ends + inner * (2 * BOUND - area) / np.trapezoid(inner, xs)
    points = np.append(xs[xs < x], x)
    return -BOUND + np.trapezoid(np.interp(points, xs, slope), points)


def steffen(raw):
    """Edges, values and Steffen's slopes (A&A 239, 443, Eq. 11, with all its signs)."""
    xs = edges_of(LEAST + (1 - BINS * LEAST) * softmax(raw[:BINS]))
    w = np.diff(xs)
    base = np.array([0.5] + [1.0] * (BINS - 2) + [0.5]) / (BINS - 1)
    share = BINS * LEAST * base + (1 - BINS * LEAST) * softmax(raw[BINS:] + np.log(base))
    h = (2 * BOUND - 0.5 * (w[0] + w[-1])) * share
    h[[0, -1]] += 0.5 * w[[0, -1]]
    ys, s = np.concatenate([[0], np.cumsum(h)]) - BOUND, h / w
    slopes = np.ones(BINS + 1)
    for i in range(1, BINS):
        p = (s[i - 1] * w[i] + s[i] * w[i - 1]) / (w[i - 1] + w[i])
        least = min(abs(s[i - 1]), abs(s[i]), 0.5 * abs(p))
        slopes[i] = (np.sign(s[i - 1]) + np.sign(s[i])) * least
    return xs, ys, slopes


@pytest.mark.parametrize("name", ELEMENTS)
def test_identity_where_the_parameters_are_zero(name):
    element = ELEMENTS[name]
    x = jnp.linspace(-3, 3, 61)
    for function in (element.forward, element.inverse):
        y, log_slope = jit(jax.vmap(partial(function, jnp.zeros(element.num_params))))(x)
        np.testing.assert_allclose(y, x, atol=1e-6)
        np.testing.assert_allclose(log_slope, 0, atol=1e-6)


@pytest.mark.parametrize("name", SPLINES)
def test_autodiff_agrees_with_the_slope_at_every_edge_of_a_bin(name):
    """Clipping with `jnp.clip` would halve the derivative where x is an edge itself."""
    element = ELEMENTS[name]
    raw = jnp.zeros(element.num_params)
    edges = jnp.linspace(-BOUND, BOUND, BINS + 1)
    # The edges as the spline has them, where rounding allows to meet one: each with its neighbours.
    x = jnp.concatenate([edges, jnp.nextafter(edges, -9.0), jnp.nextafter(edges, 9.0)])
    for function in (element.forward, element.inverse):
        slope = jax.vmap(jax.grad(lambda x: function(raw, x)[0]))  # noqa: B023
        np.testing.assert_allclose(jit(slope)(x), 1, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "brute"),
    [
        ("rational quadratic", brute_rational_quadratic),
        ("quadratic", brute_quadratic),
        ("cubic", lambda raw, x: CubicHermiteSpline(*steffen(raw))(x)),
    ],
)
def test_splines_against_brute_force(x64, raw, name, brute):
    element = ELEMENTS[name]
    numbers = raw(element, 1.5)
    x = np.linspace(-BOUND, BOUND, 41)
    y, log_slope = jit(jax.vmap(element.forward, (None, 0)))(numbers, x)
    expected = [brute(numbers, one) for one in x]
    np.testing.assert_allclose(y, expected, atol=1e-12)
    assert np.ptp(y - x) > 0.1
    h = 1e-6
    middle = x[1:-1]
    difference = [(brute(numbers, v + h) - brute(numbers, v - h)) / (2 * h) for v in middle]
    np.testing.assert_allclose(np.exp(log_slope)[1:-1], difference, rtol=1e-5)


def test_cubic_inverse_against_brentq(x64, raw):
    numbers = raw(ELEMENTS["cubic"], 1.5)
    spline = CubicHermiteSpline(*steffen(numbers))
    y = np.linspace(-BOUND, BOUND, 23)[1:-1]
    found = jit(jax.vmap(ELEMENTS["cubic"].inverse, (None, 0)))(numbers, y)[0]
    expected = [brentq(lambda x: spline(x) - v, -BOUND, BOUND, xtol=1e-14) for v in y]  # noqa: B023
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("name", SPLINES)
def test_one_slope_at_the_ends_and_the_identity_beyond(x64, raw, name):
    element = ELEMENTS[name]
    x = np.array([-BOUND, BOUND, -1e3, np.nextafter(BOUND, 3), 7.0])
    y, log_slope = jit(jax.vmap(element.forward, (None, 0)))(raw(element), x)
    np.testing.assert_allclose(y, x, rtol=1e-14)
    np.testing.assert_array_equal(log_slope[2:], 0)
    if name == "free edges":
        assert np.abs(log_slope[:2]).min() > 0.1
    else:
        np.testing.assert_allclose(log_slope[:2], 0, atol=1e-12)


@pytest.mark.parametrize("name", ELEMENTS)
def test_single_precision_is_finite_at_extremes_with_gradients(name):
    """Every combination of huge logits and of points at, next to and far from every edge."""
    element = ELEMENTS[name]
    rng = np.random.default_rng(0)
    numbers = rng.choice([0, 1, -1, 30, -30, 1e4, -1e4, 1e30, -1e30], (60, element.num_params))
    numbers = jnp.asarray(numbers, jnp.float32)
    if name in ("additive", "affine"):
        numbers = jnp.clip(numbers, -1e30, 1e30)
    corners = np.array([-BOUND, -BOUND / 2, 0, BOUND], np.float32)
    x = [np.nextafter(corners, np.float32(s)) for s in (-np.inf, np.inf)]
    far = 3e38 if name in SPLINES else 1e30
    x = np.concatenate([corners, *x, [-far, far, 0.3]]).astype(np.float32)
    for function in (element.forward, element.inverse):
        both = lambda raw, x: jnp.stack(function(raw, x))  # noqa: B023
        values = jax.vmap(jax.vmap(both, (None, 0)), (0, None))
        gradients = jax.vmap(jax.vmap(jax.jacrev(both, (0, 1)), (None, 0)), (0, None))
        y = jit(values)(numbers, x)
        for leaf in [y, *jax.tree.leaves(jit(gradients)(numbers, x))]:
            assert np.isfinite(leaf).all()
        if name in SPLINES:
            inside = y[:, np.abs(x) <= BOUND, 0]
            assert np.abs(inside).max() <= BOUND
            order = np.argsort(x)
            assert (np.diff(y[:, order, 0], axis=1) > -1e-5).all()


def test_roots_of_flat_and_steep_functions(x64):
    root = lambda c: monotone_root(lambda x: x**3 - c, jnp.array(-9.0), jnp.array(9.0))
    value, slope = jax.value_and_grad(root)(0.3)
    np.testing.assert_allclose([value, slope], [0.3 ** (1 / 3), 0.3 ** (-2 / 3) / 3], rtol=1e-12)
    step = lambda x: jnp.tanh(1e5 * (x - 0.123)) + 1e-3 * x
    np.testing.assert_allclose(
        monotone_root(lambda x: step(x) - step(0.1230001), jnp.array(-1e3), jnp.array(5.0)),
        0.1230001,
        atol=1e-12,
    )


def test_bad_input():
    with pytest.raises(ValueError, match="max_log_scale must be positive"):
        affine(0)
    with pytest.raises(ValueError, match="num_bins must be a whole number from 2"):
        quadratic(1)
    with pytest.raises(ValueError, match="bound must be positive"):
        cubic(4, -1.0)
    with pytest.raises(ValueError, match="8 of it fit"):
        rational_quadratic(8, min_bin=0.2)

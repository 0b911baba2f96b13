"""Functions of points alone: the same numbers and derivatives as of all rows, without padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.nets.primitives import points
from jgen.nets.primitives.points import all_at_once, on_points

ROWS, WEIGHT = 200, 0.5
NUM = np.array([0, 1, 64, 65, 130, 200, 700])
X = np.random.default_rng(0).normal(size=(len(NUM), ROWS, 2)).astype(np.float32)
SHIFT = np.arange(len(NUM), dtype=np.float32)


def function(rows, weight, shift):
    x, index = rows
    return jnp.stack([jnp.sin(weight * x[:, 0]) + shift, x[:, 1] * index], axis=1)


def made(weight, n, x, shift):
    return on_points(function, n, (x, jnp.arange(ROWS)), weight, shift)


def expected(weight, n, x, shift):
    out = function((x, jnp.arange(ROWS)), weight, shift)
    return jnp.where(jnp.arange(ROWS)[:, None] < n, out, 0)


@pytest.mark.parametrize("axes", [(None, 0, 0, 0), (None, None, 0, None), (None, 0, None, 0)])
def test_points_have_the_values_of_all_rows_and_padding_is_zero(axes):
    args = [a if i == 0 else a[4] for i, a in zip(axes[1:], (NUM, X, SHIFT), strict=True)]
    found, wanted = (jax.jit(jax.vmap(f, axes))(WEIGHT, *args) for f in (made, expected))
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


def test_of_one_event_and_of_events_of_events():
    for i, n in enumerate(NUM):
        args = WEIGHT, n, X[i], SHIFT[i]
        np.testing.assert_allclose(made(*args), expected(*args), rtol=1e-6, atol=1e-6)
    many = lambda f: jax.jit(jax.vmap(jax.vmap(f, (None, 0, 0, 0)), (0, None, None, None)))
    args = np.array([0.5, 2.0]), NUM, X, SHIFT
    np.testing.assert_allclose(many(made)(*args), many(expected)(*args), rtol=1e-6, atol=1e-6)


def test_derivatives_are_those_of_all_rows():
    def gradients(f):
        loss = lambda *args: jnp.sum(jax.vmap(f, (None, 0, 0, 0))(*args) ** 3)
        return jax.jit(jax.grad(loss, (0, 2, 3)))(WEIGHT, NUM, X, SHIFT)

    for found, wanted in zip(gradients(made), gradients(expected), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_tiles_without_points_are_not_computed(monkeypatch):
    monkeypatch.setattr(points, "_TILES", 1)
    seen = []

    def counted(rows):
        jax.debug.callback(lambda _: seen.append(1), rows[0])
        return rows

    out = jax.jit(jax.vmap(lambda n, x: on_points(counted, n, x)))(NUM, X[..., 0])
    jax.block_until_ready(out)
    jax.effects_barrier()
    assert len(seen) == sum([0, 1, 1, 2, 3, 4, 4])


def test_without_the_primitive_all_rows_are_computed():
    leaves = [jnp.asarray(NUM[3]), jnp.asarray(X[3])]
    tree = jax.tree.structure((0, ()))
    options = {"tree": tree, "num_rows": 1, "mapped": (False, False), "depth": 0}
    (found,) = all_at_once(*leaves, function=lambda x: x, **options)
    np.testing.assert_array_equal(found[:65], X[3, :65])
    assert (found[65:] == 0).all()


@pytest.mark.parametrize("kind", [np.uint8, np.uint32, np.int8, np.int16])
def test_numbers_of_points_of_any_type(kind):
    """A short or unsigned type would overflow where tiles are counted, or never end."""
    num = np.array([0, 1, 64, 100, 127] * 30).astype(kind)
    x = np.ones((len(num), 300), np.float32)
    found = jax.jit(jax.vmap(lambda n, x: on_points(lambda r: 2 * r, n, x)))(num, x)
    np.testing.assert_array_equal(found, 2.0 * (np.arange(300) < num[:, None].astype(int)))


def test_no_points_at_all():
    double = jax.jit(jax.vmap(lambda n, x: on_points(lambda r: 2 * r, n, x)))
    assert double(np.zeros(0, int), np.ones((0, 5))).shape == (0, 5)
    assert double(np.ones(3, int), np.ones((3, 0))).shape == (3, 0)
    assert (double(np.full(3, -100), np.ones((3, 70))) == 0).all()


def test_a_number_of_python_beside_half_precision():
    scaled = lambda x: on_points(lambda rows, by: by * rows, 2, x, 2.0)
    out = jax.jit(scaled)(jnp.ones(3, jnp.bfloat16))
    np.testing.assert_array_equal(out.astype(float), [2, 2, 0])


@pytest.mark.parametrize("num", [1, 70, 200])
def test_a_number_that_the_compiler_knows(num):
    found = jax.jit(lambda x: on_points(lambda rows: 2 * rows, num, x))(X[0])
    np.testing.assert_array_equal(found, 2 * X[0] * (np.arange(ROWS) < num)[:, None])

"""Products of small matrices: those of jnp.matmul, in value and in all derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.nets.primitives.products import products


def given(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("rows", [3, 40])  # turned in memory before the product, and not
def test_products_and_their_derivatives_are_those_of_matmul(rows, turned):
    rng = np.random.default_rng(0)
    a, b = given(rng, 5, 2, rows, 4), given(rng, 5, 2, 4, 7)
    b = jnp.swapaxes(b, -1, -2) if turned else b
    steps = given(rng, *a.shape), given(rng, *b.shape)

    def made(product):
        def one(a, b):
            return jnp.tanh(product(a, b))

        total = lambda a, b: jnp.sum(jax.vmap(one)(a, b) ** 2)
        forward = jax.jvp(jax.vmap(one), (a, b), steps)
        shared = jax.vmap(one, (None, 0))(a[0], b)
        return *forward, shared, jax.jvp(jax.grad(total, (0, 1)), (a, b), steps)

    def reference(a, b):
        return jnp.matmul(a, jnp.swapaxes(b, -1, -2) if turned else b)

    ours = made(lambda a, b: products(a, b, jnp.float32, turned=turned))
    theirs = jax.tree.leaves(made(reference))
    for found, expected in zip(jax.tree.leaves(ours), theirs, strict=True):
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)


def test_gradients_have_the_precision_of_their_factor():
    """Of half precision, summed in single."""
    a, b = jnp.ones((2, 3, 4), jnp.bfloat16), jnp.ones((2, 4, 5), jnp.bfloat16)
    assert products(a, b, jnp.float32).dtype == jnp.float32
    grads = jax.grad(lambda a, b: jnp.sum(products(a, b, jnp.float32)), (0, 1))(a, b)
    assert [g.dtype for g in grads] == [jnp.bfloat16, jnp.bfloat16]
    np.testing.assert_array_equal(np.asarray(grads[0], np.float32), 5)


@pytest.mark.parametrize(
    ("first", "second"), [((3, 4), (5, 6)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (3, 4, 5))]
)
def test_matrices_without_a_product_are_refused_where_they_are_multiplied(first, second):
    """Also where only shapes are asked for."""
    a, b = jnp.ones(first), jnp.ones(second)
    with pytest.raises(ValueError, match="have no product"):
        jax.eval_shape(lambda a, b: products(a, b, jnp.float32), a, b)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.nets.dense import matmul


def net(product):
    return lambda params, x: jnp.sum(jnp.sin(product(jnp.tanh(product(x, params[0])), params[1])))


def mapped_functions(f):
    """Every way in which jgen calls a layer: batches, ensembles, per-event gradients, tangents."""
    batch = lambda p, x: jnp.mean(jax.vmap(f, (None, 0))(p, x))
    return {
        "gradient": (jax.grad(f), "event"),
        "batch": (jax.grad(batch), "batch"),
        "two batches": (jax.grad(lambda p, x: batch(p, x) + batch(p, x.swapaxes(0, 1))), "batch"),
        "per event": (jax.vmap(jax.grad(f), (None, 0)), "batch"),
        "ensemble": (jax.vmap(jax.grad(batch), (0, None)), "members"),
        "tangent": (lambda p, x: jax.jvp(f, (p, x), (p, x))[1], "event"),
        "hessian": (jax.hessian(f, 1), "event"),
        "second axis": (jax.vmap(f, (None, 1)), "batch"),
    }


@pytest.mark.parametrize("name", mapped_functions(jnp.sum))
def test_equals_the_plain_product_under_every_transformation(x64, key, name):
    keys = jax.random.split(key, 3)
    params = [jax.random.normal(keys[0], (4, 6)), jax.random.normal(keys[1], (6, 4))]
    x = jax.random.normal(keys[2], (3, 5, 4))
    function, kind = mapped_functions(net(matmul))[name]
    expected, _ = mapped_functions(net(jnp.matmul))[name]
    if kind == "event":
        x = x[0]
    if kind == "members":
        params = [jnp.stack([p, 2 * p]) for p in params]
    for found, want in zip(
        jax.tree.leaves(function(params, x)), jax.tree.leaves(expected(params, x)), strict=True
    ):
        np.testing.assert_allclose(found, want, rtol=1e-10, atol=1e-12)


def test_a_batch_of_tokens_is_one_flat_product():
    x, w = jnp.ones((7, 5, 4)), jnp.ones((4, 6))
    lowered = jax.jit(jax.vmap(matmul, (0, None))).lower(x, w).as_text()
    assert "tensor<35x4xf32>, tensor<4x6xf32>" in lowered

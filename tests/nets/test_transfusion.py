import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.nets.network import num_parameters
from jgen.nets.transformers.transfusion import TransfusionConfig, transfusion

SMALL = TransfusionConfig(12, 2, 2, 16, 24, 4)


def test_published_parameter_count():
    assert num_parameters(transfusion(45, TransfusionConfig()).init) == 2_384_705


def test_incremental_contexts_equal_teacher_forced_ones(key):
    network, num = transfusion(10, SMALL), 10
    params, x, cond = network.init(key), jax.random.normal(key, (num,)), jnp.array(0.4)
    cache, previous, rows = jax.jit(network.start)(params, cond), jnp.zeros(()), []
    step = jax.jit(network.step)
    for i in range(num):
        context, cache = step(params, cache, i, previous)
        rows.append(context)
        previous = x[i]
    expected = jax.jit(network.contexts)(params, x, cond)
    np.testing.assert_allclose(np.stack(rows), expected, atol=2e-6)


def test_contexts_see_only_what_came_before(key):
    network = transfusion(10, SMALL)
    params, x = network.init(key), jax.random.normal(key, (10,))
    sums = lambda x: network.contexts(params, x, jnp.array(0.4)).sum(1)
    jacobian = jax.jit(jax.jacobian(sums))(x)
    np.testing.assert_array_equal(np.triu(jacobian), 0)
    assert np.all(np.abs(jacobian[np.tril_indices(10, -1)]) > 0)


def test_single_source_token_leaves_queries_and_keys_without_gradient(key):
    network = transfusion(10, SMALL)
    params = network.init(key)
    loss = lambda p: jnp.sum(network.contexts(p, jnp.ones(10), jnp.array(0.4)) ** 2)
    grads = jax.jit(jax.grad(loss))(params)
    for layer in ("encoder_0/_Attention_0", "decoder_0/cross_attention"):
        name, attention = layer.split("/")
        kernel = grads[name][attention]["qkv"]["kernel"]
        np.testing.assert_array_equal(kernel[:, : 2 * SMALL.width], 0)
        assert np.abs(kernel[:, 2 * SMALL.width :]).max() > 0


def test_bad_sizes():
    with pytest.raises(ValueError, match="so at least 47 features"):
        transfusion(45, TransfusionConfig(width=40))
    with pytest.raises(ValueError, match="multiple of heads, 5"):
        transfusion(10, TransfusionConfig(width=12, heads=5))

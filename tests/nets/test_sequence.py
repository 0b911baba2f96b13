import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.nets.transformers.sequence import SequenceConfig, sequence
from tests.helpers import random_params

SMALL = SequenceConfig(width=12, heads=2, blocks=2, mlp_width=16)


def test_zero_at_initialisation_and_shape(key):
    network = sequence(5, 1, SMALL)
    x = jax.random.normal(key, (5,))
    np.testing.assert_array_equal(network.apply(network.init(key), 0.3, x, jnp.float32(0.5)), 0)


def test_positions_are_all_that_tells_tokens_apart(key):
    """Permuting the numbers and their positions permutes the output."""
    network = sequence(5, 1, SMALL)
    params = random_params(network.init)
    x, order = jax.random.normal(key, (5,)), jnp.array([3, 0, 4, 1, 2])
    apply = jax.jit(lambda params, x: network.apply(params, 0.3, x, jnp.ones(1)))
    out = apply(params, x)
    moved = params | {"positions": params["positions"][order]}
    np.testing.assert_allclose(apply(moved, x[order]), out[order], rtol=1e-4, atol=1e-4)
    assert not np.allclose(apply(params, x[order]), out[order], atol=0.01)


def test_every_number_sees_every_other_time_and_condition(key):
    network = sequence(5, 2, SMALL)
    params = random_params(network.init)
    args = (jnp.float32(0.3), jax.random.normal(key, (5,)), jnp.ones(2))
    for jacobian in jax.jit(jax.jacobian(network.apply, (1, 2, 3)))(params, *args):
        assert np.all(np.abs(jacobian) > 1e-6)


def test_bad_sizes():
    with pytest.raises(ValueError, match="multiple of heads, 5"):
        sequence(5, 1, SequenceConfig(width=12, heads=5))

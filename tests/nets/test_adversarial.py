"""Shapes, signs and what each network sees."""

import jax
import jax.numpy as jnp
import numpy as np

from jgen.nets import (
    decoder_mlp,
    elementwise_map,
    encoder_mlp,
    pair_critic,
)

SHAPE = (3, 2, 2)


def test_encoder_and_decoder_have_the_shapes_of_both_spaces(key):
    x, cond = np.random.default_rng(0).normal(size=SHAPE), np.array([0.3, -1.0])
    encoder = encoder_mlp(SHAPE, 4, 2, hidden=(8,))
    params = encoder.init(key)
    encode = jax.jit(encoder.apply)
    mean, log_variance = encode(params, x, cond)
    assert mean.shape == log_variance.shape == (4,)
    assert not np.allclose(mean, encode(params, x, -cond)[0])
    decoder = decoder_mlp(4, SHAPE, 2, hidden=(8,), output=jax.nn.softplus)
    y = jax.jit(decoder.apply)(decoder.init(key), 10 * np.asarray(mean), cond)
    assert y.shape == SHAPE
    assert y.min() > 0


def test_pair_critic_sees_both_and_their_difference(key):
    network = pair_critic(SHAPE, 1, hidden=())
    params = network.init(key)
    x, y = np.random.default_rng(0).normal(size=(2, *SHAPE))
    cond = np.array([0.7])
    kernel, bias = (np.asarray(params["Dense_0"][name]) for name in ("kernel", "bias"))
    inputs = np.concatenate([np.ravel(x), np.ravel(y), np.ravel(x - y), cond])
    np.testing.assert_allclose(
        jax.jit(network.apply)(params, x, y, cond), (inputs @ kernel + bias)[0], rtol=1e-4
    )


def test_elementwise_map_starts_as_the_identity_and_knows_no_neighbours(key):
    network = elementwise_map(SHAPE, 2, hidden=(8,))
    params = network.init(key)
    x, noise = np.random.default_rng(0).uniform(0.1, 1, (2, *SHAPE)).astype(np.float32)
    cond = jnp.array([0.3, -1.0])
    each = jax.jit(lambda params, x, noise: network.apply(params, x, noise, cond))
    np.testing.assert_array_equal(each(params, x, noise), x)
    moved = jax.tree.map(lambda leaf: leaf + np.float32(0.3), params)
    y = np.asarray(each(moved, x, noise))
    assert np.abs(y - x).min() > 1e-3
    mirror = lambda a: a[::-1, :, ::-1]
    np.testing.assert_allclose(each(moved, mirror(x), mirror(noise)), mirror(y), rtol=1e-5)
    for slopes in jax.jacobian(each, argnums=(1, 2))(moved, x, noise):
        slopes = np.asarray(slopes).reshape(12, 12)
        assert np.abs(np.diag(slopes)).min() > 1e-4
        np.testing.assert_array_equal(slopes - np.diag(np.diag(slopes)), 0)
    # Energies are not negative: a change by -1.
    lower = jax.tree.map(lambda leaf: np.full(leaf.shape, -1.0 * (leaf.shape == (1,))), params)
    np.testing.assert_allclose(each(lower, 2 * x, noise), np.maximum(2 * x - 1, 0), atol=1e-6)

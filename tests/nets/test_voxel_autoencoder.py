"""Shapes, signs and what each network sees."""

import jax
import jax.numpy as jnp
import numpy as np

from jgen.nets.voxel_autoencoder import (
    pair_critic,
    voxel_critic,
    voxel_decoder,
    voxel_encoder,
    voxel_map,
)

SHAPE = (3, 2, 2)


def test_encoder_and_decoder_have_the_shapes_of_both_spaces(key):
    x, cond = jax.random.normal(key, SHAPE), jnp.array([0.3, -1.0])
    encoder = voxel_encoder(SHAPE, 2, 4, hidden=(8,))
    params = encoder.init(key)
    mean, log_variance = encoder.apply(params, x, cond)
    assert mean.shape == log_variance.shape == (4,)
    assert not np.allclose(mean, encoder.apply(params, x, -cond)[0])
    decoder = voxel_decoder(SHAPE, 2, 4, hidden=(8,))
    y = decoder.apply(decoder.init(key), 10 * mean, cond)
    assert y.shape == SHAPE
    assert y.min() > 0


def test_pair_critic_sees_both_and_their_difference(key):
    network = pair_critic(SHAPE, 1, hidden=())
    params = network.init(key)
    x, y = jax.random.normal(key, (2, *SHAPE))
    cond = jnp.array([0.7])
    kernel, bias = (np.asarray(params["Dense_0"][name]) for name in ("kernel", "bias"))
    inputs = np.concatenate([np.ravel(x), np.ravel(y), np.ravel(x - y), cond])
    np.testing.assert_allclose(
        network.apply(params, x, y, cond), (inputs @ kernel + bias)[0], rtol=1e-4
    )
    single = voxel_critic(SHAPE, 1, hidden=(4,))
    assert single.apply(single.init(key), x, cond).shape == ()


def test_voxel_map_starts_as_the_identity_and_knows_no_neighbours(key):
    network = voxel_map(SHAPE, 2, hidden=(8,))
    params = network.init(key)
    x, cond = jax.random.normal(key, SHAPE), jnp.array([0.3, -1.0])
    np.testing.assert_array_equal(network.apply(params, x, cond), x)
    moved = jax.tree.map(lambda leaf: leaf + 0.3, params)
    y = network.apply(moved, x, cond)
    assert np.abs(y - x).min() > 1e-3
    flipped = network.apply(moved, x[::-1, :, ::-1], cond)
    np.testing.assert_allclose(flipped, y[::-1, :, ::-1], rtol=1e-5)
    slopes = jax.jacobian(lambda x: network.apply(moved, x, cond).ravel())(x).reshape(12, 12)
    np.testing.assert_array_equal(slopes - np.diag(np.diag(slopes)), 0)

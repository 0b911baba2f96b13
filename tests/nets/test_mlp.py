"""Networks of dense layers in the forms that models ask for, beside the plain network."""

import jax
import jax.numpy as jnp
import numpy as np

from jgen.nets import decoder_mlp, encoder_mlp, mlp, num_parameters, velocity_mlp


def test_a_velocity_that_sees_the_time_as_it_is(key):
    field, plain = velocity_mlp(2, 3, hidden=(8,), time_features=0), mlp(6, 2, hidden=(8,))
    params = field.init(key)
    x, cond, t = jnp.array([0.3, -1.0]), jnp.array([[1.0, 2.0, 3.0]]), 0.25
    expected = plain.apply(params, jnp.array([0.3, -1.0, 0.25, 1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(field.apply(params, t, x, cond), expected)
    assert num_parameters(field.init) == 6 * 8 + 8 + 8 * 2 + 2
    embedded = velocity_mlp(2, hidden=(8,), time_features=4)
    assert num_parameters(embedded.init) == (2 + 4) * 8 + 8 + 8 * 2 + 2
    np.testing.assert_array_equal(embedded.apply(embedded.init(key), t, x), np.zeros(2))


def test_coders_are_the_plain_network(key):
    encoder, decoder = encoder_mlp(5, 2, hidden=(8,)), decoder_mlp(2, 5, hidden=(8,))
    x = jax.random.normal(key, (5,))
    mean, log_variance = encoder.apply(encoder.init(key), x, None)
    expected = mlp(5, 4, hidden=(8,)).apply(encoder.init(key), x)
    np.testing.assert_array_equal(jnp.concatenate([mean, log_variance]), expected)
    expected = mlp(2, 5, hidden=(8,)).apply(decoder.init(key), mean)
    np.testing.assert_array_equal(decoder.apply(decoder.init(key), mean, None), expected)

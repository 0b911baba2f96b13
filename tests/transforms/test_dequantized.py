"""Noise that is new at every step."""

import jax
import jax.numpy as jnp
import numpy as np

from jgen.bijectors import dequantize
from jgen.generative_model import Batch, GenerativeModel
from jgen.transforms import dequantized


def test_new_noise_keeps_the_levels():
    levels = np.random.default_rng(0).integers(17, size=(50, 64))
    x = dequantize(np.random.default_rng(1), levels, 17)
    seen = []
    keep = lambda params, key, batch: seen.append(batch) or jnp.zeros(())
    model = dequantized(GenerativeModel(None, keep, None), 17)
    cond = np.ones((50, 1))
    for seed in (0, 1):
        model.loss(None, jax.random.key(seed), Batch(x, cond))
    a, b = (np.asarray(batch.x) for batch in seen)
    assert abs(a - b).max() > 0.01
    np.testing.assert_array_equal(np.floor(17 * a), levels)
    assert abs(np.mean(17 * a - levels) - 0.5) < 4 * 12**-0.5 / a.size**0.5
    assert seen[0].cond is cond

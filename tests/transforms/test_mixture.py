"""The mixture of an ensemble's members."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from jgen import Batch, TrainConfig, bijectors, draw, fit, models
from jgen.training import member
from jgen.transforms import mixture


def affine_model():
    """A flow with a shift and a scale for each of two components."""
    flow = bijectors.autoregressive_flow(2, bijectors.affine(), 1, hidden=(4,))
    return models.flow(flow, 2)


@pytest.fixture(scope="module")
def trained():
    x = np.random.default_rng(0).normal(size=(200, 2)) + [3.0, 0.0]
    options = TrainConfig(steps=3, batch_size=16, ensemble=3)
    fitted = fit(affine_model(), Batch(x), jax.random.key(0), options, progress=False)
    return fitted.params


def test_density_of_a_mixture(trained, key):
    model = affine_model()
    mixed, x = mixture(model, 3), jnp.array([1.0, -0.5])
    each = [float(model.log_prob(member(trained, i), key, x)) for i in range(3)]
    assert float(mixed.log_prob(trained, key, x)) == pytest.approx(
        logsumexp(each) - np.log(3), abs=1e-5
    )


def test_events_are_of_single_members(key):
    """Members that are shifted far apart: a third of the events is near each."""
    model = affine_model()
    mixed = mixture(model._replace(sample_from=lambda p, z, cond=None: p["at"] + 0 * z), 3)
    params = {"at": jnp.array([0.0, 10.0, 20.0])}
    make = lambda key: mixed.sample_from(params, mixed.noise(key), None)[0]
    found = np.asarray(jax.vmap(make)(jax.random.split(key, 600)))
    np.testing.assert_allclose([np.mean(found == at) for at in (0, 10, 20)], 1 / 3, atol=0.08)


def test_a_mixture_keeps_the_contract(trained, key):
    mixed = mixture(affine_model(), 3)
    assert jax.tree.map(jnp.shape, mixed.init(key)) == jax.tree.map(jnp.shape, trained)
    assert draw(mixed, trained, key, 5).shape == (5, 2)
    noise = mixed.noise(key)
    np.testing.assert_array_equal(mixed.sample_from(trained, noise), mixed.sample(trained, key))
    batch = Batch(jnp.ones((4, 2)))
    each = [float(affine_model().loss(member(trained, i), key, batch)) for i in range(3)]
    assert float(mixed.loss(trained, key, batch)) == pytest.approx(np.mean(each), abs=1e-5)
    with pytest.raises(ValueError, match="members"):
        mixture(affine_model(), 0)

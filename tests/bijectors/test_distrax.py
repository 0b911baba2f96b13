"""Layers, bases and likelihoods of distrax against closed forms."""

import subprocess
import sys

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from jgen.bijectors import Bijector, actnorm, compose, from_distrax, standardize
from jgen.bijectors.distrax import density
from jgen.generative_model import Batch
from jgen.models import distribution, encoder_decoder, flow, vae
from jgen.nets import decoder_mlp, encoder_mlp


def test_a_layer_is_the_map_with_its_jacobian(key):
    """Elementwise, and one that mixes components."""
    x = jnp.array([0.3, -1.2])
    matrix = distrax.UnconstrainedAffine(jnp.array([[2.0, 1.0], [0.5, 3.0]]), jnp.array([1.0, 0]))
    for theirs in (distrax.ScalarAffine(1.0, 2.0), distrax.Tanh(), matrix):
        layer = from_distrax(theirs)
        z, log_det = jax.jit(layer.forward)(x, None)
        jacobian = jax.jacfwd(theirs.forward)(x)
        np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], rtol=1e-5)
        back, inverse = layer.inverse(z, None)
        np.testing.assert_allclose(back, x, rtol=1e-4)
        np.testing.assert_allclose(inverse, -log_det, rtol=1e-4)


def test_layers_of_both_kinds_are_composed(key):
    shift = distrax.ScalarAffine(1.0, 2.0)
    assert isinstance(compose(shift, standardize(np.zeros(2), np.ones(2))), Bijector)
    model = flow(compose(shift, actnorm(2)), 2)
    params = [{}, {"shift": jnp.array([1.0, 2.0]), "log_scale": jnp.zeros(2)}]
    x = jnp.array([0.3, -0.7])
    expected = stats.norm.logpdf(2 * np.asarray(x) + 1 + [1, 2]).sum() + 2 * np.log(2)
    np.testing.assert_allclose(jax.jit(model.log_prob)(params, key, x, None), expected, rtol=1e-5)
    x, log_q = jax.jit(model.sample_and_log_prob)(params, key, None)
    np.testing.assert_allclose(log_q, model.log_prob(params, key, x), rtol=1e-5)


def test_a_distribution_is_a_base(key):
    """A mixture, jitted and vmapped."""
    weights, scale = np.array([0.3, 0.7]), np.array([[0.5, 1.0], [1.0, 0.2]])
    mean = np.array([[-2.0, 0.0], [1.0, 3.0]])
    mixture = distrax.MixtureSameFamily(
        distrax.Categorical(probs=weights), distrax.MultivariateNormalDiag(mean, scale)
    )
    model = flow(actnorm(2), mixture)
    params = {"shift": jnp.array([1.0, 2.0]), "log_scale": jnp.zeros(2)}
    num = 4000
    x = jax.jit(jax.vmap(model.sample, (None, 0)))(params, jax.random.split(key, num))
    average = weights @ mean
    spread = np.sqrt(weights @ (scale**2 + mean**2) - average**2)
    np.testing.assert_allclose(x.mean(0), average - [1, 2], atol=4 * spread.max() / num**0.5)
    found = jax.jit(jax.vmap(model.log_prob, (None, None, 0)))(params, key, x)
    each = stats.norm.logpdf((np.asarray(x) + [1, 2])[:, None], mean, scale).sum(-1)
    np.testing.assert_allclose(found, logsumexp(np.log(weights) + each, axis=1), rtol=1e-5)
    # Components that distrax takes for a batch are those of one event.
    _, log_prob = density(distrax.Logistic(np.zeros(2), np.ones(2)))
    np.testing.assert_allclose(log_prob(jnp.zeros(2)), -2 * np.log(4), rtol=1e-6)
    with pytest.raises(ValueError, match=r"one of events \(2,\), got \(3,\)"):
        log_prob(jnp.zeros(3))


def test_a_distribution_is_a_likelihood(key):
    """Gamma-distributed components, whose shape and rate a decoder makes."""
    positive = distribution(lambda raw: distrax.Gamma(jnp.exp(raw[0]), jnp.exp(raw[1])))
    raw, x = jnp.array([[0.1, 0.5], [0.2, -0.3]]), np.array([0.7, 2.0])
    shape, rate = np.exp(np.asarray(raw, np.float64))
    expected = stats.gamma.logpdf(x, shape, scale=1 / rate).sum()
    np.testing.assert_allclose(positive.log_prob(raw, x), expected, rtol=1e-5)
    np.testing.assert_allclose(positive.mean(raw), shape / rate, rtol=1e-5)
    coder = encoder_decoder(
        encoder_mlp(2, 1, hidden=(4,)), decoder_mlp(1, (2, 2), hidden=(4,)), positive
    )
    model = vae(coder, (1,), num_importance=2)
    params = model.init(key)
    # distrax promotes ranks, which these tests do not allow otherwise.
    with jax.numpy_rank_promotion("allow"):
        drawn = jax.jit(jax.vmap(model.sample, (None, 0, None)))(
            params, jax.random.split(key, 5), None
        )
        assert drawn.shape == (5, 2)
        assert np.all(drawn > 0)
        assert np.isfinite(model.loss(params, key, Batch(drawn)))
        noise = model.noise(key, None)
        found = model.sample_from(params, noise, None)
        np.testing.assert_array_equal(found, model.sample(params, key, None))


def test_jgen_does_not_import_it_and_refuses_other_things():
    code = "import sys, jgen.models, jgen.bijectors; raise SystemExit('distrax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(TypeError, match="from_distrax needs a distrax.Bijector, got 3"):
        from_distrax(3)
    with pytest.raises(TypeError, match="needs a distrax.Distribution"):
        density(distrax.Tanh())

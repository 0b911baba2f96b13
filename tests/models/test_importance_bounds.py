"""Importance bounds of a VAE against quadrature over its one latent number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jgen.generative_model import Batch, draw
from jgen.models import (
    Autoencoder,
    bernoulli,
    importance_bound,
    log_importance_weights,
    log_importance_weights_of_events,
    nested_bounds,
    vae,
)


def bernoulli_coder():
    """Three pixels of one latent, with an encoder that is off, both by hand."""
    slopes, offsets = np.array([2.0, -1.0, 0.5]), np.array([0.3, 0.0, -0.8])
    return Autoencoder(
        lambda key: {},
        lambda p, x, cond=None: (jnp.array([0.4]) * x[0], jnp.array([-0.5])),
        lambda p, r, cond=None: slopes * r + offsets,
    )


def exact_bounds(coder, x):
    """log p(x), ELBO and IWAE_2 by quadrature over the latent."""
    r = np.linspace(-9, 9, 1201)
    decoded = jax.vmap(lambda r: coder.decode({}, r[None]))(jnp.asarray(r))
    log_x = jax.vmap(lambda l: bernoulli().log_prob(l, x))(decoded)
    mean, log_variance = coder.encode({}, x)
    log_q = scipy.stats.norm.logpdf(r, mean, np.exp(log_variance / 2))
    log_w = np.asarray(log_x) + scipy.stats.norm.logpdf(r) - log_q
    q, step = np.exp(log_q), r[1] - r[0]
    pairs = np.logaddexp(log_w[:, None], log_w[None]) - np.log(2)
    log_p = np.log(np.sum(np.exp(log_w) * q) * step)
    return log_p, np.sum(q * log_w) * step, q @ pairs @ q * step**2


def test_bounds_are_those_of_quadrature_and_rise_to_the_likelihood(key):
    """ELBO = IWAE_1 <= IWAE_2 <= ... <= log p; each K has draws of its own."""
    coder, x = bernoulli_coder(), np.array([1.0, 1.0, 0.0], np.float32)
    log_p, bound, pair = exact_bounds(coder, x)
    assert bound < pair - 0.01 < log_p - 0.03
    total, found = 2**16, []
    for i, k in enumerate((1, 2, 8)):
        num = total // k
        data = Batch(np.repeat(x[None], num, axis=0))
        log_w = log_importance_weights_of_events(
            coder, {}, jax.random.fold_in(key, i), data, num=k, batch_size=num
        )
        assert log_w.shape == (num, k)
        values = np.asarray(importance_bound(log_w))
        found.append((values.mean(), values.std() / num**0.5))
        variance = np.exp(2 * (log_w - log_p)).mean() - 1
    for (value, error), expected in zip(found[:2], (bound, pair), strict=False):
        np.testing.assert_allclose(value, expected, atol=4 * error)
        assert error < 0.005
    value, error = np.array(found).T
    assert np.all(np.diff(value) > 0)
    assert np.all(value < log_p + 3 * error)
    # Of first order in 1 / K there is left, in the end, var(w) / (2 K p^2).
    np.testing.assert_allclose(log_p - value[2], variance / 16, atol=4 * error[2])
    assert 4 * error[2] < variance / 16


def test_log_prob_is_the_importance_bound_and_a_density(key):
    coder = bernoulli_coder()
    model = vae(coder, (1,), num_importance=400)
    every = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)], np.float32)
    keys = jax.random.split(key, 8)
    found = jax.vmap(lambda k, x: model.log_prob({}, k, x, None))(keys, every)
    weights = log_importance_weights(coder, {}, keys[3], every[3], num=400)
    np.testing.assert_allclose(found[3], importance_bound(weights), rtol=1e-6)
    exact = np.array([exact_bounds(coder, x)[0] for x in every])
    np.testing.assert_allclose(np.exp(exact).sum(), 1, rtol=1e-6)
    np.testing.assert_allclose(found, exact, atol=0.15)

    # Samples have the probabilities whose logarithm this is.
    n = 20_000
    x = draw(model, {}, key, n, batch_size=n)
    share = np.bincount((x @ [4, 2, 1]).astype(int), minlength=8) / n
    np.testing.assert_allclose(share, np.exp(exact), atol=4 * 0.5 / n**0.5)
    assert vae(coder, (1,)).log_prob is None


def test_nested_bounds_by_hand_rise_for_every_event():
    weights = np.array([[1.0, 3.0, 2.0, 6.0], [5.0, 5.0, 5.0, 5.0]])
    found = nested_bounds(np.log(weights))
    assert list(found) == [1, 2, 4]
    np.testing.assert_allclose(found[1], np.log(weights).mean(axis=1))
    np.testing.assert_allclose(found[2], [(np.log(2) + np.log(4)) / 2, np.log(5)])
    np.testing.assert_allclose(found[4], [np.log(3), np.log(5)])
    random = np.stack(list(nested_bounds(np.random.default_rng(0).normal(size=(9, 64))).values()))
    assert (np.diff(random, axis=0) > 0).all()
    with pytest.raises(ValueError, match="power of two of draws, got 3"):
        nested_bounds(np.zeros((2, 3)))

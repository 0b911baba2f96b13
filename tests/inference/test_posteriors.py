"""Posteriors from likelihoods, ratios and neural densities, against exact ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from scipy import stats

from jgen import Batch, GenerativeModel, OptimizerConfig, TrainConfig, draw, fit
from jgen.arrays import SampleWarning
from jgen.inference import (
    likelihood_flow,
    normal_prior,
    posterior_flow,
    posterior_matching,
    ratio_model,
    sample_posterior,
    truncated_draws,
    uniform_prior,
)
from tests.helpers import random_params

PRIOR = normal_prior(np.zeros(2), np.array([1.0, 2.0]))
WIDTH = 0.5


def log_likelihood(theta, x):
    return jnp.sum(norm.logpdf(x, theta, WIDTH))


def exact(x):
    """Mean and standard deviation of the posterior of normal data of one normal parameter each."""
    variance = 1 / (1 / np.array([1.0, 4.0]) + 1 / WIDTH**2)
    return variance * x / WIDTH**2, np.sqrt(variance)


def test_draws_of_a_likelihood_follow_the_posterior(key):
    x = np.array([0.7, -3.0])
    draws = sample_posterior(PRIOR, log_likelihood, x, key, 2000, candidates=5000, moves=10)
    for column, mean, width in zip(draws.T, *exact(x), strict=True):
        assert stats.kstest(column, stats.norm(mean, width).cdf).pvalue > 0.01


def test_both_modes_are_found(key):
    """The sign of a uniform parameter cannot be seen in its square."""
    prior = uniform_prior(np.array([-2.0]), np.array([2.0]))
    likelihood = lambda theta, x: norm.logpdf(x[0], theta[0] ** 2, 0.05)
    draws = sample_posterior(prior, likelihood, np.ones(1), key, 2000, candidates=5000, moves=10)
    assert np.mean(draws > 0) == pytest.approx(0.5, abs=0.06)
    grid = np.linspace(0.7, 1.3, 4000)
    density = stats.norm.pdf(1.0, grid**2, 0.05)
    mean = np.average(grid, weights=density)
    assert np.abs(draws).mean() == pytest.approx(mean, abs=0.003)


def test_likelihoods_without_a_posterior_are_refused(key):
    x = np.zeros(2)
    nowhere = lambda theta, x: jnp.sum(theta) * 0 - jnp.inf
    with pytest.raises(ValueError, match="zero for all of 100 draws"):
        sample_posterior(PRIOR, nowhere, x, key, 10, candidates=100)
    broken = lambda theta, x: jnp.sum(theta) * jnp.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        sample_posterior(PRIOR, broken, x, key, 10, candidates=100)
    with pytest.raises(ValueError, match="one at a time"):
        sample_posterior(PRIOR, log_likelihood, x[None], key, 10)
    with pytest.warns(SampleWarning, match="of 100 draws of the prior have weight"):
        sample_posterior(PRIOR, log_likelihood, x, key, 10, candidates=100, moves=2)


def gaussian_posterior():
    """The exact posterior as a model."""

    def parameters(x):
        variance = 1 / (1 / jnp.array([1.0, 4.0]) + 1 / WIDTH**2)
        return variance * x / WIDTH**2, jnp.sqrt(variance)

    def sample(params, key, x):
        mean, width = parameters(x)
        return mean + width * jax.random.normal(key, (2,))

    def log_prob(params, key, theta, x):
        return jnp.sum(norm.logpdf(theta, *parameters(x)))

    return GenerativeModel(lambda key: {}, lambda *_: 0.0, sample, log_prob)


def test_truncated_draws_are_the_prior_where_the_posterior_is(key):
    x = np.array([0.5, 1.0], np.float32)
    model, level = gaussian_posterior(), 0.05
    theta = truncated_draws(PRIOR, model, {}, x, key, 500, level=level)
    mean, width = exact(x)
    # A density above its quantile 0.05 is a radius below that of chi2 of two degrees.
    radius = np.sqrt((((theta - mean) / width) ** 2).sum(axis=1))
    limit = np.sqrt(stats.chi2(2).ppf(1 - level))
    assert radius.max() < 1.1 * limit
    # The prior there: by rejection of its own.
    own = np.random.default_rng(0).normal(size=(200_000, 2)) * [1.0, 2.0]
    own = own[(((own - mean) / width) ** 2).sum(axis=1) < limit**2]
    assert min(stats.ks_2samp(*pair).pvalue for pair in zip(theta.T, own.T, strict=True)) > 0.01
    with pytest.raises(ValueError, match="needs the density"):
        truncated_draws(PRIOR, model._replace(log_prob=None), {}, x, key, 10)


def test_neural_posteriors_stay_inside_the_prior(key):
    prior = uniform_prior(np.array([0.0, 0.0]), np.array([1.0, 2.0]))
    data = np.random.default_rng(0).normal(size=(50, 3)) * [1.0, 10.0, 100.0]
    for make in (posterior_flow, posterior_matching):
        model = make(prior, data, hidden=(8,))
        params = random_params(model.init)
        theta = draw(model, params, key, 500, data[:1])
        assert (theta >= 0).all()
        assert (theta <= [1.0, 2.0]).all()
        assert theta.std(axis=0).min() > 1e-3


@pytest.mark.parametrize("make", [posterior_flow, posterior_matching, likelihood_flow, ratio_model])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros(5), "many simulations"),
        (np.array([[0.0, 1.0], [np.nan, 2.0]]), "must be finite"),
        (np.array([[0.0, 1.0], [0.0, 2.0]]), "column 0 of the data never changes"),
    ],
)
def test_bad_simulations_are_refused(make, data, message):
    with pytest.raises(ValueError, match=message):
        make(PRIOR, data)


@pytest.mark.study
def test_a_neural_ratio_is_the_exact_ratio(key, optimized):
    """log r = log p(x | theta) - log p(x), both normal."""
    theta = np.asarray(jax.vmap(PRIOR.sample)(jax.random.split(key, 10_000)))
    x = theta + WIDTH * np.random.default_rng(0).normal(size=theta.shape).astype(np.float32)
    model = ratio_model(PRIOR, x, hidden=(32, 32), candidates=1000)
    options = TrainConfig(1000, 256, optimizer=OptimizerConfig(5e-3))
    params = fit(model, Batch(theta, x), key, options, progress=False).one
    one = lambda theta, x: model.log_prob(params, key, theta, x) - PRIOR.log_prob(theta)
    found = np.asarray(jax.vmap(one)(theta[:2000], x[:2000]))
    total = np.sqrt(np.array([1.0, 4.0]) + WIDTH**2)
    right = (stats.norm.logpdf(x, theta, WIDTH) - stats.norm.logpdf(x, 0.0, total)).sum(axis=1)
    assert np.mean(found - right[:2000]) == pytest.approx(0, abs=0.15)
    assert np.std(found - right[:2000]) < 0.5
    # Its samples are those of the posterior.
    observed = np.array([[0.7, -3.0]], np.float32)
    draws = draw(model, params, key, 1000, observed)
    mean, width = exact(observed[0])
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.1)
    np.testing.assert_allclose(draws.std(axis=0), width, rtol=0.15)


def test_pairs_apart_are_of_others(key):
    """A minibatch of two: both parameters meet the other's data."""
    data = np.array([[0.0], [1.0]], np.float32)
    prior = normal_prior(np.zeros(1), np.ones(1))
    model = ratio_model(prior, data, hidden=(4,))
    params = random_params(model.init)
    theta = np.array([[0.3], [-0.8]], np.float32)
    log_r = lambda t, x: float(model.log_prob(params, key, t, x) - prior.log_prob(t))
    softplus = lambda a: np.log1p(np.exp(a))
    together = np.mean([softplus(-log_r(t, x)) for t, x in zip(theta, data, strict=True)])
    apart = np.mean([softplus(log_r(t, x)) for t, x in zip(theta, data[::-1], strict=True)])
    loss = model.loss(params, key, Batch(jnp.asarray(theta), jnp.asarray(data)))
    assert float(loss) == pytest.approx(together + apart, rel=1e-5)
    with pytest.raises(ValueError, match="two events or more"):
        model.loss(params, key, Batch(jnp.asarray(theta[:1]), jnp.asarray(data[:1])))

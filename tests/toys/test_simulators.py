"""Simulators against their likelihoods, and their posteriors against published draws."""

from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import stats

from jgen.toys.simulators import SIMULATORS, observations

PUBLISHED = np.load(Path(__file__).parent / "data" / "sbibm_posteriors.npz")


def simulated(simulator, theta, num, seed=0):
    keys = jax.random.split(jax.random.key(seed), num)
    return np.asarray(jax.jit(jax.vmap(simulator.simulate, (0, None)))(keys, theta))


def test_slcp_is_four_normal_points():
    simulator = SIMULATORS["slcp"]()
    theta = np.array([0.5, -1.0, 1.2, -0.8, 0.9], np.float32)
    widths, correlation = theta[2:4] ** 2, np.tanh(theta[4])
    off = correlation * widths.prod()
    covariance = np.array([[widths[0] ** 2, off], [off, widths[1] ** 2]])
    x = simulated(simulator, theta, 4000)
    points = x.reshape(-1, 2)
    np.testing.assert_allclose(points.mean(axis=0), theta[:2], atol=0.05)
    np.testing.assert_allclose(np.cov(points.T), covariance, atol=0.06)
    expected = stats.multivariate_normal(theta[:2], covariance).logpdf(x[0].reshape(4, 2)).sum()
    assert simulator.log_likelihood(theta, x[0]) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", ["gaussian_mixture", "two_moons"])
def test_likelihoods_are_those_of_the_simulations(name):
    """Integrals of the density over cells against fractions of simulations in them."""
    simulator, theta = SIMULATORS[name](), np.array([0.2, -0.5], np.float32)
    x = simulated(simulator, theta, 20_000)
    low, high = np.quantile(x, [0.0, 1.0], axis=0)
    fine = [np.linspace(a, b, 401) for a, b in zip(low, high, strict=True)]
    middle = np.stack(np.meshgrid(*[(e[1:] + e[:-1]) / 2 for e in fine], indexing="ij"), -1)
    score = jax.jit(jax.vmap(simulator.log_likelihood, (None, 0)))
    density = np.exp(np.asarray(score(theta, middle.reshape(-1, 2).astype(np.float32))))
    area = np.prod((high - low) / 400)
    cells = area * density.reshape(4, 100, 4, 100).sum(axis=(1, 3))
    edges = [e[::100] for e in fine]
    found = np.histogram2d(*x.T, edges)[0] / len(x)
    np.testing.assert_allclose(cells.sum(), 1, atol=0.02)
    np.testing.assert_allclose(found, cells, atol=0.015)


@pytest.mark.parametrize("name", ["gaussian_mixture", "two_moons"])
def test_exact_posteriors_agree_with_published_draws(name):
    draws = SIMULATORS[name]().posterior(jax.random.key(0), observations(name)[0], 2000)
    for ours, theirs in zip(draws.T, PUBLISHED[name].T, strict=True):
        assert stats.ks_2samp(ours, theirs).pvalue > 0.01


def test_the_linear_posterior_is_closed():
    simulator, x = SIMULATORS["gaussian_linear"](), observations("gaussian_linear")[0]
    draws = simulator.posterior(jax.random.key(0), x, 4000)
    np.testing.assert_allclose(draws.mean(axis=0), x / 2, atol=0.02)
    np.testing.assert_allclose(draws.var(axis=0), 0.05, rtol=0.1)
    # Bayes' theorem: posterior over likelihood times prior is the same everywhere.
    rows = draws[:5]
    log_posterior = stats.norm.logpdf(rows, x / 2, np.sqrt(0.05)).sum(axis=1)
    joint = [float(simulator.log_likelihood(t, x) + simulator.prior.log_prob(t)) for t in rows]
    assert np.ptp(log_posterior - joint) < 1e-3


def test_an_impossible_observation_is_refused():
    with pytest.raises(ValueError, match="not possible under this prior"):
        SIMULATORS["two_moons"]().posterior(jax.random.key(0), np.full(2, 9.0), 10)
    with pytest.raises(ValueError, match="one of gaussian_linear"):
        observations("three_moons")


@pytest.mark.study
def test_the_posterior_of_slcp_agrees_with_published_draws(optimized):
    draws = SIMULATORS["slcp"]().posterior(jax.random.key(1), observations("slcp")[0], 2000)
    for ours, theirs in zip(draws.T, PUBLISHED["slcp"].astype(float).T, strict=True):
        assert stats.ks_2samp(ours, theirs).pvalue > 0.01

"""Simple densities against their closed forms."""

import numpy as np
import pytest
from scipy import stats

from jgen.metrics import bernoulli_mixture_log_prob, gaussian_mixture_log_prob, pca_log_prob


def test_ten_gaussians_of_one():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 2)) @ [[1.0, 0.5], [0.0, 0.7]]
    expected = stats.multivariate_normal([0, 0], np.cov(x.T)).logpdf(x[3000:])
    found = gaussian_mixture_log_prob(x[:2500], x[2500:3000], x[3000:])
    # Ten Gaussians have some sixty parameters, half a nat each on 2500 events.
    assert abs(np.mean(found - expected)) < 0.03
    one = gaussian_mixture_log_prob(x, x, x, 1, regularisations=(0.0,))
    closed = stats.multivariate_normal(x.mean(axis=0), np.cov(x.T, bias=True)).logpdf(x)
    np.testing.assert_allclose(one, closed, atol=1e-6)
    with pytest.raises(ValueError, match="at least one"):
        gaussian_mixture_log_prob(x, x, x, regularisations=())


def test_one_component_is_the_product_of_frequencies_and_more_are_better():
    rng = np.random.default_rng(0)
    prototypes = rng.random((3, 20))
    x = np.float32(rng.random((600, 20)) < prototypes[rng.integers(3, size=600)])
    train, test = x[:400], x[400:]
    share = (train.sum(axis=0, dtype=np.float64) + 0.5) / (len(train) + 1)
    expected = np.sum(test * np.log(share) + (1 - test) * np.log1p(-share), axis=1)
    np.testing.assert_allclose(bernoulli_mixture_log_prob(train, test, 1)[1], expected, rtol=1e-9)
    mean = lambda steps: bernoulli_mixture_log_prob(train, test, 3, steps=steps)[0].mean()
    assert np.all(np.diff([mean(n) for n in (1, 3, 10, 40)]) > 0)
    # All 2^3 events of three pixels have probability one together.
    corners = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, -1).T
    total = np.exp(bernoulli_mixture_log_prob(train[:, :3], corners, 2)[1]).sum()
    assert total == pytest.approx(1, rel=1e-9)


def test_probabilistic_pca_is_the_likelihood_at_its_solution():
    x = np.random.default_rng(0).normal(size=(300, 4)) * [3, 2, 1, 0.5] + 1
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    noise = values[:2].mean()
    weights = vectors[:, 2:] * np.sqrt(values[2:] - noise)
    covariance = weights @ weights.T + noise * np.eye(4)
    expected = stats.multivariate_normal(x.mean(axis=0), covariance).logpdf(x).mean()
    assert pca_log_prob(x, 2) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ValueError, match="num_latent must be from 1 to 3, got 4"):
        pca_log_prob(x, 4)

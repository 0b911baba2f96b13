"""Tests of posteriors pass exact ones and see those that are too narrow, shifted, or blind."""

import jax
import numpy as np
import pytest

from jgen.inference import local_test, posterior_ranks, predictive_p_values, tarp

PAIRS, DRAWS = 600, 100


@pytest.fixture(scope="module")
def pairs():
    """theta ~ N(0, 1), x ~ N(theta, 1), two of each: posteriors N(x / 2, 1 / 2)."""
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(PAIRS, 2))
    x = theta + rng.normal(size=theta.shape)
    noise = rng.normal(size=(PAIRS, DRAWS, 2))
    return theta, x, noise


def posterior(x, noise, narrow=1.0):
    return x[:, None] / 2 + narrow * np.sqrt(0.5) * noise


def test_ranks_of_an_exact_posterior_are_uniform(pairs, key):
    theta, x, noise = pairs
    ranks = posterior_ranks(theta, posterior(x, noise), key)
    assert ranks.num == DRAWS
    assert ranks.values.shape == theta.shape
    assert ranks.p_value.min() > 0.05
    assert ranks.values.mean() == pytest.approx(DRAWS / 2, abs=3)
    # Uniform integers from 0 to 100 have this width.
    assert ranks.values.std() == pytest.approx(np.sqrt(DRAWS * (DRAWS + 2) / 12), abs=1.5)
    assert posterior_ranks(theta, posterior(x, noise, 0.8), key).p_value.max() < 0.05
    assert posterior_ranks(theta + 0.2, posterior(x, noise), key).p_value.max() < 0.01


def test_equal_values_get_random_ranks(key):
    truth = np.zeros((2000, 1))
    ranks = posterior_ranks(truth, np.zeros((2000, 4, 1)), key)
    np.testing.assert_allclose(np.bincount(ranks.values[:, 0]) / 2000, 0.2, atol=0.03)


def test_tarp_sees_what_ranks_do_not(pairs, key):
    theta, x, noise = pairs
    right = tarp(theta, posterior(x, noise), key)
    assert right.p_value > 0.05
    pull = (right.coverage.observed - right.coverage.levels) / right.coverage.error
    assert np.abs(pull).max() < 3
    assert tarp(theta, posterior(x, noise, 0.8), key).p_value < 0.01
    # The prior ignores the data: its ranks are uniform.
    blind = noise
    assert posterior_ranks(theta, blind, key).p_value.min() > 0.01
    # Another pair's posterior has the right width, and knows nothing of this one.
    assert tarp(theta, posterior(x[::-1], noise), key).p_value < 1e-3


def test_a_classifier_sees_a_posterior_that_is_wrong_at_one_observation(pairs, key):
    theta, x, noise = pairs
    rng = np.random.default_rng(1)
    theta, x, noise = (np.tile(a, (4, *[1] * (a.ndim - 1))) for a in (theta, x, noise))
    theta = rng.normal(size=theta.shape)
    x = theta + rng.normal(size=theta.shape)
    observed = np.array([1.0, -0.5])
    at = observed / 2 + np.sqrt(0.5) * rng.normal(size=(500, 2))
    own = x / 2 + np.sqrt(0.5) * rng.normal(size=theta.shape)
    right = local_test(theta, x, own, observed, at, key, trials=8)
    assert right.p_value > 0.1
    assert right.null.shape == (8,)
    wrong = local_test(theta, x, own + 0.4, observed, at + 0.4, key, trials=8)
    assert wrong.p_value == pytest.approx(1 / 9)
    assert wrong.statistic > 2 * wrong.null.max()


def test_predicted_data(key):
    simulated = np.random.default_rng(0).normal(size=(9999, 2))
    p = predictive_p_values(np.array([0.0, 2.5]), simulated)
    assert p[0] > 0.9
    assert p[1] == pytest.approx(0.0124, abs=0.004)
    assert predictive_p_values(np.array([9.0, -9.0]), simulated).max() == pytest.approx(2e-4)


@pytest.mark.parametrize(
    ("truth", "draws", "message"),
    [
        (np.zeros((5, 2)), np.zeros((5, 2)), "draws .pairs, num, dim."),
        (np.zeros((5, 2)), np.zeros((4, 3, 2)), "draws .pairs, num, dim."),
        (np.full((5, 2), np.nan), np.zeros((5, 3, 2)), "10 of 10 truth are not finite"),
    ],
)
@pytest.mark.parametrize("test", [posterior_ranks, tarp])
def test_what_does_not_fit_is_refused(test, truth, draws, message):
    with pytest.raises(ValueError, match=message):
        test(truth, draws, jax.random.key(0))
    with pytest.raises(ValueError, match="same true value"):
        tarp(np.zeros((5, 2)), np.zeros((5, 3, 2)), jax.random.key(0))


def test_draws_at_the_observation_have_the_parameters_columns(key):
    theta = np.zeros((8, 2))
    with pytest.raises(ValueError, match=r"observed_draws need the shape .num, 2., got \(5, 3\)"):
        local_test(theta, theta, theta, theta[0], np.zeros((5, 3)), key)
    with pytest.raises(ValueError, match="and the observation"):
        local_test(theta, theta, theta, np.zeros(3), theta, key)

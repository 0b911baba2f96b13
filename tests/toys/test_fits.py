"""Generators of known amplification: values of the literature, and what simulations give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jgen.generative_model import draw
from jgen.toys import (
    bootstrap_weights,
    fit_error,
    gaussian,
    ideal_amplification,
    memoriser,
    normal_fit,
    normal_probability,
    quantile_edges,
    radial_fit,
    ring,
)

RADII = quantile_edges(ring().marginals[0], 20)


def data_sets(toy, num_sets, num_train, seed=0):
    keys = jax.random.split(jax.random.key(seed), (num_sets, num_train))
    return jax.vmap(jax.vmap(toy.sample))(keys)


def test_gaussian_amplification_is_that_of_the_paper():
    """2509.08048, Eqs. 29-30: 0.155 / 0.0022, which the paper calls 70."""
    linear = ideal_amplification(0.0, 0.5, fits_width=False)
    slope = (1 - np.exp(-1 / 8)) / (2 * np.pi) ** 0.5
    p = stats.norm.cdf(0.5) - 0.5
    assert linear == pytest.approx(p * (1 - p) / slope**2, rel=1e-12)
    assert linear == pytest.approx(70.45, abs=0.005)
    curved = ideal_amplification(0.0, 0.5, fits_width=False, num_train=1000)
    assert curved == pytest.approx(69.91, abs=0.005)
    far = ideal_amplification(0.0, 0.5, fits_width=False, num_train=1e7)
    assert far == pytest.approx(linear, rel=1e-5)


def test_ring_amplification_region_by_region():
    """The values of the symmetric regions and of regions 2 to 19 together."""
    expected = [1.9, 7.0, 13.7, 21.5, 28.7, 33.8, 36.5, 37.7, 38.1, 38.1]
    found = [ideal_amplification(*RADII[i : i + 2], 1.0, 0.1) for i in range(20)]
    np.testing.assert_allclose(found, expected + expected[::-1], atol=0.05)
    together = ideal_amplification(RADII[1:19], RADII[2:20], 1.0, 0.1)
    assert together == pytest.approx(20.8, abs=0.05)
    near = ideal_amplification(RADII[1:19], RADII[2:20], 1.0, 0.1, num_train=1e6)
    assert near == pytest.approx(together, rel=1e-4)


@pytest.mark.parametrize("fits_width", [True, False])
def test_fit_errors_against_simulated_fits(fits_width):
    """Few events, so that curvature counts; four standard errors of 20,000 data sets."""
    num_train, num_sets = 12, 20_000
    fit = normal_fit(None if fits_width else 0.5)
    data = 1.5 + 0.5 * jax.random.normal(jax.random.key(1), (num_sets, num_train, 1))
    params = jax.tree.map(
        lambda a: np.asarray(a, np.float64)[:, None], jax.vmap(lambda d: fit.fit(d))(data)
    )
    low, high = np.array([0.0, 1.5, 1.9]), np.array([1.0, 1.75, np.inf])
    truth = normal_probability(low, high, 1.5, 0.5)
    deviation = normal_probability(low, high, params["mean"], params["width"]) - truth
    error = fit_error(low, high, num_train, 1.5, 0.5, fits_width=fits_width)
    spread = deviation.std(axis=0) / num_sets**0.5
    np.testing.assert_array_less(np.abs(deviation.mean(axis=0) - error.bias), 4 * spread)
    squares = deviation**2
    spread = squares.std(axis=0) / num_sets**0.5
    np.testing.assert_array_less(np.abs(squares.mean(axis=0) - error.mean_square), 4 * spread)
    # The limit of many events is excluded.
    linear = np.array(
        [
            p * (1 - p) / ideal_amplification(a, b, 1.5, 0.5, fits_width=fits_width)
            for a, b, p in zip(low, high, truth, strict=True)
        ]
    )
    assert np.any(np.abs(squares.mean(axis=0) - linear / num_train) > 4 * spread)


@pytest.mark.parametrize(
    ("fit", "toy"),
    [(normal_fit(), gaussian(1, 1.0, 2.0)), (radial_fit(3), ring(3)), (radial_fit(2), ring())],
)
def test_fits_are_at_the_maximum_of_their_likelihood(fit, toy):
    data = data_sets(toy, 1, 200)[0]
    weight = bootstrap_weights(jax.random.key(3), 200)

    def log_likelihood(params):
        each = jax.vmap(fit.log_prob, in_axes=(None, None, 0))(params, None, data)
        return jnp.sum(weight * each)

    params = fit.fit(data, weight)
    gradient = jax.grad(log_likelihood)(params)
    curvature = jax.hessian(log_likelihood)(params)
    for name in params:
        # In units of the parameter's statistical error.
        assert abs(gradient[name]) / (-curvature[name][name]) ** 0.5 < 0.01
        assert curvature[name][name] < 0


def test_weights_are_copies():
    data = data_sets(ring(), 1, 6)[0]
    weight = jnp.array([0.0, 2.0, 1.0, 0.0, 3.0, 1.0])
    copies = jnp.repeat(data, np.asarray(weight, int), axis=0)
    for fit in (radial_fit(2), normal_fit(), normal_fit(1.0)):
        weighted, repeated = fit.fit(data, weight), fit.fit(copies, None)
        for name in weighted:
            np.testing.assert_allclose(weighted[name], repeated[name], rtol=1e-5)


def test_models_sample_what_they_score():
    """A fitted model is the toy with the fitted parameters."""
    params = {"mean": jnp.float32(1.2), "width": jnp.float32(0.3)}
    fit, toy = radial_fit(3), ring(3, 1.2, 0.3)
    x = draw(fit.sample, params, jax.random.key(4), 5000)
    score = jax.vmap(fit.log_prob, in_axes=(None, None, 0))(params, None, x[:50])
    np.testing.assert_allclose(score, jax.vmap(toy.log_prob)(x[:50]), rtol=1e-4)
    radius = np.linalg.norm(x, axis=1)
    cdf = lambda r: toy.marginals[0].probability(0, r)
    assert stats.kstest(radius, cdf).pvalue > 1e-3
    y = draw(normal_fit().sample, params, jax.random.key(5), 5000)[:, 0]
    assert stats.kstest(y, stats.norm(1.2, 0.3).cdf).pvalue > 1e-3


def test_the_memoriser_draws_training_events_as_often_as_they_weigh():
    fit = memoriser()
    data = jnp.arange(10.0).reshape(5, 2)
    weight = jnp.array([0.0, 2.0, 1.0, 0.0, 1.0])
    x = draw(fit.sample, fit.fit(data, weight), jax.random.key(6), 8000)
    counts = np.bincount((x[:, 0] / 2).astype(int), minlength=5)
    np.testing.assert_array_equal(x[:, 1], x[:, 0] + 1)
    assert counts[0] == counts[3] == 0
    expected = 8000 * np.array([0.5, 0.25, 0.25])
    assert stats.chisquare(counts[[1, 2, 4]], expected).pvalue > 1e-3
    plain = draw(fit.sample, fit.fit(data, None), jax.random.key(7), 8000)
    counts = np.bincount((plain[:, 0] / 2).astype(int), minlength=5)
    assert stats.chisquare(counts).pvalue > 1e-3
    assert fit.log_prob is None


def test_bootstrap_weights_are_multinomial():
    weights = jax.vmap(lambda k: bootstrap_weights(k, 20))(
        jax.random.split(jax.random.key(8), 4000)
    )
    np.testing.assert_array_equal(weights.sum(axis=1), 20)
    covariance = np.cov(np.asarray(weights).T)
    expected = np.eye(20) - 1 / 20
    np.testing.assert_allclose(covariance, expected, atol=5 * (2 / 4000) ** 0.5)


def test_bad_input():
    for call, message in (
        (lambda: normal_fit(0.0), "must be positive"),
        (lambda: fit_error(0.0, 1.0, 1), "num_train must be at least 2"),
    ):
        with pytest.raises(ValueError, match=message):
            call()

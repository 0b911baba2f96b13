"""Priors and the maps that make them standard normal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jgen.inference import normal_prior, uniform_prior

PRIORS = {
    "uniform": uniform_prior(np.array([-1.0, 2.0]), np.array([3.0, 2.5])),
    "normal": normal_prior(np.array([5.0, -1.0]), np.array([0.1, 2.0])),
}


@pytest.mark.parametrize("name", PRIORS)
def test_a_prior_is_standard_normal_where_it_is_normalized(name, key):
    prior = PRIORS[name]
    theta = jax.vmap(prior.sample)(jax.random.split(key, 2000))
    z, log_det = jax.vmap(prior.normalized.forward)(theta)
    assert min(stats.kstest(column, "norm").pvalue for column in np.asarray(z).T) > 0.01
    back, log_inverse = jax.vmap(prior.normalized.inverse)(z)
    np.testing.assert_allclose(back, theta, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(log_inverse, -log_det, atol=1e-4)
    # The density is that of the standard normal times the determinant.
    exact = stats.norm.logpdf(np.asarray(z)).sum(axis=1) + np.asarray(log_det)
    np.testing.assert_allclose(jax.vmap(prior.log_prob)(theta), exact, atol=1e-3)
    jacobian = jax.jacfwd(lambda theta: prior.normalized.forward(theta)[0])(theta[0])
    assert jnp.linalg.slogdet(jacobian)[1] == pytest.approx(float(log_det[0]), abs=1e-4)


def test_edges_of_a_uniform_prior_are_finite():
    prior = PRIORS["uniform"]
    z, log_det = prior.normalized.forward(jnp.array([-1.0, 2.5]))
    assert np.isfinite(z).all()
    assert np.isfinite(log_det)
    assert np.abs(z).max() < 6
    assert prior.log_prob(jnp.array([-1.01, 2.2])) == -np.inf
    theta, _ = prior.normalized.inverse(jnp.array([-40.0, 40.0]))
    np.testing.assert_allclose(theta, [-1.0, 2.5])


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (uniform_prior, ([0.0, 1.0], [1.0, 1.0]), "low must be below high"),
        (uniform_prior, ([0.0], [1.0, 2.0]), "one number a parameter"),
        (uniform_prior, ([0.0], [np.inf]), "must be finite"),
        (normal_prior, ([0.0], [0.0]), "standard deviations must be positive"),
        (normal_prior, ([], []), "one number a parameter"),
    ],
)
def test_bad_priors_are_refused(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(*map(np.array, arguments))

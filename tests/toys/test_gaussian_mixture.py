"""Mixtures against scipy, autodiff and integrals by quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jgen.paths import convert, linear, variance_exploding, variance_preserving
from jgen.toys import gaussian_mixture, mixture_on_path, mixture_prediction, mixture_toy

MIXTURE = gaussian_mixture([[0.0, -1.0], [2.0, 0.5]], [[0.3, 0.8], [0.5, 0.2]], [1.0, 3.0])
PATHS = {
    "linear": linear(),
    "vp": variance_preserving(),
    "ve": variance_exploding(0.01, 5.0),
}


def test_density_against_scipy(x64):
    x = np.array([0.4, -0.3])
    expected = sum(
        f * stats.norm.pdf(x, m, w).prod()
        for f, m, w in zip([0.25, 0.75], MIXTURE.means, MIXTURE.widths, strict=True)
    )
    np.testing.assert_allclose(mixture_toy(MIXTURE).log_prob(jnp.array(x)), np.log(expected))


def test_samples_have_the_moments_of_the_mixture(key):
    n = 20_000
    x = np.asarray(jax.jit(jax.vmap(mixture_toy(MIXTURE).sample))(jax.random.split(key, n)))
    mean = MIXTURE.fractions @ MIXTURE.means
    second = MIXTURE.fractions @ (MIXTURE.means**2 + MIXTURE.widths**2)
    assert np.all(np.abs(x.mean(axis=0) - mean) < 5 * x.std(axis=0) / n**0.5)
    assert np.all(np.abs((x**2).mean(axis=0) - second) < 5 * (x**2).std(axis=0) / n**0.5)


def test_predictions_are_posterior_means(x64):
    """E[x1 | x_t] in one dimension by an integral over x1."""
    line = gaussian_mixture(MIXTURE.means[:, :1], MIXTURE.widths[:, :1], MIXTURE.fractions)
    x1, x, t = np.linspace(-8, 10, 20_001)[:, None], 0.7, jnp.asarray(0.6)
    density = stats.norm.pdf(x1, line.means[:, 0], line.widths[:, 0]) @ line.fractions
    for path in PATHS.values():
        joint = density * stats.norm.pdf(x, path.alpha(t) * x1[:, 0], path.sigma(t))
        expected = joint @ x1 / joint.sum()
        found = jax.jit(mixture_prediction(line, path, "data"))(t, jnp.array([x]))
        np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("name", PATHS)
def test_the_score_is_the_gradient_of_the_marginal(name):
    """And the other predictions are those that follow from it."""
    path, kinds = PATHS[name], ("score", "velocity", "noise", "data", "v")

    @jax.jit
    def both(t, x):
        score = jax.grad(mixture_toy(mixture_on_path(MIXTURE, path, t)).log_prob)(x)
        return [
            (
                mixture_prediction(MIXTURE, path, kind)(t, x),
                convert(path, t, x, score, "score", kind),
            )
            for kind in kinds
        ]

    for found, expected in both(jnp.asarray(0.6), jnp.array([0.7, -0.2])):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_predictions_at_the_ends_of_the_path():
    """Without data, the mean of all; without noise, the point itself."""
    x = jnp.array([0.3, 0.1])
    data = mixture_prediction(MIXTURE, linear(), "data")
    mean = MIXTURE.fractions @ MIXTURE.means
    np.testing.assert_allclose(data(jnp.asarray(0.0), x), mean, rtol=1e-6)
    np.testing.assert_allclose(data(jnp.asarray(1.0), x), x, rtol=1e-5)
    assert np.all(mixture_prediction(MIXTURE, linear(), "noise")(jnp.asarray(1.0), x) == 0)


def test_bad_input():
    for arguments, message in (
        (([1.0, 2.0], 1.0), r"\[components, dimensions\], got \(2,\)"),
        (([[1.0], [2.0]], 1.0, [1.0]), "2 means need as many fractions"),
        (([[1.0]], 0.0), "must be positive"),
        (([[1.0], [2.0]], 1.0, [1.0, -1.0]), "must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            gaussian_mixture(*arguments)

"""Toys against independent libraries, numerical integrals and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from jgen.toys import camel_back, gaussian, quantile_edges, region_probability, ring, spherical

TOYS = {
    "gaussian": gaussian(3, 0.5, 2.0),
    "camel": camel_back(),
    "ring": ring(),
    "ring 4d": ring(4),
    "shell 5d": ring(5, 4.0, 1.0),
    "crossing": ring(3, 0.7, 0.5),  # much of it has a negative signed radius
}


def draw(toy, num, seed=0):
    return jax.vmap(toy.sample)(jax.random.split(jax.random.key(seed), num))


@pytest.mark.parametrize("name", TOYS)
def test_samples_follow_the_marginals(name):
    toy, num = TOYS[name], 20_000
    x = draw(toy, num)
    assert x.shape == (num, toy.dim)
    assert len(toy.marginals) == toy.dim
    coordinates = np.asarray(jax.vmap(toy.coordinates)(x), np.float64)
    for values, marginal in zip(coordinates.T, toy.marginals, strict=True):
        cdf = lambda v: marginal.probability(marginal.lower, v)  # noqa: B023
        assert stats.kstest(values, cdf).pvalue > 1e-3
        # Of a slightly wrong distribution the same test says no.
        assert stats.kstest(values + 0.1 * values.std(), cdf).pvalue < 1e-6
    ranks = np.atleast_2d(np.corrcoef(stats.rankdata(coordinates, axis=0).T))
    assert np.max(np.abs(ranks - np.eye(toy.dim))) < 5 / num**0.5


@pytest.mark.parametrize("name", TOYS)
def test_quantiles_invert_probabilities(name):
    p = np.concatenate([[1e-12, 1e-5], np.linspace(0.05, 0.95, 19), [1 - 1e-5]])
    for marginal in TOYS[name].marginals:
        x = marginal.quantile(p)
        below, above = (
            marginal.probability(marginal.lower, x),
            marginal.probability(x, marginal.upper),
        )
        np.testing.assert_allclose(below, p, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(above, 1 - p, rtol=1e-12, atol=1e-15)
        edges = quantile_edges(marginal, 20)
        assert (edges[0], edges[-1]) == (marginal.lower, marginal.upper)
        np.testing.assert_allclose(marginal.probability(edges[:-1], edges[1:]), 0.05, rtol=1e-12)


@pytest.mark.parametrize("name", ["ring", "crossing"])
def test_radial_density_integrates_to_region_probabilities(name):
    """The Cartesian density times the sphere's area, over R, by quadrature."""
    toy, area = TOYS[name], {2: 2 * np.pi, 3: 4 * np.pi}[TOYS[name].dim]
    with jax.enable_x64(True):
        x = lambda r: jnp.array([0.6 * r, 0.8 * r] + [0.0] * (toy.dim - 2))
        density = lambda r: area * r ** (toy.dim - 1) * float(jnp.exp(toy.log_prob(x(r))))
        for low, high in [(0.9, 1.0), (1.2, 1.4), (0.1, 0.3)]:
            expected = integrate.quad(density, low, high, epsabs=0, epsrel=1e-9)[0]
            found = toy.marginals[0].probability(low, high)
            assert found == pytest.approx(expected, rel=1e-9)


def test_tails_keep_their_digits():
    """Integrals far out, against scipy's survival functions."""
    upper = ring().marginals[0].probability(np.array([1.6, 1.9]), np.inf)
    np.testing.assert_allclose(upper, stats.norm.sf([6.0, 9.0]), rtol=1e-13)
    shell = ring(5, 4.0, 1.0).marginals[0]
    np.testing.assert_allclose(
        shell.probability(0, [1.0, 5.0]), stats.foldnorm.cdf([1.0, 5.0], 4.0), rtol=1e-12
    )
    # A small cap at either pole of the four-dimensional sphere.
    cap = ring(4).marginals[1]
    small = (2e-3 - np.sin(2e-3)) / (2 * np.pi)  # the integral of 2 sin^2 / pi, by hand
    np.testing.assert_allclose(cap.probability(0.0, 1e-3), small, rtol=1e-8)
    np.testing.assert_allclose(cap.probability(np.pi - 1e-3, np.pi), small, rtol=1e-8)


def test_log_prob_of_gaussian_and_camel():
    x = np.array([0.3, -4.2, 5.0])
    expected = stats.norm.logpdf(x, 0.5, 2.0).sum()
    assert float(TOYS["gaussian"].log_prob(jnp.array(x))) == pytest.approx(expected, rel=1e-5)
    for value in x:
        expected = np.log(0.5 * stats.norm.pdf(value, -4) + 0.5 * stats.norm.pdf(value, 4))
        assert float(camel_back().log_prob(jnp.array([value]))) == pytest.approx(expected, rel=1e-5)


def test_boxes_are_products_and_fill_space():
    toy = ring(4)
    edges = [quantile_edges(m, 3) for m in toy.marginals]
    low = np.stack(np.meshgrid(*[e[:-1] for e in edges], indexing="ij"), axis=-1)
    high = np.stack(np.meshgrid(*[e[1:] for e in edges], indexing="ij"), axis=-1)
    found = region_probability(toy, low, high)
    np.testing.assert_allclose(found, np.full((3,) * 4, 3.0**-4), rtol=1e-11)
    assert region_probability(toy, [-np.inf] * 4, [np.inf] * 4) == pytest.approx(1, abs=1e-15)
    assert region_probability(toy, [-5.0] * 4, [-4.0] * 4) == 0


def test_spherical_by_hand():
    x = np.array([1.0, -2.0, 0.5, -0.25])
    r = np.linalg.norm(x)
    phi = np.array(
        [np.arccos(1 / r), np.arccos(-2 / np.linalg.norm(x[1:])), np.arctan2(-0.25, 0.5)]
    )
    np.testing.assert_allclose(spherical(jnp.array(x)), [r, *phi], rtol=1e-6)
    np.testing.assert_allclose(spherical(jnp.array([0.0, -3.0])), [3, -np.pi / 2], rtol=1e-6)


def test_bad_input():
    for call, message in (
        (lambda: ring(1), "camel_back"),
        (lambda: ring(2, 1.0, 0.0), "width must be positive"),
        (lambda: camel_back(-1.0), "mean must be zero or positive"),
        (lambda: gaussian(0), "dim must be a whole number from 1"),
        (lambda: quantile_edges(ring().marginals[0], 0), "num must be a whole number"),
        (lambda: region_probability(ring(), [0.0], [1.0]), r"shape \[..., 2\]"),
        (lambda: region_probability(ring(), [0.0, 1.0], [1.0, 0.0]), "low <= high"),
    ):
        with pytest.raises(ValueError, match=message):
            call()

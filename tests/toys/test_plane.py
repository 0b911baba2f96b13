"""Toys in the plane: densities against integrals and scipy, events against scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats
from scipy.special import logsumexp
from sklearn.datasets import make_circles, make_moons

from jgen.toys import (
    Toy,
    circles,
    eight_gaussians,
    entropy,
    gaussian,
    moons,
    pinwheel,
    region_probability,
)

TOYS = {
    "moons": moons(),
    "circles": circles(),
    "eight gaussians": eight_gaussians(),
    "pinwheel": pinwheel(),
}
# Half the sides of squares that hold all of the probability.
SQUARES = {"moons": 2.5, "circles": 1.5, "eight gaussians": 3.3, "pinwheel": 2.8}
MOONS_LOG_PROB = jax.jit(moons().log_prob)


def draw(toy, num, seed=0):
    return jax.jit(jax.vmap(toy.sample))(jax.random.split(jax.random.key(seed), num))


def log_prob(toy, x):
    return np.asarray(jax.jit(jax.vmap(toy.log_prob))(jnp.asarray(x, jnp.float32)), np.float64)


@pytest.mark.parametrize("name", TOYS)
def test_density_is_that_of_the_samples(name):
    """Cells of a grid: integrals of the density over them against counts of events."""
    toy, edge, cells, fine = TOYS[name], SQUARES[name], 12, 20
    step = 2 * edge / (cells * fine)
    axis = -edge + step * (np.arange(cells * fine) + 0.5)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    p = np.exp(log_prob(toy, grid)) * step**2
    p = p.reshape(cells, fine, cells, fine).sum(axis=(1, 3))
    assert p.sum() == pytest.approx(1, abs=1e-5)
    num = 30_000
    edges = np.linspace(-edge, edge, cells + 1)
    counts = np.histogram2d(*np.asarray(draw(toy, num)).T, (edges, edges))[0]
    keep = num * p > 5
    chi2 = np.sum((counts - num * p)[keep] ** 2 / (num * p)[keep])
    assert stats.chi2.sf(chi2, keep.sum() - 1) > 1e-3
    assert keep.sum() > 25
    assert counts[~keep].sum() < 60 + num * p[~keep].sum() * 2


@pytest.mark.parametrize("noise", [0.05, 0.1])
def test_moons_are_those_of_scikit_learn(noise):
    """The mean of -log p over their events is the entropy: no other density does better."""
    x, _ = make_moons(20_000, noise=noise, random_state=1)
    found = -log_prob(moons(noise), x)
    exact = entropy(moons(noise), 300)
    assert exact.error < 1e-4
    error = found.std() / len(found) ** 0.5
    assert abs(found.mean() - exact.value) < 4 * error
    # Estimated elsewhere from samples, with errors of 0.004: 0.280 and 1.008.
    assert exact.value == pytest.approx({0.05: 0.280, 0.1: 1.008}[noise], abs=3 * 0.004)


def test_circles_are_those_of_scikit_learn():
    x, _ = make_circles(20_000, factor=0.5, noise=0.05, random_state=1)
    found, exact = -log_prob(circles(), x), entropy(circles(), 300)
    assert abs(found.mean() - exact.value) < 4 * found.std() / len(found) ** 0.5
    assert exact.value == pytest.approx(0.606, abs=0.004)
    r = np.array([0.01, 0.3, 0.55, 1.2])
    rice = 0.5 * sum(stats.rice.pdf(r, a / 0.05, scale=0.05) for a in (0.5, 1.0))
    expected = np.log(rice / (2 * np.pi * r))
    angle = np.array([0.1, 2.0, 4.0, 5.5])
    x = r[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    np.testing.assert_allclose(log_prob(circles(), x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "x", [(0.0, 0.0), (0.3, 0.96), (0.0, -0.6), (-1.5, -2.0), (1.0, 0.5), (0.5, 30.0), (0.0, 0.02)]
)
def test_moons_against_brute_force(x, x64):
    """A million points on the arcs, summed in logarithms."""
    t = (np.arange(10**6) + 0.5) * np.pi / 10**6
    arcs = np.stack([np.cos(t), np.sin(t)]), np.stack([1 - np.cos(t), 0.5 - np.sin(t)])
    exponents = [-np.sum((np.array(x)[:, None] - arc) ** 2, axis=0) / (2 * 0.05**2) for arc in arcs]
    expected = logsumexp(np.concatenate(exponents)) - np.log(2e6) - np.log(2 * np.pi * 0.05**2)
    found = float(MOONS_LOG_PROB(jnp.array(x)))
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_pinwheel_keeps_areas(x64):
    """Without arms to choose from it is the Gaussian at the point turned back."""
    toy, rate = pinwheel(1, rate=0.4), 0.4
    z = np.array([1.1, -0.2])
    angle = rate * np.exp(np.hypot(*z))
    x = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ z
    expected = stats.norm.logpdf(z, [1, 0], [0.3, 0.1]).sum()
    assert float(toy.log_prob(jnp.array(x))) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("name", TOYS)
def test_finite_far_away_and_in_the_middle(name):
    far = jnp.array([[0.0, 0.0], [1.0, 0.5], [1e-30, 0.0], [0.0, -1e4], [1e6, 1e6], [-3.0, 2e3]])
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(TOYS[name].log_prob)))(far)
    assert np.all(np.isfinite(values))
    assert np.all(np.isfinite(gradients))
    # Far out the gradient points back to the events.
    assert np.all(np.sum(gradients[3:] * far[3:], axis=1) < 0)


def test_gradients_of_moons_against_differences(x64):
    x, step = jnp.array([0.4, -0.1]), 1e-6
    density = jax.jit(moons().log_prob)
    found = jax.jit(jax.grad(moons().log_prob))(x)
    for i in range(2):
        shift = step * np.eye(2)[i]
        expected = (density(x + shift) - density(x - shift)) / (2 * step)
        assert float(found[i]) == pytest.approx(float(expected), rel=1e-6)


def test_entropy_of_gaussians_is_exact():
    for dim in (1, 2):
        expected = dim * (0.5 * np.log(2 * np.pi * np.e) + np.log(0.3))
        found = entropy(gaussian(dim, 1.0, 0.3), 200)
        assert found.value == pytest.approx(expected, abs=1e-5)
        assert abs(found.value - expected) <= found.error + 1e-6
    # Separate modes: that of one and log 8 for the choice.
    one = 2 * (0.5 * np.log(2 * np.pi * np.e) + np.log(0.05))
    apart = entropy(eight_gaussians(width=0.05), 300)
    assert apart.value == pytest.approx(one + np.log(8), abs=1e-4)
    assert entropy(eight_gaussians(width=0.05), 40).error > 0.05  # too coarse, and it says so


def test_bad_input():
    for call, message in (
        (lambda: moons(0.0), "noise must be positive"),
        (lambda: circles(1.0), r"factor must be in \[0, 1\)"),
        (lambda: eight_gaussians(width=-1.0), "must be positive"),
        (lambda: pinwheel(0), "arms must be a whole number from 1"),
        (lambda: entropy(gaussian(3)), "one and two dimensions"),
        (lambda: entropy(gaussian(1), 5), "even number"),
        (lambda: region_probability(moons(), [0.0, 0.0], [1.0, 1.0]), "no independent coordinates"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_density_of_a_circle_integrates_to_one_in_double_precision(x64):
    density = jax.jit(circles().log_prob)
    radial = lambda r: 2 * np.pi * r * np.exp(float(density(jnp.array([r, 0.0]))))
    assert integrate.quad(radial, 0, 2, points=[0.5, 1.0])[0] == pytest.approx(1, rel=1e-8)
    assert isinstance(circles(), Toy)

"""Double wells against values from elsewhere, scipy's quadrature and their own samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, optimize, stats

from jgen.toys import double_well, quantile_edges, region_probability

TILTED = double_well()
HARD = double_well(0.25, 3.0, 1.0)


@pytest.mark.parametrize(
    ("terms", "log_z", "difference", "p_right"),
    [
        ((1.0, 4.0, 0.0), 5.2119, 0.0, 0.5),
        ((1.0, 4.0, 0.5), 5.4269, 1.3222, 0.2105),
        ((1.0, 4.0, 1.0), 5.9512, 2.6420, 0.0665),
        ((0.25, 3.0, 1.0), 12.0649, 4.7776, 0.0083),
    ],
)
def test_values_from_elsewhere(terms, log_z, difference, p_right):
    well = double_well(*terms)
    assert well.log_z == pytest.approx(log_z, abs=6e-5)
    assert well.free_energy_difference == pytest.approx(difference, abs=6e-5)
    assert well.population_right == pytest.approx(p_right, abs=6e-5)


@pytest.mark.parametrize("well", [TILTED, HARD])
def test_integrals_against_scipy(well):
    density = lambda x: np.exp(-well.potential(x))
    options = {"epsabs": 0, "epsrel": 1e-12, "limit": 200}
    whole = integrate.quad(density, -6, 6, points=[*well.minima, well.wall], **options)[0]
    right = integrate.quad(density, well.wall, 6, points=[well.minima[1]], **options)[0]
    assert well.log_z == pytest.approx(np.log(whole) + 0.5 * np.log(2 * np.pi), rel=1e-12)
    assert well.population_right == pytest.approx(right / whole, rel=1e-10)
    wall = optimize.minimize_scalar(
        lambda x: -well.potential(x), bounds=(-0.5, 0.5), method="bounded", options={"xatol": 1e-10}
    )
    assert well.wall == pytest.approx(wall.x, abs=1e-6)
    p = region_probability(well.toy, [well.wall, -np.inf], [np.inf, 0.0])
    assert p == pytest.approx(well.population_right / 2, rel=1e-10)


def test_log_prob_is_normalised(x64):
    density = jax.jit(TILTED.toy.log_prob)
    x = np.linspace(-3, 3, 301)
    grid = jnp.asarray(np.stack(np.meshgrid(x, 2.5 * x, indexing="ij"), -1).reshape(-1, 2))
    p = np.exp(np.asarray(jax.vmap(density)(grid)))
    assert p.sum() * 0.02 * 0.05 == pytest.approx(1, rel=1e-9)
    assert float(density(grid[0]) + TILTED.energy(grid[0], None)) == pytest.approx(-TILTED.log_z)


@pytest.mark.parametrize("well", [TILTED, HARD])
def test_samples_follow_the_density(well):
    num = 200_000
    x, v = np.asarray(
        jax.jit(jax.vmap(well.toy.sample))(jax.random.split(jax.random.key(0), num))
    ).T
    marginal = well.toy.marginals[0]
    counts = np.histogram(x, quantile_edges(marginal, 50))[0]
    assert stats.chisquare(counts).pvalue > 1e-3
    assert stats.kstest(v, stats.norm.cdf).pvalue > 1e-3
    assert abs(np.corrcoef(x, v)[0, 1]) < 4 / num**0.5
    p = well.population_right
    assert np.mean(x > well.wall) == pytest.approx(p, abs=4 * (p * (1 - p) / num) ** 0.5)
    # The same test sees one part in a hundred.
    wrong = np.histogram(x + 0.01 * x.std(), quantile_edges(marginal, 50))[0]
    assert stats.chisquare(wrong).pvalue < 1e-6


def test_quantiles_invert_probabilities():
    marginal, p = HARD.toy.marginals[0], np.array([1e-6, 0.1, 0.5, 0.9, 0.9917, 1 - 1e-6])
    found = marginal.probability(-np.inf, marginal.quantile(p))
    np.testing.assert_allclose(found, p, rtol=1e-8)


def test_bad_input():
    for call, message in (
        (lambda: double_well(quartic=0.0), "must be positive"),
        (lambda: double_well(tilt=5.0), "must be below 4.355"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    double_well(tilt=4.3)

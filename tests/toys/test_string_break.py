import jax
import numpy as np
import pytest
from scipy import integrate

from jgen.toys import KAON, PION, break_moments, fragment, mean_z, string_break, true_events
from jgen.toys.string_break import SIGMA


@pytest.mark.parametrize(
    ("mass", "entropy", "mean"), [(PION, 0.3420, 0.36186), (KAON, 0.4303, 0.46198)]
)
def test_moments_and_draws_are_those_of_the_density(mass, entropy, mean):
    exact = break_moments(mass)
    assert exact.entropy == pytest.approx(entropy, abs=1e-4)
    assert exact.mean == pytest.approx(mean, abs=1e-5)
    toy = string_break(mass)
    x = true_events(toy, jax.random.key(0), 20_000)
    log_p = np.asarray(jax.jit(jax.vmap(toy.log_prob))(x))
    assert -log_p.mean() == pytest.approx(entropy, abs=float(4 * log_p.std() / 20_000**0.5))
    assert x[:, 2].mean() == pytest.approx(mean, abs=float(4 * x[:, 2].std() / 20_000**0.5))


def test_the_density_of_z_by_an_integral_of_its_formula():
    pt, mass, a, b = 0.4, KAON, 0.5, 1.2
    formula = lambda z: (1 - z) ** a * np.exp(-b * (mass**2 + pt**2) / z) / z
    norm = integrate.quad(formula, 0, 1)[0]
    of_p = np.exp(-(pt**2) / (2 * SIGMA**2)) / (2 * np.pi * SIGMA**2)
    x = np.array([[pt, 0, z] for z in (0.05, 0.3, 0.7, 0.99)], np.float32)
    found = jax.vmap(string_break(mass, a, b).log_prob)(x)
    np.testing.assert_allclose(found, np.log(formula(x[:, 2]) / norm * of_p), atol=2e-3)
    mean = integrate.quad(lambda z: z * formula(z), 0, 1)[0] / norm
    assert mean_z(np.array([pt]), mass, a, b)[0] == pytest.approx(mean, rel=1e-6)
    assert string_break(mass).log_prob(np.float32([0, 0, 1])) == -np.inf


def test_a_chain_conserves_momentum_and_its_hadrons_are_on_shell():
    def one(key):
        return fragment(lambda key, mass: string_break(mass).sample(key), key, 50.0)

    chain = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 50))
    total = np.sum(np.asarray(chain.momenta, np.float64), axis=1) + chain.rest
    np.testing.assert_allclose(total, np.tile([50, 0, 0, 50], (50, 1)), atol=2e-4)
    plus, px, py, minus = np.moveaxis(np.asarray(chain.momenta, np.float64), -1, 0)
    there = np.asarray(chain.there)
    squared = (plus * minus - px**2 - py**2)[there]
    np.testing.assert_allclose(squared, np.asarray(chain.masses)[there] ** 2, atol=2e-3)
    rest = np.asarray(chain.rest, np.float64)
    assert np.all(rest[:, 0] * rest[:, 3] - rest[:, 1] ** 2 - rest[:, 2] ** 2 > 2**2)
    assert 4 < there.sum(axis=1).mean() < 25
    assert not there[:, -1].any()


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="mass must be positive"):
        string_break(0.0)
    with pytest.raises(ValueError, match="energy must be positive"):
        fragment(lambda key, mass: None, jax.random.key(0), -1.0)

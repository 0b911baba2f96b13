import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.inference import chain_mean, hamiltonian
from jgen.lattice import u1


def angles(key, *shape):
    return jax.random.uniform(key, shape, minval=-np.pi, maxval=np.pi)


def test_action_and_charge_do_not_see_the_gauge(key):
    key_links, key_gauge = jax.random.split(key)
    links, gauge = angles(key_links, 2, 4, 4), angles(key_gauge, 4, 4)
    other = u1.gauge_transformed(links, gauge)
    assert float(jnp.abs(other - links).max()) > 1
    np.testing.assert_allclose(u1.plaquettes(other), u1.plaquettes(links), atol=1e-5)
    energy = u1.wilson(1.5)
    np.testing.assert_allclose(energy(other), energy(links), rtol=1e-5)
    charge = u1.topological_charge(links)
    np.testing.assert_allclose(charge, np.round(charge), atol=1e-5)
    np.testing.assert_allclose(u1.topological_charge(other), charge, atol=1e-5)


def test_exact_log_z_is_the_mean_over_all_links(key):
    """Plain Monte Carlo over the eight links of a 2 x 2 lattice, where its errors are small."""
    num, beta = 200_000, 0.7
    links = angles(key, num, 2, 2, 2)
    weights = np.exp(-np.asarray(jax.jit(jax.vmap(u1.wilson(beta)))(links), np.float64))
    error = weights.std() / weights.mean() / num**0.5
    assert error < 0.006
    found = np.log(weights.mean()) + 8 * np.log(2 * np.pi)
    np.testing.assert_allclose(u1.exact_log_z(beta, 2), found, atol=3 * error)


def test_exact_plaquette_is_the_derivative_of_log_z_and_a_bessel_ratio_for_large_lattices():
    for beta, length in ((0.3, 2), (2.0, 4), (5.0, 8)):
        step = 1e-4
        slope = u1.exact_log_z(beta + step, length) - u1.exact_log_z(beta - step, length)
        slope /= 2 * step * length**2
        np.testing.assert_allclose(u1.exact_plaquette(beta, length), slope, rtol=1e-6)
    # I_1(1) / I_0(1), Abramowitz and Stegun, Table 9.8.
    np.testing.assert_allclose(u1.exact_plaquette(1.0, 16), 0.5651591 / 1.2660659, rtol=1e-6)


def test_hybrid_monte_carlo_finds_the_exact_plaquette(key):
    beta, length = 1.0, 4
    chains = hamiltonian(
        key, u1.wilson(beta), jnp.zeros((20, 2, length, length)), 1000,
        step_size=0.25, max_steps=8,
    )  # fmt: skip
    cosines = jax.jit(jax.vmap(jax.vmap(lambda links: jnp.mean(jnp.cos(u1.plaquettes(links))))))
    found = chain_mean(np.asarray(cosines(chains.x))[:, 100:])
    assert found.error < 0.003
    assert abs(found.value - u1.exact_plaquette(beta, length)) < 3 * found.error


def test_bad_beta():
    with pytest.raises(ValueError, match="beta must be positive, got 0"):
        u1.exact_log_z(0, 4)

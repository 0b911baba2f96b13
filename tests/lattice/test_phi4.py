import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from jgen.inference import chain_mean, hamiltonian
from jgen.lattice import (
    correlator,
    free_log_z,
    free_propagator,
    observables,
    phi4,
    second_moment_length,
    spectrum,
    two_point,
)

SYMMETRIES = {
    "translation": lambda phi: jnp.roll(phi, (1, 2), (0, 1)),
    "rotation": jnp.rot90,
    "reflection": lambda phi: phi[::-1],
    "transposition": jnp.transpose,
    "sign": jnp.negative,
}


@pytest.fixture(scope="module")
def phi():
    return jax.random.normal(jax.random.key(1), (6, 6))


@pytest.mark.parametrize("name", SYMMETRIES)
def test_action_is_invariant(phi, name):
    energy = phi4(-4.0, 8.0)
    np.testing.assert_allclose(energy(SYMMETRIES[name](phi)), energy(phi), rtol=1e-5)


def test_action_by_hand_and_with_couplings_of_a_condition():
    phi = np.array([[1.0, 2.0], [-1.0, 0.5]], np.float32)
    # On two sites a side every bond appears twice.
    kinetic = 2 * (1 + 1.5**2 + 2**2 + 1.5**2)
    expected = kinetic - 4 * np.sum(phi**2) + 8 * np.sum(phi**4)
    np.testing.assert_allclose(phi4(-4.0, 8.0)(phi), expected)
    np.testing.assert_allclose(phi4(1.0, 0.0)(phi, jnp.array([-4.0, 8.0])), expected)


def test_free_field_is_gaussian(x64):
    length, m_squared = 4, 0.6
    volume = length**2
    matrix = jax.hessian(phi4(m_squared, 0.0))(jnp.zeros((length, length)))
    matrix = np.asarray(matrix).reshape(volume, volume)
    expected = 0.5 * (volume * np.log(2 * np.pi) - np.linalg.slogdet(matrix)[1])
    np.testing.assert_allclose(free_log_z(length, m_squared), expected, rtol=1e-10)
    covariance = np.linalg.inv(matrix)[0].reshape(length, length)
    np.testing.assert_allclose(free_propagator(length, m_squared), covariance, atol=1e-12)


def test_free_field_of_the_reference():
    np.testing.assert_allclose(free_log_z(8, 1.0), -11.6229, atol=5e-5)


def exact_single_site(m_squared, lam):
    """One site, whose neighbours are itself: no kinetic term. <phi^2>, <S> by quadrature."""
    weight = lambda x: np.exp(-m_squared * x**2 - lam * x**4)
    z = integrate.quad(weight, -8, 8)[0]
    squared = integrate.quad(lambda x: x**2 * weight(x), -8, 8)[0] / z
    action = lambda x: (m_squared * x**2 + lam * x**4) * weight(x)
    return squared, integrate.quad(action, -8, 8)[0] / z


def exact_four_sites(m_squared, lam):
    """A 2 x 2 lattice by the trapezoidal rule, exact to rounding for smooth decaying functions."""
    x = np.linspace(-2.6, 2.6, 41)
    bond = np.exp(-2 * (x[:, None] - x) ** 2)  # twice, once around the torus
    site = np.exp(-m_squared * x**2 - lam * x**4)
    transfer = bond * np.sqrt(site[:, None] * site)
    # The four sites form a ring: Z = tr T^4, and so on with phi^2 inserted.
    power = np.linalg.matrix_power(transfer, 4)
    z = np.trace(power)
    phi_squared = np.sum(np.diag(power) * x**2) / z
    neighbours = np.trace(np.diag(x) @ transfer @ np.diag(x) @ np.linalg.matrix_power(transfer, 3))
    opposite = np.linalg.matrix_power(transfer, 2)
    diagonal = np.trace(np.diag(x) @ opposite @ np.diag(x) @ opposite)
    return phi_squared, phi_squared + (2 * neighbours + diagonal) / z


def test_hybrid_monte_carlo_agrees_with_quadrature(key):
    energy, key_one = phi4(-1.0, 2.0), jax.random.fold_in(key, 1)
    run = lambda key, length: hamiltonian(
        key, energy, jnp.zeros((40, length, length)), 2000, step_size=0.3, max_steps=6
    )
    measure = jax.jit(jax.vmap(jax.vmap(lambda phi: observables(phi, energy))))
    exact = {1: exact_single_site(-1.0, 2.0), 2: exact_four_sites(-1.0, 2.0)}
    names = {1: ("phi_squared", "action_density"), 2: ("phi_squared", "V_M_squared")}
    for length, key_run in ((1, key_one), (2, key)):
        values = measure(run(key_run, length).x)
        for name, expected in zip(names[length], exact[length], strict=True):
            found = chain_mean(np.asarray(values[name])[:, 100:])
            assert found.error < 0.04 * abs(expected)
            assert abs(found.value - expected) < 3 * found.error, name


def test_observables_by_hand(phi):
    energy = phi4(-4.0, 8.0)
    found = observables(phi, energy)
    values = np.asarray(phi, np.float64)
    np.testing.assert_allclose(found["V_M_squared"], values.sum() ** 2 / 36, rtol=1e-4)
    np.testing.assert_allclose(found["V_M_squared"], spectrum(phi)[0, 0], rtol=1e-4)
    direct = [[np.mean(values * np.roll(values, (-i, -j), (0, 1))) for j in range(6)]
              for i in range(6)]  # fmt: skip
    np.testing.assert_allclose(two_point(phi), direct, atol=1e-6)
    along = (np.sum(direct, axis=0) + np.sum(direct, axis=1)) / 2
    np.testing.assert_allclose(correlator(phi), along, atol=1e-5)
    np.testing.assert_allclose(np.sum(found["correlator"]), found["V_M_squared"], rtol=1e-4)
    np.testing.assert_allclose(found["action_density"], energy(phi) / 36)


def test_second_moment_length_of_the_free_field():
    """1 / m exactly at every lattice size, since the propagator is 1 / (2 (p^2 + m^2))."""
    power = np.fft.fft2(free_propagator(12, 0.25)).real
    np.testing.assert_allclose(second_moment_length(power[0, 0], power[0, 1], 12), 2, rtol=1e-5)


def test_bad_couplings():
    with pytest.raises(ValueError, match="to be normalisable; got m_squared -1.0 and lam 0"):
        phi4(-1.0, 0.0)
    for function in (free_log_z, free_propagator):
        with pytest.raises(ValueError, match="a free field needs m_squared > 0, got 0"):
            function(4, 0.0)

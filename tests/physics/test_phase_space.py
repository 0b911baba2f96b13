"""Volumes of phase space against integrals of other routes, and what momenta have to hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from jgen.physics import boost, massless_volume, rambo, two_body, two_body_volume

METRIC = np.array([1, -1, -1, -1])


def test_momenta_of_rambo_are_massless_and_add_up():
    u = jax.random.uniform(jax.random.key(0), (200, 5, 4))
    u = u.at[0, :, :].set(0.0).at[0, 0, 2].set(0.5).at[0, 1, 2].set(0.25).at[0, 1, 0].set(0.9)
    momenta = np.asarray(jax.jit(jax.vmap(lambda u: rambo(u, 500.0)))(u), np.float64)
    np.testing.assert_allclose(momenta.sum(1), [[500, 0, 0, 0]] * 200, atol=5e-3)
    np.testing.assert_allclose((momenta**2 * METRIC).sum(-1), 0, atol=0.5)
    with pytest.raises(ValueError, match="two particles or more, got 1"):
        rambo(u[0, :1], 500.0)


def test_volumes_are_those_of_recursion():
    """V_2 = 1 / (8 pi), V_3 = s / (256 pi^3), and one particle more by the mass of the others.

    V_n(s) = int dm^2 / (2 pi) V_2(s; m, 0) V_(n-1)(m^2).
    """
    energy = 3.0
    assert massless_volume(2, energy) == pytest.approx(1 / (8 * np.pi), rel=1e-14)
    assert massless_volume(3, energy) == pytest.approx(9 / (256 * np.pi**3), rel=1e-14)
    for num in (3, 4, 5):
        recursion = integrate.quad(
            lambda m: (
                m / np.pi * two_body_volume(energy, (m, 0.0)) * massless_volume(num - 1, m)  # noqa: B023
            ),
            1e-12,
            energy,
        )[0]
        assert massless_volume(num, energy) == pytest.approx(recursion, rel=1e-7)
    with pytest.raises(ValueError, match="below the threshold, 4.0 GeV"):
        two_body_volume(3.0, (2.0, 2.0))


def test_rambo_is_flat_in_the_mass_of_pairs():
    """Of three massless particles, s_12 is flat but for the factor 1 - s_12 / s of phase space."""
    u = jax.random.uniform(jax.random.key(1), (20_000, 3, 4))
    p = np.asarray(jax.jit(jax.vmap(lambda u: rambo(u, 1.0)))(u), np.float64)
    pair = ((p[:, 0] + p[:, 1]) ** 2 * METRIC).sum(-1)
    # density 2 (1 - x): mean 1/3 and variance 1/18
    assert abs(pair.mean() - 1 / 3) < 4 * (1 / 18 / 20_000) ** 0.5
    assert abs(np.mean(pair**2) - 1 / 6) < 4 * ((1 / 15 - 1 / 36) / 20_000) ** 0.5


def test_two_bodies_have_their_masses_and_angles(x64):
    momenta = np.asarray(two_body(jnp.array(0.3), jnp.array(1.1), jnp.array(10.0), (3.0, 4.0)))
    np.testing.assert_allclose(momenta.sum(0), [10, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose((momenta**2 * METRIC).sum(-1), [9, 16], rtol=1e-12)
    length = np.linalg.norm(momenta[0, 1:])
    assert momenta[0, 3] / length == pytest.approx(0.3)
    assert np.arctan2(momenta[0, 2], momenta[0, 1]) == pytest.approx(1.1)
    assert two_body_volume(10.0, (3.0, 4.0)) == pytest.approx(2 * length / 10 / (8 * np.pi))
    back = momenta @ boost(jnp.array([0.0, 0.0, 0.75])).T
    np.testing.assert_allclose((np.asarray(back) ** 2 * METRIC).sum(-1), [9, 16], rtol=1e-12)
    np.testing.assert_allclose(back.sum(0), [12.5, 0, 0, 7.5], atol=1e-12)

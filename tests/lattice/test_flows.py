import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.bijectors import continuous
from jgen.lattice import (
    checkerboard_flow,
    displacement_orbits,
    equivariant_flow,
    equivariant_velocity,
)
from jgen.paths import variance_preserving
from jgen.solvers import runge_kutta
from tests.helpers import random_params

SYMMETRIES = {
    "translation": lambda phi: jnp.roll(phi, (1, 2), (0, 1)),
    "translation by two": lambda phi: jnp.roll(phi, (2, 0), (0, 1)),
    "rotation": lambda phi: jnp.roll(jnp.rot90(phi), 1, 0),  # about the first site
    "reflection": lambda phi: jnp.roll(phi[::-1], 1, 0),
    "transposition": jnp.transpose,
    "sign": jnp.negative,
}
FLOWS = {
    "checkerboard": lambda: checkerboard_flow(4, 3, hidden=(3,)),
    "equivariant": lambda: equivariant_flow(
        4, num_frequencies=2, num_times=2, solver=runge_kutta("rk4", 40)
    ),
}


@pytest.fixture
def phi():
    return jnp.asarray(np.random.default_rng(1).normal(size=(4, 4)))


@pytest.mark.parametrize("name", FLOWS)
def test_log_det_is_that_of_the_jacobian(x64, phi, name):
    bijector = FLOWS[name]()
    params = random_params(bijector.init, 0.15)

    @jax.jit
    def everything(phi):
        forward = lambda phi: bijector.forward(params, phi)[0]
        z, log_det = bijector.forward(params, phi)
        return z, log_det, *bijector.inverse(params, z), jax.jacrev(forward)(phi)

    z, log_det, back, inverse_log_det, jacobian = everything(phi)
    assert np.abs(z - phi).max() > 0.05
    np.testing.assert_allclose(back, phi, atol=1e-7)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian.reshape(16, 16))[1], atol=1e-6)
    np.testing.assert_allclose(inverse_log_det, -log_det, atol=1e-6)


@pytest.mark.parametrize("name", FLOWS)
def test_flows_commute_with_the_symmetries(x64, phi, name):
    bijector = FLOWS[name]()
    params = random_params(bijector.init, 0.15)
    both = jax.jit(lambda phi: bijector.forward(params, phi))
    z, log_det = both(phi)
    for symmetry, moved in SYMMETRIES.items():
        other, other_log_det = both(moved(phi))
        if name == "checkerboard" and symmetry == "translation":
            # An odd one swaps the two sublattices, which move one after the other.
            assert np.abs(other - moved(z)).max() > 1e-3
            continue
        np.testing.assert_allclose(other, moved(z), atol=1e-12, err_msg=symmetry)
        np.testing.assert_allclose(other_log_det, log_det, atol=1e-12)


def test_divergence_is_the_trace_of_the_jacobian(x64, phi):
    network, both = equivariant_velocity(4, num_frequencies=3, num_times=3)
    params, t = random_params(network.init, 0.15), jnp.float64(0.3)
    params["frequency"] += 0.9
    velocity, divergence = both(params, t, phi)
    np.testing.assert_allclose(network.apply(params, t, phi), velocity)
    jacobian = jax.jacfwd(lambda phi: network.apply(params, t, phi))(phi).reshape(16, 16)
    np.testing.assert_allclose(divergence, np.trace(jacobian), rtol=1e-10)
    # By hand, with sines and cosines instead of their recursion.
    spectra = np.tensordot(np.cos(np.pi * 0.3 * np.arange(3)), params["eigenvalues"], 1)
    n, w = np.arange(1, 4), float(params["frequency"])
    fields = [np.asarray(phi), *(np.sin(k * w * np.asarray(phi)) / k for k in n)]
    orbits = displacement_orbits(4)
    expected = sum(
        np.fft.ifft2(eigenvalues[orbits] * np.fft.fft2(f)).real
        for eigenvalues, f in zip(spectra, fields, strict=True)
    )
    np.testing.assert_allclose(velocity, expected, atol=1e-12)


def test_a_known_divergence_replaces_the_exact_one_on_every_path(x64, phi):
    network, both = equivariant_velocity(4, num_frequencies=1, num_times=2)
    params = random_params(network.init, 0.15)
    path, solver = variance_preserving(), runge_kutta("midpoint", 3)
    make = lambda divergence: continuous(network, divergence=divergence, path=path, solver=solver)
    found, expected = (
        jax.jit(make(divergence).forward)(params, phi) for divergence in (both, "exact")
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), found, expected)


def test_orbits_of_displacements():
    expected = [[0, 1, 2, 1], [1, 3, 4, 3], [2, 4, 5, 4], [1, 3, 4, 3]]
    np.testing.assert_array_equal(displacement_orbits(4), expected)
    assert displacement_orbits(8).max() == 14
    assert displacement_orbits(5).max() == 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: checkerboard_flow(5), "closes on lattices of even length, got 5"),
        (lambda: checkerboard_flow(4, hidden=()), "hidden must be the widths of 1 to"),
        (
            lambda: equivariant_flow(4, num_frequencies=0),
            "num_frequencies must be a whole number from 1 .*got 0",
        ),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()

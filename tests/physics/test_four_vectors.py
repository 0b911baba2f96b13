"""Four-vectors against the library `vector`, and Lorentz transformations against their algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.physics import four_vectors as fv

vector = pytest.importorskip("vector")


def momenta(num=200, seed=0):
    rng = np.random.default_rng(seed)
    columns = rng.exponential(50, num) + 5, rng.uniform(-np.pi, np.pi, num)
    return *columns, np.clip(rng.normal(0, 2, num), -4, 4), rng.exponential(10, num) + 1


def as_vector(p):
    columns = np.asarray(p).T
    return vector.arr(dict(zip(("E", "px", "py", "pz"), columns, strict=True)))


def test_kinematics_are_those_of_vector():
    with jax.enable_x64(True):
        pt, phi, eta, mass = map(jnp.asarray, momenta())
        p, q = (fv.four_vector(*map(jnp.asarray, momenta(seed=s))) for s in (0, 1))
        theirs, other = as_vector(p), as_vector(q)
        for ours, exact in {
            fv.transverse_momentum: theirs.pt, fv.azimuth: theirs.phi, fv.mass: theirs.mass,
            fv.pseudorapidity: theirs.eta, fv.rapidity: theirs.rapidity,
        }.items():  # fmt: skip
            np.testing.assert_allclose(ours(p), exact, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(fv.pseudorapidity(p), eta, rtol=1e-12)
        np.testing.assert_allclose(fv.azimuth(p), phi, rtol=1e-12)
        np.testing.assert_allclose(fv.mass(p), mass, rtol=1e-7)
        np.testing.assert_allclose(fv.minkowski(p, q), theirs.dot(other), rtol=1e-9)
        np.testing.assert_allclose(fv.delta_r(p, q), theirs.deltaR(other), rtol=1e-9)


def test_rapidities_are_exact_far_forward():
    with jax.enable_x64(True):
        for eta in (6.0, 9.0, 15.0):
            p = fv.four_vector(*(jnp.float64(v) for v in (20.0, 0.3, eta, 1e-3)))
            assert fv.pseudorapidity(p) == pytest.approx(eta, rel=1e-13)
            # A mass of 1 MeV takes (m / pT)^2 / 2 off.
            assert fv.rapidity(p) == pytest.approx(eta, rel=1e-8 if eta < 10 else 1e-3)
    p = fv.four_vector(*(jnp.float32(v) for v in (20.0, 0.3, 9.0, 0.0)))
    assert fv.pseudorapidity(p) == pytest.approx(9.0, rel=1e-6)


def test_angles_go_around_the_circle():
    assert fv.angle_difference(*jnp.array([3.1, -3.1])) == pytest.approx(6.2 - 2 * np.pi, abs=1e-6)
    turns = fv.wrapped(jnp.array([-np.pi, 3.5 * np.pi, 0.5, 2 * np.pi + 0.5]))
    np.testing.assert_allclose(turns, [-np.pi, -0.5 * np.pi, 0.5, 0.5], atol=1e-6)


def test_masses_near_zero_have_derivatives():
    light = fv.four_vector(*(jnp.float32(v) for v in (20.0, 0.3, 1.0, 0.0)))
    assert np.isfinite(jax.grad(fv.mass)(light)).all()


def test_transformations_are_of_the_lorentz_group():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        metric = np.diag(fv.METRIC)
        for _ in range(5):
            beta_gamma, quaternion = (
                jnp.asarray(rng.normal(size=3)),
                jnp.asarray(rng.normal(size=4)),
            )
            boost, rotation = fv.boost(beta_gamma), fv.rotation(quaternion)
            for matrix in (boost, rotation, boost @ rotation):
                np.testing.assert_allclose(matrix.T @ metric @ matrix, metric, atol=1e-12)
                assert jnp.linalg.det(matrix) == pytest.approx(1.0, abs=1e-12)
            rest = jnp.array([2.0, 0.0, 0.0, 0.0])
            np.testing.assert_allclose((boost @ rest)[1:], 2 * beta_gamma, rtol=1e-12)
            np.testing.assert_allclose(boost @ fv.boost(-beta_gamma), np.eye(4), atol=1e-12)
            # A rotation keeps its axis.
            np.testing.assert_allclose(
                rotation[1:, 1:] @ quaternion[1:], quaternion[1:], atol=1e-12
            )
        p = jnp.asarray(rng.normal(size=(6, 4)))
        vectors = vector.arr(
            {k: np.asarray(p[:, i]) for i, k in enumerate(("E", "px", "py", "pz"))}
        )
        beta = np.asarray(beta_gamma / jnp.sqrt(1 + beta_gamma @ beta_gamma))
        theirs = vectors.boost_beta3(vector.obj(x=beta[0], y=beta[1], z=beta[2]))
        np.testing.assert_allclose((p @ boost.T)[:, 0], theirs.E, rtol=1e-10)
        np.testing.assert_allclose((p @ boost.T)[:, 3], theirs.pz, rtol=1e-10)

import jax
import numpy as np
import pytest

from jgen.jets import OBSERVABLES, Constituents, jet_observable, jet_observables, smeared


def jets(points, charge=None):
    """Jets of pT 500 GeV with points (eta, phi, pT) relative to it."""
    points = np.asarray(points, np.float32)
    n = (points[..., 2] > 0).sum(axis=1).astype(np.int32)
    num, rows = points.shape[:2]
    return Constituents(
        points, n, n, np.tile(np.float32([500, 0, 0, 50]), (num, 1)), np.zeros(num, np.int8),
        ("gluon",), charge=np.ones((num, rows), np.int8) if charge is None else charge,
    )  # fmt: skip


def test_two_prongs_in_closed_form():
    """At small angles the mass is sqrt(z (1 - z)) pT dR, and all else follows from z and dR."""
    z, dr = 0.3, 0.02
    two = jets([[[0, 0, 1 - z], [dr, 0, z], [0, 0, 0]]])
    mass = np.sqrt(z * (1 - z)) * 500 * dr
    width = 2 * z * (1 - z) * dr
    rho = np.log((mass / 500) ** 2)
    expected = dict(zip(OBSERVABLES, (mass, 2, width, rho, 0, z), strict=True))
    found = dict(zip(OBSERVABLES, jet_observables(two)[0], strict=True))
    assert found == pytest.approx(expected, rel=2e-3, abs=1e-5)


def test_soft_radiation_is_in_the_mass_and_not_in_rho_and_padding_and_rotation_change_nothing():
    points = np.zeros((6, 3), np.float32)
    points[:3] = [[0.1, 0, 0.6], [0.1, 0.2, 0.35], [-0.4, 0.1, 0.05]]
    both = np.stack([points, points])
    both[1, :3, 1] += 3.1  # across the edge of phi
    found = np.asarray(jax.jit(jax.vmap(jet_observable))(both))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-6)
    one = jax.jit(jet_observable)
    short = np.asarray(one(points[:3]))
    np.testing.assert_allclose(short, found[0], rtol=1e-4)
    mass, n, _, rho, _, z = short
    assert n == 3
    assert z == pytest.approx(0.35 / 0.95, rel=1e-3)
    assert np.exp(rho / 2) < 0.9 * mass
    assert one(points[:3], 0.1)[1] == 2  # those with a tenth of the momentum


def test_a_jet_of_one_constituent():
    found = jet_observables(jets([[[0.1, 0.1, 1.0], [0, 0, 0]]]))[0]
    np.testing.assert_allclose(found, [0, 1, 0, -14, 0, 0], atol=0.05)


def test_the_detector_smears_as_it_says_and_loses_soft_neutrals():
    num = 4000
    points = np.tile(np.float32([[0, 0, 0.8], [0.1, 0, 0.02], [0, 0.1, 0.001]]), (num, 1, 1))
    charge = np.tile(np.int8([1, 1, 0]), (num, 1))
    after = smeared(jets(points, charge), jax.random.key(0))
    assert (after.n == 2).all()  # 0.5 GeV of a resolution of 0.2
    for row, (eta, pt) in enumerate(((0, 400), (0.1, 10))):
        width = np.hypot(0.1 / np.sqrt(pt / 10), 0.02)
        ratio = after.points[:, row, 2] * 500 / pt
        assert ratio.mean() == pytest.approx(1, abs=5 * width / num**0.5)
        assert ratio.std() == pytest.approx(width, rel=0.05)
        assert after.points[:, row, 0].mean() == pytest.approx(eta, abs=1e-3)
        assert after.points[:, row, 0].std() == pytest.approx(0.01, rel=0.05)
    soft = jets([[[0, 0, 0.5], [0.1, 0, 0.5]]], np.zeros((1, 2), np.int8))
    last = smeared(soft._replace(jets=np.float32([[1, 0, 0, 0.1]])), jax.random.key(0))
    assert last.n == 1  # of nothing there is no jet
    with pytest.raises(ValueError, match="which constituents are charged"):
        smeared(jets(points)._replace(charge=None), jax.random.key(0))

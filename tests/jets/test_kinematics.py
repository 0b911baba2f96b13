"""Jets scaled to a given pT and mass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.jets import calibrated, jet_kinematics, read_jets, sample_jets_path

kinematics = jax.jit(jax.vmap(jet_kinematics))
scaled = jax.jit(jax.vmap(calibrated))


def axis(points):
    return (
        np.einsum("nr,nrd->nd", points[..., 2], points[..., :2])
        / points[..., 2].sum(axis=1)[:, None]
    )


@pytest.fixture(scope="module")
def jets():
    """Bundled jets, what they are asked for, and what comes of them."""
    points = read_jets(sample_jets_path()).points[::40]
    pt, _, _, mass = np.asarray(kinematics(points)).T
    factors = np.exp(np.random.default_rng(0).normal(0, 0.5, (2, len(pt)))).astype(np.float32)
    return (
        points,
        pt * factors[0],
        mass * factors[1],
        np.asarray(scaled(points, *factors * [pt, mass])),
    )


def test_the_jet_has_the_pt_and_mass_that_are_asked(jets):
    points, pt, mass, done = jets
    found = np.asarray(kinematics(done))
    np.testing.assert_allclose(found[:, 0], pt, rtol=1e-6)
    np.testing.assert_allclose(found[:, 3], mass, rtol=3e-6)
    # By one factor of pT and one of all distances to an axis that stays.
    there = points[..., 2] > 0
    ratio = done[..., 2] / np.where(there, points[..., 2], 1)
    np.testing.assert_allclose(ratio[there], np.repeat(ratio[:, 0], there.sum(axis=1)), rtol=1e-6)
    np.testing.assert_allclose(axis(done), axis(points), atol=1e-6)
    before, after = ((p[..., :2] - axis(points)[:, None])[there] for p in (points, done))
    jet = np.repeat(np.arange(len(points)), there.sum(axis=1))
    sums = [np.bincount(jet, (before * x).sum(axis=1)) for x in (before, after)]
    np.testing.assert_allclose(after, (sums[1] / sums[0])[jet, None] * before, atol=2e-6)
    assert (done[~there] == 0).all()


def test_what_is_right_stays(jets):
    done = jets[3]
    pt, _, _, mass = np.asarray(kinematics(done)).T
    np.testing.assert_allclose(scaled(done, pt, mass), done, rtol=1e-5, atol=1e-6)


def test_two_points_in_closed_form():
    """Two of equal pT, at phi = 3 +- a: the mass over pT is tan a."""
    points = jnp.array([[0.2, 3.1, 0.3], [0.2, 2.9, 0.3]])
    done = calibrated(points, jnp.float32(2.0), jnp.float32(2 * np.tan(0.4)))
    expected = [[0.2, 3.4, 1 / np.cos(0.4)], [0.2, 2.6, 1 / np.cos(0.4)]]
    np.testing.assert_allclose(done, expected, rtol=2e-6)


def test_jets_on_the_edge_of_phi_are_scaled_as_others(jets):
    points, pt, mass, done = (value[:20] for value in jets)
    wrapped = lambda phi: (phi + np.pi) % (2 * np.pi) - np.pi
    turned = points.copy()
    turned[..., 1] = np.where(points[..., 2] > 0, wrapped(points[..., 1] + np.pi), 0)
    found, there = np.asarray(scaled(turned, pt, mass)), points[..., 2] > 0
    np.testing.assert_allclose(found[..., [0, 2]], done[..., [0, 2]], atol=5e-6)
    difference = wrapped(found[..., 1] - done[..., 1] - np.pi)[there]
    np.testing.assert_allclose(difference, 0, atol=5e-6)


def test_order_and_padding_change_nothing(jets):
    points, pt, mass, done = (value[:20] for value in jets)
    order = np.random.default_rng(1).permutation(points.shape[1])
    np.testing.assert_allclose(scaled(points[:, order], pt, mass), done[:, order], atol=2e-6)
    padded = np.pad(points, ((0, 0), (0, 7), (0, 0)))
    padded[..., :2] += np.where(padded[..., 2:] > 0, 0, 5).astype(np.float32)  # not looked at
    again = np.asarray(scaled(padded, pt, mass))
    np.testing.assert_allclose(
        again[:, : points.shape[1]][points[..., 2] > 0], done[points[..., 2] > 0], atol=2e-6
    )
    np.testing.assert_array_equal(again[padded[..., 2] == 0], padded[padded[..., 2] == 0])


def test_one_point_keeps_its_angles_and_none_stays_none():
    points = jnp.zeros((3, 4, 3)).at[1, 0].set(jnp.array([0.1, -0.2, 0.5]))
    points = points.at[2, :2].set(jnp.array([0.1, -0.2, 0.5]))  # two in one place
    done = np.asarray(scaled(points, jnp.full(3, 0.8), jnp.full(3, 0.1)))
    np.testing.assert_array_equal(done[0], 0)
    np.testing.assert_allclose(done[1, 0], [0.1, -0.2, 0.8], rtol=1e-6)
    np.testing.assert_allclose(done[2, :2], [[0.1, -0.2, 0.4]] * 2, rtol=1e-6)
    np.testing.assert_array_equal(done[1, 1:], 0)


def test_what_no_jet_can_have_is_nan(jets):
    points, pt, mass, done = (value[:5] for value in jets)
    signs = np.array([[1, -1, 1, np.nan, 1], [-1, 1, np.nan, 1, 1]], np.float32)
    wrong = np.asarray(scaled(points, pt * signs[0], mass * signs[1]))
    assert np.isnan(wrong[:4]).all()
    np.testing.assert_allclose(wrong[4], done[4], atol=2e-6)


def test_what_is_not_a_number_stays_so(jets):
    """A jet with such a point has no mass of zero, nor has one that negative pT leave no mass."""
    points = np.repeat(jets[0][:1], 3, axis=0)
    points[[0, 1, 2], 0, [0, 1, 2]] = np.nan
    assert np.isnan(np.asarray(kinematics(points))[:, [1, 3]]).all()
    negative = np.array([[[0.79, 1.47, 0.2557], [-0.29, -2.48, -0.2545]]], np.float32)
    assert np.isnan(np.asarray(kinematics(negative))[0, [1, 3]]).all()


def test_angles_of_jets_of_hardly_any_pt_are_as_those_of_others(jets):
    single = jets[0][:, :1]
    points = single * np.float32([1, 1, 1e-25])
    np.testing.assert_allclose(kinematics(points)[:, 1:3], single[:, 0, :2], atol=1e-5)


def test_members_are_scaled_as_alone(jets):
    points, pt, mass, done = (value[:20].reshape(2, 10, *value.shape[1:]) for value in jets)
    together = jax.jit(jax.vmap(jax.vmap(calibrated)))(points, pt, mass)
    np.testing.assert_allclose(together, done, atol=2e-6)

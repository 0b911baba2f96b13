"""Polynomials against energyflow 1.4.0, which jetnet 0.2.5 calls, and sums written out."""

import itertools

import jax
import numpy as np
import pytest

from jgen.jets import energy_flow_polynomials, graphs, jet_kinematics, prime_graphs

# (eta, phi, pT); the last one is padding.
JET = np.array(
    [
        [0.261, -0.465, 0.163], [0.189, -0.044, 0.102], [-0.141, -0.249, 0.068],
        [-0.253, -0.146, 0.055], [-0.125, -0.109, 0.002], [0.008, -0.063, 0.0],
    ],
    np.float32,
)  # fmt: skip
# EFPSet("d<=4", measure="hadr", beta=1, normed=None, coords="ptyphim") of energyflow 1.4.0, sorted.
ENERGYFLOW = [
    0.39, 0.04732318506, 0.02205088051, 0.01066324028, 0.005832058556, 0.00531844315,
    0.002729589745, 0.002239483844, 0.001398024234, 0.001328927675, 0.001289612241, 0.001043517899,
    0.0007313446849, 0.0007138082647, 0.0006292427789, 0.0005046184932, 0.0004862413314,
    0.0003444007108, 0.0003348749578, 0.0003342254012, 0.0002759915864, 0.0002569123137,
    0.0001745134106, 0.0001291728807, 0.0001286020264, 0.0001059795084, 9.347284893e-05,
    8.886317291e-05, 8.770182814e-05, 6.615895953e-05, 4.938259067e-05, 3.460955987e-05,
    3.401290701e-05, 3.377968061e-05, 1.306080092e-05, 5.01528789e-06,
]  # fmt: skip


def test_the_36_of_fpd_are_those_of_energyflow():
    found = np.asarray(jax.jit(energy_flow_polynomials)(JET))
    assert len(graphs(4)) == 36
    np.testing.assert_allclose(np.sort(found)[::-1], ENERGYFLOW, rtol=1e-5)
    # Each belongs to its graph: the sums, written out for some of them.
    z, place = JET[:5, 2].astype(float), JET[:5, :2].astype(float)
    theta = np.hypot(*np.moveaxis(place[:, None] - place[None], -1, 0))
    for product, value in zip(graphs(4), found, strict=True):
        edges = [edge for graph in product for edge in graph]
        if len(product) > 1 or len(edges) not in (0, 3, 4):
            continue
        num = 1 + max((v for edge in edges for v in edge), default=0)
        total = 0.0
        for chosen in itertools.product(range(5), repeat=num):
            angles = [theta[chosen[i], chosen[j]] for i, j in edges]
            total += np.prod(z[list(chosen)]) * np.prod(angles)
        np.testing.assert_allclose(value, total, rtol=1e-5)


def test_graphs_are_all_that_there_are():
    """Connected multigraphs without loops by edges: 1, 2, 5, 12 (OEIS A076864)."""
    assert [len(prime_graphs(degree)) for degree in (1, 2, 3, 4)] == [1, 2, 5, 12]
    assert len(prime_graphs(4, 4)) == 5
    assert [len(graphs(degree)) for degree in (1, 2, 3)] == [2, 5, 13]
    with pytest.raises(ValueError, match="degree must be"):
        graphs(0)


def test_angles_go_round():
    turned = JET + np.array([0, 3.0, 0], np.float32)
    turned[:, 1] = np.mod(turned[:, 1] + np.pi, 2 * np.pi) - np.pi
    np.testing.assert_allclose(
        energy_flow_polynomials(turned), energy_flow_polynomials(JET), rtol=1e-4
    )


@pytest.mark.parametrize("shift", [(0.0, 0.0), (2.5, 3.0)])
def test_jets_of_constituents_are_sums_of_four_vectors(shift):
    rng = np.random.default_rng(1)
    points = np.stack([*rng.normal(0, 0.02, (2, 40)), rng.exponential(1, 40)], axis=1)
    points[:, :2] += shift
    eta, phi, pt = points.T
    vector = [pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)]
    e, px, py, pz = np.sum(vector, axis=1)
    exact = np.hypot(px, py), np.arcsinh(pz / np.hypot(px, py)), np.arctan2(py, px)
    mass = np.sqrt(e**2 - px**2 - py**2 - pz**2)
    padded = np.concatenate([points, np.zeros((5, 3))]).astype(np.float32)
    found = np.asarray(jet_kinematics(padded))
    np.testing.assert_allclose(found[:3], exact, rtol=2e-6, atol=2e-6)
    # The points themselves have only the digits of float32.
    assert found[3] == pytest.approx(mass, rel=2e-5)


def test_a_jet_of_nothing_is_zero():
    assert (np.asarray(jet_kinematics(np.zeros((3, 3), np.float32))) == 0).all()
    assert (np.asarray(energy_flow_polynomials(np.zeros((3, 3), np.float32))) == 0).all()

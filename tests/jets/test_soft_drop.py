import math

import jax
import numpy as np
import pytest

from jgen.jets import soft_drop


def sum_of(a, b):
    px = a[0] * math.cos(a[2]) + b[0] * math.cos(b[2])
    py = a[0] * math.sin(a[2]) + b[0] * math.sin(b[2])
    e, pz = a[3] + b[3], a[4] + b[4]
    return (math.hypot(px, py), 0.5 * math.log((e + pz) / (e - pz)), math.atan2(py, px), e, pz)


def angle(a, b):
    phi = (a[2] - b[2] + math.pi) % (2 * math.pi) - math.pi
    return math.hypot(a[1] - b[1], phi)


def by_hand(jet, z_cut, beta, radius):
    """A tree of the clustering in Python floats, undone from its root."""
    nodes = [((p, y, f, p * math.cosh(y), p * math.sinh(y)), None) for p, y, f in jet if p > 0]
    while len(nodes) > 1:
        pairs = [(i, j) for i in range(len(nodes)) for j in range(i)]
        i, j = min(pairs, key=lambda ij: angle(nodes[ij[0]][0], nodes[ij[1]][0]))
        made = (sum_of(nodes[i][0], nodes[j][0]), (nodes[i], nodes[j]))
        nodes = [n for k, n in enumerate(nodes) if k not in (i, j)] + [made]
    (node,) = nodes
    while node[1] is not None:
        hard, soft = sorted(node[1], key=lambda n: -n[0][0])
        z, dr = soft[0][0] / (soft[0][0] + hard[0][0]), angle(soft[0], hard[0])
        if z > z_cut * (dr / radius) ** beta:
            pt, _, _, e, pz = node[0]
            return z, dr, pt, math.sqrt(max(e**2 - pz**2 - pt**2, 0))
        node = hard
    return 0.0, 0.0, node[0][0], 0.0


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_against_a_tree_that_is_undone_from_its_root(beta):
    rng = np.random.default_rng(1)
    pt = rng.exponential(30, (6, 14)) ** 1.5
    jets = np.concatenate([pt[..., None], rng.uniform(-0.6, 0.6, (6, 14, 2))], axis=-1)
    jets = np.pad(jets, ((0, 0), (0, 3), (0, 0))).astype(np.float32)
    groomed = jax.jit(jax.vmap(lambda x: soft_drop(x, 0.2, beta)))(jets)
    expected = [by_hand(jet.tolist(), 0.2, beta, 0.8) for jet in jets]
    np.testing.assert_allclose(np.stack(groomed, axis=-1), expected, rtol=2e-3, atol=1e-4)
    assert len({round(row[0], 3) for row in expected}) > 3


def test_a_jet_of_one_constituent_or_of_soft_ones_has_no_splitting():
    jets = np.zeros((2, 3, 3), np.float32)
    jets[:, 0] = [100, 0.1, 0.2]
    jets[1, 1] = [1, 0.3, 0]
    groomed = jax.jit(jax.vmap(soft_drop))(jets)
    np.testing.assert_allclose(np.stack(groomed, axis=-1), [[0, 0, 100, 0]] * 2, rtol=1e-6)


def test_what_is_refused():
    with pytest.raises(ValueError, match="need the shape"):
        soft_drop(np.ones((3, 2)))
    with pytest.raises(ValueError, match="z_cut must be positive"):
        soft_drop(np.ones((3, 3)), 0.0)

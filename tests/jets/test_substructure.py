import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.jets import n_subjettiness


def add(a, b):
    """Sum of massless or massive particles (pT, y, phi, E, pz) by four-vectors, in doubles."""
    px = a[0] * math.cos(a[2]) + b[0] * math.cos(b[2])
    py = a[0] * math.sin(a[2]) + b[0] * math.sin(b[2])
    e, pz = a[3] + b[3], a[4] + b[4]
    return (math.hypot(px, py), 0.5 * math.log((e + pz) / (e - pz)), math.atan2(py, px), e, pz)


def angle(a, b):
    phi = (a[2] - b[2] + math.pi) % (2 * math.pi) - math.pi
    return math.hypot(a[1] - b[1], phi)


def by_hand(constituents, num, radius):
    """Exclusive kT by lists of Python floats, then tau_N."""
    particles = [(p, y, f, p * math.cosh(y), p * math.sinh(y)) for p, y, f in constituents if p > 0]
    axes = list(particles)
    while len(axes) > num:
        pairs = [(i, j) for i in range(len(axes)) for j in range(i)]
        i, j = min(
            pairs,
            key=lambda ij: min(axes[ij[0]][0], axes[ij[1]][0]) * angle(axes[ij[0]], axes[ij[1]]),
        )
        merged = add(axes[i], axes[j])
        axes = [a for k, a in enumerate(axes) if k not in (i, j)] + [merged]
    total = sum(p[0] for p in particles)
    return sum(p[0] * min(angle(p, a) for a in axes) for p in particles) / (radius * total)


def jets(seed, num_jets=4, num=20, padding=4):
    rng = np.random.default_rng(seed)
    pt = np.sort(rng.exponential(30, (num_jets, num)))[:, ::-1]
    place = rng.uniform(-0.6, 0.6, (num_jets, num, 2))
    x = np.concatenate([pt[..., None], place], axis=-1)
    return np.pad(x, ((0, 0), (0, padding), (0, 0))).astype(np.float32)


@pytest.fixture(scope="module")
def taus():
    return jax.jit(jax.vmap(lambda x: n_subjettiness(x, (1, 2, 3), 0.8)))


def test_clustering_and_axes_against_a_list_of_floats(taus):
    x = jets(0)
    expected = [[by_hand(jet.tolist(), n, 0.8) for n in (1, 2, 3)] for jet in x]
    np.testing.assert_allclose(taus(x), expected, rtol=1e-4)


def test_two_prongs_in_closed_form(taus):
    """The axis of two particles is their sum, which for small angles lies at the pT-mean."""
    pt, y = np.array([300.0, 100.0]), np.array([0.0, 0.02])
    x = np.zeros((1, 24, 3), np.float32)
    x[0, :2, 0], x[0, :2, 1] = pt, y
    # pT_1 (y - 0) + pT_2 (0.02 - y) with y = 0.005, over 0.8 * 400.
    tau1 = (300 * 0.005 + 100 * 0.015) / 0.8 / 400
    np.testing.assert_allclose(taus(x)[0], [tau1, 0, 0], rtol=1e-3, atol=1e-7)


def test_symmetries(taus):
    """Order of the constituents, scale of momenta, direction of the jet across the seam of phi."""
    x = jets(1)
    expected = taus(x)
    np.testing.assert_allclose(taus(x[:, ::-1]), expected, rtol=2e-4)
    np.testing.assert_allclose(taus(x * [[[7.0, 1, 1]]]), expected, rtol=2e-4)
    moved = x + np.where(x[..., :1] > 0, [[[0, 0.5, 3.0]]], 0)
    np.testing.assert_allclose(taus(moved.astype(np.float32)), expected, rtol=1e-3)


def test_padding_and_radius():
    x = jets(2, num_jets=1, padding=0)[0]
    padded = jnp.pad(x, ((0, 6), (0, 0)))
    a = jax.jit(n_subjettiness, static_argnums=1)(x, (2,))
    b = jax.jit(lambda x: n_subjettiness(x, (2, 3), 0.4))(padded)
    np.testing.assert_allclose(2 * a[0], b[0], rtol=1e-5)
    # A jet without particles has no structure, and no NaN.
    assert np.all(np.asarray(jax.jit(n_subjettiness, static_argnums=1)(0 * x, (1, 2))) == 0)


@pytest.mark.parametrize("eta", [0.0, 6.0, -9.0, 20.0])
def test_forward_jets_have_the_substructure_of_central_ones(taus, eta):
    """In single precision E - |pz| has no digits left from eta 6 on."""
    # Steps of 1/64 are exact in float32 wherever the jet lies.
    x = jets(3)
    x[..., 1:] = np.round(64 * x[..., 1:]) / 64
    expected = [[by_hand(jet.tolist(), n, 0.8) for n in (1, 2, 3)] for jet in x]
    moved = x + np.where(x[..., :1] > 0, [[[0, eta, 0]]], 0)
    np.testing.assert_allclose(taus(moved.astype(np.float32)), expected, rtol=1e-4)

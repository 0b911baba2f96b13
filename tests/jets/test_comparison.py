"""Distances against what jetnet 0.2.5 and energyflow 1.4.0 make of them."""

import jax
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.stats import wasserstein_distance

from jgen.jets import (
    DISTANCES,
    comparison,
    coverage_and_mmd,
    energy_movers_distance,
    jet_distances,
    jet_kinematics,
    jet_sample,
)

# (eta, phi, pT), and emds(jets, jets) of energyflow with its defaults.
JETS = [
    [[0.261, -0.465, 0.163], [0.189, -0.044, 0.102], [-0.141, -0.249, 0.068],
     [-0.253, -0.146, 0.055], [-0.125, -0.109, 0.002], [0.008, -0.063, 0.0]],
    [[-0.133, -0.149, 0.149], [0.07, -0.184, 0.031], [0.181, -0.092, 0.014], [0.019, 0.044, 0.004]],
    [[0.071, -0.252, 0.173], [-0.131, 0.303, 0.122], [-0.026, 0.269, 0.054], [0.157, 0.156, 0.032],
     [0.299, 0.053, 0.021]],
]  # fmt: skip
ENERGYFLOW = [[0, 0.22077683, 0.14714122], [0.22077683, 0, 0.2448334], [0.14714122, 0.2448334, 0]]


def test_movers_distances_are_those_of_energyflow():
    jets = [np.array(jet) for jet in JETS]
    found = [[energy_movers_distance(a, b) for b in jets] for a in jets]
    np.testing.assert_allclose(found, ENERGYFLOW, atol=1e-8)


def test_equal_weights_are_an_assignment():
    rng = np.random.default_rng(0)
    a, b = (np.column_stack([rng.uniform(-0.3, 0.3, (9, 2)), np.full(9, 0.1)]) for _ in range(2))
    angles = np.hypot(*np.moveaxis(a[:, None, :2] - b[None, :, :2], -1, 0))
    exact = 0.1 * angles[linear_sum_assignment(angles)].sum()
    assert energy_movers_distance(a, b) == pytest.approx(exact, rel=1e-6)


def toy_jets(num, width, seed):
    rng = np.random.default_rng(seed)
    n = rng.integers(2, 7, num)
    points = np.stack(
        [*rng.normal(0, width, (2, num, 6)), np.sort(rng.exponential(0.1, (num, 6)))[:, ::-1]], -1
    )
    points = np.where((np.arange(6) < n[:, None])[..., None], points, 0)
    return points.astype(np.float32), n


def test_distances_are_those_of_jetnet():
    (x, n), (y, m) = toy_jets(300, 0.1, 1), toy_jets(250, 0.12, 2)
    samples = jet_sample(x, n), jet_sample(y, m)
    found = jet_distances(*samples, jax.random.key(0), num_bootstrap=5, movers=(8, 2))
    assert tuple(found) == DISTANCES
    masses = [np.asarray(jax.vmap(jet_kinematics)(p))[:, 3] for p in (x, y)]
    assert found["W1-M"].value == pytest.approx(wasserstein_distance(*masses), rel=1e-5)
    # jetnet leaves out points whose features are all zero.
    points = [p[np.linalg.norm(p, axis=2) > 0] for p in (x, y)]
    exact = np.mean([wasserstein_distance(points[0][:, k], points[1][:, k]) for k in range(3)])
    assert found["W1-P"].value == pytest.approx(exact, rel=1e-5)
    assert found["multiplicity"].value == pytest.approx(wasserstein_distance(n, m), rel=1e-6)
    assert all(np.isfinite(e.error) for e in found.values())
    # Of the same jets nothing is left, but for the unbiased KPD, which scatters around zero. Its
    # error says nothing here: one toy jet sets the scale of a product of four angles.
    same = jet_distances(samples[0], samples[0], jax.random.key(1), num_bootstrap=2, movers=(5, 2))
    assert max(same[name].value for name in ("W1-M", "W1-P", "W1-EFP")) < 1e-12
    assert all(found[name].value > same[name].value for name in ("FPD", "KPD"))


def test_coverage_counts_true_jets_that_are_nearest():
    """Two kinds of jets; what was generated is all of one kind."""
    rng = np.random.default_rng(3)
    one = lambda eta: np.array([[eta, 0, 1.0]])
    true = np.stack([one(eta) for eta in (0.0, 1.0, 2.0, 3.0)])
    made = np.stack([one(0.1 + 0.01 * rng.random()) for _ in range(4)])
    coverage, mmd = coverage_and_mmd(true, made, jax.random.key(0), 4, 2)
    assert coverage.value == 0.25
    nearest = np.abs(true[:, 0, 0][:, None] - made[:, 0, 0][None]).min(axis=1)
    # What a jet has to give away costs no more than pT times one.
    assert mmd.value == pytest.approx(nearest.mean(), rel=0.02)
    with pytest.raises(ValueError, match="num_jets must be"):
        coverage_and_mmd(true, made, jax.random.key(0), 5, 2)


@pytest.mark.parametrize(("num", "batch"), [(24, 24), (24, 20), (200, 24)])
def test_errors_of_coverage_are_how_far_it_scatters(monkeypatch, num, batch):
    """Also of batches that share their jets, or are all there are."""
    # What one particle of pT one makes of another.
    angle = lambda a, b: float(np.hypot(*(a[0, :2] - b[0, :2])))
    monkeypatch.setattr(comparison, "energy_movers_distance", angle)
    rng, found = np.random.default_rng(5), []
    for i in range(60):
        jets = np.concatenate([rng.normal(size=(2, num, 1, 2)), np.ones((2, num, 1, 1))], -1)
        found.append(coverage_and_mmd(*jets, jax.random.key(i), batch, 2))
    values, errors = np.moveaxis(np.array(found), -1, 0)
    ratio = np.sqrt(np.mean(errors**2, axis=0)) / values.std(axis=0)
    np.testing.assert_array_less(0.8, ratio)
    np.testing.assert_array_less(ratio, 1.7)
    covered = np.mean(np.abs(values - values.mean(axis=0)) < errors, axis=0)
    np.testing.assert_array_less(0.58, covered)


def test_jets_that_cannot_be_are_refused():
    x, n = toy_jets(10, 0.1, 1)
    with pytest.raises(ValueError, match="pT not negative"):
        jet_sample(-x, n)
    with pytest.raises(ValueError, match="points \\[num, rows, 3\\]"):
        jet_sample(x[0], n)
    with pytest.raises(ValueError, match="10 of 10 jets have no finite mass"):
        jet_sample(x * [1e12, 1, 1], n)
    with pytest.raises(ValueError, match="10 events need as many whole numbers of points"):
        jet_sample(x, n[:4])
    for bad in (np.ones((2, 4)), -np.ones((2, 3))):  # four-momenta, and what looks like padding
        with pytest.raises(ValueError, match="a jet is points"):
            energy_movers_distance(x[0], bad)
    with pytest.raises(ValueError, match="need four jets or more of each kind, got 3"):
        coverage_and_mmd(x[:3], x, jax.random.key(0), 2, 2)
    with pytest.raises(ValueError, match="a jet is points"):
        coverage_and_mmd(x, -x, jax.random.key(0), 4, 2)

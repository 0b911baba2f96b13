"""Faults that single observables do not see, planted in showers whose truth is known."""

import numpy as np
import pytest
from scipy.stats import nhypergeom

from jgen.showers import Showers, get_geometry, read_showers, sample_path
from jgen.showers.evaluation import (
    Fingerprints,
    LayerMoments,
    alignments,
    azimuths,
    copies,
    deep_holes,
    fingerprints,
    hole_depths,
    holes,
    layer_moments,
    layer_residuals,
    structure,
)

GEOMETRY = get_geometry("ds2")


def points(seed, num=400):
    """Fingerprints of different showers of five normal features."""
    features = np.random.default_rng(seed).normal(size=(num, 5))
    return Fingerprints(features, np.array([f"{seed}/{i}" for i in range(num)]))


def joined(*parts):
    return Fingerprints(*(np.concatenate(a) for a in zip(*parts, strict=True)))


def test_true_showers_have_as_many_copies_as_others():
    found = copies(points(0), points(1), points(2), points(3))
    for name in ("copies/within", "copies/training"):
        assert all(value.value < 0.03 for value in found[name])
        assert min(found[f"{name}_p"]) > 0.01
        assert found[f"{name}_exact"].value.value == found[f"{name}_exact"].truth.value == 0
        assert found[f"{name}_exact_p"] == (1, 1)


@pytest.mark.parametrize("fraction", [0.05, 1.0])
def test_a_generator_that_returns_its_training_is_seen(fraction):
    training, num = points(3), round(400 * fraction)
    noise = np.random.default_rng(9).normal(size=(num, 5)) * 0.01
    noisy = Fingerprints(training.features[:num] + noise, points(4).digests[:num])
    for part, exact in ((training.rows(np.s_[:num]), fraction), (noisy, 0.0)):
        found = copies(points(0), points(1), joined(part, points(2, 400 - num)), training)
        assert fraction <= found["copies/training"].value.value < fraction + 0.02
        assert found["copies/training_p"].value < 1e-3 < found["copies/training_p"].truth
        assert found["copies/training_exact"].value.value == exact
        assert (found["copies/training_exact_p"].value < 1e-4) == (exact > 0)
        assert found["copies/within_p"].value > 0.01


def test_showers_that_are_returned_twice_are_seen():
    generated = joined(points(2, 380), points(2, 380).rows(np.s_[:20]))
    found = copies(points(0), points(1), generated)
    assert set(found) == {f"copies/within{e}{p}" for e in ("", "_exact") for p in ("", "_p")}
    assert found["copies/within_exact"].value.value == 20 / 400
    # Both showers of a pair are near another one.
    assert found["copies/within"].value.value >= 40 / 400
    assert found["copies/within_p"].value < 1e-4 < found["copies/within_p"].truth


def test_a_reference_that_was_trained_on_is_refused():
    with pytest.raises(ValueError, match="400 of 400 reference showers are training showers"):
        copies(points(0), points(1), points(2), joined(points(3), points(0)))


def test_p_values_of_near_training_showers_are_those_of_the_exact_law():
    """Uniform below it for truth: here the law itself, for 200 distances and the first of them."""
    law = nhypergeom(600, 400, 1)
    assert law.sf(-1) == 1
    # The first of three is a generated one in two of three orders.
    assert law.sf(0) == pytest.approx(400 / 600)
    p = [
        copies(points(i), points(i + 100), points(i + 200), points(999))["copies/training_p"].value
        for i in range(40)
    ]
    assert 0.3 < np.mean(p) < 0.8
    assert min(p) > 1e-3


def test_quoted_errors_of_near_fractions_cover_truth():
    found = [
        copies(points(i, 1200), points(i + 100, 1200), points(i + 200, 1200), points(999, 1200))
        for i in range(40)
    ]
    for name in ("copies/within", "copies/training"):
        value, error = np.array([f[name].value for f in found]).T
        assert np.std(value) / np.mean(error) == pytest.approx(1, abs=0.35)
        # 60 to 76 % for many counts; here there are six, so that the law is wide.
        assert 0.5 < np.mean(np.abs(value - value.mean()) < error) < 0.9


def test_empty_showers_are_no_copies():
    showers = Showers(np.full(3, 1e3), np.zeros((3, GEOMETRY.num_voxels), np.float32))
    showers.voxels[2, 5] = 1.0
    known = fingerprints(GEOMETRY, showers, np.zeros((3, 1)))
    assert list(known.digests[:2]) == [0, 0]
    assert known.digests[2]


def test_moments_are_those_of_the_voxels_above_the_threshold():
    voxels = np.zeros((2, *GEOMETRY.shape))
    voxels[0, 3, 0, 1], voxels[0, 3, 8, 2], voxels[0, 4, 5, 0] = 2.0, 5.0, 1e-3
    found = layer_moments(GEOMETRY, Showers(np.full(2, 1e3), voxels.reshape(2, -1)))
    angle = -np.pi + np.pi / 16
    assert found.layers[0, 3] == 7
    assert found.moments[0, 3] == pytest.approx(-3 * np.exp(1j * angle))
    assert not found.layers[0, 4]
    assert not found.layers[1].any()


def showers(seed, num=500, turned=0.0, dropped=0.0, offset=0.0, correlation=0.0):
    """Moments of 12 layers around one angle a shower."""
    rng = np.random.default_rng(seed)
    common = rng.uniform(-np.pi, np.pi, size=(num, 1))
    angle = common + 0.3 * rng.normal(size=(num, 12))
    angle += turned * rng.uniform(-np.pi, np.pi, size=angle.shape)
    energies = np.exp(rng.uniform(7, 10, size=num))
    shared = rng.normal(size=(num, 1))
    noise = correlation**0.5 * shared + (1 - correlation) ** 0.5 * rng.normal(size=(num, 12))
    layers = energies[:, None] / 12 * np.exp(0.1 * noise)
    layers[rng.random(num) < 0.02 + dropped, 5] = 0
    moments = 0.2 * layers * (np.exp(1j * angle) + offset)
    return LayerMoments(energies, layers, moments)


FAULTS = {
    "alignment": {"turned": 1.0},
    "holes": {"dropped": 0.06},
    "rayleigh": {"offset": 0.4},
    "correlation": {"correlation": 0.2},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_seen_by_its_number_and_by_no_other(fault):
    found = structure(showers(0), showers(1), showers(2, **FAULTS[fault]))
    for name in FAULTS:
        p = found[f"structure/{name}_p"]
        assert p.truth > 0.01, name
        if name == fault:
            assert p.value < 0.01 + 1e-9
        elif {name, fault} != {"alignment", "rayleigh"}:
            assert p.value > 0.005, name


def test_the_numbers_of_a_shower_are_exact():
    layers = np.array([[1.0, 0, 1, 1], [1, 1, 1, 0], [1, 0, 0, 1], [1, 0, 1e-3, 1], [0, 0, 0, 0]])
    quarter = np.array([1, 1j, -1, -1j])
    some = LayerMoments(np.ones(5), layers, layers * quarter)
    assert list(holes(some)) == [True, False, False, False, False]
    # Showers without neighbouring layers that have an angle are left out.
    assert alignments(some) == pytest.approx([0, 0, 0])
    assert alignments(some._replace(moments=layers + 0j)) == pytest.approx([1, 1, 1])
    assert len(azimuths(some)) == 4
    assert azimuths(some)[1] == pytest.approx(1j)
    same = LayerMoments(np.ones(9), np.ones((9, 4)), np.ones((9, 4)) + 0j)
    found = structure(same, same, same, num_bootstrap=10)
    assert found["structure/rayleigh"].value.value == 9
    assert found["structure/alignment"].value.value == 1
    assert found["structure/correlation_p"] == (1, 1)


def with_depths(depths):
    """Showers of three layers, the second of them empty."""
    layers = np.stack([depths, 0 * depths, 2 * depths], axis=1)
    return LayerMoments(np.ones(len(depths)), layers, layers + 0j)


def test_deep_holes_have_the_law_of_order_statistics():
    layers = np.array([[3.0, 0, 2, 0, 5], [3, 0, 0, 1, 1], [3, 1, 1, 1, 1], [0, 0, 4, 0, 1]])
    some = LayerMoments(np.ones(4), layers, layers + 0j)
    np.testing.assert_array_equal(hole_depths(some), [2, 0, 0, 1])
    rng, counts, p = np.random.default_rng(0), [], []
    for _ in range(300):
        found, chance = deep_holes(*(with_depths(d) for d in rng.exponential(size=(2, 300))))
        counts.append(round(300 * found.value))
        p.append(chance)
    # As many as before the third of the reference come, in a random order of 300 and 300.
    law = nhypergeom(600, 300, 3)
    assert np.mean(counts) == pytest.approx(law.mean(), abs=4 * law.std() / 300**0.5)
    for count in (0, 3, 8):
        assert p[counts.index(count)] == pytest.approx(law.sf(count - 1))
    for level in (0.05, 0.3):
        assert np.mean(np.array(p) <= level) < level + 3 * (level / 300) ** 0.5
    # Without a hole in either there is nothing to see.
    full = with_depths(np.zeros(300))
    assert structure(full, full, full, num_bootstrap=1)["structure/deep_holes_p"] == (1, 1)


def test_a_layer_dropped_in_three_per_cent_of_a_thousand_showers_is_seen():
    pool = layer_moments(GEOMETRY, read_showers(sample_path(), GEOMETRY))
    rng, seen, false = np.random.default_rng(1), 0, 0
    for _ in range(40):
        reference, made, holdout = np.split(rng.permutation(3200)[:3000], 3)
        layers = pool.layers.copy()
        for row in made[:30]:
            layers[row, rng.choice(np.flatnonzero(layers[row]))] = 0
        faulty = pool._replace(layers=layers)
        seen += deep_holes(pool.rows(reference), faulty.rows(made))[1] < 0.05
        false += deep_holes(pool.rows(reference), pool.rows(holdout))[1] < 0.05
    assert seen >= 38
    assert false <= 5


def test_residuals_do_not_know_the_incident_energy():
    sample = showers(0)
    residuals = layer_residuals(sample)
    np.testing.assert_allclose(residuals.std(axis=0), 1)
    assert np.abs(np.log(sample.energies) @ residuals).max() < 1e-6 * len(residuals)


def test_quoted_errors_of_the_structure_cover_truth():
    found = [structure(showers(3 * i), showers(3 * i + 1), showers(3 * i + 2)) for i in range(60)]
    for name, low, high in (
        ("alignment", 0.5, 0.82),
        ("holes", 0.5, 0.82),
        ("deep_holes", 0.5, 0.85),
        ("correlation", 0.5, 0.85),
        ("rayleigh", 0.75, 0.98),
    ):
        value, error = np.array([f[f"structure/{name}"].value for f in found]).T
        assert low < np.mean(np.abs(value - value.mean()) < error) < high, name

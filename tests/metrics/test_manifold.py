import numpy as np
import pytest
from scipy.spatial.distance import cdist

from jgen.metrics import expected_coverage, precision_recall_density_coverage
from jgen.metrics.frechet import scaled_features


def brute_force(reference, generated, k):
    """The definitions, one event at a time."""
    x, y = scaled_features(reference, generated)
    radius = lambda a, sample: np.sort(np.linalg.norm(sample - a, axis=1))[k]
    x_radii, y_radii = ([radius(a, sample) for a in sample] for sample in (x, y))
    d = cdist(x, y)
    n, m = d.shape
    precision = np.mean([any(d[i, j] < x_radii[i] for i in range(n)) for j in range(m)])
    recall = np.mean([any(d[i, j] < y_radii[j] for j in range(m)) for i in range(n)])
    density = sum(d[i, j] < x_radii[i] for i in range(n) for j in range(m)) / (k * m)
    coverage = np.mean([min(d[i]) < x_radii[i] for i in range(n)])
    return precision, recall, density, coverage


@pytest.mark.parametrize("k", [1, 3])
def test_agrees_with_the_definitions(k, monkeypatch):
    rng = np.random.default_rng(k)
    x, y = rng.normal(size=(40, 3)) * [1, 10, 0], rng.normal(0.4, size=(55, 3)) * [0.7, 10, 0]
    expected = brute_force(x, y, k)
    assert len(set(expected)) == 4
    assert precision_recall_density_coverage(x, y, k=k) == pytest.approx(expected)
    # Few rows at a time, with a shorter last block.
    monkeypatch.setattr("jgen.metrics.manifold._CHUNK", 55 * 7)
    assert precision_recall_density_coverage(x, y, k=k) == pytest.approx(expected)


def test_far_samples_do_not_overlap():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 4))
    assert precision_recall_density_coverage(x, x + 100) == (0, 0, 0, 0)


def test_identical_samples_overlap_exactly():
    # Far from the origin: distances are differences of large squares.
    rng = np.random.default_rng(1)
    x = rng.normal(100.0, size=(301, 362))
    # Every event is in the balls of as many others as have it among their k-1 nearest, and its own.
    # The same distance is rounded in one product of matrices otherwise than in another.
    for y in (x, rng.permutation(x)):
        assert precision_recall_density_coverage(x, y) == pytest.approx((1, 1, 1, 1), abs=1e-12)


def test_a_lost_mode_lowers_recall_and_an_invented_one_precision():
    rng = np.random.default_rng(2)
    one, other = rng.normal(size=(2, 200, 2)), rng.normal(50.0, size=(2, 200, 2))
    both = np.concatenate([one[0], other[0]])
    lost = precision_recall_density_coverage(both, one[1])
    assert lost.precision > 0.9
    assert 0.4 < lost.recall <= 0.5
    assert 0.4 < lost.coverage <= 0.5
    invented = precision_recall_density_coverage(one[1], both)
    assert 0.4 < invented.precision <= 0.5
    assert invented.recall > 0.9
    assert invented.density < 0.7


def test_truth_against_truth_has_the_expected_density_and_coverage():
    rng = np.random.default_rng(3)
    found = [
        # One feature, because its scale, which depends on the reference only, changes no order.
        precision_recall_density_coverage(rng.normal(size=(30, 1)), rng.normal(size=(50, 1)), k=3)
        for _ in range(1500)
    ]
    error = np.std(found, axis=0) / np.sqrt(len(found))
    _, _, density, coverage = np.mean(found, axis=0)
    assert density == pytest.approx(1, abs=3.5 * error[2])
    assert coverage == pytest.approx(expected_coverage(30, 50, 3), abs=3.5 * error[3])
    assert error.max() < 0.01
    # Of 3 other events, 2 of them generated, the nearest is a reference one in a third of cases.
    assert expected_coverage(2, 2, 1) == pytest.approx(2 / 3)
    assert expected_coverage(10**6, 10**6, 5) == pytest.approx(1 - 2**-5, abs=1e-5)


def test_bad_input_is_refused():
    x = np.random.default_rng(4).normal(size=(6, 2))
    with pytest.raises(ValueError, match="neighbour number 6 needs .* 7 events"):
        precision_recall_density_coverage(x, x, k=6)
    with pytest.raises(ValueError, match="neighbour number 0"):
        precision_recall_density_coverage(x, x, k=0)
    with pytest.raises(ValueError, match="columns"):
        precision_recall_density_coverage(x, x[:, :1])

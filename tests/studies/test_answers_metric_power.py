"""Planted faults are what they are called."""

import numpy as np
import pytest

from experiments import study
from experiments.showers import metric_power
from experiments.showers.metric_power import Config, displaced, dropped, plant, turned


@pytest.fixture(scope="module")
def voxels():
    rng = np.random.default_rng(0)
    return rng.gamma(0.3, size=(20, 5, 8, 3)) * (rng.random((20, 5, 1, 1)) < 0.8)


def test_turned_layers_hold_the_same_energies(voxels):
    found = turned(voxels, np.random.default_rng(1))
    np.testing.assert_allclose(found.sum(axis=2), voxels.sum(axis=2))
    shifts = [
        next(k for k in range(8) if np.array_equal(np.roll(a, k, axis=0), b))
        for a, b in zip(voxels[0], found[0], strict=True)
    ]
    assert len(set(shifts)) > 1


def test_one_layer_with_energy_is_dropped(voxels):
    found = dropped(voxels, np.random.default_rng(1))
    filled = lambda v: np.sum(v.sum(axis=(2, 3)) > 0, axis=1)
    np.testing.assert_array_equal(filled(found), filled(voxels) - 1)


def test_a_displaced_beam_spot_keeps_the_energy_of_rings(voxels):
    found = displaced(voxels, 0.5)
    np.testing.assert_allclose(found.sum(axis=2), voxels.sum(axis=2))
    angles = -np.pi + np.pi / 8 * (1 + 2 * np.arange(8))
    offset = lambda v: np.sum(v * np.cos(angles)[:, None])
    assert offset(found) > offset(voxels) + 0.1 * voxels.sum()
    np.testing.assert_allclose(displaced(voxels, 0.0), voxels)


def test_as_many_showers_are_returned_as_said():
    pool = {"none": np.arange(100), "layers turned": 1000 + np.arange(100)}
    made = lambda fault, size, num=10: plant(
        pool, fault, size, np.arange(20), np.arange(90, 90 + num), np.random.default_rng(0)
    )
    assert np.sum(made("training returned", 0.1) >= 90) == 2
    assert sorted(made("training returned", 0.5)[:10]) == list(range(90, 100))
    assert np.all(made("training returned", 1.0) >= 90)
    assert len(np.unique(made("duplicates", 0.1))) == 18
    assert np.sum(made("layers turned", 0.3) >= 1000) == 6
    np.testing.assert_array_equal(made("none", 0.0), np.arange(20))


def test_sizes_that_the_showers_do_not_reach_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="need 10500 showers.*there are 3200, so take sizes up to"):
        study.run(metric_power.STUDY, ["--sizes", "5000", "--out", tmp_path / "a"])
    assert not (tmp_path / "a").exists()
    with pytest.raises(ValueError, match="sizes must be 20 showers or more"):
        metric_power.check(Config(sizes=(10,)))

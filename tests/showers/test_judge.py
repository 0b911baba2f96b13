"""Short judgements of showers, on showers that are known multiples of each other."""

import warnings

import numpy as np
import pytest
import scipy.stats

from jgen.showers import (
    Showers,
    get_geometry,
    layer_distances,
    observable_distances,
    read_showers,
    sample_path,
)

GEOMETRY = get_geometry("ds2")


def test_distances_of_scaled_showers():
    """Twice the energy is a distance of the mean energy, and log10(2) between voxels."""
    showers = read_showers(sample_path(), GEOMETRY, 0, 120)
    # Without voxels below the threshold, which twice the energy would take above it.
    kept = np.where(showers.voxels > GEOMETRY.threshold, showers.voxels, 0)
    once = Showers(showers.energies, kept)
    estimates = observable_distances(
        GEOMETRY, once, once._replace(voxels=2 * kept), num_bootstrap=2
    )
    found = {name: estimate.value for name, estimate in estimates.items()}
    assert all(estimate.error > 0 for estimate in estimates.values())
    np.testing.assert_allclose(found["E_voxel"], np.log10(2), rtol=1e-5)
    ratio = kept.sum(axis=1) / showers.energies
    expected = scipy.stats.wasserstein_distance(ratio, 2 * ratio)
    np.testing.assert_allclose(found["E_tot"], expected, rtol=1e-5)
    np.testing.assert_allclose([found["EC_eta"], found["depth"], found["sparsity"]], 0, atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = observable_distances(
            GEOMETRY, once, once._replace(voxels=2 * kept), num_bootstrap=0
        )
    assert {name: estimate.value for name, estimate in plain.items()} == found
    assert all(np.isnan(estimate.error) for estimate in plain.values())


def test_distances_of_layers_by_hand():
    layers = np.random.default_rng(0).exponential(100, size=(50, 45))
    assert layer_distances(GEOMETRY, layers, layers) == {"separation": 0, "wasserstein": 0}
    found = layer_distances(GEOMETRY, layers, layers + 7)
    assert found["wasserstein"] == pytest.approx(7)
    assert found["separation"] > 0

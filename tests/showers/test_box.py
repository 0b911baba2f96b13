"""The box of merged cells: sums by hand, inverses, totals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.showers import get_geometry
from jgen.showers.box import compressed, cut_and_scaled, decompressed, merged_cells

DS2 = get_geometry("ds2")


def test_cells_are_sums_of_neighbouring_voxels():
    voxels = np.random.default_rng(0).random((3, 6480))
    cells = merged_cells(voxels, DS2, 3, 2)
    assert cells.shape == (3, 15, 8, 9)
    grid = voxels.reshape(3, 45, 16, 9)
    np.testing.assert_allclose(cells[1, 4, 2, 7], grid[1, 12:15, 4:6, 7].sum(), rtol=1e-12)
    np.testing.assert_allclose(cells[2, 14, 7, 0], grid[2, 42:, 14:, 0].sum(), rtol=1e-12)
    np.testing.assert_allclose(cells.sum(axis=(1, 2, 3)), voxels.sum(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(merged_cells(voxels, DS2, 1, 1), grid)


def test_compressed_energies_come_back_and_zero_stays_zero():
    energies = np.array([0.0, 0.015, 1.0, 1200.0], np.float32)
    x = compressed(energies, 0.1)
    np.testing.assert_allclose(x[3], np.log(1 + 12000), rtol=1e-6)
    assert x[0] == 0
    np.testing.assert_allclose(decompressed(x, 0.1), energies, rtol=1e-5)
    assert decompressed(jnp.float32(-0.3), 0.1) == 0


def test_showers_have_their_total_and_no_cell_below_the_threshold():
    energies = np.random.default_rng(0).exponential(size=(20, 30)).astype(np.float32) ** 3
    total = np.linspace(1, 20, 20, dtype=np.float32)
    found = np.asarray(jax.vmap(lambda e, t: cut_and_scaled(e, t, 0.05))(energies, total))
    np.testing.assert_allclose(found.sum(axis=1), total, rtol=1e-5)
    assert found[found > 0].min() >= 0.05
    assert 0.1 < (found > 0).mean() < 0.9
    # Ratios of cells that survive stay.
    kept = found[3] > 0
    np.testing.assert_allclose(
        found[3][kept] / found[3][kept][0], energies[3][kept] / energies[3][kept][0], rtol=1e-5
    )
    np.testing.assert_array_equal(cut_and_scaled(jnp.zeros(4), jnp.float32(3.0), 0.05), 0)


def test_what_does_not_divide_is_refused():
    voxels = np.zeros((2, 6480))
    with pytest.raises(ValueError, match="4 layers and 2 angles do not divide the 45"):
        merged_cells(voxels, DS2, 4, 2)
    with pytest.raises(ValueError, match="ds2 has 6480 voxels a shower"):
        merged_cells(voxels[:, :100], DS2, 3, 2)

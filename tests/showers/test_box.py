"""The box of square cells: conserved energies, points in their sectors, shares of areas; totals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.metrics import mean_poisson_deviance

from jgen.showers import get_geometry
from jgen.showers.box import (
    box_observables,
    cartesian_cells,
    compressed,
    cut_and_scaled,
    decompressed,
    points_in_sectors,
    poisson_deviance,
    ring_means,
    turned,
)

DS2 = get_geometry("ds2")


def in_box(voxels, layers=3, side=10, seed=0):
    return cartesian_cells(voxels, DS2, np.random.default_rng(seed), layers=layers, side=side)


def sparse_voxels(num):
    rng = np.random.default_rng(1)
    return rng.exponential(size=(num, 6480)) * (rng.random((num, 6480)) < 0.05)


def test_merged_layers_keep_their_energy():
    voxels = sparse_voxels(20)
    cells = in_box(voxels)
    assert cells.shape == (20, 15, 10, 10)
    expected = voxels.reshape(20, 15, -1).sum(axis=2)
    np.testing.assert_allclose(cells.sum(axis=(2, 3)), expected, rtol=1e-12)
    np.testing.assert_array_equal(cells, in_box(voxels))
    assert np.any(cells != in_box(voxels, seed=1))
    assert in_box(np.float32(voxels)).dtype == np.float32


def test_a_voxel_goes_to_one_cell_whole():
    """Powers of two: which voxels a cell holds is read off its sum."""
    voxels = np.zeros((1, 6480))
    where = np.random.default_rng(2).choice(432, 20, replace=False) + 3 * 432
    voxels[0, where] = 2.0 ** np.arange(20)
    cells = in_box(voxels)[0]
    assert np.all(cells[[0, 1, 2, *range(4, 15)]] == 0)
    held = cells[3][cells[3] > 0].astype(int)
    assert np.bitwise_or.reduce(held) == held.sum() == 2**20 - 1


def test_points_are_uniform_in_the_area_of_their_sector():
    alpha, r = np.repeat([0, 5, 15, 9], 5000), np.repeat([0, 3, 8, 1], 5000)
    x, y = points_in_sectors(DS2, np.random.default_rng(3), alpha, r)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    # In ring k the square of the radius is uniform from k^2 to (k + 1)^2 in units of 4.65 mm.
    square = ((radius / 4.65) ** 2 - r**2) / (2 * r + 1)
    share = (angle + np.pi) / (np.pi / 8) - alpha
    for part in np.split(np.arange(20_000), 4):
        for values in (square[part], share[part]):
            assert kstest(values, "uniform").pvalue > 1e-3
    # Corners of the square are never reached, its sides are.
    assert radius.max() < 41.85


def test_cells_get_energies_by_their_shares_of_the_sector():
    """Against areas counted on a fine grid of points; row is y, column is x."""
    r, alpha = 4, 9
    voxels = np.zeros((450, 45, 16, 9))
    voxels[:, :, alpha, r] = 1  # 20,250 voxels
    found = in_box(voxels.reshape(450, -1)).sum(axis=(0, 1)) / voxels.sum()
    line = (np.arange(2000) + 0.5) / 2000 * 2 * 41.85 - 41.85
    x, y = np.meshgrid(line, line)
    radius, angle = np.hypot(x, y) / 4.65, (np.arctan2(y, x) + np.pi) / (np.pi / 8)
    inside = (radius >= r) & (radius < r + 1) & (angle >= alpha) & (angle < alpha + 1)
    expected = inside.reshape(10, 200, 10, 200).sum(axis=(1, 3)) / inside.sum()
    assert (expected > 0).sum() >= 3
    # The errors are binomial, that of the grid is far smaller.
    error = np.sqrt(expected * (1 - expected) / voxels.sum())
    assert np.all(np.abs(found - expected) <= 4.5 * error + 1e-4)


def test_one_cell_a_layer_is_a_longitudinal_profile():
    voxels = sparse_voxels(3)
    found = in_box(voxels, layers=1, side=1)
    np.testing.assert_allclose(found[..., 0, 0], voxels.reshape(3, 45, 144).sum(axis=2), rtol=1e-12)


def test_compressed_energies_come_back_and_zero_stays_zero():
    energies = np.array([0.0, 0.015, 1.0, 1200.0], np.float32)
    x = compressed(energies, 0.1)
    np.testing.assert_allclose(x[3], np.log(1 + 12000), rtol=1e-6)
    assert x[0] == 0
    np.testing.assert_allclose(decompressed(x, 0.1), energies, rtol=1e-5)
    assert decompressed(jnp.float32(-0.3), 0.1) == 0


def test_deviance_is_scikit_learns_and_is_least_for_the_mean():
    rng = np.random.default_rng(4)
    energies = rng.poisson(0.5, (500, 6)) * rng.exponential(8.0, (500, 6))
    means = rng.uniform(1.0, 20.0, (500, 6))
    values = [compressed(np.float32(e), 10.0) for e in (energies, means)]
    expected = mean_poisson_deviance(energies.ravel() / 10, means.ravel() / 10) * 3000
    np.testing.assert_allclose(poisson_deviance(*values), expected, rtol=1e-5)
    # Where nothing is expected and nothing there, the deviance is zero and its slope finite.
    slope = jax.value_and_grad(poisson_deviance, argnums=1)
    value, gradient = slope(jnp.zeros(3), jnp.zeros(3))
    assert abs(value) < 1e-6
    np.testing.assert_allclose(gradient, 2.0, rtol=1e-5)
    best = compressed(np.float32(energies.mean(axis=0)), 10.0)
    total = lambda y: jnp.mean(jax.vmap(poisson_deviance, (0, None))(values[0], y))
    np.testing.assert_allclose(jax.grad(total)(best), 0, atol=1e-5)


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


def test_bad_input_is_refused():
    voxels = np.zeros((2, 6480))
    with pytest.raises(ValueError, match="4 layers do not divide the 45"):
        in_box(voxels, layers=4)
    with pytest.raises(ValueError, match="0 layers do not divide the 45"):
        in_box(voxels, layers=0)
    with pytest.raises(ValueError, match="at least one cell, got side 0"):
        in_box(voxels, side=0)
    with pytest.raises(ValueError, match="ds2 has 6480 voxels a shower"):
        in_box(voxels[:, :100])
    ds1 = get_geometry("ds1-photons")
    with pytest.raises(ValueError, match="not a regular grid"):
        cartesian_cells(np.zeros((1, 368)), ds1, np.random.default_rng(0), layers=1, side=2)


def test_turned_showers_are_shifts_and_reflections_of_the_angle():
    """Every one of the 32 comes up, and keeps which angles are neighbours."""
    alphas = np.broadcast_to(np.arange(16.0)[:, None], (45, 16, 9)).ravel()
    made = turned(np.tile(alphas, (1000, 1)), DS2, np.random.default_rng(0))
    angles = made.reshape(1000, 45, 16, 9)
    np.testing.assert_array_equal(angles, angles[:, :1, :, :1] * np.ones((1, 45, 1, 9)))
    orders = {tuple(row) for row in angles[:, 0, :, 0].astype(int)}
    shifts = [np.roll(np.arange(16), i) for i in range(16)]
    assert orders == {tuple(row[::step]) for row in shifts for step in (1, -1)}


def test_observables_of_one_cell_and_of_two_are_known():
    """All energy in one cell, and half of it four layers deeper and one cell further out."""
    cells = np.zeros((2, 15, 10, 10), np.float32)
    cells[:, 3, 5, 5] = 500
    cells[1, 7, 5, 6] = 500
    half_width = 41.85
    made = box_observables(np.array([1000.0, 1000.0]), cells, half_width)
    half = 0.5 * 8.37
    radii = [half * 2**0.5, half * (2**0.5 + 10**0.5) / 2]
    expected = {
        "response": [0.5, 1], "num_hits": [1, 2], "depth": [3, 5], "length": [0, 2],
        "radius": radii, "hottest_cell": [0.5, 0.5],
    }  # fmt: skip
    assert made.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(made[name], values, rtol=1e-6)
    rings, edges = ring_means(cells, half_width)
    np.testing.assert_allclose(edges, 8.37 * np.arange(6))
    # Four cells are in the innermost ring, eight in the next one.
    np.testing.assert_allclose(rings[1, [3, 7], 0, :3], [[125, 0, 0], [0, 62.5, 0]])

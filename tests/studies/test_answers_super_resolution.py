"""The study of super-resolution: what its networks see, what it compares, and conservation."""

import numpy as np
import pytest

from experiments.showers import super_resolution as study
from experiments.study import variant
from jgen.showers import get_geometry
from jgen.showers.super_resolution import stick_breaking


def test_cells_see_their_neighbours_around_the_circle():
    coarse = np.zeros((15, 4, 3), np.float32)
    coarse[7, 0, 1] = study.THRESHOLD * (np.e - 1)
    seen = np.asarray(study.neighbourhood(coarse, "showers"))
    assert seen.shape == (15, 4, 3, 30)
    # The cell itself in the middle of 27, and seen from all of the 27 cells around it.
    assert seen[7, 0, 1, 13] == pytest.approx(1)
    assert (seen[..., :27] > 0).sum() == 27
    # The last angle is the neighbour of the first, the last radius is not.
    assert seen[7, 3, 1, 16] == pytest.approx(1)
    moved = np.asarray(study.neighbourhood(np.roll(coarse, 1, axis=2), "showers"))
    assert (moved[..., :27] > 0).sum() == 18
    np.testing.assert_allclose(seen[7, 0, 1, 27:], [0, -1, 0], atol=1e-6)
    assert study.neighbourhood(np.ones((4, 4), np.float32), "digits").shape == (4, 4, 11)


def test_observables_of_one_voxel():
    fine = np.zeros((1, *study.GRID), np.float32)
    fine[0, 3, 4, 2] = 30
    fine[0, 3, 4, 1] = 10
    found = study.observables(fine)
    np.testing.assert_array_equal(found["voxel"], [10, 30])
    np.testing.assert_array_equal(found["hits"], [2])
    np.testing.assert_allclose(found["largest"], [0.75])
    radii = get_geometry("ds2").layers[0].r_edges
    expected = 0.25 * (radii[1] + radii[2]) / 2 + 0.75 * (radii[2] + radii[3]) / 2
    np.testing.assert_allclose(found["radius"], [expected], rtol=1e-6)


def test_cells_to_train_on_have_the_shares_of_their_voxels():
    fine = np.zeros((1, *study.GRID), np.float32)
    fine[0, 3, 4, 2], fine[0, 4, 4, 2] = 30, 10
    batch = study.cells_with_energy(fine, "showers", np.random.default_rng(0))
    assert batch.x.shape == (1, 35)
    shares = np.asarray(stick_breaking(batch.x)[0])[0]
    # Layer, angle, radius: one cell has both.
    assert np.argsort(shares)[-1] == 2
    assert shares[2] == pytest.approx(0.75, rel=0.05)
    assert shares[14] == pytest.approx(0.25, rel=0.05)
    assert 0 < np.delete(shares, [2, 14]).max() * 40 < study.SMALL


def test_more_showers_than_there_are_are_refused():
    with pytest.raises(ValueError, match="must be at most 3200, the bundled showers, got 3000"):
        study.check(variant(study.SMOKE, num_train=3000, num_test=200))


@pytest.mark.study
def test_what_is_drawn_adds_up_to_the_coarse_cells(smoke):
    """To rounding, even of a network that is hardly trained; empty cells stay empty."""
    drawn = np.load(smoke("super_resolution") / "drawn.npz")
    config = study.SMOKE
    cells = study.coarse(study.showers(config)["test"])
    for sampler in study.SAMPLERS:
        fine = drawn[sampler]
        assert (fine >= 0).all()
        again = study.coarse(fine)
        np.testing.assert_allclose(again, cells, rtol=2e-6)
    made = drawn["flow"]
    # Voxels below the threshold are left only where all of a cell are.
    parts = made.reshape(len(made), 15, 3, 4, 4, 3, 3).max(axis=(2, 4, 6))
    low = ((made > 0) & (made < study.SMALL)).reshape(len(made), 15, 3, 4, 4, 3, 3)
    assert not (low.any(axis=(2, 4, 6)) & (parts > study.SMALL)).any()

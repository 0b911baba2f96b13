import numpy as np
import pytest

from jgen.showers.data.geometry import GEOMETRIES, Geometry, Layer, get_geometry


@pytest.mark.parametrize(
    ("name", "num_voxels", "num_layers", "per_layer"),
    [
        ("ds1-photons", 368, 5, [8, 160, 190, 5, 5]),
        ("ds1-pions", 533, 7, [8, 100, 100, 5, 150, 160, 10]),
        ("ds2", 6480, 45, [144] * 45),
        ("ds3", 40500, 45, [900] * 45),
    ],
)
def test_published_sizes(name, num_voxels, num_layers, per_layer):
    g = get_geometry(name)
    assert (g.num_voxels, g.num_layers) == (num_voxels, num_layers)
    assert [s.stop - s.start for s in g.layer_slices] == per_layer
    assert g.layer_slices[0].start == 0
    assert g.layer_slices[-1].stop == num_voxels
    assert all(a.stop == b.start for a, b in zip(g.layer_slices, g.layer_slices[1:], strict=False))


def test_regular_grids_have_a_shape():
    assert get_geometry("ds2").shape == (45, 16, 9)
    assert get_geometry("ds3").shape == (45, 50, 18)
    assert (
        get_geometry("ds2").layers[0].r_edges[-1]
        == get_geometry("ds3").layers[0].r_edges[-1]
        == 41.85
    )
    assert get_geometry("ds2").threshold == 15.15e-3
    for name in ("ds1-photons", "ds1-pions"):
        with pytest.raises(ValueError, match="not a regular grid"):
            _ = get_geometry(name).shape


def test_layer_ids():
    assert get_geometry("ds1-photons").layer_ids == (0, 1, 2, 3, 12)
    assert get_geometry("ds1-photons").alpha_layer_ids == (1, 2)
    assert get_geometry("ds1-pions").layer_ids == (0, 1, 2, 3, 12, 13, 14)
    assert get_geometry("ds1-pions").alpha_layer_ids == (1, 2, 12, 13)
    assert get_geometry("ds2").alpha_layer_ids == tuple(range(45))


def test_voxel_centres_of_a_hand_made_layer():
    # Four angles: centres at -135, -45, 45, 135 degrees; radii 1 and 4 mm, r fastest.
    g = Geometry("toy", (Layer(7, (0.0, 2.0, 6.0), 4),), 0.0, 1.0)
    h = np.sqrt(0.5)
    np.testing.assert_allclose(g.r, [1, 4] * 4)
    np.testing.assert_allclose(g.eta, [-h, -4 * h, h, 4 * h, h, 4 * h, -h, -4 * h], rtol=1e-14)
    np.testing.assert_allclose(g.phi, [-h, -4 * h, -h, -4 * h, h, 4 * h, h, 4 * h], rtol=1e-14)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_centres_lie_in_their_voxel(name):
    g = get_geometry(name)
    index = 0
    for layer in g.layers:
        for a in range(layer.num_alpha):
            for r in range(layer.num_r):
                alpha = np.arctan2(g.phi[index], g.eta[index])
                step = 2 * np.pi / layer.num_alpha
                assert -np.pi + a * step < alpha < -np.pi + (a + 1) * step or layer.num_alpha == 1
                assert layer.r_edges[r] < g.r[index] < layer.r_edges[r + 1]
                index += 1
    assert index == g.num_voxels == len(g.r)


def test_centres_cannot_be_overwritten():
    with pytest.raises(ValueError, match="read-only"):
        get_geometry("ds2").r[0] = 1.0


def test_unknown_geometry_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown geometry 'ds4'.*ds1-photons.*ds3"):
        get_geometry("ds4")

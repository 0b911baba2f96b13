import numpy as np
import pytest

from jgen.plotting import jet_images, save


def test_images_share_a_scale_and_empty_cells_are_empty(tmp_path):
    image = np.array([[0.0, 1e-3, 0.2], [0.0, 0.4, 0.1]]).repeat(2, axis=0)[:3]
    edges = np.linspace(-0.3, 0.3, 4)
    figure = jet_images({"gluon": {"truth": image, "A": 2 * image}, "top": {"truth": image,
                         "A": image}}, edges)  # fmt: skip
    axes = figure.axes[:4]
    meshes = [one.collections[0] for one in axes]
    assert {mesh.norm.vmax for mesh in meshes} == {0.8}
    shown = meshes[0].get_array()
    # eta goes across, phi up; what holds nothing has no colour.
    assert shown.mask.sum() == 3
    assert shown[2, 0] == 0.2
    assert [one.get_title() for one in axes] == ["truth", "A", "", ""]
    save(figure, tmp_path / "images")
    with pytest.raises(ValueError, match="nothing to draw"):
        jet_images({}, edges)

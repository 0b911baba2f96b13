import numpy as np
import pytest

from jgen.estimate import Estimate
from jgen.plotting import Curve, Images, Line, Plane, quality_curves, sample_gallery, save


def test_gallery_has_a_row_a_model_and_a_column_a_data_set(tmp_path):
    # Three events in the first cell along x and the second along y, one elsewhere.
    plane = np.array([[0.5, 1.5]] * 3 + [[1.5, 0.5]])
    views = {
        "plane": Plane(plane, (np.arange(3.0), np.arange(4.0))),
        "line": Line(np.array([0.5, 1.5]), np.arange(3.0), "x [GeV]"),
        "images": Images(np.arange(12 * 4.0).reshape(12, 2, 2)),
    }
    images = np.arange(13 * 4.0).reshape(13, 2, 2)
    samples = {"A": {"plane": plane[3:], "line": np.array([0.5]), "images": images}, "B": {}}
    figure = sample_gallery(views, samples)
    # Of a line two: histogram and ratio.
    assert len(figure.axes) == 3 * 4
    truth, _, _, mosaic, of_a, line_of_a, _, mosaic_of_a, of_b, *_ = figure.axes
    np.testing.assert_array_equal(truth.images[0].get_array(), [[0, 0.25], [0.75, 0], [0, 0]])
    np.testing.assert_array_equal(of_a.images[0].get_array(), [[0, 1], [0, 0], [0, 0]])
    assert of_a.images[0].norm.vmax == truth.images[0].norm.vmax == 0.75
    assert not of_b.images
    assert [axes.get_ylabel() for axes in (truth, of_a, of_b)] == ["truth", "A", "B"]
    assert [truth.get_title(), mosaic.get_title()] == ["plane", "images"]
    values = [patch.get_data().values for patch in line_of_a.patches]
    assert any(np.array_equal(v, [1, 0]) for v in values)
    # Three rows of four images with lines between them; the fifth is the first of the second row.
    picture = mosaic_of_a.images[0].get_array()
    assert picture.shape == (3 * 2 + 2, 4 * 2 + 3)
    np.testing.assert_array_equal(picture[3:5, :2], images[4])
    save(figure, tmp_path / "a")


def test_points_have_a_place_and_the_truth_a_line(tmp_path):
    names = [f"model {i}" for i in range(8)]
    point = lambda *numbers: Curve(*(np.array([v]) for v in numbers))
    truth = {"moons": Estimate(0.05, 0.01), "jets": 0.1}
    panels = {"moons": {n: point(i + 1.0, 0.1 * (i + 1), 0.01) for i, n in enumerate(names)}}
    panels["jets"] = {"model 7": point(2.0, 0.5, 0.1)}
    figure = quality_curves(panels, "distance", xlabel="ms", truth=truth, log_y=True)
    moons, jets = figure.axes
    assert moons.get_xscale() == moons.get_yscale() == "log"
    np.testing.assert_allclose(moons.lines[0].get_ydata(), 0.05)
    points = [c.lines[0] for c in moons.containers]
    np.testing.assert_allclose([p.get_xdata()[0] for p in points], np.arange(1.0, 9))
    np.testing.assert_allclose([p.get_ydata()[0] for p in points], 0.1 * np.arange(1.0, 9))
    looks = {(p.get_color(), p.get_marker()) for p in points}
    assert len({colour for colour, _ in looks}) == len({marker for _, marker in looks}) == 8
    (point,) = (c.lines[0] for c in jets.containers)
    assert point.get_color() == points[7].get_color()
    assert point.get_marker() == points[7].get_marker()
    save(figure, tmp_path / "a")


def test_bad_input():
    with pytest.raises(ValueError, match="pass at least one view"):
        sample_gallery({}, {})
    view = {"digits": Images(np.zeros((12, 2, 2)))}
    with pytest.raises(ValueError, match="no view of jets; there are digits"):
        sample_gallery(view, {"A": {"jets": np.zeros(3)}})
    with pytest.raises(ValueError, match=r"images need the shape \[12 or more, y, x\], got \(3,"):
        sample_gallery(view, {"A": {"digits": np.zeros((3, 2, 2))}})
    with pytest.raises(ValueError, match="pass at least one curve"):
        quality_curves({}, "")

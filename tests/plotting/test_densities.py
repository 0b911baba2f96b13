import numpy as np
import pytest

from jgen.plotting import density_pictures, image_rows, likelihood_chart, save


def test_pictures_share_the_scale_of_the_first_one(tmp_path):
    truth = np.arange(12.0).reshape(3, 4)
    figure = density_pictures({"truth": truth, "A": 2 * truth}, (-1, 1, 0, 3), num_columns=2)
    first, second = (axes.images[0] for axes in figure.axes)
    np.testing.assert_array_equal(second.get_array(), 2 * truth)
    assert first.norm.vmax == second.norm.vmax == truth.max()
    assert first.get_extent() == [-1, 1, 0, 3]
    # The first row of the array is the lowest one of the picture.
    assert first.origin == "lower"
    assert [axes.get_title() for axes in figure.axes] == ["truth", "A"]
    save(figure, tmp_path / "a")
    assert len(density_pictures({str(i): truth for i in range(7)}, (0, 1, 0, 1)).axes) == 7


def test_images_stand_side_by_side(tmp_path):
    truth = np.arange(24.0).reshape(3, 2, 4)
    figure = image_rows({"truth": truth, "A": np.repeat(truth, 2, axis=0)})
    strip = figure.axes[0].images[0].get_array()
    np.testing.assert_array_equal(strip[:, :4], truth[0])
    np.testing.assert_array_equal(strip[:, 5:9], truth[1])
    assert figure.axes[1].images[0].get_array().shape == strip.shape
    assert figure.axes[1].get_ylabel() == "A"
    save(figure, tmp_path / "a")


def test_chart_has_a_panel_a_data_set_and_a_row_a_model(tmp_path):
    found = {
        "moons": {"A": (0.1, 0.02), "B": (-0.01, 0.02)},
        "jets": {"B": (-0.3, 0.1), "C": (0.2, 0.1)},
    }
    figure = likelihood_chart(found, {"moons": "truth", "jets": "mixture"})
    moons, jets = figure.axes
    assert [t.get_text() for t in moons.get_yticklabels()] == ["A", "B", "C"]
    assert moons.get_xscale() == "log"
    assert jets.get_xscale() == "linear"
    np.testing.assert_allclose(jets.containers[0].lines[0].get_xdata(), [-0.3, 0.2])
    np.testing.assert_array_equal(jets.containers[0].lines[0].get_ydata(), [1, 2])
    # An estimate below zero is at the edge of the logarithmic axis, not lost.
    x = moons.containers[0].lines[0].get_xdata()
    assert x[0] == 0.1
    assert moons.get_xlim()[0] < x[1] < 0.01
    assert jets.get_xlabel() == "NLL - mixture [nats]"
    save(figure, tmp_path / "a")


def test_bad_input():
    with pytest.raises(ValueError, match="pass at least one density"):
        density_pictures({}, (0, 1, 0, 1))
    with pytest.raises(ValueError, match=r"density of 'A' needs two axes, got \(3,\)"):
        density_pictures({"A": np.ones(3)}, (0, 1, 0, 1))
    with pytest.raises(ValueError, match="at least one row of images"):
        image_rows({})
    with pytest.raises(ValueError, match=r"images of 'A' need the shape \[3 or more, y, x\]"):
        image_rows({"truth": np.ones((3, 2, 2)), "A": np.ones((2, 2, 2))})
    with pytest.raises(ValueError, match="at least one data set with a model"):
        likelihood_chart({}, {})

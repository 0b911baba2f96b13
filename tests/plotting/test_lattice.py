import numpy as np
import pytest

from jgen.plotting import bound_curves, field_configurations, two_point_functions


def test_configurations_share_one_scale_about_zero():
    rng = np.random.default_rng(0)
    fields = {"HMC": rng.normal(size=(3, 4, 4)), "Flow": 2 * rng.normal(size=(3, 4, 4))}
    figure = field_configurations(fields)
    images = [image for axes in figure.axes for image in axes.get_images()]
    largest = max(np.abs(pictures).max() for pictures in fields.values())
    assert [image.get_clim() for image in images] == [(-largest, largest)] * 6
    np.testing.assert_array_equal(images[4].get_array(), fields["Flow"][1].T)
    with pytest.raises(ValueError, match=r"needs as many pictures, got \[2, 3\]"):
        field_configurations({"HMC": fields["HMC"], "Flow": fields["Flow"][:2]})


def test_two_point_functions_close_around_the_lattice():
    mean, error = np.array([4.0, 2.0, 1.0, 2.0]), np.full(4, 0.1)
    figure = two_point_functions((mean, error), {"Flow": (1.5 * mean, error)}, "HMC")
    main, ratio = figure.axes
    np.testing.assert_array_equal(main.lines[0].get_ydata(), [4, 2, 1, 2, 4])
    np.testing.assert_allclose(ratio.lines[1].get_ydata(), 1.5)


def test_bounds_are_minus_the_losses():
    records = {"Flow": [{"step": 10 * i, "loss": [1.0 / i]} for i in range(1, 5)]}
    (axes,) = bound_curves(records, log_z=0.0).axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [-1, -1 / 2, -1 / 3, -1 / 4])
    np.testing.assert_allclose(axes.lines[1].get_ydata(), 0)

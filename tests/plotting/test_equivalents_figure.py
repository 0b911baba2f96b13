"""The chart of equivalent events: points are where the numbers are."""

import numpy as np
import pytest

from jgen.plotting import equivalent_events_chart


def test_points_stand_at_their_bins():
    figure = equivalent_events_chart(
        {"Fit": {"10": (241.0, 5.0), "50": (1041.0, 2000.0)}, "GAN": {"50": (400.0, 50.0)}}, 100
    )
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["10", "50"]
    fit, one = (container.lines[0] for container in axes.containers)
    np.testing.assert_allclose(fit.get_ydata(), [241, 1041])
    np.testing.assert_allclose(one.get_ydata(), [400])
    np.testing.assert_allclose(fit.get_xdata(orig=False), [-0.3, 0.7])
    np.testing.assert_allclose(one.get_xdata(orig=False), [1.3])
    bars = axes.containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose(bars[1][:, 1], [104.1, 3041])
    assert axes.get_yscale() == "log"


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="at least one generator with bins"):
        equivalent_events_chart({"GAN": {}}, 100)

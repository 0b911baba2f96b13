import numpy as np
import pytest
from scipy import stats

from jgen.plotting import importance_weights, pull_quantiles, save


def test_weights_are_in_units_of_their_mean_and_none_is_lost(tmp_path):
    weights = np.array([0.0, 2.0, 2.0, 4.0])
    figure = importance_weights({"a": {"Flow": weights}, "b": {"Flow": weights, "Flat": weights}})
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == ["a", "b"]
    (stairs,) = (p for p in shown[0].patches if hasattr(p, "get_data"))
    values, edges, _ = stairs.get_data()
    assert values.sum() == pytest.approx(1)
    assert values[0] == pytest.approx(0.25)
    assert values[np.searchsorted(edges, 1.0, side="right") - 1] == pytest.approx(0.5)
    assert values[np.searchsorted(edges, 2.0, side="right") - 1] == pytest.approx(0.25)
    save(figure, tmp_path / "a")


def test_quantiles_of_normal_pulls_lie_on_the_diagonal():
    pulls = stats.norm.ppf((np.arange(100) + 0.5) / 100)
    figure = pull_quantiles({"a": pulls[::-1], "b": 2 * pulls})
    for axes, factor in zip(figure.axes, (1, 2), strict=False):
        x, y = axes.lines[1].get_data()
        np.testing.assert_allclose(y, factor * x)
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    # The largest of 100: between the quantiles of 0.025 and 0.975 to the power of 1 / 100.
    ends = stats.norm.ppf(np.array([0.025, 0.975]) ** 0.01)
    last = band[np.isclose(band[:, 0], pulls[-1]), 1]
    np.testing.assert_allclose([last.min(), last.max()], ends, rtol=1e-6)

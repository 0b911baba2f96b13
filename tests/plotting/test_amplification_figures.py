import numpy as np
import pytest

from jgen.amplification import averaging_amplification
from jgen.plotting import save, variance_curves


def result():
    rng = np.random.default_rng(0)
    sizes = np.array([100, 100_000, 1_000_000, np.inf])
    noise = np.sqrt(0.16 / sizes)[None, :, None] * rng.normal(size=(8, 4, 1))
    fractions = 0.2 + 5e-3 * rng.normal(size=(8, 1, 1)) + noise
    # A spread below the noise, so that there is no model variance at the first size.
    fractions[:, 0] = 0.2 + 0.3 * (fractions[:, 0] - 0.2)
    return averaging_amplification(fractions, sizes, 500)


def test_variance_curves_hold_what_was_found(tmp_path):
    one = result()
    assert one.model_variance[0] < 0
    figure = variance_curves({"Ensemble": one, "Again": one}, model_variance=2.5e-5, num_train=500)
    axes = figure.axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(lines["Measured"].get_data(), [one.sizes[:3], one.variance[:3]])
    np.testing.assert_allclose(
        lines[r"$\sigma^2_\mathrm{stat}$"].get_ydata(), one.stat_variance[:3]
    )
    model = lines[r"$\sigma^2_\mathrm{model}$"].get_ydata()
    np.testing.assert_allclose(model, [np.nan, *one.model_variance[1:3]])
    vertical = [line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1]
    np.testing.assert_allclose(vertical, [500, one.n_equiv.value[-1]])
    # The band is the interval of n_equiv; at the first size it is a limit and has no lower end.
    vertices = axes.collections[0].get_paths()[0].vertices
    top = [vertices[vertices[:, 0] == n, 1].max() for n in one.sizes[:3]]
    low = [vertices[vertices[:, 0] == n, 1].min() for n in one.sizes[:3]]
    np.testing.assert_allclose(top, 0.16 / one.n_equiv.low[:3], rtol=0.05)
    assert low[0] < axes.get_ylim()[0]
    np.testing.assert_allclose(low[2], 0.16 / one.n_equiv.high[2], rtol=0.05)
    assert figure.axes[1].get_title() == "Again"
    save(figure, tmp_path / "a")


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="at least one result"):
        variance_curves({})


def test_members_that_agree_have_no_place_on_a_logarithmic_axis():
    sizes = np.array([100, 1000])
    agree = averaging_amplification(np.full((2, 2, 1), 0.3), sizes, 500)
    assert (agree.variance == 0).all()
    low, high = variance_curves({"Ensemble": agree}).axes[0].get_ylim()
    assert 0 < low < 0.3 * 0.7 / 1000 < high

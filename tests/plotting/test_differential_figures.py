import numpy as np

from jgen.amplification import (
    expected_distance,
    kolmogorov_band,
    ks_distances,
    prefix_sizes,
    sample_quantile_mse,
)
from jgen.plotting import (
    cumulative_distributions,
    ks_curves,
    quantile_error_curves,
    refinement_map,
)


def distances(shift, members=3, num=3000):
    rng = np.random.default_rng(0)
    reference, sizes = rng.normal(size=300), prefix_sizes(num)
    return sizes, np.stack(
        [ks_distances(reference, rng.normal(shift, size=num), sizes) for _ in range(members)]
    )


def test_ks_curves_hold_bands_and_means():
    sizes, found = distances(0.3)
    figure = ks_curves({"R": found, "one": found[0]}, sizes, 300, 300)
    (axes,) = figure.axes
    asymptote, first, second, mark = axes.lines
    np.testing.assert_allclose(asymptote.get_ydata(), expected_distance(sizes, 300))
    np.testing.assert_allclose(first.get_ydata(), found.mean(axis=0))
    np.testing.assert_allclose(second.get_ydata(), found[0])
    assert mark.get_xdata()[0] == 300
    # The last of the three grey bands is that of one standard deviation; a single member has none.
    assert len(axes.collections) == 4
    y = axes.collections[2].get_paths()[0].vertices[:, 1]
    low, high = kolmogorov_band()
    assert np.isclose(y.max(), expected_distance(sizes[0], 300, high), rtol=1e-4)
    assert np.isclose(y.min(), expected_distance(sizes[-1], 300, low), rtol=1e-4)


def test_quantile_errors_lie_between_the_lines_of_samples():
    sizes = prefix_sizes(10_000)
    mean = sample_quantile_mse(10, sizes) + sample_quantile_mse(10, 300)
    figure = quantile_error_curves({"GAN": (mean, 2 * mean)}, sizes, 10, (100, 300), benchmark=3e-4)
    (axes,) = figure.axes
    levels = [line.get_ydata()[0] for line in axes.lines]
    np.testing.assert_allclose(levels[:3], [9e-4, 3e-4, 3e-4])
    np.testing.assert_allclose(axes.lines[3].get_ydata(), mean)
    assert axes.collections[0].get_paths()[0].vertices[:, 1].min() > 0


def test_cumulative_distributions_end_at_one_and_pass_the_median():
    rng = np.random.default_rng(0)
    truth, made = rng.normal(size=5001), rng.normal(0.5, 1, size=300)
    figure = cumulative_distributions({"R": {"Truth": truth, "Generated": made}})
    for line, sample in zip(figure.axes[0].lines, (truth, made), strict=True):
        x, y = line.get_data()
        assert y[0] == 0
        assert y[-1] == 1
        np.testing.assert_allclose(np.interp(0.5, y, x), np.median(sample), atol=5e-3)


def test_a_refinement_map_says_how_much_is_cut():
    events = np.arange(20.0).reshape(10, 2)
    figure = refinement_map(events, np.arange(10) < 7)
    kept, cut = figure.axes[0].collections
    np.testing.assert_array_equal(kept.get_offsets(), events[:7])
    np.testing.assert_array_equal(cut.get_offsets(), events[7:])
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["Kept, 70 %", "Cut, 30 %"]

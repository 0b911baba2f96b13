import subprocess
import sys

import matplotlib
import numpy as np
import pytest

from jgen.metrics import ClassifierResult, histogram
from jgen.plotting import (
    Curve,
    Panel,
    Weighted,
    histogram_grid,
    longitudinal_profile,
    longitudinal_view,
    polar_view,
    quality_curves,
    roc_curves,
    save,
    shower_points,
    single_showers,
    style,
    training_curves,
    weight_distributions,
)
from jgen.plotting.histograms import as_histogram, ratio_limits


def panel(**options):
    rng = np.random.default_rng(0)
    samples = {"A": rng.normal(0.2, size=300), "B": rng.normal(size=500)}
    return Panel(np.linspace(-2, 2, 9), rng.normal(size=400), samples, "mass [GeV]", **options)


def voxels(seed, num=20):
    rng = np.random.default_rng(seed)
    return rng.gamma(0.5, size=(num, 6, 4, 3)) * (rng.random((num, 6, 4, 3)) < 0.5)


def result(shift):
    rng = np.random.default_rng(0)
    reference, generated = rng.normal(shift, size=(3, 200)), rng.normal(-shift, size=(3, 300))
    auc = np.array([0.6, 0.61, 0.62])
    weights = np.exp(reference), np.exp(generated)
    num_test = np.array([w.shape[1] for w in weights], float)
    covariances = dict.fromkeys(("auc", "auc_calibrated", "jsd"), np.full((3, 3), 6e-4))
    losses = np.zeros(3, int), auc[:, None], auc[:, None]
    return ClassifierResult(auc, auc, auc, *weights, num_test, covariances, *losses)


def stairs(axes):
    """Values of the lines of a panel, without the filled bands."""
    return [
        p.get_data().values for p in axes.patches if hasattr(p, "get_data") and not p.get_fill()
    ]


def test_panels_hold_the_fractions_and_their_ratios():
    p = panel(ratio_range=(0.2, 1.8))
    main, ratio = histogram_grid([p]).axes
    reference = histogram(p.reference, p.edges).fractions
    expected = [reference] + [histogram(v, p.edges).fractions for v in p.samples.values()]
    np.testing.assert_allclose(stairs(main), expected)
    np.testing.assert_allclose(stairs(ratio), expected[1:] / reference)
    # The grey band is one Poisson error on both sides.
    band = next(q for q in main.patches if q.get_fill()).get_data()
    errors = np.sqrt(histogram(p.reference, p.edges).counts) / 400
    np.testing.assert_allclose(band.values, reference + errors)
    np.testing.assert_allclose(band.baseline, reference - errors)
    assert ratio.get_xlabel() == "mass [GeV]"
    assert ratio.get_ylim() == (0.2, 1.8)


def test_bins_with_names_keep_them_where_ends_are_cut_off():
    counts = np.repeat([1, 2], [30, 50])
    kinds = Panel(np.arange(5) - 0.5, counts, {}, "kind", names=("a", "b", "c", "d"))
    ratio = histogram_grid([kinds]).axes[1]
    assert [tick.get_text() for tick in ratio.get_xticklabels()] == ["b", "c"]
    np.testing.assert_allclose(ratio.get_xticks(), [1, 2])
    assert ratio.get_xlim() == (0.5, 2.5)


def test_entries_outside_are_written_only_where_there_are_some():
    edges, values = np.array([0.0, 1.0, 2.0]), np.full(8, 0.5)
    sample = np.concatenate([values, np.full(2, 5.0)])
    main, _ = histogram_grid([Panel(edges, values, {"A": sample}, "x")]).axes
    assert [t.get_text() for t in main.texts] == ["overflow", "0 %", "20 %"]
    main, _ = histogram_grid([Panel(edges, values, {"A": values}, "x")]).axes
    assert not main.texts


def test_ratios_beyond_the_panel_are_marked():
    edges = np.array([0.0, 1.0, 2.0])
    reference, sample = np.array([0.5] * 5 + [1.5] * 5), np.array([0.5] * 9 + [1.5])
    panel = Panel(edges, reference, {"A": sample}, "x", ratio_range=(0.5, 1.5))
    _, ratio = histogram_grid([panel]).axes
    marks = {line.get_marker(): line.get_xydata() for line in ratio.lines if len(line.get_xdata())}
    np.testing.assert_allclose(marks["^"], [[0.5, 1.5]])
    np.testing.assert_allclose(marks["v"], [[1.5, 0.5]])


def test_grid_has_two_axes_a_panel_and_each_name_once(tmp_path):
    edges, values = np.geomspace(1, 50, 6), np.geomspace(0.5, 40, 30)
    log = Panel(edges, values, {"A": values, "C": 2 * values}, "E", log_x=True, log_y=True)
    empty = Panel(edges, values, {"A": np.zeros(10)}, "E", log_x=True, log_y=True)
    figure = histogram_grid([panel(), log, panel(), empty], num_columns=3)
    assert len(figure.axes) == 8
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["Truth", "A", "B", "C"]
    assert figure.axes[2].get_xscale() == figure.axes[2].get_yscale() == "log"
    save(figure, tmp_path / "grid")


def test_save_writes_both_kinds_and_leaves_nothing_else(tmp_path):
    before = dict(matplotlib.rcParams)
    written = save(histogram_grid([panel()]), tmp_path / "figures" / "a.b")
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == ["a.b.pdf", "a.b.png"]
    assert [p.name for p in written] == ["a.b.pdf", "a.b.png"]
    assert written[0].read_bytes()[:4] == b"%PDF"
    assert written[1].read_bytes()[:4] == b"\x89PNG"
    # No setting is left behind.
    assert dict(matplotlib.rcParams) == before
    with pytest.raises(ValueError, match="leave it out"):
        save(histogram_grid([panel()]), tmp_path / "a.png")


def test_longitudinal_view_holds_means_and_their_ratio(tmp_path):
    a, b = voxels(0), voxels(1)
    figure = longitudinal_view(a, b, r_edges=np.arange(4) * 4.65)
    images = [ax.collections[0].get_array() for ax in figure.axes[:3]]
    means = a.mean(axis=(0, 2)).T, b.mean(axis=(0, 2)).T
    for image, expected in zip(images, (*means, means[1] / means[0]), strict=True):
        np.testing.assert_allclose(image, expected)
    assert len(figure.axes) == 5
    save(figure, tmp_path / "a")


def test_polar_view_has_a_column_a_group(tmp_path):
    a, b = voxels(0), voxels(1)
    figure = polar_view(a, b, [(0, 1), (1, 6)])
    axes = np.array(figure.axes[:6]).reshape(3, 2)
    image = axes[0, 1].collections[0].get_array()
    # Each cell is drawn in eight pieces.
    np.testing.assert_allclose(image[:, ::8], a[:, 1:6].mean(axis=(0, 1)).T)
    assert [ax.get_title() for ax in axes[0]] == ["Layer 0", "Layers 1-5"]
    save(figure, tmp_path / "a")
    with pytest.raises(ValueError, match="within the 6 layers"):
        polar_view(a, b, [(4, 7)])


def test_longitudinal_profile_holds_energies_a_layer():
    a, b = voxels(0), voxels(1)
    main, ratio = longitudinal_profile(a, {"B": b}).axes
    energies = a.sum(axis=(2, 3)), b.sum(axis=(2, 3))
    np.testing.assert_allclose(stairs(main), [e.mean(axis=0) for e in energies])
    np.testing.assert_allclose(stairs(ratio)[0], energies[1].mean(0) / energies[0].mean(0))
    band = next(p for p in main.patches if p.get_fill()).get_data()
    error = energies[0].std(axis=0) / np.sqrt(20)
    np.testing.assert_allclose(band.values - band.baseline, 2 * error)


def test_single_showers_share_one_scale(tmp_path):
    a, b = voxels(0, 3), 100 * voxels(1, 3)
    figure = single_showers({"A": a, "B": b}, titles=["1 GeV", "2 GeV", "3 GeV"])
    images = [ax.collections[0] for ax in figure.axes[:6]]
    np.testing.assert_allclose(images[4].get_array().filled(0), b[1].sum(axis=1).T)
    assert len({id(image.norm) for image in images}) == 1
    save(figure, tmp_path / "a")
    with pytest.raises(ValueError, match="not as many"):
        single_showers({"A": a, "B": b[:2]})


def test_points_of_showers_are_drawn_from_two_sides(tmp_path):
    rng = np.random.default_rng(2)
    samples = {label: rng.exponential(size=(n, 4)) for label, n in (("A", 30), ("B", 50))}
    figure = shower_points(samples)
    for row, points in zip(np.reshape(figure.axes[:4], (2, 2)), samples.values(), strict=True):
        x, y, z, energy = points[np.argsort(points[:, 3])].T
        for ax, across in zip(row, (z, x), strict=True):
            (dots,) = ax.collections
            np.testing.assert_allclose(dots.get_offsets(), np.stack([across, y], axis=1))
            np.testing.assert_allclose(dots.get_array(), energy)
    save(figure, tmp_path / "a")


def test_showers_of_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="n_alpha"):
        longitudinal_view(voxels(0), voxels(1)[:, :5])
    with pytest.raises(ValueError, match="need 4 edges, got 3"):
        longitudinal_view(voxels(0), voxels(1), r_edges=np.arange(3))


def test_weight_distributions_lose_no_tail(tmp_path):
    figure = weight_distributions({"Model": result(1.0)}, weight_range=(0.5, 2.0), num_bins=4)
    generated, reference = stairs(figure.axes[0])
    assert generated.sum() == pytest.approx(1.0)
    # Both tails are in the outermost bins.
    r = result(1.0)
    cut = 0.5 * 2**0.5
    assert generated[0] == pytest.approx(np.mean(r.weights_generated < cut))
    assert reference[-1] == pytest.approx(np.mean(r.weights_reference >= 2 / 2**0.5))
    save(figure, tmp_path / "a")


def test_roc_runs_from_corner_to_corner():
    r = result(1.0)
    figure = roc_curves({"Model": r})
    line = next(x for x in figure.axes[0].lines if x.get_label().startswith("Model"))
    x, y = line.get_data()
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert np.all(np.diff(y) >= 0)
    # The area is the AUC of these scores, Phi(2 / sqrt 2) up to their errors.
    assert np.trapezoid(y, x) == pytest.approx(0.921, abs=0.02)
    assert "0.610" in line.get_label()


def test_quality_curves_are_sorted_and_have_bands(tmp_path):
    curve = Curve(np.array([16, 4, 8]), np.array([0.5, 0.9, 0.7]), np.full(3, 0.1))
    figure = quality_curves({"Euler": curve}, "AUC", truth=(0.5, 0.01))
    line = figure.axes[0].lines[-1]
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["Truth", "Euler"]
    np.testing.assert_array_equal(line.get_data(), [[4, 8, 16], [0.9, 0.7, 0.5]])
    vertices = figure.axes[0].collections[0].get_paths()[0].vertices
    np.testing.assert_allclose([vertices[:, 1].min(), vertices[:, 1].max()], [0.4, 1.0])
    save(figure, tmp_path / "a")


def test_training_curves_show_members_and_their_mean(tmp_path):
    records = [{"step": s, "loss": [1.0 / s, 3.0 / s]} for s in (1, 2, 4)]
    records += [{"step": 4, "validation_loss": 0.5}]
    figure = training_curves({"energy network": records, "shape network": records}, log_y=True)
    lines = figure.axes[0].lines
    assert len(lines) == 4
    assert [a.get_title() for a in figure.axes] == ["energy network", "shape network"]
    np.testing.assert_allclose(lines[2].get_data(), [[1, 2, 4], [2.0, 1.0, 0.5]])
    save(figure, tmp_path / "a")
    with pytest.raises(ValueError, match="no record of 'a' has a loss, of 1 records"):
        training_curves({"a": records[-1:]})


def test_plotting_needs_no_pyplot_and_no_backend():
    code = "import sys, jgen.plotting; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


class FilledHist:
    """What `hist.Hist` and boost-histogram have of a filled histogram of one axis."""

    def __init__(self, edges, flow, variances):
        self.axes = [type("Axis", (), {"edges": edges})()]
        self._flow, self._variances = np.asarray(flow, float), np.asarray(variances, float)

    def values(self, flow=False):
        return self._flow if flow else self._flow[1:-1]

    def variances(self):
        return self._variances


def test_weighted_values_and_filled_histograms_are_drawn_as_what_they_are():
    edges, values = np.array([0.0, 1.0, 2.0, 4.0]), np.array([0.5] * 6 + [1.5] * 4 + [3.0] * 8)
    weights = np.where(values < 1, 2.0, 1.0)
    filled = FilledHist(edges, [0, 12, 4, 8, 6], [24, 4, 8])
    samples = {"weighted": Weighted(values, weights), "filled": filled, "events": values}
    main, _ = histogram_grid([Panel(edges, values, samples, "x")]).axes
    drawn = [p.get_data().values for p in main.patches if p.get_data().baseline is None]
    np.testing.assert_allclose(drawn[0], [12 / 24, 4 / 24, 8 / 24])
    np.testing.assert_allclose(drawn[1], [12 / 30, 4 / 30, 8 / 30])  # six entries are above
    np.testing.assert_allclose(drawn[2], [6 / 18, 4 / 18, 8 / 18])
    assert as_histogram(filled, edges).overflow == 6
    with pytest.raises(ValueError, match=r"filled in 3 bins from 0\.0 to 4\.0"):
        as_histogram(filled, np.array([0.0, 1.0, 2.0, 3.0]))
    filled.axes *= 2
    with pytest.raises(ValueError, match="one axis, got 2"):
        as_histogram(filled, edges)


def test_axes_end_where_the_data_end_and_nothing_is_lost():
    values = np.concatenate([np.repeat([0.45, 0.55], 1000), [0.05]])
    edges = np.linspace(0, 1, 11)
    main, _ = histogram_grid([Panel(edges, values, {"A": values}, "x")]).axes
    assert main.get_xlim() == pytest.approx((0.4, 0.6))
    assert [t.get_text() for t in main.texts] == ["underflow", "0.05 %", "0.05 %"]
    main, _ = histogram_grid([Panel(edges, values, {"A": values}, "x", log_y=True)]).axes
    assert main.get_xlim() == pytest.approx((0.0, 0.6))


@pytest.mark.parametrize(
    ("ratios", "limits"),
    [
        ([0.95, 1.02, 1.0, 1.04], (0.9, 1.1)),
        ([0.85, 1.1, 1.0, 1.0], (0.8, 1.2)),
        ([0.55, 1.3, 1.0, 1.0], (0.5, 1.5)),
        ([0.3, 1.7, 0.9, 1.0], (0.0, 2.0)),
        ([0.2, 3.0, 8.0, 9.0], (0.1, 10.0)),
        ([0.02, 30.0, 8.0, 50.0], (0.01, 100.0)),
    ],
)
def test_a_ratio_panel_holds_the_ratios(ratios, limits):
    ratios = np.array([*ratios, np.nan])
    assert ratio_limits([(ratios, np.zeros(5))]) == pytest.approx(limits)


def test_another_style_holds_inside_its_block_only(tmp_path):
    with style({"axes.linewidth": 2.5, "xtick.direction": "out"}):
        main, _ = histogram_grid([panel()]).axes
        assert main.spines["left"].get_linewidth() == 2.5
    main, _ = histogram_grid([panel()]).axes
    assert main.spines["left"].get_linewidth() == 0.8
    with pytest.raises(KeyError, match="axes.linewidht"), style({"axes.linewidht": 1}):
        pass

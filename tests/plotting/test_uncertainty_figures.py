import numpy as np
import pytest

from jgen.metrics import histogram
from jgen.metrics.calibration import Coverage, Pulls
from jgen.plotting import Panel, coverage_curves, member_grid, pull_distribution, save


def panel(**options):
    rng = np.random.default_rng(0)
    samples = {str(i): rng.normal(0.2 * i, size=300) for i in range(3)}
    return Panel(np.linspace(-2, 2, 9), rng.normal(size=400), samples, "mass [GeV]", **options)


def lines(axes):
    return [p.get_data().values for p in axes.patches if not p.get_fill()]


def bands(axes):
    data = [p.get_data() for p in axes.patches if p.get_fill()]
    return [(d.values + d.baseline) / 2 for d in data], [(d.values - d.baseline) / 2 for d in data]


def test_members_their_mean_and_their_spread(tmp_path):
    p = panel(ratio_range=(0.0, 2.0))
    figure = member_grid([p, panel(log_y=True)], "Ensemble")
    main, ratio = figure.axes[:2]
    truth = histogram(p.reference, p.edges)
    members = np.array([histogram(v, p.edges).fractions for v in p.samples.values()])
    mean, spread = members.mean(axis=0), members.std(axis=0, ddof=1)
    expected = [truth.fractions, *members, mean]
    np.testing.assert_allclose(lines(main), expected)
    np.testing.assert_allclose(lines(ratio), np.array(expected[1:]) / truth.fractions)
    # The truth's Poisson error, then the members' spread.
    centre, width = bands(main)
    np.testing.assert_allclose(centre, [truth.fractions, mean])
    np.testing.assert_allclose(width, [truth.fraction_errors, spread])
    centre, width = bands(ratio)
    np.testing.assert_allclose(centre, [np.ones(8), mean / truth.fractions])
    np.testing.assert_allclose(width[1], spread / truth.fractions)
    names = [t.get_text() for t in figure.legends[0].get_texts()]
    assert names == ["Truth, statistical", "Ensemble, spread of 3", "Single members"]
    save(figure, tmp_path / "a")


def test_members_without_a_spread_are_refused():
    p = panel()
    with pytest.raises(ValueError, match=r"\[300\] events"):
        member_grid([p._replace(samples={"0": p.samples["0"]})], "E")
    with pytest.raises(ValueError, match=r"\[300, 7\] events"):
        member_grid([p._replace(samples={"0": p.samples["0"], "1": np.zeros(7)})], "E")
    with pytest.raises(ValueError, match="at least one Panel"):
        member_grid([], "E")


def test_coverage_curves_hold_observed_and_expected(tmp_path):
    levels = np.array([0.2, 0.5, 0.8])
    curve = Coverage(levels, levels / 2, levels + 0.01, np.full(3, 0.05))
    figure = coverage_curves({"Ensemble": curve})
    axes = figure.axes[0]
    _, observed, expected, _ = axes.lines
    np.testing.assert_allclose(observed.get_data(), [levels, levels / 2])
    np.testing.assert_allclose(expected.get_data(), [levels, levels + 0.01])
    vertices = axes.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose([vertices[:, 1].min(), vertices[:, 1].max()], [0.05, 0.45])
    save(figure, tmp_path / "a")


def test_pull_distribution_loses_no_tail_and_has_students_t(tmp_path):
    rng = np.random.default_rng(0)
    degrees = np.where(np.arange(5000) < 2500, 3.0, np.inf)
    pulls = Pulls(np.concatenate([rng.standard_t(3, 2500), rng.normal(size=2500)]), degrees)
    figure = pull_distribution({"Ensemble": pulls}, limit=4.0)
    axes = figure.axes[0]
    stairs = next(p for p in axes.patches).get_data()
    assert np.sum(stairs.values * np.diff(stairs.edges)) == pytest.approx(1.0)
    x, y = axes.lines[0].get_data()
    # t(3) at its peak is 2 / (pi sqrt 3), the normal 1 / sqrt(2 pi).
    peak = (2 / (np.pi * 3**0.5) + (2 * np.pi) ** -0.5) / 2
    assert y[np.argmin(np.abs(x))] == pytest.approx(peak, rel=1e-6)
    centre = (stairs.edges[1:] + stairs.edges[:-1]) / 2
    inner = np.abs(centre) < 3
    # Counts are 5000 a width of 0.2: four of the largest bin's Poisson errors.
    np.testing.assert_allclose(stairs.values[inner], np.interp(centre, x, y)[inner], atol=0.08)
    save(figure, tmp_path / "a")

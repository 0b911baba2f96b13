"""Figures of Boltzmann densities: what is drawn is what was given."""

import numpy as np
import pytest

from jgen.estimate import Estimate
from jgen.plotting import (
    ExactMarginal,
    Landscape,
    chain_traces,
    energy_landscapes,
    exact_marginals,
    free_energy_profiles,
    save,
)

EDGES = np.linspace(-1, 1, 5)
EXACT = np.array([0.4, 0.1, 0.3, 0.2])
COUNTED = Estimate(np.array([0.5, 0.1, 0.0, 0.4]), np.array([0.05, 0.02, 0.0, 0.04]))
PANEL = ExactMarginal("Well", EDGES, EXACT, {"Flow": COUNTED}, 60, "$x$ in nm")


def test_landscapes_have_their_events_and_labels(tmp_path):
    axes = np.linspace(-2, 2, 12), np.linspace(-1, 1, 9)
    energy = axes[0][:, None] ** 2 + axes[1] ** 2
    events = np.array([[0.5, -0.5], [1.0, 0.25]])
    figure = energy_landscapes([Landscape(f"part {i}", axes, energy, events) for i in range(4)])
    panels = [a for a in figure.axes if a.get_title().startswith("part")]
    assert [a.get_title() for a in panels] == [f"part {i}" for i in range(4)]
    for panel in panels:
        np.testing.assert_allclose(panel.lines[0].get_xydata(), events)
        assert panel.get_xlim() == (-2, 2)
    assert [a.get_ylabel() for a in panels] == ["$v$", "", "", "$v$"]
    assert any("kT" in a.get_ylabel() for a in figure.axes)
    assert all(path.stat().st_size > 1000 for path in save(figure, tmp_path / "landscapes"))


def test_marginals_are_densities_and_ratios_probabilities():
    figure = exact_marginals([PANEL, PANEL._replace(samples={})])
    main, ratio = figure.axes[:2]
    exact, flow = (patch.get_data() for patch in main.patches[:2])
    np.testing.assert_allclose(exact.values, EXACT / 0.5)
    np.testing.assert_allclose(flow.values, [1.0, 0.2, np.nan, 0.8])
    line, band = (patch.get_data() for patch in ratio.patches[:2])
    np.testing.assert_allclose(line.values, [1.25, 1.0, np.nan, 2.0])
    np.testing.assert_allclose(band.values - band.baseline, [0.25, 0.4, np.nan, 0.4])
    assert ratio.get_xlabel() == "$x$ in nm"
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["Exact", "Flow"]


def test_free_energies_are_logarithms_above_the_exact_minimum():
    figure = free_energy_profiles([PANEL])
    exact, flow = figure.axes[0].lines[0], figure.axes[0].containers[0]
    np.testing.assert_allclose(exact.get_ydata(), -np.log(EXACT / 0.4))
    x, y = flow.lines[0].get_data()
    np.testing.assert_allclose(x, [-0.75, -0.25, 0.75])  # no event, no point
    np.testing.assert_allclose(y, -np.log(np.array([0.5, 0.1, 0.4]) / 0.4))
    bars = np.array([np.ptp(s[:, 1]) / 2 for s in flow.lines[2][0].get_segments()])
    np.testing.assert_allclose(bars, [0.1, 0.2, 0.1])
    # Six of 60 events are expected in the second bin, 12 and more in the others.
    np.testing.assert_allclose(figure.axes[0].lines[-1].get_xdata(), [-0.25])


def test_traces_share_their_rows():
    chains = {"walk": np.zeros(5), "flow": np.arange(5.0)}
    figure = chain_traces({"one": chains, "other": {"flow": np.ones(5)}}, {"one": 0.5, "other": 0})
    first, gap, second, last = figure.axes
    np.testing.assert_allclose(first.lines[0].get_ydata(), 0)
    np.testing.assert_allclose(second.lines[0].get_ydata(), np.arange(5))
    assert first.lines[1].get_ydata()[0] == 0.5
    assert not gap.axison
    assert last.get_title() == "flow"


def test_nothing_to_draw():
    for call in (
        lambda: energy_landscapes([]),
        lambda: exact_marginals([]),
        lambda: free_energy_profiles([]),
        lambda: chain_traces({"one": {}}, {}),
    ):
        with pytest.raises(ValueError, match="nothing to draw"):
            call()

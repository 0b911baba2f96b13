"""Figures for Boltzmann densities: energy landscapes, marginals, free energies, chains."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Real
from matplotlib.figure import Figure

from jgen.estimate import Estimate
from jgen.plotting.style import (
    BAND,
    COLORS,
    ENERGY_MAP,
    MARKERS,
    REFERENCE,
    TEXT_WIDTH,
    color,
    image_ticks,
    new_figure,
    ratio_axis,
    stack_panels,
    styled,
)

_TOP = 16.0
"""Where the colours of energies end, in kT."""
_FEW = 10
"""Expected events of a bin below which a point is open."""


class Landscape(NamedTuple):
    """One picture of an energy in the plane and of events on it.

    Attributes:
      title: what the events are.
      axes: values along both axes ([n_x], [n_y]).
      energy: in kT, above its minimum [n_x, n_y].
      events: [num, 2].
    """

    title: str
    axes: tuple[Real[np.ndarray, " n_x"], Real[np.ndarray, " n_y"]]
    energy: Real[np.ndarray, "n_x n_y"]
    events: Real[np.ndarray, "num 2"]


@styled
def energy_landscapes(panels: Sequence[Landscape], *, num_columns: int = 3) -> Figure:
    """Maps of energies with events on them as dots, in rows.

    Args:
      panels: the pictures, in the order of reading.
      num_columns: pictures beside each other.

    Raises:
      ValueError: if there is nothing to draw.
    """
    if not panels:
        raise ValueError("there is nothing to draw: pass at least one Landscape")
    num_rows = -(-len(panels) // num_columns)
    figure = new_figure(TEXT_WIDTH, 0.4 + 2.0 * num_rows)
    grid = figure.subplots(num_rows, num_columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for i, (axes, panel) in enumerate(zip(grid.flat, panels, strict=False)):
        image = axes.contourf(
            *panel.axes,
            np.minimum(panel.energy.T, _TOP),
            levels=np.linspace(0, _TOP, 17),
            cmap=ENERGY_MAP,
        )
        image.set_rasterized(True)
        (dots,) = axes.plot(*np.asarray(panel.events).T, ".", markersize=1.2, color="white")
        dots.set_rasterized(True)
        axes.set(xlim=panel.axes[0][[0, -1]], ylim=panel.axes[1][[0, -1]], title=panel.title)
        axes.set_xlabel("$x$")
        if i % num_columns == 0:
            axes.set_ylabel("$v$")
        image_ticks(axes)
    bar = figure.colorbar(image, ax=grid, fraction=0.03, label=r"$U - U_\mathrm{min}$ in $kT$")
    bar.set_ticks(np.linspace(0, _TOP, 5))
    return figure


class ExactMarginal(NamedTuple):
    """One panel: a variable of which the probabilities of bins are exact.

    Attributes:
      title: above the panel.
      edges: of the bins [bins + 1].
      exact: probabilities of the bins [bins].
      samples: label -> what is compared with them, probabilities and errors [bins], see
        `jgen.inference.bin_probabilities`.
      num_events: number of events of every sample.
      xlabel: name of the variable with its unit.
    """

    title: str
    edges: Real[np.ndarray, " num_edges"]
    exact: Real[np.ndarray, " bins"]
    samples: Mapping[str, Estimate]
    num_events: int
    xlabel: str = "$x$"


@styled
def exact_marginals(panels: Sequence[ExactMarginal]) -> Figure:
    """Histograms against an exact density on a logarithmic axis, with ratio panels.

    Bands are one standard deviation of the samples; the exact density has none. A sample without
    events in a bin has no line there. Labels of all panels share one legend, which gives a label
    the same colour everywhere.

    Args:
      panels: side by side.

    Raises:
      ValueError: if there is nothing to draw.
    """
    if not panels:
        raise ValueError("there is nothing to draw: pass at least one ExactMarginal")
    figure = new_figure(TEXT_WIDTH, 3.9)
    stack_panels(figure)
    grid = figure.add_gridspec(2, len(panels), height_ratios=(3, 1.3))
    labels = list(dict.fromkeys(label for panel in panels for label in panel.samples))
    handles = {}
    for column, panel in enumerate(panels):
        main = figure.add_subplot(grid[0, column])
        ratio = figure.add_subplot(grid[1, column], sharex=main)
        width = np.diff(panel.edges)
        handles["Exact"] = main.stairs(
            panel.exact / width, panel.edges, color=REFERENCE, fill=True, facecolor=BAND
        )
        ratio.axhline(1.0, color=REFERENCE, linewidth=0.8)
        for label, sample in panel.samples.items():
            i = labels.index(label)
            paint, dashes = color(i), "-" if i < len(COLORS) else "--"
            value = np.where(sample.value > 0, sample.value, np.nan)
            handles[label] = main.stairs(
                value / width, panel.edges, color=paint, linestyle=dashes, baseline=None
            )
            relative, error = value / panel.exact, sample.error / panel.exact
            ratio.stairs(
                relative, panel.edges, color=paint, linestyle=dashes, baseline=None, linewidth=1.0
            )
            ratio.stairs(
                relative + error, panel.edges, baseline=relative - error, fill=True,
                facecolor=paint, alpha=0.25, linewidth=0.0,
            )  # fmt: skip
        top = (panel.exact / width).max()
        main.set(yscale="log", ylim=(2e-6 * top, 3 * top), xlim=panel.edges[[0, -1]])
        main.set_title(panel.title)
        main.tick_params(labelbottom=False)
        ratio_axis(ratio.yaxis, (0.5, 1.5))
        ratio.set_xlabel(panel.xlabel)
        if column == 0:
            main.set_ylabel("Density")
            ratio.set_ylabel("Ratio to exact")
    figure.align_ylabels()
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=4)
    return figure


@styled
def free_energy_profiles(panels: Sequence[ExactMarginal], *, height: float = 15.0) -> Figure:
    """-log of the probability of bins, zero at its exact minimum, with error bars.

    Points are open where less than ten of a sample's events are expected: a model that covers only
    a part of such a bin may have no event in the rest, and error bars do not know of it.

    Args:
      panels: side by side; probabilities of the samples with their weights.
      height: upper end of the axis, in kT.

    Raises:
      ValueError: if there is nothing to draw.
    """
    if not panels:
        raise ValueError("there is nothing to draw: pass at least one ExactMarginal")
    figure = new_figure(TEXT_WIDTH, 3.2)
    axes_row = figure.subplots(1, len(panels), squeeze=False)[0]
    labels = list(dict.fromkeys(label for panel in panels for label in panel.samples))
    handles = {}
    for axes, panel in zip(axes_row, panels, strict=True):
        middle = 0.5 * (panel.edges[1:] + panel.edges[:-1])
        lowest = -np.log(panel.exact.max())
        with np.errstate(divide="ignore"):
            (handles["Exact"],) = axes.plot(middle, -np.log(panel.exact) - lowest, color=REFERENCE)
        for label, sample in panel.samples.items():
            i, seen = labels.index(label), sample.value > 0
            value, error = sample.value[seen], sample.error[seen]
            profile = -np.log(value) - lowest
            # To the same order as the error of the probability, which may be all of it.
            bars = np.minimum(error / value, 1.0)
            style = {"marker": MARKERS[i % 6], "linestyle": "", "markersize": 2.5}
            style |= {"color": color(i)}
            handles[label] = axes.errorbar(middle[seen], profile, yerr=bars, linewidth=0.8, **style)
            few = panel.num_events * panel.exact[seen] < _FEW
            axes.plot(middle[seen][few], profile[few], markerfacecolor="white", zorder=3, **style)
        axes.set(xlim=panel.edges[[0, -1]], ylim=(-0.5, height), xlabel=panel.xlabel)
        axes.set_title(panel.title)
    axes_row[0].set_ylabel("Free energy in $kT$")
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=4)
    return figure


@styled
def chain_traces(
    columns: Mapping[str, Mapping[str, Real[np.ndarray, " _num"]]],
    walls: Mapping[str, float],
) -> Figure:
    """The coordinate x along chains, a column for every target and a row for every chain.

    Args:
      columns: target -> chain -> values at its steps.
      walls: target -> where its regions meet, a dashed line.

    Raises:
      ValueError: if there is nothing to draw.
    """
    rows = list(dict.fromkeys(name for chains in columns.values() for name in chains))
    if not rows:
        raise ValueError("there is nothing to draw: pass at least one chain")
    figure = new_figure(TEXT_WIDTH, 0.6 + 1.15 * len(rows))
    grid = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey="col")
    for column, (target, chains) in enumerate(columns.items()):
        for row, name in enumerate(rows):
            axes = grid[row, column]
            if name not in chains:
                axes.set_axis_off()
                continue
            (line,) = axes.plot(chains[name], ",", color=color(row))
            line.set_rasterized(True)
            axes.axhline(walls[target], color=REFERENCE, linestyle="--", linewidth=0.8)
            title = f"{target}: {name}" if row == 0 else name
            axes.set_title(title, fontsize=8.0, pad=2.0)
            axes.margins(x=0)
        grid[-1, column].set_xlabel("Step")
    for axes in grid[:, 0]:
        axes.set_ylabel("$x$")
    return figure

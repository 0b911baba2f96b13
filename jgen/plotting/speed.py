"""Speed against fidelity: how near samplers come to the truth, and what they cost."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from jgen.plotting.curves import Curve
from jgen.plotting.style import (
    BAND,
    MARKERS,
    REFERENCE,
    TEXT_WIDTH,
    color,
    log_axis,
    new_figure,
    styled,
)


@styled
def quality_grid(
    panels: Mapping[str, Mapping[str, Curve]],
    ylabel: str,
    xlabel: str,
    *,
    truth: float,
    num_columns: int = 4,
) -> Figure:
    """Quality against cost, both logarithmic, a panel for each of many measures.

    Args:
      panels: title -> sampler -> curve; all with the same samplers, which share a legend.
      ylabel: name of the values.
      xlabel: name of the cost, with its unit.
      truth: value of the truth, a dashed line.
      num_columns: panels side by side.
    """
    num_rows = -(-len(panels) // num_columns)
    figure = new_figure(TEXT_WIDTH, 0.7 + 1.55 * num_rows)
    grid = figure.subplots(num_rows, num_columns, sharex=True, squeeze=False)
    handles = {}
    for axes, (title, curves) in zip(grid.flat, panels.items(), strict=False):
        handles["truth"] = axes.axhline(truth, color=REFERENCE, linestyle="--", linewidth=0.8)
        for i, (label, curve) in enumerate(curves.items()):
            order = np.argsort(curve.cost)
            x, y = np.asarray(curve.cost)[order], np.asarray(curve.value)[order]
            if curve.error is not None:
                error = np.asarray(curve.error)[order]
                low = np.maximum(y - error, 1e-3 * y)
                axes.fill_between(x, low, y + error, color=color(i), alpha=0.25, linewidth=0.0)
            (handles[label],) = axes.plot(
                x, y, color=color(i), marker=MARKERS[i % 6], markersize=3.5
            )
        axes.set(xscale="log", yscale="log")
        axes.set_title(title, pad=3)
        log_axis(axes.yaxis)
        axes.yaxis.set_minor_formatter(NullFormatter())
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes in grid.flat[: len(panels)]:
        log_axis(axes.xaxis)
    figure.supxlabel(xlabel, fontsize=9)
    figure.supylabel(ylabel, fontsize=9)
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=5)
    return figure


@styled
def quality_points(
    panels: Mapping[str, Mapping[str, tuple[float, float, float]]],
    ylabel: str,
    xlabel: str,
    truth: Mapping[str, tuple[float, float]],
    num_columns: int = 3,
) -> Figure:
    """Quality against cost, both logarithmic, of models that are a point each.

    Args:
      panels: title -> model -> (cost, value, error); a model has one colour and marker in all.
      ylabel: name of the values.
      xlabel: name of the cost, with its unit.
      truth: title -> (value, error) of the truth, a dashed line with a band.
      num_columns: panels side by side.

    Raises:
      ValueError: if there is no panel.
    """
    if not panels:
        raise ValueError("there is nothing to draw: pass at least one panel")
    num_columns = min(num_columns, len(panels))
    num_rows = -(-len(panels) // num_columns)
    figure = new_figure(TEXT_WIDTH, 0.8 + 1.7 * num_rows)
    grid = figure.subplots(num_rows, num_columns, sharex=True, squeeze=False)
    names = list(dict.fromkeys(name for models in panels.values() for name in models))
    handles = {}
    for axes, (title, models) in zip(grid.flat, panels.items(), strict=False):
        value, error = truth[title]
        axes.axhspan(max(value - error, 0.1 * value), value + error, color=BAND, linewidth=0.0)
        handles["truth"] = axes.axhline(value, color=REFERENCE, linestyle="--", linewidth=0.8)
        for name, (cost, value, error) in models.items():
            i = names.index(name)
            # Colours and markers repeat after six; together they do not.
            handles[name] = axes.errorbar(
                cost,
                value,
                [[min(error, 0.9 * value)], [error]],
                color=color(i),
                marker=MARKERS[(i + i // 6) % 6],
                markersize=4.5,
                linestyle="none",
            )
        axes.set(xscale="log", yscale="log")
        axes.set_title(title, pad=3)
        log_axis(axes.yaxis)
        axes.margins(0.1)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for i, axes in enumerate(grid.flat[: len(panels)]):
        log_axis(axes.xaxis)
        # Where no panel is below, the ticks are labelled here.
        axes.tick_params(labelbottom=i + num_columns >= len(panels))
    figure.supxlabel(xlabel, fontsize=9)
    figure.supylabel(ylabel, fontsize=9)
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=5)
    return figure

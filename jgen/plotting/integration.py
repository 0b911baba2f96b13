"""Importance sampling: distributions of weights, and whether errors of integrals are right."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Real
from matplotlib.figure import Figure
from scipy import stats

from jgen.metrics import histogram
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
def importance_weights(
    panels: Mapping[str, Mapping[str, Real[np.ndarray, " _n"]]],
    *,
    num_columns: int = 4,
    weight_range: tuple[float, float] = (1e-3, 1e3),
) -> Figure:
    """Distributions of weights in units of their mean, on logarithmic axes; perfect ones are one.

    Weights beyond the range, zeros among them, are counted in the outermost bins, which are shaded.

    Args:
      panels: title -> label -> weights [n]; a label has one colour in all of them.
      num_columns: panels side by side.
      weight_range: of the axis.
    """
    low, high = weight_range
    edges = np.geomspace(low, high, 61)
    rows = -(-len(panels) // num_columns)
    figure = new_figure(TEXT_WIDTH, 0.8 + 1.6 * rows)
    grid = figure.subplots(rows, num_columns, sharex=True, sharey=True, squeeze=False)
    labels = list(dict.fromkeys(label for one in panels.values() for label in one))
    smallest, handles = 1.0, {}
    for i, (axes, (title, samples)) in enumerate(zip(grid.flat, panels.items(), strict=False)):
        for end in (edges[:2], edges[-2:]):
            axes.axvspan(*end, color="#e4e4e4", linewidth=0.0, zorder=0)
        axes.axvline(1.0, color=REFERENCE, linewidth=0.6)
        for label, weights in samples.items():
            inside = np.clip(np.abs(weights) / np.abs(weights).mean(), low, 0.999 * high)
            look = {"color": color(labels.index(label)), "baseline": None}
            handles[label] = axes.stairs(histogram(inside, edges).fractions, edges, **look)
            smallest = min(smallest, 1 / len(weights))
        axes.set_title(title, pad=3)
        axes.set(xscale="log", yscale="log", xlim=weight_range)
        log_axis(axes.xaxis)
        axes.tick_params(labelbottom=i + num_columns >= len(panels))
    grid[0, 0].set_ylim(0.5 * smallest, 2)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    figure.supxlabel(r"Weight $w / \langle w \rangle$", fontsize=9)
    figure.supylabel("Fraction of points", fontsize=9)
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=4)
    return figure


@styled
def pull_quantiles(
    pulls: Mapping[str, Real[np.ndarray, " _n"]], *, level: float = 0.95, num_columns: int = 4
) -> Figure:
    """Sorted pulls against quantiles of a normal distribution, which shows tails as a sum does not.

    The band holds each of the sorted pulls with probability `level` where they are normal.

    Args:
      pulls: title -> (estimate - exact) / error of repetitions [n].
      level: of the band.
      num_columns: panels side by side.
    """
    rows = -(-len(pulls) // num_columns)
    figure = new_figure(TEXT_WIDTH, 0.6 + 1.7 * rows)
    grid = figure.subplots(rows, num_columns, sharex=True, sharey=True, squeeze=False)
    reach = 1.1 * max(3.0, *(np.abs(values).max() for values in pulls.values()))
    for i, (axes, (title, values)) in enumerate(zip(grid.flat, pulls.items(), strict=False)):
        num, rank = len(values), np.arange(1, len(values) + 1)
        x = stats.norm.ppf((rank - 0.5) / num)
        # The k-th of n uniform numbers follows Beta(k, n + 1 - k).
        ends = (stats.beta.ppf(p, rank, num + 1 - rank) for p in (0.5 - level / 2, 0.5 + level / 2))
        axes.fill_between(x, *map(stats.norm.ppf, ends), color=BAND, linewidth=0.0)
        axes.plot([-reach, reach], [-reach, reach], color=REFERENCE, linewidth=0.8)
        look = {"color": color(0), "marker": MARKERS[0], "markersize": 2, "linestyle": "none"}
        axes.plot(x, np.sort(values), **look)
        axes.set_title(title, pad=3)
        axes.set(xlim=(-3, 3), ylim=(-reach, reach))
        axes.tick_params(labelbottom=i + num_columns >= len(pulls))
    for axes in grid.flat[len(pulls) :]:
        axes.set_visible(False)
    figure.supxlabel("Quantile of a normal distribution", fontsize=9)
    figure.supylabel("(Integral $-$ exact) / error", fontsize=9)
    return figure

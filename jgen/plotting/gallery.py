"""Samples of many models of many data sets beside the truth, on one page."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Real
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from jgen.metrics import histogram
from jgen.plotting.histograms import Panel, band, fraction_ratio, mark_outside
from jgen.plotting.style import (
    BAND,
    ENERGY_MAP,
    REFERENCE,
    TEXT_WIDTH,
    color,
    new_figure,
    ratio_axis,
    styled,
)


class Plane(NamedTuple):
    """Events of two numbers, drawn as a histogram with the colours of the truth's.

    Attributes:
      truth: events [n, 2].
      edges: bin edges of both.
    """

    truth: Real[np.ndarray, "n 2"]
    edges: tuple[Real[np.ndarray, " x"], Real[np.ndarray, " y"]]


class Line(NamedTuple):
    """One observable, drawn as a histogram on that of the truth, with the ratio.

    Attributes:
      truth: values [n].
      edges: bin edges.
      xlabel: name of the observable with its unit.
    """

    truth: Real[np.ndarray, " n"]
    edges: Real[np.ndarray, " num_edges"]
    xlabel: str


class Images(NamedTuple):
    """Pictures, of which the first twelve are drawn, dark where they are large.

    Attributes:
      truth: [12 or more, y, x].
    """

    truth: Real[np.ndarray, "n y x"]


View = Plane | Line | Images
# Pictures in a cell, down and across.
_MOSAIC = 3, 4


@styled
def sample_gallery(
    views: Mapping[str, View], samples: Mapping[str, Mapping[str, Real[np.ndarray, "..."]]]
) -> Figure:
    """A row for the truth and one for each model, a column for each data set.

    Histograms are of fractions of all events, also of those outside the edges, so that samples may
    have any size; bands are statistical. Ratios go from 0.5 to 1.5. The truth is grey and black,
    models are blue.

    Args:
      views: data set -> its truth, and how it is drawn.
      samples: model -> data set -> events, of the shape of the truth's; a cell without stays empty.

    Raises:
      ValueError: if there is nothing to draw, or samples are of a data set without a view.
    """
    if not views:
        raise ValueError("there is nothing to draw: pass at least one view")
    if unknown := {d for of in samples.values() for d in of} - set(views):
        raise ValueError(f"no view of {', '.join(sorted(unknown))}; there are {', '.join(views)}")
    rows = {"truth": {name: view.truth for name, view in views.items()}, **samples}
    width = min(TEXT_WIDTH, 0.4 + 1.32 * len(views))
    figure = new_figure(width, 0.4 + 0.98 * len(rows))
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.0, wspace=0.02, hspace=0.0)
    # The third of each three is a gap.
    grid = figure.add_gridspec(3 * len(rows), len(views), height_ratios=(3, 1, 0.25) * len(rows))
    for i, (label, of) in enumerate(rows.items()):
        for j, (name, view) in enumerate(views.items()):
            whole, last = grid[3 * i : 3 * i + 2, j], i == len(rows) - 1
            if isinstance(view, Line):
                axes = figure.add_subplot(grid[3 * i, j])
                ratio = figure.add_subplot(grid[3 * i + 1, j], sharex=axes)
                _draw_line((axes, ratio), view, of.get(name), i == 0, last)
            else:
                axes = figure.add_subplot(whole)
                draw = _draw_plane if isinstance(view, Plane) else _draw_images
                draw(axes, view, of.get(name))
                axes.set(xticks=[], yticks=[])
                axes.minorticks_off()
            if i == 0:
                axes.set_title(name, fontsize=8.0, pad=3)
            if j == 0:
                axes.set_ylabel(label, fontsize=8.0)
    return figure


def _draw_plane(axes, view, events):
    counts = lambda events: np.histogramdd(np.asarray(events), view.edges)[0].T / len(events)
    norm = PowerNorm(0.5, 0.0, counts(view.truth).max(), clip=True)
    extent = (*view.edges[0][[0, -1]], *view.edges[1][[0, -1]])
    if events is not None:
        picture = {"origin": "lower", "extent": extent, "aspect": "equal", "cmap": ENERGY_MAP}
        axes.imshow(counts(events), norm=norm, **picture)


def _draw_line(axes, view, values, is_truth, is_last):
    """As `ratio_histogram`, on a panel too small for words."""
    main, ratio = axes
    panel = Panel(view.edges, view.truth, {}, view.xlabel, ratio_range=(0.5, 1.5))
    truth = histogram(view.truth, view.edges)
    band(main, view.edges, truth.fractions, truth.fraction_errors, BAND, alpha=1.0)
    main.stairs(truth.fractions, view.edges, color=REFERENCE, linewidth=0.9)
    band(ratio, view.edges, *fraction_ratio(truth, truth), BAND, alpha=1.0)
    ratio.axhline(1.0, color=REFERENCE, linewidth=0.6)
    top = truth.fractions.max()
    if values is not None and not is_truth:
        sample = histogram(values, view.edges)
        main.stairs(sample.fractions, view.edges, color=color(0), linewidth=0.9, baseline=None)
        relative, error = fraction_ratio(truth, sample)
        band(ratio, view.edges, relative, error, color(0), alpha=0.25)
        ratio.stairs(relative, view.edges, color=color(0), linewidth=0.9, baseline=None)
        mark_outside(ratio, panel, relative, color(0))
        top = max(top, sample.fractions.max())
    main.set(xlim=view.edges[[0, -1]], ylim=(0.0, 1.15 * top), yticks=[])
    main.minorticks_off()
    main.tick_params(labelbottom=False)
    ratio_axis(ratio.yaxis, panel.ratio_range)
    ratio.tick_params(labelsize=5.5, pad=1.5, labelbottom=is_last)
    ratio.tick_params(which="minor", left=False, right=False)
    ratio.set_xlabel(view.xlabel if is_last else "", fontsize=7.0, labelpad=1.5)


def _draw_images(axes, view, images):
    if images is None:
        return
    down, across = _MOSAIC
    images = np.asarray(images[: down * across], float)
    if images.ndim != 3 or len(images) < down * across:
        raise ValueError(
            f"images need the shape [{down * across} or more, y, x], got {images.shape}"
        )
    # A line between them.
    low, high = view.truth.min(), view.truth.max()
    images = np.pad(images, ((0, 0), (0, 1), (0, 1)), constant_values=low + 0.25 * (high - low))
    _, height, width = images.shape
    tiles = images.reshape(down, across, height, width).swapaxes(1, 2)
    mosaic = tiles.reshape(down * height, across * width)[:-1, :-1]
    axes.imshow(mosaic, cmap="Greys", vmin=low, vmax=high, aspect="equal")

"""Histograms of a truth and of samples, with statistical bands and ratio panels."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Real
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jgen.metrics import Histogram, histogram
from jgen.plotting.style import (
    BAND,
    REFERENCE,
    TEXT_WIDTH,
    color,
    linear_axis,
    log_axis,
    new_figure,
    ratio_axis,
    stack_panels,
    styled,
)

# Height of a line of small print in points.
_LINE = 7.5


class Panel(NamedTuple):
    """One observable.

    Attributes:
      edges: bin edges [num_bins + 1].
      reference: values of the truth [n].
      samples: label -> values [m] of what is compared with it, of any sizes.
      xlabel: name of the observable with its unit.
      log_x: logarithmic horizontal axis, for logarithmic bins.
      log_y: logarithmic vertical axis.
      ratio_range: limits of the ratio panel; ratios beyond are marked at its border.
      reference_label: name of the truth.
    """

    edges: Real[np.ndarray, " num_edges"]
    reference: Real[np.ndarray, " n"]
    samples: Mapping[str, Real[np.ndarray, " m"]]
    xlabel: str
    log_x: bool = False
    log_y: bool = False
    ratio_range: tuple[float, float] = (0.5, 1.5)
    reference_label: str = "Geant4"


@styled
def ratio_histogram(axes: tuple[Axes, Axes], panel: Panel) -> None:
    """Draw a panel on (histogram, ratio) axes that share their horizontal axis.

    Contents are fractions of all entries, also of those outside the edges, so that a wrong rate
    of these shows; their fractions are written into the panel where they are not zero. Bands
    are Poisson errors, in the ratio panel those of truth and sample apart.
    """
    main, ratio = axes
    reference = histogram(panel.reference, panel.edges)
    samples = {label: histogram(values, panel.edges) for label, values in panel.samples.items()}

    band(main, panel.edges, reference.fractions, reference.fraction_errors, BAND, alpha=1.0)
    main.stairs(reference.fractions, panel.edges, color=REFERENCE, label=panel.reference_label)
    relative, relative_error = fraction_ratio(reference, reference)
    band(ratio, panel.edges, relative, relative_error, BAND, alpha=1.0)
    ratio.axhline(1.0, color=REFERENCE, linewidth=0.8)
    for i, (label, sample) in enumerate(samples.items()):
        main.stairs(sample.fractions, panel.edges, color=color(i), label=label, baseline=None)
        relative, relative_error = fraction_ratio(sample, reference)
        band(ratio, panel.edges, relative, relative_error, color(i), alpha=0.25)
        ratio.stairs(relative, panel.edges, color=color(i), baseline=None)
        mark_outside(ratio, panel, relative, color(i))

    used = write_outside(main, reference, samples)
    decorate(main, ratio, panel, [reference, *samples.values()], 0.05 + used)


def panel_grid(
    panels: Sequence[Panel],
    draw: Callable[[tuple[Axes, Axes], Panel], None],
    num_columns: int = 3,
) -> Figure:
    """A page of panels, each drawn on its (histogram, ratio) axes; no legend.

    Raises:
      ValueError: if there is no panel.
    """
    if not panels:
        raise ValueError("there is nothing to draw: pass at least one Panel")
    num_columns = min(num_columns, len(panels))
    num_rows = -(-len(panels) // num_columns)
    width = TEXT_WIDTH if num_columns > 1 else 0.55 * TEXT_WIDTH
    figure = new_figure(width, 0.5 + num_rows * width / num_columns * 0.95)
    stack_panels(figure)
    # The third row of each three is a gap between an axis label and the next panel.
    grid = figure.add_gridspec(3 * num_rows, num_columns, height_ratios=(3, 1, 0.1) * num_rows)
    for i, panel in enumerate(panels):
        row, column = divmod(i, num_columns)
        main = figure.add_subplot(grid[3 * row, column])
        ratio = figure.add_subplot(grid[3 * row + 1, column], sharex=main)
        draw((main, ratio), panel)
        if column == 0:
            main.set_ylabel("Fraction of entries")
            ratio.set_ylabel("Ratio")
    figure.align_ylabels()
    return figure


@styled
def histogram_grid(panels: Sequence[Panel], num_columns: int = 3) -> Figure:
    """A page of panels with a shared legend above them; one panel gives a single plot.

    Raises:
      ValueError: if there is no panel.
    """
    figure = panel_grid(panels, ratio_histogram, num_columns)
    # In the order of first appearance, each name once, panels may differ in what they show.
    handles = {}
    for panel in panels:
        handles.setdefault(
            panel.reference_label, Patch(facecolor=BAND, edgecolor=REFERENCE, linewidth=1.3)
        )
        for k, label in enumerate(panel.samples):
            handles.setdefault(label, Patch(facecolor="none", edgecolor=color(k), linewidth=1.3))
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper center", ncols=min(4, len(handles))
    )
    return figure


def fraction_ratio(sample: Histogram, reference: Histogram):
    """Ratio of fractions and its error from `sample` alone; NaN where the reference is empty."""
    filled = reference.fractions > 0
    denominator = np.where(filled, reference.fractions, np.nan)
    return sample.fractions / denominator, sample.fraction_errors / denominator


def band(axes, edges, center, error, facecolor, alpha):
    """Fill the bins between center - error, at least zero, and center + error."""
    axes.stairs(
        center + error,
        edges,
        baseline=np.maximum(center - error, 0.0),
        fill=True,
        facecolor=facecolor,
        alpha=alpha,
        linewidth=0.0,
    )


def mark_outside(axes, panel, ratio, marker_color):
    """Small triangles at the border where a ratio leaves the panel."""
    low, high = panel.ratio_range
    center = np.sqrt(panel.edges[1:] * panel.edges[:-1]) if panel.log_x else _middle(panel.edges)
    for outside, border, marker in ((ratio > high, high, "^"), (ratio < low, low, "v")):
        (marks,) = axes.plot(
            center[outside],
            np.full(outside.sum(), border),
            marker,
            color=marker_color,
            markersize=3.0,
            clip_on=False,
            zorder=5,
        )
        marks.set_in_layout(False)


def _middle(edges):
    return 0.5 * (edges[1:] + edges[:-1])


def decorate(main, ratio, panel, histograms, head_room):
    """Limits, scales and ticks; the curves stay below `head_room`, a fraction of the panel."""
    if panel.log_x:
        main.set_xscale("log")
    main.set_xlim(panel.edges[0], panel.edges[-1])
    if panel.log_x:
        log_axis(main.xaxis)
    top = max(h.fractions.max() for h in histograms)
    if panel.log_y and top > 0:
        # Four tenths: half of one event in a round number would be a decade, with a label there.
        bottom = 0.4 * min(
            h.fractions[h.fractions > 0].min() for h in histograms if h.fractions.any()
        )
        main.set_yscale("log")
        main.set_ylim(bottom, bottom * (2 * top / bottom) ** (1 / (1 - head_room)))
    elif top > 0:
        main.set_ylim(0.0, 1.05 * top / (1 - head_room))
        linear_axis(main.yaxis)
    main.tick_params(labelbottom=False)
    ratio_axis(ratio.yaxis, panel.ratio_range)
    ratio.set_xlabel(panel.xlabel)


def write_outside(axes, reference, samples):
    """Write fractions beyond the edges at their side; return the fraction of the panel used."""
    height = 72 * axes.get_position().height * axes.get_figure(root=True).get_figheight()
    line = _LINE / height
    used = 0.0
    for side, x, alignment in ((0, 0.03, "left"), (1, 0.97, "right")):
        shown = [(REFERENCE, reference.outside[side])]
        shown += [(color(i), sample.outside[side]) for i, sample in enumerate(samples.values())]
        if not any(fraction > 0 for _, fraction in shown):
            continue
        heading = "underflow" if side == 0 else "overflow"
        style = {"transform": axes.transAxes, "ha": alignment, "va": "top", "fontsize": 6.0}
        axes.text(x, 0.97, heading, color="#777777", **style)
        for i, (text_color, fraction) in enumerate(shown):
            axes.text(x, 0.97 - line * (i + 1), _percent(fraction), color=text_color, **style)
        used = line * (1 + len(shown))
    return used


def _percent(fraction):
    if 0 < fraction < 1e-4:
        return "< 0.01 %"
    return f"{100 * fraction:.0f} %" if fraction >= 0.0995 else f"{100 * fraction:.2g} %"

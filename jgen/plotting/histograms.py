"""Histograms of a truth and of samples, with statistical bands and ratio panels."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

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


class Weighted(NamedTuple):
    """Values with a weight each, of any sign.

    Attributes:
      values: [n].
      weights: [n].
    """

    values: Real[np.ndarray, " n"]
    weights: Real[np.ndarray, " n"]


Content = Any
"""Values [n], `Weighted` values, or a filled histogram of one axis: `jgen.metrics.Histogram`, or a
`hist.Hist` or whatever else has `axes`, `values()` and `variances()`."""


class Panel(NamedTuple):
    """One observable.

    Attributes:
      edges: bin edges [num_bins + 1], also of histograms that are filled already.
      reference: values of the truth [n], or other `Content`.
      samples: label -> what is compared with it, of any sizes.
      xlabel: name of the observable with its unit.
      log_x: logarithmic horizontal axis, for logarithmic bins.
      log_y: logarithmic vertical axis.
      ratio_range: limits of the ratio panel, chosen from the ratios where it is None; ratios
        beyond are marked at its border.
      reference_label: name of the truth.
      names: of the bins, where they are not ranges of numbers; all or none.
    """

    edges: Real[np.ndarray, " num_edges"]
    reference: Content
    samples: Mapping[str, Content]
    xlabel: str
    log_x: bool = False
    log_y: bool = False
    ratio_range: tuple[float, float] | None = None
    reference_label: str = "Truth"
    names: Sequence[str] = ()


def as_histogram(content: Content, edges: Real[np.ndarray, " num_edges"]) -> Histogram:
    """Fill a histogram, or take one that is filled.

    Raises:
      ValueError: if a filled histogram has other edges or more than one axis.
    """
    if isinstance(content, Weighted):
        return histogram(content.values, edges, content.weights)
    if not isinstance(content, Histogram) and not hasattr(content, "variances"):
        return histogram(content, edges)
    filled = content if isinstance(content, Histogram) else _from_plottable(content)
    if filled.edges.shape != np.shape(edges) or not np.allclose(filled.edges, edges):
        raise ValueError(
            f"a histogram is filled in {len(filled.edges) - 1} bins from {filled.edges[0]} to "
            f"{filled.edges[-1]}, but the panel has {len(edges) - 1} from {edges[0]} to {edges[-1]}"
        )
    return filled


def _from_plottable(filled: Any) -> Histogram:
    if len(filled.axes) != 1:
        raise ValueError(f"a histogram needs one axis, got {len(filled.axes)}: project it first")
    edges = np.asarray(filled.axes[0].edges, np.float64)
    counts = np.asarray(filled.values(), np.float64)
    variances = filled.variances()
    variances = counts if variances is None else np.asarray(variances, np.float64)
    try:
        flow = np.asarray(filled.values(flow=True), np.float64)
    except TypeError:  # not all that can be plotted counts what is outside
        flow = counts
    outside = (flow[0], flow[-1]) if len(flow) == len(counts) + 2 else (0.0, 0.0)
    return Histogram(edges, counts, variances, *map(float, outside))


def populated(panel: Panel) -> tuple[Panel, Histogram, dict[str, Histogram]]:
    """The panel, the reference and the samples without bins at the ends where hardly anything is.

    A bin stays if a histogram has more than 0.1 % of its entries at it and beyond, or on a
    logarithmic vertical axis, where tails are what is looked at, anything at all. What is cut off
    counts as underflow and overflow.
    """
    full = {label: as_histogram(content, panel.edges) for label, content in panel.samples.items()}
    reference = as_histogram(panel.reference, panel.edges)
    least = 0.0 if panel.log_y else 1e-3
    num = len(reference.counts)
    first, last = num - 1, 0
    for one in (reference, *full.values()):
        shares = np.abs(one.counts) / (np.abs(one.counts).sum() or 1.0)
        first = min(first, int(np.argmax(np.cumsum(shares) > least)))
        last = max(last, num - 1 - int(np.argmax(np.cumsum(shares[::-1]) > least)))
    if first > last:
        first, last = 0, num - 1
    cut = lambda one: Histogram(
        one.edges[first : last + 2],
        one.counts[first : last + 1],
        one.variances[first : last + 1],
        one.underflow + float(one.counts[:first].sum()),
        one.overflow + float(one.counts[last + 1 :].sum()),
    )
    samples = {label: cut(one) for label, one in full.items()}
    kept = {"edges": panel.edges[first : last + 2], "names": panel.names[first : last + 1]}
    return panel._replace(**kept), cut(reference), samples


@styled
def ratio_histogram(axes: tuple[Axes, Axes], panel: Panel) -> None:
    """Draw a panel on (histogram, ratio) axes that share their horizontal axis.

    Contents are fractions of all entries, also of those outside the edges, so that a wrong rate
    of these shows; their fractions are written into the panel where they are not zero. Bands
    are Poisson errors, in the ratio panel those of truth and sample apart. Ends of the axis where
    hardly anything is are cut off, and ratios to fewer than four entries are not drawn.
    """
    main, ratio = axes
    panel, reference, samples = populated(panel)
    ratios = {label: fraction_ratio(reference, sample) for label, sample in samples.items()}
    panel = panel._replace(ratio_range=panel.ratio_range or ratio_limits(ratios.values()))

    band(main, panel.edges, reference.fractions, reference.fraction_errors, BAND, alpha=1.0)
    main.stairs(reference.fractions, panel.edges, color=REFERENCE, label=panel.reference_label)
    band(ratio, panel.edges, *fraction_ratio(reference, reference), BAND, alpha=1.0)
    ratio.axhline(1.0, color=REFERENCE, linewidth=0.8)
    for i, (label, sample) in enumerate(samples.items()):
        main.stairs(sample.fractions, panel.edges, color=color(i), label=label, baseline=None)
        relative, relative_error = ratios[label]
        band(ratio, panel.edges, relative, relative_error, color(i), alpha=0.25)
        ratio.stairs(relative, panel.edges, color=color(i), baseline=None)
        mark_outside(ratio, panel, relative, color(i))

    used = write_outside(main, reference, samples)
    decorate(main, ratio, panel, [reference, *samples.values()], 0.05 + used)


def ratio_limits(ratios: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """The narrowest limits of a ratio panel that hold nine tenths of the ratios, errors included.

    Beyond (0, 2) they span decades, and the axis is to be logarithmic.
    """
    pairs = [np.stack(pair) for pair in ratios]
    value, error = np.concatenate(pairs, axis=1) if pairs else np.ones((2, 1))
    value, error = value[np.isfinite(value)], error[np.isfinite(value)]
    if not len(value):
        return (0.0, 2.0)
    for half in (0.1, 0.2, 0.5, 1.0):
        if np.mean(np.abs(value - 1) + error <= half) >= 0.9:
            return (1 - half, 1 + half)
    filled = np.abs(np.log10(value[value > 0]))
    if not len(filled) or (np.mean(value <= 2) >= 0.9 and np.mean(value < 0.2) < 0.5):
        return (0.0, 2.0)
    for decades in (1, 2):
        if np.mean(filled <= decades) >= 0.9:
            return (10.0**-decades, 10.0**decades)
    return (1e-3, 1e3)


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


def fraction_ratio(reference: Histogram, sample: Histogram):
    """Ratio of fractions, sample over reference, and its error from `sample` alone.

    NaN where the reference has fewer than four entries (of equal weight; else as many as its
    relative error says) and a ratio would be noise.
    """
    filled = (reference.counts > 0) & (reference.counts**2 >= 4 * reference.variances)
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
    # An empty bin is not drawn at all, and needs no mark on a logarithmic axis.
    ratio = np.where(ratio > 0, ratio, np.nan)
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
    if panel.names:
        ratio.set_xticks(_middle(panel.edges), panel.names)
        ratio.set_xticks([], minor=True)
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

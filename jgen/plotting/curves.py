"""Curves: quality against what it costs, and losses in training."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Real
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from jgen.estimate import Estimate
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

Scalar = float | Float[np.ndarray, ""]


class Curve(NamedTuple):
    """Quality of one model or sampler at one or more costs; a single one is drawn as a point.

    Attributes:
      cost: of an event, network evaluations or a time [points].
      value: an error, a distance or an AUC [points].
      error: its error [points], drawn as a band, of a single point as a bar; None for none.
    """

    cost: Real[np.ndarray, " points"]
    value: Real[np.ndarray, " points"]
    error: Real[np.ndarray, " points"] | None = None

    @classmethod
    def of(cls, costs: Sequence[float], values: Sequence[Estimate | Scalar]) -> "Curve":
        """A curve of numbers or of estimates, which have errors, one a cost."""
        values = list(values)
        if not all(isinstance(value, Estimate) for value in values):
            numbers = [v.value if isinstance(v, Estimate) else float(v) for v in values]
            return cls(np.array(costs, np.float64), np.array(numbers))
        return cls(np.array(costs, np.float64), *np.array(values, np.float64).T)


Truth = Estimate | tuple[float, float] | float


@styled
def quality_curves(
    panels: Mapping[str, Curve] | Mapping[str, Mapping[str, Curve]],
    ylabel: str,
    *,
    xlabel: str = r"Network evaluations $n_\mathrm{eval}$",
    truth: Truth | Mapping[str, Truth] | None = None,
    log_y: bool = False,
    num_columns: int = 3,
) -> Figure:
    """Quality against cost, one curve a model (arXiv:2405.09629, Fig. 9, has n_eval).

    Args:
      panels: model -> curve, or title -> model -> curve for a panel each; a model has one colour
        and one marker in all of them.
      ylabel: name of the value, with its unit.
      xlabel: name of the cost, with its unit; its axis is logarithmic.
      truth: of truth against truth, of all panels or title -> truth: a dashed line, and a grey band
        where it has an error.
      log_y: logarithmic vertical axis.
      num_columns: panels side by side.

    Raises:
      ValueError: if there is nothing to draw.
    """
    if not panels:
        raise ValueError("there is nothing to draw: pass at least one curve")
    if isinstance(next(iter(panels.values())), Curve):
        panels = {"": panels}
    num_columns = min(num_columns, len(panels))
    num_rows = -(-len(panels) // num_columns)
    size = (0.6 * TEXT_WIDTH, 3.2) if len(panels) == 1 else (TEXT_WIDTH, 0.8 + 1.7 * num_rows)
    figure = new_figure(*size)
    grid = figure.subplots(num_rows, num_columns, sharex=True, squeeze=False)
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    costs = np.concatenate([c.cost for curves in panels.values() for c in curves.values()])
    handles = {}
    for i, (axes, (title, curves)) in enumerate(zip(grid.flat, panels.items(), strict=False)):
        own = truth.get(title) if isinstance(truth, Mapping) else truth
        if own is not None:
            handles["Truth"] = _draw_truth(axes, own, log_y)
        for name, curve in curves.items():
            handles[name] = _draw_curve(axes, curve, names.index(name), log_y)
        axes.set_title(title, pad=3)
        axes.margins(0.1)
        if log_y:
            axes.set_yscale("log")
            log_axis(axes.yaxis)
            axes.yaxis.set_minor_formatter(NullFormatter())
        # Where no panel is below, the ticks are labelled here.
        axes.tick_params(labelbottom=i + num_columns >= len(panels))
    for axes in grid.flat[: len(panels)]:
        _cost_axis(axes, costs)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    if len(panels) == 1:
        axes = grid[0, 0]
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.legend(handles.values(), handles.keys())
        return figure
    figure.supxlabel(xlabel, fontsize=9)
    figure.supylabel(ylabel, fontsize=9)
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=5)
    return figure


def _draw_truth(axes: Axes, truth: Truth, log_y: bool):
    value, error = truth if isinstance(truth, tuple) else (truth, 0.0)
    if error:
        low = max(value - error, 0.1 * value) if log_y else value - error
        axes.axhspan(low, value + error, color=BAND, linewidth=0.0)
    return axes.axhline(value, color=REFERENCE, linestyle="--", linewidth=0.8)


def _draw_curve(axes: Axes, curve: Curve, i: int, log_y: bool):
    order = np.argsort(np.atleast_1d(curve.cost))
    x, y = (np.atleast_1d(a)[order] for a in (curve.cost, curve.value))
    look = {"color": color(i), "marker": MARKERS[i % len(MARKERS)]}
    error = np.zeros_like(y) if curve.error is None else np.atleast_1d(curve.error)[order]
    low = np.minimum(error, 0.9 * y) if log_y else error
    if len(x) == 1:
        return axes.errorbar(x, y, [low, error], markersize=4.5, linestyle="none", **look)
    if curve.error is not None:
        axes.fill_between(x, y - low, y + error, color=color(i), alpha=0.25, linewidth=0.0)
    return axes.plot(x, y, markersize=3.5, **look)[0]


def _cost_axis(axes: Axes, costs: np.ndarray) -> None:
    """Powers of two for numbers of evaluations, powers of ten for all else."""
    whole = np.all(costs == np.round(costs)) and costs.min() >= 1 and costs.max() <= 4096
    if not whole:
        axes.set_xscale("log")
        log_axis(axes.xaxis)
        return
    axes.set_xscale("log", base=2)
    ends = np.floor(np.log2(costs.min())), np.ceil(np.log2(costs.max()))
    axes.set_xticks(2 ** np.arange(ends[0], ends[1] + 1))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


@styled
def training_curves(
    trainings: Mapping[str, Sequence[Mapping[str, Any]]], *, log_y: bool = False
) -> Figure:
    """Loss and, where there is one, validation loss against the step, a panel a network.

    A record, one line of a `metrics.jsonl` or of `Fitted.history`, is {"step": 100, "loss": ...}
    with a number or one number a member of an ensemble; members are thin lines and their mean is a
    thick one.

    Args:
      trainings: network -> its records.
      log_y: logarithmic vertical axis.

    Raises:
      ValueError: if there is no training, or one without a loss.
    """
    if not trainings:
        raise ValueError("there is nothing to draw: pass at least one training")
    one = len(trainings) == 1
    figure = new_figure(0.6 * TEXT_WIDTH if one else TEXT_WIDTH, 3.0)
    grid = figure.subplots(1, len(trainings), squeeze=False)[0]
    for axes, (network, records) in zip(grid, trainings.items(), strict=True):
        if not any("loss" in r for r in records):
            raise ValueError(f"no record of {network!r} has a loss, of {len(records)} records")
        _draw_losses(axes, records, "loss", "Training", REFERENCE)
        _draw_losses(axes, records, "validation_loss", "Validation", color(1))
        if log_y:
            axes.set_yscale("log")
        axes.set_title(network, pad=3)
        axes.set(xlabel="Training step")
        axes.margins(x=0)
        axes.legend()
    grid[0].set_ylabel("Loss")
    return figure


def _draw_losses(axes: Axes, records: Sequence, name: str, label: str, line_color: str) -> None:
    rows = [r for r in records if name in r]
    if not rows:
        return
    steps = np.array([r["step"] for r in rows])
    values = np.array([np.atleast_1d(r[name]) for r in rows], dtype=np.float64)
    if values.shape[1] > 1:
        axes.plot(steps, values, color=line_color, alpha=0.3, linewidth=0.5)
    axes.plot(steps, values.mean(axis=1), color=line_color, label=label)

"""Curves: quality against what it costs, and losses in training."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Real
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from jgen.plotting.style import BAND, MARKERS, REFERENCE, TEXT_WIDTH, color, new_figure, styled


class Curve(NamedTuple):
    """One solver.

    Attributes:
      cost: of an event, network evaluations or a time [points].
      value: an error or an AUC [points].
      error: its error [points], drawn as a band; None for no band.
    """

    cost: Real[np.ndarray, " points"]
    value: Real[np.ndarray, " points"]
    error: Real[np.ndarray, " points"] | None = None


@styled
def quality_curves(
    curves: Mapping[str, Curve],
    ylabel: str,
    *,
    xlabel: str = r"Network evaluations $n_\mathrm{eval}$",
    truth: tuple[float, float] | None = None,
    log_y: bool = False,
) -> Figure:
    """Quality against cost, one curve a solver (arXiv:2405.09629, Fig. 9, has n_eval).

    Args:
      curves: solver -> curve.
      ylabel: name of the value, with its unit.
      xlabel: name of the cost, with its unit.
      truth: (value, error) of truth against truth, a grey band.
      log_y: logarithmic vertical axis.
    """
    figure = new_figure(0.6 * TEXT_WIDTH, 3.2)
    axes = figure.subplots()
    if truth is not None:
        axes.axhspan(truth[0] - truth[1], truth[0] + truth[1], color=BAND, linewidth=0.0)
        axes.axhline(truth[0], color=REFERENCE, linestyle="--", linewidth=0.8, label="Truth")
    for i, (label, curve) in enumerate(curves.items()):
        order = np.argsort(curve.cost)
        x, y = np.asarray(curve.cost)[order], np.asarray(curve.value)[order]
        if curve.error is not None:
            error = np.asarray(curve.error)[order]
            axes.fill_between(x, y - error, y + error, color=color(i), alpha=0.25, linewidth=0.0)
        axes.plot(x, y, color=color(i), marker=MARKERS[i % 6], markersize=3.5, label=label)
    ticks = np.unique(np.concatenate([c.cost for c in curves.values()]))
    axes.set_xscale("log", base=2)
    # Powers of two between the smallest and the largest number are enough to read.
    powers = 2 ** np.arange(np.floor(np.log2(ticks[0])), np.ceil(np.log2(ticks[-1])) + 1)
    axes.set_xticks(powers)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    if log_y:
        axes.set_yscale("log")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.legend()
    return figure


@styled
def training_curves(
    records: Sequence[Mapping[str, Any]],
    names: Sequence[str] = ("loss",),
    *,
    log_y: bool = False,
) -> Figure:
    """Metrics against the training step, from the records of a run's `metrics.jsonl`.

    A record is {"step": 100, "loss": ...} with a number or one number a member of an ensemble;
    members are thin lines and their mean is a thick one. Records without a name are skipped for it.

    Raises:
      ValueError: if no record has one of the names.
    """
    figure = new_figure(0.6 * TEXT_WIDTH, 3.2)
    axes = figure.subplots()
    for i, name in enumerate(names):
        found = [r for r in records if name in r]
        if not found:
            known = sorted({key for r in records for key in r} - {"step"})
            raise ValueError(f"no record has the metric {name!r}; there are {known}")
        steps = np.array([r["step"] for r in found])
        values = np.array([np.atleast_1d(r[name]) for r in found], dtype=np.float64)
        if values.shape[1] > 1:
            axes.plot(steps, values, color=color(i), alpha=0.3, linewidth=0.5)
        axes.plot(steps, values.mean(axis=1), color=color(i), label=name)
    if log_y:
        axes.set_yscale("log")
    axes.set(xlabel="Training step", ylabel=names[0] if len(names) == 1 else "Value")
    axes.margins(x=0)
    if len(names) > 1:
        axes.legend()
    return figure

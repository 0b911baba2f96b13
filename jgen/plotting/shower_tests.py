"""Figures of an evaluation: energy response, effect of a threshold, and all numbers at a glance."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jgen.estimate import flatten
from jgen.plotting.histograms import Panel, band, histogram_grid
from jgen.plotting.shower_labels import observable_label
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
from jgen.showers import (
    Geometry,
    ResponseTest,
    Showers,
    apply_threshold,
    judged_observables,
    official_binning,
)

_HALF_RANGE = {"mean": 0.05, "resolution": 0.5}


@styled
def response_figure(
    test: ResponseTest, *, reference_label: str = "Geant4", generated_label: str = "Generated"
) -> Figure:
    """Mean and relative width of E_tot / E_inc against the incident energy, with ratios.

    Bands are standard errors, in the ratio panel those of reference and generated apart. The
    chi-squares over the bins and the p-values of `response_test` are written into the panels.
    """
    figure = new_figure(TEXT_WIDTH, 3.4)
    stack_panels(figure)
    grid = figure.add_gridspec(2, 2, height_ratios=(3, 1))
    titles = {
        "mean": r"Mean of $E_\mathrm{tot}/E_\mathrm{inc}$",
        "resolution": r"Relative width of $E_\mathrm{tot}/E_\mathrm{inc}$",
    }
    for column, (name, title) in enumerate(titles.items()):
        main = figure.add_subplot(grid[0, column])
        ratio = figure.add_subplot(grid[1, column], sharex=main)
        _draw_response(main, ratio, test, name, (reference_label, generated_label))
        main.set_ylabel(title)
        ratio.set_ylabel("Ratio")
        numbers = test.numbers
        text = (
            rf"$\chi^2$ = {numbers[f'{name}_chi2']:.1f} in {numbers['bins']:.0f} bins, "
            f"p = {numbers[f'{name}_p']:.2g}"
        )
        if name == "resolution":
            text += f"\ntails of the pulls: p = {numbers['tails_p']:.2g}"
        main.text(0.04, 0.05, text, transform=main.transAxes, fontsize=7.0, va="bottom")
        main.legend(loc="upper right")
    figure.align_ylabels()
    return figure


def _draw_response(main: Axes, ratio: Axes, test: ResponseTest, name: str, labels) -> None:
    gev = test.edges / 1e3
    true = getattr(test.reference, name)
    tops, bottoms = [], []
    for i, (profile, label) in enumerate(
        zip((test.reference, test.generated), labels, strict=True)
    ):
        value, error = getattr(profile, name), getattr(profile, f"{name}_error")
        line, face, alpha = (REFERENCE, BAND, 1.0) if i == 0 else (color(0), color(0), 0.25)
        for axes, scale in ((main, 1.0), (ratio, 1 / true)):
            band(axes, gev, value * scale, error * scale, face, alpha)
            axes.stairs(
                value * scale, gev, color=line, baseline=None, label=label if axes is main else None
            )
        tops.append((value + error).max())
        bottoms.append((value - error).min())
    main.set_xscale("log")
    main.set_xlim(gev[0], gev[-1])
    log_axis(main.xaxis)
    top, bottom = max(tops), min(bottoms)
    # Room for the legend above and the numbers below; widths fall, so theirs is left of the curve.
    low = bottom - 0.45 * (top - bottom) if name == "mean" else 0.0
    main.set_ylim(low, top + 0.35 * (top - bottom))
    linear_axis(main.yaxis)
    main.tick_params(labelbottom=False)
    half = _HALF_RANGE[name]
    ratio_axis(ratio.yaxis, (1 - half, 1 + half))
    ratio.set_xlabel(r"$E_\mathrm{inc}$ [GeV]")


@styled
def threshold_figure(
    geometry: Geometry,
    reference: Showers,
    generated: Mapping[str, Showers],
    *,
    threshold: float = 1.0,
    layer: int = 10,
) -> Figure:
    """Voxel energies and the sparsity of a layer without and with a cut (2405.09629, Fig. 6).

    Args:
      geometry: of all showers.
      reference: true showers.
      generated: label -> showers.
      threshold: voxels at or below it are zeroed [MeV].
      layer: whose sparsity is drawn.

    Raises:
      ValueError: if there is no such layer.
    """
    if not 0 <= layer < geometry.num_layers:
        raise ValueError(
            f"layer {layer} is not one of {geometry.num_layers} layers: "
            f"choose 0 to {geometry.num_layers - 1}"
        )
    samples = {"": reference, **generated}
    panels, cuts = [], {"": None, rf"$E_\mathrm{{voxel}} > {threshold:g}$ MeV": threshold}
    for text, cut in cuts.items():
        judged = samples
        if cut is not None:
            judged = {label: apply_threshold(s, cut) for label, s in samples.items()}
        voxels = {label: s.voxels[s.voxels > geometry.threshold] for label, s in judged.items()}
        sparsity = {
            label: judged_observables(geometry, s)["sparsity"][:, layer]
            for label, s in judged.items()
        }
        edges = official_binning(geometry, "voxel", voxels[""], floor=cut or None)
        more = f", {text}" if text else ""
        energy, fraction = (
            observable_label("voxel") + more,
            observable_label("sparsity", layer) + more,
        )
        unit = official_binning(geometry, "sparsity")
        named = {"log_y": True, "reference_label": "Geant4"}
        panels.append(Panel(edges, voxels.pop(""), voxels, energy, log_x=True, **named))
        panels.append(Panel(unit, sparsity.pop(""), sparsity, fraction, **named))
    return histogram_grid(panels, num_columns=2)


@styled
def summary_figure(metrics: Mapping[str, Any], *, generated_label: str = "Generated") -> Figure:
    """Separation powers, AUCs, distances and p-values beside those of truth against truth.

    Only what the metrics hold is drawn. Distances are times 1e3, as in published tables. Values
    that are not positive are left out of logarithmic axes, p-values below 1e-4 are arrows there.

    Raises:
      ValueError: if no metric has a truth beside it.
    """
    metrics = flatten(metrics)
    groups = _groups(metrics)
    if not groups:
        raise ValueError("no metric has a truth beside it: pass those of `evaluate`")
    # The separation powers fill the left column, the others share the right one.
    left = [group for group in groups if group.names[0].startswith("separation/")]
    right = [group for group in groups if group not in left]
    lines = [len(group.names) + 2.2 for group in right]
    figure = new_figure(
        TEXT_WIDTH, 0.5 + 0.2 * max([*(len(g.names) + 2 for g in left), sum(lines)])
    )
    columns = figure.add_gridspec(1, 2)
    cells = [columns[0, 0]] * len(left)
    if right:
        cells += list(columns[0, 1].subgridspec(len(right), 1, height_ratios=lines))
    for cell, group in zip(cells, [*left, *right], strict=True):
        axes = figure.add_subplot(cell)
        _draw_group(axes, metrics, group)
    handles = axes.get_legend_handles_labels()[0]
    labels = (generated_label, "Truth against truth")
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure


class _Group(NamedTuple):
    """Metrics that share an axis.

    Attributes:
      title: of the axis.
      names: of the metrics.
      perfect: value of a perfect sample, marked by a line; None for a logarithmic axis.
      scale: factor to the metrics.
    """

    title: str
    names: list[str]
    perfect: float | None = None
    scale: float = 1.0


def _groups(metrics):
    paired = [name for name in metrics if f"{name}_truth" in metrics]
    aucs = [n for n in paired if n.startswith("auc_") and "calibrated" not in n]
    overlaps = [n for n in paired if n in ("precision", "recall", "density", "coverage")]
    groups = [
        _Group("Separation power", [n for n in paired if n.startswith("separation/")]),
        _Group("AUC", aucs, 0.5),
        _Group(r"FPD $\times 10^3$", [n for n in paired if n == "fpd"], 0.0, 1e3),
        _Group(r"KPD $\times 10^3$", [n for n in paired if n == "kpd"], 0.0, 1e3),
        _Group("Fraction", overlaps, 1.0),
        _Group("p-value", [n for n in paired if n.endswith("_p")]),
    ]
    return [group for group in groups if group.names]


# Smallest p-value that has a place of its own.
_SMALLEST_P = 1e-4


def _draw_group(axes: Axes, metrics: Mapping[str, float], group: _Group) -> None:
    rows, p_values = np.arange(len(group.names)), group.names[0].endswith("_p")
    for suffix, line_color, marker, offset in (
        ("", color(0), "o", -0.15),
        ("_truth", REFERENCE, "s", 0.15),
    ):
        value = group.scale * np.array([metrics[name + suffix] for name in group.names])
        if p_values:
            beyond = value < _SMALLEST_P
            axes.scatter(
                np.full(beyond.sum(), _SMALLEST_P),
                (rows + offset)[beyond],
                marker="<",
                s=14,
                color=line_color,
            )
            value = np.where(beyond, np.nan, value)
        error = [metrics.get(f"{name}{suffix}_error", 0.0) for name in group.names]
        axes.errorbar(
            value,
            rows + offset,
            xerr=group.scale * np.array(error),
            fmt=marker,
            color=line_color,
            markersize=3.5,
            linewidth=1.0,
            label=f"sample{suffix}",
        )
    axes.set_xlabel(group.title)
    axes.set_yticks(rows, [_row_label(name) for name in group.names])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", which="both", length=0)
    if group.perfect is not None:
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.axvline(group.perfect, color=REFERENCE, linestyle="--", linewidth=0.8)
        return
    axes.set_xscale("log")
    if p_values:
        axes.set_xlim(0.6 * _SMALLEST_P, 1.7)
    log_axis(axes.xaxis)


def _row_label(name):
    plain = name.split("/")[-1].removesuffix("_p").removeprefix("auc_")
    return observable_label(plain, unit=False).replace("_exact", ", exact")

"""Figures of lattice fields: configurations and two-point functions."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Real
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jgen.plotting.style import (
    BAND,
    RATIO_MAP,
    REFERENCE,
    TEXT_WIDTH,
    color,
    image_ticks,
    new_figure,
    stack_panels,
    styled,
)

Means = tuple[Real[np.ndarray, " n"], Real[np.ndarray, " n"]]
"""Averages and their errors."""


@styled
def field_configurations(fields: Mapping[str, Real[np.ndarray, "_k l l"]]) -> Figure:
    """Configurations of a scalar field, one row a source, one colour scale about zero for all.

    Raises:
      ValueError: if there is no source or the sources have different numbers of pictures.
    """
    numbers = {len(pictures) for pictures in fields.values()}
    if len(numbers) != 1:
        raise ValueError(f"every source needs as many pictures, got {sorted(numbers)}")
    (columns,) = numbers
    size = TEXT_WIDTH / (columns + 0.6)
    figure = new_figure(TEXT_WIDTH, size * len(fields))
    axes = figure.subplots(len(fields), columns, squeeze=False)
    largest = max(np.abs(pictures).max() for pictures in fields.values())
    for row, (label, pictures) in zip(axes, fields.items(), strict=True):
        for cell, picture in zip(row, pictures, strict=True):
            image = cell.imshow(picture.T, cmap=RATIO_MAP, vmin=-largest, vmax=largest,
                                origin="lower")  # fmt: skip
            image_ticks(cell)
            cell.set(xticks=[], yticks=[])
        row[0].set_ylabel(label)
    figure.colorbar(image, ax=axes, label=r"$\phi(x)$", shrink=0.8)
    return figure


@styled
def two_point_functions(reference: Means, samples: Mapping[str, Means], label: str) -> Figure:
    """Two-point functions at zero momentum with errors, and their ratios to the reference.

    Args:
      reference: C(t), t = 0 ... L - 1, and errors, drawn as a band.
      samples: name -> the same of what is compared with it.
      label: name of the reference.
    """
    mean, error = (np.append(values, values[0]) for values in reference)
    t = np.arange(len(mean))
    figure = new_figure(0.6 * TEXT_WIDTH, 3.6)
    stack_panels(figure)
    main, ratio = figure.subplots(2, sharex=True, height_ratios=(2.2, 1))
    main.fill_between(t, mean - error, mean + error, color=BAND, linewidth=0.0)
    main.plot(t, mean, color=REFERENCE, label=label)
    ratio.fill_between(t, 1 - error / mean, 1 + error / mean, color=BAND, linewidth=0.0)
    ratio.axhline(1, color=REFERENCE, linewidth=0.8)
    for i, (name, (value, value_error)) in enumerate(samples.items()):
        value, value_error = (np.append(v, v[0]) for v in (value, value_error))
        # Beside each other, so that error bars can be told apart.
        at = t + 0.16 * (i - (len(samples) - 1) / 2)
        style = {"color": color(i), "marker": "os^D"[i % 4], "linestyle": "", "markersize": 3.5}
        main.errorbar(at, value, value_error, label=name, **style)
        ratio.errorbar(at, value / mean, value_error / mean, **style)
    main.set_yscale("log")
    main.set_ylabel(r"$C(t)$")
    main.legend()
    ratio.set(xlabel=r"Separation $t$ in lattice units", ylabel="Ratio")
    ratio.xaxis.set_major_locator(MaxNLocator(integer=True))
    ratio.minorticks_off()
    return figure


@styled
def bound_curves(records: Mapping[str, Sequence[Mapping]], log_z: float) -> Figure:
    """The bound E_q[-S - log q] <= log Z in the training of flows without data.

    Args:
      records: flow -> records of its training, whose loss is minus the bound.
      log_z: what it is bounded by, a line.
    """
    figure = new_figure(0.6 * TEXT_WIDTH, 3.0)
    axes = figure.subplots()
    top, low = log_z, np.inf
    for i, (name, rows) in enumerate(records.items()):
        rows = [row for row in rows if "loss" in row]
        bound = -np.array([np.mean(row["loss"]) for row in rows])
        axes.plot([row["step"] for row in rows], bound, color=color(i), linewidth=0.9, label=name)
        # What is before the first tenth would hide the rest.
        later = bound[len(bound) // 10 :]
        top, low = max(top, later.max()), min(low, later.min())
    axes.axhline(log_z, color=REFERENCE, linestyle="--", linewidth=0.9, label=r"$\log Z$")
    axes.set(xlabel="Training step", ylabel=r"Bound on $\log Z$ (one minibatch)")
    axes.set_ylim(low - 0.05 * (top - low), top + 0.15 * (top - low) + 1e-3)
    axes.margins(x=0)
    axes.legend(loc="lower right")
    return figure

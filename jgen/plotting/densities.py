"""Densities in the plane as pictures, drawn images, and likelihoods of many models in one chart."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Real
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from jgen.plotting.style import (
    ENERGY_MAP,
    REFERENCE,
    TEXT_WIDTH,
    color,
    new_figure,
    styled,
)


@styled
def density_pictures(
    pictures: Mapping[str, Real[np.ndarray, "_y _x"]],
    extent: tuple[float, float, float, float],
    num_columns: int = 6,
) -> Figure:
    """Densities on the same grid with the same colours, which end at the first one's largest value.

    The colours go with the square root of the density, so that faint bridges between modes show.

    Args:
      pictures: title -> density, the truth first; rows are y, upwards.
      extent: left, right, bottom and top of the grid.
      num_columns: of the page.

    Raises:
      ValueError: if there is no picture or it is none of two dimensions.
    """
    if not pictures:
        raise ValueError("there is nothing to draw: pass at least one density")
    for title, picture in pictures.items():
        if np.ndim(picture) != 2:
            raise ValueError(f"the density of {title!r} needs two axes, got {np.shape(picture)}")
    num_columns = min(num_columns, len(pictures))
    num_rows = -(-len(pictures) // num_columns)
    left, right, bottom, top = extent
    size = TEXT_WIDTH / num_columns
    # As high as the plane is, but no strip: a picture is for the eye, not for the ruler.
    height = size * np.clip((top - bottom) / (right - left), 0.6, 1.4)
    figure = new_figure(TEXT_WIDTH, num_rows * (height + 0.18))
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)
    first = np.asarray(next(iter(pictures.values())))
    norm = PowerNorm(0.5, 0.0, float(first.max()), clip=True)
    for i, (title, picture) in enumerate(pictures.items()):
        axes = figure.add_subplot(num_rows, num_columns, i + 1)
        axes.imshow(
            picture, origin="lower", extent=extent, aspect="equal", norm=norm, cmap=ENERGY_MAP
        )
        axes.set_title(title, fontsize=7.0, pad=2.5)
        axes.set(xticks=[], yticks=[])
        axes.minorticks_off()
    return figure


@styled
def image_rows(images: Mapping[str, Real[np.ndarray, "_n _y _x"]]) -> Figure:
    """Images of several origins, a row each; dark is large, one scale for all.

    Args:
      images: label -> images; the first row's number is drawn of every one.

    Raises:
      ValueError: if there is no row or one of them is too short.
    """
    num = len(next(iter(images.values()))) if images else 0
    if num == 0:
        raise ValueError("there is nothing to draw: pass at least one row of images")
    for label, row in images.items():
        if np.ndim(row) != 3 or len(row) < num:
            raise ValueError(
                f"the images of {label!r} need the shape [{num} or more, y, x], got {np.shape(row)}"
            )
    size = (TEXT_WIDTH - 1.3) / num
    figure = new_figure(TEXT_WIDTH, len(images) * size + 0.1)
    figure.get_layout_engine().set(w_pad=0.04, h_pad=0.01, wspace=0.0, hspace=0.0)
    grid = figure.subplots(len(images), 1, squeeze=False)[:, 0]
    first = np.asarray(next(iter(images.values())))
    for axes, (label, row) in zip(grid, images.items(), strict=True):
        # One picture a row, with a light line between its images.
        strip = np.pad(np.asarray(row[:num], float), ((0, 0), (0, 0), (0, 1)), constant_values=0)
        strip = np.moveaxis(strip, 0, 1).reshape(strip.shape[1], -1)[:, :-1]
        axes.imshow(strip, cmap="Greys", vmin=first.min(), vmax=first.max(), aspect="equal")
        axes.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8.0)
        axes.set(xticks=[], yticks=[])
        axes.minorticks_off()
    return figure


@styled
def likelihood_chart(
    gaps: Mapping[str, Mapping[str, tuple[float, float]]], baseline: Mapping[str, str]
) -> Figure:
    """Excess of the negative log-likelihood over a baseline, a panel a data set, lower is better.

    The axis is logarithmic where the baseline is the truth, below which no model can be.

    Args:
      gaps: data set -> model -> (excess in nats, its error). A model need not have all data sets.
      baseline: data set -> what is subtracted; "truth" gives a logarithmic axis.

    Raises:
      ValueError: if there is nothing to draw.
    """
    names = list(dict.fromkeys(name for values in gaps.values() for name in values))
    if not names:
        raise ValueError("likelihood_chart needs at least one data set with a model, got none")
    figure = new_figure(TEXT_WIDTH, 0.8 + 0.17 * len(names))
    panels = figure.subplots(1, len(gaps), sharey=True, squeeze=False)[0]
    for i, (axes, (data, values)) in enumerate(zip(panels, gaps.items(), strict=True)):
        rows = [names.index(name) for name in values]
        value, error = np.array(list(values.values())).T
        if baseline[data] == "truth":
            axes.set_xscale("log")
            # Nothing is below zero but the estimate, and a logarithmic axis ends above it.
            least = 1e-3
            value = np.maximum(value, least)
            error = np.stack([np.minimum(error, 0.9 * value), error])
            axes.set_xlim(0.7 * least, 2 * value.max())
            axes.xaxis.set_major_locator(LogLocator(numticks=8))
        else:
            axes.axvline(0.0, color=REFERENCE, linestyle="--", linewidth=0.8)
        axes.errorbar(value, rows, xerr=error, fmt="o", color=color(i), markersize=3.5)
        axes.set_title(data, fontsize=8.5)
        axes.set_xlabel(f"NLL - {baseline[data]} [nats]", fontsize=7.5)
        axes.tick_params(axis="x", labelsize=7.0)
        axes.tick_params(axis="y", which="minor", left=False, right=False)
        axes.grid(axis="y", color="#e0e0e0", linewidth=0.5)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    return figure

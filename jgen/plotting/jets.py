"""Pictures of jets."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Real
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from jgen.plotting.style import ENERGY_MAP, TEXT_WIDTH, new_figure, styled


@styled
def jet_images(
    images: Mapping[str, Mapping[str, Real[np.ndarray, "_eta _phi"]]],
    edges: Real[np.ndarray, " num_edges"],
) -> Figure:
    """Mean images of jets, a row each class and a column each origin, on one scale of colours.

    Args:
      images: class -> origin -> mean share of the jet's pT in each cell of eta and phi.
      edges: of the cells, in both directions.

    Raises:
      ValueError: if there is no image.
    """
    if not images or not all(images.values()):
        raise ValueError("there is nothing to draw: pass at least one image")
    columns = list(next(iter(images.values())))
    size = (TEXT_WIDTH - 1.6) / len(columns)
    figure = new_figure(TEXT_WIDTH, len(images) * size + 0.8)
    grid = figure.subplots(len(images), len(columns), sharex=True, sharey=True, squeeze=False)
    largest = max(np.max(image) for row in images.values() for image in row.values())
    norm = LogNorm(1e-5 * largest, largest)
    for axes_row, (name, row) in zip(grid, images.items(), strict=True):
        for axes, column in zip(axes_row, columns, strict=True):
            image = np.where(np.asarray(row[column]) > 0, row[column], np.nan).T
            mesh = axes.pcolormesh(edges, edges, image, norm=norm, cmap=ENERGY_MAP, rasterized=True)
            axes.set_aspect("equal")
        axes_row[0].set_ylabel(f"{name}\n$\\Delta\\phi$")
    for axes, column in zip(grid[0], columns, strict=True):
        axes.set_title(column, fontsize=min(9.0, 48 / len(columns)), pad=3)
    for axes in grid[-1]:
        axes.set_xlabel(r"$\Delta\eta$")
    figure.colorbar(mesh, ax=grid, label=r"$\langle p_\mathrm{T} / p_\mathrm{T, jet} \rangle$")
    return figure

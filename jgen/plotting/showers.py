"""Pictures of calorimeter showers, from voxels [n, n_z, n_alpha, n_r] in MeV.

The axes are those of the CaloChallenge: layer, angle from -pi to pi, radius.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Real
from matplotlib.colors import LogNorm, TwoSlopeNorm
from matplotlib.figure import Figure

from jgen.plotting.style import (
    BAND,
    ENERGY_MAP,
    RATIO_MAP,
    REFERENCE,
    TEXT_WIDTH,
    color,
    image_ticks,
    linear_axis,
    new_figure,
    ratio_axis,
    stack_panels,
    styled,
)

Voxels = Real[np.ndarray, "_ n_z n_alpha n_r"]
# Pieces of a cell in polar pictures.
_SMOOTH = 8
# Decades shown below the largest energy; what lies lower is as good as empty.
_DECADES = 5


@styled
def longitudinal_view(
    reference: Voxels,
    generated: Voxels,
    *,
    r_edges: Real[np.ndarray, " num_edges"] | None = None,
    reference_label: str = "Geant4",
    generated_label: str = "Generated",
    ratio_range: tuple[float, float] = (0.5, 1.5),
) -> Figure:
    """Mean energy a voxel over layer and radius: reference, generated, and their ratio.

    Energies are means over showers and angles. Voxels that are empty in a sample stay white.

    Args:
      reference: showers of the truth.
      generated: showers to compare.
      r_edges: radial bin edges in mm; without them the axis counts bins.
      reference_label: title of the left picture.
      generated_label: title of the middle picture.
      ratio_range: ends of the colour scale of the ratio, on both sides of one.
    """
    _check(reference, generated)
    means = [np.mean(v, axis=(0, 2), dtype=np.float64) for v in (reference, generated)]
    r_edges, r_label = _radius(r_edges, reference.shape[3])
    layers = np.arange(reference.shape[1] + 1) - 0.5
    figure = new_figure(TEXT_WIDTH, 3.0)
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    norm = _energy_norm(means)
    for ax, mean, title in zip(axes, means, (reference_label, generated_label), strict=False):
        energy = ax.pcolormesh(layers, r_edges, _positive(mean).T, norm=norm, cmap=ENERGY_MAP)
        ax.set_title(title)
    ratio = axes[2].pcolormesh(
        layers, r_edges, _image_ratio(*means).T, norm=_ratio_norm(ratio_range), cmap=RATIO_MAP
    )
    axes[2].set_title("Ratio")
    for ax in axes:
        image_ticks(ax)
        ax.set_xlabel("Layer")
    axes[0].set_ylabel(r_label)
    below = {"location": "bottom", "extend": "both"}
    figure.colorbar(energy, ax=axes[:2], label="Mean energy / voxel [MeV]", aspect=40, **below)
    ratio_label = f"{generated_label} / {reference_label}"
    figure.colorbar(ratio, ax=axes[2], label=ratio_label, aspect=20, **below)
    return figure


@styled
def polar_view(
    reference: Voxels,
    generated: Voxels,
    layer_groups: Sequence[tuple[int, int]],
    *,
    r_edges: Real[np.ndarray, " num_edges"] | None = None,
    reference_label: str = "Geant4",
    generated_label: str = "Generated",
    ratio_range: tuple[float, float] = (0.5, 1.5),
) -> Figure:
    """Mean energy a voxel over angle and radius, one column a group of layers [first, last).

    The rows are the reference, the generated sample and their ratio. Arguments as in
    `longitudinal_view`.

    Raises:
      ValueError: if the shapes do not fit or a group lies outside of the layers.
    """
    _check(reference, generated)
    num_layers, num_alpha, num_r = reference.shape[1:]
    for first, last in layer_groups:
        if not 0 <= first < last <= num_layers:
            raise ValueError(f"layers [{first}, {last}) are not within the {num_layers} layers")
    means = [
        [np.mean(v[:, i:j], axis=(0, 1), dtype=np.float64) for i, j in layer_groups]
        for v in (reference, generated)
    ]
    r_edges, _ = _radius(r_edges, num_r)
    # Matplotlib draws the sides of a cell straight, so each is made of narrow ones.
    angles = np.linspace(-np.pi, np.pi, num_alpha * _SMOOTH + 1)
    columns = len(layer_groups)
    figure = new_figure(1.55 * columns + 1.3, 5.0)
    axes = figure.subplots(3, columns, squeeze=False, subplot_kw={"projection": "polar"})
    norm = _energy_norm([mean for row in means for mean in row])
    for column, (first, last) in enumerate(layer_groups):
        pair = [row[column] for row in means]
        for ax, mean in zip(axes[:, column], pair, strict=False):
            image = np.repeat(_positive(mean), _SMOOTH, axis=0).T
            energy = ax.pcolormesh(angles, r_edges, image, norm=norm, cmap=ENERGY_MAP)
        image = np.repeat(_image_ratio(*pair), _SMOOTH, axis=0).T
        ratio = axes[2, column].pcolormesh(
            angles, r_edges, image, norm=_ratio_norm(ratio_range), cmap=RATIO_MAP
        )
        name = f"Layer {first}" if last - first == 1 else f"Layers {first}-{last - 1}"
        axes[0, column].set_title(name)
    for ax in axes.ravel():
        ax.set(xticks=[], yticks=[], ylim=(0.0, r_edges[-1]))
    for ax, label in zip(axes[:, 0], (reference_label, generated_label, "Ratio"), strict=True):
        ax.text(-0.1, 0.5, label, transform=ax.transAxes, rotation=90, ha="right", va="center")
    # The layout makes no room for labels of polar axes.
    figure.get_layout_engine().set(rect=(0.04, 0, 0.96, 1))
    figure.colorbar(energy, ax=axes[:2], label="Mean energy / voxel [MeV]", aspect=25)
    figure.colorbar(ratio, ax=axes[2], label="Ratio", extend="both")
    return figure


@styled
def longitudinal_profile(
    reference: Voxels,
    samples: Mapping[str, Voxels],
    *,
    reference_label: str = "Geant4",
    ratio_range: tuple[float, float] = (0.8, 1.2),
) -> Figure:
    """Mean energy a layer with the error of the mean, and the ratio to the reference below."""
    for voxels in samples.values():
        _check(reference, voxels)
    figure = new_figure(0.55 * TEXT_WIDTH, 3.6)
    main, ratio = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    stack_panels(figure)
    edges = np.arange(reference.shape[1] + 1) - 0.5
    mean, error = _profile(reference)
    divisor = np.where(mean > 0, mean, np.nan)
    for ax, scale in ((main, np.ones_like(mean)), (ratio, divisor)):
        low, high = (mean - error) / scale, (mean + error) / scale
        ax.stairs(high, edges, baseline=low, fill=True, facecolor=BAND)
    main.stairs(mean, edges, color=REFERENCE, label=reference_label)
    ratio.axhline(1.0, color=REFERENCE, linewidth=0.8)
    for i, (label, voxels) in enumerate(samples.items()):
        sample, sample_error = _profile(voxels)
        main.stairs(sample, edges, color=color(i), label=label, baseline=None)
        low, high = (sample - sample_error) / divisor, (sample + sample_error) / divisor
        ratio.stairs(high, edges, baseline=low, fill=True, facecolor=color(i), alpha=0.25)
        ratio.stairs(sample / divisor, edges, color=color(i), baseline=None)
    main.set(xlim=(edges[0], edges[-1]), ylabel="Mean energy / layer [MeV]")
    main.set_ylim(0.0)
    linear_axis(main.yaxis)
    main.legend()
    ratio.set(xlabel="Layer", ylabel="Ratio")
    ratio_axis(ratio.yaxis, ratio_range)
    figure.align_ylabels()
    return figure


@styled
def single_showers(
    samples: Mapping[str, Voxels],
    *,
    titles: Sequence[str] = (),
    r_edges: Real[np.ndarray, " num_edges"] | None = None,
) -> Figure:
    """Individual showers over layer and radius, summed over the angle; one row a sample.

    Args:
      samples: label -> showers; the same number of each, a handful.
      titles: one a column, for instance the incident energies.
      r_edges: radial bin edges in mm; without them the axis counts bins.
    """
    first = next(iter(samples.values()))
    for voxels in samples.values():
        _check(first, voxels)
        if len(voxels) != len(first):
            raise ValueError(f"samples have {len(voxels)} and {len(first)} showers, not as many")
    r_edges, r_label = _radius(r_edges, first.shape[3])
    layers = np.arange(first.shape[1] + 1) - 0.5
    images = {label: np.sum(v, axis=2, dtype=np.float64) for label, v in samples.items()}
    figure = new_figure(TEXT_WIDTH, 0.9 + 1.3 * len(samples))
    axes = figure.subplots(len(samples), len(first), sharex=True, sharey=True, squeeze=False)
    norm = _energy_norm(list(images.values()))
    for row, (label, shown) in zip(axes, images.items(), strict=True):
        for ax, image in zip(row, shown, strict=True):
            energy = ax.pcolormesh(layers, r_edges, _positive(image).T, norm=norm, cmap=ENERGY_MAP)
            image_ticks(ax)
        row[0].set_ylabel(f"{label}\n{r_label}")
    for ax, title in zip(axes[0], titles, strict=False):
        ax.set_title(title)
    for ax in axes[-1]:
        ax.set_xlabel("Layer")
    figure.colorbar(energy, ax=axes, label="Energy [MeV]", pad=0.02)
    return figure


@styled
def shower_points(samples: Mapping[str, Real[np.ndarray, "_ 4"]]) -> Figure:
    """Showers as points: depth against y, and x against y, coloured by energy; one row a shower.

    Args:
      samples: label -> points x, y [mm], z [layers], energy [MeV].
    """
    figure = new_figure(TEXT_WIDTH, 0.6 + 1.7 * len(samples))
    axes = figure.subplots(
        len(samples), 2, sharex="col", sharey=True, squeeze=False, width_ratios=(2, 1)
    )
    energies = np.concatenate([points[:, 3] for points in samples.values()])
    norm = LogNorm(*np.quantile(energies, [0.01, 1.0]))
    for row, (label, points) in zip(axes, samples.items(), strict=True):
        x, y, z, energy = points[np.argsort(points[:, 3])].T  # the brightest on top
        for ax, across in zip(row, (z, x), strict=True):
            dots = ax.scatter(across, y, 3.0, energy, norm=norm, cmap=ENERGY_MAP, linewidths=0)
            image_ticks(ax)
        row[0].set_ylabel(f"{label}\n$y$ [mm]")
    axes[-1, 0].set_xlabel("Depth [layers]")
    axes[-1, 1].set_xlabel("$x$ [mm]")
    figure.colorbar(dots, ax=axes, label="Energy / point [MeV]", pad=0.02)
    return figure


def _check(reference, generated):
    if np.ndim(reference) != 4 or np.shape(generated)[1:] != np.shape(reference)[1:]:
        raise ValueError(
            "showers need the shape [n, n_z, n_alpha, n_r], the same but for n, got "
            f"{np.shape(reference)} and {np.shape(generated)}"
        )


def _radius(r_edges, num_r):
    if r_edges is None:
        return np.arange(num_r + 1), "Radial bin"
    if len(r_edges) != num_r + 1:
        raise ValueError(f"{num_r} radial bins need {num_r + 1} edges, got {len(r_edges)}")
    return np.asarray(r_edges), "Radius [mm]"


def _profile(voxels):
    energies = np.sum(voxels, axis=(2, 3), dtype=np.float64)
    return energies.mean(axis=0), energies.std(axis=0) / np.sqrt(len(energies))


def _positive(image):
    return np.where(image > 0, image, np.nan)


def _image_ratio(reference, generated):
    return np.where(reference > 0, generated, np.nan) / np.where(reference > 0, reference, 1.0)


def _ratio_norm(ratio_range):
    return TwoSlopeNorm(1.0, *ratio_range)


def _energy_norm(images):
    """One logarithmic colour scale for all pictures."""
    values = np.concatenate([np.ravel(image) for image in images])
    values = values[values > 0]
    if not len(values):
        return LogNorm(1e-3, 1.0)
    top = values.max()
    return LogNorm(max(values.min(), top / 10**_DECADES), top * 1.0001)

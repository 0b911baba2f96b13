"""Amplification by distances: Kolmogorov-Smirnov curves, and quantile errors."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Real
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from jgen.amplification import expected_distance, kolmogorov_band, sample_quantile_mse
from jgen.amplification.kolmogorov import MEAN
from jgen.plotting.style import REFERENCE, TEXT_WIDTH, color, log_axis, new_figure, styled

_BANDS = ((0.997300, "#e4e4e4"), (0.954500, "#d2d2d2"), (0.682689, "#bdbdbd"))


@styled
def ks_curves(
    curves: Mapping[str, Float[np.ndarray, "_members sizes"]],
    sizes: Int[np.ndarray, " sizes"],
    num_reference: int,
    num_train: int,
    *,
    printed: bool = False,
    reference_label: str = "held-out events",
) -> Figure:
    """Distance against the number of generated events (arXiv:2509.08048, Figs. 7, 10, 11).

    The black line is the mean distance of two samples of one distribution, grey bands hold it with
    the probability of one, two and three standard deviations: a generator whose curve stays on them
    cannot be told from the truth with this reference. Thick curves are means over members, their
    bands the members' standard deviation. A dotted line marks n_train.

    Args:
      curves: summary statistic -> distances [members, sizes].
      sizes: numbers of generated events.
      num_reference: events that were compared with.
      num_train: events of the training set.
      printed: draw the bands of Eq. 37 as printed, see `kolmogorov_band`.
      reference_label: name of the reference for the vertical axis.
    """
    figure = new_figure(0.62 * TEXT_WIDTH, 3.4)
    axes = figure.subplots()
    handles = {}
    for level, shade in _BANDS:
        low, high = (
            expected_distance(sizes, num_reference, max(k, 0.0))
            for k in kolmogorov_band(level, printed=printed)
        )
        axes.fill_between(sizes, low, high, color=shade, linewidth=0.0)
    axes.plot(sizes, expected_distance(sizes, num_reference, MEAN), color=REFERENCE)
    handles["Same distribution"] = Line2D([], [], color=REFERENCE)
    title = r"1, 2, 3$\,\sigma$" + (" (Eq. 37 as printed)" if printed else "")
    handles[title] = Patch(facecolor=_BANDS[1][1])
    for i, (label, distances) in enumerate(curves.items()):
        distances = np.atleast_2d(distances)
        mean = distances.mean(axis=0)
        if len(distances) > 1:
            spread = distances.std(axis=0, ddof=1)
            axes.fill_between(
                sizes, mean - spread, mean + spread, color=color(i), alpha=0.25, linewidth=0.0
            )
        handles[label] = axes.plot(sizes, mean, color=color(i))[0]
    axes.set(xscale="log", yscale="log", xlim=(sizes[0], sizes[-1]))
    # Above the curves there is room for the legend.
    bottom, top = 0.3 * expected_distance(sizes[-1], num_reference), axes.get_ylim()[1]
    axes.set_ylim(bottom, top * (top / bottom) ** 0.3)
    if sizes[0] <= num_train <= sizes[-1]:
        axes.axvline(num_train, color=REFERENCE, linestyle=":", linewidth=0.8)
        where = {"transform": axes.get_xaxis_transform(), "fontsize": 8}
        axes.text(num_train, 0.03, r" $n_\mathrm{train}$", **where)
    for axis in (axes.xaxis, axes.yaxis):
        log_axis(axis)
    axes.set(
        xlabel=r"Generated events $n_\mathrm{gen}$", ylabel=f"KS distance to {reference_label}"
    )
    axes.legend(handles.values(), handles.keys(), loc="upper right")
    return figure


@styled
def cumulative_distributions(
    panels: Mapping[str, Mapping[str, Real[np.ndarray, " _"]]],
) -> Figure:
    """Empirical cumulative distributions, a panel a statistic (arXiv:2509.08048, Fig. 9).

    Args:
      panels: name of the statistic -> label -> values; the axis has the central 99.8 % of the
        first sample, which is drawn in black.
    """
    figure = new_figure(TEXT_WIDTH, 2.8)
    axes = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
    for ax, (name, samples) in zip(axes, panels.items(), strict=True):
        for i, (label, values) in enumerate(samples.items()):
            # Where a thousand quantiles lie; more points than that are not seen.
            shares = np.linspace(0, 1, min(len(values), 1000))
            shade = color(i - 1) if i else REFERENCE
            ax.plot(np.quantile(values, shares), shares, color=shade, label=label)
        ax.set(xlabel=name, ylim=(0, 1))
        ax.set_xlim(*np.quantile(next(iter(samples.values())), [0.001, 0.999]))
    axes[0].set(ylabel="Cumulative distribution")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


@styled
def refinement_map(
    events: Real[np.ndarray, "num 2"], kept: Bool[np.ndarray, " num"], name: str = "x"
) -> Figure:
    """Events that a refinement keeps and cuts, in a plane (arXiv:2509.08048, Fig. 10).

    Args:
      events: generated events, or two coordinates of them.
      kept: those that the cut leaves.
      name: of the coordinates.
    """
    figure = new_figure(0.5 * TEXT_WIDTH, 3.4)
    axes = figure.subplots()
    for mask, shade, label in ((kept, color(0), "Kept"), (~kept, color(1), "Cut")):
        share = f"{label}, {100 * mask.mean():.0f} %"
        axes.scatter(*events[mask].T, s=1.5, color=shade, linewidths=0, label=share)
    axes.set(xlabel=f"${name}_1$", ylabel=f"${name}_2$", aspect="equal")
    figure.legend(loc="outside upper center", ncols=2, markerscale=4)
    return figure


@styled
def quantile_error_curves(
    curves: Mapping[str, tuple[Real[np.ndarray, " sizes"], Real[np.ndarray, " sizes"]]],
    sizes: Int[np.ndarray, " sizes"],
    num_bins: int,
    samples: Sequence[int],
    *,
    benchmark: float | None = None,
) -> Figure:
    """Quantile error against generated events (arXiv:2008.06545, Figs. 2 and 4).

    Args:
      curves: generator -> (mean over repetitions, their spread), drawn as a line and a band.
      sizes: numbers of generated events.
      num_bins: quantile bins.
      samples: numbers of true events whose expected error is drawn as a labelled line; the first is
        the training set.
      benchmark: expected error of the fit, such as from `jgen.amplification.fit_quantile_mse`.
    """
    figure = new_figure(0.62 * TEXT_WIDTH, 3.4)
    axes = figure.subplots()
    for i, num in enumerate(samples):
        level = float(sample_quantile_mse(num_bins, num))
        axes.axhline(level, color=REFERENCE, linestyle="--" if i else "-", linewidth=0.8)
        axes.annotate(
            f"{num} true events",
            (sizes[0], level),
            xytext=(3, 2),
            textcoords="offset points",
            fontsize=7,
        )
    if benchmark is not None:
        axes.axhline(benchmark, color=color(len(curves)), linestyle="-.", label="Fit")
    for i, (label, (mean, spread)) in enumerate(curves.items()):
        mean, spread = np.asarray(mean), np.asarray(spread)
        # Down to a tenth of the mean at most: a logarithmic axis has no zero.
        low = np.maximum(mean - spread, 0.1 * mean)
        axes.fill_between(sizes, low, mean + spread, color=color(i), alpha=0.25, linewidth=0.0)
        axes.plot(sizes, mean, color=color(i), label=label)
    axes.set(xscale="log", yscale="log", xlim=(sizes[0], sizes[-1]))
    axes.set(
        xlabel=r"Generated events $n_\mathrm{gen}$",
        ylabel=f"Mean squared error of {num_bins} quantiles",
    )
    axes.legend(loc="upper right")
    return figure

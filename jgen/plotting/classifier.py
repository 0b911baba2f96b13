"""Results of a classifier two-sample test: weight distributions and ROC curves."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from jgen.metrics import ClassifierResult, histogram
from jgen.plotting.style import BAND, REFERENCE, TEXT_WIDTH, color, new_figure, styled


@styled
def weight_distributions(
    results: Mapping[str, ClassifierResult],
    *,
    weight_range: tuple[float, float] = (1e-2, 1e2),
    num_bins: int = 50,
    reference_label: str = "truth",
) -> Figure:
    """Classifier weights of generated (solid) and reference (dotted) test events.

    As arXiv:2405.09629, Fig. 10, on logarithmic axes. Fractions are means over the seeds and the
    band their standard deviation. Weights beyond the range are counted in the outermost bins, which
    are shaded, so that no tail is lost.
    """
    edges = np.geomspace(*weight_range, num_bins + 1)
    figure = new_figure(0.6 * TEXT_WIDTH, 3.2)
    axes = figure.subplots()
    for i, (label, result) in enumerate(results.items()):
        drawn = (
            (result.weights_generated, label, "-"),
            (result.weights_reference, f"{label}: {reference_label}", ":"),
        )
        for weights, name, style in drawn:
            fractions = np.array([_clipped_fractions(w, edges) for w in weights])
            mean, spread = fractions.mean(axis=0), fractions.std(axis=0)
            axes.stairs(
                mean + spread,
                edges,
                baseline=np.maximum(mean - spread, 0.0),
                fill=True,
                facecolor=color(i),
                alpha=0.2,
            )
            axes.stairs(mean, edges, color=color(i), linestyle=style, baseline=None, label=name)
    axes.axvline(1.0, ymax=0.78, color=REFERENCE, linewidth=0.8)
    text = {"transform": axes.get_xaxis_transform(), "fontsize": 6.0, "color": "#777777"}
    for x, low, high, name in (
        (0.03, edges[0], edges[1], "and below"),
        (0.97, edges[-2], edges[-1], "and above"),
    ):
        axes.axvspan(low, high, color="#e4e4e4", linewidth=0.0, zorder=0)
        where = {"transform": axes.transAxes, "ha": "left" if x < 0.5 else "right"}
        axes.text(x, 0.02, name, **(text | where))
    axes.set(xscale="log", yscale="log", xlim=weight_range)
    axes.set(xlabel="Classifier weight $w$", ylabel="Fraction of events")
    smallest = min(
        1 / max(r.weights_generated.size, r.weights_reference.size) for r in results.values()
    )
    # Head room for the legend, in the logarithm.
    axes.set_ylim(0.5 * smallest, smallest ** (-0.25))
    axes.legend(loc="upper left", ncols=2 if len(results) > 1 else 1)
    return figure


@styled
def roc_curves(results: Mapping[str, ClassifierResult]) -> Figure:
    """ROC curves, means over the seeds with their standard deviation as a band.

    A reference event kept is a true positive. The dashed diagonal is a classifier that cannot
    tell the samples apart, the grey band its statistical error in the first result's test split.
    """
    figure = new_figure(0.5 * TEXT_WIDTH, 3.4)
    axes = figure.subplots()
    grid = np.linspace(0.0, 1.0, 201)
    first = next(iter(results.values()))
    n, m = first.weights_reference.shape[1], first.weights_generated.shape[1]
    error = np.sqrt(grid * (1 - grid) * (1 / n + 1 / m))
    axes.fill_between(grid, grid - error, grid + error, color=BAND, linewidth=0.0)
    axes.plot(grid, grid, "--", color=REFERENCE, linewidth=0.8)
    for i, (label, result) in enumerate(results.items()):
        pairs = zip(result.weights_reference, result.weights_generated, strict=True)
        curves = np.array([_true_positive_rate(*pair, grid) for pair in pairs])
        mean, spread = curves.mean(axis=0), curves.std(axis=0)
        axes.fill_between(
            grid, mean - spread, mean + spread, color=color(i), alpha=0.25, linewidth=0
        )
        axes.plot(grid, mean, color=color(i), label=f"{label}: {_auc_text(result)}")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set(xlabel="Generated events kept", ylabel="Reference events kept")
    axes.legend(loc="lower right", title="AUC", title_fontsize=8.0)
    return figure


def _clipped_fractions(weights, edges):
    return histogram(np.clip(weights, edges[0], edges[-1]), edges).fractions


def _true_positive_rate(reference, generated, false_positive_rate):
    """Fraction of reference events above the cuts that keep given fractions of generated ones."""
    cuts = np.quantile(generated, 1 - false_positive_rate)
    rate = 1 - np.searchsorted(np.sort(reference), cuts) / len(reference)
    # The loosest cut keeps everything and the tightest nothing at all.
    rate[false_positive_rate == 1.0] = 1.0
    rate[false_positive_rate == 0.0] = 0.0
    return rate


def _auc_text(result):
    value, error = result.auc_estimate
    return rf"${value:.3f} \pm {error:.3f}$"

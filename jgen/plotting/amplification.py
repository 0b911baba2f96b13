"""What generated events are worth: variances of region integrals, and divergences over bins."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jgen.amplification import Averaging, sample_jensen_shannon
from jgen.plotting.style import REFERENCE, TEXT_WIDTH, color, log_axis, new_figure, styled

_LIGHT = 0.25  # opacity of bands


@styled
def divergence_curves(
    bins: Int[np.ndarray, " n"],
    mixed: Float[np.ndarray, " n"],
    member: Float[np.ndarray, " n"],
    spread: Float[np.ndarray, " n"],
    training: Float[np.ndarray, " n"],
    *,
    num_train: int,
    num_reference: int,
    truth: str = "true events",
) -> Figure:
    """Jensen-Shannon divergence against the number of bins (arXiv:2202.07352), lower is better.

    Lines are expected of true samples of 1, 2, 5 and infinitely many times `num_train` events.

    Args:
      bins: their numbers, powers of two.
      mixed: divergence in nats of the events of all members.
      member: that of one member, the mean over members.
      spread: standard deviation of the latter.
      training: that of the training events.
      num_train: training events.
      num_reference: true events that all are compared with.
      truth: what they are, in the plural.
    """
    figure = new_figure(0.62 * TEXT_WIDTH, 3.4)
    axes = figure.subplots()
    for factor, style in ((1, "-"), (2, "--"), (5, "-."), (np.inf, ":")):
        size = factor * num_train
        expected = [sample_jensen_shannon(int(num), size, num_reference) for num in bins]
        label = f"{size:.0f} {truth}" if np.isfinite(size) else "Infinitely many"
        axes.plot(bins, expected, color=REFERENCE, linestyle=style, linewidth=0.8, label=label)
    axes.plot(bins, training, "s", color=REFERENCE, label="Training set")
    low = np.maximum(member - spread, 0.1 * member)  # a logarithmic axis has no zero
    axes.fill_between(bins, low, member + spread, color=color(0), alpha=_LIGHT, linewidth=0.0)
    axes.plot(bins, member, color=color(0), label="Single members")
    axes.plot(bins, mixed, color=color(1), marker="o", label="Members mixed")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    log_axis(axes.yaxis)
    axes.set_xticks(bins, [str(num) for num in bins])
    axes.set(xlabel="Bins of median splits", ylabel="Jensen-Shannon divergence [nats]")
    axes.legend(fontsize=7)
    return figure


@styled
def variance_curves(
    results: Mapping[str, Averaging],
    *,
    model_variance: float | None = None,
    truth: Mapping[str, Averaging] | None = None,
    num_train: float | None = None,
) -> Figure:
    """Variance against n_gen, one panel a result (arXiv:2509.08048, Figs. 2, 4 and 5).

    Points are the measured variance, the dashed line is sigma_stat^2 = I (1 - I) / n_gen, the solid
    one with its band sigma_model^2 and its interval. Where sigma_model^2 is not positive there is
    no line, and the band reaches down to the axis: its upper end is a limit. A vertical line is at
    n_equiv, where sigma_stat^2 crosses the last sigma_model^2.

    Args:
      results: label -> result of `jgen.amplification.averaging_amplification`. A size of infinity,
        for integrals without noise, is the last one if there is one, and is not drawn.
      model_variance: true sigma_model^2, a dotted line.
      truth: label -> result of `jgen.amplification.true_amplification`, whose measured variances,
        deviations from the truth, are open circles.
      num_train: training events, a grey vertical line.

    Raises:
      ValueError: if there is nothing to draw.
    """
    if not results:
        raise ValueError("variance_curves needs at least one result, got none")
    figure = new_figure(TEXT_WIDTH if len(results) > 1 else 0.6 * TEXT_WIDTH, 3.1)
    panels = figure.subplots(1, len(results), sharex=True, sharey=True, squeeze=False)[0]
    bottom = 0.1 * _smallest(results.values(), model_variance)
    for axes, (label, one) in zip(panels, results.items(), strict=True):
        _draw(axes, one, bottom, model_variance, num_train)
        if truth and label in truth:
            _points(axes, truth[label], REFERENCE, "Actual deviation", markerfacecolor="none")
        axes.set_title(label)
        axes.set_xlabel(r"Generated events $n_\mathrm{gen}$")
    panels[0].set_ylabel("Variance of integrals")
    panels[0].set_ylim(bottom=bottom)
    for axis in (panels[0].xaxis, panels[0].yaxis):
        log_axis(axis)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def _draw(
    axes: Axes, one: Averaging, bottom: float, truth: float | None, num_train: float | None
) -> None:
    finite = np.isfinite(one.sizes)
    sizes, binomial = one.sizes[finite], np.sum(one.integrals * (1 - one.integrals), axis=-1)
    axes.set(xscale="log", yscale="log", xlim=(sizes[0] / 1.5, sizes[-1] * 1.5))
    # Interval of the model variance: that of n_equiv, the other way round.
    high = binomial[finite] / np.maximum(one.n_equiv.low[finite], 1e-300)
    low = np.maximum(binomial[finite] / one.n_equiv.high[finite], bottom / 10)
    axes.fill_between(sizes, low, high, color=color(1), alpha=_LIGHT, linewidth=0.0)
    _points(axes, one, color(0), "Measured")
    axes.plot(
        sizes,
        one.stat_variance[finite],
        color=color(2),
        linestyle="--",
        label=r"$\sigma^2_\mathrm{stat}$",
    )
    positive = np.where(one.model_variance[finite] > 0, one.model_variance[finite], np.nan)
    axes.plot(sizes, positive, color=color(1), label=r"$\sigma^2_\mathrm{model}$")
    if truth is not None:
        axes.axhline(
            truth,
            color=REFERENCE,
            linestyle=":",
            linewidth=1.0,
            label=r"exact $\sigma^2_\mathrm{model}$",
        )
    for x, shade in ((num_train, "#999999"), (one.n_equiv.value[-1], color(3))):
        if x is not None and sizes[0] < x < sizes[-1]:
            axes.axvline(x, color=shade, linewidth=0.8)
    # One below the other, since the lines may be close.
    for x, name, height in ((num_train, "train", 0.97), (one.n_equiv.value[-1], "equiv", 0.9)):
        if x is not None and sizes[0] < x < sizes[-1]:
            axes.text(
                x,
                height,
                rf" $n_\mathrm{{{name}}}$",
                transform=axes.get_xaxis_transform(),
                va="top",
                fontsize=8.0,
            )


def _points(axes: Axes, one: Averaging, shade: str, label: str, **style) -> None:
    finite = np.isfinite(one.sizes)
    axes.plot(
        one.sizes[finite],
        one.variance[finite],
        color=shade,
        linestyle="none",
        marker="o",
        markersize=3.5,
        label=label,
        **style,
    )


def _smallest(results, truth: float | None) -> float:
    """Smallest variance that should be seen; zeros, of members that agree, have no logarithm."""
    known = [np.array([truth] if truth else [])]
    for one in results:
        finite = np.isfinite(one.sizes)
        known += [one.variance[finite], one.stat_variance[finite]]
    values = np.concatenate(known)
    return float(values[values > 0].min(initial=1.0))

"""What members disagree on: histograms with their spread, pulls and coverage."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy import stats

from jgen.metrics import histogram
from jgen.metrics.calibration import Coverage, Pulls
from jgen.plotting.histograms import (
    Panel,
    band,
    decorate,
    fraction_ratio,
    mark_outside,
    panel_grid,
    populated,
    ratio_limits,
    write_outside,
)
from jgen.plotting.style import (
    BAND,
    REFERENCE,
    TEXT_WIDTH,
    color,
    new_figure,
    styled,
)

_LIGHT = 0.3  # opacity of bands


@styled
def member_histogram(axes: tuple[Axes, Axes], panel: Panel) -> None:
    """Draw a panel whose samples are the members of one ensemble on (histogram, ratio) axes.

    The thick line is the members' mean, the band their standard deviation (M - 1 in the
    denominator), thin lines are single members; the grey band is the truth's Poisson error.
    Contents are fractions of all entries, and what lies outside the edges is written at its side.

    Raises:
      ValueError: for fewer than two members, or members of different sizes.
    """
    main, ratio = axes
    values = list(panel.samples.values())
    if len(values) < 2 or len({len(v) for v in values}) != 1:
        raise ValueError(
            "a spread needs two or more members with equally many events, got members of "
            f"{[len(v) for v in values]} events"
        )
    # All members together are their mean, since they have equally many events.
    panel, reference, drawn = populated(
        panel._replace(samples=panel.samples | {"mean": np.concatenate(values)})
    )
    mean = drawn.pop("mean")
    members = list(drawn.values())
    spread = np.std([m.fractions for m in members], axis=0, ddof=1)

    band(main, panel.edges, reference.fractions, reference.fraction_errors, BAND, alpha=1.0)
    main.stairs(reference.fractions, panel.edges, color=REFERENCE)
    band(main, panel.edges, mean.fractions, spread, color(0), alpha=_LIGHT)
    relative, relative_error = fraction_ratio(reference, reference)
    band(ratio, panel.edges, relative, relative_error, BAND, alpha=1.0)
    ratio.axhline(1.0, color=REFERENCE, linewidth=0.8)
    of_mean = fraction_ratio(reference, mean)
    scale = of_mean[0] / np.where(mean.fractions > 0, mean.fractions, np.nan)
    limits = ratio_limits([(of_mean[0], spread * scale)])
    panel = panel._replace(ratio_range=panel.ratio_range or limits)
    band(ratio, panel.edges, mean.fractions * scale, spread * scale, color(0), alpha=_LIGHT)
    thin = {"color": color(0), "linewidth": 0.4, "alpha": 0.6, "baseline": None}
    for member in members:
        main.stairs(member.fractions, panel.edges, **thin)
        ratio.stairs(member.fractions * scale, panel.edges, **thin)
    main.stairs(mean.fractions, panel.edges, color=color(0), baseline=None)
    ratio.stairs(mean.fractions * scale, panel.edges, color=color(0), baseline=None)
    mark_outside(ratio, panel, mean.fractions * scale, color(0))

    used = write_outside(main, reference, {"mean": mean})
    decorate(main, ratio, panel, [reference, mean, *members], 0.05 + used)


@styled
def member_grid(panels: Sequence[Panel], label: str) -> Figure:
    """A page of panels whose samples are the members of one ensemble.

    Args:
      panels: observables; `samples` maps each member's name to its values.
      label: name of the ensemble.

    Raises:
      ValueError: if there is no panel, or as `member_histogram` says.
    """
    figure = panel_grid(panels, member_histogram)
    num = len(panels[0].samples)
    handles = {
        f"{panels[0].reference_label}, statistical": Patch(
            facecolor=BAND, edgecolor=REFERENCE, linewidth=1.3
        ),
        f"{label}, spread of {num}": Patch(facecolor=(color(0), _LIGHT), edgecolor=color(0)),
        "Single members": Line2D([], [], color=color(0), linewidth=0.4, alpha=0.6),
    }
    ncols = 3 if len(panels) > 1 else 1  # a single panel is narrow
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=ncols)
    return figure


@styled
def coverage_curves(curves: Mapping[str, Coverage]) -> Figure:
    """Observed coverage against the claimed level, with what calibrated members give, dashed.

    Above the diagonal members claim too large errors, below it too small ones. Bands are the
    errors that the curves carry.
    """
    figure = new_figure(0.55 * TEXT_WIDTH, 3.4)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=REFERENCE, linewidth=0.8)
    for i, (label, curve) in enumerate(curves.items()):
        low, high = curve.observed - curve.error, curve.observed + curve.error
        axes.fill_between(curve.levels, low, high, color=color(i), alpha=_LIGHT, linewidth=0.0)
        axes.plot(curve.levels, curve.observed, color=color(i), label=label)
        axes.plot(curve.levels, curve.expected, color=color(i), linestyle="--", linewidth=0.8)
    axes.plot([], [], color=REFERENCE, linestyle="--", linewidth=0.8, label="Calibrated")
    axes.set(xlabel="Claimed level", ylabel="Fraction of truths inside", xlim=(0, 1), ylim=(0, 1))
    axes.set_aspect("equal")
    axes.legend(loc="upper left")
    return figure


@styled
def pull_distribution(
    pulls: Mapping[str, Pulls],
    limit: float = 6.0,
    *,
    truth: str = "truth",
    quantities: str = "bins",
) -> Figure:
    """Distribution of pulls beside that of calibrated members, a mean of Student's t, dashed.

    Pulls beyond the limit are in the outermost bins, so that no tail is lost.

    Args:
      pulls: label -> pulls.
      limit: largest pull on the axis.
      truth: name of what the members' mean is compared with.
      quantities: what has a pull each.
    """
    figure = new_figure(0.6 * TEXT_WIDTH, 3.2)
    axes = figure.subplots()
    edges = np.linspace(-limit, limit, 41)
    x = np.linspace(-limit, limit, 201)
    for i, (label, one) in enumerate(pulls.items()):
        counts = histogram(np.clip(one.values.ravel(), -limit, limit), edges).fractions
        density = counts / np.diff(edges)
        width = f"{label}, width {one.width:.2f} (calibrated {one.expected_width:.2f})"
        axes.stairs(density, edges, color=color(i), label=width)
        # Bins have few different numbers of degrees of freedom; a hundred quantiles are enough.
        degrees = np.quantile(one.degrees_of_freedom, (np.arange(100) + 0.5) / 100, method="lower")
        expected = stats.t.pdf(x[:, None], degrees[None]).mean(axis=1)
        axes.plot(x, expected, color=color(i), linestyle="--", linewidth=0.8)
    xlabel = rf"(Mean $-$ {truth}) / predicted error"
    axes.set(xlabel=xlabel, ylabel=f"Density of {quantities}")
    axes.set_xlim(-limit, limit)
    axes.set_ylim(0, 1.4 * axes.get_ylim()[1])
    axes.legend(loc="upper left")
    return figure

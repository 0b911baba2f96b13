"""Equivalent events of several generators in several sets of bins, in one picture."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from jgen.plotting.style import MARKERS, REFERENCE, TEXT_WIDTH, color, new_figure, styled


@styled
def equivalent_events_chart(
    estimates: Mapping[str, Mapping[str, tuple[float, float]]], num_train: int
) -> Figure:
    """Equivalent events with error bars; a dashed line at the training events, where G is one.

    Args:
      estimates: generator -> bins -> (equivalent events, their error). A generator need not have
        all bins, which stand side by side in the order in which they come first.
      num_train: training events.

    Raises:
      ValueError: if there is nothing to draw.
    """
    names = list(dict.fromkeys(name for values in estimates.values() for name in values))
    if not names:
        raise ValueError("equivalent_events_chart needs at least one generator with bins, got none")
    figure = new_figure(TEXT_WIDTH, 3.0)
    axes = figure.subplots()
    axes.axhline(num_train, color=REFERENCE, linestyle="--", linewidth=0.8)
    step = 0.6 / max(len(estimates) - 1, 1)
    for i, (label, values) in enumerate(estimates.items()):
        x = [names.index(name) + (i - (len(estimates) - 1) / 2) * step for name in values]
        value, error = np.array(list(values.values())).T
        # A logarithmic axis has no zero: bars reach down to a tenth of the value at most.
        bars = np.stack([np.minimum(error, 0.9 * value), error])
        axes.errorbar(
            x, value, yerr=bars, fmt=MARKERS[i % 6], color=color(i), markersize=4, label=label
        )
    axes.set(yscale="log", ylabel="Equivalent true events", xlim=(-0.6, len(names) - 0.4))
    axes.set_xticks(range(len(names)), names, rotation=20 if len(names) > 5 else 0)
    axes.tick_params(axis="x", which="minor", bottom=False, top=False)
    axes.text(
        1.005, num_train, r"$n_\mathrm{train}$", transform=axes.get_yaxis_transform(), va="center"
    )
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=max(len(estimates), 1))
    return figure

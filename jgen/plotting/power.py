"""Which test sees which fault, as a map."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Real
from matplotlib.figure import Figure

from jgen.plotting.style import TEXT_WIDTH, new_figure, styled


@styled
def power_map(
    powers: Mapping[str, Real[np.ndarray, "tests sizes"]],
    tests: Sequence[str],
    sizes: Mapping[str, Sequence[str]],
    *,
    title: str = "",
) -> Figure:
    """Fractions of samples in which tests see faults, written into the cells in per cent.

    Args:
      powers: fault -> fractions in [0, 1].
      tests: names of the rows.
      sizes: fault -> labels of its columns, how large the fault is.
      title: above the map.

    Raises:
      ValueError: if the shapes do not fit the labels.
    """
    for fault, values in powers.items():
        if values.shape != (expected := (len(tests), len(sizes.get(fault, ())))):
            raise ValueError(f"the powers of {fault!r} have shape {values.shape}, not {expected}")
    widths = [len(sizes[fault]) for fault in powers]
    figure = new_figure(TEXT_WIDTH, 1.3 + 0.155 * len(tests))
    panels = figure.subplots(1, len(powers), width_ratios=widths, sharey=True, squeeze=False)[0]
    for axes, (fault, values) in zip(panels, powers.items(), strict=True):
        axes.imshow(values, vmin=0, vmax=1, cmap="Blues", aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            shown = f"{100 * value:.0f}"
            dark = "white" if value > 0.6 else "#555555"
            axes.text(column, row, shown, ha="center", va="center", fontsize=5.5, color=dark)
        axes.set_xticks(range(len(sizes[fault])), sizes[fault], rotation=60, fontsize=6.5)
        axes.set_yticks(range(len(tests)), tests, fontsize=6.5)
        axes.tick_params(which="both", length=0)
        axes.minorticks_off()
        axes.set_title(fault, fontsize=7)
    if title:
        figure.suptitle(title, fontsize=8)
    return figure

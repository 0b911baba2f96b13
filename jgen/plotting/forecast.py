"""Figures of a forecast of amplification: variances, distances, and the events themselves."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Real
from matplotlib.figure import Figure

from jgen.amplification import Forecast, Statistic
from jgen.plotting.amplification import variance_curves
from jgen.plotting.differential import ks_curves
from jgen.plotting.histograms import Panel, histogram_grid

PER_FIGURE = 3  # panels of variances; twice as many curves of distances
MAX_DRAWN = 1_000_000  # generated events in a histogram, of all members together


def forecast_figures(result: Forecast) -> dict[str, Figure]:
    """All figures of a forecast, by name.

    `variances` (`variances_2`, ... if there are many regions) against generated events, `distances`
    of columns and `distances_classifier`, and `columns`, histograms of the events.
    """
    figures = {}
    shown = {one.label: one.averaging for one in result.averaging.values() if one.is_shown}
    for i, group in enumerate(_groups(shown, PER_FIGURE)):
        figures[_numbered("variances", i)] = variance_curves(
            group, num_train=result.inputs.num_train
        )
    columns = {name: one for name, one in result.differential.items() if name != "classifier"}
    for i, group in enumerate(_groups(columns, 2 * PER_FIGURE)):
        figures[_numbered("distances", i)] = _distances(result, group)
    if "classifier" in result.differential:
        classifier = {"classifier": result.differential["classifier"]}
        figures["distances_classifier"] = _distances(result, classifier)
    figures["columns"] = histogram_grid(_panels(result))
    return figures


def _groups(items: Mapping, size: int) -> list[dict]:
    pairs = list(items.items())
    return [dict(pairs[i : i + size]) for i in range(0, len(pairs), size)]


def _numbered(name: str, index: int) -> str:
    return name if index == 0 else f"{name}_{index + 1}"


def _distances(result: Forecast, statistics: Mapping[str, Statistic]) -> Figure:
    inputs, first = result.inputs, next(iter(statistics.values()))
    label = "training events, uncalibrated" if inputs.held_out is None else "held-out events"
    return ks_curves(
        {name: one.distances for name, one in statistics.items()},
        first.sizes,
        first.num_reference,
        inputs.num_train,
        reference_label=label,
    )


def _panels(result: Forecast) -> list[Panel]:
    """Histograms of training, held-out and generated events, of all members together."""
    inputs, count = result.inputs, len(result.inputs.members)
    generated = np.concatenate([inputs.generated(i, MAX_DRAWN // count) for i in range(count)])
    label = "Training" if inputs.held_out is None else "Held out"
    panels = []
    for i, name in enumerate(inputs.names):
        samples = {"Generated": generated[:, i]}
        if inputs.held_out is not None:
            samples["Training"] = inputs.train[:, i]
        reference = inputs.reference[:, i]
        panels.append(Panel(_edges(reference), reference, samples, name, reference_label=label))
    return panels


def _edges(values: Real[np.ndarray, " num"], most: int = 50) -> Float[np.ndarray, " edges"]:
    """Equal bins where nearly all events are; one a number if these are few whole ones."""
    low, high = values.min(), values.max()
    if high - low < most and np.all(values == np.round(values)):
        return np.arange(low - 0.5, high + 1.0)
    num = int(np.clip(2 * len(values) ** (1 / 3), 10, most))
    return np.linspace(*np.quantile(values, [0.002, 0.998]), num + 1)

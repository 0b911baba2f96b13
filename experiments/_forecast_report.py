"""What a forecast found: estimates from all members, metrics, a table and figures."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from scipy import stats

from experiments._forecast import Config, Inputs, Measured, scan_sizes
from experiments._forecast_files import read_columns
from jgen.amplification import (
    Averaging,
    Interval,
    averaging_amplification,
    equivalent_events,
    expected_distance,
    kolmogorov_cdf,
)
from jgen.plotting import Panel, histogram_grid, ks_curves, variance_curves

PER_FIGURE = 3  # panels of variances; twice as many curves of distances
MAX_DRAWN = 1_000_000  # generated events in a histogram, of all members together


class Selection(NamedTuple):
    """Regions taken together.

    Attributes:
      name: in metrics.
      label: in words.
      found: result of averaging.
      train: share of training events.
      pull: the members' mean share less that of held-out events, over what the disagreement of
        members and the finite numbers of events allow; of several regions the largest. None
        without held-out events.
      p_value: of so large a pull in any of the regions; one without held-out events.
      is_shown: in text and figures, not only in the metrics.
    """

    name: str
    label: str
    found: Averaging
    train: float
    pull: float | None
    p_value: float
    is_shown: bool


class Statistic(NamedTuple):
    """Distances of one observable, or of a classifier's likelihood ratio.

    Attributes:
      name: of the observable, "classifier" for the likelihood ratio.
      sizes: numbers of generated events.
      distances: Kolmogorov-Smirnov distances to true events.
      num_reference: how many of these.
      n_equiv: from the mean over members, or the median of members where not calibrated.
      probability: of so small a mean distance if the generator were perfect.
    """

    name: str
    sizes: Int[np.ndarray, " sizes"]
    distances: Float[np.ndarray, "members sizes"]
    num_reference: int
    n_equiv: Interval
    probability: float


class Findings(NamedTuple):
    """Everything that text and figures are made of."""

    selections: tuple[Selection, ...]
    statistics: tuple[Statistic, ...]


def gather(
    config: Config,
    inputs: Inputs,
    intervals: Float[np.ndarray, "regions 2"],
    measured: list[Measured],
) -> Findings:
    """Estimates from the numbers of all members."""
    selections = []
    if len(measured) > 1:
        fractions = np.stack([one.fractions for one in measured])
        sizes = scan_sizes(config, inputs)
        selections = [
            _select(inputs, intervals, fractions, sizes, *wanted)
            for wanted in _wanted(config, inputs, intervals)
        ]
    statistics = [
        _summarise(
            inputs,
            name,
            scan_sizes(config, inputs),
            np.stack([one.distances[i] for one in measured]),
            np.stack([one.n_equiv[i] for one in measured]),
            len(inputs.reference),
        )
        for i, name in enumerate(inputs.names)
    ]
    if scored := [one for one in measured if len(one.classifier_sizes)]:
        statistics.append(
            _summarise(
                inputs,
                "classifier",
                scored[0].classifier_sizes,
                np.stack([one.classifier_distances for one in scored]),
                np.stack([one.classifier_n_equiv for one in scored]),
                int(scored[0].classifier_reference),
            )
        )
    return Findings(tuple(selections), tuple(statistics))


def metrics(config: Config, inputs: Inputs, found: Findings) -> dict[str, float]:
    """Flat numbers; those that are infinite are left out, their lower limits are there."""
    numbers = {
        "num_train": inputs.num_train,
        "num_generated": inputs.num_gen,
        "num_members": len(inputs.generated),
        "num_held_out": 0 if inputs.held_out is None else len(inputs.held_out),
    }
    for one in found.selections:
        last = _last(one.found.n_equiv)
        numbers |= _amplification(inputs, "G", "n_equiv", one.name, last)
        numbers[f"share/{one.name}"] = one.found.integrals[-1].sum()
        numbers[f"share_train/{one.name}"] = one.train
        if one.pull is not None:
            numbers[f"pull/{one.name}"] = one.pull
    kind = "uncalibrated" if inputs.held_out is None else "ks"
    for one in found.statistics:
        numbers |= _amplification(inputs, f"G_{kind}", f"n_equiv_{kind}", one.name, one.n_equiv)
        numbers[f"distance/{one.name}"] = one.distances[:, -1].mean()
        numbers[f"probability/{one.name}"] = one.probability
        if len(one.distances) > 1:
            numbers[f"distance_spread/{one.name}"] = one.distances[:, -1].std(ddof=1)
    return {name: float(value) for name, value in numbers.items() if np.isfinite(value)}


def table(inputs: Inputs, found: Findings, exact: dict[str, float]) -> str:
    """Amplifications with intervals, and exact ones where they are known."""
    rows = [("", "exact", "G", "68 % interval", "distance", "pull")]
    for one in found.selections:
        if one.is_shown:
            pull = "" if one.pull is None else f"{one.pull:+.1f}"
            known = f"{exact[one.name]:.1f}" if one.name in exact else ""
            rows.append((one.label, known, *_cells(inputs, _last(one.found.n_equiv)), "", pull))
    kind = "uncalibrated" if inputs.held_out is None else "KS"
    for one in found.statistics:
        distance = f"{one.distances[:, -1].mean():.4f}"
        rows.append((f"{kind}, {one.name}", "", *_cells(inputs, one.n_equiv), distance, ""))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rows = [[cell.rjust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return "\n".join("  ".join([row[0].strip().ljust(widths[0]), *row[1:]]) for row in rows)


def figures(inputs: Inputs, found: Findings) -> dict[str, Figure]:
    """Variances, distances, and histograms of the columns."""
    drawn = {}
    shown = [one for one in found.selections if one.is_shown]
    for i, group in enumerate(_groups(shown, PER_FIGURE)):
        panels = {one.label: one.found for one in group}
        drawn[_numbered("variances", i)] = variance_curves(panels, num_train=inputs.num_train)
    observables = [one for one in found.statistics if one.name != "classifier"]
    for i, group in enumerate(_groups(observables, 2 * PER_FIGURE)):
        drawn[_numbered("distances", i)] = _distance_figure(inputs, group)
    if len(observables) < len(found.statistics):
        drawn["distances_classifier"] = _distance_figure(inputs, found.statistics[-1:])
    drawn["columns"] = histogram_grid(_panels(inputs))
    return drawn


def _wanted(config, inputs, intervals):
    """(name, label, rows, is_shown) of regions, of all together, and of quantiles."""
    name, num = inputs.names[inputs.region_index], len(config.region)
    for i, (low, high) in enumerate(config.region):
        yield f"region_{i + 1}", f"{name} in [{low:.4g}, {high:.4g})", [i], True
    order = sorted(config.region)
    overlap = any(b[0] < a[1] for a, b in zip(order, order[1:], strict=False))
    if num > 1 and not overlap:
        yield "regions", f"all {num} regions", list(range(num)), True
    if not config.quantiles:
        return
    rows = list(range(num, len(intervals)))
    yield "quantiles", f"{len(rows)} quantiles of {name}", rows, True
    yield "quantile_lowest", f"lowest quantile of {name}", rows[:1], True
    yield "quantile_highest", f"highest quantile of {name}", rows[-1:], True
    if len(rows) > 2:
        yield "quantiles_inner", f"{name} without these two", rows[1:-1], True
        for i, row in enumerate(rows[1:-1]):
            yield f"quantile_{i + 2}", "", [row], False


def _select(inputs, intervals, fractions, sizes, name, label, rows, is_shown):
    chosen = fractions[:, :, rows]
    found = averaging_amplification(chosen, sizes, inputs.num_train)
    shares = [
        None if events is None else _shares(events[:, inputs.region_index], intervals[rows])
        for events in (inputs.train, inputs.held_out)
    ]
    pull, p_value = None, 1.0
    if shares[1] is not None:
        pull, p_value = _pull(chosen[:, -1], sizes[-1], shares[1], len(inputs.held_out))
    return Selection(name, label, found, float(shares[0].sum()), pull, p_value, is_shown)


def _pull(fractions, num_gen, held_out, num_held_out):
    """Largest pull of the members' mean, and its p-value among so many regions."""
    mean, num = fractions.mean(axis=0), len(fractions)
    binomial = mean * (1 - mean)
    model = np.maximum(fractions.var(axis=0, ddof=1) - binomial / num_gen, 0.0)
    error = np.sqrt(model + binomial * (1 / num_held_out + 1 / (num * num_gen)))
    # A region that no event is in, neither held out nor generated, has no pull.
    pulls = np.divide(mean - held_out, error, out=np.zeros_like(mean), where=error > 0)
    largest = pulls[np.argmax(np.abs(pulls))]
    p_value = min(1.0, len(pulls) * 2 * stats.norm.sf(abs(largest)))
    return float(largest), float(p_value)


def _shares(values, intervals):
    return np.array([np.mean((values >= low) & (values < high)) for low, high in intervals])


def _summarise(inputs, name, sizes, distances, n_equiv, num_reference):
    mean = distances[:, -1].mean()
    if inputs.held_out is None:
        estimate = Interval(*np.median(n_equiv, axis=0))
    else:
        estimate = equivalent_events(mean, num_reference, sizes[-1])
    perfect = expected_distance(num_reference, sizes[-1], 1.0)
    probability = float(kolmogorov_cdf(mean / perfect))
    return Statistic(name, sizes, distances, num_reference, estimate, probability)


def _last(interval):
    return Interval(*(float(end[-1]) for end in interval))


def _amplification(inputs, factor, number, name, interval):
    """Metrics of one n_equiv and its G."""
    numbers = {}
    for end, value in zip(("", "_low", "_high"), interval, strict=True):
        numbers[f"{number}/{name}{end}"] = value
        numbers[f"{factor}/{name}{end}"] = value / inputs.num_train
    return numbers


def _cells(inputs, interval):
    value, low, high = (float(end) / inputs.num_train for end in interval)
    ends = f"> {low:.3g}" if np.isinf(high) else f"{low:.3g} to {high:.3g}"
    return ("" if np.isinf(value) else f"{value:.3g}"), ends


def _groups(items, size):
    return [items[i : i + size] for i in range(0, len(items), size)]


def _numbered(name, index):
    return name if index == 0 else f"{name}_{index + 1}"


def _distance_figure(inputs, statistics):
    uncalibrated = inputs.held_out is None
    return ks_curves(
        {one.name: one.distances for one in statistics},
        statistics[0].sizes,
        statistics[0].num_reference,
        inputs.num_train,
        reference_label="training events, uncalibrated" if uncalibrated else "held-out events",
    )


def _panels(inputs):
    """Histograms of training, held-out and generated events, of all members together."""
    each = min(inputs.num_gen, MAX_DRAWN // len(inputs.generated))
    drawn = [read_columns(file, inputs.columns, each) for file in inputs.generated]
    generated = np.concatenate(drawn)
    label = "Training" if inputs.held_out is None else "Held out"
    panels = []
    for i, name in enumerate(inputs.names):
        samples = {"Generated": generated[:, i]}
        if inputs.held_out is not None:
            samples["Training"] = inputs.train[:, i]
        reference = inputs.reference[:, i]
        panels.append(Panel(_edges(reference), reference, samples, name, reference_label=label))
    return panels


def _edges(values, most=50):
    """Equal bins where nearly all events are; one a number if these are few whole ones."""
    low, high = values.min(), values.max()
    if high - low < most and np.all(values == np.round(values)):
        return np.arange(low - 0.5, high + 1.0)
    num = int(np.clip(2 * len(values) ** (1 / 3), 10, most))
    return np.linspace(*np.quantile(values, [0.002, 0.998]), num + 1)

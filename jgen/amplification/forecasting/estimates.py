"""What the numbers of all members say together: of regions, and of whole distributions."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize, stats

from jgen.amplification.averaging import (
    ONE_SIGMA,
    Averaging,
    Interval,
    averaging_amplification,
)
from jgen.amplification.differential import equivalent_events
from jgen.amplification.forecasting.inputs import Inputs
from jgen.amplification.forecasting.measure import Measured
from jgen.amplification.kolmogorov import expected_distance, kolmogorov_cdf


class Selection(NamedTuple):
    """Regions taken together.

    Attributes:
      label: in words.
      averaging: variances against the number of generated events.
      n_equiv: true events that the generator is worth there, from the spread of its members.
      amplification: the same over n_train, G.
      share: of generated events.
      share_train: of training events.
      pull: the members' mean share less that of held-out events, over what the disagreement of
        members and the finite numbers of events allow; of several regions the largest. None
        without held-out events.
      p_value: of so large a pull in any of the regions; one without held-out events.
      confirmed: true events that the generator is worth at least, by its mean's distance to the
        held-out events alone (84 %, the lower end of an interval of 68 %). So it holds a bias that
        members share, and is at most some n_held_out, since fewer events would not show a smaller
        one. None without held-out events.
      is_shown: in text and figures, not only in the metrics.
    """

    label: str
    averaging: Averaging
    n_equiv: Interval
    amplification: Interval
    share: float
    share_train: float
    pull: float | None
    p_value: float
    confirmed: float | None
    is_shown: bool


class Statistic(NamedTuple):
    """Distances of one observable, or of a classifier's likelihood ratio.

    Attributes:
      sizes: numbers of generated events.
      distances: Kolmogorov-Smirnov distances to true events.
      num_reference: how many of these.
      n_equiv: from the mean over members, or the median of members where not calibrated.
      amplification: the same over n_train, G.
      probability: of so small a mean distance if the generator were perfect.
    """

    sizes: Int[np.ndarray, " sizes"]
    distances: Float[np.ndarray, "members sizes"]
    num_reference: int
    n_equiv: Interval
    amplification: Interval
    probability: float


def selections(inputs: Inputs, members: Sequence[Measured]) -> dict[str, Selection]:
    """Of regions region_1, ... and quantile_2, ...; none from a single member, without a spread."""
    if len(members) < 2:
        return {}
    fractions = np.stack([one.fractions for one in members])
    wanted = list(_wanted(inputs))
    return {name: _select(inputs, fractions, *rest) for name, *rest in wanted}


def statistics(inputs: Inputs, members: Sequence[Measured]) -> dict[str, Statistic]:
    """Of every column, and of "classifier" if there is one."""
    table = {}
    for i, name in enumerate(inputs.names):
        distances = np.stack([one.distances[i] for one in members])
        n_equiv = np.stack([one.n_equiv[i] for one in members])
        table[name] = _summarise(inputs, inputs.sizes, distances, n_equiv, len(inputs.reference))
    if scored := [one for one in members if len(one.classifier_sizes)]:
        table["classifier"] = _summarise(
            inputs,
            scored[0].classifier_sizes,
            np.stack([one.classifier_distances for one in scored]),
            np.stack([one.classifier_n_equiv for one in scored]),
            int(scored[0].classifier_reference),
        )
    return table


def confirmed_events(
    deviation: Float[np.ndarray, " regions"],
    integrals: Float[np.ndarray, " regions"],
    noise: Float[np.ndarray, " regions"],
) -> float:
    """Events that a generator is worth at least, by its deviation from held-out events alone.

    The largest sum of squared biases with which so small a sum of squared deviations, or a smaller
    one, has a probability of 16 %: a non-central chi-square, its regions taken as equally noisy. A
    deviation below its noise counts as that, so that a lucky sample makes no stronger claim.

    Args:
      deviation: shares of generated less those of held-out events.
      integrals: shares of regions, I.
      noise: variances of the deviations if there were no bias.
    """
    count, scatter = np.sum(noise > 0), noise.sum()
    if count == 0:
        return 0.0
    seen = count * max(np.sum(deviation**2) / scatter, 1.0)
    excess = lambda bias: stats.ncx2.cdf(seen, count, bias) - (1 - ONE_SIGMA) / 2
    bias = optimize.brentq(excess, 1e-9, (seen**0.5 + 6) ** 2)
    return float(np.sum(integrals * (1 - integrals)) / (bias * scatter / count))


def _wanted(inputs: Inputs) -> Iterator[tuple[str, str, list[int], bool]]:
    """(name, label, rows, is_shown) of regions, of all together, and of quantiles."""
    name, num = inputs.names[inputs.column], inputs.num_regions
    asked = inputs.regions[:num]
    for i, (low, high) in enumerate(asked):
        yield f"region_{i + 1}", f"{name} in [{low:.4g}, {high:.4g})", [i], True
    order = sorted(asked.tolist())
    overlap = any(b[0] < a[1] for a, b in zip(order, order[1:], strict=False))
    if num > 1 and not overlap:
        yield "regions", f"all {num} regions", list(range(num)), True
    rows = list(range(num, len(inputs.regions)))
    if not rows:
        return
    yield "quantiles", f"{len(rows)} quantiles of {name}", rows, True
    yield "quantile_lowest", f"lowest quantile of {name}", rows[:1], True
    yield "quantile_highest", f"highest quantile of {name}", rows[-1:], True
    if len(rows) > 2:
        yield "quantiles_inner", f"{name} without these two", rows[1:-1], True
        for i, row in enumerate(rows[1:-1]):
            yield f"quantile_{i + 2}", f"quantile {i + 2} of {name}", [row], False


def _select(inputs, fractions, label, rows, is_shown) -> Selection:
    averaging = averaging_amplification(fractions[:, :, rows], inputs.sizes, inputs.num_train)
    last = fractions[:, -1, rows]
    share_train = float(_shares(inputs, inputs.train, rows).sum())
    pull, p_value, confirmed = None, 1.0, None
    if inputs.held_out is not None:
        deviation = last.mean(axis=0) - _shares(inputs, inputs.held_out, rows)
        pull, p_value, confirmed = _against_held_out(inputs, last, deviation)
    return Selection(
        label,
        averaging,
        _last(averaging.n_equiv),
        _last(averaging.amplification),
        float(averaging.integrals[-1].sum()),
        share_train,
        pull,
        p_value,
        confirmed,
        is_shown,
    )


def _against_held_out(inputs, fractions, deviation) -> tuple[float, float, float]:
    """Largest pull of the members' mean, its p-value among so many regions, and what is certain."""
    mean, num = fractions.mean(axis=0), len(fractions)
    binomial = mean * (1 - mean)
    noise = binomial * (1 / len(inputs.held_out) + 1 / (num * inputs.num_gen))
    model = np.maximum(fractions.var(axis=0, ddof=1) - binomial / inputs.num_gen, 0.0)
    error = np.sqrt(model + noise)
    # A region that no event is in, neither held out nor generated, has no pull.
    pulls = np.divide(deviation, error, out=np.zeros_like(mean), where=error > 0)
    largest = pulls[np.argmax(np.abs(pulls))]
    p_value = min(1.0, len(pulls) * 2 * stats.norm.sf(abs(largest)))
    return float(largest), float(p_value), confirmed_events(deviation, mean, noise)


def _shares(inputs, events, rows):
    values = events[:, inputs.column]
    return np.array([np.mean((values >= a) & (values < b)) for a, b in inputs.regions[rows]])


def _summarise(inputs, sizes, distances, n_equiv, num_reference) -> Statistic:
    mean = distances[:, -1].mean()
    if inputs.held_out is None:
        estimate = Interval(*np.median(n_equiv, axis=0))
    else:
        estimate = equivalent_events(mean, num_reference, sizes[-1])
    n_equiv = Interval(*(float(end) for end in estimate))
    probability = float(kolmogorov_cdf(mean / expected_distance(num_reference, sizes[-1], 1.0)))
    amplification = n_equiv.over(inputs.num_train)
    return Statistic(sizes, distances, num_reference, n_equiv, amplification, probability)


def _last(interval: Interval) -> Interval:
    return Interval(*(float(end[-1]) for end in interval))

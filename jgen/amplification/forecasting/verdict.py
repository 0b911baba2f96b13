"""The verdict in plain words."""

import textwrap
from collections.abc import Mapping

import numpy as np

from jgen.amplification.averaging import Interval
from jgen.amplification.forecasting.estimates import Selection, Statistic
from jgen.amplification.forecasting.inputs import Inputs
from jgen.overlap import COPIES

ENOUGH = 10  # times n_equiv: the error is then within 5 % of that of infinitely many events
SUSPICIOUS = 0.0027  # probability of three standard deviations

_KINDS = {
    "unknown": "You did not say what the members are (kind). Everything from their spread holds "
    "only if each was trained on its own resampled events (bootstrap). Members trained on the same "
    "events disagree by their optimisation alone; then do not quote these numbers.",
    "plain": "CAUTION: members of a plain ensemble are trained on the same events. Their spread is "
    "that of the optimisation and does not hold the error of a finite training set, which is what "
    "amplification is about: do not quote these numbers as amplification. Train members on "
    "resampled events (bootstrap).",
    "repulsive": "CAUTION: members of a repulsive ensemble are trained on the same events, and how "
    "much they disagree follows from the strength of the repulsion. Quote these numbers only where "
    "the spread was calibrated, or train members on resampled events (bootstrap).",
    "bootstrap": "Members are trained on resampled events, so their spread holds the error of a "
    "finite training set. It is that of this one training set; others scatter beyond the interval. "
    "This is true of generators that average over events. Where a few events decide, as the "
    "largest one does for the edge of a distribution, resampling gives a wrong spread, and G is "
    "mostly too high.",
    "bayesian": "The spread of Bayesian weights follows from the prior and the temperature. Quote "
    "these numbers only where it was calibrated, such as by the pulls against held-out events.",
}


def verdict(
    inputs: Inputs,
    averaging: Mapping[str, Selection],
    differential: Mapping[str, Statistic],
    copies: tuple[float, float],
) -> str:
    """What the numbers mean, as paragraphs of text."""
    count, held_out = len(inputs.members), inputs.held_out
    who = f"{count} members" if count > 1 else "one member"
    parts = [
        f"{inputs.num_train} training events, {who} with {number_in_words(inputs.num_gen)} "
        f"generated events each, {'no' if held_out is None else len(held_out)} held-out events.",
        *_copies(copies),
        "AVERAGING: shares of events in regions, from the spread of members.",
        *_averaging(inputs, averaging),
        "FULL RESOLUTION: Kolmogorov-Smirnov distances of whole distributions.",
        *_differential(inputs, differential),
        "Intervals are of 68 % probability.",
    ]
    return "\n\n".join(textwrap.fill(part, 96) for part in parts) + "\n"


def _copies(copies: tuple[float, float]) -> list[str]:
    train, held_out = copies
    said = []
    if train > COPIES:
        said.append(
            f"COPIES: {_percent(train)} of the generated events are training events, number for "
            "number. A generator that repeats them is worth no more than they are."
        )
    if held_out > COPIES:
        said.append(
            f"COPIES: {_percent(held_out)} of the generated events are held-out events, number for "
            "number. The generator has seen them, so that they judge nothing: DO NOT QUOTE numbers "
            "below."
        )
    return said


def _averaging(inputs: Inputs, averaging: Mapping[str, Selection]) -> list[str]:
    if not len(inputs.regions):
        return ["Nothing was asked for: give a region (low, high), or quantiles, such as 20."]
    if not averaging:
        return [
            "One member has no spread, so nothing can be said. Train more members, on resampled "
            "events, and give the generated events of each."
        ]
    said = [_KINDS[inputs.kind]]
    if inputs.correlation:
        said.append(
            f"CAUTION: numbers at the same place of different members have a correlation of "
            f"{inputs.correlation:.2g}, as if they were drawn with the same random numbers or "
            "conditions. The statistics of generated events is then no independent part of the "
            "spread, and what is subtracted for it makes G too large: draw members independently."
        )
    said += [_selection(inputs, one) for one in averaging.values() if one.is_shown]
    if inputs.held_out is None:
        said.append(
            "A bias that all members share does not show in their spread, and was not looked for: "
            "give held-out events."
        )
    else:
        said.append(
            "The spread of members does not hold a bias that all of them share; the distance to "
            f"held-out events does. But {len(inputs.held_out)} of them would not show a small one, "
            "so a G beyond what they confirm holds only if there is none: more held-out events "
            "would tell."
        )
    return said


def _selection(inputs: Inputs, one: Selection) -> str:
    worth, factor = interval_in_words(one.n_equiv), _factor(one.amplification)
    text = f"{one.label} ({_percent(one.share)} of generated events): "
    if inputs.kind in ("plain", "repulsive"):
        text += f"your members agree with each other as {worth} real events would, a factor "
        text += f"{factor} over the training set. This is no amplification (see above). "
    else:
        text += f"your generator is worth {worth} real events: amplification G {factor}. "
        text += _how_many(inputs.num_gen, one.n_equiv)
    if one.p_value < SUSPICIOUS:
        text += (
            f"BIAS: the members' mean is {abs(one.pull):.1f} standard deviations off the held-out "
            "events, counting their disagreement and statistics; the error is larger than their "
            "spread, and the amplification smaller than it seems. "
        )
    if one.confirmed is not None:
        factor = number_in_words(one.confirmed / inputs.num_train)
        text += f"Held-out events by themselves confirm a G of {factor} or more. "
    return text


def _how_many(num_gen: int, n_equiv: Interval) -> str:
    """When to stop generating."""
    if np.isinf(n_equiv.high):
        return (
            f"The members do not differ by more than the statistics of {number_in_words(num_gen)} "
            "events: generate more to learn more, and make sure that they were trained apart, "
            "since one generator under several names looks the same. "
        )
    enough = ENOUGH * n_equiv.value
    if num_gen < enough / 2:
        now = 1 / (1 / n_equiv.value + 1 / num_gen)
        return (
            f"Your {number_in_words(num_gen)} generated events are not at that limit, they are "
            f"worth {number_in_words(now)}: generate up to about {number_in_words(enough)}. "
        )
    return f"Generating more than about {number_in_words(enough)} events adds nothing there. "


def _differential(inputs: Inputs, differential: Mapping[str, Statistic]) -> list[str]:
    if inputs.held_out is None:
        return [
            "WARNING: without held-out events the generator is compared with the events it was "
            "trained on, uncalibrated. It was fitted to these, so distances are too small: a "
            "perfect fit seems infinitely good for nine data sets out of ten, and so does a "
            "generator that repeats its training events. DO NOT QUOTE these numbers as "
            "amplification.",
            *(_uncalibrated(name, one) for name, one in differential.items()),
        ]
    said = [_statistic(name, one) for name, one in differential.items()]
    if inputs.kind == "bootstrap" and len(inputs.members) > 1:
        said.append(
            "A bootstrap member carries the noise of resampling on top of the error of its "
            "training set. Where that is the whole error, a training on all events is worth twice "
            "these numbers."
        )
    return said


def _statistic(name: str, one: Statistic) -> str:
    text = (
        f"{_what(name)}: the distance to {one.num_reference} held-out events is "
        f"{one.distances[:, -1].mean():.2g}, as that of {interval_in_words(one.n_equiv)} real "
        f"events: amplification G {_factor(one.amplification)}. "
    )
    if np.isinf(one.n_equiv.high):
        text += "The generator's error does not stand out: more held-out events would tell more. "
    if one.probability < SUSPICIOUS:
        text += (
            "SUSPICIOUS: generated events are nearer to the held-out ones than real events would "
            f"be (probability {one.probability:.1g}). Has the generator, or its selection, seen "
            "them? "
        )
    return text


def _uncalibrated(name: str, one: Statistic) -> str:
    value, low, high = one.amplification
    factor = "infinite" if np.isinf(value) else f"{value:.2g}"
    ends = f"at least {low:.2g}" if np.isinf(high) else f"{low:.2g} to {high:.2g}"
    return (
        f"{_what(name)}: the distance to {one.num_reference} training events is "
        f"{one.distances[:, -1].mean():.2g}, uncalibrated G {factor} ({ends}, bands of Eq. 37 as "
        "printed)."
    )


def _what(name: str) -> str:
    return "Likelihood ratio of a classifier" if name == "classifier" else name


def interval_in_words(interval: Interval) -> str:
    """A number with its errors, or a lower limit."""
    value, low, high = map(float, interval)
    number = number_in_words
    if np.isinf(value):
        return f"at least {number(low)}"
    if np.isinf(high):
        return f"at least {number(low)} (best estimate {number(value)}, no upper limit)"
    return f"{number(value)} (+{number(high - value)} -{number(value - low)})"


def _factor(interval: Interval) -> str:
    """G in words, so that a limit is not written as an equation."""
    text = interval_in_words(interval)
    return text if text.startswith("at least") else f"= {text}"


def number_in_words(x: float) -> str:
    """Two digits, and no power of ten where none is needed."""
    if not 0 < x < np.inf:
        return "infinitely many" if x > 0 else "0"
    power = int(np.floor(np.log10(x)))
    x = round(x, 1 - power)
    if x >= 1e5:
        power = int(np.floor(np.log10(x)))
        return f"{x / 10**power:.2g}e{power}"
    return f"{x:.0f}" if x >= 10 else f"{x:.2g}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else "100 %"

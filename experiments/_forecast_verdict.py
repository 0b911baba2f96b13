"""The verdict in plain language."""

import textwrap

import numpy as np

from experiments._forecast import Config, Inputs
from experiments._forecast_report import Findings, Selection, Statistic

ENOUGH = 10  # times n_equiv: the error is then within 5 % of that of infinitely many events
SUSPICIOUS = 0.0027  # probability of three standard deviations

_MEMBERS = {
    "unknown": "You did not say what the members are (--members). Everything from their spread "
    "holds only if each was trained on its own resampled events (bootstrap). Members trained on "
    "the same events disagree by their optimisation alone; then do not quote these numbers.",
    "plain": "CAUTION: members of a plain ensemble are trained on the same events. Their spread is "
    "that of the optimisation and does not hold the error of a finite training set, which is what "
    "amplification is about: do not quote these numbers as amplification. Train members on "
    "resampled events (bootstrap).",
    "repulsive": "CAUTION: members of a repulsive ensemble are trained on the same events, and how "
    "much they disagree follows from the strength of the repulsion. Quote these numbers only where "
    "the spread was calibrated, or train members on resampled events (bootstrap).",
    "bootstrap": "Members are trained on resampled events, so their spread holds the error of a "
    "finite training set. It is that of this one training set; others scatter beyond the interval.",
    "bayesian": "The spread of Bayesian weights follows from the prior and the temperature. Quote "
    "these numbers only where it was calibrated, such as by the pulls against held-out events.",
}


def verdict(config: Config, inputs: Inputs, found: Findings) -> str:
    """What the numbers mean, as paragraphs of text."""
    count = len(inputs.generated)
    who = f"{count} members" if count > 1 else "one member"
    parts = [
        f"{inputs.num_train} training events, {who} with {_number(inputs.num_gen)} generated "
        "events each"
        + (
            f", {len(inputs.held_out)} held-out events."
            if inputs.held_out is not None
            else ", no held-out events."
        ),
        "AVERAGING: shares of events in regions, from the spread of members.",
        *_averaging(config, inputs, found),
        "FULL RESOLUTION: Kolmogorov-Smirnov distances of whole distributions.",
        *_differential(config, inputs, found),
        "Intervals are of 68 % probability.",
    ]
    return "\n\n".join(textwrap.fill(part, 96) for part in parts) + "\n"


def _averaging(config: Config, inputs: Inputs, found: Findings) -> list[str]:
    if not (config.region or config.quantiles):
        return ["Nothing was asked for: give --region LOW HIGH, or --quantiles 20."]
    if not found.selections:
        return [
            "One member has no spread, so nothing can be said. Train more members, on resampled "
            "events, and give one file of generated events for each."
        ]
    shown = [one for one in found.selections if one.is_shown]
    said = [_selection(config, inputs, one) for one in shown]
    if inputs.held_out is None:
        said.append(
            "A bias that all members share does not show in their spread, and was not looked for: "
            "give --held-out FILE."
        )
    return [_MEMBERS[config.members], *said]


def _selection(config: Config, inputs: Inputs, one: Selection) -> str:
    value, low, high = (float(end[-1]) for end in one.found.n_equiv)
    share = one.found.integrals[-1].sum()
    text = f"{one.label} ({_percent(share)} of generated events): "
    worth, factor = _with_interval(value, low, high), _factor(inputs, value, low, high)
    if config.members in ("plain", "repulsive"):
        text += f"your members agree with each other as {worth} real events would, a factor "
        text += f"{factor} over the training set. This is no amplification (see above). "
    else:
        text += f"your generator is worth {worth} real events: amplification G {factor}. "
        text += _how_many(inputs.num_gen, value, high)
    if one.p_value < SUSPICIOUS:
        text += (
            f"BIAS: the members' mean is {abs(one.pull):.1f} standard deviations off the held-out "
            "events, counting their disagreement and statistics; the error is larger than their "
            "spread, and the amplification smaller than it seems. "
        )
    return text


def _how_many(num_gen: int, value: float, high: float) -> str:
    """When to stop generating."""
    if np.isinf(high):
        return (
            f"The generator's error does not stand out in {_number(num_gen)} events: generate more "
            "to learn more. "
        )
    enough = ENOUGH * value
    if num_gen < enough / 2:
        now = 1 / (1 / value + 1 / num_gen)
        return (
            f"Your {_number(num_gen)} generated events are not at that limit, they are worth "
            f"{_number(now)}: generate up to about {_number(enough)}. "
        )
    return f"Generating more than about {_number(enough)} events adds nothing there. "


def _differential(config: Config, inputs: Inputs, found: Findings) -> list[str]:
    if inputs.held_out is None:
        said = [
            "WARNING: without held-out events (--held-out FILE) the generator is compared with the "
            "events it was trained on, uncalibrated. It was fitted to these, so distances are too "
            "small: a perfect fit seems infinitely good for nine data sets out of ten, and so does "
            "a generator that repeats its training events. DO NOT QUOTE these numbers as "
            "amplification.",
        ]
        return said + [_uncalibrated(inputs, one) for one in found.statistics]
    said = [_statistic(inputs, one) for one in found.statistics]
    if config.members == "bootstrap" and len(inputs.generated) > 1:
        said.append(
            "A bootstrap member carries the noise of resampling on top of the error of its "
            "training set. Where that is the whole error, a training on all events is worth twice "
            "these numbers."
        )
    return said


def _statistic(inputs: Inputs, one: Statistic) -> str:
    value, low, high = (float(end) for end in one.n_equiv)
    distance = f"{one.distances[:, -1].mean():.2g}"
    text = (
        f"{_what(one)}: the distance to {one.num_reference} held-out events is {distance}, as "
        f"that of {_with_interval(value, low, high)} real events: amplification G "
        f"{_factor(inputs, value, low, high)}. "
    )
    if np.isinf(high):
        text += "The generator's error does not stand out: more held-out events would tell more. "
    if one.probability < SUSPICIOUS:
        text += (
            "SUSPICIOUS: generated events are nearer to the held-out ones than real events would "
            f"be (probability {one.probability:.1g}). Has the generator, or its selection, seen "
            "them? "
        )
    return text


def _uncalibrated(inputs: Inputs, one: Statistic) -> str:
    value, low, high = (float(end) / inputs.num_train for end in one.n_equiv)
    number = "infinite" if np.isinf(value) else f"{value:.2g}"
    ends = f"at least {low:.2g}" if np.isinf(high) else f"{low:.2g} to {high:.2g}"
    return (
        f"{_what(one)}: the distance to {one.num_reference} training events is "
        f"{one.distances[:, -1].mean():.2g}, uncalibrated G {number} ({ends}, bands of Eq. 37 as "
        "printed)."
    )


def _what(one: Statistic) -> str:
    return "Likelihood ratio of a classifier" if one.name == "classifier" else one.name


def _with_interval(value: float, low: float, high: float) -> str:
    """A number with its errors, or a lower limit."""
    if np.isinf(value):
        return f"at least {_number(low)}"
    if np.isinf(high):
        return f"at least {_number(low)} (best estimate {_number(value)}, no upper limit)"
    return f"{_number(value)} (+{_number(high - value)} -{_number(value - low)})"


def _factor(inputs: Inputs, *n_equiv: float) -> str:
    """G in words, so that a limit is not written as an equation."""
    text = _with_interval(*(end / inputs.num_train for end in n_equiv))
    return text if text.startswith("at least") else f"= {text}"


def _number(x: float) -> str:
    """Two digits, and no power of ten where none is needed."""
    if x <= 0:
        return "0"
    power = int(np.floor(np.log10(x)))
    x = round(x, 1 - power)
    if x >= 1e5:
        power = int(np.floor(np.log10(x)))
        return f"{x / 10**power:.2g}e{power}"
    return f"{x:.0f}" if x >= 10 else f"{x:.2g}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else "100 %"

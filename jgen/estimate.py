"""A number with its statistical error, and the one way in which metrics become a flat table."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jgen.arrays import double_array, finite_array


class Estimate(NamedTuple):
    """What samples say about a number; printed as `0.0123(14)`.

    Attributes:
      value: the estimate, or an array of several.
      error: its standard error, to first order in the fluctuations; of several as many.
    """

    value: float
    error: float

    def __str__(self) -> str:
        """The error stands behind the digits that it belongs to: one of its own, two below 2."""
        if np.ndim(self.value):
            each = map(Estimate, self.value, np.broadcast_to(self.error, np.shape(self.value)))
            return f"[{', '.join(map(str, each))}]"
        value, error = float(self.value), float(self.error)
        # An error of rounding, such as 5e-17, says nothing.
        if not (math.isfinite(error) and math.isfinite(value)) or error <= 1e-9 * abs(value):
            return f"{value:.6g}"
        exponent = math.floor(math.log10(error))
        places = -exponent + (round(error / 10**exponent, 1) < 2)
        if places <= 0:
            return f"{value:.0f}({error:.0f})"
        if places > 7:
            return f"{value:.3g}({error:.1g})"
        return f"{value:.{places}f}({round(error * 10**places)})"


class Judged(NamedTuple):
    """A metric of generated events beside that of two samples of the truth of the same size.

    Attributes:
      value: reference against generated events.
      truth: reference against other events of the truth.
    """

    value: Estimate | float
    truth: Estimate | float

    def __str__(self) -> str:
        """Both, the truth's in brackets."""
        return f"{self.value} [truth {self.truth}]"


def mean_estimate(values: np.ndarray) -> Estimate:
    """Mean of independent values [n] and its standard error.

    Raises:
      ValueError: if there are fewer than two values.
    """
    values = double_array(values, "values")
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"a mean with an error needs two values [n] or more, got {values.shape}")
    return Estimate(float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5))


def mean_ratio(values: np.ndarray, reference: np.ndarray) -> Estimate:
    """Mean of independent values [n] over that of a reference [m].

    Raises:
      ValueError: if there are fewer than two values of either, they are not finite, or the
        reference has a mean of zero.
    """
    return _ratio(*(mean_estimate(_finite(v)) for v in (values, reference)), "mean")


def width_ratio(values: np.ndarray, reference: np.ndarray) -> Estimate:
    """Standard deviation of independent values [n] over that of a reference [m].

    The error follows from the fourth moments, so it holds for any distribution.

    Raises:
      ValueError: if there are fewer than two values of either, they are not finite, or the
        reference has a width of zero.
    """

    def width(v):
        squares = mean_estimate((v - v.mean()) ** 2)
        root = squares.value**0.5
        return Estimate(root, 0.5 * squares.error / root if root > 0 else 0.0)

    return _ratio(*(width(_finite(v)) for v in (values, reference)), "width")


def flatten(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as flat numbers, as `metrics.json` holds them.

    One convention: `name`, `name_error`, `name_truth`, `name_truth_error`. A NamedTuple's `value`
    gets the name itself and its other fields `name_<field>`, so that intervals have `name_low` and
    `name_high`; one that has an `estimate` counts as that. Nested mappings are joined by "/".

    Raises:
      ValueError: if a value is no number, or a name stands for two of them.
    """
    flat: dict[str, float] = {}
    for name, value in _leaves("", metrics):
        if name in flat:
            raise ValueError(f"two metrics have the name {name!r}")
        flat[name] = value
    return flat


def judged(flat: Mapping[str, float], name: str) -> Judged:
    """One `Judged` back from the table that `flatten` made.

    Raises:
      KeyError: if the name or its truth is not in the table.
    """
    estimates = (
        Estimate(flat[n], flat[f"{n}_error"]) if f"{n}_error" in flat else flat[n]
        for n in (name, f"{name}_truth")
    )
    return Judged(*estimates)


def _finite(values):
    return finite_array(values, "values", 1)


def _ratio(value, reference, what):
    """The error is also right where the value is zero."""
    if reference.value == 0:
        raise ValueError(f"the reference has a {what} of zero, over which nothing can be divided")
    ratio = value.value / reference.value
    error = math.hypot(value.error, ratio * reference.error) / abs(reference.value)
    return Estimate(ratio, error)


def _leaves(name: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{name}/{key}" if name else str(key), inner)
    elif hasattr(value, "estimate"):
        yield from _leaves(name, value.estimate)
    elif hasattr(value, "_fields"):
        for field in value._fields:
            own = name if field == "value" else f"{name}_{field}"
            yield from _leaves(own, getattr(value, field))
    elif np.ndim(value) == 0 and np.asarray(value).dtype.kind in "biuf":
        yield name, float(value)
    else:
        raise ValueError(f"the metric {name!r} must be a number or an estimate, got {value!r}")

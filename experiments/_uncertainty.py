"""How well generated showers know their own error: bins of observables, pulls and coverage.

All members made their i-th shower from the same noise and at the same incident energy, which keeps
the fluctuation of a finite sample mostly out of their spread: it is common to all. What is left of
it in the spread, where networks sort the same shower into different bins, is known exactly from the
showers themselves and is counted once, not twice. A calibrated network is one whose members scatter
around their mean as the truth does.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Real

from jgen.metrics.calibration import Coverage, Pulls, coverage, pulls

LEVELS = np.linspace(0.05, 0.95, 19)
"""Claimed probabilities of the coverage curves."""
ONE_SIGMA = 0.6827
"""Probability within one standard deviation of a normal distribution."""
# Showers i, i + 20, ... are left out together by the jackknife.
_BLOCKS = 20


class Bins(NamedTuple):
    """Bins of observables, as sums over the showers of each block of the jackknife.

    Attributes:
      members: showers of every member.
      reference: showers of the held-out truth.
      within: variance over members (M - 1 in the denominator) of "this shower is in this bin",
        summed over showers: zero if all members agree on every shower.
      squares: squared fraction of members that sort the shower into the bin, summed over showers.
      sizes: showers in a block.
      truth: probability of the bin, from all true showers, those trained on included.
    """

    members: Float[np.ndarray, "blocks members bins"]
    reference: Float[np.ndarray, "blocks bins"]
    within: Float[np.ndarray, "blocks bins"]
    squares: Float[np.ndarray, "blocks bins"]
    sizes: Float[np.ndarray, " blocks"]
    truth: Float[np.ndarray, " bins"]


class Contents(NamedTuple):
    """Bin contents with their variances, in showers and showers squared.

    Attributes:
      members: one row a member.
      reference: of the truth.
      mean_variance: of the members' mean by the finite sample that they share.
      truth_variance: of the truth by its finite sample.
      noise: part of the members' variance that a larger sample would not have.
      expected: contents by the truth's probabilities.
    """

    members: Float[np.ndarray, "members bins"]
    reference: Float[np.ndarray, " bins"]
    mean_variance: Float[np.ndarray, " bins"]
    truth_variance: Float[np.ndarray, " bins"]
    noise: Float[np.ndarray, " bins"]
    expected: Float[np.ndarray, " bins"]

    @property
    def network_variance(self) -> Float[np.ndarray, " bins"]:
        """Variance of the members without sampling noise; an unbiased estimate, so also < 0."""
        return self.members.var(axis=0, ddof=1) - self.noise

    @property
    def errors(self) -> Float[np.ndarray, " bins"]:
        """What `jgen.metrics.calibration` has to add to the members' spread.

        It multiplies the spread's square by 1 + 1/M, and with it the sampling noise in there, which
        is subtracted here. For members of independent noise that leaves nothing: then the
        reference itself is like one of them. At least one shower, lest rounding leaves no error.
        """
        factor = 1 + 1 / len(self.members)
        variance = self.truth_variance + self.mean_variance - factor * self.noise
        return np.sqrt(np.maximum(variance, 1.0))


def fill_bins(
    edges: Callable[[Float[np.ndarray, " n"]], Float[np.ndarray, " edges"]],
    training: Real[np.ndarray, "n_train ..."],
    reference: Real[np.ndarray, "n ..."],
    generated: Real[np.ndarray, "members n ..."],
    *,
    smallest: int,
) -> Bins:
    """Bins of one observable, all its layers side by side.

    Neighbouring bins are merged until each holds `smallest` showers of the reference by the
    training sample's measure; the outermost ones reach to infinity, so nothing is outside. A layer
    where this leaves one bin says nothing and is left out.

    Args:
      edges: true values of one layer -> bin edges.
      training: true values, with a second axis of layers or without.
      reference: of the held-out truth.
      generated: of the members, as many showers each.
      smallest: showers expected in a bin.

    Raises:
      ValueError: if the members do not have as many showers as the reference, or no bin is left.
    """
    num = len(reference)
    if generated.shape[1] != num:
        raise ValueError(
            f"members need as many showers as the reference, {num}, got {generated.shape[1]}"
        )
    column = lambda a, lead: a.reshape(*a.shape[:lead], -1)
    train, truth, made = column(training, 1), column(reference, 1), column(generated, 2)
    parts = []
    for k in range(truth.shape[1]):
        inner = merge_edges(edges(train[:, k]), train[:, k], smallest * len(train) / num)
        if len(inner):
            parts.append(_fill(inner, train[:, k], truth[:, k], made[:, :, k]))
    if not parts:
        raise ValueError(
            f"the {len(train)} training showers fill no two bins with {smallest} of {num} showers "
            "each; use a smaller smallest_bin or a larger num_test"
        )
    return join(parts)


def merge_edges(
    edges: Float[np.ndarray, " edges"], values: Real[np.ndarray, " n"], smallest: float
) -> Float[np.ndarray, " inner"]:
    """Those edges between which, and beyond which, there are at least `smallest` values."""
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    kept, below = [], np.cumsum(counts)
    start = 0
    for edge, total in zip(edges, below[:-1], strict=True):
        if total - start >= smallest and below[-1] - total >= smallest:
            kept.append(edge)
            start = total
    return np.array(kept)


def join(parts: list[Bins]) -> Bins:
    """Several observables of the same showers side by side."""
    fields = {
        name: np.concatenate([getattr(part, name) for part in parts], axis=-1)
        for name in Bins._fields
    }
    return Bins(**fields | {"sizes": parts[0].sizes})


def _fill(inner, train, truth, made) -> Bins:
    num, num_bins = len(truth), len(inner) + 1
    blocks = (np.arange(num) % _BLOCKS == np.arange(_BLOCKS)[:, None]).astype(np.float64)
    inside = lambda values: _indicator(inner, values, num_bins).astype(np.float64)
    each, true = inside(made), inside(truth)
    mean = each.mean(axis=0)
    within = np.sum((each - mean[None]) ** 2, axis=0) / (len(made) - 1)
    known = inside(train).sum(axis=0) + true.sum(axis=0)
    return Bins(
        np.swapaxes(blocks @ each, 0, 1),
        blocks @ true,
        blocks @ within,
        blocks @ mean**2,
        blocks.sum(axis=1),
        known / (len(train) + num),
    )


def _indicator(inner, values, num_bins) -> Bool[np.ndarray, "*values bins"]:
    index = np.searchsorted(inner, values, side="right")
    return index[..., None] == np.arange(num_bins)


def contents(bins: Bins, left_out: int | None = None) -> Contents:
    """Contents of all showers, or of those without one block."""
    keep = np.arange(len(bins.sizes)) != (-1 if left_out is None else left_out)
    members, reference, within, squares, num = (a[keep].sum(axis=0) for a in bins[:5])
    # Sums of squares about their mean over showers, with num - 1 in the denominator.
    factor = num / (num - 1)
    noise = factor * (within - members.var(axis=0, ddof=1) / num)
    mean_variance = factor * (squares - members.mean(axis=0) ** 2 / num)
    truth_variance = num * bins.truth * (1 - bins.truth)
    return Contents(members, reference, mean_variance, truth_variance, noise, num * bins.truth)


def bin_pulls(found: Contents) -> Pulls:
    """Pulls of all bins."""
    return pulls(found.reference, found.members, found.errors)


def coverage_curve(bins: Bins) -> Coverage:
    """Coverage at `LEVELS`, with the jackknife's errors in place of those of independent bins."""

    def at(found):
        return coverage(found.reference, found.members, LEVELS, truth_error=found.errors)

    return at(contents(bins))._replace(error=_jackknife(bins, lambda c: at(c).observed))


def calibration_numbers(families: Mapping[str, Bins], method: str) -> dict[str, float]:
    """The metrics of one method, for every observable.

    Args:
      families: observable -> its bins.
      method: for the names.

    Returns:
      With METHOD/NAME, each with `_error`:
      `pull_width`: root mean square of the pulls; `_expected` of perfectly calibrated members.
      `coverage_68`: fraction of bins whose truth is within one standard deviation, by Student's t
      for so few members; `_expected` is 0.6827.
      `predicted_error`: the networks' error by the spread of the members, relative to a mean
      bin's contents, without statistical errors.
      `actual_error`: that of the members' mean from the truth, also without statistical errors;
      zero where these explain all of it.
      `noise_share`: part of the spread's square that is sampling noise.
      Errors are those of the finite samples, by a jackknife over showers: they hold for these
      members, not for others in their place. Where nothing but statistical fluctuation is left in
      the pulls, a jackknife of their squares gives errors sqrt(2) too large.
    """
    metrics = {}
    for name, bins in families.items():
        values, errors = _numbers(contents(bins)), _jackknife(bins, _numbers)
        names = ("pull_width", "coverage_68", "predicted_error", "actual_error", "noise_share")
        for i, quantity in enumerate(names):
            metrics[f"{quantity}/{method}/{name}"] = float(values[i])
            metrics[f"{quantity}/{method}/{name}_error"] = float(errors[i])
        expected = bin_pulls(contents(bins)).expected_width
        metrics[f"pull_width/{method}/{name}_expected"] = expected
        metrics[f"coverage_68/{method}/{name}_expected"] = ONE_SIGMA
        metrics[f"num_bins/{method}/{name}"] = len(bins.truth)
    return metrics


def _numbers(found: Contents) -> Float[np.ndarray, " numbers"]:
    """Pull width, coverage, predicted error, actual error and share of noise."""
    inside = coverage(
        found.reference, found.members, np.array([ONE_SIGMA]), truth_error=found.errors
    )
    deviation = (found.members.mean(axis=0) - found.reference) ** 2
    actual = np.mean(deviation - found.truth_variance - found.mean_variance)
    # As far as the truth is from the mean if it is like a member.
    predicted = (1 + 1 / len(found.members)) * np.mean(found.network_variance)
    size, spread = found.expected.mean(), found.members.var(axis=0, ddof=1).mean()
    return np.array(
        [
            bin_pulls(found).width,
            inside.observed[0],
            np.sqrt(max(predicted, 0.0)) / size,
            np.sqrt(max(actual, 0.0)) / size,
            found.noise.mean() / spread if spread else 0.0,
        ]
    )


def _jackknife(bins: Bins, function: Callable[[Contents], np.ndarray]) -> np.ndarray:
    """Standard errors of a function of the contents, by leaving out blocks of showers."""
    num = len(bins.sizes)
    values = np.stack([function(contents(bins, i)) for i in range(num)])
    return np.sqrt((num - 1) * values.var(axis=0))

"""How well a generator knows its own error: members of an ensemble in the bins of observables.

    bins = member_bins(edges, reference, generated)      # [n] and [members, n]
    bins.metrics()["coverage_68"]                        # 0.6827 if the members are calibrated

Members are networks of an ensemble or draws of a Bayesian network's weights, with a sample each.
They may make their i-th event from the same noise and condition, which keeps the fluctuation of a
finite sample mostly out of their spread: it is common to all. What is left of it in the spread,
where members sort the same event into different bins, is known exactly from the events themselves
and is counted once, not twice. Members are calibrated if they scatter around their mean as the
truth does.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Real

from jgen.arrays import real_array
from jgen.checks import check_positive
from jgen.estimate import Estimate
from jgen.metrics.calibration import Coverage, Pulls, coverage, pulls
from jgen.overlap import check_disjoint

LEVELS = np.linspace(0.05, 0.95, 19)
"""Claimed probabilities of coverage curves."""
ONE_SIGMA = 0.6827
"""Probability within one standard deviation of a normal distribution."""
# Events i, i + 20, ... are left out together by the jackknife.
_BLOCKS = 20


class Calibrated(NamedTuple):
    """An estimate beside what calibrated members give."""

    value: float
    error: float
    expected: float

    def __str__(self) -> str:
        """As an `Estimate`."""
        return str(Estimate(self.value, self.error))


class Contents(NamedTuple):
    """Bin contents with their variances, in events and events squared.

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
        """What `pulls` and `coverage` have to add to the members' spread.

        They multiply the spread's square by 1 + 1/M, and with it the sampling noise in there, which
        is subtracted here. For members of independent noise that leaves nothing: then the
        reference itself is like one of them. At least one event, lest rounding leaves no error.
        """
        factor = 1 + 1 / len(self.members)
        variance = self.truth_variance + self.mean_variance - factor * self.noise
        return np.sqrt(np.maximum(variance, 1.0))

    @property
    def pulls(self) -> Pulls:
        """Pulls of all bins."""
        return pulls(self.reference, self.members, self.errors)

    def coverage(self, levels: Real[np.ndarray, " levels"]) -> Coverage:
        """How often intervals of the members hold the truth; errors for independent bins."""
        return coverage(self.reference, self.members, levels, truth_error=self.errors)


class MemberBins(NamedTuple):
    """Bins of observables, as sums over the events of each block of a jackknife.

    Attributes:
      members: events of every member.
      reference: events of the truth.
      within: variance over members (M - 1 in the denominator) of "this event is in this bin",
        summed over events: zero if all members agree on every event.
      squares: squared fraction of members that sort the event into the bin, summed over events.
      sizes: events in a block.
      truth: probability of the bin, from all true events.
    """

    members: Float[np.ndarray, "blocks members bins"]
    reference: Float[np.ndarray, "blocks bins"]
    within: Float[np.ndarray, "blocks bins"]
    squares: Float[np.ndarray, "blocks bins"]
    sizes: Float[np.ndarray, " blocks"]
    truth: Float[np.ndarray, " bins"]

    def contents(self, left_out: int | None = None) -> Contents:
        """Contents of all events, or of those without one block."""
        keep = np.arange(len(self.sizes)) != (-1 if left_out is None else left_out)
        members, reference, within, squares, num = (a[keep].sum(axis=0) for a in self[:5])
        # Sums of squares about their mean over events, with num - 1 in the denominator.
        factor = num / (num - 1)
        noise = factor * (within - members.var(axis=0, ddof=1) / num)
        mean_variance = factor * (squares - members.mean(axis=0) ** 2 / num)
        truth_variance = num * self.truth * (1 - self.truth)
        expected = num * self.truth
        return Contents(members, reference, mean_variance, truth_variance, noise, expected)

    @property
    def pulls(self) -> Pulls:
        """Pulls of all bins."""
        return self.contents().pulls

    def coverage(self, levels: Real[np.ndarray, " levels"] = LEVELS) -> Coverage:
        """Coverage with errors by a jackknife in place of those of independent bins."""
        error = self._jackknife(lambda contents: contents.coverage(levels).observed)
        return self.contents().coverage(levels)._replace(error=error)

    def metrics(self) -> dict[str, Calibrated | Estimate | int]:
        """How well the members are calibrated.

        Returns:
          `pull_width`: root mean square of the pulls.
          `coverage_68`: fraction of bins whose truth is within one standard deviation, by Student's
          t for so few members.
          `predicted_error`: the networks' error by the spread of the members, relative to a mean
          bin's contents, without statistical errors.
          `actual_error`: that of the members' mean from the truth, also without statistical errors;
          zero where these explain all of it.
          `noise_share`: part of the spread's square that is sampling noise.
          `num_bins`.

          Errors are those of the finite samples, by a jackknife over events: they hold for these
          members, not for others in their place. Where nothing but statistical fluctuation is left
          in the pulls, a jackknife of their squares gives errors sqrt(2) too large.
        """
        contents = self.contents()
        width, inside, predicted, actual, share = map(
            Estimate, _numbers(contents).tolist(), self._jackknife(_numbers).tolist()
        )
        return {
            "pull_width": Calibrated(*width, contents.pulls.expected_width),
            "coverage_68": Calibrated(*inside, ONE_SIGMA),
            "predicted_error": predicted,
            "actual_error": actual,
            "noise_share": share,
            "num_bins": len(self.truth),
        }

    def _jackknife(self, function: Callable[[Contents], np.ndarray]) -> np.ndarray:
        """Standard errors of a function of the contents, by leaving out blocks of events."""
        num = len(self.sizes)
        values = np.stack([function(self.contents(i)) for i in range(num)])
        return np.sqrt((num - 1) * values.var(axis=0))


def member_bins(
    edges: Callable[[Float[np.ndarray, " n"]], Float[np.ndarray, " edges"]],
    reference: Real[np.ndarray, "n ..."],
    generated: Real[np.ndarray, "members n ..."],
    *,
    training: Real[np.ndarray, "n_train ..."] | None = None,
    smallest: int = 20,
) -> MemberBins:
    """Bins of one observable, all its columns (such as layers) side by side.

    Neighbouring bins are merged until each holds `smallest` events of the reference; the outermost
    ones reach to infinity, so nothing is outside. A column where this leaves one bin says nothing
    and is left out.

    Args:
      edges: true values of one column -> bin edges.
      reference: true values that the members have not seen, with a second axis of columns or
        without.
      generated: values of the members, as many events each.
      training: other true values, by which bins are then chosen and merged; the probabilities of
        bins are those of both.
      smallest: events expected in a bin.

    Raises:
      ValueError: for fewer than two members, if they do not have as many events as the reference,
        if training events are among those of the reference, or no bin is left.
    """
    reference, generated = real_array(reference, "reference"), real_array(generated, "generated")
    check_positive(smallest=smallest)
    num = len(reference) if reference.ndim else 0
    if not num or generated.shape[1:] != reference.shape or len(generated) < 2:
        raise ValueError(
            f"a reference of shape {reference.shape} needs two or more members of that shape, "
            f"with as many events, {num}, got {generated.shape}"
        )
    for name, values in (("reference", reference), ("generated", generated)):
        if np.isnan(values.min()):
            raise ValueError(f"{name} has NaN, which is in no bin: drop or repair those events")
    if training is not None:
        training = real_array(training, "training")
        check_disjoint({"": reference}, {"": training}, ("reference", "training"))
    column = lambda a, lead: a.reshape(*a.shape[:lead], -1)
    truth, made = column(reference, 1), column(generated, 2)
    train = truth if training is None else column(training, 1)
    known = truth if training is None else np.concatenate([train, truth])
    parts = []
    for k in range(truth.shape[1]):
        inner = merge_edges(edges(train[:, k]), train[:, k], smallest * len(train) / num)
        if len(inner):
            parts.append(_fill(inner, known[:, k], truth[:, k], made[:, :, k]))
    if not parts:
        raise ValueError(
            f"the {len(train)} true events fill no two bins with {smallest} of {num} events each; "
            "ask for a smaller smallest bin or take more events"
        )
    return join_bins(parts)


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


def join_bins(parts: Sequence[MemberBins]) -> MemberBins:
    """Several observables of the same events side by side."""
    fields = {
        name: np.concatenate([getattr(part, name) for part in parts], axis=-1)
        for name in MemberBins._fields
    }
    return MemberBins(**fields | {"sizes": parts[0].sizes})


def _fill(inner, known, truth, made) -> MemberBins:
    num, num_bins = len(truth), len(inner) + 1
    blocks = (np.arange(num) % _BLOCKS == np.arange(_BLOCKS)[:, None]).astype(np.float64)
    inside = lambda values: _indicator(inner, values, num_bins).astype(np.float64)
    each, true = inside(made), inside(truth)
    mean = each.mean(axis=0)
    within = np.sum((each - mean[None]) ** 2, axis=0) / (len(made) - 1)
    return MemberBins(
        np.swapaxes(blocks @ each, 0, 1),
        blocks @ true,
        blocks @ within,
        blocks @ mean**2,
        blocks.sum(axis=1),
        inside(known).mean(axis=0),
    )


def _indicator(inner, values, num_bins) -> Bool[np.ndarray, "*values bins"]:
    index = np.searchsorted(inner, values, side="right")
    return index[..., None] == np.arange(num_bins)


def _numbers(contents: Contents) -> Float[np.ndarray, " numbers"]:
    """Pull width, coverage, predicted error, actual error and share of noise."""
    inside = contents.coverage(np.array([ONE_SIGMA]))
    deviation = (contents.members.mean(axis=0) - contents.reference) ** 2
    actual = np.mean(deviation - contents.truth_variance - contents.mean_variance)
    # As far as the truth is from the mean if it is like a member.
    predicted = (1 + 1 / len(contents.members)) * np.mean(contents.network_variance)
    size, spread = contents.expected.mean(), contents.members.var(axis=0, ddof=1).mean()
    return np.array(
        [
            contents.pulls.width,
            inside.observed[0],
            np.sqrt(max(predicted, 0.0)) / size,
            np.sqrt(max(actual, 0.0)) / size,
            contents.noise.mean() / spread if spread else 0.0,
        ]
    )

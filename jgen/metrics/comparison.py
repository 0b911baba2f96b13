"""Every metric of the generated sample beside truth against truth.

A separation power of 0.003 means nothing until one knows what two samples of the truth itself
give with as many events. Both columns are computed here by the same code at the same size.
The results are name -> `Judged`; `jgen.estimate.flatten` makes the numbers of a `metrics.json`.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Real

from jgen.arrays import SampleWarning, evenly, real_array
from jgen.estimate import Estimate, Judged
from jgen.metrics.classifier import ClassifierConfig, ClassifierResult, classifier_test
from jgen.metrics.distances import event_weights, wasserstein
from jgen.metrics.histograms import column_separations
from jgen.overlap import COPIES, check_disjoint, largest_share
from jgen.typing import Key

Observables = Mapping[str, Real[np.ndarray, "_ ..."]]
"""Name -> values [n], or [n, k] for one number a layer; one row is one event."""
Binning = Callable[[str, Real[np.ndarray, " _"]], Real[np.ndarray, " _"]]
"""(name, reference values of one column) -> bin edges."""
Weights = tuple[Real[np.ndarray, " _"] | None, ...]
"""Event weights of reference, holdout and generated."""
_SIDES = ("underflow", "overflow")
# Effective numbers of events whose ratio is larger are no equal samples.
_UNEQUAL = 1.25
_LABELS = ("reference", "holdout", "generated")


class Comparison(NamedTuple):
    """Results of `compare`.

    Attributes:
      metrics: name -> value and truth.
      columns: the same of observables [n, k] before the mean over k, with arrays [k] in them.
      num_events: events of each sample that were used, by observable.
    """

    metrics: dict[str, Judged]
    columns: dict[str, Judged]
    num_events: dict[str, int]


class ClassifierComparison(NamedTuple):
    """Results of `classifier_comparison`.

    Attributes:
      tag: name of the inputs.
      generated: result of reference against generated events.
      truth: result of reference against held-out reference events.
    """

    tag: str
    generated: ClassifierResult
    truth: ClassifierResult

    @property
    def metrics(self) -> dict[str, Judged]:
        """`auc_<tag>`, `auc_<tag>_calibrated` and `jsd_<tag>`."""
        both = self.generated, self.truth
        return {
            f"auc_{self.tag}": Judged(*(r.auc_estimate for r in both)),
            f"auc_{self.tag}_calibrated": Judged(*(r.auc_calibrated_estimate for r in both)),
            f"jsd_{self.tag}": Judged(*(r.jsd_estimate for r in both)),
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """What the classifiers of both columns say of their inputs."""
        both = {"generated": self.generated, "truth": self.truth}
        return tuple(
            f"Classifier {self.tag}, {name}: {note}" for name, r in both.items() for note in r.notes
        )


def compare(
    reference: Observables,
    holdout: Observables,
    generated: Observables,
    binning: Binning,
    *,
    weights: Weights = (None, None, None),
    num_bootstrap: int = 100,
    key: Key | None = None,
) -> Comparison:
    """Separation powers and Wasserstein distances of observables, beside truth against truth.

    For each observable `o` the metrics are `separation/o` and `wasserstein/o`; their `value` is
    that of reference against generated, their `truth` that of reference against holdout, both
    estimates. `underflow/o` and `overflow/o`, numbers without an error, are the absolute
    differences of the fractions of entries outside the edges, which a separation power does not
    see. An observable [n, k] gives means over k, whose errors are bootstrapped with the same
    events in all columns.

    Each observable is cut to as many events as the smallest sample has, at even distances, because
    both metrics depend on the sample size. With weights that is the effective number of
    events, (sum w)^2 / sum w^2: where those of holdout and generated events differ, a warning says
    so, since a holdout without weights makes weighted events look worse than they are. The errors
    take rows as independent: for values pooled over the voxels of a shower they are lower limits.

    Args:
      reference: the truth that the binning looks at.
      holdout: independent truth, disjoint from `reference`.
      generated: what is judged.
      binning: (name, reference values of one column) -> edges; called once a column, without
        weights.
      weights: of the events of reference, holdout and generated, [n] each and not negative; None
        where there are none.
      num_bootstrap: resamplings behind each error.
      key: of the resampling.

    Raises:
      ValueError: if the observables or their shapes differ, a value is not finite, or `holdout`
        has events of `reference` (see `jgen.overlap`). If generated events are of `reference`
        or an outlier sets the bins, a warning says so.
    """
    _check_weights(weights, reference, holdout, generated)
    reference, holdout, generated = (
        {name: real_array(values, f"{name} of {label}") for name, values in sample.items()}
        for label, sample in zip(_LABELS, (reference, holdout, generated), strict=True)
    )
    _check_samples(reference, holdout, generated)
    _warn_of_weights(weights, reference, holdout, generated)
    out = Comparison({}, {}, {})
    for name in reference:
        size = min(len(sample[name]) for sample in (reference, holdout, generated))
        first = evenly(reference[name], size)
        edges = [np.asarray(binning(name, column)) for column in _columns(first)]
        _warn_of_outliers(name, _columns(first), edges)
        out.num_events[name] = size
        own, *others = (_cut(w, size) for w in weights)
        pairs = [
            (first, evenly(sample[name], size), own, other)
            for sample, other in zip((generated, holdout), others[::-1], strict=True)
        ]
        powers = [_separations(*pair, edges, num_bootstrap, key) for pair in pairs]
        distances = [wasserstein(*pair, num_bootstrap=num_bootstrap, key=key) for pair in pairs]
        out.metrics[f"separation/{name}"] = Judged(*(p.estimate for p in powers))
        out.metrics[f"wasserstein/{name}"] = Judged(*(d.estimate for d in distances))
        outside = {side: Judged(*(getattr(p, side) for p in powers)) for side in _SIDES}
        for side, differences in outside.items():
            out.metrics[f"{side}/{name}"] = Judged(*(float(np.mean(d)) for d in differences))
        if first.ndim > 1:
            for family, found in (("separation", powers), ("wasserstein", distances)):
                columns = (Estimate(f.value, f.error) for f in found)
                out.columns[f"{family}/{name}"] = Judged(*columns)
            out.columns.update({f"{side}/{name}": both for side, both in outside.items()})
    return out


def classifier_comparison(
    reference: Real[np.ndarray, "n d"],
    holdout: Real[np.ndarray, "n_holdout d"],
    generated: Real[np.ndarray, "m d"],
    key: Key,
    tag: str,
    config: ClassifierConfig | None = None,
    *,
    progress: bool = False,
) -> ClassifierComparison:
    """Classifier tests of reference against generated and against held-out truth.

    Samples are cut to the common size, at even distances, and both tests use the same key, so the
    same reference events in each split. The metrics are `auc_<tag>`, `auc_<tag>_calibrated` and
    `jsd_<tag>`, with the errors of `ClassifierResult`'s estimates.

    Raises:
      ValueError: as `classifier_test` and `compare`.
    """
    reference, holdout, generated = (
        real_array(sample, f"{tag} of {label}")
        for label, sample in zip(_LABELS, (reference, holdout, generated), strict=True)
    )
    _check_samples({tag: reference}, {tag: holdout}, {tag: generated})
    size = min(len(reference), len(holdout), len(generated))
    reference, *others = (evenly(sample, size) for sample in (reference, holdout, generated))
    truth, result = (
        classifier_test(reference, other, key, config, progress=progress) for other in others
    )
    return ClassifierComparison(tag, result, truth)


def _cut(weights, size):
    return None if weights is None else evenly(np.asarray(weights), size)


def _check_samples(reference, holdout, generated):
    for label, sample in (("holdout", holdout), ("generated", generated)):
        if set(sample) != set(reference):
            raise ValueError(
                f"{label} has the observables {sorted(sample)}, reference {sorted(reference)}: "
                "compute the same ones for every sample"
            )
        for name, values in sample.items():
            shape, expected = np.shape(values), np.shape(reference[name])
            if len(shape) not in (1, 2) or shape[1:] != expected[1:]:
                raise ValueError(
                    f"{name} has shape {shape} in {label} and {expected} in reference: "
                    "it must be [n] or [n, k] in both, with the same k"
                )
    if not reference:
        raise ValueError("there are no observables to compare")
    check_disjoint(reference, holdout)
    for label, sample in (("the reference", reference), ("holdout", holdout)):
        if (share := largest_share(generated, sample)) > COPIES:
            warnings.warn(
                f"{100 * share:.3g} % of the generated events are events of {label}, number for "
                "number: they look better than they are",
                SampleWarning,
                stacklevel=3,
            )


def _check_weights(weights, *samples):
    if len(weights) != len(samples):
        raise ValueError(
            "weights are three, of reference, holdout and generated, each an array or None, got "
            f"{len(weights)}"
        )
    for label, own, sample in zip(_LABELS, weights, samples, strict=True):
        shapes = {name: np.shape(values)[:1] for name, values in sample.items()}
        if own is not None and any(np.shape(own) != shape for shape in shapes.values()):
            raise ValueError(
                f"weights of {label} have the shape {np.shape(own)}, but its observables have the "
                f"lengths {shapes}: give one weight an event, and no values of several events"
            )


def _warn_of_weights(weights, *samples):
    """Of truth that fluctuates more, or less, than the generated events do."""
    size = min(len(values) for sample in samples for values in sample.values())
    cut = (_cut(w, size) for w in weights[1:])
    shares = (w / w.max() for w in (event_weights(w, size) for w in cut))
    num = [np.sum(w) ** 2 / np.sum(w**2) for w in shares]
    if max(num) <= _UNEQUAL * min(num):
        return
    advice = "give the holdout those of the generated events, in another order"
    if weights[1] is not None:  # which say what the truth is
        advice = "unweight them: keep events with probabilities in proportion to their weights"
    warnings.warn(
        f"by their weights, {size} events of holdout are worth {num[0]:.0f} and as many generated "
        f"ones {num[1]:.0f}: the fewer look worse; {advice}",
        SampleWarning,
        stacklevel=3,
    )


def _warn_of_outliers(name, columns, edges):
    """Of bins from the smallest to the largest value, of which an outlier leaves one in use."""
    for column, own in zip(columns, edges, strict=True):
        if not np.allclose(own[[0, -1]], [column.min(), column.max()], rtol=1e-9, atol=0):
            continue
        counts = np.histogram(column, own)[0]
        fullest, num = int(np.argmax(counts)), len(column)
        inside = (column >= own[fullest]) & (column <= own[fullest + 1])
        if counts[fullest] < 0.99 * num or np.ptp(column[inside]) == 0:
            continue
        warnings.warn(
            f"{counts[fullest]} of {num} values of {name} are in one bin of {len(own) - 1}, which "
            f"reach to {column.max():.3g}: separation powers see nothing of them; choose bins by "
            "quantiles",
            SampleWarning,
            stacklevel=3,
        )


def _columns(values):
    return values[:, None].T if values.ndim == 1 else values.T


def _separations(first, second, own, other, edges, num_bootstrap, key):
    """Of each column."""
    samples = (v[:, None] if v.ndim == 1 else v for v in (first, second))
    return column_separations(*samples, edges, own, other, num_bootstrap=num_bootstrap, key=key)

"""The honest table: every metric of the generated sample beside truth against truth.

A separation power of 0.003 means nothing until one knows what two samples of the truth itself
give with as many events. Both columns are computed here by the same code at the same size.
The results are flat dicts, name -> number, as they go to a run's `metrics.json`.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Real

from jgen.metrics.classifier import ClassifierConfig, ClassifierResult, classifier_test
from jgen.metrics.distances import wasserstein
from jgen.metrics.histograms import histogram, separation
from jgen.typing import Key

Observables = Mapping[str, Real[np.ndarray, "_ ..."]]
"""Name -> values [n], or [n, k] for one number a layer; one row is one event."""
Binning = Callable[[str, Real[np.ndarray, " _"]], Real[np.ndarray, " _"]]
"""(name, reference values of one column) -> bin edges."""


class Comparison(NamedTuple):
    """What `compare` found.

    Attributes:
      numbers: flat dict of floats.
      columns: the numbers of observables [n, k] before the mean over k, arrays [k], same names.
      num_events: events of each sample that were used, by observable.
    """

    numbers: dict[str, float]
    columns: dict[str, Float[np.ndarray, " _"]]
    num_events: dict[str, int]


class ClassifierComparison(NamedTuple):
    """What `classifier_comparison` found.

    Attributes:
      numbers: flat dict of floats.
      generated: result of reference against generated events.
      truth: result of reference against held-out reference events.
    """

    numbers: dict[str, float]
    generated: ClassifierResult
    truth: ClassifierResult


def compare(
    reference: Observables,
    holdout: Observables,
    generated: Observables,
    binning: Binning,
    *,
    num_bootstrap: int = 100,
    seed: int = 0,
) -> Comparison:
    """Separation powers and Wasserstein distances of observables, beside truth against truth.

    For each observable `o` the numbers are `separation/o` and `wasserstein/o` of reference
    against generated, the same with the suffix `_truth` of reference against holdout, and both
    with the suffix `_error` (`separation/o_truth_error`). `underflow/o` and `overflow/o` are the
    absolute differences of the fractions of entries outside the edges, which a separation power
    does not see. An observable [n, k] gives means over k. The error of a mean distance is
    bootstrapped with the same events in all columns; that of a mean separation is the mean of the
    columns' errors, an upper limit (it takes them as fully correlated).

    Each observable is cut to the first events of every sample, as many as the smallest has,
    because both metrics depend on the sample size. The errors take rows as independent: for
    values pooled over the voxels of a shower they are lower limits.

    Args:
      reference: the truth that the binning looks at.
      holdout: independent truth, disjoint from `reference`.
      generated: what is judged.
      binning: (name, reference values of one column) -> edges; called once a column.
      num_bootstrap: resamplings behind each error.
      seed: of the resampling.

    Raises:
      ValueError: if the observables or their shapes differ, a value is not finite, or `holdout`
        is `reference`.
    """
    _check_samples(reference, holdout, generated)
    out = Comparison({}, {}, {})
    for name in reference:
        size = min(len(sample[name]) for sample in (reference, holdout, generated))
        first = np.asarray(reference[name][:size])
        edges = [np.asarray(binning(name, column)) for column in _columns(first)]
        out.num_events[name] = size
        for suffix, sample in (("", generated), ("_truth", holdout)):
            second = np.asarray(sample[name][:size])
            _add_separation(out, name, suffix, first, second, edges, num_bootstrap, seed)
            _add_wasserstein(out, name, suffix, first, second, num_bootstrap, seed)
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

    Samples are cut to the common size, and both tests use the same key, so the same reference
    events in each split. The numbers are `auc_<tag>`, `auc_<tag>_calibrated`, `jsd_<tag>`, each
    with `_error`, and the same with the suffix `_truth` (`auc_<tag>_truth_error`). The error of an
    AUC is the standard deviation over seeds (what papers quote) and the statistical error of the
    test split, in quadrature; that of a JSD is the former alone.

    Raises:
      ValueError: as `classifier_test`, or if `holdout` is `reference`.
    """
    _check_samples({tag: reference}, {tag: holdout}, {tag: generated})
    size = min(len(reference), len(holdout), len(generated))
    truth, result = (
        classifier_test(reference[:size], other[:size], key, config, progress=progress)
        for other in (holdout, generated)
    )
    numbers = {}
    for suffix, found in (("", result), ("_truth", truth)):
        for field, statistical in (
            ("auc", found.auc_statistical_error),
            ("auc_calibrated", found.auc_statistical_error),
            ("jsd", 0.0),
        ):
            metric, _, calibrated = field.partition("_")
            name = "_".join(filter(None, (metric, tag, calibrated))) + suffix
            numbers[name] = found.mean(field)
            numbers[f"{name}_error"] = float(np.hypot(found.spread(field), statistical))
    return ClassifierComparison(numbers, result, truth)


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
    if reference and all(np.array_equal(reference[name], holdout[name]) for name in reference):
        raise ValueError(
            "holdout is the reference itself, so truth against truth would be zero: "
            "pass other events of the truth"
        )


def _columns(values):
    return values[:, None].T if values.ndim == 1 else values.T


def _add_separation(out, name, suffix, first, second, edges, num_bootstrap, seed):
    found = []
    for p, q, column_edges in zip(_columns(first), _columns(second), edges, strict=True):
        pair = histogram(p, column_edges), histogram(q, column_edges)
        found.append(separation(*pair, num_bootstrap=num_bootstrap, seed=seed))
    key = f"separation/{name}{suffix}"
    _add(out, key, first.ndim, [s.value for s in found])
    _add(out, f"{key}_error", first.ndim, [s.error for s in found])
    for side in ("underflow", "overflow"):
        differences = [abs(np.subtract(*getattr(s, side))) for s in found]
        _add(out, f"{side}/{name}{suffix}", first.ndim, differences)


def _add_wasserstein(out, name, suffix, first, second, num_bootstrap, seed):
    found = wasserstein(first, second, num_bootstrap=num_bootstrap, seed=seed)
    key = f"wasserstein/{name}{suffix}"
    _add(out, key, first.ndim, found.value)
    _add(out, f"{key}_error", first.ndim, found.error)
    if first.ndim > 1:
        out.numbers[f"{key}_error"] = float(np.std(found.replicas.mean(axis=1)))


def _add(out, key, ndim, values):
    out.numbers[key] = float(np.mean(values))
    if ndim > 1:
        out.columns[key] = np.asarray(values, np.float64)

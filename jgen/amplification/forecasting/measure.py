"""Numbers of one member: shares of regions, distances of columns and of a classifier's ratio."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from jgen.amplification.averaging import region_fractions
from jgen.amplification.differential import (
    Differential,
    differential_amplification,
    differential_on_training_set,
    ks_distances,
    prefix_sizes,
)
from jgen.amplification.forecasting.inputs import MOST_TIES, Inputs
from jgen.amplification.kolmogorov import expected_distance, kolmogorov_quantile
from jgen.metrics import ClassifierConfig, cross_fitted_log_ratio
from jgen.overlap import row_keys
from jgen.typing import Key

ORDER = 1e-6  # chance that a file in random order is refused
MOST_COMPARED = 100_000  # events that are searched for copies of true ones
ORDER_EVENTS = 50_000  # at either end of a member that are compared for it


@dataclass(frozen=True)
class Classifiers:
    """Classifiers whose likelihood ratio is one more observable, of all columns together."""

    members: int = 3
    """Members whose likelihood ratio a classifier learns; 0 for none."""
    events: int = 200_000
    """Generated events of a member that the classifiers look at."""
    folds: int = 5
    """Parts of cross-fitting; the first is not scored."""
    config: ClassifierConfig = ClassifierConfig(
        hidden=(64, 64), learning_rate=1e-3, batch_size=500, epochs=50, num_seeds=2, patience=10
    )
    """Network and training of the classifiers."""

    def check(self) -> None:
        """Refuse numbers that cannot be.

        Raises:
          ValueError: names the field.
        """
        for name, least in (("members", 0), ("events", 1000), ("folds", 2)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"classifiers.{name} must be at least {least}, got {getattr(self, name)}"
                )


class Measured(NamedTuple):
    """Numbers of one member.

    Attributes:
      fractions: shares of the first n generated events in every region.
      distances: Kolmogorov-Smirnov distances of columns to the reference.
      n_equiv: value, low and high that follow from the last distance of each column.
      classifier_sizes: numbers of generated events of the classifier's distances.
      classifier_distances: of its likelihood ratio; empty for members without.
      classifier_n_equiv: as above.
      classifier_reference: reference events that were scored.
      copies: shares of generated events that are training and held-out events, number for number.
    """

    fractions: Float[np.ndarray, "sizes regions"]
    distances: Float[np.ndarray, "columns sizes"]
    n_equiv: Float[np.ndarray, "columns 3"]
    classifier_sizes: Int[np.ndarray, " classifier_sizes"]
    classifier_distances: Float[np.ndarray, " classifier_sizes"]
    classifier_n_equiv: Float[np.ndarray, " three"]
    classifier_reference: Int[np.ndarray, ""]
    copies: Float[np.ndarray, " two"]


def measure_member(
    inputs: Inputs, index: int, classifiers: Classifiers, key: Key | None
) -> Measured:
    """All numbers of one member.

    Args:
      inputs: samples.
      index: of the member.
      classifiers: how many members have one, and how.
      key: typed PRNG key of the classifiers of all members.

    Raises:
      ValueError: if a number is not finite, or events are not in random order.
    """
    events = inputs.generated(index)
    _check_order(inputs, index, events)
    pairs = zip(events.T, inputs.reference.T, strict=True)
    judged = [_judge(inputs, column, reference, inputs.sizes) for column, reference in pairs]
    return Measured(
        _fractions(inputs, events[:, inputs.column]),
        np.stack([one.distances for one in judged]),
        np.stack([one.n_equiv for one in judged]),
        *_classify(inputs, events, index, classifiers, key),
        _copies(inputs, events),
    )


def _judge(inputs, values, reference, sizes) -> Differential:
    """From the distance to held-out events, or as published if there are none."""
    if inputs.held_out is None:
        return differential_on_training_set(values, reference, sizes)
    return differential_amplification(values, reference, inputs.num_train, sizes)


def _fractions(inputs, values):
    """Shares [sizes, regions]; regions are half open, also for numbers with ties, as of jets."""
    shares = [np.zeros((len(inputs.sizes), 0))]
    for low, high in inputs.regions[: inputs.num_regions]:
        # A last region is closed, so another one follows.
        edges = [low, high] if np.isinf(high) else [low, high, np.inf]
        shares.append(region_fractions(values, edges, inputs.sizes)[:, :1])
    quantiles = inputs.regions[inputs.num_regions :]
    if len(quantiles):
        edges = np.append(quantiles[:, 0], quantiles[-1, 1])
        shares.append(region_fractions(values, edges, inputs.sizes))
    return np.concatenate(shares, axis=1)


def _classify(inputs, events, index, classifiers, key):
    """Distances of a classifier's likelihood ratio, four fields of Measured."""
    if index >= classifiers.members:
        return np.zeros(0, np.int64), np.zeros(0), np.zeros(3), np.int64(0)
    scores = cross_fitted_log_ratio(
        inputs.reference,
        events[: classifiers.events],
        jax.random.fold_in(key, index),
        classifiers.config,
        folds=classifiers.folds,
    )
    num = len(scores.generated)
    sizes = prefix_sizes(num, min(100, num), inputs.per_decade)
    one = _judge(inputs, scores.generated, scores.reference, sizes)
    return sizes, one.distances, np.array(one.n_equiv), np.int64(len(scores.reference))


def _check_order(inputs, index, events):
    """Refuse sorted events: every number for fewer of them takes the first ones."""
    half = min(len(events) // 2, ORDER_EVENTS)
    for name, column in zip(inputs.names, events.T, strict=True):
        distance = ks_distances(column[:half], column[-half:], np.array([half]))[0]
        if distance > expected_distance(half, half, float(kolmogorov_quantile(1 - ORDER))):
            raise ValueError(
                f"{inputs.labels[index]}: {name} is distributed differently at the start and at "
                "the end; its events must be in random order: shuffle them"
            )


def _copies(inputs, events):
    """Shares of generated events that are training and held-out ones; zero for whole numbers."""
    shares = np.zeros(2)
    if inputs.ties >= MOST_TIES:
        return shares
    generated, truths = row_keys(events[:MOST_COMPARED]), (inputs.train, inputs.held_out)
    for i, true in enumerate(truths):
        if true is None:
            continue
        # What is there by accident is there among other true events, too.
        other, known = truths[1 - i], row_keys(true)
        accident = inputs.ties
        if other is not None:
            accident = np.isin(row_keys(other[:MOST_COMPARED]), known).mean()
        shares[i] = max(np.isin(generated, known).mean() - accident, 0.0)
    return shares

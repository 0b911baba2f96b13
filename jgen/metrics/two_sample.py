"""How often a classifier is right: the classifier two-sample test of posteriors."""

import numpy as np
from jaxtyping import Real

from jgen.estimate import Estimate
from jgen.metrics.classifier import ClassifierConfig
from jgen.metrics.cross_fitting import cross_fitted_log_ratio
from jgen.typing import Key


def c2st(
    reference: Real[np.ndarray, "n d"],
    generated: Real[np.ndarray, "n d"],
    key: Key,
    *,
    folds: int = 5,
) -> Estimate:
    """Accuracy of a classifier on events that it was not trained on (1610.06545); 0.5 is best.

    As in the benchmark of simulation-based inference (2101.04653): two hidden layers of ten times
    the dimension, folds of all events, Adam of rate 1e-3 with batches of 200. Deviations: samples
    are scaled by medians and robust deviations; a training stops when a validation split, an eighth
    of it, has not improved for ten epochs; the activation is a leaky ReLU.

    Args:
      reference: true events.
      generated: as many others.
      key: of folds and trainings.
      folds: parts of each sample.

    Returns:
      The accuracy and its statistical error, of all events.

    Raises:
      ValueError: if the samples have not the same shape.
    """
    if np.ndim(reference) != 2 or np.shape(reference) != np.shape(generated):
        raise ValueError(
            "an accuracy needs samples of one size [n, d], got the shapes "
            f"{np.shape(reference)} and {np.shape(generated)}"
        )
    width = 10 * np.shape(reference)[1]
    config = ClassifierConfig(
        hidden=(width, width), learning_rate=1e-3, batch_size=200, epochs=100, num_seeds=1,
        patience=10,
    )  # fmt: skip
    fitted = cross_fitted_log_ratio(reference, generated, key, config, folds=folds, scheme="cross")
    right = np.concatenate([fitted.reference > 0, fitted.generated < 0])
    accuracy = float(right.mean())
    return Estimate(accuracy, (accuracy * (1 - accuracy) / len(right)) ** 0.5)

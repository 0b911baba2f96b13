"""How good and how fast a solver is: errors, distances of layer energies, classifiers, time."""

import time
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from jgen.estimate import flatten
from jgen.generative_model import GenerativeModel, draw_chunks
from jgen.metrics import (
    ClassifierConfig,
    classifier_test,
    frechet_physics_distance,
    histogram,
    separation,
    wasserstein,
)
from jgen.random import stream
from jgen.showers import Geometry, Showers, compute_high_level_inputs
from jgen.showers.evaluation import low_level_inputs
from jgen.showers.observables import binning
from jgen.typing import Key, Params


def timed_draw(
    model: GenerativeModel,
    params: Params,
    key: Key,
    num: int,
    cond: Float[np.ndarray, "num ..."],
    batch_size: int,
) -> tuple[np.ndarray, float]:
    """Samples and milliseconds an event by the clock, the median of equal batches.

    The first batch waits for the compiler and does not count, so there are three at least.
    """
    batches = max(3, -(-num // batch_size))
    size = -(-num // batches)
    chunks, times = [], []
    for chunk in draw_chunks(model, params, key, num, cond, batch_size=size):
        chunks.append(chunk)
        times.append(time.perf_counter())
    return np.concatenate(chunks), 1e3 * float(np.median(np.diff(times))) / size


def root_mean_square(difference: Float[np.ndarray, "showers ..."]) -> dict[str, float]:
    """`rmse` of a difference to a fine solution and `rmse_error`, its error over showers."""
    flat = np.asarray(difference, np.float64).reshape(len(difference), -1)
    squares = np.mean(flat**2, axis=1)
    rmse = float(np.sqrt(squares.mean()))
    error = squares.std() / len(squares) ** 0.5 / (2 * rmse) if rmse else 0.0
    return {"rmse": rmse, "rmse_error": float(error)}


def compare_layers(
    geometry: Geometry,
    reference: Float[np.ndarray, "showers layers"],
    other: Float[np.ndarray, "showers layers"],
) -> dict[str, float]:
    """Separation power and Wasserstein distance of layer energies [MeV], means over layers."""
    powers = []
    for a, b in zip(reference.T, other.T, strict=True):
        edges = binning(geometry, "E_layer", a)
        powers.append(separation(histogram(a, edges), histogram(b, edges), num_bootstrap=0).value)
    distances = wasserstein(reference, other, num_bootstrap=0).value
    return {"separation": float(np.mean(powers)), "wasserstein": float(np.mean(distances))}


def shower_judge(
    geometry: Geometry,
    reference: Showers,
    key: Key,
    classifier: ClassifierConfig,
    fpd_batches: int,
) -> Callable[[Showers], dict[str, float]]:
    """A function of showers: `auc_high`, `auc_low` and `fpd` against the reference, with errors.

    Args:
      geometry: of all showers.
      reference: true showers.
      key: of the classifiers.
      classifier: both classifiers.
      fpd_batches: batches of each of five sizes of the Frechet physics distance.
    """
    inputs = {"high": lambda s: compute_high_level_inputs(geometry, s), "low": low_level_inputs}
    known = {tag: make(reference) for tag, make in inputs.items()}

    def judge(showers):
        found, new = {}, {tag: make(showers) for tag, make in inputs.items()}
        for tag in inputs:
            result = classifier_test(known[tag], new[tag], stream(key, tag), classifier)
            found |= flatten({f"auc_{tag}": result.auc_estimate})
        fpd = frechet_physics_distance(
            known["high"], new["high"], num_sizes=5, num_batches=fpd_batches
        )
        return found | flatten({"fpd": fpd})

    return judge

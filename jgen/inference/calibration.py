"""Are posteriors calibrated: ranks, expected coverage, a local test, and predicted data.

All take many pairs (theta, x) that were simulated from the prior, with draws of the posterior at
each x. A posterior that is right passes all of them; one that ignores x passes the ranks (it is the
prior), and is caught by `tarp` and `local_test`.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, Real
from scipy import stats

from jgen.arrays import double_array
from jgen.checks import check_whole
from jgen.metrics import ClassifierConfig, Coverage, trained_classifier
from jgen.random import numpy_generator, stream
from jgen.typing import Key


class Ranks(NamedTuple):
    """Simulation-based calibration (1804.06788).

    Attributes:
      values: number of the draws below the truth, of each pair and parameter, from 0 to `num`.
      num: draws of each posterior.
      p_value: of each parameter, that the ranks are uniform (Kolmogorov-Smirnov, with the ranks
        spread evenly over their interval).
    """

    values: Int[np.ndarray, "pairs dim"]
    num: int
    p_value: Float[np.ndarray, " dim"]


class ExpectedCoverage(NamedTuple):
    """Tests of accuracy with random points (TARP, 2302.03026).

    Attributes:
      coverage: how often regions of claimed levels hold the truth.
      p_value: that the regions' levels at which the truth enters are uniform (Kolmogorov-Smirnov).
    """

    coverage: Coverage
    p_value: float


class LocalTest(NamedTuple):
    """Local classifier two-sample test (2306.03580) of the posterior at one observation.

    Attributes:
      statistic: mean of (d - 1/2)^2, d the classifier's probability at draws of the posterior.
      null: the same of classifiers that saw shuffled labels.
      p_value: fraction of the null above the statistic, with one added to both counts.
    """

    statistic: float
    null: Float[np.ndarray, " trials"]
    p_value: float


def posterior_ranks(
    truth: Real[np.ndarray, "pairs dim"], draws: Real[np.ndarray, "pairs num dim"], key: Key
) -> Ranks:
    """Ranks of the true parameters among draws of their posteriors; uniform if it is right.

    Args:
      truth: parameters that the data of the posteriors were simulated with, drawn from the prior.
      draws: independent draws of each posterior.
      key: of the random order of equal values.

    Raises:
      ValueError: if shapes do not fit together, or numbers are not finite.
    """
    truth, draws = _pairs(truth, draws)
    below = (draws < truth[:, None]).sum(axis=1)
    equal = (draws == truth[:, None]).sum(axis=1)
    rng, num = numpy_generator(key), draws.shape[1]
    ranks = below + rng.integers(0, equal, endpoint=True)
    spread = (ranks + rng.random(ranks.shape)) / (num + 1)
    p_value = np.array([stats.kstest(column, "uniform").pvalue for column in spread.T])
    return Ranks(ranks, num, p_value)


def tarp(
    truth: Real[np.ndarray, "pairs dim"],
    draws: Real[np.ndarray, "pairs num dim"],
    key: Key,
    *,
    levels: Real[np.ndarray, " num_levels"] | None = None,
) -> ExpectedCoverage:
    """Expected coverage of balls around random points that hold a given part of the posterior.

    For each pair a reference point is drawn in the box of all truths; the fraction of the
    posterior's draws that are nearer to it than the truth is, is uniform for every choice of the
    points if and only if the posterior is right. Parameters are scaled to the box.

    Args:
      truth: parameters that the data of the posteriors were simulated with.
      draws: of each posterior.
      key: of the reference points.
      levels: of the coverage; 0.1 to 0.9 unless given.

    Raises:
      ValueError: if shapes do not fit together, or a parameter is always the same.
    """
    truth, draws = _pairs(truth, draws)
    low, width = truth.min(axis=0), np.ptp(truth, axis=0)
    if not np.all(width > 0):
        raise ValueError("a parameter has the same true value everywhere: leave it out")
    levels = np.arange(1, 10) / 10 if levels is None else double_array(levels, "levels")
    if levels.ndim != 1 or not levels.size or not np.all((levels > 0) & (levels < 1)):
        raise ValueError(f"levels are a list of numbers between 0 and 1, got {levels}")
    rng = numpy_generator(key)
    points = rng.random(truth.shape)
    distance = np.linalg.norm((truth - low) / width - points, axis=1)
    others = np.linalg.norm((draws - low) / width - points[:, None], axis=2)
    # The truth is one of num + 1 equals; spread over its interval, so that no step is left.
    rank = (others < distance[:, None]).sum(axis=1)
    fraction = (rank + rng.random(len(rank))) / (draws.shape[1] + 1)
    observed = np.mean(fraction[None] < levels[:, None], axis=1)
    error = np.sqrt(levels * (1 - levels) / len(truth))
    p_value = float(stats.kstest(fraction, "uniform").pvalue)
    return ExpectedCoverage(Coverage(levels, observed, levels, error), p_value)


def local_test(
    truth: Real[np.ndarray, "pairs dim"],
    data: Real[np.ndarray, "pairs n"],
    draws: Real[np.ndarray, "pairs dim"],
    observed: Real[np.ndarray, " n"],
    observed_draws: Real[np.ndarray, "num dim"],
    key: Key,
    config: ClassifierConfig | None = None,
    *,
    trials: int = 20,
) -> LocalTest:
    """Is the posterior right at one observation? One classifier, and `trials` of shuffled labels.

    The classifier tells pairs (theta, x) from pairs (draw of the posterior at x, x). If the
    posterior is right it says one half everywhere, also at the observation.

    Args:
      truth: parameters that the data were simulated with.
      data: simulated x.
      draws: one draw of the posterior at each x.
      observed: x where the posterior is tested.
      observed_draws: draws of the posterior there.
      key: of trainings and shuffles.
      config: of the classifier; small and quick unless given.
      trials: classifiers of the null.

    Raises:
      ValueError: if shapes do not fit together.
    """
    check_whole(trials=trials)
    config = config or ClassifierConfig(
        hidden=(64, 64), learning_rate=1e-3, batch_size=200, epochs=30, num_seeds=1, patience=5
    )
    truth, draws = _pairs(truth, np.asarray(draws)[:, None])
    data, seen = double_array(data, "data"), double_array(observed_draws, "observed_draws")
    observed = double_array(observed, "observed")
    if data.ndim != 2 or len(data) != len(truth) or observed.shape != data.shape[1:]:
        raise ValueError(
            f"data need the shape [pairs, n] and the observation [n], got {data.shape} and "
            f"{observed.shape} for {len(truth)} pairs"
        )
    if seen.ndim != 2 or seen.shape[1] != truth.shape[1] or not len(seen):
        raise ValueError(f"observed_draws need the shape [num, {truth.shape[1]}], got {seen.shape}")
    true, made = (np.concatenate([theta, data], 1) for theta in (truth, draws[:, 0]))
    at = np.concatenate([seen, np.broadcast_to(observed, (len(seen), len(observed)))], 1)
    rng, found = numpy_generator(stream(key, "labels")), []
    for trial in range(trials + 1):
        pair = [true, made]
        if trial:  # pair by pair, so that both classes keep the same data
            swap = rng.random(len(true)) < 0.5
            pair = [np.where(swap[:, None], a, b) for a, b in ((made, true), (true, made))]
        classifier, _ = trained_classifier(*pair, jax.random.fold_in(key, trial), config)
        found.append(float(np.mean((1 / (1 + np.exp(-classifier.log_ratio(at))) - 0.5) ** 2)))
    statistic, null = found[0], np.array(found[1:])
    return LocalTest(statistic, null, float((1 + np.sum(null >= statistic)) / (1 + trials)))


def predictive_p_values(
    observed: Real[np.ndarray, " n"], simulated: Real[np.ndarray, "num n"]
) -> Float[np.ndarray, " n"]:
    """Two-sided p-value of each observed number among data simulated from the posterior.

    Args:
      observed: x.
      simulated: x of simulations with draws of the posterior at `observed`.
    """
    observed, simulated = double_array(observed, "observed"), double_array(simulated, "simulated")
    if simulated.ndim != 2 or observed.shape != simulated.shape[1:] or not len(simulated):
        raise ValueError(
            f"the observation [n] and simulations [num, n] are needed, got {observed.shape} and "
            f"{simulated.shape}"
        )
    below, above = ((f(simulated, observed)).sum(axis=0) for f in (np.less_equal, np.greater_equal))
    return np.minimum(1.0, 2 * (1 + np.minimum(below, above)) / (1 + len(simulated)))


def _pairs(truth, draws):
    truth, draws = double_array(truth, "truth"), double_array(draws, "draws")
    if truth.ndim != 2 or draws.ndim != 3 or draws.shape[::2] != truth.shape or not draws.size:
        raise ValueError(
            "truth needs the shape [pairs, dim] and draws [pairs, num, dim], got "
            f"{truth.shape} and {draws.shape}"
        )
    for name, array in (("truth", truth), ("draws", draws)):
        if bad := int((~np.isfinite(array)).sum()):
            raise ValueError(f"{bad} of {array.size} {name} are not finite")
    return truth, draws

"""Generators of known worth in the differential estimate: a fit, the memoriser, and spoiled fits.

Each is fitted to many independent training sets, since the distance of one fluctuates by 30 %. All
radii count, unlike for the networks.
"""

from typing import NamedTuple

import numpy as np
from jax.tree_util import Partial
from jaxtyping import Bool, Float
from scipy import stats

from jgen.amplification import (
    differential_amplification,
    differential_on_training_set,
    equivalent_events,
    ks_distances,
    log_density_ratio,
)
from jgen.amplification.kolmogorov import MEAN
from jgen.generative_model import draw
from jgen.random import member_keys, stream
from jgen.toys.fits import Fit, memoriser, radial_fit
from jgen.toys.ring import ring, ring_log_prob
from jgen.toys.toy import Toy, true_events
from jgen.typing import Key

WIDTH = 0.1
"""Of the ring."""
SHIFT = 0.2
"""Of a spoiled generator's radius, in widths of the ring."""
SECTOR = 0.5 * np.pi
"""Width of the spoiled sector, which begins where azimuths do, so that a distance is largest."""
THINNED = 0.1
"""Part of the sector's events that are missing."""
GENERATORS = ("radial fit", "shifted", "thinned", "memoriser")
STATISTICS = ("R", "angle", "LR truth")


class Known(NamedTuple):
    """The truth and two fits to it."""

    toy: Toy
    radial: Fit
    memoriser: Fit


class Controls(NamedTuple):
    """Results of many experiments for one generator and statistic.

    Attributes:
      distances: to a large true sample, one an experiment.
      amplification: G of their mean.
      seen: share of experiments in which the held-out events, few as they are, exclude a perfect
        generator at 95 %; 5 % for a perfect one.
      infinite: share of experiments with G = infinity in the comparison with the training set.
      held_out: median G by the held-out events.
    """

    distances: Float[np.ndarray, " experiments"]
    amplification: float
    seen: float
    infinite: float
    held_out: float


def known_amplification(num_train: int) -> dict[tuple[str, str], float]:
    """G of the deviations that are made on purpose, and of the memoriser; no error of the fit."""
    shift = 2 * stats.norm.cdf(SHIFT / 2) - 1
    share = SECTOR / (2 * np.pi)
    thinned = share - share * (1 - THINNED) / (1 - share * THINNED)
    worth = {
        ("shifted", "R"): float(MEAN / shift) ** 2,
        ("thinned", "angle"): float(MEAN / thinned) ** 2,
        # Measured: the mean distance of 50 such fits of 1000 events to the truth.
        ("radial fit", "R"): 4.7 * num_train,
        ("memoriser", "R"): num_train,
        ("memoriser", "angle"): num_train,
    }
    return {name: n_equiv / num_train for name, n_equiv in worth.items()}


def ring_controls(
    key: Key,
    dim: int,
    *,
    num_train: int,
    num_held_out: int,
    num_control: int = 100_000,
    num_experiments: int = 50,
) -> dict[tuple[str, str], Controls]:
    """Fit, spoil and judge, by generator and statistic.

    Args:
      key: typed PRNG key.
      dim: of the ring.
      num_train: events of each of the independent training sets.
      num_held_out: true events that the estimate compares with.
      num_control: events that each generator makes, and true ones of the large sample.
      num_experiments: training sets.
    """
    sizes = {"data": num_train, "held out": num_held_out, "large": num_control}
    # Made once, so that all experiments run the same programs.
    known = Known(ring(dim), radial_fit(dim), memoriser())
    rows: dict[tuple[str, str], list] = {}
    for i, k in enumerate(member_keys(key, num_experiments)):
        for name, row in _experiment(known, k, np.random.default_rng(i), sizes).items():
            rows.setdefault(name, []).append(row)
    controls = {}
    for name, values in rows.items():
        distances, seen, infinite, held_out = np.array(values).T
        worth = equivalent_events(distances.mean(), num_control, num_control)
        amplification = float(worth.value) / num_train
        shares = seen.mean(), infinite.mean(), float(np.median(held_out))
        controls[name] = Controls(distances, amplification, *shares)
    return controls


def _experiment(known: Known, key, rng, sizes: dict[str, int]) -> dict[tuple[str, str], tuple]:
    """(distance, seen, infinite, G by held-out events) of generators fitted to one training set."""
    toy, num = known.toy, sizes["large"]
    true = {name: true_events(toy, stream(key, name), size) for name, size in sizes.items()}
    params = known.radial.fit(true["data"], None)
    fitted = _drawn(known.radial, params, stream(key, "fit"), num)
    copies = known.memoriser.fit(true["data"], None)
    missing = in_sector(fitted) & (rng.random(len(fitted)) < THINNED)
    events = {
        "radial fit": fitted,
        "shifted": fitted * (1 + SHIFT * WIDTH / _radius(fitted))[:, None],
        "thinned": fitted[~missing],
        "memoriser": _drawn(known.memoriser, copies, stream(key, "memoriser"), num),
    }
    rows = {}
    for name, generated in events.items():
        samples = {"generated": generated, **true}
        values = {"R": _map(_radius, samples), "angle": _map(_azimuth, samples)}
        if name != "memoriser":
            values["LR truth"] = spoiled_log_ratios(toy, params, name, samples)
        for statistic, by_sample in values.items():
            rows[name, statistic] = _judged(by_sample, sizes["data"])
    return rows


def _radius(events: Float[np.ndarray, "num dim"]) -> Float[np.ndarray, " num"]:
    return np.linalg.norm(events, axis=-1)


def _map(function, samples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A function of every sample."""
    return {name: function(sample) for name, sample in samples.items()}


def _judged(values: dict[str, np.ndarray], num_train: int) -> tuple:
    sizes = np.array([len(values["generated"])])
    held = differential_amplification(values["generated"], values["held out"], num_train, sizes)
    published = differential_on_training_set(values["generated"], values["data"], sizes)
    return (
        ks_distances(values["large"], values["generated"], sizes)[0],
        held.probability > 0.95,
        np.isinf(published.n_equiv.value),
        held.amplification.value,
    )


def _drawn(fit: Fit, params, key: Key, num: int) -> Float[np.ndarray, "num dim"]:
    # Simple generators: large batches cost little memory.
    return draw(fit.sample, params, key, num, batch_size=20_000)


def _azimuth(events: Float[np.ndarray, "num dim"]) -> Float[np.ndarray, " num"]:
    return np.arctan2(events[:, -1], events[:, -2])


def in_sector(events: Float[np.ndarray, "num dim"]) -> Bool[np.ndarray, " num"]:
    """Whether events are where the thinned generator misses some."""
    return _azimuth(events) < SECTOR - np.pi


def _log_prob(mean, width, x):
    return ring_log_prob(x, mean, width)


def spoiled_log_ratios(
    toy: Toy, params, name: str, samples: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Log of p_true / p_generated of a spoiled fit, but for its normalisation, by sample."""
    mean = params["mean"] + (SHIFT * WIDTH if name == "shifted" else 0.0)
    ratio = log_density_ratio(
        toy.log_prob,
        Partial(_log_prob, mean, params["width"]),
        np.concatenate(list(samples.values())),
    )
    ends = np.cumsum([len(sample) for sample in samples.values()])[:-1]
    ratios = dict(zip(samples, np.split(ratio, ends), strict=True))
    if name == "thinned":
        return {k: r - np.log(1 - THINNED) * in_sector(samples[k]) for k, r in ratios.items()}
    return ratios

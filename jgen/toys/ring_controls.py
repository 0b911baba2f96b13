"""Generators of known worth in the differential estimate: a fit, the memoriser, and spoiled fits.

Each is fitted to many independent training sets, since the distance of one fluctuates by 30 %. All
radii count, unlike for the networks.
"""

from typing import NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float
from scipy import stats

from experiments._ring_statistics import Config
from experiments._rings import radius, the_ring, true_events
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
from jgen.toys import Fit, Toy, memoriser, radial_fit
from jgen.toys.ring import ring_log_prob

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
    """What many experiments found for one generator and statistic.

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
        # The value of the reference notes, from the mean distance of such fits to the truth.
        ("radial fit", "R"): 4.7 * num_train,
        ("memoriser", "R"): num_train,
        ("memoriser", "angle"): num_train,
    }
    return {name: n_equiv / num_train for name, n_equiv in worth.items()}


def run_controls(config: Config, dim: int) -> dict[tuple[str, str], Controls]:
    """Fit, spoil and judge, by generator and statistic."""
    key = stream(jax.random.key(config.rings.seed), f"controls {dim}")
    # Made once, so that all experiments run the same programs.
    known = Known(the_ring(dim), radial_fit(dim), memoriser())
    found = {}
    for i, k in enumerate(member_keys(key, config.num_experiments)):
        for name, row in _experiment(config, known, k, np.random.default_rng(i)).items():
            found.setdefault(name, []).append(row)
    out = {}
    for name, rows in found.items():
        distances, seen, infinite, held_out = np.array(rows).T
        worth = equivalent_events(distances.mean(), config.num_control, config.num_control)
        out[name] = Controls(
            distances,
            float(worth.value) / config.rings.num_train,
            seen.mean(),
            infinite.mean(),
            float(np.median(held_out)),
        )
    return out


def _experiment(config: Config, known: Known, key, rng) -> dict[tuple[str, str], tuple]:
    """(distance, seen, infinite, G by held-out events) of generators fitted to one training set."""
    toy, n = known.toy, config.rings.num_train
    sizes = {"data": n, "held out": config.num_held_out, "large": config.num_control}
    true = {name: true_events(toy, stream(key, name), num) for name, num in sizes.items()}
    params = known.radial.fit(true["data"], None)
    fitted = _drawn(config, known.radial.model, params, stream(key, "fit"))
    copies = known.memoriser.fit(true["data"], None)
    repeated = _drawn(config, known.memoriser.model, copies, stream(key, "memoriser"))
    missing = _in_sector(fitted) & (rng.random(len(fitted)) < THINNED)
    events = {
        "radial fit": fitted,
        "shifted": fitted * (1 + SHIFT * WIDTH / radius(fitted))[:, None],
        "thinned": fitted[~missing],
        "memoriser": repeated,
    }
    rows = {}
    for name, generated in events.items():
        samples = {"generated": generated, **true}
        values = {"R": _map(radius, samples), "angle": _map(_azimuth, samples)}
        if name != "memoriser":
            values["LR truth"] = _log_ratios(toy, params, name, samples)
        for statistic, by_sample in values.items():
            rows[name, statistic] = _judged(by_sample, n)
    return rows


def _map(function, samples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A function of every sample."""
    return {name: function(sample) for name, sample in samples.items()}


def _judged(values: dict[str, np.ndarray], num_train: int) -> tuple:
    sizes = np.array([len(values["generated"])])
    held = differential_amplification(values["generated"], values["held out"], num_train, sizes)
    published = differential_on_training_set(values["generated"], values["data"], sizes)
    return (
        ks_distances(values["generated"], values["large"], sizes)[0],
        held.probability > 0.95,
        np.isinf(published.n_equiv.value),
        held.amplification.value,
    )


def _drawn(config: Config, model, params, key) -> Float[np.ndarray, "num dim"]:
    # Simple generators: large batches cost little memory.
    return draw(model, params, key, config.num_control, batch_size=20_000)


def _azimuth(events: Float[np.ndarray, "num dim"]) -> Float[np.ndarray, " num"]:
    return np.arctan2(events[:, -1], events[:, -2])


def _in_sector(events):
    return _azimuth(events) < SECTOR - np.pi


def _log_prob(mean, width, x):
    return ring_log_prob(x, mean, width)


def _log_ratios(toy, params, name: str, samples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Log of the ratio p_true / p_generated, whose normalisation no distance depends on."""
    mean = params["mean"] + (SHIFT * WIDTH if name == "shifted" else 0.0)
    ratio = log_density_ratio(
        toy.log_prob,
        Partial(_log_prob, mean, params["width"]),
        np.concatenate(list(samples.values())),
    )
    ends = np.cumsum([len(sample) for sample in samples.values()])[:-1]
    ratios = dict(zip(samples, np.split(ratio, ends), strict=True))
    if name == "thinned":
        return {k: r - np.log(1 - THINNED) * _in_sector(samples[k]) for k, r in ratios.items()}
    return ratios

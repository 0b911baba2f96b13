"""Data sets of the studies of flows and families, with the fixed map that models train behind."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from sklearn.datasets import load_digits

from jgen import bijectors, jets, toys
from jgen.bijectors import Bijector
from jgen.estimate import Estimate, mean_estimate
from jgen.random import stream

RADIUS, WIDTH = 2.0, 0.2
"""Circle of the eight Gaussians' centres, and their standard deviation."""
TOYS = {
    "moons": toys.moons(0.05),
    "circles": toys.circles(0.5, 0.05),
    "eight-gaussians": toys.eight_gaussians(RADIUS, WIDTH),
    "camel": toys.camel_back(),
}
"""Toys of both studies."""
NUM_LEVELS = 17
"""Grey levels of a digit's pixel, 0 to 16."""
# 1437 digits to train and validate on, 360 for the test, as is usual.
_NUM_DIGITS = 1437
# Copies of every digit with other noise, in which losses are random.
_COPIES = 5


class DataSet(NamedTuple):
    """One data set, in its own units.

    Attributes:
      train: events to train on [n, dim].
      validation: events that choose the best step.
      test: events that nothing was chosen on.
      bijector: from these events to numbers of order one, the same for all models.
      exact: the density, where it is known: its entropy, and log_prob of one event.
      levels: of discrete data their number; events are (level + noise) / levels.
      repeats: how often every event is there, one after another, each time with other noise.
    """

    train: Float[np.ndarray, "n dim"]
    validation: Float[np.ndarray, "v dim"]
    test: Float[np.ndarray, "m dim"]
    bijector: Bijector
    exact: tuple[Estimate, Callable] | None = None
    levels: int | None = None
    repeats: int = 1

    @property
    def dim(self) -> int:
        """Numbers of an event."""
        return self.train.shape[1]

    def once(self, events: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "m dim"]:
        """Events without their copies."""
        return events[:: self.repeats]

    def mean(self, values: Float[np.ndarray, " n"]) -> Estimate:
        """Mean of a number of each event, of which copies count as one."""
        return mean_estimate(np.asarray(values, np.float64).reshape(-1, self.repeats).mean(axis=1))

    def log_prob(self, points: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, " n"]:
        """Exact log-densities of a toy."""
        return np.asarray(jax.jit(jax.vmap(self.exact[1]))(points))


def make_data(config: Any, name: str) -> DataSet:
    """A data set of a configuration, of which it needs `seed`, `num_train` and `num_test`.

    Both numbers are for the toys, and upper limits for the jets.
    """
    return _made(name, config.seed, config.num_train, config.num_test)


@functools.cache
def _made(name, seed, num_train, num_test):
    key = stream(jax.random.key(seed), f"data {name}")
    if name in TOYS:
        return _toy_data(name, num_train, num_test, key)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    if name == "jets":
        return _jet_data(num_train, num_test, rng)
    return _digit_data(rng)


def _toy_data(name, num_train, num_test, key):
    toy = TOYS[name]
    sizes = np.cumsum([num_train, max(num_train // 10, 1), num_test])
    train, validation, test = np.split(toys.true_events(toy, key, int(sizes[-1])), sizes[:-1])
    scale = bijectors.standardize(train.mean(axis=0), train.std(axis=0))
    return DataSet(train, validation, test, scale, (toys.entropy(toy), toy.log_prob))


def _jet_data(num_train, num_test, rng):
    """One half of the jets is for the test; a tenth of the other half for the validation."""
    x = jets.read_features(jets.sample_path()).features
    x = x[rng.permutation(len(x))]
    test, rest = x[: len(x) // 2], x[len(x) // 2 :]
    validation, train = rest[: len(rest) // 10], rest[len(rest) // 10 :][:num_train]
    straight = jets.feature_map()
    z = np.asarray(jax.vmap(lambda x: straight.forward(x, None)[0])(train))
    scale = bijectors.standardize(z.mean(axis=0), z.std(axis=0))
    return DataSet(train, validation, test[:num_test], bijectors.compose(straight, scale))


def _digit_data(rng):
    """A tenth of the 1437 training digits is for the validation."""
    levels = load_digits().data.astype(int)
    levels = levels[rng.permutation(len(levels))]
    validation, train, test = np.split(levels, [_NUM_DIGITS // 10, _NUM_DIGITS])
    noisy = lambda n: bijectors.dequantize(rng, np.repeat(n, _COPIES, axis=0), NUM_LEVELS)
    return DataSet(
        noisy(train),
        noisy(validation),
        noisy(test),
        bijectors.level_gaussian(train, NUM_LEVELS),
        levels=NUM_LEVELS,
        repeats=_COPIES,
    )

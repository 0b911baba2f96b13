"""Searches for a resonance without a model of it: over-densities in the features of a mass window.

    region = Region(3.3, 3.7)
    score = cwola(data, region, key)
    background = interpolated(model, params, data, region, key, 200_000)     # CATHODE
    score = classifier(data.inside(region), background, key)

All give a function of features that is large where the data exceed the background. They differ in
where the background comes from: the sidebands themselves (CWoLa, 1708.02949, 1805.02664), a density
of the sidebands that is interpolated into the region and sampled (CATHODE, 2109.00546), the ratio
of two densities (ANODE, 2001.04990). With true background in the region, `classifier` is the
idealised search that none of them can beat, and with true labels the supervised one.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Real
from scipy import optimize

from jgen.arrays import double_array, finite_array, sample_array
from jgen.checks import check_finite, check_whole
from jgen.estimate import Estimate
from jgen.generative_model import GenerativeModel, draw, log_densities
from jgen.metrics import ClassifierConfig, trained_classifier
from jgen.random import numpy_generator, stream
from jgen.typing import Key, Params

Score = Callable[[Real[np.ndarray, "n d"]], Float[np.ndarray, " n"]]
"""Features of events -> how much they look like an excess, a log ratio in nats."""


class Region(NamedTuple):
    """A window in the resonant mass; everything else that is there are its sidebands.

    Attributes:
      low: its lower edge.
      high: its upper edge.
    """

    low: float
    high: float

    def holds(self, masses: Real[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Which masses are inside.

        Raises:
          ValueError: if the edges are no interval.
        """
        check_finite(low=self.low, high=self.high)
        if not self.low < self.high:
            raise ValueError(f"a region needs low < high, got {self.low} and {self.high}")
        masses = sample_array(masses, "masses")
        return (masses >= self.low) & (masses < self.high)


class Events(NamedTuple):
    """Events of a search.

    Attributes:
      masses: the resonant mass.
      features: what is looked at besides.
    """

    masses: Real[np.ndarray, " n"]
    features: Real[np.ndarray, "n d"]

    def take(self, rows) -> "Events":
        """Some of the events."""
        return Events(self.masses[rows], self.features[rows])

    def inside(self, region: Region) -> "Events":
        """Events in the region."""
        return self.take(region.holds(self.masses))

    def outside(self, region: Region) -> "Events":
        """Events in its sidebands."""
        return self.take(~region.holds(self.masses))


class Improvement(NamedTuple):
    """Significance improvement eps_S / sqrt(eps_B) of all cuts on a score.

    Attributes:
      background: efficiencies of the cuts, increasing.
      signal: likewise.
      value: the improvement.
      error: its standard error, of both finite samples.
    """

    background: Float[np.ndarray, " cuts"]
    signal: Float[np.ndarray, " cuts"]
    value: Float[np.ndarray, " cuts"]
    error: Float[np.ndarray, " cuts"]

    @property
    def best(self) -> Estimate:
        """The largest improvement; as a maximum of what fluctuates it is a little too large."""
        i = int(np.argmax(self.value))
        return Estimate(float(self.value[i]), float(self.error[i]))


def significance_improvement(
    signal: Real[np.ndarray, " n"], background: Real[np.ndarray, " m"], *, least: int = 25
) -> Improvement:
    """By which factor cuts on a score raise the significance of a counting experiment.

    Args:
      signal: scores of true signal.
      background: scores of true background in the region.
      least: background events that a cut must keep; with fewer the ratio is a fluctuation.

    Raises:
      ValueError: for empty samples, NaN, or fewer background events than `least`.
    """
    signal, background = sample_array(signal, "signal"), sample_array(background, "background")
    check_whole(least=least)
    if len(background) < least:
        raise ValueError(f"{len(background)} background events are fewer than least, {least}")
    cuts = np.sort(background)[::-1][least - 1 :]
    # Equal scores are kept or cut together.
    ordered = np.sort(background)
    kept = len(background) - np.searchsorted(ordered, cuts, "left")
    passed = len(signal) - np.searchsorted(np.sort(signal), cuts, "left")
    eps_b, eps_s = kept / len(background), passed / len(signal)
    value = eps_s / np.sqrt(eps_b)
    relative = np.zeros(len(cuts))
    there = passed > 0
    relative[there] = (1 - eps_s[there]) / passed[there] + (1 - eps_b[there]) / (4 * kept[there])
    return Improvement(eps_b, eps_s, value, value * np.sqrt(relative))


def classifier(
    data: Real[np.ndarray, "n d"],
    background: Real[np.ndarray, "m d"],
    key: Key,
    config: ClassifierConfig | None = None,
) -> Score:
    """The log ratio of data over background by an ensemble of classifiers.

    Args:
      data: features in the signal region.
      background: features of true background there, or of what stands for it.
      key: typed PRNG key.
      config: of the classifiers, five of three layers of 64 unless given; logits are averaged.
    """
    config = config or ClassifierConfig(
        hidden=(64, 64, 64), learning_rate=1e-3, batch_size=512, epochs=30, num_seeds=5,
        train_fraction=0.8, validation_fraction=0.19,
    )  # fmt: skip
    trained, _ = trained_classifier(data, background, key, config)
    return trained.log_ratio


def cwola(data: Events, region: Region, key: Key, config: ClassifierConfig | None = None) -> Score:
    """Classification without labels: the region against its sidebands (1805.02664).

    Both sidebands count equally, however many events they have. Features must not tell the mass:
    where they do, the classifier learns the mass and not the signal.

    Args:
      data: events of the region and of both sidebands; give narrow ones.
      region: the signal region.
      key: typed PRNG key.
      config: of the classifiers.

    Raises:
      ValueError: if the region or one of the sidebands is empty.
    """
    data = _checked(data, region)
    outside, inside = data.outside(region), data.inside(region)
    below = outside.masses < region.low
    num = min(below.sum(), (~below).sum())
    rng = numpy_generator(stream(key, "sidebands"))
    rows = [rng.permutation(np.flatnonzero(side))[:num] for side in (below, ~below)]
    return classifier(inside.features, outside.features[np.concatenate(rows)], key, config)


def interpolated(
    model: GenerativeModel, params: Params, data: Events, region: Region, key: Key, num: int
) -> Float[np.ndarray, "num d"]:
    """Background in the region from a density of the sidebands' features (CATHODE, 2109.00546).

    Args:
      model: of features given the mass [1], trained on `data.outside(region)`.
      params: of it, of one member or of a `transforms.mixture`.
      data: events with the sidebands that masses are taken from.
      region: the signal region.
      key: typed PRNG key.
      num: events to draw; several times those of the data are useful.
    """
    masses = region_masses(data.masses, region, stream(key, "masses"), num)
    cond = masses[:, None].astype(np.float32)
    return draw(model, params, stream(key, "features"), num, cond, batch_size=10_000)


def density_ratio(
    inside: tuple[GenerativeModel, Params],
    outside: tuple[GenerativeModel, Params],
    events: Events,
    key: Key,
) -> Float[np.ndarray, " n"]:
    """The log ratio of two densities at events (ANODE, 2001.04990).

    Args:
      inside: model of features given the mass, and parameters, trained in the region.
      outside: the same, trained on the sidebands.
      events: of the region.
      key: for densities that are estimated.
    """
    cond = events.masses[:, None].astype(np.float32)
    scores = [
        log_densities(*model, key, events.features, cond, batch_size=10_000)
        for model in (inside, outside)
    ]
    return scores[0] - scores[1]


def region_masses(
    masses: Real[np.ndarray, " n"], region: Region, key: Key, num: int
) -> Float[np.ndarray, " num"]:
    """Masses of the background inside the region, from a smooth density of the sidebands.

    The logarithm of the density is a parabola in the mass, fitted to the sidebands alone by maximum
    likelihood: events in the region, signal perhaps, are not looked at.

    Args:
      masses: of all events.
      region: the signal region.
      key: typed PRNG key.
      num: masses to draw.

    Raises:
      ValueError: if one of the sidebands is empty.
    """
    check_whole(num=num)
    masses = double_array(masses, "masses")
    side = masses[~region.holds(masses)]
    if not (side < region.low).any() or not (side >= region.high).any():
        raise ValueError("there must be events on both sides of the region")
    centre, width = side.mean(), side.std()
    powers = lambda m: np.stack([(t := (m - centre) / width), t**2])
    grid = np.linspace(side.min(), side.max(), 20_001)
    used, found = powers(grid[~region.holds(grid)]), powers(side).mean(axis=1)

    def loss(coefficients):
        """Mean negative log-likelihood up to a constant, and its gradient."""
        exponent = coefficients @ used
        weight = np.exp(exponent - exponent.max())
        log_norm = np.log(weight.sum()) + exponent.max()
        return log_norm - coefficients @ found, used @ weight / weight.sum() - found

    fitted = optimize.minimize(loss, np.zeros(2), jac=True, method="BFGS").x
    edges = np.linspace(region.low, region.high, 2001)
    density = np.exp(fitted @ (powers((edges[1:] + edges[:-1]) / 2) - found[:, None]))
    total = np.append(0.0, np.cumsum(density))
    return np.interp(numpy_generator(key).random(num), total / total[-1], edges)


def _checked(data: Events, region: Region) -> Events:
    masses, features = sample_array(data.masses, "masses"), finite_array(data.features, "features")
    if features.ndim != 2 or len(features) != len(masses):
        raise ValueError(
            f"events need masses [n] and features [n, d], got {masses.shape} and {features.shape}"
        )
    if not region.holds(masses).any():
        raise ValueError(f"no event has a mass from {region.low} to {region.high}")
    if not (masses < region.low).any() or not (masses >= region.high).any():
        raise ValueError("there must be events on both sides of the region")
    return Events(masses, features)

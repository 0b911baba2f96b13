"""A resonance over a smooth background, of which the best possible search is known.

Background: four features N(0, 1), mass exponential. Signal: features N(mu e_1, s^2), mass normal
inside the signal region. The likelihood ratio of the features is constant on spheres around
c = mu / (1 - s^2) e_1, so that efficiencies are those of non-central chi-squared variables.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Real
from scipy import optimize, stats

from jgen.checks import check_fraction, check_open_fraction, check_positive, check_whole
from jgen.inference.anomalies import Events
from jgen.typing import Key

DIM = 4
"""Features of an event."""


class Resonance(NamedTuple):
    """A search with a known answer.

    Attributes:
      distance: mu, of the signal's features from the background's.
      width: s, of the signal's features in units of the background's.
      mass: of the resonance [TeV].
      mass_width: its standard deviation [TeV].
      slope: of the background's exponential mass spectrum [1 / TeV].
      edges: smallest and largest mass [TeV].
      shift: by how much the first feature moves with a TeV; unless zero, features tell the mass.
    """

    distance: float = 2.0
    width: float = 0.3
    mass: float = 3.5
    mass_width: float = 0.05
    slope: float = 1.5
    edges: tuple[float, float] = (2.5, 4.5)
    shift: float = 0.0

    def background(self, key: Key, num: int) -> Events:
        """So many events of the background."""
        check_whole(num=num)
        key_mass, key_features = jax.random.split(key)
        low, high = np.exp(-self.slope * np.array(self.edges))
        u = jax.random.uniform(key_mass, (num,))
        masses = -jnp.log(low - u * (low - high)) / self.slope
        return self._events(masses, jax.random.normal(key_features, (num, DIM)))

    def signal(self, key: Key, num: int) -> Events:
        """So many events of the signal."""
        check_whole(num=num)
        key_mass, key_features = jax.random.split(key)
        masses = self.mass + self.mass_width * jax.random.normal(key_mass, (num,))
        centre = self.distance * jnp.eye(DIM)[0]
        features = centre[None] + self.width * jax.random.normal(key_features, (num, DIM))
        return self._events(masses, features)

    def log_ratio(self, features: Real[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
        """Log of signal over background of the features without the shift, up to a constant."""
        x = np.asarray(features, np.float64)
        centre = self.distance * np.eye(DIM)[0]
        away = ((x - centre) ** 2).sum(axis=1) / self.width**2
        return 0.5 * ((x**2).sum(axis=1) - away)

    def efficiencies(self, radius: Real[np.ndarray, "..."]) -> tuple[np.ndarray, np.ndarray]:
        """Of signal and background inside the spheres of the best cut."""
        s2 = self.width**2
        centre = self.distance / (1 - s2)
        signal = stats.ncx2.cdf(radius**2 / s2, DIM, (self.distance - centre) ** 2 / s2)
        return signal, stats.ncx2.cdf(radius**2, DIM, centre**2)

    def best_improvement(self, least: float = 0.0) -> float:
        """The largest eps_S / sqrt(eps_B) of all cuts that keep more than `least` of background."""
        check_fraction(least=least)
        check_positive(distance=self.distance)
        # Of a wider signal the spheres of the best cut turn inside out.
        check_open_fraction(width=self.width)

        def negative(radius):
            signal, background = self.efficiencies(np.array(radius))
            return -signal / np.sqrt(background) if background > least else 0.0

        grid = np.linspace(0.05, 3.0, 300)
        best = grid[np.argmin([negative(r) for r in grid])]
        found = optimize.minimize_scalar(
            negative, bounds=(best - 0.01, best + 0.01), method="bounded"
        )
        return -float(min(found.fun, negative(best)))

    def _events(self, masses, features) -> Events:
        features = features.at[:, 0].add(self.shift * (masses - self.mass))
        return Events(np.asarray(masses), np.asarray(features))

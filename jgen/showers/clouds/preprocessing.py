"""Between showers and what the networks of CaloClouds see.

The Shower Flow (2309.05704) makes numbers of a shower as a whole: standardised at each incident
energy, and normal one by one and without linear correlations at four incident energies and between
them. It is left with what a normal distribution does not have, and learns from a thousand showers.
The point network makes points of known layers in coordinates that are normal over the training
sample: x and y by the radii in their layer, the energy by its distribution function in their layer
and ring. What is left to learn is how these change with the shower and with what is in its layer.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, Int

from jgen.generative_model import draw
from jgen.nets.primitives.points import on_points
from jgen.sets import valid
from jgen.showers.clouds.numbers import raw_numbers, raw_totals
from jgen.showers.clouds.pieces import (
    SCORES,
    each,
    normal_score,
    pieces,
    scored_values,
    table,
)
from jgen.showers.clouds.points import (
    Totals,
    calibrated,
    cut,
    factors,
    layer_of_rows,
    poisson_parts,
    rates_of_hits,
    ring_of,
    to_points,
    to_voxels,
    totals,
    voxel_of,
)
from jgen.showers.clouds.spectrum import Spectrum, densities, energies_kept
from jgen.showers.data import Geometry, Showers
from jgen.typing import Key

# Shares beyond which coordinates are not told apart.
_TAIL = 1e-6


class Statistics(NamedTuple):
    """Of the training sample.

    Attributes:
      energies: least and largest incident energy [MeV].
      rate_energies: incident energies [MeV] at which `rates` are known.
      rates: points of a voxel by layer and ring, see `jgen.showers.clouds.points`,
      log_mean: mean of the logarithm of its energy [MeV],
      log_std: and standard deviation.
      number_mean: coefficients in powers of the scaled incident energy of the numbers' means,
      number_log_std: and of the logarithms of their standard deviations.
      number_quantiles: of the standardised numbers, and
      number_factors: triangular factors of the covariances of their normal scores, at incident
        energies that are evenly spaced in their logarithm.
      inside: of the points of a layer, the share within each ring edge,
      log_energies: and quantiles of the logarithm of the energies [MeV] of those of a ring.
      slots: rows for the points of a shower.
      scale: incident energies [MeV] that networks see as -1 and 1.
    """

    energies: Float[np.ndarray, "2"]
    rate_energies: Float[np.ndarray, " bins"]
    rates: Float[np.ndarray, "bins layers rings"]
    log_mean: Float[np.ndarray, "bins layers rings"]
    log_std: Float[np.ndarray, "bins layers rings"]
    number_mean: Float[np.ndarray, "4 num"]
    number_log_std: Float[np.ndarray, "3 num"]
    number_quantiles: Float[np.ndarray, "nodes quantiles num"]
    number_factors: Float[np.ndarray, "nodes num num"]
    inside: Float[np.ndarray, "layers rings_plus_1"]
    log_energies: Float[np.ndarray, "layers rings quantiles"]
    slots: int
    scale: Float[np.ndarray, "2"]


class Given(NamedTuple):
    """What the points of a shower are conditioned on, beside their number.

    Attributes:
      energy: scaled incident energy, from -1 to 1 between the ends of the scale.
      layers: of each layer, the logarithms of one plus its points, and of the energy [MeV] a point.
      layer: of each row of the points.
    """

    energy: Float[Array, "1"]
    layers: Float[Array, "layers 2"]
    layer: Int[Array, " rows"]


class Encoded(NamedTuple):
    """One shower as the networks see it.

    Attributes:
      numbers: of the Shower Flow.
      points: x, y and energy with normal coordinates, sorted by layer and padded with zeros.
      n: how many points.
      given: what the points are conditioned on; its energy is the condition of the numbers.
    """

    numbers: Float[Array, " num"]
    points: Float[Array, "slots 3"]
    n: Int[Array, ""]
    given: Given


@dataclass(frozen=True)
class CloudPreprocessing:
    """Showers to numbers and points, and back, of one shower.

    Attributes:
      geometry: a regular one.
      statistics: see `fit_preprocessing`.
      spectrum: of voxels; it is known when the networks are. Without, they stay as they are.
    """

    geometry: Geometry
    statistics: Statistics
    spectrum: Spectrum | None = None

    @property
    def slots(self) -> int:
        """Rows for points."""
        return int(self.statistics.slots)

    def scaled_energy(self, energy: Float[Array, ""]) -> Float[Array, ""]:
        """Logarithm of the incident energy [MeV], -1 and 1 at the ends of the scale."""
        low, high = np.log(self.statistics.scale)
        return (2 * jnp.log(energy) - low - high) / (high - low)

    def cloud(
        self, key: Key, voxels: Float[Array, " num_voxels"], energy: Float[Array, ""], slots: int
    ) -> tuple[Float[Array, "slots 4"], Int[Array, ""]]:
        """Points of a shower, see `jgen.showers.clouds.points`, and how many."""
        key_parts, key_points = jax.random.split(key)
        s, voxels = self.statistics, voxels.reshape(self.geometry.shape)
        at = lambda values: jnp.interp(jnp.log(energy), np.log(s.rate_energies), values)
        known = np.stack([s.rates, s.log_mean, s.log_std])
        known = jax.vmap(at)(jnp.asarray(np.moveaxis(known, 1, -1).reshape(-1, len(s.rates))))
        rates, mean, std = known.reshape(3, self.geometry.num_layers, -1)
        scores = (jnp.log(jnp.maximum(voxels, 1e-9)) - mean[:, None]) / std[:, None]
        hits = jnp.sum(voxels > 0, axis=(1, 2))
        rates = rates_of_hits(hits, rates, self.geometry.shape[1])
        parts = poisson_parts(key_parts, voxels, scores, rates)
        return to_points(self.geometry, key_points, voxels, parts, slots)

    def encode(
        self, key: Key, voxels: Float[Array, " num_voxels"], energy: Float[Array, ""]
    ) -> Encoded:
        """One shower as the networks see it.

        Args:
          key: of the number and the places of points within a voxel, and of what dequantises.
          voxels: energies [MeV].
          energy: incident energy [MeV].
        """
        key_points, key_numbers = jax.random.split(key)
        points, n = self.cloud(key_points, voxels, energy, self.slots)
        whole = totals(self.geometry, points, n)
        numbers, given = self.numbers(key_numbers, whole, energy), self.given(whole, energy)
        features = jax.vmap(self.normal)(points, given.layer)
        features = jnp.where(valid(n, self.slots)[:, None], features, 0)
        return Encoded(numbers, features, n, given)

    def given(self, whole: Totals, energy: Float[Array, ""]) -> Given:
        """Condition of the points of a shower."""
        each = whole.energy / jnp.maximum(whole.n, 1)
        layers = jnp.stack([jnp.log1p(whole.n), jnp.log(jnp.maximum(each, 1e-3))], axis=1)
        scaled = self.scaled_energy(energy)[None]
        return Given(scaled, layers, layer_of_rows(whole.n, self.slots))

    def numbers(self, key: Key, whole: Totals, energy: Float[Array, ""]) -> Array:
        """Numbers of the Shower Flow; what an empty layer does not have is noise."""
        key_n, key_empty = jax.random.split(key)
        raw, known = raw_numbers(key_n, whole, energy)
        mean, std = self._moments(energy)
        values = self._at(self.statistics.number_quantiles, energy)
        scores = each(pieces(values.T, jnp.float32(SCORES)), (raw - mean) / std)
        z = jnp.where(known, scores, jax.random.normal(key_empty, raw.shape))
        return solve_triangular(self._at(self.statistics.number_factors, energy), z, lower=True)

    def whole(self, numbers: Float[Array, " num"], energy: Float[Array, ""]) -> Totals:
        """Numbers of a shower as a whole; it has a point at least, and no more than slots."""
        mean, std = self._moments(energy)
        # A sum, which an accelerator does not run at reduced precision.
        z = jnp.sum(self._at(self.statistics.number_factors, energy) * numbers[None], axis=1)
        values = self._at(self.statistics.number_quantiles, energy)
        raw = mean + std * each(pieces(jnp.float32(SCORES), values.T), z)
        return raw_totals(raw, energy, self.slots)

    def physical(self, points: Float[Array, "slots 3"], whole: Totals) -> Float[Array, "slots 4"]:
        """Points x, y [mm], z [layers], energy [MeV] with numbers of the shower as a whole."""
        made = self._calibrated(points, whole)
        before = to_voxels(self.geometry, made, jnp.sum(whole.n))
        change = factors(before, self.finished(before, whole)).ravel()
        return made.at[:, 3].multiply(change[voxel_of(self.geometry, made)])

    def decode(
        self, points: Float[Array, "slots 3"], whole: Totals
    ) -> Float[Array, "layers angles rings"]:
        """Voxels [MeV] of points of the network, with numbers of the shower as a whole."""
        voxels = to_voxels(self.geometry, self._calibrated(points, whole), jnp.sum(whole.n))
        return cut(self.finished(voxels, whole), whole.energy, self.geometry.threshold)

    def finished(
        self, voxels: Float[Array, "layers angles rings"], whole: Totals
    ) -> Float[Array, "layers angles rings"]:
        """Voxels [MeV] with the spectrum of the training sample and the energies of the shower."""
        if self.spectrum is None:
            return voxels
        density = densities(whole.n, self.statistics.inside, self.geometry.shape[1])
        return energies_kept(self.spectrum.mapped(voxels, density), whole)

    def _calibrated(self, points, whole):
        some, layer = lambda rows: jax.vmap(self.point)(*rows), layer_of_rows(whole.n, self.slots)
        made = on_points(some, jnp.sum(whole.n), (points, layer))
        return calibrated(self.geometry, made, whole)

    def normal(self, point: Float[Array, "4"], layer: Int[Array, ""]) -> Float[Array, "3"]:
        """Normal coordinates of a point x, y [mm], z [layers], energy [MeV] of a layer."""
        s, (x, y, _, energy) = self.statistics, point
        square = x**2 + y**2
        outside = pieces(self._squares, 1 - s.inside).of(layer)(
            jnp.clip(square, 0, self._squares[-1])
        )
        length = jnp.sqrt(-2 * jnp.log(jnp.clip(outside, _TAIL, 1)))
        plane = point[:2] * (length / jnp.sqrt(jnp.maximum(square, 1e-12)))
        score = normal_score(s.log_energies).of(layer, self._ring(square))
        return jnp.append(plane, score(jnp.log(jnp.maximum(energy, 1e-9))))

    def point(self, normal: Float[Array, "3"], layer: Int[Array, ""]) -> Float[Array, "4"]:
        """The inverse of `normal`; nothing is outside of the grid."""
        s, length = self.statistics, jnp.sqrt(jnp.sum(normal[:2] ** 2) + 1e-12)
        outside = jnp.exp(-0.5 * length**2)
        square = pieces(1 - s.inside[:, ::-1], self._squares[::-1]).of(layer)(outside)
        log_energy = scored_values(s.log_energies)(normal[2], layer, self._ring(square))
        plane = normal[:2] * (jnp.sqrt(jnp.maximum(square, 0)) / length)
        return jnp.append(plane, jnp.stack([layer + 0.5, jnp.exp(log_energy)]))

    def _ring(self, square):
        return ring_of(self.geometry, square)

    @property
    def _squares(self):
        return np.square(self.geometry.layers[0].r_edges)

    def _at(self, known, energy):
        """What is known at some incident energies, linear between them."""
        low, high = np.log(self.statistics.energies)
        last = len(known) - 1
        place = jnp.clip(last * (jnp.log(energy) - low) / (high - low), 0, last)
        left = jnp.minimum(jnp.floor(place).astype(int), last - 1)
        values, share = table(known), place - left
        return (1 - share) * values[left] + share * values[left + 1]

    def _moments(self, energy):
        # Polynomials mean nothing beyond the training sample, whose ends are taken there.
        s = self.statistics
        powers = self.scaled_energy(jnp.clip(energy, *s.energies)) ** jnp.arange(4)
        mean = jnp.sum(powers[:, None] * s.number_mean.astype(np.float32), axis=0)
        log_std = jnp.sum(powers[:3, None] * s.number_log_std.astype(np.float32), axis=0)
        return mean, jnp.exp(log_std)


def encoded(preprocessing: CloudPreprocessing, showers: Showers, key: Key) -> Encoded:
    """All showers as the networks see them, float32."""
    one = lambda params, key, cond: preprocessing.encode(key, *cond)
    return draw(one, None, key, len(showers.energies), tuple(showers)[::-1], batch_size=100)

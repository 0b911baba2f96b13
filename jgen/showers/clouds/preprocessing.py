"""Between showers and what the networks of CaloClouds see.

The Shower Flow (2309.05704) makes numbers of a shower as a whole, the point network one point after
another: asinh(r / a) in the direction of (x, y) with the width a of a ring, z, and log energy, all
standardised.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jgen.generative_model import draw
from jgen.sets import valid
from jgen.showers.clouds.points import (
    Totals,
    calibrated,
    cut,
    poisson_parts,
    to_points,
    to_voxels,
    totals,
)
from jgen.showers.data import Geometry, Showers, check_showers, check_units
from jgen.typing import Key

GROUPS = 9
"""Groups of layers that the Shower Flow has numbers of."""
# Most points of a voxel, on average: 98 % of the voxels are then hit.
_HIGHEST_RATE = 4.0
_RATE_BINS = 8
# No shower has more: a voxel has 4.1 on average where most are made of one.
_POINTS_A_HIT = 4.2


class Statistics(NamedTuple):
    """Of the training sample.

    Attributes:
      energies: least and largest incident energy [MeV].
      rate_energies: incident energies [MeV] at which `rates` are known.
      rates: points of a voxel by layer and ring, see `jgen.showers.clouds.points`.
      number_mean: coefficients in powers of the scaled incident energy of the numbers' means,
      number_log_std: and of the logarithms of their standard deviations.
      point_mean, point_std: of the four features of a point.
      slots: rows for the points of a shower.
    """

    energies: Float[np.ndarray, "2"]
    rate_energies: Float[np.ndarray, " bins"]
    rates: Float[np.ndarray, "bins layers rings"]
    number_mean: Float[np.ndarray, "4 num"]
    number_log_std: Float[np.ndarray, "3 num"]
    point_mean: Float[np.ndarray, "4"]
    point_std: Float[np.ndarray, "4"]
    slots: int


class Encoded(NamedTuple):
    """One shower as the networks see it.

    Attributes:
      energy: scaled incident energy, from -1 to 1.
      numbers: of the Shower Flow.
      points: standardised, padded with zeros.
      n: how many points.
    """

    energy: Float[Array, ""]
    numbers: Float[Array, " num"]
    points: Float[Array, "slots 4"]
    n: Int[Array, ""]


@dataclass(frozen=True)
class CloudPreprocessing:
    """Showers to numbers and points, and back, of one shower.

    Attributes:
      geometry: a regular one whose layers are a multiple of `GROUPS`.
      statistics: see `fit_preprocessing`.
    """

    geometry: Geometry
    statistics: Statistics

    @property
    def num_numbers(self) -> int:
        """Numbers of the Shower Flow: response, centre, points and energies of groups.

        One of the energies follows from the others.
        """
        return 1 + 3 + GROUPS + GROUPS - 1

    @property
    def slots(self) -> int:
        """Rows for points."""
        return int(self.statistics.slots)

    def scaled_energy(self, energy: Float[Array, ""]) -> Float[Array, ""]:
        """Logarithm of the incident energy [MeV], -1 and 1 at the ends of the training sample."""
        low, high = np.log(self.statistics.energies)
        return (2 * jnp.log(energy) - low - high) / (high - low)

    def cloud(
        self, key: Key, voxels: Float[Array, " num_voxels"], energy: Float[Array, ""], slots: int
    ) -> tuple[Float[Array, "slots 4"], Int[Array, ""]]:
        """Points of a shower, see `jgen.showers.clouds.points`, and how many."""
        key_parts, key_points = jax.random.split(key)
        s, voxels = self.statistics, voxels.reshape(self.geometry.shape)
        at = lambda rate: jnp.interp(jnp.log(energy), np.log(s.rate_energies), rate)
        rates = jax.vmap(at)(jnp.asarray(s.rates.reshape(len(s.rates), -1).T, jnp.float32))
        rates = rates.reshape(self.geometry.num_layers, -1)
        parts = poisson_parts(key_parts, voxels, rates)
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
        whole = totals(points, n, self.geometry.num_layers, GROUPS)
        numbers = self.numbers(key_numbers, whole, energy)
        features = (point_features(self.geometry, points) - self._mean) / self._std
        features = jnp.where(valid(n, self.slots)[:, None], features, 0)
        return Encoded(self.scaled_energy(energy), numbers, features, n)

    def numbers(self, key: Key, whole: Totals, energy: Float[Array, ""]) -> Array:
        """Standardised numbers of the Shower Flow; those of empty groups are noise."""
        key_n, key_empty = jax.random.split(key)
        raw, known = raw_numbers(key_n, whole, energy, self.geometry.num_layers)
        mean, std = self._moments(energy)
        return jnp.where(known, (raw - mean) / std, jax.random.normal(key_empty, raw.shape))

    def whole(self, numbers: Float[Array, " num"], energy: Float[Array, ""]) -> Totals:
        """Numbers of a shower as a whole; it has a point at least, and no more than slots."""
        mean, std = self._moments(energy)
        return raw_totals(mean + std * numbers, energy, self.geometry.num_layers, self.slots)

    def decode(
        self, points: Float[Array, "slots 4"], whole: Totals
    ) -> Float[Array, "layers angles rings"]:
        """Voxels [MeV] of standardised points, calibrated to numbers of the shower as a whole."""
        features = self._mean + self._std * points
        points = feature_points(self.geometry, features)
        points = calibrated(points, whole, self.geometry.num_layers)
        voxels = to_voxels(self.geometry, points, jnp.sum(whole.n))
        return cut(voxels, whole.energy, self.geometry.threshold)

    @property
    def _mean(self):
        return jnp.asarray(self.statistics.point_mean, jnp.float32)[None]

    @property
    def _std(self):
        return jnp.asarray(self.statistics.point_std, jnp.float32)[None]

    def _moments(self, energy):
        powers = self.scaled_energy(energy) ** jnp.arange(4)
        s = self.statistics
        mean = jnp.sum(powers[:, None] * s.number_mean.astype(np.float32), axis=0)
        log_std = jnp.sum(powers[:3, None] * s.number_log_std.astype(np.float32), axis=0)
        return mean, jnp.exp(log_std)


def point_features(geometry: Geometry, points: Float[Array, "slots 4"]) -> Array:
    """Compressed x and y, z, and log energy, which is that of 1 MeV where there is none."""
    step = geometry.layers[0].r_edges[1]
    plane, z, energy = points[:, :2], points[:, 2:3], points[:, 3:]
    radius = jnp.sqrt(jnp.sum(plane**2, axis=1, keepdims=True) + 1e-12)
    energy = jnp.log(jnp.where(energy > 0, energy, 1))
    return jnp.concatenate([plane / radius * jnp.arcsinh(radius / step), z, energy], axis=1)


def feature_points(geometry: Geometry, features: Float[Array, "slots 4"]) -> Array:
    """The inverse of `point_features`; radii end at the largest ring's."""
    step, outermost = geometry.layers[0].r_edges[1], geometry.layers[0].r_edges[-1]
    plane, z, energy = features[:, :2], features[:, 2:3], features[:, 3:]
    radius = jnp.sqrt(jnp.sum(plane**2, axis=1, keepdims=True) + 1e-12)
    length = step * jnp.sinh(jnp.minimum(radius, np.arcsinh(outermost / step)))
    return jnp.concatenate([plane / radius * length, z, jnp.exp(jnp.minimum(energy, 20.0))], axis=1)


def raw_numbers(
    key: Key, whole: Totals, energy: Float[Array, ""], num_layers: int
) -> tuple[Array, Array]:
    """Numbers of the Shower Flow before they are standardised, and which of them are known.

    log(visible / incident energy); x, y and z of the centre, z from that of the groups; the square
    root of the points of each group with a uniform number added; and of all groups but the second,
    where showers have their maximum, log energy a point over that of the second.
    """
    visible = jnp.sum(whole.energy)
    middle = num_layers / GROUPS * (jnp.arange(GROUPS) + 0.5)
    z = whole.centre[2] - jnp.sum(whole.energy * middle) / visible
    roots = jnp.sqrt(whole.n + jax.random.uniform(key, (GROUPS,)))
    full = (whole.n > 0) & (whole.energy > 0)
    each = jnp.log(jnp.where(full, whole.energy, 1) / jnp.maximum(whole.n, 1))
    ratios = jnp.delete(each - each[_MAXIMUM], _MAXIMUM)
    known = jnp.delete(full & full[_MAXIMUM], _MAXIMUM)
    centre = jnp.append(whole.centre[:2], z)
    raw = jnp.concatenate([jnp.log(visible / energy)[None], centre, roots, ratios])
    return raw, jnp.concatenate([jnp.ones(4 + GROUPS, bool), known])


def raw_totals(
    raw: Float[Array, " num"], energy: Float[Array, ""], num_layers: int, slots: int
) -> Totals:
    """The inverse of `raw_numbers`."""
    response, centre, roots, ratios = jnp.split(raw, (1, 4, 4 + GROUPS))
    n = jnp.floor(jnp.square(jnp.maximum(roots, 0)))
    n = n.at[_MAXIMUM].max(1)
    n = jnp.diff(jnp.minimum(jnp.cumsum(n), slots), prepend=0.0)
    ratios = jnp.insert(ratios, _MAXIMUM, 0.0)
    shares = jax.nn.softmax(jnp.where(n > 0, ratios + jnp.log(jnp.maximum(n, 1)), -jnp.inf))
    groups = energy * jnp.exp(response) * shares
    middle = num_layers / GROUPS * (jnp.arange(GROUPS) + 0.5)
    centre = centre.at[2].add(jnp.sum(shares * middle))
    return Totals(n.astype(jnp.int32), groups, centre)


_MAXIMUM = 1


def fit_preprocessing(showers: Showers, geometry: Geometry, key: Key) -> CloudPreprocessing:
    """The preprocessing of a training sample.

    Args:
      showers: training sample.
      geometry: a regular one whose layers are a multiple of `GROUPS`.
      key: of the points that statistics are taken of.

    Raises:
      ValueError: for another geometry, bad showers or fewer than 50.
    """
    check_showers(showers, geometry)
    check_units(showers, geometry)
    if geometry.num_layers % GROUPS:
        raise ValueError(
            f"the {geometry.num_layers} layers of {geometry.name} are no multiple of {GROUPS}"
        )
    if len(showers.energies) < 50:
        raise ValueError(
            f"the preprocessing needs 50 showers at least, got {len(showers.energies)}"
        )
    low, high = float(showers.energies.min()), float(showers.energies.max())
    if not low < high:
        raise ValueError(
            f"all showers have the incident energy {low:g} MeV; this model is one of a range"
        )
    ends, rates = np.array([low, high]), _rates(showers, geometry)
    empty = np.zeros((4, 21)), np.zeros((3, 21)), np.zeros(4), np.ones(4)
    first = CloudPreprocessing(geometry, Statistics(ends, *rates, *empty, 1))
    known = _measure(first, showers, key)
    raw, full, energy = known["raw"], known["full"], known["energy"]
    moments = [_polynomials(*columns, energy) for columns in zip(raw.T, full.T, strict=True)]
    number_mean, number_log_std = (np.stack(c, axis=1) for c in zip(*moments, strict=True))
    sums = known["sums"].sum(axis=0)
    mean = sums[1] / sums[0]
    std = np.sqrt(sums[2] / sums[0] - mean**2)
    plane = np.sqrt(np.mean(std[:2] ** 2))  # x and y are alike, and centred
    mean[:2], std[:2] = 0.0, plane
    slots = 64 * int(np.ceil(1.1 * known["n"].max() / 64))
    statistics = Statistics(ends, *rates, number_mean, number_log_std, mean, std, slots)
    return CloudPreprocessing(geometry, statistics)


def _measure(preprocessing, showers, key) -> dict[str, np.ndarray]:
    """Numbers of all showers, and sums over the features of their points."""
    geometry = preprocessing.geometry
    most = int(_POINTS_A_HIT * (showers.voxels > 0).sum(axis=1).max())

    def one(params, key, cond):
        voxels, energy = cond
        key_points, key_numbers = jax.random.split(key)
        points, n = preprocessing.cloud(key_points, voxels, energy, most)
        features = point_features(geometry, points)
        moments = jnp.stack([jnp.ones_like(features), features, features**2])
        sums = jnp.sum(jnp.where(valid(n, most)[None, :, None], moments, 0), axis=1)
        whole = totals(points, n, geometry.num_layers, GROUPS)
        raw, full = raw_numbers(key_numbers, whole, energy, geometry.num_layers)
        scaled = preprocessing.scaled_energy(energy)
        return {"raw": raw, "full": full, "sums": sums, "energy": scaled, "n": n}

    return draw(one, None, key, len(showers.energies), tuple(showers)[::-1], batch_size=100)


def _rates(showers, geometry) -> tuple[np.ndarray, np.ndarray]:
    """Points of a voxel by layer and ring, in bins of the incident energy with equal numbers."""
    order = np.argsort(showers.energies)
    shape, energies, rates = geometry.shape, [], []
    for rows in np.array_split(order, _RATE_BINS):
        hit = (showers.voxels[rows] > 0).reshape(-1, *shape).mean(axis=(0, 2))
        energies.append(np.exp(np.log(showers.energies[rows]).mean()))
        rates.append(-np.log(np.maximum(1 - hit, np.exp(-_HIGHEST_RATE))))
    return np.array(energies, np.float64), np.stack(rates)


def _polynomials(values, full, energy) -> tuple[np.ndarray, np.ndarray]:
    """Mean, of third order in the scaled energy, and logarithm of the width, of second."""
    powers, values = energy[full, None] ** np.arange(4.0), values[full].astype(np.float64)
    if len(values) < 20:  # a group that is hardly ever hit
        mean = np.mean(values) if len(values) else 0.0
        return np.array([mean, 0, 0, 0]), np.zeros(3)
    mean = np.linalg.lstsq(powers, values, rcond=None)[0]
    rest = np.log(np.abs(values - powers @ mean) + 1e-6)
    log_std = np.linalg.lstsq(powers[:, :3], rest, rcond=None)[0]
    log_std[0] += 0.635  # minus the mean of log |z| of a normal z
    return mean, log_std


def encoded(preprocessing: CloudPreprocessing, showers: Showers, key: Key) -> Encoded:
    """All showers as the networks see them, float32."""
    one = lambda params, key, cond: preprocessing.encode(key, *cond)
    return draw(one, None, key, len(showers.energies), tuple(showers)[::-1], batch_size=100)

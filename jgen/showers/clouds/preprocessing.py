"""Between showers and what the networks of CaloClouds see.

The Shower Flow (2309.05704) makes numbers of a shower as a whole, standardised at each incident
energy and without linear correlations: it is left with what a normal distribution does not have,
and learns from a thousand showers. The point network makes points of which each coordinate by
itself is normal over the whole training sample: x and y by the radius, depth and log energy by
their distribution functions. What is left to learn is how they depend on each other and on the
shower.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri
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
NUM_NUMBERS = 1 + 3 + GROUPS + GROUPS - 1
"""Of the Shower Flow: response, centre, points and energies of groups, one of which follows."""
# The group of a shower's maximum, which hardly any shower leaves empty.
_MAXIMUM = 1
# Most points of a voxel, on average: 98 % of the voxels are then hit.
_HIGHEST_RATE = 4.0
_RATE_BINS = 8
_FEW_HITS = 10
# No shower has more: a voxel has 4.1 on average where most are made of one.
_POINTS_A_HIT = 4.2
# Points of each shower, and quantiles of all of them, for the distribution of energies.
_SAMPLE, _QUANTILES = 64, 129
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
      number_log_std: and of the logarithms of their standard deviations,
      number_factor: and the triangular factor of their correlations.
      inside: of all points, the share within each ring edge,
      before: and before the end of each layer,
      log_energies: and quantiles of the logarithm of their energies [MeV].
      slots: rows for the points of a shower.
    """

    energies: Float[np.ndarray, "2"]
    rate_energies: Float[np.ndarray, " bins"]
    rates: Float[np.ndarray, "bins layers rings"]
    log_mean: Float[np.ndarray, "bins layers rings"]
    log_std: Float[np.ndarray, "bins layers rings"]
    number_mean: Float[np.ndarray, "4 num"]
    number_log_std: Float[np.ndarray, "3 num"]
    number_factor: Float[np.ndarray, "num num"]
    inside: Float[np.ndarray, " rings_plus_1"]
    before: Float[np.ndarray, " layers_plus_1"]
    log_energies: Float[np.ndarray, " quantiles"]
    slots: int


class Encoded(NamedTuple):
    """One shower as the networks see it.

    Attributes:
      energy: scaled incident energy, from -1 to 1.
      numbers: of the Shower Flow.
      points: with normal coordinates, padded with zeros.
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
        at = lambda values: jnp.interp(jnp.log(energy), np.log(s.rate_energies), values)
        known = np.stack([s.rates, s.log_mean, s.log_std])
        known = jax.vmap(at)(jnp.asarray(np.moveaxis(known, 1, -1).reshape(-1, len(s.rates))))
        rates, mean, std = known.reshape(3, self.geometry.num_layers, -1)
        scores = (jnp.log(jnp.maximum(voxels, 1e-9)) - mean[:, None]) / std[:, None]
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
        whole = totals(points, n, self.geometry.num_layers, GROUPS)
        numbers = self.numbers(key_numbers, whole, energy)
        features = jax.vmap(self.normal)(points)
        features = jnp.where(valid(n, self.slots)[:, None], features, 0)
        return Encoded(self.scaled_energy(energy), numbers, features, n)

    def numbers(self, key: Key, whole: Totals, energy: Float[Array, ""]) -> Array:
        """Numbers of the Shower Flow; what an empty group does not have is noise."""
        key_n, key_empty = jax.random.split(key)
        raw, known = raw_numbers(key_n, whole, energy, self.geometry.num_layers)
        mean, std = self._moments(energy)
        z = jnp.where(known, (raw - mean) / std, jax.random.normal(key_empty, raw.shape))
        return _product(np.linalg.inv(self.statistics.number_factor), z)

    def whole(self, numbers: Float[Array, " num"], energy: Float[Array, ""]) -> Totals:
        """Numbers of a shower as a whole; it has a point at least, and no more than slots."""
        mean, std = self._moments(energy)
        raw = mean + std * _product(self.statistics.number_factor, numbers)
        return raw_totals(raw, energy, self.geometry.num_layers, self.slots)

    def physical(self, points: Float[Array, "slots 4"], whole: Totals) -> Float[Array, "slots 4"]:
        """Points x, y [mm], z [layers], energy [MeV] with numbers of the shower as a whole."""
        return calibrated(jax.vmap(self.point)(points), whole, self.geometry.num_layers)

    def decode(
        self, points: Float[Array, "slots 4"], whole: Totals
    ) -> Float[Array, "layers angles rings"]:
        """Voxels [MeV] of points of the network, with numbers of the shower as a whole."""
        voxels = to_voxels(self.geometry, self.physical(points, whole), jnp.sum(whole.n))
        return cut(voxels, whole.energy, self.geometry.threshold)

    def normal(self, point: Float[Array, "4"]) -> Float[Array, "4"]:
        """Normal coordinates of a point x, y [mm], z [layers], energy [MeV]."""
        s, (x, y, z, energy) = self.statistics, point
        square = x**2 + y**2
        outside = _interp(square, self._squares, 1 - s.inside)
        length = jnp.sqrt(-2 * jnp.log(jnp.clip(outside, _TAIL, 1)))
        plane = point[:2] * (length / jnp.sqrt(jnp.maximum(square, 1e-12)))
        deep = _interp(z, np.arange(len(s.before)), s.before)
        logs = s.log_energies
        high = _interp(jnp.log(jnp.maximum(energy, 1e-9)), logs, np.linspace(0, 1, len(logs)))
        return jnp.append(plane, ndtri(jnp.clip(jnp.stack([deep, high]), _TAIL, 1 - _TAIL)))

    def point(self, normal: Float[Array, "4"]) -> Float[Array, "4"]:
        """The inverse of `normal`; nothing is outside of the grid and of the energies learned."""
        s, length = self.statistics, jnp.sqrt(jnp.sum(normal[:2] ** 2) + 1e-12)
        outside = jnp.exp(-0.5 * length**2)
        square = _interp(outside, (1 - s.inside)[::-1], self._squares[::-1])
        deep, high = ndtr(normal[2:])
        z = _interp(deep, s.before, np.arange(len(s.before)))
        log_energy = _interp(high, np.linspace(0, 1, len(s.log_energies)), s.log_energies)
        plane = normal[:2] * (jnp.sqrt(square) / length)
        return jnp.append(plane, jnp.stack([z, jnp.exp(log_energy)]))

    @property
    def _squares(self):
        return np.square(self.geometry.layers[0].r_edges)

    def _moments(self, energy):
        # Polynomials mean nothing beyond the training sample, whose ends are taken there.
        powers = jnp.clip(self.scaled_energy(energy), -1, 1) ** jnp.arange(4)
        s = self.statistics
        mean = jnp.sum(powers[:, None] * s.number_mean.astype(np.float32), axis=0)
        log_std = jnp.sum(powers[:3, None] * s.number_log_std.astype(np.float32), axis=0)
        return mean, jnp.exp(log_std)


def _product(matrix, vector):
    # A sum, which an accelerator does not run at reduced precision.
    return jnp.sum(jnp.asarray(matrix, jnp.float32) * vector[None], axis=1)


def _interp(x, knots, values):
    return jnp.interp(x, jnp.asarray(knots, jnp.float32), jnp.asarray(values, jnp.float32))


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


def fit_preprocessing(showers: Showers, geometry: Geometry, key: Key) -> CloudPreprocessing:
    """The preprocessing of a training sample.

    Args:
      showers: training sample.
      geometry: a regular one whose layers are a multiple of `GROUPS`.
      key: of the points that statistics are taken of.

    Raises:
      ValueError: for another geometry, for bad showers, empty ones or fewer than 50.
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
    if empty := int(np.sum(showers.voxels.max(axis=1) <= 0)):
        raise ValueError(f"{empty} showers have no energy in any voxel; leave them out")
    low, high = float(showers.energies.min()), float(showers.energies.max())
    if not low < high:
        raise ValueError(
            f"all showers have the incident energy {low:g} MeV; this model is one of a range"
        )
    ends, rates = np.array([low, high]), _rates(showers, geometry)
    unknown = *(np.zeros((k, NUM_NUMBERS)) for k in (4, 3)), np.eye(NUM_NUMBERS)
    unknown = *unknown, *(np.zeros(2),) * 3
    first = CloudPreprocessing(geometry, Statistics(ends, *rates, *unknown, 1))
    known = _measure(first, showers, key)
    raw, full, energy = known["raw"], known["full"], known["energy"]
    moments = [_polynomials(*columns, energy) for columns in zip(raw.T, full.T, strict=True)]
    number_mean, number_log_std = (np.stack(c, axis=1) for c in zip(*moments, strict=True))
    factor = _factor(raw, full, energy, number_mean, number_log_std)
    rings, layers = (_shares(known[name].sum(axis=0)) for name in ("rings", "layers"))
    logs = np.quantile(known["sample"], np.linspace(0, 1, _QUANTILES))
    slots = 64 * int(np.ceil(1.1 * known["n"].max() / 64))
    statistics = Statistics(
        ends, *rates, number_mean, number_log_std, factor, rings, layers, logs, slots
    )
    return CloudPreprocessing(geometry, statistics)


def _measure(preprocessing, showers, key) -> dict[str, np.ndarray]:
    """Numbers of all showers, counts of their points and energies of some of these."""
    geometry = preprocessing.geometry
    most = int(_POINTS_A_HIT * (showers.voxels > 0).sum(axis=1).max())

    def one(params, key, cond):
        voxels, energy = cond
        key_points, key_numbers, key_sample = jax.random.split(key, 3)
        points, n = preprocessing.cloud(key_points, voxels, energy, most)
        count = lambda values, num: jnp.zeros(num).at[values].add(valid(n, most))
        ring = jnp.searchsorted(jnp.asarray(preprocessing._squares, jnp.float32), _square(points))
        rings = count(jnp.clip(ring - 1, 0, geometry.shape[2] - 1), geometry.shape[2])
        layers = count(jnp.floor(points[:, 2]).astype(int), geometry.num_layers)
        some = jax.random.randint(key_sample, (_SAMPLE,), 0, jnp.maximum(n, 1))
        sample = jnp.log(jnp.maximum(points[some, 3], 1e-9))
        whole = totals(points, n, geometry.num_layers, GROUPS)
        raw, full = raw_numbers(key_numbers, whole, energy, geometry.num_layers)
        scaled = preprocessing.scaled_energy(energy)
        found = {"rings": rings, "layers": layers, "sample": sample, "n": n}
        return found | {"raw": raw, "full": full, "energy": scaled}

    return draw(one, None, key, len(showers.energies), tuple(showers)[::-1], batch_size=100)


def _square(points):
    return jnp.sum(points[:, :2] ** 2, axis=1)


def _shares(counts: np.ndarray) -> np.ndarray:
    """Distribution function at the edges of bins, which are never quite empty."""
    counts = np.append(0.0, np.cumsum(counts + 0.5))
    return counts / counts[-1]


def _rates(showers, geometry) -> tuple[np.ndarray, ...]:
    """Of voxels by layer and ring, in bins of the incident energy with equal numbers.

    Incident energies, points, and mean and standard deviation of log energy.
    """
    order, found = np.argsort(showers.energies), []
    for rows in np.array_split(order, _RATE_BINS):
        voxels = showers.voxels[rows].reshape(-1, *geometry.shape)
        hit = voxels > 0
        logs = np.log(np.where(hit, voxels, 1), dtype=np.float64)
        # Places with few hits have the moments of all, as if these were a few hits more.
        num, first, second = (a.sum(axis=(0, 2)) for a in (hit, logs, logs**2))
        shares = (_FEW_HITS * a.sum() / max(num.sum(), 1) for a in (num, first, second))
        few, first_few, second_few = shares
        mean = (first + first_few) / (num + few)
        std = np.sqrt(np.maximum((second + second_few) / (num + few) - mean**2, 1e-4))
        rates = -np.log(np.maximum(1 - hit.mean(axis=(0, 2)), np.exp(-_HIGHEST_RATE)))
        energy = np.exp(np.log(showers.energies[rows]).mean())
        found.append((np.float64(energy), rates, mean, std))
    return tuple(np.stack(values).astype(np.float32) for values in zip(*found, strict=True))


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


def _factor(raw, full, energy, mean, log_std) -> np.ndarray:
    """Triangular L with L L^T the correlations of standardised numbers."""
    powers = energy[:, None].astype(np.float64) ** np.arange(4.0)
    z = (raw - powers @ mean) / np.exp(powers[:, :3] @ log_std)
    z = np.where(full, z, np.random.default_rng(0).normal(size=z.shape))
    return np.linalg.cholesky(np.cov(z.T) + 1e-3 * np.eye(len(z.T)))


def encoded(preprocessing: CloudPreprocessing, showers: Showers, key: Key) -> Encoded:
    """All showers as the networks see them, float32."""
    one = lambda params, key, cond: preprocessing.encode(key, *cond)
    return draw(one, None, key, len(showers.energies), tuple(showers)[::-1], batch_size=100)

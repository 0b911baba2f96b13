"""Between showers and what the networks of CaloClouds see.

The Shower Flow (2309.05704) makes numbers of a shower as a whole: standardised at each incident
energy, normal one by one, and without linear correlations at three incident energies and between
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
from scipy.stats import norm

from jgen.generative_model import draw
from jgen.sets import valid
from jgen.showers.clouds.points import (
    Totals,
    calibrated,
    cut,
    layer_of_rows,
    poisson_parts,
    rates_of_hits,
    to_points,
    to_voxels,
    totals,
)
from jgen.showers.data import Geometry, Showers, check_showers, check_units
from jgen.typing import Key

# The layer of a shower's maximum, which hardly any shower leaves empty.
_MAXIMUM = 6
# Most points of a voxel, on average: 98 % of the voxels are then hit.
_HIGHEST_RATE = 4.0
_RATE_BINS = 8
_FEW_HITS = 10
# No shower has more: a voxel of the highest rate is six.
_POINTS_A_HIT = 6.0
# Points of each shower, and normal scores at which quantiles are known.
_SAMPLE = 200
# Incident energies at which correlations of the numbers are known. Of 1 to 6, with 2300 and 12,000
# showers from 1 to 30 GeV, the numbers of others are likeliest with 3 and 4: by 1.1 and 1.9 nats.
_NODES = 3
_SCORES = np.concatenate([[-4.0], np.linspace(-3, 3, 61), [4.0]])
# Points that distributions in a layer are taken of; where there are fewer, neighbours join.
_ENOUGH = 300
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
      number_quantiles: and quantiles of the standardised numbers,
      number_factors: and triangular factors of the covariances of their normal scores, at incident
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
    number_quantiles: Float[np.ndarray, "quantiles num"]
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
    """

    geometry: Geometry
    statistics: Statistics

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
        whole = totals(points, n, self.geometry.num_layers)
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
        scores = _each(_score(self.statistics.number_quantiles.T), (raw - mean) / std)
        z = jnp.where(known, scores, jax.random.normal(key_empty, raw.shape))
        return solve_triangular(self._factor(energy), z, lower=True)

    def whole(self, numbers: Float[Array, " num"], energy: Float[Array, ""]) -> Totals:
        """Numbers of a shower as a whole; it has a point at least, and no more than slots."""
        mean, std = self._moments(energy)
        # A sum, which an accelerator does not run at reduced precision.
        z = jnp.sum(self._factor(energy) * numbers[None], axis=1)
        raw = mean + std * _each(_value(self.statistics.number_quantiles.T), z)
        return raw_totals(raw, energy, self.slots)

    def physical(self, points: Float[Array, "slots 3"], whole: Totals) -> Float[Array, "slots 4"]:
        """Points x, y [mm], z [layers], energy [MeV] with numbers of the shower as a whole."""
        layer = layer_of_rows(whole.n, self.slots)
        return calibrated(jax.vmap(self.point)(points, layer), whole)

    def decode(
        self, points: Float[Array, "slots 3"], whole: Totals
    ) -> Float[Array, "layers angles rings"]:
        """Voxels [MeV] of points of the network, with numbers of the shower as a whole."""
        voxels = to_voxels(self.geometry, self.physical(points, whole), jnp.sum(whole.n))
        return cut(voxels, whole.energy, self.geometry.threshold)

    def normal(self, point: Float[Array, "4"], layer: Int[Array, ""]) -> Float[Array, "3"]:
        """Normal coordinates of a point x, y [mm], z [layers], energy [MeV] of a layer."""
        s, (x, y, _, energy) = self.statistics, point
        square = x**2 + y**2
        outside = _pieces(self._squares, 1 - s.inside).of(layer)(
            jnp.clip(square, 0, self._squares[-1])
        )
        length = jnp.sqrt(-2 * jnp.log(jnp.clip(outside, _TAIL, 1)))
        plane = point[:2] * (length / jnp.sqrt(jnp.maximum(square, 1e-12)))
        score = _score(s.log_energies).of(layer, self._ring(square))
        return jnp.append(plane, score(jnp.log(jnp.maximum(energy, 1e-9))))

    def point(self, normal: Float[Array, "3"], layer: Int[Array, ""]) -> Float[Array, "4"]:
        """The inverse of `normal`; nothing is outside of the grid."""
        s, length = self.statistics, jnp.sqrt(jnp.sum(normal[:2] ** 2) + 1e-12)
        outside = jnp.exp(-0.5 * length**2)
        square = _pieces(1 - s.inside[:, ::-1], self._squares[::-1]).of(layer)(outside)
        log_energy = _value(s.log_energies).of(layer, self._ring(square))(normal[2])
        plane = normal[:2] * (jnp.sqrt(jnp.maximum(square, 0)) / length)
        return jnp.append(plane, jnp.stack([layer + 0.5, jnp.exp(log_energy)]))

    def _ring(self, square):
        ring = jnp.searchsorted(_table(self._squares), square, side="right") - 1
        return jnp.clip(ring, 0, self.geometry.shape[2] - 1)

    @property
    def _squares(self):
        return np.square(self.geometry.layers[0].r_edges)

    def _factor(self, energy):
        """Of the covariance at an incident energy, linear between the known ones."""
        s = self.statistics
        low, high = np.log(s.energies)
        last = len(s.number_factors) - 1
        place = jnp.clip(last * (jnp.log(energy) - low) / (high - low), 0, last)
        left = jnp.minimum(jnp.floor(place).astype(int), last - 1)
        factors, share = _table(s.number_factors), place - left
        return (1 - share) * factors[left] + share * factors[left + 1]

    def _moments(self, energy):
        # Polynomials mean nothing beyond the training sample, whose ends are taken there.
        s = self.statistics
        powers = self.scaled_energy(jnp.clip(energy, *s.energies)) ** jnp.arange(4)
        mean = jnp.sum(powers[:, None] * s.number_mean.astype(np.float32), axis=0)
        log_std = jnp.sum(powers[:3, None] * s.number_log_std.astype(np.float32), axis=0)
        return mean, jnp.exp(log_std)


def _table(values):
    return jnp.asarray(values, jnp.float32)


class Pieces(NamedTuple):
    """Functions [...] that are linear between rising knots, and beyond them.

    A function is a sum over its pieces: look-ups in as many tables as points are no operation of
    ONNX.

    Attributes:
      start: where each piece begins.
      width: of each; the last has no end.
      slope: of each.
      first: the value where the first begins.
    """

    start: Float[Array, "*n pieces"]
    width: Float[Array, "*n pieces"]
    slope: Float[Array, "*n pieces"]
    first: Float[Array, "*n"]

    def of(self, *index: Int[Array, ""]) -> "Pieces":
        """One of the functions."""
        return Pieces(*(a[index] for a in self))

    def __call__(self, x: Float[Array, ""]) -> Float[Array, ""]:
        """The value of one function."""
        low = np.where(np.arange(self.start.shape[-1]) == 0, -np.inf, 0).astype(np.float32)
        inside = jnp.clip(x - self.start, low, self.width)
        return self.first + jnp.sum(self.slope * inside)


def _pieces(knots: np.ndarray, values: np.ndarray) -> Pieces:
    knots, values = np.broadcast_arrays(knots, values)
    width, slope = np.diff(knots), np.diff(values) / np.diff(knots)
    width = np.concatenate([width[..., :-1], np.full((*width.shape[:-1], 1), np.inf)], axis=-1)
    return Pieces(*map(_table, (knots[..., :-1], width, slope, values[..., 0])))


def _score(quantiles: np.ndarray) -> Pieces:
    """Normal scores of values in distributions whose quantiles at `_SCORES` are known."""
    return _pieces(quantiles, _SCORES)


def _value(quantiles: np.ndarray) -> Pieces:
    """The inverse of `_score`."""
    return _pieces(_SCORES, quantiles)


def _each(pieces: Pieces, x: Float[Array, " n"]) -> Float[Array, " n"]:
    """Of n functions and numbers."""
    return jax.vmap(lambda one, x: one(x))(pieces, x)


def _quantiles(sample: np.ndarray) -> np.ndarray:
    """At `_SCORES`, rising even where values are repeated.

    At the ends, beyond which few values are, the extremes of the sample, or what a normal
    distribution of its width has there if that is further.
    """
    inner = np.quantile(sample, norm.cdf(_SCORES[1:-1]))
    width = (inner[-1] - inner[0]) / 6 + 1e-3
    low, high = min(inner[0] - width, sample.min()), max(inner[-1] + width, sample.max())
    rise = 1e-5 * (width + np.abs(inner).max())  # seen by float32
    return np.concatenate([[low], inner, [high]]) + rise * _SCORES


def num_numbers(num_layers: int) -> int:
    """Of the Shower Flow: response, centre, points and energies of layers, one of which follows."""
    return 3 + num_layers + num_layers - 1


def raw_numbers(key: Key, whole: Totals, energy: Float[Array, ""]) -> tuple[Array, Array]:
    """Numbers of the Shower Flow before they are standardised, and which of them are known.

    log(visible / incident energy); x and y of the centre; the square root of the points of each
    layer with a uniform number added; and of all layers but one, where showers have their maximum,
    log energy a point over that of this one.
    """
    num = len(whole.n)
    visible = jnp.sum(whole.energy)
    roots = jnp.sqrt(whole.n + jax.random.uniform(key, (num,)))
    full = (whole.n > 0) & (whole.energy > 0)
    each = jnp.log(jnp.where(full, whole.energy, 1) / jnp.maximum(whole.n, 1))
    ratios = jnp.delete(each - each[_MAXIMUM], _MAXIMUM)
    known = jnp.delete(full & full[_MAXIMUM], _MAXIMUM)
    raw = jnp.concatenate([jnp.log(visible / energy)[None], whole.centre, roots, ratios])
    return raw, jnp.concatenate([jnp.ones(3 + num, bool), known])


def raw_totals(raw: Float[Array, " num"], energy: Float[Array, ""], slots: int) -> Totals:
    """The inverse of `raw_numbers`."""
    num = (len(raw) - 2) // 2
    response, centre, roots, ratios = jnp.split(raw, (1, 3, 3 + num))
    n = jnp.floor(jnp.square(jnp.maximum(roots, 0)))
    n = n.at[_MAXIMUM].max(1)
    n = jnp.diff(jnp.minimum(jnp.cumsum(n), slots), prepend=0.0)
    ratios = jnp.insert(ratios, _MAXIMUM, 0.0)
    shares = jax.nn.softmax(jnp.where(n > 0, ratios + jnp.log(jnp.maximum(n, 1)), -jnp.inf))
    return Totals(n.astype(jnp.int32), energy * jnp.exp(response) * shares, centre)


def fit_preprocessing(
    showers: Showers, geometry: Geometry, key: Key, scale: tuple[float, float] | None = None
) -> CloudPreprocessing:
    """The preprocessing of a training sample.

    Args:
      showers: training sample.
      geometry: a regular one.
      key: of the points that statistics are taken of.
      scale: incident energies [MeV] that networks see as -1 and 1; the least and the largest of the
        sample unless given.

    Raises:
      ValueError: for another geometry, for bad showers, empty ones or fewer than 50.
    """
    check_showers(showers, geometry)
    check_units(showers, geometry)
    if geometry.shape[0] <= _MAXIMUM:
        raise ValueError(
            f"a geometry needs {_MAXIMUM + 1} layers at least, {geometry.name} has "
            f"{geometry.shape[0]}"
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
    ends, rates, num = np.array([low, high]), _rates(showers, geometry), geometry.num_layers
    scale = ends if scale is None else np.array(scale, np.float64)
    size = num_numbers(num)
    unknown = (np.zeros((k, size)) for k in (4, 3, len(_SCORES)))
    unknown = (
        *unknown,
        np.zeros((2, size, size)),
        np.zeros((num, 2)),
        np.zeros((num, 1, 2)),
        1,
        scale,
    )
    first = CloudPreprocessing(geometry, Statistics(ends, *rates, *unknown))
    known = _measure(first, showers, key)
    statistics = first.statistics._replace(
        **_number_statistics(known["raw"], known["full"], known["energy"]),
        inside=_inside(known["rings"].sum(axis=0)),
        log_energies=_log_energies(known["sample"], *known["place"], geometry.shape),
        slots=64 * int(np.ceil(1.1 * known["n"].max() / 64)),
    )
    return CloudPreprocessing(geometry, statistics)


def _measure(preprocessing, showers, key) -> dict[str, np.ndarray]:
    """Numbers of all showers, counts of their points and energies of some of these."""
    geometry = preprocessing.geometry
    num_layers, _, num_rings = geometry.shape
    most = int(_POINTS_A_HIT * (showers.voxels > 0).sum(axis=1).max())

    def one(params, key, cond):
        voxels, energy = cond
        key_points, key_numbers, key_sample = jax.random.split(key, 3)
        points, n = preprocessing.cloud(key_points, voxels, energy, most)
        layer = jnp.floor(points[:, 2]).astype(int)
        ring = preprocessing._ring(_square(points))
        rings = jnp.zeros((num_layers, num_rings)).at[layer, ring].add(valid(n, most))
        some = jax.random.randint(key_sample, (_SAMPLE,), 0, jnp.maximum(n, 1))
        sample = jnp.log(jnp.maximum(points[some, 3], 1e-9))
        whole = totals(points, n, num_layers)
        raw, full = raw_numbers(key_numbers, whole, energy)
        place = layer[some], ring[some]
        found = {"rings": rings, "sample": sample, "place": place, "n": n}
        return found | {"raw": raw, "full": full, "energy": preprocessing.scaled_energy(energy)}

    return draw(one, None, key, len(showers.energies), tuple(showers)[::-1], batch_size=100)


def _square(points):
    return jnp.sum(points[:, :2] ** 2, axis=1)


def _neighbours(counts: np.ndarray) -> list[slice]:
    """For each layer the smallest range of layers around it that has enough points, or all."""
    found, num = [], len(counts)
    for layer in range(num):
        ranges = (slice(max(layer - k, 0), layer + k + 1) for k in range(num))
        found.append(next((r for r in ranges if counts[r].sum() >= _ENOUGH), slice(None)))
    return found


def _inside(rings: np.ndarray) -> np.ndarray:
    """Shares of points within ring edges, of each layer; no ring is quite empty."""
    near = np.stack([rings[r].sum(axis=0) + 0.5 for r in _neighbours(rings.sum(axis=1))])
    counts = np.concatenate([np.zeros((len(near), 1)), np.cumsum(near, axis=1)], axis=1)
    return counts / counts[:, -1:]


def _log_energies(sample, layer, ring, shape) -> np.ndarray:
    """Quantiles of the logarithms of energies, of each layer and ring."""
    num_layers, _, num_rings = shape
    sample, layer, ring = sample.ravel(), layer.ravel(), ring.ravel()
    tables = []
    for i in range(num_rings):
        # Outer rings that no point was drawn of have the energies of all.
        here = ring == i if np.any(ring == i) else np.full(len(ring), True)
        values, depths = sample[here], layer[here]
        ranges = _neighbours(np.bincount(depths, minlength=num_layers))
        chosen = ((depths >= (r.start or 0)) & (depths < (r.stop or num_layers)) for r in ranges)
        tables.append(np.stack([_quantiles(values[rows]) for rows in chosen]))
    return np.stack(tables, axis=1)


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


def _number_statistics(raw, full, energy) -> dict[str, np.ndarray]:
    """Moments, quantiles and correlations of the numbers."""
    moments = [_polynomials(*columns, energy) for columns in zip(raw.T, full.T, strict=True)]
    mean, log_std = (np.stack(c, axis=1) for c in zip(*moments, strict=True))
    powers = energy[:, None].astype(np.float64) ** np.arange(4.0)
    z = (raw - powers @ mean) / np.exp(powers[:, :3] @ log_std)
    noise = np.random.default_rng(0).normal(size=z.shape)
    quantiles, scores = np.empty((len(_SCORES), raw.shape[1])), noise
    for i, rows in enumerate(full.T):
        # Of a layer that is hardly ever hit, as if its numbers were normal.
        known = z[rows, i] if rows.sum() >= 20 else noise[:, i]
        quantiles[:, i] = _quantiles(known)
        scores[rows, i] = np.interp(z[rows, i], quantiles[:, i], _SCORES)
    return {
        "number_mean": mean,
        "number_log_std": log_std,
        "number_quantiles": quantiles,
        "number_factors": _factors(scores, energy),
    }


def _factors(scores, energy) -> np.ndarray:
    """Cholesky factors of covariances near incident energies from the least to the largest.

    Each is of showers with weights that fall linearly to the next energy. Covariances of few
    showers are drawn towards those of all, and these towards none.
    """
    num = scores.shape[1]

    def drawn(covariance, count, target):
        share = count / (count + num)
        return share * covariance + (1 - share) * target

    whole = drawn(np.cov(scores.T), len(scores), np.eye(num))
    nodes, factors = np.linspace(energy.min(), energy.max(), _NODES), []
    for node in nodes:
        weight = np.maximum(1 - np.abs(energy - node) / (nodes[1] - nodes[0]), 0)
        covariance = (scores * weight[:, None]).T @ scores / weight.sum()
        count = weight.sum() ** 2 / np.sum(weight**2)
        factors.append(np.linalg.cholesky(drawn(covariance, count, whole)))
    return np.stack(factors)


def encoded(preprocessing: CloudPreprocessing, showers: Showers, key: Key) -> Encoded:
    """All showers as the networks see them, float32."""
    one = lambda params, key, cond: preprocessing.encode(key, *cond)
    return draw(one, None, key, len(showers.energies), tuple(showers)[::-1], batch_size=100)

"""Statistics of a training sample for the preprocessing of CaloClouds."""

import jax
import jax.numpy as jnp
import numpy as np

from jgen.generative_model import draw
from jgen.sets import valid
from jgen.showers.clouds.numbers import MAXIMUM, num_numbers, raw_numbers
from jgen.showers.clouds.pieces import SCORES, quantiles
from jgen.showers.clouds.points import totals
from jgen.showers.clouds.preprocessing import CloudPreprocessing, Statistics
from jgen.showers.data import Geometry, Showers, check_showers, check_units
from jgen.typing import Key

# Most points of a voxel, on average: 98 % of the voxels are then hit.
_HIGHEST_RATE = 4.0
_RATE_BINS = 8
_FEW_HITS = 10
# No shower has more: a voxel of the highest rate is six.
_POINTS_A_HIT = 6.0
# Points of each shower for the distributions of energies.
_SAMPLE = 200
# Incident energies at which distributions and correlations of the numbers are known. Of 1 to 6,
# with 2300 and 12,000 showers from 1 to 30 GeV, the correlations are best with 3 and 4.
_NODES = 4
# Fewest showers for a distribution.
_KNOWN = 20
# Points that distributions in a layer are taken of; where there are fewer, neighbours join.
_ENOUGH = 300


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
    if geometry.shape[0] <= MAXIMUM:
        raise ValueError(
            f"a geometry needs {MAXIMUM + 1} layers at least, {geometry.name} has "
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
    shapes = (
        *((k, size) for k in (4, 3)),
        (2, len(SCORES), size),
        (2, size, size),
        (num, 2),
        (num, 1, 2),
    )
    unknown = map(np.zeros, shapes)
    first = CloudPreprocessing(geometry, Statistics(ends, *rates, *unknown, 1, scale))
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
        whole = totals(geometry, points, n)
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
        tables.append(np.stack([quantiles(values[rows]) for rows in chosen]))
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
    if len(values) < _KNOWN:  # a group that is hardly ever hit
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
    scores, weights = np.random.default_rng(0).normal(size=z.shape), _weights(energy)
    tables = np.empty((_NODES, len(SCORES), raw.shape[1]))
    for i, rows in enumerate(full.T):
        if rows.sum() < _KNOWN:  # of a layer that is hardly ever hit, as if its numbers were normal
            tables[..., i] = quantiles(scores[:, i])
            continue
        tables[..., i] = _tables(z[rows, i], weights[:, rows])
        scores[rows, i] = _scores(z[rows, i], weights[:, rows].T @ tables[..., i])
    return {
        "number_mean": mean,
        "number_log_std": log_std,
        "number_quantiles": tables,
        "number_factors": _factors(scores, energy),
    }


def _weights(energy) -> np.ndarray:
    """Of showers [nodes, n] at incident energies evenly spaced, falling linearly to the next."""
    nodes = np.linspace(energy.min(), energy.max(), _NODES)
    return np.maximum(1 - np.abs(energy - nodes[:, None]) / (nodes[1] - nodes[0]), 0)


def _tables(z, weights) -> np.ndarray:
    """Quantiles [nodes, quantiles] of a number near each energy; of all where few are near it."""
    count = weights.sum(axis=1) ** 2 / np.maximum(np.sum(weights**2, axis=1), 1e-12)
    tables = [
        quantiles(z[w > 0], w[w > 0]) if enough else quantiles(z)
        for w, enough in zip(weights, count >= _KNOWN, strict=True)
    ]
    return np.stack(tables)


def _scores(z, values) -> np.ndarray:
    """Normal scores of numbers [n] with quantiles [n, quantiles], within those that are known."""
    left = np.clip(np.sum(values <= z[:, None], axis=1) - 1, 0, len(SCORES) - 2)
    low, high = (np.take_along_axis(values, k[:, None], axis=1)[:, 0] for k in (left, left + 1))
    share = np.clip((z - low) / (high - low), 0, 1)
    return SCORES[left] + share * (SCORES[left + 1] - SCORES[left])


def _factors(scores, energy) -> np.ndarray:
    """Cholesky factors of covariances near incident energies from the least to the largest.

    Covariances of few showers are drawn towards those of all, and these towards none.
    """
    num = scores.shape[1]

    def drawn(covariance, count, target):
        share = count / (count + num)
        return share * covariance + (1 - share) * target

    whole = drawn(np.cov(scores.T), len(scores), np.eye(num))
    factors = []
    for weight in _weights(energy):
        # Near an energy without showers, between two beams, are those of all.
        covariance = (scores * weight[:, None]).T @ scores / max(weight.sum(), 1e-12)
        count = weight.sum() ** 2 / max(np.sum(weight**2), 1e-12)
        factors.append(np.linalg.cholesky(drawn(covariance, count, whole)))
    return np.stack(factors)

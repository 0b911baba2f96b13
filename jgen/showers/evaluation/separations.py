"""Separation powers and distances of shower observables, with the CaloChallenge's binnings."""

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float, Int

from jgen.arrays import cast_array, check_finite_events, finite_array, positive_array
from jgen.checks import check_not_negative
from jgen.estimate import Estimate, Judged
from jgen.metrics import (
    Comparison,
    Histogram,
    compare,
    dealt_out,
    separation,
    separation_replicas,
)
from jgen.random import numpy_generator
from jgen.showers.data.geometry import Geometry
from jgen.showers.data.hdf5 import Showers, shower_arrays
from jgen.showers.observables.binning import binning, judged_observables, layers_of
from jgen.typing import Key

# Showers whose voxels are binned at once.
_BLOCK = 500


def apply_threshold(showers: Showers, threshold: float) -> Showers:
    """Zero all voxels at or below a threshold [MeV] (arXiv:2405.09629, Eq. 20).

    Raises:
      ValueError: for a threshold that is negative or not finite, or what is no table of voxels.
    """
    check_not_negative(threshold=threshold)
    showers = shower_arrays(showers)
    check_finite_events(showers.voxels, "voxels")
    return showers._replace(voxels=np.where(showers.voxels > threshold, showers.voxels, 0))


def separations(
    geometry: Geometry,
    reference: Showers,
    holdout: Showers,
    generated: Showers,
    *,
    num_bootstrap: int = 100,
    key: Key | None = None,
) -> Comparison:
    """Separation powers and Wasserstein distances of all judged observables.

    As `jgen.metrics.compare` says, for `judged_observables`, and `separation/voxel` of the energies
    of all voxels in the 49 official logarithmic bins. Its error comes from resampling whole
    showers, since the voxels of a shower belong together. Most voxels are empty:
    `underflow/voxel` is the difference of the fractions that are below the lowest edge.

    Args:
      geometry: of all showers.
      reference: true showers.
      holdout: other true showers.
      generated: what is judged; samples are cut to the size of the smallest.
      num_bootstrap: resamplings behind each error.
      key: of the resampling.
    """
    result = compare(
        *(judged_observables(geometry, s) for s in (reference, holdout, generated)),
        _column_binning(geometry),
        num_bootstrap=num_bootstrap,
        key=key,
    )
    size = min(len(s.energies) for s in (reference, holdout, generated))
    first, second, third = (s.voxels[:size] for s in (reference, holdout, generated))
    edges = binning(geometry, "voxel", np.atleast_1d(first.max()))
    counts = [voxel_counts(voxels, edges) for voxels in (first, second, third)]
    truth, value = (
        _voxel_metrics(counts[0], other, edges, num_bootstrap, key) for other in counts[1:]
    )
    result.metrics.update({f"{name}/voxel": Judged(value[name], truth[name]) for name in value})
    result.num_events["voxel"] = size
    return result


def _column_binning(geometry: Geometry) -> Callable[[str, np.ndarray], np.ndarray]:
    """Edges of the columns of `compare`, which asks once for each, in the order of the layers."""
    asked = Counter()

    def edges(name: str, values: np.ndarray) -> np.ndarray:
        layer = None if name == "E_tot" else layers_of(geometry, name)[asked[name]]
        asked[name] += 1
        return binning(geometry, name, values, layer)

    return edges


def low_level_inputs(showers: Showers) -> Float[np.ndarray, "n inputs"]:
    """Inputs of the official low-level classifier: log10 E_inc, then voxels over E_inc.

    Raises:
      ValueError: for incident energies that are not positive, voxels that are not finite, or
        arrays that do not belong together.
    """
    showers = shower_arrays(showers)
    check_finite_events(showers.voxels, "voxels")
    energies = positive_array(finite_array(showers.energies, "energies"), "energies")
    energies = cast_array(energies, "energies")[:, None]
    return np.concatenate([np.log10(energies), showers.voxels / energies], axis=1)


def _blocks(voxels: np.ndarray) -> Iterator[np.ndarray]:
    return (voxels[i : i + _BLOCK] for i in range(0, len(voxels), _BLOCK))


def voxel_counts(
    voxels: Float[np.ndarray, "n num_voxels"], edges: Float[np.ndarray, " edges"]
) -> Int[np.ndarray, "n bins"]:
    """Voxels of every shower in every bin, underflow first and overflow last."""
    num_bins = len(edges) + 1
    parts = []
    for block in _blocks(voxels):
        index = np.searchsorted(edges, block, side="right")
        index[block == edges[-1]] = num_bins - 2
        index += num_bins * np.arange(len(block))[:, None]
        counts = np.bincount(index.ravel(), minlength=num_bins * len(block))
        parts.append(counts.reshape(len(block), num_bins))
    return np.concatenate(parts)


def _voxel_metrics(first, second, edges, num_bootstrap, key):
    rng = numpy_generator(key)

    def filled(counts):
        sums = counts.astype(np.float64)
        return Histogram(edges, sums[1:-1], sums[1:-1], float(sums[0]), float(sums[-1]))

    def inside(counts):
        return counts[..., 1:-1].astype(np.float64)

    def drawn(counts):
        num = len(counts)
        return inside(rng.multinomial(num, np.full(num, 1 / num), size=num_bootstrap) @ counts)

    sums = [counts.sum(axis=0) for counts in (first, second)]
    result = separation(*map(filled, sums), num_bootstrap=0)
    again = drawn(first), drawn(second)
    one = dealt_out(rng, len(first), len(second), num_bootstrap) @ np.concatenate([first, second])
    null = inside(one), inside(sum(sums) - one)
    replicas = separation_replicas(*map(inside, sums), again, null)
    return {
        "separation": Estimate(result.value, float(replicas.error)),
        "underflow": float(abs(np.subtract(*result.underflow))),
        "overflow": float(abs(np.subtract(*result.overflow))),
    }

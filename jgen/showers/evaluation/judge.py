"""Short judgements of showers: distances of observables, and how well classifiers tell them."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from jgen.arrays import quiet_samples
from jgen.checks import check_whole
from jgen.estimate import Estimate
from jgen.metrics import (
    ClassifierConfig,
    classifier_test,
    frechet_physics_distance,
    histogram,
    separation,
    wasserstein,
)
from jgen.random import stream
from jgen.showers.data import Geometry, Showers
from jgen.showers.evaluation.separations import low_level_inputs
from jgen.showers.observables import binning, compute_high_level_inputs, compute_observables
from jgen.showers.observables.binning import JUDGED
from jgen.typing import Key


def compared_observables(geometry: Geometry, showers: Showers) -> dict[str, np.ndarray]:
    """`judged_observables`, on regular grids the depth, too: [n], or [n, k] by layer or radius."""
    known = compute_observables(geometry, showers)
    names = JUDGED | ({"depth": "depth"} if geometry.is_regular else {})
    return {name: known[key] for name, key in names.items()}


def observable_distances(
    geometry: Geometry, reference: Showers, generated: Showers, *, num_bootstrap: int = 100
) -> dict[str, Estimate]:
    """1-D Wasserstein distances of `compared_observables`, means over layers or radii.

    `E_voxel` is that of the energies of all voxels above the threshold, in decades. Whole showers
    are resampled for the errors.

    Args:
      geometry: of all showers.
      reference: true showers.
      generated: what is compared with them.
      num_bootstrap: resamplings behind each error, which is NaN without any.
    """
    check_whole(0, num_bootstrap=num_bootstrap)
    first, second = (compared_observables(geometry, s) for s in (reference, generated))
    distances = {
        name: wasserstein(values, second[name], num_bootstrap=num_bootstrap).estimate
        for name, values in first.items()
    }
    (x, of_x), (y, of_y) = (_log_voxels(geometry, s) for s in (reference, generated))
    rng = np.random.default_rng(0)
    resampled = lambda s: rng.multinomial(n := len(s.energies), np.full(n, 1 / n))
    distance = lambda *weights: float(wasserstein(x, y, *weights, num_bootstrap=0).value)
    replicas = [
        distance(resampled(reference)[of_x], resampled(generated)[of_y])
        for _ in range(num_bootstrap)
    ]
    error = float(np.std(replicas)) if replicas else float("nan")
    return distances | {"E_voxel": Estimate(distance(), error)}


def _log_voxels(geometry, showers):
    """log10 of the energies of voxels above the threshold, and the shower each belongs to."""
    rows, columns = np.nonzero(showers.voxels > geometry.threshold)
    return np.log10(showers.voxels[rows, columns]), rows


def layer_distances(
    geometry: Geometry,
    reference: Float[np.ndarray, "n layers"],
    generated: Float[np.ndarray, "m layers"],
) -> dict[str, float]:
    """`separation` and `wasserstein` [MeV] of layer energies [MeV], means over layers."""
    powers = []
    for a, b in zip(reference.T, generated.T, strict=True):
        edges = binning(geometry, "E_layer", a)
        powers.append(separation(histogram(a, edges), histogram(b, edges), num_bootstrap=0).value)
    distances = wasserstein(reference, generated, num_bootstrap=0).value
    return {"separation": float(np.mean(powers)), "wasserstein": float(np.mean(distances))}


def shower_judge(
    geometry: Geometry,
    reference: Showers,
    key: Key,
    classifier: ClassifierConfig | None = None,
    *,
    fpd_batches: int = 20,
) -> Callable[[Showers], dict[str, Estimate]]:
    """A function of showers: how well classifiers tell them from the reference, and the FPD.

    It gives `auc_high` of high-level features, `auc_low` of voxels, and `fpd`, the Frechet physics
    distance of the features. None means anything but beside that of other true showers.

    Args:
      geometry: of all showers.
      reference: true showers.
      key: of the classifiers, the same for all showers that are judged.
      classifier: both classifiers.
      fpd_batches: batches of each of five sizes of the Frechet physics distance.
    """
    inputs = {"high": lambda s: compute_high_level_inputs(geometry, s), "low": low_level_inputs}
    known = {tag: make(reference) for tag, make in inputs.items()}
    classifier = ClassifierConfig() if classifier is None else classifier

    def judge(showers: Showers) -> dict[str, Estimate]:
        new = {tag: make(showers) for tag, make in inputs.items()}
        results = {
            f"auc_{tag}": classifier_test(
                known[tag], new[tag], stream(key, tag), classifier
            ).auc_estimate
            for tag in inputs
        }
        # Layers that few showers reach set the published scale of their features, in the truth
        # that stands beside it, too.
        with quiet_samples():
            fpd = frechet_physics_distance(
                known["high"], new["high"], num_sizes=5, num_batches=fpd_batches
            )
        return results | {"fpd": fpd.estimate}

    return judge

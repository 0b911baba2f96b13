"""Bins of shower observables, as the CaloChallenge takes them (arXiv:2410.21611)."""

import numpy as np
from jaxtyping import Float

from jgen.arrays import finite_array, real_array
from jgen.checks import check_positive
from jgen.showers.data.geometry import Geometry
from jgen.showers.data.hdf5 import Showers
from jgen.showers.observables.features import compute_observables

# Observables with an official binning, by the name that they have in the metrics. Total energies
# are compared relative to the incident energy.
JUDGED = {"E_tot": "E_ratio"} | {
    name: name
    for name in (
        "E_layer",
        "EC_eta",
        "EC_phi",
        "EC_r",
        "width_eta",
        "width_phi",
        "width_r",
        "sparsity",
    )
}


def judged_observables(geometry: Geometry, showers: Showers) -> dict[str, np.ndarray]:
    """Observables [n] or [n, layers] that have an official binning, by metric name."""
    observables = compute_observables(geometry, showers)
    return {name: observables[key] for name, key in JUDGED.items()}


def layers_of(geometry: Geometry, name: str) -> tuple[int, ...]:
    """Detector numbers of the layers that an observable has one number of, in order."""
    if name in ("EC_eta", "EC_phi", "width_eta", "width_phi"):
        return geometry.alpha_layer_ids
    return geometry.layer_ids


def binning(
    geometry: Geometry,
    name: str,
    reference: Float[np.ndarray, " n"],
    layer_id: int | None = None,
) -> Float[np.ndarray, " edges"]:
    """Official edges of a metric's observable, also where no reference shower has any energy.

    Where there are none, as of radii in dataset 1, a hundred bins to the radius that one true
    shower in a thousand exceeds.

    Args:
      geometry: of the showers.
      name: of the observable.
      reference: its true values, of one layer.
      layer_id: detector number of the layer; only dataset 1 needs it.

    Raises:
      ValueError: as `official_binning`, or for values that are not finite.
    """
    floor, reference = geometry.histogram_floor, real_array(reference, "reference")
    finite_array(reference, "reference")
    if name == "E_tot" and np.mean((reference > 0.5) & (reference < 1.5)) < 0.5:
        # The official range is that of the CaloChallenge's calibration; this is another one.
        # No single shower sets it; what is outside counts in the underflow and the overflow.
        low, high = np.quantile(np.asarray(reference, np.float64), [0.001, 0.999])
        margin = 0.05 * (high - low) if high > low else 0.01 * abs(high) + 1e-9
        return np.linspace(low - margin, high + margin, 101)
    if name in ("E_layer", "voxel") and not np.any(reference > floor):
        # Without an upper edge from the reference, one bin that generated energy falls into.
        return np.array([floor, 1e6])
    if name in ("EC_r", "width_r") and not geometry.is_regular:
        highest = float(np.quantile(reference, 0.999))
        return np.linspace(0, highest if highest > 0 else 1, 101)
    return official_binning(geometry, JUDGED.get(name, name), reference, layer_id)


def official_binning(
    geometry: Geometry,
    name: str,
    reference: Float[np.ndarray, "..."] | None = None,
    layer_id: int | None = None,
    floor: float | None = None,
) -> Float[np.ndarray, " edges"]:
    """Bin edges with which the CaloChallenge computes its separation powers.

    Args:
      geometry: the showers' geometry.
      name: an observable: `E_ratio`, `E_layer`, `EC_eta`, `EC_phi`, `EC_r`, `width_eta`,
        `width_phi`, `width_r`, `sparsity`, or `voxel` for all voxel energies together.
      reference: for `E_layer` (of one layer) and `voxel`: the reference energies [MeV], whose
        maximum is the last edge of logarithmic bins.
      layer_id: detector number of the layer; only dataset 1 needs it, for its transverse ranges.
      floor: first edge of logarithmic bins [MeV], the geometry's by default.

    Returns:
      Increasing edges; of `E_ratio` in units of E_tot / E_inc, otherwise in MeV or mm.

    Raises:
      ValueError: for an observable without an official binning, or if an argument is missing.
    """
    if name in _LOG_BINS:
        floor = geometry.histogram_floor if floor is None else floor
        check_positive(floor=floor)
        empty = reference is None or np.size(reference) == 0
        highest = -np.inf if empty else np.max(real_array(reference, "reference"))
        if not (np.isfinite(highest) and highest > floor):
            raise ValueError(
                f"logarithmic bins of {name!r} go from {floor} MeV to the maximum of `reference`, "
                f"which is {highest}; pass reference energies in MeV that exceed {floor} MeV"
            )
        return np.geomspace(floor, highest, _LOG_BINS[name] + 1)
    ranges = _LINEAR_BINS if geometry.is_regular else _linear_bins_dataset1(name, layer_id)
    if name not in ranges:
        known = sorted([*ranges, *_LOG_BINS])
        raise ValueError(
            f"no official binning of {name!r} for geometry {geometry.name!r}; choose one of {known}"
        )
    lowest, highest, bins = ranges[name]
    return np.linspace(lowest, highest, bins + 1)


_LOG_BINS = {"E_layer": 39, "voxel": 49}
_LINEAR_BINS = {
    "E_ratio": (0.5, 1.5, 100),
    "EC_eta": (-30.0, 30.0, 100),
    "EC_phi": (-30.0, 30.0, 100),
    "EC_r": (0.0, 42.0, 100),
    "width_eta": (0.0, 30.0, 100),
    "width_phi": (0.0, 30.0, 100),
    "width_r": (0.0, 20.0, 100),
    "sparsity": (0.0, 1.0, 20),
}


def _linear_bins_dataset1(name: str, layer_id: int | None) -> dict[str, tuple[float, float, int]]:
    """Ranges of dataset 1; its hadronic layers 12 and 13 are coarser. None exist for r."""
    transverse = ("EC_eta", "EC_phi", "width_eta", "width_phi")
    if name in transverse and layer_id is None:
        raise ValueError(f"the dataset-1 binning of {name!r} depends on the layer; pass layer_id")
    hadronic = layer_id in (12, 13)
    reach, width = (500.0, 400.0) if hadronic else (100.0, 100.0)
    bins = {key: (-reach, reach, 100) for key in transverse[:2]}
    bins |= {key: (0.0, width, 100) for key in transverse[2:]}
    return bins | {key: _LINEAR_BINS[key] for key in ("E_ratio", "sparsity")}

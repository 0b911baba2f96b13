"""High-level observables of calorimeter showers, as the CaloChallenge defines them.

Definitions follow the challenge's evaluation (arXiv:2410.21611) and Eqs. 18 and 19 of
arXiv:2405.09629. Voxels below the geometry's threshold are zeroed first. Lengths are in mm,
energies in MeV.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.showers.geometry import Geometry
from jgen.showers.hdf5 import Showers, check_showers

_LAYER_ENERGY_OFFSET = 1e-8  # MeV, keeps the logarithm of an empty layer finite


def observables(
    geometry: Geometry, voxels: Float[Array, " num_voxels"], energy: Float[Array, ""]
) -> dict[str, Array]:
    """High-level observables of ONE shower.

    Per layer, with x the voxel energies and xi a transverse coordinate of their centres:
    `EC` = sum xi x / sum x and `width` = sqrt(sum x (xi - EC)^2 / sum x). The official code takes
    sqrt(max(0, <xi^2> - <xi>^2)) in float64: equal in exact arithmetic, but in float32 its
    difference of two large numbers loses the narrow widths. An empty layer has EC = width = 0
    and sparsity 1.

    Args:
      geometry: the voxels' geometry.
      voxels: deposited energies [MeV], flat.
      energy: incident energy [MeV].

    Returns:
      `E_tot` [MeV]; `E_ratio` = E_tot / E_inc; `E_layer` [MeV], `EC_r`, `width_r` [mm] and
      `sparsity` (the fraction of voxels without energy), one entry a layer; `EC_eta`, `EC_phi`,
      `width_eta`, `width_phi` [mm], one entry a layer of `geometry.alpha_layer_ids`; on a
      regular grid also `depth`, one entry a radial bin (see `shower_depth`).
    """
    voxels = jnp.where(voxels < geometry.threshold, 0, voxels)
    blocks = [_block_observables(geometry, voxels, rows) for rows in _blocks(geometry)]
    keys = dict.fromkeys(key for block in blocks for key in block)
    features = {
        key: jnp.concatenate([block[key] for block in blocks if key in block]) for key in keys
    }
    total = jnp.sum(features["E_layer"])
    features |= {"E_tot": total, "E_ratio": total / energy}
    if geometry.is_regular:
        features["depth"] = shower_depth(voxels.reshape(geometry.shape))
    return features


def shower_depth(voxels: Float[Array, "n_z n_alpha n_r"]) -> Float[Array, " n_r"]:
    """Energy-weighted mean layer index of every radial bin, Eq. 19 of arXiv:2405.09629.

    Layers count from 0. The paper's average over a slice and total of a slice are both read as
    sums over alpha, so that the depth is a mean index; a radial bin without energy has depth 0.
    """
    profile = jnp.sum(voxels, axis=1)
    layers = jnp.arange(len(profile), dtype=voxels.dtype)
    return _ratio(jnp.sum(layers[:, None] * profile, axis=0), jnp.sum(profile, axis=0))


def high_level_inputs(
    geometry: Geometry, features: dict[str, Array], energy: Float[Array, ""]
) -> Float[Array, " num_inputs"]:
    """Inputs of the official high-level classifier for ONE shower.

    In order: log10 E_inc; log10(E_layer + 1e-8) of all layers; EC_eta, EC_phi, width_eta and
    width_phi, each of all layers binned in alpha, over 100 mm; log10(E_tot + 1e-8); the
    sparsities; EC_r and width_r over 100 mm. Energies in MeV. 362 numbers for ds2 and ds3.

    Args:
      geometry: the shower's geometry.
      features: what `observables` returned.
      energy: incident energy [MeV].

    Raises:
      ValueError: if the features are not those of one shower of this geometry.
    """
    found = features["E_layer"].shape
    if found != (geometry.num_layers,):
        raise ValueError(
            f"E_layer has shape {found}, but one shower of {geometry.name!r} has "
            f"{geometry.num_layers} layers; use jax.vmap or `compute_high_level_inputs` for many"
        )
    transverse = ("EC_eta", "EC_phi", "width_eta", "width_phi")
    parts = [
        jnp.log10(energy)[None],
        jnp.log10(features["E_layer"] + _LAYER_ENERGY_OFFSET),
        *(features[key] / 100 for key in transverse if key in features),
        jnp.log10(features["E_tot"] + _LAYER_ENERGY_OFFSET)[None],
        features["sparsity"],
        features["EC_r"] / 100,
        features["width_r"] / 100,
    ]
    return jnp.concatenate(parts)


def compute_observables(
    geometry: Geometry, showers: Showers, batch_size: int = 1000
) -> dict[str, np.ndarray]:
    """Observables of many showers, computed in batches on the device, one compilation.

    Args:
      geometry: the showers' geometry.
      showers: showers on the host.
      batch_size: showers on the device at once.

    Returns:
      What `observables` returns, in numpy, with a leading axis of showers.
    """
    return _map_batches(observables, geometry, showers, batch_size)


def compute_high_level_inputs(
    geometry: Geometry, showers: Showers, batch_size: int = 1000
) -> Float[np.ndarray, "n num_inputs"]:
    """Classifier inputs of many showers: `high_level_inputs` of `observables`, in batches.

    Args:
      geometry: the showers' geometry.
      showers: showers on the host.
      batch_size: showers on the device at once.
    """
    return _map_batches(_inputs_from_voxels, geometry, showers, batch_size)


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
        highest = -np.inf if reference is None or np.size(reference) == 0 else np.max(reference)
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


def _blocks(geometry: Geometry) -> list[range]:
    """Runs of layers that share a binning and are computed as one array: one on a regular grid."""
    if geometry.is_regular:
        return [range(geometry.num_layers)]
    return [range(i, i + 1) for i in range(geometry.num_layers)]


def _block_observables(geometry: Geometry, voxels: Array, rows: range) -> dict[str, Array]:
    """Layer observables of the layers `rows`, which have equal binnings."""
    first, last = geometry.layer_slices[rows[0]], geometry.layer_slices[rows[-1]]
    energies = voxels[first.start : last.stop].reshape(len(rows), -1)
    total = jnp.sum(energies, axis=-1)
    result = {"E_layer": total, "sparsity": jnp.mean(energies <= 0, axis=-1, dtype=voxels.dtype)}
    coordinates = {"r": geometry.r}
    if geometry.layers[rows[0]].num_alpha > 1:
        coordinates |= {"eta": geometry.eta, "phi": geometry.phi}
    for key, centres in coordinates.items():
        # Sums rather than matrix products, which an accelerator may run at reduced precision.
        xi = centres[first].astype(voxels.dtype)[None]
        mean = _ratio(jnp.sum(xi * energies, axis=-1), total)
        spread = _ratio(jnp.sum((xi - mean[:, None]) ** 2 * energies, axis=-1), total)
        result |= {f"EC_{key}": mean, f"width_{key}": jnp.sqrt(spread)}
    return result


def _ratio(numerator: Array, energy: Array) -> Array:
    """A ratio to an energy, 0 where there is none."""
    return numerator / jnp.where(energy > 0, energy, 1)


def _inputs_from_voxels(geometry: Geometry, voxels: Array, energy: Array) -> Array:
    return high_level_inputs(geometry, observables(geometry, voxels, energy), energy)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply_batch(function: Callable, geometry: Geometry, voxels: Array, energies: Array):
    return jax.vmap(functools.partial(function, geometry))(voxels, energies)


def _map_batches(function: Callable, geometry: Geometry, showers: Showers, batch_size: int):
    check_showers(showers, geometry)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    num = len(showers.energies)
    batch_size = min(batch_size, num)
    parts = []
    for start in range(0, num, batch_size):
        # The last batch repeats its last shower, so that it runs in the same program.
        rows = np.minimum(np.arange(start, start + batch_size), num - 1)
        voxels = np.asarray(showers.voxels[rows], dtype=np.float32)
        energies = np.asarray(showers.energies[rows], dtype=np.float32)
        parts.append(jax.device_get(_apply_batch(function, geometry, voxels, energies)))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:num], *parts)

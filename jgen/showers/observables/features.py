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

from jgen.checks import check_whole
from jgen.showers.data.geometry import Geometry
from jgen.showers.data.hdf5 import Showers, check_showers, shower_arrays

_LAYER_ENERGY_OFFSET = 1e-8  # MeV, keeps the logarithm of an empty layer finite


def shower_observables(
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
      features: what `shower_observables` returned.
      energy: incident energy [MeV].

    Raises:
      ValueError: if the features are not those of one shower of this geometry.
    """
    shape = features["E_layer"].shape
    if shape != (geometry.num_layers,):
        raise ValueError(
            f"E_layer has shape {shape}, but one shower of {geometry.name!r} has "
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
      What `shower_observables` returns, in numpy, with a leading axis of showers.

    Raises:
      ValueError: as `check_showers`, or for a batch size that is not whole and positive.
    """
    return _map_batches(shower_observables, geometry, showers, batch_size)


def compute_high_level_inputs(
    geometry: Geometry, showers: Showers, batch_size: int = 1000
) -> Float[np.ndarray, "n num_inputs"]:
    """Classifier inputs of many showers: `high_level_inputs` of `shower_observables`, in batches.

    Args:
      geometry: the showers' geometry.
      showers: showers on the host.
      batch_size: showers on the device at once.
    """
    return _map_batches(_inputs_from_voxels, geometry, showers, batch_size)


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
    return high_level_inputs(geometry, shower_observables(geometry, voxels, energy), energy)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply_batch(function: Callable, geometry: Geometry, voxels: Array, energies: Array):
    return jax.vmap(functools.partial(function, geometry))(voxels, energies)


def _map_batches(function: Callable, geometry: Geometry, showers: Showers, batch_size: int):
    check_showers(showers, geometry)
    showers = shower_arrays(showers)
    check_whole(batch_size=batch_size)
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

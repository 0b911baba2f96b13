"""From showers to the numbers of layer flows and back, with log-determinants.

A flow has a density where every cell has energy. So cells without energy get some below the
read-out threshold, and generated cells below it lose theirs to the others of their layer.

Energies are shared out by the recursion of CaloFlow and CaloDREAM, u_i = e_i / (e_i + ... + e_d),
in the form v_i = logit(u_i) + log(e_i + ... + e_d): where a cell holds little of what is left, v_i
is the logarithm of its energy, whatever the others have. The recursion goes from the small to the
large (from the outer ring to the core, from the last layer to the first), so that this is so for
most cells, and that what remains for the end is not a small difference. The sum is conserved.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.bijectors import Bijector
from jgen.checks import check_positive
from jgen.showers.data.geometry import Geometry
from jgen.showers.data.hdf5 import Showers, check_showers, check_units
from jgen.typing import Cond, Key

# Natural logarithms of energies in MeV: what flows see is (v - CENTRE) / SCALE, for cells from
# below a threshold of some keV to TeV between -2 and 5.
_CENTRE, _SCALE = -1.0, 3.0
# Noise in empty cells: log-normal around this fraction of the threshold, cut at the threshold and,
# for numbers that are rarely zero in single precision, as far below.
_NOISE, _WIDTH = 1 / 15, 0.3 * float(np.log(10))

# What is left of an energy and exp(v) stay finite in single precision, whatever v is drawn.
_LEAST, _LARGEST_LOG = 1e-30, 60.0


def logs_of_parts(
    parts: Float[Array, " size"],
) -> tuple[Float[Array, " d"], Float[Array, ""]]:
    """Numbers v [size - 1] of positive parts, and log |d v / d parts| for a fixed sum.

    The log-determinant is of all parts but the last; that of (sum, v) with respect to all parts is
    the same number.
    """
    left = jnp.flip(jnp.cumsum(jnp.flip(parts)))
    v = jnp.log(parts[:-1]) - jnp.log(left[1:]) + jnp.log(left[:-1])
    return v, jnp.sum(v - 2 * jnp.log(parts[:-1]))


def parts_of_logs(
    v: Float[Array, " d"], total: Float[Array, ""]
) -> tuple[Float[Array, " size"], Float[Array, ""]]:
    """The inverse of `logs_of_parts` for parts of a given sum, and log |d parts / d v|."""
    # In the units of parts, where a step is a few products; in logarithms it would be two softplus.
    scale = jnp.exp(jnp.minimum(v, _LARGEST_LOG))

    def take(left, scale):
        return jnp.maximum(left * (left / (left + scale)), _LEAST), left * (scale / (left + scale))

    # Unrolled, all parts are one loop over events; a scan would be many.
    left, parts = jax.lax.scan(take, total, scale, unroll=True)
    return jnp.append(parts, left), jnp.sum(2 * jnp.log(parts) - v)


@dataclass(frozen=True, eq=False)
class LayerPreprocessing:
    """Maps of showers [*geometry.shape] in MeV, one event each.

    Attributes:
      geometry: a regular geometry with a threshold.
      log_response: mean and standard deviation of log(E_vis / E_inc) of the training sample.
      energies: incident energies [MeV] with conditions -1 and 1.
    """

    geometry: Geometry
    log_response: tuple[float, float]
    energies: tuple[float, float]

    def __post_init__(self):
        """Refuse what has no threshold that empty cells could be below."""
        _ = self.geometry.shape
        check_positive(threshold=self.geometry.threshold, width=self.log_response[1])
        low, high = self.energies
        if not 0 < low < high:
            raise ValueError(f"incident energies must be positive and increasing, got {low, high}")

    @property
    def num_cells(self) -> int:
        """Of a layer."""
        return self.geometry.shape[1] * self.geometry.shape[2]

    def cells(self, shower: Float[Array, "z alpha r"]) -> Float[Array, "z cells"]:
        """Layers as vectors, outer rings first."""
        return jnp.flip(jnp.swapaxes(shower, 1, 2), 1).reshape(len(shower), -1)

    def shower(self, cells: Float[Array, "z cells"]) -> Float[Array, "z alpha r"]:
        """The inverse of `cells`."""
        layers, angles, radii = self.geometry.shape
        return jnp.swapaxes(jnp.flip(cells.reshape(layers, radii, angles), 1), 1, 2)

    def filled(
        self, key: Key, cells: Float[Array, "*cells"]
    ) -> tuple[Float[Array, "*cells"], Float[Array, ""]]:
        """Noise in the cells without energy, and its log-density."""
        centre, high = np.log(_NOISE * self.geometry.threshold), -np.log(_NOISE) / _WIDTH
        z = jax.random.truncated_normal(key, -high, high, (cells.size,)).reshape(cells.shape)
        noise = jnp.exp(centre + _WIDTH * z)
        log_q = jax.scipy.stats.norm.logpdf(z) - float(np.log(math.erf(high / np.sqrt(2))))
        log_q = log_q - jnp.log(_WIDTH * noise)
        empty = cells <= 0
        return jnp.where(empty, noise, cells), jnp.sum(jnp.where(empty, log_q, 0))

    def cut(
        self, cells: Float[Array, "z cells"], totals: Float[Array, " z"]
    ) -> Float[Array, "z cells"]:
        """Without cells below the threshold, the others scaled to the energies of the layers.

        A layer of which no cell is above the threshold is empty.
        """
        kept = jnp.where(cells >= self.geometry.threshold, cells, 0)
        total = jnp.sum(kept, axis=1)
        return kept * (totals / jnp.where(total > 0, total, 1))[:, None]

    def energy(self, energy: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """Scaled logarithm of incident energies [MeV]."""
        low, high = np.log(self.energies).tolist()
        return (2 * jnp.log(energy) - low - high) / (high - low)

    def features(self, cond: tuple[Array, Cond]) -> Float[Array, " num"]:
        """Condition of a layer's flow: (previous layers, (its energy, incident energy)).

        What is in a cell below the threshold is noise and not shown.
        """
        previous, (total, energy) = cond
        seen = jnp.maximum(previous, self.geometry.threshold)
        logs = jnp.append(jnp.log(seen).ravel(), jnp.log(total))
        return jnp.append((logs - _CENTRE) / _SCALE, self.energy(energy))

    @property
    def cell_map(self) -> Bijector:
        """Cells [cells] of a layer to a flow's numbers [cells - 1], given the layer's energy.

        Conditions are those of `features`. The log-determinant is that of all cells but the last.
        """
        logarithm = np.log(_SCALE)

        def forward(x, cond):
            v, log_det = logs_of_parts(x)
            return (v - _CENTRE) / _SCALE, log_det - len(v) * logarithm

        def inverse(z, cond):
            x, log_det = parts_of_logs(z * _SCALE + _CENTRE, cond[1][0])
            return x, log_det + len(z) * logarithm

        return Bijector(forward, inverse)

    @property
    def energy_map(self) -> Bijector:
        """Energies [z] of layers to a flow's numbers [z], given the incident energy.

        The first is that of E_vis / E_inc, the others of the layers from the last to the second.
        """
        mean, width = self.log_response
        num = len(self.geometry.layers) - 1
        logarithm = num * float(np.log(_SCALE)) + float(np.log(width))

        def forward(x, energy):
            v, log_det = logs_of_parts(jnp.flip(x))
            total = jnp.log(jnp.sum(x))
            first = (total - jnp.log(energy) - mean) / width
            return jnp.append(first, (v - _CENTRE) / _SCALE), log_det - total - logarithm

        def inverse(z, energy):
            log_total = z[0] * width + mean + jnp.log(energy)
            x, log_det = parts_of_logs(z[1:] * _SCALE + _CENTRE, jnp.exp(log_total))
            return jnp.flip(x), log_det + log_total + logarithm

        return Bijector(forward, inverse)


def fit_preprocessing(showers: Showers, geometry: Geometry) -> LayerPreprocessing:
    """The maps of a training sample.

    Raises:
      ValueError: for showers without energy, of one incident energy, or not of the geometry.
    """
    check_showers(showers, geometry)
    check_units(showers, geometry)
    total = np.asarray(showers.voxels, np.float64).sum(axis=1)
    if not (total > 0).all():
        raise ValueError(f"{(total <= 0).sum()} of {len(total)} showers have no energy: drop them")
    log_response = np.log(total / showers.energies)
    fitted = float(log_response.mean()), float(log_response.std())
    energies = float(showers.energies.min()), float(showers.energies.max())
    return LayerPreprocessing(geometry, fitted, energies)

"""From deposited energies to the standardised numbers a network is trained on, and back.

The preprocessing of CaloDREAM (arXiv:2405.09629, Eqs. 2 and 3, in the order of its published
configurations): layer energies become the ratios u, layers are normalised to unit sum, both pass
a logit and a standardisation. One implementation runs on numpy in float64, to prepare a training
set, and on JAX in float32, to decode on the device.

Deviations, all of which leave the published numbers unchanged up to rounding:

* Empty layers are handled exactly instead of adding 1e-10 to every denominator, so that decoding
  inverts encoding also there, at u = 0, at u = 1 and for an empty shower.
* Layer energies come from products of (1 - u), and 1 - u is carried beside u, instead of
  differences of large sums: in float32 a shower that has ended stays ended.
* A voxel that never changes gets the standard deviation 1 instead of a division by zero.
* A generated layer with energy whose voxels all fell to the cut hands its energy to the other
  layers in proportion, so that the total energy is kept; the reference loses it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from jgen.showers.data.geometry import Geometry
from jgen.showers.data.hdf5 import Showers, check_showers, check_units

Array = np.ndarray | jax.Array


class Statistics(NamedTuple):
    """Means and standard deviations in logit space, float64 on the host.

    Attributes:
      u_mean: of the layer ratios.
      u_std: of the layer ratios.
      voxel_mean: of the normalised voxels; one repeated value for a global standardisation.
      voxel_std: of the normalised voxels.
    """

    u_mean: Float[np.ndarray, " n_z"]
    u_std: Float[np.ndarray, " n_z"]
    voxel_mean: Float[np.ndarray, "n_z n_alpha n_r"]
    voxel_std: Float[np.ndarray, "n_z n_alpha n_r"]


class Fractions(NamedTuple):
    """A shower as ratios.

    Attributes:
      u: u_0 = factor * E_tot / E_inc, and u_{l+1} = E_l / sum_{j >= l} E_j for all layers but
        the last; 0 where no energy is left.
      u_complement: 1 - u, without the cancellation near u = 1.
      x: voxel energies over their layer's energy; 0 in an empty layer.
    """

    u: Float[Array, "*batch n_z"]
    u_complement: Float[Array, "*batch n_z"]
    x: Float[Array, "*batch n_z n_alpha n_r"]


def to_fractions(
    voxels: Float[Array, "*batch n_z n_alpha n_r"], energy: Float[Array, "*batch"], factor: float
) -> Fractions:
    """Split a shower into energy ratios and normalised layers (arXiv:2405.09629, Eq. 2).

    Layers count from 0 and the last one is the remainder; the paper counts its ratios from 1.

    Args:
      voxels: deposited energies [MeV].
      energy: incident energy [MeV].
      factor: scale that brings E_tot / E_inc into [0, 1].
    """
    xp = _namespace(voxels)
    layers = xp.sum(voxels, axis=(-2, -1))
    remaining = xp.flip(xp.cumsum(xp.flip(layers, -1), axis=-1), -1)
    u_total = (factor * remaining[..., 0] / energy)[..., None]
    left = xp.where(remaining > 0, remaining, 1)[..., :-1]
    u = xp.concatenate([u_total, layers[..., :-1] / left], axis=-1)
    # Where nothing is left u = 0, so its complement is 1.
    after = xp.where(remaining[..., :-1] > 0, remaining[..., 1:], 1)
    complement = xp.concatenate([1 - u_total, after / left], axis=-1)
    x = voxels / xp.where(layers > 0, layers, 1)[..., None, None]
    return Fractions(u, complement, x)


def from_fractions(
    fractions: Fractions, energy: Float[Array, "*batch"], factor: float
) -> Float[Array, "*batch n_z n_alpha n_r"]:
    """Inverse of `to_fractions`; any non-negative `x` will do, each layer is renormalised.

    Args:
      fractions: ratios, not necessarily from a real shower.
      energy: incident energy [MeV].
      factor: as in `to_fractions`.

    Returns:
      Deposited energies [MeV]. Their sum is E_inc u_0 / factor unless every layer is empty: a
      layer whose voxels are all zero gives its energy to the others in proportion.
    """
    xp = _namespace(fractions.x)
    layers = layer_energies(fractions.u, fractions.u_complement, energy, factor)
    sums = xp.sum(fractions.x, axis=(-2, -1))
    filled = xp.where(sums > 0, layers, 0)
    total, kept = (xp.sum(a, axis=-1, keepdims=True) for a in (layers, filled))
    filled = filled * (total / xp.where(kept > 0, kept, 1))
    return fractions.x * (filled / xp.where(sums > 0, sums, 1))[..., None, None]


def layer_energies(
    u: Float[Array, "*batch n_z"],
    u_complement: Float[Array, "*batch n_z"],
    energy: Float[Array, "*batch"],
    factor: float,
) -> Float[Array, "*batch n_z"]:
    """Layer energies [MeV] of the ratios u: E_l = E_tot u_{l+1} prod_{1 <= k <= l} (1 - u_k)."""
    xp = _namespace(u)
    total = energy * u[..., 0] / factor
    one = xp.ones_like(u[..., :1])
    survival = xp.cumprod(xp.concatenate([one, u_complement[..., 1:]], axis=-1), axis=-1)
    return total[..., None] * survival * xp.concatenate([u[..., 1:], one], axis=-1)


@dataclass(frozen=True, eq=False)
class ShowerPreprocessing:
    """The map between deposited energies and a network's numbers, with its fitted statistics.

    All methods take one shower or a batch with leading axes, numpy or JAX arrays of one kind,
    and compute in the dtype of what they get. Encode in float64: in float32 a logit smears
    values within 1e-7 of 1.

    Attributes:
      geometry: a regular geometry.
      statistics: from `fit_statistics`, with the same factor and alpha.
      energy_min: incident energy with condition 0 [MeV].
      energy_max: incident energy with condition 1 [MeV].
      factor: scale of E_tot / E_inc.
      alpha: offset of the logit, which sees alpha + (1 - 2 alpha) x.
      cut: decoded voxels up to this fraction of their layer are set to zero.
      voxel_logit: encode voxels as standardised logits; if false as the fractions of their layer,
        in [0, 1], which is what the autoencoder of laViT takes (Sec. 3.3). The u always have one.
    """

    geometry: Geometry
    statistics: Statistics
    energy_min: float
    energy_max: float
    factor: float = 0.35
    alpha: float = 1e-6
    cut: float = 1e-7
    voxel_logit: bool = True

    def __post_init__(self):
        """Refuse what cannot be encoded with."""
        shape = self.geometry.shape
        given = tuple(np.shape(a) for a in self.statistics)
        if given != (shape[:1], shape[:1], shape, shape):
            raise ValueError(
                f"statistics of shapes {given} do not fit geometry {self.geometry.name!r} of "
                f"shape {shape}; fit them on showers of this geometry"
            )
        if not 0 < self.energy_min < self.energy_max:
            raise ValueError(
                f"need 0 < energy_min < energy_max in MeV, got {self.energy_min} and "
                f"{self.energy_max}; take the range of the training set"
            )
        given = (self.factor, self.alpha, self.cut)
        if not (self.factor > 0 and 0 < self.alpha < 0.5 and 0 <= self.cut < 1):
            raise ValueError(f"need factor > 0, 0 < alpha < 0.5 and 0 <= cut < 1, got {given}")

    def condition(self, energy: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Scaled log energy, 0 at `energy_min` and 1 at `energy_max`; `energy` in MeV."""
        low, high = np.log([self.energy_min, self.energy_max]).tolist()
        return (_namespace(energy).log(energy) - low) / (high - low)

    def encode(
        self, voxels: Float[Array, "*batch n_z n_alpha n_r"], energy: Float[Array, "*batch"]
    ) -> tuple[Array, Array, Array]:
        """Ratios u [..., n_z], voxels x [..., n_z, n_alpha, n_r] and condition [...].

        Args:
          voxels: deposited energies [MeV], as a block of `geometry.shape`.
          energy: incident energy [MeV].
        """
        self._check_shape("voxels", voxels.shape[-3:], self.geometry.shape)
        fractions = to_fractions(voxels, energy, self.factor)
        u = logit(fractions.u, fractions.u_complement, self.alpha)
        x, s = fractions.x, self.statistics
        if self.voxel_logit:
            x = logit(x, 1 - x, self.alpha)
            x = (x - _like(s.voxel_mean, x)) / _like(s.voxel_std, x)
        u = (u - _like(s.u_mean, u)) / _like(s.u_std, u)
        return u, x, self.condition(energy)

    def decode(
        self,
        u: Float[Array, "*batch n_z"],
        x: Float[Array, "*batch n_z n_alpha n_r"],
        energy: Float[Array, "*batch"],
    ) -> Float[Array, "*batch n_z n_alpha n_r"]:
        """Deposited energies [MeV] of encoded u and x; the inverse of `encode`.

        Any real numbers are allowed. Voxels that decode to `cut` or less are zeroed, u_0 is
        clipped from below only, the other u to [0, 1]. The read-out threshold is not applied
        here but, as in the reference, where observables are computed.
        """
        self._check_shape("x", x.shape[-3:], self.geometry.shape)
        fraction, s = x, self.statistics
        if self.voxel_logit:
            z = x * _like(s.voxel_std, x) + _like(s.voxel_mean, x)
            fraction, _ = inverse_logit(z, self.alpha)
        fraction = _namespace(x).where(fraction > self.cut, fraction, 0)
        return from_fractions(Fractions(*self._ratios(u), fraction), energy, self.factor)

    def layer_energies(
        self, u: Float[Array, "*batch n_z"], energy: Float[Array, "*batch"]
    ) -> Float[Array, "*batch n_z"]:
        """Layer energies [MeV] of standardised u, for judging an energy network on its own."""
        return layer_energies(*self._ratios(u), energy, self.factor)

    def ratios(self, u: Float[Array, "*batch n_z"]) -> Float[Array, "*batch n_z"]:
        """Physical ratios of standardised u: u_0 >= 0, the others in [0, 1]."""
        return self._ratios(u)[0]

    def _ratios(self, u: Array) -> tuple[Array, Array]:
        self._check_shape("u", u.shape[-1:], self.geometry.shape[:1])
        xp, s = _namespace(u), self.statistics
        ratio, complement = inverse_logit(u * _like(s.u_std, u) + _like(s.u_mean, u), self.alpha)
        total = xp.maximum(ratio[..., :1], 0)
        ratio, complement = (xp.clip(a, 0, 1)[..., 1:] for a in (ratio, complement))
        return (
            xp.concatenate([total, ratio], axis=-1),
            xp.concatenate([1 - total, complement], axis=-1),
        )

    def _check_shape(self, name: str, given: tuple, wanted: tuple) -> None:
        if tuple(given) != tuple(wanted):
            raise ValueError(
                f"{name} ends in the axes {tuple(given)}, but geometry {self.geometry.name!r} "
                f"needs {tuple(wanted)}; reshape flat voxels to (..., *geometry.shape)"
            )


def logit(x: Array, complement: Array, alpha: float) -> Array:
    """log(y / (1 - y)) at y = alpha + (1 - 2 alpha) x, given x and 1 - x.

    Both logarithms have a small argument of their own, so neither end loses digits.
    """
    xp = _namespace(x)
    return xp.log((1 - 2 * alpha) * x + alpha) - xp.log((1 - 2 * alpha) * complement + alpha)


def inverse_logit(z: Array, alpha: float) -> tuple[Array, Array]:
    """Both x and 1 - x of `logit`; each in [-alpha, 1 + alpha] up to rounding."""
    xp = _namespace(z)
    zero = xp.zeros_like(z)
    return tuple(
        (xp.exp(-xp.logaddexp(zero, sign * z)) - alpha) / (1 - 2 * alpha) for sign in (-1, 1)
    )


def fit_statistics(
    chunks: Iterable[Showers],
    geometry: Geometry,
    factor: float = 0.35,
    alpha: float = 1e-6,
    standardise: Literal["voxel", "global"] = "voxel",
) -> Statistics:
    """Means and unbiased standard deviations in logit space, in float64, in one pass.

    Args:
      chunks: the training set in chunks that fit in memory; a list of one is fine.
      geometry: a regular geometry.
      factor: scale of E_tot / E_inc.
      alpha: offset of the logit.
      standardise: "voxel" has one mean and deviation a voxel, as published; "global" one of each
        over all voxels with energy, as in the authors' later code (arXiv:2601.05289), which
        keeps the rotational symmetry. The u are always standardised one by one.

    Returns:
      The statistics; what does not vary has the standard deviation 1.

    Raises:
      ValueError: for fewer than two showers, for bad ones, or if `factor` lets u_0 exceed 1.
    """
    if standardise not in ("voxel", "global"):
        raise ValueError(f"standardise must be 'voxel' or 'global', got {standardise!r}")
    shape = geometry.shape
    u_moments = x_moments = None
    for chunk in chunks:
        check_showers(chunk, geometry)
        check_units(chunk, geometry)
        energies = np.asarray(chunk.energies, dtype=np.float64)
        voxels = np.asarray(chunk.voxels, dtype=np.float64).reshape(-1, *shape)
        fractions = to_fractions(voxels, energies, factor)
        _check_u_total(fractions.u[:, 0], factor)
        x = fractions.x
        u_moments = _add(u_moments, logit(fractions.u, fractions.u_complement, alpha))
        if standardise == "global":
            x = x[x > 0][:, None]
        x_moments = _add(x_moments, logit(x, 1 - x, alpha))
    u_mean, u_std = _mean_and_std(u_moments)
    x_mean, x_std = (np.broadcast_to(a, shape).copy() for a in _mean_and_std(x_moments))
    return Statistics(u_mean, u_std, x_mean, x_std)


class _Moments(NamedTuple):
    """Running count, mean and sum of squared deviations of values shifted by the first one.

    The shift makes the variance of a constant exactly 0, whatever its mean rounds to.
    """

    shift: np.ndarray
    num: int
    mean: np.ndarray | float
    squares: np.ndarray | float


def _add(moments: _Moments | None, values: np.ndarray) -> _Moments | None:
    """Merge values along their first axis (Chan, Golub and LeVeque 1979)."""
    if len(values) == 0:
        return moments
    shift, num, mean, squares = moments or _Moments(values[0].copy(), 0, 0.0, 0.0)
    values = values - shift
    total = num + len(values)
    delta = values.mean(axis=0) - mean
    within = np.sum((values - values.mean(axis=0)) ** 2, axis=0)
    between = delta**2 * (num * len(values) / total)
    return _Moments(shift, total, mean + delta * (len(values) / total), squares + within + between)


def _mean_and_std(moments: _Moments | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and unbiased standard deviation, which is 1 where nothing varies."""
    num = moments.num if moments else 0
    if num < 2:
        raise ValueError(
            f"statistics need at least two showers with energy, got {num} values; pass the "
            "whole training set"
        )
    std = np.sqrt(moments.squares / (num - 1))
    return moments.shift + moments.mean, np.where(std > 0, std, 1.0)


def _check_u_total(u_total: np.ndarray, factor: float) -> None:
    if np.max(u_total) > 1:
        row = int(np.argmax(u_total))
        raise ValueError(
            f"shower {row} of a chunk has E_tot/E_inc = {u_total[row] / factor:.3g}, more than "
            f"1/factor = {1 / factor:.3g}; check the units (MeV for both) or lower the factor"
        )


def _namespace(x: Array) -> ModuleType:
    """`numpy` or `jax.numpy`, whichever `x` belongs to."""
    return x.__array_namespace__()


def _like(statistic: np.ndarray, x: Array) -> Array:
    """A statistic in the namespace, dtype and rank of `x`."""
    statistic = statistic.reshape((1,) * (x.ndim - statistic.ndim) + statistic.shape)
    return _namespace(x).asarray(statistic, dtype=x.dtype)

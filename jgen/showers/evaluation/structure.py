"""What belongs together in a shower: angles of its layers, layers without a gap, correlations."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Complex, Float
from scipy.stats import hypergeom, norm

from jgen.checks import check_whole
from jgen.estimate import Estimate, Judged, mean_estimate
from jgen.metrics import QuadraticReplicas, dealt_out
from jgen.random import numpy_generator
from jgen.showers.data import Geometry, Showers
from jgen.typing import Key

# Neighbours of a hole hold more than this fraction of the deposited energy. Without it two of three
# true showers have a hole in their tail.
_NEIGHBOUR = 0.02
# Fraction of the reference showers, two at least, with a hole that is as deep as counts.
_DEEP = 1 / 400
# Degree of the mean of a layer in log E_inc; a cubic follows it within the fluctuations.
_DEGREE = 3
# Standard deviations at which residuals are cut before they are correlated.
_FAR = 5.0


class LayerMoments(NamedTuple):
    """Energies of the layers of showers and how they are distributed in the angle.

    Attributes:
      energies: incident energies [MeV].
      layers: energies of the layers [MeV], voxels below the threshold left out.
      moments: sum over the voxels of a layer of energy times exp(i alpha) [MeV], whose angle is the
        energy-weighted angle of the layer; 0 where a layer is not binned in the angle.
    """

    energies: Float[np.ndarray, " n"]
    layers: Float[np.ndarray, "n layers"]
    moments: Complex[np.ndarray, "n layers"]

    def rows(self, index) -> "LayerMoments":
        """Those of some showers."""
        return LayerMoments(*(a[index] for a in self))


def layer_moments(geometry: Geometry, showers: Showers) -> LayerMoments:
    """Layer energies and angular moments of showers."""
    layers, moments = [], []
    turned = np.exp(1j * np.arctan2(geometry.phi, geometry.eta))
    for part, layer in zip(geometry.layer_slices, geometry.layers, strict=True):
        voxels = np.asarray(showers.voxels[:, part], np.float64)
        voxels = np.where(voxels < geometry.threshold, 0, voxels)
        layers.append(voxels.sum(axis=1))
        binned = layer.num_alpha > 1
        moments.append(voxels @ turned[part] if binned else np.zeros(len(voxels), complex))
    energies = np.asarray(showers.energies, np.float64)
    return LayerMoments(energies, np.stack(layers, axis=1), np.stack(moments, axis=1))


def alignments(showers: LayerMoments) -> Float[np.ndarray, " n"]:
    """How far the angles of neighbouring layers agree, one number a shower in [-1, 1].

    The mean cosine of the difference of their energy-weighted angles, weighted by the product of
    the moments' sizes; 0 for layers that are turned at random. Showers without two such layers are
    left out.
    """
    first, second = showers.moments[:, :-1], showers.moments[:, 1:]
    weight = np.sum(np.abs(first * second), axis=1)
    cosine = np.sum((second * first.conj()).real, axis=1)
    return cosine[weight > 0] / weight[weight > 0]


def azimuths(showers: LayerMoments) -> Complex[np.ndarray, " n"]:
    """exp(i phi) of the energy-weighted angle phi of each shower that has one."""
    moments = showers.moments.sum(axis=1)
    size = np.abs(moments)
    return moments[size > 0] / size[size > 0]


def holes(showers: LayerMoments) -> np.ndarray:
    """Which showers have a hole: an empty layer between two with energy.

    Each of the two holds more than 2 % of the deposited energy.
    """
    layers = showers.layers
    hold = layers > _NEIGHBOUR * layers.sum(axis=1, keepdims=True)
    return np.any((layers[:, 1:-1] == 0) & hold[:, :-2] & hold[:, 2:], axis=1)


def hole_depths(showers: LayerMoments) -> Float[np.ndarray, " n"]:
    """Energy [MeV] beside the deepest hole of each shower, 0 without a hole.

    Of the two neighbours of an empty layer the one with less energy counts: few particles pass
    where there is little of it, and may miss a layer. Of many particles all do not.
    """
    layers = showers.layers
    beside = np.minimum(layers[:, :-2], layers[:, 2:])
    return np.where(layers[:, 1:-1] == 0, beside, 0).max(axis=1, initial=0)


def deep_holes(reference: LayerMoments, sample: LayerMoments) -> tuple[Estimate, float]:
    """Fraction of showers with a hole deeper than those of 399 of 400 reference showers.

    Two of the reference may be deeper at least. The p-value is one-sided and exact: the chance
    that as many or more of the sample come before the next one of the reference if the order of all
    depths is random. Ties, such as showers without a hole, make it only larger.
    """
    depths = [hole_depths(s) for s in (reference, sample)]
    n, m = map(len, depths)
    limit = np.sort(depths[0])[-min(n, max(2, round(n * _DEEP)) + 1)]
    beyond, more = (int(np.sum(d > limit)) for d in depths)
    p = float(hypergeom(n + m, m, more + beyond).sf(more - 1))
    # The limit fluctuates as well.
    error = np.sqrt(max(more, 1) + more**2 / (beyond + 1)) / m
    return Estimate(more / m, float(error)), p


def layer_residuals(showers: LayerMoments) -> Float[np.ndarray, "n layers"]:
    """Layer energies without their mean dependence on E_inc, standardised.

    Residuals of sqrt(E_layer / E_inc) to its own cubic in log E_inc, over their standard deviation;
    the root brings energies that fluctuate like counts to one width. 0 for layers without energy.
    """
    x = np.log(showers.energies)
    x = (x - x.mean()) / (x.std() or 1.0)
    powers = np.polynomial.legendre.legvander(x, _DEGREE)
    roots = np.sqrt(showers.layers / showers.energies[:, None])
    residuals = roots - powers @ np.linalg.lstsq(powers, roots, rcond=None)[0]
    spread = residuals.std(axis=0, keepdims=True)
    return np.where(spread > 1e-9, residuals / np.where(spread > 1e-9, spread, 1), 0)


def structure(
    reference: LayerMoments,
    holdout: LayerMoments,
    generated: LayerMoments,
    *,
    num_bootstrap: int = 100,
    key: Key | None = None,
) -> dict[str, Judged]:
    """Numbers that a generator gets wrong whose layers do not belong together.

      structure/alignment    mean of `alignments`
      structure/rayleigh     Rayleigh statistic n |mean exp(i phi)|^2 of `azimuths`: 1 on average if
                             all angles are equal, with an exponential law, whose standard deviation
                             is the error (86 % of truth are within it)
      structure/holes        fraction of showers with `holes`
      structure/deep_holes   fraction of showers with a hole deeper than those of 399 of 400
                             reference showers, see `deep_holes`; a layer dropped in 3 % of 1000
                             showers is seen so
      structure/correlation  root mean square difference of the correlations of `layer_residuals`
                             from those of the reference, over all pairs of layers; residuals
                             count up to five standard deviations

    All but the correlations are numbers of the generated showers and, as truth, of the holdout.
    `NAME_p` are p-values of the comparison of either with the reference, two-sided and from the
    normal law for the first three; one-sided and exact for deep holes, of which a generator may
    have too many; for the correlations from `num_bootstrap` permutations of whole showers, and so
    not below 1 / (num_bootstrap + 1).

    Args:
      reference: true showers.
      holdout: other true showers, as many as are generated.
      generated: what is judged.
      num_bootstrap: resamplings behind the error and the p-value of the correlations.
      key: of the resampling.
    """
    check_whole(0, num_bootstrap=num_bootstrap)
    samples = generated, holdout
    found = {}
    means = {
        "alignment": lambda s: _mean(alignments(s)),
        "holes": lambda s: _mean(holes(s)),
    }
    for name, mean in means.items():
        known, values = mean(reference), [mean(s) for s in samples]
        found[name] = Judged(*values), Judged(*(_normal_p(v, known) for v in values))
    deep = [deep_holes(reference, s) for s in samples]
    found["deep_holes"] = tuple(Judged(*both) for both in zip(*deep, strict=True))
    known = azimuths(reference)
    angles = [azimuths(s) for s in samples]
    found["rayleigh"] = (
        Judged(*(_rayleigh(a) for a in angles)),
        Judged(*(_direction_p(known, a) for a in angles)),
    )
    rng, residuals = numpy_generator(key), layer_residuals(reference)
    differences = [
        _correlation_difference(residuals, layer_residuals(s), num_bootstrap, rng) for s in samples
    ]
    found["correlation"] = tuple(Judged(*both) for both in zip(*differences, strict=True))
    return {
        f"structure/{name}{suffix}": both
        for name, judged in found.items()
        for suffix, both in zip(("", "_p"), judged, strict=True)
    }


def _mean(values):
    """Mean and error; that of a fraction of none or all is not zero."""
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return Estimate(0.0, 1.0)
    value, error = mean_estimate(values)
    return Estimate(value, max(error, 0.5 / len(values)))


def _normal_p(value, known):
    pull = (value.value - known.value) / np.hypot(value.error, known.error)
    return float(2 * norm.sf(abs(pull)))


def _rayleigh(angles):
    value = float(np.abs(angles.sum()) ** 2 / max(len(angles), 1))
    # Twice the statistic is a noncentral chi^2 of two degrees of freedom.
    return Estimate(value, float(np.sqrt(1 + 2 * max(value - 1, 0))))


def _direction_p(first, second):
    """Of a common mean of exp(i phi): chi^2 of two degrees of freedom."""
    if min(len(first), len(second)) < 2:
        return 1.0
    vectors = [np.stack([a.real, a.imag]) for a in (first, second)]
    difference = np.subtract(*(v.mean(axis=1) for v in vectors))
    covariance = sum(np.cov(v) / v.shape[1] for v in vectors)
    return float(np.exp(-0.5 * difference @ np.linalg.pinv(covariance) @ difference))


def _correlation_difference(reference, sample, num_bootstrap, rng):
    """Root mean square difference with its error, and its p-value."""
    # A single shower far off in a late layer would decide its correlations.
    samples = [np.clip(s, -_FAR, _FAR) for s in (reference, sample)]
    pooled, num = np.concatenate(samples), len(reference)

    def square(first, second):
        return np.mean(np.subtract(first, second) ** 2)

    def drawn(s):
        return _correlations(s, rng.multinomial(len(s), np.full(len(s), 1 / len(s))))

    value = square(*map(_correlations, samples))
    replicas = [square(*map(drawn, samples)) for _ in range(num_bootstrap)]
    deals = dealt_out(rng, num, len(sample), num_bootstrap)
    null = np.array([square(*(_correlations(pooled[of]) for of in (d, ~d))) for d in deals])
    error = float(QuadraticReplicas(np.asarray(value), np.array(replicas), null).error)
    root = float(np.sqrt(value))
    p = (1 + np.sum(null >= value)) / (1 + num_bootstrap)
    return Estimate(root, error / (2 * root) if root > 0 else 0.0), float(p)


def _correlations(residuals, counts=None):
    """Correlations of all pairs of layers, those of showers that are drawn `counts` times."""
    if counts is None:
        counts = np.ones(len(residuals))
    used = residuals * np.sqrt(counts / counts.sum())[:, None]
    means = (residuals * (counts / counts.sum())[:, None]).sum(axis=0)
    covariance = used.T @ used - means[:, None] * means[None]
    spread = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
    matrix = covariance / spread[:, None] / spread[None]
    return matrix[np.triu_indices(len(matrix), 1)]

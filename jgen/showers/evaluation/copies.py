"""Does a generator return showers that it was shown, or the same ones again and again?"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt64
from scipy.stats import hypergeom, nbinom, nhypergeom

from jgen.estimate import Estimate, Judged
from jgen.metrics import nearest_neighbours
from jgen.overlap import row_keys
from jgen.showers.data import Geometry, Showers
from jgen.showers.observables import compute_high_level_inputs

# What is near: nearer than this fraction of the neighbours of true showers.
_QUANTILE = 0.005


class Fingerprints(NamedTuple):
    """What showers are recognised by.

    Attributes:
      features: high-level inputs.
      digests: of the voxels in float32; zero for showers without any energy, of which there may
        be several.
    """

    features: Float[np.ndarray, "n d"]
    digests: UInt64[np.ndarray, " n"]

    def rows(self, index) -> "Fingerprints":
        """Those of some showers."""
        return Fingerprints(self.features[index], self.digests[index])


def fingerprints(
    geometry: Geometry, showers: Showers, features: Float[np.ndarray, "n d"] | None = None
) -> Fingerprints:
    """Fingerprints of showers.

    Args:
      geometry: of the showers.
      showers: showers.
      features: their high-level inputs, if known.
    """
    if features is None:
        features = compute_high_level_inputs(geometry, showers)
    digests = row_keys(showers.voxels)
    digests[~np.any(showers.voxels, axis=1)] = 0
    return Fingerprints(features, digests)


def copies(
    reference: Fingerprints,
    holdout: Fingerprints,
    generated: Fingerprints,
    training: Fingerprints | None = None,
) -> dict[str, Judged]:
    """Fractions of showers that are copies, or nearer to another shower than true ones are.

    Distances are Euclidean, of high-level inputs over their standard deviations in the reference.
    "Near" is nearer than the 0.5 % quantile of the distances of true showers, so that 0.5 % of them
    are: a fraction above it says that showers are returned, with noise or without.

      copies/within          near another shower of its own sample; true ones are the reference
      copies/within_exact    with the voxels of an earlier shower of its own sample
      copies/training        near a training shower; true ones are every second of the reference
      copies/training_exact  with the voxels of a training shower

    Truth is the holdout in its own sample; beside training showers it is the other half of the
    reference (all of it for exact copies), since the holdout may be the training sample. The errors
    are those of counts. `NAME_p` are p-values of as many copies or more. For near training showers
    that is the exact law of how many of one sample fall below a value that k of another one do; for
    near pairs in a sample, which are a Poisson process where they are rare, a negative binomial
    one; for exact copies Fisher's.

    Args:
      reference: true showers that the generator has not seen.
      holdout: other true showers, as many as are generated.
      generated: what is judged.
      training: showers that the generator was trained on; without them there are two metrics.

    Raises:
      ValueError: if reference showers are among the training showers.
    """
    scale = reference.features.std(axis=0)
    scaled = lambda sample: sample.features[:, scale > 0] / scale[None, scale > 0]
    found = {}
    pairs = [_near_pairs(scaled(sample)) for sample in (reference, holdout, generated)]
    found["within"] = _near_within(*pairs)
    found["within_exact"] = _exact(
        *(_repeated(sample.digests) for sample in (reference, holdout, generated))
    )
    if training is not None:
        known = [
            np.isin(s.digests, training.digests[training.digests != 0])
            for s in (reference, generated)
        ]
        if known[0].any():
            raise ValueError(
                f"{known[0].sum()} of {len(known[0])} reference showers are training showers: the "
                "distances of generated showers are compared with those of showers that the "
                "generator has not seen; take another reference, or pass no training showers"
            )
        distances = [
            nearest_neighbours(scaled(s), scaled(training))[0] for s in (reference, generated)
        ]
        found["training"] = _near_training(distances[0][::2], distances[0][1::2], distances[1])
        found["training_exact"] = _exact(known[0], known[0], known[1])
    return {
        f"copies/{name}{suffix}": both
        for name, judged in found.items()
        for suffix, both in zip(("", "_p"), judged, strict=True)
    }


def _fraction(near, num, threshold=0.0):
    """A fraction and its error; half a count more keeps that of none from being zero.

    The quantile of the true showers fluctuates, too, by `threshold`.
    """
    smooth = (near + 0.5) / (num + 1)
    return Estimate(near / num, float(np.hypot(np.sqrt(smooth * (1 - smooth) / num), threshold)))


def _rank(num):
    return max(1, round(_QUANTILE * num))


def _near_pairs(points):
    """Distances to the nearest neighbours, and which pair of showers each is of."""
    distances, other = nearest_neighbours(points)
    rows = np.arange(len(points))
    return distances, np.minimum(rows, other) * len(points) + np.maximum(rows, other)


def _near_within(reference, holdout, generated):
    num = len(reference[0])
    nearest = np.sort(reference[0])[_rank(num) - 1]
    pairs = lambda sample: len(np.unique(sample[1][sample[0] <= nearest]))
    known = pairs(reference)
    # As many pairs are expected in a sample of the same size.
    spread = _QUANTILE / np.sqrt(known)
    value, p = [], []
    for sample in (generated, holdout):
        count, found = int(np.sum(sample[0] <= nearest)), pairs(sample)
        # Both showers of a pair are near, so their number fluctuates more than that of events.
        error = np.sqrt(max(count, 1) / max(found, 1))
        fraction = _fraction(count, len(sample[0]))
        value.append(Estimate(fraction.value, float(np.hypot(error * fraction.error, spread))))
        p.append(float(nbinom.sf(found - 1, known, num / (num + len(sample[0])))))
    return Judged(*value), Judged(*p)


def _near_training(reference, truth, generated):
    rank = _rank(len(reference))
    nearest = np.sort(reference)[rank - 1]
    value, p = [], []
    for sample in (generated, truth):
        count, num = int(np.sum(sample < nearest)), len(sample)
        value.append(_fraction(count, num, _QUANTILE / np.sqrt(rank)))
        # Of all events in random order: how many of the sample come before the rank-th reference.
        p.append(float(nhypergeom.sf(count - 1, num + len(reference), num, rank)))
    return Judged(*value), Judged(*p)


def _repeated(digests):
    """Which showers have the voxels of an earlier one."""
    first = np.zeros(len(digests), bool)
    first[np.unique(digests, return_index=True)[1]] = True
    return ~first & (digests != 0)


def _exact(reference, truth, generated):
    """Fractions, and Fisher's p-value of as many of them or more than in the reference."""
    value, p = [], []
    for sample in (generated, truth):
        value.append(_fraction(int(sample.sum()), len(sample)))
        total, marked = len(sample) + len(reference), int(sample.sum() + reference.sum())
        p.append(float(hypergeom.sf(sample.sum() - 1, total, marked, len(sample))))
    return Judged(*value), Judged(*p)

"""Distances of generated jets to true ones, as jetnet has them; put truth against truth beside.

Jets are padded points (eta, phi, pT) with a number of points each, relative to the jet. Values
depend on the number of jets, as do those of truth against truth: compare at the same number.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linprog
from scipy.sparse import csr_array, eye_array, kron, vstack
from scipy.spatial.distance import cdist

from jgen.arrays import (
    cast_array,
    check_finite_events,
    finite_array,
    quiet_samples,
    real_array,
)
from jgen.checks import check_whole
from jgen.estimate import Estimate
from jgen.generative_model import draw
from jgen.jets.energy_flow import energy_flow_polynomials, graphs, prime_graphs
from jgen.jets.kinematics import jet_kinematics
from jgen.metrics import frechet_physics_distance, kernel_physics_distance, wasserstein
from jgen.random import numpy_generator, stream
from jgen.sets import count_array
from jgen.typing import Key

DISTANCES = ("W1-M", "W1-P", "W1-EFP", "multiplicity", "FPD", "KPD", "coverage", "MMD")
"""What `jet_distances` measures."""
# Random splits of a batch behind the errors of coverage and MMD.
_SPLITS = 50


class JetSample(NamedTuple):
    """What distances are made of.

    Attributes:
      points: (eta, phi, pT), relative; zeros beyond the n-th.
      n: numbers of points.
      kinematics: pT, eta, phi and mass of the jets of these points.
      polynomials: the 36 energy flow polynomials of up to four edges.
    """

    points: Float[np.ndarray, "num rows 3"]
    n: Int[np.ndarray, " num"]
    kinematics: Float[np.ndarray, "num 4"]
    polynomials: Float[np.ndarray, "num 36"]

    def take(self, rows: np.ndarray | slice) -> "JetSample":
        """Some of the jets."""
        return JetSample(*(value[rows] for value in self))


def jet_sample(
    points: Float[np.ndarray, "num rows 3"], n: Int[np.ndarray, " num"], *, batch_size: int = 500
) -> JetSample:
    """Masses and energy flow polynomials of jets, a fraction of a millisecond a jet.

    Raises:
      ValueError: for points that are not finite or so far out that the jet is not, or a pT that is
        negative.
    """
    points = cast_array(real_array(points, "points"), "points")
    if points.ndim != 3 or points.shape[2] != 3 or not points.size:
        raise ValueError(f"jets are points [num, rows, 3], got the shape {points.shape}")
    n = count_array(n, *points.shape[:2])
    points = np.where((np.arange(points.shape[1]) < n[:, None])[..., None], points, 0)
    if not np.isfinite(points).all() or (points[..., 2] < 0).any():
        raise ValueError("points must be finite, and pT not negative: set it to a floor")
    key = jax.random.key(0)  # of nothing
    made = draw(_observables, None, key, len(points), points, batch_size=batch_size)
    if bad := int((~np.isfinite(made[0]).all(axis=1)).sum()):
        raise ValueError(
            f"{bad} of {len(points)} jets have no finite mass: points are (eta, phi, pT) relative "
            f"to the jet, got coordinates up to {np.abs(points[..., :2]).max():.3g}"
        )
    return JetSample(points, n, *made)


def _observables(params, key, points):
    return jet_kinematics(points), energy_flow_polynomials(points)


def jet_distances(
    reference: JetSample,
    generated: JetSample,
    key: Key,
    *,
    num_bootstrap: int = 20,
    movers: tuple[int, int] | None = (50, 2),
) -> dict[str, Estimate]:
    """All of `DISTANCES`, with errors.

    W1-M: W1 of the masses. W1-P: mean of W1 of eta, phi and pT of all points. W1-EFP: mean of W1 of
    the five connected graphs of four edges and vertices. multiplicity: W1 of the numbers of points.
    FPD, KPD: of the 36 polynomials (2211.10295). Coverage, MMD: `coverage_and_mmd`. Of the first
    four the error is that of jets drawn again, of the others see there.

    Deviation from jetnet: W1 is of all jets, not the mean over batches of 50,000 drawn from them.

    Args:
      reference: true jets.
      generated: the others.
      key: of the resampling and of batches.
      num_bootstrap: resamplings.
      movers: jets in a batch and batches for coverage and MMD, whose time grows with the square of
        the first; None leaves both out.
    """
    check_whole(0, num_bootstrap=num_bootstrap)
    primes = [graphs(4).index((graph,)) for graph in prime_graphs(4, 4)]
    weighted = {
        "W1-M": lambda sample, jets: (sample.kinematics[:, 3:], jets),
        "W1-P": _all_points,
        "W1-EFP": lambda sample, jets: (sample.polynomials[:, primes], jets),
        "multiplicity": lambda sample, jets: (sample.n[:, None], jets),
    }
    found = {
        name: _resampled(columns, reference, generated, stream(key, name), num_bootstrap)
        for name, columns in weighted.items()
    }
    both = reference.polynomials, generated.polynomials
    with quiet_samples():  # their tails are those of fourth powers, in every sample
        found["FPD"] = frechet_physics_distance(*both, key=stream(key, "FPD")).estimate
        found["KPD"] = kernel_physics_distance(*both, key=stream(key, "KPD")).estimate
    if movers is not None:
        found["coverage"], found["MMD"] = coverage_and_mmd(
            reference.points, generated.points, stream(key, "movers"), *movers
        )
    return found


def _all_points(sample: JetSample, jets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points of all jets, and the weight that each has from its jet."""
    there = np.arange(sample.points.shape[1]) < sample.n[:, None]
    return sample.points[there], np.repeat(jets, sample.n)


def _resampled(
    columns: Callable, reference: JetSample, generated: JetSample, key: Key, num: int
) -> Estimate:
    """Mean W1 of the columns, and its spread when jets are drawn again with all their points."""
    rng = numpy_generator(key)

    def distance(draw):
        sides = [columns(sample, draw(len(sample.n))) for sample in (reference, generated)]
        (x, v), (y, w) = sides
        return wasserstein(x, y, v, w, num_bootstrap=0).value.mean()

    once = distance(np.ones)
    again = lambda size: np.bincount(rng.integers(size, size=size), minlength=size).astype(float)
    replicas = [distance(again) for _ in range(num)]
    return Estimate(float(once), float(np.std(replicas)) if num else float("nan"))


def coverage_and_mmd(
    reference: Float[np.ndarray, "n rows 3"],
    generated: Float[np.ndarray, "m rows_too 3"],
    key: Key,
    num_jets: int = 100,
    num_batches: int = 10,
) -> tuple[Estimate, Estimate]:
    """Coverage and minimum matching distance in `energy_movers_distance` (2106.11535).

    Of a batch of true and as many generated jets: the fraction of true jets that are nearest to a
    generated one, which is about 0.6 for truth against truth, and the mean distance of a true jet
    to the nearest generated one. Both depend on the number of jets in a batch; jetnet has 100.

    Args:
      reference: true jets, (eta, phi, pT), relative; rows of pT zero are padding.
      generated: others.
      key: of the batches, whose jets are all different.
      num_jets: of each kind in a batch; their square is the number of distances.
      num_batches: whose means are returned. Their errors follow from how far two halves of a batch
        are apart, since a few batches say next to nothing by themselves. Batches have jets in
        common, and all of their fluctuations by that share: where it is large, errors are too.

    Raises:
      ValueError: for fewer jets than a batch has, batches of fewer than four jets, or fewer than
        two batches.
    """
    reference = cast_array(real_array(reference, "reference"), "reference")
    generated = cast_array(real_array(generated, "generated"), "generated")
    for jets, name in ((reference, "reference"), (generated, "generated")):
        if jets.ndim != 3 or jets.shape[2] != 3:
            raise ValueError(f"{name} jets are points [num, rows, 3], got the shape {jets.shape}")
        check_finite_events(jets, name)
    check_whole(2, num_batches=num_batches)
    fewest = min(len(reference), len(generated))
    if fewest < 4:
        raise ValueError(f"coverage and MMD need four jets or more of each kind, got {fewest}")
    check_whole(4, fewest, num_jets=num_jets)
    rng, values, variances = numpy_generator(key), [], []
    for _ in range(num_batches):
        true, made = (
            sample[rng.choice(len(sample), num_jets, replace=False)]
            for sample in (reference, generated)
        )
        distances = np.array([[energy_movers_distance(a, b) for b in made] for a in true])
        values.append(_matching(distances))
        variances.append(_variance_of_halves(distances, rng.spawn(1)[0]))
    # Two batches of a sample have this part of their jets, and so of their fluctuations, in common.
    common = num_jets / fewest
    errors = np.sqrt(np.mean(variances, axis=0) * (common + (1 - common) / num_batches))
    coverage, nearest = map(Estimate, np.mean(values, axis=0).tolist(), errors.tolist())
    return coverage, nearest


def _matching(distances):
    """Coverage and mean distance to the nearest, of true jets (rows) and generated ones."""
    covered = len(np.unique(distances.argmin(axis=0))) / len(distances)
    return np.array([covered, distances.min(axis=1).mean()])


def _variance_of_halves(distances, rng):
    """Variances of both for a batch, from pairs of halves that have no jet in common."""
    num = len(distances)
    half, squares = num // 2, []
    for _ in range(_SPLITS):
        rows, columns = (np.split(rng.permutation(num)[: 2 * half], 2) for _ in range(2))
        halves = zip(rows, columns, strict=True)
        first, second = (_matching(distances[np.ix_(*of)]) for of in halves)
        # A half has twice the variance of all, and a difference of two of them four times.
        squares.append((first - second) ** 2 * half / (2 * num))
    return np.mean(squares, axis=0)


@functools.cache
def _sums(n: int, m: int) -> csr_array:
    """Sums over the columns, then over the rows, of a flat matrix [n, m], but for the last one."""
    rows = kron(eye_array(n), np.ones((1, m)))
    columns = kron(np.ones((1, n)), eye_array(m))
    return csr_array(vstack([rows, columns]))[:-1]


def energy_movers_distance(a: Float[np.ndarray, "n 3"], b: Float[np.ndarray, "m 3"]) -> float:
    """The least pT times angle that makes one jet of another (1902.02346, with R = 1, beta = 1).

    Exact, by linear programming: milliseconds. What one jet has more is made at the price of pT
    over an angle of one, so that distances are in units of relative pT.

    Args:
      a: (eta, phi, pT) of a jet; rows of pT zero are padding.
      b: of another. Differences in phi are taken as they are, as of relative coordinates.

    Raises:
      ValueError: for what are no points [n, 3], or a pT that is negative.
    """
    a, b = (finite_array(jet, "jets", 2) for jet in (a, b))
    for jet in (a, b):
        if jet.shape[1] != 3 or (jet[:, 2] < 0).any():
            raise ValueError(
                f"a jet is points (eta, phi, pT) [n, 3], pT not negative, got the shape {jet.shape}"
                f" and the smallest number of the last column {jet[:, -1].min():.3g}"
            )
    a, b = (jet[jet[:, 2] > 0] for jet in (a, b))
    more = a[:, 2].sum() - b[:, 2].sum()
    angles = np.zeros((len(a) + 1, len(b) + 1))
    angles[:-1, :-1] = cdist(a[:, :2], b[:, :2])
    angles[-1, :-1] = angles[:-1, -1] = 1
    weights = np.append(a[:, 2], max(-more, 0)), np.append(b[:, 2], max(more, 0))
    sums = _sums(*angles.shape)
    solved = linprog(angles.ravel(), A_eq=sums, b_eq=np.concatenate(weights)[:-1], method="highs")
    if not solved.success:
        raise ValueError(f"the distance of two jets was not found: {solved.message}")
    return float(solved.fun)

"""Maps of jets' features, and of their constituents, to numbers without bounds; multiplicities."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.stats import gaussian_kde

from jgen.arrays import finite_array, sample_array
from jgen.bijectors import Bijector, per_point, standardize
from jgen.checks import check_finite, check_whole
from jgen.random import numpy_generator
from jgen.sets import count_array
from jgen.typing import Key

SAMPLE_PT_RANGE = (500.0, 1000.0)
"""The bundled jets were selected in this window of pT [GeV], nearly flat in it."""


def feature_map(pt_range: tuple[float, float] = SAMPLE_PT_RANGE) -> Bijector:
    """(pT, mass, tau21, tau32) to (log-odds of pT in its window, log mass, tau21, tau32).

    Args:
      pt_range: window [GeV] in which the jets were selected; events of a model lie inside.

    Raises:
      ValueError: if the window is empty.
    """
    low, high = pt_range
    check_finite(low=low, high=high)
    if not 0 <= low < high:
        raise ValueError(f"pt_range must be an interval of positive pT [GeV], got {pt_range}")

    def log_det(pt, mass):
        return jnp.log((high - low) / ((pt - low) * (high - pt))) - jnp.log(mass)

    def forward(x, cond=None):
        pt, mass, *taus = x
        z = jnp.stack([jnp.log((pt - low) / (high - pt)), jnp.log(mass), *taus])
        return z, log_det(pt, mass)

    def inverse(z, cond=None):
        odds, log_mass, *taus = z
        pt, mass = low + (high - low) * jax.nn.sigmoid(odds), jnp.exp(log_mass)
        return jnp.stack([pt, mass, *taus]), -log_det(pt, mass)

    return Bijector(forward, inverse)


def point_map(points: Float[np.ndarray, "num rows 3"], n: Int[np.ndarray, " num"]) -> Bijector:
    """(eta, phi, pT) of sets of points to (eta, phi, pT^(1/3)) of mean zero and width one.

    A sum of cubes is nearly linear in the hard points, which make the jet's pT and mass, and soft
    ones are still apart: of generated top jets W1 of the mass is 8e-3 where the logarithm has 13e-3
    and pT itself 22e-3, after a thousand steps of flow matching. Below zero the root is negative.

    The condition is a `jgen.sets.SetCondition`.

    Args:
      points: of training jets, whose means and standard deviations are taken; zeros beyond the
        n-th.
      n: numbers of points.

    Raises:
      ValueError: for a pT that is not positive, or numbers that no events have.
    """
    points = finite_array(points, "points", 3)
    there = points[np.arange(points.shape[1]) < count_array(n, *points.shape[:2])[:, None]]
    if not (len(there) and (there[:, 2] > 0).all()):
        raise ValueError("points need a positive pT: take those that are there")
    there[:, 2] = np.cbrt(there[:, 2])
    scale = standardize(there.mean(axis=0), there.std(axis=0))
    log_slope = lambda root: jnp.log(3.0) + 2 * jnp.log(jnp.abs(root))  # of the cube

    def forward(x, cond=None):
        root = jnp.cbrt(x[2])
        z, log_det = scale.forward(jnp.append(x[:2], root), cond)
        return z, log_det - log_slope(root)

    def inverse(z, cond=None):
        y, log_det = scale.inverse(z, cond)
        return jnp.append(y[:2], y[2] ** 3), log_det + log_slope(y[2])

    return per_point(Bijector(forward, inverse))


def draw_multiplicities(
    total: Int[np.ndarray, " num"],
    labels: Int[np.ndarray, " num"],
    wanted: Int[np.ndarray, " m"],
    key: Key,
    largest: int,
) -> Int[np.ndarray, " m"]:
    """Numbers of points of new jets, by a Gaussian kernel density of each class (2301.08128).

    Sampled, rounded and clipped.

    Args:
      total: numbers of constituents of the training jets. Of leading ones give the number of all:
        a density of what was cut would smear the step at the cut.
      labels: their classes.
      wanted: classes of the new jets.
      key: of the sampling.
      largest: the number that no jet exceeds; one is the smallest.

    Raises:
      ValueError: for a class of which there are fewer than two training jets.
    """
    check_whole(largest=largest)
    total, labels, wanted = (
        sample_array(values, name)
        for name, values in (("total", total), ("labels", labels), ("wanted", wanted))
    )
    if total.dtype.kind not in "iu" or total.min() < 1:
        raise ValueError("numbers of constituents must be whole and positive: pass those of jets")
    if any(of.dtype.kind not in "iu" for of in (labels, wanted)):
        raise ValueError(
            f"classes are whole numbers, got labels {labels.dtype} and wanted {wanted.dtype}"
        )
    if total.shape != labels.shape:
        raise ValueError(f"{len(total)} jets need as many labels, got {len(labels)}")
    rng, out = numpy_generator(key), np.zeros(len(wanted), np.int32)
    for label in np.unique(wanted):
        of_class, new = total[labels == label].astype(float), wanted == label
        if len(of_class) < 2:
            raise ValueError(f"class {label} needs two training jets, got {len(of_class)}")
        if np.ptp(of_class) == 0:  # no density, but a number
            drawn = np.full(new.sum(), of_class[0])
        else:
            drawn = gaussian_kde(of_class).resample(new.sum(), rng)[0]
        out[new] = np.clip(np.rint(drawn), 1, largest)
    return out

"""Four-momenta of jets of massless constituents, in pure jnp, and what generated points lack."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jgen.arrays import cast_array, edge_array, finite_array
from jgen.checks import check_positive
from jgen.sets import count_array

_NEWTON_STEPS = 8


def jet_kinematics(points: Float[Array, "n 3"]) -> Float[Array, " 4"]:
    """(pT, eta, phi, mass) of the sum of massless constituents.

    Nothing large cancels in the mass: with the jet turned to phi = 0 and boosted to its centre in
    eta, E - px is a sum of small positive terms, and m^2 = (E - px) (E + px) - pz^2. Derivatives of
    what is not there, the mass of one point or all of no points, are zero.

    Args:
      points: (eta, phi, pT); rows of pT zero are padding. Of relative ones the jet's eta and phi
        are relative too, and its pT and mass in units of the pT that they are relative to.
    """
    eta, phi, pt = points.T
    total = jnp.sum(pt)
    centre = jnp.sum(pt * eta) / jnp.where(total > 0, total, 1)
    along, across = jnp.sum(pt * jnp.cos(phi)), jnp.sum(pt * jnp.sin(phi))
    jet_phi = jnp.arctan2(across, jnp.where((along == 0) & (across == 0), 1, along))
    eta, phi = eta - centre, phi - jet_phi
    px, pz = jnp.sum(pt * jnp.cos(phi)), jnp.sum(pt * jnp.sinh(eta))
    less = 2 * jnp.sum(pt * (jnp.sinh(eta / 2) ** 2 + jnp.sin(phi / 2) ** 2))
    square = less * (less + 2 * px) - pz**2
    # What is not a number is not gone: it stays so.
    light, gone = square <= 0, px <= 0
    mass = jnp.where(light, 0, jnp.sqrt(jnp.where(light, 1, square)))
    along = jnp.where(gone, 1, px)
    # It is the rapidity that boosts add to.
    rapidity = centre + jnp.arctanh(jnp.where(gone, 0, pz) / jnp.where(gone, 1, less + px))
    slope = jnp.where(gone, 0, jnp.hypot(1, mass / along) * jnp.sinh(rapidity))
    return jnp.stack([px, jnp.arcsinh(slope), jet_phi, mass])


def calibrated(
    points: Float[Array, "n 3"], pt: Float[Array, ""], mass: Float[Array, ""]
) -> Float[Array, "n 3"]:
    """Points of a jet, scaled so that it has a given pT and mass.

    All pT are multiplied by one number, and all distances in eta and phi to the pT-weighted axis,
    which stays, by another. The mass over pT rises with the second, of which it is nearly a
    multiple: Newton's steps of logarithms.

    For points that a model has drawn given both (2310.00049), which miss them by some percent. The
    paper leaves them as they are drawn.

    What has no mass, such as one point, keeps its angles, and what has no pT stays as it is. Both
    are reached to rounding, unless a mass that is many times that of the points, and above pT,
    sends some of them half a turn of phi away from the others.

    Args:
      points: (eta, phi, pT); rows of pT zero are padding, and pT may not be negative.
      pt: of the jet, in the same units; positive.
      mass: of the jet, in these too; with zero, angles stay. Where one of the two is less than that
        or NaN, as a model may draw them, all of the jet is NaN.
    """
    known = (pt > 0) & (mass >= 0)
    total, _, axis_phi, _ = jet_kinematics(points)
    weight = points[:, 2] / jnp.where(total > 0, jnp.sum(points[:, 2]), 1)
    turned = jnp.mod(points[:, 1] - axis_phi + jnp.pi, 2 * jnp.pi) - jnp.pi
    from_axis = jnp.stack([points[:, 0], turned], axis=1)
    from_axis = jnp.where(points[:, 2:] > 0, from_axis - (weight @ from_axis)[None], 0)

    def scaled(log_scale):
        moved = points[:, :2] + jnp.expm1(log_scale) * from_axis
        return jnp.concatenate([moved, points[:, 2:]], axis=1)

    def missing(log_scale):
        made = jet_kinematics(scaled(log_scale))
        return jnp.log(made[3] / mass) - jnp.log(made[0] / pt)

    def step(_, log_scale):
        value, slope = jax.jvp(missing, (log_scale,), (jnp.ones_like(log_scale),))
        change = value / slope
        return log_scale - jnp.where(jnp.isfinite(change), jnp.clip(change, -1, 1), 0)

    points = scaled(jax.lax.fori_loop(0, _NEWTON_STEPS, step, jnp.zeros((), points.dtype)))
    made = jet_kinematics(points)[0]
    factor = jnp.where(made > 0, pt / jnp.where(made > 0, made, 1), 1)
    return jnp.where(known, points.at[:, 2].multiply(factor), jnp.nan)


def finished(
    points: Float[np.ndarray, "num rows 3"],
    n: Int[np.ndarray, " num"],
    pt_range: tuple[float, float],
    *,
    centre: bool = False,
) -> Float[np.ndarray, "num rows 3"]:
    """Generated points as EPiC-GAN finishes them (2301.08128): outside of the model, on the host.

    Args:
      points: (eta, phi, pT) relative to the jet.
      n: numbers of points.
      pt_range: smallest and largest pT of the training jets, to which others are set. The paper
        has the floor alone; the ceiling is that of 2312.00123.
      centre: whether the jet's eta and phi are subtracted, as is published. Do not where the truth
        is not centred, as leading constituents about the axis of all are not.

    Returns:
      Points, sorted by falling pT.

    Raises:
      ValueError: for points that are not finite.
    """
    points = finite_array(points, "points", 3)
    check_positive(**{"the smallest pT": pt_range[0], "the largest pT": pt_range[1]})
    rows = np.arange(points.shape[1]) < count_array(n, *points.shape[:2])[:, None]
    points = cast_array(np.where(rows[..., None], points, 0), "points")
    points[..., 2] = np.where(rows, np.clip(points[..., 2], *pt_range), 0)
    if centre:
        axis = np.asarray(jax.vmap(jet_kinematics)(points))[:, None, 1:3]
        points[..., :2] = np.where(rows[..., None], points[..., :2] - axis, 0)
    order = np.argsort(-points[..., 2], axis=1, kind="stable")
    return np.take_along_axis(points, order[..., None], axis=1)


def mean_image(
    points: Float[np.ndarray, "num rows 3"], edges: Float[np.ndarray, " num_edges"]
) -> Float[np.ndarray, "_ _"]:
    """Mean pT of jets in cells of eta and phi.

    Args:
      points: (eta, phi, pT), relative; rows of pT zero are padding.
      edges: of the cells, in both directions; what is outside is left out.

    Raises:
      ValueError: for points of another shape, or that are not finite.
    """
    points, edges = finite_array(points, "points", 3), edge_array(edges)
    if points.shape[2] != 3:
        raise ValueError(f"jets are points [num, rows, 3], got the shape {points.shape}")
    eta, phi, pt = points.reshape(-1, 3).T
    return np.histogram2d(eta, phi, (edges, edges), weights=pt)[0] / len(points)

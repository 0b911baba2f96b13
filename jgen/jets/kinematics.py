"""Four-momenta of jets of massless constituents, in pure jnp, and what generated points lack."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jgen.arrays import cast_array, edge_array, finite_array
from jgen.checks import check_positive
from jgen.sets import count_array


def jet_kinematics(points: Float[Array, "n 3"]) -> Float[Array, " 4"]:
    """(pT, eta, phi, mass) of the sum of massless constituents.

    Nothing large cancels in the mass: with the jet turned to phi = 0 and boosted to its centre in
    eta, E - px is a sum of small positive terms, and m^2 = (E - px) (E + px) - pz^2.

    Args:
      points: (eta, phi, pT); rows of pT zero are padding. Of relative ones the jet's eta and phi
        are relative too, and its pT and mass in units of the pT that they are relative to.
    """
    eta, phi, pt = points.T
    total = jnp.sum(pt)
    centre = jnp.sum(pt * eta) / jnp.where(total > 0, total, 1)
    jet_phi = jnp.arctan2(jnp.sum(pt * jnp.sin(phi)), jnp.sum(pt * jnp.cos(phi)))
    eta, phi = eta - centre, phi - jet_phi
    px, pz = jnp.sum(pt * jnp.cos(phi)), jnp.sum(pt * jnp.sinh(eta))
    less = 2 * jnp.sum(pt * (jnp.sinh(eta / 2) ** 2 + jnp.sin(phi / 2) ** 2))
    mass = jnp.sqrt(jnp.maximum(less * (less + 2 * px) - pz**2, 0))
    # It is the rapidity that boosts add to.
    there, energy = px > 0, less + px
    rapidity = centre + jnp.arctanh(pz / jnp.where(there, energy, 1))
    slope = jnp.hypot(px, mass) * jnp.sinh(rapidity) / jnp.where(there, px, 1)
    return jnp.stack([px, jnp.arcsinh(slope), jet_phi, mass])


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

"""What is measured of a jet, and what a detector makes of it."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.arrays import finite_array
from jgen.checks import check_fraction
from jgen.jets.constituents import Constituents, in_order
from jgen.jets.kinematics import jet_kinematics
from jgen.jets.soft_drop import soft_drop
from jgen.jets.substructure import n_subjettiness
from jgen.random import numpy_generator
from jgen.typing import Key

OBSERVABLES = ("mass", "constituents", "width", "ln rho", "tau21", "z_g")
"""Columns of `jet_observables`; masses in units of the momenta."""
_LEAST_LOG_RHO = -14.0
_CHUNK = 1000


def jet_observable(
    points: Float[Array, "n 3"], least_share: float | Float[Array, ""] = 0.0
) -> Float[Array, " 6"]:
    """The six observables of OmniFold (1911.09107), Fig. 2, of one jet.

    Mass; number of constituents; width, sum pT dR / sum pT about the jet; ln rho = ln(m^2 / pT^2)
    of the soft-dropped mass (z_cut = 0.1, beta = 0) and the pT of all, at least -14, where nothing
    passes as well; tau_21, 0 for one constituent; z_g, 0 where nothing passes.

    Args:
      points: (eta, phi, pT), relative to the jet's eta and phi; rows of pT zero are padding.
      least_share: of the jet's pT that a constituent needs to be counted: where only leading ones
        are known, their number says nothing, but that of hard ones does.
    """
    eta, phi, pt = points.T
    there = pt > 0
    jet_pt, jet_eta, jet_phi, mass = jet_kinematics(points)
    jet_pt = jnp.where(jnp.any(there), jet_pt, 1)
    turned = jnp.mod(phi - jet_phi + jnp.pi, 2 * jnp.pi) - jnp.pi
    angle = jnp.hypot(eta - jet_eta, turned)
    width = jnp.sum(pt * angle) / jnp.where(jnp.any(there), jnp.sum(pt), 1)
    particles = jnp.stack([pt, eta, phi], axis=-1)
    groomed = soft_drop(particles)
    rho = (groomed.mass / jet_pt) ** 2
    one, two = n_subjettiness(particles, (1, 2))
    return jnp.stack(
        [
            mass,
            jnp.sum(there & (pt > least_share * jet_pt)),
            width,
            jnp.log(jnp.maximum(rho, jnp.exp(_LEAST_LOG_RHO))),
            jnp.where(one > 0, two / jnp.where(one > 0, one, 1), 0),
            groomed.z,
        ]
    )


def jet_observables(jets: Constituents, least_share: float = 0.0) -> Float[np.ndarray, "num 6"]:
    """`OBSERVABLES` of jets, masses in GeV; see `jet_observable`."""
    check_fraction(least_share=least_share)
    points = np.concatenate(
        [jets.points[..., :2], jets.points[..., 2:] * jets.jets[:, None, :1]], -1
    )
    found, size = [], min(_CHUNK, len(points))
    for first in range(0, len(points), size):
        # The last chunk repeats its last jet, so that it runs in the same program.
        rows = np.minimum(first + np.arange(size), len(points) - 1)
        found.append(np.asarray(_observables(points[rows], least_share))[: len(points) - first])
    return np.concatenate(found)


_observables = jax.jit(jax.vmap(jet_observable, (0, None)))


def smeared(jets: Constituents, key: Key) -> Constituents:
    """Jets after a simple detector.

    pT is smeared by 10 % / sqrt(pT / 10 GeV) and 2 % in quadrature, eta and phi by 0.01, and
    neutral constituents are lost below 2 GeV, as long as another is left. All normal and
    independent of each other.

    Raises:
      ValueError: for jets without charges.
    """
    if jets.charge is None:
        raise ValueError("the detector needs to know which constituents are charged; give charges")
    rng = numpy_generator(key)
    points = finite_array(jets.points, "points", 3)
    scale = jets.jets[:, :1].astype(np.float64)
    pt = points[..., 2] * scale
    there = pt > 0
    resolution = np.hypot(0.1 / np.sqrt(np.where(there, pt, 10) / 10), 0.02)
    # Nothing has a momentum of zero, which is that of padding.
    pt = np.where(there, np.maximum(pt * (1 + resolution * rng.normal(size=pt.shape)), 1e-3), 0)
    kept = there & ((jets.charge != 0) | (pt > 2))
    alone = ~kept.any(axis=1)
    kept[alone, np.argmax(pt[alone], axis=1)] = True
    angles = points[..., :2] + 0.01 * rng.normal(size=points[..., :2].shape)
    measured = np.concatenate([angles, (pt / scale)[..., None]], axis=-1)
    measured = np.where(kept[..., None], measured, 0).astype(np.float32)
    rest = {
        name: None if values is None else np.where(kept.reshape(*kept.shape, *more), values, 0)
        for name, more in (("pid", ()), ("charge", ()), ("impact", (1,)))
        for values in (getattr(jets, name),)
    }
    return in_order(jets._replace(points=measured, n=kept.sum(axis=1).astype(np.int32), **rest))

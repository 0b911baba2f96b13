"""The jet as a whole, as a condition of its constituents: log pT and log mass."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.arrays import finite_array
from jgen.bijectors import Bijector, standardize
from jgen.jets.kinematics import jet_kinematics
from jgen.sets import SetCondition, masked

WHOLE = 2
"""Numbers of the jet as a whole."""
_LEAST = 1e-3  # of a pT or mass, in units of the pT that points are relative to
_SOFTEST = 1e-5  # pT of a point
_FARTHEST = 2.0  # in eta and phi: there is no jet


def whole_jet(points: Float[Array, "n 3"]) -> Float[Array, " 2"]:
    """Log pT and log mass of the sum of points (eta, phi, pT), both at least log 0.001."""
    pt, _, _, mass = jet_kinematics(points)
    return jnp.log(jnp.maximum(jnp.stack([pt, mass]), _LEAST))


def whole_jets(points: Float[np.ndarray, "num rows 3"]) -> Float[np.ndarray, "num 2"]:
    """`whole_jet` of all jets, on the host.

    Raises:
      ValueError: for points of another shape, or that are not finite.
    """
    points = finite_array(points, "points", 3)
    if points.shape[2] != 3:
        raise ValueError(f"jets are points [num, rows, 3], got the shape {points.shape}")
    return np.asarray(jax.vmap(whole_jet)(points))


def whole_map(points: Float[np.ndarray, "num rows 3"]) -> Bijector:
    """`whole_jets` to numbers of mean zero and width one, those of training jets."""
    known = whole_jets(points)
    return standardize(known.mean(axis=0), known.std(axis=0))


def missed_whole(
    point_map: Bijector, whole_map: Bijector
) -> Callable[[Float[Array, "rows 3"], SetCondition], Float[Array, " 2"]]:
    """What points z miss of the pT and mass that are asked for, in widths of all jets.

    The last two numbers of the condition are asked, as `whole_map` scales them. For
    `jgen.nets.constrained`: points far off, or of negative pT, are moved to where a jet may have
    them before they are summed.

    Args:
      point_map: of the constituents, see `jgen.jets.point_map`.
      whole_map: of the pT and mass.

    Raises:
      ValueError: on a call, if the condition is no `SetCondition` with two numbers or more.
    """

    def missed(z, cond):
        numbers = cond.cond if isinstance(cond, SetCondition) else None
        if jnp.ndim(numbers) != 1 or len(numbers) < WHOLE:
            raise ValueError(
                "jets need a SetCondition whose last two numbers are log pT and log mass, as "
                f"whole_map scales them, got {cond!r:.80}"
            )
        points = masked(point_map.inverse(z, cond)[0], cond)
        angles = jnp.clip(points[:, :2], -_FARTHEST, _FARTHEST)
        pt = masked(jnp.maximum(points[:, 2:], _SOFTEST), cond)
        found = whole_jet(jnp.concatenate([angles, pt], axis=1))
        return whole_map.forward(found)[0] - numbers[-WHOLE:]

    return missed

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
_ROUNDING = 1e-5  # width of log pT or log mass


def whole_jet(points: Float[Array, "n 3"]) -> Float[Array, " 2"]:
    """Log pT and log mass of the sum of points (eta, phi, pT), both at least log 0.001.

    In the units of the points' pT, such as that of their jet.
    """
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
    """`whole_jets` to numbers of mean zero and width one, those of training jets.

    Raises:
      ValueError: as `whole_jets` does; if all jets have the same pT or the same mass.
    """
    known = whole_jets(points)
    width = known.std(axis=0, dtype=np.float64)
    if (width < _ROUNDING).any():
        raise ValueError(
            f"{len(known)} jets have log pT and log mass of the widths {width[0]:.2g} and "
            f"{width[1]:.2g}: what is the same for all cannot be asked of a jet; give jets that "
            "differ in both"
        )
    return standardize(known.mean(axis=0), known.std(axis=0))


def missed_whole(
    point_map: Bijector, whole_map: Bijector
) -> Callable[[Float[Array, "rows 3"], SetCondition], Float[Array, " 2"]]:
    """What points z miss of the pT and mass that are asked for, in widths of all jets.

    The last two numbers of the condition are asked, as `whole_map` scales them. For
    `jgen.nets.constrained`: points far off, or of negative pT, are moved to where a jet may have
    them before they are summed. Of jets with points [num, rows, 3] and numbers n of them [num]:

        maps = jets.point_map(points, n), jets.whole_map(points)
        asked = jax.vmap(maps[1].forward)(jets.whole_jets(points))[0]
        cond = SetCondition(n, asked)
        z = jax.vmap(maps[0].forward)(points, cond)[0]
        network = nets.constrained(nets.epic(3, 2 + 2), jets.missed_whole(*maps), 2)
        model = models.flow_matching(network, z.shape[1:])  # of Batch(z, cond)

    Args:
      point_map: what `jgen.jets.point_map` returns for the constituents.
      whole_map: what the function `whole_map` returns for the pT and mass.

    Returns:
      (z, condition) of one jet -> numbers [2].

    Raises:
      ValueError: on a call, if the condition is no `SetCondition` with two numbers or more.
    """

    def missed(z, cond):
        numbers = cond.cond if isinstance(cond, SetCondition) else None
        if np.ndim(numbers) != 1 or len(numbers) < WHOLE:
            raise ValueError(
                "a jet needs a SetCondition whose last two numbers are log pT and log mass, as "
                f"whole_map scales them, got {cond!r:.80}; of many jets take jax.vmap"
            )
        points = masked(point_map.inverse(z, cond)[0], cond)
        angles = jnp.clip(points[:, :2], -_FARTHEST, _FARTHEST)
        pt = masked(jnp.maximum(points[:, 2:], _SOFTEST), cond)
        found = whole_jet(jnp.concatenate([angles, pt], axis=1))
        return whole_map.forward(found)[0] - numbers[-WHOLE:]

    return missed

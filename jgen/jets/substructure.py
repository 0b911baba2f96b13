"""N-subjettiness of one jet with exclusive-kT axes (1011.2268), in pure jnp."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jgen.arrays import finite_array
from jgen.checks import check_positive, check_wholes


def n_subjettiness(
    constituents: Float[Array, "n 3"], nums: tuple[int, ...] = (1, 2, 3), radius: float = 0.8
) -> Float[Array, " nums"]:
    """tau_N = sum_k pT_k min_a dR(a, k) / (radius sum_k pT_k), over axes a = 1..N (Eqs. 1 and 2).

    The axes are the N exclusive kT subjets (hep-ph/9305266): the pair with the smallest
    min(pT_i, pT_j)^2 dR_ij^2 is added, as four-vectors, until N are left; there is no beam. They
    are not moved afterwards to minimise tau_N, which the paper leaves to the reader. A jet of N
    constituents or fewer has tau_N = 0.

    Args:
      constituents: (pT [GeV], eta, phi [radians]) of massless particles, of which eta and phi may
        be relative to the jet; rows of pT zero are padding.
      nums: numbers of axes.
      radius: of the jet.

    Raises:
      ValueError: if a number of axes or the radius is not positive, or constituents are not [n, 3].
    """
    check_wholes(nums=nums)
    check_positive(radius=radius)
    vectors, there = pseudojets(constituents)
    pt = jnp.where(there, jnp.asarray(constituents)[:, 0], 0)
    # The same particles as four-vectors, of which those below are sums.
    place = place_of(vectors)[:, 1:]
    total = jnp.sum(pt)
    norm = radius * jnp.where(total > 0, total, 1)
    state, taus = (vectors, there, distances(vectors, there, kt_distance), ()), {}
    for num in sorted(set(nums), reverse=True):
        state = cluster(state, num, kt_distance)
        axes, alive, *_ = state
        to_axes = jnp.where(
            alive, squared_angle(place[:, None], place_of(axes)[None, :, 1:]), jnp.inf
        )
        nearest = jnp.sqrt(jnp.min(to_axes, axis=1))
        # Without particles there is no axis, and the distance to it is infinite.
        taus[num] = jnp.sum(jnp.where(there, pt * nearest, 0)) / norm
    return jnp.stack([taus[num] for num in nums])


def pseudojets(constituents: Float[Array, "n 3"]) -> tuple[Float[Array, "n 4"], Bool[Array, " n"]]:
    """Constituents as vectors (E + pz, px, py, E - pz), and which of them are no padding.

    Raises:
      ValueError: if they are not [n, 3] or not finite.
    """
    if np.ndim(constituents) != 2 or np.shape(constituents)[1] != 3:
        raise ValueError(
            f"constituents need the shape [n, 3], got {np.shape(constituents)}; use jax.vmap for "
            "many jets"
        )
    if not isinstance(constituents, jax.core.Tracer):
        finite_array(constituents, "constituents")
    constituents = jnp.asarray(constituents)
    pt, eta, phi = constituents.T
    there = pt > 0
    # Light-cone momenta E + pz and E - pz add up without the cancellation of E - |pz|, which eats
    # all digits of float32 in forward jets.
    vectors = pt[:, None] * jnp.stack(
        [jnp.exp(eta), jnp.cos(phi), jnp.sin(phi), jnp.exp(-eta)], axis=-1
    )
    return vectors, there


Distance = Callable[[Float[Array, "*#n 3"], Float[Array, "*#n 3"]], Float[Array, "*n"]]
"""Of two pseudojets at (pT, rapidity, phi)."""


def cluster(
    state: tuple,
    num: int,
    distance: Distance,
    combine: Callable[[Array, Array, Array, Array], Array] | None = None,
) -> tuple:
    """Merge the closest pair until `num` pseudojets are left, each in the row of one it is of.

    Args:
      state: (vectors [n, 4], alive [n], distances [n, n], carried [n, ...] or ()).
      num: pseudojets to leave.
      distance: of two pseudojets.
      combine: (vector, vector, carried, carried) of the two -> what the merged one carries.
    """

    def merge(_, state):
        vectors, alive, distances, carried = state
        n = len(vectors)
        # Row by row: one argmin over all pairs takes many times as long on a CPU.
        first = jnp.argmin(jnp.min(distances, axis=1))
        second = jnp.argmin(distances[first])
        go_on = jnp.sum(alive) > num
        is_first = (jnp.arange(n) == first) & go_on
        is_second = (jnp.arange(n) == second) & go_on
        if combine is not None:
            both = (vectors[first], vectors[second], carried[first], carried[second])
            carried = jnp.where(is_first[:, None], combine(*both)[None], carried)
        added = jnp.sum(jnp.where((is_first | is_second)[:, None], vectors, 0), axis=0)
        vectors = jnp.where(is_first[:, None], added[None], vectors)
        alive = alive & ~is_second
        row = distance(place_of(added), place_of(vectors))
        row = jnp.where(alive & ~is_first, row, jnp.inf)
        gone = is_second[:, None] | is_second[None]
        distances = jnp.where(is_first[:, None], row[None], distances)
        distances = jnp.where(is_first[None], row[:, None], distances)
        return vectors, alive, jnp.where(gone, jnp.inf, distances), carried

    # Fewer are left where the caller clustered before; the surplus rounds do nothing.
    return jax.lax.fori_loop(0, max(len(state[0]) - num, 0), merge, state)


def place_of(vectors: Float[Array, "*n 4"]) -> Float[Array, "*n 3"]:
    """(pT, rapidity, phi) of vectors (E + pz, px, py, E - pz); finite for a vector of zeros."""
    plus, px, py, minus = jnp.moveaxis(vectors, -1, 0)
    plus, minus = (jnp.where(p > 0, p, 1) for p in (plus, minus))
    rapidity = 0.5 * (jnp.log(plus) - jnp.log(minus))
    return jnp.stack([jnp.hypot(px, py), rapidity, jnp.arctan2(py, px)], axis=-1)


def squared_angle(a: Float[Array, "*#n 2"], b: Float[Array, "*#n 2"]) -> Float[Array, "*n"]:
    """Squared distance in (rapidity, phi)."""
    phi = jnp.mod(a[..., 1] - b[..., 1] + jnp.pi, 2 * jnp.pi) - jnp.pi
    return (a[..., 0] - b[..., 0]) ** 2 + phi**2


def kt_distance(a: Float[Array, "*#n 3"], b: Float[Array, "*#n 3"]) -> Float[Array, "*n"]:
    """min(pT)^2 dR^2, of the kT algorithm."""
    least = jnp.minimum(a[..., 0], b[..., 0])
    return least**2 * squared_angle(a[..., 1:], b[..., 1:])


def distances(
    vectors: Float[Array, "n 4"], there: Bool[Array, " n"], distance: Distance
) -> Float[Array, "n n"]:
    """Of all pairs; infinite to itself and to padding."""
    place = place_of(vectors)
    found = distance(place[:, None], place[None])
    pairs = there[:, None] & there[None] & ~jnp.eye(len(there), dtype=bool)
    return jnp.where(pairs, found, jnp.inf)

"""Soft drop of one jet (1402.2657), in pure jnp."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.checks import check_finite, check_positive
from jgen.jets.substructure import cluster, distances, place_of, pseudojets, squared_angle


class Groomed(NamedTuple):
    """What is left of a jet.

    Attributes:
      z: of the splitting that passed, the softer side's share of pT; 0 where none did.
      angle: between its sides, in (rapidity, phi).
      pt: of what is left, in the units of the constituents; where nothing passed, of the hardest
        constituent on the way.
      mass: of what is left, in the same units.
    """

    z: Float[Array, ""]
    angle: Float[Array, ""]
    pt: Float[Array, ""]
    mass: Float[Array, ""]


def soft_drop(
    constituents: Float[Array, "n 3"],
    z_cut: float = 0.1,
    beta: float = 0.0,
    radius: float = 0.8,
) -> Groomed:
    """Groom a jet: undo its Cambridge/Aachen clustering until z > z_cut (dR / radius)^beta.

    Softer sides of splittings that fail are dropped (1402.2657, Eq. 1.1; beta = 0 is the modified
    mass drop of 1307.0007). It is computed on the way up: a pseudojet that is made of two carries
    its own splitting if that passes, and else what its harder side carries.

    Args:
      constituents: (pT, eta, phi [radians]) of massless particles, of which eta and phi may be
        relative to the jet; rows of pT zero are padding.
      z_cut: smallest share of pT.
      beta: power of the angle.
      radius: of the jet.

    Raises:
      ValueError: for other shapes or parameters out of range.
    """
    check_positive(z_cut=z_cut, radius=radius)
    check_finite(beta=beta)
    vectors, there = pseudojets(constituents)
    nothing = jnp.zeros(len(vectors))
    carried = jnp.stack([nothing, nothing, place_of(vectors)[:, 0], nothing], axis=-1)

    def combine(one, other, of_one, of_other):
        """The merged pseudojet's (z, angle, pT, mass)."""
        places = place_of(jnp.stack([one, other]))
        z = jnp.min(places[:, 0]) / jnp.sum(places[:, 0])
        angle = jnp.sqrt(squared_angle(*places[:, 1:]))
        plus, px, py, minus = one + other
        mass = jnp.sqrt(jnp.maximum(plus * minus - px**2 - py**2, 0))
        split = jnp.stack([z, angle, jnp.hypot(px, py), mass])
        harder = jnp.where(places[0, 0] >= places[1, 0], of_one, of_other)
        return jnp.where(z > z_cut * (angle / radius) ** beta, split, harder)

    distance = lambda a, b: squared_angle(a[..., 1:], b[..., 1:])
    state = (vectors, there, distances(vectors, there, distance), carried)
    _, alive, _, carried = cluster(state, 1, distance, combine)
    return Groomed(*carried[jnp.argmax(alive)])

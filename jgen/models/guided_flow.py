"""Inverse autoregressive flows that learn to be a masked autoregressive flow (CaloFlow v2).

The teacher has its density in one pass, the student its samples: 2210.14245, Sec. 3.2, probability
density distillation guided by what is between the layers. It needs no likelihood of the student.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.bijectors import Element
from jgen.bijectors.elements import on_components
from jgen.nets import CausalNetwork
from jgen.random import normal
from jgen.typing import Cond, Key, Params


class Layers(NamedTuple):
    """The layers of `jgen.bijectors.autoregressive_flow` and its inverse sibling.

    Attributes:
      network: of one layer.
      element: of the teacher's forward direction.
      num: components.
    """

    network: CausalNetwork
    element: Element
    num: int


class Guides(NamedTuple):
    """What a flow goes through between an event and its normal numbers.

    Attributes:
      states: before each of the teacher's layers, the event first.
      raw: numbers that the networks make in each.
    """

    states: Float[Array, "depth num"]
    raw: Float[Array, "depth num params"]


def teacher_pass(
    layers: Layers, params: Params, x: Float[Array, " num"], cond: Cond = None
) -> tuple[Float[Array, " num"], Guides]:
    """From an event to its normal numbers, by parameters of an `autoregressive_flow`."""

    def layer(x, p):
        raw = layers.network.contexts(p[0], x, cond)
        z = on_components(layers.element.forward, raw, x, layers.element.num_params)[0]
        return jnp.flip(z), Guides(x, raw)

    return jax.lax.scan(layer, x, params)


def student_pass(
    layers: Layers, params: Params, z: Float[Array, " num"], cond: Cond = None
) -> tuple[Float[Array, " num"], Guides]:
    """From normal numbers to an event, by parameters of an `inverse_autoregressive_flow`.

    The guides are in the order of the teacher's layers, so the first state is the event.
    """

    def layer(z, p):
        z = jnp.flip(z)
        raw = layers.network.contexts(p[0], z, cond)
        x = on_components(layers.element.inverse, raw, z, layers.element.num_params)[0]
        return x, Guides(x, raw)

    return jax.lax.scan(layer, z, params, reverse=True)


def guided_loss(
    layers: Layers,
    teacher: Params,
    params: Params,
    key: Key,
    x: Float[Array, " num"],
    cond: tuple[Cond, Cond] = (None, None),
) -> Float[Array, ""]:
    """How far a student is from its teacher, for one event and for one draw of noise.

    Half of it is of the event x: the teacher makes normal numbers of it, of which the student makes
    an event again. The other half is of noise: the student makes an event, and the teacher normal
    numbers of that. Both compare squares of all states, and of all that the networks make
    ("fully guided"), layer with layer. Deviations: means over components in place of sums, and the
    conditions of both halves are those of the data, where the published noise has conditions that
    the first student generates.

    Args:
      layers: of both flows.
      teacher: parameters of an `autoregressive_flow`.
      params: of the `inverse_autoregressive_flow`.
      key: of the noise.
      x: an event.
      cond: condition, as the teacher's layers and as the student's layers are given it.
    """

    def distance(a: Guides, b: Guides):
        return jnp.mean((a.states - b.states) ** 2) + jnp.mean((a.raw - b.raw) ** 2)

    z, known = teacher_pass(layers, teacher, x, cond[0])
    of_data = distance(student_pass(layers, params, z, cond[1])[1], known)
    noise = normal(key, (layers.num,))
    made, guides = student_pass(layers, params, noise, cond[1])
    again, known = teacher_pass(layers, teacher, made, cond[0])
    of_noise = distance(guides, known) + jnp.mean((again - noise) ** 2)
    return 0.5 * (of_data + of_noise)

"""The flows of a trained CaloDREAM as velocity fields, such as bespoke solvers are trained on.

flow = calodream.shape_flow(trained, cond, key)
training = bespoke_training(*flow[:4])
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.random import member_keys, normal
from jgen.showers.calodream.model import training_data
from jgen.showers.calodream.trained import Trained
from jgen.showers.data import Showers
from jgen.typing import Key, Params, PyTree


class Flow(NamedTuple):
    """A velocity field, with starts and conditions of trajectories.

    Attributes:
      velocity: (params, t, x, cond) -> dx/dt of one trajectory.
      params: of the network.
      x0: starts [trajectories, *x].
      cond: conditions, leading axis trajectories.
      per_shower: trajectories that belong to one shower; they follow each other.
    """

    velocity: Callable[[Params, Array, Array, PyTree], Array]
    params: Params
    x0: Float[Array, "trajectories ..."]
    cond: PyTree
    per_shower: int = 1


def energy_flow(trained: Trained, showers: Showers, key: Key) -> Flow:
    """The flow of the layer energies, at true showers.

    Of the parallel network it is that of all ratios. The autoregressive one has a one-dimensional
    flow for each layer, which differ in their contexts only, so one solver serves all of them; the
    contexts are those of the true ratios of the layers before (teacher forcing).
    """
    part, params = trained.parts["energy"], trained.params["energy"]
    batch = training_data(showers, trained.preprocessing).energy
    x0 = _noise(key, len(batch.x), part.shape)
    if trained.config.energies == "parallel":
        return Flow(part.network.apply, params, x0, jnp.asarray(batch.cond))
    network = part.network

    def velocity(params, t, x, context):
        return network.velocity(params, network.embed_time(params, t), x, context)

    contexts = jax.jit(jax.vmap(network.contexts, in_axes=(None, 0, 0)))
    rows = contexts(params, batch.x, batch.cond).reshape(x0.size, -1)
    return Flow(velocity, params, x0.reshape(-1), rows, per_shower=part.shape[0])


def shape_flow(trained: Trained, cond: Float[np.ndarray, "showers num_cond"], key: Key) -> Flow:
    """The flow of the shapes, in voxels or latents, at conditions of the shape network."""
    part = trained.parts["shape"]
    x0 = _noise(key, len(cond), part.shape)
    return Flow(part.network.apply, trained.params["shape"], x0, jnp.asarray(cond))


def _noise(key: Key, num: int, shape: tuple[int, ...]) -> Array:
    return jax.jit(jax.vmap(lambda k: normal(k, shape)))(member_keys(key, num))

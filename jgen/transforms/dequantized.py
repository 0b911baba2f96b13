"""Models of dequantised levels that train on other noise at every step."""

import jax
import jax.numpy as jnp

from jgen.checks import check_whole
from jgen.generative_model import GenerativeModel, loss_at


def dequantized(model: GenerativeModel, num_levels: int) -> GenerativeModel:
    """The same model, whose loss takes the level of each component and adds the noise of this step.

    Where events are few, networks would learn noise that stays for good by heart. Events are
    (level + noise) / num_levels, as `jgen.bijectors.dequantize` makes them; the noise that they
    come with is replaced.

    Args:
      model: of events that are an array.
      num_levels: levels of a component.

    Raises:
      ValueError: if `num_levels` is no positive whole number.
    """
    check_whole(num_levels=num_levels)

    def loss(params, key, batch, progress=1.0):
        key_noise, key_loss = jax.random.split(key)
        u = jax.random.uniform(key_noise, (batch.x.size,), maxval=1 - 1e-6).reshape(batch.x.shape)
        x = (jnp.floor(num_levels * batch.x) + u) / num_levels
        return loss_at(model, params, key_loss, batch._replace(x=x), progress)

    return model._replace(loss=loss)

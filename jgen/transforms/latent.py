"""Models in the latent space of an autoencoder."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jgen.generative_model import GenerativeModel, loss_at, num_events
from jgen.models.parts import check_autoencoder, shape_of_events
from jgen.models.vae import Autoencoder, reparametrize
from jgen.typing import Cond, Params


def latent(
    model: GenerativeModel,
    autoencoder: Autoencoder,
    autoencoder_params: Params,
    *,
    condition: Callable[[Cond], Cond] = lambda cond: cond,
) -> GenerativeModel:
    """Generate in the latent space of a trained autoencoder (2405.09629, Sec. 3.3, Eqs. 13-14).

    The loss trains `model` on r = mu + sigma z, with a z of its own for every event and step: the
    target is the encoder's distribution, not its mean. Samples of r are decoded to the likelihood's
    mean. Parameters are those of `model`; the autoencoder's are constants of the returned
    functions, so nothing can train them. There is no `log_prob`: x has more dimensions than r.

    As published, r is not standardised. Where its scale is far from one, hand over
    `preprocessed(model, standardize(mean, std))`.

    Args:
      model: of r, an array of the autoencoder's latent shape.
      autoencoder: between x and r.
      autoencoder_params: its trained parameters, of one member.
      condition: makes the model's condition from the autoencoder's; the same unless given.

    Raises:
      ValueError: if the shapes of `autoencoder_params` are not those of the autoencoder, or the
        model's events are no latents of it.
    """
    expected = jax.eval_shape(autoencoder.init, jax.random.key(0))
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)
    if shapes(expected) != shapes(autoencoder_params):
        raise ValueError(
            "autoencoder_params do not have the shapes of the autoencoder's parameters; take those "
            "of one member, of an autoencoder of the same configuration"
        )
    r = shape_of_events(model)
    if hasattr(r, "shape"):
        check_autoencoder(autoencoder, r.shape)
    # On the host, so that they follow the training to whatever devices it runs on.
    frozen = jax.tree.map(np.asarray, autoencoder_params)

    def encode(key, x, cond):
        return reparametrize(key, *autoencoder.encode(frozen, x, cond)), condition(cond)

    def decode(r, cond):
        return autoencoder.likelihood.mean(autoencoder.decode(frozen, r, cond))

    def loss(params, key, batch, progress=1.0):
        key_z, key_model = jax.random.split(key)
        keys = jax.random.split(key_z, num_events(batch.x))
        r, cond = jax.vmap(encode)(keys, batch.x, batch.cond)
        return loss_at(model, params, key_model, batch._replace(x=r, cond=cond), progress)

    def sample(params, key, cond=None):
        cond = jax.tree.map(jnp.asarray, cond)
        return decode(model.sample(params, key, condition(cond)), cond)

    def noise(key, cond=None):
        return model.noise(key, condition(jax.tree.map(jnp.asarray, cond)))

    def sample_from(params, noise, cond=None):
        cond = jax.tree.map(jnp.asarray, cond)
        return decode(model.sample_from(params, noise, condition(cond)), cond)

    plain = GenerativeModel(model.init, loss, sample)
    return plain._replace(noise=noise, sample_from=sample_from) if model.noise else plain

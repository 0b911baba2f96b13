"""Another space for a model, and two models as one."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jgen.bijectors import Bijector
from jgen.generative_model import GenerativeModel, loss_at
from jgen.typing import Cond, PyTree


def preprocessed(
    model: GenerativeModel,
    bijector: Bijector,
    condition: Callable[[Cond], Cond] = lambda cond: cond,
) -> GenerativeModel:
    """Train `model` in preprocessed space, sample and score in the physical one.

    `condition` turns the physical condition, which the bijector sees, into the model's.

    The loss preprocesses in the precision of the batch. Where that is not enough (logits of
    energies in float32), preprocess in float64 on the host and train `model` itself: both have the
    same parameters. `log_prob` includes the log-determinant; it is None without one.
    """

    def loss(params, key, batch, progress=1.0):
        one = lambda x, cond: (bijector.forward(x, cond)[0], condition(cond))
        z, cond = jax.vmap(one)(batch.x, batch.cond)
        return loss_at(model, params, key, batch._replace(x=z, cond=cond), progress)

    def sample(params, key, cond=None):
        cond = jax.tree.map(jnp.asarray, cond)
        return bijector.inverse(model.sample(params, key, condition(cond)), cond)[0]

    def log_prob(params, key, x, cond=None):
        cond = jax.tree.map(jnp.asarray, cond)
        z, log_det = bijector.forward(x, cond)
        return model.log_prob(params, key, z, condition(cond)) + log_det

    def both(params, key, cond=None):
        cond = jax.tree.map(jnp.asarray, cond)
        z, log_q = model.sample_and_log_prob(params, key, condition(cond))
        x, log_det = bijector.inverse(z, cond)
        return x, log_q - log_det

    def noise(key, cond=None):
        return model.noise(key, condition(jax.tree.map(jnp.asarray, cond)))

    def sample_from(params, noise, cond=None):
        cond = jax.tree.map(jnp.asarray, cond)
        return bijector.inverse(model.sample_from(params, noise, condition(cond)), cond)[0]

    return GenerativeModel(
        model.init,
        loss,
        sample,
        log_prob if bijector.has_log_det and model.log_prob else None,
        both if bijector.has_log_det and model.sample_and_log_prob else None,
        noise if model.noise else None,
        sample_from if model.noise else None,
    )


def chain(
    first: GenerativeModel,
    second: GenerativeModel,
    condition: Callable[[Cond, PyTree], Cond] = lambda cond, a: (cond, a),
    names: tuple[str, str] = ("first", "second"),
) -> GenerativeModel:
    """The factorised model p(a, b | c) = p(a | c) p(b | a, c) of events x = (a, b).

    Args:
      first: model of a given c.
      second: model of b given `condition(c, a)`.
      condition: makes the second model's condition; the pair (c, a) unless given.
      names: of both models among the parameters.

    Returns:
      A model with the parameters of both by these names; its loss is the sum of both, so that
      training it is the same as training each part alone.
    """
    name_a, name_b = names

    def init(key):
        key_a, key_b = jax.random.split(key)
        return {name_a: first.init(key_a), name_b: second.init(key_b)}

    def loss(params, key, batch, progress=1.0):
        key_a, key_b = jax.random.split(key)
        a, b = batch.x
        cond_b = jax.vmap(condition)(batch.cond, a)
        batch_a = batch._replace(x=a)
        batch_b = batch._replace(x=b, cond=cond_b)
        loss_a = loss_at(first, params[name_a], key_a, batch_a, progress)
        return loss_a + loss_at(second, params[name_b], key_b, batch_b, progress)

    def sample(params, key, cond=None):
        key_a, key_b = jax.random.split(key)
        a = first.sample(params[name_a], key_a, cond)
        return a, second.sample(params[name_b], key_b, condition(cond, a))

    def log_prob(params, key, x, cond=None):
        key_a, key_b = jax.random.split(key)
        a, b = x
        log_a = first.log_prob(params[name_a], key_a, a, cond)
        return log_a + second.log_prob(params[name_b], key_b, b, condition(cond, a))

    def both(params, key, cond=None):
        key_a, key_b = jax.random.split(key)
        a, log_a = first.sample_and_log_prob(params[name_a], key_a, cond)
        b, log_b = second.sample_and_log_prob(params[name_b], key_b, condition(cond, a))
        return (a, b), log_a + log_b

    def noise(key, cond=None):
        key_a, key_b = jax.random.split(key)
        noise_a = first.noise(key_a, cond)
        # The second's condition is not known yet, but its shapes are.
        make = lambda params: condition(cond, first.sample_from(params, noise_a, cond))
        cond_b = jax.eval_shape(make, jax.eval_shape(first.init, key))
        zeros = jax.tree.map(lambda c: jnp.zeros(c.shape, c.dtype), cond_b)
        return {"first": noise_a, "second": second.noise(key_b, zeros)}

    def sample_from(params, noise, cond=None):
        a = first.sample_from(params[name_a], noise["first"], cond)
        cond_b = condition(cond, a)
        return a, second.sample_from(params[name_b], noise["second"], cond_b)

    declared = first.noise and second.noise
    return GenerativeModel(
        init,
        loss,
        sample,
        log_prob if first.log_prob and second.log_prob else None,
        both if first.sample_and_log_prob and second.sample_and_log_prob else None,
        noise if declared else None,
        sample_from if declared else None,
    )

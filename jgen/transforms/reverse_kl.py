"""Training without data: the reverse Kullback-Leibler divergence to a Boltzmann density."""

from typing import Literal

import jax
import jax.numpy as jnp

from jgen.checks import check_known, check_not_negative, check_positive
from jgen.generative_model import Batch, GenerativeModel, loss_at, num_events
from jgen.typing import Energy, Schedule


def reverse_kl(
    model: GenerativeModel,
    energy: Energy,
    *,
    temperature: float | Schedule = 1.0,
    likelihood: float | Schedule = 0.0,
    gradient: Literal["total", "path"] = "total",
) -> GenerativeModel:
    """The model q with the loss E_q[log q(x) + U(x) / T] (Boltzmann generators, 1812.01729).

    That is KL(q || exp(-U / T) / Z) - log Z: its least value is -log Z.

        model = flow(coupling_flow(2, affine(), depth=8), 2)
        fitted = fit(reverse_kl(model, energy), None, key, config)

    The loss makes as many events as the batch has and looks at data only for the likelihood: train
    with data None, or with a `Batch(None, cond)` of conditions that the energy depends on.
    A mode that q does not reach is invisible to it: see `jgen.inference` for what shows one.

    Args:
      model: one whose samples are differentiable in its parameters, with a `log_prob`.
      energy: (x, cond) -> U in units of kT, for one event.
      temperature: T, or a schedule of it; from a high one, modes are reached before they are apart.
      likelihood: weight w in [0, 1] of the model's own loss, maximum likelihood of the batch's
        events, in (1 - w) KL + w loss; or a schedule of it.
      gradient: "total", or "path", which leaves out the derivative of log q by the parameters at
        fixed x (1703.09194, 2207.08219): zero on average, so that the gradient stays unbiased, and
        its noise vanishes as q becomes the target. It needs sample and log_prob, one after another,
        where "total" takes a model's `sample_and_log_prob`.

    Raises:
      ValueError: if the model has no density, or a number is out of range; in training, if there
        is a likelihood and no data.
    """
    _check(model, temperature, likelihood, gradient)

    def one(params, key, cond, temperature):
        key_x, key_density = jax.random.split(key)
        if model.sample_and_log_prob is not None and gradient == "total":
            x, log_q = model.sample_and_log_prob(params, key_x, cond)
        else:
            x = model.sample(params, key_x, cond)
            scored = jax.lax.stop_gradient(params) if gradient == "path" else params
            log_q = model.log_prob(scored, key_density, x, cond)
        return log_q + energy(x, cond) / temperature

    def loss(params, key, batch: Batch, progress=1.0):
        key_model, key_data = jax.random.split(key)
        at = lambda schedule: schedule(progress) if callable(schedule) else schedule
        keys = jax.random.split(key_model, num_events(batch))
        terms = jax.vmap(one, in_axes=(None, 0, 0, None))
        values = terms(params, keys, batch.cond, at(temperature))
        # Weights are those of conditions.
        divergence = jnp.mean(values if batch.weight is None else batch.weight * values)
        if not callable(likelihood) and likelihood == 0:
            return divergence
        if batch.x is None:
            raise ValueError("a likelihood needs data; train with events or with likelihood=0")
        weight = at(likelihood)
        return (1 - weight) * divergence + weight * loss_at(
            model, params, key_data, batch, progress
        )

    return model._replace(loss=loss)


def _check(model, temperature, likelihood, gradient):
    if model.log_prob is None:
        raise ValueError("reverse_kl needs a model with a log_prob, which this one has not")
    if not callable(temperature):
        check_positive(temperature=temperature)
    if not callable(likelihood):
        check_not_negative(likelihood=likelihood)
        if likelihood > 1:
            raise ValueError(f"the weight of the likelihood must be in [0, 1], got {likelihood}")
    check_known(("total", "path"), gradient=gradient)

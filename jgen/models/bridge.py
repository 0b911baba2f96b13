"""Diffusion bridges from one distribution to another, trained on pairs (2302.05872, 2308.12351)."""

import jax
import jax.numpy as jnp

from jgen.checks import check_positive, check_shape
from jgen.generative_model import GenerativeModel, from_noise, mean_loss
from jgen.models.parts import applied, check_prediction_network
from jgen.nets.network import NetworkLike, as_network
from jgen.random import normal
from jgen.solvers.sampler import check_steps


def bridge(
    network: NetworkLike, shape: int | tuple[int, ...], sigma: float, *, steps: int = 50
) -> GenerativeModel:
    """From the condition, which is where an event starts, to an event of the same shape.

    Trained on pairs of a start c (the batch's condition) and an end x (its events), between which
    Brownian bridges run, x_t = (1 - t) c + t x + sigma sqrt(t (1 - t)) noise. The network learns
    the drift, the mean of (x - x_t) / (1 - t), and events follow dx = network dt + sigma dW from c
    at t = 0, in equal Euler-Maruyama steps.

    A network with a condition is shown the start as well: events then have the distribution
    p(x | c) of the pairs, whatever sigma (2311.06978). One without a condition sees x_t and t
    alone, so that the process is Markov: the starts of the training are then mapped onto its
    events, but pairs stay what they were only if they are those of the Schroedinger bridge of
    this sigma (2303.16852). For c = x + normal noise of width s, sigma = s makes them so.

    Deviation from 2302.05872: sigma is constant, and steps are those of the SDE, not of the
    posterior given the predicted end, which ends with less variance than it should. The loss is
    (1 - t) times the squared error, whose noise is then of one size at all times.

    Args:
      network: apply(params, t, x_t, c or None) -> array of x's shape; `num_cond` 0 for None.
      shape: of an event and of its start.
      sigma: width of the noise at time one without a bridge, in units of the events.
      steps: of the sampler.

    Raises:
      ValueError: for a shape, width or number of steps that cannot be.
    """
    network, shape = as_network(network), check_shape(shape)
    check_prediction_network(network, shape)
    check_positive(sigma=sigma)
    check_steps(steps)

    def drift(params, t, x, start):
        return applied(network, params, t, x, None if network.num_cond == 0 else start)

    def loss(params, key, batch):
        def single(key, x, start):
            key_t, key_x = jax.random.split(key)
            t = jax.random.uniform(key_t)
            noise = normal(key_x, x.shape, x.dtype)
            at = (1 - t) * start + t * x + sigma * jnp.sqrt(t * (1 - t)) * noise
            error = drift(params, t, at, start) - (x - at) / (1 - t)
            return (1 - t) * jnp.mean(error**2)

        return mean_loss(single, key, batch)

    def noise(key, cond=None):
        return normal(key, (steps, *shape))

    def sample_from(params, noise, cond):
        def step(x, given):
            t, increment = given
            moved = drift(params, t, x, cond) / steps
            return x + moved + sigma * jnp.sqrt(1 / steps) * increment, None

        start = jnp.asarray(cond, noise.dtype).reshape(shape)
        return jax.lax.scan(step, start, (jnp.arange(steps) / steps, noise))[0]

    return from_noise(network.init, loss, noise, sample_from)

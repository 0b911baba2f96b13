"""Distributions of x with independent components, whose parameters a decoder makes."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jgen.bijectors.distrax import density
from jgen.checks import check_positive
from jgen.nets.network import Network, NetworkLike, as_network
from jgen.random import normal
from jgen.typing import Key, PyTree


class Likelihood(NamedTuple):
    """Family of the decoder p(x | r), all components of x independent.

    Attributes:
      log_prob: (parameters, x) -> log-likelihood in nats, summed over x.
      mean: (parameters) -> mean of x.
      noise: (key, parameters) -> random numbers of one x; parameters are asked for their shapes.
      sample: (noise, parameters) -> x.
    """

    log_prob: Callable[[PyTree, Array], Array]
    mean: Callable[[PyTree], Array]
    noise: Callable[[Key, PyTree], Array]
    sample: Callable[[Array, PyTree], Array]


def bernoulli() -> Likelihood:
    """Bernoulli likelihood of x in [0, 1], parametrised by logits; minus it is the BCE.

    Fractions are allowed (2405.09629, Eq. A.1). The result is then no normalised density of x, so
    values compare models of the same data only.
    """

    def noise(key, logits):
        return jax.random.uniform(key, (logits.size,)).reshape(logits.shape)

    def sample(noise, logits):
        return (noise < jax.nn.sigmoid(logits)).astype(logits.dtype)

    # x log sigmoid(l) + (1 - x) log sigmoid(-l), without its cancellations.
    def log_prob(logits, x):
        _check_shapes(logits, x)
        return jnp.sum(x * logits - jax.nn.softplus(logits))

    return Likelihood(log_prob, jax.nn.sigmoid, noise, sample)


def gaussian(scale: float | None = 1.0) -> Likelihood:
    """Normal likelihood of standard deviation `scale` in every component, or of a learned one.

    With None the decoder gives the pair (mean, log_scale), where log_scale is one number (see
    `with_width`) or has x's shape. A width of its own for every x leaves the likelihood without
    bound where the mean meets an event exactly; one number for all of them is safe.

    Raises:
      ValueError: if `scale` is not positive.
    """
    if scale is None:
        return _gaussian_of_learned_width()
    check_positive(scale=scale)

    def log_prob(mean, x):
        _check_shapes(mean, x)
        normalisation = x.size * (math.log(scale) + 0.5 * math.log(2 * math.pi))
        return -0.5 * jnp.sum(((x - mean) / scale) ** 2) - normalisation

    noise = lambda key, mean: normal(key, mean.shape, mean.dtype)
    return Likelihood(log_prob, lambda mean: mean, noise, lambda noise, mean: mean + scale * noise)


def _gaussian_of_learned_width() -> Likelihood:
    def parts(parameters):
        # An array of two numbers would unpack, too.
        if not isinstance(parameters, tuple) or len(parameters) != 2:
            raise ValueError(
                "gaussian(None) needs a decoder of (mean, log_scale); with_width makes one of a "
                "decoder of means"
            )
        return parameters

    def log_prob(parameters, x):
        mean, log_scale = parts(parameters)
        _check_shapes(mean, x)
        if jnp.ndim(log_scale):
            _check_shapes(log_scale, x)
        terms = -0.5 * ((x - mean) * jnp.exp(-log_scale)) ** 2 - log_scale
        return jnp.sum(terms) - 0.5 * x.size * math.log(2 * math.pi)

    def noise(key, parameters):
        mean, _ = parts(parameters)
        return normal(key, mean.shape, mean.dtype)

    def sample(noise, parameters):
        mean, log_scale = parts(parameters)
        return mean + jnp.exp(log_scale) * noise

    return Likelihood(log_prob, lambda parameters: parts(parameters)[0], noise, sample)


def _check_shapes(parameters, x):
    """Refuse parameters that would be broadcast to x."""
    if jnp.shape(parameters) != jnp.shape(x):
        raise ValueError(
            f"the decoder returns an array of shape {jnp.shape(parameters)} for an event of shape "
            f"{jnp.shape(x)}; make it one of as many outputs"
        )


def distribution(make: Callable[[PyTree], Any]) -> Likelihood:
    """Likelihood of any distrax distribution.

        positive = distribution(lambda raw: distrax.Gamma(jnp.exp(raw[0]), jnp.exp(raw[1])))

    Its noise is a key: distrax draws by itself.

    Args:
      make: (parameters) -> distribution of x; its batch axes are independent components.
    """
    return Likelihood(
        lambda parameters, x: density(make(parameters))[1](x),
        lambda parameters: make(parameters).mean(),
        lambda key, parameters: key,
        lambda key, parameters: density(make(parameters))[0](key),
    )


def with_width(decoder: NetworkLike, scale: float = 1.0) -> Network:
    """A decoder of means with one trained width for all components, for `gaussian(None)`.

    Its parameters are {"mean", "log_scale"}.

    Args:
      decoder: apply(params, r, cond) -> mean.
      scale: that the width starts at.

    Raises:
      ValueError: if `scale` is not positive.
    """
    check_positive(scale=scale)
    decoder = as_network(decoder)

    def init(key):
        return {"mean": decoder.init(key), "log_scale": jnp.asarray(math.log(scale), jnp.float32)}

    def apply(params, r, cond=None):
        return decoder.apply(params["mean"], r, cond), params["log_scale"]

    return Network(init, apply, decoder.num_cond)

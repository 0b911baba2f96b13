"""Variational autoencoders (1312.6114): p(x) = int p(x | r) N(r; 0, 1) dr with a learned encoder.

CaloDREAM's latent diffusion (2405.09629, Sec. 3.3) trains one with a very small KL weight and then
another model of its latent r: see `jgen.transforms.latent`.
"""

import functools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.generative_model import Batch, GenerativeModel, mean_loss, num_events
from jgen.nets.network import Network
from jgen.random import normal
from jgen.typing import Cond, Key, Params


class Autoencoder(NamedTuple):
    """Three pure functions of one event.

    Attributes:
      init: (key) -> params.
      encode: (params, x, cond) -> (mean, log_variance) of the normal encoder q(r | x).
      decode: (params, r, cond) -> parameters of the decoder's likelihood p(x | r): the logits of a
        Bernoulli, the mean of a Gaussian.
    """

    init: Callable[[Key], Params]
    encode: Callable[[Params, Array, Cond], tuple[Array, Array]]
    decode: Callable[[Params, Array, Cond], Array]


def encoder_decoder(encoder: Network, decoder: Network) -> Autoencoder:
    """Autoencoder of two networks, with parameters {"encoder", "decoder"}.

    Args:
      encoder: apply(params, x, cond) -> (mean, log_variance), each of the latent's shape.
      decoder: apply(params, r, cond) -> array of x's shape.
    """

    def init(key):
        key_encoder, key_decoder = jax.random.split(key)
        return {"encoder": encoder.init(key_encoder), "decoder": decoder.init(key_decoder)}

    return Autoencoder(
        init,
        lambda params, x, cond=None: encoder.apply(params["encoder"], x, cond),
        lambda params, r, cond=None: decoder.apply(params["decoder"], r, cond),
    )


class Likelihood(NamedTuple):
    """Family of the decoder p(x | r), all components of x independent.

    Attributes:
      log_prob: (parameters, x) -> log-likelihood in nats, summed over x.
      mean: (parameters) -> mean of x.
    """

    log_prob: Callable[[Array, Array], Array]
    mean: Callable[[Array], Array]


def bernoulli() -> Likelihood:
    """Bernoulli likelihood of x in [0, 1], parametrised by logits; minus it is the BCE.

    Fractions are allowed (2405.09629, Eq. A.1). The result is then no normalised density of x, so
    values compare models of the same data only.
    """
    # x log sigmoid(l) + (1 - x) log sigmoid(-l), without its cancellations.
    return Likelihood(lambda l, x: jnp.sum(x * l - jax.nn.softplus(l)), jax.nn.sigmoid)


def gaussian(scale: float = 1.0) -> Likelihood:
    """Normal likelihood of standard deviation `scale` in every component.

    Raises:
      ValueError: if `scale` is not positive.
    """
    if not scale > 0:
        raise ValueError(f"the scale of a Gaussian likelihood must be positive, got {scale}")

    def log_prob(mean, x):
        normalisation = x.size * (math.log(scale) + 0.5 * math.log(2 * math.pi))
        return -0.5 * jnp.sum(((x - mean) / scale) ** 2) - normalisation

    return Likelihood(log_prob, lambda mean: mean)


def reparametrize(
    key: Key, mean: Float[Array, "*r"], log_variance: Float[Array, "*r"]
) -> Float[Array, "*r"]:
    """Draw r = mean + sigma z with z ~ N(0, 1)."""
    return mean + jnp.exp(0.5 * log_variance) * normal(key, mean.shape, mean.dtype)


def kl_to_standard_normal(
    mean: Float[Array, "*r"], log_variance: Float[Array, "*r"]
) -> Float[Array, ""]:
    """KL[N(mean, variance), N(0, 1)] in nats, summed over components."""
    return 0.5 * jnp.sum(mean**2 + jnp.exp(log_variance) - log_variance - 1)


class Elbo(NamedTuple):
    """Both terms of the bound log p(x) >= reconstruction - kl, in nats.

    Attributes:
      reconstruction: log p(x | r) at one r drawn from the encoder, summed over x.
      kl: KL[q(r | x), N(0, 1)], exact, summed over r.
    """

    reconstruction: Array
    kl: Array


def elbo(
    autoencoder: Autoencoder,
    likelihood: Likelihood,
    params: Params,
    key: Key,
    x: Float[Array, "*x"],
    cond: Cond = None,
) -> Elbo:
    """Bound on log p(x | cond) of one event; unbiased in `key`."""
    mean, log_variance = autoencoder.encode(params, x, cond)
    decoded = autoencoder.decode(params, reparametrize(key, mean, log_variance), cond)
    return Elbo(likelihood.log_prob(decoded, x), kl_to_standard_normal(mean, log_variance))


def reconstruct(
    autoencoder: Autoencoder,
    likelihood: Likelihood,
    params: Params,
    key: Key,
    x: Float[Array, "*x"],
    cond: Cond = None,
) -> Float[Array, "*x"]:
    """Encode one event, draw r and decode it to the likelihood's mean.

    What a model of the latent that makes no mistake would sample: compared to x, it shows the best
    that such a model can reach.
    """
    r = reparametrize(key, *autoencoder.encode(params, x, cond))
    return likelihood.mean(autoencoder.decode(params, r, cond))


def vae(
    autoencoder: Autoencoder,
    latent_shape: tuple[int, ...],
    *,
    likelihood: Likelihood | None = None,
    beta: float = 1.0,
    reduction: Literal["sum", "mean"] = "sum",
) -> GenerativeModel:
    """Variational autoencoder as a model of x, with loss -reconstruction + beta KL.

    It samples r ~ N(0, 1) and decodes it to the likelihood's mean, the deterministic decoder of
    2405.09629, Eq. 14: Bernoulli draws of voxels with fractional energies would be zeros and ones.
    The spread of a Gaussian likelihood is thus left out. With a small beta the encoder's r are far
    from N(0, 1); sample such a model through `jgen.transforms.latent`. There is no `log_prob`.

    Args:
      autoencoder: encoder and decoder.
      latent_shape: of one event's r.
      likelihood: of the decoder, `bernoulli()` unless given.
      beta: weight of the KL term; 1 makes the loss of reduction "sum" minus a bound on log p(x).
      reduction: "sum" over the components of x and of r, or "mean" over each. The published loss is
        "mean" with beta = 1e-6; with "sum" the same ratio of both terms needs a beta larger by
        len(x) / len(r).

    Raises:
      ValueError: if `beta` is negative or `reduction` is unknown.
    """
    if not beta >= 0:
        raise ValueError(f"beta must not be negative, got {beta}")
    if reduction not in ("sum", "mean"):
        raise ValueError(f"unknown reduction {reduction!r}; sum or mean")
    likelihood = bernoulli() if likelihood is None else likelihood

    def loss(params, key, batch):
        def single(key, x, cond):
            terms = elbo(autoencoder, likelihood, params, key, x, cond)
            if reduction == "sum":
                return -terms.reconstruction + beta * terms.kl
            return -terms.reconstruction / x.size + beta * terms.kl / math.prod(latent_shape)

        return mean_loss(single, key, batch)

    def sample(params, key, cond=None):
        r = normal(key, latent_shape)
        return likelihood.mean(autoencoder.decode(params, r, cond))

    return GenerativeModel(autoencoder.init, loss, sample)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _elbo_chunk(autoencoder, likelihood, params, key, indices, x, cond):
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices)
    one = functools.partial(elbo, autoencoder, likelihood, params)
    return jax.vmap(one)(keys, x, cond)


def elbo_of_events(
    autoencoder: Autoencoder,
    likelihood: Likelihood,
    params: Params,
    key: Key,
    data: Batch,
    *,
    batch_size: int = 1000,
) -> Elbo:
    """Both terms for every event of `data`, such as a held-out sample, as numpy arrays [events].

    Event i draws its r from (key, i) alone, whatever `batch_size` is; means and standard errors
    over events, with or without weights, are the caller's.

    Raises:
      ValueError: if `batch_size` is not positive, or `data` has a mask.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, got {batch_size}")
    if data.mask is not None:
        raise ValueError("this model is for events of fixed size, but the data have a mask")
    num, chunks = num_events((data.x, data.cond)), []
    batch_size = min(batch_size, num)
    for first in range(0, num, batch_size):
        # The last chunk repeats its last event, so that it runs in the same program.
        rows = np.minimum(first + np.arange(batch_size), num - 1)
        x, cond = jax.tree.map(lambda a: np.asarray(a)[rows], (data.x, data.cond))  # noqa: B023
        chunks.append(_elbo_chunk(autoencoder, likelihood, params, key, rows, x, cond))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:num], *chunks)

"""Variational autoencoders (1312.6114): p(x) = int p(x | r) N(r; 0, 1) dr with a learned encoder.

The encoder q(r | x) gives bounds in nats, ELBO <= IWAE_K <= IWAE_2K <= log p(x) on average, where

    ELBO = E_q[log w],  IWAE_K = E_q[log (w_1 + ... + w_K) / K],  w = p(x | r) N(r; 0, 1) / q(r | x)

and log p(x) - ELBO = KL[q(r | x), p(r | x)] (1509.00519, Theorem 1).

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

from jgen.checks import check_known, check_not_negative, check_shape, check_whole
from jgen.generative_model import Batch, GenerativeModel, from_noise, mean_loss, num_events
from jgen.models.likelihoods import Likelihood, bernoulli
from jgen.models.parts import check_autoencoder
from jgen.nets.network import NetworkLike, as_network
from jgen.random import check_key, normal
from jgen.typing import Cond, Key, Params, PyTree, Schedule


class Autoencoder(NamedTuple):
    """Three pure functions of one event, and the likelihood that the decoder's outputs are of.

    Attributes:
      init: (key) -> params.
      encode: (params, x, cond) -> (mean, log_variance) of the normal encoder q(r | x).
      decode: (params, r, cond) -> parameters of the decoder's likelihood p(x | r): the logits of a
        Bernoulli, the mean of a Gaussian, the pair (mean, log of the width) if that is learned.
      likelihood: p(x | r).
      num_cond: numbers in the condition that both were made for, None where it is not known.
    """

    init: Callable[[Key], Params]
    encode: Callable[[Params, Array, Cond], tuple[Array, Array]]
    decode: Callable[[Params, Array, Cond], PyTree]
    likelihood: Likelihood = bernoulli()
    num_cond: int | None = None


def encoder_decoder(
    encoder: NetworkLike, decoder: NetworkLike, likelihood: Likelihood | None = None
) -> Autoencoder:
    """Autoencoder of two networks, with parameters {"encoder", "decoder"}.

    Args:
      encoder: apply(params, x, cond) -> (mean, log_variance), each of the latent's shape.
      decoder: apply(params, r, cond) -> parameters of the likelihood, such as one array of x's
        shape.
      likelihood: of the decoder, `bernoulli()` unless given.
    """
    encoder, decoder = as_network(encoder), as_network(decoder)
    sizes = encoder.num_cond, decoder.num_cond

    def init(key):
        key_encoder, key_decoder = jax.random.split(key)
        return {"encoder": encoder.init(key_encoder), "decoder": decoder.init(key_decoder)}

    return Autoencoder(
        init,
        lambda params, x, cond=None: encoder.apply(params["encoder"], x, cond),
        lambda params, r, cond=None: decoder.apply(params["decoder"], r, cond),
        bernoulli() if likelihood is None else likelihood,
        None if None in sizes else max(sizes),
    )


def reparametrize(
    key: Key, mean: Float[Array, "*r"], log_variance: Float[Array, "*r"]
) -> Float[Array, "*r"]:
    """Draw r = mean + sigma z with z ~ N(0, 1)."""
    return mean + jnp.exp(0.5 * log_variance) * normal(key, mean.shape, mean.dtype)


def kl_to_standard_normal(
    mean: Float[Array, "*r"], log_variance: Float[Array, "*r"]
) -> Float[Array, ""]:
    """KL[N(mean, variance), N(0, 1)] in nats, summed over components."""
    return 0.5 * jnp.sum(_kl_terms(mean, log_variance))


def _kl_terms(mean, log_variance):
    """Twice the KL of every component."""
    return mean**2 + jnp.exp(log_variance) - log_variance - 1


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
    params: Params,
    key: Key,
    x: Float[Array, "*x"],
    cond: Cond = None,
) -> Elbo:
    """Bound on log p(x | cond) of one event; unbiased in `key`."""
    mean, log_variance = autoencoder.encode(params, x, cond)
    decoded = autoencoder.decode(params, reparametrize(key, mean, log_variance), cond)
    reconstruction = autoencoder.likelihood.log_prob(decoded, x)
    return Elbo(reconstruction, kl_to_standard_normal(mean, log_variance))


def reconstruct(
    autoencoder: Autoencoder,
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
    return autoencoder.likelihood.mean(autoencoder.decode(params, r, cond))


def log_importance_weights(
    autoencoder: Autoencoder,
    params: Params,
    key: Key,
    x: Float[Array, "*x"],
    cond: Cond = None,
    *,
    num: int,
) -> Float[Array, " num"]:
    """Logarithms of w = p(x | r) N(r; 0, 1) / q(r | x) for `num` draws r of the encoder.

    One draw after another, so that memory does not grow with `num`.
    """
    mean, log_variance = autoencoder.encode(params, x, cond)

    def one(key):
        # With r = mean + sigma z the normalisations of N(r; 0, 1) and q cancel but for sigma.
        z = normal(key, mean.shape, mean.dtype)
        r = mean + jnp.exp(0.5 * log_variance) * z
        decoded = autoencoder.decode(params, r, cond)
        reconstruction = autoencoder.likelihood.log_prob(decoded, x)
        return reconstruction + 0.5 * jnp.sum(z**2 - r**2 + log_variance)

    return jax.lax.map(one, jax.random.split(key, num))


def nested_bounds(log_w: Float[np.ndarray, "n num"]) -> dict[int, Float[np.ndarray, " n"]]:
    """IWAE_K of n events for K = 1, 2, 4, ..., num, all of the same `num` draws of the encoder.

    Each is the mean over all groups of K draws. Groups of 2 K are made of two of K, so that the
    bounds rise with K for every event (Jensen).

    Args:
      log_w: what `log_importance_weights_of_events` returns.

    Raises:
      ValueError: if the number of draws is no power of two.
    """
    log_w = np.asarray(log_w, np.float64)
    n, num = log_w.shape
    if num < 1 or num & (num - 1):
        raise ValueError(f"nested bounds need a power of two of draws, got {num}")
    sizes = [2**i for i in range(num.bit_length())]
    bound = lambda k: np.logaddexp.reduce(log_w.reshape(n, num // k, k), axis=2) - np.log(k)
    return {k: bound(k).mean(axis=1) for k in sizes}


def importance_bound(log_weights: Float[Array, "... num"]) -> Float[Array, "..."]:
    """IWAE_K = log (w_1 + ... + w_K) / K of K = `num` weights (1509.00519, Eq. 8).

    Its mean rises with K to log p(x), and falls short of it by var(w) / (2 K p(x)^2) to first order
    in 1 / K, where that variance exists (1808.09034, Theorem 3).
    """
    return jax.nn.logsumexp(log_weights, axis=-1) - math.log(log_weights.shape[-1])


def vae(
    autoencoder: Autoencoder,
    latent_shape: tuple[int, ...],
    *,
    beta: float | Schedule = 1.0,
    free_bits: float = 0.0,
    num_importance: int = 0,
    reduction: Literal["sum", "mean"] = "sum",
) -> GenerativeModel:
    """Variational autoencoder as a model of x, with loss -reconstruction + beta KL.

    It samples r ~ N(0, 1) and decodes it to the likelihood's mean, the deterministic decoder of
    2405.09629, Eq. 14: Bernoulli draws of voxels with fractional energies would be zeros and ones.
    The spread of a Gaussian likelihood is thus left out, and there is no `log_prob`. With
    `num_importance` both are those of p(x) = int p(x | r) N(r; 0, 1) dr: samples are drawn from
    the likelihood, and `log_prob` is a lower bound. With a small beta the encoder's r are far
    from N(0, 1); sample such a model through `jgen.transforms.latent`.

    Args:
      autoencoder: encoder, decoder and its likelihood.
      latent_shape: of one event's r.
      beta: weight of the KL term, or a schedule of it; 1 makes the loss of reduction "sum" minus a
        bound on log p(x).
      free_bits: nats that each component of r may hold at no cost: its KL, averaged over the
        minibatch, counts as no less than that (1606.04934, Eq. 16), so that its gradient begins
        there. The loss is then no bound.
      num_importance: K of a `log_prob` that is IWAE_K, random in its key; 0 gives none. Fractions
        under a Bernoulli likelihood have no density.
      reduction: "sum" over the components of x and of r, or "mean" over each. The published loss is
        "mean" with beta = 1e-6; with "sum" the same ratio of both terms needs a beta larger by
        len(x) / len(r).

    Raises:
      ValueError: if encoder and decoder do not fit together, `beta`, `free_bits` or
        `num_importance` is negative, the latter no whole number, or `reduction` is unknown.
    """
    if not callable(beta):
        check_not_negative(beta=beta)
    check_not_negative(free_bits=free_bits)
    check_whole(0, num_importance=num_importance)
    check_known(("sum", "mean"), reduction=reduction)
    latent_shape = check_shape(latent_shape, "latent_shape")
    check_autoencoder(autoencoder, latent_shape)
    likelihood = autoencoder.likelihood
    components = math.prod(latent_shape) if reduction == "mean" else 1

    def loss(params, key, batch, progress=1.0):
        weight = beta(progress) if callable(beta) else beta

        def single(key, x, cond):
            terms = elbo(autoencoder, params, key, x, cond)
            reconstruction = terms.reconstruction
            if reduction == "mean":
                reconstruction = reconstruction / x.size
            return -reconstruction + weight * terms.kl / components

        if free_bits:
            # A key for each event would say that the loss is a mean over them, which it is not.
            key = jax.random.split(key, num_events(batch))
        total = mean_loss(single, key, batch)
        if free_bits:
            total += weight / components * _below(params, batch)
        return total

    def _below(params, batch):
        """What the mean KLs of components fall short of their free bits."""
        kl = 0.5 * _kl_terms(
            *jax.vmap(autoencoder.encode, (None, 0, 0))(params, batch.x, batch.cond)
        )
        if batch.weight is not None:
            kl = jax.vmap(jnp.multiply)(batch.weight, kl)
        return jnp.sum(jax.nn.relu(free_bits - jnp.mean(kl, axis=0)))

    def noise(key, cond=None):
        if not num_importance:
            return {"r": normal(key, latent_shape)}
        key_r, key_x = jax.random.split(key)
        r, params = normal(key_r, latent_shape), jax.eval_shape(autoencoder.init, key)
        decoded = jax.eval_shape(autoencoder.decode, params, r, cond)
        return {"r": r, "x": likelihood.noise(key_x, decoded)}

    def sample_from(params, noise, cond=None):
        decoded = autoencoder.decode(params, noise["r"], cond)
        return likelihood.sample(noise["x"], decoded) if "x" in noise else likelihood.mean(decoded)

    def log_prob(params, key, x, cond=None):
        weights = log_importance_weights(autoencoder, params, key, x, cond, num=num_importance)
        return importance_bound(weights)

    return from_noise(
        autoencoder.init, loss, noise, sample_from, log_prob if num_importance else None
    )


def elbo_of_events(
    autoencoder: Autoencoder,
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
      ValueError: if `batch_size` is not positive.
    """
    return _of_events(elbo, autoencoder, None, params, key, data, batch_size)


def log_importance_weights_of_events(
    autoencoder: Autoencoder,
    params: Params,
    key: Key,
    data: Batch,
    *,
    num: int,
    batch_size: int = 1000,
) -> Float[np.ndarray, "events num"]:
    """`num` log-weights of every event, to be read as `elbo_of_events`.

    Raises:
      ValueError: if `num` or `batch_size` is not positive.
    """
    check_whole(num=num)
    function = log_importance_weights
    return _of_events(function, autoencoder, num, params, key, data, batch_size)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _chunk(function, autoencoder, num, params, key, indices, x, cond):
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices)
    options = {} if num is None else {"num": num}
    one = functools.partial(function, autoencoder, params, **options)
    return jax.vmap(one)(keys, x, cond)


def _of_events(function, autoencoder, num, params, key, data, batch_size):
    """`function` of every event, in chunks."""
    check_key(key)
    check_whole(batch_size=batch_size)
    total, chunks = num_events((data.x, data.cond)), []
    batch_size = min(batch_size, total)
    for first in range(0, total, batch_size):
        # The last chunk repeats its last event, so that it runs in the same program.
        rows = np.minimum(first + np.arange(batch_size), total - 1)
        x, cond = jax.tree.map(lambda a: np.asarray(a)[rows], (data.x, data.cond))  # noqa: B023
        chunks.append(_chunk(function, autoencoder, num, params, key, rows, x, cond))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:total], *chunks)

"""Autoencoders with critics: VAE-GAN (1512.09300) and the BIB-AE of showers (2005.05334).

Both are games of several players in one model, as in `jgen.models.gan`: `loss` is the sum of all
objectives, each with the gradient stopped at what its player must not move. Train them with
`jgen.training.per_player`, where encoder and decoder may move less often than the critics:

    players = {"encoder": slow, "decoder": slow, "critic": fast, "latent_critic": fast}
    fit(bib_ae(...), data, key, config, optimizer=per_player(players, {"encoder": 5, "decoder": 5}))

Sampled directly, r ~ N(0, 1) is decoded. Where encoded showers are not distributed like that,
`jgen.transforms.latent(flow(...), autoencoder, params)` samples r from a density estimate;
`params` are those of the autoencoder's players.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.checks import (
    check_known,
    check_not_negative,
    check_positive,
    check_shape,
    check_sizes,
)
from jgen.generative_model import Batch, GenerativeModel, from_noise, mean_loss, num_events
from jgen.models.gan import GAMES, slope_penalty
from jgen.models.mmd import check_scales, gaussian_mmd, sorted_kernel_mmd
from jgen.models.parts import check_autoencoder, check_critic, number
from jgen.models.vae import Autoencoder, kl_to_standard_normal, reparametrize
from jgen.nets.network import NetworkLike, as_network
from jgen.random import normal
from jgen.typing import Cond, Key

_LATENT_SCALES = (0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class BibAeWeights:
    """Weights of the terms; the defaults are published (2005.05334), all but the reconstruction."""

    critic: float = 1.0
    """Of the pair critic, in the loss of encoder and decoder."""
    latent_critic: float = 100.0
    """Of the latent critic, in the loss of the encoder."""
    latent_mmd: float = 100.0
    """Of the MMD^2 between the latents of a minibatch and as many of N(0, 1)."""
    kl: float = 0.05
    """Of KL[q(r | x), N(0, 1)]."""
    reconstruction: float = 0.0
    """Of the distance of x and y, which the published loss leaves to the pair critic."""
    slope: float = 10.0
    """Of the gradient penalties of both critics, in theirs."""

    def check(self) -> None:
        """Raise a ValueError for a negative weight."""
        check_not_negative(**vars(self))


def bib_ae(
    autoencoder: Autoencoder,
    critic: NetworkLike,
    latent_critic: NetworkLike,
    latent_shape: tuple[int, ...],
    weights: BibAeWeights | None = None,
    *,
    distance: Callable[[Array, Array], Array] | None = None,
) -> GenerativeModel:
    """Bounded-information-bottleneck autoencoder, with Wasserstein critics; no `log_prob`.

    Its parameters are {"encoder", "decoder", "critic", "latent_critic"}. With y the decoded r of
    an event x, the players minimise

        critic              D(x, y) - D(x, x) + slope of z -> D(x, z) between x and y
        latent critic       C(r) - C(n) + slope between r and n, with n ~ N(0, 1)
        encoder, decoder    -critic D(x, y) + reconstruction distance(x, y)
        encoder             -latent_critic C(r) + kl KL + latent_mmd MMD^2(r, n)

    Deviations: the reconstruction term is ours (the published weights are for a hundred times more
    training); the MMD has a mixture of Gaussian kernels of widths 0.5 to 4.

    Args:
      autoencoder: `encoder_decoder(encoder, decoder, gaussian())`, whose decoder gives x itself, or
        of another likelihood, whose mean is y.
      critic: apply(params, x, y, cond) -> scalar D, of the pair of an event and its double.
      latent_critic: apply(params, r) -> scalar C.
      latent_shape: of r.
      weights: of the terms.
      distance: (x, y) -> scalar; the squared error summed over x unless given.

    Raises:
      ValueError: if a weight is negative; in training, if the batch has weights, or fewer
        than two events, which have no MMD.
    """
    weights = BibAeWeights() if weights is None else weights
    distance = _squared_error if distance is None else distance
    weights.check()
    latent_shape = check_shape(latent_shape, "latent_shape")
    critic, latent_critic = as_network(critic), as_network(latent_critic)
    x = check_autoencoder(autoencoder, latent_shape)
    if x is not None:
        check_critic(critic, "pair critic", x, x)
    check_critic(latent_critic, "latent critic", number(*latent_shape), takes_cond=False)
    decode = _mean_decoder(autoencoder)

    def init(key):
        key_coder, key_critic, key_latent = jax.random.split(key, 3)
        critics = {
            "critic": critic.init(key_critic),
            "latent_critic": latent_critic.init(key_latent),
        }
        return autoencoder.init(key_coder) | critics

    def single(params, key, x, cond):
        """All terms of one event but the MMD, and its r."""
        key_r, key_n, key_slope, key_latent = jax.random.split(key, 4)
        mean, log_variance = autoencoder.encode(params, x, cond)
        r = reparametrize(key_r, mean, log_variance)
        y = decode(params, r, cond)
        n = normal(key_n, latent_shape)
        watch = jax.lax.stop_gradient

        judge = lambda z: critic.apply(params["critic"], x, z, cond)
        judge_latent = lambda r: latent_critic.apply(params["latent_critic"], r)
        games = judge(watch(y)) - judge(x) + judge_latent(watch(r)) - judge_latent(n)
        slopes = slope_penalty(judge, key_slope, x, watch(y))
        slopes += slope_penalty(judge_latent, key_latent, watch(r), n)

        own = -weights.critic * critic.apply(watch(params["critic"]), x, y, cond)
        own -= weights.latent_critic * latent_critic.apply(watch(params["latent_critic"]), r)
        own += weights.kl * kl_to_standard_normal(mean, log_variance)
        own += weights.reconstruction * distance(x, y)
        return games + weights.slope * slopes + own, r

    def loss(params, key, batch: Batch) -> Float[Array, ""]:
        _check(batch)
        num = _at_least_two(num_events(batch))
        key_events, key_n = jax.random.split(key)
        keys = jax.random.split(key_events, num)
        terms, r = jax.vmap(single, (None, 0, 0, 0))(params, keys, batch.x, batch.cond)
        r, n = r.reshape(num, -1), normal(key_n, (num, *latent_shape)).reshape(num, -1)
        # Distances grow with the root of the dimension; so do the widths.
        scales = [scale * r.shape[1] ** 0.5 for scale in _LATENT_SCALES]
        return jnp.mean(terms) + weights.latent_mmd * gaussian_mmd(r, n, scales)

    return from_noise(init, loss, lambda key, cond: normal(key, latent_shape), decode)


def vae_gan(
    autoencoder: Autoencoder,
    critic: NetworkLike,
    latent_shape: tuple[int, ...],
    *,
    objective: Literal["saturating", "non_saturating", "least_squares", "wasserstein"] = (
        "non_saturating"
    ),
    kl: float = 1.0,
    reconstruction: float = 1.0,
    gradient_penalty: float = 0.0,
) -> GenerativeModel:
    """Autoencoder whose decoder is also the generator of a GAN; no `log_prob`.

    Its parameters are {"encoder", "decoder", "critic"}. The critic tells events from decoded
    draws of N(0, 1) and from reconstructions, in equal parts (1512.09300, Sec. 2.3); encoder and
    decoder minimise `kl` KL + `reconstruction` |x - y|^2, and the decoder plays against the critic.
    Deviation: there the distance of x and y is one of features in a layer of the critic.

    Args:
      autoencoder: `encoder_decoder(encoder, decoder, gaussian())`, whose decoder gives x itself, or
        of another likelihood, whose mean is y.
      critic: apply(params, x, cond) -> scalar.
      latent_shape: of r.
      objective: of the game, as in `gan`.
      kl: weight of KL[q(r | x), N(0, 1)].
      reconstruction: weight of the squared error summed over x.
      gradient_penalty: weight of the critic's `slope_penalty` between events and decoded draws.

    Raises:
      ValueError: for an unknown objective or a negative weight; in training, if the batch has
        weights.
    """
    check_known(GAMES, objective=objective)
    check_not_negative(kl=kl, reconstruction=reconstruction, gradient_penalty=gradient_penalty)
    latent_shape = check_shape(latent_shape, "latent_shape")
    game, critic, decode = GAMES[objective], as_network(critic), _mean_decoder(autoencoder)
    x = check_autoencoder(autoencoder, latent_shape)
    if x is not None:
        check_critic(critic, "critic", x)

    def init(key):
        key_coder, key_critic = jax.random.split(key)
        return autoencoder.init(key_coder) | {"critic": critic.init(key_critic)}

    def single(params, key, x, cond):
        key_r, key_n, key_slope = jax.random.split(key, 3)
        watch = jax.lax.stop_gradient
        mean, log_variance = autoencoder.encode(params, x, cond)
        r = reparametrize(key_r, mean, log_variance)
        y = decode(params, r, cond)
        # The game does not move the encoder.
        fakes = [decode(params, z, cond) for z in (normal(key_n, latent_shape), watch(r))]
        judge = lambda z: critic.apply(params["critic"], z, cond)
        total = game.real(judge(x)) + sum(game.fake(judge(watch(z))) for z in fakes) / 2
        own = [game.generator(critic.apply(watch(params["critic"]), z, cond)) for z in fakes]
        total += sum(own) / 2
        total += kl * kl_to_standard_normal(mean, log_variance)
        total += reconstruction * _squared_error(x, y)
        if gradient_penalty:
            total += gradient_penalty * slope_penalty(judge, key_slope, x, watch(fakes[0]))
        return total

    def loss(params, key, batch: Batch) -> Float[Array, ""]:
        _check(batch)
        return mean_loss(lambda key, x, cond: single(params, key, x, cond), key, batch)

    return from_noise(init, loss, lambda key, cond: normal(key, latent_shape), decode)


Objective = Callable[[Key, Callable[[Key], Array], Array, Array], Array]


def post_processor(
    network: NetworkLike,
    reconstruct: Callable[[Key, Array, Cond], Array],
    generate: Callable[[Key, Cond], Array],
    objective: Objective,
) -> GenerativeModel:
    """A network after a trained autoencoder that repairs the spectrum of single voxels.

    It is trained on reconstructions y of events x. Deviation from 2005.05334: it sees a number of
    noise for each voxel, without which equal voxels would have equal energies; the published loss
    teaches it to pay no attention.

    Args:
      network: apply(params, y, noise, cond) -> array of the shape of y and of the noise, such as
        convolutions of size one.
      reconstruct: (key, x, cond) -> y, with the autoencoder's trained parameters inside.
      generate: (key, cond) -> y, the generator whose events are post-processed in `sample`.
      objective: (key, refine, x, y) -> scalar, where refine(key) is a draw of the network's output
        for y: `sorted_spectrum` or `voxel_score`.
    """
    network = as_network(network)

    def refined(params, key, y, cond):
        return network.apply(params, y, normal(key, y.shape), cond)

    def single(params, key, x, cond):
        key_y, key_noise = jax.random.split(key)
        y = jax.lax.stop_gradient(reconstruct(key_y, x, cond))
        return objective(key_noise, lambda key: refined(params, key, y, cond), x, y)

    def loss(params, key, batch):
        return mean_loss(lambda key, x, cond: single(params, key, x, cond), key, batch)

    def sample(params, key, cond=None):
        key_y, key_noise = jax.random.split(key)
        return refined(params, key_noise, generate(key_y, cond), cond)

    return GenerativeModel(network.init, loss, sample)


def sorted_spectrum(
    scales: Sequence[float],
    *,
    window: int,
    stride: int,
    num: int,
    mse: float = 1.0,
    mmd: float = 1.0,
) -> Objective:
    """Objective of 2005.05334: equal sorted voxels of each event, and little change.

        mmd sorted_kernel_mmd(z, x) + mse mean (z - y)^2

    Deviations: both terms from the start, where a hundred epochs of the second one alone come first
    there (a network that starts as the identity needs none); the widths of the kernel and the
    windows are the caller's.

    Args:
      scales: widths of the kernel, in units of x.
      window: numbers of the sorted lists that are compared with one another.
      stride: ranks between windows.
      num: largest numbers of each event that are looked at.
      mse: weight of the second term.
      mmd: weight of the first one.
    """
    check_scales(scales)
    check_sizes(window=window, stride=stride, num=num)
    check_not_negative(mse=mse, mmd=mmd)

    def objective(key, refine, x, y):
        z = refine(key)
        flat = (jnp.ravel(z), jnp.ravel(x))
        spectrum = sorted_kernel_mmd(*flat, scales, window=window, stride=stride, num=num)
        return mmd * spectrum + mse * jnp.mean((z - y) ** 2)

    return objective


def voxel_score(floor: float) -> Objective:
    """Objective that is least where each voxel z has the distribution of x given y.

    The mean over voxels of the continuous ranked probability score E|z - x| - E|z - z'| / 2, with
    two draws z and z' (Gneiting and Raftery 2007, Eq. 21). It is proper: the noise has to become
    what y does not say about x, such as which of many voxels are hit where few are. Voxels are
    weighted with 1 / (y + floor), a function of the condition, which leaves the score proper and
    lets those that are rarely hit count.

    Raises:
      ValueError: if `floor` is not positive.
    """
    check_positive(floor=floor)

    def objective(key, refine, x, y):
        z, other = map(refine, jax.random.split(key))
        terms = jnp.abs(z - x) + jnp.abs(other - x) - jnp.abs(z - other)
        return jnp.mean(terms / (2 * (y + floor)))

    return objective


def _mean_decoder(autoencoder):
    def decode(params, r, cond=None):
        return autoencoder.likelihood.mean(autoencoder.decode(params, r, cond))

    return decode


def _squared_error(x, y):
    return jnp.sum((x - y) ** 2)


def _check(batch):
    if batch.weight is not None:
        raise ValueError("this game is for events without weights; leave them out")


def _at_least_two(num):
    if num < 2:
        raise ValueError(
            "the latents of a minibatch are compared with one another, so it needs two events or "
            f"more, got {num}; choose a larger batch_size"
        )
    return num

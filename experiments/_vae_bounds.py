"""Data, models, exact likelihoods and baselines of the study of a VAE's bounds."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits

from jgen.generative_model import Batch, GenerativeModel
from jgen.models import (
    Autoencoder,
    Likelihood,
    bernoulli,
    encoder_decoder,
    gaussian,
    log_importance_weights_of_events,
    vae,
    with_width,
)
from jgen.nets import Network, mlp
from jgen.random import normal, stream
from jgen.training import OptimizerConfig, TrainConfig, fit, member
from jgen.typing import Key, Params


@dataclass(frozen=True)
class LinearConfig:
    """The linear VAE of normal data, which is probabilistic PCA."""

    num_features: int = 8
    """Numbers that make an event."""
    num_latent: int = 3
    """Numbers in the latent, and factors behind the data."""
    num_events: int = 1000
    """Training events; the likelihood of these same events is what is maximal."""
    training: TrainConfig = TrainConfig(
        steps=4000, batch_size=100, optimizer=OptimizerConfig(learning_rate=3e-2), log_every=100
    )
    """Training."""


@dataclass(frozen=True)
class DigitsConfig:
    """VAEs of binarised digits."""

    hidden: tuple[int, ...] = (128,)
    """Widths of the hidden layers of encoder and decoder."""
    num_latent: int = 10
    """Numbers in the latent of the larger two VAEs; the third one has two."""
    free_bits: float = 0.5
    """Nats of a latent component that cost nothing, in the VAE called free bits."""
    num_test: int = 360
    """Images held out for the test."""
    num_validation: int = 200
    """Of the others, images that stop the training."""
    grid: int = 241
    """Points of the quadrature along each axis of the two-dimensional latent, odd."""
    training: TrainConfig = TrainConfig(
        steps=4000, batch_size=100, keep="best", validate_every=100, log_every=100
    )
    """Training, stopped where the validation loss is smallest."""


@dataclass(frozen=True)
class Config:
    """Bounds of linear and of digits' VAEs."""

    linear: LinearConfig = LinearConfig()
    """The linear VAE."""
    digits: DigitsConfig = DigitsConfig()
    """The VAEs of digits."""
    widening: float = 1.0
    """Added to the log-variance of the linear VAE's trained encoder, which is exact without."""
    num_importance: int = 1024
    """Draws of the encoder for each event, a power of two."""
    mixtures: tuple[int, ...] = (50, 100)
    """Components of the Bernoulli mixtures."""
    seed: int = 0
    """Seed of everything random."""


class Trained(NamedTuple):
    """A VAE and its parameters."""

    autoencoder: Autoencoder
    likelihood: Likelihood
    params: Params


def linear_events(config: Config) -> np.ndarray:
    """Events [n, d] of unit noise and factors of variances 4, 9, 16, ... along random axes."""
    one = config.linear
    rng = np.random.default_rng(config.seed)
    axes = np.linalg.qr(rng.normal(size=(one.num_features, one.num_latent)))[0]
    factors = rng.normal(size=(one.num_events, one.num_latent)) * (2.0 + np.arange(one.num_latent))
    noise = rng.normal(size=(one.num_events, one.num_features))
    return np.float32(factors @ axes.T + noise + 1.0)


def pca_log_prob(x: np.ndarray, num_latent: int) -> float:
    """Largest likelihood of probabilistic PCA, nats an event (Tipping and Bishop 1999, Eq. 7)."""
    values = np.linalg.eigvalsh(np.cov(np.float64(x).T, bias=True))[::-1]
    num = len(values)
    noise = values[num_latent:].mean()
    log_det = np.log(values[:num_latent]).sum() + (num - num_latent) * np.log(noise)
    return float(-0.5 * (num * np.log(2 * np.pi) + log_det + num))


def linear_autoencoder(num_features: int, num_latent: int) -> Autoencoder:
    """Encoder r | x ~ N(A x + a, diag) and decoder x | r ~ N(W r + m, sigma^2), all trained."""

    def init(key):
        weights = normal(key, (num_features, num_latent)) / num_latent**0.5
        return {"weights": weights, "shift": jnp.zeros(num_features)}

    def init_encoder(key):
        return {
            "weights": normal(key, (num_latent, num_features)) / num_features**0.5,
            "shift": jnp.zeros(num_latent),
            "log_variance": jnp.zeros(num_latent),
        }

    encode = lambda p, x, cond: (p["weights"] @ x + p["shift"], p["log_variance"])
    decode = lambda p, r, cond: p["weights"] @ r + p["shift"]
    return encoder_decoder(Network(init_encoder, encode), with_width(Network(init, decode)))


def exact_linear_log_prob(params: Params, x: np.ndarray) -> np.ndarray:
    """Exact log p [n] of a linear VAE with the parameters of its decoder."""
    decoder = jax.tree.map(lambda a: np.asarray(a, np.float64), params["decoder"])
    weights = decoder["mean"]["weights"]
    covariance = weights @ weights.T + np.exp(2 * decoder["log_scale"]) * np.eye(len(weights))
    return multivariate_normal(decoder["mean"]["shift"], covariance).logpdf(np.float64(x))


def train_linear(config: Config, x: np.ndarray, folder: Path) -> Trained:
    """Train the linear VAE on events."""
    coder = linear_autoencoder(config.linear.num_features, config.linear.num_latent)
    model = vae(coder, (config.linear.num_latent,), likelihood=gaussian(None))
    params = _fit(config, "linear", model, Batch(x), None, config.linear.training, folder)
    return Trained(coder, gaussian(None), params)


def digits_data(config: Config) -> dict[str, np.ndarray]:
    """Binarised 8 x 8 digits [n, 64]: 1 where a grey value is 8 or more."""
    images = np.float32(load_digits().data >= 8)
    images = images[np.random.default_rng(config.seed).permutation(len(images))]
    first, last = config.digits.num_test, config.digits.num_test + config.digits.num_validation
    return {"test": images[:first], "validation": images[first:last], "train": images[last:]}


DIGITS = ("plane", "plain", "free bits")


def make_digits_vae(config: Config, name: str) -> tuple[Autoencoder, GenerativeModel]:
    """One of the VAEs `DIGITS`; the first has two latent numbers."""
    one = config.digits
    num = 2 if name == "plane" else one.num_latent
    encoder, decoder = mlp(64, 2 * num, hidden=one.hidden), mlp(num, 64, hidden=one.hidden)
    coder = encoder_decoder(
        Network(encoder.init, lambda p, x, cond: tuple(jnp.split(encoder.apply(p, x), 2))),
        Network(decoder.init, lambda p, r, cond: decoder.apply(p, r)),
    )
    return coder, vae(coder, (num,), free_bits=one.free_bits if name == "free bits" else 0.0)


def train_digits(config: Config, name: str, data: dict[str, np.ndarray], folder: Path) -> Trained:
    """Train one of the VAEs of digits; validation is by its own loss, with free bits no bound."""
    coder, model = make_digits_vae(config, name)
    # Each image again and again: the loss is random in the latent.
    validation = Batch(np.repeat(data["validation"], 10, axis=0))
    training = config.digits.training
    params = _fit(config, name, model, Batch(data["train"]), validation, training, folder)
    return Trained(coder, bernoulli(), params)


def _fit(config, name, model, data, validation, training, folder) -> Params:
    key = stream(jax.random.key(config.seed), name)
    fitted = fit(model, data, key, training, validation=validation, folder=folder, name=name)
    return member(fitted.params, 0)


def bounds(config: Config, trained: Trained, x: np.ndarray, key: Key) -> dict[int, np.ndarray]:
    """IWAE_K [n] for K = 1, 2, 4, ..., each the mean over all groups of K of the same draws.

    Groups of 2 K are made of two of K, so that the numbers rise by construction (Jensen).
    """
    log_w = np.asarray(
        log_importance_weights_of_events(*trained, key, Batch(x), num=config.num_importance)
    ).astype(np.float64)
    sizes = 2 ** np.arange(int(np.log2(config.num_importance)) + 1)
    bound = lambda k: logsumexp(log_w.reshape(len(x), -1, k), axis=2) - np.log(k)
    return {int(k): bound(k).mean(axis=1) for k in sizes}


def quadrature_log_prob(trained: Trained, x: np.ndarray, num: int) -> np.ndarray:
    """Values log p [n] by the trapezoidal rule over a latent plane, +-6 along both axes."""
    axis = np.linspace(-6, 6, num)
    r = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    decode = jax.jit(jax.vmap(lambda r: trained.autoencoder.decode(trained.params, r)))
    logits = np.asarray(decode(np.float32(r)), np.float64)
    log_prior = -0.5 * (r**2).sum(axis=1) - np.log(2 * np.pi) + 2 * np.log(axis[1] - axis[0])
    constant = log_prior - np.logaddexp(0, logits).sum(axis=1)
    rows = np.array_split(np.arange(len(x)), max(1, len(x) // 50))
    parts = [logsumexp(x[i] @ logits.T + constant, axis=1) for i in rows]
    return np.concatenate(parts)


def bernoulli_mixture(
    train: np.ndarray, test: np.ndarray, num: int, seed: int, steps: int = 200
) -> tuple[float, float]:
    """Nats an image of a mixture of product Bernoullis, fitted by expectation maximisation.

    One component is the product of the pixels' frequencies. Half a bright and half a dark image
    are added to each component (Jeffreys' prior), so that no pixel has probability zero.

    Returns:
      Mean of -log p on `train` and on `test`.
    """
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(num), size=len(train))

    def log_joint(x, pixels, weights):
        return x @ np.log(pixels).T + (1 - x) @ np.log1p(-pixels).T + np.log(weights)

    for _ in range(steps if num > 1 else 1):
        total = shares.sum(axis=0)
        pixels = (shares.T @ train + 0.5) / (total[:, None] + 1)
        weights = (total + 0.5) / (total + 0.5).sum()
        joint = log_joint(train, pixels, weights)
        shares = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    nats = lambda x: -float(logsumexp(log_joint(x, pixels, weights), axis=1).mean())
    return nats(train), nats(test)


def widened(trained: Trained, amount: float) -> Trained:
    """The linear VAE with too wide an encoder: its bound is short of log p by a known KL."""
    encoder = dict(trained.params["encoder"])
    encoder["log_variance"] = encoder["log_variance"] + np.float32(amount)
    return trained._replace(params={**trained.params, "encoder": encoder})


def check_options(config: Config) -> None:
    """Refuse bad options before the folder is made."""
    if config.num_importance < 2 or config.num_importance & (config.num_importance - 1):
        raise ValueError(f"num_importance must be a power of two, got {config.num_importance}")
    if config.digits.grid < 3 or config.digits.grid % 2 == 0:
        raise ValueError(f"grid must be an odd number from 3 on, got {config.digits.grid}")
    if not 0 < config.linear.num_latent < config.linear.num_features:
        raise ValueError(
            f"the {config.linear.num_features} features need fewer latent numbers, at least one, "
            f"got {config.linear.num_latent}"
        )
    if not config.mixtures or min(config.mixtures) < 2:
        raise ValueError(f"mixtures need two components or more, got {config.mixtures}")
    if config.linear.training.ensemble != 1 or config.digits.training.ensemble != 1:
        raise ValueError("this study trains one member of each VAE; leave ensemble at 1")

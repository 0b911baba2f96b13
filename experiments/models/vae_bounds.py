"""Bounds of variational autoencoders on likelihoods that are known: ELBO <= IWAE_K <= log p.

    python -m experiments vae_bounds

takes 2 minutes of processor time on 2 cores, the preset smoke half a minute.

A linear VAE of normal data is probabilistic PCA, whose largest likelihood is known; with its
encoder made too wide on purpose, its ELBO falls short of log p by a known KL and IWAE_K closes the
gap. VAEs of binarised 8 x 8 digits (scikit-learn's, 1 where the grey value is 8 or more; 1237
images to train on, 200 to stop the training, 360 to test on) follow: one with two latent numbers,
whose log p is integrated by quadrature, and two with ten, without and with free bits. The figure
shows what IWAE_K is short of log p. Numbers: results/models.md.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits

from experiments.study import Run, Study, at_least, main, positive, table, variant
from jgen import Batch, GenerativeModel, OptimizerConfig, TrainConfig, models, nets, plotting
from jgen.estimate import flatten, mean_estimate
from jgen.metrics import bernoulli_mixture_log_prob, pca_log_prob
from jgen.models import Autoencoder
from jgen.random import normal
from jgen.typing import Key, Params

DIGITS = ("plane", "plain", "free bits")
"""The VAEs of digits."""


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

    def check(self) -> None:
        """Refuse sizes that do not fit together."""
        if not 0 < self.num_latent < self.num_features:
            raise ValueError(
                f"the {self.num_features} features need fewer latent numbers, at least one, got "
                f"{self.num_latent}"
            )
        at_least(self, num_events=self.num_features + 1)


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

    def check(self) -> None:
        """Refuse bad options."""
        at_least(self, num_test=2, num_validation=1)
        if self.num_test + self.num_validation > 1500:
            raise ValueError(
                "num_test and num_validation must leave 297 of the 1797 digits to train on, got "
                f"{self.num_test} and {self.num_validation}"
            )
        if self.grid < 3 or self.grid % 2 == 0:
            raise ValueError(f"grid must be an odd number from 3 on, got {self.grid}")


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


DEFAULT = Config()
SMOKE = variant(
    DEFAULT,
    linear={
        "num_features": 4,
        "num_latent": 2,
        "num_events": 400,
        "training": {"steps": 1500, "batch_size": 96},
    },
    digits={
        "hidden": (32,),
        "num_latent": 4,
        "grid": 121,
        "training": {"steps": 500, "batch_size": 96, "optimizer": {"learning_rate": 5e-3}},
    },
    num_importance=64,
    mixtures=(10,),
)


def check(config: Config) -> None:
    """Refuse bad options."""
    if config.num_importance < 2 or config.num_importance & (config.num_importance - 1):
        raise ValueError(f"num_importance must be a power of two, got {config.num_importance}")
    positive(config, "mixtures", "widening")
    at_least(config, mixtures=2)
    if config.linear.training.ensemble != 1 or config.digits.training.ensemble != 1:
        raise ValueError("this study trains one member of each VAE; leave ensemble at 1")


def build(config: Config) -> dict[str, GenerativeModel]:
    """Every VAE."""
    digits = {name: digits_vae(config, name)[1] for name in DIGITS}
    return {"linear": linear_vae(config)[1]} | digits


def linear_vae(config: Config) -> tuple[Autoencoder, GenerativeModel]:
    """Encoder r | x ~ N(A x + a, diag) and decoder x | r ~ N(W r + m, sigma^2), all trained."""
    num_features, num_latent = config.linear.num_features, config.linear.num_latent

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
    decoder = models.with_width(nets.Network(init, decode))
    encoder = nets.Network(init_encoder, encode)
    coder = models.encoder_decoder(encoder, decoder, models.gaussian(None))
    return coder, models.vae(coder, (num_latent,))


def digits_vae(config: Config, name: str) -> tuple[Autoencoder, GenerativeModel]:
    """One of the VAEs `DIGITS`; the first has two latent numbers."""
    num, hidden = 2 if name == "plane" else config.digits.num_latent, config.digits.hidden
    coder = models.encoder_decoder(
        nets.encoder_mlp(64, num, hidden=hidden), nets.decoder_mlp(num, 64, hidden=hidden)
    )
    free_bits = config.digits.free_bits if name == "free bits" else 0.0
    return coder, models.vae(coder, (num,), free_bits=free_bits)


def linear_events(config: Config) -> np.ndarray:
    """Events [n, d] of unit noise and factors of variances 4, 9, 16, ... along random axes."""
    one = config.linear
    rng = np.random.default_rng(config.seed)
    axes = np.linalg.qr(rng.normal(size=(one.num_features, one.num_latent)))[0]
    factors = rng.normal(size=(one.num_events, one.num_latent)) * (2.0 + np.arange(one.num_latent))
    noise = rng.normal(size=(one.num_events, one.num_features))
    return np.float32(factors @ axes.T + noise + 1.0)


def digits_data(config: Config) -> dict[str, np.ndarray]:
    """Binarised 8 x 8 digits [n, 64]: 1 where a grey value is 8 or more."""
    images = np.float32(load_digits().data >= 8)
    images = images[np.random.default_rng(config.seed).permutation(len(images))]
    first, last = config.digits.num_test, config.digits.num_test + config.digits.num_validation
    return {"test": images[:first], "validation": images[first:last], "train": images[last:]}


def compute(config: Config, run: Run) -> dict[str, Any]:
    """Train, bound and compare with exact values. In nats an event, errors from the spread.

    linear/pca             largest likelihood of probabilistic PCA on the training events
    linear/elbo            the trained bound, IWAE_1, on them; linear/log_prob is exact
    widened/iwae_K         bounds with an encoder that is too wide, widened/log_prob exact
    widened/gap_exact      the KL by which their ELBO has to fall short; widened/gap is what it does
    widened/short_K        what IWAE_K is short of log p, likewise digits/plane/short_K
    digits/<vae>/elbo, iwae_K, train_iwae_K    on test and on training images
    digits/plane/log_prob  by quadrature, with its quadrature_error
    digits/product, digits/mixture_N           log-likelihood of test images in the baselines
    """
    return linear_metrics(config, run) | digits_metrics(config, run)


def linear_metrics(config: Config, run: Run) -> dict[str, Any]:
    """Those of the linear VAE, with its own encoder and with one that is too wide."""
    x, (coder, model) = linear_events(config), linear_vae(config)
    params = run.fit("linear", model, Batch(x), config.linear.training).one
    key = run.key("bounds linear")
    exact = exact_linear_log_prob(params, x)
    # Too wide an encoder: its bound is short of log p by a known KL.
    encoder = dict(params["encoder"])
    encoder["log_variance"] = encoder["log_variance"] + np.float32(config.widening)
    wide = {**params, "encoder": encoder}
    tight = run.cached("linear/bounds", bounds, config, coder, params, x, key)
    loose = run.cached("linear/widened", bounds, config, coder, wide, x, key)
    nats = 0.5 * (np.exp(config.widening) - config.widening - 1)
    return {
        "linear/pca": pca_log_prob(x, config.linear.num_latent),
        # The exact bound has no error of its own but that of the draws, which all but cancels here.
        "linear/elbo": tight["1"].mean(),
        "linear/elbo_short": mean_estimate(exact - tight["1"]),
        "linear/log_prob": mean_estimate(exact),
        "widened/log_prob": mean_estimate(exact),
        "widened/gap": mean_estimate(exact - loose["1"]),
        "widened/gap_exact": config.linear.num_latent * nats,
    } | bound_metrics("widened", loose, exact)


def digits_metrics(config: Config, run: Run) -> dict[str, Any]:
    """Those of the VAEs of digits and of mixtures."""
    data, key = digits_data(config), jax.random.key(config.seed)
    images = np.concatenate([data["train"], data["validation"]])
    mixture = lambda n: bernoulli_mixture_log_prob(images, data["test"], n, key=key)
    metrics = {"digits/product": mixture(1)[1].mean()}
    for num in config.mixtures:
        train, test = run.cached(f"mixture_{num}", mixture, num)
        metrics[f"digits/mixture_{num}"] = test.mean()
        metrics[f"digits/train_mixture_{num}"] = train.mean()
    for name in DIGITS:
        metrics |= digits_vae_metrics(config, run, name, data)
    return metrics


def digits_vae_metrics(config: Config, run: Run, name: str, data: dict) -> dict[str, Any]:
    """Those of one of the VAEs of digits."""
    (coder, model), folder = digits_vae(config, name), name.replace(" ", "-")
    # Each image again and again: the loss is random in the latent. With free bits it is no bound.
    validation = Batch(np.repeat(data["validation"], 10, axis=0))
    options = {"key": run.key(name), "validation": validation}
    params = run.fit(folder, model, Batch(data["train"]), config.digits.training, **options).one
    bound = lambda part: bounds(config, coder, params, data[part], run.key(f"bounds {name}"))
    test, train = (run.cached(f"{folder}/bounds_{p}", bound, p) for p in ("test", "train"))
    where, top, exact = f"digits/{name.replace(' ', '_')}", config.num_importance, None
    metrics = {f"{where}/train_iwae_{top}": mean_estimate(train[str(top)])}
    if name == "plane":
        grid, args = config.digits.grid, (quadrature_log_prob, coder, params, data["test"])
        exact = run.cached(f"{folder}/log_prob", *args, grid)
        coarse = run.cached(f"{folder}/log_prob_coarse", *args, grid // 2 + 1)
        metrics[f"{where}/log_prob"] = mean_estimate(exact)
        metrics[f"{where}/quadrature_error"] = np.abs(exact - coarse).mean()
    return metrics | bound_metrics(where, test, exact)


def bound_metrics(name: str, by_k: dict[str, np.ndarray], exact: np.ndarray | None) -> dict:
    """Bounds by K, and what they are short of the exact value, with the error of the difference."""
    metrics = {f"{name}/elbo": mean_estimate(by_k["1"])}
    for k, values in by_k.items():
        metrics[f"{name}/iwae_{k}"] = mean_estimate(values)
        if exact is not None:
            metrics[f"{name}/short_{k}"] = mean_estimate(exact - values)
    return metrics


def bounds(
    config: Config, coder: Autoencoder, params: Params, x: np.ndarray, key: Key
) -> dict[str, np.ndarray]:
    """IWAE_K [n] by K, of the same draws."""
    num = config.num_importance
    log_w = models.log_importance_weights_of_events(coder, params, key, Batch(x), num=num)
    return {str(k): bound for k, bound in models.nested_bounds(log_w).items()}


def exact_linear_log_prob(params: Params, x: np.ndarray) -> np.ndarray:
    """Exact log p [n] of a linear VAE with the parameters of its decoder."""
    decoder = jax.tree.map(lambda a: np.asarray(a, np.float64), params["decoder"])
    weights = decoder["mean"]["weights"]
    covariance = weights @ weights.T + np.exp(2 * decoder["log_scale"]) * np.eye(len(weights))
    return multivariate_normal(decoder["mean"]["shift"], covariance).logpdf(np.float64(x))


def quadrature_log_prob(coder: Autoencoder, params: Params, x: np.ndarray, num: int) -> np.ndarray:
    """Values log p [n] by the trapezoidal rule over a latent plane, +-6 along both axes."""
    axis = np.linspace(-6, 6, num)
    r = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    decode = jax.jit(jax.vmap(lambda r: coder.decode(params, r)))
    logits = np.asarray(decode(np.float32(r)), np.float64)
    log_prior = -0.5 * (r**2).sum(axis=1) - np.log(2 * np.pi) + 2 * np.log(axis[1] - axis[0])
    constant = log_prior - np.logaddexp(0, logits).sum(axis=1)
    rows = np.array_split(np.arange(len(x)), max(1, len(x) // 50))
    parts = [logsumexp(x[i] @ logits.T + constant, axis=1) for i in rows]
    return np.concatenate(parts)


def report(config: Config, run: Run, metrics: dict[str, Any]) -> str:
    """Draw what the bounds are short of, and tabulate them."""
    curves, num_draws = {}, 2 ** np.arange(config.num_importance.bit_length())
    for label, name in {
        "Linear, widened encoder": "widened",
        "Digits, two latents": "digits/plane",
    }.items():
        value, error = np.array([metrics[f"{name}/short_{k}"] for k in num_draws]).T
        # Where a difference is its own error there is nothing to see on a logarithmic axis.
        seen = value > 2 * error
        curves[label] = plotting.Curve(num_draws[seen], value[seen], error[seen])
    ylabel, xlabel = r"$\log p - \mathrm{IWAE}_K$ [nats]", "Draws of the encoder $K$"
    run.save("bounds", plotting.quality_curves(curves, ylabel, xlabel=xlabel, log_y=True))
    columns = {"ELBO": "elbo", f"IWAE_{config.num_importance}": f"iwae_{config.num_importance}"}
    columns["log p"] = "log_prob"
    rows = {"linear": "linear", "linear, widened encoder": "widened"}
    rows |= {f"digits, {name}": f"digits/{name.replace(' ', '_')}" for name in DIGITS}
    # Without errors: those of one row are common to its columns.
    flat = flatten(metrics)
    cells = {
        label: [flat.get(f"{name}/{column}") for column in columns.values()]
        for label, name in rows.items()
    }
    exact = {"probabilistic PCA": "linear/pca", "digits, product of Bernoullis": "digits/product"}
    exact |= {f"digits, mixture of {num}": f"digits/mixture_{num}" for num in config.mixtures}
    cells |= {label: [None, None, metrics[name]] for label, name in exact.items()}
    return table(list(columns), cells, title="nats an event", digits=6)


STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, build)

if __name__ == "__main__":
    main(STUDY)

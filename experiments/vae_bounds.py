"""Bounds of variational autoencoders on likelihoods that are known: ELBO <= IWAE_K <= log p.

    python -m experiments.vae_bounds

takes 2 minutes of processor time on 2 cores, the preset smoke half a minute. A linear VAE of normal
data is probabilistic PCA, whose largest likelihood is known; with its encoder made too wide on
purpose, its ELBO falls short of log p by a known KL and IWAE_K closes the gap. VAEs of binarised
8 x 8 digits (scikit-learn's, 1 where the grey value is 8 or more; 1237 images to train on, 200 to
stop the training, 360 to test on) follow: one with two latent numbers, whose log p is integrated by
quadrature, and two with ten, without and with free bits.

What the default preset gave, in nats an event (figures/bounds shows what IWAE_K is short of log p):

                           ELBO     IWAE_1024    log p
    linear                 -14.6861              -14.6854 (probabilistic PCA: the largest possible)
    linear, wide encoder   -15.771  -14.686      -14.686
    digits, 2 latents      -21.078  -20.812      -20.798 (quadrature)
    digits, 10 latents     -18.63   -17.72
    the same, free bits    -18.87   -17.87
    digits, mixtures of 50 and 100 Bernoullis    -17.86, -18.00; a product of pixels -25.23

With so few images a VAE is worth no more than a mixture of Bernoullis: it beats those fitted here
to the same images by 0.1 nats, less than its own error over test images, and does not reach the
17.6 nats that a mixture gave on another split of the digits. Free bits, against latent numbers
that die, help nothing here, where the loss with them also says when to stop.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from experiments._command_line import run
from experiments._vae_bounds import (
    DIGITS,
    Config,
    DigitsConfig,
    LinearConfig,
    bernoulli_mixture,
    bounds,
    check_options,
    digits_data,
    exact_linear_log_prob,
    linear_autoencoder,
    linear_events,
    make_digits_vae,
    pca_log_prob,
    quadrature_log_prob,
    train_digits,
    train_linear,
    widened,
)
from jgen.nets import num_parameters
from jgen.plotting import Curve, quality_curves, save
from jgen.random import stream
from jgen.training import OptimizerConfig, RunFolder

DEFAULT = Config()
SMOKE = Config(
    linear=LinearConfig(
        num_features=4,
        num_latent=2,
        num_events=400,
        training=dataclasses.replace(LinearConfig().training, steps=1500, batch_size=96),
    ),
    digits=DigitsConfig(
        hidden=(32,),
        num_latent=4,
        grid=121,
        training=dataclasses.replace(
            DigitsConfig().training,
            steps=500,
            batch_size=96,
            optimizer=OptimizerConfig(learning_rate=5e-3),
        ),
    ),
    num_importance=64,
    mixtures=(10,),
)
PRESETS = {"default": DEFAULT, "smoke": SMOKE}


def main(config: Config, out: Path, *, plot_only: bool = False) -> dict[str, float]:
    """Train, bound, compare with exact values and plot; returns metrics, see metrics.json.

    In nats an event, with _error from the spread over events:

    linear/pca             largest likelihood of probabilistic PCA on the training events
    linear/elbo            the trained bound, IWAE_1, on them; linear/log_prob is exact
    widened/iwae_K         bounds with an encoder that is too wide, widened/log_prob exact
    widened/gap_exact      the KL by which their ELBO has to fall short; widened/gap is what it does
    digits/<vae>/elbo, iwae_K, train_iwae_K    on test and on training images
    digits/plane/log_prob  by quadrature, with its _quadrature_error
    digits/product, digits/mixture_N           log-likelihood of test images in the baselines
    """
    check_options(config)
    if plot_only and not (out / "metrics.json").exists():
        raise ValueError(f"{out / 'metrics.json'} is not there to plot; run without --plot-only")
    folder = RunFolder(out, config)
    metrics = folder.read_json("metrics.json")
    if metrics is None:
        metrics = _linear(config, folder) | _digits(config, folder)
        folder.write_metrics(metrics)
    if folder.is_writer:
        _plot(config, folder, metrics)
        print(_table(config, metrics))
    return metrics


def count_parameters(config: Config) -> dict[str, int]:
    """Of every VAE."""
    linear = linear_autoencoder(config.linear.num_features, config.linear.num_latent)
    digits = {name: num_parameters(make_digits_vae(config, name)[1].init) for name in DIGITS}
    return {"linear": num_parameters(linear.init)} | digits


def _linear(config: Config, folder: RunFolder) -> dict[str, float]:
    x = linear_events(config)
    trained = train_linear(config, x, folder.path / "linear")
    key = stream(jax.random.key(config.seed), "bounds linear")
    exact = exact_linear_log_prob(trained.params, x)
    metrics = {"linear/pca": pca_log_prob(x, config.linear.num_latent)}
    tight = bounds(config, trained, x, key)
    # The exact bound has no error of its own but that of the draws, which all but cancels here.
    metrics |= _mean("linear/elbo_short", exact - tight[1]) | _mean("linear/log_prob", exact)
    metrics["linear/elbo"] = float(tight[1].mean())
    loose = bounds(config, widened(trained, config.widening), x, key)
    metrics |= _mean("widened/log_prob", exact) | _bounds("widened", loose)
    metrics |= _mean("widened/gap", exact - loose[1])
    nats = 0.5 * (np.exp(config.widening) - config.widening - 1)
    metrics["widened/gap_exact"] = float(config.linear.num_latent * nats)
    return metrics | _gaps("widened", exact, loose)


def _digits(config: Config, folder: RunFolder) -> dict[str, float]:
    data = digits_data(config)
    fitted = np.concatenate([data["train"], data["validation"]])
    metrics = {"digits/product": -bernoulli_mixture(fitted, data["test"], 1, config.seed)[1]}
    for num in config.mixtures:
        train, test = bernoulli_mixture(fitted, data["test"], num, config.seed)
        metrics |= {f"digits/mixture_{num}": -test, f"digits/train_mixture_{num}": -train}
    for name in DIGITS:
        trained = train_digits(config, name, data, folder.path / name.replace(" ", "-"))
        where = f"digits/{name.replace(' ', '_')}"
        key = stream(jax.random.key(config.seed), f"bounds {name}")
        found = bounds(config, trained, data["test"], key)
        metrics |= _bounds(where, found)
        top = config.num_importance
        metrics |= _mean(
            f"{where}/train_iwae_{top}", bounds(config, trained, data["train"], key)[top]
        )
        if name == "plane":
            exact = quadrature_log_prob(trained, data["test"], config.digits.grid)
            coarse = quadrature_log_prob(trained, data["test"], config.digits.grid // 2 + 1)
            metrics |= _mean(f"{where}/log_prob", exact) | _gaps(where, exact, found)
            metrics[f"{where}/quadrature_error"] = float(np.abs(exact - coarse).mean())
    return metrics


def _mean(name: str, values: np.ndarray) -> dict[str, float]:
    error = values.std(ddof=1) / len(values) ** 0.5
    return {name: float(values.mean()), f"{name}_error": float(error)}


def _bounds(name: str, found: dict[int, np.ndarray]) -> dict[str, float]:
    metrics = _mean(f"{name}/elbo", found[1])
    for k, values in found.items():
        metrics |= _mean(f"{name}/iwae_{k}", values)
    return metrics


def _gaps(name: str, exact: np.ndarray, found: dict[int, np.ndarray]) -> dict[str, float]:
    """What bounds are short of the exact value, by K; errors are those of the differences."""
    metrics = {}
    for k, values in found.items():
        metrics |= _mean(f"{name}/short_{k}", exact - values)
    return metrics


def _plot(config: Config, folder: RunFolder, metrics: dict[str, float]) -> None:
    sizes = 2 ** np.arange(int(np.log2(config.num_importance)) + 1)
    curves = {}
    for label, name in (
        ("Linear, widened encoder", "widened"),
        ("Digits, two latents", "digits/plane"),
    ):
        value, error = (
            np.array([metrics[f"{name}/short_{k}{suffix}"] for k in sizes])
            for suffix in ("", "_error")
        )
        # Where a difference is its own error there is nothing to see on a logarithmic axis.
        seen = value > 2 * error
        curves[label] = Curve(sizes[seen], value[seen], error[seen])
    figure = quality_curves(
        curves, r"$\log p - \mathrm{IWAE}_K$ [nats]", xlabel="Draws of the encoder $K$", log_y=True
    )
    save(figure, folder.figure("bounds"))


def _table(config: Config, metrics: dict[str, float]) -> str:
    top = config.num_importance
    lines = [f"{'nats an event':<28}{'ELBO':>10}{f'IWAE_{top}':>12}{'log p':>10}"]
    for label, name in (
        ("linear, widened encoder", "widened"),
        *((f"digits, {n}", f"digits/{n.replace(' ', '_')}") for n in DIGITS),
    ):
        exact = metrics.get(f"{name}/log_prob")
        lines.append(
            f"{label:<28}{metrics[f'{name}/elbo']:>10.3f}{metrics[f'{name}/iwae_{top}']:>12.3f}"
            + ("" if exact is None else f"{exact:>10.3f}")
        )
    lines.append(
        f"linear: ELBO {metrics['linear/elbo']:.4f}, probabilistic PCA {metrics['linear/pca']:.4f}"
    )
    lines.append(f"digits, product of Bernoullis: {metrics['digits/product']:.2f}")
    lines += [
        f"digits, mixture of {num}: {metrics[f'digits/mixture_{num}']:.2f}"
        for num in config.mixtures
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run("vae_bounds", __doc__, PRESETS, main, count_parameters)

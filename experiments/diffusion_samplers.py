"""Error against network calls for every sampler of diffusion, with exact and trained networks.

    python -m experiments.diffusion_samplers

takes about 7 minutes of processor time, the preset smoke one minute with its start and compilation.
A three-component Gaussian mixture in the plane has its score in closed form, so that the error of
a sampler is its own: figures/exact-vp and figures/exact-ve-edm show the sliced Wasserstein-1
distance to the truth against network calls, beside that of true events of the same number.
figures/trained-vp shows the same for a network that was trained on moons (noise 0.05), on the
variance-preserving path. Networks of several paths and predictions are judged by their negative
log-likelihood from the probability-flow ODE, less that of the truth on the same events: a
Kullback-Leibler divergence. The entropy of moons is 0.289 nats.

What the default preset gave: with the exact score every sampler but annealed Langevin comes down to
the floor of 5000 events, 0.017(5) in this distance: Euler and RK4 on the variance-preserving path
with 16 calls, the reverse SDE with 32, Heun, DDIM and EDM's Heun with 64, ancestral sampling with
128. Single points scatter as the floor does; at 256 calls Heun is at 1.7 floors, and annealed
Langevin at 8. With the same 32 or 64 calls predictor-corrector on the exploding path is a little
better than ancestral sampling alone, as in 2011.13456: 2.5 and 1.4 floors against 2.6 and 1.6, and
with 20,000 events 0.039 and 0.017 against 0.057 and 0.029. This takes Langevin steps as long as a
signal-to-noise ratio of 0.5: with 0.3 half as many steps of the predictor cost more than the
corrector gains, as they do with 16 calls and fewer. With 128 and more the bias of such steps is
left, 2 floors. The network trained on the variance-preserving path to predict v is 0.6 to 1.6
floors from the moons with 256 calls, the floor being 0.012(4). Likelihoods of the networks are
worse than the entropy, 0.289 nats, by

    linear path, velocity                0.012(2) nats
    variance preserving, noise           0.023(3)
    variance preserving, v               0.030(3)
    EDM, preconditioned                  0.007(2)

The variance-preserving ones still have the noise of t_max = 0.999, a hundredth of the data's width
and thus 0.009 and 0.005 beside the moons' own 0.05.
"""

from pathlib import Path

import jax
import numpy as np

from experiments._command_line import run
from experiments._diffusion_samplers import (
    SAMPLERS,
    Config,
    check_options,
    divergence_from_truth,
    moons_model,
    sampler_errors,
    samplers_of,
    smaller,
    train,
)
from jgen.files import atomic_path
from jgen.nets import num_parameters
from jgen.plotting import Curve, quality_curves, save
from jgen.toys import entropy, moons
from jgen.training import RunFolder

DEFAULT = Config()
SMOKE = Config(
    samplers=("Heun", "Ancestral", "EDM Heun"),
    calls=(16, 64),
    num_events=1000,
    num_reference=10_000,
    num_floor=4,
    trained=("vp v", "edm data"),
    hidden=(32, 32),
    num_train=2000,
    num_test=200,
    likelihood_steps=10,
    training=smaller(DEFAULT.training, 200),
)
PRESETS = {"default": DEFAULT, "smoke": SMOKE}


def main(config: Config, out: Path, *, plot_only: bool = False) -> dict[str, float]:
    """Train, sample with everything, compare with the truth and plot; returns metrics.json.

    error/<exact or trained>/<sampler>/<calls>   sliced W1 to the truth
    floor/<exact or trained>                     that of true events, with _error, the spread
    nll/<path>/<prediction>                      in nats, with _error and, less that of the truth
                                                 on the same events, _excess
    nll/exact                                    the entropy of moons
    """
    check_options(config)
    results = out / "sampler_errors.npz"
    if plot_only and not results.exists():
        raise ValueError(f"{results} is not there to plot; run without --plot-only first")
    folder = RunFolder(out, config)
    exact = entropy(moons(0.05)).value
    metrics, params = {"nll/exact": exact}, {}
    for name in config.trained:
        where = out / name.replace(" ", "_")
        values = where / "excess.npz"
        if not values.exists() or name == "vp v" and not results.exists():
            params[name] = train(config, name, where)
            excess = divergence_from_truth(config, name, params[name])
            with atomic_path(values) as partial, partial.open("wb") as file:
                np.savez(file, excess=excess)
        with np.load(values) as file:
            excess, error = (float(a) for a in file["excess"])
        metric = f"nll/{name.replace(' ', '/')}"
        metrics |= {metric: exact + excess, f"{metric}_excess": excess, f"{metric}_error": error}
    found = sampler_errors(config, params.get("vp v"), results)
    if jax.process_index() != 0:
        return {}
    for name, values in found.items():
        target = name.split()[-1] if name.startswith("floor") else name.split()[0]
        if name.startswith("floor"):
            metrics[f"floor/{target}"] = float(values.mean())
            metrics[f"floor/{target}_error"] = float(values.std(ddof=1))
            continue
        label = _name(name.removeprefix(f"{target} "))
        for calls, value in zip(config.calls, values, strict=True):
            metrics[f"error/{target}/{label}/{calls}"] = float(value)
    folder.write_metrics(metrics)
    _plot(config, folder, found, metrics)
    print(_table(config, metrics))
    return metrics


def count_parameters(config: Config) -> dict[str, int]:
    """Of every network."""
    return {name: num_parameters(moons_model(config, name).init) for name in config.trained}


def _name(label: str) -> str:
    return label.lower().replace(",", "").replace("-", "_").replace(" ", "_")


def _plot(config: Config, folder: RunFolder, found: dict, metrics: dict[str, float]) -> None:
    figures = {"exact-vp": ("exact", ("vp",)), "exact-ve-edm": ("exact", ("ve", "edm")),
               "trained-vp": ("trained", ("vp",))}  # fmt: skip
    for figure, (target, paths) in figures.items():
        curves = {
            name: Curve(np.array(config.calls), found[f"{target} {name}"])
            for name in samplers_of(config, target)
            if SAMPLERS[name][0] in paths
        }
        if not curves:
            continue
        floor = (metrics[f"floor/{target}"], metrics[f"floor/{target}_error"])
        plot = quality_curves(curves, "Sliced Wasserstein distance", truth=floor, log_y=True)
        plot.axes[0].set_ylim(top=10 * plot.axes[0].get_ylim()[1])  # room for the legend
        save(plot, folder.figure(figure))


def _table(config: Config, metrics: dict[str, float]) -> str:
    """Errors over the floor by network calls, and likelihoods, as text."""
    lines = [f"{'error / floor, calls':<34}" + "".join(f"{n:>8}" for n in config.calls)]
    for target in ("exact", "trained"):
        for name in samplers_of(config, target):
            row = [
                metrics[f"error/{target}/{_name(name)}/{n}"] / metrics[f"floor/{target}"]
                for n in config.calls
            ]
            lines.append(f"{target + ' ' + name:<34}" + "".join(f"{a:>8.2f}" for a in row))
    lines.append(f"{'negative log-likelihood, nats':<34}{'less truth':>24}")
    for name in config.trained:
        metric = f"nll/{name.replace(' ', '/')}"
        excess, error = metrics[f"{metric}_excess"], metrics[f"{metric}_error"]
        lines.append(f"{name:<34}{metrics[metric]:>8.3f}{excess:>10.3f} +- {error:.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    run("diffusion_samplers", __doc__, PRESETS, main, count_parameters)

"""What a CaloDREAM knows about its own error: an ensemble and Bayesian networks, calibrated.

    python -m experiments.shower_uncertainty

trains several CaloDREAMs (2405.09629) with starts and minibatches of their own, and one with
Bayesian networks (variational posterior of the weights, 2509.08048, Eq. 13), on the bundled Geant4
showers. Each member, or draw of the Bayesian weights, generates showers; their spread is drawn
around every observable and compared with the error that is made: pulls of histogram bins against
Geant4 showers that no network has seen, and how often intervals of a claimed level hold the truth.

Takes half an hour of processor time.

Energy and shape networks both have members. With one energy network for all, layer and total
energies would have no spread, since the shapes leave them as they are.

What the spreads are. Members of the plain ensemble are trained on the same showers, so their spread
is that of optimisation: starts and order of minibatches, but not the choice of the training
sample. The Bayesian networks' scales follow from the weight of the KL divergence, which is a choice
(`posterior.temperature`), but in a short training they stay near where they start
(`posterior.initial_scale`); the metrics have where they end. No spread holds what all members have
in common: networks that are trained too short, or too small, share a bias, and pulls are wide.

What the spreads are not. All members generate from the same noise at the same incident energies, so
that the fluctuation of a finite sample is not taken for the networks' (see `_uncertainty.py`).
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from experiments import _calodream as study
from experiments._calodream_presets import SMOKE as SMOKE_STUDY
from experiments._command_line import run
from experiments._uncertainty import (
    ONE_SIGMA,
    bin_pulls,
    calibration_numbers,
    contents,
    coverage_curve,
    fill_bins,
    join,
)
from experiments._uncertainty_training import (
    PARTS,
    Config,
    Posterior,
    check_options,
    make_samples,
    sample_path,
)
from jgen.plotting import (
    Panel,
    coverage_curves,
    member_grid,
    observable_panel,
    pull_distribution,
    save,
    training_curves,
)
from jgen.showers import Geometry, Showers, get_geometry, read_showers
from jgen.showers.observables import binning, judged_observables
from jgen.training import MetricsLog, RunFolder

DEFAULT = Config()
_SMOKE_TRAINING = dataclasses.replace(SMOKE_STUDY.shape_training, steps=10)
SMOKE = Config(
    # The parallel energy network compiles faster.
    calodream=dataclasses.replace(
        SMOKE_STUDY,
        energies="parallel",
        energy_training=_SMOKE_TRAINING,
        shape_training=_SMOKE_TRAINING,
    ),
    posterior=Posterior(draws=4, energy_training=_SMOKE_TRAINING, shape_training=_SMOKE_TRAINING),
)
PRESETS = {"default": DEFAULT, "smoke": SMOKE}


def main(config: Config, out: Path, *, plot_only: bool = False) -> dict[str, float]:
    """Train, generate, judge and plot; returns the metrics, which metrics.json holds too.

    For each METHOD, ensemble or bayesian: those of `calibration_numbers`, loss/METHOD/PART on the
    held-out showers, the mean over members or draws, with its standard deviation `_spread`, and
    train_seconds/METHOD/PART. For Bayesian networks also scale/PART, the median posterior width of
    their weights, which started at `posterior.initial_scale`. Every stage is kept.
    """
    check_options(config)
    if plot_only and not (out / "config.json").exists():
        raise ValueError(f"{out} holds no run to plot; run without --plot-only first")
    showers, reference = study.load_showers(config.calodream)
    folder = RunFolder(out, config)
    if not plot_only:
        make_samples(config, showers, reference, folder)
        if jax.process_index() != 0:
            return {}
    return _judge(config, showers, reference, folder)


def count_parameters(config: Config) -> dict[str, int]:
    """Trainable parameters of a member's networks; Bayesian ones have twice as many."""
    return study.count_parameters(config.calodream)


def _judge(
    config: Config, showers: Showers, reference: Showers, folder: RunFolder
) -> dict[str, float]:
    """Calibration of all methods: metrics.json, figures and a table."""
    geometry = get_geometry(config.calodream.geometry)
    known, true = (judged_observables(geometry, s) for s in (showers, reference))
    metrics, curves, found = {}, {}, {}
    for method in config.methods:
        made = _generated(config, method, geometry, folder)
        families = {
            name: fill_bins(
                lambda values: binning(geometry, name, values),  # noqa: B023
                known[name],
                true[name],
                made[name],
                smallest=config.smallest_bin,
            )
            for name in true
        }
        families["all"] = join(list(families.values()))
        metrics |= calibration_numbers(families, method) | _costs(method, folder)
        label = method.capitalize()
        curves[label] = coverage_curve(families["all"])
        found[label] = bin_pulls(contents(families["all"]))
        save(member_grid(_panels(geometry, true, made, config.layer), label), folder.figure(method))
        for part in PARTS:
            rows = MetricsLog(folder.path / method / part / "metrics.jsonl").read()
            figure = training_curves({f"{part} network": rows}, log_y=True)
            save(figure, folder.figure(f"training_{method}_{part}"))
    save(coverage_curves(curves), folder.figure("coverage"))
    save(pull_distribution(found), folder.figure("pulls"))
    folder.write_metrics(metrics)
    print(_table(config, metrics, list(true)))
    return metrics


def _generated(
    config: Config, method: str, geometry: Geometry, folder: RunFolder
) -> dict[str, np.ndarray]:
    """Observables [members, n, ...] of what the members generated."""
    num = config.members if method == "ensemble" else config.posterior.draws
    paths = [sample_path(folder, method, i) for i in range(num)]
    if missing := [str(path) for path in paths if not path.exists()]:
        raise ValueError(f"{missing} do not exist yet; run without --plot-only first")
    each = [judged_observables(geometry, read_showers(path, geometry)) for path in paths]
    return {name: np.stack([one[name] for one in each]) for name in each[0]}


def _costs(method: str, folder: RunFolder) -> dict[str, float]:
    """Losses, scales of the posterior, and what training took."""
    metrics = {}
    for part, losses in folder.read_json(f"{method}/losses.json").items():
        metrics[f"loss/{method}/{part}"] = float(np.mean(losses))
        metrics[f"loss/{method}/{part}_spread"] = float(np.std(losses, ddof=1))
        rows = MetricsLog(folder.path / method / part / "metrics.jsonl").read()
        seconds = sum(row.get("seconds", 0.0) for row in rows)
        metrics[f"train_seconds/{method}/{part}"] = seconds
    if method == "bayesian":
        metrics |= {f"scale/{p}": s for p, s in folder.read_json("bayesian/scales.json").items()}
    return metrics


def _panels(
    geometry: Geometry, true: dict[str, np.ndarray], made: dict[str, np.ndarray], layer: int
) -> list[Panel]:
    """Every observable of one layer, and the total energy."""
    num = len(made["E_tot"])
    members = {str(i): {name: values[i] for name, values in made.items()} for i in range(num)}
    return [observable_panel(geometry, true, members, name, layer) for name in true]


def _table(config: Config, metrics: dict[str, float], names: list[str]) -> str:
    """Widths of pulls, coverage and errors as text."""
    quantities = ("pull_width", "coverage_68", "predicted_error", "actual_error")
    lines = [f"{'':<22}" + "".join(f"{q:>20}" for q in quantities)]
    for method in config.methods:
        for name in (*names, "all"):
            row = f"{method + ' ' + name:<22}"
            for quantity in quantities:
                key = f"{quantity}/{method}/{name}"
                value = f"{metrics[key]:.3g} +- {metrics[f'{key}_error']:.1g}"
                row += f"{value:>20}"
            lines.append(row)
        expected = metrics[f"pull_width/{method}/all_expected"]
        lines.append(f"{method} calibrated".ljust(22) + f"{expected:>20.3g}{ONE_SIGMA:>20.3g}")
    return "\n".join(lines)


if __name__ == "__main__":
    run("shower_uncertainty", __doc__, PRESETS, main, count_parameters)

"""What is said and shown of the wells: numbers, figures and the table."""

import numpy as np

from experiments._boltzmann import WELLS, Config, Well, trainings
from jgen.inference import (
    autocorrelation_time,
    chain_mean,
    effective_sample_size,
    forward_effective_sample_size,
    free_energy_difference,
    log_partition,
    uncovered_fraction,
    weighted_mean,
)
from jgen.plotting import Counted, ExactMarginal, Landscape
from jgen.toys import region_probability

LABELS = {
    "plain": "Reverse KL",
    "annealed": "Annealed",
    "finished": "Finished",
    "mixed": "Mixed",
    "walk": "Random walk",
    "hmc": "HMC",
    "metropolis": "Flow + Metropolis",
    "vae": "VAE",
}
# Where the density is at least some 1e-5 of its maximum, around both wells.
RANGES = {"tilted": (-2.1, 2.0), "hard": (-3.6, 3.4)}


def prefix(well: Well, method: str) -> str:
    """Of the metrics' names; the one flow of the tilted well needs none of its own."""
    return well if well == "tilted" else f"{well}/{method}"


def flow_metrics(well: Well, found: dict[str, np.ndarray]) -> dict[str, float]:
    """Of one flow: name -> number, without the prefix."""
    target, log_weight = WELLS[well], found["log_weight"]
    right = found["x"][:, 0] > target.wall
    none = np.zeros(len(right))
    estimates = {
        "ess": effective_sample_size(log_weight),
        "forward_ess": forward_effective_sample_size(found["log_weight_exact"]),
        "forward_ess_walks": forward_effective_sample_size(found["log_weight_walks"]),
        "uncovered": uncovered_fraction(found["log_weight_exact"], target.log_z),
        "log_Z": log_partition(log_weight),
        "dF": free_energy_difference(log_weight, right, ~right),
        "population_right": weighted_mean(right, log_weight),
        "population_right_model": weighted_mean(right, none),
    }
    exact = {
        "ess": 1.0,
        "forward_ess": 1.0,
        "uncovered": 0.0,
        "log_Z": target.log_z,
        "dF": target.free_energy_difference,
        "population_right": target.population_right,
        "population_right_model": target.population_right,
    }
    metrics = {}
    for name, (value, error) in estimates.items():
        # Without an event on one side there is no difference to speak of.
        if np.isfinite(value):
            metrics |= {name: value, f"{name}_error": error}
        if name in exact:
            metrics[f"{name}_exact"] = exact[name]
    return metrics


def chain_metrics(well: Well, x: np.ndarray, acceptance: np.ndarray) -> dict[str, float]:
    """Of chains [chains, num, 2]; errors and times are missing where no chain crossed the wall."""
    target = WELLS[well]
    right = x[..., 0] > target.wall
    crossings = np.mean(np.sum(right[:, 1:] != right[:, :-1], axis=1))
    metrics = {
        "acceptance": np.mean(acceptance),
        "crossings": crossings,
        "population_right": right.mean(),
        "population_right_exact": target.population_right,
    }
    if crossings > 0:
        metrics["population_right_error"] = chain_mean(right).error
        time = autocorrelation_time(right)
        metrics |= {"tau": time.value, "tau_error": time.error}
    return metrics


def vae_metrics(found: dict[str, np.ndarray]) -> dict[str, float]:
    """Mean log-densities of exact events in nats, and how the generated ones are distributed.

    The bounds are compared event by event with the exact density, whose fluctuations are common
    to both.
    """
    target, exact, metrics = WELLS["tilted"], found["exact"], {}
    for name in ("elbo", "iwae"):
        below = exact - found[name]
        metrics |= {
            name: found[name].mean(),
            f"{name}_error": found[name].std() / len(exact) ** 0.5,
            f"{name}_exact": exact.mean(),
            f"{name}_below": below.mean(),
            f"{name}_below_error": below.std() / len(exact) ** 0.5,
        }
    right = found["x"][:, 0] > target.wall
    population, error = weighted_mean(right, np.zeros(len(right)))
    return metrics | {
        "population_right": population,
        "population_right_error": error,
        "population_right_exact": target.population_right,
    }


def landscape(well: Well, title: str, events: np.ndarray) -> Landscape:
    """A picture of the well with at most 1500 of some events."""
    low, high = RANGES[well]
    axes = np.linspace(low, high, 200), np.linspace(-4, 4, 150)
    energy = WELLS[well].potential(axes[0])[:, None] + 0.5 * axes[1] ** 2
    events = events[:: max(1, len(events) // 1500)][:1500]
    return Landscape(title, axes, energy - energy.min(), events)


def marginal(well: Well, samples: dict[str, Counted], num_bins: int = 41) -> ExactMarginal:
    """The panel of x with its exact probabilities."""
    edges = bins(well, num_bins)
    low, high = (np.stack([e, np.full(num_bins, s)], axis=1) for e, s in
                 ((edges[:-1], -np.inf), (edges[1:], np.inf)))  # fmt: skip
    exact = region_probability(WELLS[well].toy, low, high)
    return ExactMarginal(f"{well.capitalize()} well", edges, exact, samples)


def bins(well: Well, num_bins: int = 41) -> np.ndarray:
    """Edges of bins in x."""
    return np.linspace(*RANGES[well], num_bins + 1)


def counted(well: Well, x: np.ndarray, log_weight: np.ndarray | None = None) -> Counted:
    """Probabilities of bins from events [num], with weights or without."""
    edges = bins(well)
    weight = np.ones(len(x))
    if log_weight is not None:
        weight = np.exp(log_weight.astype(np.float64) - log_weight.max())
    total = weight.sum()
    value = np.histogram(x, edges, weights=weight)[0] / total
    # The delta method: sum over events of w^2 (in bin - p)^2.
    inside = np.histogram(x, edges, weights=weight**2)[0]
    variance = inside * (1 - 2 * value) + value**2 * np.sum(weight**2)
    return Counted(value, np.sqrt(variance) / total)


def counted_chains(well: Well, x: np.ndarray) -> Counted:
    """Probabilities of bins from chains [chains, num], errors from the spread between them."""
    each = np.stack([np.histogram(one, bins(well))[0] / len(one) for one in x])
    return Counted(each.mean(axis=0), each.std(axis=0, ddof=1) / len(each) ** 0.5)


def table(config: Config, metrics: dict[str, float]) -> str:
    """Flows, chains and the autoencoder as text, with exact values."""
    lines = []
    for well in config.wells:
        target = WELLS[well]
        head = ("ESS", "forward ESS", "uncovered", "log Z", "dF in kT", "p(right) in %")
        lines.append(_row(f"{well} well", *head))
        exact = (target.log_z, target.free_energy_difference, 100 * target.population_right)
        lines.append(_row("exact", "1", "1", "0", *(f"{value:.4f}" for value in exact)))
        for method in trainings(config, well):
            name = prefix(well, method)
            cells = [
                _cell(metrics, f"{name}/{n}", digits)
                for n, digits in (
                    ("ess", 4),
                    ("forward_ess", 3),
                    ("uncovered", 6),
                    ("log_Z", 4),
                    ("dF", 4),
                )
            ]
            percent = _cell(metrics, f"{name}/population_right", 3, 100)
            lines.append(_row(LABELS[method], *cells, percent))
        for method in ("walk", "hmc", *(f"metropolis_{m}" for m in trainings(config, well)), "vae"):
            name = f"{well}/{method}"
            if f"{name}/population_right" not in metrics:
                continue
            note = ""
            if f"{name}/acceptance" in metrics:
                note = f"acceptance {metrics[f'{name}/acceptance']:.3f}"
                if f"{name}/tau" in metrics:
                    note += f", tau {_cell(metrics, f'{name}/tau', 1)}"
                note += f", {metrics[f'{name}/crossings']:.1f} crossings"
            label = method.replace("metropolis_", "Metropolis, ")
            percent = _cell(metrics, f"{name}/population_right", 3, 100)
            lines.append(f"{LABELS.get(method, label):<24}{note:<84}{percent:>18}")
        lines.append("")
    if "tilted/vae/elbo" in metrics:
        gap = lambda n: _cell(metrics, f"tilted/vae/{n}_below", 3)
        lines.append(
            f"VAE: mean log-density of exact events {metrics['tilted/vae/elbo_exact']:.3f} nats; "
            f"below it by {gap('elbo')} (ELBO) and {gap('iwae')} (importance-weighted bound)"
        )
    return "\n".join(line.rstrip() for line in lines)


def _row(name, *cells):
    widths = (18, 17, 22, 19, 18, 18)
    return f"{name:<14}" + "".join(f"{c:>{w}}" for c, w in zip(cells, widths, strict=True))


def _cell(metrics, name, digits, scale=1.0):
    if name not in metrics:
        return "none"
    value = f"{scale * metrics[name]:.{digits}f}"
    if f"{name}_error" not in metrics:
        return value
    return f"{value} +- {scale * metrics[f'{name}_error']:.{digits}f}"

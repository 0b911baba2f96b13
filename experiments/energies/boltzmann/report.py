"""The wells, and what is said and shown of them: metrics, figures and tables."""

from typing import Any

import numpy as np

from experiments.study import Run, table
from jgen import inference, plotting, toys
from jgen.estimate import Estimate, Judged, mean_estimate

WELLS = {"tilted": toys.double_well(), "hard": toys.double_well(0.25, 3.0, 1.0)}
LABELS = {
    "plain": "Reverse KL",
    "annealed": "Annealed",
    "finished": "Finished",
    "mixed": "Mixed",
    "walk": "Random walk",
    "hmc": "HMC",
}
NUM_BINS = 41
# Where the density is at least some 1e-5 of its maximum, around both wells.
RANGES = {"tilted": (-2.1, 2.0), "hard": (-3.6, 3.4)}


def trainings(config: Any, well: str) -> tuple[str, ...]:
    """How the flows of a well are trained."""
    return ("plain",) if well == "tilted" else config.trainings


def prefix(well: str, method: str) -> str:
    """Of the metrics' names; the one flow of the tilted well needs none of its own."""
    return well if well == "tilted" else f"{well}/{method}"


def flow_metrics(well: str, events: dict[str, np.ndarray]) -> dict[str, Any]:
    """Of one flow, see `study.flow_events`: name -> estimate, with the exact value beside it."""
    target, log_weight = WELLS[well], events["log_weight"]
    right = events["x"][:, 0] > target.wall
    population = lambda log_weight: inference.weighted_mean(right, log_weight)
    estimates = {
        "ess": (inference.effective_sample_size(log_weight), 1.0),
        "forward_ess": (inference.forward_effective_sample_size(events["log_weight_exact"]), 1.0),
        "uncovered": (inference.uncovered_fraction(events["log_weight_exact"], target.log_z), 0.0),
        "log_Z": (inference.log_partition(log_weight), target.log_z),
        "dF": (
            inference.free_energy_difference(log_weight, right, ~right),
            target.free_energy_difference,
        ),
        "population_right": (population(log_weight), target.population_right),
        "population_right_model": (population(np.zeros(len(right))), target.population_right),
    }
    walks = inference.forward_effective_sample_size(events["log_weight_walks"])
    metrics: dict[str, Any] = {"forward_ess_walks": walks}
    for name, (estimate, exact) in estimates.items():
        # Without an event on one side there is no difference to speak of.
        finite = np.isfinite(estimate.value)
        metrics |= {name: Judged(estimate, exact)} if finite else {f"{name}_truth": exact}
    return metrics


def chain_metrics(well: str, chains: dict[str, np.ndarray]) -> dict[str, Any]:
    """Of chains x [chains, num, 2]; errors and times are missing where none crossed the wall."""
    target = WELLS[well]
    right = chains["x"][..., 0] > target.wall
    crossings = float(np.mean(np.sum(right[:, 1:] != right[:, :-1], axis=1)))
    metrics = {"acceptance": float(np.mean(chains["acceptance"])), "crossings": crossings}
    population = float(right.mean())
    if crossings > 0:
        population = Estimate(population, inference.chain_mean(right).error)
        metrics["tau"] = inference.autocorrelation_time(right).estimate
    return metrics | {"population_right": Judged(population, target.population_right)}


def vae_metrics(events: dict[str, np.ndarray]) -> dict[str, Any]:
    """Mean log-densities of exact events in nats, and how the generated ones are distributed.

    The bounds are compared event by event with the exact density, whose fluctuations are common
    to both.
    """
    target, exact, metrics = WELLS["tilted"], events["exact"], {}
    for name in ("elbo", "iwae"):
        metrics[name] = Judged(mean_estimate(events[name]), float(exact.mean()))
        metrics[f"{name}_below"] = mean_estimate(exact - events[name])
    right = events["x"][:, 0] > target.wall
    population = inference.weighted_mean(right, np.zeros(len(right)))
    return metrics | {"population_right": Judged(population, target.population_right)}


def report(config: Any, run: Run, metrics: dict[str, Any]) -> str:
    """Landscapes, marginals, free energies and traces; tables of flows, chains and the VAE."""
    pictures, generated, reweighted, traces = [], [], [], {}
    for well in config.wells:
        flows = {LABELS[m]: run.stage(f"{well}-{m}") for m in trainings(config, well)}
        chains = run.stage(f"{well}-chains")
        events = {label: flow["x"] for label, flow in flows.items()}
        walk = chains["walk"]["x"][0]
        shown = events | {"random walk": walk}
        samples = {label: binned(well, x) for label, x in events.items()}
        for name in ("walk", "hmc"):
            samples[LABELS[name]] = binned_chains(well, chains[name]["x"])
        if well == "tilted":
            vae = run.stage("tilted-vae")["x"]
            samples["VAE"] = binned(well, vae)
            shown["exact"] = toys.true_events(WELLS[well].toy, run.key("picture"), 1500)
        pictures += [landscape(well, f"{well.capitalize()}: {n}", x) for n, x in shown.items()]
        generated.append(marginal(well, samples, config.num_gen))
        weighted = {n: binned(well, flow["x"], flow["log_weight"]) for n, flow in flows.items()}
        reweighted.append(marginal(well, weighted, config.num_gen))
        best = run.stage(f"{well}-{trainings(config, well)[-1]}-metropolis")
        traces[f"{well} well"] = {
            "random walk": walk[:, 0],
            "flow and independence Metropolis": best["x"][0, :, 0],
        }
    run.save("landscapes", plotting.energy_landscapes(pictures, num_columns=4))
    run.save("marginals", plotting.exact_marginals(generated))
    run.save("free-energy", plotting.free_energy_profiles(reweighted))
    walls = {f"{well} well": WELLS[well].wall for well in config.wells}
    run.save("traces", plotting.chain_traces(traces, walls))
    return tables(config, metrics)


def landscape(well: str, title: str, events: np.ndarray) -> plotting.Landscape:
    """A picture of the well with at most 1500 of some events."""
    low, high = RANGES[well]
    axes = np.linspace(low, high, 200), np.linspace(-4, 4, 150)
    energy = WELLS[well].potential(axes[0])[:, None] + 0.5 * axes[1] ** 2
    events = events[:: max(1, len(events) // 1500)][:1500]
    return plotting.Landscape(title, axes, energy - energy.min(), events)


def marginal(well: str, samples: dict[str, Estimate], num_events: int) -> plotting.ExactMarginal:
    """The panel of x with its exact probabilities."""
    edges = bins(well)
    open_above = np.full(NUM_BINS, np.inf)
    low = np.stack([edges[:-1], -open_above], axis=1)
    high = np.stack([edges[1:], open_above], axis=1)
    exact = toys.region_probability(WELLS[well].toy, low, high)
    return plotting.ExactMarginal(f"{well.capitalize()} well", edges, exact, samples, num_events)


def bins(well: str) -> np.ndarray:
    """Edges of bins in x."""
    return np.linspace(*RANGES[well], NUM_BINS + 1)


def binned(well: str, x: np.ndarray, log_weight: np.ndarray | None = None) -> Estimate:
    """Probabilities of bins in x from events [num, 2], with weights or without."""
    return inference.bin_probabilities(x[:, 0], bins(well), log_weight)


def binned_chains(well: str, x: np.ndarray) -> Estimate:
    """The same from chains [chains, num, 2], errors from the spread between them."""
    each = np.stack([binned(well, chain).value for chain in x])
    return Estimate(each.mean(axis=0), each.std(axis=0, ddof=1) / len(each) ** 0.5)


def tables(config: Any, metrics: dict[str, Any]) -> str:
    """Flows, chains and the autoencoder as text, with exact values."""
    cell = lambda name: getattr(metrics.get(name), "value", metrics.get(name))
    parts = []
    for well in config.wells:
        target, columns = WELLS[well], ("ess", "forward_ess", "uncovered", "log_Z", "dF")
        columns += ("population_right", "population_right_model")
        exact = (target.log_z, target.free_energy_difference, *2 * [target.population_right])
        rows = {"exact": (1, 1, 0, *exact)}
        for method in trainings(config, well):
            name = prefix(well, method)
            rows[LABELS[method]] = [cell(f"{name}/{column}") for column in columns]
        heads = ("ESS", "forward ESS", "uncovered", "log Z", "dF [kT]", "p(right)", "as generated")
        parts.append(table(heads, rows, title=f"{well} well", digits=5))
        columns, rows = ("acceptance", "tau", "crossings", "population_right"), {}
        names = {LABELS[name]: name for name in ("walk", "hmc")}
        names |= {f"Metropolis, {m}": f"metropolis_{m}" for m in trainings(config, well)}
        for label, name in names.items():
            rows[label] = [metrics.get(f"{well}/{name}/{c}") for c in columns[:3]]
            rows[label].append(cell(f"{well}/{name}/population_right"))
        parts.append(table(("acceptance", "tau", "crossings", "p(right)"), rows, title="chains"))
    if "tilted" in config.wells:
        elbo = metrics["tilted/vae/elbo"]
        below = [metrics[f"tilted/vae/{name}_below"] for name in ("elbo", "iwae")]
        parts.append(
            f"VAE: mean log-density of exact events {elbo.truth:.3f} nats; below it by {below[0]} "
            f"(ELBO) and {below[1]} (importance-weighted bound)"
        )
    return "\n\n".join(parts)

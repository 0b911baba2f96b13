"""Boltzmann generators of double wells beside Markov chains and a VAE (1812.01729).

    python -m experiments.boltzmann

takes 4 minutes of processor time on one core, the preset smoke 40 seconds. The target is
exp(-U) / Z with U(x, v) in units of kT, of which everything is known by quadrature: a tilted well,
x^4 - 4 x^2 + x / 2 + v^2 / 2, and the hard one of the paper, x^4 / 4 - 3 x^2 + x + v^2 / 2, whose
right well holds 0.83 %. Flows of eight affine couplings are trained on U alone and reweighted.

What the default preset gave, from 500,000 events of each flow, beside the exact values:

    tilted well         ESS 0.9962(1), log Z 5.4269(1) [5.4269], F(right) - F(left) = 1.3204(35) kT
                        [1.3222], right of the wall 21.08(6) % [21.05 %]
    hard, reverse KL    ESS 0.9976(3) without one event in the right well: log Z 12.0565(1)
                        [12.0649] is low by the lost 0.0084, the forward ESS is 0, and 0.86(1) % of
                        the target is made too rarely. Independence Metropolis accepts 98 %.
    hard, annealed      from T = 5: forward ESS 0.96(3), 4.804(23) kT [4.778]. The flow makes half
                        of the right well's events; of three shorter trainings (3000 steps) with
                        other seeds one had a forward ESS of 0.
    hard, finished      trained on with the likelihood of its own events after reweighting and
                        random walks: ESS 0.9962(4), forward ESS 0.994(1), log Z 12.0649(1),
                        4.797(17) kT, 0.819(14) % right of the wall [0.835 %]
    hard, mixed         with the likelihood of short walks in both wells, whose places have to be
                        known: 12.7 % of its events are in the right well, so that the difference is
                        the best, 4.7754(43) kT, at an ESS of 0.8616(7). Its forward ESS is 0 for
                        0.012 % of the target at the edges, above all between the wells.

The forward ESS is a ratio of means that a single event far outside brings to zero: for the tilted
well it was 0.47(25) because of one in 500,000. The share of uncovered events (p / q > 10) beside it
tells such an event from a lost well. Maximum likelihood of corrected events alone, from a new
start, left a flank of the right well out (0.02 % uncovered), so finishing goes on from the annealed
flow and keeps the reverse KL.

On the tilted well tau_int of the side of the wall, 1/2 for independent events, is 366(65) steps of
random walks, 39(7) Hamiltonian trajectories and 0.544(6) steps of the flow with Metropolis; on the
hard one no walk and no trajectory ever crossed. The VAE, trained on exact events, bounds their
log-density 0.18(3) nats (ELBO) and 0.086(7) nats (1000 importance weights) below the exact one; of
its events 18.9 % are right of the wall, and six times too many on top of the wall.

Random walks have steps of 0.3, short against the distance of the wells, as they are in many
dimensions; in two, a step as long as that distance would do. They and the Hamiltonian trajectories
start in the left minimum. A flow has seen 2 million energies in its training, the ten walks
200,000.

Deviations from the paper: affine couplings with mixing matrices between them instead of
alternating ones, and no loss on a reaction coordinate.
"""

import dataclasses
from pathlib import Path

import jax

from experiments import _boltzmann_report as report
from experiments._boltzmann import (
    WELLS,
    ChainConfig,
    Config,
    FlowConfig,
    VaeConfig,
    chain_events,
    check_options,
    exact_events,
    flow_events,
    make_flow,
    make_vae,
    metropolis,
    trainings,
    vae_results,
)
from experiments._command_line import run
from jgen.nets import num_parameters
from jgen.plotting import (
    chain_traces,
    energy_landscapes,
    exact_marginals,
    free_energy_profiles,
    save,
)
from jgen.random import stream
from jgen.training import RunFolder

DEFAULT = Config()
SMOKE = Config(
    wells=("tilted",),
    flow=FlowConfig(
        depth=4,
        hidden=(16,),
        training=dataclasses.replace(FlowConfig().training, steps=150, batch_size=128),
    ),
    chain=ChainConfig(chains=4, steps=1000),
    vae=VaeConfig(
        num_train=1000,
        hidden=(16,),
        training=dataclasses.replace(VaeConfig().training, steps=150, batch_size=64),
        num_test=200,
        num_importance=20,
    ),
    num_gen=5000,
    num_walk=100,
    num_corrected=1000,
    sample_batch=5000,
)
PRESETS = {"default": DEFAULT, "smoke": SMOKE}


def main(config: Config, out: Path, *, plot_only: bool = False) -> dict[str, float]:
    """Train, generate, run the chains, compare with exact values and plot; returns the metrics.

    <well>/[<training>/]q, of the flows, q with _error and, where there is one, _exact value:
    the tilted well has one flow and its names no <training>.

    ess, forward_ess           of generated events, and of exact ones
    uncovered                  share of exact events that the flow makes less than a tenth as often
    forward_ess_walks          the same from short walks in both wells, of which the populations are
                               wrong: near zero where one well is missing
    log_Z, dF                  after reweighting; F(right) - F(left) in kT, missing if infinite
    population_right           share right of the wall, reweighted
    population_right_model     and of the events as they are generated

    <well>/walk, hmc and metropolis_<training>: acceptance, crossings of the wall a chain,
    population_right, and tau of being right of the wall in steps or trajectories.

    tilted/vae: elbo and iwae, means over exact events in nats, beside the mean of the exact
    log-density, and how far they are _below it; population_right.

    ess, dF and log_Z: those of the tilted well.
    """
    check_options(config)
    needed = [out / f"{w}-{m}.npz" for w in config.wells for m in (*trainings(config, w), "chains")]
    needed += [out / "tilted-vae.npz"] if "tilted" in config.wells else []
    if plot_only and (missing := [path for path in needed if not path.exists()]):
        raise ValueError(f"{missing[0]} is not there to plot; run without --plot-only first")
    folder = RunFolder(out, config)
    flows, chains, metrics = {}, {}, {}
    for well in config.wells:
        for method in trainings(config, well):
            flows[well, method] = found = flow_events(config, well, method, out)
            chains[well, f"metropolis_{method}"] = metropolis(config, well, method, found)
        found = chain_events(config, well, out)
        chains |= {(well, n): (found[n], found[f"{n}_acceptance"]) for n in ("walk", "hmc")}
    autoencoder = vae_results(config, out) if "tilted" in config.wells else None
    if jax.process_index() != 0:
        return {}
    for (well, method), found in flows.items():
        metrics |= _under(report.prefix(well, method), report.flow_metrics(well, found))
    for (well, name), found in chains.items():
        metrics |= _under(f"{well}/{name}", report.chain_metrics(well, *found))
    if autoencoder is not None:
        metrics |= _under("tilted/vae", report.vae_metrics(autoencoder))
        for name in ("ess", "dF", "log_Z"):
            keys = [f"tilted/{name}{end}" for end in ("", "_error", "_exact")]
            metrics |= {k.removeprefix("tilted/"): metrics[k] for k in keys if k in metrics}
    metrics = {name: float(value) for name, value in metrics.items()}
    _plot(config, folder, flows, chains, autoencoder)
    folder.write_metrics(metrics)
    print(report.table(config, metrics))
    return metrics


def count_parameters(config: Config) -> dict[str, int]:
    """Of one flow and of the autoencoder."""
    events = exact_events("tilted", jax.random.key(0), 10)
    return {
        "flow": num_parameters(make_flow(config.flow)[0].init),
        "vae": num_parameters(make_vae(config.vae, events)[0].init),
    }


def _under(prefix: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in metrics.items()}


def _plot(config, folder, flows, chains, autoencoder) -> None:
    """Landscapes, marginals, free energies and traces."""
    pictures, generated, reweighted, traces = [], [], [], {}
    for well in config.wells:
        walk = chains[well, "walk"][0]
        methods = {report.LABELS[m]: flows[well, m] for m in trainings(config, well)}
        for label, found in methods.items():
            pictures.append(report.landscape(well, f"{well.capitalize()}: {label}", found["x"]))
        pictures.append(report.landscape(well, f"{well.capitalize()}: random walk", walk[0]))
        samples = {n: report.counted(well, found["x"][:, 0]) for n, found in methods.items()}
        for name in ("walk", "hmc"):
            x = chains[well, name][0][..., 0]
            samples[report.LABELS[name]] = report.counted_chains(well, x)
        if well == "tilted":
            samples["VAE"] = report.counted(well, autoencoder["x"][:, 0])
            exact = exact_events(well, stream(jax.random.key(config.seed), "picture"), 1500)
            pictures.append(report.landscape(well, "Tilted: exact", exact))
        generated.append(report.marginal(well, samples))
        profile = {
            n: report.counted(well, found["x"][:, 0], found["log_weight"])
            for n, found in methods.items()
        }
        reweighted.append(report.marginal(well, profile))
        best = f"metropolis_{trainings(config, well)[-1]}"
        traces[f"{well} well"] = {
            "random walk": walk[0, :, 0],
            "flow and independence Metropolis": chains[well, best][0][0, :, 0],
        }
    save(energy_landscapes(pictures, num_columns=4), folder.figure("landscapes"))
    save(exact_marginals(generated), folder.figure("marginals"))
    save(free_energy_profiles(reweighted), folder.figure("free-energy"))
    walls = {f"{well} well": WELLS[well].wall for well in config.wells}
    save(chain_traces(traces, walls), folder.figure("traces"))


if __name__ == "__main__":
    run("boltzmann", __doc__, PRESETS, main, count_parameters)

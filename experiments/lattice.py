"""Flows that sample lattice phi^4 theory without data, beside hybrid Monte Carlo.

    python -m experiments.lattice --out runs/lattice [--preset smoke|default|paper-size]

It took 15 minutes on 2 cores that other work shared, 6 of them for either training; --preset smoke
takes 40 s of processor time. paper-size needs an accelerator and was not run.

Checkerboard couplings (1904.12072) and a symmetry-equivariant continuous flow (2207.00283) learn
the density exp(-S) / Z of a scalar field on an 8 x 8 lattice from its action alone. Their events
are reweighted, which gives log Z, and made exact by Metropolis steps, whose acceptance and
autocorrelation stand beside those of hybrid Monte Carlo, all in configurations and in seconds.

Found with the default preset (L = 8, m^2 = -4, lam = 8; errors in brackets):

    log Z                couplings 9.281(8), equivariant 9.292(1); by thermodynamic integration
                         9.289(3). Bounds before reweighting: 8.925(6) and 9.276(1)
    effective samples    couplings 0.46(2), of configurations of the chains 0.42(1); equivariant
                         0.973(1), 0.972(1). Published couplings of this size: 0.4 to 0.6
    <phi^2>, V<M^2>      0.1433(3), 0.75(2) and 0.1434(2), 0.756(8); chains 0.14339(5), 0.748(3)
    acceptance, tau_int  0.56, 3.5(2) and 0.91, 0.64(2); chains 0.88, 1.60(2)
    independent          couplings 2150 a second, equivariant 1810, chains 38,000 on one idle core:
    configurations       hybrid Monte Carlo is cheapest at this size, and needs no training

Deviations: the couplings start from a free field with a trained spectrum and have the symmetries of
the lattice; see `jgen.lattice`. Learning rates and sizes were chosen by hand on this lattice.
"""

import dataclasses
from pathlib import Path

import numpy as np

from experiments._command_line import run
from experiments._lattice import (
    MEASURED,
    AffineConfig,
    Config,
    EquivariantConfig,
    Found,
    HmcConfig,
    averages,
    chain_metrics,
    flat,
    make_model,
    metropolis,
    read_found,
    sample_chains,
    sample_flow,
    train,
    weight_metrics,
    write_array,
    write_found,
)
from jgen.files import save as save_params
from jgen.inference import chain_mean
from jgen.lattice import free_log_z, free_propagator
from jgen.nets import num_parameters
from jgen.plotting import (
    Panel,
    bound_curves,
    field_configurations,
    histogram_grid,
    save,
    two_point_functions,
)
from jgen.training import MetricsLog, RunFolder

LABELS = {"affine": "Checkerboard flow", "equivariant": "Equivariant flow", "hmc": "HMC"}
# By thermodynamic integration and long chains, made for this project with other code; (L, m^2, lam)
# as 1904.12072 has them.
REFERENCES = {
    (8, -4.0, 8.0): {
        "log_Z": (9.289, 0.003),
        "phi_squared": (0.14348, 0.00005),
        "V_M_squared": (0.746, 0.003),
        "action_density": (0.1615, 0.0002),
    },
    (6, -4.0, 6.975): {"phi_squared": (0.1613, 0.0001), "V_M_squared": (1.061, 0.005)},
    (12, -4.0, 5.276): {"phi_squared": (0.2104, 0.0001), "V_M_squared": (4.11, 0.04)},
}

DEFAULT = Config()
_SHORT = {"batch_size": 16, "log_every": 5, "save_every": 100}
SMOKE = Config(
    length=4,
    affine=AffineConfig(
        depth=4,
        hidden=(4,),
        training=dataclasses.replace(AffineConfig().training, steps=100, **_SHORT),
    ),
    equivariant=EquivariantConfig(
        num_frequencies=2,
        num_times=2,
        solver_steps=4,
        sample_steps=8,
        training=dataclasses.replace(EquivariantConfig().training, steps=100, **_SHORT),
    ),
    hmc=HmcConfig(chains=50, num=100),
    num_events=2000,
)
# The largest lattice of 1904.12072 whose answers we know, networks as large as in 2207.00283.
PAPER_SIZE = Config(
    length=12,
    lam=5.276,
    affine=AffineConfig(
        depth=24,
        hidden=(32, 32),
        training=dataclasses.replace(AffineConfig().training, steps=40_000, batch_size=1024),
    ),
    equivariant=EquivariantConfig(
        num_frequencies=20,
        num_times=9,
        solver_steps=50,
        sample_steps=100,
        training=dataclasses.replace(EquivariantConfig().training, steps=10_000, batch_size=256),
    ),
    num_events=100_000,
)
PRESETS = {"default": DEFAULT, "smoke": SMOKE, "paper-size": PAPER_SIZE}


def main(config: Config, out: Path, *, plot_only: bool = False) -> dict[str, float]:
    """Run the chains, train, sample and compare; returns metrics, see metrics.json.

    For each flow (affine, equivariant), with _error where there is one:

    ess, forward_ess        effective sample size of its configurations, and from those of the
                            chains, which alone shows what the flow does not reach
    log_Z, log_Z_bound      by reweighting, and the bound before it
    solver_error            of the continuous flow: width of the change of log w by the coarser
                            solver of its training
    acceptance, tau_int     of Metropolis's chain of its proposals; tau_int is that of V M^2
    <observable>            along that chain, and reweighted/<observable>
    <observable>_pull       distance from HMC in standard errors of both
    configurations_per_second, independent_per_second (divided by 2 tau_int)

    hmc/ has the same of the chains, reference/ what is known: exact values of free fields, and
    numbers of long runs for the couplings of 1904.12072.
    """
    config.check()
    needed = [out / f"{name}.npz" for name in ("hmc", *config.flows)]
    if plot_only and (missing := [path for path in needed if not path.exists()]):
        raise ValueError(f"{missing[0]} is not there to plot; run without --plot-only first")
    folder = RunFolder(out, config)
    found = {"hmc": _chains(config, folder)}
    found |= {name: _flow(config, name, folder) for name in config.flows}
    if not folder.is_writer:
        return {}
    series, metrics = {"hmc": found["hmc"].values}, {}
    for name in config.flows:
        series[name], accepted = metropolis(config, name, found[name])
        metrics[f"{name}/acceptance"] = float(accepted.mean())
    metrics |= _metrics(config, found, series)
    _plot(config, folder, found, series, metrics)
    folder.write_metrics(metrics)
    print(_table(config, metrics))
    return metrics


def count_parameters(config: Config) -> dict[str, int]:
    """Of every flow."""
    return {name: num_parameters(make_model(config, name)[0].init) for name in config.flows}


def _chains(config: Config, folder: RunFolder) -> Found:
    """Observables of the chains; configurations that are far apart are left in hmc_apart.npy."""
    path = folder.path / "hmc.npz"
    if not path.exists():
        found, apart = sample_chains(config)
        write_array(folder.path / "hmc_apart.npy", apart)
        write_found(path, found)
    return read_found(path)


def _flow(config: Config, name: str, folder: RunFolder) -> Found:
    """Configurations of a flow, which is trained if it is not there."""
    path = folder.path / f"{name}.npz"
    if not path.exists():
        params = train(config, name, folder.path / name)
        save_params(folder.path / f"{name}_params.npz", params)
        apart = np.load(folder.path / "hmc_apart.npy")
        write_found(path, sample_flow(config, name, params, apart))
    return read_found(path)


def _reference(config: Config) -> dict[str, tuple[float, float]]:
    """What is known of this theory, values and errors."""
    if config.lam == 0:
        propagator = free_propagator(config.length, config.m_squared)
        return {
            "log_Z": (free_log_z(config.length, config.m_squared), 0.0),
            "phi_squared": (float(propagator[0, 0]), 0.0),
            "V_M_squared": (float(propagator.sum()), 0.0),
            "action_density": (0.5, 0.0),
        }
    return REFERENCES.get((config.length, config.m_squared, config.lam), {})


def _metrics(config: Config, found: dict[str, Found], series: dict) -> dict[str, float]:
    """Numbers of all samplers; see `main`."""
    known = _reference(config)
    metrics = {f"reference/{name}": value for name, (value, _) in known.items()}
    metrics |= {f"reference/{name}_error": error for name, (_, error) in known.items()}
    metrics["hmc/acceptance"] = found["hmc"].acceptance
    means = {name: averages(config, values) for name, values in series.items()}
    for name, sampler in found.items():
        numbers = flat(means[name]) | chain_metrics(series[name], sampler.seconds)
        if name != "hmc":
            numbers |= weight_metrics(sampler)
            if name == "equivariant":
                numbers["solver_error"] = sampler.solver_error
            for observable, ours in means[name].items():
                theirs = means["hmc"][observable]
                error = np.hypot(ours.error, theirs.error)
                numbers[f"{observable}_pull"] = (ours.value - theirs.value) / error
        metrics |= {f"{name}/{key}": float(value) for key, value in numbers.items()}
    return metrics


def _plot(
    config: Config, folder: RunFolder, found: dict[str, Found], series: dict, metrics: dict
) -> None:
    """Configurations, two-point functions, magnetisation, weights, and the bound in training."""
    pictures = {LABELS[name]: sampler.pictures for name, sampler in found.items()}
    save(field_configurations(pictures), folder.figure("configurations"))
    functions = {name: _correlator(values) for name, values in series.items()}
    flows = {LABELS[name]: functions[name] for name in config.flows}
    figure = two_point_functions(functions["hmc"], flows, LABELS["hmc"])
    save(figure, folder.figure("two-point"))
    save(_magnetization(config, series), folder.figure("magnetization"))
    log_z = metrics.get("reference/log_Z", metrics[f"{config.flows[-1]}/log_Z"])
    save(_weights(config, found, log_z), folder.figure("weights"))
    records = {
        LABELS[name]: MetricsLog(folder.path / name / "metrics.jsonl", False).read()
        for name in config.flows
    }
    save(bound_curves(records, log_z), folder.figure("training"))


def _correlator(values: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """C(t) and its errors."""
    each = [chain_mean(values["correlator"][..., t]) for t in range(values["correlator"].shape[-1])]
    return np.array([e.value for e in each]), np.array([e.error for e in each])


def _magnetization(config: Config, series: dict):
    """Metropolis chains of the flows beside HMC; bands leave out that events are correlated."""
    reference = series["hmc"]["magnetization"].ravel()
    edges = np.linspace(-1, 1, 41) * np.quantile(np.abs(reference), 0.999)
    samples = {LABELS[name]: series[name]["magnetization"] for name in config.flows}
    panel = Panel(edges, reference, samples, "Magnetisation $M$", reference_label=LABELS["hmc"])
    return histogram_grid([panel])


def _weights(config: Config, found: dict[str, Found], log_z: float):
    """Log weights of each flow's configurations and of those of HMC; the ratio has to be Z / w."""
    panels = []
    for name in config.flows:
        ours, theirs = found[name].log_weight - log_z, found[name].forward - log_z
        edges = np.linspace(*np.quantile(np.append(ours, theirs), [0.001, 0.999]), 41)
        panels.append(Panel(
            edges, theirs, {"Flow": ours}, LABELS[name] + r": $\log w - \log Z$", log_y=True,
            ratio_range=(0, 3), reference_label=LABELS["hmc"],
        ))  # fmt: skip
    return histogram_grid(panels, num_columns=2)


def _table(config: Config, metrics: dict[str, float]) -> str:
    """The samplers beside each other as text."""
    names = ("reference", "hmc", *config.flows)
    rows = ("log_Z", "log_Z_bound", "ess", "forward_ess", "acceptance", "tau_int",
            "configurations_per_second", "independent_per_second",
            *MEASURED, "correlation_length")  # fmt: skip
    lines = [f"{'':<26}" + "".join(f"{name:>20}" for name in names)]
    for row in rows:
        cells = []
        for name in names:
            value, error = (metrics.get(f"{name}/{row}{end}") for end in ("", "_error"))
            cell = "" if value is None else f"{value:.5g}"
            cells.append(f"{cell} +- {error:.1g}" if error else cell)
        lines.append(f"{row:<26}" + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    run("lattice", __doc__, PRESETS, main, count_parameters)

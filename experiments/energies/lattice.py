"""Flows that sample lattice phi^4 theory without data, beside hybrid Monte Carlo.

    python -m experiments lattice

takes 15 minutes on 2 cores that other work shares, 6 of them for either training, the preset smoke
20 seconds; paper-size needs an accelerator and was not run.

Checkerboard couplings (1904.12072) and a symmetry-equivariant continuous flow (2207.00283) learn
the density exp(-S) / Z of a scalar field on an 8 x 8 lattice from its action alone. Their events
are reweighted, which gives log Z, and made exact by Metropolis steps, whose acceptance and
autocorrelation stand beside those of hybrid Monte Carlo, all in configurations and in seconds.
Numbers: results/energies.md.

Deviations: the couplings start from a free field with a trained spectrum and have the symmetries of
the lattice; see `jgen.lattice`. Learning rates and sizes were tuned on this lattice.
"""

import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.study import Run, Study, at_least, known, main, table, variant
from jgen import (
    Estimate,
    GenerativeModel,
    OptimizerConfig,
    TrainConfig,
    inference,
    lattice,
    models,
    plotting,
    transforms,
)
from jgen.checks import check_positive
from jgen.estimate import mean_estimate
from jgen.solvers import runge_kutta
from jgen.typing import Energy

FLOWS = ("affine", "equivariant")
LABELS = {"affine": "Checkerboard flow", "equivariant": "Equivariant flow", "hmc": "HMC"}
MEASURED = ("phi_squared", "abs_M", "V_M_squared", "first_momentum", "action_density")
"""Observables that are numbers."""
# By thermodynamic integration and long chains, made for this project with other code; (L, m^2, lam)
# as 1904.12072 has them.
REFERENCES = {
    (8, -4.0, 8.0): {
        "log_Z": Estimate(9.289, 0.003),
        "phi_squared": Estimate(0.14348, 0.00005),
        "V_M_squared": Estimate(0.746, 0.003),
        "action_density": Estimate(0.1615, 0.0002),
    },
    (6, -4.0, 6.975): {
        "phi_squared": Estimate(0.1613, 0.0001),
        "V_M_squared": Estimate(1.061, 0.005),
    },
    (12, -4.0, 5.276): {
        "phi_squared": Estimate(0.2104, 0.0001),
        "V_M_squared": Estimate(4.11, 0.04),
    },
}


@dataclass(frozen=True)
class AffineConfig:
    """Checkerboard flow of affine couplings."""

    depth: int = 8
    """Layers."""
    hidden: tuple[int, ...] = (8, 8)
    """Channels of the convolutions that make the couplings' parameters."""
    training: TrainConfig = TrainConfig(
        6000,
        64,
        optimizer=OptimizerConfig(5e-3, warmup=0.02, clip_norm=10),
        log_every=50,
        save_every=1000,
    )
    """Training."""


@dataclass(frozen=True)
class EquivariantConfig:
    """Continuous flow with the symmetries of the lattice."""

    num_frequencies: int = 5
    """Harmonics in the velocity."""
    num_times: int = 5
    """Functions of time in its kernels."""
    solver_steps: int = 16
    """Steps of the fourth-order Runge-Kutta method in training. Log-determinants are those of the
    differential equation: with too few steps the training exploits their error."""
    sample_steps: int = 32
    """Its steps when the flow is used; `solver_error` says what the difference is."""
    training: TrainConfig = TrainConfig(
        1000, 64, optimizer=OptimizerConfig(5e-3, warmup=0.05, clip_norm=10), save_every=500
    )
    """Training."""


@dataclass(frozen=True)
class HmcConfig:
    """Hybrid Monte Carlo."""

    chains: int = 200
    """Chains that run at once."""
    num: int = 1500
    """Trajectories of each chain that are kept; as many before them are not."""
    step_size: float = 0.1
    """Of the leapfrog integrator."""
    max_steps: int = 16
    """Trajectories are uniformly 1 to so many steps long: fixed lengths freeze modes."""


@dataclass(frozen=True)
class Config:
    """Scalar phi^4 theory on a periodic square lattice."""

    length: int = 8
    """Sites along a side."""
    m_squared: float = -4.0
    """m^2 in S = sum (d phi)^2 + m^2 phi^2 + lam phi^4."""
    lam: float = 8.0
    """The coupling lam."""
    flows: tuple[str, ...] = FLOWS
    """Which flows to train, of affine and equivariant."""
    scale: float = 0.4
    """Size of the field where their trainings start."""
    affine: AffineConfig = AffineConfig()
    """The checkerboard flow."""
    equivariant: EquivariantConfig = EquivariantConfig()
    """The equivariant one."""
    hmc: HmcConfig = HmcConfig()
    """The Markov chains beside them."""
    num_events: int = 20_000
    """Configurations drawn from each flow, the proposals of its Metropolis chain."""
    sample_batch: int = 500
    """Configurations made at once."""
    seed: int = 0
    """Seed of everything random."""

    @property
    def energy(self) -> Energy:
        """The action."""
        return lattice.phi4(self.m_squared, self.lam)


DEFAULT = Config()
_QUICK = {"steps": 100, "batch_size": 16, "log_every": 5, "save_every": 100}
SMOKE = Config(
    length=4,
    affine=variant(AffineConfig(4, (4,)), training=_QUICK),
    equivariant=variant(EquivariantConfig(2, 2, 4, 8), training=_QUICK),
    hmc=HmcConfig(chains=50, num=100),
    num_events=2000,
)
# The largest lattice of 1904.12072 whose answers we know, networks as large as in 2207.00283.
PAPER_SIZE = Config(
    length=12,
    lam=5.276,
    affine=variant(AffineConfig(24, (32, 32)), training={"steps": 40_000, "batch_size": 1024}),
    equivariant=variant(
        EquivariantConfig(20, 9, 50, 100), training={"steps": 10_000, "batch_size": 256}
    ),
    num_events=100_000,
)


def check(config: Config) -> None:
    """Refuse bad options."""
    known(config, flows=FLOWS)
    at_least(config, num_events=100, sample_batch=1)
    at_least(config.hmc, chains=1, num=1, max_steps=1)
    check_positive(step_size=config.hmc.step_size, scale=config.scale)
    if config.hmc.chains * config.hmc.num < 100:
        raise ValueError(
            "errors need 100 or more configurations of the chains, got "
            f"{config.hmc.chains} x {config.hmc.num}"
        )
    lattice.phi4(config.m_squared, config.lam)


def build(config: Config) -> dict[str, GenerativeModel]:
    """Every flow."""
    return {name: make_flow(config, name) for name in config.flows}


def make_flow(config: Config, name: str, solver_steps: int | None = None) -> GenerativeModel:
    """One of `FLOWS`, that of use unless steps are given."""
    if name == "affine":
        options = config.affine
        layers = lattice.checkerboard_flow(
            config.length, options.depth, hidden=options.hidden, scale=config.scale
        )
    else:
        options = config.equivariant
        layers = lattice.equivariant_flow(
            config.length,
            num_frequencies=options.num_frequencies,
            num_times=options.num_times,
            scale=config.scale,
            solver=runge_kutta("rk4", solver_steps or options.sample_steps),
        )
    return models.flow(layers, (config.length,) * 2)


def compute(config: Config, run: Run) -> dict[str, Any]:
    """Run the chains, train, sample and compare.

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
    samplers = {"hmc": run.cached("hmc", sample_chains, run)}
    for name in config.flows:
        samplers[name] = run.cached(name, sample_flow, run, name, samplers["hmc"]["apart"])
    metrics = {f"reference/{name}": value for name, value in reference(config).items()}
    theirs = averages(config, samplers["hmc"]["values"])
    for name, sampler in samplers.items():
        series, accepted = along_chain(run, name, sampler)
        means = averages(config, series)
        numbers = {"acceptance": accepted} | means | speeds(series, sampler["seconds"])
        if name != "hmc":
            numbers |= weight_metrics(sampler)
            for observable, ours in means.items():
                other = theirs[observable]
                error = np.hypot(ours.error, other.error)
                numbers[f"{observable}_pull"] = (ours.value - other.value) / error
        if name == "equivariant":
            numbers["solver_error"] = sampler["solver_error"]
        metrics |= {f"{name}/{key}": value for key, value in numbers.items()}
    return metrics


def sample_flow(run: Run, name: str, apart: np.ndarray) -> dict[str, Any]:
    """Configurations of a flow, which is trained before, and the weights of the chains' in it.

    Returns:
      values: observables of its configurations, name -> [num, ...].
      pictures: a few configurations [k, l, l].
      seconds: of one configuration, without compilation.
      log_weight: -S - log q of its configurations [num].
      forward: the same of configurations of the chains, which are `apart` [n, l, l].
      solver_error: width of the change of `log_weight` by the coarser solver of the training.
    """
    config, energy = run.config, run.config.energy
    model = make_flow(config, name)
    coarse = make_flow(config, name, config.equivariant.solver_steps)
    objective = transforms.reverse_kl(coarse, energy)
    params = run.fit(name, objective, None, getattr(config, name).training).one
    key, size = run.key(f"{name} configurations"), {"batch_size": config.sample_batch}

    def weighted(model, num):
        return inference.draw_weighted(model, params, key, num, energy, **size)

    weighted(model, config.sample_batch)  # compiles
    begin = time.perf_counter()
    x, log_weight = weighted(model, config.num_events)
    seconds = (time.perf_counter() - begin) / config.num_events
    solver_error = 0.0
    if name == "equivariant":
        # Events depend on the key and their number alone, so these are the same ones.
        few = weighted(coarse, config.sample_batch).log_weight
        solver_error = float(np.std(few - log_weight[: len(few)]))
    return {
        "values": measure(energy, x),
        "pictures": x[:4],
        "seconds": seconds,
        "log_weight": log_weight,
        "forward": inference.log_weights(model, params, key, apart, energy, **size),
        "solver_error": solver_error,
    }


def sample_chains(run: Run) -> dict[str, Any]:
    """Hybrid Monte Carlo: the same, values [chains, num, ...], and configurations far `apart`."""
    config, options, energy = run.config, run.config.hmc, run.config.energy
    key_first, key = jax.random.split(run.key("hmc"))
    steps = {"step_size": options.step_size, "max_steps": options.max_steps}
    move = lambda key, start: jax.block_until_ready(
        inference.hamiltonian(key, energy, start, options.num, **steps)
    )
    # The first half, which is compiled, too, is for the chains to forget their start.
    start = move(key_first, jnp.zeros((options.chains, config.length, config.length))).x[:, -1]
    begin = time.perf_counter()
    chains = move(key, start)
    seconds = (time.perf_counter() - begin) / (options.chains * options.num)
    x = np.asarray(chains.x)
    values = measure(energy, x.reshape(-1, *x.shape[2:]))
    # As many as tell the forward effective sample size to a per cent.
    apart = x[:, :: max(1, options.chains * options.num // 4000)]
    return {
        "values": {name: v.reshape(*x.shape[:2], *v.shape[1:]) for name, v in values.items()},
        "pictures": x[:4, -1],
        "seconds": seconds,
        "acceptance": float(chains.acceptance.mean()),
        "apart": apart.reshape(-1, *x.shape[2:]),
    }


def measure(energy: Energy, x: np.ndarray) -> dict[str, np.ndarray]:
    """Observables of configurations [n, l, l]."""
    values = jax.jit(jax.vmap(lambda phi: lattice.observables(phi, energy)))(x)
    return {name: np.asarray(v) for name, v in values.items()}


def along_chain(
    run: Run, name: str, sampler: dict[str, Any]
) -> tuple[dict[str, np.ndarray], float]:
    """Observables along the chains or along Metropolis's chain of a flow, and its acceptance."""
    if name == "hmc":
        return sampler["values"], float(sampler["acceptance"])
    chain = inference.independence_metropolis(run.key(f"{name} Metropolis"), sampler["log_weight"])
    index = np.asarray(chain.index)
    series = {key: values[index] for key, values in sampler["values"].items()}
    return series, float(np.asarray(chain.accepted).mean())


def averages(config: Config, values: dict[str, np.ndarray]) -> dict[str, Estimate]:
    """Means along chains, the correlation length among them, with autocorrelation in the errors."""
    means = {name: inference.chain_mean(values[name]) for name in MEASURED}
    susceptibility, first = means["V_M_squared"].value, means["first_momentum"].value
    length = lambda s, f: lattice.second_moment_length(s, f, config.length)
    if susceptibility <= first:  # the length is below what these events resolve
        return means
    # To first order the length fluctuates as this combination of the two averages.
    slopes = jax.grad(length, (0, 1))(jnp.float32(susceptibility), jnp.float32(first))
    series = float(slopes[0]) * values["V_M_squared"] + float(slopes[1]) * values["first_momentum"]
    error = inference.chain_mean(series).error
    return means | {"correlation_length": Estimate(float(length(susceptibility, first)), error)}


def speeds(values: dict[str, np.ndarray], seconds: float) -> dict[str, Any]:
    """Autocorrelation time of V M^2 and independent configurations a second."""
    tau = inference.autocorrelation_time(values["V_M_squared"]).estimate
    return {
        "tau_int": tau,
        "configurations_per_second": 1 / seconds,
        "independent_per_second": 1 / (2 * tau.value * seconds),
    }


def weight_metrics(sampler: dict[str, Any]) -> dict[str, Estimate]:
    """What a flow's weights say: log Z, its bound, effective sample sizes; reweighted means."""
    w, values = sampler["log_weight"], sampler["values"]
    return {
        "ess": inference.effective_sample_size(w),
        "forward_ess": inference.forward_effective_sample_size(sampler["forward"]),
        "log_Z": inference.log_partition(w),
        "log_Z_bound": mean_estimate(w),
    } | {f"reweighted/{name}": inference.weighted_mean(values[name], w) for name in MEASURED}


def reference(config: Config) -> dict[str, Estimate]:
    """What is known of this theory."""
    if config.lam == 0:
        propagator = lattice.free_propagator(config.length, config.m_squared)
        exact = {
            "log_Z": lattice.free_log_z(config.length, config.m_squared),
            "phi_squared": float(propagator[0, 0]),
            "V_M_squared": float(propagator.sum()),
            "action_density": 0.5,
        }
        return {name: Estimate(value, 0.0) for name, value in exact.items()}
    return REFERENCES.get((config.length, config.m_squared, config.lam), {})


def report(config: Config, run: Run, metrics: dict[str, Any]) -> str:
    """Configurations, two-point functions, magnetisation, weights and trainings; a table."""
    samplers = {name: run.stage(name) for name in ("hmc", *config.flows)}
    series = {name: along_chain(run, name, sampler)[0] for name, sampler in samplers.items()}
    pictures = {LABELS[name]: sampler["pictures"] for name, sampler in samplers.items()}
    run.save("configurations", plotting.field_configurations(pictures))
    functions = {LABELS[name]: correlator(values) for name, values in series.items()}
    chains = functions.pop(LABELS["hmc"])
    run.save("two-point", plotting.two_point_functions(chains, functions, LABELS["hmc"]))
    run.save("magnetization", magnetization(config, series))
    log_z = metrics.get("reference/log_Z", metrics[f"{config.flows[-1]}/log_Z"]).value
    run.save("weights", weights(config, samplers, log_z))
    records = {LABELS[name]: run.history(name) for name in config.flows}
    run.save("training", plotting.bound_curves(records, log_z))
    columns = ("reference", *samplers)
    rows = ("log_Z", "log_Z_bound", "ess", "forward_ess", "acceptance", "tau_int",
            "configurations_per_second", "independent_per_second",
            *MEASURED, "correlation_length")  # fmt: skip
    return table(columns, {row: [metrics.get(f"{c}/{row}") for c in columns] for row in rows})


def correlator(values: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """C(t) and its errors."""
    times = np.moveaxis(values["correlator"], -1, 0)
    means, errors = zip(*(inference.chain_mean(at) for at in times), strict=True)
    return np.array(means), np.array(errors)


def magnetization(config: Config, series: dict):
    """Metropolis chains of the flows beside HMC; bands leave out that events are correlated."""
    chains = series["hmc"]["magnetization"].ravel()
    edges = np.linspace(-1, 1, 41) * np.quantile(np.abs(chains), 0.999)
    samples = {LABELS[name]: series[name]["magnetization"] for name in config.flows}
    label = "Magnetisation $M$"
    panel = plotting.Panel(edges, chains, samples, label, reference_label=LABELS["hmc"])
    return plotting.histogram_grid([panel])


def weights(config: Config, samplers: dict, log_z: float):
    """Log weights of each flow's configurations and of those of HMC; the ratio has to be Z / w."""
    panels = []
    for name in config.flows:
        ours, theirs = (samplers[name][kind] - log_z for kind in ("log_weight", "forward"))
        edges = np.linspace(*np.quantile(np.append(ours, theirs), [0.001, 0.999]), 41)
        label = LABELS[name] + r": $\log w - \log Z$"
        options = {"log_y": True, "ratio_range": (0, 3), "reference_label": LABELS["hmc"]}
        panels.append(plotting.Panel(edges, theirs, {"Flow": ours}, label, **options))
    return plotting.histogram_grid(panels, num_columns=2)


PRESETS = {"default": DEFAULT, "smoke": SMOKE, "paper-size": PAPER_SIZE}
STUDY = Study(PRESETS, compute, report, check, build)

if __name__ == "__main__":
    main(STUDY)

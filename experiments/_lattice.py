"""Flows, chains and what is measured on their configurations, for the lattice study."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jgen.bijectors import TrainableBijector
from jgen.estimate import Estimate
from jgen.files import atomic_path
from jgen.generative_model import GenerativeModel
from jgen.inference import (
    autocorrelation_time,
    chain_mean,
    draw_weighted,
    effective_sample_size,
    forward_effective_sample_size,
    hamiltonian,
    independence_metropolis,
    log_partition,
    log_weights,
    weighted_mean,
)
from jgen.lattice import (
    checkerboard_flow,
    equivariant_flow,
    observables,
    phi4,
    second_moment_length,
)
from jgen.models import flow
from jgen.random import stream
from jgen.solvers import runge_kutta
from jgen.training import OptimizerConfig, TrainConfig, fit, member
from jgen.transforms import reverse_kl
from jgen.typing import Energy, Params

FLOWS = ("affine", "equivariant")
MEASURED = ("phi_squared", "abs_M", "V_M_squared", "first_momentum", "action_density")
"""Observables that are numbers."""


@dataclass(frozen=True)
class AffineConfig:
    """Checkerboard flow of affine couplings."""

    depth: int = 8
    """Layers."""
    hidden: tuple[int, ...] = (8, 8)
    """Channels of the convolutions that make the couplings' parameters."""
    training: TrainConfig = TrainConfig(
        steps=6000,
        batch_size=64,
        optimizer=OptimizerConfig(learning_rate=5e-3, warmup=0.02, clip_norm=10),
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
        steps=1000,
        batch_size=64,
        optimizer=OptimizerConfig(learning_rate=5e-3, warmup=0.05, clip_norm=10),
        log_every=10,
        save_every=500,
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
    """Which flows to train."""
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

    def check(self) -> None:
        """Raise a ValueError for options that do not fit together."""
        phi4(self.m_squared, self.lam)
        if not self.flows or set(self.flows) - set(FLOWS):
            raise ValueError(f"flows are one or more of {', '.join(FLOWS)}, got {self.flows}")
        if min(self.num_events, self.hmc.chains * self.hmc.num) < 100:
            raise ValueError(
                "errors need 100 or more configurations, got num_events "
                f"{self.num_events} and {self.hmc.chains} x {self.hmc.num} of the chains"
            )
        for name in self.flows:
            getattr(self, name).training.check()
            make_bijector(self, name)  # refuses sizes that do not fit

    @property
    def energy(self) -> Energy:
        """The action."""
        return phi4(self.m_squared, self.lam)


class Found(NamedTuple):
    """What one sampler made.

    Attributes:
      values: observables of its configurations, name -> [num, ...], of chains [chains, num, ...].
      pictures: a few configurations [k, l, l].
      seconds: of one configuration, without compilation.
      log_weight: -S - log q of a flow's configurations [num]; of the chains nothing [0].
      forward: the same of configurations of the chains in this flow.
      solver_error: width of the change of `log_weight` by the coarser solver of the training.
      acceptance: mean probability of acceptance of the chains; of a flow it is in the weights.
    """

    values: dict[str, np.ndarray]
    pictures: np.ndarray
    seconds: float
    log_weight: np.ndarray
    forward: np.ndarray
    solver_error: float
    acceptance: float


def make_bijector(config: Config, name: str, solver_steps: int | None = None) -> TrainableBijector:
    """The map of one of `FLOWS` from fields to the base, that of use unless steps are given."""
    if name == "affine":
        options = config.affine
        return checkerboard_flow(
            config.length, options.depth, hidden=options.hidden, scale=config.scale
        )
    options = config.equivariant
    return equivariant_flow(
        config.length,
        num_frequencies=options.num_frequencies,
        num_times=options.num_times,
        scale=config.scale,
        solver=runge_kutta("rk4", options.sample_steps if solver_steps is None else solver_steps),
    )


def make_model(config: Config, name: str, solver_steps: int | None = None) -> GenerativeModel:
    """A flow."""
    return flow(make_bijector(config, name, solver_steps), (config.length,) * 2)


def train(config: Config, name: str, folder: Path) -> Params:
    """Train a flow in its folder, or go on where it stopped."""
    model = make_model(config, name, config.equivariant.solver_steps)
    key = stream(jax.random.key(config.seed), name)
    training = getattr(config, name).training
    fitted = fit(reverse_kl(model, config.energy), None, key, training, folder=folder, name=name)
    return member(fitted.params, 0)


def sample_flow(
    config: Config, name: str, params: Params, configurations: Float[np.ndarray, "n l l"]
) -> Found:
    """Configurations of a trained flow, and the weights of those of the chains in it."""
    model = make_model(config, name)
    key = stream(jax.random.key(config.seed), f"{name} configurations")

    def weighted(model, num):
        size = {"batch_size": config.sample_batch}
        return draw_weighted(model, params, key, num, energy, **size)

    energy = config.energy
    weighted(model, config.sample_batch)  # compiles
    clock = time.perf_counter()
    x, log_weight = weighted(model, config.num_events)
    seconds = (time.perf_counter() - clock) / config.num_events
    solver_error = 0.0
    if name == "equivariant":
        # Events depend on the key and their number alone, so these are the same ones.
        coarse = make_model(config, name, config.equivariant.solver_steps)
        few = weighted(coarse, config.sample_batch).log_weight
        solver_error = float(np.std(few - log_weight[: len(few)]))
    forward = log_weights(
        model, params, key, configurations, config.energy, batch_size=config.sample_batch
    )
    values = _measure(config, x)
    return Found(values, x[:4], seconds, log_weight, forward, solver_error, np.nan)


def sample_chains(config: Config) -> tuple[Found, Float[np.ndarray, "n l l"]]:
    """Hybrid Monte Carlo, and configurations of it that are far apart."""
    options = config.hmc
    key_first, key = jax.random.split(stream(jax.random.key(config.seed), "hmc"))
    energy = config.energy  # one function for both halves: a program is compiled for each
    run = lambda key, start: jax.block_until_ready(hamiltonian(
        key, energy, start, options.num,
        step_size=options.step_size, max_steps=options.max_steps,
    ))  # fmt: skip
    # The first half, which is compiled, too, is for the chains to forget their start.
    start = run(key_first, jnp.zeros((options.chains, config.length, config.length))).x[:, -1]
    clock = time.perf_counter()
    chains = run(key, start)
    seconds = (time.perf_counter() - clock) / (options.chains * options.num)
    x = np.asarray(chains.x)
    values = _measure(config, x.reshape(-1, *x.shape[2:]))
    values = {name: v.reshape(*x.shape[:2], *v.shape[1:]) for name, v in values.items()}
    # As many as tell the forward effective sample size to a per cent.
    apart = x[:, :: max(1, options.chains * options.num // 4000)].reshape(-1, *x.shape[2:])
    found = Found(
        values, x[:4, -1], seconds, np.empty(0), np.empty(0), 0.0,
        float(chains.acceptance.mean()),
    )  # fmt: skip
    return found, apart


def _measure(config: Config, x: Float[np.ndarray, "n l l"]) -> dict[str, np.ndarray]:
    """Observables of all configurations."""
    measure = jax.jit(jax.vmap(lambda phi: observables(phi, config.energy)))
    return {name: np.asarray(v) for name, v in measure(x).items()}


def write_array(path: Path, array: np.ndarray) -> None:
    """Write one array as a .npy file."""
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.save(file, array)


def write_found(path: Path, found: Found) -> None:
    """Write what a sampler made as one .npz file."""
    fields = {k: v for k, v in found._asdict().items() if k != "values"}
    values = {f"values/{name}": v for name, v in found.values.items()}
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez(file, **fields, **values)


def read_found(path: Path) -> Found:
    """Read what `write_found` wrote."""
    with np.load(path) as file:
        arrays = dict(file)
    values = {k.removeprefix("values/"): v for k, v in arrays.items() if k.startswith("values/")}
    rest = {k: v for k, v in arrays.items() if not k.startswith("values/")}
    rest |= {name: float(rest[name]) for name in ("seconds", "solver_error", "acceptance")}
    return Found(values=values, **rest)


def metropolis(config: Config, name: str, found: Found) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Observables along the Metropolis chain of a flow's proposals, and which were accepted."""
    key = stream(jax.random.key(config.seed), f"{name} Metropolis")
    chain = independence_metropolis(key, found.log_weight)
    index = np.asarray(chain.index)
    return {k: v[index] for k, v in found.values.items()}, np.asarray(chain.accepted)


def averages(config: Config, values: dict[str, np.ndarray]) -> dict[str, Estimate]:
    """Means along chains, the correlation length among them, with autocorrelation in the errors."""
    found = {name: chain_mean(values[name]) for name in MEASURED}
    susceptibility, first = found["V_M_squared"].value, found["first_momentum"].value
    length = lambda s, f: second_moment_length(s, f, config.length)
    if susceptibility <= first:  # the length is below what these events resolve
        return found
    # To first order the length fluctuates as this combination of the two averages.
    slopes = jax.grad(length, (0, 1))(jnp.float32(susceptibility), jnp.float32(first))
    series = float(slopes[0]) * values["V_M_squared"] + float(slopes[1]) * values["first_momentum"]
    error = chain_mean(series).error
    found["correlation_length"] = Estimate(float(length(susceptibility, first)), error)
    return found


def chain_metrics(values: dict[str, np.ndarray], seconds: float) -> dict[str, float]:
    """Autocorrelation time of V M^2 and independent configurations a second."""
    tau = autocorrelation_time(values["V_M_squared"])
    return {
        "tau_int": tau.value,
        "tau_int_error": tau.error,
        "configurations_per_second": 1 / seconds,
        "independent_per_second": 1 / (2 * tau.value * seconds),
    }


def weight_metrics(found: Found) -> dict[str, float]:
    """What a flow's weights say: log Z, its bound, effective sample sizes; with errors."""
    w = found.log_weight
    estimates = {
        "ess": effective_sample_size(w),
        "forward_ess": forward_effective_sample_size(found.forward),
        "log_Z": log_partition(w),
        "log_Z_bound": Estimate(float(w.mean()), float(w.std() / len(w) ** 0.5)),
    }
    for name in MEASURED:
        estimates[f"reweighted/{name}"] = weighted_mean(found.values[name], w)
    return flat(estimates)


def flat(estimates: dict[str, Estimate]) -> dict[str, float]:
    """Values and errors by name."""
    out = {}
    for name, estimate in estimates.items():
        out |= {name: float(estimate.value), f"{name}_error": float(estimate.error)}
    return out

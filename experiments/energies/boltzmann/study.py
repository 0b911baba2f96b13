"""Boltzmann generators of double wells beside Markov chains and a VAE (1812.01729).

    python -m experiments boltzmann

takes 4 minutes of processor time on one core, the preset smoke 20 seconds. The target is
exp(-U) / Z with U(x, v) in units of kT, of which everything is known by quadrature: a tilted well,
x^4 - 4 x^2 + x / 2 + v^2 / 2, and the hard one of the paper, x^4 / 4 - 3 x^2 + x + v^2 / 2, whose
right well holds 0.83 %. Flows of eight affine couplings are trained on U alone and reweighted.
Numbers: results/energies.md.

Random walks have steps of 0.3, short against the distance of the wells, as they are in many
dimensions; in two, a step as long as that distance would do. They and the Hamiltonian trajectories
start in the left minimum. A flow has seen 2 million energies in its training, the ten walks
200,000. Deviations from the paper: affine couplings with mixing matrices between them instead of
alternating ones, and no loss on a reaction coordinate.
"""

import functools
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from experiments.energies.boltzmann import report
from experiments.study import Run, Study, at_least, known, main, variant
from jgen import (
    Batch,
    GenerativeModel,
    OptimizerConfig,
    TrainConfig,
    bijectors,
    draw,
    inference,
    log_densities,
    models,
    nets,
    toys,
    transforms,
)
from jgen.checks import check_not_negative, check_positive
from jgen.random import stream

WELLS = report.WELLS
TRAININGS = ("plain", "annealed", "finished", "mixed")


@dataclass(frozen=True)
class FlowConfig:
    """Affine couplings, trained without data."""

    depth: int = 8
    """Couplings."""
    hidden: tuple[int, ...] = (32, 32)
    """Widths of the network of each."""
    training: TrainConfig = TrainConfig(
        steps=4000, batch_size=512, log_every=100, save_every=1000, optimizer=OptimizerConfig(2e-3)
    )
    """Training; its batch is the events that the flow makes at every step."""
    hottest: float = 5.0
    """Temperature that an annealed training starts at, in units of the target's; it falls linearly
    to one."""
    annealing: float = 0.5
    """Fraction of the training until it is one."""
    likelihood: float = 0.5
    """Weight of the likelihood in a mixed training and in a finishing one."""
    finish: TrainConfig = TrainConfig(
        steps=2000, batch_size=512, log_every=100, save_every=1000, optimizer=OptimizerConfig(5e-4)
    )
    """Training that goes on from the annealed flow."""

    def check(self) -> None:
        """Refuse schedules that make no sense."""
        check_positive(hottest=self.hottest)
        check_not_negative(likelihood=self.likelihood)
        if not (0 < self.annealing <= 1 and self.hottest >= 1):
            raise ValueError(
                "annealing must be in (0, 1] and hottest at least 1, got "
                f"{self.annealing} and {self.hottest}"
            )


@dataclass(frozen=True)
class ChainConfig:
    """Markov chains, all started in the left minimum."""

    chains: int = 10
    """Their number."""
    steps: int = 20_000
    """Metropolis steps of each, and proposals of an independence chain."""
    width: float = 0.3
    """Standard deviation of a random walk's steps."""
    step_size: float = 0.15
    """Of the leapfrog integrator of Hamiltonian trajectories."""
    max_steps: int = 19
    """Their longest trajectory; ten steps on average, and a tenth as many trajectories as
    `steps`, so that gradients are as many as the walk's energies."""

    def check(self) -> None:
        """Refuse too few for an error."""
        at_least(self, chains=2, steps=100, max_steps=1)
        check_positive(width=self.width, step_size=self.step_size)


@dataclass(frozen=True)
class VaeConfig:
    """Variational autoencoder trained on exact events of the tilted well."""

    num_train: int = 20_000
    """Training events."""
    num_latent: int = 2
    """Components of the latent."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of encoder and decoder."""
    training: TrainConfig = TrainConfig(
        steps=6000, batch_size=256, log_every=100, save_every=2000, optimizer=OptimizerConfig(2e-3)
    )
    """Training."""
    num_test: int = 2000
    """Events that its bounds are averaged over."""
    num_importance: int = 1000
    """K of the importance-weighted bound."""

    def check(self) -> None:
        """Refuse too few events."""
        at_least(self, num_train=1, num_test=2, num_importance=1)


@dataclass(frozen=True)
class Config:
    """Boltzmann generators of double wells, Markov chains and an autoencoder beside them."""

    wells: tuple[Literal["tilted", "hard"], ...] = ("tilted", "hard")
    """tilted: U = x^4 - 4 x^2 + x / 2 + v^2 / 2; hard: x^4 / 4 - 3 x^2 + x + v^2 / 2."""
    trainings: tuple[Literal[TRAININGS], ...] = TRAININGS
    """Of the hard well's flows. plain: reverse KL. annealed: that from a high temperature on.
    finished: the annealed one trained on, half with the likelihood of its own events after
    reweighting and random walks. mixed: half with the likelihood of short walks in both wells."""
    flow: FlowConfig = FlowConfig()
    """The flows."""
    chain: ChainConfig = ChainConfig()
    """The Markov chains."""
    vae: VaeConfig = VaeConfig()
    """The autoencoder."""
    num_gen: int = 500_000
    """Events of each flow, and of the target for the forward sample size."""
    num_walk: int = 5000
    """Events in each minimum of short random walks, every tenth step: data of the mixed training,
    and what a forward sample size without exact events is taken from."""
    num_corrected: int = 50_000
    """Events that the annealed flow is finished on: its own, drawn again by their weights and moved
    by random walks."""
    corrected_steps: int = 100
    """Steps of these walks."""
    sample_batch: int = 10_000
    """Events generated at once."""
    seed: int = 0
    """Seed of everything random."""


DEFAULT = Config()
SMOKE = variant(
    DEFAULT,
    wells=("tilted",),
    flow={"depth": 4, "hidden": (16,), "training": {"steps": 150, "batch_size": 128}},
    chain={"chains": 4, "steps": 1000},
    vae={
        "num_train": 1000,
        "hidden": (16,),
        "training": {"steps": 150, "batch_size": 64},
        "num_test": 200,
        "num_importance": 20,
    },
    num_gen=5000,
    num_walk=100,
    num_corrected=1000,
    sample_batch=5000,
)


def check(config: Config) -> None:
    """Refuse bad options."""
    known(config, wells=tuple(WELLS), trainings=TRAININGS)
    at_least(config, num_walk=10, num_corrected=1, corrected_steps=1, sample_batch=1)
    at_least(config, num_gen=config.chain.chains * config.chain.steps)


def build(config: Config) -> dict[str, GenerativeModel]:
    """One flow, and the autoencoder of standardised events."""
    return {"flow": make_flow(config.flow), "vae": make_vae(config.vae)[0]}


def make_flow(config: FlowConfig) -> GenerativeModel:
    """Affine couplings of events (x, v)."""
    layers = bijectors.coupling_flow(2, bijectors.affine(), config.depth, hidden=config.hidden)
    return models.flow(layers, 2)


def make_vae(config: VaeConfig) -> tuple[GenerativeModel, models.Autoencoder]:
    """The autoencoder of standardised events, as a model and by itself."""
    encoder = nets.conditioner(2, 2 * config.num_latent, hidden=config.hidden)
    pair = lambda params, x, cond: tuple(encoder.apply(params, x, cond).reshape(2, -1))
    # Started at zero the decoder would ignore its latent, and the encoder have nothing to learn.
    inner = nets.conditioner(config.num_latent, 2, hidden=config.hidden)
    decoder = models.with_width(nets.Network(inner.init, inner.apply), 0.5)
    autoencoder = models.encoder_decoder(
        nets.Network(encoder.init, pair), decoder, models.gaussian(None)
    )
    model = models.vae(autoencoder, (config.num_latent,), num_importance=config.num_importance)
    return model, autoencoder


def compute(config: Config, run: Run) -> dict:
    """Numbers with `_error` and, where there is one, the exact value as `_truth`.

    WELL/TRAINING/..., or WELL/... for the one flow of the tilted well:
      ess, forward_ess          of generated events, and of exact ones
      forward_ess_walks         of short walks in both wells, whose populations are wrong: near zero
                                where one well is missing
      uncovered                 share of exact events that the flow makes less than a tenth as often
      log_Z, dF                 after reweighting; F(right) - F(left) in kT, missing if infinite
      population_right          share right of the wall, reweighted
      population_right_model    as generated
    WELL/walk, hmc, metropolis_TRAINING/...:
      acceptance, crossings     of the wall, a chain
      population_right, tau     of being right of the wall, in steps or trajectories
    tilted/vae/...:
      elbo, iwae                means over exact events in nats, beside that of the exact
                                log-density, and how far they are _below it
      population_right
    ess, dF, log_Z: those of the tilted well.
    """
    metrics, flow = {}, make_flow(config.flow)
    for well in config.wells:
        parts = {}
        for method in report.trainings(config, well):
            events = flow_events(run, flow, well, method)
            parts[report.prefix(well, method)] = report.flow_metrics(well, events)
            chains = metropolis(run, well, method, events)
            parts[f"{well}/metropolis_{method}"] = report.chain_metrics(well, chains)
        for name, chains in chain_events(run, well).items():
            parts[f"{well}/{name}"] = report.chain_metrics(well, chains)
        if well == "tilted":
            parts["tilted/vae"] = report.vae_metrics(vae_events(run))
        for prefix, values in parts.items():
            metrics |= {f"{prefix}/{name}": value for name, value in values.items()}
    if "tilted" in config.wells:
        shared = {name: metrics.get(f"tilted/{name}") for name in ("ess", "dF", "log_Z")}
        metrics |= {name: value for name, value in shared.items() if value is not None}
    return metrics


def short_walks(run: Run, well: str) -> np.ndarray:
    """Events [2 num_walk, 2], as many of walks from the left minimum as from the right one.

    Ten walks each, whose first tenth is left out.
    """
    config, target = run.config, WELLS[well]
    start = np.repeat(np.array([[x, 0.0] for x in target.minima], np.float32), 10, axis=0)
    each = -(-config.num_walk // 10)
    num = each + -(-each // 9)
    options = {"width": config.chain.width, "thin": 10}
    key = run.key(f"short walks {well}")
    x = np.asarray(inference.random_walk(key, target.energy, start, num, **options).x)
    return x[:, -each:].reshape(2, -1, 2)[:, : config.num_walk].reshape(-1, 2)


def flow_events(run: Run, flow: GenerativeModel, well: str, method: str) -> dict[str, np.ndarray]:
    """What a trained flow generates, a stage of the run.

    x [num_gen, 2] and their `log_weight`; `log_weight_exact` of as many events of the target, and
    `log_weight_walks` of the short walks.
    """
    config, energy, name = run.config, WELLS[well].energy, f"{well}-{method}"
    size = {"batch_size": config.sample_batch}

    def generate():
        trained, data = objective(run, flow, well, method)
        training = config.flow.finish if method == "finished" else config.flow.training
        params = run.fit(name, trained, data, training).one
        key = run.key(f"{well} {method}")
        keys = jax.random.split(key, 3)
        exact = toys.true_events(WELLS[well].toy, stream(key, "exact"), config.num_gen)
        weights = lambda key, x: inference.log_weights(flow, params, key, x, energy, **size)
        own = inference.draw_weighted(flow, params, keys[0], config.num_gen, energy, **size)
        events = {
            "x": own.x,
            "log_weight": own.log_weight,
            "log_weight_exact": weights(keys[1], exact),
            "log_weight_walks": weights(keys[2], short_walks(run, well)),
        }
        return {label: np.asarray(values, np.float32) for label, values in events.items()}

    return run.cached(name, generate)


def objective(
    run: Run, flow: GenerativeModel, well: str, method: str
) -> tuple[GenerativeModel, Batch | None]:
    """What a flow is trained on: the model with its loss, and the data if there are any."""
    options = run.config.flow
    reverse = functools.partial(transforms.reverse_kl, energy=WELLS[well].energy)
    if method == "plain":
        return reverse(flow), None
    if method == "annealed":
        falling = lambda done: jnp.maximum(0.0, 1 - done / options.annealing)
        hot = lambda done: 1 + (options.hottest - 1) * falling(done)
        return reverse(flow, temperature=hot), None
    if method == "mixed":
        return reverse(flow, likelihood=options.likelihood), Batch(short_walks(run, well))
    annealed, data = objective(run, flow, well, "annealed")
    start = run.fit(f"{well}-annealed", annealed, data, options.training).one
    begun = flow._replace(init=lambda key: start)
    data = Batch(corrected_events(run, flow_events(run, flow, well, "annealed"), well))
    return reverse(begun, likelihood=options.likelihood), data


def corrected_events(run: Run, events: dict[str, np.ndarray], well: str) -> np.ndarray:
    """Events [num_corrected, 2] that follow the target, from the annealed flow's and random walks.

    Weights put the populations of the wells right, and walks bring what the flow leaves out within
    them.
    """
    config, log_weight = run.config, events["log_weight"].astype(np.float64)
    weight = np.exp(log_weight - log_weight.max())
    rng = np.random.default_rng(config.seed)
    start = rng.choice(len(weight), config.num_corrected, p=weight / weight.sum())
    options = {"width": config.chain.width, "thin": config.corrected_steps}
    key, energy = run.key(f"corrected {well}"), WELLS[well].energy
    walks = inference.random_walk(key, energy, events["x"][start], 1, **options)
    return np.asarray(walks.x)[:, 0]


def chain_events(run: Run, well: str) -> dict[str, dict[str, np.ndarray]]:
    """`x` [chains, num, 2] and `acceptance` [chains] of `walk` and `hmc`, a stage of the run."""
    options, energy = run.config.chain, WELLS[well].energy
    start = np.tile([[WELLS[well].minima[0], 0.0]], (options.chains, 1))

    def move():
        key = run.key(f"chains {well}")
        walks = inference.random_walk(
            stream(key, "walk"), energy, start, options.steps, width=options.width
        )
        trajectories = inference.hamiltonian(
            stream(key, "hmc"),
            energy,
            start,
            options.steps // 10,
            step_size=options.step_size,
            max_steps=options.max_steps,
        )
        both = {"walk": walks, "hmc": trajectories}
        return {name: {"x": c.x, "acceptance": c.acceptance} for name, c in both.items()}

    return run.cached(f"{well}-chains", move)


def metropolis(
    run: Run, well: str, method: str, events: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The same of independence chains on a flow's events, a stage of the run."""
    shape = run.config.chain.chains, run.config.chain.steps
    num = shape[0] * shape[1]

    def accept():
        keys = jax.random.split(run.key(f"metropolis {well} {method}"), shape[0])
        log_weight = events["log_weight"][:num].reshape(shape)
        chains = jax.vmap(inference.independence_metropolis)(keys, log_weight)
        index = np.asarray(chains.index)[..., None]
        x = np.take_along_axis(events["x"][:num].reshape(*shape, 2), index, axis=1)
        return {"x": x, "acceptance": np.asarray(chains.accepted).mean(axis=1)}

    return run.cached(f"{well}-{method}-metropolis", accept)


def vae_events(run: Run) -> dict[str, np.ndarray]:
    """Generated events `x`, and log-densities [num_test] of exact events, a stage of the run.

    Those are `elbo` and `iwae` of the autoencoder and `exact` of the target.
    """
    config, options = run.config, run.config.vae

    def generate():
        key = run.key("vae")
        train, test = (
            toys.true_events(WELLS["tilted"].toy, stream(key, name), num)
            for name, num in (("train", options.num_train), ("test", options.num_test))
        )
        inner, autoencoder = make_vae(options)
        mean, scale = train.mean(axis=0), train.std(axis=0)
        model = transforms.preprocessed(inner, bijectors.standardize(mean, scale))
        params = run.fit("tilted-vae", model, Batch(train), options.training).one
        keys = jax.random.split(stream(key, "bounds"), 3)
        standard = Batch((test - mean) / scale)
        bound = models.elbo_of_events(autoencoder, params, keys[0], standard)
        size = {"batch_size": config.sample_batch}
        return {
            "x": draw(model, params, keys[2], config.num_gen, **size),
            "elbo": bound.reconstruction - bound.kl - np.log(scale).sum(),
            "iwae": log_densities(model, params, keys[1], test),
            "exact": jax.vmap(WELLS["tilted"].toy.log_prob)(test),
        }

    return run.cached("tilted-vae", generate)


STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report.report, check, build)

if __name__ == "__main__":
    main(STUDY)

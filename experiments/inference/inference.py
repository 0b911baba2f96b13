"""Posteriors of simulators whose posteriors are known: four methods, ensembles, calibration.

    python -m experiments inference

trains neural posteriors (a spline flow and flow matching), a neural likelihood and a neural ratio
on ten thousand simulations of four tasks of the benchmark `sbibm`, and tells their draws from exact
ones by a classifier (C2ST, 0.5 is best), at the ten published observations. Then the posterior of
the first task is tested without knowing the exact one, by ranks, random points, and a local
classifier, and the same posterior made 20 % too narrow has to fail. A second round of simulations
where the first posterior is shows what they are worth.

Numbers: results/inference.md.
"""

import functools
from dataclasses import dataclass

import jax
import numpy as np

from experiments.study import Run, Study, at_least, known, main, metric_table, table, variant
from jgen import Batch, GenerativeModel, OptimizerConfig, TrainConfig, draw, inference, plotting
from jgen.estimate import mean_estimate
from jgen.metrics import c2st
from jgen.plotting import Plane
from jgen.random import numpy_generator
from jgen.toys.simulators import SIMULATORS, Simulator, observations
from jgen.transforms import mixture
from jgen.typing import Params

# Mean C2ST over the observations at 10^4 simulations (2101.04653, its published results).
PUBLISHED = {
    "NPE": {"gaussian_linear": 0.552, "gaussian_mixture": 0.661, "two_moons": 0.606, "slcp": 0.901},
    "NLE": {"gaussian_mixture": None, "two_moons": 0.713, "slcp": 0.771},
}
METHODS = ("flow", "matching", "likelihood", "ratio")
CONTROL = 0.8  # width of the posterior that has to fail


@dataclass(frozen=True)
class Config:
    """Tasks, methods and their trainings."""

    tasks: tuple[str, ...] = tuple(SIMULATORS)
    """Simulators of `jgen.toys.simulators`."""
    methods: tuple[str, ...] = METHODS
    """Neural posteriors (flow, matching), likelihoods and ratios."""
    num_simulations: int = 10_000
    """Simulations, a twentieth of which validate."""
    num_observations: int = 10
    """Published observations that posteriors are compared at."""
    num_draws: int = 3000
    """Draws of each posterior."""
    flow: TrainConfig = TrainConfig(
        2500, 256, ensemble=2, keep="best", validate_every=100, optimizer=OptimizerConfig(1e-3)
    )
    """Training of flows of the posterior."""
    likelihood: TrainConfig = TrainConfig(
        2500, 256, keep="best", validate_every=100, optimizer=OptimizerConfig(1e-3)
    )
    """Training of the likelihood, of one member: its posteriors take many gradients."""
    matching: TrainConfig = TrainConfig(
        6000, 512, ensemble=2, keep="best", ema_decay=0.99, validate_every=400,
        optimizer=OptimizerConfig(2e-3),
    )  # fmt: skip
    """Training of flow matching."""
    ratio: TrainConfig = TrainConfig(
        5000, 256, ensemble=2, keep="best", validate_every=100, optimizer=OptimizerConfig(1e-3)
    )
    """Training of the ratio's classifier."""
    candidates: int = 100_000
    """Draws of the prior that posteriors of likelihoods and ratios are chosen from."""
    num_pairs: int = 500
    """Pairs of parameters and data that calibration is tested with, on the first task."""
    trials: int = 20
    """Classifiers with shuffled labels in the local test."""
    seed: int = 0
    """Base of all key streams."""


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, num_simulations=100, num_observations=2, num_draws=100, num_pairs=50)
    at_least(config, candidates=100, trials=1)
    known(config, tasks=SIMULATORS, methods=METHODS)
    if config.num_observations > 10:
        raise ValueError(f"there are 10 observations, not {config.num_observations}")


def training(config: Config, method: str) -> TrainConfig:
    """Of a method."""
    return getattr(config, method)


def one_model(method: str, simulator: Simulator, data: np.ndarray) -> GenerativeModel:
    """The model of one member."""
    makers = {
        "flow": inference.posterior_flow,
        "matching": inference.posterior_matching,
        "likelihood": inference.likelihood_flow,
        "ratio": inference.ratio_model,
    }
    return makers[method](simulator.prior, data)


def build(config: Config) -> dict[str, GenerativeModel]:
    """Models of one member."""
    data = np.eye(11, 10)
    simulator = SIMULATORS["gaussian_linear"]()
    return {method: one_model(method, simulator, data) for method in config.methods}


def simulations(
    simulator: Simulator, key: jax.Array, num: int, theta: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Parameters, of the prior unless given, and data."""
    if theta is None:
        theta = draw(lambda params, key, cond: simulator.prior.sample(key), None, key, num)
    simulate = lambda params, key, theta: simulator.simulate(key, theta)
    return theta, draw(simulate, None, jax.random.fold_in(key, 1), num, theta)


def train(
    config: Config, run: Run, name: str, method: str, simulator: Simulator, theta, x
) -> tuple[GenerativeModel, Params]:
    """The mixture of an ensemble's members and its parameters."""
    options = training(config, method)
    model, cut = one_model(method, simulator, x), len(x) // 20
    events = (x, theta) if method == "likelihood" else (theta, x)
    parts = [Batch(*(a[rows] for a in events)) for rows in (np.s_[cut:], np.s_[:cut])]
    fitted = run.fit(name, model, parts[0], options, validation=parts[1])
    return mixture(model, options.ensemble), fitted.params


def posterior(config: Config, method: str, simulator: Simulator, model, params, key, observed):
    """Draws [observations, draws, dim] of the posterior at each observation."""
    if method in ("flow", "matching"):
        cond = np.repeat(observed, config.num_draws, axis=0)
        theta = draw(model, params, key, len(cond), cond, batch_size=config.num_draws)
        return theta.reshape(len(observed), config.num_draws, -1)
    # One function for all observations, so that it is compiled once.
    if method == "likelihood":
        score = lambda theta, x: model.log_prob(params, jax.random.key(0), x, theta)
    else:
        score = lambda theta, x: (
            model.log_prob(params, jax.random.key(0), theta, x) - simulator.prior.log_prob(theta)
        )
    draws = functools.partial(inference.sample_posterior, simulator.prior, score)
    each = (
        draws(
            x, jax.random.fold_in(key, i), config.num_draws, candidates=config.candidates, moves=10
        )
        for i, x in enumerate(observed)
    )
    return np.stack(list(each))


def exact(config: Config, run: Run, task: str, which: str) -> np.ndarray:
    """Draws of the exact posteriors."""
    posterior, key = SIMULATORS[task]().posterior, run.key(f"{task} {which}")
    observed = observations(task)[: config.num_observations]
    return np.stack([
        posterior(jax.random.fold_in(key, i), x, config.num_draws) for i, x in enumerate(observed)
    ])  # fmt: skip


def accuracies(truth: np.ndarray, draws: np.ndarray, key: jax.Array) -> np.ndarray:
    """C2ST at each observation."""
    pairs = enumerate(zip(truth, draws, strict=True))
    return np.array([c2st(*pair, jax.random.fold_in(key, i)).value for i, pair in pairs])


def calibration(config: Config, run: Run, model: GenerativeModel, params: Params) -> dict:
    """p-values of the tests of the flow's posterior of the first task, and of a narrow one."""
    simulator, key = SIMULATORS[config.tasks[0]](), run.key("calibration")
    theta, x = simulations(simulator, run.key("pairs"), config.num_pairs)
    cond = np.repeat(x, 100, axis=0)
    draws = draw(model, params, key, len(cond), cond).reshape(len(x), 100, -1)
    observed = observations(config.tasks[0])[0]
    there = draw(model, params, run.key("there"), 2000, observed[None])
    narrowed = lambda a, axis: (centre := a.mean(axis, keepdims=True)) + CONTROL * (a - centre)
    made = {"flow": (draws, there), "narrow": (narrowed(draws, 1), narrowed(there, 0))}
    found = {}
    for name, (draws, there) in made.items():
        ranks = inference.posterior_ranks(theta, draws, key)
        # Of many parameters the smallest p-value counts as many times.
        found[f"ranks/{name}"] = min(1.0, theta.shape[1] * ranks.p_value.min())
        tarp = inference.tarp(theta, draws, key)
        found[f"tarp/{name}"] = tarp.p_value
        found[f"coverage/{name}"] = tarp.coverage.observed
        local = inference.local_test(
            theta, x, draws[:, 0], observed, there, key, trials=config.trials
        )
        found[f"local/{name}"] = local.p_value
    predicted = simulations(simulator, run.key("predicted"), len(made["flow"][1]), made["flow"][1])
    found["predictive/flow"] = inference.predictive_p_values(observed, predicted[1]).min()
    return found


def second_round(config: Config, run: Run, model: GenerativeModel, params: Params) -> dict:
    """C2ST at the first observation of two_moons: as many simulations again, two ways."""
    simulator, observed = SIMULATORS["two_moons"](), observations("two_moons")[0]
    num, results = config.num_simulations, {}
    first = simulations(simulator, run.key("two_moons"), num)
    inside = run.cached(
        "two_moons/truncated", inference.truncated_draws, simulator.prior, model, params,
        observed, run.key("truncated"), num,
    )  # fmt: skip
    truth = run.cached("two_moons/exact", exact, config, run, "two_moons", "exact")[:1]
    for name, proposed in {"truncated": inside, "prior": None}.items():
        second = simulations(simulator, run.key(f"round {name}"), num, proposed)
        theta, x = (np.concatenate(pair) for pair in zip(second, first, strict=True))
        # In any order, since the first rows validate.
        order = numpy_generator(run.key("order")).permutation(len(x))
        fitted = train(config, run, f"two_moons/{name}", "flow", simulator, theta[order], x[order])
        draws = posterior(config, "flow", simulator, *fitted, run.key(name), observed[None])
        results[name] = accuracies(truth, draws, run.key("c2st"))[0]
    return results


def compute(config: Config, run: Run) -> dict:
    """Train, draw and judge.

    c2st/TASK/METHOD    mean over observations and its error by their spread; of "truth" that of
                        exact draws among each other
    p/TEST/POSTERIOR    p-values of calibration: of the flow, and of the same made too narrow
    coverage/POSTERIOR/LEVEL   of regions around random points
    rounds/HOW          C2ST at the first observation of two_moons with twice the simulations: from
                        the prior, or from its part where the first posterior is
    """
    metrics, flows = {}, {}
    for task in config.tasks:
        simulator, observed = SIMULATORS[task](), observations(task)[: config.num_observations]
        theta, x = simulations(simulator, run.key(task), config.num_simulations)
        truth = run.cached(f"{task}/exact", exact, config, run, task, "exact")
        again = run.cached(f"{task}/again", exact, config, run, task, "again")
        key = run.key(f"{task} c2st")
        made = {"truth": again}
        for method in config.methods:
            fitted = train(config, run, f"{task}/{method}", method, simulator, theta, x)
            if method == "flow":
                flows[task] = fitted
            args = (config, method, simulator, *fitted, run.key(f"{task} {method}"), observed)
            made[method] = run.cached(f"{task}/{method}/draws", posterior, *args)
        for method, draws in made.items():
            found = run.cached(f"{task}/{method}/c2st", accuracies, truth, draws, key)
            metrics[f"c2st/{task}/{method}"] = mean_estimate(found)
    if config.tasks[0] in flows:
        found = run.cached("calibration", calibration, config, run, *flows[config.tasks[0]])
        for name, value in found.items():
            if name.startswith("coverage"):
                metrics |= {f"{name}/{i + 1}0%": float(v) for i, v in enumerate(value)}
            else:
                metrics[f"p/{name}"] = float(value)
    if "two_moons" in flows:
        found = run.cached("rounds", second_round, config, run, *flows["two_moons"])
        metrics |= {f"rounds/{how}": float(value) for how, value in found.items()}
    return metrics


def report(config: Config, run: Run, metrics: dict) -> str:
    """Draw posteriors and tabulate."""
    views, samples = {}, {method: {} for method in config.methods}
    for task in config.tasks:
        truth, first = run.stage(f"{task}/exact")[0], slice(2, 4) if task == "slcp" else slice(0, 2)
        low, high = np.quantile(truth[:, first], [0.001, 0.999], axis=0)
        edges = np.linspace(low - 0.1 * (high - low), high + 0.1 * (high - low), 61).T
        views[task] = Plane(truth[:, first], tuple(edges))
        for method in config.methods:
            samples[method][task] = run.stage(f"{task}/{method}/draws")[0][:, first]
    run.save("posteriors", plotting.sample_gallery(views, samples))
    rows = {task: f"c2st/{task}" for task in config.tasks}
    lines = [metric_table(metrics, ("truth", *config.methods), rows, title="C2ST")]
    published = {task: [PUBLISHED[m].get(task) for m in PUBLISHED] for task in config.tasks}
    lines.append(table(tuple(PUBLISHED), published, title="published"))
    if "p/ranks/flow" in metrics:
        rows = {test: f"p/{test}" for test in ("ranks", "tarp", "local", "predictive")}
        lines.append(metric_table(metrics, ("flow", "narrow"), rows, title="p-values"))
    if "rounds/prior" in metrics:
        cells = {"C2ST": [metrics["rounds/prior"], metrics["rounds/truncated"]]}
        lines.append(table(("prior", "truncated"), cells, title="twice the simulations, from"))
    return "\n\n".join(lines)


DEFAULT = Config()
_BRIEF = {"steps": 20, "batch_size": 32, "ensemble": 2, "validate_every": 10}
SMOKE = variant(
    DEFAULT,
    tasks=("two_moons",),
    methods=("flow",),
    candidates=200,
    trials=2,
    num_simulations=200,
    num_observations=2,
    num_draws=100,
    num_pairs=50,
    flow=_BRIEF,
    matching=_BRIEF,
    likelihood=_BRIEF,
    ratio=_BRIEF,
)
STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, build)

if __name__ == "__main__":
    main(STUDY)

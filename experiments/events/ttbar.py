"""Top pairs by flow matching with a transformer, LLoCa and L-GATr (2411.00446, 2508.14898).

    python -m experiments ttbar

trains three networks on the four-momenta of the bundled Pythia events, three members of each, and
compares what they generate with events that were held out: likelihoods in four-momentum space,
Wasserstein distances of 37 observables and a classifier, beside truth against truth; errors of
solvers against calls of the network. About 45 minutes of processor time. Networks are told what is
known of top pairs, see `jgen.events.known`; `--no-informed` leaves that out, as published.

`--num-jets 1` takes events with one extra jet, `--preset sizes` trains on fewer and fewer events,
`paper-0j` to `paper-4j` have the published networks and training (`--data` with the public files
of 0 to 4 extra jets). Numbers: results/events.md.
"""

import dataclasses
import functools
from dataclasses import dataclass
from itertools import combinations

import jax
import numpy as np
from scipy.stats import wasserstein_distance

from experiments.events.generators import (
    NETWORKS,
    SMALL,
    Generators,
    build,
    coordinates_of,
    inputs,
    model_of,
    sample,
    trained,
)
from experiments.study import Run, Study, at_least, main, table, variant
from jgen import GenerativeModel, OptimizerConfig, TrainConfig, log_densities, plotting
from jgen import events as event_tools
from jgen.estimate import Estimate, mean_estimate
from jgen.metrics import ClassifierConfig, classifier_comparison, compare
from jgen.models import on_circles
from jgen.nets import LGATrConfig, LLoCaConfig
from jgen.plotting import Curve, Panel
from jgen.random import numpy_generator
from jgen.solvers import SolverConfig, runge_kutta
from jgen.training import bespoke_training, member

SHOWN = (
    "m_tt", "m_t", "m_W+", "pt_tt", "pt_t", "pt_b1", "pt_q2", "m_b1", "m_q1", "dr_b1_q1",
    "dr_q1_q2", "dr_b1_b2",
)  # fmt: skip
"""Observables in figures."""
METHODS = ("euler", "midpoint", "kutta38", "bespoke")


@dataclass(frozen=True)
class Config(Generators):
    """Generators of events."""

    train_sizes: tuple[int, ...] = ()
    """Smaller numbers of training events, for the likelihood against them."""
    num_likelihood: int = 100
    """True events whose likelihood is taken, with the exact divergence and Hutchinson's estimate of
    it."""
    likelihood_solver: SolverConfig = SolverConfig("kutta38", 20)
    """Of likelihoods."""
    most_nats: float = 100.0
    """Events whose log p is further from zero are left out of mean likelihoods, as published: one
    of which a member knows nothing would decide on its mean."""
    classifier: ClassifierConfig = ClassifierConfig(
        hidden=(256, 256, 256), dropout=0.1, learning_rate=3e-4, batch_size=1024, epochs=60,
        num_seeds=1, patience=8,
    )  # fmt: skip
    """What looks for differences in 59 numbers of an event (two of each particle and pair more
    for each extra jet); the paper's has GELU and up to 500 epochs."""
    calls: tuple[int, ...] = (8, 16, 32)
    """Calls of the network to compare solvers at, multiples of four; none leaves it out."""
    num_trajectories: int = 192
    """Solutions that bespoke solvers are trained on and solvers judged by."""
    bootstrap: int = 20
    """Resamplings behind the errors of distances."""


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, train_sizes=50, num_likelihood=2, most_nats=1)
    at_least(config, num_trajectories=8, bootstrap=2, calls=4)
    if any(n % 4 for n in config.calls):
        raise ValueError(f"calls must be multiples of four, got {config.calls}")
    if any(size >= config.num_train for size in config.train_sizes):
        raise ValueError(f"train_sizes must be below num_train, got {config.train_sizes}")


def likelihoods(config: Config, run: Run, name: str, size: int | None = None) -> dict:
    """Log-densities of true events [members, num] in units of 206.6 GeV; "hutchinson" of one."""
    label = f"{name}-{size}" if size else name
    params, coordinates = trained(config, run, name, label, size), coordinates_of(config)
    events = inputs(config)[2][: config.num_likelihood]
    z = event_tools.to_coordinates(coordinates, events)
    jacobian = event_tools.log_jacobian(coordinates, events)

    def score(divergence, i):
        model, key = density(config, name, divergence), run.key(f"probes {i}")
        return jacobian + log_densities(model, member(params, i), key, z, batch_size=50)

    found = {"exact": np.stack([score("exact", i) for i in range(config.training.ensemble)])}
    return found if size else found | {"hutchinson": score("hutchinson", 0)}


@functools.lru_cache(maxsize=2)
def density(config: Config, name: str, divergence: str) -> GenerativeModel:
    """The same model for all members and sizes, whose density is slow to compile."""
    solver = config.likelihood_solver.make()
    return model_of(config, name, divergence=divergence, likelihood_solver=solver)


def base_likelihood(config: Config) -> np.ndarray:
    """Of the base alone, which is the model of no velocity."""
    coordinates = coordinates_of(config)
    events = inputs(config)[2][: config.num_likelihood]
    base = event_tools.event_base(coordinates)
    z = event_tools.to_coordinates(coordinates, events)
    log_p = np.asarray(jax.jit(jax.vmap(base.log_prob))(z))
    massive = np.isfinite(log_p)  # where rounding has left a mass
    return (log_p + event_tools.log_jacobian(coordinates, events))[massive]


def likely(config: Config, log_p: np.ndarray) -> np.ndarray:
    """-log p [members, num] with NaN for events that are left out."""
    return np.where(np.abs(log_p) < config.most_nats, -log_p, np.nan)


def over_seeds(values: np.ndarray) -> Estimate | float:
    """Mean over the members and its error, from their spread; of one member without."""
    each = np.nanmean(values, axis=1)
    return mean_estimate(each) if len(each) > 1 else float(each[0])


def judge(config: Config, run: Run, name: str) -> dict:
    """Distances of observables and the classifier, of all members together."""
    _, _, truth, held_out = inputs(config)
    made = run.stage(f"{name}/events")["events"]
    mixed = made.swapaxes(0, 1).reshape(-1, *made.shape[2:]).astype(np.float64)
    observed = [event_tools.event_observables(e) for e in (truth, held_out, mixed)]
    edges = lambda name, values: np.quantile(values, np.linspace(0, 1, 31))
    options = {"num_bootstrap": config.bootstrap, "key": run.key("bootstrap")}
    found = compare(*observed, edges, **options).metrics
    distances = {k: v for k, v in found.items() if k.startswith("wasserstein/")}
    beside = ratios(observed[:2], observed[2], numpy_generator(run.key("halves")))
    over = np.array(list(beside.values()))
    features = (event_tools.event_features(e) for e in (truth, held_out, mixed))
    classified = classifier_comparison(
        *features, run.key("classifier"), "events", config.classifier
    )
    apart = float(1 - event_tools.apart(mixed).mean())
    return {
        "w1": distances,
        "w1_ratio": {
            "largest": float(over.max()), "median": float(np.median(over)),
            "within": float((over < 3).sum()),
        } | {f"of/{name}": ratio for name, ratio in beside.items()},
        "auc": classified.metrics["auc_events"],
        "too_close": apart,
    }  # fmt: skip


def ratios(true: list[dict], made: dict, rng: np.random.Generator) -> dict[str, float]:
    """W1 of generated to true events over that of true to true ones, by observable.

    Both are means of ten random halvings of all true events, of as many events, at most those that
    were generated: distances of one halving, single numbers, are off by up to a factor of two.
    """
    both = {name: np.concatenate([o[name] for o in true]) for name in made}
    num, size = (len(next(iter(o.values()))) for o in (both, made))
    few = min(num // 2, size)
    halves = [rng.permutation(num)[: 2 * few].reshape(2, few) for _ in range(10)]
    some = [rng.permutation(size)[:few] for _ in halves]

    def ratio(true, made):
        floor = [wasserstein_distance(true[a], true[b]) for a, b in halves]
        found = [
            wasserstein_distance(true[a], made[c]) for (a, _), c in zip(halves, some, strict=True)
        ]
        return float(np.mean(found) / np.mean(floor))

    return {name: ratio(values, made[name]) for name, values in both.items()}


def of_training(config: Config, run: Run) -> dict[str, float]:
    """`ratios` of training events, which no network that has learned them can be far below."""
    train, _, *true = inputs(config)
    *true, known = (event_tools.event_observables(e) for e in (*true, train))
    return ratios(true, known, numpy_generator(run.key("halves")))


def solvers(config: Config, run: Run, name: str) -> dict:
    """Root mean squared error of coordinates for METHOD/CALLS, of the first member."""
    params, coordinates = member(trained(config, run, name), 0), coordinates_of(config)
    network = event_tools.event_velocity(
        getattr(config, name), coordinates, time_width=config.time_width, informed=config.informed
    )
    velocity = on_circles(network, coordinates.periodic).apply
    starts = jax.vmap(event_tools.event_base(coordinates).sample)
    x0 = starts(jax.random.split(run.key("starts"), config.num_trajectories))
    precise = runge_kutta("kutta38", max(40, max(config.calls)))
    training = bespoke_training(velocity, params, x0, solver=precise)
    found = {}
    for n in config.calls:
        for method, stages in (("euler", 1), ("midpoint", 2), ("kutta38", 4)):
            found[f"{method}/{n}"] = training.error(runge_kutta(method, n // stages))
        learned, _ = training.train(training.start(n), run.key(f"bespoke {name} {n}"))
        found[f"bespoke/{n}"] = training.error(learned)
    return found


def compute(config: Config, run: Run) -> dict:
    """Train, generate, score and compare.

    nll/NETWORK             mean -log p of true events in four-momentum space [nats, units of 206.6
                            GeV], of the mean of all members, with the error of that mean from their
                            spread, without the share nll_left_out/NETWORK of events whose log p is
                            beyond `most_nats`; nll/NETWORK/SIZE of fewer training events
    nll/base                of what the flow starts from, of all events
    nll_spread/NETWORK      standard deviation of members
    nll_events/NETWORK      error from the number of true events, common to all networks
    nll_gap/A - B           difference of networks, error from the spread of members
    hutchinson/NETWORK      log p by Hutchinson's estimate, one probe an event, minus the exact one
    w1/NETWORK/wasserstein/OBSERVABLE, w1_ratio/NETWORK/of/OBSERVABLE: ratio to the truth's, see
                            `ratios`, of which the largest, the median and how many are within three
    w1_ratio/training/of/OBSERVABLE: of training events
    auc/NETWORK             of a classifier, beside truth against truth
    lost/NETWORK            share of events that went to infinity and are left out
    too_close/NETWORK       share of events with two jets nearer than 0.5, of which the truth has
                            none
    rmse/NETWORK/METHOD/N   of N calls against a fine solution
    ms_per_event/NETWORK, train_seconds/NETWORK
    """
    results = {"nll/base": mean_estimate(-run.cached("base", base_likelihood, config))}
    known = run.cached("training/w1_ratio", of_training, config, run)
    results["w1_ratio/training"] = {f"of/{name}": ratio for name, ratio in known.items()}
    seeds = {}
    for name in config.networks:
        made = run.cached(f"{name}/events", sample, config, run, name)
        results |= {f"{kind}/{name}": float(made[kind]) for kind in ("ms_per_event", "lost")}
        log_p = run.cached(f"{name}/log_p", likelihoods, config, run, name)
        nll = likely(config, log_p["exact"])
        results[f"nll_left_out/{name}"] = float(np.isnan(nll).mean())
        seeds[name] = results[f"nll/{name}"] = over_seeds(nll)
        if len(nll) > 1:
            results[f"nll_spread/{name}"] = float(np.nanmean(nll, axis=1).std(ddof=1))
        kept = nll[:, ~np.isnan(nll).any(axis=0)]
        results[f"nll_events/{name}"] = mean_estimate(kept.mean(axis=0)).error
        difference = nll[0] - likely(config, log_p["hutchinson"])
        results[f"hutchinson/{name}"] = mean_estimate(difference[np.isfinite(difference)])
        for size in config.train_sizes:
            few = run.cached(f"{name}/log_p_{size}", likelihoods, config, run, name, size)
            results[f"nll/{name}/{size}"] = over_seeds(likely(config, few["exact"]))
        judged = run.cached(f"{name}/judged", judge, config, run, name)
        results |= {f"{kind}/{name}": value for kind, value in judged.items()}
        if config.calls:
            errors = run.cached(f"{name}/solvers", solvers, config, run, name)
            results |= {f"rmse/{name}/{k}": float(v) for k, v in errors.items()}
        seconds = sum(row.get("seconds", 0.0) for row in run.history(name))
        results[f"train_seconds/{name}"] = seconds
    if config.training.ensemble > 1:
        for a, b in combinations(config.networks, 2):
            error = float(np.hypot(seeds[a].error, seeds[b].error))
            results[f"nll_gap/{a} - {b}"] = Estimate(seeds[a].value - seeds[b].value, error)
    return results


def panels(truth: np.ndarray, samples: dict[str, np.ndarray]) -> list[Panel]:
    """The observables `SHOWN` of true events and others, in GeV."""
    true = event_tools.event_observables(truth)
    made = {name: event_tools.event_observables(e) for name, e in samples.items()}
    shown = []
    for name in SHOWN:
        edges = np.linspace(*np.quantile(true[name], [0.002, 0.99]), 31)
        values = {label: observed[name] for label, observed in made.items()}
        label = event_tools.observable_label(name)
        shown.append(Panel(edges, true[name], values, label, reference_label="Pythia 8"))
    return shown


def report(config: Config, run: Run, results: dict) -> str:
    """Draw observables, members, solvers and losses; the tables."""
    _, _, *halves = inputs(config)
    truth = np.concatenate(halves)
    made = {n: run.stage(f"{n}/events")["events"] for n in config.networks}
    labels = {name: NETWORKS[name] for name in config.networks}
    pooled = {labels[n]: e.reshape(-1, *e.shape[2:]) for n, e in made.items()}
    run.save("observables", plotting.histogram_grid(panels(truth, pooled)))
    if config.training.ensemble > 1:
        for name, events in made.items():
            each = {str(i): e for i, e in enumerate(events)}
            figure = plotting.member_grid(panels(truth, each), labels[name])
            run.save(f"members_{name}", figure)
    if config.calls:
        curves = {
            labels[n]: {
                m: Curve.of(config.calls, [results[f"rmse/{n}/{m}/{c}"] for c in config.calls])
                for m in METHODS
            }
            for n in config.networks
        }
        figure = plotting.quality_curves(curves, "RMSE to a fine solution", log_y=True)
        run.save("solvers", figure)
    if config.train_sizes:
        sizes = (*sorted(config.train_sizes), config.num_train)
        key = lambda n, size: f"nll/{n}" if size == config.num_train else f"nll/{n}/{size}"
        curves = {
            labels[n]: Curve.of(sizes, [results[key(n, s)] for s in sizes]) for n in config.networks
        }
        figure = plotting.quality_curves(curves, "NLL [nats]", xlabel="Training events")
        run.save("sizes", figure)
    run.save("training", plotting.training_curves({labels[n]: run.history(n) for n in made}))
    return tables(config, results)


def farthest(config: Config, results: dict) -> tuple[list[str], dict[str, list[float]]]:
    """Columns and rows of a table: the observables that any network has beyond three."""
    over = {n: results[f"w1_ratio/{n}"] for n in config.networks}
    worst = {k: max(float(o[k]) for o in over.values()) for k in over[config.networks[0]]}
    names = sorted((k for k in worst if k.startswith("of/") and worst[k] >= 3), key=worst.get)[::-1]
    over = {NETWORKS[n]: o for n, o in over.items()} | {"training": results["w1_ratio/training"]}
    rows = {n: [float(o[k]) for k in names] for n, o in over.items()}
    return [k.removeprefix("of/") for k in names], rows


def tables(config: Config, results: dict) -> str:
    """Likelihoods and costs, distances, solvers."""
    shown = {
        "NLL": "nll", "left out": "nll_left_out", "seeds": "nll_spread", "AUC": "auc",
        "close": "too_close", "lost": "lost", "ms/event": "ms_per_event",
        "train [s]": "train_seconds",
    }  # fmt: skip
    rows, kinds = {}, ("largest", "median", "within")
    for name in config.networks:
        over = results[f"w1_ratio/{name}"]
        cells = [results.get(f"{kind}/{name}") for kind in shown.values()]
        rows[NETWORKS[name]] = [*cells, *(float(over[k]) for k in kinds)]
    rows["base"] = [results["nll/base"], *[None] * (len(shown) + len(kinds) - 1)]
    columns = (*shown, *(f"W1 {k}" for k in kinds))
    texts = [table(columns, rows, title=f"ttbar + {config.num_jets} jets")]
    if (far := farthest(config, results))[0]:
        texts.append(table(*far, title="W1 / truth"))
    gaps = {k.removeprefix("nll_gap/"): v for k, v in results.items() if k.startswith("nll_gap/")}
    verdict = lambda gap: "ordered" if abs(gap.value) > 2 * gap.error else "not ordered"
    if gaps:
        texts.append(table(("NLL", "at 2 sigma"), {k: [v, verdict(v)] for k, v in gaps.items()}))
    if config.calls:
        cells = {
            f"{NETWORKS[n]}, {m}": [results[f"rmse/{n}/{m}/{c}"] for c in config.calls]
            for n in config.networks
            for m in METHODS
        }
        texts.append(table([str(c) for c in config.calls], cells, title="RMSE by calls"))
    if config.train_sizes:
        sizes = sorted(config.train_sizes)
        cells = {
            NETWORKS[n]: [*(results[f"nll/{n}/{s}"] for s in sizes), results[f"nll/{n}"]]
            for n in config.networks
        }
        heads = [str(s) for s in (*sizes, config.num_train)]
        texts.append(table(heads, cells, title="NLL by training events"))
    return "\n\n".join(texts)


DEFAULT = Config()
SMOKE = variant(
    DEFAULT,
    **SMALL,
    networks=("transformer",),
    num_train=300,
    training={"steps": 6, "batch_size": 16, "ensemble": 2, "validate_every": 3},
    num_generated=100,
    num_likelihood=8,
    likelihood_solver={"steps": 2},
    most_nats=1e6,
    classifier={"hidden": (8,), "epochs": 2, "batch_size": 64},
    calls=(4,),
    num_trajectories=8,
    bootstrap=2,
)
SIZES = variant(
    DEFAULT,
    num_train=10_000,
    train_sizes=(300, 1000, 3000),
    training={"steps": 1000, "ensemble": 2, "validate_every": 50},
    num_generated=1000,
    num_likelihood=50,
    calls=(),
)
PAPER = variant(
    DEFAULT,
    transformer=LLoCaConfig(symmetry="identity"),
    lloca=LLoCaConfig(),
    lgatr=LGATrConfig(),
    time_width=30.0,
    informed=False,
    # Published: the rate falls by ten where the validation loss stops to, and no average.
    training=TrainConfig(
        200_000, 2048, ensemble=10, keep="best", validate_every=1000, save_every=5000,
        log_every=100, optimizer=OptimizerConfig(1e-3, clip_norm=5.0),
    ),
    solver={"steps": 50},
    num_train=500_000,
    num_validation=10_000,
    num_generated=1_000_000,
    num_likelihood=10_000,
    likelihood_solver={"steps": 50},
    classifier={"epochs": 500, "patience": 10},
)  # fmt: skip
PRESETS = {"default": DEFAULT, "smoke": SMOKE, "sizes": SIZES} | {
    f"paper-{n}j": dataclasses.replace(PAPER, num_jets=n, num_train=200_000 if n > 2 else 500_000)
    for n in range(5)
}
STUDY = Study(PRESETS, compute, report, check, build, inputs)

if __name__ == "__main__":
    main(STUDY)

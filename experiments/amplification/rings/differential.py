"""Differential amplification of Gaussian rings (2509.08048, Figs. 7 to 11).

    python -m experiments rings.differential --model runs/rings-averaging-default

takes 6.4 minutes of processor time on 2 cores (smoke: half a minute); without --model it trains the
networks first. Ten draws of the Bayesian weights generate events, and their Kolmogorov-Smirnov
distance to true events levels off where n_equiv true events would have brought it, for three
summary statistics: the radius R, the likelihood ratio of a cross-fitted classifier and the true
ratio. As in the paper, the first and last radial region are left out.

References. The training set is the paper's, and wrong, since the networks were fitted to it. The
default is as many held-out events; a classifier with a thousand of them to learn from is weak.
Controls are fits, the memoriser and spoiled fits of known worth, see `jgen.toys.ring_controls`.

Numbers: results/amplification.md.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from experiments.amplification.rings.rings import (
    SMALL,
    Generators,
    RingStudy,
    build,
    networks,
    radius,
    region_edges,
    the_ring,
    training_sets,
)
from experiments.study import Run, Study, at_least, finite, main, table, variant
from jgen import amplification, plotting, toys
from jgen.amplification import Interval
from jgen.generative_model import draw_chunks
from jgen.metrics import ClassifierConfig, cross_fitted_log_ratio
from jgen.plotting import Panel
from jgen.random import stream
from jgen.toys.ring_controls import GENERATORS, known_amplification, ring_controls
from jgen.toys.ring_controls import STATISTICS as CONTROL_STATISTICS

REFERENCES = ("held-out", "training", "large")
"""What generated events are compared with: true events that nobody saw, as many as were trained on;
the training set itself, as in the paper; and a large sample that only a toy can have."""
STATISTICS = ("R", "LR class", "LR truth")
MAPPED = 10_000
"""Events of each member that are kept, for the map of what the cut removes."""


@dataclass(frozen=True)
class Config(RingStudy):
    """Differential amplification of ring generators."""

    data_set: int = 0
    """Training set whose members are judged."""
    num_draws: int = 10
    """Members judged, each with a classifier of its own."""
    num_held_out: int = 1250
    """True events of the reference called held-out. The first of the folds trains classifiers
    only; the others are compared with."""
    num_large: int = 10_000
    """True events of the large reference, which has the same folds."""
    tails: bool = False
    """Keep events of the first and last radial region, which the paper removes."""
    cut: tuple[float, float] = (0.95, 1.05)
    """Likelihood ratios of the classifier that the refinement keeps."""
    classifier: ClassifierConfig = ClassifierConfig(
        hidden=(64, 64), learning_rate=1e-3, batch_size=500, epochs=60, num_seeds=1, patience=10
    )
    """Network and training of the classifier."""
    folds: int = 5
    """Folds of its cross-fitting."""
    num_experiments: int = 50
    """Independent training sets of the generators of known amplification."""
    num_control: int = 100_000
    """Events that these generate, and true ones that they are compared with."""


PAPER = {(dim, "training", statistic): "<1" for dim in (2, 4) for statistic in STATISTICS}
PAPER[2, "training", "R"] = "22"
"""G as printed: "about 22", and "no amplification" for all others."""
LEAST_EVENTS = 30
"""Fewer reference events after the cut, or ten times fewer generated ones, say nothing."""

_NAMES = {"large": "true", "truth": "held-out"}  # of references, on an axis

DEFAULT = Config()
SMOKE = variant(
    DEFAULT,
    rings=SMALL,
    num_draws=2,
    max_gen=5000,
    num_large=2000,
    classifier={"hidden": (16,), "epochs": 10},
    folds=2,
    num_experiments=10,
    num_control=20_000,
)


class Curve(NamedTuple):
    """Distances of all members in one statistic to one reference.

    Attributes:
      sizes: generated events.
      distances: [members, sizes].
      num_reference: true events that were compared with, the mean over members after the cut.
      num_train: training events in the same part of phase space, the mean over members.
      n_equiv: of the mean distance over members. Its interval means nothing for the training set.
      spread: n_equiv of each member.
    """

    sizes: Int[np.ndarray, " sizes"]
    distances: Float[np.ndarray, "members sizes"]
    num_reference: float
    num_train: float
    n_equiv: Interval
    spread: Float[np.ndarray, " members"]


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, num_draws=2, num_held_out=100, num_large=100)
    at_least(config, folds=2, num_experiments=10, num_control=1000)
    if not 0 <= config.data_set < config.rings.data_sets:
        raise ValueError(
            f"data_set must be one of the {config.rings.data_sets} training sets, counted from "
            f"zero, got {config.data_set}"
        )
    if config.num_draws > config.rings.num_members:
        raise ValueError(
            f"num_draws is {config.num_draws}, but there are {config.rings.num_members} members: "
            "raise --rings.num-members"
        )
    if not 0 < config.cut[0] < 1 < config.cut[1]:
        raise ValueError(f"the cut must be an interval around one, got {config.cut}")
    if min(config.num_held_out, config.num_large) < 4 * config.folds:
        raise ValueError(
            f"{config.folds} folds need {4 * config.folds} true events or more, got "
            f"{config.num_held_out} held out and {config.num_large} of the large reference"
        )


def inside(config: Config, events: Float[np.ndarray, "num dim"]) -> Float[np.ndarray, "m dim"]:
    """Events without those of the first and last radial region, unless tails are kept."""
    if config.tails:
        return events
    low, high = region_edges(events.shape[1])[[1, -2]]
    return events[(radius(events) >= low) & (radius(events) < high)]


def references(config: Config, dim: int) -> dict[str, Float[np.ndarray, "n_ref dim"]]:
    """True events to compare with, those of REFERENCES."""
    key, toy = jax.random.key(config.rings.seed), the_ring(dim)

    def fresh(name, num):
        # A third more, so that as many as asked for are left.
        events = toys.true_events(toy, stream(key, f"{name} {dim}"), num + num // 3 + 100)
        return inside(config, events)[:num]

    return {
        "held-out": fresh("held out", config.num_held_out),
        "training": inside(config, training_sets(config.rings, dim)[config.data_set]),
        "large": fresh("large", config.num_large),
    }


def compute(config: Config, run: Run) -> dict[str, Any]:
    """Train, generate, classify and judge.

    Infinite numbers are left out, so a lower limit has a _low only.

    G/DIM/REFERENCE/STATISTIC         of the mean distance over draws, with _low and _high of 68 %
    distance/DIM/REFERENCE/STATISTIC  mean distance at the largest n_gen
    G/DIM/REFERENCE, cut/STATISTIC    the same after the refinement cut
    kept/DIM/REFERENCE                share of true events that the cut keeps
    truth/DIM/STATISTIC               mean rescaled distance of truth and truth; 0.869 expected
    control/GENERATOR/STATISTIC       G of generators of known worth, with _exact, _held_out,
                                      and _seen, _infinite as `Controls` has them
    """
    metrics = _controls(config, run)
    for dim in config.rings.dims:
        known = references(config, dim)
        made = {"network": networks(config.rings, dim, run, config.model)}
        made["truth"] = _truth(config, dim)
        for kind, generators in made.items():
            used = known if kind == "network" else {"held-out": known["held-out"]}
            for i in range(config.num_draws):
                stage = _stage(kind, dim, i)
                run.cached(stage, statistics, config, generators, kind, i, used)
        metrics |= _metrics(dim, _curves(config, run, dim))
    return finite(metrics)


def _stage(kind: str, dim: int, i: int) -> str:
    return f"statistics/{kind}-{dim}d-{i}"


def _truth(config: Config, dim: int) -> Generators:
    """The toy as a generator that nothing is wrong with."""
    toy = the_ring(dim)
    model = toys.Fit(
        lambda data, weight: {},
        lambda params, key, cond: toy.sample(key),
        lambda params, key, x, cond=None: toy.log_prob(x),
    )
    params = [[{}] * config.num_draws] * config.rings.data_sets
    key = stream(jax.random.key(config.rings.seed), f"truth {dim}")
    return Generators(dim, model, params, key)


def statistics(
    config: Config, generators: Generators, kind: str, index: int, known: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Arrays "generated/R", "generated/LR truth", "REFERENCE/..." and those of the classifiers.

    A classifier is trained for each reference, so that there is a "generated/LR class/REFERENCE",
    and rows of the events that it scored, "rows/REFERENCE" and "generated rows/REFERENCE".
    """
    params = generators.params[config.data_set][index]
    key = generators.key_of(config.data_set, index)
    events = draw_inside(config, generators.model.sample, params, key)
    samples = {"generated": events, **known}
    ratios = amplification.log_density_ratio(
        the_ring(generators.dim).log_prob,
        jax.tree_util.Partial(generators.model.log_prob, params, None),
        np.concatenate(list(samples.values())),
    )
    ends = np.cumsum([len(sample) for sample in samples.values()])[:-1]
    arrays = {}
    for (name, sample), ratio in zip(samples.items(), np.split(ratios, ends), strict=True):
        arrays |= {f"{name}/R": radius(sample), f"{name}/LR truth": ratio}
    arrays["generated/events"] = events[:MAPPED]
    for name, reference in known.items():
        key_classifier = stream(key, f"classifier {kind} {name}")
        fitted = cross_fitted_log_ratio(
            reference, events, key_classifier, config.classifier, folds=config.folds
        )
        arrays |= {
            f"{name}/LR class": fitted.reference,
            f"generated/LR class/{name}": fitted.generated,
            f"rows/{name}": fitted.reference_rows,
            f"generated rows/{name}": fitted.generated_rows,
        }
    return arrays


def draw_inside(config: Config, sample: Any, params, key) -> Float[np.ndarray, "max_gen dim"]:
    """`max_gen` generated events that `inside` keeps.

    Raises:
      ValueError: if most are outside.
    """
    kept, num = [], 0
    # The first events are the same however many are drawn, so it may stop early.
    for chunk in draw_chunks(sample, params, key, 2 * config.max_gen, batch_size=config.batch_size):
        kept.append(inside(config, chunk))
        num += len(kept[-1])
        if num >= config.max_gen:
            return np.concatenate(kept)[: config.max_gen]
    raise ValueError(
        f"only {num} of {2 * config.max_gen} generated events are in the radial regions that are "
        "compared: train longer or use --tails"
    )


def _controls(config: Config, run: Run) -> dict[str, float]:
    """Of the first dimension: the radius and the azimuth are distributed alike in all of them."""
    rings, dim = config.rings, config.rings.dims[0]

    def judge():
        controls = ring_controls(
            stream(jax.random.key(rings.seed), f"controls {dim}"),
            dim,
            num_train=rings.num_train,
            num_held_out=config.num_held_out,
            num_control=config.num_control,
            num_experiments=config.num_experiments,
        )
        return {"/".join(name): one._asdict() for name, one in controls.items()}

    exact, metrics = known_amplification(rings.num_train), {}
    for name, one in run.cached("controls", judge).items():
        key = f"control/{name}"
        metrics[key] = one["amplification"]
        metrics[f"{key}_exact"] = exact.get(tuple(name.split("/")), np.inf)
        metrics |= {f"{key}_{field}": one[field] for field in ("seen", "infinite", "held_out")}
    return metrics


def _members(config: Config, run: Run, kind: str, dim: int) -> list[dict[str, np.ndarray]]:
    return [run.stage(_stage(kind, dim, i)) for i in range(config.num_draws)]


def _values(arrays: dict, reference: str, statistic: str, cut: tuple[float, float] | None):
    """Statistic of generated and of true events that a classifier scored and the cut keeps.

    All statistics are those of the same events, so that their distances can be compared.
    """
    values = []
    for name, rows, ratio in (
        ("generated", f"generated rows/{reference}", f"generated/LR class/{reference}"),
        (reference, f"rows/{reference}", f"{reference}/LR class"),
    ):
        scores = arrays[ratio]
        one = scores if statistic == "LR class" else arrays[f"{name}/{statistic}"][arrays[rows]]
        values.append(one if cut is None else one[amplification.refinement_mask(scores, *cut)])
    return values


def _curve(config: Config, members: list[dict], reference, statistic, cut, n: int) -> Curve | None:
    """None where the cut leaves too few events."""
    pairs = [_values(arrays, reference, statistic, cut) for arrays in members]
    num = min(len(generated) for generated, _ in pairs)
    if min(num / 10, *(len(true) for _, true in pairs)) < LEAST_EVENTS:
        return None
    sizes = amplification.prefix_sizes(num, per_decade=config.sizes_per_decade)
    distances = np.array([amplification.ks_distances(true, made, sizes) for made, true in pairs])
    num_reference = float(np.mean([len(true) for _, true in pairs]))
    share = num_reference / len(members[0][f"rows/{reference}"])
    # As published, the comparison with the training set takes n_gen for infinite (Eq. 36).
    generated = np.inf if reference == "training" else sizes[-1]
    mean, last = distances[:, -1].mean(), distances[:, -1]
    n_equiv = amplification.equivalent_events(mean, num_reference, generated)
    spread = amplification.equivalent_events(last, num_reference, generated).value
    return Curve(sizes, distances, num_reference, n * share, n_equiv, spread)


def _curves(config: Config, run: Run, dim: int) -> dict[tuple[str, str], Curve]:
    """By (reference, statistic); references after the cut are called "REFERENCE, cut"."""
    num_train, curves = len(references(config, dim)["training"]), {}
    wanted = [
        ("network", reference, statistic, name, cut)
        for reference in REFERENCES
        for statistic in STATISTICS
        for name, cut in ((reference, None), (f"{reference}, cut", config.cut))
    ]
    # The truth has no likelihood ratio to itself but one.
    wanted += [("truth", "held-out", statistic, "truth", None) for statistic in STATISTICS[:2]]
    members = {kind: _members(config, run, kind, dim) for kind in ("network", "truth")}
    for kind, reference, statistic, name, cut in wanted:
        one = _curve(config, members[kind], reference, statistic, cut, num_train)
        if one is not None:
            curves[name, statistic] = one
    return curves


def _metrics(dim: int, curves: dict[tuple[str, str], Curve]) -> dict[str, Any]:
    metrics = {}
    for (reference, statistic), one in curves.items():
        key, last = f"{dim}d/{reference}/{statistic}", one.distances[:, -1].mean()
        if reference == "truth":
            unit = (1 / one.num_reference + 1 / one.sizes[-1]) ** 0.5
            metrics[f"truth/{dim}d/{statistic}"] = last / unit
            continue
        worth = one.n_equiv.over(one.num_train)
        metrics[f"G/{key}"] = worth.value if reference.startswith("training") else worth
        metrics[f"G/{key}_median"] = np.median(one.spread) / one.num_train
        metrics[f"distance/{key}"] = last
    for reference in REFERENCES:
        if (cut := curves.get((f"{reference}, cut", "R"))) is not None:
            metrics[f"kept/{dim}d/{reference}"] = cut.num_train / curves[reference, "R"].num_train
    return metrics


def report(config: Config, run: Run, metrics: dict[str, Any]) -> str:
    """Distances, statistics and what the cut removes; paper, exact value and ours as text."""
    for dim in config.rings.dims:
        _figures(config, run, dim)
    return _tables(config, metrics)


def _figures(config: Config, run: Run, dim: int) -> None:
    curves = _curves(config, run, dim)
    for reference in (*REFERENCES, "truth", *(f"{name}, cut" for name in REFERENCES)):
        shown = {s: curves[reference, s] for s in STATISTICS if (reference, s) in curves}
        if shown:
            one = next(iter(shown.values()))
            name = reference.removesuffix(", cut")
            label = f"{_NAMES.get(name, name)} events"
            figure = plotting.ks_curves(
                {statistic: one.distances for statistic, one in shown.items()},
                one.sizes,
                round(one.num_reference),
                round(one.num_train),
                printed=reference.startswith("training"),
                reference_label=f"{one.num_reference:.0f} {label}"
                + (" after the cut" if name != reference else ""),
            )
            run.save(f"ks-{dim}d-{reference.replace(', ', '-')}", figure)
    panels = _panels(config, run, dim)
    run.save(f"statistics-{dim}d", plotting.histogram_grid(panels))
    cumulative = {}
    for statistic, panel in zip(STATISTICS, panels, strict=True):
        one = cumulative[panel.xlabel] = {"Truth": panel.reference, **panel.samples}
        if len(one) > 2:
            first = _members(config, run, "network", dim)[0]
            one["Truth, after the cut"] = _values(first, "large", statistic, config.cut)[1]
    run.save(f"cumulative-{dim}d", plotting.cumulative_distributions(cumulative))
    run.save(f"cut-{dim}d", _map(config, run, dim))


def _map(config: Config, run: Run, dim: int):
    """Where events lie that the classifier against the large reference cuts (Fig. 10)."""
    first = _members(config, run, "network", dim)[0]
    events, rows = first["generated/events"], first["generated rows/large"]
    shown = rows < len(events)
    kept = amplification.refinement_mask(first["generated/LR class/large"][shown], *config.cut)
    return plotting.refinement_map(events[rows[shown]][:, :2], kept)


def _panels(config: Config, run: Run, dim: int) -> list[Panel]:
    """Statistics of the first member's events before and after the cut (Fig. 8)."""
    first, panels = _members(config, run, "network", dim)[0], []
    for statistic in STATISTICS:
        generated, reference = _values(first, "large", statistic, None)
        samples = {"Generated": generated}
        kept = _values(first, "large", statistic, config.cut)[0]
        if len(kept) >= LEAST_EVENTS:
            samples["Generated, after the cut"] = kept
        edges = np.linspace(*np.quantile(reference, [0.001, 0.999]), 41)
        name = "R" if statistic == "R" else rf"$\log$ {statistic}"
        panels.append(Panel(edges, reference, samples, name))
    return panels


def _tables(config: Config, metrics: dict[str, Any]) -> str:
    """Paper, exact value and ours; "> x" is a lower limit, "inf" no difference."""

    def number(name, low=None):
        if name in metrics:
            return f"{metrics[name]:.2f}"
        return f"> {metrics[low]:.2f}" if low in metrics else "inf"

    rows, controls = {}, {}
    for dim in config.rings.dims:
        for name in (n for r in REFERENCES for n in (r, f"{r}, cut")):
            for statistic in STATISTICS:
                key = f"G/{dim}d/{name}/{statistic}"
                if f"distance/{dim}d/{name}/{statistic}" not in metrics:
                    continue
                has = f"{key}_low" in metrics
                interval = f"[{number(f'{key}_low')}, {number(f'{key}_high')}]" if has else ""
                ours = number(key, f"{key}_low"), interval, number(f"{key}_median")
                paper = PAPER.get((dim, name, statistic), "")
                rows[f"{dim}-D {name}, {statistic}"] = [paper, *ours]
    for key in (f"{generator}/{s}" for generator in GENERATORS for s in CONTROL_STATISTICS):
        name = f"control/{key}"
        if f"{name}_seen" in metrics:
            exact = number(f"{name}_exact") if f"{name}_exact" in metrics else ""
            shares = [f"{100 * metrics[f'{name}_{of}']:.0f} %" for of in ("seen", "infinite")]
            ours = exact, number(name), number(f"{name}_held_out"), *shares
            controls[key.replace("/", ", ")] = ours
    heads = ("paper", "ours", "68 %", "median draw")
    of_controls = ("exact", "ours", "held-out", "seen", "infinite by training set")
    text = table(heads, rows, title="network")
    return text + "\n\n" + table(of_controls, controls, title="control")


STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, build)

if __name__ == "__main__":
    main(STUDY)

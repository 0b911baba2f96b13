"""Jets as sets of points: six generators in one table, quality beside cost.

    python -m experiments jets

trains EPiC-FM, EPiC-JeDi, EPiC-GAN, flow matching with a set transformer, and a MeanFlow and a
consistency function of one call on the leading constituents of gluon and top jets, given the class
and the number of points, which comes from a density of its own, and, but for the GAN, the pT and
mass of the whole jet, which a flow draws. Networks of flow matching, MeanFlow and the consistency
function are told how far a jet is from what was asked, and corrected (`jgen.nets.constrained`), and
jets of the GAN are turned about their axis by a random angle; `--models.no-informed` and
`--models.no-turned` leave that out, as published. Generators that are not corrected miss what was
asked; their calibrated points are scaled to it. Half of the jets are trained on, the other half is
the truth: distances between random halves of all jets stand beside those of the generators.

`--preset paper-jetnet30` and `paper-jetnet150` have the published sizes and read JetNet, the files
`g.hdf5` and `t.hdf5` or `g150.hdf5` and `t150.hdf5` in the folder `--data`. Numbers:
results/jets.md.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from experiments.jets.generators import (
    DISTILLED,
    GENERATORS,
    Generators,
    condition,
    draw_whole,
    flop_per_jet,
    scaled_whole,
    train,
)
from experiments.study import Run, Study, at_least, known, main, positive, table, variant
from jgen import GenerativeModel, OptimizerConfig, TrainConfig, nets, plotting
from jgen import jets as jet_tools
from jgen.checks import check_sizes
from jgen.estimate import Estimate
from jgen.jets import DISTANCES, Constituents, JetSample, whole_jets
from jgen.plotting import Curve
from jgen.random import numpy_generator
from jgen.training import timed_draw

CALIBRATED = "/calibrated"
"""After the name of a generator: its points, scaled to the pT and mass that were asked."""
_LABELS = {"W1-M": "mass", "W1-P": "points", "W1-EFP": "energy flow"}


@dataclass(frozen=True)
class Config:
    """Generators of jets of constituents."""

    data: str = ""
    """A file in the layout of `jgen.jets.read_jets`, or a folder with files of JetNet; the bundled
    jets unless given."""
    classes: tuple[str, ...] = ("gluon", "top")
    """Classes of jets, by their names in the file; of JetNet g, q, t, w, z."""
    num_points: int = 30
    """Leading constituents."""
    most_jets: int = 1_000_000
    """Jets of each class at most, one half of which is trained on."""
    generators: tuple[str, ...] = GENERATORS
    """What is trained and compared."""
    models: Generators = Generators()
    """Their networks, trainings and samplers."""
    centre: bool = False
    """Whether the jet's axis is subtracted from generated points. Leading constituents, and jets
    whose axis is that of a massive jet, are not centred."""
    bootstrap: int = 20
    """Resamplings behind the errors of the Wasserstein distances."""
    repeats: int = 4
    """Samples of each generator whose distances are averaged."""
    halvings: int = 10
    """Random halvings of all true jets whose distances are averaged: those of one are off by up to
    a factor of two."""
    movers: int = 30
    """Jets in either of the two batches for coverage and MMD."""
    batch: int = 100
    """Jets at once, for the timing."""
    seed: int = 0
    """Seed of everything random."""


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config.models, steps=1, harmonics=1)
    positive(config.models, "width", block="models.")
    at_least(
        config, num_points=2, most_jets=200, bootstrap=2, movers=4, batch=1, repeats=1, halvings=1
    )
    known(config, generators=GENERATORS)
    if len(set(config.classes)) < len(config.classes) or not config.classes:
        raise ValueError(f"classes must be different ones, one at least, got {config.classes}")
    students = [name for name in config.generators if name in DISTILLED]
    if students and "EPiC-FM" not in config.generators:
        raise ValueError(f"{students[0]} learns from EPiC-FM, which must be one of the generators")


@functools.lru_cache(maxsize=2)
def load(
    data: str, classes: tuple[str, ...], rows: int, most: int, seed: int
) -> tuple[Constituents, ...]:
    """Training and true jets, halves of all."""
    if data and Path(data).is_dir():
        files = {name: f"{name}{150 if rows > 30 else ''}.hdf5" for name in classes}
        jets = jet_tools.read_jetnet({name: Path(data) / file for name, file in files.items()})
    else:
        jets = jet_tools.read_jets(data or jet_tools.sample_jets_path()).of(*classes)
    if rows > jets.points.shape[1]:
        raise ValueError(f"the jets have {jets.points.shape[1]} constituents at most, not {rows}")
    smallest = np.bincount(jets.labels, minlength=len(classes)).min()
    if smallest < 200:
        raise ValueError(f"a class has {smallest} jets; two hundred are needed")
    order = numpy_generator(jax.random.key(seed)).permutation(len(jets.n))
    of = [order[jets.labels[order] == k][:most] for k in range(len(classes))]
    halves = [np.concatenate([rows[first::2] for rows in of]) for first in (0, 1)]
    return tuple(jets.leading(rows).take(half) for half in halves)


def inputs(config: Config) -> tuple[Constituents, ...]:
    """Training and true jets."""
    return load(config.data, config.classes, config.num_points, config.most_jets, config.seed)


def build(config: Config) -> dict[str, GenerativeModel]:
    """The generators, of two jets of any points in the place of the user's, which are not read."""
    check_sizes(num_points=config.num_points)
    shape = 2, config.num_points, 3
    points = np.random.default_rng(0).uniform(0.1, 1, shape).astype(np.float32)
    n = np.full(2, config.num_points, np.int32)
    jets = Constituents(points, n, n, np.ones((2, 4)), np.zeros(2, int), config.classes)
    return {name: config.models.model(name, jets) for name in config.generators}


def generate(config: Config, run: Run, name: str) -> dict:
    """Jets of a generator, `repeats` times as many of each class as are true, and their cost."""
    jets, truth = inputs(config)
    labels = np.tile(truth.labels, config.repeats)
    scale = jet_tools.point_map(jets.points, jets.n)
    model, params = train(config.models, run, name, jets, scale)
    n = jet_tools.draw_multiplicities(
        jets.total, jets.labels, labels, run.key(f"n {name}"), config.num_points
    )
    cond = condition(n, labels, len(config.classes))
    if name != "EPiC-GAN":
        asked = draw_whole(config.models, run, jets, cond, run.key(f"whole {name}"))
        cond = condition(n, labels, len(config.classes), scaled_whole(asked, jets))
    z, milliseconds = timed_draw(
        model, params, run.key(f"jets {name}"), len(n), cond, batch_size=config.batch
    )
    points = np.asarray(jax.vmap(scale.inverse)(z, cond)[0])
    pt = jets.points[..., 2]
    pt_range = float(pt[pt > 0].min()), float(pt.max())
    points = jet_tools.finished(points, n, pt_range, centre=config.centre)
    one = jax.tree.map(lambda a: a[0], cond)
    flop = flop_per_jet(config.models, name, model, params, one, jets)
    made = {"points": points, "n": n, "ms_per_jet": milliseconds, "mflop_per_jet": flop / 1e6}
    if name != "EPiC-GAN":
        made["missed"] = np.std(whole_jets(points) - asked, axis=0)
        # Deviation: 2310.00049 takes points as they are drawn, which are the other rows.
        made["calibrated"] = np.asarray(jax.vmap(jet_tools.calibrated)(points, *np.exp(asked.T)))
    return made


def samplers(config: Config, *, drawn: bool = True) -> dict[str, str]:
    """Whose jets are compared -> its generator: points as drawn, and calibrated ones.

    Args:
      config: of the study.
      drawn: whether points as drawn are among them where there are calibrated ones.
    """
    made = {}
    for name in config.generators:
        if drawn or name == "EPiC-GAN":
            made[name] = name
        if name != "EPiC-GAN":
            made[name + CALIBRATED] = name
    return made


def samples(config: Config, run: Run, name: str) -> dict[str, JetSample]:
    """Class -> its jets of a sampler, one sample after another; of "truth" and "training" once."""
    jets, truth = inputs(config)
    if of := samplers(config).get(name):
        made = run.cached(f"{of}/jets", generate, config, run, of)
        points, n = made["points" if of == name else "calibrated"], made["n"]
        labels = np.tile(truth.labels, config.repeats)
    else:
        half = truth if name == "truth" else jets
        points, n, labels = half.points, half.n, half.labels
    of = lambda k: jet_tools.jet_sample(points[labels == k], n[labels == k])
    return run.cached(
        f"{name}/observables", lambda: {c: of(k) for k, c in enumerate(config.classes)}
    )


def distances(config: Config, run: Run, name: str) -> dict:
    """Of jets to the truth, class by class: means of all samples, with the error of the first."""
    true, others = (samples(config, run, which) for which in ("truth", name))
    found = {}
    for c in config.classes:
        rows = np.split(np.arange(len(others[c].n)), config.repeats)
        found[c] = averaged(config, run, c, ((true[c], others[c].take(r)) for r in rows))
    return found


def true_distances(config: Config, run: Run) -> dict:
    """Of true jets to true jets, class by class: means of random halvings of all."""
    both, found = [samples(config, run, which) for which in ("truth", "training")], {}
    rng = numpy_generator(run.key("halvings"))
    for c in config.classes:
        every = JetSample(*map(np.concatenate, zip(*(half[c] for half in both), strict=True)))
        num = len(every.n) // 2
        rows = (rng.permutation(len(every.n)) for _ in range(config.halvings))
        halves = ((every.take(r[:num]), every.take(r[num:])) for r in rows)
        found[c] = averaged(config, run, c, halves)
    return found


def averaged(config: Config, run: Run, of_class: str, pairs: Iterable) -> dict[str, Estimate]:
    """Mean distances of pairs of samples, and the error of the first.

    Coverage and MMD, which take most of the time, are of the first pair alone.
    """
    options = {"num_bootstrap": config.bootstrap, "movers": (config.movers, 2)}
    found = []
    for i, (true, other) in enumerate(pairs):
        key = run.key(f"distances {of_class} {i}")
        found.append(jet_tools.jet_distances(true, other, key, **options))
        options = {"num_bootstrap": 0, "movers": None}
    mean = lambda d: float(np.mean([one[d].value for one in found if d in one]))
    return {d: Estimate(mean(d), found[0][d].error) for d in DISTANCES}


def compute(config: Config, run: Run) -> dict:
    """Train, generate and compare, class by class.

    CLASS/SAMPLER/DISTANCE     see `jgen.jets.jet_distances`; a sampler is a generator, or
                               GENERATOR/calibrated; those of "truth" are of random halves of all
                               jets to the others
    ms_per_jet/GENERATOR       from numbers of points to points in memory
    mflop_per_jet/GENERATOR    operations of the network, as XLA counts them, times its calls
    calls/GENERATOR            of the network
    ratio/SAMPLER/DISTANCE     mean over classes of W1 over that of the truth
    missed/GENERATOR/pT, /mass standard deviation of the logarithm of what jets have over what was
                               asked of the generator, before calibration
    """
    results = {}
    for name in ("truth", *samplers(config)):
        if name == "truth":
            measured = run.cached("truth/distances", true_distances, config, run)
        else:
            measured = run.cached(f"{name}/distances", distances, config, run, name)
        for of_class, found in measured.items():
            results |= {f"{of_class}/{name}/{d}": value for d, value in found.items()}
    for name in config.generators:
        made = run.stage(f"{name}/jets")
        results |= {f"{cost}/{name}": float(made[cost]) for cost in _COSTS}
        results[f"calls/{name}"] = config.models.calls(name)
        if name != "EPiC-GAN":
            missed = zip(_WHOLE, made["missed"], strict=True)
            results |= {f"missed/{name}/{what}": float(width) for what, width in missed}
    for name in samplers(config):
        for d in _LABELS:
            pairs = [
                (results[f"{c}/{name}/{d}"], results[f"{c}/truth/{d}"]) for c in config.classes
            ]
            results[f"ratio/{name}/{d}"] = float(np.mean([a.value / b.value for a, b in pairs]))
    return results


_COSTS, _WHOLE = ("ms_per_jet", "mflop_per_jet"), ("pT", "mass")


def panels(of_class: str, shown: dict[str, JetSample]) -> list[plotting.Panel]:
    """Mass, pT of constituents, an energy flow polynomial and the number of points."""
    square = jet_tools.graphs(4).index((((0, 1), (0, 2), (1, 3), (2, 3)),))
    logarithm = lambda values: np.log10(np.maximum(values, 1e-12))
    there = lambda s: np.arange(s.points.shape[1]) < s.n[:, None]
    columns = {
        "jet mass / jet $p_T$": lambda s: s.kinematics[:, 3],
        r"$\log_{10}$ constituent $p_T$ / jet $p_T$": lambda s: logarithm(s.points[there(s)][:, 2]),
        r"$\log_{10}$ EFP of the square": lambda s: logarithm(s.polynomials[:, square]),
        "constituents": lambda s: s.n,
    }
    made = []
    for label, column in columns.items():
        values = {name: column(sample) for name, sample in shown.items()}
        reference = values.pop("truth")
        low, high = np.quantile(reference, [0.001, 0.999])
        whole = label == "constituents"
        edges = np.linspace(low, high, 31)
        if whole:
            edges = np.arange(np.floor(low), np.ceil(high) + 2) - 0.5
        label = f"{of_class}: {label}"
        made.append(plotting.Panel(edges, reference, values, label, log_y=whole))
    return made


def report(config: Config, run: Run, results: dict) -> str:
    """Draw observables, images and quality against cost; a table for each class.

    Figures are of calibrated jets where there are any.
    """
    drawn = samplers(config, drawn=False)
    by_name = {name: samples(config, run, name) for name in ("truth", *drawn)}
    shown = {
        c: {drawn.get(name, name): made[c] for name, made in by_name.items()}
        for c in config.classes
    }
    edges = np.linspace(-0.8, 0.8, 33)
    images = {
        of_class: {name: jet_tools.mean_image(s.points, edges) for name, s in row.items()}
        for of_class, row in shown.items()
    }
    for k, (of_class, row) in enumerate(shown.items()):
        figure = plotting.histogram_grid(panels(of_class, row), num_columns=2)
        run.save(f"observables_{k}", figure)
    run.save("images", plotting.jet_images(images, edges))
    curves = {f"{c}: {_LABELS[d]}": f"{c}/{{}}/{d}" for c in config.classes for d in _LABELS}
    figure = plotting.quality_curves(
        {
            title: {
                of: Curve.of([results[f"mflop_per_jet/{of}"]], [results[key.format(name)]])
                for name, of in drawn.items()
            }
            for title, key in curves.items()
        },
        "$W_1$",
        xlabel="Floating-point operations a jet [$10^6$]",
        truth={title: results[key.format("truth")] for title, key in curves.items()},
        log_y=True,
    )
    run.save("cost", figure)
    return "\n\n".join(tables(config, results))


def tables(config: Config, results: dict) -> list[str]:
    """Distances of each class, costs, and how far jets are from what was asked."""
    scaled = lambda e, d: Estimate(*np.multiply(e, 1e5 if d == "W1-EFP" else 1e3))
    factors = {d: scaled if d in (*_LABELS, "FPD", "KPD") else lambda e, d: e for d in DISTANCES}
    lines = []
    for of_class in config.classes:
        cells = {
            name: [factors[d](results[f"{of_class}/{name}/{d}"], d) for d in DISTANCES]
            for name in ("truth", *samplers(config))
        }
        lines.append(table(DISTANCES, cells, title=of_class))
    lines.append("W1-M, W1-P, FPD and KPD times 1000, W1-EFP times 100,000")
    cells = {
        name: [results.get(f"{cost}/{name}") for cost in ("calls", *_COSTS)]
        + [results[f"ratio/{name}/{d}"] for d in _LABELS]
        for name in samplers(config)
    }
    columns = ("calls", "ms", "MFLOP", *(f"{d} / truth" for d in _LABELS))
    lines.append(table(columns, cells, title="a jet"))
    cells = {
        name: [results[f"missed/{name}/{what}"] for what in _WHOLE]
        for name in config.generators
        if name != "EPiC-GAN"
    }
    if cells:
        lines.append(table(_WHOLE, cells, title="log(made / asked), width"))
    return lines


DEFAULT = Config()
_SMALL = nets.EpicConfig(8, 4, 1)
_BRIEF = {"steps": 10, "batch_size": 16}
SMOKE = variant(
    DEFAULT,
    num_points=6,
    most_jets=300,
    models=variant(
        DEFAULT.models,
        epic=_SMALL,
        transformer=nets.SetTransformerConfig(8, 2, 1, 8),
        generator=_SMALL,
        critic=_SMALL,
        training=_BRIEF,
        jets=_BRIEF,
        others=_BRIEF,
        distilled=_BRIEF,
        game=_BRIEF | {"validate_every": 5},
        steps=2,
    ),
    bootstrap=2,
    movers=4,
    batch=1000,
    repeats=2,
    halvings=2,
    generators=("EPiC-FM", "EPiC-GAN", *DISTILLED),
)
# Half of 177 thousand jets of two classes: epochs of 173 steps, or 1390 of the GAN.
_PAPER = TrainConfig(
    1_730_000,
    1024,
    ema_decay=0.999,
    optimizer=OptimizerConfig(1e-3, warmup=0.1, weight_decay=5e-5, clip_norm=0.5),
)
_GAME = TrainConfig(
    2_780_000,
    128,
    keep="best",
    validate_every=1390,
    optimizer=OptimizerConfig(1e-4, schedule="constant", epsilon=1e-14),
)
JETNET30 = variant(
    DEFAULT,
    classes=("g", "t"),
    models=Generators(
        nets.EpicConfig(),
        nets.SetTransformerConfig(128, 8, 6, 256),
        nets.GENERATOR_CONFIG,
        nets.CRITIC_CONFIG,
        informed=False,
        turned=False,
        training=_PAPER,
        others=_PAPER,
        distilled=_PAPER,
        width=5.0,
        game=_GAME,
        steps=99,
    ),
    movers=100,
    batch=1000,
)
STUDY = Study(
    {
        "default": DEFAULT,
        "smoke": SMOKE,
        "paper-jetnet30": JETNET30,
        "paper-jetnet150": variant(JETNET30, num_points=150),
    },
    compute,
    report,
    check,
    build,
    inputs,
)

if __name__ == "__main__":
    main(STUDY)

"""Searches for a resonance: CWoLa, ANODE, CATHODE, idealised and supervised, beside the best cut.

    python -m experiments anomalies

A toy whose best possible significance improvement is known in closed form, 13.97: 0.6 % of signal
in the window. Flows interpolate the sidebands' features into it (CATHODE) or are divided (ANODE),
ensembles of classifiers look for the excess, and cuts on each are judged with true labels that the
searches never see. Then the features are correlated with the mass, under which CWoLa has to
collapse, and once more there is no signal at all. Cuts must not carve a bump into the background.

`--preset dijets` searches the bundled Pythia dijets, QCD with a W' of 3.5 TeV that decays to jets
of 500 and 100 GeV (`simulate.pythia_dijets` made them), in the features of the LHC Olympics; to
correlate these, a tenth of m_jj is added to m_j1 and dm, as in 2109.00546.

`--data FOLDER` reads the feature files of the LHC Olympics that hold the signal region alone
(`innerdata_train`, `_val`, `_test` and `_extrasig_train.npy`, columns m_jj [TeV], m_j1, dm,
tau21_1, tau21_2, label; give `--methods supervised idealised` with it, for there are no sidebands).

Numbers: results/inference.md.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from experiments.study import Run, Study, at_least, known, main, metric_table, variant
from jgen import (
    Batch,
    GenerativeModel,
    OptimizerConfig,
    TrainConfig,
    bijectors,
    models,
    plotting,
)
from jgen.inference import anomalies
from jgen.inference.anomalies import Events, Region
from jgen.jets import read_dijets, sample_dijets_path
from jgen.metrics import ClassifierConfig
from jgen.plotting import Curve
from jgen.toys.resonance import DIM, Resonance
from jgen.transforms import mixture, preprocessed

METHODS = ("supervised", "idealised", "CATHODE", "ANODE", "CWoLa")
CASES = {"independent": (False, True), "correlated": (True, True), "no signal": (False, False)}
"""Case -> whether features are moved with the mass, and whether there is signal."""
TOY_SHIFT, DIJET_SHIFT = 2.5, 0.1
"""By how much with a TeV: the toy's first feature, by a standard deviation over the window, and the
masses of jets [TeV]."""
DIJETS = "dijets"
REGION, NARROW = Region(3.3, 3.7), Region(3.1, 3.9)
_FILES = ("innerdata_train", "innerdata_val", "innerdata_extrasig_train", "innerdata_test")


@dataclass(frozen=True)
class Config:
    """Samples, searches, flows and classifiers."""

    data: str = ""
    """dijets: the bundled ones; or a folder with the features of the LHC Olympics; else the toy."""
    methods: tuple[str, ...] = METHODS
    """Searches."""
    cases: tuple[str, ...] = tuple(CASES)
    """Features without the mass, with it, and without signal; not of a folder."""
    num_background: int = 300_000
    """Background events of the data, a fifth of them in the window."""
    num_signal: int = 360
    """Signal events of the data."""
    num_test: int = 40_000
    """Background events in the window, and half as many of signal, that cuts are judged with."""
    oversampling: int = 3
    """Background drawn for CATHODE, and true for the idealised search, in units of the data's."""
    flow: TrainConfig = TrainConfig(2500, 512, ensemble=2, optimizer=OptimizerConfig(2e-3))
    """Training of the densities of ANODE and CATHODE."""
    classifier: ClassifierConfig = ClassifierConfig(
        hidden=(64, 64, 64), learning_rate=1e-3, batch_size=512, epochs=20, num_seeds=4,
        train_fraction=0.8, validation_fraction=0.19,
    )  # fmt: skip
    """Ensembles of classifiers."""
    seed: int = 0
    """Base of all key streams."""


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, num_background=1000, num_signal=10, num_test=100, oversampling=1)
    known(config, methods=METHODS, cases=CASES)
    if has_window_alone(config) and set(config.methods) - {"supervised", "idealised"}:
        raise ValueError("--data has no sidebands: give --methods supervised idealised with it")


def has_window_alone(config: Config) -> bool:
    """Whether the data are a folder's."""
    return config.data not in ("", DIJETS)


def cases(config: Config) -> tuple[str, ...]:
    """Names of the searches' data."""
    return ("LHC Olympics",) if has_window_alone(config) else config.cases


def density(config: Config, events: Events | None = None) -> GenerativeModel:
    """Features given the mass, of one member; scaled to these events."""
    element = bijectors.rational_quadratic(8, 5.0)
    flow = models.flow(bijectors.coupling_flow(DIM, element, 4, 1), DIM)
    x = np.eye(DIM, dtype=np.float32) if events is None else events.features
    centred = lambda mass: mass - 0.5 * (REGION.low + REGION.high)
    if not config.data:
        return preprocessed(flow, bijectors.standardize(x.mean(axis=0), x.std(axis=0)), centred)
    # Jets' features have edges, which log-odds of their range move to infinity.
    low, high = limits(x)
    unit = bijectors.standardize(low, high - low)
    odds = np.log((x - low) / (high - x))
    scale = bijectors.standardize(odds.mean(axis=0), odds.std(axis=0))
    inner = preprocessed(preprocessed(flow, scale), bijectors.logit(0.0))
    return preprocessed(inner, unit, centred)


def limits(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest values of each feature, with a margin."""
    low, high = x.min(axis=0), x.max(axis=0)
    return low - 1e-3 * (high - low), high + 1e-3 * (high - low)


def build(config: Config) -> dict[str, GenerativeModel]:
    """The densities."""
    return {"density": density(config)} if {"CATHODE", "ANODE"} & set(config.methods) else {}


@functools.lru_cache(maxsize=1)
def olympics(folder: str) -> dict[str, np.ndarray] | None:
    """Arrays of the files by name."""
    if not folder:
        return None
    paths = {name: Path(folder) / f"{name}.npy" for name in _FILES}
    for path in paths.values():
        if not path.exists():
            raise ValueError(f"{path} is not there; the folder needs {', '.join(_FILES)} (.npy)")
    arrays = {name: np.load(path) for name, path in paths.items()}
    for name, array in arrays.items():
        if array.ndim != 2 or array.shape[1] != DIM + 2:
            raise ValueError(f"{name}.npy needs {DIM + 2} columns, got the shape {array.shape}")
    return arrays


def inputs(config: Config) -> None:
    """A user's files, and whether there are enough dijets."""
    if has_window_alone(config):
        olympics(config.data)
    elif config.data:
        dijets(config, *CASES["independent"])


def dijets(config: Config, moved: bool, has_signal: bool) -> dict[str, Events]:
    """The first of the bundled events as the data, and those after them."""
    events, found, rest = read_dijets(sample_dijets_path()), [], []
    nums = {"background": config.num_background, "signal": config.num_signal}
    for label, (name, num) in enumerate(nums.items()):
        x = events.features[events.labels == label].astype(np.float64)
        features = x[:, 1:] + moved * DIJET_SHIFT * x[:, :1] * [1, 1, 0, 0]
        every = Events(x[:, 0], features.astype(np.float32))
        inside = np.flatnonzero(REGION.holds(every.masses))
        found.append(every.take(np.s_[:num]))
        rest.append(every.take(inside[inside >= num]))
        if (left := len(rest[-1].masses)) < 100:
            raise ValueError(
                f"{num} of the {len(x)} bundled events of {name} leave {left} in the window to "
                f"judge with, fewer than 100; give a smaller --num-{name}"
            )
    parts = zip(*found, strict=True) if has_signal else None
    return {
        "data": Events(*map(np.concatenate, parts)) if has_signal else found[0],
        "true": rest[0].take(np.s_[::2]),
        "labelled": rest[1].take(np.s_[::2]),
        "background": rest[0].take(np.s_[1::2]).take(np.s_[: config.num_test]),
        "signal": rest[1].take(np.s_[1::2]),
    }


def samples(config: Config, run: Run, case: str) -> dict[str, Events]:
    """The data, and in its window true background, labelled signal, and both for the judgement."""
    if config.data == DIJETS:
        return dijets(config, *CASES[case])
    if config.data:
        events, is_signal = {}, {}
        for name, a in olympics(config.data).items():
            short = name.removeprefix("innerdata_")
            events[short], is_signal[short] = Events(a[:, 0], a[:, 1:-1]), a[:, -1] == 1
        return {
            "data": events["train"],
            "true": events["val"].take(~is_signal["val"]),
            "labelled": events["extrasig_train"].take(is_signal["extrasig_train"]),
            "background": events["test"].take(~is_signal["test"]),
            "signal": events["test"].take(is_signal["test"]),
        }
    moved, has_signal = CASES[case]
    toy = Resonance(shift=TOY_SHIFT * moved)
    key = lambda name: run.key(f"{case} {name}")
    data = toy.background(key("data"), config.num_background)
    if has_signal:
        parts = zip(data, toy.signal(key("signal"), config.num_signal), strict=True)
        data = Events(*map(np.concatenate, parts))
    inside = lambda name, num: toy.background(key(name), 8 * num).inside(REGION).take(np.s_[:num])
    num = config.oversampling * len(data.inside(REGION).masses)
    return {
        "data": data,
        "true": inside("true", num),
        "labelled": toy.signal(key("labelled"), config.num_test).inside(REGION),
        "background": inside("test", config.num_test),
        "signal": toy.signal(key("test signal"), config.num_test // 2).inside(REGION),
    }


def search(config: Config, run: Run, case: str, method: str) -> dict:
    """Scores of the test events of signal and background."""
    sample, key = samples(config, run, case), run.key(f"{case} {method}")
    data, classifier = sample["data"], config.classifier
    inside = data.inside(REGION)
    tested = {name: sample[name] for name in ("signal", "background")}
    if method == "ANODE":
        pair = [trained(config, run, case, where, data) for where in ("inside", "outside")]
        if config.data:  # densities of limited features
            low, high = data.features.min(axis=0), data.features.max(axis=0)
            within = lambda e: e._replace(features=np.clip(e.features, low, high))
            tested = {name: within(events) for name, events in tested.items()}
        return {k: anomalies.density_ratio(*pair, e, key) for k, e in tested.items()}
    if method == "CWoLa":
        narrow = data.inside(NARROW)
        score = anomalies.cwola(narrow, REGION, key, classifier)
    elif method == "supervised":
        signal = sample["labelled"].features
        background = sample["true"].features[: 4 * len(signal)]
        score = anomalies.classifier(signal, background, key, classifier)
    else:
        reference = sample["true"].features
        if method == "CATHODE":
            fitted = trained(config, run, case, "outside", data)
            num = config.oversampling * len(inside.masses)
            reference = anomalies.interpolated(*fitted, data, REGION, key, num)
        score = anomalies.classifier(inside.features, reference, key, classifier)
    return {name: score(events.features) for name, events in tested.items()}


def trained(config: Config, run: Run, case: str, where: str, data: Events):
    """The mixture of densities of one side of the window's edges, and its parameters."""
    events = getattr(data, where)(REGION)
    # In the limits of all data: neither side's density ends before the other's.
    model = density(config, data if config.data else events)
    batch = Batch(events.features, events.masses[:, None])
    params = run.fit(f"{case}/{where}", model, batch, config.flow).params
    return mixture(model, config.flow.ensemble), params


def compute(config: Config, run: Run) -> dict:
    """Search in each case.

    improvement/CASE/METHOD   largest eps_S / sqrt(eps_B) with 25 background events or more
    sculpting/CASE/METHOD     p-value that the masses of the 1 % of background with the largest
                              scores are those of all (Kolmogorov-Smirnov)
    improvement/exact         of the best cut, in the toy
    """
    metrics = {}
    for case in cases(config):
        masses = samples(config, run, case)["background"].masses
        for method in config.methods:
            if method == "supervised" and case == "no signal":
                continue
            scores = run.cached(f"{case}/{method}", search, config, run, case, method)
            found = anomalies.significance_improvement(scores["signal"], scores["background"])
            metrics[f"improvement/{case}/{method}"] = found.best
            top = scores["background"] >= np.quantile(scores["background"], 0.99)
            p_value = stats.ks_2samp(masses[top], masses[~top]).pvalue
            metrics[f"sculpting/{case}/{method}"] = float(p_value)
    if not config.data:
        metrics["improvement/exact"] = Resonance().best_improvement(25 / config.num_test)
    return metrics


def report(config: Config, run: Run, metrics: dict) -> str:
    """Draw improvements against efficiencies and tabulate the largest."""
    panels = {}
    for case in cases(config):
        panels[case] = {}
        for method in config.methods:
            if f"improvement/{case}/{method}" not in metrics:
                continue
            scores = run.stage(f"{case}/{method}")
            found = anomalies.significance_improvement(scores["signal"], scores["background"])
            few = np.unique(np.geomspace(1, len(found.value), 60).astype(int)) - 1
            panels[case][method] = Curve.of(*(a[few] for a in (found.background, found.value)))
    label = {"xlabel": r"Background efficiency $\epsilon_B$", "num_columns": 3}
    figure = plotting.quality_curves(
        panels, r"$\epsilon_S / \sqrt{\epsilon_B}$", log_y=True, **label
    )
    run.save("improvement", figure)
    rows = {
        f"{case}: {what}": f"{what}/{case}"
        for case in cases(config)
        for what in ("improvement", "sculpting")
    }
    text = metric_table(metrics, config.methods, rows)
    if "improvement/exact" in metrics:
        text += f"\n\nbest cut: {metrics['improvement/exact']:.2f}"
    return text


DEFAULT = Config()
SMOKE = variant(
    DEFAULT,
    cases=("independent",),
    methods=("supervised", "CATHODE"),
    num_background=4000,
    num_signal=100,
    num_test=200,
    oversampling=1,
    flow={"steps": 10, "batch_size": 32},
    classifier={"hidden": (8,), "epochs": 2, "num_seeds": 1},
)
DIJET = variant(DEFAULT, data=DIJETS, num_background=27_000, num_signal=200, flow={"steps": 800})
PRESETS = {"default": DEFAULT, "smoke": SMOKE, "dijets": DIJET}
STUDY = Study(PRESETS, compute, report, check, build, inputs)

if __name__ == "__main__":
    main(STUDY)

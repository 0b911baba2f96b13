"""CaloClouds: showers as point clouds, in many calls of a network or one (2305.04847, 2309.05704).

    taskset -c 0 python -m experiments clouds

trains a Shower Flow, a diffusion model of independent points and its one-call function on the
bundled Geant4 showers, or those of --data, and compares both with Geant4: 1-D Wasserstein
distances beside truth against truth, all metrics of `experiments evaluate` for the one-call
function, and milliseconds a shower, on one core if the process has one (taskset). The presets
ablation, ablation-epic and ablation-transformer compare networks whose points see each other or do
not, on showers below 4 GeV. With `--calodream runs/calodream-default` a finished CaloDREAM is
compared, too, at the same energies; a finished run takes this up. With `--one-call mean_flow` the
one-call function is a MeanFlow of the teacher. The finished run is a model:
`jgen.showers.clouds.load("runs/clouds-default")`. `--start-from electrons-ds2` begins with networks
that are trained, to be made those of other showers (`--data`).

Time: 8 to 13 minutes of processor time (smoke: one and a half). Numbers: results/showers.md.
"""

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from experiments.showers import presets
from experiments.showers.presets import evaluated, report_evaluation
from experiments.study import Run, Study, at_least, main, table, variant
from jgen import metrics, plotting
from jgen.estimate import Estimate
from jgen.generative_model import GenerativeModel
from jgen.metrics import wasserstein
from jgen.nets import PointWiseConfig
from jgen.plotting import Panel
from jgen.random import numpy_generator
from jgen.showers import (
    EvaluationConfig,
    Showers,
    calodream,
    clouds,
    compute_high_level_inputs,
    count_showers,
    generate_showers,
    get_geometry,
    layer_energies,
    layer_observables,
    load_trained,
    read_showers,
    sample_path,
)
from jgen.showers.calodream import milliseconds_per_shower
from jgen.showers.clouds import CloudsConfig, FlowConfig, Trained
from jgen.showers.evaluation import observable_distances
from jgen.training import OptimizerConfig, TrainConfig

GEANT4_MS_PER_GEV = 16.5
"""Of our own Geant4 simulation on one core, measured with the showers of results/README.md."""
_PAIRS = 10  # of true samples, behind the distances of the truth
WHOLE = {
    "response": r"$E_\mathrm{tot}$ / $E_\mathrm{inc}$",
    "hits": "Voxels hit",
    "depth": "Mean depth [layers]",
    "x": "Centre of gravity, $x$ [mm]",
    "radius": "Mean radius [mm]",
}
"""Observables of a shower as a whole."""


@dataclass(frozen=True)
class Config(CloudsConfig):
    """One CaloClouds, and the showers that it learns from and is judged by."""

    data: tuple[str, ...] = ()
    """CaloChallenge HDF5 files; without any, the bundled Geant4 sample."""
    max_energy: float = 0.0
    """Showers above this incident energy [MeV] are left out; 0 takes all."""
    num_test: int = 800
    """Showers at the end of the files that are kept for the comparison, and as many to generate."""
    sample_batch: int = 100
    """Showers generated at a time."""
    timing: tuple[int, ...] = (1, 100)
    """Batch sizes to measure milliseconds a shower at."""
    bootstrap: int = 20
    """Resamplings behind the errors of distances."""
    classifier: metrics.ClassifierConfig = presets.JUDGE
    """Classifier of high-level features, of each sampler."""
    evaluation: EvaluationConfig = presets.DEFAULT.evaluation
    """All metrics of the one-call function."""
    start_from: str = ""
    """Trained CaloClouds to start from, a run folder or a name such as electrons-ds2: for other
    energies or another detector in fewer steps. The networks, and what teaches the one-call
    function, are then its own."""
    calodream: str = ""
    """Run folder of a finished `experiments calodream` to compare with, which should not have
    learned from the showers of the comparison."""

    @property
    def samplers(self) -> dict[str, str]:
        """Name -> label in figures."""
        teacher = {"teacher": f"{2 * self.steps} calls"}
        return {"student": "1 call"} | teacher if self.distil else teacher

    @property
    def generators(self) -> dict[str, str]:
        """The samplers, and CaloDREAM if it is given."""
        return self.samplers | ({"calodream": "CaloDREAM"} if self.calodream else {})


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, num_test=40, sample_batch=1, timing=1, bootstrap=2, max_energy=0)
    full, _ = started(config)
    if config.interval and not full.interval:
        raise ValueError(
            f"the networks of start_from={config.start_from} see no interval of time; leave out "
            "--one-call mean_flow, or --start-from"
        )
    if config.calodream:
        other = calodream.load(config.calodream)
        if other.geometry.name != config.geometry:
            raise ValueError(
                f"{config.calodream} makes showers of {other.geometry.name}, these are of "
                f"{config.geometry}; give another --calodream or --geometry"
            )


def stored(config: Config) -> Config:
    """A finished run takes up another generator, whose stages are its own."""
    return dataclasses.replace(config, calodream="")


def started(config: Config) -> tuple[Config, Trained | None]:
    """The configuration with the networks that training starts from, and these."""
    if not config.start_from:
        return config, None
    start = load_trained(config.start_from)
    if not isinstance(start, Trained):
        raise ValueError(f"start_from must be a CaloClouds, {config.start_from} is none")
    return clouds.like(config, start), start


@functools.lru_cache(maxsize=1)
def load_showers(config: Config) -> tuple[Showers, Showers]:
    """Training and reference showers, disjoint."""
    if not config.data and config.geometry != "ds2":
        raise ValueError("the bundled showers have the geometry ds2; give --data FILE for others")
    files = config.data or sample_path()
    showers = read_showers(files, get_geometry(config.geometry), 0, count_showers(files))
    if config.max_energy:
        showers = Showers(*(a[showers.energies <= config.max_energy] for a in showers))
    split = len(showers.energies) - config.num_test
    # As many for the truth's own distances, and 50 for the preprocessing.
    if split < max(config.num_test, config.num_validation + 50):
        raise ValueError(
            f"there are {len(showers.energies)} showers, too few for {config.num_test} in the "
            f"reference, as many at least to train on, and {config.num_validation} to validate; "
            "give more --data, a larger --max-energy, or a smaller --num-test"
        )
    return Showers(*(a[:split] for a in showers)), Showers(*(a[split:] for a in showers))


def build(config: Config) -> dict[str, GenerativeModel]:
    """The networks by name; the one-call function has the form of the diffusion model."""
    made = clouds.parts(started(config)[0], 64)
    return {"flow": made.flow, "points": made.teacher}


def compute(config: Config, run: Run) -> dict:
    """Train, sample, judge and time; SAMPLER is student (one call), teacher or calodream.

    The names of `jgen.showers.evaluate`, of the one-call function, and
      w1/SAMPLER/OBSERVABLE        1-D Wasserstein distance to Geant4 over the standard deviation of
                                   Geant4, of the observables `WHOLE`;
                                   w1/truth/OBSERVABLE of other Geant4 showers, see `judge_truth`
      distance/SAMPLER/OBSERVABLE  of others, as `observable_distances` gives them, likewise
      auc/SAMPLER                  of a classifier of high-level features, likewise
      ms_per_shower/SAMPLER/SIZE   from energies to showers in memory, in batches of SIZE
      ms_per_shower/geant4         of the reference's energies, from its time per GeV
      speedup/SIZE                 of one call to many
      student_over_bar             largest ratio of a distance of the one-call function to 1.5 times
                                   the teacher's, or to twice the truth's where that is larger
      train_seconds/PART           by the clock
    """
    train, reference = load_showers(config)
    full, start = started(config)
    trained = clouds.train(full, train, run, start)
    geometry, num = trained.geometry, config.num_test
    # Energies of the training sample, another draw from the spectrum of the reference.
    truth = Showers(*(a[:num] for a in train))
    results = run.cached("judged/truth", judge_truth, config, run, train, reference)
    for name, one in load_generators(config, run, trained, truth.energies).items():
        path = run.path / f"{name}.h5"
        args = one.model, one.params, run.key("sample"), truth.energies, geometry
        run.cached(f"samples/{name}", generate_showers, path, *args, batch_size=config.sample_batch)
        made = read_showers(path, geometry)
        results |= run.cached(f"judged/{name}", judge, config, run, name, reference, made)
        for size in config.timing:
            time = run.cached(f"timing/{name}/{size}", milliseconds, one, truth.energies, size)
            results[f"ms_per_shower/{name}/{size}"] = time
    results["ms_per_shower/geant4"] = GEANT4_MS_PER_GEV * float(np.mean(reference.energies)) / 1e3
    if config.distil:
        results |= compared(config, results)
        own = {"holdout": train, "training": train}
        results |= evaluated(
            run, geometry, reference, read_generated(run, "student"), **own
        ).metrics
    for name in ("flow", "teacher", *(("student",) if config.distil else ())):
        seconds = sum(row.get("seconds", 0.0) for row in run.history(name))
        results[f"train_seconds/{name}"] = seconds
    return results


def load_generators(
    config: Config, run: Run, trained: Trained, energies: np.ndarray
) -> dict[str, Trained | calodream.Trained]:
    """All that are compared, by name."""
    found = {name: trained.with_sampler(name) for name in config.samplers}
    if config.calodream:
        known = run.cached("calodream", lambda: {"folder": str(Path(config.calodream).resolve())})
        if Path(known["folder"]) != Path(config.calodream).resolve():
            raise ValueError(
                f"this run has been compared with {known['folder']}, not {config.calodream}; give "
                "that one, or another --out"
            )
        found["calodream"] = other = calodream.load(config.calodream)
        low, high = other.energy_range
        if energies.min() < low * (1 - 1e-3) or energies.max() > high * (1 + 1e-3):
            raise ValueError(
                f"{config.calodream} was trained from {low:.6g} to {high:.6g} MeV, but showers of "
                f"{energies.min():.6g} to {energies.max():.6g} MeV are compared"
            )
    return found


def milliseconds(trained: Trained | calodream.Trained, energies: np.ndarray, size: int) -> float:
    """A shower, in batches of a size."""
    args = trained.model, trained.params, jax.random.key(0), energies
    return milliseconds_per_shower(*args, (size,), repeats=20 if size < 10 else 3)[size]


def whole_showers(config: Config, showers: Showers) -> dict[str, np.ndarray]:
    """The observables `WHOLE`."""
    geometry, voxels = get_geometry(config.geometry), showers.voxels
    layers = layer_observables(layer_energies(showers, geometry.num_layers), showers.energies)
    total = np.maximum(voxels.sum(axis=1, dtype=np.float64), 1e-30)
    return {
        "response": layers["E_ratio"],
        "hits": np.sum(voxels > geometry.threshold, axis=1),
        "depth": layers["depth"],
        "x": voxels @ geometry.eta / total,
        "radius": voxels @ geometry.r / total,
    }


def distances(
    config: Config, name: str, truth: Showers, showers: Showers, num_bootstrap: int
) -> dict[str, Estimate]:
    """Of one sample to true showers; errors by so many resamplings."""
    geometry, first = get_geometry(config.geometry), whole_showers(config, truth)
    found = {}
    for observable, values in whole_showers(config, showers).items():
        true, width = first[observable], np.std(first[observable])
        distance = wasserstein(true, values, num_bootstrap=num_bootstrap).estimate
        found[f"w1/{name}/{observable}"] = Estimate(*np.divide(distance, width))
    others = observable_distances(geometry, truth, showers, num_bootstrap=num_bootstrap)
    return found | {f"distance/{name}/{observable}": d for observable, d in others.items()}


def classified(config: Config, run: Run, name: str, truth: Showers, showers: Showers) -> dict:
    """The AUC of one sample."""
    geometry = get_geometry(config.geometry)
    features = [compute_high_level_inputs(geometry, s) for s in (truth, showers)]
    told = metrics.classifier_test(*features, run.key("classifier"), config.classifier)
    return {f"auc/{name}": told.auc_estimate}


def judge(config: Config, run: Run, name: str, truth: Showers, showers: Showers) -> dict:
    """Distances and the AUC of one sample."""
    found = distances(config, name, truth, showers, config.bootstrap)
    return found | classified(config, run, name, truth, showers)


def judge_truth(config: Config, run: Run, train: Showers, reference: Showers) -> dict:
    """Distances and the AUC of Geant4 showers from Geant4 showers.

    Means of ten random pairs of samples of all showers, with the spread of pairs: the distance of
    one pair, a single number, is off by up to a factor of two.
    """
    num, rng = config.num_test, numpy_generator(run.key("pairs"))
    known, found = len(train.energies), []

    def taken(rows):
        """Of all showers, of which training ones come first; these may be too many for a copy."""
        rows = rows[rows < known], rows[rows >= known] - known
        pairs = zip(train, reference, strict=True)
        return Showers(*(np.concatenate([a[rows[0]], b[rows[1]]]) for a, b in pairs))

    for _ in range(_PAIRS):
        rows = rng.permutation(known + len(reference.energies))[: 2 * num].reshape(2, num)
        found.append(distances(config, "truth", *map(taken, rows), 0))
    values = {name: [one[name].value for one in found] for name in found[0]}
    spread = {name: Estimate(float(np.mean(v)), float(np.std(v))) for name, v in values.items()}
    other = Showers(*(a[:num] for a in train))
    return spread | classified(config, run, "truth", reference, other)


def compared(config: Config, results: dict) -> dict[str, float]:
    """One call against many."""
    speed = {
        f"speedup/{size}": results[f"ms_per_shower/teacher/{size}"]
        / results[f"ms_per_shower/student/{size}"]
        for size in config.timing
    }
    value = lambda name, kind: results[name.replace("/student/", f"/{kind}/")].value
    over = [
        result.value / max(1.5 * value(name, "teacher"), 2 * value(name, "truth"))
        for name, result in results.items()
        if name.startswith(("w1/student/", "distance/student/"))
    ]
    return speed | {"student_over_bar": max(over)}


def read_generated(run: Run, name: str) -> Showers:
    """Showers of a sampler."""
    return read_showers(run.path / f"{name}.h5", get_geometry(run.config.geometry))


def report(config: Config, run: Run, results: dict) -> str:
    """Draw the observables, single showers as points, and what `experiments evaluate` draws."""
    geometry, (_, reference) = get_geometry(config.geometry), load_showers(config)
    made = {label: read_generated(run, name) for name, label in config.generators.items()}
    true = whole_showers(config, reference)
    others = {label: whole_showers(config, showers) for label, showers in made.items()}
    panels = []
    for name, label in WHOLE.items():
        edges = np.linspace(*np.quantile(true[name], [0.002, 0.998]), 31)
        samples = {sampler: values[name] for sampler, values in others.items()}
        panels.append(Panel(edges, true[name], samples, label, reference_label="Geant4"))
    run.save("whole_showers", plotting.histogram_grid(panels))
    run.save("points", plotting.shower_points(example_points(config, run, reference)))
    for name in ("flow", "teacher", *(("student",) if config.distil else ())):
        run.save(f"training_{name}", plotting.training_curves({name: run.history(name)}))
    rows = {
        name: [*(results[f"w1/{name}/{observable}"] for observable in WHOLE)]
        + [results[f"distance/{name}/E_voxel"], results[f"auc/{name}"]]
        + [results.get(f"ms_per_shower/{name}/{size}") for size in config.timing]
        for name in ("truth", *config.generators)
    }
    columns = [*WHOLE, "E_voxel", "AUC", *(f"ms, {size}" for size in config.timing)]
    text = [table(columns, rows, title="W1 / sd")]
    names = [n for n in results if n.startswith(("speedup", "student_over", "ms_per_shower/g"))]
    text.append(table(["value"], {name: [results[name]] for name in names}))
    if config.distil:
        text.append(report_evaluation(run, geometry, reference, made, results))
    else:
        for name, figure in plotting.shower_figures(geometry, reference, made).items():
            run.save(name, figure)
    return "\n\n".join(text)


def example_points(config: Config, run: Run, reference: Showers) -> dict[str, np.ndarray]:
    """A Geant4 shower of the median energy, and others of the same energy, as points."""
    trained = clouds.load(run.path)
    i = np.argsort(reference.energies)[len(reference.energies) // 2]
    energy = reference.energies[i : i + 1]
    gev = f"{energy[0] / 1e3:.1f} GeV"
    chosen = Showers(energy, reference.voxels[i : i + 1])
    found = {f"Geant4, {gev}": trained.as_points(run.key("example"), chosen)[0]}
    for name, label in config.samplers.items():
        found[label] = trained.with_sampler(name).clouds(run.key("example"), energy)[0]
    return found


DEFAULT = Config()
_SHORT = TrainConfig(30, 16, optimizer=OptimizerConfig(warmup=0.1), log_every=5)
SMOKE = variant(
    DEFAULT,
    max_energy=1500.0,
    num_test=100,
    num_validation=50,
    flow=FlowConfig(2, 4, (16,), variant(_SHORT, batch_size=48, keep="best", validate_every=10)),
    point_wise=PointWiseConfig((16, 16), 8),
    few=16,
    steps=2,
    teacher=_SHORT,
    trajectories=1,
    student=_SHORT,
    sample_batch=50,
    timing=(1, 10),
    bootstrap=5,
    classifier=metrics.ClassifierConfig(hidden=(16,), batch_size=20, epochs=2, num_seeds=1),
    evaluation=variant(presets.SMOKE.evaluation, classifiers=("high",), fpd=False, kpd=False),
)
# Networks of which the points see each other learn from all of them, and so do all of these, each
# in about as much time.
ABLATION = variant(
    DEFAULT,
    max_energy=4000.0,
    num_test=400,
    few=0,
    distil=False,
    teacher={"steps": 1200, "batch_size": 16, "buckets": 4},
    timing=(100,),
)
# The published point network, for some 20,000 showers.
HOUR = variant(
    DEFAULT,
    num_test=3200,
    num_validation=1000,
    flow=FlowConfig(6, 8, (64, 64), variant(DEFAULT.flow.training, steps=2000, batch_size=500)),
    point_wise=PointWiseConfig(),
    teacher={"steps": 9000, "ema_decay": 0.999},
    trajectories=1,
    student={"steps": 3000, "ema_decay": 0.0},
)
PRESETS = {
    "default": DEFAULT,
    "hour": HOUR,
    "smoke": SMOKE,
    "ablation": ABLATION,
    "ablation-epic": variant(ABLATION, network="epic"),
    "ablation-transformer": variant(ABLATION, network="set_transformer"),
}
STUDY = Study(PRESETS, compute, report, check, build, load_showers, stored)

if __name__ == "__main__":
    main(STUDY)

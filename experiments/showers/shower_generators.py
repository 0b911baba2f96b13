"""All generators of showers in one table: the same training showers, cells and tests.

    taskset -c 0 python -m experiments shower_generators

trains CaloClouds, CaloDREAM, layer flows and a BIB-AE, each as its own study does, on the bundled
Geant4 showers or those of --data, and compares them in merged cells, 9 layers of 4 x 9: distances
beside truth against truth, rank correlations of layers, the AUC of a classifier, milliseconds a
shower and seconds of training, on one core if the process has one (taskset). CaloClouds and
CaloDREAM make all voxels, which are merged then; layer flows and BIB-AE make merged cells and have
it easier. --generators takes some of them.

Time: half an hour of processor time (smoke, of two of them: one and a half minutes). Numbers:
results/showers.md.
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from experiments.showers import calodream as calodream_study
from experiments.showers import clouds as clouds_study
from experiments.showers import layer_flows as layer_flows_study
from experiments.showers import presets
from experiments.showers.bib_ae import study as bib_ae_study
from experiments.showers.layer_flows import (
    judge,
    milliseconds,
    observable_panels,
    quality_table,
)
from experiments.study import Run, Study, at_least, known, main, table, variant
from jgen import draw, plotting
from jgen.generative_model import GenerativeModel, SampleFunction
from jgen.metrics import ClassifierConfig
from jgen.plotting import Curve
from jgen.showers import (
    Showers,
    bib_ae,
    calodream,
    clouds,
    count_showers,
    get_geometry,
    layer_flows,
    merged,
    merged_geometry,
    read_showers,
    sample_path,
)
from jgen.showers.bib_ae import BibAeConfig
from jgen.showers.calodream import CaloDreamConfig
from jgen.showers.clouds import CloudsConfig
from jgen.showers.layer_flows import LayerFlowsConfig
from jgen.typing import Params

FINE = get_geometry("ds2")


class Row(NamedTuple):
    """A row of the table.

    Attributes:
      label: in table and figures.
      generator: whose it is.
      sampler: of the generator, where it has several.
      stages: trainings that it needs.
    """

    label: str
    generator: str
    sampler: str
    stages: tuple[str, ...]


ROWS = {
    "clouds": Row("CaloClouds, 1 call", "clouds", "student", ("flow", "teacher", "student")),
    "clouds_teacher": Row("CaloClouds, 24 calls", "clouds", "teacher", ("flow", "teacher")),
    "calodream": Row("CaloDREAM", "calodream", "", ("energy", "shape")),
    "maf": Row("L2LFlows, MAF", "layer_flows", "teacher", ("energies", "teacher")),
    "iaf": Row("CaloFlow, IAF", "layer_flows", "student", ("energies", "teacher", "student")),
    "bib_ae": Row("BIB-AE", "bib_ae", "post", ("response", "game", "latent", "post")),
}
"""Name -> row; they come in pairs where a generator has two samplers."""


def _library(kind: type, config: Any) -> Any:
    """A study's configuration without what is its own."""
    return kind(**{f.name: getattr(config, f.name) for f in dataclasses.fields(kind)})


@dataclass(frozen=True)
class Config:
    """Generators, and the showers that they learn from and are judged by."""

    data: tuple[str, ...] = ()
    """CaloChallenge HDF5 files of ds2; without any, the bundled Geant4 sample."""
    max_energy: float = 0.0
    """Showers above this incident energy [MeV] are left out; 0 takes all."""
    generators: tuple[str, ...] = ("clouds", "calodream", "layer_flows", "bib_ae")
    """What is trained and compared."""
    num_test: int = 800
    """Showers at the end of the files that are kept for the comparison, and as many to generate."""
    clouds: CloudsConfig = _library(CloudsConfig, clouds_study.DEFAULT)
    """CaloClouds."""
    calodream: CaloDreamConfig = _library(CaloDreamConfig, presets.DEFAULT)
    """CaloDREAM."""
    layer_flows: LayerFlowsConfig = _library(LayerFlowsConfig, layer_flows_study.DEFAULT)
    """Layer flows; all are compared in their cells."""
    bib_ae: BibAeConfig = variant(_library(BibAeConfig, bib_ae_study.DEFAULT), post={"num": 320})
    """BIB-AE, of as many turned copies of the training showers as the layer flows."""
    sample_batch: int = 100
    """Showers generated at a time."""
    timing: tuple[int, ...] = (1, 100)
    """Batch sizes to measure milliseconds a shower at."""
    bootstrap: int = 20
    """Resamplings behind the errors of distances."""
    classifier: ClassifierConfig = presets.JUDGE
    """Classifier of high-level features."""
    seed: int = 0
    """Seed of samples and classifiers; generators have their own."""

    @property
    def rows(self) -> dict[str, Row]:
        """Those of the chosen generators."""
        return {name: row for name, row in ROWS.items() if row.generator in self.generators}


def check(config: Config) -> None:
    """Refuse bad options."""
    known(config, generators=("clouds", "calodream", "layer_flows", "bib_ae"))
    if len(set(config.generators)) < len(config.generators):
        raise ValueError(f"generators must be different ones, got {config.generators}")
    at_least(config, num_test=40, max_energy=0, sample_batch=1, timing=1, bootstrap=2)
    for name in ("clouds", "calodream", "layer_flows"):
        if (found := getattr(config, name).geometry) != FINE.name:
            raise ValueError(f"{name}.geometry must be {FINE.name} here, got {found}")
    if not config.clouds.distil and "clouds" in config.generators:
        raise ValueError("clouds.distil must be on: a row of the table is the one-call function")


@functools.lru_cache(maxsize=1)
def load_showers(config: Config) -> tuple[Showers, Showers]:
    """Training showers, and those of the reference, which are merged; they are disjoint."""
    files = config.data or sample_path()
    showers = read_showers(files, FINE, 0, count_showers(files))
    if config.max_energy:
        showers = Showers(*(a[showers.energies <= config.max_energy] for a in showers))
    num = len(showers.energies) - config.num_test
    least = max(getattr(config, n).num_validation for n in ("clouds", "calodream", "layer_flows"))
    if num - least < config.num_test:
        raise ValueError(
            f"there are {num + config.num_test} showers, too few for {config.num_test} in the "
            f"reference, as many at least to train on, and {least} to validate; give more --data, "
            "a larger --max-energy, or a smaller --num-test"
        )
    train, reference = (Showers(*(a[rows] for a in showers)) for rows in (np.s_[:num], np.s_[num:]))
    return train, merged(reference, FINE, config.layer_flows.block)


def stored(config: Config) -> Config:
    """A finished run takes up other generators, whose stages are their own."""
    return dataclasses.replace(config, generators=DEFAULT.generators)


def build(config: Config) -> dict[str, GenerativeModel]:
    """Networks by generator and part."""
    geometry, found = _cells(config), {}
    if "clouds" in config.generators:
        made = clouds.parts(config.clouds, 64)
        found["clouds"] = {"flow": made.flow, "points": made.teacher}
    if "calodream" in config.generators:
        found["calodream"] = calodream_study.build(config.calodream)
    if "layer_flows" in config.generators:
        found["layer_flows"] = layer_flows_study.build(config.layer_flows)
    if "bib_ae" in config.generators:
        found["bib_ae"] = bib_ae_study.parts(config.bib_ae, geometry.shape)
    return {f"{name}/{part}": model for name, own in found.items() for part, model in own.items()}


def compute(config: Config, run: Run) -> dict:
    """Train, sample, judge and time; ROW is a name of `ROWS`.

    w1/ROW/layers            1-D Wasserstein distance to Geant4 of the energies of merged layers,
                             each over its standard deviation, mean over layers; w1/truth/... of
                             other Geant4 showers
    w1/ROW/OBSERVABLE        of a shower as a whole, likewise
    correlation/ROW          Frobenius distance of the rank correlations of layers
    distance/ROW/OBSERVABLE  others, as `observable_distances` gives them
    auc/ROW                  of a classifier of high-level features
    ms_per_shower/ROW/SIZE   from energies to showers in memory
    train_seconds/ROW        by the clock, of all trainings that it needs, without the trajectories
                             of the teacher that the one-call function of CaloClouds learns from
    """
    config, (showers, reference) = _found(config, run), load_showers(config)
    truth = Showers(*(a[: config.num_test] for a in showers))
    energies, truth = truth.energies, merged(truth, FINE, config.layer_flows.block)
    common = config, _cells(config), run.key("classifier")
    results = run.cached("judged/truth", judge, *common, "truth", reference, truth)
    for generator in config.generators:
        made, seconds = _train(config, run, generator, showers)
        for name, row in config.rows.items():
            if row.generator != generator:
                continue
            sample, params = _sampler(made, row)
            args = sample, params, run.key("sample"), energies
            drawn = run.cached(f"samples/{name}", _draw, config, generator, *args)
            own = Showers(energies, drawn["voxels"])
            results |= run.cached(f"judged/{name}", judge, *common, name, reference, own)
            results |= run.cached(f"timing/{name}", milliseconds, config, name, *args)
            results[f"train_seconds/{name}"] = sum(seconds[stage] for stage in row.stages)
    return results


def _cells(config: Config):
    return merged_geometry(FINE, config.layer_flows.block)


def _train(config: Config, run: Run, name: str, showers: Showers) -> tuple[Any, dict[str, float]]:
    """A generator in a folder of its own within the run, and the seconds of its trainings."""
    own = getattr(config, name)
    with run.part(name, own) as folder:
        if name == "bib_ae":
            made = _train_bib_ae(config, folder, showers)
        else:
            module = {"clouds": clouds, "calodream": calodream, "layer_flows": layer_flows}[name]
            made = module.train(own, showers, folder)
        stages = {stage for row in ROWS.values() if row.generator == name for stage in row.stages}
        seconds = lambda stage: sum(r.get("seconds", 0.0) for r in folder.history(stage))
        return made, {stage: seconds(stage) for stage in sorted(stages)}


def _train_bib_ae(config: Config, folder: Run, showers: Showers) -> bib_ae.Trained:
    flows, geometry = config.layer_flows, _cells(config)
    split = len(showers.energies) - flows.num_validation
    first, last = (Showers(*(a[rows] for a in showers)) for rows in (np.s_[:split], np.s_[split:]))
    last = merged(last, FINE, flows.block)
    options = {"validation": last, "threshold": geometry.threshold}
    copies = layer_flows.merged_copies(flows, first)
    return bib_ae.train(config.bib_ae, geometry.shape, copies, folder, **options)


def _found(config: Config, run: Run) -> Config:
    """With the generators of the folder, where it is only read; others may come later."""
    if not run.read_only:
        return config
    there = tuple(name for name in config.generators if (run.path / name).exists())
    return dataclasses.replace(config, generators=there)


def _sampler(made: Any, row: Row) -> tuple[SampleFunction, Params]:
    """What draws, and its parameters."""
    made = made.with_sampler(row.sampler) if row.sampler else made
    return made.model.sample, made.params


def _draw(config: Config, generator: str, sample, params: Params, key, energies) -> dict:
    """Merged showers."""
    args = sample, params, key, len(energies), energies
    made = draw(*args, batch_size=config.sample_batch, progress=True)
    showers = Showers(energies, made.reshape(len(made), -1))
    if generator in ("clouds", "calodream"):
        showers = merged(showers, FINE, config.layer_flows.block)
    return {"voxels": showers.voxels}


def report(config: Config, run: Run, results: dict) -> str:
    """Draw observables, and quality against time; tabulate all."""
    geometry, (showers, reference) = _cells(config), load_showers(config)
    config = _found(config, run)
    energies = showers.energies[: config.num_test]
    made = {
        row.label: Showers(energies, run.stage(f"samples/{name}")["voxels"])
        for name, row in config.rows.items()
        if name not in ("clouds_teacher", "iaf")  # as the other sampler of the same networks
    }
    run.save("observables", plotting.histogram_grid(observable_panels(geometry, reference, made)))
    largest = max(config.timing)
    curves = {
        row.label: Curve.of([results[f"ms_per_shower/{name}/{largest}"]], [results[f"auc/{name}"]])
        for name, row in config.rows.items()
    }
    run.save(
        "auc_time",
        plotting.quality_curves(
            curves, "AUC of features", xlabel="Milliseconds a shower", truth=results["auc/truth"]
        ),
    )
    return _tables(config, results)


def _tables(config: Config, results: dict) -> str:
    """Distances beside the truth's, and costs."""
    labels = {"truth": "Geant4"} | {name: row.label for name, row in config.rows.items()}
    text = quality_table(results, labels)
    costs = {
        row.label: [results[f"ms_per_shower/{name}/{size}"] for size in config.timing]
        + [results[f"train_seconds/{name}"]]
        for name, row in config.rows.items()
    }
    headings = [*(f"ms, {size}" for size in config.timing), "training [s]"]
    return "\n\n".join([text, table(headings, costs, title="costs")])


DEFAULT = Config()
SMOKE = variant(
    DEFAULT,
    max_energy=1500.0,
    generators=("clouds", "bib_ae"),
    num_test=100,
    clouds=_library(CloudsConfig, clouds_study.SMOKE),
    calodream=_library(CaloDreamConfig, presets.SMOKE),
    layer_flows=_library(LayerFlowsConfig, layer_flows_study.SMOKE),
    bib_ae=variant(_library(BibAeConfig, bib_ae_study.SMOKE), post={"num": 32}),
    sample_batch=50,
    timing=(1, 10),
    bootstrap=5,
    classifier=layer_flows_study.SMOKE.classifier,
)
PRESETS = {"default": DEFAULT, "smoke": SMOKE}
STUDY = Study(PRESETS, compute, report, check, build, load_showers, stored)

if __name__ == "__main__":
    main(STUDY)

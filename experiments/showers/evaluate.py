"""Judge a file of showers against Geant4 by the protocol of the CaloChallenge (2410.21611).

    python -m experiments evaluate REFERENCE.h5 GENERATED.h5 --out runs/judged

compares generated showers of any origin, in the layout of the CaloChallenge, with true ones: every
metric stands beside that of two true samples, which come from --holdout FILE or from cutting the
reference in two halves. --training FILE names the showers that the generator was trained on: are
they returned? The table is printed; metrics.json and figures go to the run folder.
--preset calochallenge trains the official classifiers, made for 100,000 showers.

Time: 3.5 minutes for 2 x 1600 showers of ds2 on 2 CPU cores shared with other work (smoke: 40 s of
processor time). On a busy machine set OMP_NUM_THREADS=1: there the Frechet distance took 40 times
as long with threads. Numbers: results/showers.md.
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from experiments.showers import presets
from experiments.study import Run, Study, at_least, main
from jgen.showers import (
    GEOMETRIES,
    EvaluationConfig,
    Geometry,
    Showers,
    count_showers,
    get_geometry,
    read_showers,
)
from jgen.tables import open_hdf5


@dataclass(frozen=True)
class Config:
    """One comparison."""

    reference: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="REFERENCE.h5")]]
    """CaloChallenge HDF5 file of true showers."""
    generated: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="GENERATED.h5")]]
    """HDF5 file of generated showers."""
    more_reference: tuple[str, ...] = ()
    """Further files of the reference."""
    more_generated: tuple[str, ...] = ()
    """Further files of generated showers."""
    holdout: tuple[str, ...] = ()
    """Files of other true showers; without any the reference is cut in two halves."""
    training: tuple[str, ...] = ()
    """Files of the showers that the generator was trained on; are they returned?"""
    geometry: Literal["auto", "ds1-photons", "ds1-pions", "ds2", "ds3"] = "auto"
    """Voxels of the files; auto looks at how many there are."""
    max_showers: int = 0
    """Showers read from the start of each sample but the training's; 0 reads all."""
    label: str = "Generated"
    """Name of the generated showers in figures."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """What is computed."""
    seed: int = 0
    """Seed of the classifiers."""

    @property
    def files(self) -> dict[str, tuple[str, ...]]:
        """Those of each sample; without a holdout or training there is none."""
        samples = {
            "reference": (self.reference, *self.more_reference),
            "generated": (self.generated, *self.more_generated),
            "holdout": self.holdout,
            "training": self.training,
        }
        return {name: paths for name, paths in samples.items() if paths}


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, max_showers=0)


def find_geometry(config: Config) -> Geometry:
    """The geometry that is asked for, or the one with as many voxels as the reference file.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file is not in the CaloChallenge's layout, or no geometry fits it.
    """
    if config.geometry != "auto":
        return get_geometry(config.geometry)
    count_showers(config.reference)  # refuses a file of another layout with a clear message
    with open_hdf5(config.reference) as file:
        num = file["showers"].shape[1]
    known = {geometry.num_voxels: name for name, geometry in GEOMETRIES.items()}
    if num not in known:
        raise ValueError(f"{config.reference} has {num} voxels a shower; known geometries: {known}")
    return GEOMETRIES[known[num]]


@functools.lru_cache(maxsize=1)
def read_samples(config: Config) -> dict[str, Showers]:
    """The showers of all samples."""
    geometry, samples = find_geometry(config), {}
    for name, paths in config.files.items():
        num = count_showers(paths)
        stop = num if name == "training" else min(num, config.max_showers or num)
        samples[name] = read_showers(paths, geometry, 0, stop)
    return samples


def compute(config: Config, run: Run) -> dict:
    """The metrics of `jgen.showers.evaluate`."""
    samples = read_samples(config)
    return presets.evaluated(run, find_geometry(config), **samples).metrics


def report(config: Config, run: Run, metrics: dict) -> str:
    """Draw the figures and tabulate the metrics."""
    samples, geometry = read_samples(config), find_geometry(config)
    shown = {config.label: samples["generated"]}
    return presets.report_evaluation(run, geometry, samples["reference"], shown, metrics)


DEFAULT = Config(tyro.MISSING, tyro.MISSING, evaluation=presets.DEFAULT.evaluation)
SMOKE = dataclasses.replace(DEFAULT, max_showers=300, evaluation=presets.SMOKE.evaluation)
CALOCHALLENGE = dataclasses.replace(
    DEFAULT,
    evaluation=EvaluationConfig(
        protocol="calochallenge", classifiers=("high", "low", "resnet"), permutations=10_000
    ),
)
PRESETS = {"default": DEFAULT, "smoke": SMOKE, "calochallenge": CALOCHALLENGE}
STUDY = Study(PRESETS, compute, report, check, inputs=read_samples)

if __name__ == "__main__":
    main(STUDY)

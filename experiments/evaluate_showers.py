"""Judge a file of showers against Geant4 by the protocol of the CaloChallenge (2410.21611).

    python -m experiments.evaluate_showers REFERENCE.h5 GENERATED.h5 --out runs/judged

compares generated showers of any origin, in the layout of the CaloChallenge, with true ones: every
metric stands beside that of two true samples, which come from --holdout FILE or from cutting the
reference in two halves. The table is printed; metrics.json, evaluation.npz and figures go to the
run folder. --preset calochallenge trains the official classifiers, made for 100,000 showers.

Time: 3.5 minutes for 2 x 1600 showers of ds2 on 2 CPU cores shared with other work (smoke: 40 s of
processor time). On a busy machine set OMP_NUM_THREADS=1: there the Frechet distance took 40 times
as long with threads. Expected of Geant4 against Geant4: AUCs of 0.5 within two errors, FPD, KPD
and separations as in the truth column, p-values anywhere between 0 and 1. An FPD of 1.3 is right
for 800 showers; published ones, of 100,000, are listed times 1e3.
"""

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import h5py
import jax
import tyro

from experiments import _calodream_presets as presets
from experiments._command_line import run
from jgen.plotting import save, shower_figures
from jgen.random import stream
from jgen.showers import (
    GEOMETRIES,
    Evaluation,
    EvaluationConfig,
    Geometry,
    Showers,
    count_showers,
    evaluate,
    get_geometry,
    load_evaluation,
    read_showers,
    save_evaluation,
    summary_table,
)
from jgen.training import RunFolder


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
    geometry: Literal["auto", "ds2", "ds3"] = "auto"
    """Voxels of the files; auto looks at how many there are."""
    max_showers: int = 0
    """Showers read from the start of each sample; 0 reads all."""
    label: str = "Generated"
    """Name of the generated showers in figures."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """What is computed."""
    seed: int = 0
    """Seed of the classifiers."""


def main(config: Config, out: Path, *, plot_only: bool = False) -> dict[str, float]:
    """Judge and plot; returns the metrics, which metrics.json holds too."""
    if plot_only and not (out / "config.json").exists():
        raise ValueError(f"{out} holds no run to plot; run without --plot-only first")
    geometry = find_geometry(config)
    files = {
        "reference": (config.reference, *config.more_reference),
        "generated": (config.generated, *config.more_generated),
        "holdout": config.holdout,
    }
    samples = {name: _read(paths, geometry, config) for name, paths in files.items() if paths}
    folder = RunFolder(out, config)
    _check_unchanged(folder, files)
    found = _judge(config, geometry, samples, folder, plot_only)
    figures = shower_figures(
        geometry,
        samples["reference"],
        {config.label: samples["generated"]},
        found,
        threshold=config.evaluation.threshold,
    )
    for name, figure in figures.items():
        save(figure, folder.figure(name))
    print(summary_table(found.metrics, found.notes))
    return found.metrics


def find_geometry(config: Config) -> Geometry:
    """The geometry that is asked for, or the one with as many voxels as the reference file.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file is not in the CaloChallenge's layout, or no geometry fits it.
    """
    if config.geometry != "auto":
        return get_geometry(config.geometry)
    count_showers(config.reference)  # refuses a file of another layout with a clear message
    with h5py.File(config.reference) as file:
        num = file["showers"].shape[1]
    for geometry in GEOMETRIES.values():
        if geometry.num_voxels == num:
            return geometry
    known = {g.num_voxels: name for name, g in GEOMETRIES.items()}
    raise ValueError(f"{config.reference} has {num} voxels a shower; known geometries: {known}")


def _read(paths: tuple[str, ...], geometry: Geometry, config: Config) -> Showers:
    if config.max_showers < 0:
        raise ValueError(f"max_showers must not be negative, got {config.max_showers}; 0 reads all")
    num = count_showers(paths)
    return read_showers(paths, geometry, 0, min(num, config.max_showers or num))


def _check_unchanged(folder: RunFolder, files: dict[str, tuple[str, ...]]) -> None:
    """Refuse to mix an old evaluation with files that were written anew under the same names."""
    digests = {}
    for path in (path for paths in files.values() for path in paths):
        with open(path, "rb") as file:
            digests[path] = hashlib.file_digest(file, "sha256").hexdigest()
    stored = folder.read_json("inputs.json")
    if stored is None:
        folder.write_json("inputs.json", digests)
    elif changed := [path for path in digests if stored.get(path) != digests[path]]:
        raise ValueError(
            f"{', '.join(changed)} changed since {folder.path} was made; choose another --out"
        )


def _judge(
    config: Config, geometry: Geometry, samples: dict[str, Showers], folder: RunFolder, stored: bool
) -> Evaluation:
    """The folder's evaluation, made if there is none yet."""
    path = folder.path / "evaluation.npz"
    if path.exists():
        return load_evaluation(path)
    if stored:
        raise ValueError(f"{folder.path} has no evaluation to plot; run without --plot-only first")
    key = stream(jax.random.key(config.seed), "evaluation")
    reference, generated, holdout = (
        samples.get(name) for name in ("reference", "generated", "holdout")
    )
    found = evaluate(
        geometry, reference, generated, key, config.evaluation, holdout=holdout, progress=True
    )
    folder.write_metrics(found.metrics)
    save_evaluation(path, found)
    return found


DEFAULT = Config(tyro.MISSING, tyro.MISSING, evaluation=presets.DEFAULT.evaluation)
SMOKE = dataclasses.replace(DEFAULT, max_showers=300, evaluation=presets.SMOKE.evaluation)
CALOCHALLENGE = dataclasses.replace(
    DEFAULT,
    evaluation=EvaluationConfig(
        protocol="calochallenge", classifiers=("high", "low", "resnet"), permutations=10_000
    ),
)
PRESETS = {"default": DEFAULT, "smoke": SMOKE, "calochallenge": CALOCHALLENGE}


def count_parameters(config: Config) -> dict[str, int]:
    """Nothing is trained to be kept."""
    del config
    return {}


if __name__ == "__main__":
    run("evaluate_showers", __doc__, PRESETS, main, count_parameters)

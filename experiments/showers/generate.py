"""Showers from a trained CaloDREAM or CaloClouds, streamed into one file.

    python -m experiments generate --model runs/calodream-default --num 10000 --out D

writes D/showers.h5 in the CaloChallenge's layout, whatever its size; the same command goes on where
an interrupted one stopped, to bitwise the same file. `--solver bespoke-8`: solvers are called
METHOD-EVALUATIONS: euler-16, midpoint-16, heun-16, rk4-16, kutta38-16, or those that
`experiments bespoke_solvers` has stored with the model. Of a run of `experiments clouds` they are
student, which calls its network once, and teacher. No figures; `experiments calodream` draws
those of its own samples. Numbers: results/showers.md.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from experiments.showers import clouds as clouds_study
from experiments.showers import presets
from experiments.study import Run, Study, at_least, main, table
from jgen.generative_model import GenerativeModel
from jgen.nets import num_parameters
from jgen.showers import calodream, clouds, count_showers, generate_showers
from jgen.tables import hdf5_dataset, open_hdf5, read_rows
from jgen.training import load_config


@dataclass(frozen=True)
class Config:
    """One sample of showers."""

    model: str = ""
    """Run folder of a finished `experiments calodream` or `experiments clouds`."""
    num: int = 10_000
    """Showers to generate."""
    start: int = 0
    """Number of the first shower. Jobs with --num 10000 and --start 0, 10000, 20000 ..., each with
    an --out of its own, make the parts of one sample; best a multiple of the batch size."""
    solver: str = ""
    """Solver of both networks, such as bespoke-8 or midpoint-16; empty: as in the model's
    configuration."""
    energy_solver: str = ""
    """Solver of the energy network alone, instead of `solver`."""
    shape_solver: str = ""
    """Solver of the shape network alone, instead of `solver`."""
    dtype: Literal["", "float32", "bfloat16"] = ""
    """Precision of the shape network's matrix products; empty: as in the model's configuration."""
    energy_range: tuple[float, float] | None = None
    """Log-uniform incident energies [MeV] between these; the model's range unless given."""
    energies_from: str = ""
    """CaloChallenge HDF5 file whose first incident energies are taken instead."""
    batch_size: int = 0
    """Showers generated at a time; 0: as in the model's configuration."""
    timing: tuple[int, ...] = ()
    """Batch sizes to measure milliseconds per shower at; the CaloChallenge's are 1 100 10000."""
    seed: int = 0
    """Seed of incident energies and showers."""


def check(config: Config) -> None:
    """Refuse bad options."""
    if not config.model:
        raise ValueError(
            "give --model DIR, the run folder of an `experiments calodream` or `experiments clouds`"
        )
    at_least(config, num=1, start=0, batch_size=0, timing=1)
    if config.energies_from and config.energy_range:
        raise ValueError("energies_from and energy_range exclude each other; give one of them")
    if config.energy_range and not 0 < config.energy_range[0] < config.energy_range[1]:
        raise ValueError(f"energy_range must be 0 < low < high [MeV], got {config.energy_range}")
    end = config.start + config.num
    if config.energies_from and end > (num := count_showers(config.energies_from)):
        raise ValueError(
            f"{config.energies_from} has {num} incident energies, but {config.num} showers "
            + (f"from {config.start} on " if config.start else "")
            + f"are asked for; give --num {max(num - config.start, 0)} or less"
        )
    _load(config)


def build(config: Config) -> dict[str, GenerativeModel]:
    """The networks by name."""
    trained = _load(config)
    if isinstance(trained, clouds.Trained):
        return {"flow": trained.parts.flow, "points": trained.points}
    return {name: part.model for name, part in trained.parts.items()}


def _load(config: Config) -> calodream.Trained | clouds.Trained:
    """The model, with the solvers and the precision that are asked for."""
    if (Path(config.model) / clouds.CONFIG).exists():
        if config.energy_solver or config.shape_solver or config.dtype:
            raise ValueError("of a CaloClouds --solver is student or teacher, with no other option")
        trained = clouds.load(config.model)
        return trained.with_sampler(config.solver) if config.solver else trained
    trained = calodream.load(config.model)
    if config.dtype:
        network = dataclasses.replace(trained.config.shape_network, dtype=config.dtype)
        other = dataclasses.replace(trained.config, shape_network=network)
        trained = dataclasses.replace(trained, config=other)
    return trained.with_solvers(
        config.energy_solver or config.solver or None, config.shape_solver or config.solver or None
    )


def compute(config: Config, run: Run) -> dict:
    """Generate and time.

    ms_per_shower          by the clock, with writing but without the first batch, which waits
                           for the compiler; not there if one batch was all
    ms_per_shower/SIZE     from energies to showers in memory, in batches of SIZE (`timing`)
    evaluations/PART       calls of the velocity network for one shower
    parameters/PART        of all networks
    energies_outside       fraction of incident energies that the model was not trained at
    """
    trained = _load(config)
    energies, model = _incident_energies(config, trained), trained.model
    kind = clouds_study.Config if isinstance(trained, clouds.Trained) else presets.Config
    batch_size = config.batch_size or load_config(kind, config.model).sample_batch
    done = run.cached(
        "generation",
        generate_showers,
        run.path / "showers.h5",
        model,
        trained.params,
        run.key("showers"),
        energies,
        trained.geometry,
        batch_size=batch_size,
        start=config.start,
        progress=True,
    )
    args = (model, trained.params, run.key("timing"), energies)
    energies = energies[config.start :]
    low, high = trained.energy_range
    # Energies are float32, whose ends of the range may be outside by a rounding error.
    outside = (energies < low * (1 - 1e-6)) | (energies > high * (1 + 1e-6))
    metrics = {"num_showers": len(energies), "energies_outside": outside.mean()}
    if done.num_timed:
        metrics["ms_per_shower"] = 1e3 * done.seconds / done.num_timed
    time = lambda size: calodream.milliseconds_per_shower(*args, (size,))[size]
    for size in config.timing:
        metrics[f"ms_per_shower/{size}"] = run.cached(f"timing/{size}", time, size)
    for name, model in build(config).items():
        metrics[f"parameters/{name}"] = num_parameters(model.init)
    return metrics | {f"evaluations/{name}": calls for name, calls in _evaluations(trained).items()}


def _evaluations(trained: calodream.Trained | clouds.Trained) -> dict[str, int]:
    """Calls of velocity networks, or of the network of points."""
    if isinstance(trained, clouds.Trained):
        return {"points": trained.evaluations}
    return {name: trained.evaluations(name) for name in ("energy", "shape")}


def _incident_energies(config: Config, trained: calodream.Trained | clouds.Trained) -> np.ndarray:
    """Incident energies [MeV] from the first shower on, of a file or log-uniform."""
    num = config.start + config.num
    if config.energies_from:
        with open_hdf5(config.energies_from) as file:
            energies = read_rows(hdf5_dataset(file, "incident_energies"), 0, num)
            return energies.reshape(-1).astype(np.float32)
    low, high = config.energy_range or trained.energy_range
    return calodream.incident_energies(num, low, high, jax.random.key(config.seed))


def report(config: Config, run: Run, metrics: dict) -> str:
    """Tabulate the metrics; there are no figures."""
    return table(["value"], {name: [value] for name, value in metrics.items()}, digits=6)


PRESETS = {"default": Config(), "smoke": Config(num=20, batch_size=8, timing=(1, 4))}
STUDY = Study(PRESETS, compute, report, check, build)

if __name__ == "__main__":
    main(STUDY)

"""Showers from a trained CaloDREAM, streamed into one file.

    python -m experiments.generate_showers --model runs/calodream-default --num 10000 \
        --solver bespoke-8 --out D

writes D/showers.h5 in the CaloChallenge's layout, whatever its size; the same command goes on where
an interrupted one stopped, to bitwise the same file. Solvers are METHOD-EVALUATIONS: euler-16,
midpoint-16, heun-16, rk4-16, kutta38-16, or those that experiments.bespoke_solvers has stored with
the model. No figures; experiments.calodream draws those of its own samples.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import h5py
import jax
import numpy as np

from experiments import _calodream as study
from experiments._command_line import run
from jgen.random import stream
from jgen.showers import count_showers
from jgen.showers.calodream import Solver, incident_energies
from jgen.showers.calodream.generation import Generated, generate_showers, milliseconds_per_shower
from jgen.showers.data.hdf5 import ENERGIES
from jgen.training import RunFolder, load_config


@dataclass(frozen=True)
class Config:
    """One sample of showers."""

    model: str = ""
    """Run folder of a finished experiments.calodream."""
    num: int = 10_000
    """Showers to generate."""
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


def main(config: Config, out: Path, *, plot_only: bool = False) -> dict[str, float]:
    """Generate and time; returns the metrics, which metrics.json holds too.

    ms_per_shower          by the clock, with writing but without the first batch, which waits
                           for the compiler; not there if one batch was all
    ms_per_shower/SIZE     from energies to showers in memory, in batches of SIZE (`timing`)
    evaluations/PART       calls of the velocity network for one shower
    parameters/PART        of all networks
    energies_outside       fraction of incident energies that the model was not trained at
    """
    if plot_only:
        raise ValueError("generate_showers draws no figures; run it without --plot-only")
    model_config = _check(config)
    energies_of = _make_energies(config)
    trained = _in_precision(study.load_trained(Path(config.model)), config.dtype)
    solvers = _solvers(config, trained)
    energies = energies_of(trained)
    folder = RunFolder(out, config)
    if jax.process_index() != 0:
        return {}
    model, params = trained.showers(solvers["energy"], solvers["shape"])
    done = _generate(config, trained, (model, params), energies, folder)
    low, high = trained.preprocessing.energy_min, trained.preprocessing.energy_max
    # Energies are float32, whose ends of the range may be outside by a rounding error.
    outside = (energies < low * (1 - 1e-6)) | (energies > high * (1 + 1e-6))
    metrics = {"num_showers": len(energies), "energies_outside": float(outside.mean())}
    if done.num_timed:
        metrics["ms_per_shower"] = 1e3 * done.seconds / done.num_timed
    metrics |= _time(config, (model, params), energies, folder)
    metrics |= _evaluations(trained, solvers)
    counts = study.count_parameters(model_config)
    metrics |= {f"parameters/{name}": count for name, count in counts.items()}
    folder.write_metrics(metrics)
    for name, value in metrics.items():
        print(f"{name:<28}{value:>14.6g}")
    return metrics


def _in_precision(trained: study.Trained, dtype: str) -> study.Trained:
    """The same parameters in a network that multiplies in another precision."""
    if not dtype:
        return trained
    network = dataclasses.replace(trained.config.shape_network, dtype=dtype)
    return dataclasses.replace(
        trained, config=dataclasses.replace(trained.config, shape_network=network)
    )


def count_parameters(config: Config) -> dict[str, int]:
    """Trainable parameters of the model."""
    return study.count_parameters(_check(config))


def _check(config: Config) -> study.Config:
    """Refuse bad options; returns the model's configuration."""
    if not config.model:
        raise ValueError(
            "give --model DIR, the run folder of an experiments.calodream, to generate from"
        )
    if config.num < 1 or config.batch_size < 0 or any(size < 1 for size in config.timing):
        raise ValueError(
            "num and the sizes of timing must be at least 1 and batch_size at least 0, got "
            f"{config.num}, {config.timing} and {config.batch_size}"
        )
    if config.energies_from and config.energy_range:
        raise ValueError("energies_from and energy_range exclude each other; give one of them")
    if config.energy_range and not 0 < config.energy_range[0] < config.energy_range[1]:
        raise ValueError(f"energy_range must be 0 < low < high [MeV], got {config.energy_range}")
    return load_config(study.Config, Path(config.model))


def _make_energies(config: Config) -> Callable[[study.Trained], np.ndarray]:
    """A function to the incident energies [MeV]; those of a file are read and checked at once."""
    if not config.energies_from:

        def spectrum(trained):
            low, high = config.energy_range or (
                trained.preprocessing.energy_min,
                trained.preprocessing.energy_max,
            )
            return incident_energies(config.num, low, high, config.seed)

        return spectrum
    path = Path(config.energies_from)
    found = count_showers(path)
    if config.num > found:
        raise ValueError(
            f"{path} has {found} incident energies, but {config.num} showers are asked for; "
            f"give --num {found} or less"
        )
    with h5py.File(path, "r") as file:
        energies = file[ENERGIES][: config.num].reshape(-1).astype(np.float32)
    return lambda trained: energies


def _solvers(config: Config, trained: study.Trained) -> dict[str, Solver]:
    """The solver of each network."""
    found = {}
    for part in ("energy", "shape"):
        name = getattr(config, f"{part}_solver") or config.solver
        configured = getattr(trained.config, f"{part}_solver")
        found[part] = trained.solver(part, name) if name else configured.make()
    return found


def _generate(config, trained, model_and_params, energies, folder) -> Generated:
    """Write showers.h5, unless it is there."""
    path, stored = folder.path / "showers.h5", folder.read_json("generation.json")
    if stored and path.exists():
        return Generated(**stored)
    done = generate_showers(
        path,
        *model_and_params,
        stream(jax.random.key(config.seed), "showers"),
        energies,
        trained.geometry,
        batch_size=config.batch_size or trained.config.sample_batch,
        progress=True,
    )
    folder.write_json("generation.json", done._asdict())
    return done


def _time(config, model_and_params, energies, folder) -> dict[str, float]:
    """Milliseconds per shower at each batch size; each is kept in the run folder."""
    found = folder.read_json("timing.json") or {}
    for size in config.timing:
        if str(size) not in found:
            key = stream(jax.random.key(config.seed), "timing")
            times = milliseconds_per_shower(*model_and_params, key, energies, (size,))
            found[str(size)] = times[size]
            folder.write_json("timing.json", found)
    return {f"ms_per_shower/{size}": found[str(size)] for size in config.timing}


def _evaluations(trained: study.Trained, solvers: dict[str, Solver]) -> dict[str, int]:
    """Calls of each velocity network for one shower."""
    flows = {"energy": 1, "shape": 1}
    if trained.config.energies == "autoregressive":
        flows["energy"] = trained.geometry.num_layers
    return {f"evaluations/{part}": flows[part] * s.n_eval for part, s in solvers.items()}


PRESETS = {"default": Config(), "smoke": Config(num=20, batch_size=8, timing=(1, 4))}


if __name__ == "__main__":
    run("generate_showers", __doc__, PRESETS, main, count_parameters)

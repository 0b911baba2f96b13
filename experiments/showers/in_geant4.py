"""A trained model inside of Geant4: it makes the showers of the particles that Geant4 tracks.

    pip install -e ".[simulation]"
    python -m experiments in_geant4

tracks electrons to the surface of the calorimeter, stops them there, calls the model with their
energy and a number of Geant4's random engine, and fills the mesh, the voxels of dataset 2, with
what it returns. Beside it Geant4 simulates the same particles in full, and others for the truth's
own distances. Particles fly along the mesh's axis, the only direction that models of the
CaloChallenge's data have learned. The model is the generator that comes with the package, or
`--model`, the run folder of a finished `experiments clouds` or `experiments calodream` for
electrons in the detector of Geant4's example Par04. For the data of
Geant4 see `experiments simulate.geant4_showers`; for its own fast simulation, in C++,
`jgen.showers.par04.export_par04` writes the model as a file.

Time: 17 ms of a core per GeV in Geant4, and what the model takes; three minutes for the default.
Numbers: results/showers.md.
"""

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np

from experiments.simulate.detector import Detector
from experiments.simulate.geant4_showers import Config as Guns
from experiments.simulate.geant4_showers import draw_event
from experiments.simulate.physics import ADVICE, choose_physics
from experiments.simulate.processes import gather
from experiments.study import Run, Study, at_least, main, table
from jgen import plotting
from jgen.estimate import Estimate, mean_estimate
from jgen.generative_model import GenerativeModel
from jgen.metrics import Histogram, wasserstein
from jgen.plotting import Panel
from jgen.showers import (
    GRIDS,
    Showers,
    calodream,
    clouds,
    get_geometry,
    layer_energies,
    layer_observables,
    load_trained,
    shower_coordinates,
    voxelise,
)

GEOMETRY = get_geometry("ds2")
OBSERVABLES = {
    "response": r"$E_\mathrm{tot}$ / $E_\mathrm{inc}$",
    "hits": "Voxels hit",
    "depth": "Mean depth [layers]",
    "radius": "Mean radius [mm]",
}


@dataclass(frozen=True)
class Config:
    """Particles, and the model that takes their showers over."""

    model: str = "electrons-ds2"
    """A generator of the package, or the run folder of a finished `experiments clouds` or
    `experiments calodream`, of ds2."""
    num: int = 400
    """Particles that the model and Geant4 are given, and others for the truth."""
    energy_range: tuple[float, float] | None = None
    """Log-uniform kinetic energies [MeV] between these; the model's range unless given."""
    physics: Literal["auto", "FTFP_BERT", "G4EmStandardPhysics"] = "auto"
    """Physics list; auto takes FTFP_BERT if its data are installed."""
    bootstrap: int = 50
    """Resamplings behind the errors of distances."""
    seed: int = 0
    """Seed of the particles and of Geant4."""


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, num=20, seed=0, bootstrap=2)
    if config.energy_range and not 0 < config.energy_range[0] < config.energy_range[1] < np.inf:
        raise ValueError(f"energy_range must be 0 < low < high [MeV], got {config.energy_range}")


def load(model: str) -> calodream.Trained | clouds.Trained:
    """The model, of either kind."""
    trained = load_trained(model)
    if trained.geometry.name != GEOMETRY.name:
        raise ValueError(f"{model} makes showers of {trained.geometry.name}, the mesh is ds2's")
    return trained


def build(config: Config) -> dict[str, GenerativeModel]:
    """The model, for its parameter count."""
    return {"model": load(config.model).model}


def inputs(config: Config) -> str:
    """The physics list; Geant4 and its data must be there."""
    return choose_physics(config.physics, "e-")


def guns(config: Config) -> Guns:
    """The particles: number i of `draw_event`, and from `num` on those of the truth."""
    low, high = config.energy_range or load(config.model).energy_range
    return Guns(energy_range=(low, high), seed=config.seed)


def compute(config: Config, run: Run) -> dict[str, Any]:
    """Simulate in full, let the model simulate, and compare.

    mean/WHO/OBSERVABLE   of showers of geant4 and of model
    std/WHO/OBSERVABLE    their standard deviations
    w1/OBSERVABLE         1-D Wasserstein distance of both over the standard deviation of Geant4
    w1/truth/OBSERVABLE   the same of Geant4's showers of other particles
    profile/layers        largest difference of the mean fractions of energy in layers, over the
                          largest fraction
    profile/truth/layers  the same of other particles
    ms_per_shower/WHO     of processor time, of one particle after another; Geant4's with its
                          read-out, which is a Python function here
    ms_in_model           of these in the model
    speedup               of both
    """
    made = run.cached("showers", lambda: simulate(config, inputs(config)))
    showers = {who: Showers(made["energies"], made[who]) for who in ("geant4", "model")}
    showers["truth"] = Showers(made["other_energies"], made["truth"])
    seen = {who: observables(one) for who, one in showers.items()}
    results = {}
    for name in OBSERVABLES:
        for who in ("geant4", "model"):
            results[f"mean/{who}/{name}"] = mean_estimate(seen[who][name])
            results[f"std/{who}/{name}"] = float(np.std(seen[who][name]))
        width = np.std(seen["geant4"][name])
        for who, label in (("model", f"w1/{name}"), ("truth", f"w1/truth/{name}")):
            found = wasserstein(
                seen["geant4"][name], seen[who][name], num_bootstrap=config.bootstrap
            )
            results[label] = Estimate(*np.divide(found.estimate, width))
    layers = {who: mean_profile(one) for who, one in showers.items()}
    for who, label in (("model", "profile/layers"), ("truth", "profile/truth/layers")):
        far = np.abs(layers[who] - layers["geant4"])
        results[label] = float(far.max() / layers["geant4"].max())
    times = {name: float(made[f"ms/{name}"]) for name in ("geant4", "model")}
    results |= {f"ms_per_shower/{who}": value for who, value in times.items()}
    results["ms_in_model"] = float(made["ms/inside"])
    results["speedup"] = times["geant4"] / times["model"]
    return results


def observables(showers: Showers) -> dict[str, np.ndarray]:
    """`OBSERVABLES` of all showers."""
    layers = layer_observables(layer_energies(showers, GEOMETRY.num_layers), showers.energies)
    total = np.maximum(showers.voxels.sum(axis=1, dtype=np.float64), 1e-30)
    return {
        "response": layers["E_ratio"],
        "hits": np.sum(showers.voxels > GEOMETRY.threshold, axis=1).astype(np.float64),
        "depth": layers["depth"],
        "radius": showers.voxels @ GEOMETRY.r / total,
    }


def mean_profile(showers: Showers) -> np.ndarray:
    """Mean fractions of the incident energy in layers."""
    layers = layer_energies(showers, GEOMETRY.num_layers)
    return np.mean(layers / showers.energies[:, None], axis=0)


def profile(showers: Showers, axis: int = 0) -> Histogram:
    """Energy [MeV] of all showers by layer (axis 0) or ring (2); errors are those of showers."""
    cells = showers.voxels.reshape(-1, *GEOMETRY.shape).astype(np.float64)
    sums = cells.sum(axis=tuple({1, 2, 3} - {1 + axis}))
    edges = np.arange(sums.shape[1] + 1.0) * (1 if axis == 0 else GRIDS["ds2"].r_step)
    return Histogram(edges, sums.sum(axis=0), len(sums) * sums.var(axis=0), 0.0, 0.0)


def simulate(config: Config, physics: str) -> dict[str, Any]:
    """All showers, and times: Geant4 is set up in one process in full and in one with the model."""
    made = {}
    for body in (in_full, replaced):
        for part in gather(body, [(config, physics)]):
            made |= part
    return made


def in_full(config: Config, physics: str) -> Iterator[dict[str, Any]]:
    """Showers of Geant4, of the particles and of others; the body of a process."""
    simulation, particles = _geant4(physics, False), guns(config)
    voxels, energies, seconds = [], [], 0.0
    for index in range(2 * config.num):
        energy, seeds = draw_event(particles, index)
        start = time.process_time()
        deposits = simulation.shower(energy, seeds)
        where = shower_coordinates(deposits[:, 1:], particles.detector.inner_radius)
        cut = particles.threshold, particles.sampling_fraction
        shower = voxelise(deposits[:, 0], *where, GRIDS["ds2"], *cut)
        seconds += time.process_time() - start
        voxels.append(shower.astype(np.float32))
        energies.append(np.float32(energy))
    first, other = slice(config.num), slice(config.num, None)
    yield {
        "energies": np.array(energies[first]),
        "other_energies": np.array(energies[other]),
        "geant4": np.stack(voxels[first]),
        "truth": np.stack(voxels[other]),
        "ms/geant4": 1e3 * seconds / (2 * config.num),
    }


def replaced(config: Config, physics: str) -> Iterator[dict[str, Any]]:
    """Showers of the model, of the particles that Geant4 brings to it; the body of a process."""
    simulation, particles, trained = _geant4(physics, True), guns(config), load(config.model)
    sample = jax.jit(trained.model.sample)
    make = lambda entering: sample(
        trained.params, jax.random.key(entering.random), np.float32(entering.energy)
    )
    mesh, inside = [], 0.0

    def model(entering):
        nonlocal inside
        start = time.process_time()
        mesh.append(np.asarray(make(entering)).reshape(-1))
        inside += time.process_time() - start

    simulation.replace(*draw_event(particles, 0), model)  # compiles the model
    mesh.clear()
    inside, start = 0.0, time.process_time()
    for index in range(config.num):
        simulation.replace(*draw_event(particles, index), model)
    seconds = time.process_time() - start
    times = {"ms/model": 1e3 * seconds / config.num, "ms/inside": 1e3 * inside / config.num}
    yield {"model": np.stack(mesh), **times}


def _geant4(physics: str, with_model: bool):
    try:
        # Loads Geant4, and is the first thing to fail without its data.
        from experiments.simulate import geant4
    except ImportError as error:
        raise ValueError(f"Geant4 could not be loaded: {error}; {ADVICE}") from error
    return geant4.Simulation(Detector(), "e-", physics, Guns().cut, replaced=with_model)


def report(config: Config, run: Run, results: dict[str, Any]) -> str:
    """Visible energy, other observables and profiles beside Geant4's, and a table."""
    made = run.stage("showers")
    showers = {who: Showers(made["energies"], made[who]) for who in ("geant4", "model")}
    true, ours = (observables(showers[who]) for who in ("geant4", "model"))
    panels = []
    for name, label in OBSERVABLES.items():
        edges = np.linspace(*np.quantile(true[name], [0.002, 0.998]), 21)
        panels.append(Panel(edges, true[name], {"model": ours[name]}, label))
    for axis, label in ((0, "Layer, by energy"), (2, "Radius [mm], by energy")):
        first, second = (profile(showers[who], axis) for who in ("geant4", "model"))
        panels.append(Panel(first.edges, first, {"model": second}, label, log_y=axis == 2))
    panels = [panel._replace(reference_label="Geant4") for panel in panels]
    run.save("in_geant4", plotting.histogram_grid(panels))
    rows = {
        name: [
            *(results[f"{kind}/{who}/{name}"] for kind in ("mean", "std") for who in showers),
            results[f"w1/{name}"],
            results[f"w1/truth/{name}"],
        ]
        for name in OBSERVABLES
    }
    columns = ["Geant4", "model", "sd Geant4", "sd model", "W1 / sd", "truth"]
    rest = [n for n in results if n.startswith(("ms", "speedup", "profile"))]
    return "\n\n".join(
        [
            table(columns, rows, title="mean"),
            table(["value"], {name: [results[name]] for name in rest}),
        ]
    )


DEFAULT = Config()
PRESETS = {"default": DEFAULT, "smoke": dataclasses.replace(DEFAULT, num=20, bootstrap=5)}
STUDY = Study(PRESETS, compute, report, check, build, inputs)

if __name__ == "__main__":
    main(STUDY)

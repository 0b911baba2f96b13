"""Distillation of a CaloDREAM, and what its samplers cost and are worth."""

from dataclasses import dataclass

import numpy as np

from experiments import _calodream as study
from jgen.estimate import flatten
from jgen.files import atomic_path
from jgen.files import load as load_params
from jgen.files import save as save_params
from jgen.generative_model import Batch, GenerativeModel, draw
from jgen.metrics import ClassifierConfig, classifier_test, wasserstein
from jgen.models import distilled, trajectory_ends
from jgen.nets import Network
from jgen.nets.sequence import sequence
from jgen.random import stream
from jgen.showers import (
    Geometry,
    Showers,
    compute_high_level_inputs,
    compute_observables,
    get_geometry,
    judged_observables,
)
from jgen.showers.calodream import shower_model
from jgen.training import RunFolder, TrainConfig, fit, member
from jgen.typing import Key, Params


@dataclass(frozen=True)
class Distillation:
    """How the consistency function of one network is made."""

    trajectories: int
    """Trajectories of the teacher to learn from, solved once; the training showers' conditions are
    taken in turn."""
    huber: float = 0.05
    """c of the distance, see `jgen.models.distilled`."""
    training: TrainConfig = TrainConfig()
    """Its training."""


@dataclass(frozen=True)
class Part:
    """One of the two networks.

    Attributes:
      network: velocity network of the teacher and network of the consistency function.
      shape: of what it makes.
    """

    network: Network
    shape: tuple[int, ...]

    def model(self, teacher: Params, huber: float = 0.05) -> GenerativeModel:
        """The consistency function of this network."""
        return distilled(self.network, self.shape, teacher=teacher, huber=huber)


def parts(config: study.Config) -> dict[str, Part]:
    """What there is to distil: the shapes, and energies that are made in parallel."""
    geometry = get_geometry(config.geometry)
    found = {"shape": Part(study.velocity_network(config), geometry.shape)}
    if config.energies == "parallel":
        num = geometry.num_layers
        found["energy"] = Part(sequence(num, 1, config.parallel_network), (num,))
    return found


def distil(
    trained: study.Trained,
    part: str,
    solver: str,
    cond: np.ndarray,
    key: Key,
    distillation: Distillation,
    folder: RunFolder,
) -> Params:
    """Parameters of the consistency function of one network, trained from the teacher's.

    They are kept in the run folder, and taken from there when they are finished.

    Args:
      trained: the teacher.
      part: which of its networks.
      solver: of the trajectories, METHOD-CALLS.
      cond: conditions of the training showers.
      key: PRNG key.
      distillation: how.
      folder: of the run.
    """
    path = folder.path / part / "params.npz"
    if path.exists():
        return load_params(path, parts(trained.config)[part].network.init)
    fitted = fit(
        parts(trained.config)[part].model(trained.params[part], distillation.huber),
        _pool(trained, part, solver, cond, key, distillation.trajectories, folder),
        stream(key, f"distil {part}"),
        distillation.training,
        folder=folder.path / part,
        name=f"consistency, {part}",
    )
    params = member(fitted.params, 0)
    if folder.is_writer:
        save_params(path, params)
    return params


def _pool(trained, part, solver, cond, key, num, folder) -> Batch:
    """Ends of trajectories and their conditions; the ends of an interrupted run are read again."""
    path, cond = folder.path / part / "trajectories.npz", np.resize(cond, (num, *cond.shape[1:]))
    if not path.exists():
        network, shape = parts(trained.config)[part].network, parts(trained.config)[part].shape
        model = trajectory_ends(network, shape, solver=trained.solver(part, solver))
        key = stream(key, f"trajectories {part}")
        x0, x1 = draw(
            model, trained.params[part], key, num, cond, batch_size=min(num, 100), progress=True
        )
        with atomic_path(path) as partial:
            np.savez(partial, x0=x0, x1=x1)
    with np.load(path) as file:
        return Batch((file["x0"], file["x1"]), cond)


def student(trained: study.Trained, params: dict[str, Params]) -> tuple[GenerativeModel, Params]:
    """Showers in MeV with one call of each distilled network."""
    made = {name: part.model(trained.params[name]) for name, part in parts(trained.config).items()}
    energy = made.get("energy", trained.energy())
    all_params = trained.params | params
    model = shower_model(energy, made["shape"], trained.preprocessing)
    return model, all_params


def teacher(trained: study.Trained, name: str) -> tuple[GenerativeModel, Params]:
    """Showers in MeV with a solver METHOD-CALLS of each network that has been distilled."""
    is_distilled = "energy" in parts(trained.config)
    return trained.showers(
        trained.solver("energy", name) if is_distilled else None, trained.solver("shape", name)
    )


def observables(geometry: Geometry, showers: Showers) -> dict[str, np.ndarray]:
    """What is compared of showers, [n] or one number a layer or radius, but for the voxels."""
    return judged_observables(geometry, showers) | {
        "depth": compute_observables(geometry, showers)["depth"]
    }


def distances(
    geometry: Geometry, reference: Showers, other: Showers, num_bootstrap: int
) -> dict[str, float]:
    """1-D Wasserstein distances, means over layers or radii, and their errors by NAME_error.

    E_voxel is that of the energies of all voxels above the threshold, in decades. Whole showers are
    resampled for the errors.
    """
    first, second = (observables(geometry, s) for s in (reference, other))
    found = {}
    for name, values in first.items():
        distance = wasserstein(values, second[name], num_bootstrap=num_bootstrap)
        found |= flatten({name: distance})
    (x, of_x), (y, of_y) = (_voxels(geometry, s) for s in (reference, other))
    rng = np.random.default_rng(0)
    resampled = lambda s: rng.multinomial(n := len(s.energies), np.full(n, 1 / n))
    replicas = [
        wasserstein(x, y, resampled(reference)[of_x], resampled(other)[of_y], num_bootstrap=0).value
        for _ in range(num_bootstrap)
    ]
    value = wasserstein(x, y, num_bootstrap=0).value
    return found | {"E_voxel": float(value), "E_voxel_error": float(np.std(replicas))}


def _voxels(geometry, showers):
    """log10 of the energies of voxels above the threshold, and the shower each belongs to."""
    rows, columns = np.nonzero(showers.voxels > geometry.threshold)
    return np.log10(showers.voxels[rows, columns]), rows


def auc(
    geometry: Geometry, reference: Showers, other: Showers, key: Key, config: ClassifierConfig
) -> dict[str, float]:
    """AUC of a classifier of high-level features and its error."""
    inputs = [compute_high_level_inputs(geometry, s) for s in (reference, other)]
    result = classifier_test(*inputs, key, config)
    value, error = result.auc_estimate
    return {"auc": value, "auc_error": error}

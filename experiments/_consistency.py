"""Distillation of a CaloDREAM, and what its samplers cost and are worth."""

from dataclasses import dataclass

import numpy as np

from experiments import _calodream as study
from jgen.generative_model import Batch, GenerativeModel
from jgen.metrics import ClassifierConfig, classifier_test, wasserstein
from jgen.models import consistency
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
from jgen.showers.calodream import calodream
from jgen.training import RunFolder, TrainConfig, fit, load_params, member, save_params
from jgen.typing import Key, Params


@dataclass(frozen=True)
class Distillation:
    """How the consistency function of one network is made."""

    intervals: int
    """Intervals of the grid of times."""
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

    def model(self, **options) -> GenerativeModel:
        """The consistency model of this network."""
        return consistency(self.network, self.shape, **options)


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
    batch: Batch,
    key: Key,
    distillation: Distillation,
    folder: RunFolder,
) -> Params:
    """Parameters of the consistency function of one network, trained from the teacher's.

    They are kept in the run folder, and taken from there when they are finished.
    """
    path = folder.path / part / "params.npz"
    if path.exists():
        return load_params(path, parts(trained.config)[part].network.init)
    model = parts(trained.config)[part].model(
        teacher=trained.params[part], intervals=distillation.intervals
    )
    fitted = fit(
        model,
        batch,
        stream(key, f"distil {part}"),
        distillation.training,
        folder=folder.path / part,
        name=f"consistency, {part}",
    )
    params = member(fitted.params, 0)
    if folder.is_writer:
        save_params(path, params)
    return params


def student(
    trained: study.Trained, params: dict[str, Params], num_steps: int
) -> tuple[GenerativeModel, Params]:
    """Showers in MeV with `num_steps` calls of each distilled network."""
    made = {name: part.model(num_steps=num_steps) for name, part in parts(trained.config).items()}
    energy = made.get("energy", trained.energy())
    all_params = trained.params | params
    model = calodream(energy, made["shape"], trained.preprocessing)
    return model, {"first": all_params["energy"], "second": all_params["shape"]}


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
        w = wasserstein(values, second[name], num_bootstrap=num_bootstrap)
        replicas = w.replicas.reshape(num_bootstrap, -1).mean(axis=1)
        found |= {name: float(np.mean(w.value)), f"{name}_error": float(replicas.std())}
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
    error = np.hypot(result.spread("auc"), result.auc_statistical_error)
    return {"auc": result.mean("auc"), "auc_error": float(error)}

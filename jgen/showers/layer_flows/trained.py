"""Layer flows that are trained, kept in a run folder, loaded and drawn from."""

import dataclasses
import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from jgen.checks import check_known, check_literals, check_sizes, check_whole
from jgen.files import load as load_params
from jgen.generative_model import Batch, GenerativeModel
from jgen.showers.box import turned
from jgen.showers.data import (
    Geometry,
    Showers,
    check_showers,
    check_units,
    get_geometry,
    merged,
    merged_geometry,
)
from jgen.showers.data.generator import ShowerGenerator
from jgen.showers.layer_flows.model import (
    CellsConfig,
    EnergyConfig,
    Parts,
    parts,
    shower_model,
    student_cells,
    trained_cells,
    trained_energies,
)
from jgen.showers.layer_flows.preprocessing import LayerPreprocessing, fit_preprocessing
from jgen.training import (
    OptimizerConfig,
    RunFolder,
    TrainConfig,
    check_finished,
    load_config,
    member,
)
from jgen.typing import Params

Sampler = Literal["teacher", "student", "couplings"]
_BEST = TrainConfig(
    batch_size=128,
    optimizer=OptimizerConfig(1e-3, warmup=0.05, clip_norm=100.0),
    keep="best",
    validate_every=50,
    log_every=50,
    save_every=500,
)


@dataclass(frozen=True)
class LayerFlowsConfig:
    """Flows of the energies of layers and of their cells, and their trainings, for two cores."""

    geometry: Literal["ds2", "ds3"] = "ds2"
    """Voxels of the showers."""
    block: tuple[int, int, int] = (5, 4, 1)
    """Layers, angles and radii that are merged to one cell."""
    copies: int = 8
    """Of each training shower, all but the first turned or reflected before cells are merged."""
    num_validation: int = 100
    """Showers cut from the end of the training sample that choose the step of each training."""
    energies: EnergyConfig = EnergyConfig(3, 8, (32,))
    """Flow of the energies of layers."""
    cells: CellsConfig = CellsConfig()
    """Flows of cells."""
    energy_training: TrainConfig = dataclasses.replace(_BEST, steps=1000)
    """Training of the first; it keeps the parameters of smallest validation loss."""
    cell_training: TrainConfig = dataclasses.replace(_BEST, steps=1200)
    """Training of the others, likewise."""
    student_training: TrainConfig = dataclasses.replace(_BEST, steps=400, batch_size=32)
    """Training of the student, if any, likewise, from the parameters of the teacher."""
    seed: int = 0
    """Seed of everything random."""

    def check(self) -> None:
        """Raise a ValueError for options that do not fit together."""
        check_literals(self)
        check_sizes(copies=self.copies)
        check_whole(2, num_validation=self.num_validation)
        _ = self.merged_geometry

    @property
    def merged_geometry(self) -> Geometry:
        """Of the merged showers."""
        return merged_geometry(get_geometry(self.geometry), self.block)

    @property
    def samplers(self) -> tuple[Sampler, ...]:
        """What makes cells: the first learns by likelihood, a second is its student."""
        autoregressive = self.cells.form == "autoregressive"
        return ("teacher", "student") if autoregressive else ("couplings",)


@dataclass(frozen=True)
class Trained(ShowerGenerator):
    """Trained layer flows.

    Attributes:
      config: flows and trainings.
      preprocessing: fitted to the training sample.
      networks: parameters of the energies and of each of `config.samplers`, of one member.
      sampler: which of these makes the cells.
    """

    config: LayerFlowsConfig
    preprocessing: LayerPreprocessing
    networks: Mapping[str, Params]
    sampler: Sampler

    @property
    def geometry(self) -> Geometry:
        """Of the merged showers that are drawn."""
        return self.preprocessing.geometry

    @property
    def energy_range(self) -> tuple[float, float]:
        """Incident energies [MeV] of the training sample."""
        return self.preprocessing.energies

    @property
    def parts(self) -> Parts:
        """Models of energies and cells, of the sampler."""
        return _parts(self.config, self.preprocessing, self.sampler)

    @functools.cached_property
    def model(self) -> GenerativeModel:
        """Merged showers [*geometry.shape] in MeV given incident energies in MeV, of `params`."""
        return shower_model(self.parts, self.preprocessing)

    @property
    def params(self) -> dict[str, Params]:
        """Parameters of `model`."""
        return {"energies": self.networks["energies"], "cells": self.networks[self.sampler]}

    def with_sampler(self, sampler: Sampler) -> "Trained":
        """The same flows, with the cells of another sampler.

        Raises:
          ValueError: for one that was not trained.
        """
        check_known(self.config.samplers, sampler=sampler)
        return dataclasses.replace(self, sampler=sampler)


def train(config: LayerFlowsConfig, showers: Showers, run: RunFolder) -> Trained:
    """Train all flows, or take up where the folder's training stopped.

        config = layer_flows.LayerFlowsConfig(...)
        with RunFolder("runs/mine", config) as run:
            trained = layer_flows.train(config, showers, run)

    Args:
      config: what is trained, and how.
      showers: training sample in the voxels of `config.geometry`, which are merged here.
      run: open run folder, in which `load` finds the model again.

    Raises:
      ValueError: for bad options, showers that are too few, cannot be right or are not of the
        geometry, and for a folder that was begun with others.
    """
    config.check()
    fine, geometry = get_geometry(config.geometry), config.merged_geometry
    check_showers(showers, fine)
    check_units(showers, fine)
    split = len(showers.energies) - config.num_validation
    if split < 2:
        raise ValueError(
            f"{len(showers.energies)} showers are too few to validate on {config.num_validation} "
            "and train on others; give more, or a smaller num_validation"
        )
    run.begin(CONFIG, LayerFlowsConfig, config, {"showers": tuple(showers)})
    first, last = (Showers(*(a[rows] for a in showers)) for rows in (np.s_[:split], np.s_[split:]))
    fitted = lambda: _fitted(fit_preprocessing(merged(first, fine, config.block), geometry))
    maps = _preprocessing(config, run.cached("preprocessing", fitted))
    # Made when a flow needs it: nothing is merged to draw figures again.
    data = functools.cache(lambda: as_batch(merged_copies(config, first), geometry))
    validation = functools.cache(lambda: as_batch(merged(last, fine, config.block), geometry))
    params = {}

    def fit(name, model, training, **options):
        options["validation"] = validation
        params[name] = member(run.fit(name, model, data, training, **options).params, 0)

    teacher, *students = config.samplers
    made = _parts(config, maps, teacher)
    fit("energies", trained_energies(made, maps), config.energy_training)
    fit(teacher, trained_cells(made, maps), config.cell_training)
    for name in students:
        student = student_cells(config.cells, maps, params[teacher])
        fit(name, student, config.student_training, initial=params[teacher])
    return Trained(config, maps, params, teacher)


def merged_copies(config: LayerFlowsConfig, showers: Showers) -> Showers:
    """The showers merged, and after them turned ones, of which only merged cells are kept."""
    rng, fine = np.random.default_rng(config.seed), get_geometry(config.geometry)
    voxels = [merged(showers, fine, config.block).voxels]
    for _ in range(config.copies - 1):
        other = showers._replace(voxels=turned(showers.voxels, fine, rng))
        voxels.append(merged(other, fine, config.block).voxels)
    return Showers(np.tile(showers.energies, config.copies), np.concatenate(voxels))


def as_batch(showers: Showers, geometry: Geometry) -> Batch:
    """Merged showers [n, *geometry.shape] given their incident energies, both in MeV."""
    return Batch(showers.voxels.reshape(-1, *geometry.shape), showers.energies)


def load(folder: str | os.PathLike) -> Trained:
    """Layer flows from the run folder of `train`; no showers are read.

        trained = layer_flows.load("runs/layer_flows-default")
        showers = trained.draw(jax.random.key(0), energies)

    Raises:
      ValueError: if the folder holds none, or one whose training has not ended.
    """
    folder = Path(folder)
    config = load_config(LayerFlowsConfig, folder, CONFIG)
    names = ("energies", *config.samplers)
    check_finished(folder, ("preprocessing",), names)
    maps = _preprocessing(config, load_params(folder / "preprocessing.npz"))
    models = {name: _parts(config, maps, name).cells for name in config.samplers}
    models["energies"] = _parts(config, maps, config.samplers[0]).energies
    params = {n: member(load_params(folder / n / "params.npz", models[n]), 0) for n in names}
    return Trained(config, maps, params, config.samplers[0])


CONFIG = "layer_flows.json"
"""File of a run folder that says that it holds layer flows."""


def _parts(config: LayerFlowsConfig, maps: LayerPreprocessing, sampler: Sampler) -> Parts:
    return parts(config.energies, config.cells, maps, student=sampler == "student")


def _fitted(maps: LayerPreprocessing) -> dict[str, tuple[float, float]]:
    return {"log_response": maps.log_response, "energies": maps.energies}


def _preprocessing(config: LayerFlowsConfig, fitted: dict) -> LayerPreprocessing:
    pairs = (tuple(map(float, fitted[name])) for name in ("log_response", "energies"))
    return LayerPreprocessing(config.merged_geometry, *pairs)

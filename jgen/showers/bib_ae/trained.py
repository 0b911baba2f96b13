"""A BIB-AE that is trained, kept in a run folder, loaded and drawn from."""

import dataclasses
import functools
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jgen.checks import check_known, check_not_negative, check_shape
from jgen.files import load as load_params
from jgen.generative_model import Batch, GenerativeModel, SampleFunction
from jgen.showers import box
from jgen.showers.bib_ae.model import (
    BibAeConfig,
    Shape,
    game_model,
    latent_model,
    post_models,
    response_model,
)
from jgen.showers.data import Showers
from jgen.showers.data.generator import ShowerGenerator
from jgen.showers.data.hdf5 import check_deposits, check_response
from jgen.training import RunFolder, check_finished, load_config, member
from jgen.typing import Params

Sampler = Literal["game", "latent", "sorted", "post"]
SAMPLERS: tuple[Sampler, ...] = ("game", "latent", "sorted", "post")
"""What makes showers. game: the decoder, of latents from N(0, 1). latent: of latents from their
density estimate. sorted, post: as latent, and a post-processor of the published loss or of ours."""
_STAGES = ("response", "game", "latent", "sorted", "post")


class Statistics(NamedTuple):
    """What the scaling knows of the training showers.

    Attributes:
      centre, width: mean and standard deviation of their `logarithms` [2].
      energies: lowest and highest incident energy [MeV].
      shape: of the cells.
      threshold: cells below are emptied [MeV].
    """

    centre: Float[np.ndarray, "2"]
    width: Float[np.ndarray, "2"]
    energies: Float[np.ndarray, "2"]
    shape: Shape
    threshold: float


@dataclass(frozen=True)
class Trained(ShowerGenerator):
    """A trained BIB-AE.

    Attributes:
      config: sizes and trainings.
      statistics: of its training sample.
      networks: parameters of the response, of the game (encoder, decoder, critics), of the latent's
        flow and of both post-processors, of one member each.
      sampler: see `SAMPLERS`.
    """

    config: BibAeConfig
    statistics: Statistics
    networks: Mapping[str, Params]
    sampler: Sampler = "post"

    @property
    def energy_range(self) -> tuple[float, float]:
        """Incident energies [MeV] of the training sample."""
        low, high = map(float, self.statistics.energies)
        return low, high

    @functools.cached_property
    def model(self) -> GenerativeModel:
        """Cells [*shape] in MeV given incident energies in MeV, of `params`; for sampling."""
        models = _models(self.config, self.statistics.shape, self.networks)

        def init(key):
            keys = jax.random.split(key)
            parts = models["response"].init(keys[0]), models[self.sampler].init(keys[1])
            return dict(zip(("response", "cells"), parts, strict=True))

        def loss(params, key, batch):
            raise ValueError("the parts of this model are trained one by one, by bib_ae.train")

        return GenerativeModel(init, loss, lambda *args: self.cells_and_free(*args)[0])

    @functools.cached_property
    def cells_and_free(self) -> SampleFunction:
        """What `model` samples, and the visible energy of the networks over the one drawn before.

        Cells below the threshold are emptied, and the others scaled to the visible energy that the
        response's flow has drawn.
        """
        models = _models(self.config, self.statistics.shape, self.networks)
        response, cells = models["response"], models[self.sampler]
        (log_mean, response_mean), (log_width, width) = (
            map(float, pair) for pair in (self.statistics.centre, self.statistics.width)
        )

        def sample(params, key, energy):
            key_response, key_cells = jax.random.split(key)
            log_energy = ((jnp.log(energy) - log_mean) / log_width)[None]
            drawn = response.sample(params["response"], key_response, log_energy)
            cond = jnp.concatenate([log_energy, drawn])
            total = energy * jnp.exp(drawn[0] * width + response_mean)
            made = cells.sample(params["cells"], key_cells, cond)
            made = box.decompressed(made, self.config.scale)
            cut = box.cut_and_scaled(made, total, self.statistics.threshold)
            return cut, jnp.sum(made) / total

        return sample

    @property
    def params(self) -> dict[str, Params]:
        """Parameters of `model`."""
        return {"response": self.networks["response"], "cells": self.networks[self.sampler]}

    def with_sampler(self, sampler: Sampler) -> "Trained":
        """The same networks, with the showers of another of `SAMPLERS`.

        Raises:
          ValueError: for another name.
        """
        check_known(SAMPLERS, sampler=sampler)
        return dataclasses.replace(self, sampler=sampler)


def logarithms(showers: Showers) -> Float[np.ndarray, "n 2"]:
    """Logarithms of the incident energy [MeV] and of the response E_vis / E_inc.

    Raises:
      ValueError: for showers without energy.
    """
    total = np.sum(showers.voxels, axis=1, dtype=np.float64)
    if not (total > 0).all():
        raise ValueError(
            f"{(~(total > 0)).sum()} of {len(total)} showers have no energy: drop them"
        )
    return np.stack([np.log(showers.energies), np.log(total / showers.energies)], axis=1)


def train(
    config: BibAeConfig,
    shape: Shape,
    showers: Showers,
    run: RunFolder,
    *,
    validation: Showers,
    threshold: float = 0.0,
) -> Trained:
    """Train all parts one after another, or take up where the folder's training stopped.

    Args:
      config: what is trained, and how.
      shape: of the cells: layers and two more.
      showers: training sample, its cells in one row each; best with turned copies.
      run: open run folder, in which `load` finds the model again.
      validation: showers that stop the trainings of the flows, likewise.
      threshold: of generated cells [MeV]; those below are emptied.

    Raises:
      ValueError: for bad options, showers that cannot be right, are in other units or have another
        number of cells, and for a folder that was begun with others.
    """
    config.check()
    check_not_negative(threshold=threshold)
    shape = check_shape(shape, "shape")
    if len(shape) != 3:
        raise ValueError(f"shape must be layers and two more numbers of cells, got {shape}")
    post_models(config, shape)  # refuses a post-processor of more cells
    for name, sample in (("showers", showers), ("validation", validation)):
        _check_sample(sample, shape, threshold, name)
    if np.ptp(showers.energies) == 0:
        raise ValueError(
            f"all {len(showers.energies)} showers have the incident energy {showers.energies[0]}; "
            "the BIB-AE is of several"
        )
    data = {"showers": tuple(showers), "validation": tuple(validation)}
    run.begin(CONFIG, BibAeConfig, config, data, shape=shape, threshold=threshold)
    fitted = lambda: _statistics(showers, shape, threshold)._asdict()
    statistics = _read(run.cached("statistics", fitted))
    events, others = (
        functools.cache(functools.partial(_batch, statistics, sample, config.scale))
        for sample in (showers, validation)
    )
    response = lambda batch: Batch(batch.cond[:, 1:], batch.cond[:, :1])
    flows, game, post, params = config.flows, config.autoencoder, config.post, {}

    def fit(name, training, batch=events, **options):
        model = _models(config, shape, params)[name]
        params[name] = member(run.fit(name, model, batch, training, **options).params, 0)

    fit("response", flows.response, lambda: response(events()),
        validation=lambda: response(others()))  # fmt: skip
    fit("game", game.training, optimizer=game.optimizer)
    fit("latent", flows.latent, validation=others)
    fit("sorted", post.sorted_training)
    fit("post", post.training)
    return Trained(config, statistics, params)


def load(folder: str | os.PathLike) -> Trained:
    """A BIB-AE from the run folder of `train`; no showers are read.

    Raises:
      ValueError: if the folder holds none, or one whose training has not ended.
    """
    folder = Path(folder)
    config = load_config(BibAeConfig, folder, CONFIG)
    check_finished(folder, ("statistics",), _STAGES)
    statistics, params = _read(load_params(folder / "statistics.npz")), {}
    for name in _STAGES:
        model = _models(config, statistics.shape, params)[name]
        params[name] = member(load_params(folder / name / "params.npz", model), 0)
    return Trained(config, statistics, params)


CONFIG = "bib_ae.json"
"""File of a run folder that says that it holds a BIB-AE."""


def _models(
    config: BibAeConfig, shape: Shape, params: Mapping[str, Params]
) -> dict[str, GenerativeModel]:
    """The models of the stages, as far as those that they need are trained."""
    models = {"response": response_model(), "game": game_model(config, shape)}
    if "game" not in params:
        return models
    coder = {name: params["game"][name] for name in ("encoder", "decoder")}
    models["latent"] = latent = latent_model(config, shape, coder)
    if "latent" not in params:
        return models
    generate = lambda key, cond: latent.sample(params["latent"], key, cond)
    return models | post_models(config, shape, coder, generate)


def _check_sample(showers: Showers, shape: Shape, threshold: float, name: str) -> None:
    """Refuse what cannot be trained on."""
    check_deposits(showers, name)
    if np.shape(showers.voxels)[1] != (cells := math.prod(shape)):
        raise ValueError(
            f"{name} must have {cells} cells each, those of {shape}, got {np.shape(showers.voxels)}"
        )
    check_response(showers, threshold, name)
    logarithms(showers)


def _statistics(showers: Showers, shape: Shape, threshold: float) -> Statistics:
    logs = logarithms(showers)
    energies = np.array([showers.energies.min(), showers.energies.max()])
    return Statistics(logs.mean(axis=0), logs.std(axis=0), energies, shape, threshold)


def _read(stored: Mapping) -> Statistics:
    shape = tuple(int(size) for size in stored["shape"])
    arrays = (np.asarray(stored[name]) for name in ("centre", "width", "energies"))
    return Statistics(*arrays, shape, float(stored["threshold"]))


def _batch(statistics: Statistics, showers: Showers, scale: float) -> Batch:
    """Compressed cells given standardised logarithms of incident energy and response."""
    cond = np.float32((logarithms(showers) - statistics.centre) / statistics.width)
    cells = showers.voxels.reshape(-1, *statistics.shape)
    return Batch(np.asarray(box.compressed(cells, scale)), cond)

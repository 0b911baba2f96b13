"""Members of a CaloDREAM: an ensemble and draws of Bayesian networks, and what they generate."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from experiments import _calodream as study
from experiments._calodream_presets import DEFAULT as DEFAULT_STUDY
from jgen.generative_model import Batch, GenerativeModel
from jgen.random import member_keys, stream
from jgen.showers import Showers, get_geometry
from jgen.showers.calodream import shower_model, training_data
from jgen.showers.calodream.generation import generate_showers
from jgen.training import RunFolder, TrainConfig, fit, member
from jgen.transforms import bayesian, draw_weights
from jgen.typing import Params

PARTS = ("energy", "shape")
"""Networks of a member."""
# A width of pulls is finite for four members on average, not for three.
_FEWEST = 4
# Showers whose loss is computed at once.
_CHUNK = 50


@dataclass(frozen=True)
class Posterior:
    """The Bayesian networks, of the same sizes as the ensemble's."""

    draws: int = 8
    """Draws of the weights; each generates a data set of its own."""
    prior_scale: float = 1.0
    """Standard deviation of every weight before training."""
    initial_scale: float = 0.003
    """Standard deviation of every weight when training starts."""
    temperature: float = 1.0
    """Weight of the KL divergence. At 1 the squared error of each voxel or layer ratio counts as
    that of a normal density of width 1; larger ones widen the posterior."""
    energy_training: TrainConfig = DEFAULT_STUDY.energy_training
    """Training of the energy network."""
    shape_training: TrainConfig = dataclasses.replace(DEFAULT_STUDY.shape_training, steps=2500)
    """Training of the shape network; one draw of the weights a minibatch makes it noisier."""


@dataclass(frozen=True)
class Config:
    """One study of uncertainties."""

    calodream: study.Config = dataclasses.replace(
        DEFAULT_STUDY,
        shape_training=dataclasses.replace(DEFAULT_STUDY.shape_training, steps=1500),
    )
    """Data, networks and solvers, and the training of each member of the ensemble."""
    method: Literal["both", "ensemble", "bayesian"] = "both"
    """What is trained and judged."""
    members: int = 4
    """Members of the ensemble."""
    posterior: Posterior = Posterior()
    """The Bayesian networks."""
    smallest_bin: int = 20
    """Official bins are merged until this many true showers are expected in each."""
    layer: int = 10
    """Layer whose observables are drawn."""

    @property
    def methods(self) -> tuple[str, ...]:
        """All that are trained, in order."""
        return ("ensemble", "bayesian") if self.method == "both" else (self.method,)


def check_options(config: Config) -> None:
    """Refuse options that do not fit together, before a folder is made."""
    one, posterior = config.calodream, config.posterior
    if one.space != "voxel" or one.num_validation:
        raise ValueError(
            "this study takes networks in voxels and no validation showers; leave "
            "--calodream.space and --calodream.num-validation as they are"
        )
    if (fewest := min(config.members, posterior.draws)) < _FEWEST:
        raise ValueError(
            f"members and posterior.draws must be at least {_FEWEST}, for a spread that is known "
            f"well enough to be judged, got {fewest}"
        )
    if not 0 <= config.layer < (num := get_geometry(one.geometry).num_layers):
        raise ValueError(f"layer must be one of the {num} layers, 0 to {num - 1}: {config.layer}")
    if config.smallest_bin < 5:
        raise ValueError(
            f"smallest_bin must be at least 5, for normal errors, got {config.smallest_bin}"
        )
    for method in config.methods:
        trainings = {f"{part}_training": _training(config, method, part) for part in PARTS}
        study.check_options(dataclasses.replace(one, **trainings))
        for part in PARTS:
            _trained_model(config, method, part, num_train=1)


def _training(config: Config, method: str, part: str) -> TrainConfig:
    if method == "ensemble":
        training = getattr(config.calodream, f"{part}_training")
        return dataclasses.replace(training, ensemble=config.members)
    return dataclasses.replace(getattr(config.posterior, f"{part}_training"), ensemble=1)


def _model(config: study.Config, part: str) -> GenerativeModel:
    return study.make_energy_model(config) if part == "energy" else study.make_shape_model(config)


def _trained_model(config: Config, method: str, part: str, num_train: int) -> GenerativeModel:
    """The model as it is trained, Bayesian or not."""
    model, posterior = _model(config.calodream, part), config.posterior
    if method == "ensemble":
        return model
    geometry = get_geometry(config.calodream.geometry)
    features = geometry.num_layers if part == "energy" else int(np.prod(geometry.shape))
    return bayesian(
        model,
        num_train=num_train,
        prior_scale=posterior.prior_scale,
        initial_scale=posterior.initial_scale,
        # The loss is a mean of squares, twice the negative logarithm of a normal density of width
        # one over the number of features: this turns the KL divergence into the same unit.
        temperature=posterior.temperature * 2 / features,
    )


def make_samples(config: Config, showers: Showers, reference: Showers, folder: RunFolder) -> None:
    """Train all networks and let every member generate, or take up where that stopped."""
    one = config.calodream
    preprocessing = study.load_or_fit_preprocessing(one, showers, folder)
    batches = dict(zip(PARTS, training_data(showers, preprocessing), strict=True))
    held = dict(zip(PARTS, training_data(reference, preprocessing), strict=True))
    models = {part: _model(one, part) for part in PARTS}
    both = shower_model(models["energy"], models["shape"], preprocessing)
    for method in config.methods:
        fitted = {part: _fit(config, method, part, batches[part], folder) for part in PARTS}
        if jax.process_index() != 0:
            continue
        members = list(_members(config, method, fitted))
        if folder.read_json(f"{method}/losses.json") is None:
            losses = {
                part: _held_out_losses(models[part], [m[part] for m in members], held[part])
                for part in PARTS
            }
            folder.write_json(f"{method}/losses.json", losses)
        if method == "bayesian":
            scales = {part: _median_scale(fitted[part]) for part in PARTS}
            folder.write_json("bayesian/scales.json", scales)
        for i, params in enumerate(members):
            if (path := sample_path(folder, method, i)).exists():
                continue
            generate_showers(
                path,
                both,
                params,
                # One stream for all: members differ by their networks, not by their noise.
                stream(jax.random.key(one.seed), "sample"),
                # Of the training sample, as experiments.calodream explains.
                np.resize(showers.energies, len(reference.energies)),
                preprocessing.geometry,
                batch_size=one.sample_batch,
                progress=True,
            )


def _fit(config: Config, method: str, part: str, batch: Batch, folder: RunFolder) -> Params:
    """Trained parameters, stacked: of all members, or of the one posterior."""
    key = jax.random.key(config.calodream.seed)
    return fit(
        _trained_model(config, method, part, len(batch.x)),
        batch,
        # The ensemble's first member is the network of experiments.calodream.
        stream(key, part if method == "ensemble" else f"bayesian {part}"),
        _training(config, method, part),
        folder=folder.path / method / part,
        name=f"{method}, {part} network",
    ).params


def _members(config: Config, method: str, fitted: dict[str, Params]) -> Iterator[dict[str, Params]]:
    """Parameters of both networks, one member or draw after another."""
    if method == "ensemble":
        for i in range(config.members):
            yield {part: member(params, i) for part, params in fitted.items()}
        return
    key = stream(jax.random.key(config.calodream.seed), "draws")
    draw_one = jax.jit(draw_weights)
    for i in range(config.posterior.draws):
        keys = dict(zip(PARTS, member_keys(jax.random.fold_in(key, i), len(PARTS)), strict=True))
        yield {p: draw_one(member(params, 0), keys[p]) for p, params in fitted.items()}


def _held_out_losses(model: GenerativeModel, members: list[Params], batch: Batch) -> list[float]:
    """Losses without a KL divergence, at the same times and noise for all members."""
    size = min(_CHUNK, len(batch.x))
    num = len(batch.x) // size
    pieces = jax.tree.map(lambda a: a[: num * size].reshape(num, size, *a.shape[1:]), batch)
    keys = jax.random.split(jax.random.key(0), num)

    @jax.jit
    def loss(params, keys, pieces):
        return jax.lax.map(lambda kb: model.loss(params, *kb), (keys, pieces))

    return [float(np.mean(loss(params, keys, pieces))) for params in members]


def _median_scale(params: Params) -> float:
    scales = [np.ravel(leaf) for leaf in jax.tree.leaves(params["log_scale"])]
    return float(np.exp(np.median(np.concatenate(scales))))


def sample_path(folder: RunFolder, method: str, index: int) -> Path:
    """Where the showers of one member are kept."""
    return folder.path / method / f"samples-{index}.h5"

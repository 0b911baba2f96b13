"""Members of CaloDREAM's energy network, and what they generate: config, training, observables."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jaxtyping import Float
from scipy import stats

from experiments import _calodream as study
from experiments._calodream_presets import DEFAULT as DEFAULT_STUDY
from jgen.files import atomic_path
from jgen.generative_model import GenerativeModel, draw
from jgen.nets import num_parameters
from jgen.nets.sequence import SequenceConfig
from jgen.random import member_keys, stream
from jgen.showers import ShowerPreprocessing, Showers, get_geometry
from jgen.showers.calodream import incident_energies, training_data
from jgen.solvers import SolverConfig
from jgen.training import (
    OptimizerConfig,
    RunFolder,
    TrainConfig,
    fit,
    loss_values,
    member,
)
from jgen.transforms import bayesian, draw_weights
from jgen.typing import Params

OBSERVABLES = {
    "E_ratio": r"$E_\mathrm{tot} / E_\mathrm{inc}$",
    "depth": "Mean depth [layers]",
    "length": "Length [layers]",
}
"""What is judged, with names for axes; see `layer_observables`."""
# A p-value of the spectrum below which the showers are refused.
_SMALLEST_P = 1e-4


@dataclass(frozen=True)
class Config:
    """One study of the amplification of showers."""

    calodream: study.Config = dataclasses.replace(
        DEFAULT_STUDY,
        num_train=1000,
        num_test=2200,
        energy_range=(1e3, 30e3),
        energies="parallel",
        parallel_network=SequenceConfig(width=32, heads=2, blocks=2, mlp_width=64),
        energy_training=TrainConfig(
            steps=2000,
            batch_size=32,
            optimizer=OptimizerConfig(learning_rate=4e-3, warmup=0.05, clip_norm=1.0),
            ema_decay=0.98,
        ),
        energy_solver=SolverConfig("midpoint", 8),
    )
    """Data, energy network, its training and solver; the shape network is not used. The incident
    energies of the data must be log-uniform in `energy_range`, and so are those of the generated
    showers. `num_train` showers train each member, `num_test` others are the truth."""
    members: Literal["bootstrap", "plain", "repulsive", "bayesian"] = "bootstrap"
    """bootstrap: every member trains on its own resampled showers. plain: all on the same, so that
    their spread is that of the optimisation only. repulsive: these, pushing their losses apart.
    bayesian: draws of the weights of one network."""
    num_members: int = 10
    """Members, or draws of the weights."""
    num_generated: int = 8000
    """Showers that each member generates."""
    prior_scale: float = 1.0
    """Bayesian: standard deviation of every weight before training."""
    initial_scale: float = 0.003
    """Bayesian: standard deviation of every weight when training starts."""
    temperature: float = 1.0
    """Bayesian: weight of the KL divergence, as in experiments.shower_uncertainty."""
    num_regions: int = 10
    """Regions of each observable, of equal probability in the reference."""
    levels: int = 7
    """Median splits over all observables, for 2^levels bins at most."""


def check_options(config: Config) -> None:
    """Refuse options that do not fit together, before a folder is made."""
    one = dataclasses.replace(config.calodream, energy_training=_training(config))
    study.check_options(one)
    if one.num_validation:
        raise ValueError("this study validates nothing; leave --calodream.num-validation at 0")
    if one.energy_range is None or not 0 < one.energy_range[0] < one.energy_range[1]:
        raise ValueError(
            "generated showers need a spectrum: give the ends [MeV] of the data's log-uniform "
            f"incident energies as --calodream.energy-range, got {one.energy_range}"
        )
    for name, least in (("num_members", 2), ("num_regions", 2), ("levels", 1)):
        if getattr(config, name) < least:
            raise ValueError(f"{name} must be at least {least}, got {getattr(config, name)}")
    if config.num_generated < max(one.num_test, 100):
        raise ValueError(
            "num_generated must be at least num_test and 100, for noise of the generated showers "
            f"below that of the reference, got {config.num_generated} and {one.num_test}"
        )
    if one.num_test < 2 * max(config.num_regions, 2**config.levels):
        raise ValueError(
            f"{one.num_test} showers of the reference do not fill {config.num_regions} regions and "
            f"{2**config.levels} bins; use fewer, or a larger --calodream.num-test"
        )
    _trained_model(config, num_train=1)


def count_parameters(config: Config) -> dict[str, int]:
    """Trainable parameters of a member; a Bayesian network has twice as many."""
    return {"energy": num_parameters(study.make_energy_model(config.calodream).init)}


def check_spectrum(showers: Showers, energy_range: tuple[float, float], what: str) -> None:
    """Refuse showers whose incident energies are not log-uniform in the range.

    A generator that is asked for another spectrum would make another distribution of everything.

    Raises:
      ValueError: if energies lie outside, or their Kolmogorov-Smirnov p-value is below 1e-4.
    """
    low, high = energy_range
    energies = np.asarray(showers.energies, np.float64)
    # Energies are stored in single precision.
    outside = int(((energies < low * (1 - 1e-6)) | (energies > high * (1 + 1e-6))).sum())
    quantiles = np.log(energies / low) / np.log(high / low)
    p = stats.kstest(np.clip(quantiles, 0, 1), "uniform").pvalue
    if outside or p < _SMALLEST_P:
        raise ValueError(
            f"the incident energies of the {what} are not log-uniform between {low:g} and {high:g} "
            f"MeV: {outside} of {len(energies)} lie outside, and the p-value is {p:.1g}; they go "
            f"from {energies.min():g} to {energies.max():g} MeV: mend --calodream.energy-range, or "
            "choose showers of that spectrum"
        )


def layer_energies(showers: Showers, num_layers: int) -> Float[np.ndarray, "n layers"]:
    """Energies [MeV] of the layers."""
    return showers.voxels.reshape(len(showers.voxels), num_layers, -1).sum(axis=2)


def layer_observables(
    layers: Float[np.ndarray, "n layers"], incident: Float[np.ndarray, " n"]
) -> dict[str, Float[np.ndarray, " n"]]:
    """Observables of showers that follow from their layer energies, in float64.

    Args:
      layers: energies [MeV].
      incident: incident energies [MeV].

    Returns:
      `E_ratio` = E_tot / E_inc; `depth`, the energy-weighted mean number of the layer, counted from
      0, and `length`, its standard deviation; both are 0 for a shower without energy.
    """
    layers = np.asarray(layers, np.float64)
    total = layers.sum(axis=1)
    weights = layers / np.where(total > 0, total, 1)[:, None]
    number = np.arange(layers.shape[1])
    depth = weights @ number
    square = np.sum(weights * (number[None] - depth[:, None]) ** 2, axis=1)
    return {"E_ratio": total / incident, "depth": depth, "length": np.sqrt(square)}


def make_samples(config: Config, showers: Showers, folder: RunFolder) -> None:
    """Train the members and let each generate, or take up where that stopped."""
    one = config.calodream
    preprocessing = study.load_or_fit_preprocessing(one, showers, folder)
    batch, _ = training_data(showers, preprocessing)
    key = jax.random.key(one.seed)
    trained = _trained_model(config, len(batch.x))
    fitted = fit(
        trained,
        batch,
        stream(key, "energy"),
        _training(config),
        function=loss_values(trained) if config.members == "repulsive" else None,
        folder=folder.path / "training",
        name=f"{config.members} energy networks",
    ).params
    if jax.process_index() != 0:
        return
    model = study.make_energy_model(one)
    stacked = _members(config, fitted)
    for i in range(config.num_members):
        if not (path := sample_path(folder, i)).exists():
            found = _generate(config, model, preprocessing, member(stacked, i), i)
            with atomic_path(path) as partial:
                np.savez(partial, **found)


def sample_path(folder: RunFolder, index: int) -> Path:
    """Where the observables of one member's showers are kept."""
    return folder.path / "samples" / f"{index}.npz"


def load_samples(config: Config, folder: RunFolder) -> dict[str, Float[np.ndarray, "members n"]]:
    """Observables, and `incident` energies [MeV], of what the members generated.

    Raises:
      ValueError: if a member has not generated yet.
    """
    paths = [sample_path(folder, i) for i in range(config.num_members)]
    if missing := [str(path) for path in paths if not path.exists()]:
        raise ValueError(f"{missing} do not exist yet; run without --plot-only first")
    each = [dict(np.load(path)) for path in paths]
    return {name: np.stack([one[name] for one in each]) for name in each[0]}


def _training(config: Config) -> TrainConfig:
    if config.members == "bayesian":
        return dataclasses.replace(config.calodream.energy_training, ensemble=1, members="plain")
    return dataclasses.replace(
        config.calodream.energy_training, ensemble=config.num_members, members=config.members
    )


def _trained_model(config: Config, num_train: int) -> GenerativeModel:
    """The model as it is trained, Bayesian or not."""
    model = study.make_energy_model(config.calodream)
    if config.members != "bayesian":
        return model
    # Twice the KL divergence over the features: the unit of a mean of squares, as in
    # experiments.shower_uncertainty.
    features = get_geometry(config.calodream.geometry).num_layers
    return bayesian(
        model,
        num_train=num_train,
        prior_scale=config.prior_scale,
        initial_scale=config.initial_scale,
        temperature=config.temperature * 2 / features,
    )


def _members(config: Config, fitted: Params) -> Params:
    """Stacked parameters of all members, those trained or draws from the posterior."""
    if config.members != "bayesian":
        return fitted
    keys = member_keys(stream(jax.random.key(config.calodream.seed), "draws"), config.num_members)
    return jax.jit(jax.vmap(draw_weights, in_axes=(None, 0)))(member(fitted, 0), keys)


def _generate(
    config: Config,
    model: GenerativeModel,
    preprocessing: ShowerPreprocessing,
    params: Params,
    index: int,
) -> dict[str, np.ndarray]:
    """Observables of the showers of one member.

    Noise and incident energies are its own: then numbers of showers in a region are binomial, with
    the fluctuation of the spectrum inside, and independent of those of other members.
    """
    one, num = config.calodream, config.num_generated
    seed = int(np.random.SeedSequence([one.seed, index]).generate_state(1)[0])
    incident = incident_energies(num, *one.energy_range, jax.random.key(seed))
    u = draw(
        model,
        params,
        member_keys(stream(jax.random.key(one.seed), "sample"), 1, first=index)[0],
        num,
        preprocessing.condition(incident),
        batch_size=min(num, 500),
        progress=True,
    )
    layers = preprocessing.layer_energies(u.astype(np.float64), incident.astype(np.float64))
    return layer_observables(layers, incident) | {"incident": incident}

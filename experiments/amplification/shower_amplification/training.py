"""Members of CaloDREAM's energy network, and what they generate: config, training, observables."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import jax
import numpy as np
from scipy import stats

from experiments.showers import presets
from experiments.study import Run, at_least, known
from jgen import GenerativeModel, OptimizerConfig, TrainConfig, draw, member
from jgen.nets import SequenceConfig
from jgen.random import member_keys, stream
from jgen.showers import ShowerPreprocessing, Showers, calodream, get_geometry, layer_observables
from jgen.solvers import SolverConfig
from jgen.training import loss_values
from jgen.transforms import BayesianConfig, draw_weights
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
class Config(BayesianConfig):
    """One study of the amplification of showers."""

    calodream: presets.Config = dataclasses.replace(
        presets.DEFAULT,
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
    num_regions: int = 10
    """Regions of each observable, of equal probability in the reference."""
    levels: int = 7
    """Median splits over all observables, for 2^levels bins at most."""

    def check(self) -> None:
        """Refuse options that do not fit together."""
        one = self.calodream
        training_of(self).check()
        known(self, members=("bootstrap", "plain", "repulsive", "bayesian"))
        at_least(self, num_members=2, num_regions=2, levels=1)
        at_least(self, num_generated=max(one.num_test, 100))  # for noise below the reference's
        if one.num_validation:
            raise ValueError("this study validates nothing; leave --calodream.num-validation at 0")
        if one.energy_range is None or not 0 < one.energy_range[0] < one.energy_range[1]:
            raise ValueError(
                "generated showers need a spectrum: give the ends [MeV] of the data's log-uniform "
                f"incident energies as --calodream.energy-range, got {one.energy_range}"
            )
        if one.num_test < 2 * max(self.num_regions, 2**self.levels):
            raise ValueError(
                f"{one.num_test} showers of the reference do not fill {self.num_regions} regions "
                f"and {2**self.levels} bins; use fewer, or a larger --calodream.num-test"
            )


def energy_model(config: Config) -> GenerativeModel:
    """Model of the standardised layer energies."""
    return calodream.parts(config.calodream)["energy"].model


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


def samples(config: Config, showers: Showers, run: Run) -> dict[str, np.ndarray]:
    """Observables, and `incident` energies [MeV], of what the members generate [members, n]."""
    one = config.calodream
    preprocessing = calodream.fit_preprocessing(one, showers, run)
    batch = calodream.training_data(showers, preprocessing).energy
    trained = trained_model(config, len(batch.x))
    fitted = run.fit(
        "training",
        trained,
        batch,
        training_of(config),
        key=stream(jax.random.key(one.seed), "energy"),
        function=loss_values(trained) if config.members == "repulsive" else None,
    )
    model, stacked = energy_model(config), members_of(config, fitted.params)
    rows = []
    for i in range(config.num_members):
        make = lambda: _generate(config, model, preprocessing, member(stacked, i), i)  # noqa: B023
        rows.append(run.cached(f"samples/{i}", make))
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def training_of(config: Config) -> TrainConfig:
    """Training of all members, or of the Bayesian network."""
    if config.members == "bayesian":
        return dataclasses.replace(config.calodream.energy_training, ensemble=1, members="plain")
    return dataclasses.replace(
        config.calodream.energy_training, ensemble=config.num_members, members=config.members
    )


def trained_model(config: Config, num_train: int) -> GenerativeModel:
    """The model as it is trained, Bayesian or not."""
    model = energy_model(config)
    if config.members != "bayesian":
        return model
    features = get_geometry(config.calodream.geometry).num_layers
    return config.make(model, num_train, features=features)


def members_of(config: Config, fitted: Params) -> Params:
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
    incident = calodream.incident_energies(num, *one.energy_range, jax.random.key(seed))
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

"""Gaussian rings and the networks that learn them, for the ring studies (2509.08048, Secs. 2-4).

Networks are kept in the folder networks/ of a run, one folder a dimension, and may be used by
another run. Beside them stand generators of known amplification in the same form.
"""

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments.study import Run, at_least, known, variant
from jgen import (
    Batch,
    GenerativeModel,
    OptimizerConfig,
    TrainConfig,
    member,
    models,
    toys,
    transforms,
)
from jgen.bijectors import standardize
from jgen.checks import check_open_fraction
from jgen.nets.transformers.causal import CausalConfig, causal
from jgen.random import member_keys, stream
from jgen.training import RunFolder
from jgen.typing import Key, Params

REGIONS = 20
"""Radial regions, each with 5 % of the true events (Fig. 3)."""
COMBINATIONS = {"2": slice(1, 2), "2-19": slice(1, 19), "20": slice(19, 20)}
"""Regions of Figs. 4 and 5, counted from one as in the paper."""
CONTROLS = {"radial fit": toys.radial_fit, "memoriser": lambda dim: toys.memoriser()}
"""Generators of known amplification, (dim) -> Fit."""


@dataclass(frozen=True)
class Posterior(transforms.BayesianConfig):
    """The variational posterior of Bayesian networks."""

    initial_scale: float = 0.012
    layers: Literal["output", "all"] = "output"
    """Weights that have a distribution: those of the output layer, as in 2412.12074, or all."""


@dataclass(frozen=True)
class Rings:
    """Data sets, networks and their members."""

    dims: tuple[int, ...] = (2, 4)
    """Dimensions of the rings."""
    num_train: int = 1000
    """Events of a training set, those for validation included."""
    validation_fraction: float = 0.2
    """Part of them that is not trained on but decides which step is kept."""
    data_sets: int = 10
    """Independent training sets; their networks train in one program."""
    members: Literal["bayesian", "bootstrap", "plain", "repulsive"] = "bayesian"
    """What the members of a training set are: draws of one Bayesian network's weights, or networks
    of an ensemble, see `TrainConfig.members`."""
    num_members: int = 25
    """Members of each training set; all but draws have to be trained."""
    network: CausalConfig = CausalConfig(width=32, heads=4, blocks=2)
    """Sizes of the transformer."""
    num_gauss: int = 20
    """Gaussians of the mixture that is the density of one component."""
    posterior: Posterior = Posterior()
    """Of Bayesian members."""
    training: TrainConfig = TrainConfig(
        steps=1000,
        batch_size=128,
        keep="best",
        validate_every=100,
        optimizer=OptimizerConfig(learning_rate=1e-3),
    )
    """Training; the numbers of members and data sets are those above."""
    seed: int = 0
    """Seed of everything random."""

    @property
    def num_validation(self) -> int:
        """Events of a training set for validation."""
        return round(self.validation_fraction * self.num_train)

    def check(self) -> None:
        """Refuse options that do not fit together."""
        if not self.dims or min(self.dims) < 2 or len(set(self.dims)) != len(self.dims):
            raise ValueError(f"dims must be different numbers of at least 2, got {self.dims}")
        check_open_fraction(validation_fraction=self.validation_fraction)
        at_least(self, num_members=2, data_sets=2)  # for spreads over both
        known(self, members=("bayesian", "bootstrap", "plain", "repulsive"))
        if not 0 < self.num_validation < self.num_train:
            raise ValueError(
                f"validation_fraction must leave events of {self.num_train} for validation and for "
                f"training, got {self.validation_fraction}"
            )
        for config in trainings(self).values():
            config.check()


SMALL = variant(
    Rings(),
    dims=(2,),
    data_sets=2,
    num_members=10,
    network={"width": 16, "heads": 2, "blocks": 1, "feed_forward": 16},
    num_gauss=8,
    training={
        "steps": 300,
        "batch_size": 64,
        "validate_every": 50,
        "optimizer": {"learning_rate": 5e-3},
    },
)
"""Of the smoke presets."""


@dataclass(frozen=True)
class RingStudy:
    """What the ring studies have in common."""

    rings: Rings = Rings()
    """Data, networks and members."""
    model: Path | None = None
    """Run folder whose networks are used; they must have the same --rings options."""
    max_gen: int = 100_000
    """Most events that a member generates."""
    sizes_per_decade: int = 5
    """Points of the scan over n_gen, from 100 events on."""
    batch_size: int = 1000
    """Events generated at once."""

    def check(self) -> None:
        """Refuse bad options, and a folder without networks or with those of other options."""
        at_least(self, max_gen=1000, sizes_per_decade=1, batch_size=1)
        if self.model is not None and not (self.model / "networks").exists():
            raise ValueError(f"{self.model} holds no networks; give the folder of a ring study")
        if self.model is not None:
            RunFolder(self.model / "networks", self.rings, read_only=True).close()


class Generators(NamedTuple):
    """Members of a kind for each training set.

    Attributes:
      dim: of the ring.
      model: what they have in common, in Cartesian coordinates.
      params: [data_sets][members].
      key: of their events.
    """

    dim: int
    model: GenerativeModel | toys.Fit
    params: list[list[Params]]
    key: Key

    def key_of(self, data_set: int, index: int) -> Key:
        """Key of one member's events."""
        return jax.random.fold_in(jax.random.fold_in(self.key, data_set), index)


@functools.cache
def the_ring(dim: int) -> toys.Toy:
    """The truth, made once a dimension so that all its events come from one program."""
    return toys.ring(dim)


def training_sets(rings: Rings, dim: int) -> Float[np.ndarray, "data_sets num_train dim"]:
    """True events to train on."""
    key = stream(jax.random.key(rings.seed), f"data {dim}")
    events = toys.true_events(the_ring(dim), key, rings.data_sets * rings.num_train)
    return events.reshape(rings.data_sets, rings.num_train, dim)


def region_edges(dim: int) -> Float[np.ndarray, " edges"]:
    """Edges in R of regions with the same true probability."""
    return toys.quantile_edges(the_ring(dim).marginals[0], REGIONS)


def radius(events: Float[np.ndarray, "num dim"]) -> Float[np.ndarray, " num"]:
    """R of events in Cartesian coordinates."""
    return np.linalg.norm(events, axis=-1)


def make_model(rings: Rings, dim: int) -> GenerativeModel:
    """The autoregressive transformer with Gaussian mixtures (Eqs. 6-8), in Cartesian coordinates.

    It learns coordinates times sqrt(dim), whose mean square is one but for the ring's width. A
    number known beforehand, not a fit's, lets one model serve all training sets.
    """
    head = models.gaussian_mixture(rings.num_gauss)
    network = causal(dim, head.num_outputs, config=rings.network)
    scale = standardize(jnp.zeros(()), jnp.asarray(dim**-0.5))
    return transforms.preprocessed(models.autoregressive(network, head, dim), scale)


def trained_model(rings: Rings, dim: int) -> GenerativeModel:
    """The model as it is trained, Bayesian or not."""
    model, posterior = make_model(rings, dim), rings.posterior
    if rings.members != "bayesian":
        return model
    which = lambda path, leaf: posterior.layers == "all" or path.startswith("out/")
    return posterior.make(model, rings.num_train - rings.num_validation, which=which)


def trainings(rings: Rings) -> dict[str, TrainConfig]:
    """Trainings by name: one of all sets, or one a set where members feel each other."""
    one = {"ensemble": rings.data_sets, "data_sets": rings.data_sets, "members": "plain"}
    if rings.members == "repulsive":
        one = {"ensemble": rings.num_members, "data_sets": 1, "members": "repulsive"}
        names = [f"set-{i}" for i in range(rings.data_sets)]
    else:
        names = ["all"]
        if rings.members != "bayesian":
            one |= {"ensemble": rings.data_sets * rings.num_members, "members": rings.members}
    return {name: dataclasses.replace(rings.training, **one) for name in names}


def networks(rings: Rings, dim: int, run: Run, model: Path | None) -> Generators:
    """Members of trained networks, from the folder networks/ of a run or trained now.

    Args:
      rings: data, networks and members.
      dim: of the ring.
      run: of the study.
      model: another run folder whose networks are used.

    Raises:
      ValueError: if the folder holds networks with other options; names them.
    """
    data, cut = training_sets(rings, dim), rings.num_validation
    trained, key = trained_model(rings, dim), jax.random.key(rings.seed)
    configs = trainings(rings)
    parts = np.split(data, len(configs))
    params = []
    with run.part((model or run.path).resolve() / "networks", rings) as folder:
        for i, ((name, config), part) in enumerate(zip(configs.items(), parts, strict=True)):
            fitted = folder.fit(
                f"{dim}d/{name}",
                trained,
                Batch(part[:, cut:].reshape(-1, dim)),
                config,
                key=jax.random.fold_in(stream(key, f"train {dim}"), i),
                validation=Batch(part[:, :cut].reshape(-1, dim)),
            )
            params += [member(fitted.params, j) for j in range(config.ensemble)]
    if rings.members == "bayesian":
        keys = member_keys(stream(key, f"weights {dim}"), rings.data_sets)
        many = jax.jit(jax.vmap(transforms.draw_weights, in_axes=(None, 0)))
        drawn = [
            many(one, member_keys(k, rings.num_members))
            for one, k in zip(params, keys, strict=True)
        ]
        params = [member(one, j) for one in drawn for j in range(rings.num_members)]
    rows = range(0, len(params), rings.num_members)
    grouped = [params[i : i + rings.num_members] for i in rows]
    key = stream(jax.random.key(rings.seed), f"network events {dim}")
    return Generators(dim, make_model(rings, dim), grouped, key)


def training_log(rings: Rings, dim: int, run: Run, model: Path | None) -> list[dict]:
    """Log of a training, of the first set where each has its own."""
    name = sorted(trainings(rings))[0]
    with RunFolder((model or run.path) / "networks", rings, read_only=True) as folder:
        return folder.history(f"{dim}d/{name}")


def control(rings: Rings, dim: int, name: str) -> Generators:
    """Bootstrap members of a generator of known amplification, fitted to the same training sets."""
    made: toys.Fit = CONTROLS[name](dim)
    key = jax.random.key(rings.seed)
    keys = member_keys(stream(key, f"bootstrap {dim}"), rings.data_sets)

    @jax.jit
    def fits(data, key):
        one = lambda k: made.fit(data, toys.bootstrap_weights(k, rings.num_train))
        return jax.vmap(one)(member_keys(key, rings.num_members))

    params = []
    for data, k in zip(training_sets(rings, dim), keys, strict=True):
        stacked = fits(data, k)
        params.append([member(stacked, j) for j in range(rings.num_members)])
    return Generators(dim, made, params, stream(key, f"{name} events {dim}"))


def build(config: RingStudy) -> dict[str, GenerativeModel]:
    """A network a dimension; Bayesian ones have scales on top."""
    for dim in config.rings.dims:
        trained_model(config.rings, dim)
    return {f"{dim}d": make_model(config.rings, dim) for dim in config.rings.dims}

"""Generators of events and what they make: shared by the studies of this topic."""

import functools
from dataclasses import dataclass

import numpy as np

from experiments.study import Run, at_least, known
from jgen import Batch, GenerativeModel, OptimizerConfig, TrainConfig
from jgen import events as event_tools
from jgen.events import Coordinates
from jgen.nets import LGATrConfig, LLoCaConfig
from jgen.solvers import SolverConfig
from jgen.training import member, timed_draw
from jgen.typing import Params

NETWORKS = {"transformer": "Transformer", "lloca": "LLoCa", "lgatr": "L-GATr"}


@dataclass(frozen=True)
class Generators:
    """Data, networks and training of generators of events."""

    data: str = ""
    """HDF5 or .npy, see `jgen.events.read_events`; the bundled Pythia events unless given."""
    num_jets: int = 0
    """Jets beside the top pair."""
    num_train: int = 30_000
    """Events to train on, the first ones; all others but those to validate on are the truth."""
    num_validation: int = 2000
    """Events that choose the best parameters of a training."""
    networks: tuple[str, ...] = tuple(NETWORKS)
    """What is trained and compared."""
    transformer: LLoCaConfig = LLoCaConfig(4, 4, 2, 3, 2, "identity")
    """The plain transformer."""
    lloca: LLoCaConfig = LLoCaConfig(4, 4, 2, 3, 2, "so13", (32, 32))
    """The transformer with local frames."""
    lgatr: LGATrConfig = LGATrConfig(2, 32, 2, 2)
    """The transformer of multivectors."""
    time_width: float = 0.3
    """Standard deviation of the frequencies of time; 30 as published wants long trainings."""
    informed: bool = True
    """Whether networks know of balance, masses and distances, see `jgen.events.event_model`; not in
    the papers."""
    training: TrainConfig = TrainConfig(
        4000, 128, ensemble=3, keep="best", ema_decay=0.999,
        optimizer=OptimizerConfig(5e-3, warmup=0.02, clip_norm=5.0, method="muon"),
    )  # fmt: skip
    """Training of each network; its members are the seeds."""
    solver: SolverConfig = SolverConfig("kutta38", 20)
    """Of sampling; published are 50 steps."""
    num_generated: int = 4000
    """Events of each member."""
    seed: int = 0
    """Seed of everything random."""

    def check(self) -> None:
        """Refuse options that do not fit together."""
        known(self, networks=tuple(NETWORKS))
        at_least(self, num_jets=0, num_train=50, num_validation=10, num_generated=100)
        if len(set(self.networks)) < len(self.networks):
            raise ValueError(f"networks must be different ones, got {self.networks}")
        if self.transformer.symmetry != "identity" or self.lloca.symmetry == "identity":
            raise ValueError("the transformer's symmetry is identity, that of lloca is another")


SMALL = {
    "num_validation": 50,
    "transformer": LLoCaConfig(2, 2, 1, 1, 2, "identity"),
    "lloca": LLoCaConfig(2, 2, 1, 1, 2, "so13", (8,)),
    "lgatr": LGATrConfig(2, 4, 2, 1),
    "solver": {"steps": 2},
}
"""Of presets smoke."""


@functools.lru_cache(maxsize=2)
def load(data: str, num_jets: int, num_train: int, num_validation: int) -> tuple[np.ndarray, ...]:
    """Training, validation and two halves of true events [num, n, 4] in GeV."""
    events = event_tools.read_events(data or None, num_jets).astype(np.float64)
    parts = np.split(events, np.cumsum([num_train, num_validation]))
    if len(parts[-1]) < 200:
        raise ValueError(
            f"of {len(events)} events {len(parts[-1])} are left for the truth; give a larger "
            "--data, or choose a smaller num_train or num_validation"
        )
    return *parts[:2], *np.array_split(parts[-1], 2)


def inputs(config: Generators) -> tuple[np.ndarray, ...]:
    """Events as `load` gives them."""
    return load(config.data, config.num_jets, config.num_train, config.num_validation)


def coordinates_of(config: Generators) -> Coordinates:
    """Scaled by the training events."""
    return _coordinates(config.data, config.num_jets, config.num_train, config.num_validation)


@functools.lru_cache(maxsize=2)
def _coordinates(*args) -> Coordinates:
    return event_tools.fit_coordinates(load(*args)[0])


def model_of(config: Generators, name: str, **options) -> GenerativeModel:
    """The generator with a network, in coordinates."""
    own = {"solver": config.solver.make(), "time_width": config.time_width}
    options = own | {"informed": config.informed} | options
    return event_tools.event_model(getattr(config, name), coordinates_of(config), **options)


def build(config: Generators) -> dict[str, GenerativeModel]:
    """The generators by name."""
    return {name: model_of(config, name) for name in config.networks}


def trained(
    config: Generators, run: Run, name: str, label: str = "", size: int | None = None
) -> Params:
    """Stacked parameters of all members of a network, trained on the first `size` events."""
    train, validation, *_ = inputs(config)
    to = lambda events: Batch(event_tools.to_coordinates(coordinates_of(config), events))
    model, options = model_of(config, name), {"validation": to(validation)}
    return run.fit(label or name, model, to(train[:size]), config.training, **options).params


def sample(config: Generators, run: Run, name: str, label: str = "") -> dict:
    """Events of all members [members, num, n, 4] in GeV, and milliseconds an event.

    Events that went to infinity are left out, their share is `lost`; then all members have as many
    as the one with the fewest.
    """
    params, coordinates = trained(config, run, name, label), coordinates_of(config)
    model, made = model_of(config, name), []
    for i in range(config.training.ensemble):
        z, time = timed_draw(
            model, member(params, i), run.key(f"events {label or name} {i}"), config.num_generated,
            batch_size=min(config.num_generated, 500),
        )  # fmt: skip
        made.append(event_tools.finite_events(coordinates, z)[0].astype(np.float32))
    sizes = [len(events) for events in made]
    if min(sizes) < config.num_generated / 2:
        raise FloatingPointError(
            f"{name}: of {config.num_generated} events of a member {min(sizes)} are finite; train "
            "for longer, or with a smaller learning rate"
        )
    lost = 1 - sum(sizes) / (len(sizes) * config.num_generated)
    return {"events": np.stack([e[: min(sizes)] for e in made]), "ms_per_event": time, "lost": lost}

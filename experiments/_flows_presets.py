"""Presets of the flow study."""

import dataclasses

from experiments._flows import Config, Trainings
from experiments._flows_families import Sizes
from jgen.training import TrainConfig

DEFAULT = Config()


def _short(training: TrainConfig, steps: int) -> TrainConfig:
    return dataclasses.replace(
        training, steps=steps, batch_size=64, ema_decay=0.9, validate_every=steps
    )


_TRAININGS = Trainings(
    usual=_short(DEFAULT.toys.usual, 150),
    continuous=_short(DEFAULT.toys.continuous, 60),
    matching=_short(DEFAULT.toys.matching, 300),
)
# Families that compile fast, on a data set of every kind.
SMOKE = Config(
    data=("moons", "jets", "digits"),
    families=("linear", "flow-matching"),
    num_train=5000,
    num_test=1000,
    num_draw=1000,
    grid=30,
    sizes=Sizes(
        hidden=(16,), depth=2, simple_depth=4, velocity_hidden=(16,), solver_steps=4, fine_steps=4
    ),
    toys=_TRAININGS,
    jets=_TRAININGS,
    digits=_TRAININGS,
    regularisations=(1e-2,),
)

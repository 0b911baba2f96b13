"""Presets of the study of families."""

import dataclasses

from experiments._families import Config, Kind
from experiments._families_models import Sizes
from jgen.metrics import ClassifierConfig
from jgen.training import TrainConfig

DEFAULT = Config()


def _short(training: TrainConfig, steps: int) -> TrainConfig:
    return dataclasses.replace(training, steps=steps, batch_size=64, ema_decay=0.9)


_KIND = Kind(
    sizes=Sizes(
        hidden=(16,),
        causal_hidden=(16,),
        num_importance=4,
        flow_hidden=(16,),
        flow_depth=2,
        num_bins=16,
        critic_steps=2,
        intervals=4,
        solver_steps=4,
        likelihood_steps=4,
    ),
    adversarial=_short(DEFAULT.toys.adversarial, 200),
    flow=_short(DEFAULT.toys.flow, 200),
    vae=_short(DEFAULT.toys.vae, 200),
    autoregressive=_short(DEFAULT.toys.autoregressive, 200),
    paths=_short(DEFAULT.toys.paths, 200),
    distillation=_short(DEFAULT.toys.distillation, 100),
)
# All families on the toy that has a metric of its own.
SMOKE = Config(
    data=("eight-gaussians",),
    num_train=5000,
    num_test=1000,
    num_draw=1000,
    toys=_KIND,
    jets=_KIND,
    digits=_KIND,
    num_directions=8,
    bootstrap=5,
    classifier=ClassifierConfig(
        hidden=(16,), learning_rate=1e-2, batch_size=100, epochs=3, num_seeds=2
    ),
)

"""Optimisers from a configuration; all of it optax."""

from dataclasses import dataclass
from typing import Literal

import optax


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with a schedule and clipping."""

    learning_rate: float = 1e-3
    """Peak learning rate."""
    schedule: Literal["constant", "cosine", "onecycle"] = "cosine"
    """cosine: to zero after a linear warm-up. onecycle: cosine up from a 25th of the peak and down
    to 4e-6 of it, while Adam's first decay rate goes 0.95, 0.85, 0.95 (1708.07120, as PyTorch)."""
    warmup: float = 0.0
    """Fraction of the steps spent going up (the published onecycle has 0.3)."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    epsilon: float = 1e-8
    """Adam's epsilon."""
    clip_norm: float = 0.0
    """Largest global gradient norm; 0 does not clip."""


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Gradient transformation for a training of `steps` steps.

    Raises:
      ValueError: for an unknown schedule or a warm-up outside [0, 1).
    """
    peak, warmup = config.learning_rate, round(config.warmup * steps)
    if not 0 <= config.warmup < 1:
        raise ValueError(f"warmup is a fraction of the steps in [0, 1), got {config.warmup}")
    b1 = 0.9
    if config.schedule == "constant":
        rate = optax.linear_schedule(0.0, peak, warmup) if warmup else peak
    elif config.schedule == "cosine":
        rate = optax.warmup_cosine_decay_schedule(0.0 if warmup else peak, peak, warmup, steps)
    elif config.schedule == "onecycle":
        # PyTorch counts both turning points from zero.
        up, last = max(warmup - 1, 1), max(steps - 1, 2)
        rate = _there_and_back(peak / 25, peak, peak / 25e4, up, last)
        b1 = _there_and_back(0.95, 0.85, 0.95, up, last)
    else:
        raise ValueError(f"unknown schedule {config.schedule!r}; one of constant, cosine, onecycle")
    adam = optax.inject_hyperparams(optax.adamw)(
        learning_rate=rate, b1=b1, eps=config.epsilon, weight_decay=config.weight_decay
    )
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    return optax.chain(clip, adam)


def _there_and_back(start, middle, end, up: int, steps: int) -> optax.Schedule:
    """Half a cosine from `start` to `middle` in `up` steps, another to `end` at `steps`."""
    first = optax.cosine_decay_schedule(1.0, up)
    second = optax.cosine_decay_schedule(1.0, max(steps - up, 1))
    return optax.join_schedules(
        [
            lambda n: middle + (start - middle) * first(n),
            lambda n: end + (middle - end) * second(n),
        ],
        [up],
    )

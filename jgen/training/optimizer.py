"""Optimisers from a configuration; all of it optax."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import jax
import optax
import optax.contrib

from jgen.checks import (
    check_fraction,
    check_literals,
    check_not_negative,
    check_open_fraction,
    check_positive,
    check_whole,
)

_MATRICES = ("kernel", "weight", "direction")
"""Names of weights, [..., inputs, outputs]; leading axes are of layers, slots or positions."""


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW or Muon with a schedule and clipping."""

    learning_rate: float = 1e-3
    """Peak learning rate."""
    schedule: Literal["constant", "cosine", "onecycle", "plateau"] = "cosine"
    """cosine: to zero after a linear warm-up. onecycle: cosine up from a 25th of the peak and down
    to 4e-6 of it, while Adam's first decay rate goes 0.95, 0.85, 0.95 (1708.07120, as PyTorch).
    plateau: constant, and less by `plateau_factor` whenever the training loss, averaged over
    `plateau_window` steps, has had no new minimum in `plateau_patience` windows."""
    plateau_factor: float = 0.5
    """Of the plateau schedule: what the rate is multiplied by."""
    plateau_patience: int = 5
    """Of the plateau schedule: windows without a new minimum."""
    plateau_window: int = 100
    """Of the plateau schedule: steps that the loss is averaged over."""
    warmup: float = 0.0
    """Fraction of the steps spent going up (the published onecycle has 0.3)."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    beta1: float = 0.9
    """Adam's decay rate of the mean gradient; onecycle has its own, and Muon's momentum is 0.95.
    Games like less: 0 or 0.5."""
    beta2: float = 0.999
    """Adam's decay rate of the squared gradient."""
    epsilon: float = 1e-8
    """Adam's epsilon, and what Muon adds to the norm of a momentum."""
    clip_norm: float = 0.0
    """Largest global gradient norm; 0 does not clip."""
    method: Literal["adamw", "muon"] = "adamw"
    """muon: weights move along their orthogonalised momentum (K. Jordan 2024, 2502.16982), by 0.2
    times the rate in root mean square, less than early moves of Adam: begin with one to four times
    its rate, four in short trainings. Biases and the like keep AdamW, with Nesterov's momentum.
    Weights are arrays [..., inputs, outputs] named kernel, weight or direction; those of a
    convolution move place by place. The transformer of `experiments ttbar` then needs half the
    steps, small MLPs as many as before."""

    def check(self) -> None:
        """Raise a ValueError for an unknown schedule or method, or numbers out of range."""
        check_literals(self)
        check_positive(learning_rate=self.learning_rate, epsilon=self.epsilon)
        check_not_negative(weight_decay=self.weight_decay, clip_norm=self.clip_norm)
        check_open_fraction(plateau_factor=self.plateau_factor)
        check_whole(plateau_patience=self.plateau_patience, plateau_window=self.plateau_window)
        check_fraction(warmup=self.warmup, beta1=self.beta1, beta2=self.beta2)
        if self.method == "muon" and self.schedule == "onecycle":
            raise ValueError(
                "onecycle moves Adam's first decay rate, which the weights do not have with muon; "
                "choose the schedule cosine"
            )


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Gradient transformation for a training of `steps` steps.

    Raises:
      ValueError: for options out of range; on `init` with muon, if no parameter is a weight.
    """
    config.check()
    check_whole(steps=steps)
    peak, warmup = config.learning_rate, round(config.warmup * steps)
    b1 = config.beta1
    if config.schedule in ("constant", "plateau"):
        rate = optax.linear_schedule(0.0, peak, warmup) if warmup else peak
    elif config.schedule == "cosine":
        rate = optax.warmup_cosine_decay_schedule(0.0 if warmup else peak, peak, warmup, steps)
    else:
        # PyTorch counts both turning points from zero.
        up, last = max(warmup - 1, 1), max(steps - 1, 2)
        rate = _there_and_back(peak / 25, peak, peak / 25e4, up, last)
        b1 = _there_and_back(0.95, 0.85, 0.95, up, last)
    if config.method == "muon":
        moved = _muon(config, rate)
    else:
        moved = optax.inject_hyperparams(optax.adamw)(
            learning_rate=rate,
            b1=b1,
            b2=config.beta2,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
        )
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    if config.schedule != "plateau":
        return optax.chain(clip, moved)
    plateau = optax.contrib.reduce_on_plateau(
        config.plateau_factor,
        config.plateau_patience,
        # A relative tolerance would take a worse loss for a better one where losses are negative.
        rtol=0.0,
        atol=1e-12,
        accumulation_size=config.plateau_window,
    )
    return optax.chain(clip, moved, plateau)


def _muon(config: OptimizerConfig, rate: float | optax.Schedule) -> optax.GradientTransformation:
    """Muon for weights, AdamW for all else."""
    return optax.contrib.muon(
        rate,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        adam_b1=config.beta1,
        adam_b2=config.beta2,
        adam_weight_decay=config.weight_decay,
        muon_weight_dimension_numbers=_weights,
        consistent_rms=0.2,
    )


def _weights(params):
    """The axes of inputs and outputs of every weight, None for what is none."""

    def axes(path, leaf):
        *above, name = (jax.tree_util.keystr((key,), simple=True) for key in path or ("",))
        # Scales of Bayesian weights may have the same names, but multiply nothing.
        if name not in _MATRICES or "log_scale" in above or leaf.ndim < 2:
            return None
        return optax.contrib.MuonDimensionNumbers(leaf.ndim - 2, leaf.ndim - 1)

    found = jax.tree_util.tree_map_with_path(axes, params)
    if not jax.tree.leaves(found):
        raise ValueError(
            f"muon moves weights, arrays named {', '.join(_MATRICES)} of two axes or more, but the "
            "parameters have none; name them so, or use the method adamw"
        )
    return found


def per_player(
    transformations: Mapping[str, optax.GradientTransformation],
    every: Mapping[str, int] | None = None,
) -> optax.GradientTransformation:
    """One transformation for each top-level key of the parameters, such as the players of a GAN.

        players = per_player(
            {"generator": make_optimizer(slow, steps // 5), "critic": make_optimizer(fast, steps)},
            every={"generator": 5},
        )
        fit(gan(generator, critic), data, key, config, optimizer=players)

    Clipping in a transformation sees the gradients of its own player only.

    Args:
      transformations: player -> transformation.
      every: player -> k, to move at steps k, 2 k, ... only: between them its parameters and the
        state of its transformation stay, and gradients are forgotten, not summed. Schedules count
        its own moves. That is the critic's head start of 1704.00028 (Algorithm 1, k = 5) in one
        compiled step, which computes gradients it does not use. Players left out move always.

    Raises:
      ValueError: if `every` names another player or is not positive; on `init`, if the players are
        not the top-level keys of the parameters.
    """
    every = dict(every or {})
    if unknown := sorted(set(every) - set(transformations)):
        raise ValueError(
            f"every is for {', '.join(unknown)}, which is none of the players "
            f"{', '.join(sorted(transformations))}"
        )
    check_whole(**{f"every[{name!r}]": k for name, k in every.items()})

    def labels(params):
        keys = sorted(params) if isinstance(params, Mapping) else None
        if keys != sorted(transformations):
            raise ValueError(
                f"the players are {', '.join(sorted(transformations))}, but the parameters "
                + (f"have the keys {', '.join(keys)}" if keys else "are no dictionary")
                + "; give a transformation for every top-level key and for no other"
            )
        return {name: name for name in params}

    return optax.partition(
        {name: _moving(one, every.get(name, 1)) for name, one in transformations.items()}, labels
    )


def game_optimizer(
    players: Mapping[str, OptimizerConfig], steps: int, every: Mapping[str, int] | None = None
) -> optax.GradientTransformation:
    """`per_player` from configurations, with schedules that end at each player's last move.

    Args:
      players: player -> its optimiser.
      steps: of the training.
      every: as `per_player` takes it.

    Raises:
      ValueError: as `per_player` and `make_optimizer` do.
    """
    for name, one in players.items():
        if one.schedule == "plateau":
            raise ValueError(
                f"the losses of a game do not say how good {name} is; use another schedule"
            )
    moves = {name: max(steps // max((every or {}).get(name, 1), 1), 1) for name in players}
    return per_player({n: make_optimizer(one, moves[n]) for n, one in players.items()}, every)


def _moving(transformation: optax.GradientTransformation, every: int):
    """A transformation that acts at every so many calls."""
    if every == 1:
        return transformation
    return optax.conditionally_mask(transformation, lambda calls: (calls + 1) % every == 0)


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

"""Can a network on sets tell generated events from true ones?"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jgen.checks import check_open_fraction
from jgen.estimate import Estimate
from jgen.generative_model import Batch, GenerativeModel, draw, mean_loss
from jgen.metrics.classifier import area_under_curve, auc_error
from jgen.nets import EpicConfig, epic_critic
from jgen.nets.sets import check_epic
from jgen.random import numpy_generator, stream
from jgen.sets import SetCondition, check_counts
from jgen.training import OptimizerConfig, TrainConfig, fit
from jgen.typing import Key

Sets = tuple[Float[np.ndarray, "_ rows d"], SetCondition]
"""Padded points and their conditions."""


@dataclass(frozen=True)
class SetClassifierConfig:
    """An EPiC network and its training."""

    epic: EpicConfig = EpicConfig(64, 10, 3)
    """Network."""
    training: TrainConfig = TrainConfig(
        800, 128, keep="best", validate_every=100, optimizer=OptimizerConfig(2e-3, warmup=0.05)
    )
    """Training; the step that is best on the validation split is kept."""
    train_fraction: float = 0.5
    """Of each sample."""
    validation_fraction: float = 0.1
    """Of each sample; it is tested on what remains."""

    def check(self) -> None:
        """Raise a ValueError for options that cannot be."""
        check_epic(self.epic)
        fractions = {"validation_fraction": self.validation_fraction}
        check_open_fraction(train_fraction=self.train_fraction, **fractions)
        if self.train_fraction + self.validation_fraction > 1 - 1e-9:
            raise ValueError(
                "train_fraction and validation_fraction must leave events to test on, got "
                f"{self.train_fraction} and {self.validation_fraction}"
            )


def set_classifier_auc(
    reference: Sets,
    generated: Sets,
    key: Key,
    config: SetClassifierConfig | None = None,
    *,
    progress: bool = False,
) -> Estimate:
    """Area under the curve of a network that sees points, their number and their condition.

    It is 0.5 where the samples cannot be told apart; put that of two true samples of the same size
    beside it. Points should have a width of about one.

    Args:
      reference: true events.
      generated: others, with conditions of the same kind.
      key: of the splits and the training.
      config: network, training and splits.
      progress: show a bar.

    Returns:
      The AUC of one training, with the error of the finite test split alone.

    Raises:
      ValueError: for events that are no sets, or samples too small for the splits.
    """
    config = SetClassifierConfig() if config is None else config
    config.check()
    parts = [], [], []
    rng = numpy_generator(stream(key, "split"))
    for points, cond in (reference, generated):
        if not isinstance(cond, SetCondition):
            raise ValueError(
                "a set needs its number of points: give (points, SetCondition(n, cond))"
            )
        check_counts(cond, points)
        num = len(points)
        first = round(config.train_fraction * num)
        second = first + round(config.validation_fraction * num)
        if not 0 < first < second < num:
            raise ValueError(f"{num} events are too few for a training, validation and test split")
        for part, rows in zip(parts, np.split(rng.permutation(num), [first, second]), strict=True):
            part.append(jax.tree.map(lambda a: np.asarray(a)[rows], (points, cond)))  # noqa: B023
    size = 0 if reference[1].cond is None else reference[1].cond.shape[1]
    network = epic_critic(reference[0].shape[2], size, config.epic)

    def loss(params, key, batch):
        def single(key, x, cond):
            is_true, cond = cond
            return jax.nn.softplus(jnp.where(is_true, -1, 1) * network.apply(params, x, cond))

        return mean_loss(single, key, batch)

    data, validation = (_labelled(part) for part in parts[:2])
    model = GenerativeModel(network.init, loss, sample=None)
    fitted = fit(
        model, data, stream(key, "training"), config.training, validation=validation,
        devices=jax.devices()[:1], name="classifier", progress=progress,
    )  # fmt: skip
    logit = lambda params, key, inputs: network.apply(params, *inputs)
    scores = [draw(logit, fitted.one, key, len(test[0]), test) for test in parts[2]]
    auc = area_under_curve(*scores)
    return Estimate(auc, auc_error(auc, *map(len, scores)))


def _labelled(part: list) -> Batch:
    """True events and others, with weights that make both count the same."""
    points, cond = jax.tree.map(lambda *both: np.concatenate(both), *part)
    sizes = [len(one) for one, _ in part]
    weight = np.repeat([0.5 * sum(sizes) / size for size in sizes], sizes).astype(np.float32)
    return Batch(points, (np.repeat([1, 0], sizes), cond), weight)

"""Options of a training."""

from dataclasses import dataclass
from typing import Literal

from jgen.checks import check_fraction, check_literals, check_whole
from jgen.training.optimizer import OptimizerConfig
from jgen.training.repulsion import RepulsionConfig

Members = Literal["plain", "bootstrap", "repulsive"]


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained."""

    steps: int = 2000
    """Optimiser steps."""
    batch_size: int = 64
    """Events in a minibatch of one member."""
    accumulate: int = 1
    """Equal parts of a minibatch that its gradient is summed over, one after another: the same
    step in less memory, and on a CPU often faster. For losses that are a mean over events."""
    buckets: int = 1
    """Groups of like length that a minibatch of sets of points is sorted into, each padded no
    further than it needs: the same loss, faster where lengths differ much."""
    ensemble: int = 1
    """Members trained at once, each with its own start, minibatches and optimiser. More members
    leave the first as they were, unless they repel each other or have several data sets."""
    members: Members = "plain"
    """plain: all members see the same data, their spread is that of the optimisation only.
    bootstrap: each has its own resampled data of the same size. repulsive: the same data, and
    members push each other's functions apart (2106.11642)."""
    repulsion: RepulsionConfig = RepulsionConfig()
    """Forces between the members of a repulsive ensemble."""
    data_sets: int = 1
    """The data are so many sets of equal size, one after another; members are dealt out to them
    in blocks of ensemble / data_sets. For pseudo-experiments that train at once."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Optimiser and schedule."""
    ema_decay: float = 0.0
    """Decay a step of the averaged parameters, which are then the result; 0 keeps none. After t
    steps it is (1 + t) / (10 + t) where that is less, so that the average forgets its start."""
    keep: Literal["last", "best"] = "last"
    """Return the last parameters or those with the smallest validation loss."""
    validate_every: int = 200
    """Steps between validations, where there are validation data."""
    patience: int = 0
    """Validations without a smaller loss after which the training ends early; an ensemble ends
    when all of its members have been without for so long. 0 trains all steps. Schedules are those
    of all steps, so constant and plateau go with it best."""
    log_every: int = 10
    """Steps between lines of the metrics file."""
    save_every: int = 500
    """Steps between checkpoints."""
    axis: Literal["auto", "vmap", "scan"] = "auto"
    """vmap members or scan over them; auto scans on a single CPU device, where vmap gains nothing,
    and else vmaps, spreading members over the devices."""

    def check(self) -> None:
        """Raise a ValueError for values out of range or that do not fit together."""
        check_whole(steps=self.steps, batch_size=self.batch_size, ensemble=self.ensemble)
        check_whole(buckets=self.buckets, accumulate=self.accumulate)
        for groups, what in (
            (self.buckets, "buckets"),
            (self.accumulate, "parts"),
            (self.accumulate * self.buckets, "buckets in all parts"),
        ):
            if self.batch_size % groups:
                raise ValueError(
                    f"{self.batch_size} events of a minibatch cannot be dealt out evenly to "
                    f"{groups} {what}; choose a batch_size that is a multiple of {groups}"
                )
        check_whole(data_sets=self.data_sets, validate_every=self.validate_every)
        check_whole(log_every=self.log_every, save_every=self.save_every)
        check_whole(0, patience=self.patience)
        check_literals(self)
        self.optimizer.check()
        check_fraction(ema_decay=self.ema_decay)
        if self.ensemble % self.data_sets:
            raise ValueError(
                f"{self.ensemble} members cannot be dealt out evenly to {self.data_sets} data "
                f"sets; choose an ensemble that is a multiple of {self.data_sets}"
            )
        self.repulsion.check()
        if self.members == "repulsive" and (self.ensemble < 2 or self.data_sets > 1):
            raise ValueError(
                "a repulsive ensemble needs at least two members and one data set, got "
                f"{self.ensemble} and {self.data_sets}; train one ensemble a data set"
            )

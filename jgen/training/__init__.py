"""Training of one model or an ensemble, checkpoints and run folders."""

from jgen.training.bespoke import BespokeTraining, bespoke_training, keep_best_solver
from jgen.training.bootstrap import bootstrap_rows
from jgen.training.callbacks import Callback, tensorboard, weights_and_biases
from jgen.training.config import TrainConfig
from jgen.training.fit import Fitted, fit
from jgen.training.log import MetricsLog
from jgen.training.mesh import initialize_distributed, make_layout
from jgen.training.optimizer import OptimizerConfig, game_optimizer, make_optimizer, per_player
from jgen.training.repulsion import RepulsionConfig, loss_values
from jgen.training.runs import RunFolder, check_finished, load_config
from jgen.training.sources import DataSource, HDF5Events, Records
from jgen.training.step import (
    TrainState,
    gradient_step,
    initial_state,
    make_step,
    member,
    over_members,
)
from jgen.training.timing import milliseconds, operations, timed_draw, timed_log_densities

__all__ = [
    "BespokeTraining",
    "Callback",
    "DataSource",
    "Fitted",
    "HDF5Events",
    "MetricsLog",
    "OptimizerConfig",
    "Records",
    "RepulsionConfig",
    "RunFolder",
    "TrainConfig",
    "TrainState",
    "bespoke_training",
    "bootstrap_rows",
    "fit",
    "game_optimizer",
    "gradient_step",
    "initial_state",
    "initialize_distributed",
    "check_finished",
    "load_config",
    "keep_best_solver",
    "loss_values",
    "make_layout",
    "make_optimizer",
    "make_step",
    "member",
    "milliseconds",
    "operations",
    "over_members",
    "per_player",
    "tensorboard",
    "timed_draw",
    "timed_log_densities",
    "weights_and_biases",
]

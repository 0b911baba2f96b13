"""What the studies of CaloDREAM share: the configuration, its presets, and the showers."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.study import Run, at_least, variant
from jgen import plotting
from jgen.metrics import ClassifierConfig
from jgen.nets import ConvAutoencoderConfig, SequenceConfig, TransfusionConfig, ViTConfig
from jgen.showers import (
    Evaluation,
    EvaluationConfig,
    Geometry,
    Showers,
    calodream,
    count_showers,
    evaluate,
    get_geometry,
    read_showers,
    sample_path,
    summary_table,
)
from jgen.showers.calodream import CaloDreamConfig
from jgen.solvers import SolverConfig
from jgen.training import OptimizerConfig, TrainConfig, load_config


@dataclass(frozen=True)
class Config(CaloDreamConfig):
    """One CaloDREAM study: the networks, and the showers that they learn from and are judged by."""

    data: tuple[str, ...] = ()
    """CaloChallenge HDF5 files to train on; without any, the bundled Geant4 sample."""
    test_data: tuple[str, ...] = ()
    """Files of the reference sample; without any, the last `num_test` showers of `data`."""
    num_train: int = 0
    """Showers to train on; 0 takes all but those of the reference."""
    num_test: int = 1200
    """Showers of the reference sample, and as many to generate."""
    sample_batch: int = 200
    """Showers generated at a time; attention over n tokens takes 4 n^2 bytes a head of each."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Size of the tests."""

    def check(self) -> None:
        """Raise a ValueError for options that do not fit together."""
        super().check()
        at_least(self, num_test=20, num_train=0, sample_batch=1)  # classifiers need some showers
        resolved = lambda files: {Path(f).resolve() for f in files}
        if shared := resolved(self.data) & resolved(self.test_data):
            raise ValueError(
                f"{sorted(map(str, shared))} are both data and test data; separate them"
            )


@functools.lru_cache(maxsize=1)
def load_showers(config: Config) -> tuple[Showers, Showers]:
    """Training and reference showers, disjoint; only these rows are read, and once."""
    if not config.data and config.geometry != "ds2":
        raise ValueError("the bundled showers have the geometry ds2; give --data FILE for others")
    geometry, files = get_geometry(config.geometry), config.data or sample_path()
    num = count_showers(files)
    num_left = num if config.test_data else num - config.num_test
    if num_left < 2:
        raise ValueError(
            f"there are {num} showers, too few for {config.num_test} in the reference and others "
            "to train on; give more --data, --test-data, or a smaller --num-test"
        )
    num_train = config.num_train or num_left
    if not config.num_validation + 2 <= num_train <= num_left:
        raise ValueError(
            f"{num} showers, {num - num_left} of them for the reference, leave {num_left} to train "
            f"and validate on, but {num_train} are asked for, {config.num_validation} of them to "
            "validate; change --num-train, --num-test or --num-validation, or give more --data"
        )
    train = read_showers(files, geometry, 0, num_train)
    if config.test_data:
        num_test = min(config.num_test, count_showers(config.test_data))
        return train, read_showers(config.test_data, geometry, 0, num_test)
    return train, read_showers(files, geometry, num_left, num)


def check_enough(name: str, wanted: int, showers: Showers) -> None:
    """Refuse to take more showers from a sample than it has."""
    if wanted > (num := len(showers.energies)):
        raise ValueError(
            f"{name} is {wanted}, but the model's sample for it has {num} showers; ask for as many "
            "at most"
        )


def model_config(config: Any) -> Config:
    """Of the model of a study that takes a finished one (`model`) or trains `calodream`."""
    return load_config(Config, Path(config.model)) if config.model else config.calodream


def given_or_trained(config: Any, showers: Showers, run: Run) -> calodream.Trained:
    """The model of such a study; its own is in the folder calodream of the run."""
    if config.model:
        return calodream.load(config.model)
    with run.part("calodream", config.calodream) as own:
        return calodream.train(config.calodream, showers, own)


def evaluated(
    run: Run, geometry: Geometry, reference: Showers, generated: Showers, **others: Showers
) -> Evaluation:
    """The metrics of `jgen.showers.evaluate`, a stage; `others` are its holdout and training."""
    args = (geometry, reference, generated, run.key("evaluation"), run.config.evaluation)
    return run.cached("evaluation", evaluate, *args, progress=True, **others)


def report_evaluation(
    run: Run, geometry: Geometry, reference: Showers, samples: dict[str, Showers], metrics: dict
) -> str:
    """Draw the figures of the stage and tabulate the metrics; `samples` by their names there."""
    stage, threshold = run.stage("evaluation"), run.config.evaluation.threshold
    figures = plotting.shower_figures(geometry, reference, samples, stage, threshold=threshold)
    for name, figure in figures.items():
        run.save(name, figure)
    return summary_table(metrics, stage.notes)


JUDGE = ClassifierConfig(batch_size=128, epochs=30, num_seeds=2, patience=4)
"""Classifiers of the studies of samplers."""
# As published: sizes, optimisers, schedules and solver steps of the authors' configuration files,
# which reproduce the parameter counts of the CaloChallenge (the paper's tables do not).
_ONE_CYCLE = {"learning_rate": 1e-3, "schedule": "onecycle", "warmup": 0.3}
_LOGGED = {"log_every": 100, "save_every": 10_000}
PAPER_DS2 = variant(
    Config(geometry="ds2", num_test=100_000, energy_range=(1e3, 1e6), sample_batch=1000),
    standardise="voxel",
    energy_training={
        "steps": 12_500,
        "batch_size": 4000,
        "optimizer": _ONE_CYCLE | {"learning_rate": 2e-3, "epsilon": 1e-6},
    },
    shape_training={
        "steps": 1_250_000,
        "batch_size": 64,
        "optimizer": {
            "learning_rate": 1e-3,
            "schedule": "cosine",
            "weight_decay": 1e-5,
            "epsilon": 1e-6,
            "clip_norm": 100.0,
        },
        **_LOGGED,
    },
    evaluation=EvaluationConfig(ClassifierConfig(num_seeds=10)),
)
PAPER_DS3 = variant(
    PAPER_DS2,
    geometry="ds3",
    shape_network=ViTConfig(patch=(3, 5, 2), width=240, heads=6, blocks=6, mlp_width=720),
    energy_training={"optimizer": {"warmup": 0.1}},
    shape_training={"steps": 937_500, "optimizer": {"clip_norm": 50.0}},
    sample_batch=100,
)
# laViT, of Tabs. 2 and 4. Not published: the autoencoder's batch size and its optimiser's decay.
PAPER_DS2_LATENT = variant(
    PAPER_DS2,
    space="latent",
    shape_network=ViTConfig(patch=(3, 1, 1), width=240, heads=6, blocks=10, mlp_width=960),
    autoencoder_training={"steps": 156_200, "batch_size": 128, "optimizer": _ONE_CYCLE, **_LOGGED},
    shape_training={"steps": 625_000, "batch_size": 128, "optimizer": {"clip_norm": 0.0}},
)
PAPER_DS3_LATENT = variant(
    PAPER_DS2_LATENT,
    geometry="ds3",
    energy_training=PAPER_DS3.energy_training,
    shape_network={"patch": (3, 2, 2)},
    autoencoder=ConvAutoencoderConfig(kernel=(5, 2, 3), stride=(2, 2, 1)),
    shape_training={"steps": 312_500},
    sample_batch=100,
)
ADAMW = OptimizerConfig(learning_rate=2e-3, warmup=0.05, clip_norm=1.0)
"""Optimiser of ensembles, Bayesian networks, distillation and autoencoders, where Muon was not
tried."""
_MUON = variant(ADAMW, learning_rate=4e-3, method="muon")
DEFAULT = Config(
    num_test=1000,
    energy_network=TransfusionConfig(layers=2, feed_forward=128, head_width=128, head_layers=5),
    parallel_network=SequenceConfig(width=64, heads=4, blocks=3, mlp_width=128),
    # Tokens are wider than their patches, as in the published network: a narrower one cannot tell
    # which of its voxels are empty.
    shape_network=ViTConfig(
        patch=(5, 16, 1), width=128, heads=4, blocks=3, mlp_width=256, time_scale=1000.0
    ),
    energy_training=TrainConfig(700, 128, optimizer=_MUON, ema_decay=0.99),
    # In parts of 8 showers, which stay in the cache of a CPU: the same steps, faster.
    shape_training=TrainConfig(3000, 32, accumulate=4, optimizer=_MUON, ema_decay=0.99),
    energy_solver=SolverConfig("midpoint", 16),
    shape_solver=SolverConfig("midpoint", 16),
    evaluation=EvaluationConfig(
        ClassifierConfig(batch_size=128, epochs=50, num_seeds=3, patience=5), fpd_batches=3
    ),
)
# What two cores learn in an hour from 18,000 showers, which are to be given by --data; the bundled
# ones are too few.
HOUR = variant(
    DEFAULT,
    num_test=5400,
    energy_network={"layers": 3, "feed_forward": 256},
    shape_network={"patch": (3, 16, 1)},
    energy_training={"steps": 3000, "ema_decay": 0.999},
    shape_training={"steps": 6000, "ema_decay": 0.999},
)
_SHORT = TrainConfig(20, 32, optimizer=OptimizerConfig(warmup=0.1), log_every=1)
SMOKE = variant(
    DEFAULT,
    num_train=300,
    num_test=150,
    energy_network=TransfusionConfig(layers=1, feed_forward=32, head_width=32, head_layers=4),
    parallel_network=SequenceConfig(width=16, heads=2, blocks=1, mlp_width=32),
    shape_network=ViTConfig(patch=(9, 16, 3), width=24, heads=2, blocks=2, mlp_width=48),
    energy_training=_SHORT,
    shape_training=_SHORT,
    energy_solver={"steps": 4},
    shape_solver={"steps": 4},
    sample_batch=75,
    evaluation=EvaluationConfig(
        ClassifierConfig(hidden=(64, 64, 64), batch_size=100, epochs=5, num_seeds=2),
        bootstrap=20,
        fpd_batches=1,
        permutations=200,
    ),
)
LATENT = variant(
    DEFAULT,
    space="latent",
    autoencoder=ConvAutoencoderConfig(channels=12, cond_width=32, repeat_seam=False),
    autoencoder_training=TrainConfig(1000, 16, optimizer=ADAMW),
    # Tokens of 5 layers x 2 x 1 latent cells with 2 channels.
    shape_network={"patch": (5, 2, 1)},
    shape_training={"accumulate": 1},  # its loss draws the latents of all events with one key
)
SMOKE_LATENT = variant(
    SMOKE,
    space="latent",
    energies="parallel",
    autoencoder=ConvAutoencoderConfig(channels=2, cond_width=8, repeat_seam=False),
    autoencoder_training=variant(_SHORT, steps=10, batch_size=8),
    shape_network={"patch": (5, 8, 3)},
)
PRESETS = {
    "default": DEFAULT,
    "latent": LATENT,
    "hour": HOUR,
    "smoke": SMOKE,
    "smoke-latent": SMOKE_LATENT,
    "paper-ds2": PAPER_DS2,
    "paper-ds3": PAPER_DS3,
    "paper-ds2-latent": PAPER_DS2_LATENT,
    "paper-ds3-latent": PAPER_DS3_LATENT,
}

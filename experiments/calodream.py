"""CaloDREAM: calorimeter showers by flow matching (2405.09629), trained, sampled and judged.

    python -m experiments.calodream

trains both networks on the bundled Geant4 showers, generates showers and judges them against others
that the networks have not seen. See --help for all options.

Time: 7 minutes on 2 CPU cores (smoke: 40 seconds); the paper presets want a GPU for a day or
two. Expected of the default: separation/E_tot 0.03 to 0.04 (truth 0.026), sparsity 0.03 (0.002),
widths 0.08 to 0.10 (0.03), auc_low 0.94, auc_high 0.99: total energies are learned in that time,
shapes are not yet.
"""

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from experiments._command_line import run
from jgen.generative_model import GenerativeModel, draw_chunks
from jgen.metrics import ClassifierConfig
from jgen.nets import num_parameters
from jgen.nets.transfusion import TransfusionConfig
from jgen.nets.vit import ViTConfig
from jgen.plotting import save, shower_figures, training_curves
from jgen.random import stream
from jgen.showers import (
    ShowerPreprocessing,
    Showers,
    count_showers,
    fit_statistics,
    get_geometry,
    load_preprocessing,
    read_showers,
    sample_path,
    save_preprocessing,
    write_showers,
)
from jgen.showers.calodream import (
    SolverConfig,
    calodream,
    energy_model,
    shape_model,
    training_data,
)
from jgen.showers.evaluation import (
    EvaluationConfig,
    evaluate,
    load_evaluation,
    save_evaluation,
    summary_table,
)
from jgen.training import (
    MetricsLog,
    OptimizerConfig,
    RunFolder,
    TrainConfig,
    fit,
    make_layout,
    make_optimizer,
    member,
)
from jgen.typing import Params

NETWORKS = ("energy", "shape")


@dataclass(frozen=True)
class Config:
    """One CaloDREAM study."""

    data: tuple[str, ...] = ()
    """CaloChallenge HDF5 files to train on; without any, the bundled Geant4 sample."""
    test_data: tuple[str, ...] = ()
    """Files of the reference sample; without any, the last `num_test` showers of `data`."""
    geometry: Literal["ds2", "ds3"] = "ds2"
    """Voxels of the files."""
    num_train: int = 0
    """Showers to train on; 0 takes all but those of the reference."""
    num_test: int = 1200
    """Showers of the reference sample, and as many to generate."""
    num_validation: int = 0
    """Showers cut from the end of the training sample to validate on."""
    energy_range: tuple[float, float] | None = None
    """Incident energies [MeV] that scale to 0 and 1; those of the training sample unless given.
    The CaloChallenge's are 1 GeV to 1 TeV, those of the bundled sample 1 to 30 GeV."""
    standardise: Literal["voxel", "global"] = "global"
    """voxel, as published: a mean and deviation for each voxel; global: one for all, which a small
    sample needs, since most of its voxels are hit too rarely to have a deviation."""
    energy_network: TransfusionConfig = TransfusionConfig()
    """Autoregressive network of the layer energies."""
    shape_network: ViTConfig = ViTConfig()
    """Vision transformer of the normalised voxels."""
    energy_training: TrainConfig = TrainConfig()
    """Training of the energy network."""
    shape_training: TrainConfig = TrainConfig()
    """Training of the shape network. Showers are drawn from the first member of an ensemble."""
    energy_solver: SolverConfig = SolverConfig("kutta38", 50)
    """Solver of each layer energy."""
    shape_solver: SolverConfig = SolverConfig("kutta38", 20)
    """Solver of the voxels."""
    sample_batch: int = 200
    """Showers generated at a time; attention over n tokens takes 4 n^2 bytes a head of each."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Size of the tests."""
    seed: int = 0
    """Seed of everything random."""


def main(config: Config, out: Path, *, plot_only: bool = False) -> dict[str, float]:
    """Train, sample, judge and plot; returns the metrics, which metrics.json holds too.

    Every stage is kept in the run folder and taken from there when it is finished.
    """
    # Bad options and files are refused before the folder is made, so that they do not mark it.
    _check_options(config)
    if plot_only and not (out / "config.json").exists():
        raise ValueError(f"{out} holds no run to plot; run without --plot-only first")
    train, reference = load_showers(config)
    folder = RunFolder(out, config)
    if not plot_only:
        preprocessing = load_or_fit_preprocessing(config, train, folder)
        params = train_networks(config, train, preprocessing, folder)
        if jax.process_index() != 0:
            return {}
        model = calodream(*make_models(config).values(), preprocessing)
        _sample(config, model, params, train, folder)
    if not (folder.path / "samples.h5").exists():
        raise ValueError(f"{folder.path} has no samples.h5 to plot; run without --plot-only first")
    return _judge(config, train, reference, folder, plot_only)


def count_parameters(config: Config) -> dict[str, int]:
    """Trainable parameters of both networks."""
    return {name: num_parameters(m.init) for name, m in make_models(config).items()}


def _check_options(config: Config) -> None:
    """Build everything that raises a ValueError for options that do not fit together."""
    count_parameters(config)
    for training in (config.energy_training, config.shape_training):
        training.check()
        make_optimizer(training.optimizer, training.steps)
        make_layout(training.ensemble, training.batch_size)
    if config.num_test < 20:
        raise ValueError(f"num_test must be at least 20 for the classifiers, got {config.num_test}")
    if shared := {Path(f).resolve() for f in config.data} & {
        Path(f).resolve() for f in config.test_data
    }:
        raise ValueError(f"{sorted(map(str, shared))} are both data and test data; separate them")
    if not config.data and config.geometry != "ds2":
        raise ValueError("the bundled showers have the geometry ds2; give --data FILE for others")


def make_models(config: Config) -> dict[str, GenerativeModel]:
    """The models of layer energies and shapes."""
    geometry = get_geometry(config.geometry)
    return {
        "energy": energy_model(geometry, config.energy_network, config.energy_solver.make()),
        "shape": shape_model(geometry, config.shape_network, config.shape_solver.make()),
    }


def load_showers(config: Config) -> tuple[Showers, Showers]:
    """Training and reference showers, disjoint; only these rows are read."""
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


def load_or_fit_preprocessing(
    config: Config, train: Showers, folder: RunFolder
) -> ShowerPreprocessing:
    """The run's preprocessing, fitted to the training sample the first time."""
    path = folder.path / "preprocessing.npz"
    if path.exists():
        return load_preprocessing(path)
    geometry = get_geometry(config.geometry)
    low, high = config.energy_range or (train.energies.min(), train.energies.max())
    statistics = fit_statistics(_chunks(train), geometry, standardise=config.standardise)
    preprocessing = ShowerPreprocessing(geometry, statistics, float(low), float(high))
    if folder.is_writer:
        save_preprocessing(path, preprocessing)
    return preprocessing


def _chunks(showers: Showers, size: int = 500):
    """Pieces small enough to be preprocessed in float64."""
    for i in range(0, len(showers.energies), size):
        yield Showers(showers.energies[i : i + size], showers.voxels[i : i + size])


def train_networks(
    config: Config, train: Showers, preprocessing: ShowerPreprocessing, folder: RunFolder
) -> dict[str, Params]:
    """Train both networks, or take up where the folder's training stopped.

    Returns:
      Parameters of the whole model, {"first": energy network's, "second": shape network's}.
    """
    models = make_models(config)
    batches = training_data(_chunks(train), preprocessing)
    params = {}
    for part, name, batch in zip(("first", "second"), models, batches, strict=True):
        split = len(train.energies) - config.num_validation
        fitted = fit(
            models[name],
            jax.tree.map(lambda a: a[:split], batch),  # noqa: B023
            stream(jax.random.key(config.seed), name),
            getattr(config, f"{name}_training"),
            validation=jax.tree.map(lambda a: a[split:], batch) if config.num_validation else None,  # noqa: B023
            folder=folder.path / name,
            name=f"{name} network",
        )
        params[part] = member(fitted.params, 0)
    return params


def _sample(config: Config, model: GenerativeModel, params, train: Showers, folder: RunFolder):
    """Generate samples.h5, as many showers as the reference has.

    Their incident energies are those of the training sample, whose spectrum is the reference's.
    With the reference's own energies the generated sample would share the reference's statistical
    fluctuation, and look better than a second sample of the truth.
    """
    path = folder.path / "samples.h5"
    if path.exists() and folder.read_json("sampling.json"):
        return
    energies = np.resize(train.energies, config.num_test).astype(np.float32)
    geometry = get_geometry(config.geometry)
    key = stream(jax.random.key(config.seed), "sample")
    draws = draw_chunks(
        model,
        params,
        key,
        len(energies),
        energies,
        batch_size=config.sample_batch,
        progress=True,
    )

    def showers():
        start = 0
        for chunk in draws:
            stop = start + len(chunk)
            yield Showers(energies[start:stop], chunk.reshape(len(chunk), -1))
            start = stop

    begin = time.perf_counter()
    write_showers(path, showers(), geometry)
    folder.write_json(
        "sampling.json", {"seconds": time.perf_counter() - begin, "showers": len(energies)}
    )


def _judge(config: Config, train: Showers, reference: Showers, folder: RunFolder, plot_only: bool):
    """Evaluate the samples unless that is done, write metrics.json and draw the figures."""
    geometry, stored = get_geometry(config.geometry), folder.path / "evaluation.npz"
    generated = read_showers(folder.path / "samples.h5", geometry)
    if stored.exists():
        found = load_evaluation(stored)
    elif plot_only:
        raise ValueError(f"{folder.path} has no evaluation to plot; run without --plot-only first")
    else:
        key = stream(jax.random.key(config.seed), "evaluation")
        found = evaluate(
            geometry, reference, train, generated, key, config.evaluation, progress=True
        )
        save_evaluation(stored, found)
    logs = {name: MetricsLog(folder.path / name / "metrics.jsonl").read() for name in NETWORKS}
    sampling = json.loads((folder.path / "sampling.json").read_text())
    metrics = found.metrics | {"ms_per_shower": 1e3 * sampling["seconds"] / sampling["showers"]}
    for name, rows in logs.items():
        metrics[f"train_seconds/{name}"] = sum(row.get("seconds", 0.0) for row in rows)
        last = [np.mean(row["loss"]) for row in rows if "loss" in row][-10:]
        metrics[f"loss/{name}"] = float(np.mean(last))
    folder.write_metrics(metrics)
    classifiers = {"high": found.high, "low": found.low}
    figures = shower_figures(geometry, reference, {"CaloDREAM": generated}, classifiers)
    for name, rows in logs.items():
        figures[f"training_{name}"] = training_curves(rows, log_y=True)
    for name, figure in figures.items():
        save(figure, folder.figure(name))
    print(summary_table(metrics))
    return metrics


_PUBLISHED_SHAPE_OPTIMIZER = OptimizerConfig(
    learning_rate=1e-3, schedule="cosine", weight_decay=1e-5, epsilon=1e-6, clip_norm=100.0
)

# As published: sizes, optimisers, schedules and solver steps of the authors' configuration files,
# which reproduce the parameter counts of the CaloChallenge (the paper's tables do not).
PAPER_DS2 = Config(
    geometry="ds2",
    num_test=100_000,
    energy_range=(1e3, 1e6),
    standardise="voxel",
    energy_training=TrainConfig(
        steps=12_500,
        batch_size=4000,
        optimizer=OptimizerConfig(
            learning_rate=2e-3, schedule="onecycle", warmup=0.3, epsilon=1e-6
        ),
    ),
    shape_training=TrainConfig(
        steps=1_250_000,
        batch_size=64,
        optimizer=_PUBLISHED_SHAPE_OPTIMIZER,
        log_every=100,
        save_every=10_000,
    ),
    sample_batch=1000,
    evaluation=EvaluationConfig(ClassifierConfig(num_seeds=10)),
)
PAPER_DS3 = dataclasses.replace(
    PAPER_DS2,
    geometry="ds3",
    shape_network=ViTConfig(patch=(3, 5, 2), width=240, heads=6, blocks=6, mlp_width=720),
    energy_training=dataclasses.replace(
        PAPER_DS2.energy_training,
        optimizer=dataclasses.replace(PAPER_DS2.energy_training.optimizer, warmup=0.1),
    ),
    shape_training=dataclasses.replace(
        PAPER_DS2.shape_training,
        steps=937_500,
        optimizer=dataclasses.replace(_PUBLISHED_SHAPE_OPTIMIZER, clip_norm=50.0),
    ),
    sample_batch=100,
)
DEFAULT = Config(
    num_test=1000,
    energy_network=TransfusionConfig(layers=2, feed_forward=128, head_width=128, head_layers=5),
    # Tokens are wider than their patches, as in the published network: a narrower one cannot tell
    # which of its voxels are empty.
    shape_network=ViTConfig(
        patch=(5, 16, 1), width=128, heads=4, blocks=3, mlp_width=256, time_scale=1000.0
    ),
    energy_training=TrainConfig(
        steps=700,
        batch_size=128,
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup=0.05, clip_norm=1.0),
        ema_decay=0.99,
    ),
    shape_training=TrainConfig(
        steps=3000,
        batch_size=32,
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup=0.05, clip_norm=1.0),
        ema_decay=0.99,
    ),
    energy_solver=SolverConfig("midpoint", 16),
    shape_solver=SolverConfig("midpoint", 16),
    evaluation=EvaluationConfig(
        ClassifierConfig(batch_size=128, epochs=50, num_seeds=3, patience=5)
    ),
)
_SMOKE_TRAINING = TrainConfig(
    steps=20, batch_size=32, optimizer=OptimizerConfig(warmup=0.1), log_every=1
)
SMOKE = dataclasses.replace(
    DEFAULT,
    num_train=300,
    num_test=150,
    energy_network=TransfusionConfig(layers=1, feed_forward=32, head_width=32, head_layers=4),
    shape_network=ViTConfig(patch=(9, 16, 3), width=24, heads=2, blocks=2, mlp_width=48),
    energy_training=_SMOKE_TRAINING,
    shape_training=_SMOKE_TRAINING,
    energy_solver=SolverConfig("midpoint", 4),
    shape_solver=SolverConfig("midpoint", 4),
    sample_batch=75,
    evaluation=EvaluationConfig(
        ClassifierConfig(hidden=(64, 64, 64), batch_size=100, epochs=5, num_seeds=2), bootstrap=20
    ),
)
PRESETS = {"default": DEFAULT, "smoke": SMOKE, "paper-ds2": PAPER_DS2, "paper-ds3": PAPER_DS3}


if __name__ == "__main__":
    run("calodream", __doc__, PRESETS, main, count_parameters)

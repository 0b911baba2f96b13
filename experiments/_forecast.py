"""What `forecast_amplification` computes: inputs and regions, and numbers of one member a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import jax
import numpy as np
import tyro
from jaxtyping import Float, Int

from experiments._forecast_files import EventFile, digest, open_events, read_columns
from jgen.amplification import (
    differential_amplification,
    differential_on_training_set,
    expected_distance,
    kolmogorov_quantile,
    ks_distances,
    prefix_sizes,
    region_fractions,
    sample_quantile_edges,
)
from jgen.files import atomic_path
from jgen.metrics import ClassifierConfig, cross_fitted_log_ratio
from jgen.random import stream
from jgen.training import RunFolder

Members = Literal["unknown", "plain", "repulsive", "bootstrap", "bayesian"]

MAX_COLUMNS = 20  # that are taken without being asked for
FEWEST = 10  # events that a region needs, and outside of it
FEWEST_REFERENCE = 100  # true events that a distance means something for


@dataclass(frozen=True)
class Config:
    """One forecast. Files are HDF5 or .npy, [events] or [events, columns]."""

    train: str = ""
    """File of the events that the generator was trained on."""
    generated: tuple[str, ...] = ()
    """Files of generated events, one a member of an ensemble or draw of Bayesian weights. Events
    must be in the order they were drawn, or shuffled."""
    held_out: str = ""
    """File of true events that the generator has not seen; without it, distances are to the
    training set and not calibrated."""
    dataset: str = ""
    """Dataset in HDF5 files; not needed where there is only one."""
    column: tuple[int, ...] = ()
    """Columns to look at, counted from 0; all unless given."""
    names: tuple[str, ...] = ()
    """Names of these columns for figures and text."""
    region_column: int | None = None
    """Column of regions and quantiles; the first one looked at unless given."""
    region: Annotated[tuple[tuple[float, float], ...], tyro.conf.UseAppendAction] = ()
    """Region low <= value < high, -inf and inf allowed; give the option once a region."""
    quantiles: int = 0
    """Regions of equally many training events; 0 for none."""
    members: Members = "unknown"
    """What the members are. plain or repulsive: trained on the same events. bootstrap: each on its
    own resampled events. bayesian: draws of the weights."""
    num_train: int = 0
    """Events that each member was trained on; 0: those of the file."""
    classifier_members: int = 3
    """Members whose likelihood ratio a classifier learns; 0 for none."""
    classifier_events: int = 200_000
    """Generated events of a member that the classifiers look at."""
    folds: int = 5
    """Parts of cross-fitting; the first is not scored."""
    classifier: ClassifierConfig = ClassifierConfig(
        hidden=(64, 64), learning_rate=1e-3, batch_size=500, epochs=50, num_seeds=2, patience=10
    )
    """Network and training of the classifiers."""
    sizes_per_decade: int = 5
    """Points of the scans over generated events, from 100 on."""
    example: bool = False
    """Take a toy example of known amplification in place of files."""
    seed: int = 0
    """Seed of the classifiers and of the example."""


class Inputs(NamedTuple):
    """Files and what was read of them.

    Attributes:
      train: training events [n_train, d] of the columns looked at.
      held_out: the same of other true events, None if there are none.
      generated: one file a member.
      paths: of all files, the true ones first.
      columns: numbers in the files.
      names: of these columns.
      region_index: which of them has the regions.
      num_train: events that each member was trained on.
      num_gen: generated events of each member that are used, as many as the smallest file has.
    """

    train: Float[np.ndarray, "n_train d"]
    held_out: Float[np.ndarray, "n_ref d"] | None
    generated: tuple[EventFile, ...]
    paths: tuple[Path, ...]
    columns: tuple[int, ...]
    names: tuple[str, ...]
    region_index: int
    num_train: int
    num_gen: int

    @property
    def reference(self) -> Float[np.ndarray, "n d"]:
        """True events that distances are to."""
        return self.train if self.held_out is None else self.held_out


class Measured(NamedTuple):
    """Numbers of one member, kept in a file.

    Attributes:
      fractions: shares of the first n generated events in every region.
      distances: Kolmogorov-Smirnov distances of columns to the reference.
      n_equiv: value, low and high that follow from the last distance of each column.
      classifier_sizes: numbers of generated events of the classifier's distances.
      classifier_distances: of its likelihood ratio; empty for members without.
      classifier_n_equiv: as above.
      classifier_reference: reference events that were scored.
    """

    fractions: Float[np.ndarray, "sizes regions"]
    distances: Float[np.ndarray, "columns sizes"]
    n_equiv: Float[np.ndarray, "columns 3"]
    classifier_sizes: Int[np.ndarray, " classifier_sizes"]
    classifier_distances: Float[np.ndarray, " classifier_sizes"]
    classifier_n_equiv: Float[np.ndarray, " three"]
    classifier_reference: Int[np.ndarray, ""]


def load_inputs(config: Config) -> Inputs:
    """Open all files, read the true ones, and refuse what cannot be forecast.

    Raises:
      FileNotFoundError: if a file does not exist.
      ValueError: if files or options are not usable or do not fit together.
    """
    _check_options(config)
    train = open_events(config.train, config.dataset)
    generated = tuple(open_events(path, config.dataset) for path in config.generated)
    held_out = open_events(config.held_out, config.dataset) if config.held_out else None
    for file in (*generated, *([held_out] if held_out else [])):
        if file.num_columns != train.num_columns:
            raise ValueError(
                f"{file.path} has {file.num_columns} columns and {train.path} "
                f"{train.num_columns}: all files need the same columns in the same order"
            )
    columns, names = _columns(config, train.num_columns)
    region_column = columns[0] if config.region_column is None else config.region_column
    if region_column not in columns:
        raise ValueError(f"region_column {region_column} must be one of the columns {columns}")
    num_train = config.num_train or train.num
    smallest = min(generated, key=lambda file: file.num)
    if smallest.num < num_train:
        raise ValueError(
            f"{smallest.path} has {smallest.num} events, fewer than the {num_train} of training: "
            "what they are worth cannot show; generate at least ten times as many as were trained "
            "on"
        )
    if (reference := held_out or train).num < FEWEST_REFERENCE:
        raise ValueError(
            f"{reference.path} has {reference.num} events; a distance to them says nothing below "
            f"{FEWEST_REFERENCE}"
        )
    return Inputs(
        read_columns(train, columns),
        None if held_out is None else read_columns(held_out, columns),
        generated,
        tuple(f.path for f in (train, *([held_out] if held_out else []), *generated)),
        columns,
        names,
        columns.index(region_column),
        num_train,
        smallest.num,
    )


def regions(config: Config, inputs: Inputs) -> Float[np.ndarray, "regions 2"]:
    """Edges of the regions asked for, then of the quantiles of the training events.

    Raises:
      ValueError: if a region holds too few training or generated events, or all of them.
    """
    column = inputs.train[:, inputs.region_index]
    found = np.reshape(config.region, (-1, 2))
    if config.quantiles:
        if len(column) < FEWEST * config.quantiles:
            raise ValueError(
                f"{len(column)} training events are too few for {config.quantiles} quantiles; take "
                f"{len(column) // FEWEST} or fewer"
            )
        edges = sample_quantile_edges(column, config.quantiles)
        found = np.concatenate([found, np.stack([edges[:-1], edges[1:]], axis=1)])
    if len(config.region):
        # One member is enough to see a region that is empty, before anything is written.
        first = read_columns(inputs.generated[0], inputs.columns, inputs.num_gen)
        _check_filled(config, inputs, first[:, inputs.region_index], column)
    return found


def scan_sizes(config: Config, inputs: Inputs) -> Int[np.ndarray, " sizes"]:
    """Numbers of generated events of the scan."""
    return prefix_sizes(inputs.num_gen, min(100, inputs.num_gen), config.sizes_per_decade)


def measure(
    config: Config, inputs: Inputs, intervals: Float[np.ndarray, "regions 2"], folder: RunFolder
) -> list[Measured]:
    """Numbers of all members; those that the folder has from the same files are read.

    Raises:
      ValueError: if a file changed since, or two hold the same events, or as `_measure_one`.
    """
    num_true = len(inputs.paths) - len(inputs.generated)
    digests = [digest([path]) for path in inputs.paths]
    _check_different(inputs.paths, digests)
    found = []
    for i in range(len(inputs.generated)):
        path = member_path(folder, i)
        now = " ".join([*digests[:num_true], digests[num_true + i]])
        if not path.exists():
            one = _measure_one(config, inputs, intervals, i)
            with atomic_path(path) as partial:
                np.savez(partial, digest=now, **one._asdict())
        with np.load(path) as file:
            if str(file["digest"]) != now:
                raise ValueError(
                    f"{inputs.generated[i].path}, or a file of true events, changed since "
                    f"{folder.path} was made; choose another --out"
                )
            found.append(Measured(*(file[name] for name in Measured._fields)))
    return found


def member_path(folder: RunFolder, index: int) -> Path:
    """Where the numbers of a member are kept."""
    return folder.path / "members" / f"{index:04d}.npz"


def _measure_one(
    config: Config, inputs: Inputs, intervals: Float[np.ndarray, "regions 2"], index: int
) -> Measured:
    sizes = scan_sizes(config, inputs)
    events = read_columns(inputs.generated[index], inputs.columns, inputs.num_gen)
    _check_order(inputs, index, events)
    judged = [
        _judge(inputs, column, reference, sizes)
        for column, reference in zip(events.T, inputs.reference.T, strict=True)
    ]
    classified = _classify(config, inputs, events, index)
    return Measured(
        _fractions(config, intervals, events[:, inputs.region_index], sizes),
        np.stack([one.distances for one in judged]),
        np.stack([one.n_equiv for one in judged]),
        *classified,
    )


def _judge(inputs, values, reference, sizes):
    """Forecast from the distance to held-out events, or as published if there are none."""
    if inputs.held_out is None:
        return differential_on_training_set(values, reference, sizes)
    return differential_amplification(values, reference, inputs.num_train, sizes)


def _fractions(config, intervals, values, sizes):
    """Shares [sizes, regions]; regions are half open, also for numbers with ties, as of jets."""
    num = len(config.region)
    found = [np.zeros((len(sizes), 0))]
    for low, high in intervals[:num]:
        # A last region is closed, so another one follows.
        edges = [low, high] if np.isinf(high) else [low, high, np.inf]
        found.append(region_fractions(values, edges, sizes)[:, :1])
    if config.quantiles:
        edges = np.append(intervals[num:, 0], intervals[-1, 1])
        found.append(region_fractions(values, edges, sizes))
    return np.concatenate(found, axis=1)


def _classify(config, inputs, events, index):
    """Distances of a classifier's likelihood ratio, the last four fields of Measured."""
    if index >= config.classifier_members:
        return np.zeros(0, np.int64), np.zeros(0), np.zeros(3), np.int64(0)
    key = jax.random.fold_in(stream(jax.random.key(config.seed), "classifier"), index)
    scores = cross_fitted_log_ratio(
        inputs.reference,
        events[: config.classifier_events],
        key,
        config.classifier,
        folds=config.folds,
    )
    sizes = prefix_sizes(len(scores.generated), 100, config.sizes_per_decade)
    one = _judge(inputs, scores.generated, scores.reference, sizes)
    return sizes, one.distances, np.array(one.n_equiv), np.int64(len(scores.reference))


def _check_options(config: Config) -> None:
    if not config.train or not config.generated:
        raise ValueError(
            "give --train FILE and --generated FILE FILE ..., one file a member; --preset smoke "
            "makes an example that needs no files"
        )
    for low, high in config.region:
        if not low < high:
            raise ValueError(f"a region needs low < high, got {low} and {high}")
    for name, least in (
        ("quantiles", 0),
        ("num_train", 0),
        ("classifier_members", 0),
        ("classifier_events", 1000),
        ("folds", 2),
        ("sizes_per_decade", 1),
    ):
        if getattr(config, name) < least:
            raise ValueError(f"{name} must be at least {least}, got {getattr(config, name)}")
    if config.quantiles == 1:
        raise ValueError("one quantile region holds everything; take two or more")


def _columns(config, num_columns):
    """Columns to look at and what they are called."""
    columns = config.column or tuple(range(num_columns))
    if len(columns) > MAX_COLUMNS and not config.column:
        raise ValueError(
            f"{config.train} has {num_columns} columns; choose those that matter with --column"
        )
    if len(set(columns)) != len(columns):
        raise ValueError(f"columns must differ, got {columns}")
    names = config.names or tuple(f"column {c}" for c in columns)
    if len(names) != len(columns) or len(set(names)) != len(names):
        raise ValueError(f"{len(columns)} columns need as many different names, got {names}")
    return columns, names


def _check_filled(config, inputs, generated, train):
    """Refuse regions that no fraction can be estimated in."""
    for low, high in config.region:
        inside = int(np.sum((generated >= low) & (generated < high)))
        known = int(np.sum((train >= low) & (train < high)))
        if FEWEST <= inside <= len(generated) - FEWEST:
            continue
        name = inputs.names[inputs.region_index]
        raise ValueError(
            f"{inside} of {len(generated)} generated and {known} of {len(train)} training events "
            f"have {name} in [{low:g}, {high:g}); at least {FEWEST} generated ones must be inside "
            f"and outside: choose a region within {train.min():g} to {train.max():g}, or generate "
            "more"
        )


def _check_order(inputs, index, events):
    """Refuse sorted files: every number for fewer events takes the first ones."""
    half = min(len(events) // 2, 50_000)
    for name, column in zip(inputs.names, events.T, strict=True):
        distance = ks_distances(column[-half:], column[:half], np.array([half]))[0]
        # A chance of 1e-6 for independent events.
        if distance > expected_distance(half, half, float(kolmogorov_quantile(1 - 1e-6))):
            raise ValueError(
                f"{inputs.generated[index].path}: {name} is distributed differently at the start "
                "and at the end of the file; its events must be in random order: shuffle them"
            )


def _check_different(paths, digests):
    """Refuse copies of one file under two names."""
    seen = {}
    for path, number in zip(paths, digests, strict=True):
        if number in seen:
            raise ValueError(
                f"{path} and {seen[number]} hold the same events; held-out events must be others "
                "than those of training, and each member needs its own random numbers"
            )
        seen[number] = path


def check_members(inputs: Inputs, folder: RunFolder) -> None:
    """Refuse to plot before everything is measured.

    Raises:
      ValueError: if numbers of a member are missing.
    """
    if not all(member_path(folder, i).exists() for i in range(len(inputs.generated))):
        raise ValueError(f"{folder.path} is not finished; run without --plot-only first")

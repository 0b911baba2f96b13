r"""What generated events are worth: the forecast of amplification for files (2509.08048).

    python -m experiments forecast --train T.npy --held-out H.npy --generated G1.npy G2.npy ... \
        --region LOW HIGH --kind bootstrap --out D

reads events as HDF5 or .npy, [events] or [events, columns], one file of generated events a member
of an ensemble, and says in plain words how many real events the generated ones are worth: in
D/verdict.txt, with metrics.json and figures. `--preset smoke` makes a toy example of known
amplification and needs no files. In Python it is `jgen.amplification.forecast`, of arrays.

Averaging. With two or more members, shares of events in regions: how much members disagree, what a
real sample with this error would count, and when more generated events add nothing. Regions are
intervals of one column (--region LOW HIGH, as often as needed) or quantiles of the training events
(--quantiles 20). Say with --kind what the members are. Members trained on the same events disagree
by their optimisation only, so their agreement is no amplification; train them on resampled events
(TrainConfig.members = "bootstrap" in jgen). Held-out events show a bias that all members share.

Full resolution. Kolmogorov-Smirnov distances of each column, and of the likelihood ratio that a
cross-fitted classifier learns from all columns, to held-out events that neither the generator nor
its selection has seen. Without them the distance is to the training set, as published; those
numbers are named uncalibrated and are not to be quoted, because the generator was fitted to what it
is compared with.

Files larger than memory may have any number of columns; those looked at (--column 0 3) of one
member have to fit. Files must not be sorted. The example takes 20 s of processor time, two members
of 10^7 events and four columns 17 s without classifiers (--classifiers.members 0). Numbers:
results/amplification.md.
"""

import dataclasses
from dataclasses import dataclass
from typing import Annotated

import jax
import numpy as np
import tyro

from experiments.study import Run, Study, at_least, main, table
from jgen import amplification, draw, plotting, toys
from jgen.amplification import Classifiers, Forecast, Interval
from jgen.amplification.forecasting import check_inputs
from jgen.amplification.forecasting.inputs import Kind
from jgen.random import member_keys
from jgen.tables import Table, open_table

MAX_COLUMNS = 20  # that are taken without being asked for


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
    kind: Kind = "unknown"
    """What the members are. plain or repulsive: trained on the same events. bootstrap: each on its
    own resampled events. bayesian: draws of the weights."""
    num_train: int = 0
    """Events that each member was trained on; 0: those of the file."""
    classifiers: Classifiers = Classifiers()
    """Classifiers whose likelihood ratio is one more observable."""
    sizes_per_decade: int = 5
    """Points of the scans over generated events, from 100 on."""
    example: bool = False
    """Take a toy example of known amplification in place of files."""
    seed: int = 0
    """Seed of the classifiers and of the example."""


# The example: maximum-likelihood fits of the radius of the ring (2509.08048, Eq. 5) to bootstrap
# samples of one training set; columns are x, y and the radius R.
EXAMPLE_COLUMNS = (0, 1, 2)
NUM_TRAIN, NUM_HELD_OUT, NUM_GENERATED, MEMBERS, QUANTILES = 1000, 2000, 100_000, 20, 20
RADII = tuple(float(r) for r in toys.quantile_edges(toys.ring().marginals[0], QUANTILES))

DEFAULT = Config()
SMALL = dataclasses.replace(DEFAULT.classifiers.config, hidden=(16, 16), epochs=5, num_seeds=1)
SMOKE = Config(
    example=True,
    names=("x", "y", "R"),
    region_column=2,
    region=(RADII[1:3],),  # the second of 20 regions of equal probability
    quantiles=QUANTILES,
    kind="bootstrap",
    classifiers=Classifiers(members=1, events=10_000, folds=2, config=SMALL),
)


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, num_train=0, sizes_per_decade=1, quantiles=0)
    if config.example:
        options(config, EXAMPLE_COLUMNS)
        if config.train or config.generated or config.held_out:
            raise ValueError("the example brings its own files; give --no-example with yours")
        return
    if not config.train or not config.generated:
        raise ValueError(
            "give --train FILE and --generated FILE FILE ..., one file a member; --preset smoke "
            "makes an example that needs no files"
        )


def inputs(config: Config) -> None:
    """Refuse bad files."""
    if not config.example:
        train, held_out, members = tables(config)
        check_inputs(train, held_out, members, **options(config, train.columns))


def compute(config: Config, run: Run) -> dict[str, float]:
    """The metrics of `jgen.amplification.Forecast`."""
    return forecast(config, run).metrics()


def report(config: Config, run: Run, metrics: dict) -> str:
    """Draw all figures, write the verdict, and tabulate beside what is known of the example."""
    result = forecast(config, run)
    for name, figure in plotting.forecast_figures(result).items():
        run.save(name, figure)
    run.write_text("verdict.txt", result.verdict)
    exact = exact_amplifications() if config.example else {}
    rows = {
        one.label: [
            f"{exact[name]:.1f}" if name in exact else None,
            *_interval(one.amplification),
            None if one.confirmed is None else f"> {one.confirmed / result.inputs.num_train:.2g}",
            None,
            None if one.pull is None else f"{one.pull:+.1f}",
        ]
        for name, one in result.averaging.items()
        if one.is_shown
    }
    kind = "uncalibrated" if result.inputs.held_out is None else "KS"
    for name, one in result.differential.items():
        distance = f"{one.distances[:, -1].mean():.4f}"
        rows[f"{kind}, {name}"] = [None, *_interval(one.amplification), None, distance, None]
    columns = ["exact", "G", "68 % interval", "confirmed", "distance", "pull"]
    return f"{table(columns, rows)}\n\n{result.verdict}"


def forecast(config: Config, run: Run) -> Forecast:
    """The forecast, with the numbers of finished members read from the run folder."""
    if config.example:
        samples = run.cached("example", example, run)
        train, held_out, members = (samples[name] for name in ("train", "held_out", "members"))
        columns = EXAMPLE_COLUMNS
    else:
        train, held_out, members = tables(config)
        columns = train.columns
    return amplification.forecast(
        train,
        held_out,
        members,
        **options(config, columns),
        classifiers=config.classifiers,
        key=run.key("classifier"),
        cached=run.cached,
    )


def options(config: Config, columns: tuple[int, ...]) -> dict:
    """Those of the library's forecast; `columns` are the file's that are looked at."""
    region_column = columns[0] if config.region_column is None else config.region_column
    if region_column not in columns:
        raise ValueError(f"region_column {region_column} must be one of the columns {columns}")
    return {
        "kind": config.kind,
        "region": config.region,
        "quantiles": config.quantiles,
        "column": columns.index(region_column),
        "names": config.names or tuple(f"column {c}" for c in columns),
        "num_train": config.num_train or None,
        "per_decade": config.sizes_per_decade,
    }


def tables(config: Config) -> tuple[Table, Table | None, list[Table]]:
    """Training, held-out and generated events: the layout of the files, with equal columns."""
    train = open_table(config.train, config.dataset)
    members = [open_table(path, config.dataset) for path in config.generated]
    held_out = open_table(config.held_out, config.dataset) if config.held_out else None
    for file in (*members, *([held_out] if held_out else [])):
        if file.num_columns != train.num_columns:
            raise ValueError(
                f"{file} has {file.num_columns} columns and {train} {train.num_columns}: all files "
                "need the same columns in the same order"
            )
    if train.num_columns > MAX_COLUMNS and not config.column:
        raise ValueError(
            f"{train} has {train.num_columns} columns; choose those that matter with --column"
        )
    columns = config.column or train.columns
    held_out = held_out and held_out.select(columns)
    return train.select(columns), held_out, [file.select(columns) for file in members]


def example(run: Run) -> dict[str, np.ndarray]:
    """Training set, held-out events and what each member of the toy example generated."""
    fit, ring = toys.radial_fit(2), toys.ring()
    train = toys.true_events(ring, run.key("train"), NUM_TRAIN)
    held_out = toys.true_events(ring, run.key("held out"), NUM_HELD_OUT)
    fit_one = jax.jit(lambda key: fit.fit(train, toys.bootstrap_weights(key, NUM_TRAIN)))
    fit_keys, keys = (member_keys(run.key(name), MEMBERS) for name in ("bootstrap", "sample"))
    members = [
        draw(fit.sample, fit_one(fit_key), key, NUM_GENERATED, batch_size=50_000)
        for fit_key, key in zip(fit_keys, keys, strict=True)
    ]

    def with_radius(events):
        events = np.asarray(events, np.float32)
        return np.concatenate([events, np.linalg.norm(events, axis=-1, keepdims=True)], axis=-1)

    samples = {"train": train, "held_out": held_out, "members": np.stack(members)}
    return {name: with_radius(events) for name, events in samples.items()}


def exact_amplifications() -> dict[str, float]:
    """Known G of the example, by the name of the selection; averages over training sets."""
    low, high = np.array(RADII[:-1]), np.array(RADII[1:])
    known = lambda rows: toys.ideal_amplification(
        low[rows], high[rows], 1.0, 0.1, num_train=NUM_TRAIN
    )
    return {
        "region_1": known([1]),
        "quantiles": known(slice(None)),
        "quantiles_inner": known(slice(1, -1)),
        "quantile_lowest": known([0]),
        "quantile_highest": known([-1]),
    }


def _interval(interval: Interval) -> list[str | None]:
    """G and its interval, or a limit."""
    value, low, high = interval
    ends = f"> {low:.3g}" if np.isinf(high) else f"{low:.3g} to {high:.3g}"
    return [None if np.isinf(value) else f"{value:.3g}", ends]


STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, inputs=inputs)

if __name__ == "__main__":
    main(STUDY)

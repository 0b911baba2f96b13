"""What a forecast is made from, and what is refused: shapes, NaN, copies, empty regions."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float, Int

from jgen.amplification.differential import prefix_sizes
from jgen.amplification.quantiles import sample_quantile_edges
from jgen.arrays import real_array
from jgen.overlap import COPIES, check_disjoint, repeated_share, row_keys

Events = Any
"""An array [events] or [events, columns], or what gives such an array when it is sliced and has a
`shape`: a memory map, an HDF5 dataset, a `jgen.tables.Table`."""

Kind = Literal["unknown", "plain", "repulsive", "bootstrap", "bayesian"]
"""What members are. plain or repulsive: trained on the same events. bootstrap: each on its own
resampled events. bayesian: draws of the weights."""

FEWEST = 10  # events that a region needs, and outside of it
FEWEST_REFERENCE = 100  # true events that a distance means something for
COMPARED = 1000  # first events of each sample that are searched for copies
MOST_TIES = COPIES / 4  # more equal rows in one sample make equal ones in two an accident


class Inputs(NamedTuple):
    """Samples that fit together, see `check_inputs`.

    Attributes:
      train: training events.
      held_out: true events that the generator has not seen, None if there are none.
      members: generated events, one array or file a member, read when needed.
      labels: what messages call the members.
      kind: what the members are.
      names: of the columns.
      column: index of the one that regions are in.
      regions: [low, high) of those asked for, then of the quantiles of the training events.
      num_regions: how many were asked for; the rest are quantiles.
      num_train: events that each member was trained on.
      num_gen: generated events of each member that are used, as many as the smallest one has.
      per_decade: points of scans over generated events, from 100 on.
      ties: share of training events that are there twice or more; near zero for real numbers.
      correlation: of numbers at the same place of two members, mean over pairs, largest of all
        columns; zero where it may be an accident. It should be: see `Forecast.verdict`.
    """

    train: Float[np.ndarray, "n_train d"]
    held_out: Float[np.ndarray, "n_ref d"] | None
    members: tuple[Events, ...]
    labels: tuple[str, ...]
    kind: Kind
    names: tuple[str, ...]
    column: int
    regions: Float[np.ndarray, "regions 2"]
    num_regions: int
    num_train: int
    num_gen: int
    per_decade: int
    ties: float
    correlation: float

    @property
    def reference(self) -> Float[np.ndarray, "n d"]:
        """True events that distances are to."""
        return self.train if self.held_out is None else self.held_out

    @property
    def sizes(self) -> Int[np.ndarray, " sizes"]:
        """Numbers of generated events of the scans."""
        return prefix_sizes(self.num_gen, min(100, self.num_gen), self.per_decade)

    def generated(self, index: int, stop: int | None = None) -> Float[np.ndarray, "num d"]:
        """The first events of a member, all that are used unless `stop` is given.

        Raises:
          ValueError: if a number is not finite; names it.
        """
        stop = self.num_gen if stop is None else min(stop, self.num_gen)
        return _read(self.labels[index], self.members[index], self.names, stop)


def check_inputs(
    train: Events,
    held_out: Events | None,
    members: Sequence[Events] | np.ndarray,
    *,
    kind: Kind = "unknown",
    region: Sequence = (),
    quantiles: int = 0,
    column: int | str = 0,
    names: Sequence[str] = (),
    num_train: int | None = None,
    per_decade: int = 5,
) -> Inputs:
    """Read the true events and a few of each member, and refuse what cannot be forecast.

    Arguments are those of `jgen.amplification.forecast`.

    Raises:
      ValueError: if samples or options are not usable or do not fit together; says what to do.
    """
    members = tuple(members)
    _check_options(kind, members, quantiles, per_decade)
    true = {_label(train, "train"): train}
    if held_out is not None:
        true[_label(held_out, "held_out")] = held_out
    labels = tuple(_label(events, f"members[{i}]") for i, events in enumerate(members))
    if len({*true, *labels}) != 1 + (held_out is not None) + len(members):
        raise ValueError(f"a file is given twice: {', '.join([*true, *labels])}")
    everything = true | dict(zip(labels, members, strict=True))
    shapes = {label: _shape(label, events) for label, events in everything.items()}
    names = _names(shapes, names)
    column = _column(column, names)
    asked = _pairs(region)
    train, *rest = (_read(label, events, names) for label, events in true.items())
    num_train = len(train) if num_train is None else num_train
    _check_numbers(shapes, list(true)[-1], labels, num_train)
    inputs = Inputs(
        train=train,
        held_out=rest[0] if rest else None,
        members=members,
        labels=labels,
        kind=kind,
        names=names,
        column=column,
        regions=_regions(asked, train[:, column], quantiles),
        num_regions=len(asked),
        num_train=num_train,
        num_gen=min(shapes[label][0] for label in labels),
        per_decade=per_decade,
        ties=1 - len(np.unique(row_keys(train))) / len(train),
        correlation=0.0,
    )
    starts = [inputs.generated(i, COMPARED) for i in range(len(members))]
    _check_copies(inputs, list(true), starts)
    if len(asked):
        _check_filled(inputs, inputs.generated(0)[:, column])
    return inputs._replace(correlation=_correlation(starts))


def _check_options(kind, members, quantiles, per_decade):
    if kind not in get_args(Kind):
        raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
    if not members:
        raise ValueError("there are no members: give one array of generated events for each")
    if quantiles < 0 or quantiles == 1:
        raise ValueError(
            "one quantile region holds everything; take two or more, or 0 for none"
            if quantiles == 1
            else f"quantiles must be at least 0, got {quantiles}"
        )
    if per_decade < 1:
        raise ValueError(f"per_decade must be at least 1, got {per_decade}")


def _label(events, name):
    """What messages call a sample: its file if it is one."""
    return str(events) if hasattr(events, "path") else name


def _shape(label, events) -> tuple[int, int]:
    """(events, columns) of what may be a file."""
    shape = np.shape(events) if not hasattr(events, "shape") else tuple(events.shape)
    if len(shape) not in (1, 2) or 0 in shape:
        raise ValueError(
            f"{label} has the shape {shape}; it must be [events] or [events, columns], not empty"
        )
    return shape if len(shape) == 2 else (*shape, 1)


def _names(shapes, names) -> tuple[str, ...]:
    """The names of the columns, of which all samples have as many."""
    (first, (_, num)), *rest = shapes.items()
    for label, shape in rest:
        if shape[1] != num:
            raise ValueError(
                f"{label} has {shape[1]} columns and {first} {num}: all samples need the same "
                "columns in the same order, and members are a list with one array for each"
            )
    names = tuple(names) or tuple(f"column {i}" for i in range(num))
    if len(names) != num or len(set(names)) != num:
        raise ValueError(f"{num} columns need as many different names, got {names}")
    if "classifier" in names:
        raise ValueError("a column cannot be called classifier, which names the likelihood ratio")
    return names


def _column(column, names) -> int:
    """The number of a column that may be given by its name."""
    known = dict(zip(names, range(len(names)), strict=True))
    number = known.get(column, column)
    if number not in known.values():
        raise ValueError(
            f"column must be one of {', '.join(names)}, or a number below {len(names)}, got "
            f"{column!r}"
        )
    return number


def _pairs(region) -> Float[np.ndarray, "regions 2"]:
    """Regions of one pair or several."""
    pairs = np.asarray(region, np.float64)
    if pairs.size % 2 or not np.all((pairs := pairs.reshape(-1, 2))[:, 0] < pairs[:, 1]):
        raise ValueError(f"a region needs low < high, two numbers for each, got {region}")
    return pairs


def _check_numbers(shapes, reference, labels, num_train):
    """Refuse samples that are too small to say anything."""
    if num_train < 1:
        raise ValueError(f"num_train must be at least 1, got {num_train}")
    smallest = min(labels, key=lambda label: shapes[label][0])
    if shapes[smallest][0] < num_train:
        raise ValueError(
            f"{smallest} has {shapes[smallest][0]} events, fewer than the {num_train} of training: "
            "what they are worth cannot show. Generate at least ten times as many as were trained "
            "on; members are a list with one array for each"
        )
    if shapes[reference][0] < FEWEST_REFERENCE:
        raise ValueError(
            f"{reference} has {shapes[reference][0]} events; a distance to them says nothing below "
            f"{FEWEST_REFERENCE}"
        )


def _read(label, events, names, stop=None):
    """Rows [num, d] with contiguous columns; single precision stays, the rest becomes double."""
    rows = real_array(events[:stop], label)
    dtype = np.float32 if rows.dtype in (np.float16, np.float32) else np.float64
    rows = np.asarray(rows.reshape(len(rows), -1), dtype, order="F")
    finite = np.isfinite(rows)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise ValueError(
            f"{label}: {names[column]} of event {row} is {rows[row, column]}; repair or drop such "
            "events in all samples alike"
        )
    return rows


def _regions(asked, column, quantiles):
    """Edges of the regions asked for, then of the quantiles of the training events."""
    if not quantiles:
        return asked
    if len(column) < FEWEST * quantiles:
        raise ValueError(
            f"{len(column)} training events are too few for {quantiles} quantiles; take "
            f"{len(column) // FEWEST} or fewer"
        )
    edges = sample_quantile_edges(column, quantiles)
    return np.concatenate([asked, np.stack([edges[:-1], edges[1:]], axis=1)])


def _check_filled(inputs, generated):
    """Refuse regions that no fraction can be estimated in; one member is enough to see them."""
    train = inputs.train[:, inputs.column]
    for low, high in inputs.regions[: inputs.num_regions]:
        inside = int(np.sum((generated >= low) & (generated < high)))
        known = int(np.sum((train >= low) & (train < high)))
        if FEWEST <= inside <= len(generated) - FEWEST:
            continue
        raise ValueError(
            f"{inside} of {len(generated)} generated and {known} of {len(train)} training events "
            f"have {inputs.names[inputs.column]} in [{low:g}, {high:g}); at least {FEWEST} "
            f"generated ones must be inside and outside: choose a region within {train.min():g} to "
            f"{train.max():g}, or generate more"
        )


def _check_copies(inputs, true_labels, starts):
    """Refuse samples of which most events are the same at the same place, and known held-out ones.

    So a copy is noticed though a few numbers were changed, or some of it was cut off.
    """
    if inputs.held_out is not None:
        check_disjoint({"": inputs.train}, {"": inputs.held_out}, tuple(true_labels))
    true = [inputs.train] if inputs.held_out is None else [inputs.train, inputs.held_out]
    labels, samples = [*true_labels, *inputs.labels], [*true, *starts]
    num = min(COMPARED, *map(len, samples))
    keys = np.stack([row_keys(rows[:num]) for rows in samples])
    for i in range(1, len(keys)):
        same = np.mean(keys[:i] == keys[i], axis=1)
        # What chance does to whole numbers shows one place further on.
        chance = np.mean(keys[:i] == np.roll(keys[i], 1), axis=1)
        if np.any(bad := same > (1 + chance) / 2):
            raise ValueError(
                f"{labels[i]} and {labels[int(np.argmax(bad))]} hold the same events; held-out "
                "events must be others than those of training, and each member needs its own "
                "parameters and random numbers"
            )
    _check_shuffled(inputs)


def _check_shuffled(inputs):
    """Refuse members that hold most of another one's events in another order.

    Of each the events with the smallest keys are compared: a copy has the same, whatever the order.
    """
    train, members = row_keys(inputs.train), []
    for i in range(len(inputs.members)):
        keys = row_keys(inputs.generated(i))
        num = min(COMPARED, len(keys) - 1)
        keys = np.partition(keys, num)[:num]
        # A generator that gives its training events back is a finding and no mistake of files,
        # and whole numbers are the same by accident.
        own = np.unique(keys[~np.isin(keys, train)])
        members.append(own if repeated_share(keys) < COPIES else own[:0])
    shared, counts = np.unique(np.concatenate(members), return_counts=True)
    shared = shared[counts > 1]
    for i, keys in enumerate(members):
        if len(keys) < FEWEST or np.isin(keys, shared).mean() < 0.5:
            continue
        shares = [np.isin(keys, other).mean() for other in members[:i]]
        if shares and max(shares) > 0.5:
            raise ValueError(
                f"{inputs.labels[i]} and {inputs.labels[int(np.argmax(shares))]} hold the same "
                "events in another order; each member needs its own parameters and random numbers"
            )


def _correlation(starts) -> float:
    """Mean correlation of two members' numbers at the same place, zero if it may be an accident."""
    count, (num, _) = len(starts), starts[0].shape
    if count < 2:
        return 0.0
    x = np.stack(starts).astype(np.float64)
    x = (x - x.mean(axis=1, keepdims=True)) / np.maximum(x.std(axis=1, keepdims=True), 1e-300)
    # The sum of all members has the variance M + M (M - 1) r.
    r = (np.mean(x.sum(axis=0) ** 2, axis=0) - count) / (count * (count - 1))
    accident = 5 * (2 / (count * (count - 1) * num)) ** 0.5
    return float(np.max(r)) if np.max(r) > max(accident, 0.05) else 0.0

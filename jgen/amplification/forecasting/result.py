"""The forecast: from arrays, or files, to what generated events are worth (arXiv:2509.08048)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jgen.amplification.forecasting.estimates import (
    Selection,
    Statistic,
    selections,
    statistics,
)
from jgen.amplification.forecasting.inputs import Events, Inputs, Kind, check_inputs
from jgen.amplification.forecasting.measure import Classifiers, Measured, measure_member
from jgen.amplification.forecasting.verdict import verdict
from jgen.typing import Key

NO_CLASSIFIERS = Classifiers(members=0)


class Forecast(NamedTuple):
    """What generated events are worth; printed as text.

    Attributes:
      inputs: samples and regions.
      averaging: of regions, from the spread of members: region_1, ..., regions together;
        quantiles, quantiles_inner without the outer two, quantile_lowest, quantile_2, ...,
        quantile_highest. Empty for one member. Each has `n_equiv` and `amplification`.
      differential: of each column and "classifier", from distances of whole distributions; to the
        training events, and not to be quoted, where there are no held-out ones.
      copies: shares of generated events that are training and held-out events, number for number.
    """

    inputs: Inputs
    averaging: dict[str, Selection]
    differential: dict[str, Statistic]
    copies: tuple[float, float]

    def __str__(self) -> str:
        """The verdict."""
        return self.verdict

    @property
    def verdict(self) -> str:
        """What the numbers mean, and what they do not, in plain words."""
        return verdict(self.inputs, self.averaging, self.differential, self.copies)

    def metrics(self) -> dict[str, float]:
        """Flat numbers; those that are infinite are left out, their lower limits are there.

        For each region SELECTION, from the spread of members:

        G/SELECTION, n_equiv/SELECTION     with _low and _high
        share/SELECTION                    of generated events, share_train of training events
        pull/SELECTION                     of the members' mean against held-out events
        n_confirmed/SELECTION              lower limit from held-out events alone

        and for each column and "classifier":

        G_ks/NAME, n_equiv_ks/NAME         from distances to held-out events, with _low and _high
        G_uncalibrated/NAME, ...           in their place, where there are none
        distance/NAME, distance_spread     mean over members and standard deviation
        probability/NAME                   of so small a distance if the generator were perfect
        """
        numbers = {
            "num_train": self.inputs.num_train,
            "num_generated": self.inputs.num_gen,
            "num_members": len(self.inputs.members),
            "num_held_out": 0 if self.inputs.held_out is None else len(self.inputs.held_out),
            "copies/train": self.copies[0],
            "copies/held_out": self.copies[1],
        }
        for name, one in self.averaging.items():
            numbers |= _both("", name, one)
            numbers |= {f"share/{name}": one.share, f"share_train/{name}": one.share_train}
            if one.pull is not None:
                numbers |= {f"pull/{name}": one.pull, f"n_confirmed/{name}": one.confirmed}
        kind = "_uncalibrated" if self.inputs.held_out is None else "_ks"
        for name, one in self.differential.items():
            numbers |= _both(kind, name, one)
            numbers[f"distance/{name}"] = one.distances[:, -1].mean()
            numbers[f"probability/{name}"] = one.probability
            if len(one.distances) > 1:
                numbers[f"distance_spread/{name}"] = one.distances[:, -1].std(ddof=1)
        return {name: float(value) for name, value in numbers.items() if np.isfinite(value)}


def forecast(
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
    classifiers: Classifiers = NO_CLASSIFIERS,
    key: Key | None = None,
    per_decade: int = 5,
    cached: Callable[[str, Callable[[], Measured]], Measured] = lambda name, compute: compute(),
) -> Forecast:
    """What generated events are worth, in regions and at full resolution.

        result = forecast(train, held_out, members, kind="bootstrap", region=(0.8, 0.9))
        print(result)
        result.averaging["region_1"].amplification      # G with its interval
        jgen.plotting.forecast_figures(result)["variances"]

    Samples are arrays [events] or [events, columns], or what gives such when it is sliced, such as
    memory maps, HDF5 datasets and `jgen.tables.open_table(path)`; of those one member at a time is
    read.

    Args:
      train: events that the generator was trained on.
      held_out: true events that neither the generator nor its selection has seen; None compares
        with the training events, which flatter it.
      members: generated events in the order they were drawn, or shuffled, of each member of an
        ensemble, or of each draw of Bayesian weights: a list, or one array [members, events, ...].
        Of each as many are used as the smallest has, which should be ten n_train or more.
      kind: what the members are, "bootstrap", "plain", "repulsive" or "bayesian"; what their
        spread means hangs on it.
      region: low <= value < high, one pair or several; -inf and inf are allowed.
      quantiles: regions of equally many training events; 0 for none.
      column: number or name of the column that regions and quantiles are in.
      names: of the columns.
      num_train: events that each member was trained on, if not all of `train`.
      classifiers: whether and how classifiers learn a likelihood ratio from all columns.
      key: typed PRNG key, needed for classifiers.
      per_decade: points of the scans over generated events, from 100 on.
      cached: (name, compute) -> what compute() gives; `RunFolder.cached` keeps the numbers of
        members that are done.

    Raises:
      ValueError: if samples or options are not usable or do not fit together: shapes, numbers that
        are not finite, too few events, empty regions, sorted events, members or held-out events
        that are copies.
    """
    classifiers.check()
    if classifiers.members and key is None:
        raise ValueError("classifiers need a key: give forecast(..., key=jax.random.key(0))")
    inputs = check_inputs(
        train,
        held_out,
        members,
        kind=kind,
        region=region,
        quantiles=quantiles,
        column=column,
        names=names,
        num_train=num_train,
        per_decade=per_decade,
    )
    measured = [
        cached(f"members/{i:04d}", lambda i=i: measure_member(inputs, i, classifiers, key))
        for i in range(len(inputs.members))
    ]
    copies = np.mean([one.copies for one in measured], axis=0)
    return Forecast(
        inputs,
        selections(inputs, measured),
        statistics(inputs, measured),
        (float(copies[0]), float(copies[1])),
    )


def _both(kind: str, name: str, one: Selection | Statistic) -> dict[str, float]:
    """n_equiv and G with their ends."""
    numbers = {}
    for number, interval in (("n_equiv", one.n_equiv), ("G", one.amplification)):
        ends = zip(("", "_low", "_high"), interval, strict=True)
        numbers |= {f"{number}{kind}/{name}{end}": value for end, value in ends}
    return numbers

"""Models times data sets: training, judgement, metrics and tables of the studies of them."""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optax
from jaxtyping import Float

from experiments.models.data import TOYS, DataSet, make_data
from experiments.models.zoo import SKIPPED, TEACHERS
from experiments.study import Run, at_least, metric_table
from jgen import Batch, GenerativeModel, Judged, OptimizerConfig, TrainConfig, plotting
from jgen.nets import num_parameters
from jgen.training import Fitted
from jgen.training.timing import timed_draw, timed_log_densities
from jgen.transforms import dequantized

TITLES = {
    "nll": "NLL [nats], VAE: bound",
    "gap": "NLL - truth or mixture",
    "w1": "W1 [std]",
    "sw1": "sliced W1 [std]",
    "auc": "AUC of a classifier",
    "ms_sample": "ms an event",
    "ms_log_prob": "ms a log_prob",
    "calls": "network calls an event",
    "train_s": "training [s]",
    "parameters": "parameters",
}
"""Headings of the tables by kind of metrics."""
JETS = (
    ("Jet $p_T$ [GeV]", np.linspace(500, 1000, 26)),
    ("Jet mass [GeV]", np.linspace(0, 300, 31)),
    (r"$\tau_{21}$", np.linspace(0, 1.1, 23)),
    (r"$\tau_{32}$", np.linspace(0.2, 1.1, 19)),
)
"""Label and bins of the features of the jets."""


def training(steps: int, batch_size: int, rate: float, **options: Any) -> TrainConfig:
    """A training with a learning rate; `options` are those of its optimiser and its own."""
    own = {field.name for field in dataclasses.fields(TrainConfig)}
    optimizer = {name: options.pop(name) for name in set(options) - own}
    return TrainConfig(steps, batch_size, optimizer=OptimizerConfig(rate, **optimizer), **options)


@dataclass(frozen=True)
class Comparison(abc.ABC):
    """Models times data sets; a study says in a subclass which models, and how they are judged.

    It has the fields `toys`, `jets` and `digits`, each with a method `training(family)`.
    """

    data: tuple[str, ...]
    """Data sets."""
    families: tuple[str, ...]
    """Families."""
    num_train: int = 50_000
    """Training events of a toy, and at most of the jets; there are 1294 digits for it."""
    num_test: int = 10_000
    """Test events of a toy, and at most of the jets; of the digits 360, each with five noises."""
    num_draw: int = 10_000
    """Events drawn from each model; not more than there are training events are compared."""
    seed: int = 0
    """Seed of everything random."""

    def check(self) -> None:
        """Refuse bad options."""
        at_least(self, num_train=1000, num_test=100, num_draw=100)
        if not self.names:
            raise ValueError(
                "nothing to train: data and families must name at least one each, of which Glow is "
                "for digits, and IAF and residual flow are not trained on them"
            )

    @property
    def names(self) -> list[str]:
        """The data sets that there is a family for."""
        return [name for name in self.data if self.families_of(name)]

    def families_of(self, name: str) -> list[str]:
        """The families that are trained on a data set."""
        return [family for family in self.families if (family, name) not in SKIPPED]

    def of(self, name: str) -> Any:
        """Options of a data set."""
        return self.toys if name in TOYS else getattr(self, name)

    @abc.abstractmethod
    def model(self, family: str, name: str, **options: Any) -> GenerativeModel:
        """A model in the data's own units: with `judged`, as it is judged, else to be trained.

        A family that is distilled has also the parameters of its `teacher`.
        """

    @abc.abstractmethod
    def distances(self, run: Run, name: str, samples: Float[np.ndarray, "n d"]) -> dict:
        """Distances of a sample to the test events, name -> estimate."""

    def optimizer(self, family: str, name: str) -> optax.GradientTransformation | None:
        """The optimiser of a family; None is that of its training."""
        return None

    def baselines(self, data: DataSet) -> dict[str, Float[np.ndarray, " n"]]:
        """Log-densities of test events where no truth is known; gaps are to the last of them."""
        return {}

    def points(self, data: DataSet) -> Float[np.ndarray, "m d"]:
        """Where models say their log-densities: the test events first."""
        return data.test


def build(config: Comparison) -> dict[str, GenerativeModel]:
    """All models, by family and data set."""
    pairs = [(family, name) for name in config.names for family in config.families_of(name)]
    return {f"{family} {name}": config.model(family, name) for family, name in pairs}


def train(config: Comparison, run: Run, name: str, family: str) -> Fitted:
    """Train a family; one that is distilled after its teacher on the same data."""
    data, how, options = make_data(config, name), config.of(name).training(family), {}
    if family in TEACHERS:
        options = {"teacher": train(config, run, name, TEACHERS[family]).one}
    model = config.model(family, name, **options)
    return run.fit(
        f"{name}/{family}",
        model if data.levels is None else dequantized(model, data.levels),
        Batch(data.train),
        how,
        key=run.key(f"{name} {family}"),
        validation=Batch(data.validation) if how.keep == "best" else None,
        optimizer=config.optimizer(family, name),
    )


def results(config: Comparison, run: Run, name: str) -> dict[str, dict[str, Any]]:
    """Of "truth" and of every family on a data set: samples, log-densities, distances and times.

    The truth has the training events for samples, and the `baselines` of the likelihood.
    """
    data = make_data(config, name)

    def truth():
        samples = data.once(data.train)[: config.num_draw]
        baselines = {"truth": data.log_prob(data.test)} if data.exact else config.baselines(data)
        distances = config.distances(run, name, samples)
        return {"samples": samples, "distances": distances, "baselines": baselines}

    def judge(family):
        fitted, model = train(config, run, name, family), config.model(family, name, judged=True)
        key = run.key(f"judge {name} {family}")
        result = {"train_s": fitted.seconds}
        drawn = timed_draw(model, fitted.one, key, config.num_draw)
        result["samples"], result["ms_sample"] = drawn
        result["distances"] = config.distances(run, name, result["samples"])
        if model.log_prob is not None:
            densities = timed_log_densities(model, fitted.one, key, config.points(data))
            result["log_prob"], result["ms_log_prob"] = densities
        return result

    return {"truth": run.cached(f"{name}/truth", truth)} | {
        family: run.cached(f"{name}/{family}/results", judge, family)
        for family in config.families_of(name)
    }


def compute(config: Comparison, run: Run) -> dict[str, Any]:
    """Train all families on all data sets and judge them. With f for a family, d for a data set.

    nll/f/d             mean of -log q over the test events, in nats and in the data's own units
    entropy/d           of a toy: the best that can be, by quadrature
    truth/d             of a toy: -log p over the same test events
    gap/f/d             nll minus truth, or minus a mixture where the study has one, event by event:
                        of toys an estimate of the Kullback-Leibler divergence, with a far smaller
                        error than the NLL
    DISTANCE/f/d        to the test events; the truth's is that of training events, as many
    ms_sample/f/d, ms_log_prob/f/d      milliseconds an event in batches of 1000, compiled before
    train_s/f/d         seconds with compilation, of what is distilled without its teacher's
    parameters/f/d
    """
    metrics = {}
    for name in config.names:
        data, each = make_data(config, name), results(config, run, name)
        truth = each.pop("truth")
        if data.exact:
            metrics[f"entropy/{name}"] = data.exact[0]
        for kind, log_prob in truth["baselines"].items():
            metrics[f"{kind}/{name}"], baseline = data.mean(-log_prob), log_prob
        for family, result in each.items():
            values = {"parameters": num_parameters(config.model(family, name).init)}
            values |= {k: result[k] for k in ("ms_sample", "ms_log_prob", "train_s") if k in result}
            for kind, value in result["distances"].items():
                values[kind] = Judged(value, truth["distances"][kind])
            if "log_prob" in result:
                log_prob = result["log_prob"][: len(data.test)]
                values["nll"] = data.mean(-log_prob)
                if truth["baselines"]:
                    values["gap"] = data.mean(baseline - log_prob)
            metrics |= {f"{kind}/{family}/{name}": value for kind, value in values.items()}
    return metrics


def tables(metrics: Mapping[str, Any], columns: Sequence[str], titles: Mapping[str, str]) -> str:
    """A table for each kind of metrics KIND/FAMILY/COLUMN, a row for each family.

    The truth that stands beside a metric has a row of its own, and so has in the first table what
    belongs to no family, KIND/COLUMN.

    Args:
      metrics: name -> number or estimate.
      columns: such as data sets.
      titles: kind -> heading.
    """
    apart, rows = {}, {kind: {} for kind in titles}
    for name, value in metrics.items():
        kind, _, rest = name.partition("/")
        family, _, column = rest.rpartition("/")
        if column not in columns or (family and kind not in titles):
            continue
        if isinstance(value, Judged):
            apart[f"{kind}/truth/{column}"], value = value.truth, value.value
            rows[kind]["truth"] = f"{kind}/truth"
        apart[name] = value
        table = rows[kind] if family else next(iter(rows.values()))
        table[family or kind] = f"{kind}/{family}" if family else kind
    return "\n\n".join(
        metric_table(apart, columns, rows[kind], title=title)
        for kind, title in titles.items()
        if rows[kind]
    )


def jet_figure(reference: Float[np.ndarray, "n 4"], samples: Mapping[str, np.ndarray]) -> Any:
    """Histograms of all features of the jets, of samples [m, 4]."""
    panels = [
        plotting.Panel(
            edges,
            reference[:, i],
            {family: events[:, i] for family, events in samples.items()},
            xlabel,
            reference_label="Pythia 8",
        )
        for i, (xlabel, edges) in enumerate(JETS)
    ]
    return plotting.histogram_grid(panels, num_columns=2)

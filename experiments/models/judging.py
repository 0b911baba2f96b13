"""Training, judgement and tables of models times data sets, the same for all of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.models.data import DataSet
from experiments.study import Run, metric_table
from jgen import Batch, GenerativeModel, Judged, TrainConfig
from jgen.nets import num_parameters
from jgen.training import Fitted
from jgen.training.timing import timed_draw, timed_log_densities
from jgen.transforms import dequantized
from jgen.typing import Params


def train(
    run: Run,
    name: str,
    family: str,
    model: GenerativeModel,
    training: TrainConfig,
    data: DataSet,
    **options: Any,
) -> Fitted:
    """A training of the run, in the folder DATA/FAMILY; `options` are those of `jgen.fit`."""
    return run.fit(
        f"{name}/{family}",
        model if data.levels is None else dequantized(model, data.levels),
        Batch(data.train),
        training,
        key=run.key(f"{name} {family}"),
        validation=Batch(data.validation) if training.keep == "best" else None,
        **options,
    )


def judge(
    run: Run,
    name: str,
    family: str,
    model: GenerativeModel,
    params: Params,
    num_draw: int,
    points: Float[np.ndarray, "n dim"],
) -> dict[str, Any]:
    """Samples [num_draw, dim], log_prob [n] of the points if there is one, ms_... an event."""
    key = run.key(f"judge {name} {family}")
    samples, ms_sample = timed_draw(model, params, key, num_draw)
    result = {"samples": samples, "ms_sample": ms_sample}
    if model.log_prob is not None:
        result["log_prob"], result["ms_log_prob"] = timed_log_densities(model, params, key, points)
    return result


def metrics_of(
    where: str,
    data: DataSet,
    result: Mapping[str, Any],
    baseline: Float[np.ndarray, " n"] | None,
    model: GenerativeModel,
) -> dict[str, Any]:
    """Likelihood and cost of one model, with FAMILY/DATA in the place of `where`.

    nll and, event by event over the baseline's log-densities, gap [nats]; times and parameters.
    """
    metrics = {}
    if "log_prob" in result:
        metrics[f"nll/{where}"] = data.mean(-result["log_prob"])
        if baseline is not None:
            metrics[f"gap/{where}"] = data.mean(baseline - result["log_prob"])
    for kind in {"ms_sample", "ms_log_prob", "train_s"} & set(result):
        metrics[f"{kind}/{where}"] = result[kind]
    return metrics | {f"parameters/{where}": num_parameters(model.init)}


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

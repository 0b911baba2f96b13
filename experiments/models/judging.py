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


def likelihood_metrics(
    where: str, data: DataSet, result: Mapping[str, Any], baseline: np.ndarray | None
) -> dict[str, Any]:
    """nll/FAMILY/DATA and, event by event over the baseline's, gap/FAMILY/DATA [nats]."""
    if "log_prob" not in result:
        return {}
    metrics = {f"nll/{where}": data.mean(-result["log_prob"])}
    if baseline is not None:
        metrics[f"gap/{where}"] = data.mean(baseline - result["log_prob"])
    return metrics


def cost_metrics(where: str, result: Mapping[str, Any], model: GenerativeModel) -> dict[str, Any]:
    """Milliseconds an event, seconds of training and parameters."""
    kinds = [kind for kind in ("ms_sample", "ms_log_prob", "train_s") if kind in result]
    return {f"{kind}/{where}": result[kind] for kind in kinds} | {
        f"parameters/{where}": num_parameters(model.init)
    }


def with_truth_apart(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics KIND/FAMILY/REST beside a truth as two, the truth's as KIND/truth/REST."""
    apart = {}
    for name, value in metrics.items():
        if isinstance(value, Judged):
            kind, _, rest = name.split("/")
            apart[f"{kind}/truth/{rest}"] = value.truth
        apart[name] = value.value if isinstance(value, Judged) else value
    return apart


def tables(
    metrics: Mapping[str, Any],
    columns: Sequence[str],
    families: Sequence[str],
    kinds: Mapping[str, str | tuple[str, Mapping[str, str]]],
) -> str:
    """A table for each kind of metrics, a row for each family.

    Args:
      metrics: name -> number or estimate.
      columns: data sets.
      families: rows.
      kinds: heading -> kind, or the pair of it and of rows that come first, label -> metric.
    """
    parts = []
    for title, kind in kinds.items():
        kind, first = (kind, {}) if isinstance(kind, str) else kind
        rows = {**first, **{family: f"{kind}/{family}" for family in families}}
        parts.append(metric_table(metrics, columns, rows, title=title))
    return "\n\n".join(parts)

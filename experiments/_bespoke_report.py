"""Table and figures of the study of solvers."""

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from jgen.plotting import Curve, quality_curves

RUNGE_KUTTA = ("euler", "midpoint", "kutta38")
BESPOKE = {"bns_gte": "global", "bns_lte": "local"}
TITLES = {
    "energy": {
        "rmse": "RMSE of $u$ to the fine solution",
        "separation": "Separation of layer energies",
        "wasserstein": r"$W_1$ of layer energies [MeV]",
    },
    "shape": {
        "rmse": "RMSE to the fine solution",
        "auc_high": "AUC high",
        "auc_low": "AUC low",
        "fpd": "Frechet physics distance",
    },
}


def print_table(n_evals: dict[str, tuple[int, ...]], metrics: dict[str, float]) -> None:
    """One row a metric and solver, one column an n_eval."""
    for part, titles in TITLES.items():
        columns = n_evals[part]
        print(f"{part + ' network, n_eval':<28}" + "".join(f"{n:>10}" for n in columns))
        for metric in (*titles, "ms"):
            for name in (*RUNGE_KUTTA, *BESPOKE):
                values = [metrics.get(f"{part}/{metric}/{name}/{n}") for n in columns]
                if None not in values:
                    row = f"{metric} {name}"
                    print(f"{row:<28}" + "".join(f"{v:>10.4g}" for v in values))


def figures(
    n_evals: dict[str, tuple[int, ...]], metrics: dict[str, float]
) -> Iterator[tuple[str, Figure]]:
    """Names and figures: each metric against n_eval, and against the time of a shower."""
    for part, titles in TITLES.items():
        columns, time_label = np.array(n_evals[part]), f"Time of the {part} network [ms / shower]"
        for metric, title in titles.items():
            if f"{part}/{metric}/euler/{columns[0]}" not in metrics:
                continue
            truth = metrics.get(f"{part}/{metric}_truth")
            if truth is not None:
                truth = (truth, metrics.get(f"{part}/{metric}_error_truth", 0.0))
            for suffix, xlabel in (("", {}), ("_time", {"xlabel": time_label})):
                curves = {
                    name: _curve(metrics, part, metric, name, columns, bool(suffix))
                    for name in (*RUNGE_KUTTA, *BESPOKE)
                }
                # Distances that are zero, as those of few showers may be, have no logarithm.
                lowest = min(curve.value.min() for curve in curves.values())
                log_y = not metric.startswith("auc") and bool(lowest > 0)
                yield (
                    f"{part}_{metric}{suffix}",
                    quality_curves(curves, title, truth=truth, log_y=log_y, **xlabel),
                )


def _curve(metrics, part, metric, name, columns, against_time) -> Curve:
    read = lambda what: np.array([metrics[f"{part}/{what}/{name}/{n}"] for n in columns])
    has_error = f"{part}/{metric}_error/{name}/{columns[0]}" in metrics
    return Curve(
        read("ms") if against_time else columns,
        read(metric),
        read(f"{metric}_error") if has_error else None,
    )

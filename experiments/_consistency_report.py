"""Table and figures of the study of consistency models."""

from collections.abc import Iterator, Mapping

import numpy as np
from matplotlib.figure import Figure

from jgen.plotting import Curve, histogram_grid, observable_panel, quality_curves
from jgen.showers import Geometry

LABELS = {
    "E_tot": r"$E_\mathrm{tot}/E_\mathrm{inc}$",
    "E_layer": r"$E_\mathrm{layer}$",
    "EC_eta": r"$\langle\eta\rangle$",
    "EC_phi": r"$\langle\phi\rangle$",
    "EC_r": r"$\langle r\rangle$",
    "width_eta": r"$\sigma_\eta$",
    "width_phi": r"$\sigma_\phi$",
    "width_r": r"$\sigma_r$",
    "sparsity": r"sparsity $\lambda$",
    "depth": r"depth $d_r$",
    "E_voxel": r"$\log_{10} E_\mathrm{voxel}$",
}
_TIME = "Time [ms / shower]"


def print_table(rows: tuple[str, ...], metrics: Mapping[str, float]) -> None:
    """One line a sampler: time, then its distances over those of truth against truth."""
    print(f"{'W1 / W1 of truth':<18}{'ms':>9}" + "".join(f"{n:>10}" for n in LABELS))
    for row in rows:
        ratios = [metrics[f"w1/{row}/{n}"] / metrics[f"w1/truth/{n}"] for n in LABELS]
        time = metrics[f"ms_per_shower/{row}"]
        print(f"{row:<18}{time:>9.3g}" + "".join(f"{r:>10.3g}" for r in ratios))
    for name, value in metrics.items():
        if name.startswith(("speedup", "largest_w1_ratio", "auc")):
            print(f"{name:<32}{value:>10.4g}")


def figures(
    geometry: Geometry,
    rows: tuple[str, ...],
    metrics: Mapping[str, float],
    samples: Mapping[str, Mapping[str, np.ndarray]],
) -> Iterator[tuple[str, Figure]]:
    """Names and figures.

    Args:
      geometry: of the showers.
      rows: the samplers, METHOD/CALLS.
      metrics: of the study.
      samples: label -> observables, the truth first.
    """
    panels = {
        label: {method: _curve(metrics, rows, method, name) for method in _methods(rows)}
        for name, label in LABELS.items()
    }
    yield (
        "w1_time",
        quality_curves(
            panels, "$W_1$ / $W_1$ of truth", xlabel=_TIME, truth=1.0, log_y=True, num_columns=4
        ),
    )
    judged = [row for row in rows if f"auc/{row}" in metrics]
    if judged:
        curves = {m: _auc(metrics, judged, m) for m in _methods(judged)}
        truth = metrics["auc/truth"], metrics["auc_error/truth"]
        yield (
            "auc_time",
            quality_curves(curves, "AUC of high-level features", xlabel=_TIME, truth=truth),
        )
    truth, *others = samples
    layer = 4 * geometry.num_layers // 9
    names = ("E_tot", "E_layer", "EC_r", "width_eta", "width_r", "sparsity")
    made = {label: samples[label] for label in others}
    yield (
        "observables",
        histogram_grid(
            [observable_panel(geometry, samples[truth], made, name, layer) for name in names]
        ),
    )


def _methods(rows):
    return dict.fromkeys(row.partition("/")[0] for row in rows)


def _of(rows, method):
    return [row for row in rows if row.startswith(f"{method}/")]


def _curve(metrics, rows, method, name):
    truth = metrics[f"w1/truth/{name}"]
    read = lambda key: np.array([metrics[key.format(row)] for row in _of(rows, method)])
    return Curve(
        read("ms_per_shower/{}"),
        read(f"w1/{{}}/{name}") / truth,
        read(f"w1/{{}}/{name}_error") / truth,
    )


def _auc(metrics, rows, method):
    read = lambda key: np.array([metrics[key.format(row)] for row in _of(rows, method)])
    return Curve(read("ms_per_shower/{}"), read("auc/{}"), read("auc_error/{}"))

"""Numbers, tables and figures of the flow study."""

from collections.abc import Mapping

import jax
import numpy as np

from experiments._flows import (
    SKIPPED,
    Config,
    density_points,
    judged_model,
    mean_wasserstein,
)
from experiments._flows_data import DataName, DataSet
from experiments._judging import events_mean, table_block
from jgen.nets import num_parameters
from jgen.plotting import (
    Panel,
    density_pictures,
    histogram_grid,
    image_rows,
    likelihood_chart,
    save,
)
from jgen.training import RunFolder

Results = Mapping[str, Mapping[str, np.ndarray]]
"""Family -> what `train_and_judge` returns."""
_NUM_IMAGES = 16
# Families whose jets are drawn as histograms, as far as they are there.
_JET_FAMILIES = ("coupling-rqs", "realnvp", "flow-matching")
_JET_PANELS = (
    ("Jet $p_T$ [GeV]", np.linspace(500, 1000, 26)),
    ("Jet mass [GeV]", np.linspace(0, 300, 31)),
    (r"$\tau_{21}$", np.linspace(0, 1.1, 23)),
    (r"$\tau_{32}$", np.linspace(0.2, 1.1, 19)),
)


def data_metrics(
    config: Config, name: DataName, data: DataSet, found: Results, baseline: Mapping
) -> dict[str, float]:
    """All numbers of one data set, see `experiments.flows.main`."""
    metrics = {}

    def put(label, pair):
        kind, *rest = label.split("/")
        metrics[label], metrics["/".join([f"{kind}_error", *rest])] = pair

    if data.exact:
        put(f"entropy/{name}", data.exact[0])
        put(f"truth/{name}", events_mean(data, -baseline["truth"]))
    else:
        put(f"mixture/{name}", events_mean(data, -baseline["mixture"]))
        put(f"mapped_mixture/{name}", events_mean(data, -baseline["mapped_mixture"]))
    reference = baseline["truth" if data.exact else "mapped_mixture"]
    put(f"w1/truth/{name}", mean_wasserstein(config, data, data.train[:: data.repeats]))
    for family, result in found.items():
        where = f"{family}/{name}"
        put(f"nll/{where}", events_mean(data, -result["log_prob"]))
        put(f"gap/{where}", events_mean(data, reference - result["log_prob"]))
        put(f"w1/{where}", mean_wasserstein(config, data, result["samples"]))
        for kind in ("ms_sample", "ms_log_prob", "train_s"):
            metrics[f"{kind}/{where}"] = result[kind]
        metrics[f"parameters/{where}"] = num_parameters(judged_model(config, data, family).init)
    if {"continuous", "flow-matching"} <= set(found):
        difference = found["flow-matching"]["log_prob"] - found["continuous"]["log_prob"]
        put(f"continuous_minus_matching/{name}", events_mean(data, difference))
    return {label: float(value) for label, value in metrics.items()}


def data_figures(
    config: Config, folder: RunFolder, name: DataName, data: DataSet, found: Results
) -> None:
    """Density pictures of a toy, histograms of jets, drawn digits."""
    if data.exact:
        points, extent = density_points(config, data)
        truth = np.exp(np.asarray(jax.jit(jax.vmap(data.exact[1]))(points)))
        pictures = {"truth": truth.reshape(config.grid, config.grid)}
        pictures |= {family: result["density"] for family, result in found.items()}
        save(density_pictures(pictures, extent), folder.figure(f"densities-{name}"))
    elif name == "jets":
        shown = [f for f in _JET_FAMILIES if f in found] or list(found)[:3]
        panels = [
            Panel(
                edges,
                data.test[:, i],
                {family: found[family]["samples"][:, i] for family in shown},
                xlabel,
                reference_label="Pythia 8",
            )
            for i, (xlabel, edges) in enumerate(_JET_PANELS)
        ]
        save(histogram_grid(panels, num_columns=2), folder.figure("jets"))
    else:
        rows = {"test digits": data.test[:: data.repeats][:_NUM_IMAGES]}
        rows |= {family: result["samples"][:_NUM_IMAGES] for family, result in found.items()}
        images = {label: x.reshape(-1, 8, 8) for label, x in rows.items()}
        save(image_rows(images), folder.figure("digits"))


def gap_figure(config: Config, folder: RunFolder, metrics: Mapping[str, float]) -> None:
    """What every family lacks in likelihood, with errors."""
    found = {
        name: {
            family: (metrics[f"gap/{family}/{name}"], metrics[f"gap_error/{family}/{name}"])
            for family in config.families
            if f"gap/{family}/{name}" in metrics
        }
        for name in config.data
    }
    found = {name: values for name, values in found.items() if values}
    # Of ten Gaussians behind the same map, see `mapped_mixture` among the metrics.
    baseline = {
        name: "truth" if f"entropy/{name}" in metrics else "mapped mixture" for name in found
    }
    save(likelihood_chart(found, baseline), folder.figure("gaps"))


def table(config: Config, metrics: Mapping[str, float]) -> str:
    """Likelihoods, distances and times of all families on all data sets, as text."""
    baselines = {
        "entropy": "entropy",
        "truth on the test events": "truth",
        "mixture": "mixture",
        "mixture, same map": "mapped_mixture",
    }
    of = lambda kind: {family: f"{kind}/{family}" for family in config.families}
    lines = []
    for title, rows, digits in (
        ("NLL [nats]", baselines | of("nll"), 3),
        ("NLL - truth, mapped mix.", of("gap"), 3),
        ("W1 [std]", {"truth": "w1/truth"} | of("w1"), 4),
        ("ms a sample", of("ms_sample"), 4),
        ("ms a log_prob", of("ms_log_prob"), 4),
        ("training [s]", of("train_s"), 0),
        ("parameters", of("parameters"), 0),
    ):
        lines += table_block(metrics, title, config.data, rows, digits)
    present = {(f, n): why for (f, n), why in SKIPPED.items() if f in config.families}
    lines += [f"- {f} on {n}: {why}" for (f, n), why in present.items() if n in config.data]
    return "\n".join(lines)

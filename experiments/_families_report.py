"""Numbers, tables and figures of the study of families."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from experiments._families import Config, DataName, kind_of
from experiments._families_models import calls_an_event, make_model
from experiments._flows_data import RADIUS, WIDTH, DataSet
from experiments._judging import events_mean, table_block
from jgen.nets import num_parameters
from jgen.plotting import (
    Curve,
    Images,
    Line,
    Panel,
    Plane,
    histogram_grid,
    quality_curves,
    sample_gallery,
    save,
)
from jgen.plotting.gallery import View
from jgen.training import RunFolder

Results = Mapping[str, Mapping[str, np.ndarray]]
"""Family -> what `train_and_judge` returns, and "truth"."""
# Edges of the histograms of the gallery.
_PLANES = {
    "moons": (np.linspace(-1.3, 2.3, 61), np.linspace(-0.8, 1.3, 61)),
    "eight-gaussians": (np.linspace(-2.8, 2.8, 61),) * 2,
}
_JETS = (
    ("Jet $p_T$ [GeV]", np.linspace(500, 1000, 26)),
    ("Jet mass [GeV]", np.linspace(0, 300, 31)),
    (r"$\tau_{21}$", np.linspace(0, 1.1, 23)),
    (r"$\tau_{32}$", np.linspace(0.2, 1.1, 19)),
)
_MASS = 1
# The centres of the eight Gaussians.
_CENTRES = RADIUS * np.stack([f(np.pi / 4 * np.arange(8)) for f in (np.cos, np.sin)], axis=1)


def mode_shares(events: Float[np.ndarray, "n 2"]) -> tuple[Float[np.ndarray, " 8"], float]:
    """Eight times the share of events nearest to each centre of the eight Gaussians.

    And the fraction of events more than four widths away from it, which of the truth is exp(-8).
    """
    distance = np.linalg.norm(np.asarray(events)[:, None] - _CENTRES, axis=-1)
    counts = np.bincount(distance.argmin(axis=1), minlength=8)
    return 8 * counts / len(events), float(np.mean(distance.min(axis=1) > 4 * WIDTH))


def data_metrics(config: Config, name: DataName, data: DataSet, found: Results) -> dict[str, float]:
    """All numbers of one data set, see `experiments.families.main`."""
    metrics, sizes = {}, kind_of(config, name).sizes
    exact = found["truth"].get("log_prob")

    def put(label, pair):
        kind, _, rest = label.partition("/")
        metrics[label], metrics[f"{kind}_error/{rest}"] = pair

    if data.exact:
        put(f"entropy/{name}", data.exact[0])
        put(f"truth/{name}", events_mean(data, -exact))
    for family, result in found.items():
        where = f"{family}/{name}"
        put(f"sw1/{where}", result["sw1"])
        put(f"auc/{where}", result["auc"])
        if name == "eight-gaussians":
            metrics |= _mode_metrics(family, result["samples"])
        if family == "truth":
            continue
        if "log_prob" in result:
            put(f"nll/{where}", events_mean(data, -result["log_prob"]))
            if data.exact:
                put(f"gap/{where}", events_mean(data, exact - result["log_prob"]))
        for kind in ("ms_sample", "train_s"):
            metrics[f"{kind}/{where}"] = result[kind]
        metrics[f"calls/{where}"] = calls_an_event(family, sizes, data.dim)
        metrics[f"parameters/{where}"] = num_parameters(make_model(family, sizes, data).init)
    return {label: float(value) for label, value in metrics.items()}


def _mode_metrics(family, events):
    shares, astray = mode_shares(events)
    n = len(events)
    found = {f"modes/{family}/lost": np.sum(shares < 0.5), f"modes/{family}/astray": astray}
    for kind, share in (("lowest", shares.min()), ("highest", shares.max())):
        found[f"modes/{family}/{kind}"] = share
        # Of eight times a multinomial's share p: 8 sqrt(p (1 - p) / n).
        found[f"modes_error/{family}/{kind}"] = np.sqrt(share * (8 - share) / n)
    return found


def gallery(config: Config, folder: RunFolder, found: Mapping[DataName, Results]) -> None:
    """All families beside the truth on all data sets."""
    views = {name: _view(name, results["truth"]["samples"]) for name, results in found.items()}
    rows = {
        family: {name: _shown(name, results[family]["samples"]) for name, results in found.items()}
        for family in config.families
    }
    save(sample_gallery(views, rows), folder.figure("gallery"))


def _view(name: DataName, events: np.ndarray) -> View:
    shown = _shown(name, events)
    if name in _PLANES:
        return Plane(shown, _PLANES[name])
    if name == "digits":
        return Images(shown)
    xlabel, edges = _JETS[_MASS] if name == "jets" else ("$x$", np.linspace(-8, 8, 33))
    return Line(shown, edges, xlabel)


def _shown(name, events):
    """What of the events is drawn."""
    columns = {"camel": 0, "jets": _MASS}
    if name in columns:
        return events[:, columns[name]]
    return events.reshape(-1, 8, 8) if name == "digits" else events


def jet_figures(config: Config, folder: RunFolder, found: Results) -> None:
    """All features of the jets, in two figures of at most four families each."""
    families = list(config.families)
    for number, first in enumerate(range(0, len(families), 4), start=1):
        panels = [
            Panel(
                edges,
                found["truth"]["samples"][:, i],
                {f: found[f]["samples"][:, i] for f in families[first : first + 4]},
                xlabel,
                reference_label="Pythia 8",
            )
            for i, (xlabel, edges) in enumerate(_JETS)
        ]
        save(histogram_grid(panels, num_columns=2), folder.figure(f"jets-{number}"))


def summary(config: Config, folder: RunFolder, metrics: Mapping[str, float]) -> None:
    """Sliced Wasserstein distances against milliseconds an event."""
    panels, truth = {}, {}
    for name in config.data:
        pair = lambda who: [metrics[f"{kind}/{who}/{name}"] for kind in ("sw1", "sw1_error")]  # noqa: B023
        panels[name] = {
            family: Curve(
                *(np.array([v]) for v in (metrics[f"ms_sample/{family}/{name}"], *pair(family)))
            )
            for family in config.families
        }
        truth[name] = tuple(pair("truth"))
    figure = quality_curves(
        panels, "Sliced $W_1$ [std]", xlabel="ms an event", truth=truth, log_y=True
    )
    save(figure, folder.figure("quality-time"))


def table(config: Config, metrics: Mapping[str, float]) -> str:
    """Everything as text."""
    of = lambda kind: {family: f"{kind}/{family}" for family in config.families}
    lines = []
    for title, rows, digits in (
        ("NLL [nats], VAE: bound", {"entropy": "entropy", "truth": "truth"} | of("nll"), 3),
        ("NLL - truth [nats]", of("gap"), 3),
        ("sliced W1 [std]", {"truth": "sw1/truth"} | of("sw1"), 4),
        ("AUC of a classifier", {"truth": "auc/truth"} | of("auc"), 3),
        ("ms an event", of("ms_sample"), 4),
        ("network calls an event", of("calls"), 0),
        ("training [s]", of("train_s"), 0),
        ("parameters", of("parameters"), 0),
    ):
        lines += table_block(metrics, title, config.data, rows, digits)
    if "eight-gaussians" in config.data:
        kinds = ("lowest", "highest", "lost", "astray")
        lines += ["Eight Gaussians: the smallest and largest share of a mode over 1/8, modes with"]
        lines += ["less than half of it, and the fraction of events far from all"]
        rows = {family: f"modes/{family}" for family in ("truth", *config.families)}
        lines += table_block(metrics, "", kinds, rows, 3)
    return "\n".join(lines)

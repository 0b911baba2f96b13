"""Figures of models times data sets."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.models.data import RADIUS, WIDTH
from experiments.study import Run
from jgen import plotting
from jgen.plotting.gallery import View

# Edges of the histograms of the gallery.
_PLANES = {
    "moons": (np.linspace(-1.3, 2.3, 61), np.linspace(-0.8, 1.3, 61)),
    "circles": (np.linspace(-1.3, 1.3, 61),) * 2,
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


def jet_figure(
    run: Run,
    figure: str,
    reference: Float[np.ndarray, "n 4"],
    samples: Mapping[str, Float[np.ndarray, "m 4"]],
) -> None:
    """Histograms of all features of the jets."""
    panels = [
        plotting.Panel(
            edges,
            reference[:, i],
            {family: events[:, i] for family, events in samples.items()},
            xlabel,
            reference_label="Pythia 8",
        )
        for i, (xlabel, edges) in enumerate(_JETS)
    ]
    run.save(figure, plotting.histogram_grid(panels, num_columns=2))


def gallery(
    run: Run, samples: Mapping[str, Mapping[str, np.ndarray]], families: Sequence[str]
) -> None:
    """All families beside the truth on all data sets; `samples` of "truth" are among each set's."""
    views = {name: _view(name, of["truth"]) for name, of in samples.items()}
    rows = {f: {name: _shown(name, of[f]) for name, of in samples.items()} for f in families}
    run.save("gallery", plotting.sample_gallery(views, rows))


def _view(name: str, events: np.ndarray) -> View:
    shown = _shown(name, events)
    if name in _PLANES:
        return plotting.Plane(shown, _PLANES[name])
    if name == "digits":
        return plotting.Images(shown)
    xlabel, edges = _JETS[_MASS] if name == "jets" else ("$x$", np.linspace(-8, 8, 33))
    return plotting.Line(shown, edges, xlabel)


def _shown(name: str, events: np.ndarray) -> np.ndarray:
    """What of the events is drawn."""
    columns = {"camel": 0, "jets": _MASS}
    if name in columns:
        return events[:, columns[name]]
    return events.reshape(-1, 8, 8) if name == "digits" else events


def quality_figure(run: Run, metrics: Mapping[str, Any], data: Sequence[str], families) -> None:
    """Sliced Wasserstein distances against milliseconds an event."""
    curve = lambda ms, distance: plotting.Curve(*(np.atleast_1d(a) for a in (ms, *distance)))
    panels = {
        name: {
            f: curve(metrics[f"ms_sample/{f}/{name}"], metrics[f"sw1/{f}/{name}"].value)
            for f in families
        }
        for name in data
    }
    truth = {name: metrics[f"sw1/{families[0]}/{name}"].truth for name in data}
    options = {"xlabel": "ms an event", "truth": truth, "log_y": True}
    run.save("quality-time", plotting.quality_curves(panels, "Sliced $W_1$ [std]", **options))

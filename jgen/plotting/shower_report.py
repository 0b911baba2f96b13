"""The figures with which showers are judged: CaloDREAM's Figs. 4, 5 and 10 and mean images."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from jgen.metrics import ClassifierComparison
from jgen.plotting.classifier import roc_curves, weight_distributions
from jgen.plotting.histograms import Panel, histogram_grid
from jgen.plotting.showers import (
    longitudinal_profile,
    longitudinal_view,
    polar_view,
    single_showers,
)
from jgen.showers.features import compute_observables
from jgen.showers.geometry import Geometry
from jgen.showers.hdf5 import Showers
from jgen.showers.preprocessing import ShowerPreprocessing, to_fractions
from jgen.showers.separations import binning, judged_observables

_FACTOR = ShowerPreprocessing.factor  # of E_tot / E_inc in u_0


def shower_figures(
    geometry: Geometry,
    reference: Showers,
    generated: Mapping[str, Showers],
    classifiers: Mapping[str, ClassifierComparison] | None = None,
) -> dict[str, Figure]:
    """All figures, by file name.

    Args:
      geometry: a regular grid.
      reference: true showers.
      generated: label -> showers; the images show the first of them.
      classifiers: tag -> results, for the weight distributions.
    """
    label, first = next(iter(generated.items()))
    blocks = {name: _block(geometry, s) for name, s in generated.items()}
    true, made = _block(geometry, reference), blocks[label]
    third = geometry.num_layers // 3
    groups = [(i * third, (i + 1) * third) for i in range(3)]
    r_edges = np.asarray(geometry.layers[0].r_edges)
    figures = {
        "layer_ratios": _ratio_figure(geometry, reference, generated),
        "features": _feature_figure(geometry, reference, generated),
        "longitudinal_profile": longitudinal_profile(true, blocks),
        "mean_shower_side": longitudinal_view(true, made, r_edges=r_edges, generated_label=label),
        "mean_shower_front": polar_view(true, made, groups, generated_label=label),
        "single_showers": _single_figure(reference, first, true, made, label, r_edges),
    }
    for tag, comparison in (classifiers or {}).items():
        results = {label: comparison.generated, "Geant4, other half": comparison.truth}
        figures[f"classifier_weights_{tag}"] = weight_distributions(results)
        figures[f"classifier_roc_{tag}"] = roc_curves(results)
    return figures


def _block(geometry, showers):
    return showers.voxels.reshape(-1, *geometry.shape)


def _ratio_figure(geometry, reference, generated):
    """The layer energy ratios u of Fig. 4."""
    ratios = lambda s: (
        to_fractions(
            _block(geometry, s).astype(np.float64), s.energies.astype(np.float64), _FACTOR
        ).u
    )
    true, made = ratios(reference), {name: ratios(s) for name, s in generated.items()}
    layers = np.linspace(0, geometry.num_layers - 1, 6).round().astype(int)
    panels = []
    for i in layers:
        # u_0 is narrow; the others fill [0, 1], their ends being exact values.
        edges = np.linspace(true[:, 0].min(), true[:, 0].max(), 31) if i == 0 else _UNIT_EDGES
        samples = {name: u[:, i] for name, u in made.items()}
        panels.append(Panel(edges, true[:, i], samples, f"$u_{{{i}}}$", log_y=i > 0))
    return histogram_grid(panels)


_UNIT_EDGES = np.linspace(-1e-9, 1 + 1e-9, 31)


def _feature_figure(geometry, reference, generated):
    """High-level features of single layers and of whole showers, as in Fig. 5."""
    true = judged_observables(geometry, reference)
    made = {name: judged_observables(geometry, s) for name, s in generated.items()}
    layers = [geometry.num_layers * k // 9 for k in (2, 4)]
    panels = [_panel(geometry, true, made, "E_tot", None, r"$E_\mathrm{tot}/E_\mathrm{inc}$")]
    for i in layers:
        panels.append(_panel(geometry, true, made, "E_layer", i, f"$E_{{{i}}}$ [MeV]", log_x=True))
    i = layers[0]
    for name, xlabel in (
        ("EC_eta", rf"$\langle\eta\rangle_{{{i}}}$ [mm]"),
        ("width_eta", rf"$\sigma_{{\eta,{i}}}$ [mm]"),
        ("width_r", rf"$\sigma_{{r,{i}}}$ [mm]"),
        ("sparsity", rf"sparsity $\lambda_{{{i}}}$"),
    ):
        panels.append(_panel(geometry, true, made, name, i, xlabel))
    panels.append(_depth_panel(geometry, reference, generated))
    panels.append(_voxel_panel(geometry, reference, generated))
    return histogram_grid(panels)


def _panel(geometry, true, made, name, layer, xlabel, log_x=False):
    pick = lambda found: found[name] if layer is None else found[name][:, layer]
    values, samples = pick(true), {label: pick(found) for label, found in made.items()}
    edges = binning(geometry, name, values)
    # The populated range of the official binning, in about thirty bins.
    pooled = np.concatenate([values, *samples.values()])
    low, high = np.quantile(pooled, [0.002, 0.998])
    first, last = np.searchsorted(edges, [low, high])
    first = min(max(first - 1, 0), len(edges) - 2)
    edges = edges[first : max(last, first + 1) + 1]
    edges = edges[:: max(1, len(edges) // 30)]
    return Panel(edges, values, samples, xlabel, log_x=log_x)


def _depth_panel(geometry, reference, generated):
    """Mean shower depth in the innermost radial slice, Eq. 19."""
    depth = lambda s: compute_observables(geometry, s)["depth"][:, 0]
    true = depth(reference)
    edges = np.linspace(true.min(), true.max(), 31)
    samples = {label: depth(s) for label, s in generated.items()}
    return Panel(edges, true, samples, r"depth $d_{r_0}$ [layers]")


def _voxel_panel(geometry, reference, generated):
    """Energies of all voxels above the threshold."""
    values = lambda s: s.voxels[s.voxels > geometry.threshold]
    true = values(reference)
    edges = binning(geometry, "voxel", true)
    samples = {label: values(s) for label, s in generated.items()}
    return Panel(edges, true, samples, r"$E_\mathrm{voxel}$ [MeV]", log_x=True, log_y=True)


def _single_figure(reference, generated, true, made, label, r_edges):
    """Three pairs of single showers of about the same incident energy."""
    picks = np.quantile(reference.energies, [0.1, 0.5, 0.9])
    nearest = lambda s, e: int(np.argmin(np.abs(np.log(s.energies / e))))
    rows = {"Geant4": (reference, true), label: (generated, made)}
    voxels = {
        name: np.stack([block[nearest(s, e)] for e in picks]) for name, (s, block) in rows.items()
    }
    titles = [f"{e / 1e3:.1f} GeV" for e in picks]
    return single_showers(voxels, titles=titles, r_edges=r_edges)

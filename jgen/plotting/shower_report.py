"""The figures with which showers are judged: CaloDREAM's Figs. 4, 5 and 10 and mean images."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from jgen.plotting.classifier import roc_curves, weight_distributions
from jgen.plotting.histograms import Panel, histogram_grid
from jgen.plotting.shower_labels import observable_label
from jgen.plotting.shower_tests import response_figure, summary_figure, threshold_figure
from jgen.plotting.showers import (
    longitudinal_profile,
    longitudinal_view,
    polar_view,
    single_showers,
)
from jgen.showers.calodream.preprocessing import ShowerPreprocessing, to_fractions
from jgen.showers.data.geometry import Geometry
from jgen.showers.data.hdf5 import Showers
from jgen.showers.evaluation import Evaluation
from jgen.showers.observables import binning, judged_observables, layers_of
from jgen.showers.observables.features import compute_observables

_FACTOR = ShowerPreprocessing.factor  # of E_tot / E_inc in u_0


def shower_figures(
    geometry: Geometry,
    reference: Showers,
    generated: Mapping[str, Showers],
    evaluation: Evaluation | None = None,
    *,
    threshold: float | None = None,
) -> dict[str, Figure]:
    """All figures, by file name.

    Args:
      geometry: of all showers; without a regular grid there are no images.
      reference: true showers.
      generated: label -> showers; the images and the evaluation are of the first of them.
      evaluation: of the first; for the classifiers, the response and the summary.
      threshold: cut on voxel energies [MeV] to show the effect of.
    """
    label, first = next(iter(generated.items()))
    blocks = {name: _block(geometry, s) for name, s in generated.items()}
    true, made = _block(geometry, reference), blocks[label]
    figures = {
        "layer_ratios": _ratio_figure(geometry, reference, generated),
        "features": _feature_figure(geometry, reference, generated),
        "longitudinal_profile": longitudinal_profile(true, blocks),
    }
    if geometry.is_regular:
        figures |= _images(geometry, reference, first, true, made, label)
    if threshold is not None:
        layer = 10 if geometry.is_regular else geometry.num_layers // 2
        figures["threshold"] = threshold_figure(
            geometry, reference, generated, threshold=threshold, layer=layer
        )
    return figures | (_evaluation_figures(evaluation, label) if evaluation else {})


def _images(geometry, reference, generated, true, made, label):
    """Mean showers from two sides, and single ones."""
    third = geometry.num_layers // 3
    groups = [(i * third, (i + 1) * third) for i in range(3)]
    r_edges = np.asarray(geometry.layers[0].r_edges)
    return {
        "mean_shower_side": longitudinal_view(true, made, r_edges=r_edges, generated_label=label),
        "mean_shower_front": polar_view(true, made, groups, r_edges=r_edges, generated_label=label),
        "single_showers": _single_figure(reference, generated, true, made, label, r_edges),
    }


def _evaluation_figures(evaluation, label):
    figures = {"summary": summary_figure(evaluation.metrics, generated_label=label)}
    if evaluation.response:
        figures["response"] = response_figure(
            evaluation.response["generated"], generated_label=label
        )
    for tag, comparison in evaluation.classifiers.items():
        results = {label: comparison.generated, "Geant4, other half": comparison.truth}
        figures[f"classifier_weights_{tag}"] = weight_distributions(
            results, reference_label="Geant4"
        )
        figures[f"classifier_roc_{tag}"] = roc_curves(results)
    return figures


def _block(geometry, showers):
    """Voxels by layer, angle and radius; without a regular grid layers of one voxel each."""
    if geometry.is_regular:
        return showers.voxels.reshape(-1, *geometry.shape)
    layers = [showers.voxels[:, part].sum(axis=1) for part in geometry.layer_slices]
    return np.stack(layers, axis=1)[:, :, None, None]


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
        panels.append(
            Panel(edges, true[:, i], samples, f"$u_{{{i}}}$", log_y=i > 0, reference_label="Geant4")
        )
    return histogram_grid(panels)


_UNIT_EDGES = np.linspace(-1e-9, 1 + 1e-9, 31)


def _feature_figure(geometry, reference, generated):
    """High-level features of single layers and of whole showers, as in Fig. 5."""
    true = judged_observables(geometry, reference)
    made = {name: judged_observables(geometry, s) for name, s in generated.items()}
    # Of dataset 1 the two layers with most voxels.
    first, second = (geometry.num_layers * k // 9 for k in (2, 4))
    if not geometry.is_regular:
        first, second = map(geometry.layer_ids.index, geometry.alpha_layer_ids[:2])
    rows = [("E_tot", first), ("E_layer", first), ("E_layer", second)]
    rows += [(name, first) for name in ("EC_eta", "width_eta", "width_r", "sparsity")]
    panels = [observable_panel(geometry, true, made, *row) for row in rows]
    if geometry.is_regular:
        panels.append(_depth_panel(geometry, reference, generated))
    panels.append(_voxel_panel(geometry, reference, generated))
    return histogram_grid(panels)


def observable_panel(
    geometry: Geometry,
    true: Mapping[str, np.ndarray],
    made: Mapping[str, Mapping[str, np.ndarray]],
    name: str,
    layer: int,
) -> Panel:
    """Panel of one observable, in about thirty bins of the populated range of the official ones.

    Args:
      geometry: of all showers.
      true: `judged_observables` of the reference.
      made: label -> the same of generated showers.
      name: of the observable.
      layer: which one, of an observable that has one number a layer.
    """
    number = geometry.layer_ids[layer]
    column = layers_of(geometry, name).index(number)
    pick = lambda of: of[name] if of[name].ndim == 1 else of[name][:, column]
    values, samples = pick(true), {label: pick(of) for label, of in made.items()}
    edges = binning(geometry, name, values, number)
    pooled = np.concatenate([values, *samples.values()])
    low, high = np.quantile(pooled, [0.002, 0.998])
    first, last = np.searchsorted(edges, [low, high])
    first = min(max(first - 1, 0), len(edges) - 2)
    edges = edges[first : max(last, first + 1) + 1]
    edges = edges[:: max(1, len(edges) // 30)]
    label = observable_label(name, number)
    return Panel(edges, values, samples, label, log_x=name == "E_layer", reference_label="Geant4")


def _depth_panel(geometry, reference, generated):
    """Mean shower depth in the innermost radial slice, Eq. 19."""
    depth = lambda s: compute_observables(geometry, s)["depth"][:, 0]
    true = depth(reference)
    edges = np.linspace(true.min(), true.max(), 31)
    samples = {label: depth(s) for label, s in generated.items()}
    return Panel(edges, true, samples, observable_label("depth", 0), reference_label="Geant4")


def _voxel_panel(geometry, reference, generated):
    """Energies of all voxels above the threshold."""
    values = lambda s: s.voxels[s.voxels > geometry.threshold]
    true = values(reference)
    edges = binning(geometry, "voxel", true)
    samples = {label: values(s) for label, s in generated.items()}
    log = {"log_x": True, "log_y": True}
    return Panel(edges, true, samples, observable_label("voxel"), **log, reference_label="Geant4")


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

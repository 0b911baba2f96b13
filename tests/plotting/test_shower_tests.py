"""Figures of an evaluation hold the numbers they are drawn from."""

import numpy as np
import pytest

from jgen.plotting import response_figure, save, summary_figure, threshold_figure
from jgen.showers import Showers, get_geometry, read_showers, response_test, sample_path

GEOMETRY = get_geometry("ds2")


def lines(axes):
    return [
        p.get_data().values for p in axes.patches if hasattr(p, "get_data") and not p.get_fill()
    ]


def bands(axes):
    return [p.get_data() for p in axes.patches if hasattr(p, "get_data") and p.get_fill()]


def responses(num, seed):
    rng = np.random.default_rng(seed)
    energies = np.exp(rng.uniform(np.log(1e3), np.log(1e5), num))
    return energies, 0.9 + 0.1 * rng.normal(size=num) / np.sqrt(energies / 1e3)


def test_response_figure_holds_both_profiles_and_their_ratio(tmp_path):
    test = response_test(*responses(500, 0), *responses(700, 1), num_permutations=20)
    figure = response_figure(test, generated_label="Model")
    for (main, ratio), name in zip((figure.axes[:2], figure.axes[2:]), ("mean", "resolution"),
                                   strict=True):  # fmt: skip
        values = [getattr(p, name) for p in (test.reference, test.generated)]
        errors = [getattr(p, f"{name}_error") for p in (test.reference, test.generated)]
        np.testing.assert_allclose(lines(main), values)
        np.testing.assert_allclose(lines(ratio), [np.ones_like(values[0]), values[1] / values[0]])
        for band, value, error in zip(bands(main), values, errors, strict=True):
            np.testing.assert_allclose(band.baseline, value - error)
            np.testing.assert_allclose(band.values, value + error)
        np.testing.assert_allclose(bands(ratio)[1].values, (values[1] + errors[1]) / values[0])
        assert f"p = {test.numbers[f'{name}_p']:.2g}" in main.texts[0].get_text()
        assert main.get_xlim() == (test.edges[0] / 1e3, test.edges[-1] / 1e3)
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["Geant4", "Model"]
    save(figure, tmp_path / "response")


def test_threshold_figure_shows_both_observables_with_and_without_the_cut(tmp_path):
    reference = read_showers(sample_path(), GEOMETRY, 0, 40)
    noisy = Showers(reference.energies, np.maximum(reference.voxels, np.float32(0.5)))
    figure = threshold_figure(GEOMETRY, reference, {"Noisy": noisy}, threshold=1.0, layer=10)
    without, cut = figure.axes[2], figure.axes[6]  # the sparsities; a ratio follows each
    # Noise everywhere leaves no empty voxel, and the cut removes it all.
    assert lines(without)[1][0] == 1.0
    assert lines(without)[0][0] == 0.0
    np.testing.assert_array_equal(*lines(cut))
    energies = reference.voxels[reference.voxels > 1.0]
    assert figure.axes[4].get_xlim() == pytest.approx((1.0, energies.max()))
    save(figure, tmp_path / "threshold")
    with pytest.raises(ValueError, match="layer 45 is not one of 45 layers"):
        threshold_figure(GEOMETRY, reference, {"A": noisy}, layer=45)


def test_summary_figure_has_an_axis_a_family_and_both_columns(tmp_path):
    metrics = {"num_showers": 10.0}
    names = ("separation/E_tot", "auc_high", "auc_low", "fpd", "kpd", "precision", "response/x_p")
    for i, name in enumerate(names):
        metrics |= {name: 0.1 * (i + 1), f"{name}_error": 0.01, f"{name}_truth": 0.05}
    figure = summary_figure(metrics, generated_label="Model")
    found = {axes.get_xlabel(): axes for axes in figure.axes}
    assert len(found) == 6
    generated, truth = found["AUC"].containers
    np.testing.assert_allclose(generated[0].get_xdata(), [0.2, 0.3])
    np.testing.assert_allclose(truth[0].get_xdata(), [0.05, 0.05])
    # Distances as published.
    np.testing.assert_allclose(found[r"FPD $\times 10^3$"].containers[0][0].get_xdata(), [400])
    assert [t.get_text() for t in found["AUC"].get_yticklabels()] == ["high", "low"]
    save(figure, tmp_path / "summary")
    # A tiny p-value is an arrow at the edge and leaves the others their places.
    tiny = {"a_p": 1e-80, "a_p_truth": 0.3, "b_p": 0.5, "b_p_truth": 0.4}
    (axes,) = summary_figure(tiny).axes
    assert 1e-5 < axes.get_xlim()[0] < 1e-4
    np.testing.assert_array_equal(axes.containers[0][0].get_xdata(), [np.nan, 0.5])
    np.testing.assert_allclose(axes.collections[0].get_offsets(), [[1e-4, -0.15]])
    figure = summary_figure({k: v for k, v in metrics.items() if k.startswith("auc")})
    assert len(figure.axes) == 1
    with pytest.raises(ValueError, match="no metric has a truth beside it"):
        summary_figure({"fpd": 1.0})

"""BIB-AE study: a small run, and its metrics against known samples."""

import dataclasses
import functools
import json
import types

import jax
import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from experiments import _bib_ae as models
from experiments import _bib_ae_data as parts
from experiments import _bib_ae_report as report
from experiments import bib_ae as study
from jgen import Estimate, Judged

SMALL = study.SMOKE
classifier = {}  # what the classifiers of the run were given


def compared(*samples):
    *triple, _, tag, options = samples
    classifier[tag] = (triple, options)
    even = Estimate(0.5, 0.5)
    return types.SimpleNamespace(metrics={f"auc_{tag}": Judged(even, even)})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run on one device, without figures and classifiers, which compile for long.

    The former are drawn in a test, of the latter the inputs are noted.
    """
    classifier.clear()
    out = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "fit", functools.partial(models.fit, devices=jax.devices()[:1]))
        patch.setattr(study, "plot", lambda *arguments: None)
        patch.setattr(report, "classifier_comparison", compared)
        return out, study.main(SMALL, out)


@pytest.fixture(scope="module")
def data():
    return parts.load_data(SMALL.data)


def test_sets_are_disjoint_and_in_order(data):
    assert [len(s.energies) for s in data[:3]] == [2800, 100, 300]
    every = np.concatenate([s.energies for s in data[:3]])
    assert len(np.unique(every)) == 3200
    assert data.train.cells.shape[1:] == parts.box_shape(SMALL.data) == (5, 4, 4)
    scaled = parts.conditions(data, data.train)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-4)


def test_copies_are_the_same_showers_turned(data):
    """Each layer of a copy has the energy of the shower, in other cells."""
    assert len(data.copies.energies) == SMALL.data.copies * 2800
    first, second = (data.copies.cells[i * 2800 :][:2800] for i in range(2))
    np.testing.assert_array_equal(first, data.train.cells)
    np.testing.assert_array_equal(data.copies.energies[2800:], data.train.energies)
    layers = lambda cells: cells.sum(axis=(2, 3))
    np.testing.assert_allclose(layers(second), layers(first), rtol=1e-5, atol=1e-3)
    assert np.mean([np.allclose(*pair) for pair in zip(first, second, strict=True)]) < 0.01


def test_turned_showers_are_shifts_and_reflections_of_the_angle():
    """Every one of the 32 comes up, and keeps which angles are neighbours."""
    alphas = np.broadcast_to(np.arange(16.0)[:, None], (45, 16, 9)).ravel()
    found = parts.turned(np.tile(alphas, (1000, 1)), np.random.default_rng(0))
    angles = found.reshape(1000, 45, 16, 9)
    np.testing.assert_array_equal(angles, angles[:, :1, :, :1] * np.ones((1, 45, 1, 9)))
    orders = {tuple(row) for row in angles[:, 0, :, 0].astype(int)}
    shifts = [np.roll(np.arange(16), i) for i in range(16)]
    assert orders == {tuple(row[::step]) for row in shifts for step in (1, -1)}


def test_visible_energies_follow_the_drawn_response(finished):
    """A flow of one number, even briefly trained, has the mean to a few percent."""
    out, metrics = finished
    names = [n for n in metrics if n.startswith("visible_energy_mean/")]
    ours = [n for n in names if n.count("/") == 1 and not n.endswith("_error")]
    assert len(ours) == SMALL.num_bins
    for name in ours:
        assert abs(metrics[name] - 1) < 0.05
        # All are scaled to the same responses.
        assert metrics[name] == pytest.approx(metrics[f"{name}/prior"], rel=1e-5)
    with np.load(out / "samples.npz") as made:
        assert made["with"].shape == (900, 5, 4, 4)
        assert np.all(made["with"] >= 0)
        hits = made["with"][made["with"] > 0]
        assert hits.min() >= parts.GEOMETRY.threshold * (1 - 1e-5)


def test_truth_against_truth_is_close_to_perfect(finished):
    _, metrics = finished
    assert metrics["spectrum_jsd/truth"] < 0.05 * metrics["spectrum_jsd/without"]
    assert metrics["spectrum_jsd/with"] < metrics["spectrum_jsd/without"]
    error = metrics["num_hits_mean/truth_error"]
    assert abs(metrics["num_hits_mean/truth"] - 1) < 4 * error
    for name in ("auc_observables_truth", "separation/depth_truth", "free_energy_median/with"):
        assert np.isfinite(metrics[name])


def test_classifiers_see_energies_and_cells_or_observables(finished, data):
    assert classifier.keys() == {"cells", "cells_sorted", "observables"}
    with np.load(finished[0] / "samples.npz") as made:
        for tag, name in (("cells", "with"), ("cells_sorted", "sorted")):
            (test, truth, ours), options = classifier[tag]
            assert options.epochs == SMALL.classifier_epochs
            for inputs, cells in (
                (test, data.test.cells),
                (truth, data.train.cells[:300]),
                (ours, made[name][:: SMALL.num_repeats]),
            ):
                np.testing.assert_allclose(inputs[:, 1:], np.log1p(cells.reshape(300, 80) / 10))
            # The same incident energies, so that they tell nothing.
            np.testing.assert_allclose(ours[:, 0], np.log(data.test.energies), rtol=1e-6)
    (test, *_), _ = classifier["observables"]
    assert test.shape == (300, 7)
    np.testing.assert_allclose(test[:, 2], (data.test.cells > 0).sum(axis=(1, 2, 3)))


def test_divergence_is_scipys_and_sees_showers_as_the_units(data):
    rng = np.random.default_rng(0)
    p, q = rng.integers(0, 50, (2, 30)).astype(float)
    expected = jensenshannon(p, q, base=2) ** 2
    assert report.jensen_shannon(p, q) == pytest.approx(expected, rel=1e-9)
    assert report.jensen_shannon(p, 3 * p) == pytest.approx(0, abs=1e-12)
    cells = data.test.cells
    counts = report._counts(cells)
    expected = np.histogram(cells[cells > 0], report.spectrum_edges())[0]
    np.testing.assert_array_equal(counts.sum(axis=0), expected)
    np.testing.assert_array_equal(counts[5], report._counts(cells[5:6])[0])


def test_ratios_and_their_errors_are_those_of_normal_responses(data):
    """Responses a tenth lower and a fifth wider, in every bin of the energy."""
    rng = np.random.default_rng(0)

    def showers(mean, width, num):
        energies = np.exp(rng.uniform(np.log(1000), np.log(30000), num))
        response = rng.normal(mean, width, num) * energies
        return parts.Showers(energies, response[:, None, None, None] * np.ones((1, 2, 1, 1)) / 2)

    known = data._replace(test=showers(1.0, 0.05, 20_000))
    found = report._responses(SMALL, known, "with", showers(0.9, 0.06, 20_000))
    for label, _, _ in report.energy_bins(SMALL, known):
        for name, expected in (("mean", 0.9), ("width", 1.2)):
            value, error = (found[f"visible_energy_{name}/{label}{e}"] for e in ("", "_error"))
            assert abs(value - expected) < 4 * error
            assert error < 0.02


def test_observables_of_one_cell_and_of_two_are_known():
    """All energy in one cell, and half of it four layers deeper and one cell further out."""
    cells = np.zeros((2, 15, 10, 10), np.float32)
    cells[:, 3, 5, 5] = 500
    cells[1, 7, 5, 6] = 500
    found = report.observables(parts.Showers(np.array([1000.0, 1000.0]), cells))
    half = 0.5 * 8.37
    radii = [half * 2**0.5, half * (2**0.5 + 10**0.5) / 2]
    expected = {
        "response": [0.5, 1], "num_hits": [1, 2], "depth": [3, 5], "length": [0, 2],
        "radius": radii, "hottest_cell": [0.5, 0.5],
    }  # fmt: skip
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6)
    rings, edges = report._in_rings(cells)
    np.testing.assert_allclose(edges, 8.37 * np.arange(6))
    # Four cells are in the innermost ring, eight in the next one.
    np.testing.assert_allclose(rings[1, [3, 7], 0, :3], [[125, 0, 0], [0, 62.5, 0]])


def test_a_finished_run_is_drawn(finished, monkeypatch):
    """As PNG only, which takes half of the time."""
    monkeypatch.setattr(report, "save", lambda figure, path: figure.savefig(f"{path}.png"))
    out, metrics = finished
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert study.main(SMALL, out, plot_only=True) == metrics
    figures = ("spectrum", "observables", "visible-energy", "longitudinal-profile", "average-image")
    assert all((out / "figures" / f"{name}.png").exists() for name in figures)


def test_bad_options_are_refused(tmp_path):
    few = dataclasses.replace(SMALL.data, num_test=3000)
    with pytest.raises(ValueError, match="3200 showers are too few for 3000 to test on"):
        study.main(dataclasses.replace(SMALL, data=few), tmp_path / "run")
    change = lambda part, **values: {part: dataclasses.replace(getattr(SMALL, part), **values)}
    single = dataclasses.replace(SMALL.autoencoder.training, batch_size=1)
    for options, message in (
        (change("post", num=81), "at most the 80 cells"),
        (change("post", floor=0.0), "post.floor must be positive"),
        (change("data", copies=0), "data.copies must be at least 1"),
        (change("data", layers=4), "4 layers do not divide the 45"),
        (change("autoencoder", training=single), "batch_size must be at least 2, got 1"),
        ({"num_repeats": 0}, "num_repeats must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            study.main(dataclasses.replace(SMALL, **options), tmp_path / "run")
    with pytest.raises(ValueError, match="run without --plot-only"):
        study.main(SMALL, tmp_path / "none", plot_only=True)
    assert not (tmp_path / "run").exists()

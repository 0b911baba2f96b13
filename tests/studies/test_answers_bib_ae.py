"""BIB-AE study: its data, and its metrics against known samples."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.showers.bib_ae import data as showers
from experiments.showers.bib_ae import report
from experiments.showers.bib_ae.study import SMOKE
from jgen import load, metrics


@pytest.fixture(scope="module")
def data():
    return showers.load_data(SMOKE.data)


@pytest.fixture(scope="module")
def samples(smoke):
    return load(smoke("bib_ae") / "samples.npz")


def test_sets_are_disjoint_and_in_order(data):
    assert [len(s.energies) for s in data[:3]] == [2800, 100, 300]
    every = np.concatenate([s.energies for s in data[:3]])
    assert len(np.unique(every)) == 3200
    assert data.train.cells.shape[1:] == SMOKE.data.shape == (5, 4, 4)


def test_copies_are_the_same_showers_turned(data):
    """Each layer of a copy has the energy of the shower, in other cells."""
    assert len(data.copies.energies) == SMOKE.data.copies * 2800
    first, second = (data.copies.cells[i * 2800 :][:2800] for i in range(2))
    np.testing.assert_array_equal(first, data.train.cells)
    np.testing.assert_array_equal(data.copies.energies[2800:], data.train.energies)
    layers = lambda cells: cells.sum(axis=(2, 3))
    np.testing.assert_allclose(layers(second), layers(first), rtol=1e-5, atol=1e-3)
    assert np.mean([np.allclose(*pair) for pair in zip(first, second, strict=True)]) < 0.01


def test_bins_of_few_showers_are_refused_before_the_training(data):
    report.check_bins(SMOKE, data)
    lines = data._replace(test=data.test._replace(energies=np.repeat([1000.0, 9000.0], 150)))
    for config, of in ((replace(SMOKE, num_bins=200), data), (replace(SMOKE, num_bins=3), lines)):
        with pytest.raises(ValueError, match="two showers to test on and two to train on"):
            report.check_bins(config, of)


@pytest.mark.study
def test_visible_energies_follow_the_drawn_response(data, samples):
    """A flow of one number, even briefly trained, has the mean to a few percent."""
    responses = {
        name: np.exp(showers.Showers(samples["energies"], samples[name]).log_response)
        for name in report.GENERATED
    }
    truth = np.exp(data.test.log_response)
    for bounds in report.energy_bins(SMOKE, data).values():
        means = {
            name: report.within(samples["energies"], values, bounds).mean()
            for name, values in responses.items()
        }
        assert (
            abs(means["with"] / report.within(data.test.energies, truth, bounds).mean() - 1) < 0.05
        )
        # All are scaled to the same responses.
        np.testing.assert_allclose(list(means.values()), means["with"], rtol=1e-5)
    assert samples["with"].shape == (900, 5, 4, 4)
    assert np.all(samples["with"] >= 0)
    hits = samples["with"][samples["with"] > 0]
    assert hits.min() >= showers.GEOMETRY.threshold * (1 - 1e-5)


@pytest.mark.study
def test_classifiers_see_energies_and_cells_or_observables(data, samples, monkeypatch):
    given = {}

    class Compared:
        metrics = {}

    def compared(test, truth, made, key, tag, options):
        given[tag] = (test, truth, made), options
        return Compared

    monkeypatch.setattr(metrics, "classifier_comparison", compared)
    found = report.measure(SMOKE, data, samples, None)
    assert found["spectrum_jsd/truth"].value < 0.05 * found["spectrum_jsd/without"].value
    assert abs(found["num_hits_mean/truth"].value - 1) < 4 * found["num_hits_mean/truth"].error
    assert given.keys() == {"cells", "cells_sorted", "observables"}
    for tag, name in (("cells", "with"), ("cells_sorted", "sorted")):
        (test, truth, ours), options = given[tag]
        assert options.epochs == SMOKE.classifier_epochs
        for inputs, cells in (
            (test, data.test.cells),
            (truth, data.train.cells[:300]),
            (ours, samples[name][:: SMOKE.num_repeats]),
        ):
            np.testing.assert_allclose(inputs[:, 1:], np.log1p(cells.reshape(300, 80) / 10))
        # The same incident energies, so that they tell nothing.
        np.testing.assert_allclose(ours[:, 0], np.log(data.test.energies), rtol=1e-6)
    (test, *_), _ = given["observables"]
    assert test.shape == (300, 7)
    np.testing.assert_allclose(test[:, 2], (data.test.cells > 0).sum(axis=(1, 2, 3)))


def test_spectra_count_cells_of_single_showers(data):
    cells = data.test.cells
    counts = report.spectrum_counts(cells)
    expected = np.histogram(cells[cells > 0], report.spectrum_edges())[0]
    np.testing.assert_array_equal(counts.sum(axis=0), expected)
    np.testing.assert_array_equal(counts[5], report.spectrum_counts(cells[5:6])[0])
    assert report.spectrum_jsd(cells, cells, 0).value == 0
    # Disjoint spectra are one bit apart.
    assert report.spectrum_jsd(np.full_like(cells, 1.0), np.full_like(cells, 9.0), 0).value == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--post.num", 81), "at most the 80 cells"),
        (("--post.floor", 0), "floor must be positive"),
        (("--data.copies", 0), "copies must be at least 1"),
        (("--data.layers", 4), "does not divide the 45"),
        (("--data.num-test", 3000), "3200 showers are too few for 3000 to test on"),
        (("--autoencoder.training.batch-size", 1), "batch_size must be at least 2, got 1"),
        (("--autoencoder.weights.kl", -1), "kl must be .*zero or positive"),
    ],
)
def test_bad_options_are_refused(options, message, command):
    with pytest.raises(SystemExit, match=message):
        command("bib_ae", *options, "--dry-run")

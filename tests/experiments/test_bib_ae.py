"""BIB-AE study: a small run, and its metrics against known samples."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from experiments import _bib_ae as parts
from experiments import _bib_ae_report as report
from experiments import bib_ae as study

SMALL = study.SMOKE


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, study.main(SMALL, out)


@pytest.fixture(scope="module")
def data():
    return parts.load_data(SMALL.data)


def test_sets_are_disjoint_and_in_order(data):
    assert [len(s.energies) for s in data[:3]] == [2800, 100, 300]
    every = np.concatenate([s.energies for s in data[:3]])
    assert len(np.unique(every)) == 3200
    assert data.train.cells.shape[1:] == parts.box_shape(SMALL.data) == (5, 2, 9)
    scaled = parts.conditions(data, data.train)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(axis=0), 1, rtol=1e-4)


def test_visible_energies_follow_the_drawn_response(finished):
    """A flow of one number, even briefly trained, has the mean to a few percent."""
    out, metrics = finished
    names = [n for n in metrics if n.startswith("visible_energy_mean/")]
    ours = [n for n in names if n.count("/") == 1 and not n.endswith("_error")]
    assert len(ours) == SMALL.num_bins
    for name in ours:
        assert abs(metrics[name] - 1) < 0.05
        # All three are scaled to the same responses.
        assert metrics[name] == pytest.approx(metrics[f"{name}/prior"], rel=1e-5)
    with np.load(out / "samples.npz") as made:
        assert made["with"].shape == (900, 5, 2, 9)
        assert np.all(made["with"] >= 0)
        hits = made["with"][made["with"] > 0]
        assert hits.min() >= parts.GEOMETRY.threshold * (1 - 1e-5)


def test_truth_against_truth_is_close_to_perfect(finished):
    _, metrics = finished
    assert metrics["spectrum_jsd/truth"] < 0.05 * metrics["spectrum_jsd/without"]
    error = metrics["num_hits_mean/truth_error"]
    assert abs(metrics["num_hits_mean/truth"] - 1) < 4 * error
    for name in ("auc_cells_truth", "separation/depth_truth", "free_energy_mean/with"):
        assert np.isfinite(metrics[name])


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


def test_a_finished_run_is_drawn_again(finished):
    out, metrics = finished
    assert json.loads((out / "metrics.json").read_text()) == metrics
    figures = ("spectrum", "observables", "visible-energy", "longitudinal-profile", "average-image")
    for name in figures:
        (out / "figures" / f"{name}.png").unlink()
    assert study.main(SMALL, out, plot_only=True) == metrics
    assert all((out / "figures" / f"{name}.png").exists() for name in figures)


def test_bad_options_are_refused(tmp_path):
    few = dataclasses.replace(SMALL.data, num_test=3000)
    with pytest.raises(ValueError, match="3200 showers are too few for 3000 to test on"):
        study.main(dataclasses.replace(SMALL, data=few), tmp_path / "run")
    many = dataclasses.replace(SMALL.post, num=91)
    with pytest.raises(ValueError, match="at most the 90 cells"):
        study.main(dataclasses.replace(SMALL, post=many), tmp_path / "run")
    with pytest.raises(ValueError, match="num_repeats must be at least 1"):
        study.main(dataclasses.replace(SMALL, num_repeats=0), tmp_path / "run")
    with pytest.raises(ValueError, match="run without --plot-only"):
        study.main(SMALL, tmp_path / "none", plot_only=True)
    assert not (tmp_path / "run").exists()

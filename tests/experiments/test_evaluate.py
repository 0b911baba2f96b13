"""Judging files of any generator, as a user does it."""

import contextlib
import io
import json
import math

import h5py
import numpy as np
import pytest

from experiments import evaluate_showers as study
from experiments._command_line import run
from experiments.evaluate_showers import PRESETS, Config, find_geometry, main
from jgen.showers import Showers, get_geometry, load_evaluation, read_showers, sample_path
from jgen.showers import write_showers as write

GEOMETRY = get_geometry("ds2")


def command(*args):
    """The command line, in this process."""
    args = [str(a) for a in args]
    return run("evaluate_showers", study.__doc__, PRESETS, main, study.count_parameters, args)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two files of 150 Geant4 showers."""
    folder = tmp_path_factory.mktemp("files")
    for i, name in enumerate(("reference.h5", "generated.h5")):
        showers = read_showers(sample_path(), GEOMETRY, 150 * i, 150 * (i + 1))
        write(folder / name, showers, GEOMETRY)
    return folder / "reference.h5", folder / "generated.h5"


@pytest.fixture(scope="module")
def finished(files, tmp_path_factory):
    out, printed = tmp_path_factory.mktemp("runs") / "judged", io.StringIO()
    with contextlib.redirect_stdout(printed):
        command(*files, "--preset", "smoke", "--out", out)
    return out, printed.getvalue()


def test_smoke_run_prints_the_table_and_leaves_everything(finished):
    out, printed = finished
    metrics = json.loads((out / "metrics.json").read_text())
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["num_showers"] == 75
    for name in ("separation/voxel", "separation_cut/voxel", "auc_high", "fpd", "kpd"):
        for suffix in ("", "_truth", "_error", "_truth_error"):
            assert name + suffix in metrics
        row = next(line for line in printed.splitlines() if line.split()[:1] == [name])
        assert row.count("+-") == 2
    for name in ("coverage", "response/mean_p", "response/tails_p"):
        assert 0 <= metrics[f"{name}_truth"] <= 1
    assert load_evaluation(out / "evaluation.npz").metrics == metrics
    names = ("summary", "response", "threshold", "features", "classifier_roc_high")
    for name in (*names, "classifier_weights_low"):
        for suffix in (".pdf", ".png"):
            assert (out / "figures" / f"{name}{suffix}").stat().st_size > 1000


def test_plot_only_draws_again_and_changed_files_are_refused(
    finished, files, tmp_path, monkeypatch, capsys
):
    out, printed = finished
    stored = (out / "evaluation.npz").read_bytes()
    drawn = []
    monkeypatch.setattr(study, "save", lambda figure, path: drawn.append(path.name))
    command(*files, "--preset", "smoke", "--out", out, "--plot-only")
    assert {"summary", "response", "features"} <= set(drawn)
    assert (out / "evaluation.npz").read_bytes() == stored
    assert capsys.readouterr().out == printed
    content = files[1].read_bytes()
    showers = read_showers(files[1], GEOMETRY)
    write(files[1], showers._replace(voxels=2 * showers.voxels), GEOMETRY)
    with pytest.raises(SystemExit, match="generated.h5 changed since"):
        command(*files, "--preset", "smoke", "--out", out)
    files[1].write_bytes(content)
    with pytest.raises(SystemExit, match="holds no run to plot"):
        command(*files, "--out", tmp_path / "none", "--plot-only")


def test_bad_command_lines_and_files_are_refused(files, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        command(files[0])
    assert "GENERATED.h5" in capsys.readouterr().err
    odd = tmp_path / "odd.h5"
    with h5py.File(odd, "w") as file:
        file["incident_energies"], file["showers"] = np.ones((5, 1)), np.ones((5, 100))
    for pair, message in (
        ((files[0], tmp_path / "no.h5"), "no.h5: no such file"),
        ((odd, files[1]), "has 100 voxels a shower; known geometries"),
        ((files[0], odd), "100 voxels per shower, but geometry 'ds2' has 6480"),
    ):
        with pytest.raises(SystemExit, match=message):
            command(*pair, "--out", tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_geometry_is_that_of_the_number_of_voxels(files, tmp_path):
    assert find_geometry(Config(str(files[0]), "")).name == "ds2"
    path, geometry = tmp_path / "ds3.h5", get_geometry("ds3")
    write(path, Showers(np.ones(1), np.zeros((1, geometry.num_voxels), np.float32)), geometry)
    assert find_geometry(Config(str(path), "")).name == "ds3"
    assert find_geometry(Config(str(path), "", geometry="ds2")).name == "ds2"


def test_several_files_are_one_sample_and_a_holdout_keeps_the_reference_whole(
    files, tmp_path, monkeypatch
):
    found = {}

    def record(geometry, reference, generated, key, config, *, holdout, progress):
        found.update(reference=reference, generated=generated, holdout=holdout)
        raise ValueError("enough")

    monkeypatch.setattr("experiments.evaluate_showers.evaluate", record)
    first, second = map(str, files)
    config = Config(first, second, more_reference=(second,), holdout=(first,), max_showers=200)
    with pytest.raises(ValueError, match="enough"):
        main(config, tmp_path / "run")
    sizes = {name: len(showers.energies) for name, showers in found.items()}
    assert sizes == {"reference": 200, "generated": 150, "holdout": 150}


def test_the_official_preset_has_the_official_tests():
    evaluation = PRESETS["calochallenge"].evaluation
    assert evaluation.protocol == "calochallenge"
    assert evaluation.classifiers == ("high", "low", "resnet")
    assert evaluation.fpd_batches == 20

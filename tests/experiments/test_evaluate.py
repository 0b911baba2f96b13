"""Judging files of any generator, as a user does it."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from experiments.evaluate_showers import PRESETS, Config, find_geometry, main
from jgen.showers import Showers, get_geometry, load_evaluation, read_showers, sample_path
from jgen.showers import write_showers as write

ROOT = Path(__file__).parents[2]
GEOMETRY = get_geometry("ds2")


def command(*args, code=0):
    process = subprocess.run(
        [sys.executable, "-m", "experiments.evaluate_showers", *map(str, args)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        env=os.environ | {"COLUMNS": "100"},
    )
    assert process.returncode == code, process.stderr
    return process.stdout if code == 0 else process.stderr


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
    out = tmp_path_factory.mktemp("runs") / "judged"
    return out, command(*files, "--preset", "smoke", "--out", out)


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


def test_plot_only_draws_again_and_changed_files_are_refused(finished, files, tmp_path):
    out, printed = finished
    stored = (out / "evaluation.npz").read_bytes()
    (out / "figures" / "response.png").unlink()
    again = command(*files, "--preset", "smoke", "--out", out, "--plot-only")
    assert (out / "figures" / "response.png").exists()
    assert (out / "evaluation.npz").read_bytes() == stored
    assert again == printed
    content = files[1].read_bytes()
    showers = read_showers(files[1], GEOMETRY)
    write(files[1], showers._replace(voxels=2 * showers.voxels), GEOMETRY)
    message = command(*files, "--preset", "smoke", "--out", out, code=1)
    files[1].write_bytes(content)
    assert "generated.h5 changed since" in message
    message = command(*files, "--out", tmp_path / "none", "--plot-only", code=1)
    assert "holds no run to plot" in message


def test_bad_command_lines_and_files_are_refused(files, tmp_path):
    assert "GENERATED.h5" in command(files[0], code=2)
    message = command(files[0], tmp_path / "no.h5", "--out", tmp_path / "a", code=1)
    assert "no.h5: no such file" in message
    assert "Traceback" not in message
    odd = tmp_path / "odd.h5"
    with h5py.File(odd, "w") as file:
        file["incident_energies"], file["showers"] = np.ones((5, 1)), np.ones((5, 100))
    message = command(odd, files[1], "--out", tmp_path / "a", code=1)
    assert "has 100 voxels a shower; known geometries" in message
    message = command(files[0], odd, "--out", tmp_path / "a", code=1)
    assert "100 voxels per shower, but geometry 'ds2' has 6480" in message
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

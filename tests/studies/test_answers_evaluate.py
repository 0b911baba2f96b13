"""Judging files of any generator, as a user does it."""

import h5py
import numpy as np
import pytest

from experiments import study
from experiments.showers import evaluate
from experiments.showers.evaluate import PRESETS, Config, find_geometry
from jgen.showers import Showers, get_geometry, read_showers, sample_path
from jgen.showers import write_showers as write

GEOMETRY = get_geometry("ds2")


def command(*args):
    """The command line, in this process."""
    return study.run(evaluate.STUDY, args)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two files of 150 Geant4 showers."""
    folder = tmp_path_factory.mktemp("files")
    for i, name in enumerate(("reference.h5", "generated.h5")):
        showers = read_showers(sample_path(), GEOMETRY, 150 * i, 150 * (i + 1))
        write(folder / name, showers, GEOMETRY)
    return folder / "reference.h5", folder / "generated.h5"


@pytest.mark.study
def test_the_table_and_files_that_changed(files, tmp_path, capsys):
    options = (*files, "--preset", "smoke", "--out", tmp_path / "judged")
    metrics, printed = command(*options), capsys.readouterr().out
    assert metrics["num_showers"] == 75
    for name in ("separation/voxel", "separation_cut/voxel", "auc_high", "fpd", "kpd"):
        for suffix in ("", "_truth", "_error", "_truth_error"):
            assert name + suffix in metrics
        row = next(line for line in printed.splitlines() if line.split()[:1] == [name])
        assert row.count("(") == 2
    for name in ("coverage", "response/mean_p", "response/tails_p"):
        assert 0 <= metrics[f"{name}_truth"] <= 1
    drawn = {path.stem for path in (tmp_path / "judged" / "figures").glob("*.png")}
    names = {"summary", "response", "threshold", "features", "classifier_roc_high"}
    assert names | {"classifier_weights_low"} <= drawn

    content, showers = files[1].read_bytes(), read_showers(files[1], GEOMETRY)
    write(files[1], showers._replace(voxels=2 * showers.voxels), GEOMETRY)
    evaluate.read_samples.cache_clear()
    with pytest.raises(SystemExit, match="generated.h5.* has changed since the run began"):
        command(*options)
    files[1].write_bytes(content)


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
    write(path, Showers(np.full(1, 1e3), np.zeros((1, geometry.num_voxels), np.float32)), geometry)
    assert find_geometry(Config(str(path), "")).name == "ds3"
    assert find_geometry(Config(str(path), "", geometry="ds2")).name == "ds2"


def test_several_files_are_one_sample_and_a_holdout_keeps_the_reference_whole(files):
    first, second = map(str, files)
    files = {"more_reference": (second,), "holdout": (first,), "training": (first, second)}
    config = Config(first, second, **files, max_showers=200)
    sizes = {name: len(s.energies) for name, s in evaluate.read_samples(config).items()}
    assert sizes == {"reference": 200, "generated": 150, "holdout": 150, "training": 300}


def test_the_official_preset_has_the_official_tests():
    evaluation = PRESETS["calochallenge"].evaluation
    assert evaluation.protocol == "calochallenge"
    assert evaluation.classifiers == ("high", "low", "resnet")
    assert evaluation.fpd_batches == 20

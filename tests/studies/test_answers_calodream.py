"""CaloDREAM as a user runs it, and its published presets."""

import json
import re

import h5py
import numpy as np
import pytest

from experiments import study
from experiments.showers import calodream
from jgen.showers import get_geometry, read_showers, sample_path


def command(*args):
    """The command line, in this process."""
    return study.run(calodream.STUDY, args)


@pytest.mark.study
def test_samples_have_other_energies_of_the_spectrum_than_the_reference(smoke):
    finished, geometry = smoke("calodream"), get_geometry("ds2")
    samples = read_showers(finished / "samples.h5", geometry)
    truth = read_showers(sample_path(), geometry)
    np.testing.assert_array_equal(samples.energies, truth.energies[: len(samples.energies)])
    metrics = json.loads((finished / "metrics.json").read_text())
    for name in (
        "auc_high",
        "auc_low",
        "separation/E_tot",
        "separation/E_layer",
        "wasserstein/E_tot",
    ):
        assert {name + s for s in ("", "_truth", "_error", "_truth_error")} <= metrics.keys()
    drawn = {path.stem for path in (finished / "figures").glob("*.png")}
    wanted = {"features", "layer_ratios", "classifier_weights_high", "training_shape"}
    assert wanted <= drawn


@pytest.mark.parametrize(("preset", "shape"), [("paper-ds2", 26_042_688), ("paper-ds3", 5_868_870)])
def test_paper_presets_are_the_published_set_ups(preset, shape, capsys):
    command("--preset", preset, "--dry-run")
    resolved = json.loads(capsys.readouterr().out)
    assert resolved["parameters"] == {"energy": 2_384_705, "shape": shape}
    config = resolved["config"]
    assert config["energy_solver"] == {"method": "kutta38", "steps": 50}
    assert config["shape_solver"] == {"method": "kutta38", "steps": 20}
    assert config["standardise"] == "voxel"
    energy, optimizer = config["energy_training"], config["shape_training"]["optimizer"]
    assert (energy["steps"], energy["batch_size"]) == (12_500, 4000)
    assert energy["optimizer"]["schedule"] == "onecycle"
    assert energy["optimizer"]["learning_rate"] == 2e-3
    assert optimizer["clip_norm"] == (100 if preset == "paper-ds2" else 50)
    assert (optimizer["weight_decay"], optimizer["epsilon"]) == (1e-5, 1e-6)
    assert config["shape_training"]["steps"] == (1_250_000 if preset == "paper-ds2" else 937_500)


@pytest.mark.parametrize(
    ("preset", "shape", "steps"),
    [("paper-ds2-latent", 10_711_566, 625_000), ("paper-ds3-latent", 10_720_224, 312_500)],
)
def test_latent_paper_presets_are_the_published_set_ups(preset, shape, steps, capsys):
    """Tabs. 2 and 4; 100,000 showers in batches of 128 are 781 steps an epoch."""
    command("--preset", preset, "--dry-run")
    resolved = json.loads(capsys.readouterr().out)
    assert resolved["parameters"]["shape"] == shape
    config = resolved["config"]
    assert (config["space"], config["beta"]) == ("latent", 1e-6)
    assert config["shape_training"]["batch_size"] == 128
    assert config["shape_training"]["steps"] == pytest.approx(steps, rel=2e-3)
    assert config["autoencoder"]["stride"] == [[3, 2, 1], [2, 2, 1]]["ds3" in preset]


def test_bad_files_are_refused_before_a_folder_is_made(tmp_path):
    path = tmp_path / "bad.h5"
    with h5py.File(path, "w") as file:
        file["incident_energies"] = np.ones((50, 1))
        file["showers"] = np.full((50, 6480), np.nan, np.float32)
    out, sample = tmp_path / "run", sample_path()
    for options, said in (
        (("--data", path, "--num-train", 0, "--num-test", 20), "nan"),
        (("--data", tmp_path / "no.h5"), "no.h5"),
        (("--shape-network.patch", 7, 7, 7), "patch (7, 7, 7) does not divide"),
        (("--data", sample, "--test-data", sample), "both data and test data"),
        (("--num-test", 5000), "too few"),
        (("--geometry", "ds3", "--shape-network.patch", 9, 10, 9), "give --data FILE"),
    ):
        with pytest.raises(SystemExit, match=re.escape(said)):
            command("--preset", "smoke", "--out", out, *options)
        assert not out.exists()

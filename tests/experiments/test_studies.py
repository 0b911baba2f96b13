"""The studies as a user runs them, on their smoke presets."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from experiments import calodream as study
from experiments._command_line import run
from jgen.showers import get_geometry, read_showers, sample_path

ROOT = Path(__file__).parents[2]


def module(*args, code=0):
    """Output of `python -m ...`: its start takes five seconds, so most tests have `command`."""
    process = subprocess.run(
        [sys.executable, "-m", *map(str, args)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        env=os.environ | {"COLUMNS": "100"},
    )
    assert process.returncode == code, process.stderr
    return process.stdout if code == 0 else process.stderr


def command(*args):
    """The command line of experiments.calodream, in this process."""
    args = [str(a) for a in args]
    return run("calodream", study.__doc__, study.PRESETS, study.main, study.count_parameters, args)


def test_the_list_of_studies():
    lines = module("experiments")
    for name in ("calodream", "evaluate_showers", "generate_showers", "benchmarks.showers"):
        assert f"python -m experiments.{name} " in lines


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "smoke"
    command("--preset", "smoke", "--out", out)
    return out


def test_smoke_run_leaves_metrics_samples_and_figures(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    wanted = ("auc_high", "auc_low", "separation/E_tot", "separation/E_layer", "wasserstein/E_tot")
    for name in wanted:
        for suffix in ("", "_truth", "_error", "_truth_error"):
            assert math.isfinite(metrics[name + suffix]), name + suffix
    assert all(math.isfinite(value) for value in metrics.values())
    geometry = get_geometry("ds2")
    samples = read_showers(finished / "samples.h5", geometry)
    truth = read_showers(sample_path(), geometry)
    num = len(samples.energies)
    # Other energies of the same spectrum than those of the reference, the last ones.
    np.testing.assert_array_equal(samples.energies, truth.energies[:num])
    for name in ("features", "layer_ratios", "classifier_weights_high", "training_shape"):
        for suffix in (".pdf", ".png"):
            assert (finished / "figures" / f"{name}{suffix}").stat().st_size > 1000


def test_a_finished_run_is_not_run_again_but_drawn(finished):
    files = ("samples.h5", "evaluation.npz", "shape/metrics.jsonl", "metrics.json")
    before = [(finished / name).read_bytes() for name in files]
    figure = finished / "figures" / "features.png"
    figure.unlink()
    command("--preset", "smoke", "--out", finished)
    assert [(finished / name).read_bytes() for name in files] == before
    assert figure.exists()


def test_plot_only_draws_what_is_there(finished, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(study, "save", lambda figure, path: drawn.append(path.name))
    command("--preset", "smoke", "--out", finished, "--plot-only")
    assert {"features", "layer_ratios", "training_energy"} <= set(drawn)
    with pytest.raises(SystemExit, match="plot"):
        command("--preset", "smoke", "--out", tmp_path / "none", "--plot-only")
    assert not (tmp_path / "none").exists()


def test_a_changed_configuration_is_refused(finished):
    with pytest.raises(SystemExit, match=r"another configuration \(seed: 0 -> 3\)"):
        command("--preset", "smoke", "--out", finished, "--seed", 3)


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


def test_bad_files_are_refused_in_a_sentence(tmp_path):
    path = tmp_path / "bad.h5"
    with h5py.File(path, "w") as file:
        file["incident_energies"] = np.ones((50, 1))
        file["showers"] = np.full((50, 6480), np.nan, np.float32)
    out = tmp_path / "run"
    message = module(
        "experiments.calodream", "--data", path, "--num-test", 20, "--out", out, code=1
    )
    assert "nan" in message
    assert "Traceback" not in message
    smoke, sample = ("--preset", "smoke"), sample_path()
    for options, said in (
        (("--data", tmp_path / "no.h5"), "no.h5"),
        ((*smoke, "--shape-network.patch", 7, 7, 7), "patch (7, 7, 7) does not divide"),
        ((*smoke, "--data", sample, "--test-data", sample), "both data and test data"),
        ((*smoke, "--num-test", 5000), "too few"),
    ):
        with pytest.raises(SystemExit, match=re.escape(said)):
            command("--out", out, *options)
    assert not out.exists()  # nothing of the above marks the folder


def test_an_unknown_preset_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        command("--preset", "smok")
    assert "smok" in capsys.readouterr().err

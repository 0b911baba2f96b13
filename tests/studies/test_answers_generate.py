"""Showers from a trained model: streamed, resumed, with any solver."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments import study
from experiments.showers import generate, presets
from jgen import generative_model
from jgen.nets import TransfusionConfig, ViTConfig, num_parameters
from jgen.random import stream
from jgen.showers import calodream, get_geometry, read_showers, sample_path
from jgen.showers.calodream import generation, incident_energies
from jgen.solvers import NonStationary, runge_kutta, save_solver
from jgen.training import RunFolder

pytestmark = pytest.mark.study
GEOMETRY = get_geometry("ds2")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a model of one training step."""
    training = dataclasses.replace(presets.SMOKE.energy_training, steps=1, batch_size=8)
    config = dataclasses.replace(
        presets.SMOKE,
        num_train=40,
        num_test=20,
        energy_network=TransfusionConfig(48, 2, 1, 16, 16, 3),
        shape_network=ViTConfig(patch=(9, 16, 3), width=12, heads=2, blocks=1, mlp_width=16),
        energy_training=training,
        shape_training=training,
        sample_batch=4,
    )
    path = tmp_path_factory.mktemp("runs") / "model"
    with RunFolder(path, config) as run:
        calodream.train(config, presets.load_showers(config)[0], run)
    return path


def command(*args):
    """The command line, in this process."""
    return study.run(generate.STUDY, args)


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """The uninterrupted run, its metrics, and how many programs it compiled to sample."""
    out = tmp_path_factory.mktemp("whole") / "out"
    before = generative_model._sample_chunk._cache_size()
    options = ("--model", model, "--num", 11, "--solver", "midpoint-4", "--out", out)
    metrics = command(*options)
    return out, metrics, generative_model._sample_chunk._cache_size() - before, options


def test_a_sample_of_the_models_spectrum(model, whole):
    out, metrics, _, _ = whole
    trained = calodream.load(model).with_solvers("midpoint-4", "midpoint-4")
    low, high = trained.energy_range
    train = read_showers(sample_path(), GEOMETRY, 0, 40)
    np.testing.assert_allclose([low, high], [train.energies.min(), train.energies.max()])
    showers = read_showers(out / "showers.h5", GEOMETRY)
    energies = incident_energies(11, low, high, jax.random.key(0))
    np.testing.assert_allclose(showers.energies, energies, rtol=1e-6)
    expected = trained.draw(stream(jax.random.key(0), "showers"), showers.energies, batch_size=4)
    np.testing.assert_allclose(showers.voxels, expected.voxels, rtol=1e-5, atol=1e-4)
    assert metrics == json.loads((out / "metrics.json").read_text())
    assert metrics["num_showers"] == 11
    assert metrics["energies_outside"] == 0
    assert metrics["evaluations/energy"] == 45 * 4
    assert metrics["evaluations/shape"] == 4
    count = num_parameters(trained.parts["shape"].model.init)
    assert metrics["parameters/shape"] == count
    assert metrics["ms_per_shower"] > 0
    assert json.loads((out / "env.json").read_text())["devices"]


def test_three_batches_compile_one_program(whole):
    assert whole[2] == 1


def test_an_interrupted_sample_ends_bitwise_as_the_whole_one(whole, tmp_path, monkeypatch):
    calls, write = [], generation.write_showers

    def failing(*args):
        if len(calls) == 2:
            raise OSError("disk full")
        calls.append(1)
        return write(*args)

    options = (*whole[3][:-1], tmp_path / "out")
    monkeypatch.setattr(generation, "write_showers", failing)
    with pytest.raises(SystemExit, match="disk full"):
        command(*options)
    monkeypatch.setattr(generation, "write_showers", write)
    with pytest.raises(SystemExit, match=r"another configuration \(seed: 0 -> 1\)"):
        command(*options, "--seed", 1)
    command(*options)
    again = tmp_path / "out" / "showers.h5"
    assert again.read_bytes() == (whole[0] / "showers.h5").read_bytes()


def test_a_later_part_is_that_of_the_whole_sample(model, whole, tmp_path):
    options = ("--model", model, "--solver", "midpoint-4", "--start", 4, "--num", 5)
    metrics = command(*options, "--out", tmp_path / "out")
    assert metrics["num_showers"] == 5
    a, b = (read_showers(p / "showers.h5", GEOMETRY) for p in (whole[0], tmp_path / "out"))
    np.testing.assert_array_equal(a.energies[4:9], b.energies)
    np.testing.assert_array_equal(a.voxels[4:9], b.voxels)


def test_bespoke_solvers_energies_of_a_file_and_timing(model, whole, tmp_path):
    """A bespoke solver that is midpoint, for one network, and other batches: the same showers."""
    midpoint = NonStationary.from_runge_kutta(runge_kutta("midpoint", 2))
    save_solver(calodream.solver_path(model, "shape", 4), midpoint)
    metrics = command(
        *("--model", model, "--num", 11, "--solver", "midpoint-4", "--shape-solver", "bespoke-4"),
        *("--energies-from", whole[0] / "showers.h5", "--batch-size", 6, "--timing", 1, 2),
        *("--out", tmp_path / "out"),
    )
    a, b = (read_showers(p / "showers.h5", GEOMETRY) for p in (whole[0], tmp_path / "out"))
    np.testing.assert_array_equal(a.energies, b.energies)
    # Voxels next to the cut may fall on either side of it.
    np.testing.assert_allclose(a.voxels, b.voxels, rtol=1e-3, atol=1e-2)
    assert metrics["ms_per_shower/1"] > 0
    assert metrics["ms_per_shower/2"] > 0
    assert metrics["evaluations/shape"] == 4


def test_bad_options_are_refused_before_a_folder_is_made(model, tmp_path):
    out = tmp_path / "out"
    for options, message in (
        ((), "give --model DIR"),
        (("--model", tmp_path), "holds no run"),
        (("--model", model, "--solver", "bespoke-16"), "python -m experiments bespoke_solvers"),
        (("--model", model, "--num", 0), "must be at least 1"),
        (("--model", model, "--num", 9999, "--energies-from", sample_path()), "give --num"),
        (("--model", model, "--energy-range", 5, 1), "must be 0 < low < high"),
    ):
        with pytest.raises(SystemExit, match=message):
            command(*options, "--out", out)
        assert not out.exists()


def test_energies_beyond_the_training_are_counted(model, tmp_path):
    options = ("--num", 4, "--solver", "euler-1", "--energy-range", 1e5, 1e6)
    metrics = command("--model", model, *options, "--out", tmp_path / "out")
    energies = read_showers(tmp_path / "out" / "showers.h5", GEOMETRY).energies
    assert metrics["energies_outside"] == np.mean(energies > 3.1e4) == 1
    assert "ms_per_shower" not in metrics  # one batch is timed with its compilation, so not at all


def test_a_cloud_is_drawn_by_teacher_and_student(smoke, tmp_path):
    common = ("--model", smoke("clouds"), "--num", 6, "--batch-size", 3)
    for solver, calls in (("", 1), ("student", 1), ("teacher", 4)):
        out = tmp_path / (solver or "default")
        metrics = command(*common, "--out", out, "--solver", solver)
        assert metrics["evaluations/points"] == calls
        assert metrics["energies_outside"] == 0
        showers = read_showers(out / "showers.h5", GEOMETRY)
        assert showers.voxels.shape == (6, 6480)
        assert (showers.voxels.sum(axis=1) > 0).all()
    for options, message in (
        (("--solver", "euler-4"), "sampler must be one of"),
        (("--dtype", "bfloat16"), "--solver is student or teacher"),
    ):
        with pytest.raises(SystemExit, match=message):
            command(*common, *options, "--out", tmp_path / "none")

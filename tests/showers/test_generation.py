"""Generation straight into a file: interrupted anywhere, it ends as if it had not been."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.generative_model import GenerativeModel
from jgen.random import normal
from jgen.showers import generate_showers, get_geometry, read_showers, write_showers
from jgen.showers.calodream import generation as module
from jgen.showers.calodream import milliseconds_per_shower

GEOMETRY = get_geometry("ds2")
ENERGIES = np.geomspace(1e3, 1e6, 23).astype(np.float32)
PARAMS = {"scale": jnp.float32(2.0), "mean": jnp.arange(9.0)}


def sample(params, key, energy):
    """Voxels that depend on everything they may depend on."""
    noise = jnp.abs(normal(key, GEOMETRY.shape))
    return params["scale"] * noise * (1 + params["mean"])[None, None] * energy / 1e4


MODEL = GenerativeModel(lambda key: PARAMS, None, sample)


def generate(path, batch_size=5, params=PARAMS, seed=3, energies=ENERGIES, model=MODEL):
    key = jax.random.key(seed)
    return generate_showers(path, model, params, key, energies, GEOMETRY, batch_size=batch_size)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "showers.h5"
    generate(path)
    return path


def test_each_shower_is_the_models_at_its_key_and_energy(whole):
    found = read_showers(whole, GEOMETRY)
    np.testing.assert_array_equal(found.energies, ENERGIES)
    for i in (0, 4, 5, 22):
        key = jax.random.fold_in(jax.random.key(3), i)
        expected = sample(PARAMS, key, ENERGIES[i])
        np.testing.assert_allclose(found.voxels[i], expected.ravel(), rtol=1e-5)


def test_the_batch_size_changes_no_shower(whole, tmp_path):
    for batch_size in (7, 1000):
        path = tmp_path / f"{batch_size}.h5"
        generate(path, batch_size)
        a, b = read_showers(whole, GEOMETRY), read_showers(path, GEOMETRY)
        np.testing.assert_array_equal(a.voxels, b.voxels)
        np.testing.assert_array_equal(a.energies, b.energies)


def test_parts_of_several_jobs_are_one_sample(whole, tmp_path):
    key, expected = jax.random.key(3), read_showers(whole, GEOMETRY)
    for start, end in ((0, 10), (10, 20), (20, 23)):
        path = tmp_path / f"{start}.h5"
        options = {"batch_size": 5, "start": start}
        done = generate_showers(path, MODEL, PARAMS, key, ENERGIES[:end], GEOMETRY, **options)
        assert done.num == end - start
        found = read_showers(path, GEOMETRY)
        np.testing.assert_array_equal(found.voxels, expected.voxels[start:end])
        np.testing.assert_array_equal(found.energies, ENERGIES[start:end])
    with pytest.raises(ValueError, match="start must be one of the 23 showers, got 23"):
        generate_showers(tmp_path / "x", MODEL, PARAMS, key, ENERGIES, GEOMETRY, start=23)


@pytest.mark.parametrize("finished", [0, 1, 3, 4])
def test_an_exception_and_a_second_call_give_the_same_file(whole, tmp_path, monkeypatch, finished):
    """Batches before the exception are not made again, and the others once."""
    path, made = tmp_path / "showers.h5", []

    def failing(name, showers, geometry):
        if len(made) == finished:
            raise OSError("disk full")
        made.append(Path(name).name)
        return write_showers(name, showers, geometry)

    monkeypatch.setattr(module, "write_showers", failing)
    with pytest.raises(OSError, match="disk full"):
        generate(path)
    assert not path.exists()
    monkeypatch.setattr(module, "write_showers", write_showers)
    done = generate(path)
    assert done.num == len(ENERGIES) - 5 * finished
    assert done.num_timed == max(0, done.num - 5)
    assert path.read_bytes() == whole.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["showers.h5"]


def test_a_killed_process_and_a_second_call_give_the_same_file(whole, tmp_path):
    """kill -9 after the second batch; the slow writer leaves time for it."""
    path = tmp_path / "showers.h5"
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "import jax; jax.config.update('jax_num_cpu_devices', 8)\n"
        "import test_generation as t\n"
        "write = t.write_showers\n"
        "t.module.write_showers = lambda *args: (time.sleep(0.5), write(*args))\n"
        "t.generate(sys.argv[2])\n"
    )
    args = [sys.executable, "-c", code, str(Path(__file__).parent), str(path)]
    process = subprocess.Popen(args, env=os.environ | {"JAX_PLATFORMS": "cpu"})
    second, deadline = tmp_path / "showers.h5.parts" / "000000005.h5", time.monotonic() + 120
    while not second.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert second.exists()
    assert not path.exists()
    done = generate(path)
    assert 0 < done.num < len(ENERGIES) - 5
    assert path.read_bytes() == whole.read_bytes()


def test_what_belongs_to_another_generation_is_refused(tmp_path, monkeypatch):
    def failing(*args):
        raise OSError("disk full")

    path = tmp_path / "showers.h5"
    monkeypatch.setattr(module, "write_showers", failing)
    with pytest.raises(OSError, match="disk full"):
        generate(path)
    monkeypatch.setattr(module, "write_showers", write_showers)
    for change in (
        {"params": PARAMS | {"scale": jnp.float32(2.5)}},
        {"seed": 4},
        {"batch_size": 6},
        {"energies": ENERGIES * np.float32(1.01)},
        {"energies": ENERGIES[:-1]},
    ):
        with pytest.raises(ValueError, match="unfinished generation of other showers"):
            generate(path, **change)
    generate(path)


def test_one_program_serves_all_batches_and_the_resumed_ones(tmp_path):
    traces = []

    def counted(params, key, energy):
        traces.append(1)
        return sample(params, key, energy)

    generate(tmp_path / "showers.h5", batch_size=4, model=MODEL._replace(sample=counted))
    assert len(traces) == 1


def test_times_are_measured_without_compilation_at_each_size():
    """A shower that waits a known time on the host cannot be made faster."""
    calls = []

    def wait(x):
        calls.append(1)
        time.sleep(0.02)
        return x

    def slow(params, key, energy):
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return jax.pure_callback(wait, shape, energy, vmap_method="sequential")

    found = milliseconds_per_shower(slow, {}, jax.random.key(0), ENERGIES, (1, 4), repeats=2)
    assert set(found) == {1, 4}
    assert all(20 <= value < 200 for value in found.values())
    assert len(calls) == 3 * (1 + 4)  # one batch to compile, two timed ones


def test_bad_input(tmp_path):
    path = tmp_path / "showers.h5"
    with pytest.raises(ValueError, match="number 1 is -5"):
        generate(path, energies=np.array([1.0, -5.0]))
    with pytest.raises(ValueError, match=r"one or more numbers \[n\], got shape \(0,\)"):
        generate(path, energies=np.array([]))
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        generate(path, batch_size=0)
    assert not list(tmp_path.iterdir())


def test_showers_that_are_no_numbers_are_refused(tmp_path):
    broken = MODEL._replace(sample=lambda p, k, e: jnp.full(GEOMETRY.shape, jnp.nan))
    with pytest.raises(ValueError, match="voxel 0 of shower 0 is nan"):
        generate(tmp_path / "showers.h5", model=broken)
    assert not (tmp_path / "showers.h5").exists()

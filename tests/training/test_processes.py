"""Trainings as processes: killed, stopped, and spread over two of them."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parent / "small_training.py"


def start(folder, *options):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=SCRIPT.parents[2],
        env=None,
    )


def finish(process, code=0):
    output, _ = process.communicate(timeout=200)
    assert process.returncode == code, output
    return output


def wait_for_step(folder, step, process):
    log, deadline = folder / "metrics.jsonl", time.time() + 100
    while time.time() < deadline:
        assert process.poll() is None, process.communicate()[0]
        if log.exists() and f'"step": {step},' in log.read_text():
            return
        time.sleep(0.01)
    raise AssertionError(f"step {step} was not reached")


def rows(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in lines]


def arrays(folder):
    with np.load(folder / "final.npz") as file:
        return [file[name] for name in file.files]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    finish(start(folder, "--steps", 1000))
    return folder


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.study)]
)
def test_interrupted_is_uninterrupted_bit_for_bit(tmp_path, whole, how):
    process = start(tmp_path, "--steps", 1000)
    wait_for_step(tmp_path, 120, process)
    process.send_signal(how)
    output = finish(process, -9 if how == signal.SIGKILL else 143)
    if how == signal.SIGTERM:
        assert "SIGTERM at step" in output
        assert "Traceback" not in output
    assert not (tmp_path / "final.npz").exists()
    finish(start(tmp_path, "--steps", 1000))
    assert rows(tmp_path) == rows(whole)
    for found, expected in zip(arrays(tmp_path), arrays(whole), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.study
def test_two_processes_train_and_agree_with_one(tmp_path):
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    both = [start(tmp_path / "two", "--steps", 100, "--process", i, "--port", port) for i in (0, 1)]
    for process in both:
        finish(process)
    finish(start(tmp_path / "one", "--steps", 100))
    pairs = zip(rows(tmp_path / "two"), rows(tmp_path / "one"), strict=True)
    for found, expected in pairs:
        assert found.keys() == expected.keys()
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=2e-3)

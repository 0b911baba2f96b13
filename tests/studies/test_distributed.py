"""A whole study as two processes of one run, as on two hosts with a shared disk."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

OPTIONS = ("--training.steps", "3", "--num-train", "200", "--num-test", "100")


@pytest.mark.study
@pytest.mark.timeout(900)
def test_two_processes_run_a_study_as_one_does(command, tmp_path):
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    processes = []
    for i in range(2):
        where = {
            "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(i),
        }
        argv = ("moons_gaps", "--preset", "smoke", *OPTIONS, "--distributed")
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "experiments", *argv, "--out", str(tmp_path / "two")],
                env=os.environ | where | {"XLA_FLAGS": ""},
                cwd=Path(__file__).parents[2],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    outputs = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "NLL - truth" in outputs[0]  # process 0 alone writes and reports
    assert "NLL - truth" not in outputs[1]
    found = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert found == pytest.approx(
        command("moons_gaps", *OPTIONS, "--out", tmp_path / "one"), rel=1e-3
    )

"""Scans: every combination of values as a job, and one table of what they found."""

import csv
import json
import shlex
import sys
import types
from dataclasses import dataclass, field

import pytest

from experiments import __main__ as command_line
from experiments import scan as scans
from experiments.study import Study
from jgen.estimate import Estimate


@dataclass(frozen=True)
class Block:
    steps: int = 10
    """Steps."""

    def check(self):
        if self.steps > 100:
            raise ValueError(f"steps must be 100 at most, got {self.steps}")


@dataclass(frozen=True)
class Config:
    block: Block = field(default_factory=Block)
    """A block."""
    hidden: tuple[int, ...] = (4,)
    """Widths."""
    seed: int = 0
    """Seed."""


def compute(config, run):
    if config.seed == 13:
        raise ValueError("an unlucky number")
    return {
        "size": Estimate(config.block.steps * sum(config.hidden), 1.0),
        "seed": config.seed,
    }


STUDY = Study({"default": Config(), "smoke": Config()}, compute, lambda *_: "")


@pytest.fixture
def scan(monkeypatch, tmp_path):
    """A command line, whose jobs run in this process."""
    module = types.SimpleNamespace(STUDY=STUDY)
    monkeypatch.setattr(command_line, "studies", lambda: {"small": ("small", "")})
    imports = types.SimpleNamespace(import_module=lambda name: module)
    monkeypatch.setattr(command_line, "importlib", imports)
    started = []

    def run(command, check):
        assert command[:3] == [sys.executable, "-m", "experiments"]
        started.append(command)
        try:
            command_line.main(command[3:])
        except SystemExit as end:
            return types.SimpleNamespace(returncode=int(end.code is not None))
        return types.SimpleNamespace(returncode=0)

    monkeypatch.setattr(scans, "subprocess", types.SimpleNamespace(run=run))
    call = lambda *argv: command_line.main(["small", *argv, "--out", str(tmp_path / "scan")])
    return call, tmp_path / "scan", started, run


def test_jobs_cover_all_combinations_and_join_to_one_table(scan, capsys):
    call, out, started, run = scan
    options = ("--scan", "block.steps=5,10", "--scan=hidden=1,2 3", "--seed", "7")
    call(*options)
    assert not started
    assert "4 jobs are in" in capsys.readouterr().out
    jobs = [shlex.split(line) for line in (out / "jobs.txt").read_text().splitlines()]
    assert len(jobs) == 4
    assert jobs[3][4:] == [
        *("--seed", "7", "--block.steps", "10", "--hidden", "2", "3"),
        *("--out", str(out / "block.steps=10,hidden=2_3")),
    ]
    run(jobs[3], check=False)  # as an engine does
    call(*options)
    assert "1 of 4 runs have finished" in capsys.readouterr().out
    call(*options, "--run")
    printed = capsys.readouterr().out
    assert "4 of 4 runs have finished" in printed
    assert "50.0(10)" in printed
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = {("5", "1"): 5, ("5", "2 3"): 25, ("10", "1"): 10, ("10", "2 3"): 50}
    found = {(row["block.steps"], row["hidden"]): float(row["size"]) for row in rows}
    assert found == expected
    assert {float(row["seed"]) for row in rows} == {7}
    assert json.loads((out / "block.steps=5,hidden=1" / "config.json").read_text())["seed"] == 7


def test_a_run_that_fails_stops_no_other(scan, capsys):
    call, out, started, _ = scan
    with pytest.raises(SystemExit, match="these have failed:\n.*--seed 13"):
        call("--scan", "seed=13,4", "--run")
    assert len(started) == 2
    assert "1 of 2 runs have finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--scan", "seed"), "--scan takes FIELD=VALUE,VALUE,..., got 'seed'"),
        (("--scan", "seed=1,,2"), "--scan takes FIELD=VALUE"),
        (("--scan", "seed=1,1"), "--scan has values twice"),
        (("--scan", "block.steps=5,500"), "steps must be 100 at most, got 500"),
        (("--scan", "colour=1,2"), "2"),  # the exit status of the parser
    ],
)
def test_bad_scans_write_nothing(scan, options, message):
    call, out, *_ = scan
    with pytest.raises(SystemExit, match=message):
        call(*options)
    assert not out.exists()

"""The study of layer flows: its energies, its summary and its options."""

import json

import numpy as np
import pytest

from experiments.showers import layer_flows
from experiments.showers.layer_flows import SMOKE
from jgen.showers import Showers


def test_energies_are_compared_with_those_that_were_given():
    voxels = np.array([[1.0, 3.0, 0.0, 0.0], [2.0, 2.0, 5.0, 0.0]], np.float32)
    given = np.array([[4.0, 0.5], [4.0, 5.5]])
    found = layer_flows.conserved("teacher", given, Showers(np.ones(2), voxels))
    assert found["conservation/teacher"] == pytest.approx(0.5 / 5.5)
    assert found["lost/teacher"] == pytest.approx(0.5 / 14)


def test_the_comparison_is_of_disjoint_showers():
    train, reference = layer_flows.load_showers(SMOKE)
    pieces = [set(s.energies.tolist()) for s in (train, reference)]
    assert sum(map(len, pieces)) == len(set.union(*pieces))
    assert reference.voxels.shape[1] == SMOKE.merged_geometry.num_voxels


@pytest.mark.study
def test_the_summary_is_of_teacher_and_student(smoke):
    metrics = json.loads((smoke("layer_flows") / "metrics.json").read_text())
    for size in SMOKE.timing:
        times = [metrics[f"ms_per_shower/{name}/{size}"] for name in ("teacher", "student")]
        assert metrics[f"speedup/{size}"] == pytest.approx(times[0] / times[1])
    for name in ("teacher", "student"):
        assert metrics[f"conservation/{name}"] < 1e-5
        assert 0 <= metrics[f"lost/{name}"] < 0.1
    ratio = metrics["step_ms/in_turn"] / metrics["step_ms/stacked"]
    assert metrics["stacked_speedup"] == pytest.approx(ratio)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--block", 7, 4, 1), "cannot be cut into blocks"),
        (("--num-test", 10), "num_test must be at least 40"),
        (("--copies", 0), "copies must be a whole number from 1"),
        (("--cells.depth", 0), "depth"),
        (("--max-energy", 1100.0), "too few for 100"),
    ],
)
def test_bad_options(options, message, command, tmp_path):
    dry = () if 1100.0 in options else ("--dry-run",)
    with pytest.raises(SystemExit, match=message):
        command("layer_flows", *options, "--out", tmp_path / "none", *dry)

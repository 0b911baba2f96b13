"""The study of CaloClouds: observables of a shower as a whole, its summary and its options."""

import json
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments.showers import clouds
from experiments.showers.clouds import SMOKE, WHOLE, whole_showers
from experiments.study import variant
from jgen.estimate import Estimate
from jgen.showers import Showers, get_geometry, read_showers
from jgen.showers import clouds as jgen_clouds


def test_observables_of_a_shower_of_two_voxels():
    voxels = np.zeros((1, 45, 16, 9), np.float32)
    voxels[0, 10, 8, 0] = 30.0  # angle 11.25 degrees, radius 2.325 mm
    voxels[0, 14, 8, 1] = 10.0  # radius 6.975 mm
    voxels[0, 20, 0, 0] = 0.01  # below the threshold
    found = whole_showers(SMOKE, Showers(np.array([100.0], np.float32), voxels.reshape(1, -1)))
    expected = {
        "response": 0.4,
        "hits": 2,
        "depth": 11.0,
        "x": (0.75 * 2.325 + 0.25 * 6.975) * np.cos(np.pi / 16),
        "radius": 0.75 * 2.325 + 0.25 * 6.975,
    }
    assert set(found) == set(WHOLE)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, err_msg=name)


def test_the_truth_is_the_mean_of_disjoint_pairs_of_all_showers(monkeypatch):
    """And copies none but these: the training showers here would take four terabytes."""
    num, pairs = 10**6, []
    voxels = np.broadcast_to(np.float32(0), (num, num))
    train = Showers(np.arange(num), voxels)
    reference = Showers(np.arange(num, num + 3), voxels[:3])

    def distances(config, name, truth, showers, num_bootstrap):
        assert (name, num_bootstrap) == ("truth", 0)
        assert truth.voxels.shape == showers.voxels.shape == (2, num)
        pairs.append([*truth.energies, *showers.energies])
        return {"w1": Estimate(float(len(pairs)), 0.0)}

    monkeypatch.setattr(clouds, "distances", distances)
    monkeypatch.setattr(clouds, "classified", lambda *_: {"auc/truth": Estimate(0.5, 0.1)})
    run = SimpleNamespace(key=lambda name: jax.random.key(0))
    found = clouds.judge_truth(variant(SMOKE, num_test=2), run, train, reference)
    assert found["w1"] == Estimate(np.mean(np.arange(1, 11)), np.std(np.arange(1, 11)))
    assert found["auc/truth"] == Estimate(0.5, 0.1)
    assert all(len(set(rows)) == 4 for rows in pairs)
    assert len(set(np.ravel(pairs))) > 35


@pytest.mark.study
def test_the_summary_is_of_one_call_and_many(smoke):
    metrics = json.loads((smoke("clouds") / "metrics.json").read_text())
    for size in SMOKE.timing:
        times = [metrics[f"ms_per_shower/{name}/{size}"] for name in ("teacher", "student")]
        assert metrics[f"speedup/{size}"] == pytest.approx(times[0] / times[1])
    names = [n.split("/student/") for n in metrics if "/student/" in n and "_error" not in n]
    over = [
        metrics[f"{kind}/student/{name}"]
        / max(1.5 * metrics[f"{kind}/teacher/{name}"], 2 * metrics[f"{kind}/truth/{name}"])
        for kind, name in names
        if kind in ("w1", "distance")
    ]
    assert len(over) == len(WHOLE) + 11
    assert metrics["student_over_bar"] == pytest.approx(max(over))
    # From 1 GeV to `max_energy`.
    assert 16.5 < metrics["ms_per_shower/geant4"] < 16.5 * SMOKE.max_energy / 1e3


@pytest.mark.study
def test_a_finished_run_takes_up_a_calodream(smoke, command, tmp_path):
    """At the same incident energies; what was there stays as it is."""
    out = tmp_path / "clouds"
    shutil.copytree(smoke("clouds"), out)
    before = json.loads((out / "metrics.json").read_text())
    found = command("clouds", "--calodream", smoke("calodream"), "--out", out)
    assert {name: found[name] for name in before} == before
    added = {name.split("/")[0] for name in found if "/calodream" in name}
    assert added == {"w1", "distance", "auc", "ms_per_shower"}
    made = [read_showers(out / f"{n}.h5", get_geometry("ds2")) for n in ("student", "calodream")]
    np.testing.assert_array_equal(*(showers.energies for showers in made))
    other = tmp_path / "other"
    shutil.copytree(smoke("calodream"), other)
    with pytest.raises(SystemExit, match="this run has been compared with"):
        command("clouds", "--calodream", other, "--out", out)


@pytest.mark.study
def test_training_goes_on_from_a_finished_run(smoke, command, tmp_path):
    """With its networks, whatever sizes are asked for, and what else is asked for."""
    options = ("--teacher.steps", 2, "--student.steps", 2, "--flow.training.steps", 10)
    sizes = ("--point-wise.hidden", 8, "--flow.depth", 1)
    out = tmp_path / "more"
    command("clouds", "--start-from", smoke("clouds"), *options, *sizes, "--out", out)
    trained = jgen_clouds.load(out)
    assert trained.config.point_wise == SMOKE.point_wise
    assert trained.config.flow.depth == SMOKE.flow.depth
    assert trained.config.teacher.steps == 2
    start = jgen_clouds.load(smoke("clouds"))
    moved = jax.tree.map(
        lambda a, b: abs(a - b).max(), dict(trained.networks), dict(start.networks)
    )
    assert 0 < max(jax.tree.leaves(moved)) < 0.2  # fresh networks differ by more
    with pytest.raises(SystemExit, match="start_from must be a CaloClouds"):
        command("clouds", "--start-from", smoke("calodream"), "--out", tmp_path / "none")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--network", "epic"), "few must be 0, got 16"),
        (("--num-test", 10), "num_test must be at least 40"),
        (("--max-energy", -1.0), "max_energy must be at least 0"),
        (("--num-validation", 0), "num_validation"),
        (("--calodream", "nowhere"), "nowhere holds no run"),
        (("--start-from", "nowhere"), "nowhere is no run folder"),
        (("--start-from", "electrons-ds2", "--one-call", "mean_flow"), "see no interval"),
        (("--geometry", "ds3"), "give --data FILE"),
        (("--max-energy", 1100.0), "too few for 100"),
    ],
)
def test_bad_options(options, message, command, tmp_path):
    dry = () if "--geometry" in options or 1100.0 in options else ("--dry-run",)
    with pytest.raises(SystemExit, match=message):
        command("clouds", *options, "--out", tmp_path / "none", *dry)


def test_the_comparison_is_of_disjoint_showers():
    train, reference = clouds.load_showers(SMOKE)
    assert len(reference.energies) == SMOKE.num_test
    assert max(train.energies.max(), reference.energies.max()) <= SMOKE.max_energy
    assert not np.isin(reference.energies, train.energies).any()

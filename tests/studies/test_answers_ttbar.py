"""The studies of events: numbers of training events, what is refused, and the control."""

import numpy as np
import pytest

from experiments.events import ttbar, ttbar_amplification
from experiments.study import Run, variant
from jgen.events import read_events

pytestmark = pytest.mark.study


def test_fewer_training_events_are_scored_as_well(command, tmp_path):
    options = ("--networks", "transformer", "--train-sizes", "100", "--calls")
    metrics = command("ttbar", "--out", tmp_path / "sizes", *options)
    assert np.isfinite(metrics["nll/transformer/100"])
    assert not [name for name in metrics if name.startswith("rmse")]
    assert (tmp_path / "sizes" / "figures" / "sizes.png").exists()


@pytest.mark.parametrize("num", [300, 2000, 40_000])
def test_events_of_the_truth_are_at_its_distance_however_many_there_are(num):
    rng = np.random.default_rng(0)
    true = [{"x": rng.normal(size=2000)}, {"x": rng.normal(size=2001)}]
    found = ttbar.ratios(true, {"x": rng.normal(size=num)}, np.random.default_rng(1))
    assert found["x"] == pytest.approx(1, abs=0.5)


def test_the_ratio_is_that_of_distances_from_as_many_events():
    """Of two true values one apart, and generated ones far off."""
    true, made = [{"x": np.zeros(1)}, {"x": np.ones(1)}], {"x": np.full(7, 10.5)}
    # Half of the halvings begin with the zero, and are 10.5 away, the others 9.5.
    assert 9.5 < ttbar.ratios(true, made, np.random.default_rng(0))["x"] < 10.5


def test_observables_that_any_network_has_beyond_three_are_named():
    config = variant(ttbar.DEFAULT, networks=("transformer", "lloca"))
    beside = {"transformer": (1.0, 3.0, 2.0), "lloca": (2.9, 1.0, 7.0), "training": (9.0, 1.0, 1.1)}
    results = {
        f"w1_ratio/{n}": {"largest": max(v)} | dict(zip(("of/a", "of/b", "of/c"), v, strict=True))
        for n, v in beside.items()
    }
    columns, rows = ttbar.farthest(config, results)
    assert columns == ["c", "b"]
    assert list(rows.values()) == [[2.0, 3.0], [7.0, 1.0], [1.1, 1.0]]


def test_options_that_do_not_fit_are_refused(command, tmp_path):
    np.save(tmp_path / "few.npy", read_events()[:400])
    for options, said in (
        (("--calls", 6), "multiples of four"),
        (("--train-sizes", 5000), "below num_train"),
        (("--networks", "lloca", "lloca"), "different ones"),
        (("--transformer.symmetry", "so3"), "symmetry is identity"),
        (("--data", tmp_path / "few.npy"), "of 400 events 50 are left"),
        (("--data", tmp_path / "none.npy"), "none.npy"),
        (("--num-jets", 2), "jet"),
    ):
        with pytest.raises(SystemExit, match=said):
            command("ttbar", "--out", tmp_path / "none", *options)
    for options, said in (
        (("--training.ensemble", 1), "two members or more"),
        (("--regions", 800, 700), "pairs low < high"),
    ):
        with pytest.raises(SystemExit, match=said):
            command("ttbar_amplification", "--out", tmp_path / "none", *options)
    assert not (tmp_path / "none").exists()


def test_published_presets_read_as_many_jets_as_they_say():
    for n in range(5):
        assert ttbar.PRESETS[f"paper-{n}j"].num_jets == n


def test_resampled_training_events_are_worth_themselves(tmp_path):
    """G = 1 of the control, from many members."""
    config = variant(ttbar_amplification.DEFAULT, networks=(), num_generated=40_000)
    with Run(tmp_path / "run", config) as run:
        (found,) = ttbar_amplification.forecasts(config, run).values()
    for region in ("region_1", "region_2"):
        assert found.averaging[region].amplification.value == pytest.approx(1.0, abs=0.35)
    # The distance of 4000 true events to others.
    assert found.differential["m_tt"].amplification.value > 0.2

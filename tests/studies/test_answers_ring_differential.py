"""Differential amplification of rings: its parts against known values."""

import json

import numpy as np
import pytest

from experiments.amplification.rings import differential as study
from experiments.amplification.rings import rings
from experiments.study import Run
from jgen.amplification import log_density_ratio
from jgen.toys import ring

SMOKE = study.SMOKE


@pytest.mark.study
def test_controls_are_worth_what_is_known(smoke):
    """Spoiled generators lose in the statistic that sees it, and keep their worth in the other."""
    metrics = json.loads((smoke("rings.differential") / "metrics.json").read_text())
    worth = lambda name: metrics[f"control/{name}"]
    for name, distance in (("shifted/R", 0.0796557), ("thinned/angle", 0.0192308)):
        assert worth(f"{name}_exact") == pytest.approx((0.868731 / distance) ** 2 / 1000, rel=1e-4)
    assert worth("shifted/R") == pytest.approx(worth("shifted/R_exact"), rel=0.3)
    # Ten experiments of ten thousand events, whose own fluctuation is half of that distance.
    assert worth("thinned/angle") == pytest.approx(2.04, rel=0.5)
    assert worth("memoriser/R") == pytest.approx(1.0, rel=0.5)
    assert worth("radial fit/R") > 5 * worth("shifted/R")
    assert worth("shifted/R_seen") == 1
    # By the training set the memoriser is perfect.
    assert worth("memoriser/R_infinite") == 1
    assert worth("radial fit/R_infinite") >= 0.7


@pytest.mark.study
def test_statistics_are_those_of_the_events(smoke):
    """Radius, true ratio and rows of one member, made again."""
    with Run(smoke("rings.differential"), SMOKE, read_only=True) as run:
        made = rings.networks(SMOKE.rings, 2, run, None)
        stage = run.stage("statistics/network-2d-1")
    params, key = made.params[0][1], made.key_of(0, 1)
    events = study.draw_inside(SMOKE, made.model.sample, params, key)
    assert np.abs(rings.radius(events) - 1).max() < 0.164485 + 1e-4
    ratio = log_density_ratio(
        ring(2).log_prob, lambda x: made.model.log_prob(params, None, x), events
    )
    np.testing.assert_allclose(stage["generated/R"], rings.radius(events))
    np.testing.assert_allclose(stage["generated/LR truth"], ratio, atol=1e-5)
    known = study.references(SMOKE, 2)
    for name in study.REFERENCES:
        assert len(stage[f"{name}/R"]) == len(known[name])
        assert len(stage[f"{name}/LR class"]) == len(stage[f"rows/{name}"])
    assert len(known["held-out"]) == SMOKE.num_held_out
    assert 850 < len(known["training"]) < 950
    # No event is in two references.
    every = np.concatenate(list(known.values()))
    assert len(np.unique(every, axis=0)) == len(every)


def test_the_cut_takes_generated_and_true_events_alike():
    """Made-up ratios, of which a known half is inside."""
    rng = np.random.default_rng(0)
    found = {}
    for name, num in (("generated", 4000), ("large", 1000)):
        found[f"{name}/R"] = np.arange(num, dtype=float)
        rows = np.arange(1, num, 2)
        ratio = np.where(np.arange(len(rows)) % 2, 0.01, 0.2) * rng.choice([-1, 1], len(rows))
        prefix = "generated rows/large" if name == "generated" else "rows/large"
        suffix = "generated/LR class/large" if name == "generated" else "large/LR class"
        found |= {prefix: rows, suffix: ratio}
    whole = study._values(found, "large", "R", None)
    cut = study._values(found, "large", "R", (0.95, 1.05))
    np.testing.assert_array_equal(whole[0], np.arange(1, 4000, 2))
    np.testing.assert_array_equal(cut[0], np.arange(3, 4000, 4))
    np.testing.assert_array_equal(cut[1], np.arange(3, 1000, 4))
    assert np.abs(study._values(found, "large", "LR class", (0.95, 1.05))[0]).max() < 0.05
    one = study._curve(SMOKE, [found], "large", "R", (0.95, 1.05), 900)
    assert (one.num_reference, one.num_train) == (250, 450)
    assert study._curve(SMOKE, [found], "large", "R", (0.995, 1.005), 900) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--num-draws", 11), "num_draws is 11, but there are 10 members"),
        (("--data-set", 2), "data_set must be one of the 2"),
        (("--cut", 1.05, 1.2), "the cut must be an interval around one"),
        (("--max-gen", 10), "max_gen must be at least 1000"),
        (("--model", "none"), "holds no networks"),
    ],
)
def test_bad_options(command, options, message):
    with pytest.raises(SystemExit, match=message):
        command("rings.differential", *options)

"""The amplification of showers: estimates of known worth, and a small run."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.amplification.shower_amplification import study, training
from experiments.study import Run
from jgen.amplification import Interval
from jgen.showers import Showers
from jgen.showers.calodream import incident_energies

NAMES = tuple(training.OBSERVABLES)
SMOKE = study.SMOKE


def observed(rng, *shape):
    return {name: rng.normal(size=shape) for name in NAMES}


def memoriser(seed, num_train=500, num_reference=2000, members=10, num=4000):
    """Training and reference sample, and members that repeat their resampled training showers."""
    rng = np.random.default_rng(seed)
    known, true = observed(rng, num_train), observed(rng, num_reference)
    own = rng.integers(0, num_train, (members, num_train))
    rows = np.take_along_axis(own, rng.integers(0, num_train, (members, num)), axis=1)
    made = {name: known[name][rows] for name in NAMES}
    return (
        known,
        true,
        made | {"incident": incident_energies(members * num, 1e3, 3e4, jax.random.key(seed))},
    )


def test_a_memoriser_is_worth_its_training_showers():
    """Bootstrap members of the training set have G = 1, but the published form promises more."""
    config = dataclasses.replace(study.DEFAULT, num_regions=10, levels=5)
    found = []
    for seed in range(12):
        known, true, made = memoriser(seed)
        numbers = {}
        for name in NAMES:
            numbers |= study._averaging(config, name, known, true, made)[0]
            numbers |= study._differential(name, known[name], true[name], made[name])
        found.append(numbers | study._divergences(config, known, true, made))
    inverse = lambda key: np.array([1 / one[key].value for one in found])
    # Errors of 1 / G, over three observables and twelve data sets: a mean of squares of ten regions
    # scatters by (2 / 9)^(1/2) of itself, noise of the reference and of the members included; the
    # spread of ten members in ten regions by (2 / 81)^(1/2).
    averaging, quantiles, control = (
        np.mean([inverse(f"G/{what}/{n}") for n in NAMES])
        for what in ("averaging", "quantiles", "quantiles_control")
    )
    assert averaging == pytest.approx(1, abs=3 * (1 + 500 / 4000) * (2 / 81 / 36) ** 0.5)
    # The mean of resampled sets is worse than the training set by one part in members.
    error = (1.1 + 500 / 2000) * (2 / 9 / 36) ** 0.5
    assert quantiles == pytest.approx(1.1, abs=3 * error)
    assert control == pytest.approx(1, abs=3 * error)
    width = np.mean([[one[f"pull/{n}"] ** 2 for n in NAMES] for one in found])
    expected = np.mean([[one[f"pull/{n}_expected"] ** 2 for n in NAMES] for one in found])
    assert width == pytest.approx(expected, rel=0.4)
    # 32 bins of 16 training showers: (2 / 31)^(1/2) a data set, and some percent of bias.
    error = (1.1 + 500 / 2000) * (2 / 31 / 12) ** 0.5
    assert np.mean(inverse("G/jsd/32")) == pytest.approx(1.1, abs=3 * error)
    assert np.mean(inverse("G/jsd_control/32")) == pytest.approx(1, abs=3 * error)
    # The mean of K^2 is 1.09 <K>^2, its relative scatter 0.62. Members resample the training set,
    # and so err twice as much (their mean distance is squared, which takes the 1.09 off partly).
    for what, expected in (("ks", 1.1), ("ks_control", 1.0), ("ks_member", 2.0)):
        mean = np.mean([inverse(f"G/{what}/{n}") for n in NAMES])
        total = 1.09 * (expected + 500 / 2000)
        assert mean == pytest.approx(total - 500 / 2000, abs=3 * 0.62 * total / 36**0.5), what
    published = [one[f"G/ks_training/{n}"].value for one in found for n in NAMES]
    assert np.median(published) > 5


def test_divergences_are_small_numbers_of_bins_first():
    """The bins of fewer splits, from the bits of those of all, against splits made anew."""
    known, true, made = memoriser(7, num=3000)
    deep, flat = (
        study._divergences(dataclasses.replace(study.DEFAULT, levels=n), known, true, made)
        for n in (5, 2)
    )
    for key in (
        "jsd/generated/4",
        "jsd/training/2",
        "jsd/member_spread/4",
        "jsd/expected_perfect/4",
    ):
        assert deep[key] == pytest.approx(flat[key])


def test_known_spectrum_by_hand():
    """A region with rate 0.9 below the median energy and 0.1 above: 0.25 / 0.09."""
    rng = np.random.default_rng(0)
    incident = incident_energies(200_000, 1e3, 3e4, jax.random.key(1))
    rate = np.where(incident < np.median(incident), 0.9, 0.1)
    values = (rng.uniform(size=len(incident)) > rate).astype(float)
    found = study._known_spectrum(values, incident, np.array([-np.inf, 0.5, np.inf]))
    assert found == pytest.approx(0.25 / 0.09, rel=0.02)
    flat = study._known_spectrum(rng.normal(size=200_000), incident, np.array([-np.inf, 0, np.inf]))
    assert flat == pytest.approx(1, abs=0.001)


def test_spectrum_is_checked():
    sample = lambda energies: Showers(energies, np.zeros((len(energies), 0)))
    energies = incident_energies(500, 1e3, 3e4, jax.random.key(0))
    training.check_spectrum(sample(energies), (1e3, 3e4), "sample")
    with pytest.raises(ValueError, match="of the sample are not log-uniform.* lie outside"):
        training.check_spectrum(sample(energies), (1e3, 2e4), "sample")
    with pytest.raises(ValueError, match="0 of 500 lie outside, and the p-value"):
        training.check_spectrum(sample(np.linspace(1e3, 3e4, 500)), (1e3, 3e4), "sample")


@pytest.mark.study
def test_members_have_showers_of_their_own(smoke):
    out = smoke("shower_amplification")
    showers, _ = study.load(SMOKE)
    with Run(out, SMOKE, read_only=True) as run:
        made = training.samples(SMOKE, showers, run)
    shapes = {name: v.shape for name, v in made.items()}
    assert shapes == dict.fromkeys((*NAMES, "incident"), (4, 600))
    for values in made.values():
        assert len(np.intersect1d(*values[:2])) == 0
    assert 1e3 <= made["incident"].min() < made["incident"].max() <= 3e4
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["jsd/expected_training/8"] == pytest.approx(7 / 8 * (1 / 300 + 1 / 400))
    assert 0 < metrics["jsd/training/8"] < 4 * metrics["jsd/expected_training/8"]
    for name in NAMES:
        assert metrics[f"G/averaging/{name}_low"] > 0
        assert metrics[f"G/spectrum/{name}"] > 0.99


def test_infinite_numbers_are_left_out():
    found = {"a": Interval(np.float64(np.inf), 2.0, np.inf), "b": 1}
    assert study.finite(found) == {"a_low": 2.0, "b": 1.0}
    assert str(found["a"]) == "inf [> 2]"


def test_members_of_every_kind():
    params = {"w": np.zeros((4, 3))}
    for kind in ("bootstrap", "plain", "repulsive"):
        config = dataclasses.replace(SMOKE, members=kind)
        assert training.training_of(config).members == kind
        assert training.training_of(config).ensemble == 4
        assert training.members_of(config, params) is params
    config = dataclasses.replace(SMOKE, members="bayesian", num_members=400)
    assert training.training_of(config).ensemble == 1
    posterior = jax.eval_shape(training.trained_model(config, 200).init, jax.random.key(0))
    assert set(posterior) == {"mean", "log_scale"}
    stacked = {"mean": {"w": jnp.ones((1, 3))}, "log_scale": {"w": jnp.full((1, 3), math.log(0.1))}}
    draws = np.array(training.members_of(config, stacked)["w"])
    np.testing.assert_allclose(draws.mean(axis=0), 1, atol=4 * 0.1 / 20)
    np.testing.assert_allclose(draws.std(axis=0), 0.1, rtol=4 / 800**0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--num-members", 1), "num_members must be at least 2"),
        (("--num-generated", 149), "num_generated must be at least 400"),
        (("--levels", 9), "do not fill"),
        (("--calodream.energy-range", "None"), "energy-range"),
        (("--calodream.energy-range", 1e3, 2e4), "not log-uniform"),
        (("--calodream.num-validation", 10), "num-validation"),
    ],
)
def test_bad_options(command, tmp_path, options, message):
    with pytest.raises(SystemExit, match=message):
        command("shower_amplification", *options, "--out", tmp_path / "bad")
    assert not (tmp_path / "bad").exists()

"""Averaging amplification of rings: a small run, and its sums against known values."""

import dataclasses

import numpy as np
import pytest

from experiments.amplification.rings import averaging as study
from experiments.amplification.rings import rings
from experiments.study import Run
from jgen.generative_model import draw
from jgen.nets.transformers.causal import CausalConfig
from jgen.toys import ring

SMALL = dataclasses.replace(
    study.SMOKE,
    rings=dataclasses.replace(
        study.SMOKE.rings, training=dataclasses.replace(study.SMOKE.rings.training, steps=100)
    ),
    max_gen=5000,
)


@pytest.mark.study
def test_the_fractions_are_those_of_the_members_events(smoke):
    """One member drawn again, and counted by hand."""
    config = study.SMOKE
    with Run(smoke("rings.averaging"), config, read_only=True) as run:
        made = rings.networks(config.rings, 2, run, None)
        stage = run.stage("fractions/network-2d-1")
    key = made.key_of(1, 3)
    events = draw(made.model, made.params[1][3], key, config.max_gen, batch_size=700)
    counts, _ = np.histogram(np.hypot(*events.T), rings.region_edges(2))
    np.testing.assert_allclose(stage["fractions"][3, -1], counts / config.max_gen)
    assert stage["sizes"][-1] == config.max_gen
    # Draws of one posterior differ in the output layer only, and training sets in everything.
    first, second, other = (made.params[i][j] for i, j in ((1, 3), (1, 4), (0, 3)))
    assert not np.array_equal(first["out"]["kernel"], second["out"]["kernel"])
    np.testing.assert_array_equal(first["positions"], second["positions"])
    assert not np.array_equal(first["positions"], other["positions"])


@pytest.mark.study
def test_known_generators_get_their_known_worth():
    """Bootstrap members of the radial fit and the memoriser, enough of them to tell."""
    config = dataclasses.replace(SMALL.rings, data_sets=8, num_members=40)
    settings = dataclasses.replace(study.SMOKE, rings=config, max_gen=20_000, batch_size=5000)
    for name, known in (("radial fit", 20.8), ("memoriser", 1.0)):
        made = rings.control(config, 2, name)
        counts = [study.region_counts(settings, made, i) for i in range(8)]
        fractions = np.array([one["fractions"][:, -1:, 1:19] for one in counts])
        one = study.worth(fractions, counts[0]["sizes"][-1:], 1000)
        binomial = 18 * 0.05 * 0.95 / 1000
        # Over data sets the members' spread scatters; of members, by sqrt(2 / 40) or less.
        error = np.hypot(one.estimated.error, one.estimated.value * (2 / 320) ** 0.5)
        assert abs(one.estimated.value - binomial / known) < 4 * error, name
        assert error < 0.2 * one.estimated.value
        # Members scatter around a fit that is off by as much.
        ratio, error = (number / one.estimated.value for number in one.true)
        assert abs(ratio - 2) < 4 * error
    # The memoriser has 18 independent pulls a set, the fit but two.
    assert one.pulls.width == pytest.approx(1, abs=4 / (2 * 8 * 18) ** 0.5)


def test_the_judgement_of_made_up_members():
    """Members with a known spread around centres with a known error."""
    rng = np.random.default_rng(0)
    centres = 0.05 + 0.004 * rng.standard_normal((400, 1, 1, 2))
    members = centres + 0.001 * rng.standard_normal((400, 30, 1, 2))
    one = study.worth(members, np.array([np.inf]), 1000)
    for found, expected in (
        (one.estimated, 2 * 0.001**2),
        (one.true, 2 * (0.001**2 + 0.004**2)),
        (one.centre, 2 * 0.004**2),
    ):
        assert abs(found[0] - expected) < 4 * found[1]
        assert found[1] < 0.1 * expected
    assert one.pulls.width == pytest.approx(4, rel=0.15)


def test_one_argument_chooses_the_members(tmp_path):
    """Members of an ensemble are networks of their own, dealt out to the training sets."""
    config = dataclasses.replace(
        SMALL.rings,
        members="bootstrap",
        num_members=2,
        network=CausalConfig(width=4, heads=1, blocks=1, feed_forward=4),
        num_gauss=2,
        training=dataclasses.replace(SMALL.rings.training, steps=2, validate_every=1),
    )
    with Run(tmp_path / "run", config) as run:
        made = rings.networks(config, 2, run, None)
    assert [len(one) for one in made.params] == [2, 2]
    kernels = [np.asarray(p["out"]["kernel"]) for one in made.params for p in one]
    assert len({k.tobytes() for k in kernels}) == 4
    # Members that repel each other need a training for each set; all others share one.
    for members, sets, ensemble in (("plain", 2, 4), ("repulsive", 1, 2), ("bayesian", 2, 2)):
        trainings = rings.trainings(dataclasses.replace(config, members=members))
        assert len(trainings) == 2 // sets
        for one in trainings.values():
            assert (one.data_sets, one.ensemble) == (sets, ensemble)
            assert one.members == ("plain" if members == "bayesian" else members)
            one.check()


def test_training_sets_are_independent_and_from_the_ring():
    sets = rings.training_sets(dataclasses.replace(SMALL.rings, data_sets=3), 4)
    assert sets.shape == (3, 1000, 4)
    assert len(np.unique(sets[..., 0])) > 2990
    r = rings.radius(sets)
    np.testing.assert_allclose(r.mean(), 1, atol=4 * 0.1 / 3000**0.5)
    np.testing.assert_allclose(r.std(), 0.1, rtol=4 / 6000**0.5)
    assert ring(4).marginals[0].probability(*rings.region_edges(4)[[1, 19]]) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rings.dims", 1), "dims must be different"),
        (("--rings.num-members", 1), "num_members must be at least 2"),
        (("--rings.validation-fraction", 0.0), "validation_fraction"),
        (("--max-gen", 10), "max_gen must be at least 1000"),
        (("--model", "none"), "holds no networks"),
    ],
)
def test_bad_options(command, options, message):
    with pytest.raises(SystemExit, match=message):
        command("rings.averaging", *options)


@pytest.mark.study
def test_networks_of_another_run_need_the_same_options(smoke, command, tmp_path):
    model, out = smoke("rings.averaging"), tmp_path / "none"
    with pytest.raises(SystemExit, match="num_gauss: 8 -> 9"):
        command("rings.averaging", "--model", model, "--rings.num-gauss", 9, "--out", out)
    with pytest.raises(SystemExit, match="holds no networks"):
        command("rings.differential", "--model", tmp_path, "--out", out)
    assert not out.exists()

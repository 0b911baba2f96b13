"""Charge states and impact parameters: there and back, and what is measured of them."""

import jax
import numpy as np
import pytest

from jgen.jets import (
    CHARGE_STATES,
    PARTICLES,
    charge_states,
    compare_particles,
    defined_features,
    particle_map,
    particle_numbers,
    read_jets,
    sample_jets_path,
)
from jgen.models import MixedEvent


@pytest.fixture(scope="module")
def jets():
    return read_jets(sample_jets_path()).of("gluon", "top").take(slice(0, 13_000, 10))


def test_states_are_kinds_and_charges(jets):
    states, there = charge_states(jets), np.arange(30) < jets.n[:, None]
    assert (states[~there] == 0).all()
    assert set(np.unique(states[there])) == set(range(8))
    for k, name in enumerate(CHARGE_STATES):
        kind = {"h+": 1, "h-": 1, "h0": 2, "photon": 3}.get(name, 4 if name[0] == "e" else 5)
        charge = {"+": 1, "-": -1}.get(name[-1], 0)
        assert (jets.pid[there & (states == k)] == kind).all()
        assert (jets.charge[there & (states == k)] == charge).all()
        assert (defined_features()[k] == [True, True, True, charge != 0, charge != 0]).all()


@pytest.mark.parametrize("unit", [0.01, 1000.0])
def test_jets_come_back_as_they_were(jets, unit):
    scale = particle_map(jets, unit)
    events = scale.forward(jets)
    there = np.arange(30) < jets.n[:, None]
    charged = there & (jets.charge != 0)
    for column in range(5):
        values = events.points[..., column][charged if column > 2 else there]
        assert values.mean() == pytest.approx(0, abs=1e-5)
        assert values.std() == pytest.approx(1, abs=1e-5)
    assert (events.points[~there] == 0).all()
    assert (events.points[..., 3:][~charged] == 0).all()
    if unit == 0.01:  # s(x) = asinh(x / 0.01 mm): the tails are not 90 standard deviations away
        assert np.abs(events.points[..., 3:]).max() < 8
    # What models put where nothing is does not matter.
    spoilt = MixedEvent(
        np.where(there[..., None], events.points, 3), np.where(there, events.states, 5)
    )
    back = scale.inverse(spoilt, jets)
    for name in ("n", "pid", "charge", "labels"):
        np.testing.assert_array_equal(getattr(back, name), getattr(jets, name))
    np.testing.assert_allclose(back.points, jets.points, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(back.impact, jets.impact, rtol=1e-4, atol=1e-3 * unit)


def test_momenta_stay_in_the_range_of_the_training_and_in_order(jets):
    scale = particle_map(jets)
    points = np.random.default_rng(0).normal(0, 2, (len(jets.n), 30, 5))
    made = scale.inverse(MixedEvent(points, np.full((len(jets.n), 30), 2)), jets)
    there = np.arange(30) < jets.n[:, None]
    pt = made.points[..., 2]
    assert pt[there].min() == pytest.approx(scale.pt_range[0], rel=1e-5)
    assert pt.max() == pytest.approx(scale.pt_range[1], rel=1e-5)
    assert (np.diff(pt, axis=1) <= 0).all()
    assert (made.impact == 0).all()  # all are neutral
    assert set(np.unique(made.pid)) == {0, 2}


def test_numbers_of_two_jets(jets):
    two = jets.take(slice(0, 2))._replace(
        points=np.tile(np.float32([0.0, 0.0, 0.3]), (2, 3, 1)) * [[[1], [1], [1]], [[1], [1], [0]]],
        n=np.array([3, 2]),
        total=np.array([3, 2]),
        pid=np.int8([[1, 3, 4], [1, 5, 0]]),
        charge=np.int8([[1, 0, -1], [1, 1, 0]]),
        impact=np.float32([[[0.2, 0], [0, 0], [0.05, 0]], [[-0.3, 0], [0.01, 9], [0, 0]]]),
    )
    found = particle_numbers(two)
    shares = [0.4, 0, 0.2, 0.2, 0.2]
    assert [found[name] for name in PARTICLES[1:]] == pytest.approx(shares)
    assert found["displaced"] == pytest.approx(0.5)
    assert found["charge"] == pytest.approx(1)
    assert found["charge width"] == pytest.approx(1)


def test_halves_agree_within_errors(jets):
    found = compare_particles(jets.take(slice(0, None, 2)), jets.take(slice(1, None, 2)),
                              jax.random.key(0), 10)  # fmt: skip
    exact = particle_numbers(jets)
    for name, value in exact.items():
        assert 0 < found[name].error < 0.1
        assert abs(found[name].value - value) < 4 * found[name].error, name
    assert 0 < found["KLD pT"].value < found["KLD d0"].value < 0.05
    shifted = jets._replace(impact=jets.impact + 0.01 * (jets.charge != 0)[..., None])
    worse = compare_particles(jets, shifted, jax.random.key(0), 2)
    assert worse["KLD d0"].value > 0.2
    assert worse["KLD eta"].value == pytest.approx(0, abs=1e-12)


def test_jets_without_particles_are_refused(jets):
    for bad, message in (
        (jets._replace(pid=None), "these jets have no kinds, charges and impact parameters"),
        (
            jets._replace(charge=-jets.charge * 2),
            "are none of h\\+, .* and charge -?2",
        ),
        (jets._replace(pid=np.where(jets.pid == 3, 1, jets.pid)), "pid 1 of .* and charge 0"),
    ):
        with pytest.raises(ValueError, match=message):
            charge_states(bad)
    neutral = jets._replace(
        pid=np.where(jets.pid > 0, 3, 0).astype(np.int8), charge=0 * jets.charge
    )
    with pytest.raises(ValueError, match="no charged particles"):
        particle_map(neutral)

"""Searches for resonances: improvements in closed form, masses of the region, blind classifiers."""

import jax
import numpy as np
import pytest
from scipy import stats

from jgen.inference.anomalies import (
    Events,
    Region,
    cwola,
    region_masses,
    significance_improvement,
)
from jgen.metrics import ClassifierConfig
from jgen.toys.resonance import Resonance

REGION = Region(3.3, 3.7)


@pytest.mark.parametrize(
    ("distance", "width", "best"), [(2.0, 0.3, 13.97), (2.5, 0.3, 25.0), (2.0, 0.4, 8.46)]
)
def test_the_best_improvement_of_the_toy(distance, width, best):
    assert Resonance(distance, width).best_improvement() == pytest.approx(best, rel=2e-3)


def test_improvements_are_those_of_the_exact_ratio(key):
    toy = Resonance()
    signal, background = toy.signal(key, 20_000), toy.background(jax.random.key(1), 100_000)
    scores = [toy.log_ratio(sample.features) for sample in (signal, background)]
    found = significance_improvement(*scores)
    exact = toy.best_improvement(25 / 100_000)
    assert found.best.value == pytest.approx(exact, abs=3 * found.best.error)
    assert 0.02 < found.best.error / exact < 0.12
    i = np.searchsorted(found.background, 0.01)
    radius = np.linspace(0.1, 3, 3000)
    eps_s, eps_b = toy.efficiencies(radius)
    expected = np.interp(0.01, eps_b, eps_s) / 0.1
    assert found.value[i] == pytest.approx(expected, rel=0.05)
    # Without information the improvement is the root of the efficiency: one at most.
    blind = significance_improvement(*np.random.default_rng(0).random((2, 50_000)))
    assert blind.best.value == pytest.approx(1, abs=0.02)


def test_equal_scores_are_cut_together():
    found = significance_improvement(np.zeros(10), np.zeros(100), least=5)
    np.testing.assert_array_equal(found.background, 1.0)
    np.testing.assert_array_equal(found.value, 1.0)
    with pytest.raises(ValueError, match="10 background events are fewer than least, 25"):
        significance_improvement(np.zeros(10), np.zeros(10))


def test_masses_of_the_region_are_interpolated(key):
    toy = Resonance()
    background = toy.background(key, 100_000)
    # Signal in the region does not count.
    masses = np.concatenate([background.masses, np.full(5000, 3.5)])
    made = region_masses(masses, REGION, key, 5000)
    assert REGION.holds(made).all()
    assert stats.ks_2samp(made, background.inside(REGION).masses).pvalue > 0.01
    with pytest.raises(ValueError, match="both sides"):
        region_masses(masses[masses > 3.4], REGION, key, 10)


def test_a_classifier_without_labels_finds_the_signal_and_the_mass(key):
    """Where a feature tells the mass, the classifier learns nothing else."""
    config = ClassifierConfig(
        hidden=(32,), learning_rate=3e-3, batch_size=500, epochs=10, num_seeds=1
    )
    best = {}
    for shift in (0.0, 10.0):
        toy = Resonance(shift=shift)
        background = toy.background(key, 20_000)
        signal = toy.signal(jax.random.key(1), 1500)
        data = Events(*map(np.concatenate, zip(background, signal, strict=True)))
        score = cwola(data, REGION, key, config)
        test = toy.background(jax.random.key(2), 20_000).inside(REGION)
        found = toy.signal(jax.random.key(3), 2000)
        best[shift] = significance_improvement(score(found.features), score(test.features)).best
    assert best[0.0].value > 5
    assert best[10.0].value < 0.5 * best[0.0].value


@pytest.mark.parametrize(
    ("data", "region", "message"),
    [
        (Events(np.zeros(3), np.zeros((3, 2))), REGION, "no event has a mass"),
        (Events(np.full(3, 3.5), np.zeros((3, 2))), REGION, "both sides"),
        (Events(np.zeros(3), np.zeros((4, 2))), REGION, "masses .n. and features"),
        (Events(np.zeros(3), np.zeros((3, 2))), Region(2, 1), "low < high"),
    ],
)
def test_bad_searches_are_refused(data, region, message, key):
    with pytest.raises(ValueError, match=message):
        cwola(data, region, key)

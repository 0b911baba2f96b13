"""The base of events: its acceptance, its cuts, its density."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jgen.events import (
    UNIT,
    acceptance,
    apart,
    event_base,
    event_map,
    fit_coordinates,
    read_events,
    to_events,
)
from jgen.events.base import base_moments


@pytest.fixture(scope="module")
def coordinates():
    return fit_coordinates(read_events()[:1000])


@pytest.fixture(scope="module")
def drawn(coordinates):
    sample = jax.jit(jax.vmap(event_base(coordinates).sample))
    return np.asarray(sample(jax.random.split(jax.random.key(1), 4000)))


@pytest.mark.parametrize(("num", "known", "error"), [(6, 0.5121, 11e-4), (8, 0.2911, 10e-4)])
def test_acceptance_is_what_was_measured_elsewhere(num, known, error):
    assert acceptance(num) == pytest.approx(known, abs=3 * error)


def test_acceptance_of_the_cut_on_pt_alone_is_exact():
    exact = np.exp(-6 * 22**2 / (2 * UNIT**2))
    assert acceptance(6, 22.0, 0.0) == pytest.approx(exact, abs=4e-3 * np.sqrt(exact * (1 - exact)))
    for wrong in (-1.0, np.nan, "x"):
        with pytest.raises(ValueError, match="min_distance"):
            apart(read_events()[:5], wrong)
    with pytest.raises(ValueError, match="lower the cuts"):
        acceptance(6, 500.0)


def test_events_of_the_base_pass_its_cuts_and_are_normal_but_for_them(coordinates, drawn):
    events = to_events(coordinates, drawn)
    assert np.hypot(events[..., 1], events[..., 2]).min() > 22 * (1 - 1e-4)
    assert apart(events).all()
    # Longitudinal momenta hardly see the cuts, masses do not see them at all.
    square = events[..., 0] ** 2 - (events[..., 1:] ** 2).sum(axis=-1)
    logs = np.log(square[:, 0] / UNIT**2)
    assert scipy.stats.kstest(logs, "norm").pvalue > 1e-3
    assert np.std(events[..., 3]) == pytest.approx(UNIT, rel=0.05)


def test_moments_of_the_base_are_those_of_its_events(coordinates):
    sample = jax.jit(jax.vmap(event_base(coordinates, 0.0).sample))
    z = np.asarray(sample(jax.random.split(jax.random.key(2), 20_000)))
    means, variances = base_moments(coordinates)
    assert np.abs((means - z.mean(axis=0)) / np.sqrt(variances / len(z))).max() < 4.5
    np.testing.assert_allclose(variances, z.var(axis=0), rtol=0.05)


@pytest.mark.parametrize("min_pt", [0.0, 22.0])
def test_momenta_are_normal_above_the_cut(min_pt):
    """Without a distance: pT^2 is exponential behind the cut, the azimuth even, pz normal."""
    coordinates = fit_coordinates(read_events()[:1000], min_pt)
    sample = jax.jit(jax.vmap(event_base(coordinates, 0.0).sample))
    events = to_events(coordinates, np.asarray(sample(jax.random.split(jax.random.key(3), 4000))))
    _, x, y, z = np.moveaxis(events[:, 0] / UNIT, -1, 0)
    above = (x**2 + y**2 - (min_pt / UNIT) ** 2) / 2
    azimuth = np.arctan2(y, x) / (2 * np.pi) + 0.5
    for values, law in ((above, "expon"), (azimuth, "uniform"), (z, "norm")):
        assert scipy.stats.kstest(values, law).pvalue > 1e-3


@pytest.mark.parametrize("min_pt", [0.0, 22.0])
def test_the_smallest_random_number_makes_a_particle_with_a_density(min_pt, monkeypatch):
    """The first of an event, just above the cut, which may be zero; others are in the middle."""
    smallest = lambda key, shape, minval=0.0: jnp.full(shape, 0.5).at[0].set(minval)
    coordinates = fit_coordinates(read_events()[:1000], min_pt)
    base = event_base(coordinates, 0.0)
    monkeypatch.setattr(jax.random, "uniform", smallest)
    z = base.sample(jax.random.key(0))
    assert np.isfinite(base.log_prob(z))
    pt = np.hypot(*to_events(coordinates, z[None])[0, :, 1:3].T)
    assert min_pt < pt[0] < min_pt + 0.1 < pt[1:].min()


def test_density_in_momentum_space_is_the_closed_form(x64, coordinates, drawn):
    base, bijector = event_base(coordinates), event_map(coordinates)
    z = jnp.asarray(drawn[:20], jnp.float64)
    x, log_det = jax.vmap(lambda z: bijector.inverse(z, None))(z)
    found = jax.vmap(base.log_prob)(z) - log_det
    p = np.asarray(x) / UNIT
    square = p[..., 0] ** 2 - (p[..., 1:] ** 2).sum(axis=-1)
    logs = scipy.stats.norm.logpdf(p[..., 1:]).sum(axis=(1, 2))
    # d log m^2 / dE = 2 E / m^2
    logs += (scipy.stats.norm.logpdf(np.log(square)) + np.log(2 * p[..., 0] / square)).sum(axis=1)
    expected = logs - np.log(acceptance(6)) - 24 * np.log(UNIT)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_there_is_no_density_below_the_smallest_mass(coordinates, drawn):
    base = event_base(coordinates)
    z = jnp.asarray(drawn[0])
    assert np.isfinite(base.log_prob(z))
    light = z.at[2, 3].set((np.log(1e-5) - 0.01 - coordinates.mean[2, 1]) / coordinates.std[2, 1])
    assert base.log_prob(light) == -np.inf
    # The gradient elsewhere is finite.
    assert np.isfinite(jax.grad(base.log_prob)(z)).all()

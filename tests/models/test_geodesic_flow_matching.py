"""Flow matching with angles: the short way around, and densities that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jgen import Batch, draw
from jgen.models import Base, flow_matching, geodesic_flow_matching, on_circles, standard_normal
from jgen.nets import Network, velocity_mlp
from jgen.solvers import DDIM, NonStationary, runge_kutta

PERIODIC = np.array([True, False])
MEAN, STD, TURN = -0.7, 0.4, 2.5


def exact(params, t, x, cond=None):
    """An angle that turns at one speed, beside the marginal velocity of normal data."""
    variance = (t * STD) ** 2 + (1 - t) ** 2
    rest = x[1] - t * MEAN
    return jnp.stack([jnp.full((), TURN), MEAN + (t * STD**2 - (1 - t)) / variance * rest])


def base():
    def sample(key):
        angle = jax.random.uniform(key, minval=-np.pi, maxval=np.pi)
        return jnp.stack([angle, jax.random.normal(key)])

    return Base(sample, lambda z: jax.scipy.stats.norm.logpdf(z[1]) - np.log(2 * np.pi))


def model(solver=None):
    network = Network(lambda key: {}, exact)
    return geodesic_flow_matching(network, base(), PERIODIC, solver=solver)


def test_log_prob_of_a_turn_and_a_gaussian_against_the_closed_form(x64, key):
    x = np.array([[3.0, -0.7], [-3.0, 0.2], [0.5, -1.9]])
    log_prob = model(runge_kutta("rk4", 100)).log_prob
    found = jax.vmap(lambda x: log_prob({}, key, x))(jnp.asarray(x))
    expected = scipy.stats.norm.logpdf(x[:, 1], MEAN, STD) - np.log(2 * np.pi)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_angles_go_the_short_way_around(key):
    """From 3 to -3 across pi: a target of 2 pi - 6, not of -6."""
    start = Base(lambda key: jnp.array([3.0, 0.0]), lambda z: jnp.zeros(()))
    still = Network(lambda key: {}, lambda params, t, x, cond: jnp.zeros(2))
    x = jnp.tile(jnp.array([[-3.0, 2.0]]), (5, 1))
    loss = geodesic_flow_matching(still, start, PERIODIC).loss({}, key, Batch(x))
    assert float(loss) == pytest.approx(((2 * np.pi - 6) ** 2 + 4) / 2, rel=1e-5)


def test_networks_see_angles_in_one_turn_and_events_are_in_it(key):
    seen = on_circles(Network(lambda key: {}, lambda params, t, x, cond: x), PERIODIC)
    x = seen.apply({}, 0.0, jnp.array([4.0, 4.0]))
    np.testing.assert_allclose(x, [4.0 - 2 * np.pi, 4.0], rtol=1e-6)
    events = draw(model(), {}, key, 4000)
    assert (np.abs(events[:, 0]) <= np.pi).all()
    # A uniform angle stays one, and the other component is normal.
    assert scipy.stats.kstest((events[:, 0] + np.pi) / (2 * np.pi), "uniform").pvalue > 1e-3
    assert scipy.stats.kstest((events[:, 1] - MEAN) / STD, "norm").pvalue > 1e-3


def test_without_angles_it_is_flow_matching(key):
    network = velocity_mlp(2, hidden=(8,))
    straight = geodesic_flow_matching(network, standard_normal(2), np.array([False, False]))
    params = network.init(key)
    x = jnp.array([0.3, -0.5])
    usual = flow_matching(network, 2)
    found, expected = (m.log_prob(params, key, x, None) for m in (straight, usual))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    noise = jax.random.normal(key, (2,))
    end = straight.sample_from(params, noise, None)
    expected = usual.sample_from(params, {"start": noise, "steps": None}, None)
    np.testing.assert_allclose(end, expected, rtol=1e-5)


def test_bespoke_solvers_sample_as_well(key):
    bespoke = NonStationary.from_runge_kutta(runge_kutta("midpoint", 20))
    one, other = (draw(model(solver), {}, key, 5) for solver in (bespoke, None))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_parts_that_do_not_fit_are_refused():
    network = Network(lambda key: {}, exact)
    with pytest.raises(ValueError, match=r"base makes events of shape \(3,\).*\(2,\)"):
        geodesic_flow_matching(network, standard_normal(3), PERIODIC)
    with pytest.raises(TypeError, match="solver of dx/dt"):
        geodesic_flow_matching(network, base(), PERIODIC, solver=DDIM(5))
    with pytest.raises(TypeError, match="solver of dx/dt"):
        geodesic_flow_matching(network, base(), PERIODIC, likelihood_solver="x")
    for wrong in ([0, 1], ["phi", "x"], [np.nan, 0.0]):
        with pytest.raises(ValueError, match="True or False"):
            geodesic_flow_matching(network, base(), np.array(wrong))
    wide = Network(lambda key: {}, lambda params, t, x, cond: jnp.zeros(3))
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        geodesic_flow_matching(wide, base(), PERIODIC)

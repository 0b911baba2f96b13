"""Models of events that are sets of points, where the answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm, poisson

from jgen import Batch, OptimizerConfig, TrainConfig, draw, fit, log_densities
from jgen.bijectors import per_point, standardize
from jgen.models import (
    autoregressive,
    binned,
    consistency,
    diffusion,
    flow_matching,
    guided,
    instantaneous,
    mean_flow,
    with_unconditional,
)
from jgen.nets import Network, PointWiseConfig, made, point_wise
from jgen.paths import variance_preserving
from jgen.sets import SetCondition, event_mean, event_size, masked, padded, points
from jgen.solvers import Ancestral, runge_kutta
from jgen.transforms import chain, preprocessed

ROWS, MEAN, WIDTH = 6, 0.7, 0.3
N = np.array([0, 1, 4, 6])


def velocity(params, t, x, cond):
    """Of points that are independent N(MEAN, WIDTH); garbage in rows that are no points."""
    variance = (1 - t) ** 2 + (WIDTH * t) ** 2
    slope = (WIDTH**2 * t - (1 - t)) / variance
    return masked(MEAN + slope * (x - MEAN * t), cond)


EXACT = Network(lambda key: {}, velocity)
SOLVER = runge_kutta("rk4", 16)


def test_padding_has_no_density():
    scaling = per_point(standardize(np.ones(1, np.float32), np.full(1, 2.0, np.float32)))
    model = preprocessed(flow_matching(EXACT, (ROWS, 1), solver=SOLVER), scaling)
    x = np.random.default_rng(0).normal(size=(4, ROWS, 1)).astype(np.float32)
    x = 1 + 2 * (MEAN + WIDTH * x)
    exact = norm.logpdf(x[..., 0], 1 + 2 * MEAN, 2 * WIDTH)
    exact = np.where(np.arange(ROWS) < np.array(N)[:, None], exact, 0).sum(axis=1)
    found = log_densities(model, {}, jax.random.key(0), x, SetCondition(N))
    np.testing.assert_allclose(found, exact, atol=2e-3)


@pytest.mark.parametrize("kind", ["flow matching", "ancestral", "mean flow", "consistency"])
def test_padding_is_zero_in_what_is_drawn(kind):
    path = variance_preserving()
    model = {
        "flow matching": lambda: flow_matching(EXACT, (ROWS, 1), solver=SOLVER),
        "ancestral": lambda: diffusion(EXACT, (ROWS, 1), path=path, sampler=Ancestral(3)),
        "mean flow": lambda: mean_flow(EXACT, (ROWS, 1), condition=lambda cond, width: cond),
        "consistency": lambda: consistency(EXACT, (ROWS, 1), steps=2),
    }[kind]()
    events = draw(model, {}, jax.random.key(1), 400, SetCondition(jnp.repeat(N, 100)))
    rows = np.arange(ROWS) < np.repeat(N, 100)[:, None]
    assert (events[~rows] == 0).all()
    assert np.isfinite(events).all()
    if kind == "flow matching":
        assert events[rows].mean() == pytest.approx(MEAN, abs=4 * WIDTH / np.sqrt(rows.sum()))
        assert events[rows].std() == pytest.approx(WIDTH, rel=0.1)


@pytest.mark.parametrize("make", [flow_matching, mean_flow, consistency], ids=lambda f: f.__name__)
def test_what_is_in_padded_rows_is_not_learned(make):
    """Every event counts the same, by the mean over its points, and an empty one not at all."""
    scaled = Network(
        lambda key: jnp.ones(()),
        lambda scale, t, x, cond: masked(scale * velocity({}, t, x, cond), cond),
    )
    options = {"condition": lambda cond, width: cond} if make is mean_flow else {}
    model = make(scaled, (ROWS, 1), **options)
    x = np.random.default_rng(2).normal(size=(4, ROWS, 1)).astype(np.float32)
    mean = lambda p, x: model.loss(p, jax.random.key(3), Batch(x, SetCondition(N)))
    loss = jax.jit(jax.value_and_grad(mean))
    clean = np.where((np.arange(ROWS) < np.array(N)[:, None])[..., None], x, 0)
    np.testing.assert_array_equal(loss(1.1, x), loss(1.1, clean))
    assert np.isfinite(loss(1.1, x)).all()
    empty = model.loss(1.1, jax.random.key(3), Batch(x[:1], SetCondition(N[:1])))
    assert empty == 0


def test_the_velocity_of_points_needs_no_padding():
    """log p of the points alone, without rows to fill."""
    model = flow_matching(instantaneous(EXACT, lambda cond, width: cond), (3, 1), solver=SOLVER)
    x = jnp.array([[0.5], [0.6], [1.0]])
    alone = model.log_prob({}, None, x, None)
    filled = jnp.concatenate([x, jnp.full((4, 1), 7.0)])
    assert model.log_prob({}, None, filled, SetCondition(3)) == pytest.approx(
        float(alone), abs=1e-5
    )


def test_means_and_sizes():
    x = jnp.arange(8.0).reshape(4, 2)
    assert event_mean(x, SetCondition(3)) == pytest.approx(np.mean(np.arange(6)))
    assert event_mean(x, None) == 3.5
    assert event_size(x, SetCondition(3)) == 6
    assert event_size(x, None) == 8
    assert masked(x, jnp.array(3)) is x


def test_padded_arrays_are_the_points_again():
    rng = np.random.default_rng(5)
    events = [rng.normal(size=(n, 2)).astype(np.float32) for n in (3, 0, 5)]
    x, n = padded(events, 6)
    assert x.shape == (3, 6, 2)
    for again, event in zip(points(x, n), events, strict=True):
        np.testing.assert_array_equal(again, event)
    assert padded(events, 4)[1].tolist() == [3, 0, 4]
    for bad, message in (
        ([], "no events"),
        ([np.zeros((2, 3)), np.zeros((2, 2))], "same d"),
        ([np.array([[np.nan, 0.0]])], "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            padded(bad)


@pytest.mark.parametrize(
    ("n", "message"),
    [
        ([7, 1], "numbers of points must be from 0 to 6, got 1 to 7"),
        ([-1, 1], "numbers of points must be from 0 to 6, got -1 to 1"),
        ([2.0, 1.0], "a whole number of points an event"),
        ([[2], [1]], "a whole number of points an event"),
    ],
)
def test_numbers_of_points_that_do_not_fit_are_refused(n, message):
    model, key = flow_matching(EXACT, (ROWS, 1), solver=SOLVER), jax.random.key(6)
    x, cond = np.zeros((2, ROWS, 1), np.float32), SetCondition(np.array(n))
    for use in (
        lambda: fit(model, Batch(x, cond), key, TrainConfig(steps=1, batch_size=2)),
        lambda: log_densities(model, {}, key, x, cond),
    ):
        with pytest.raises(ValueError, match=message):
            use()
    if cond.n.ndim == 1:
        with pytest.raises(ValueError, match=message):
            draw(model, {}, key, 2, cond)


def test_guidance_of_sets_keeps_their_numbers_of_points():
    """Velocities of independent normal points are linear in their mean, which guidance moves."""
    centred = lambda params, t, x, cond: masked(
        velocity(params, t, x, cond) + (cond.cond[0] - 1) * velocity_slope(t), cond
    )
    null, w = SetCondition(jnp.array(0), jnp.zeros(1)), 1.5
    network = guided(Network(lambda key: {}, centred), null, w)
    model = flow_matching(network, (ROWS, 1), solver=SOLVER)
    cond = SetCondition(np.repeat(N, 200), np.ones((800, 1), np.float32))
    events = draw(model, {}, jax.random.key(4), 800, cond)
    rows = np.arange(ROWS) < cond.n[:, None]
    assert (events[~rows] == 0).all()
    error = WIDTH / np.sqrt(rows.sum())
    assert events[rows].mean() == pytest.approx((1 + w) * MEAN, abs=4 * error)
    assert events[rows].std() == pytest.approx(WIDTH, rel=0.1)
    # A network that does not look at the class learns the same with and without it.
    blind = flow_matching(EXACT, (ROWS, 1))
    batch = Batch(events, cond)
    dropped = with_unconditional(blind, null, 0.5).loss({}, jax.random.key(5), batch)
    same = blind.loss({}, jax.random.split(jax.random.key(5))[1], batch)
    assert dropped == pytest.approx(float(same), rel=1e-6)


def velocity_slope(t):
    """Change of `velocity` with the mean of the points, in units of MEAN."""
    variance = (1 - t) ** 2 + (WIDTH * t) ** 2
    return MEAN * (1 - t * (WIDTH**2 * t - (1 - t)) / variance)


@pytest.mark.study
def test_points_given_their_number_are_those_of_a_mixture(optimized):
    """n ~ Poisson(4), points i.i.d. from two Gaussians: likelihood within 0.02 nats a
    point of the truth, and the numbers are Poisson."""
    rng, rows, num = np.random.default_rng(7), 14, 40_000
    n = np.minimum(rng.poisson(4, num), rows)
    which = rng.random((num, rows)) < 0.3
    x = np.where(which, -1, 0.5) + np.where(which, 0.2, 0.4) * rng.normal(size=(num, rows))
    x = np.where(np.arange(rows) < n[:, None], x, 0)[..., None].astype(np.float32)
    head = binned(np.arange(-0.5, rows + 1)[None])
    numbers = autoregressive(made(1, head.num_outputs, hidden=(16,)), head, 1)
    network = point_wise(1, config=PointWiseConfig((32, 32, 32), 32))
    points_given = flow_matching(network, (rows, 1), solver=runge_kutta("rk4", 10))
    to_number = lambda cond, a: SetCondition(jnp.round(a[0]).astype(jnp.int32))
    model = chain(numbers, points_given, to_number)
    config = TrainConfig(1500, 256, ema_decay=0.99, optimizer=OptimizerConfig(5e-3))
    data = Batch((n[:, None].astype(np.float32), x))
    train, test = jax.tree.map(lambda a: a[2000:], data), jax.tree.map(lambda a: a[:2000], data.x)
    options = {"devices": jax.devices()[:1], "progress": False}
    params = fit(model, train, jax.random.key(8), config, **options).one
    log_q = log_densities(model, params, jax.random.key(9), test)
    densities = [norm.pdf(x[:2000, :, 0], m, s) for m, s in ((-1, 0.2), (0.5, 0.4))]
    log_p = np.log(0.3 * densities[0] + 0.7 * densities[1])
    log_p = np.where(np.arange(rows) < n[:2000, None], log_p, 0).sum(axis=1)
    gap = log_p + poisson.logpmf(n[:2000], 4) - log_q
    assert -3 * gap.std() / 2000**0.5 < gap.mean() < 0.02 * n[:2000].mean()

    drawn, points_drawn = draw(model, params, jax.random.key(10), 20_000)
    counts = np.bincount(np.round(drawn[:, 0]).astype(int), minlength=rows + 1)
    expected = 20_000 * poisson.pmf(np.arange(10), 4)
    assert np.abs((counts[:10] - expected) / (1.5 * expected) ** 0.5).max() < 4
    there = np.arange(rows) < np.round(drawn)
    assert points_drawn[there].mean() == pytest.approx(0.05, abs=0.02)

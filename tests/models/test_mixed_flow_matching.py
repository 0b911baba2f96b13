"""Numbers and states together, where both are known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import Batch, OptimizerConfig, TrainConfig, draw, fit
from jgen.models import MixedEvent, mixed_events, mixed_flow_matching
from jgen.nets import Network, velocity_mlp
from jgen.sets import SetCondition, masked
from jgen.training.buckets import bucketed_loss

KEY = jax.random.key(0)
MEANS = np.array([[-1.0, 0.3, 1.2]], np.float32)
WIDTHS = np.array([[0.3, 0.6, 0.4]], np.float32)
# Of the states of two points, which are not independent.
PAIR = np.array([[0.3, 0.05, 0.05], [0.02, 0.2, 0.1], [0.08, 0.1, 0.1]], np.float32)
SINGLE = PAIR.sum(axis=1)


def posterior(t, x, states, prior):
    """p(states of the data | points [n, 1] and states at t), an array of one axis a point."""
    variance = (t * WIDTHS) ** 2 + (1 - t) ** 2
    density = jnp.exp(-((x - t * MEANS) ** 2) / (2 * variance)) / jnp.sqrt(variance)
    density = density * (t * states + (1 - t) / 3)  # [n, 3]
    if len(x) == 2:
        density = density[0][:, None] * density[1][None]
    both = prior * density.reshape(prior.shape)
    return both / both.sum()


def exact(prior):
    """The network that has learned everything, of points whose states have a joint probability."""

    def apply(params, t, x, cond):
        points, states = x[:, :1], x[:, 1:]
        joint = posterior(t, points, states, prior)
        p = jnp.stack([joint.sum(axis=1), joint.sum(axis=0)]) if len(x) == 2 else joint[None]
        variance = (t * WIDTHS) ** 2 + (1 - t) ** 2
        slope = (t * WIDTHS**2 - (1 - t)) / variance
        velocity = jnp.sum(p * (MEANS + slope * (points - t * MEANS)), axis=1, keepdims=True)
        return jnp.concatenate([velocity, jnp.log(p)], axis=1)

    return Network(lambda key: {}, apply)


def true_events(num, seed=0):
    """Single points with the marginal of PAIR."""
    rng = np.random.default_rng(seed)
    states = rng.choice(3, (num, 1), p=SINGLE / SINGLE.sum())
    points = MEANS[0, states] + WIDTHS[0, states] * rng.normal(size=(num, 1))
    return points[..., None].astype(np.float32), states


def distance_of_joint(events, prior):
    """Total variation of the states, and the largest error of the points' moments in a state."""
    states, points = events.states, events.points[..., 0]
    flat = np.ravel_multi_index(states.T, (3,) * states.shape[1])
    found = np.bincount(flat, minlength=prior.size) / len(flat)
    of_state = [points[states == k] for k in range(3)]
    moments = [abs(p.mean() - m) for p, m in zip(of_state, MEANS[0], strict=True)]
    moments += [abs(p.std() - w) for p, w in zip(of_state, WIDTHS[0], strict=True)]
    return 0.5 * np.abs(found - prior.ravel()).sum(), max(moments)


def test_exact_velocities_and_probabilities_sample_the_joint():
    """Of two points that are not independent, by jumps of each given both."""
    model = mixed_flow_matching(exact(PAIR), (2, 1), 3, steps=40)
    events = draw(model, {}, KEY, 40_000, batch_size=20_000)
    assert events.states.dtype == np.int32
    variation, moments = distance_of_joint(events, PAIR)
    assert variation < 0.01
    assert moments < 0.02


def test_rare_states_do_not_suffer_from_few_steps():
    """A state that numbers say nothing of has its probability whatever the steps are."""
    prior = np.array([0.002, 0.098, 0.9], np.float32)

    def apply(params, t, x, cond):
        logits = jnp.log(prior) + jnp.log(t * x[1:] + (1 - t) / 3)
        return jnp.concatenate([-x[:1], logits])

    network = Network(lambda key: {}, apply)
    for steps in (1, 3):
        model = mixed_flow_matching(network, 1, 3, steps=steps)
        states = draw(model, {}, KEY, 100_000, batch_size=100_000).states
        found = np.bincount(states, minlength=3) / len(states)
        errors = np.sqrt(prior * (1 - prior) / len(states))
        assert (np.abs(found - prior) < 4 * errors).all()


def test_the_loss_of_the_exact_network_is_what_noise_leaves():
    """Any other logits or velocities have a larger one, by the divergence of both."""
    prior = SINGLE / SINGLE.sum()
    x, states = true_events(20_000)
    batch = Batch(mixed_events(x, states, 3))
    right = exact(prior)

    def off(factor, shift):
        def apply(params, t, x, cond):
            out = right.apply(params, t, x, cond)
            return out.at[:, 1].add(factor).at[:, 0].add(shift)

        return Network(right.init, apply)

    def loss(factor, shift, weight=1.0):
        return mixed_flow_matching(off(factor, shift), (1, 1), 3, weight=weight).loss(
            {}, KEY, batch
        )

    @jax.jit
    def everything():
        return loss(0.0, 0.0), loss(0.5, 0.0), loss(0.0, 0.5), loss(0.0, 0.0, 3.0)

    least, worse, shifted, heavy = map(float, everything())
    assert shifted - least == pytest.approx(0.25, abs=0.03)
    assert worse - least > 0.003
    # The mean cross-entropy is positive, and counted three times.
    assert 0 < (heavy - least) / 2 < np.log(3)


ROWS, N = 8, np.array([0, 3, 5, 8])


def interacting(params, t, x, cond):
    """Points of two features and three states that see their mean, as small as can be."""
    x = masked(x, cond)
    mean = jnp.sum(x, axis=0) / jnp.maximum(cond.n, 1)
    return masked(jnp.tanh(x @ params["own"] + (t * mean @ params["mean"])[None]), cond)


SETS = Network(lambda key: {"own": jax.random.normal(key, (5, 5)), "mean": jnp.eye(5)}, interacting)
DEFINED = np.array([[True, True], [True, False], [True, True]])


def sets(rows=ROWS, seed=1):
    rng = np.random.default_rng(seed)
    points, states = rng.normal(size=(4, rows, 2)), rng.integers(0, 3, (4, rows))
    return mixed_events(points, states, 3)


def test_padding_is_not_learned_and_stays_put():
    model = mixed_flow_matching(SETS, (ROWS, 2), 3, defined=DEFINED)
    params, cond = SETS.init(KEY), SetCondition(N)
    events = sets()
    rows = np.arange(ROWS) < N[:, None]
    loss = jax.jit(jax.value_and_grad(lambda p, x: model.loss(p, KEY, Batch(x, cond))))
    expected = loss(params, events)
    assert np.isfinite(expected[0])
    spoilt = MixedEvent(
        np.where(rows[..., None], events.points, 1e30), np.where(rows, events.states, 17)
    )
    # What is not defined in a state is not learned, either.
    absent = ~DEFINED[events.states]
    for other in (spoilt, events._replace(points=np.where(absent, 1e3, events.points))):
        jax.tree.map(np.testing.assert_array_equal, loss(params, other), expected)
    wide = MixedEvent(*(np.concatenate([a, a], axis=1) for a in events))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), loss(params, wide), expected
    )
    bucketed = jax.jit(bucketed_loss(model, (4, 8)))(params, KEY, Batch(events, cond), 1.0)
    assert bucketed == pytest.approx(float(expected[0]), rel=1e-5)

    drawn = draw(model, params, KEY, 4, cond)
    assert (drawn.points[~rows] == 0).all()
    assert (drawn.states[~rows] == 0).all()
    assert (drawn.points[~DEFINED[drawn.states]] == 0).all()
    assert len(set(drawn.states[rows])) == 3
    again = draw(model, params, KEY, 4, cond, buckets=2)
    np.testing.assert_allclose(again.points, drawn.points, atol=1e-5)
    np.testing.assert_array_equal(again.states, drawn.states)


def test_numbers_that_a_state_has_not_are_noise_of_its_own():
    """The exact network of a second number, normal in all states and defined in one of them."""
    prior = SINGLE / SINGLE.sum()
    first = exact(prior)

    def apply(params, t, x, cond):
        out = first.apply(params, t, x[:, [0, 2, 3, 4]], cond)
        slope = (2 * t - 1) / (t**2 + (1 - t) ** 2)
        return jnp.concatenate([out[:, :1], slope * x[:, 1:2], out[:, 1:]], axis=1)

    table = np.array([[True, True], [True, False], [True, False]])
    network = Network(first.init, apply)
    model = mixed_flow_matching(network, (1, 2), 3, defined=table)
    events = draw(model, {}, KEY, 20_000, batch_size=20_000)
    variation, moments = distance_of_joint(events, prior)
    assert variation < 0.012
    assert moments < 0.03
    there = events.points[..., 1][events.states == 0]
    assert there.std() == pytest.approx(1, abs=0.03)
    assert (events.points[..., 1][events.states != 0] == 0).all()
    # What stands where nothing is defined might as well be such noise.
    x, states = true_events(20_000)
    normal = np.random.default_rng(4).normal(size=x.shape)
    spoilt = np.where(states[..., None], 50, normal)

    @jax.jit
    def loss(second):
        batch = Batch(MixedEvent(jnp.concatenate([x, second], axis=-1), states))
        plain = mixed_flow_matching(network, (1, 2), 3)
        return model.loss({}, KEY, batch), plain.loss({}, KEY, batch)

    (found, _), (_, expected) = loss(spoilt), loss(normal)
    assert found == pytest.approx(float(expected), rel=0.03)


@pytest.mark.parametrize(
    ("points", "states", "message"),
    [
        (np.zeros((2, 3)), [0, 3], "whole numbers from 0 to 2, but 1 of 2 are not, the first is 3"),
        (np.zeros((2, 3)), [0, -1], "the first is -1"),
        (np.zeros((2, 3)), [0.5, 1], "the first is 0.5"),
        (np.zeros((2, 3)), [[0, 1]], "one for every row of points, of shape \\(2,\\)"),
        (np.full((2, 3), np.nan), [0, 1], "points must be finite"),
    ],
)
def test_events_that_are_none_are_refused(points, states, message):
    with pytest.raises(ValueError, match=message):
        mixed_events(points, states, 3)


def test_a_state_that_is_none_stops_the_training():
    model = mixed_flow_matching(exact(SINGLE), (1, 1), 3)
    points = np.zeros((8, 1, 1))
    loss = jax.jit(lambda states: model.loss({}, KEY, Batch(MixedEvent(points, states))))
    for state in (3.0, -1.0, 0.5):
        assert np.isnan(loss(np.full((8, 1), state)))
    assert np.isfinite(loss(np.full((8, 1), 2.0)))


def test_parts_that_do_not_fit_are_refused():
    network = velocity_mlp(4, hidden=(4,))
    for options, message in (
        ({"num_states": 1}, "num_states must be at least 2, got 1; use flow_matching"),
        ({"num_states": 2}, "for an event of shape \\(3,\\)|x of shape \\(3,\\)"),
        ({"weight": -1.0}, "weight must be zero or positive"),
        (
            {"defined": np.ones((3, 2), bool)},
            "a table of booleans \\[3, 1\\], .* got bool\\[3, 2\\]",
        ),
        ({"defined": np.ones((3, 1))}, "got float64\\[3, 1\\]"),
    ):
        with pytest.raises(ValueError, match=message):
            mixed_flow_matching(network, 1, **{"num_states": 3} | options)


@pytest.mark.study
def test_training_reaches_the_exact_posterior_and_joint():
    """Of two independent points, by one network of a point."""
    prior = SINGLE / SINGLE.sum()
    one = velocity_mlp(4, hidden=(64, 64))
    rows = lambda params, t, x, cond: jax.vmap(one.apply, (None, None, 0, None))(params, t, x, cond)
    network = Network(one.init, rows)
    model = mixed_flow_matching(network, (2, 1), 3, steps=40)
    both = true_events(100_000), true_events(100_000, 1)
    pairs = [np.concatenate(two, axis=1) for two in zip(*both, strict=True)]
    config = TrainConfig(2000, 1024, ema_decay=0.995, optimizer=OptimizerConfig(3e-3, warmup=0.05))
    data = Batch(mixed_events(*pairs, 3))
    params = fit(model, data, KEY, config, devices=jax.devices()[:1], progress=False).one

    rng = np.random.default_rng(3)
    x1, states = true_events(5000, 2)
    t = rng.uniform(0.02, 0.98, 5000).astype(np.float32)
    x = t[:, None, None] * x1 + (1 - t[:, None, None]) * rng.normal(size=x1.shape)
    noisy = np.where(
        rng.uniform(size=(5000, 1)) < t[:, None], states, rng.integers(0, 3, (5000, 1))
    )
    seen = np.concatenate([x, np.eye(3)[noisy]], axis=-1).astype(np.float32)
    right = jax.vmap(lambda t, x: posterior(t, x[:, :1], x[:, 1:], prior))(t, seen)
    found = jax.vmap(lambda t, x: jax.nn.softmax(network.apply(params, t, x, None)[0, 1:]))(t, seen)
    assert np.abs(found - right).mean() < 0.01

    events = draw(model, params, KEY, 80_000, batch_size=20_000)
    variation, moments = distance_of_joint(events, prior[:, None] * prior[None])
    # Of the network: with exact probabilities it is 0.004 at most.
    assert variation < 0.015
    assert moments < 0.04

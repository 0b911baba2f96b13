"""Sets of points in groups of like length: other programs, the same numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import Batch, TrainConfig, draw, fit
from jgen.generative_model import loss_at
from jgen.models import consistency, diffusion, flow_matching, gan, mean_flow
from jgen.nets import Generator, Network
from jgen.paths import variance_preserving
from jgen.sets import SetCondition, masked
from jgen.solvers import Ancestral, runge_kutta
from jgen.training.buckets import bucket_rows, bucketed_loss

ONE = jax.devices()[:1]
ROWS = 40
KEY = jax.random.key(0)
RNG = np.random.default_rng(1)
N = RNG.integers(0, 30, 24)
COND = SetCondition(N, RNG.normal(size=(24, 1)).astype(np.float32))
X = RNG.normal(size=(24, ROWS, 2)).astype(np.float32)


def velocity(params, t, x, cond):
    """Points that see their mean, as small as a network on sets can be."""
    x = masked(x, cond)
    mean = jnp.sum(x, axis=0) / jnp.maximum(cond.n, 1)
    seen = t * (mean @ params["mean"]) + cond.cond[0]
    return masked(jnp.tanh(x @ params["own"] + seen[None]), cond)


NETWORK = Network(lambda key: {"own": jax.random.normal(key, (2, 2)), "mean": jnp.eye(2)}, velocity)
MODELS = {
    "flow matching": lambda: flow_matching(NETWORK, (ROWS, 2), solver=runge_kutta("midpoint", 2)),
    "ancestral": lambda: diffusion(
        NETWORK, (ROWS, 2), path=variance_preserving(), sampler=Ancestral(3)
    ),
    "mean flow": lambda: mean_flow(NETWORK, (ROWS, 2)),
    "consistency": lambda: consistency(NETWORK, (ROWS, 2), steps=2),
}


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        ("flow matching", (9, 20, 30)),
        pytest.param("flow matching", (2, 3, 30), id="groups that do not fit"),
        ("mean flow", (9, 20, 30)),
    ],
)
def test_the_loss_and_its_gradient_are_those_without(kind, rows):
    model = MODELS[kind]()
    params = model.init(KEY)
    batch = Batch(X, COND, RNG.uniform(0.5, 1.5, 24).astype(np.float32))
    both = [
        jax.jit(jax.value_and_grad(loss))(params, KEY, batch, jnp.float32(0.5))
        for loss in (bucketed_loss(model, rows), lambda *args: loss_at(model, *args))
    ]
    assert both[0][0] == pytest.approx(float(both[1][0]), rel=1e-6)
    for a, b in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["ancestral", "consistency"])
def test_events_are_those_without(kind):
    model = MODELS[kind]()
    params = model.init(KEY)
    plain = draw(model, params, KEY, 24, COND)
    np.testing.assert_allclose(
        draw(model, params, KEY, 24, COND, buckets=3, batch_size=5), plain, rtol=1e-5, atol=1e-5
    )


def test_rows_hold_nearly_all_groups():
    n = np.random.default_rng(2).poisson(30, 10_000)
    rows = bucket_rows(n, 64, 4)
    other = np.sort(np.random.default_rng(3).choice(n, (1000, 64)), axis=1)
    assert (other.reshape(1000, 4, 16)[:, :, -1] <= rows).all(axis=1).mean() > 0.99
    assert rows[-1] == n.max()
    assert rows[0] < 30 < rows[2] < rows[3]


@pytest.mark.study
def test_a_training_in_buckets_ends_where_one_without_does():
    model = MODELS["flow matching"]()
    config = TrainConfig(steps=3, batch_size=12, log_every=1, axis="scan")
    buckets = dataclasses.replace(config, buckets=2)
    ends = [
        fit(model, Batch(X, COND), KEY, config, devices=ONE, progress=False),
        fit(model, Batch(X, COND), KEY, buckets, devices=ONE, progress=False),
    ]
    for a, b in zip(*(jax.tree.leaves(end.one) for end in ends), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "cond", "message"),
    [
        ({"buckets": 5}, COND, "12 events of a minibatch cannot be dealt out evenly to 5 buckets"),
        ({"buckets": 2}, None, "buckets are for events that are sets of points"),
        ({"buckets": 2, "axis": "vmap"}, COND, "computed side by side"),
    ],
)
def test_groups_that_make_no_sense_are_refused(options, cond, message):
    config = TrainConfig(steps=1, batch_size=12, **{"axis": "scan"} | options)
    with pytest.raises(ValueError, match=message):
        fit(MODELS["flow matching"](), Batch(X, cond), KEY, config, devices=ONE, progress=False)


def test_a_loss_of_one_key_for_all_events_is_refused():
    """A game's, which has a key of the noise and one of the penalty."""
    generator = Generator(
        NETWORK.init,
        lambda key: jax.random.normal(key, (ROWS, 2)),
        lambda params, noise, cond: NETWORK.apply(params, 0.0, noise, cond),
    )
    critic = Network(NETWORK.init, lambda params, x, cond, others=None: jnp.sum(x @ params["own"]))
    config = TrainConfig(steps=1, batch_size=12, buckets=2, axis="scan")
    with pytest.raises(ValueError, match="takes one key for all of them, so use buckets=1"):
        fit(gan(generator, critic), Batch(X, COND), KEY, config, devices=ONE, progress=False)


def test_buckets_of_no_sets_are_refused_by_draw():
    model = MODELS["flow matching"]()
    with pytest.raises(ValueError, match="models of sets with a sample_from"):
        draw(model, model.init(KEY), KEY, 4, buckets=2)

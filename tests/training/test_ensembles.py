"""What members of an ensemble differ by: their data, their data set, a repulsive force."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgen.generative_model import Batch, GenerativeModel, mean_loss
from jgen.random import member_keys
from jgen.training import (
    OptimizerConfig,
    RepulsionConfig,
    TrainConfig,
    bootstrap_rows,
    fit,
    make_step,
)
from jgen.training.repulsion import (
    kernel_width,
    log_prob_values,
    loss_values,
    repulsion,
    repulsive_update,
)

KEY = jax.random.key(5)
CONSTANT = OptimizerConfig(learning_rate=0.05, schedule="constant")


def run(model, data, config, devices=1, **kwargs):
    devices = jax.devices()[:devices]
    return fit(model, data, KEY, config, devices=devices, progress=False, **kwargs)


def visits(num):
    """A parameter an event that moves if and only if a minibatch holds that event."""
    return GenerativeModel(
        lambda key: jnp.zeros(num), lambda p, key, batch: jnp.mean(p[batch.x.astype(int)]), None
    )


# The mean of a normal distribution of width one, by maximum likelihood.
LOCATION = GenerativeModel(
    lambda key: jax.random.normal(key),
    lambda p, key, batch: mean_loss(lambda k, x, c: (x - p) ** 2 / 2, key, batch),
    None,
    lambda p, key, x, cond: -((x - p) ** 2) / 2,
)


@pytest.mark.parametrize("members", ["plain", "bootstrap"])
@pytest.mark.parametrize("data_sets", [1, 2])
@pytest.mark.parametrize(("axis", "devices"), [("scan", 1), ("vmap", 1), ("vmap", 8)])
def test_every_member_trains_on_its_own_rows_and_on_no_other(members, data_sets, axis, devices):
    config = TrainConfig(
        60, 32, ensemble=4, members=members, data_sets=data_sets, axis=axis, optimizer=CONSTANT
    )
    num = 24 // data_sets
    moved = run(visits(24), Batch(np.arange(24)), config, devices).params != 0
    for i in range(4):
        rows = bootstrap_rows(KEY, i, num) if members == "bootstrap" else np.arange(num)
        expected = i // (4 // data_sets) * num + np.unique(rows)
        np.testing.assert_array_equal(np.flatnonzero(moved[i]), expected)


def test_multiplicities_are_those_of_a_bootstrap():
    """Counts are multinomial: variance 1 - 1/n, a fraction (1 - 1/n)^n of the events left out."""
    num, members = 500, 20
    counts = np.array(
        [np.bincount(bootstrap_rows(KEY, i, num), minlength=num) for i in range(members)]
    )
    assert np.all(counts.sum(axis=1) == num)
    total = counts.size
    left_out = (1 - 1 / num) ** num
    # Poisson(1) has a fourth central moment of 4, so the variance's own variance is 3 / total.
    assert abs(counts.var() - (1 - 1 / num)) < 4 * (3 / total) ** 0.5
    assert abs(np.mean(counts == 0) - left_out) < 4 * (left_out * (1 - left_out) / total) ** 0.5
    # Members and positions are independent of each other.
    correlation = np.corrcoef(counts) - np.eye(members)
    assert np.abs(correlation).max() < 4.5 / num**0.5


def test_bootstrap_members_spread_by_the_statistical_error_and_plain_ones_do_not():
    num, members = 50, 150
    x = np.random.default_rng(0).normal(size=num).astype(np.float32)
    error = x.std() / num**0.5  # of the mean of a resampled set, exactly
    spread = {}
    for kind in ("plain", "bootstrap"):
        config = TrainConfig(
            300, 100, ensemble=members, members=kind, axis="vmap",
            optimizer=OptimizerConfig(learning_rate=0.05),
        )  # fmt: skip
        p = run(LOCATION, Batch(x), config).params
        spread[kind] = p.std(ddof=1)
        if kind == "bootstrap":
            own = np.array([x[bootstrap_rows(KEY, i, num)].mean() for i in range(members)])
            assert np.std(p - own) < 0.2 * error  # what is left of the minibatches' noise
    assert abs(spread["bootstrap"] / error - 1) < 4 * (2 * (members - 1)) ** -0.5
    assert spread["plain"] < 0.2 * error


@pytest.mark.parametrize("members", ["bootstrap", "repulsive"])
def test_a_resumed_ensemble_is_the_uninterrupted_one(tmp_path, members):
    x = np.random.default_rng(0).normal(size=64).astype(np.float32)

    def some(steps, folder):
        config = TrainConfig(steps, 16, ensemble=3, members=members, optimizer=CONSTANT)
        return run(LOCATION, Batch(x), config, folder=folder, extend=True).params

    some(4, tmp_path / "a")
    np.testing.assert_array_equal(some(9, tmp_path / "a"), some(9, tmp_path / "b"))


def test_bootstrap_members_stay_when_the_ensemble_grows():
    x = np.random.default_rng(0).normal(size=64).astype(np.float32)
    config = lambda n: TrainConfig(
        20, 16, ensemble=n, members="bootstrap", axis="scan", optimizer=CONSTANT
    )
    few, many = (run(LOCATION, Batch(x), config(n)).params for n in (2, 4))
    np.testing.assert_allclose(many[:2], few, rtol=1e-5)


def test_members_fit_and_validate_on_their_own_data_set():
    """Sets at 0 and 100, weights of different scale: the same losses as one set at a time."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, 40), rng.normal(100, 1, 40)]).astype(np.float32)
    held_out = np.concatenate([rng.normal(0, 1, 30), rng.normal(100, 1, 30)]).astype(np.float32)
    config = TrainConfig(
        1500, 40, ensemble=4, data_sets=2, keep="best", validate_every=300,
        optimizer=OptimizerConfig(learning_rate=0.5),
    )  # fmt: skip
    fitted = run(
        LOCATION,
        Batch(x, weight=np.repeat([1.0, 10.0], 40)),
        config,
        validation=Batch(held_out, weight=np.repeat([3.0, 1.0], 30)),
    )
    means = np.repeat(x.reshape(2, 40).mean(axis=1), 2)
    np.testing.assert_allclose(fitted.params, means, atol=0.2)
    row = [r for r in fitted.history if "validation_loss" in r][-1]
    own = np.repeat(held_out.reshape(2, 30), 2, axis=0)
    expected = np.mean((own - fitted.state.params[:, None]) ** 2 / 2, axis=1)
    np.testing.assert_allclose(row["validation_loss"], expected, rtol=1e-3)


# f(p) at an event: two members that differ by d have |f_1 - f_2|^2 = batch d^2, so that the
# median over all four pairs gives h = batch d^2 / (2 log 3) and k_12 = 1/9, whatever d is.
SLOPE = lambda p, key, batch: p * batch.x


@pytest.mark.parametrize("axis", ["scan", "vmap"])
def test_forces_between_two_members(axis):
    """d/dp_1 of k_12 / (1 + k_12) is then -0.4 log 3 / (p_1 - p_2)."""
    num, strength, prior, rate = 10, 2.0, 3.0, 0.1
    config = RepulsionConfig(strength, prior)
    penalty = repulsion(SLOPE, config, num)
    step = make_step(LOCATION, optax.sgd(rate), 4, penalty=penalty)
    keys = member_keys(KEY, 2)
    states = jax.vmap(step.init)(keys)
    p = np.array([0.3, -0.5])
    states = states._replace(params=jnp.asarray(p, jnp.float32))
    update = jax.jit(repulsive_update(step, SLOPE, KEY, axis, 4))
    new, metrics = update(states, keys, jnp.zeros(2, jnp.int32), Batch(jnp.ones(num)))
    gradient = (p - 1) + p / (num * prior**2)
    gradient += strength / num * np.array([-1, 1]) * 0.4 * np.log(3) / (p[0] - p[1])
    np.testing.assert_allclose(new.params, p - rate * gradient, rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], np.abs(gradient), rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], (1 - p) ** 2 / 2, rtol=1e-5)


@pytest.mark.parametrize("devices", [1, 8])
def test_two_members_come_to_rest_where_the_forces_balance(devices):
    """At the maximum of the likelihood -+ (log 3 / (5 num))^(1/2); closer without repulsion."""
    num = 20
    config = TrainConfig(
        600, 8, ensemble=2, members="repulsive", repulsion=RepulsionConfig(prior_scale=0.0),
        optimizer=OptimizerConfig(learning_rate=0.05),
    )  # fmt: skip
    data = Batch(np.ones(num, np.float32))
    p = run(LOCATION, data, config, devices, function=SLOPE).params
    distance = (np.log(3) / (5 * num)) ** 0.5
    np.testing.assert_allclose(np.sort(p), [1 - distance, 1 + distance], atol=2e-3)


@pytest.mark.parametrize("axis", ["scan", "vmap"])
def test_without_forces_the_members_are_plain_ones_bit_for_bit(axis):
    x = np.random.default_rng(0).normal(size=64).astype(np.float32)
    plain = TrainConfig(20, 16, ensemble=3, axis=axis)
    free = TrainConfig(
        20, 16, ensemble=3, axis=axis, members="repulsive", repulsion=RepulsionConfig(0.0, 0.0)
    )
    a, b = (run(LOCATION, Batch(x), config).params for config in (plain, free))
    np.testing.assert_array_equal(a, b)


def test_members_that_are_one_function_stay_finite():
    values = jnp.zeros((3, 4))
    assert kernel_width(values) > 0
    model = LOCATION._replace(init=lambda key: jnp.zeros(()))
    config = TrainConfig(3, 4, ensemble=3, members="repulsive")
    assert np.isfinite(run(model, Batch(np.ones(8, np.float32)), config).params).all()


def test_functions_are_log_densities_by_default():
    x, cond = jnp.array([0.0, 1.0, 3.0]), jnp.array([1.0, 2.0, 3.0])
    model = LOCATION._replace(log_prob=lambda p, key, x, cond: p * x + cond)
    values = log_prob_values(model)(jnp.array(2.0), KEY, Batch(x, cond))
    np.testing.assert_allclose(values, [1.0, 4.0, 9.0])


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({"members": "both"}, {}, "members must be one of plain, bootstrap, repulsive, got 'both'"),
        ({"data_sets": 0}, {}, "data_sets must be a whole number from 1"),
        ({"ensemble": 3, "data_sets": 2}, {}, "3 members cannot be dealt out evenly to 2 data"),
        ({"ensemble": 3, "data_sets": 3}, {}, "data has 8 events, which are not 3 data sets"),
        ({"members": "repulsive"}, {}, "at least two members and one data set, got 1 and 1"),
        (
            {"members": "repulsive", "ensemble": 2, "repulsion": RepulsionConfig(-1.0)},
            {},
            "strength must be .*zero or positive",
        ),
        ({"members": "repulsive", "ensemble": 2}, {}, "log_prob, which this model does not have"),
        ({}, {"function": SLOPE}, "function is for members=\"repulsive\", but members is 'plain'"),
    ],
)
def test_bad_options(options, arguments, message):
    model = LOCATION._replace(log_prob=None)
    with pytest.raises(ValueError, match=message):
        run(model, Batch(np.ones(8, np.float32)), TrainConfig(2, 4, **options), **arguments)


def test_bad_weights_and_members():
    data = Batch(np.ones(8, np.float32), weight=np.repeat([1.0, 0.0], 4))
    with pytest.raises(ValueError, match="positive sum in every data set"):
        run(LOCATION, data, TrainConfig(2, 4, ensemble=2, data_sets=2))
    with pytest.raises(ValueError, match="member counts from 0"):
        bootstrap_rows(KEY, -1, 8)


def test_losses_of_events_are_those_of_batches_of_one(key):
    """In a weighted batch, too: values are of events, and the mean is the loss."""
    x, weight = jnp.array([1.0, -2.0, 4.0]), jnp.array([0.5, 2.0, 0.5])
    square = lambda params: lambda key, x, cond: (x - params) ** 2
    model = GenerativeModel(
        None, lambda params, key, batch: mean_loss(square(params), key, batch), None
    )
    batch = Batch(x, weight=weight)
    values = loss_values(model)(jnp.array(2.0), key, batch)
    np.testing.assert_allclose(values, [0.5, 32.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(values.mean(), model.loss(jnp.array(2.0), key, batch), rtol=1e-6)

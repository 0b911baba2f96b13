"""Pairs of noise and data: least cost, permutations, and noise that stays normal."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
import scipy.stats

from jgen.couplings import optimal_transport, paired
from jgen.generative_model import Batch
from jgen.models import flow_matching
from jgen.nets import velocity_mlp
from jgen.toys import eight_gaussians
from jgen.training import TrainConfig, fit, make_step

NETWORK = velocity_mlp(2, hidden=(32, 32))


def squared(a, b):
    """|a_i - b_j|^2 in double precision."""
    a, b = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (a, b))
    return ((a[:, None] - b[None]) ** 2).sum(axis=-1)


def total(cost, rows):
    return cost[np.asarray(rows), np.arange(len(rows))].sum()


def least(cost):
    return cost[scipy.optimize.linear_sum_assignment(cost)].sum()


def noise_and_data(seed, num, shape):
    rng = np.random.default_rng(seed)
    x0, x1 = rng.normal(size=(2, num, *shape)).astype(np.float32)
    return jnp.asarray(x0), jnp.asarray(3 * x1 + 1)


@pytest.mark.parametrize(("num", "shape"), [(1, (2,)), (40, (2,)), (40, (3, 4, 5))])
def test_assignment_is_scipys(key, num, shape):
    x0, x1 = noise_and_data(num, num, shape)
    rows = jax.jit(optimal_transport())(key, x0, x1, None)
    assert sorted(np.asarray(rows)) == list(range(num))
    cost = squared(x0, x1)
    np.testing.assert_allclose(total(cost, rows), least(cost), rtol=1e-6)


def test_of_five_events_no_permutation_is_cheaper(key):
    x0, x1 = noise_and_data(0, 5, (2,))
    cost = squared(x0, x1)
    found = total(cost, optimal_transport()(key, x0, x1, None))
    costs = [total(cost, rows) for rows in itertools.permutations(range(5))]
    np.testing.assert_allclose(found, min(costs), rtol=1e-6)


def test_on_a_line_pairs_are_in_order_in_every_member_of_a_vmap(key):
    x0, x1 = (x.reshape(3, 16, 1) for x in noise_and_data(2, 48, (1,)))
    rows = jax.vmap(lambda a, b: optimal_transport()(key, a, b, None))(x0, x1)
    moved = np.take_along_axis(np.asarray(x0)[..., 0], np.asarray(rows), axis=1)
    order = np.argsort(np.asarray(x1)[..., 0], axis=1)
    assert np.all(np.diff(np.take_along_axis(moved, order, axis=1), axis=1) > 0)


def test_noise_stays_within_equal_conditions_and_is_best_there(key):
    """Conditions are a pytree; data of a class lie far from those of the others."""
    x0, x1 = noise_and_data(3, 40, (2,))
    label = np.random.default_rng(1).integers(0, 3, 40)
    x1 = x1 + 10 * label[:, None]
    cond = {"label": jnp.asarray(label), "same": jnp.ones((40, 2))}
    rows = np.asarray(optimal_transport()(key, x0, x1, cond))
    np.testing.assert_array_equal(label[rows], label)
    cost = squared(x0, x1)
    blocks = [cost[np.ix_(label == c, label == c)] for c in range(3)]
    np.testing.assert_allclose(total(cost, rows), sum(map(least, blocks)), rtol=1e-6)
    assert least(cost) < 0.99 * total(cost, rows)


def test_continuous_conditions_that_all_differ_leave_the_pairs_as_they_are(key):
    x0, x1 = noise_and_data(4, 40, (2,))
    rows = optimal_transport()(key, x0, x1, x1[:, 0])
    np.testing.assert_array_equal(rows, np.arange(40))


def test_a_finite_weight_is_that_of_the_condition_in_the_cost(key):
    x0, x1 = noise_and_data(5, 40, (2,))
    cond = x1[:, :1] + 0.1 * x0[:, 1:]
    far = squared(cond, cond)
    moved = []
    for weight in (0.0, 0.5, 10.0, 1e3):
        rows = optimal_transport(weight)(key, x0, x1, cond)
        cost = squared(x0, x1) + weight * far
        np.testing.assert_allclose(total(cost, rows), least(cost), rtol=1e-5)
        moved.append(total(far, rows) / len(rows))
    assert np.all(np.diff(moved) < 0)
    # With a weight w noise moves between conditions at distances of about |x0 - x1| / sqrt(w).
    assert moved[-1] < squared(x0, x1).mean() / 1e3


def noise_of_a_class(key, coupling, num_batches=100, batch=40):
    """Noise that the events of class 1 get; classes lie at -2 and 2 and are equally likely."""

    def one(key):
        key_label, key_x, key_pairs = jax.random.split(key, 3)
        label = jax.random.bernoulli(key_label, shape=(batch,))
        x1 = 4.0 * label - 2 + 0.5 * jax.random.normal(key_x, (batch,))
        x0, _ = paired(coupling, key_pairs, Batch(x1[:, None], label)).x
        return x0[:, 0], label

    x0, label = jax.jit(lambda keys: jax.lax.map(one, keys))(jax.random.split(key, num_batches))
    return np.asarray(x0).ravel(), np.asarray(label).ravel()


def test_noise_stays_normal_and_under_a_condition_too_if_the_coupling_heeds_it(key):
    plain, label = noise_of_a_class(key, optimal_transport(0.0))
    aware, same = noise_of_a_class(key, optimal_transport())
    np.testing.assert_array_equal(label, same)
    # All in all both keep the noise that they were given.
    for x0 in (plain, aware):
        assert scipy.stats.kstest(x0, "norm").pvalue > 0.01
    # The aware coupling keeps it for each class, the other gives each class its half of the line:
    # mean sqrt(2 / pi) = 0.80 but for batches with more events of one class than of the other.
    error = 1 / np.sqrt(label.sum())
    assert scipy.stats.kstest(aware[label], "norm").pvalue > 0.01
    assert abs(aware[label].mean()) < 4 * error
    assert 0.65 < plain[label].mean() < 0.8
    assert scipy.stats.kstest(plain[label], "norm").statistic > 0.3


def test_pairs_keep_the_events_and_their_conditions(key):
    batch = Batch(jnp.arange(40.0)[:, None], jnp.arange(40))
    found = paired(optimal_transport(0.0), key, batch)
    np.testing.assert_array_equal(found.x[1], batch.x)
    np.testing.assert_array_equal(found.cond, batch.cond)
    assert found.x[0].shape == (40, 1)
    assert len(np.unique(found.x[0])) == 40


def test_data_that_are_no_numbers_end_all_the_same(key):
    """Training stops at the loss that is none; the assignment must not loop for ever."""
    x0, x1 = noise_and_data(6, 40, (2,))
    rows = optimal_transport()(key, x0, x1.at[3].set(jnp.nan), jnp.arange(40) % 2)
    assert rows.shape == (40,)


def test_weights_are_refused(key):
    batch = Batch(jnp.zeros((4, 1)), weight=jnp.ones(4))
    with pytest.raises(ValueError, match="takes no event weights"):
        paired(optimal_transport(), key, batch)
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        optimal_transport(-1.0)


def trained(coupling, toy, key):
    """Flow matching of a toy, in one compiled loop."""
    model = flow_matching(NETWORK, (2,), coupling=coupling)
    key_data, key_train = jax.random.split(key)
    data = Batch(jax.vmap(toy.sample)(jax.random.split(key_data, 4000)))
    step = make_step(model, optax.adam(optax.cosine_decay_schedule(4e-3, 600)), 40)

    @jax.jit
    def run(state):
        return jax.lax.scan(lambda s, _: step.update(s, key_train, data), state, length=600)[0]

    return run(step.init(key)).params


@jax.jit
def trajectories(params, x0):
    """Euler's velocities [events, 25, 2] and the ends of the trajectories from x0."""

    def one(x0):
        def step(x, t):
            u = NETWORK.apply(params, t, x, None)
            return x + u / 25, u

        end, slopes = jax.lax.scan(step, x0, jnp.arange(25) / 25)
        return slopes, end

    return jax.vmap(one)(x0)


@pytest.mark.study
def test_transport_straightens_the_flow_so_that_one_step_does(key):
    toy = eight_gaussians()
    truth = jax.vmap(toy.sample)(jax.random.split(jax.random.key(7), 400))
    x0 = jax.random.normal(jax.random.key(8), (400, 2))
    bend, one_step, solved = {}, {}, {}
    for name, coupling in (("independent", None), ("transport", optimal_transport())):
        slopes, end = trajectories(trained(coupling, toy, key), x0)
        # Mean of |x(1) - x(0) - u(t, x(t))|^2, the straightness of 2209.03003.
        bend[name] = np.mean(np.sum(((end - x0)[:, None] - slopes) ** 2, axis=-1))
        one_step[name], solved[name] = (
            (least(squared(x, truth)) / 400) ** 0.5 for x in (x0 + slopes[:, 0], end)
        )
    assert bend["transport"] < 0.1 * bend["independent"]
    # 2-Wasserstein distances; solved in 25 steps both flows are good.
    assert one_step["transport"] < 0.6 * one_step["independent"]
    assert solved["transport"] < 1.1 * solved["independent"]


def test_validation_that_fills_its_batches_has_no_weights(key):
    """A coupling refuses weights, which the padding of a last batch would bring."""
    model = flow_matching(velocity_mlp(2, hidden=(4,)), (2,), coupling=optimal_transport())
    data = Batch(np.random.default_rng(0).normal(size=(32, 2)).astype(np.float32))
    options = {"devices": jax.devices()[:1], "progress": False}
    fitted = fit(model, data, key, TrainConfig(2, 16), validation=data, **options)
    assert np.isfinite(fitted.history[-1]["validation_loss"]).all()

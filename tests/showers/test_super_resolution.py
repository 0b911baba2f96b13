import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import Batch, GenerativeModel
from jgen.generative_model import loss_at
from jgen.showers.super_resolution import (
    coarsened,
    conserving,
    each_cell,
    from_blocks,
    stick_breaking,
    stick_lengths,
    to_blocks,
)
from jgen.solvers import normal_log_prob

# Normal numbers, whatever the condition.
PLAIN = GenerativeModel(
    lambda key: {"a": jnp.zeros(())},
    lambda params, key, batch: jnp.mean(jnp.sum((batch.x - params["a"]) ** 2, axis=(1, 2, 3))),
    lambda params, key, cond: 2 * jax.random.normal(key, (2, 3, 3)),
    lambda params, key, x, cond: normal_log_prob(x),
)
FINE = np.arange(24, dtype=np.float32).reshape(4, 6)


def test_blocks_are_cut_and_put_together():
    parts = to_blocks(FINE, (2, 2))
    np.testing.assert_array_equal(parts[1, 2], [16, 17, 22, 23])
    np.testing.assert_array_equal(from_blocks(parts, (2, 2)), FINE)
    three = np.random.default_rng(0).normal(size=(4, 6, 2)).astype(np.float32)
    np.testing.assert_array_equal(from_blocks(to_blocks(three, (2, 3, 1)), (2, 3, 1)), three)
    np.testing.assert_allclose(coarsened(FINE, (4, 6)), [[FINE.sum()]])
    with pytest.raises(ValueError, match="cannot be cut into blocks"):
        to_blocks(FINE, (3, 2))


def test_sticks_are_shares_with_their_determinant():
    u = jnp.array([0.3, -1.0, 2.0])
    shares, log_det = stick_breaking(u)
    assert float(shares.sum()) == pytest.approx(1)
    np.testing.assert_allclose(stick_lengths(5 * shares), u, rtol=1e-5)
    matrix = jax.jacobian(lambda u: stick_breaking(u)[0][:-1])(u)
    assert float(log_det) == pytest.approx(float(jnp.linalg.slogdet(matrix)[1]), abs=1e-5)
    np.testing.assert_allclose(stick_breaking(jnp.zeros(3))[0], 0.25, rtol=1e-6)


@pytest.mark.parametrize("threshold", [0.0, 0.05])
def test_adding_up_gives_the_coarse_cells_back(threshold):
    model = conserving(PLAIN, (2, 2), threshold=threshold)
    coarse = np.array([[1, 0, 1e-3], [1e4, 0.1, 5]], np.float32)
    draw = jax.jit(jax.vmap(model.sample, (None, 0, None)))
    fine = draw({"a": 0.0}, jax.random.split(jax.random.key(0), 50), coarse)
    again = jax.vmap(lambda x: coarsened(x, (2, 2)))(fine)
    np.testing.assert_allclose(again, np.broadcast_to(coarse, again.shape), rtol=1e-6)
    assert (np.asarray(fine) >= 0).all()
    of_others = np.asarray(jax.vmap(lambda x: to_blocks(x, (2, 2)))(fine))[:, 1, [0, 2]]
    few = (of_others > 0) & (of_others < threshold)
    assert not few.any()
    assert ((of_others == 0).any()) == (threshold > 0)


def test_the_density_is_that_of_the_contents():
    """By the ratio of densities to those of u, in one block of two cells."""
    one = PLAIN._replace(sample=None)
    model = conserving(one, (1, 2), least=1e-7)
    fine, total = jnp.array([[3.0, 1.0]]), 4.0
    of_share = jax.grad(lambda s: stick_lengths(jnp.stack([s, 1 - s]))[0])(0.75)
    u = stick_lengths(fine / total)
    expected = normal_log_prob(u) + jnp.log(of_share / total)
    found = model.log_prob({"a": 0.0}, jax.random.key(0), fine, jnp.array([[total]]))
    assert float(found) == pytest.approx(float(expected), abs=1e-4)


def test_the_loss_is_of_the_shares_and_finite_for_empty_cells():
    model = conserving(PLAIN, (2, 2))
    fine = np.zeros((3, 4, 6), np.float32)
    fine[0, 0, 0] = 1
    fine[1] = 7
    coarse = jax.vmap(lambda x: coarsened(x, (2, 2)))(fine)
    each = [
        float(model.loss({"a": 0.0}, jax.random.key(0), Batch(fine[i : i + 1], coarse[i : i + 1])))
        for i in range(3)
    ]
    assert np.isfinite(each).all()
    assert each[0] > 10
    np.testing.assert_allclose(each[1:], 0, atol=1e-6)


def test_cells_are_events_that_are_independent():
    one = GenerativeModel(
        lambda key: {"a": jnp.zeros(())},
        lambda params, key, batch: jnp.mean(batch.weight * jnp.sum(batch.x * batch.cond, axis=1)),
        lambda params, key, cond: cond + jax.random.normal(key, cond.shape),
        lambda params, key, x, cond: normal_log_prob(x - cond),
    )
    model, rng = each_cell(one), np.random.default_rng(0)
    x, cond = rng.normal(size=(2, 5, 3, 2, 4)).astype(np.float32)
    batch = Batch(x, cond, np.float32([1, 0, 2, 1, 1]))
    by_hand = np.mean(batch.weight[:, None, None] * (x * cond).sum(axis=-1))
    assert float(model.loss({}, jax.random.key(0), batch)) == pytest.approx(by_hand, rel=1e-5)
    found = model.log_prob({}, jax.random.key(0), x[0], cond[0])
    assert float(found) == pytest.approx(float(normal_log_prob(x[0] - cond[0])), rel=1e-5)
    drawn = np.asarray(model.sample({}, jax.random.key(0), cond[0])) - cond[0]
    assert drawn.shape == (3, 2, 4)
    assert len(np.unique(drawn)) == 24


def test_losses_that_change_on_the_way_know_how_far_it_is(key):
    schedule = GenerativeModel(
        lambda key: {}, lambda params, key, batch, progress=1.0: jnp.asarray(progress), None
    )
    model = conserving(each_cell(schedule), (2,), features=lambda c: c[..., None])
    batch = Batch(jnp.ones((1, 4)), 2 * jnp.ones((1, 2)))
    assert float(loss_at(model, {}, key, batch, 0.25)) == 0.25

"""Muon: what moves, in which direction and how far."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.training import OptimizerConfig, make_optimizer

RATE = 1e-2
RNG = np.random.default_rng(0)
GRADIENTS = {
    "blocks": {"kernel": RNG.normal(size=(3, 24, 8)), "bias": RNG.normal(size=(3, 8))},
    "points": {"direction": RNG.normal(size=(8, 24)), "length": RNG.normal(size=24)},
    "kernel": RNG.normal(size=5),
}
GRADIENTS = jax.tree.map(jnp.float32, GRADIENTS)


def moved(gradients, **options):
    """By the first step."""
    optimizer = make_optimizer(OptimizerConfig(RATE, "constant", method="muon", **options), 10)
    params = jax.tree.map(jnp.ones_like, gradients)
    return optimizer.update(gradients, optimizer.init(params), params)[0]


def test_weights_move_along_the_orthogonal_matrix_nearest_to_their_gradient():
    """U V^T of the singular value decomposition, to the 30 % of five iterations, layer by layer."""
    made = moved(GRADIENTS)
    layers = [*zip(made["blocks"]["kernel"], GRADIENTS["blocks"]["kernel"], strict=True)]
    for step, gradient in (
        *layers,
        (made["points"]["direction"], GRADIENTS["points"]["direction"]),
    ):
        u, _, vt = np.linalg.svd(gradient, full_matrices=False)
        inside = u.T @ np.asarray(step) @ vt.T
        expected = -RATE * 0.2 * np.sqrt(24)
        np.testing.assert_allclose(np.diag(inside) / expected, 1, atol=0.35)
        assert np.abs(inside - np.diag(np.diag(inside))).max() < 1e-3 * abs(expected)
        # Eight directions of 24 at full length: a root mean square of 0.2 times the rate.
        assert np.sqrt(np.mean(step**2)) == pytest.approx(0.2 * RATE, rel=0.3)


def test_a_layer_moves_as_it_does_alone():
    one = {"kernel": GRADIENTS["blocks"]["kernel"][1]}
    np.testing.assert_allclose(
        moved(one)["kernel"], moved(GRADIENTS)["blocks"]["kernel"][1], rtol=1e-4, atol=1e-7
    )


def test_what_is_no_weight_moves_by_adam():
    """The first step has the size of the rate and the sign of the gradient."""
    made = moved(GRADIENTS)
    for step, gradient in (
        (made["blocks"]["bias"], GRADIENTS["blocks"]["bias"]),
        (made["points"]["length"], GRADIENTS["points"]["length"]),
        (made["kernel"], GRADIENTS["kernel"]),
    ):
        np.testing.assert_allclose(np.sign(step), -np.sign(gradient))
        size = np.abs(step)
        np.testing.assert_allclose(size, size.flat[0], rtol=1e-4)
        assert RATE <= size.flat[0] < 2 * RATE


def test_scales_of_bayesian_weights_move_by_adam():
    kernel = GRADIENTS["points"]["direction"]
    made = moved({"mean": {"kernel": kernel}, "log_scale": {"kernel": kernel}})
    assert np.sqrt(np.mean(made["mean"]["kernel"] ** 2)) == pytest.approx(0.2 * RATE, rel=0.3)
    np.testing.assert_allclose(np.abs(made["log_scale"]["kernel"]), RATE * 1.474, rtol=1e-3)


@pytest.mark.parametrize("shape", [(4, 3), (1, 5), (5, 1), (1, 1)])
def test_no_gradient_moves_nothing_and_a_single_row_moves_as_a_vector(shape):
    still = moved({"kernel": jnp.zeros(shape), "bias": jnp.zeros(3)})
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(still))
    made = np.asarray(moved({"kernel": -jnp.ones(shape)})["kernel"])
    np.testing.assert_allclose(made, made.flat[0], rtol=1e-3)
    assert np.linalg.norm(made) == pytest.approx(0.2 * RATE * max(shape) ** 0.5, rel=0.35)


def test_weights_and_others_decay_alike():
    alone, together = moved(GRADIENTS), moved(GRADIENTS, weight_decay=0.5)
    change = jax.tree.map(lambda a, b: np.asarray(a - b), alone, together)
    for leaf in jax.tree.leaves(change):
        np.testing.assert_allclose(leaf, 0.5 * RATE, rtol=1e-3)


def test_members_move_as_they_do_alone():
    two = jax.tree.map(lambda g: jnp.stack([g, -2 * g]), GRADIENTS)
    both = jax.vmap(moved)(two)
    for i in range(2):
        one = moved(jax.tree.map(lambda g, i=i: g[i], two))
        for a, b in zip(jax.tree.leaves(both), jax.tree.leaves(one), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-3, atol=1e-6)


def test_what_muon_cannot_do_is_refused():
    with pytest.raises(ValueError, match="muon moves weights, arrays named kernel, weight"):
        moved({"mean": jnp.ones((2, 2))})
    with pytest.raises(ValueError, match="muon moves weights"):
        make_optimizer(OptimizerConfig(method="muon"), 10).init(jnp.ones((2, 2)))  # no name
    with pytest.raises(ValueError, match="choose the schedule cosine"):
        make_optimizer(OptimizerConfig(schedule="onecycle", method="muon"), 10)
    with pytest.raises(ValueError, match="method must be one of adamw, muon"):
        make_optimizer(OptimizerConfig(method="sgd"), 10)

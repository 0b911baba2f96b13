"""Games with linear players, whose losses and gradients are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.generative_model import Batch, draw
from jgen.models import gan
from jgen.nets import Generator, Network
from jgen.nets.adversarial import critic_mlp, generator_mlp
from jgen.sets import SetCondition

# x = m + z, and c = a . x + b.
GENERATOR = Generator(
    lambda key: jnp.zeros(2),
    lambda key: jax.random.normal(key, (2,)),
    lambda params, z, cond: params + z,
)
CRITIC = Network(
    lambda key: {"a": jnp.ones(2), "b": jnp.zeros(())},
    lambda params, x, cond, others: params["a"] @ x + params["b"],
)
PARAMS = {
    "generator": jnp.array([0.3, -0.2]),
    "critic": {"a": jnp.array([0.5, -1.2]), "b": jnp.array(0.1)},
}


def pieces(model, key, batch):
    """Critic outputs of real and generated events of the loss, by hand."""
    keys = jax.random.split(jax.random.split(key)[0], len(batch.x))
    fake = jax.vmap(lambda k: model.sample(PARAMS, k, None))(keys)
    judge = lambda x: x @ PARAMS["critic"]["a"] + PARAMS["critic"]["b"]
    return fake, judge(batch.x), judge(fake)


def sigmoid(c):
    return 1 / (1 + np.exp(-np.asarray(c, np.float64)))


@pytest.mark.parametrize(
    ("objective", "real", "fake", "own"),
    [
        ("saturating", lambda c: -np.log(sigmoid(c)), lambda c: -np.log(1 - sigmoid(c)),
         lambda c: np.log(1 - sigmoid(c))),
        ("non_saturating", lambda c: -np.log(sigmoid(c)), lambda c: -np.log(1 - sigmoid(c)),
         lambda c: -np.log(sigmoid(c))),
        ("least_squares", lambda c: (c - 1) ** 2, lambda c: c**2, lambda c: (c - 1) ** 2),
        ("wasserstein", lambda c: -c, lambda c: c, lambda c: -c),
    ],
)  # fmt: skip
def test_objectives_are_those_of_the_papers(objective, real, fake, own, key):
    weight = jnp.linspace(0.5, 1.5, 40)
    batch = Batch(jax.random.normal(key, (40, 2)) + 1, weight=weight)
    model = gan(GENERATOR, CRITIC, objective=objective)
    _, c_real, c_fake = pieces(model, key, batch)
    c_real, c_fake = (np.asarray(c, np.float64) for c in (c_real, c_fake))
    expected = (
        np.mean(np.asarray(weight) * real(c_real)) + np.mean(fake(c_fake)) + np.mean(own(c_fake))
    )
    np.testing.assert_allclose(model.loss(PARAMS, key, batch), expected, rtol=1e-5)


def test_each_player_feels_its_own_objective_only(key):
    batch = Batch(jax.random.normal(key, (40, 2)) + 1)
    model = gan(GENERATOR, CRITIC, objective="wasserstein")
    fake, _, _ = pieces(model, key, batch)
    grads = jax.grad(model.loss)(PARAMS, key, batch)
    # -c of the generator, with dx/dm = 1; c(fake) - c(real) of the critic.
    np.testing.assert_allclose(grads["generator"], -PARAMS["critic"]["a"], rtol=1e-5)
    np.testing.assert_allclose(
        grads["critic"]["a"], fake.mean(axis=0) - batch.x.mean(axis=0), rtol=1e-4
    )
    np.testing.assert_allclose(grads["critic"]["b"], 0, atol=1e-6)


def test_gradient_penalty_of_a_linear_critic(key):
    batch = Batch(jax.random.normal(key, (40, 2)))
    plain = gan(GENERATOR, CRITIC, objective="wasserstein")
    model = gan(GENERATOR, CRITIC, objective="wasserstein", gradient_penalty=10.0)
    slope = 1.3  # of length sqrt(0.25 + 1.44)
    found = model.loss(PARAMS, key, batch) - plain.loss(PARAMS, key, batch)
    assert found == pytest.approx(10 * (slope - 1) ** 2, rel=1e-4)
    grads = jax.grad(model.loss)(PARAMS, key, batch)["generator"]
    np.testing.assert_allclose(grads, -PARAMS["critic"]["a"], rtol=1e-5)


def test_a_critic_that_is_flat_has_a_finite_gradient(key):
    model = gan(GENERATOR, CRITIC, gradient_penalty=1.0)
    params = PARAMS | {"critic": jax.tree.map(jnp.zeros_like, PARAMS["critic"])}
    grads = jax.grad(model.loss)(params, key, Batch(jax.random.normal(key, (8, 2))))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_batch_statistics_are_averages_of_embedded_differences(key):
    network = critic_mlp(2, 1, hidden=(5,), embedding=(4, 3))
    params = network.init(key)
    others = jax.random.normal(key, (6, 2))
    x, cond = others[2], jnp.array([0.7])

    arrays = jax.tree.map(np.asarray, params)
    dense = lambda layer, y: y @ layer["kernel"] + layer["bias"]
    leak = lambda y: np.where(y > 0, y, 0.01 * y)
    y = leak(dense(arrays["Dense_0"], np.asarray(others - x[None])))
    y = leak(dense(arrays["Dense_1"], y))
    z = np.concatenate([x, cond, y.mean(axis=0)])
    head = arrays["MLP_0"]
    expected = dense(head["Dense_1"], leak(dense(head["Dense_0"], z)))[0]
    np.testing.assert_allclose(network.apply(params, x, cond, others), expected, rtol=1e-5)
    shuffled = network.apply(params, x, cond, others[::-1])
    np.testing.assert_allclose(shuffled, expected, rtol=1e-5)


def test_dropout_stays_on_in_generation(key):
    network = generator_mlp(1, num_noise=3, noise="uniform", hidden=(16,), dropout=0.5)
    params = network.init(key)
    model = gan(network, critic_mlp(1, hidden=(4,)))
    x = draw(model.sample, {"generator": params}, key, 50)
    assert len(np.unique(x)) == 50
    # With one z, the masks are left.
    noise = jax.vmap(model.noise, (0, None))(jax.random.split(key, 9), None)
    same = noise | {"z": jnp.broadcast_to(noise["z"][:1], noise["z"].shape)}
    x = jax.vmap(model.sample_from, (None, 0, None))({"generator": params}, same, None)
    assert len(np.unique(x)) > 3
    assert np.asarray(noise["kept"]).dtype == bool


def test_padding_takes_no_part_in_a_game_of_sets(key):
    """Generator and critic that know of no mask: the game itself keeps padding out."""
    generator = Generator(
        lambda key: jnp.zeros(()),
        lambda key: jax.random.normal(key, (4, 1)),
        lambda shift, z, cond: z + shift,
    )
    critic = Network(lambda key: jnp.ones(()), lambda a, x, cond, others: a * jnp.sum(x) / cond.n)
    model = gan(generator, critic, objective="wasserstein")
    params = {"generator": jnp.array(0.3), "critic": jnp.array(1.7)}
    n = jnp.array([1, 2, 3, 4])
    cond = SetCondition(n)
    x = jax.random.normal(key, (4, 4, 1))
    loss, slope = jax.value_and_grad(model.loss)(params, key, Batch(x, cond))
    rows = np.arange(4) < np.array(n)[:, None]
    garbage = np.where(rows[..., None], x, np.nan)
    assert model.loss(params, key, Batch(garbage, cond)) == loss
    np.testing.assert_allclose(slope["generator"], -1.7, rtol=1e-6)
    events = draw(model, params, key, 4, cond)
    assert ((events[..., 0] != 0) == rows).all()


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="objective must be one of .*'hinge'"):
        gan(GENERATOR, CRITIC, objective="hinge")
    with pytest.raises(ValueError, match="gradient_penalty must be .*zero or positive"):
        gan(GENERATOR, CRITIC, gradient_penalty=-1.0)
    with pytest.raises(ValueError, match="noise must be"):
        generator_mlp(2, noise="cauchy")

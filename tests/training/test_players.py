"""Two players with an optimiser each, against recursions by hand; and a GAN that learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgen.generative_model import Batch, GenerativeModel, draw
from jgen.models import gan
from jgen.nets import Generator, Network
from jgen.nets.adversarial import critic_mlp, generator_mlp
from jgen.toys import camel_back
from jgen.training import (
    OptimizerConfig,
    TrainConfig,
    fit,
    make_optimizer,
    make_step,
    member,
    per_player,
)

KEY = jax.random.key(2)

# Gradients are those of a quadratic form: what one player feels depends on where the other is.
FORM = np.array([[1.0, 0.5], [0.5, 2.0]], np.float32)


def quadratic(params, key=None, batch=None):
    p = jnp.stack([params["critic"], params["generator"]["m"]])
    return 0.5 * p @ FORM @ p


GAME = GenerativeModel(
    lambda key: {"critic": jnp.array(1.0), "generator": {"m": jnp.array(-0.7)}}, quadratic, None
)


def play(optimizer, steps):
    """Positions [steps + 1, (critic, generator)]."""
    params = GAME.init(KEY)
    state, found = optimizer.init(params), []
    for _ in range(steps + 1):
        found.append([params["critic"], params["generator"]["m"]])
        updates, state = optimizer.update(jax.grad(quadratic)(params), state, params)
        params = optax.apply_updates(params, updates)
    return np.array(found)


def test_each_player_has_its_own_transformation_and_pace():
    found = play(per_player({"generator": optax.sgd(0.1), "critic": optax.sgd(0.2)},
                            {"generator": 3}), 10)  # fmt: skip
    p = np.array([1.0, -0.7])
    for step in range(11):
        np.testing.assert_allclose(found[step], p, rtol=1e-5)
        moves = np.array([0.2, 0.1 if step % 3 == 2 else 0.0])
        p = p - moves * (FORM @ p)


def test_a_resting_player_forgets_gradients_and_its_schedule_waits():
    """A generator that moves every third step is Adam on every third gradient."""
    config = OptimizerConfig(learning_rate=0.1, beta1=0.5, schedule="cosine")
    found = play(per_player({"generator": make_optimizer(config, 4), "critic": optax.sgd(0.2)},
                            {"generator": 3}), 12)  # fmt: skip
    alone, m = make_optimizer(config, 4), jnp.array(-0.7)
    state = alone.init(m)
    for move in range(4):
        gradient = FORM[1] @ found[3 * move + 2]
        updates, state = alone.update(jnp.asarray(gradient), state, m)
        m = m + updates
        np.testing.assert_allclose(found[3 * move + 3, 1], m, rtol=1e-5)
        assert np.all(found[3 * move : 3 * move + 3, 1] == found[3 * move, 1])


def test_decay_rates_of_adam_are_those_asked_for():
    config = OptimizerConfig(learning_rate=0.1, schedule="constant", beta1=0.5, beta2=0.9)
    optimizer, p = make_optimizer(config, 3), jnp.array(0.0)
    state, first, second = optimizer.init(p), 0.0, 0.0
    for n, g in enumerate([1.0, -3.0, 2.0], start=1):
        updates, state = optimizer.update(jnp.array(g), state, p)
        first, second = 0.5 * first + 0.5 * g, 0.9 * second + 0.1 * g**2
        root = (second / (1 - 0.9**n)) ** 0.5
        np.testing.assert_allclose(updates, -0.1 * first / (1 - 0.5**n) / root, rtol=1e-5)


# x = m + z against c = a x, so that gradients are random.
LINEAR = gan(
    Generator(lambda k: jax.random.normal(k, (1,)), jax.random.normal, lambda p, z, c: p + z),
    Network(lambda k: jax.random.normal(k, (1,)), lambda p, x, c, others: p @ x),
    objective="wasserstein",
    gradient_penalty=1.0,
)
DATA = Batch(np.random.default_rng(0).normal(1, 1, (64, 1)).astype(np.float32))
PLAYERS = per_player({"generator": optax.adam(0.05), "critic": optax.adam(0.1)}, {"generator": 3})


def train(steps, axis="scan", devices=1, folder=None):
    config = TrainConfig(steps, 16, ensemble=2, axis=axis, ema_decay=0.9)
    options = {"folder": folder, "extend": True, "devices": jax.devices()[:devices]}
    return fit(LINEAR, DATA, KEY, config, optimizer=PLAYERS, progress=False, **options)


def test_a_resumed_game_is_the_uninterrupted_one_on_every_axis(tmp_path):
    """Interrupted where the generator rests: its state must not be lost."""
    train(5, folder=tmp_path)
    resumed, whole, spread = train(11, folder=tmp_path), train(11), train(11, "vmap", 8)
    for a, b in zip(jax.tree.leaves(resumed.state), jax.tree.leaves(whole.state), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(jax.tree.leaves(spread.params), jax.tree.leaves(whole.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)


def test_the_average_of_a_generator_is_over_all_steps():
    step = make_step(LINEAR, PLAYERS, 16, ema_decay=0.5)
    state, update = step.init(KEY), jax.jit(step.update)
    start = average = state.params["generator"]
    for n in range(1, 8):
        before = state.params["generator"]
        state, _ = update(state, KEY, DATA)
        assert np.all(state.params["generator"] == before) == (n % 3 != 0)
        decay = min(0.5, n / (n + 9))
        average = decay * average + (1 - decay) * state.params["generator"]
        np.testing.assert_allclose(state.average["generator"], average, rtol=1e-5)
    assert average != start


@pytest.mark.study
def test_a_gan_with_batch_statistics_finds_both_humps():
    toy = camel_back()
    x = np.asarray(jax.vmap(toy.sample)(jax.random.split(KEY, 500)))
    model = gan(
        generator_mlp(1, num_noise=4, hidden=(32, 32)),
        critic_mlp(1, hidden=(32, 32), embedding=(16, 8)),
    )
    adam = lambda rate: make_optimizer(
        OptimizerConfig(learning_rate=rate, schedule="constant", beta1=0.5), 1500
    )
    players = per_player({"generator": adam(1e-3), "critic": adam(1e-3)})
    config = TrainConfig(1500, 32, ema_decay=0.99, log_every=500)
    params = fit(model, Batch(x / 4), KEY, config, optimizer=players, progress=False,
                 devices=jax.devices()[:1]).params  # fmt: skip
    found = 4 * draw(model, member(params, 0), KEY, 4000, batch_size=4000)[:, 0]
    right, left = found[found > 0], found[found < 0]
    assert 0.35 < len(right) / 4000 < 0.65
    assert abs(right.mean() - 4) < 0.6
    assert abs(left.mean() + 4) < 0.6
    assert 0.4 < np.hypot(right.std(), left.std()) / 2**0.5 < 1.7


@pytest.mark.parametrize(
    ("players", "every", "message"),
    [
        (("generator",), {}, "have the keys critic, generator; give a transformation for every"),
        (("generator", "critic", "third"), {}, "the players are critic, generator, third"),
        (("generator", "critic"), {"judge": 2}, "every is for judge, which is none of the players"),
        (("generator", "critic"), {"critic": 0}, "every.*critic.* must be a whole number from 1"),
    ],
)
def test_bad_players(players, every, message):
    with pytest.raises(ValueError, match=message):
        per_player({name: optax.sgd(0.1) for name in players}, every).init(GAME.init(KEY))


def test_other_bad_options():
    with pytest.raises(ValueError, match="are no dictionary"):
        per_player({"generator": optax.sgd(0.1)}).init(jnp.zeros(3))
    for name in ("beta1", "beta2"):
        with pytest.raises(ValueError, match=rf"{name} must be in \[0, 1\), got 1"):
            make_optimizer(OptimizerConfig(**{name: 1.0}), 10)

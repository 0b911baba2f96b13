"""Autoencoder games with linear players, whose gradients are known, and small trainings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import norm

from jgen.generative_model import Batch, draw
from jgen.models import (
    BibAeWeights,
    bib_ae,
    encoder_decoder,
    gaussian,
    post_processor,
    sorted_spectrum,
    vae_gan,
    voxel_score,
)
from jgen.nets import (
    Network,
    decoder_mlp,
    elementwise_map,
    encoder_mlp,
    latent_critic,
    pair_critic,
)
from jgen.random import normal
from jgen.training import make_step, per_player

# r = a x + s z, y = d r + cond, D = p . x + q . y, C = c . r; s is exp(-20): no noise.
ENCODER = Network(lambda key: jnp.zeros(()), lambda p, x, cond: (p * x, jnp.full(2, -40.0)))
DECODER = Network(lambda key: jnp.zeros(()), lambda p, r, cond: p * r + cond)
CODER = encoder_decoder(ENCODER, DECODER, gaussian())
CRITIC = Network(
    lambda key: {"p": jnp.zeros(2), "q": jnp.zeros(2)},
    lambda p, x, y, cond: p["p"] @ x + p["q"] @ y,
)
LATENT_CRITIC = Network(lambda key: jnp.zeros(2), lambda p, r: p @ r)
PARAMS = {
    "encoder": jnp.float32(0.8),
    "decoder": jnp.float32(1.5),
    "critic": {"p": jnp.array([0.2, 0.4]), "q": jnp.array([0.5, -1.2])},
    "latent_critic": jnp.array([0.3, -0.4]),
}
NUM = 1000
NOTHING = BibAeWeights(**{field.name: 0.0 for field in dataclasses.fields(BibAeWeights)})


def game(distance=None, **weights):
    weights = dataclasses.replace(NOTHING, **weights)
    return bib_ae(CODER, CRITIC, LATENT_CRITIC, (2,), weights, distance=distance)


@pytest.fixture(scope="module")
def batch():
    x = jax.random.normal(jax.random.key(5), (NUM, 2)) + jnp.array([[1.0, -2.0]])
    return Batch(x, 0.1 * x[:, :1] * jnp.ones((1, 2)))


def doubles(batch):
    return 1.2 * batch.x + batch.cond


@pytest.fixture(scope="module")
def gradients(batch):
    """Of three games, in one program."""
    games = {
        "both": game(critic=3.0, latent_critic=2.0, kl=1.0, reconstruction=1.0),
        "critic": game(critic=3.0),
        "latent_critic": game(latent_critic=2.0),
    }
    grad = lambda model: jax.grad(model.loss)(PARAMS, jax.random.key(1), batch)
    return jax.jit(lambda: jax.tree.map(grad, games, is_leaf=lambda g: isinstance(g, tuple)))()


def test_critics_feel_their_wasserstein_distances_only(batch, gradients):
    found = gradients["both"]
    difference = (doubles(batch) - batch.x).mean(axis=0)
    np.testing.assert_allclose(found["critic"]["q"], difference, rtol=1e-3)
    np.testing.assert_allclose(found["critic"]["p"], 0, atol=1e-6)
    # C is compared with draws of N(0, 1), whose mean has an error.
    expected = 0.8 * batch.x.mean(axis=0)
    np.testing.assert_allclose(found["latent_critic"], expected, atol=4 / NUM**0.5)


def test_encoder_and_decoder_play_against_the_critics(batch, gradients):
    q, c, mean = PARAMS["critic"]["q"], PARAMS["latent_critic"], batch.x.mean(axis=0)
    found = gradients["critic"]
    np.testing.assert_allclose(found["decoder"], -3 * 0.8 * q @ mean, rtol=1e-4)
    np.testing.assert_allclose(found["encoder"], -3 * 1.5 * q @ mean, rtol=1e-4)
    found = gradients["latent_critic"]
    np.testing.assert_allclose(found["encoder"], -2 * c @ mean, rtol=1e-4)
    np.testing.assert_allclose(found["decoder"], 0, atol=1e-6)


def test_every_term_has_its_weight_and_value(batch):
    """Both critics are linear: slopes 1.3 and 0.5, whatever the point."""
    distance = lambda x, y: jnp.sum(jnp.abs(x - 2 * y))
    mean = lambda terms: float(np.sum(terms, axis=1).mean())
    x, y = batch.x, doubles(batch)
    games = {
        game(): 0.0,
        game(reconstruction=0.5): 0.5 * mean((x - y) ** 2),
        game(distance, reconstruction=0.5): 0.5 * mean(np.abs(x - 2 * y)),
        game(kl=0.05): 0.05 * 0.5 * mean((0.8 * x) ** 2 + 40 - 1),
        game(slope=10.0): 10 * (0.3**2 + 0.5**2),
    }
    # One program for all.
    values = jax.jit(lambda key: [one.loss(PARAMS, key, batch) for one in games])(jax.random.key(1))
    for value, expected in zip(values, games.values(), strict=True):
        assert float(value - values[0]) == pytest.approx(expected, rel=1e-3)


def test_latent_mmd_is_zero_for_normal_latents_only():
    noise = jax.random.normal(jax.random.key(2), (1000, 2))
    params = jax.tree.map(jnp.zeros_like, PARAMS) | {"encoder": PARAMS["encoder"]}
    loss = jax.jit(
        lambda x: game(latent_mmd=1.0).loss(params, jax.random.key(3), Batch(x, jnp.zeros_like(x)))
    )
    assert abs(loss(noise / 0.8)) < 2e-3
    assert loss(noise / 0.8 + 1) > 0.05


def test_vae_gan_plays_one_game_on_draws_and_reconstructions(batch):
    one = Network(lambda key: jnp.zeros(2), lambda p, x, cond: p @ x)
    params = {k: PARAMS[k] for k in ("encoder", "decoder")} | {"critic": jnp.array([0.5, -1.2])}
    model = vae_gan(CODER, one, (2,), objective="wasserstein", kl=0, reconstruction=0)
    key = jax.random.key(1)
    value, found = jax.jit(jax.value_and_grad(model.loss))(params, key, batch)
    # Half of the fakes are decoded draws of N(0, 1), of mean cond.
    fake = (doubles(batch) + batch.cond).mean(axis=0) / 2
    error = 4 * 0.5 * 1.5 / NUM**0.5
    np.testing.assert_allclose(found["critic"], fake - batch.x.mean(axis=0), atol=error)
    np.testing.assert_allclose(found["encoder"], 0, atol=1e-6)
    own = -params["critic"] @ (0.8 * batch.x.mean(axis=0)) / 2
    np.testing.assert_allclose(found["decoder"], own, atol=4 * 0.5 * 1.3 / NUM**0.5)

    with_all = vae_gan(
        CODER, one, (2,), objective="wasserstein", kl=0.3, reconstruction=2.0,
        gradient_penalty=10.0,
    )  # fmt: skip
    gain = jax.jit(with_all.loss)(params, key, batch) - value
    square = float(np.sum((batch.x - doubles(batch)) ** 2, axis=1).mean())
    kl = 0.5 * float(np.sum((0.8 * batch.x) ** 2 + 40 - 1, axis=1).mean())
    assert float(gain) == pytest.approx(2 * square + 0.3 * kl + 10 * 0.3**2, rel=1e-3)
    x = draw(model.sample, params, key, 2000, np.ones((2000, 2), np.float32))
    np.testing.assert_allclose(x.mean(axis=0), 1, atol=4 * 1.5 / 2000**0.5)
    np.testing.assert_allclose(x.std(axis=0), 1.5, rtol=4 / 4000**0.5)


@pytest.mark.study
def test_a_trained_bib_ae_decodes_normal_draws_to_the_data(key):
    """Softplus of correlated normal numbers, from latents that were made normal."""
    x = jax.random.normal(key, (4000, 2)) @ jnp.array([[1.0, 0.8], [0.0, 0.6]]) + 2
    data = Batch(jax.nn.softplus(x))
    model = bib_ae(
        encoder_decoder(
            encoder_mlp(2, 2, hidden=(32,)),
            decoder_mlp(2, 2, hidden=(32,), output=jax.nn.softplus),
            gaussian(),
        ),
        pair_critic((2,), 0, hidden=(16,)),
        latent_critic(2, hidden=(16,)),
        (2,),
        BibAeWeights(0.3, latent_critic=0.3, latent_mmd=20.0, kl=0.1, reconstruction=1.0),
    )
    # Critics that stop learning first would be followed to nowhere: both schedules end together.
    adam = lambda steps: optax.adam(optax.cosine_decay_schedule(5e-3, steps), b1=0.5, b2=0.9)
    moves = {"encoder": 3, "decoder": 3, "critic": 1, "latent_critic": 1}
    players = per_player({name: adam(1500 // every) for name, every in moves.items()}, moves)
    step = make_step(model, players, 128, ema_decay=0.99)
    update = lambda state, _: (step.update(state, key, data)[0], None)
    train = jax.jit(lambda state: jax.lax.scan(update, state, length=1500)[0])
    params = train(step.init(key)).average
    y = draw(model, params, key, 4000, batch_size=4000)
    expected = np.asarray(data.x)
    np.testing.assert_allclose(y.mean(axis=0), expected.mean(axis=0), atol=0.12)
    np.testing.assert_allclose(y.std(axis=0), expected.std(axis=0), rtol=0.12)
    assert np.corrcoef(y.T)[0, 1] == pytest.approx(np.corrcoef(expected.T)[0, 1], abs=0.1)


PLAIN = elementwise_map((40,), 0, hidden=(16,))
VOXELS = Network(PLAIN.init, lambda params, y, noise, cond: PLAIN.apply(params, y, noise))


def trained(model, data, key, steps, learning_rate):
    step = make_step(model, optax.adam(optax.cosine_decay_schedule(learning_rate, steps)), 16)
    update = lambda state, _: (step.update(state, key, data)[0], None)
    return jax.jit(lambda s: jax.lax.scan(update, s, length=steps)[0])(step.init(key)).params


def test_sorted_spectrum_repairs_distorted_showers(key):
    """Voxels x come out as y = x^2 / 2; the map back is found from sorted voxels alone."""
    x = jax.random.uniform(key, (500, 40), minval=0.2, maxval=2.0)
    distort = lambda x: x**2 / 2
    # Where a voxel came from is lost: only the spectrum says what to do.
    reconstruct = lambda key, x, cond: jax.random.permutation(key, distort(x))
    options = {"window": 8, "stride": 4, "num": 40}
    model = post_processor(
        VOXELS,
        reconstruct,
        lambda key, cond: distort(cond),
        sorted_spectrum((0.1, 0.5), mse=1e-3, **options),
    )
    params = trained(model, Batch(x), key, 400, 1e-2)
    found = draw(model, params, key, 100, np.asarray(x[:100]))
    assert np.abs(found - x[:100]).mean() < 0.1 * np.abs(distort(x) - x).mean()
    # By hand: z = 2 y and sorted numbers that are equal.
    y = jnp.linspace(0.1, 1.0, 40)
    still = sorted_spectrum((0.1,), mse=3.0, **options)
    value = still(key, lambda key: 2 * y, 2 * y[::-1], y)
    assert float(value) == pytest.approx(3 * np.mean(np.square(y)), rel=1e-5)


def test_voxel_score_learns_what_is_left_to_chance(key):
    """A voxel of intensity y is hit with probability y, and then uniform in [0, 1]."""
    y = jax.random.uniform(key, (2000, 40), minval=0.05, maxval=0.95)
    hit, size = jax.random.uniform(jax.random.fold_in(key, 1), (2, *y.shape))
    x = jnp.where(hit < y, size, 0)
    model = post_processor(
        VOXELS, lambda key, x, cond: cond, lambda key, cond: cond, voxel_score(0.1)
    )
    params = trained(model, Batch(x, y), key, 1000, 2e-2)
    found = draw(model, params, key, 2000, np.asarray(y))
    for low in (0.1, 0.4, 0.7):
        part = (y > low) & (y < low + 0.1)
        for threshold in (0.25, 0.5, 0.75):
            expected = (1 - threshold) * float(y[part].mean())
            assert (found[part] > threshold).mean() == pytest.approx(expected, abs=0.03)
    # Voxels of one shower are hit independently.
    counts, half = (found > 0.5).sum(axis=1), np.asarray(y) / 2
    spread = np.mean((counts - half.sum(axis=1)) ** 2) / (half * (1 - half)).sum(axis=1).mean()
    assert spread == pytest.approx(1, abs=0.15)


def test_voxel_score_is_that_of_normal_draws(key):
    """E|z - x| - E|z - z'| / 2 of z ~ N(0, 1) in closed form, with weights 1 / (y + floor)."""
    z = jax.jit(jax.vmap(lambda key: voxel_score(0.5)(
        key, lambda key: normal(key, (2,)), jnp.array([0.0, 1.3]), jnp.array([0.0, 1.5])
    )))(jax.random.split(key, 20_000))  # fmt: skip
    expected = crps_of_normal(np.array([0.0, 1.3])) / np.array([0.5, 2.0])
    error = np.std(z) / 20_000**0.5
    assert np.mean(z) == pytest.approx(expected.mean(), abs=float(4 * error))


def crps_of_normal(x):
    """Gneiting and Raftery 2007, Eq. 21's closed form for N(0, 1)."""
    return x * (2 * norm.cdf(x) - 1) + 2 * norm.pdf(x) - 1 / np.pi**0.5


def test_bad_options_are_refused(key):
    with pytest.raises(ValueError, match="kl must be .*zero or positive and finite, got -1"):
        game(kl=-1.0)
    with pytest.raises(ValueError, match="objective must be one of .*'hinge'"):
        vae_gan(CODER, CRITIC, (2,), objective="hinge")
    with pytest.raises(
        ValueError, match="reconstruction must be .*zero or positive and finite, got -2"
    ):
        vae_gan(CODER, CRITIC, (2,), reconstruction=-2)
    for floor in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="floor must be positive"):
            voxel_score(floor)
    one = jnp.ones((1, 2))
    with pytest.raises(ValueError, match="two events or more, got 1; choose a larger batch_size"):
        game().loss(PARAMS, key, Batch(one, one))
    x = jnp.ones((3, 2))
    with pytest.raises(ValueError, match="events without weights"):
        game().loss(PARAMS, key, Batch(x, x, weight=x[:, 0]))

"""Autoencoder games with linear players, whose gradients are known, and small trainings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgen.generative_model import Batch, draw
from jgen.models import BibAeWeights, bib_ae, post_processor, vae_gan
from jgen.nets import Network
from jgen.nets.voxel_autoencoder import (
    latent_critic,
    pair_critic,
    voxel_decoder,
    voxel_encoder,
    voxel_map,
)
from jgen.training import make_step, per_player

# r = a x + s z, y = d r + cond, D = p . x + q . y, C = c . r; s is exp(-20): no noise.
ENCODER = Network(lambda key: jnp.zeros(()), lambda p, x, cond: (p * x, jnp.full(2, -40.0)))
DECODER = Network(lambda key: jnp.zeros(()), lambda p, r, cond: p * r + cond)
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
NOTHING = BibAeWeights(**{field.name: 0.0 for field in dataclasses.fields(BibAeWeights)})


def game(**weights):
    weights = dataclasses.replace(NOTHING, **weights)
    return bib_ae(ENCODER, DECODER, CRITIC, LATENT_CRITIC, (2,), weights)


@pytest.fixture(scope="module")
def batch():
    x = jax.random.normal(jax.random.key(5), (4000, 2)) + jnp.array([[1.0, -2.0]])
    return Batch(x, 0.1 * x[:, :1] * jnp.ones((1, 2)))


def gradients(model, batch):
    return jax.jit(jax.grad(model.loss))(PARAMS, jax.random.key(1), batch)


def doubles(batch):
    return 1.2 * batch.x + batch.cond


def test_critics_feel_their_wasserstein_distances_only(batch):
    found = gradients(game(critic=3.0, latent_critic=2.0, kl=1.0, reconstruction=1.0), batch)
    difference = (doubles(batch) - batch.x).mean(axis=0)
    np.testing.assert_allclose(found["critic"]["q"], difference, rtol=1e-3)
    np.testing.assert_allclose(found["critic"]["p"], 0, atol=1e-6)
    # C is compared with N(0, 1), whose 4000 draws have a mean with an error of 0.016.
    expected = 0.8 * batch.x.mean(axis=0)
    np.testing.assert_allclose(found["latent_critic"], expected, atol=4 * 0.016)


def test_encoder_and_decoder_play_against_the_critics(batch):
    q, c, mean = PARAMS["critic"]["q"], PARAMS["latent_critic"], batch.x.mean(axis=0)
    found = gradients(game(critic=3.0), batch)
    np.testing.assert_allclose(found["decoder"], -3 * 0.8 * q @ mean, rtol=1e-4)
    np.testing.assert_allclose(found["encoder"], -3 * 1.5 * q @ mean, rtol=1e-4)
    found = gradients(game(latent_critic=2.0), batch)
    np.testing.assert_allclose(found["encoder"], -2 * c @ mean, rtol=1e-4)
    np.testing.assert_allclose(found["decoder"], 0, atol=1e-6)


def test_every_term_has_its_weight_and_value(batch):
    key = jax.random.key(1)
    value = lambda **weights: float(jax.jit(game(**weights).loss)(PARAMS, key, batch))
    plain = value()
    gain = lambda **weights: value(**weights) - plain
    square = float(np.sum((batch.x - doubles(batch)) ** 2, axis=1).mean())
    assert gain(reconstruction=0.5) == pytest.approx(0.5 * square, rel=1e-3)
    kl = 0.5 * float(np.sum((0.8 * batch.x) ** 2 + 40 - 1, axis=1).mean())
    assert gain(kl=0.05) == pytest.approx(0.05 * kl, rel=1e-3)
    # Both critics are linear: slopes 1.3 and 0.5, whatever the point.
    assert gain(slope=10.0) == pytest.approx(10 * (0.3**2 + 0.5**2), rel=1e-3)


def test_latent_mmd_is_zero_for_normal_latents_only():
    noise = jax.random.normal(jax.random.key(2), (1000, 2))
    loss = lambda x: game(latent_mmd=1.0).loss(
        PARAMS
        | {"latent_critic": jnp.zeros(2), "critic": jax.tree.map(jnp.zeros_like, PARAMS["critic"])},
        jax.random.key(3),
        Batch(x, jnp.zeros((1000, 2))),
    )
    assert abs(loss(noise / 0.8)) < 2e-3
    assert loss(noise / 0.8 + 1) > 0.05


def test_vae_gan_plays_one_game_on_draws_and_reconstructions(batch):
    one = Network(lambda key: jnp.zeros(2), lambda p, x, cond: p @ x)
    params = {k: PARAMS[k] for k in ("encoder", "decoder")} | {"critic": jnp.array([0.5, -1.2])}
    model = vae_gan(ENCODER, DECODER, one, (2,), objective="wasserstein", kl=0, reconstruction=0)
    found = jax.grad(model.loss)(params, jax.random.key(1), batch)
    # Half of the fakes are decoded draws of N(0, 1), of mean cond.
    fake = (doubles(batch) + batch.cond).mean(axis=0) / 2
    error = 4 * 0.5 * 1.5 / 4000**0.5
    np.testing.assert_allclose(found["critic"], fake - batch.x.mean(axis=0), atol=error)
    np.testing.assert_allclose(found["encoder"], 0, atol=1e-6)
    own = -params["critic"] @ (0.8 * batch.x.mean(axis=0)) / 2
    np.testing.assert_allclose(found["decoder"], own, atol=4 * 0.5 * 1.3 / 4000**0.5)

    with_all = vae_gan(
        ENCODER, DECODER, one, (2,), objective="wasserstein", kl=0.3, reconstruction=2.0,
        gradient_penalty=10.0,
    )  # fmt: skip
    key = jax.random.key(1)
    gain = with_all.loss(params, key, batch) - model.loss(params, key, batch)
    square = float(np.sum((batch.x - doubles(batch)) ** 2, axis=1).mean())
    kl = 0.5 * float(np.sum((0.8 * batch.x) ** 2 + 40 - 1, axis=1).mean())
    assert float(gain) == pytest.approx(2 * square + 0.3 * kl + 10 * 0.3**2, rel=1e-3)
    x = draw(model._replace(init=None), params, key, 2000, np.ones((2000, 2), np.float32))
    np.testing.assert_allclose(x.mean(axis=0), 1, atol=4 * 1.5 / 2000**0.5)
    np.testing.assert_allclose(x.std(axis=0), 1.5, rtol=4 / 4000**0.5)


def test_a_trained_bib_ae_decodes_normal_draws_to_the_data(key):
    """Softplus of correlated normal numbers, from latents that were made normal."""
    x = jax.random.normal(key, (4000, 2)) @ jnp.array([[1.0, 0.8], [0.0, 0.6]]) + 2
    data = Batch(jax.nn.softplus(x))
    model = bib_ae(
        voxel_encoder((2,), 0, 2, hidden=(32,)),
        voxel_decoder((2,), 0, 2, hidden=(32,)),
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


def test_post_processor_repairs_the_spectrum_of_distorted_showers(key):
    """Voxels x come out as y = x^2 / 2; the map back is found from sorted voxels alone."""
    x = jax.random.uniform(key, (500, 40), minval=0.2, maxval=2.0)
    distort = lambda x: x**2 / 2
    # Where a voxel came from is lost: only the spectrum says what to do.
    reconstruct = lambda key, x, cond: jax.random.permutation(key, distort(x))
    voxels = voxel_map((40,), 0, hidden=(16,))
    network = Network(voxels.init, lambda params, y, cond: voxels.apply(params, y))
    model = post_processor(
        network, reconstruct, lambda key, cond: distort(cond), (0.1, 0.5),
        window=8, stride=4, num=40, mse=1e-3,
    )  # fmt: skip
    start = network.init(key)
    np.testing.assert_allclose(voxels.apply(start, x[0]), x[0])
    still = model._replace(loss=post_processor(
        network, reconstruct, None, (0.1,), window=8, stride=4, num=40, mmd=0.0
    ).loss)  # fmt: skip
    assert float(still.loss(start, key, Batch(x))) == 0

    step = make_step(model, optax.adam(optax.cosine_decay_schedule(1e-2, 400)), 16)
    update = lambda state, _: (step.update(state, key, Batch(x))[0], None)
    params = jax.jit(lambda s: jax.lax.scan(update, s, length=400)[0])(step.init(key)).params
    found = draw(model, params, key, 100, np.asarray(x[:100]))
    assert np.abs(found - x[:100]).mean() < 0.1 * np.abs(distort(x) - x).mean()


def test_bad_options_are_refused(key):
    with pytest.raises(ValueError, match="weight of kl must not be negative, got -1"):
        game(kl=-1.0)
    with pytest.raises(ValueError, match="unknown objective 'hinge'"):
        vae_gan(ENCODER, DECODER, CRITIC, (2,), objective="hinge")
    with pytest.raises(ValueError, match="must not be negative, got kl 1.0, reconstruction -2"):
        vae_gan(ENCODER, DECODER, CRITIC, (2,), reconstruction=-2)
    x = jnp.ones((3, 2))
    for batch in (Batch(x, x, mask=x > 0), Batch(x, x, weight=x[:, 0])):
        with pytest.raises(ValueError, match="fixed size without weights"):
            game().loss(PARAMS, key, batch)

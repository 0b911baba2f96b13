import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from jgen.generative_model import Batch, draw
from jgen.models import flow_matching
from jgen.nets.conv_autoencoder import ConvAutoencoderConfig
from jgen.nets.sequence import SequenceConfig
from jgen.nets.transfusion import TransfusionConfig
from jgen.nets.vit import ViTConfig
from jgen.showers import (
    ShowerPreprocessing,
    Showers,
    fit_statistics,
    get_geometry,
    read_showers,
    sample_path,
)
from jgen.showers.calodream import (
    calodream,
    energy_model,
    incident_energies,
    latent_shape_model,
    latent_shape_network,
    shape_condition,
    shape_model,
    shower_autoencoder,
    training_data,
)
from jgen.solvers import runge_kutta

GEOMETRY = get_geometry("ds2")


@pytest.fixture(scope="module")
def showers():
    return read_showers(sample_path(), GEOMETRY, 0, 600)


@pytest.fixture(scope="module")
def parts(showers):
    """Small models, their preprocessing and untrained parameters."""
    statistics = fit_statistics([showers], GEOMETRY)
    preprocessing = ShowerPreprocessing(GEOMETRY, statistics, 1e3, 3e4)
    solver = runge_kutta("midpoint", 2)
    energy = energy_model(GEOMETRY, TransfusionConfig(48, 2, 1, 16, 16, 3), solver)
    patches = ViTConfig(patch=(9, 16, 3), width=12, heads=2, blocks=1, mlp_width=16)
    shape = shape_model(GEOMETRY, patches, solver)
    model = calodream(energy, shape, preprocessing)
    return model, energy, shape, preprocessing, model.init(jax.random.key(0))


def test_samples_are_showers_in_mev_with_the_energy_of_their_ratios(parts):
    model, energy, _, preprocessing, params = parts
    incident = incident_energies(20, 1e3, 3e4, seed=0)
    key = jax.random.key(1)
    voxels = draw(model, params, key, 20, incident, batch_size=8)
    assert voxels.shape == (20, *GEOMETRY.shape)
    assert voxels.min() >= 0
    # The first draw of the chain, made again with the key that event i gets, is its energies.
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(20))
    key_energy = jax.vmap(lambda k: jax.random.split(k)[0])(keys)
    condition = preprocessing.condition(jnp.asarray(incident))
    u = jax.vmap(energy.sample, (None, 0, 0))(params["first"], key_energy, condition)
    layers = preprocessing.layer_energies(u, jnp.asarray(incident))
    np.testing.assert_allclose(voxels.sum((2, 3)), layers, rtol=1e-4, atol=1e-2)
    ratios = preprocessing.ratios(u)
    np.testing.assert_allclose(voxels.sum((1, 2, 3)), incident * ratios[:, 0] / 0.35, rtol=1e-4)


def test_loss_in_mev_equals_the_losses_on_prepared_data(parts, showers):
    """Preprocessing on the device in float32 and on the host in float64 train the same model."""
    model, energy, shape, preprocessing, params = parts
    few = Showers(showers.energies[:16], showers.voxels[:16])
    voxels = few.voxels.reshape(-1, *GEOMETRY.shape)
    key = jax.random.key(2)
    key_a, key_b = jax.random.split(key)
    batch_u, batch_x = training_data([few], preprocessing)
    expected = energy.loss(params["first"], key_a, batch_u)
    expected += shape.loss(params["second"], key_b, batch_x)
    found = model.loss(params, key, Batch(voxels, few.energies.astype(np.float32)))
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_training_data_do_not_depend_on_the_chunks(parts, showers):
    preprocessing = parts[3]
    pieces = [
        Showers(showers.energies[i : i + 7], showers.voxels[i : i + 7]) for i in range(0, 28, 7)
    ]
    whole = [Showers(showers.energies[:28], showers.voxels[:28])]
    for a, b in zip(
        jax.tree.leaves(training_data(pieces, preprocessing)),
        jax.tree.leaves(training_data(whole, preprocessing)),
        strict=True,
    ):
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, b)


def test_the_shape_condition_is_the_energy_then_the_ratios(parts, showers):
    preprocessing = parts[3]
    batch_u, batch_x = training_data([showers], preprocessing)
    np.testing.assert_array_equal(batch_x.cond[:, 0], batch_u.cond)
    np.testing.assert_array_equal(batch_x.cond[:, 1:], batch_u.x)
    assert shape_condition(jnp.ones(()), jnp.zeros(45)).shape == (46,)


def test_there_is_no_density_over_voxels_but_one_over_energies(parts):
    model, energy, _, _, params = parts
    assert model.log_prob is None
    log_p = energy.log_prob(params["first"], jax.random.key(0), jnp.zeros(45), jnp.array(0.5))
    assert np.isfinite(log_p)


def test_incident_energies_are_log_uniform():
    energies = incident_energies(20_000, 1e3, 1e6, seed=1)
    scaled = np.log(energies / 1e3) / np.log(1e3)
    assert scaled.min() >= 0
    assert scaled.max() <= 1 + 1e-6
    np.testing.assert_allclose(scaled.mean(), 0.5, atol=5 / (12 * 20_000) ** 0.5)


@pytest.mark.parametrize("form", ["autoregressive", "parallel"])
def test_both_energy_networks_have_one_interface(form, showers, parts):
    """Loss, samples and an exact density of 45 ratios, whichever network makes them."""
    preprocessing, key = parts[3], jax.random.key(3)
    config = TransfusionConfig(48, 2, 1, 16, 16, 3)
    if form == "parallel":
        config = SequenceConfig(width=16, heads=2, blocks=1, mlp_width=16)
    model = energy_model(GEOMETRY, config, runge_kutta("midpoint", 4))
    params = model.init(key)
    batch, _ = training_data([Showers(*[a[:8] for a in showers])], preprocessing)
    assert np.isfinite(model.loss(params, key, batch))
    u = draw(model, params, key, 3, batch.cond[:3])
    assert u.shape == (3, 45)
    log_p = jax.vmap(model.log_prob, (None, None, 0, 0))(params, key, u, batch.cond[:3])
    if form == "parallel":  # its velocity is zero at initialisation: a standard normal
        np.testing.assert_allclose(log_p, norm.logpdf(u).sum(axis=1), rtol=1e-4)
    assert np.all(np.isfinite(log_p))


def test_latent_showers_come_from_the_decoder(showers):
    """With a ViT that has learned nothing, r is noise and the shower its decoded image."""
    statistics = fit_statistics([showers], GEOMETRY)
    preprocessing = ShowerPreprocessing(GEOMETRY, statistics, 1e3, 3e4, voxel_logit=False, cut=1e-6)
    config = ConvAutoencoderConfig(channels=2, cond_width=4, repeat_seam=False)
    coder, shape = shower_autoencoder(GEOMETRY, config)
    assert shape == (2, 15, 8, 9)
    coder_params = coder.init(jax.random.key(4))
    patches = ViTConfig(patch=(5, 8, 3), width=12, heads=2, blocks=1, mlp_width=16)
    solver = runge_kutta("midpoint", 2)
    model = latent_shape_model(GEOMETRY, patches, config, coder_params, solver)
    params = model.init(jax.random.key(5))
    _, batch = training_data([Showers(*[a[:4] for a in showers])], preprocessing)
    assert batch.x.min() >= 0
    np.testing.assert_allclose(batch.x.sum(axis=(2, 3)).max(), 1, rtol=1e-5)
    assert np.isfinite(model.loss(params, jax.random.key(6), batch))
    x = model.sample(params, jax.random.key(7), batch.cond[0])
    noise = flow_matching(
        latent_shape_network(GEOMETRY, patches, config), shape, solver=solver
    ).sample(params, jax.random.key(7), batch.cond[0])
    logits = coder.decode(coder_params, noise, batch.cond[0])
    np.testing.assert_allclose(x, jax.nn.sigmoid(logits), rtol=1e-4, atol=1e-6)
    # Fractions survive the way to MeV and back.
    energies = showers.energies[:4].astype(np.float64)
    voxels = showers.voxels[:4].reshape(-1, *GEOMETRY.shape).astype(np.float64)
    u, x, _ = preprocessing.encode(voxels, energies)
    kept = np.where(x > 1e-6, voxels, 0)
    found = preprocessing.decode(u, x, energies)
    np.testing.assert_allclose(found.sum(axis=(1, 2, 3)), voxels.sum(axis=(1, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(found, kept, rtol=1e-4, atol=1e-3)

"""CaloDREAM as a tool: its parts, training, loading and drawing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from jgen.generative_model import Batch, draw
from jgen.nets import ConvAutoencoderConfig, SequenceConfig, TransfusionConfig, ViTConfig
from jgen.showers import Showers, calodream, get_geometry, read_showers, sample_path
from jgen.showers.calodream import (
    CaloDreamConfig,
    ShowerPreprocessing,
    fit_statistics,
    incident_energies,
    shape_condition,
    shower_model,
    training_data,
)
from jgen.solvers import SolverConfig, runge_kutta
from jgen.training import RunFolder, TrainConfig
from tests.helpers import random_params

GEOMETRY = get_geometry("ds2")
SMALL = CaloDreamConfig(
    energy_network=TransfusionConfig(48, 2, 1, 16, 16, 3),
    parallel_network=SequenceConfig(width=16, heads=2, blocks=1, mlp_width=16),
    shape_network=ViTConfig(patch=(9, 16, 3), width=12, heads=2, blocks=1, mlp_width=16),
    energy_training=TrainConfig(steps=2, batch_size=8),
    autoencoder_training=TrainConfig(steps=1, batch_size=8),
    shape_training=TrainConfig(steps=2, batch_size=8, ensemble=2),
    energy_solver=SolverConfig("midpoint", 2),
    shape_solver=SolverConfig("midpoint", 2),
)
LATENT = dataclasses.replace(
    SMALL,
    energies="parallel",
    space="latent",
    autoencoder=ConvAutoencoderConfig(channels=2, cond_width=4, repeat_seam=False),
    shape_network=dataclasses.replace(SMALL.shape_network, patch=(5, 8, 3)),
    num_validation=4,
)


@pytest.fixture(scope="module")
def showers():
    return read_showers(sample_path(), GEOMETRY, 0, 600)


@pytest.fixture(scope="module")
def statistics(showers):
    return fit_statistics([showers], GEOMETRY)


@pytest.fixture(scope="module")
def preprocessing(statistics):
    return ShowerPreprocessing(GEOMETRY, statistics, 1e3, 3e4)


@pytest.fixture(scope="module")
def parts(preprocessing):
    """Small models, and parameters that nobody trained."""
    energy, shape = (part.model for part in calodream.parts(SMALL).values())
    model = shower_model(energy, shape, preprocessing)
    return model, energy, shape, random_params(model.init, 0.1)


def test_samples_are_showers_in_mev_with_the_energy_of_their_ratios(parts, preprocessing):
    model, energy, _, params = parts
    incident = incident_energies(20, 1e3, 3e4)
    key = jax.random.key(1)
    voxels = draw(model, params, key, 20, incident, batch_size=8)
    assert voxels.shape == (20, *GEOMETRY.shape)
    assert voxels.min() >= 0

    # The first draw of the chain, made again with the key that event i gets, is its energies.
    def energies(i, incident):
        key_energy = jax.random.split(jax.random.fold_in(key, i))[0]
        return energy.sample(params["energy"], key_energy, preprocessing.condition(incident))

    u = jax.jit(jax.vmap(energies))(jnp.arange(20), jnp.asarray(incident))
    layers = preprocessing.layer_energies(u, jnp.asarray(incident))
    np.testing.assert_allclose(voxels.sum((2, 3)), layers, rtol=1e-4, atol=1e-2)
    ratios = preprocessing.ratios(u)
    np.testing.assert_allclose(voxels.sum((1, 2, 3)), incident * ratios[:, 0] / 0.35, rtol=1e-4)


def test_loss_in_mev_equals_the_losses_on_prepared_data(parts, preprocessing, showers):
    """Preprocessing on the device in float32 and on the host in float64 train the same model."""
    model, energy, shape, params = parts
    few = Showers(showers.energies[:16], showers.voxels[:16])
    voxels = few.voxels.reshape(-1, *GEOMETRY.shape)
    key = jax.random.key(2)
    key_a, key_b = jax.random.split(key)
    batch_u, batch_x = training_data(few, preprocessing)

    @jax.jit
    def both(batch, batch_u, batch_x):
        expected = energy.loss(params["energy"], key_a, batch_u)
        expected += shape.loss(params["shape"], key_b, batch_x)
        return model.loss(params, key, batch), expected

    found, expected = both(Batch(voxels, few.energies.astype(np.float32)), batch_u, batch_x)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_the_shape_condition_is_the_energy_then_the_ratios(preprocessing, showers):
    batch_u, batch_x = training_data(showers, preprocessing)
    np.testing.assert_array_equal(batch_x.cond[:, 0], batch_u.cond)
    np.testing.assert_array_equal(batch_x.cond[:, 1:], batch_u.x)
    assert shape_condition(jnp.ones(()), jnp.zeros(45)).shape == (46,)


def test_incident_energies_that_cannot_be_are_refused():
    for low, high in ((3e4, 1e3), (0, 1e3), (-1, 5), (1, np.nan), (1, np.inf)):
        with pytest.raises(ValueError, match="0 < low <= high"):
            incident_energies(3, low, high)
    for num in (0, -1):
        with pytest.raises(ValueError, match="num must be"):
            incident_energies(num, 1e3, 1e4)


def test_incident_energies_are_log_uniform():
    energies = incident_energies(20_000, 1e3, 1e6, jax.random.key(1))
    scaled = np.log(energies / 1e3) / np.log(1e3)
    assert scaled.min() >= 0
    assert scaled.max() <= 1 + 1e-6
    np.testing.assert_allclose(scaled.mean(), 0.5, atol=5 / (12 * 20_000) ** 0.5)


@pytest.mark.parametrize("form", ["autoregressive", "parallel"])
def test_both_energy_networks_have_one_interface(form, showers, preprocessing):
    """Loss, samples and an exact density of 45 ratios, whichever network makes them."""
    key = jax.random.key(3)
    model = calodream.parts(dataclasses.replace(SMALL, energies=form))["energy"].model
    params = jax.jit(model.init)(key)
    batch = training_data(Showers(*[a[:8] for a in showers]), preprocessing).energy

    @jax.jit
    def everything(batch):
        u = jax.vmap(model.sample, (None, None, 0))(params, key, batch.cond[:3])
        log_p = jax.vmap(model.log_prob, (None, None, 0, 0))(params, key, u, batch.cond[:3])
        return model.loss(params, key, batch), u, log_p

    loss, u, log_p = everything(batch)
    assert np.isfinite(loss)
    assert u.shape == (3, 45)
    if form == "parallel":  # its velocity is zero at initialisation: a standard normal
        np.testing.assert_allclose(log_p, norm.logpdf(u).sum(axis=1), rtol=1e-4)
    assert np.all(np.isfinite(log_p))


def test_latent_showers_come_from_the_decoder(showers, statistics):
    """With a ViT that has learned nothing, r is noise and the shower its decoded image."""
    preprocessing = ShowerPreprocessing(GEOMETRY, statistics, 1e3, 3e4, voxel_logit=False, cut=1e-6)
    table = calodream.parts(LATENT)
    assert list(table) == ["energy", "autoencoder", "shape"]
    coder, flow = table["autoencoder"].network, table["shape"].model
    assert table["shape"].shape == (2, 15, 8, 9)
    coder_params = random_params(coder.init, 0.1)
    model = calodream.parts(LATENT, {"autoencoder": coder_params})["shape"].model
    params = jax.jit(model.init)(jax.random.key(5))
    batch = training_data(Showers(*[a[:4] for a in showers]), preprocessing).shape
    assert batch.x.min() >= 0
    np.testing.assert_allclose(batch.x.sum(axis=(2, 3)).max(), 1, rtol=1e-5)

    @jax.jit
    def everything(params, key, batch):
        x, noise = (m.sample(params, key, batch.cond[0]) for m in (model, flow))
        logits = coder.decode(coder_params, noise, batch.cond[0])
        return model.loss(params, key, batch), x, logits

    loss, x, logits = everything(params, jax.random.key(7), batch)
    assert np.isfinite(loss)
    np.testing.assert_allclose(x, jax.nn.sigmoid(logits), rtol=1e-4, atol=1e-6)
    # Fractions survive the way to MeV and back.
    energies = showers.energies[:4].astype(np.float64)
    voxels = showers.voxels[:4].reshape(-1, *GEOMETRY.shape).astype(np.float64)
    u, x, _ = preprocessing.encode(voxels, energies)
    kept = np.where(x > 1e-6, voxels, 0)
    found = preprocessing.decode(u, x, energies)
    np.testing.assert_allclose(found.sum(axis=(1, 2, 3)), voxels.sum(axis=(1, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(found, kept, rtol=1e-4, atol=1e-3)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(SMALL, id="voxel", marks=pytest.mark.study),
        pytest.param(LATENT, id="latent", marks=pytest.mark.study),
    ],
)
def trained(request, showers, tmp_path_factory):
    few = Showers(*[a[:40] for a in showers])
    folder = tmp_path_factory.mktemp("runs") / "model"
    with RunFolder(folder, request.param) as run:
        return calodream.train(request.param, few, run), few


def test_a_loaded_model_draws_what_the_trained_one_does(trained):
    trained, few = trained
    loaded = calodream.load(trained.folder)
    assert loaded.config == trained.config
    assert loaded.energy_range == (few.energies.min(), few.energies.max())
    energies = incident_energies(3, *loaded.energy_range)
    first, second = (t.draw(jax.random.key(1), energies, batch_size=2) for t in (trained, loaded))
    np.testing.assert_array_equal(first.energies, energies)
    np.testing.assert_array_equal(first.voxels, second.voxels)
    assert first.voxels.shape == (3, GEOMETRY.num_voxels)
    one = loaded.model.sample(loaded.params, jax.random.fold_in(jax.random.key(1), 0), energies[0])
    np.testing.assert_allclose(one.ravel(), second.voxels[0], rtol=1e-4, atol=1e-3)
    for bad in (energies[0], -energies, energies[:0]):
        with pytest.raises(ValueError, match="positive finite numbers"):
            loaded.draw(jax.random.key(1), bad)
    # Parameters are those of the first member.
    stored = RunFolder(trained.folder, trained.config, read_only=True)
    members = stored.fit("shape", loaded.parts["shape"].model, None, trained.config.shape_training)
    for a, b in zip(*map(jax.tree.leaves, (members.params, loaded.params["shape"])), strict=True):
        assert a.shape == (2, *b.shape)
        np.testing.assert_array_equal(a[0], b)


def test_solvers_by_name(trained):
    trained, _ = trained
    layers = 1 if trained.config.energies == "parallel" else 45
    assert (trained.evaluations("energy"), trained.evaluations("shape")) == (4 * layers, 4)
    other = trained.with_solvers("heun-6", runge_kutta("euler", 3))
    assert (other.evaluations("energy"), other.evaluations("shape")) == (6 * layers, 3)
    assert trained.with_solvers(shape="kutta38-8").solvers == {"shape": runge_kutta("kutta38", 2)}
    for name, message in (
        ("midpoint", "METHOD-EVALUATIONS"),
        ("midpoint-3", "takes 2 evaluations a step"),
        ("bespoke-8", "experiments bespoke_solvers --model"),
    ):
        with pytest.raises(ValueError, match=message):
            trained.with_solvers(shape=name)


def test_only_a_latent_model_reconstructs(trained):
    trained, few = trained
    if trained.config.space == "voxel":
        with pytest.raises(ValueError, match="no autoencoder"):
            trained.reconstruct(jax.random.key(0), few)
        return
    found = trained.reconstruct(jax.random.key(0), few)
    np.testing.assert_array_equal(found.energies, few.energies.astype(np.float32))
    np.testing.assert_allclose(found.voxels.sum(1), few.voxels.sum(1), rtol=1e-3)


def test_unfinished_and_foreign_folders_are_refused(trained, tmp_path):
    trained, _ = trained
    with pytest.raises(ValueError, match="holds no run"):
        calodream.load(tmp_path)
    (tmp_path / "calodream.json").write_bytes((trained.folder / "calodream.json").read_bytes())
    with pytest.raises(ValueError, match="has not finished its training"):
        calodream.load(tmp_path)


def test_options_that_do_not_fit_are_refused():
    for changes, message in (
        ({"shape_network": ViTConfig(patch=(7, 7, 7))}, r"patch \(7, 7, 7\) does not divide"),
        ({"num_validation": -1}, "num_validation"),
        ({"energy_range": (3e4, 1e3)}, "0 < low < high"),
        ({"energy_training": TrainConfig(steps=0)}, "steps must be a whole number"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(SMALL, **changes).check()

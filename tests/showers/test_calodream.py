import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.generative_model import Batch, draw
from jgen.metrics import ClassifierConfig
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
    shape_condition,
    shape_model,
    training_data,
)
from jgen.showers.evaluation import (
    EvaluationConfig,
    evaluate,
    load_evaluation,
    save_evaluation,
    summary_table,
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


SMALL = EvaluationConfig(
    ClassifierConfig(hidden=(32, 32), batch_size=100, epochs=12, num_seeds=2, learning_rate=1e-3),
    bootstrap=20,
)


@pytest.fixture(scope="module")
def evaluation(showers):
    """Truth that is wrong by 40 % in energy."""
    first, second, third = (
        Showers(showers.energies[i : i + 200], showers.voxels[i : i + 200]) for i in (0, 200, 400)
    )
    wrong = third._replace(voxels=third.voxels * 1.4)
    return evaluate(GEOMETRY, first, second, wrong, jax.random.key(0), SMALL)


def test_a_wrong_energy_scale_is_seen_and_truth_is_not_blamed(evaluation):
    m = evaluation.metrics
    assert m["num_showers"] == 200
    excess = m["separation/E_tot"] - m["separation/E_tot_truth"]
    assert excess > 3 * m["separation/E_tot_error"]
    assert m["wasserstein/E_tot"] == pytest.approx(0.4 * 0.955, abs=0.03)
    # 140 showers are too few for a classifier of 362 features to see a scale.
    assert abs(m["auc_high_truth"] - 0.5) < 4 * m["auc_high_truth_error"]
    # Scaling a shower leaves its shape alone, apart from voxels near the threshold.
    shape_excess = m["separation/EC_r"] - m["separation/EC_r_truth"]
    assert abs(shape_excess) < 4 * m["separation/EC_r_error"]


def test_an_evaluation_is_stored_completely(evaluation, tmp_path):
    save_evaluation(tmp_path / "e.npz", evaluation)
    restored = load_evaluation(tmp_path / "e.npz")
    assert restored.metrics == evaluation.metrics
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(evaluation), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_table_has_both_columns(evaluation):
    lines = summary_table(evaluation.metrics).splitlines()
    row = next(line for line in lines if line.startswith("separation/E_tot"))
    assert row.count("+-") == 2

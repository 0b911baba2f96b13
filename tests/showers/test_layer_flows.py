"""Layer flows of showers: energies that add up, maps that are exact, densities that are sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import Batch, nets
from jgen.showers import get_geometry, merged, merged_geometry, read_showers, sample_path
from jgen.showers.data.geometry import Geometry, Layer
from jgen.showers.layer_flows import (
    CellsConfig,
    EnergyConfig,
    LayerPreprocessing,
    cells_flow,
    convolutional,
    energies_flow,
    fit_preprocessing,
    layers_and_cells,
    parts,
    shower_model,
    student_cells,
    trained_cells,
    trained_energies,
)
from jgen.showers.layer_flows.preprocessing import logs_of_parts, parts_of_logs
from jgen.solvers import normal_log_prob
from tests.helpers import random_params

DS2 = get_geometry("ds2")
SMALL = Geometry("small", (*(Layer(i, (0.0, 5.0, 10.0), 1) for i in range(3)),), 0.015, 0.015)
PREPROCESSING = LayerPreprocessing(SMALL, (-0.05, 0.1), (1000.0, 4000.0))
ENERGIES, CELLS = EnergyConfig(2, 4, (6,)), CellsConfig("autoregressive", 2, (4, 3), 2, 4, (6,))
IMAGES = CellsConfig("convolutional", 2, (4, 3), 3, 4, (6,))


@pytest.fixture(scope="module")
def showers():
    return read_showers(sample_path(), DS2, 0, 30)


@pytest.fixture(scope="module", params=[CELLS, IMAGES], ids=lambda config: config.form)
def small(request):
    """Networks of 3 layers of 2 cells, that say something."""
    made = parts(ENERGIES, request.param, PREPROCESSING)
    return made, random_params(shower_model(made, PREPROCESSING).init, 0.4), request.param


def test_merged_showers_conserve_energy(showers):
    geometry, few = merged_geometry(DS2, (5, 4, 3)), merged(showers, DS2, (5, 4, 3))
    assert geometry.shape == (9, 4, 3)
    assert geometry.layers[0].r_edges == (0.0, 13.95, 27.9, 41.85)
    fine, coarse = (s.voxels.reshape(30, n, -1) for s, n in ((showers, 45), (few, 9)))
    by_five = fine.sum(axis=2, dtype=np.float64).reshape(30, 9, 5).sum(axis=2)
    np.testing.assert_allclose(coarse.sum(axis=2, dtype=np.float64), by_five, rtol=1e-6)
    block = showers.voxels.reshape(30, 45, 16, 9)[:, 10:15, 4:8, 3:6].sum(axis=(1, 2, 3))
    np.testing.assert_allclose(few.voxels.reshape(30, 9, 4, 3)[:, 2, 1, 1], block, rtol=1e-5)
    with pytest.raises(ValueError, match="cannot be cut into blocks of"):
        merged_geometry(DS2, (4, 4, 1))


def test_parts_and_their_logarithms():
    x = jnp.array([1e-3, 0.2, 3e-3, 40.0, 700.0, 1e-3])
    v, log_det = logs_of_parts(x)
    np.testing.assert_allclose(v[:4], np.log(x[:4]), atol=0.06)  # little of what is left
    back, inverse = parts_of_logs(v, jnp.sum(x))
    np.testing.assert_allclose(back[:-1], x[:-1], rtol=1e-4)
    assert float(jnp.sum(back)) == pytest.approx(float(jnp.sum(x)), rel=1e-6)
    assert float(inverse) == pytest.approx(-float(log_det), rel=1e-5)


def test_showers_come_back_above_the_threshold(showers):
    geometry, few = merged_geometry(DS2, (5, 4, 1)), merged(showers, DS2, (5, 4, 1))
    maps = fit_preprocessing(few, geometry)
    x = few.voxels.reshape(-1, *geometry.shape)

    def there_and_back(key, shower, energy):
        cells, _ = maps.filled(key, maps.cells(shower))
        layers = jnp.sum(cells, axis=1)
        z = jax.vmap(lambda a: maps.cell_map.forward(a, None)[0])(cells)
        u, _ = maps.energy_map.forward(layers, energy)
        layers_again, _ = maps.energy_map.inverse(u, energy)
        given = lambda total: (None, (total, energy))
        again = jax.vmap(lambda a, t: maps.cell_map.inverse(a, given(t))[0])(z, layers_again)
        return maps.shower(maps.cut(again, layers)), layers, layers_again, z

    keys = jax.random.split(jax.random.key(0), len(x))
    back, layers, again, z = jax.jit(jax.vmap(there_and_back))(keys, x, few.energies)
    np.testing.assert_allclose(again, layers, rtol=2e-5)
    # What the noise had of a layer goes to its cells.
    np.testing.assert_array_equal(np.asarray(back) > 0, x > 0)
    share = np.where(x.sum((2, 3)) > 0, layers / np.maximum(x.sum((2, 3)), 1e-9), 1)
    np.testing.assert_allclose(back, x * share[:, :, None, None], rtol=1e-3)
    assert np.abs(z).max() < 6  # within the splines


def test_the_density_is_that_of_the_whole_map(small, x64):
    """The sum of all parts against a Jacobian of finite differences, 3 layers of 2 cells."""
    made, params, config = small
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), params)
    energy, maps = 2000.0, PREPROCESSING
    of_energies, of_cells = energies_flow(ENERGIES, maps), cells_flow(config, maps)

    @jax.jit
    def base(flat):
        """The normal numbers that a shower is made of."""
        cells = maps.cells(flat.reshape(SMALL.shape))
        layers = jnp.sum(cells, axis=1)
        u, scaled = maps.energy_map.forward(layers, energy)[0], maps.energy(energy)[None]
        z = [of_energies.forward(params["energies"], u, scaled)[0]]
        for n in range(3):
            p = jax.tree.map(lambda a: a[n], params["cells"])  # noqa: B023
            before = [cells[n - i] if n >= i else jnp.zeros(2) for i in (2, 1)]
            given = jnp.stack(before), (layers[n], energy)
            v = maps.cell_map.forward(cells[n], given)[0]
            z.append(of_cells.forward(p, v, maps.features(given))[0])
        return jnp.concatenate(z)

    x = np.array([300.0, 20.0, 900.0, 1e-3, 2.0, 40.0])
    steps = 1e-5 * x * np.eye(6)
    columns = [(base(x + d) - base(x - d)) / (2 * d.sum()) for d in steps]
    expected = normal_log_prob(base(x)) + np.linalg.slogdet(np.stack(columns, axis=1))[1]
    log_prob = shower_model(made, maps).log_prob
    found = jax.jit(lambda x: log_prob(params, jax.random.key(0), x, energy))(x.reshape(3, 1, 2))
    assert float(found) == pytest.approx(float(expected), abs=1e-5)


def test_cells_add_up_to_the_energies_of_their_layers(small):
    made, params, _ = small
    sample = layers_and_cells(made, PREPROCESSING)
    keys = jax.random.split(jax.random.key(1), 200)
    layers, x = jax.jit(jax.vmap(sample, (None, 0, None)))(params, keys, 2000.0)
    x, total = np.asarray(x, np.float64), np.asarray(x, np.float64).sum(axis=(2, 3))
    filled = total > 0
    assert 0.2 < filled.mean() < 1
    np.testing.assert_allclose(total[filled], np.asarray(layers)[filled], rtol=1e-5)
    assert x[x > 0].min() >= SMALL.threshold
    one = jax.jit(shower_model(made, PREPROCESSING).sample)(params, keys[7], 2000.0)
    np.testing.assert_allclose(one, x[7], rtol=1e-5)


def test_the_parts_learn_what_the_whole_does(small):
    """Losses are -log p up to a number of the data alone, and those of the parts add up."""
    made, params, _ = small
    model, key = shower_model(made, PREPROCESSING), jax.random.key(0)
    x = np.array([[300.0, 20.0, 900.0, 0.5, 2.0, 40.0], [1, 2, 3, 4, 5, 6]], np.float32)
    batch = Batch(x.reshape(2, *SMALL.shape), np.array([2000.0, 1500.0], np.float32))
    loss = jax.jit(lambda p: model.loss(p, key, batch))
    log_p = jax.jit(lambda p: jax.vmap(model.log_prob, (None, None, 0, 0))(p, key, *batch[:2]))
    both = [params, jax.tree.map(lambda a: 0.5 * a, params)]
    losses, minus = (
        np.array([float(v) for v in map(f, both)]) for f in (loss, lambda p: -log_p(p).mean())
    )
    assert abs(np.diff(losses)) > 0.1
    np.testing.assert_allclose(np.diff(losses), np.diff(minus), rtol=1e-3)
    trained = {"energies": trained_energies, "cells": trained_cells}
    parts = [f(made, PREPROCESSING).loss(params[n], key, batch) for n, f in trained.items()]
    assert losses[0] == pytest.approx(float(sum(parts)), rel=1e-5)


def test_a_student_that_is_its_teacher_has_no_loss():
    """Where networks see no cells of their layer; in all layers at once."""
    teacher = random_params(parts(ENERGIES, CELLS, PREPROCESSING).cells.init, 0.4)
    first = teacher["bijector"][0]["layers_0"]
    first["kernel"] = 0 * first["kernel"]
    batch = Batch(jnp.ones((2, *SMALL.shape)), jnp.array([2000.0, 1500.0]))
    model = student_cells(CELLS, PREPROCESSING, teacher)
    loss = jax.jit(lambda p: model.loss(p, jax.random.key(0), batch))
    assert float(loss(teacher)) == pytest.approx(0, abs=1e-6)
    # Each layer has its own: one that differs is seen.
    other = jax.tree.map(lambda a: a.at[2].add(0.1), teacher)
    assert float(loss(other)) > 1e-3


@pytest.fixture(scope="module")
def image():
    """The flow of a layer of 4 angles and 3 radii that says something, and what it is given."""
    layers = [Layer(i, (0.0, 5.0, 10.0, 15.0), 4) for i in range(3)]
    maps = LayerPreprocessing(Geometry("image", (*layers,), 0.015, 0.015), (0.0, 1.0), (1.0, 2.0))
    flow = cells_flow(IMAGES, maps)
    rng = np.random.default_rng(0)
    x, features = rng.normal(size=11), rng.normal(size=2 * 12 + 2)
    return flow, random_params(flow.init, 0.3), x, features


def test_couplings_of_an_image_are_invertible_and_know_their_determinant(image, x64):
    flow, params, x, features = image
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), params)
    forward = jax.jit(lambda x: flow.forward(params, x, features))
    (z, log_det), jacobian = forward(x), jax.jit(jax.jacfwd(lambda x: forward(x)[0]))(x)
    assert float(log_det) == pytest.approx(np.linalg.slogdet(jacobian)[1], abs=1e-7)
    back, inverse = jax.jit(lambda z: flow.inverse(params, z, features))(z)
    np.testing.assert_allclose(back, x, atol=1e-8)
    assert float(inverse) == pytest.approx(-float(log_det), abs=1e-8)
    # Every number moves, and depends on others and on what is given.
    assert np.abs(z - x).min() > 1e-3
    assert np.count_nonzero(np.abs(jacobian) > 1e-6) > 60
    assert np.abs(forward(x)[0] - flow.forward(params, x, features + 0.5)[0]).max() > 0.01


def test_what_couplings_are_given_turns_with_the_layers(image, x64):
    """The embedding of turned layers is turned, and so is what a conditioner makes of it."""
    _, params, _, features = image
    embedding = convolutional.context((4, 3), 2, IMAGES.embedding)
    conditioner = nets.image_conditioner(1, 5, 3, hidden=(6,), padding="around")
    weights = random_params(conditioner.init, 0.4)
    x = np.random.default_rng(1).normal(size=(4, 3, 1))

    @jax.jit
    def run(x, features):
        return conditioner.apply(weights, x, embedding.apply(params["network"], features))

    layers = features[:-2].reshape(2, 3, 4)  # angles are neighbours
    turned = np.append(np.roll(layers, 1, axis=2), features[-2:])
    expected = np.roll(run(x, features), 1, axis=0)
    np.testing.assert_allclose(run(np.roll(x, 1, axis=0), turned), expected, atol=1e-6)
    assert np.abs(run(x, features) - expected).max() > 0.01
    # Radii have ends: nothing comes from the other side.
    moved = np.roll(x, 1, axis=1)
    assert np.abs(run(moved, features) - np.roll(run(x, features), 1, axis=1)).max() > 0.01


def test_later_layers_change_nothing_in_earlier_ones(small):
    made, params, _ = small
    other = jax.tree.map(lambda a: a.at[1].add(0.3), params["cells"])
    sample = jax.jit(made.cells.sample)
    given = jnp.array([300.0, 900.0, 40.0]), jnp.full(3, 2000.0)
    first, second = (sample(p, jax.random.key(0), given) for p in (params["cells"], other))
    np.testing.assert_array_equal(first[0], second[0])
    assert np.all(np.abs(first / second - 1)[1:].max(axis=1) > 1e-3)


def test_couplings_have_no_student():
    with pytest.raises(ValueError, match="couplings sample in one pass"):
        parts(ENERGIES, IMAGES, PREPROCESSING, student=True)
    with pytest.raises(ValueError, match="form must be one of"):
        CellsConfig("fully").check()


def test_noise_is_below_the_threshold_and_in_empty_cells_alone():
    keys = jax.random.split(jax.random.key(0), 20_000)
    cells, log_q = jax.jit(jax.vmap(PREPROCESSING.filled, (0, None)))(keys, jnp.zeros(1))
    noise = np.sort(np.asarray(cells, np.float64)[:, 0])
    assert noise[-1] < SMALL.threshold
    # Its density integrates to one.
    q = np.exp(np.asarray(log_q)[np.argsort(np.asarray(cells)[:, 0])])
    assert np.trapezoid(q, noise) == pytest.approx(1, abs=3e-3)
    full, nothing = PREPROCESSING.filled(keys[0], jnp.ones(3))
    np.testing.assert_array_equal(full, 1)
    assert float(nothing) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": 0.0}, "threshold must be"),
        ({"energies": (3.0, 2.0)}, "positive and increasing"),
        ({"log_response": (0.0, 0.0)}, "width must be"),
    ],
)
def test_bad_preprocessing_is_refused(change, message):
    geometry = Geometry("s", SMALL.layers, change.pop("threshold", 0.015), 0.015)
    with pytest.raises(ValueError, match=message):
        LayerPreprocessing(geometry, **({"log_response": (0.0, 1.0), "energies": (1, 2)} | change))

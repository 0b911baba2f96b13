"""Flows of CaloDREAM's networks as velocity fields: the same flows as the models sample."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import Batch
from jgen.nets import ConvAutoencoderConfig, SequenceConfig, TransfusionConfig, ViTConfig
from jgen.showers import Showers, calodream, get_geometry, read_showers, sample_path
from jgen.showers.calodream import flows
from jgen.solvers import runge_kutta
from tests.helpers import random_params

GEOMETRY = get_geometry("ds2")
SMALL = calodream.CaloDreamConfig(
    energy_network=TransfusionConfig(48, 2, 1, 16, 16, 3),
    parallel_network=SequenceConfig(width=8, heads=2, blocks=1, mlp_width=8),
    shape_network=ViTConfig(patch=(9, 16, 3), width=12, heads=2, blocks=1, mlp_width=16),
)
LATENT = dataclasses.replace(
    SMALL,
    energies="parallel",
    space="latent",
    autoencoder=ConvAutoencoderConfig(channels=2, cond_width=8, repeat_seam=False),
    shape_network=dataclasses.replace(SMALL.shape_network, patch=(5, 8, 3)),
)
SOLVER = runge_kutta("midpoint", 2)


@pytest.fixture(scope="module")
def showers():
    return read_showers(sample_path(), GEOMETRY, 0, 40)


def untrained(showers, config):
    """Networks with random weights: those at their initialisation have no velocity."""
    parts = calodream.parts(config).items()
    params = {name: random_params(part.model.init, seed=i) for i, (name, part) in enumerate(parts)}
    preprocessing = calodream.fit_preprocessing(config, showers)
    return calodream.Trained(config, "nowhere", preprocessing, params)


def test_teacher_forcing_on_a_sample_gives_it_back(showers, monkeypatch):
    """Flows at the contexts of a sample, from its noise, end at the sample: the same flows."""
    trained = untrained(showers, SMALL).with_solvers(energy=SOLVER)
    cond, key = jnp.array([0.2, 0.7]), jax.random.key(5)
    keys = jax.random.split(key, 2)
    model = trained.parts["energy"].model
    sample = jax.jit(jax.vmap(model.sample, (None, 0, 0)))
    u = sample(trained.params["energy"], keys, cond)
    data = calodream.TrainingData(Batch(u, cond), None)
    monkeypatch.setattr(flows, "training_data", lambda *_: data)
    flow = calodream.energy_flow(trained, showers, key)
    assert flow.x0.shape == (2 * 45,)
    assert flow.per_shower == 45
    x0 = jax.vmap(lambda k: jax.random.normal(k, (45,)))(keys).reshape(-1)
    solve = lambda x, c: SOLVER(lambda t, y: flow.velocity(flow.params, t, y, c), x)
    end = jax.jit(jax.vmap(solve))(x0, flow.cond)
    np.testing.assert_allclose(end.reshape(2, 45), u, rtol=1e-4, atol=1e-4)
    assert np.std(u - x0.reshape(2, 45)) > 0.01


def test_flows_of_a_parallel_energy_and_a_latent_shape_network(showers):
    trained = untrained(showers, LATENT).with_solvers(energy=SOLVER)
    few = Showers(showers.energies[:3], showers.voxels[:3])
    flow = calodream.energy_flow(trained, few, jax.random.key(0))
    assert flow.x0.shape == (3, 45)
    assert flow.cond.shape == (3,)
    assert flow.per_shower == 1
    key = jax.random.key(7)

    @jax.jit
    def both(params, key, cond):
        u = trained.parts["energy"].model.sample(params, key, cond)
        x0 = jax.random.normal(jax.random.split(key)[0], (45,))
        return u, SOLVER(lambda t, x: flow.velocity(flow.params, t, x, cond), x0)

    u, end = both(trained.params["energy"], key, flow.cond[0])
    np.testing.assert_allclose(end, u, rtol=1e-4, atol=1e-4)
    shape = calodream.shape_flow(trained, np.zeros((2, 46), np.float32), key)
    made = jax.eval_shape(shape.velocity, shape.params, jnp.zeros(()), shape.x0[0], shape.cond[0])
    assert made.shape == shape.x0.shape[1:] == trained.parts["shape"].shape
    assert made.shape != GEOMETRY.shape

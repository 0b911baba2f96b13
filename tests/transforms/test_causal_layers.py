"""Layers given those before them: exact densities, and sampling that is the same one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import Batch, OptimizerConfig, TrainConfig, fit, log_densities
from jgen.bijectors import affine, autoregressive_flow
from jgen.generative_model import GenerativeModel
from jgen.models import flow
from jgen.solvers import normal_log_prob
from jgen.transforms import causal_layers
from jgen.transforms.causal_layers import predecessors
from tests.helpers import random_params

NUM = 4


def vector(cond):
    previous, c = cond
    return jnp.append(previous.ravel(), c)


def layer_flow(before):
    """A small flow of layers [2] given all that a layer is given."""
    model = flow(autoregressive_flow(2, affine(), 1, 2 * before + 1, hidden=(4,)), 2)
    return GenerativeModel(
        model.init,
        lambda params, key, batch: model.loss(
            params, key, batch._replace(cond=jax.vmap(vector)(batch.cond))
        ),
        lambda params, key, cond: model.sample(params, key, vector(cond)),
        lambda params, key, x, cond: model.log_prob(params, key, x, vector(cond)),
        lambda params, key, cond: model.sample_and_log_prob(params, key, vector(cond)),
    )


def test_predecessors_are_the_layers_before():
    x = np.arange(1.0, 5.0, dtype=np.float32)[:, None]
    expected = [[0, 0], [0, 1], [1, 2], [2, 3]]
    np.testing.assert_array_equal(predecessors(x, 2)[..., 0], expected)


def test_stacked_layers_are_layers_one_after_another():
    """Samples, densities and losses of a loop over layers, with the parameters of each."""
    one, before = layer_flow(2), 2
    model = causal_layers(one, NUM, 2, before)
    params = random_params(model.init, 0.5)
    key, cond = jax.random.key(3), jnp.linspace(-1.0, 1.0, NUM)
    x, log_q = jax.jit(model.sample_and_log_prob)(params, key, cond)
    keys, window, total = jax.random.split(key, NUM), jnp.zeros((before, 2)), 0.0
    single = jax.jit(lambda p, k, c: one.sample_and_log_prob(p, k, c))
    for n in range(NUM):
        p = jax.tree.map(lambda a: a[n], params)  # noqa: B023
        layer, log_p = single(p, keys[n], (window, cond[n]))
        np.testing.assert_allclose(x[n], layer, rtol=1e-5, atol=1e-6)
        window, total = jnp.concatenate([window[1:], layer[None]]), total + log_p
    assert float(log_q) == pytest.approx(float(total), rel=1e-5)
    np.testing.assert_allclose(jax.jit(model.sample)(params, key, cond), x, rtol=1e-6)
    assert float(model.log_prob(params, key, x, cond)) == pytest.approx(float(total), rel=1e-5)
    batch = Batch(jnp.stack([x, x]), jnp.stack([cond, cond]), jnp.array([0.5, 1.5]))
    assert float(model.loss(params, key, batch)) == pytest.approx(-float(total), rel=1e-5)


def test_a_chain_of_normal_layers_is_learned_exactly():
    """AR(1): x_n = a x_{n-1} + sqrt(1 - a^2) e; its best loss is known, here reached by hand."""
    a, cells = 0.8, 3

    def exact(params, key, x, cond):
        previous, _ = cond
        mean, width = params["a"] * previous[-1], jnp.exp(params["log_width"])
        return normal_log_prob((x - mean) / width) - cells * params["log_width"]

    one = GenerativeModel(
        lambda key: {"a": jnp.zeros(()), "log_width": jnp.zeros(())},
        lambda params, key, batch: (
            -jnp.mean(jax.vmap(lambda x, c: exact(params, key, x, c))(batch.x, batch.cond))
        ),
        lambda params, key, cond: (
            params["a"] * cond[0][-1]
            + jnp.exp(params["log_width"]) * jax.random.normal(key, (cells,))
        ),
        exact,
    )
    model = causal_layers(one, NUM, cells, 1)
    first = np.array([0.0] + [a] * (NUM - 1), np.float32)
    params = {"a": first, "log_width": 0.5 * np.log1p(-(first**2))}
    keys = jax.random.split(jax.random.key(0), 4000)
    draw = jax.jit(jax.vmap(model.sample, (None, 0, None)))
    x = np.asarray(draw(params, keys, jnp.zeros(NUM)))
    density = jax.jit(jax.vmap(model.log_prob, (None, None, 0, None)))
    log_p = np.asarray(density(params, keys[0], x, jnp.zeros(NUM)))
    # The joint density, of a covariance a^|n - m| in each cell.
    lag = np.abs(np.subtract.outer(np.arange(NUM), np.arange(NUM)))
    covariance = a**lag
    square = np.einsum("bic,ij,bjc->b", x, np.linalg.inv(covariance), x)
    log_det = np.linalg.slogdet(2 * np.pi * covariance)[1]
    np.testing.assert_allclose(log_p, -0.5 * (square + cells * log_det), rtol=2e-4, atol=2e-4)
    found = np.einsum("bic,bjc->ij", x, x) / (cells * len(x))
    np.testing.assert_allclose(found, covariance, atol=5 / np.sqrt(cells * len(x)))


@pytest.mark.study
def test_a_chain_of_normal_layers_is_learned():
    """AR(1) in two cells: within 0.02 nats a layer of the exact entropy."""
    a, rng = 0.8, np.random.default_rng(0)
    noise = rng.normal(size=(20_000, NUM, 2))
    x = [noise[:, 0]]
    for n in range(1, NUM):
        x.append(a * x[-1] + np.sqrt(1 - a**2) * noise[:, n])
    x = np.stack(x, axis=1).astype(np.float32)
    cond = np.zeros(x.shape[:2], np.float32)
    model = causal_layers(layer_flow(1), NUM, 2, 1)
    config = TrainConfig(1500, 256, ema_decay=0.99, optimizer=OptimizerConfig(5e-3))
    params = fit(model, Batch(x[:16_000], cond[:16_000]), jax.random.key(0), config).one
    log_p = log_densities(model, params, jax.random.key(1), x[16_000:], cond[16_000:])
    # Of the same events, so that their fluctuation drops out.
    exact = -0.5 * (noise[16_000:] ** 2).sum(axis=(1, 2)) - NUM * np.log(2 * np.pi)
    exact -= (NUM - 1) * np.log(1 - a**2)
    assert 0 < np.mean(exact - log_p) < 0.02 * NUM

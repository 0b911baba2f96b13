import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.bijectors import TrainableBijector, affine, autoregressive_flow, coupling_flow, inverted
from jgen.generative_model import Batch, GenerativeModel, loss_at
from jgen.models import flow
from jgen.training import OptimizerConfig, TrainConfig, fit, member
from jgen.transforms import reverse_kl

MEAN, WIDTH = np.array([0.5, -1.0], np.float32), np.array([0.7, 1.6], np.float32)
LOG_Z = float(np.sum(np.log(WIDTH)) + np.log(2 * np.pi))


def energy(x, cond=None):
    """A normal density with log Z = LOG_Z; the condition shifts it."""
    mean = MEAN if cond is None else MEAN + cond
    return 0.5 * jnp.sum(((x - mean) / WIDTH) ** 2)


def normal_model():
    """x = mean + exp(log_width) z: the divergence is known in closed form."""

    def run(params, x, cond=None, key=None):
        return (x - params["mean"]) * jnp.exp(-params["log_width"]), -jnp.sum(params["log_width"])

    def back(params, z, cond=None, key=None):
        return z * jnp.exp(params["log_width"]) + params["mean"], jnp.sum(params["log_width"])

    start = {"mean": jnp.array([0.2, 0.4]), "log_width": jnp.array([-0.3, 0.1])}
    return flow(TrainableBijector(lambda key: start, run, back), 2)


def exact_loss(params, temperature):
    """KL(q || exp(-U / T) / Z) - log Z of normal densities."""
    width = jnp.exp(params["log_width"])
    terms = 0.5 * (width**2 + (params["mean"] - MEAN) ** 2) / WIDTH**2 / temperature
    return jnp.sum(terms - params["log_width"] - 0.5 * np.log(2 * np.pi) - 0.5)


BATCH = Batch(None, weight=jnp.ones(40_000))


@pytest.mark.parametrize("gradient", ["total", "path"])
@pytest.mark.parametrize("temperature", [1.0, lambda progress: 1 + 4 * progress])
def test_loss_and_gradient_are_those_of_the_divergence(gradient, temperature):
    model = normal_model()
    params = model.init(jax.random.key(0))
    made = reverse_kl(model, energy, temperature=temperature, gradient=gradient)
    loss = partial(loss_at, made, progress=0.25)
    value, grads = jax.jit(jax.value_and_grad(loss))(params, jax.random.key(1), BATCH)
    exact, exact_grads = jax.value_and_grad(exact_loss)(params, 2.0 if callable(temperature) else 1)
    # Five standard errors: of the loss 1.3 / sqrt(n), of its derivatives at most 2 / sqrt(n).
    np.testing.assert_allclose(value, exact, atol=0.035)
    for name in grads:
        np.testing.assert_allclose(grads[name], exact_grads[name], atol=0.05)


def test_pair_is_the_same_as_sample_and_log_prob():
    bijector = inverted(autoregressive_flow(2, affine(), depth=1, hidden=(8,)))
    model = flow(bijector, 2)
    params = jax.tree.map(lambda a: a + 0.1, model.init(jax.random.key(0)))
    values = []
    for one in (model, model._replace(sample_and_log_prob=None)):
        loss = jax.jit(jax.value_and_grad(reverse_kl(one, energy).loss))
        values.append(loss(params, jax.random.key(1), Batch(jnp.zeros((8, 2)))))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *values)


def test_path_gradient_vanishes_at_the_target():
    model = normal_model()
    target = {"mean": jnp.asarray(MEAN), "log_width": jnp.log(WIDTH)}
    norms = {}
    for gradient in ("total", "path"):
        loss = reverse_kl(model, energy, gradient=gradient).loss
        batch = Batch(None, weight=jnp.ones(4))
        grads = jax.jit(jax.grad(loss))(target, jax.random.key(0), batch)
        norms[gradient] = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads))
    assert norms["path"] < 1e-5 < 1e-2 < norms["total"]


def test_likelihood_is_mixed_in_with_its_weight():
    model = normal_model()
    params = model.init(jax.random.key(0))
    batch = Batch(jnp.ones((16, 2)))
    losses = [
        loss_at(reverse_kl(model, energy, likelihood=w), params, jax.random.key(1), batch, 0.25)
        for w in (0.0, 1.0, lambda progress: progress)
    ]
    np.testing.assert_allclose(losses[1], -model.log_prob(params, None, jnp.ones(2), None), 1e-5)
    np.testing.assert_allclose(losses[2], 0.75 * losses[0] + 0.25 * losses[1], rtol=1e-5)


def test_training_without_data_finds_the_target_for_every_condition():
    model = flow(coupling_flow(2, affine(), depth=4, num_cond=1, hidden=(16,)), 2)
    trained = reverse_kl(model, energy)
    config = TrainConfig(400, 128, ensemble=2, optimizer=OptimizerConfig(1e-2), save_every=200)
    shifts = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
    fitted = fit(
        trained,
        Batch(None, shifts),
        jax.random.key(0),
        config,
        validation=Batch(None, np.tile(shifts, (3, 1))),  # padded with conditions of weight zero
        devices=jax.devices()[:1],
        progress=False,
    )
    losses = [row["validation_loss"] for row in fitted.history if "validation_loss" in row]
    assert losses[-1] == pytest.approx([-LOG_Z] * 2, abs=0.15)
    params = member(fitted.params, 1)
    x = MEAN + 0.5 + WIDTH
    expected = -energy(x, 0.5) - LOG_Z
    found = jax.jit(model.log_prob)(params, None, jnp.asarray(x), jnp.array([0.5]))
    np.testing.assert_allclose(found, expected, atol=0.1)


def test_fit_without_data_resumes_bitwise(tmp_path):
    model = reverse_kl(normal_model(), energy, temperature=lambda progress: 2 - progress)
    config = TrainConfig(20, 16, save_every=10)
    options = {"folder": tmp_path, "devices": jax.devices()[:1], "progress": False}
    run = lambda: fit(model, None, jax.random.key(0), config, **options)
    first = run()
    # As if it had been killed before the last checkpoint.
    shutil.rmtree(tmp_path / "checkpoints" / "20")
    jax.tree.map(np.testing.assert_array_equal, run().state, first.state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive and finite, got 0.0"),
        ({"likelihood": 1.5}, "weight of the likelihood must be in"),
        ({"gradient": "partial"}, "gradient must be one of total, path"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        reverse_kl(normal_model(), energy, **options)


def test_bad_use():
    with pytest.raises(ValueError, match="needs a model with a log_prob"):
        reverse_kl(GenerativeModel(None, None, None), energy)
    model = reverse_kl(normal_model(), energy, likelihood=0.5)
    with pytest.raises(ValueError, match="a likelihood needs data"):
        fit(model, None, jax.random.key(0), TrainConfig(1, 8), progress=False)
    with pytest.raises(ValueError, match="training without data has no validation"):
        fit(model, None, jax.random.key(0), TrainConfig(1, 8, members="bootstrap", ensemble=2))
    with pytest.raises(ValueError, match="without data nothing says which step is best"):
        fit(model, None, jax.random.key(0), TrainConfig(1, 8, keep="best"), progress=False)
    with pytest.raises(ValueError, match="learns from events, but the batch has none"):
        fit(normal_model(), None, jax.random.key(0), TrainConfig(1, 8), progress=False)

"""Minibatches in parts: the same step in less memory."""

import dataclasses

import jax
import numpy as np
import pytest

from jgen import Batch, TrainConfig, fit
from jgen.couplings import optimal_transport
from jgen.generative_model import loss_at
from jgen.models import Autoencoder, bernoulli, flow_matching, vae
from jgen.nets import velocity_mlp
from jgen.training import RepulsionConfig, loss_values
from jgen.training.accumulation import accumulated

KEY = jax.random.key(0)
RNG = np.random.default_rng(1)
X = RNG.normal(size=(256, 2)).astype(np.float32)
DATA = Batch(X, RNG.normal(size=(256, 1)).astype(np.float32), RNG.uniform(-0.5, 2.5, 256))
NETWORK = velocity_mlp(2, 1, hidden=(64,))
MODEL = flow_matching(NETWORK, (2,))
# The KL divergence of the mean event, below which nothing is paid, is no mean over events.
WITH_FREE_BITS = vae(
    Autoencoder(
        lambda key: {"w": jax.random.normal(key, (2,))},
        lambda params, x, cond: (params["w"] * x, 0 * x),
        lambda params, r, cond: params["w"] * r,
        bernoulli(),
    ),
    (2,),
    free_bits=0.1,
)
CONFIG = TrainConfig(steps=4, batch_size=32, ensemble=2, log_every=1)


def losses(model=MODEL, data=DATA, devices=1, function=None, **changes):
    config = dataclasses.replace(CONFIG, **changes)
    options = {"devices": jax.devices()[:devices], "progress": False, "function": function}
    return np.array([r["loss"] for r in fit(model, data, KEY, config, **options).history])


@pytest.fixture(scope="module")
def gradients():
    """Compiled value and gradient of a weighted minibatch, by the number of its parts."""
    batch = jax.tree.map(lambda a: a.astype(np.float32), DATA)
    args = (MODEL.init(KEY), KEY, batch, 0.5)
    loss = lambda *args: loss_at(MODEL, *args)
    parts = {n: accumulated(loss, n) for n in (4, 16)} | {1: jax.value_and_grad(loss)}
    return {n: jax.jit(f).lower(*args).compile() for n, f in parts.items()}, args


@pytest.mark.parametrize("parts", [4, 16])
def test_loss_and_gradient_are_those_of_the_whole(gradients, parts):
    compiled, args = gradients
    found, expected = (compiled[n](*args) for n in (parts, 1))
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_memory_falls(gradients):
    size = {n: f.memory_analysis().temp_size_in_bytes for n, f in gradients[0].items()}
    assert size[16] < 0.6 * size[4]
    assert size[4] < 0.6 * size[1]


@pytest.mark.parametrize(
    "options",
    [
        {"ema_decay": 0.9, "members": "bootstrap"},
        {"members": "repulsive", "repulsion": RepulsionConfig(100.0, 0.1)},
        {"devices": 8},
    ],
)
def test_a_training_in_parts_is_that_of_whole_minibatches(options):
    """Also with forces between members, which are added once, and on a mesh (2, 4)."""
    if "repulsion" in options:
        options = options | {"function": loss_values(MODEL)}
    found = losses(accumulate=4, **options)
    np.testing.assert_allclose(found, losses(**options), rtol=2e-5)


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        (MODEL, {"accumulate": 3}, "32 events .* evenly to 3 parts; choose .* a multiple of 3"),
        (MODEL, {"accumulate": 8, "buckets": 8}, "to 64 buckets in all parts"),
        (MODEL, {"accumulate": 0}, "accumulate must be a whole number from 1"),
        (MODEL, {"accumulate": 16, "devices": 8}, "8 devices .* do not divide"),
        (
            flow_matching(NETWORK, (2,), coupling=optimal_transport()),
            {"accumulate": 4},
            "accumulate is for models whose loss is a mean over events.*use accumulate=1",
        ),
        (WITH_FREE_BITS, {"accumulate": 4}, "takes one key for all of them"),
    ],
)
def test_what_parts_would_change_is_refused(model, changes, message):
    with pytest.raises(ValueError, match=message):
        losses(model, Batch(X, DATA.cond), **changes)

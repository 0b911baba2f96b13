"""One draw of the weights an event: against closed forms of linear models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jgen.generative_model import Batch, GenerativeModel, mean_loss
from jgen.models import flow_matching
from jgen.nets import velocity_mlp
from jgen.nets.dense import Dense, NormalWeights
from jgen.nets.network import Network, from_linen
from jgen.training import TrainConfig, fit
from jgen.transforms import bayesian, draw_weights

M = jnp.array([[0.5], [-1.0], [2.0]])
S = jnp.array([[0.3], [0.1], [0.2]])
PARAMS = {
    "mean": {"kernel": M, "bias": jnp.array([0.7])},
    "log_scale": {"kernel": jnp.log(S), "bias": jnp.log(jnp.array([0.4]))},
}
LINEAR = from_linen(Dense(1), jax.ShapeDtypeStruct((3,), jnp.float32))


def regression(network):
    """Squared error of the sum of all outputs; rows of cond are tokens where it has an axis."""
    return GenerativeModel(
        network.init,
        lambda params, key, batch: mean_loss(
            lambda k, x, c: (x - jnp.sum(network.apply(params, c))) ** 2, key, batch
        ),
        None,
    )


def events(num, *tokens):
    rng = np.random.default_rng(0)
    # Not centred, so that tokens are alike and their correlation counts.
    cond = (1 + rng.normal(size=(num, *tokens, 3))).astype(np.float32)
    x = rng.normal(size=num).astype(np.float32)
    return Batch(jnp.asarray(x), jnp.asarray(cond), weight=jnp.linspace(0.5, 1.5, num))


def expected_loss(batch):
    """Mean of w ((x - sum_t y_t)^2 + its variance); tokens share the weights and the bias."""
    tokens = 1 if batch.cond.ndim == 2 else batch.cond.shape[1]
    total = batch.cond.reshape(len(batch.x), tokens, 3).sum(axis=1)
    mean = (total @ M)[:, 0] + 0.7 * tokens
    variance = (total**2 @ S**2)[:, 0] + (0.4 * tokens) ** 2
    return np.mean(batch.weight * ((batch.x - mean) ** 2 + variance))


@pytest.mark.parametrize("tokens", [(), (4,)])
@pytest.mark.parametrize("local", [False, True])
def test_the_expected_loss_is_the_exact_one(tokens, local, key):
    batch, num = events(16, *tokens), 4000
    model = bayesian(regression(LINEAR), num_train=16, temperature=0.0, local=local)
    losses = jax.jit(jax.vmap(model.loss, (None, 0, None)))(
        PARAMS, jax.random.split(key, num), batch
    )
    assert abs(losses.mean() - expected_loss(batch)) < 4 * losses.std() / num**0.5


def test_the_gradient_is_the_same_and_its_noise_shrinks_with_the_batch(key):
    """Four times the same events: a fourth of the variance; a draw a minibatch gains nothing."""
    once, num = events(32), 2000
    noise, means = {}, {}
    for local in (False, True):
        model = bayesian(regression(LINEAR), num_train=32, local=local)
        gradients = jax.jit(jax.vmap(jax.grad(model.loss), (None, 0, None)))
        for repeat in (1, 4):
            batch = jax.tree.map(lambda a: jnp.concatenate([a] * repeat), once)  # noqa: B023
            leaves = jax.tree.leaves(gradients(PARAMS, jax.random.split(key, num), batch))
            flat = np.concatenate([g.reshape(num, -1) for g in leaves], axis=1)
            noise[local, repeat], means[local] = flat.var(axis=0), flat.mean(axis=0)
    error = np.sqrt((noise[True, 4] + noise[False, 4]) / num)
    np.testing.assert_array_less(np.abs(means[True] - means[False]), 4 * error)
    total = {name: variance.sum() for name, variance in noise.items()}
    # The gradient's kurtosis, up to that of squares of normal variables (15), gives 8 %.
    assert total[True, 4] / total[True, 1] == pytest.approx(1 / 4, rel=0.33)
    assert total[False, 4] / total[False, 1] == pytest.approx(1, rel=0.33)
    assert total[True, 4] < 0.2 * total[False, 4]


def test_outputs_of_a_layer_have_the_exact_distribution(key):
    """Normal, and independent between outputs; the bias is a draw of its own."""
    rng = np.random.default_rng(1)
    x, mean = rng.normal(size=3), rng.normal(size=(3, 2))
    scale = rng.uniform(0.1, 1, size=(3, 2))
    layer, cast = Dense(2, use_bias=False), lambda a: jnp.asarray(a, jnp.float32)

    def one(key):
        kernel = NormalWeights(cast(mean), cast(scale), key)
        return layer.apply({"params": {"kernel": kernel}}, cast(x))

    y = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(key, 5000)))
    for i in range(2):
        exact = stats.norm(x @ mean[:, i], np.sqrt(x**2 @ scale[:, i] ** 2))
        assert stats.kstest(y[:, i], exact.cdf).pvalue > 1e-3
    assert abs(np.corrcoef(y.T)[0, 1]) < 4 / 5000**0.5


def test_rows_of_one_event_share_their_weights(key):
    kernel = NormalWeights(M, S, key)
    layer = Dense(1, use_bias=False)
    x = events(1, 4).cond[0]
    y = layer.apply({"params": {"kernel": kernel}}, x)
    np.testing.assert_allclose(y, x @ kernel.draw(), rtol=1e-5)


def test_narrow_weights_give_the_plain_loss_of_weighted_events(key):
    batch = events(8)
    narrow = PARAMS | {"log_scale": jax.tree.map(lambda a: a - 30, PARAMS["log_scale"])}
    model = bayesian(regression(LINEAR), num_train=8, temperature=0.0, local=True)
    expected = regression(LINEAR).loss(PARAMS["mean"], key, batch)
    np.testing.assert_allclose(model.loss(narrow, key, batch), expected, rtol=1e-5)


def test_samples_do_not_ask_how_the_weights_were_trained(key):
    """Parameters and draws of both are the same."""
    both = [bayesian(regression(LINEAR), num_train=8, local=local) for local in (False, True)]
    first, second = (draw_weights(model.init(key), key) for model in both)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_gradients_stay_finite_where_nothing_enters(key):
    model = bayesian(regression(LINEAR), num_train=2, local=True)
    batch = Batch(jnp.ones(2), jnp.zeros((2, 3)))
    gradient = jax.jit(jax.grad(model.loss))(PARAMS, key, batch)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_networks_train_with_any_layers_as_members_of_an_ensemble():
    """All layers of a velocity network, and its last one."""
    inner = flow_matching(velocity_mlp(2, hidden=(8,)), (2,))
    data = Batch(np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32))
    config = TrainConfig(steps=3, batch_size=16, ensemble=2, members="bootstrap", log_every=1)
    for which in (lambda path, leaf: True, lambda path, leaf: "Dense_1" in path):
        model = bayesian(inner, num_train=64, which=which, local=True)
        one = jax.devices()[:1]
        fitted = fit(model, data, jax.random.key(0), config, devices=one, progress=False)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted.params))


def test_models_without_dense_kernels_are_refused(key):
    own = Network(lambda key: {"w": M[:, 0]}, lambda params, c: jnp.dot(c, params["w"]))
    with pytest.raises(ValueError, match=r"kernels of dense layers.*which are \['w'\]"):
        bayesian(regression(own), num_train=1, local=True).init(key)
    own = Network(lambda key: {"kernel": M}, lambda params, c: jnp.dot(c, params["kernel"]))
    model = bayesian(regression(own), num_train=1, local=True)
    with pytest.raises(ValueError, match="kernel outside of jgen.nets.dense.Dense"):
        model.loss(model.init(key), key, events(4))

"""Against linear regression with known noise, whose posterior is normal and known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from jgen.generative_model import Batch, GenerativeModel, draw, mean_loss
from jgen.models import flow_matching
from jgen.nets import velocity_mlp
from jgen.solvers import runge_kutta
from jgen.training import OptimizerConfig, TrainConfig, fit, member
from jgen.transforms import bayesian, draw_weights

NOISE, PRIOR = 0.5, 2.0


def regression(size):
    """x ~ N(weights . cond, NOISE^2), trained by its likelihood."""
    log_prob = lambda params, key, x, cond: jax.scipy.stats.norm.logpdf(
        x, jnp.dot(params["w"], cond), NOISE
    )
    return GenerativeModel(
        init=lambda key: {"w": jax.random.normal(key, (size,))},
        loss=lambda params, key, batch: mean_loss(
            lambda k, x, c: -log_prob(params, k, x, c), key, batch
        ),
        sample=lambda params, key, cond: (
            jnp.dot(params["w"], cond) + NOISE * jax.random.normal(key)
        ),
        log_prob=log_prob,
    )


def data_and_posterior(design, temperature=1.0):
    """Events of a design [n, d], mean and precision matrix of the tempered posterior."""
    rng = np.random.default_rng(0)
    x = design @ np.linspace(-1, 1, design.shape[1]) + NOISE * rng.normal(size=len(design))
    likelihood = temperature * NOISE**2
    precision = design.T @ design / likelihood + np.eye(design.shape[1]) / PRIOR**2
    mean = np.linalg.solve(precision, design.T @ x / likelihood)
    batch = Batch(jnp.asarray(x, jnp.float32), jnp.asarray(design, jnp.float32))
    return batch, mean, precision


DESIGNS = {
    "orthogonal": np.repeat(np.diag([1.0, 0.5, 2.0]), 8, axis=0),
    "correlated": np.random.default_rng(1).normal(size=(24, 3)) @ np.triu(np.ones((3, 3))),
}


def mean_gradient(model, batch, num=20_000):
    """params -> gradient of the expected loss and its standard error; log scales, then means."""
    keys = jax.random.split(jax.random.key(3), num)
    gradients = jax.jit(jax.vmap(jax.grad(model.loss), (None, 0, None)))

    def mean(params):
        leaves = jax.tree.leaves(gradients(params, keys, batch))
        flat = np.concatenate([np.asarray(leaf).reshape(num, -1) for leaf in leaves], axis=1)
        return flat.mean(axis=0), flat.std(axis=0) / num**0.5

    return mean


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("name", DESIGNS)
def test_the_optimum_is_the_exact_posterior(name, temperature):
    """Its means and the widths P_ii^(-1/2) of its conditionals, the marginals if diagonal."""
    batch, mean, precision = data_and_posterior(DESIGNS[name], temperature)
    model = bayesian(
        regression(3), num_train=len(batch.x), prior_scale=PRIOR, temperature=temperature
    )

    scale = np.diag(precision) ** -0.5

    def params(shift, factor):
        log_scale = {"w": jnp.asarray(np.log(scale * factor), jnp.float32)}
        return {
            "mean": {"w": jnp.asarray(mean + shift * scale, jnp.float32)},
            "log_scale": log_scale,
        }

    gradient_at = mean_gradient(model, batch)
    gradient, error = gradient_at(params(0.0, 1.0))
    np.testing.assert_array_less(np.abs(gradient), 4 * error)
    # And the test can tell: a scale off by a tenth, a mean off by a fifth of its error.
    gradient, error = gradient_at(params(0.0, 1.1))
    assert np.all(gradient[:3] > 4 * error[:3])
    gradient, error = gradient_at(params(0.2, 1.0))
    assert np.any(np.abs(gradient[3:]) > 4 * error[3:])


def test_without_temperature_the_likelihood_alone_is_left():
    """Means at maximum likelihood; every scale has a gradient to shrink it."""
    batch, *_ = data_and_posterior(DESIGNS["correlated"])
    best = np.linalg.lstsq(DESIGNS["correlated"], np.asarray(batch.x), rcond=None)[0]
    model = bayesian(regression(3), num_train=24, temperature=0.0)
    params = {"mean": {"w": jnp.asarray(best, jnp.float32)}, "log_scale": {"w": jnp.full(3, -1.0)}}
    gradient, error = mean_gradient(model, batch)(params)
    np.testing.assert_array_less(np.abs(gradient[3:]), 4 * error[3:])
    assert np.all(gradient[:3] > 4 * error[:3])


def test_training_finds_the_posterior_in_every_member():
    batch, mean, precision = data_and_posterior(DESIGNS["orthogonal"])
    model = bayesian(regression(3), num_train=24, prior_scale=PRIOR)
    optimizer = OptimizerConfig(learning_rate=0.02)
    config = TrainConfig(steps=2000, batch_size=96, ensemble=2, optimizer=optimizer)
    one = jax.devices()[:1]
    params = fit(model, batch, jax.random.key(0), config, devices=one, progress=False).params
    scale = np.diag(precision) ** -0.5
    assert params["mean"]["w"].dtype == params["log_scale"]["w"].dtype == np.float32
    assert params["mean"]["w"].shape == (2, 3)
    # Adam's last steps still scatter: two seeds gave up to 0.08 and 7%.
    np.testing.assert_array_less(np.abs(params["mean"]["w"] - mean) / scale, 0.2)
    np.testing.assert_allclose(np.exp(params["log_scale"]["w"]), np.stack([scale] * 2), rtol=0.15)


def nothing():
    """Two groups of weights and a loss of zero, so that a Bayesian loss is its KL divergence."""
    return GenerativeModel(
        init=lambda key: {"a": jax.random.normal(key, (2, 3)), "b": [jnp.ones(4), jnp.ones(2)]},
        loss=lambda params, key, batch: jnp.zeros(()),
        sample=lambda params, key, cond=None: params,
    )


def test_kl_divergence_against_quadrature_and_monte_carlo(key):
    model = bayesian(nothing(), num_train=7, prior_scale=0.8, temperature=3.0)
    params = model.init(key)
    params["log_scale"] = {
        path: 0.3 * jax.random.normal(key, leaf.shape) - 1
        for path, leaf in params["log_scale"].items()
    }
    assert set(params["log_scale"]) == {"a", "b/0", "b/1"}
    found = jax.jit(model.loss)(params, key, Batch(None)) * 7 / 3
    means = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params["mean"])])
    scales = np.exp(np.concatenate([np.ravel(params["log_scale"][p]) for p in ("a", "b/0", "b/1")]))

    x = means + scales * np.linspace(-10, 10, 2001)[:, None]
    log_q = stats.norm.logpdf(x, means, scales)
    integrand = np.exp(log_q) * (log_q - stats.norm.logpdf(x, 0, 0.8))
    exact = integrate.trapezoid(integrand, x, axis=0).sum()
    assert found == pytest.approx(exact, rel=1e-5)

    keys = jax.random.split(key, 20_000)
    draws = jax.jit(jax.vmap(draw_weights, (None, 0)))(params, keys)
    theta = np.concatenate([leaf.reshape(20_000, -1) for leaf in jax.tree.leaves(draws)], axis=1)
    log_ratio = stats.norm.logpdf(theta, means, scales) - stats.norm.logpdf(theta, 0, 0.8)
    log_ratio = log_ratio.sum(axis=1)
    assert abs(log_ratio.mean() - exact) < 4 * log_ratio.std() / 20_000**0.5


FITTED = {
    "mean": {"w": jnp.array([0.4, -1.0])},
    "log_scale": {"w": jnp.log(jnp.array([0.3, 0.6]))},
}
COND = jnp.array([1.0, 2.0])
CENTRE, WIDTH = -1.6, np.hypot(0.3, 1.2)  # of weights . COND under q


def test_events_scatter_by_the_noise_and_the_posterior(key):
    model = bayesian(regression(2), num_train=10)
    n = 20_000
    x = draw(model, FITTED, key, n, np.tile(COND, (n, 1)), batch_size=n)
    total = np.hypot(WIDTH, NOISE)
    assert abs(x.mean() - CENTRE) < 4 * total / n**0.5
    assert abs(x.var() - total**2) < 4 * total**2 * (2 / n) ** 0.5


def test_events_of_one_draw_share_their_weights(key):
    keys = jax.random.split(key, 400)
    members = jax.vmap(draw_weights, (None, 0))(FITTED, keys)
    assert members["w"].shape == (400, 2)
    again = draw_weights(FITTED, keys[7])
    np.testing.assert_array_equal(member(members, 7)["w"], again["w"])
    sample = jax.vmap(regression(2).sample, (None, 0, None))
    x = jax.jit(jax.vmap(sample, (0, None, None)))(members, jax.random.split(key, 500), COND)
    variance = x.var(axis=1, ddof=1).mean()
    assert abs(variance - NOISE**2) < 4 * NOISE**2 * (2 / 499) ** 0.5
    centres = members["w"] @ COND
    assert abs(centres.var() - WIDTH**2) < 4 * WIDTH**2 * (2 / 400) ** 0.5


def test_the_mean_density_over_keys_is_the_predictive_one(key):
    model = bayesian(regression(2), num_train=10)
    log_prob = jax.jit(jax.vmap(model.log_prob, (None, 0, None, None)))
    x = jnp.array(-0.5)
    values = np.asarray(log_prob(FITTED, jax.random.split(key, 20_000), x, COND))
    density = np.exp(values)
    exact = stats.norm(CENTRE, np.hypot(WIDTH, NOISE)).pdf(x)
    assert abs(density.mean() - exact) < 4 * density.std() / 20_000**0.5
    assert values.mean() < np.log(exact)
    assert bayesian(nothing(), num_train=1).log_prob is None


def test_weights_that_are_not_chosen_stay_points(key):
    model = bayesian(
        nothing(), num_train=1, which=lambda path, leaf: path == "a" or leaf.shape == (2,)
    )
    params = model.init(key)
    assert set(params["log_scale"]) == {"a", "b/1"}
    weights = draw_weights(params, key)
    np.testing.assert_array_equal(weights["b"][0], params["mean"]["b"][0])
    assert not np.any(weights["a"] == params["mean"]["a"])
    assert not np.any(weights["b"][1] == params["mean"]["b"][1])
    # No prior either, so no gradient from the KL divergence.
    gradient = jax.jit(jax.grad(model.loss))(params, key, Batch(None))
    assert not np.any(gradient["mean"]["b"][0])
    assert np.all(gradient["mean"]["a"] != 0)


def test_every_weight_has_its_own_noise(key):
    model = bayesian(nothing(), num_train=1, initial_scale=0.25)
    params = model.init(key)
    deviation = jax.tree.map(lambda w, m: (w - m) / 0.25, draw_weights(params, key), params["mean"])
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(deviation)])
    assert len(np.unique(flat)) == 12
    assert np.abs(flat).max() < 5
    assert flat.std() == pytest.approx(1, abs=4 / 24**0.5)


def test_members_under_vmap_are_the_solo_ones(key):
    batch, *_ = data_and_posterior(DESIGNS["correlated"])
    model = bayesian(regression(3), num_train=24)
    keys = jax.random.split(key, 3)
    params = jax.vmap(model.init)(keys)
    losses = jax.jit(jax.vmap(model.loss, (0, 0, None)))(params, keys, batch)
    solo_loss = jax.jit(model.loss)
    for i in range(3):
        solo = model.init(keys[i])
        np.testing.assert_array_equal(solo["mean"]["w"], regression(3).init(keys[i])["w"])
        np.testing.assert_allclose(losses[i], solo_loss(solo, keys[i], batch), rtol=1e-5)


def test_a_network_with_a_bayesian_last_layer_trains_and_resumes(tmp_path):
    inner = flow_matching(velocity_mlp(2, hidden=(8,)), (2,), solver=runge_kutta("euler", 2))
    last = "MLP_0/Dense_1/kernel"
    model = bayesian(inner, num_train=64, which=lambda path, leaf: path == last)
    data = Batch(np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32))
    one = jax.devices()[:1]

    def run(steps):
        optimizer = OptimizerConfig(schedule="constant")
        config = TrainConfig(steps, batch_size=16, ensemble=2, optimizer=optimizer)
        key = jax.random.key(0)
        options = {"folder": tmp_path, "extend": True, "devices": one, "progress": False}
        return fit(model, data, key, config, **options)

    first, resumed = run(3), run(4)
    assert [row["step"] for row in resumed.history] == [3, 4]
    assert jax.tree.structure(resumed.params) == jax.tree.structure(first.params)
    assert resumed.params["log_scale"].keys() == {last}
    assert resumed.params["log_scale"][last].shape == (2, 8, 2)
    for old, new in zip(*map(jax.tree.leaves, (first.params, resumed.params)), strict=True):
        assert new.dtype == np.float32
        assert np.any(new != old)
        np.testing.assert_allclose(new, old, atol=0.002)  # one step of Adam of 0.001
    params = member(resumed.params, 1)
    weights = draw_weights(params, jax.random.key(1))
    assert draw(inner, weights, jax.random.key(1), 5).shape == (5, 2)


def test_bad_input(key):
    with pytest.raises(ValueError, match="num_train"):
        bayesian(nothing(), num_train=0)
    for option in ({"prior_scale": 0.0}, {"initial_scale": -1.0}, {"temperature": -0.1}):
        with pytest.raises(ValueError, match=f"{next(iter(option))} must be "):
            bayesian(nothing(), num_train=1, **option)
    with pytest.raises(ValueError, match=r"chose none of the weights \['a', 'b/0', 'b/1'\]"):
        bayesian(nothing(), num_train=1, which=lambda path, leaf: False).init(key)
    integers = nothing()._replace(init=lambda key: {"n": jnp.arange(3)})
    with pytest.raises(ValueError, match="not floating-point"):
        bayesian(integers, num_train=1).init(key)
    twice = nothing()._replace(init=lambda key: {"a/b": jnp.ones(1), "a": {"b": jnp.ones(1)}})
    with pytest.raises(ValueError, match="same path"):
        bayesian(twice, num_train=1).init(key)

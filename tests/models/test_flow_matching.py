import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jgen.generative_model import Batch, draw
from jgen.models import autoregressive_flow_matching, flow_matching
from jgen.nets import Network, velocity_mlp
from jgen.nets.network import AutoregressiveNetwork
from jgen.nets.transformers.transfusion import TransfusionConfig, transfusion
from jgen.paths import convert, interpolate, linear, variance_preserving
from jgen.solvers import EulerMaruyama, NonStationary, runge_kutta

MEAN, STD = np.array([0.5, -1.0]), np.array([0.7, 0.3])
PATHS = {"linear": linear(), "vp": variance_preserving()}


def exact_network(path):
    """The marginal velocity of data N(MEAN + cond, STD^2): a flow-matched Gaussian."""

    def apply(params, t, x, cond):
        mean, std = jnp.asarray(MEAN), jnp.asarray(STD)
        mean = mean if cond is None else mean + cond
        alpha, sigma = path.alpha(t), path.sigma(t)
        variance = (alpha * std) ** 2 + sigma**2
        data = mean + alpha * std**2 / variance * (x - alpha * mean)
        noise = sigma * (x - alpha * mean) / variance
        _, velocity = interpolate(path, t, noise, data)
        return velocity

    return Network(lambda key: {}, apply)


@pytest.mark.parametrize("name", PATHS)
def test_log_prob_of_a_gaussian_against_the_closed_form(x64, key, name):
    model = flow_matching(
        exact_network(PATHS[name]), (2,), path=PATHS[name], solver=runge_kutta("rk4", 400)
    )
    points = MEAN + STD * np.random.default_rng(0).normal(size=(5, 2))
    found = jax.vmap(lambda x: model.log_prob({}, key, x, None))(points)
    # VP ends at t_max = 0.999, where the data still carry noise of width 0.01; at t_min its base
    # is not quite normal, alpha = 0.0066 of the data being left.
    alpha, sigma = (np.asarray(f(PATHS[name].t_max)) for f in PATHS[name][:2])
    std = np.sqrt((alpha * STD) ** 2 + sigma**2)
    expected = scipy.stats.norm.logpdf(points, alpha * MEAN, std).sum(axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-6 if name == "linear" else 2e-2)


def test_hutchinson_log_prob_averages_to_the_exact_one(x64, key):
    """For this diagonal field Rademacher probes are exact, for a mixed one they are unbiased."""
    mixed = Network(
        lambda key: {}, lambda p, t, x, c: jnp.tanh(jnp.array([[0.2, 1.0], [-0.6, 0.4]]) @ x)
    )
    exact = flow_matching(mixed, (2,), solver=runge_kutta("rk4", 20))
    noisy = flow_matching(
        mixed, (2,), solver=runge_kutta("rk4", 20), divergence="hutchinson", num_probes=4
    )
    keys, x = jax.random.split(key, 2000), jnp.array([0.3, 0.4])
    estimates = jax.vmap(lambda k: noisy.log_prob({}, k, x, None))(keys)
    error = estimates.std() / len(keys) ** 0.5
    np.testing.assert_allclose(estimates.mean(), exact.log_prob({}, key, x, None), atol=4 * error)


SOLVERS = {
    "midpoint": runge_kutta("midpoint", 50),
    "bespoke": NonStationary.from_runge_kutta(runge_kutta("rk4", 20)),
    "sde": EulerMaruyama(200),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_samples_have_the_right_moments_whatever_the_solver(key, path, solver):
    """The solver is swapped, the parameters stay; conditions reach the network."""
    model = flow_matching(
        exact_network(PATHS[path]), (2,), path=PATHS[path], solver=SOLVERS[solver]
    )
    cond = np.linspace(-2, 2, 20_000).astype(np.float32)[:, None]
    x = draw(model, {}, key, len(cond), cond, batch_size=5000) - cond
    n = len(x)
    # Five standard errors and the discretisation of the coarsest case.
    np.testing.assert_allclose(x.mean(0), MEAN, atol=5 * 0.7 / n**0.5 + 0.005)
    np.testing.assert_allclose(x.std(0), STD, atol=5 * 0.7 / (2 * n) ** 0.5 + 0.01)


def test_loss_is_least_at_the_exact_velocity(key):
    x = MEAN + STD * np.random.default_rng(0).normal(size=(20_000, 2))
    losses = {}
    for name, shift in (("exact", 0.0), ("wrong", 0.3)):
        network = exact_network(linear())
        shifted = Network(network.init, lambda *a, s=shift: network.apply(*a) + s)  # noqa: B023
        losses[name] = flow_matching(shifted, (2,)).loss({}, key, Batch(x.astype(np.float32)))
    # E|u + s - target|^2 = E|u - target|^2 + s^2, as u is the conditional mean of the target.
    np.testing.assert_allclose(losses["wrong"] - losses["exact"], 0.09, atol=0.01)


@pytest.mark.study
def test_training_recovers_a_correlated_gaussian(key):
    """From the loss to log_prob with a real network: negative log-likelihood near the entropy."""
    import optax

    from jgen.training import make_step

    mixing = np.array([[1.0, 0.0], [0.8, 0.6]])
    x = np.random.default_rng(0).normal(size=(4000, 2)) @ mixing.T
    model = flow_matching(velocity_mlp(2, hidden=(64, 64)), (2,), solver=runge_kutta("rk4", 20))
    step = make_step(model, optax.adam(2e-3), 512, ema_decay=0.99)
    state, update = step.init(key), jax.jit(step.update)
    data = Batch(x.astype(np.float32))
    for _ in range(600):
        state, _ = update(state, key, data)
    log_prob = jax.jit(jax.vmap(lambda x: model.log_prob(state.ema, key, x, None)))
    nll = -np.mean(log_prob(data.x[:500]))
    entropy = np.log(2 * np.pi * np.e) + np.log(np.linalg.det(mixing))
    # Sampling error of 500 points is 0.045; the untrained model is off by 0.5.
    np.testing.assert_allclose(nll, entropy, atol=0.15)


def linear_autoregression(num):
    """x_i ~ N(0.5 x_{i-1} + cond, 0.8^2) with its exact velocity as the network."""
    std, path = 0.8, linear()
    mean = lambda previous, cond: 0.5 * previous + cond

    def velocity(params, t, x, context):
        variance = (t * std) ** 2 + (1 - t) ** 2
        data = context + t * std**2 / variance * (x - t * context)
        noise = (1 - t) * (x - t * context) / variance
        return interpolate(path, t, noise, data)[1]

    return AutoregressiveNetwork(
        init=lambda key: {},
        contexts=lambda p, x, cond: mean(jnp.concatenate([jnp.zeros(1), x[:-1]]), cond),
        start=lambda p, cond: cond,
        step=lambda p, cache, i, previous: (mean(previous, cache), cache),
        embed_time=lambda p, t: t,
        velocity=velocity,
    )


def test_autoregressive_samples_follow_their_chain(key):
    num, n, cond = 4, 20_000, 0.3
    model = autoregressive_flow_matching(
        linear_autoregression(num), num, solver=runge_kutta("midpoint", 40)
    )
    x = draw(model, {}, key, n, np.full(n, cond, np.float32), batch_size=5000)
    previous = np.concatenate([np.zeros((n, 1)), x[:, :-1]], axis=1)
    residual = (x - 0.5 * previous - cond) / 0.8
    np.testing.assert_allclose(residual.mean(0), 0, atol=5 / n**0.5 + 0.002)
    np.testing.assert_allclose(np.cov(residual.T), np.eye(num), atol=5 * 1.5 / n**0.5 + 0.005)


def test_autoregressive_log_prob_against_the_closed_form(x64, key):
    num, cond = 4, jnp.array(0.3)
    model = autoregressive_flow_matching(
        linear_autoregression(num), num, solver=runge_kutta("rk4", 400)
    )
    x = jax.random.normal(key, (num,))
    means = 0.5 * jnp.concatenate([jnp.zeros(1), x[:-1]]) + cond
    expected = jnp.sum(jax.scipy.stats.norm.logpdf(x, means, 0.8))
    np.testing.assert_allclose(model.log_prob({}, key, x, cond), expected, atol=1e-7)


def test_autoregressive_sampler_takes_bespoke_solvers(key):
    network = transfusion(6, TransfusionConfig(8, 2, 1, 16, 16, 3))
    params, cond = network.init(key), np.linspace(0, 1, 5, dtype=np.float32)
    solver = runge_kutta("rk4", 3)
    samples = [
        draw(autoregressive_flow_matching(network, 6, solver=s), params, key, 5, cond)
        for s in (solver, NonStationary.from_runge_kutta(solver))
    ]
    np.testing.assert_allclose(*samples, rtol=1e-4, atol=1e-5)


def test_score_and_velocity_of_the_sde_agree_with_the_path(x64):
    """The score that the sampler uses is the gradient of the marginal's log-density."""
    path, t, x = linear(), 0.6, jnp.array([0.3, -0.2])
    velocity = exact_network(path).apply({}, t, x, None)
    spread = np.sqrt((t * STD) ** 2 + (1 - t) ** 2)
    log_p = lambda y: jnp.sum(
        jax.scipy.stats.norm.logpdf(y, jnp.asarray(t * MEAN), jnp.asarray(spread))
    )
    found = convert(path, t, x, velocity, "velocity", "score")
    np.testing.assert_allclose(found, jax.grad(log_p)(x), rtol=1e-10)

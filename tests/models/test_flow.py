from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgen.bijectors import (
    actnorm,
    affine,
    autoregressive_flow,
    compose,
    continuous,
    coupling,
    coupling_flow,
    flip,
    frozen,
    inverted,
    permutation,
    plu,
    rational_quadratic,
    repeated,
    residual,
)
from jgen.generative_model import Batch, GenerativeModel, draw
from jgen.models import Base, flow, flow_matching, sample_and_log_prob, standard_normal, uniform
from jgen.nets import Network, velocity_mlp
from jgen.nets.conditioners import conditioner
from jgen.paths import variance_preserving
from jgen.solvers import runge_kutta
from jgen.transforms import preprocessed

COVARIANCE = np.array([[1.0, 0.8], [0.8, 1.0]])


def train(model, x, cond=None, *, steps, rate=0.02, batch=256, seed=0):
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))
    key = jax.random.key(seed)

    def step(carry, key):
        params, state = carry
        rows = jax.random.randint(key, (batch,), 0, len(x))
        data = Batch(x[rows], None if cond is None else cond[rows])
        loss, gradient = jax.value_and_grad(model.loss)(params, key, data)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), loss

    @jax.jit
    def run(key):
        params = model.init(key)
        return jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(key, steps))

    return run(key)[0][0]


def test_training_reaches_the_entropy_of_a_conditional_gaussian():
    """x | c ~ N((c, -c), C): the loss of the trained flow is the entropy, for every condition."""
    rng = np.random.default_rng(0)
    cond = rng.uniform(-1, 1, (20_000, 1))
    x = rng.multivariate_normal([0, 0], COVARIANCE, len(cond)) + cond * np.array([[1, -1]])
    x, cond = jnp.asarray(x, jnp.float32), jnp.asarray(cond, jnp.float32)
    model = flow(coupling_flow(2, affine(), 2, 1, hidden=(8,)), 2)
    params = train(model, x[:15_000], cond[:15_000], steps=400)

    entropy = np.log(2 * np.pi * np.e) + 0.5 * np.log(np.linalg.det(COVARIANCE))
    nll = -jax.jit(jax.vmap(model.log_prob, (None, None, 0, 0)))(
        params, jax.random.key(0), x[15_000:], cond[15_000:]
    )
    # -log p of a two-dimensional Gaussian has variance one.
    assert abs(nll.mean() - entropy) < 0.01 + 4 / len(nll) ** 0.5

    n = 4000
    drawn = draw(model, params, jax.random.key(1), n, np.full((n, 1), 0.5), batch_size=n)
    np.testing.assert_allclose(drawn.mean(0), [0.5, -0.5], atol=0.03 + 4 / n**0.5)
    np.testing.assert_allclose(np.cov(drawn.T), COVARIANCE, atol=0.05 + 4 * 1.5 / n**0.5)


@pytest.mark.study
def test_residual_flow_trains_with_russian_roulette():
    """The unbiased gradient finds the scale of a Gaussian, which a wrong one would miss."""
    x = 0.7 * jax.random.normal(jax.random.key(0), (4000, 2))
    layer = residual(2, hidden=(8,), lipschitz=0.8, log_det="russian_roulette")
    params = train(flow(layer, 2), x, steps=300)
    exact = flow(residual(2, hidden=(8,), lipschitz=0.8), 2)
    loss = jax.jit(exact.loss)(params, jax.random.key(1), Batch(x))
    best = -jnp.mean(jax.scipy.stats.norm.logpdf(x, 0, 0.7).sum(1))
    assert best - 0.02 < loss < best + 0.03


def test_density_and_loss_of_a_linear_flow(x64, key):
    """z = exp(s) (x + b) makes x normal with mean -b and width exp(-s)."""
    model = flow(actnorm(3), standard_normal(3))
    params = {"shift": jnp.array([0.1, -2.0, 0.0]), "log_scale": jnp.array([0.5, 0.0, -1.0])}
    x = jax.random.normal(key, (5, 3))
    pdf = partial(jax.scipy.stats.norm.logpdf, loc=-params["shift"][None])
    expected = pdf(x, scale=jnp.exp(-params["log_scale"])[None]).sum(1)
    found = jax.vmap(lambda x: model.log_prob(params, key, x))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    weight = jnp.linspace(0, 2, 5)
    np.testing.assert_allclose(
        model.loss(params, key, Batch(x, weight=weight)), -jnp.mean(weight * expected), rtol=1e-12
    )


def test_any_base(x64, key):
    """Uniform on a cube, and a density of another library as two functions."""
    cube = uniform(2, -1.0, 3.0)
    np.testing.assert_allclose(cube.log_prob(jnp.array([-1.0, 2.9])), -2 * np.log(4))
    assert cube.log_prob(jnp.array([0.0, 3.1])) == -jnp.inf
    drawn = jax.vmap(cube.sample)(jax.random.split(key, 2000))
    np.testing.assert_allclose(drawn.mean(0), 1, atol=4 * 4 / 12**0.5 / 2000**0.5)
    assert drawn.min() >= -1
    assert drawn.max() <= 3

    logistic = Base(
        lambda key: jax.random.logistic(key, (2,)),
        lambda z: jnp.sum(jax.scipy.stats.logistic.logpdf(z)),
    )
    model = flow(actnorm(2), logistic)
    params = {"shift": jnp.array([1.0, 2.0]), "log_scale": jnp.zeros(2)}
    np.testing.assert_allclose(model.log_prob(params, key, jnp.array([-1.0, -2.0])), -2 * np.log(4))
    drawn = jax.vmap(lambda k: model.sample(params, k))(jax.random.split(key, 4000))
    np.testing.assert_allclose(drawn.mean(0), [-1, -2], atol=4 * np.pi / 3**0.5 / 4000**0.5)


@pytest.mark.study
def test_spline_with_free_edges_learns_a_density_on_the_cube():
    """p(u) = 2 u on [0, 1] in two dimensions, moved to [-1, 1]^2: slopes at the edges are free."""
    u = jnp.sqrt(jax.random.uniform(jax.random.key(3), (8000, 2)))
    element = rational_quadratic(4, 1.0, free_edges=True)
    network = conditioner(1, element.num_params, hidden=(4,))
    halves = compose(coupling(network, element, 1), permutation(np.array([1, 0])))
    model = flow(repeated(halves, 2), uniform(2, -1, 1))
    params = train(model, 2 * u - 1, steps=300)
    loss = jax.jit(model.loss)(params, jax.random.key(0), Batch(2 * u - 1))
    # The density in 2 u - 1 is u; its entropy is one.
    truth = -jnp.mean(jnp.log(u).sum(1))
    assert abs(loss - truth) < 0.03


@pytest.mark.parametrize("inverse", [False, True])
def test_sample_with_its_density_in_one_pass(key, inverse):
    bijector = autoregressive_flow(3, affine(), 2, hidden=(6,))
    bijector = inverted(bijector) if inverse else bijector
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda p: jnp.asarray(0.5 * rng.normal(size=p.shape), p.dtype),
        jax.eval_shape(bijector.init, key),
    )
    model = flow(bijector, 3)
    x, log_prob = sample_and_log_prob(bijector, standard_normal(3), params, key)
    np.testing.assert_allclose(x, model.sample(params, key), rtol=1e-6)
    np.testing.assert_allclose(log_prob, model.log_prob(params, key, x), atol=1e-4)


def test_flow_matched_velocity_is_a_bijector(x64, key):
    """Same network, same parameters: density of flow matching, samples and preprocessing."""
    network, path = velocity_mlp(2, 1, hidden=(4,), time_features=2), variance_preserving()
    solver = runge_kutta("rk4", 10)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda p: jnp.asarray(0.3 * rng.normal(size=p.shape)),
        jax.eval_shape(network.init, key),
    )
    matched = flow_matching(network, (2,), path=path, solver=solver)
    bijector = continuous(network, solver=solver, path=path)
    model = flow(bijector, 2)
    x, cond = jnp.array([0.3, -0.2]), jnp.ones(1)
    log_prob = model.log_prob(params, key, x, cond)
    np.testing.assert_allclose(log_prob, matched.log_prob(params, key, x, cond), rtol=1e-12)
    gaussian = GenerativeModel(
        None, None, None, lambda params, key, z, cond: standard_normal(2).log_prob(z)
    )
    moved = preprocessed(gaussian, frozen(bijector, params))
    np.testing.assert_allclose(moved.log_prob({}, key, x, cond), log_prob, rtol=1e-12)
    probes = flow(continuous(network, solver=solver, path=path, divergence="hutchinson"), 2)
    estimates = [probes.log_prob(params, jax.random.key(i), x, cond) for i in range(2, 6)]
    assert np.ptp(estimates) > 0


def test_first_batch_sets_the_start_of_every_member(key):
    x = 5 + 2 * jax.random.normal(key, (500, 2))
    model = flow(compose(actnorm(2), plu(2)), 2, first_batch=(x, None))
    params = jax.vmap(model.init)(jax.random.split(key, 2))
    losses = jax.vmap(lambda p: model.loss(p, key, Batch(x)))(params)
    expected = np.log(2 * np.pi * np.e) + jnp.log(x.std(0)).sum()
    np.testing.assert_allclose(losses, expected, atol=1e-4)


def test_bad_input():
    with pytest.raises(ValueError, match="leave first_batch out"):
        flow(plu(2), 2, first_batch=(jnp.ones((3, 2)), None))
    with pytest.raises(ValueError, match="low must be below high"):
        uniform(2, 1.0, 1.0)


def test_events_of_the_wrong_size_are_refused(key):
    """As soon as the loss is traced, with both sizes named."""
    model = flow(plu(5), 5)
    wide = flow(flip(), 5)
    with pytest.raises(ValueError, match=r"base has the shape \(5,\), .* of shape \(6,\)"):
        jax.eval_shape(wide.loss, wide.init(key), key, Batch(jnp.zeros((3, 6))))
    with pytest.raises((ValueError, TypeError), match="6"):
        jax.eval_shape(model.loss, model.init(key), key, Batch(jnp.zeros((3, 6))))


def test_a_pair_of_functions_is_a_network(key):
    """In any tuple, where a `Network` is asked for."""
    pair = (lambda key: jnp.ones(2), lambda params, t, x, cond: params * x)
    as_pair, as_network = flow_matching(pair, (2,)), flow_matching(Network(*pair), (2,))
    found, expected = (m.sample(m.init(key), key) for m in (as_pair, as_network))
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(TypeError, match=r"a network is a pair of functions \(init, apply\)"):
        flow_matching(3, (2,))

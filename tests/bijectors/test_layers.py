"""What single layers have to hold beyond being bijectors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.bijectors import (
    TrainableBijector,
    actnorm,
    additive,
    affine,
    compose,
    conditioned,
    continuous,
    coupling,
    coupling_flow,
    flip,
    frozen,
    glow,
    householder,
    level_shapes,
    multi_scale,
    permutation,
    pixelwise,
    plu,
    rational_quadratic,
    repeated,
    residual,
    squeeze,
    stacked,
    standardize,
)
from jgen.bijectors.elementwise import Bijector
from jgen.bijectors.residual import leading_singular_vector, power_series_log_det
from jgen.nets import Network
from jgen.nets.conditioners import conditioner, image_conditioner
from jgen.nets.made import made
from jgen.solvers import runge_kutta
from tests.helpers import random_params

jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
RNG = np.random.default_rng(5)


def jacobian(bijector, params, num):
    return jax.jacfwd(lambda x: bijector.forward(params, x)[0])(jnp.zeros(num))


def test_made_sees_what_came_before_and_nothing_else(x64):
    network = made(4, 3, 1, hidden=(9, 8))
    params = random_params(network.init, 0.5)
    x, cond = jnp.array([0.3, -1.0, 0.8, 0.1]), jnp.array([0.5])
    depends = np.abs(jit(jax.jacfwd(network.contexts, 1))(params, x, cond)).max(1) > 0
    np.testing.assert_array_equal(depends, np.tril(np.ones((4, 4), bool), -1))
    on_cond = jit(jax.hessian(network.contexts, 2))(params, x, cond)
    assert (np.abs(on_cond).max((1, 2, 3)) > 1e-4).all()  # no row is linear in the condition

    cache, rows = network.start(params, cond), []
    for i in range(4):
        row, cache = network.step(params, cache, i, x[i - 1] if i else 0.0)
        rows.append(row)
    np.testing.assert_allclose(rows, network.contexts(params, x, cond), atol=1e-12)


def test_networks_start_at_zero_and_use_the_condition():
    causal, dense = made(3, 2, 1, hidden=(4,)), conditioner(3, 2, 1, hidden=(4,))
    image = image_conditioner(2, 3, 1, hidden=(4,), padding="periodic")
    cases = [
        (causal.contexts, causal.init, jnp.ones(3)),
        (dense.apply, dense.init, jnp.ones(3)),
        (image.apply, image.init, jnp.ones((4, 4, 2))),
    ]
    for apply, init, x in cases:
        start = jax.jit(init)(jax.random.key(0))
        np.testing.assert_array_equal(apply(start, x, jnp.ones(1)), 0)
        assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(start))
        params = random_params(init, 0.5)
        assert not np.allclose(apply(params, x, jnp.ones(1)), apply(params, x, jnp.zeros(1)))


def test_periodic_convolutions_commute_with_translations_and_see_their_neighbours(x64):
    periodic, zero = (image_conditioner(1, 1, hidden=(), padding=p) for p in ("periodic", "zero"))
    params = random_params(periodic.init, 0.5)
    x = jnp.asarray(RNG.normal(size=(5, 6, 1)))
    moved = lambda a: jnp.roll(a, (2, 3), (0, 1))
    np.testing.assert_allclose(
        periodic.apply(params, moved(x)), moved(periodic.apply(params, x)), atol=1e-12
    )
    seen = lambda network: np.abs(jax.jacfwd(network.apply, 1)(params, x)[0, 0, 0, :, :, 0]) > 0
    corner = np.zeros((5, 6), bool)
    corner[:2, :2] = True
    np.testing.assert_array_equal(seen(zero), corner)
    np.testing.assert_array_equal(seen(periodic).sum(), 9)


def test_linear_layers_are_their_matrices(x64):
    order = np.array([2, 0, 1])
    layer = plu(3, order)
    params = random_params(layer.init, 0.5)
    off, scale = np.asarray(params["off_diagonal"]), np.exp(params["log_scale"])
    lower = np.tril(off, -1) + np.eye(3)
    upper = np.triu(off, 1) + np.diag(scale)
    np.testing.assert_allclose(
        jacobian(layer, params, 3), lower @ upper @ np.eye(3)[order], atol=1e-12
    )
    start = jax.eval_shape(layer.init, jax.random.key(0))
    start = jax.tree.map(lambda p: jnp.zeros(p.shape), start)
    np.testing.assert_allclose(jacobian(plu(3), start, 3), np.eye(3)[::-1], atol=1e-15)

    layer = householder(3)
    matrix = jacobian(layer, random_params(layer.init, 0.5), 3)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.abs(matrix - np.eye(3)).max() > 0.1
    zero = layer.forward({"vectors": jnp.zeros((3, 3))}, jnp.ones(3))[0]
    np.testing.assert_array_equal(zero, 1)


def test_first_batch_standardizes_every_layer():
    x = jnp.asarray(3 + 5 * RNG.normal(size=(300, 2, 2, 1)), jnp.float32)
    steps = repeated(compose(pixelwise(compose(actnorm(4), plu(4)))), 2)
    bijector = multi_scale((2, 2, 1), steps)
    params = bijector.data_init(jit(bijector.init)(jax.random.key(0)), x)
    z, _ = jit(jax.vmap(bijector.forward, (None, 0)))(params, x)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(0), 1, atol=1e-5)

    # Behind a layer that moves the data, and with a component that does not vary.
    double = standardize(np.zeros(2), np.full(2, 0.5))
    bijector = compose(double, actnorm(2))
    x = jnp.stack([jnp.arange(5.0), jnp.ones(5)], 1)
    params = bijector.data_init(bijector.init(jax.random.key(0)), x)
    np.testing.assert_allclose(params[1]["shift"], [-4, -2])
    np.testing.assert_allclose(params[1]["log_scale"], [-np.log(8**0.5), 0], rtol=1e-6)
    # The mean of many equal numbers is rounded, and so their standard deviation is not zero.
    x = jnp.broadcast_to(jnp.array([0.1, 1e5 / 3]), (1000, 2))
    params = actnorm(2).data_init(actnorm(2).init(jax.random.key(0)), x)
    np.testing.assert_array_equal(params["log_scale"], 0)
    assert bijector.data_init is not None
    assert compose(double, flip()).data_init is None
    # Of fixed maps alone it is a fixed one.
    assert isinstance(compose(double, double), Bijector)


def test_repeated_is_the_sequence_of_its_layers_and_draws_parameters_for_each(x64):
    layer = compose(householder(3), actnorm(3))
    deep, params = repeated(layer, 3), random_params(repeated(layer, 3).init, 0.5)
    unrolled = compose(layer, layer, layer)
    each = [jax.tree.map(lambda p: p[i], params) for i in range(3)]  # noqa: B023
    x = jnp.array([0.3, -1.0, 2.0])
    for name in ("forward", "inverse"):
        found, expected = getattr(deep, name)(params, x), getattr(unrolled, name)(each, x)
        np.testing.assert_allclose(found[0], expected[0], atol=1e-12)
        np.testing.assert_allclose(found[1], expected[1], atol=1e-12)
    vectors = np.asarray(jit(deep.init)(jax.random.key(0))[0]["vectors"])
    assert len(np.unique(vectors)) == vectors.size == 27

    orders = np.array([[1, 2, 0], [0, 2, 1]])
    z, _ = stacked(permutation, orders).forward({}, x)
    np.testing.assert_array_equal(z, x[orders[0]][orders[1]])


def test_keys_reach_the_layers_and_differ():
    noisy = TrainableBijector(
        lambda key: {},
        lambda params, x, cond=None, key=None: (x, jax.random.normal(key)),
        lambda params, z, cond=None, key=None: (z, -jax.random.normal(key)),
    )
    key, x = jax.random.key(1), jnp.ones(1)
    alone = noisy.forward({}, x, None, key)[1]
    for bijector, params, event in (
        (compose(noisy, noisy), [{}, {}], x),
        (repeated(noisy, 2), {}, x),
        (pixelwise(noisy), {}, jnp.ones((2, 1))),
        (multi_scale((4, 4, 1), noisy, noisy), [{}, {}], jnp.ones((4, 4, 1))),
    ):
        found = bijector.forward(params, event, None, key)[1]
        expected = sum(jax.random.normal(k) for k in jax.random.split(key, 2))
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert not np.allclose(found, 2 * alone)


def test_spectral_norm_and_lipschitz_bound(x64):
    for shape in ((5, 8), (8, 5), (3, 1)):
        matrix = RNG.normal(size=shape)
        found = np.linalg.norm(matrix @ leading_singular_vector(jnp.asarray(matrix)))
        np.testing.assert_allclose(found, np.linalg.svd(matrix)[1][0], rtol=1e-6)
    np.testing.assert_array_equal(leading_singular_vector(jnp.zeros((3, 2))), 0)

    layer = residual(3, hidden=(8, 8), lipschitz=0.7)
    params = random_params(layer.init, 5.0)
    x = jnp.asarray(2 * RNG.normal(size=(200, 3)))
    slopes = jit(jax.vmap(jax.jacfwd(lambda x: layer.forward(params, x)[0] - x)))(x)
    norms = np.linalg.norm(slopes, 2, axis=(1, 2))
    assert 0.1 < norms.max() < 0.7


def test_russian_roulette_is_unbiased_in_value_and_gradient(x64, key):
    layers = {
        # A small constant: the longest of all series sets the time of the loop.
        name: residual(3, hidden=(6,), lipschitz=0.7, log_det=name)
        for name in ("exact", "russian_roulette")
    }
    params = random_params(layers["exact"].init, 1.0, seed=2)
    x = jnp.array([0.4, -0.3, 1.0])

    def value_and_gradient(name, key):
        log_det = lambda p, x: layers[name].forward(p, x, None, key)[1]
        value, gradient = jax.value_and_grad(log_det, (0, 1))(params, x)
        return jnp.concatenate([value[None], *map(jnp.ravel, jax.tree.leaves(gradient))])

    exact = jit(partial(value_and_gradient, "exact"))(None)
    n = 6000
    keys = jax.random.split(key, n)
    estimates = np.asarray(jit(jax.vmap(partial(value_and_gradient, "russian_roulette")))(keys))
    errors = estimates.std(0) / n**0.5
    assert errors[0] > 1e-4
    pulls = (estimates.mean(0) - exact) / np.maximum(errors, 1e-12)
    assert np.abs(pulls).max() < 4.5
    assert np.abs(exact[0]) > 20 * errors[0]

    # The inverse has the opposite of the estimate at the same point, and refuses without a key.
    @jit
    def there_and_back(x):
        z, forward = layers["russian_roulette"].forward(params, x, None, key)
        return forward, *layers["russian_roulette"].inverse(params, z, None, key)

    forward, back, inverse = there_and_back(x)
    np.testing.assert_allclose([*back, inverse], [*x, -forward], atol=1e-9)
    with pytest.raises(ValueError, match="needs a key"):
        layers["russian_roulette"].forward(params, x)


def test_power_series_of_a_matrix(x64, key):
    """The estimate of log det(1 + A) for a linear map, whose powers are known."""
    matrix = jnp.array([[0.5, 0.2], [-0.3, 0.4]])
    g = lambda a, x: a @ x
    estimate = jax.vmap(lambda k: power_series_log_det(g, matrix, jnp.zeros(2), k, 0.8))
    estimates = jit(estimate)(jax.random.split(key, 20_000))
    exact = np.linalg.slogdet(np.eye(2) + matrix)[1]
    np.testing.assert_allclose(
        estimates.mean(), exact, atol=4 * estimates.std() / len(estimates) ** 0.5
    )


def linear_flow(divergence, steps=60):
    apply = lambda matrix, t, x, cond: matrix @ x
    network = Network(lambda key: jnp.zeros((3, 3)), apply)
    return continuous(network, solver=runge_kutta("rk4", steps), divergence=divergence)


def test_continuous_flow_of_a_matrix_and_hutchinson(x64, key):
    matrix = jnp.asarray(RNG.normal(size=(3, 3)))
    z = jnp.array([0.2, -1.0, 0.5])
    x, log_det = linear_flow("exact").inverse(matrix, z)
    np.testing.assert_allclose(x, jax.scipy.linalg.expm(matrix) @ z, rtol=1e-6)
    np.testing.assert_allclose(log_det, np.trace(matrix), rtol=1e-12)

    estimate = lambda k: linear_flow("hutchinson", 1).forward(matrix, x, None, k)[1]
    estimates = jit(jax.vmap(estimate))(jax.random.split(key, 4000))
    error = estimates.std() / 4000**0.5
    assert error > 0
    np.testing.assert_allclose(estimates.mean(), -np.trace(matrix), atol=4 * error)
    with pytest.raises(ValueError, match="needs a key"):
        linear_flow("hutchinson").forward(matrix, x)


def test_nice_keeps_volumes_and_frozen_maps_are_plain_bijectors(x64):
    nice = coupling_flow(4, additive(), 2, 1, hidden=(4,))
    params = random_params(nice.init, 0.5)
    scales = np.sum(params[1]["log_scale"])  # of the PLU layers
    x, cond = jnp.array([0.3, 1.0, -2.0, 0.1]), jnp.ones(1)
    z, log_det = nice.forward(params, x, cond)
    np.testing.assert_allclose(log_det, scales, rtol=1e-12)

    plain = frozen(nice, params)
    assert isinstance(plain, Bijector)
    assert plain.has_log_det
    np.testing.assert_array_equal(plain.forward(x, cond)[0], z)
    np.testing.assert_allclose(plain.inverse(z, cond)[0], x, atol=1e-12)


def test_squeeze_keeps_neighbours_together():
    x = jnp.arange(16.0).reshape(4, 4, 1)
    z, log_det = squeeze(2).forward({}, x)
    assert z.shape == (2, 2, 4)
    np.testing.assert_array_equal(z[0, 1], [2, 3, 6, 7])
    assert log_det == 0
    assert level_shapes((8, 8, 1), 3) == [(4, 4, 4), (2, 2, 8), (1, 1, 16)]


def test_bad_input(key):
    x = jnp.ones(2)
    with pytest.raises(ValueError, match="at least one bijector"):
        compose()
    with pytest.raises(ValueError, match="depth must be a whole number from 1"):
        repeated(flip(), 0)
    with pytest.raises(ValueError, match="one leading axis of layers"):
        stacked(lambda c: flip(), (np.zeros(2), np.zeros(3)))
    with pytest.raises(ValueError, match="each of 0 to num - 1 once"):
        stacked(permutation, np.array([[0, 1], [1, 1]]))
    with pytest.raises(ValueError, match="needs a log-determinant"):
        compose(Bijector(lambda x, c: (x, None), lambda z, c: (z, None), has_log_det=False), flip())
    spline = coupling(conditioner(1, 3), rational_quadratic(4), 1)
    with pytest.raises(ValueError, match="11 parameters need 11 numbers"):
        spline.forward(random_params(conditioner(1, 3).init, 0.5), x)
    with pytest.raises(ValueError, match="num_fixed must be between 1 and 1"):
        coupling(conditioner(2, 3), affine(), 2).forward({}, x)
    layer = conditioned(actnorm(2), conditioner(1, 3))
    with pytest.raises(ValueError, match="the map has 4 parameters"):
        layer.forward(random_params(layer.init, 0.5), x, jnp.ones(1))
    with pytest.raises(ValueError, match="lipschitz must be between 0 and 1"):
        residual(2, lipschitz=1.0)
    with pytest.raises(ValueError, match="log_det must be one of .*'skilling'"):
        residual(2, log_det="skilling")
    with pytest.raises(ValueError, match="made for num_cond=1"):
        residual(2, 1).forward(random_params(residual(2, 1).init, 0.5), x)
    with pytest.raises(ValueError, match="made for num_cond=0"):
        made(2, 1).contexts(random_params(made(2, 1).init, 0.5), x, x)
    with pytest.raises(ValueError, match="hidden must be the widths of 1 to"):
        made(2, 1, hidden=())
    with pytest.raises(ValueError, match="unknown divergence"):
        linear_flow("skilling")
    with pytest.raises(ValueError, match="multiples of 2"):
        glow((6, 6, 1), 2, 1)
    with pytest.raises(ValueError, match="must be multiples of 3"):
        squeeze(3).forward({}, jnp.ones((4, 4, 1)))
    with pytest.raises(ValueError, match="num must be a whole number from 2"):
        coupling_flow(1, affine(), 2)
    with pytest.raises(ValueError, match="padding must be one of"):
        image_conditioner(1, 1, padding="same")
    with pytest.raises(ValueError, match="num_reflections must be a whole number"):
        householder(3, 0)

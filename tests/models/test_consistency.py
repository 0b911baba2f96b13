"""Consistency models against flow maps that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from jgen.couplings import optimal_transport
from jgen.generative_model import Batch, draw, loss_at
from jgen.models import (
    consistency,
    consistency_function,
    distilled,
    doubling,
    flow_matching,
    noised,
    trajectory_ends,
)
from jgen.nets import Network, velocity_mlp
from jgen.paths import cosine, edm, linear, variance_preserving
from jgen.solvers import runge_kutta
from jgen.training import make_step

MEAN, STD = 0.5, 0.4
PATHS = {"linear": linear(), "vp": variance_preserving(), "edm": edm(0.02, 80.0)}


def width(path, t):
    return jnp.sqrt((path.alpha(t) * STD) ** 2 + path.sigma(t) ** 2)


def velocity(path, t, x):
    """Of data N(MEAN, STD^2): x(t) keeps its distance to the mean in units of the width."""
    d = lambda f: jax.jvp(f, (t,), (jnp.ones_like(t),))[1]
    mean, rate = d(path.alpha) * MEAN, d(lambda t: jnp.log(width(path, t)))
    return mean + rate * (x - path.alpha(t) * MEAN)


def flow_map(path, t, x):
    """Exact x(t_max) on the trajectory through x(t) = x."""
    end = jnp.asarray(path.t_max, jnp.result_type(t))
    scale = width(path, end) / width(path, t)
    return path.alpha(end) * MEAN + scale * (x - path.alpha(t) * MEAN)


def exact(path):
    """A network with params 0 the exact velocity, with params 1 what makes f the exact map."""
    line = lambda t, x, u: consistency_function(
        Network(lambda key: {}, lambda p, t, x, c: u * jnp.ones_like(x)), path
    )(None, t, x)

    def apply(params, t, x, cond):
        skip = line(t, x, 0.0)
        slope = line(t, x, 1.0) - skip
        # At the end of the path the slope is zero and any value will do.
        student = (flow_map(path, t, x) - skip) / jnp.where(slope == 0, 1.0, slope)
        return jnp.where(params > 0.5, student, velocity(path, t, x))

    return Network(lambda key: jnp.zeros(()), apply)


def data(key, num=4000):
    return Batch(MEAN + STD * jax.random.normal(key, (num, 2)))


@pytest.mark.parametrize("prediction", ["velocity", "data", "noise", "score", "v"])
@pytest.mark.parametrize("path", [linear(), variance_preserving(), cosine(), edm()])
def test_at_the_end_the_function_is_the_identity_whatever_the_network(key, path, prediction):
    if path.sigma(jnp.float32(path.t_max)) == 0 and prediction in ("data", "score"):
        with pytest.raises(ValueError, match="is 0 at t_"):
            consistency(velocity_mlp(2), (2,), path=path, prediction=prediction)
        return
    network = Network(lambda key: {}, lambda p, t, x, c: jnp.sin(3 * x) + p)
    f = consistency_function(network, path, prediction)
    x, params = jnp.array([0.3, -2.0]), jnp.array([5.0, -7.0])
    t = jnp.float32(path.t_max)
    np.testing.assert_allclose(f(params, t, x), x, rtol=1e-5)
    gradient = jax.grad(lambda p: jnp.sum(f(p, t, x)))(params)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize("path", PATHS)
def test_it_starts_at_the_mean_of_the_data_that_the_teacher_knows(path):
    """One step from x(t) to the end: E[x1 | x(t)] but for what the path's end has of noise."""
    path, t, x = PATHS[path], jnp.float32(0.3), jnp.array([0.3, -2.0])
    found = consistency_function(exact(path), path)(jnp.zeros(()), t, x)
    alpha, sigma = path.alpha(t), path.sigma(t)
    data = MEAN + alpha * STD**2 / width(path, t) ** 2 * (x - alpha * MEAN)
    end = jnp.float32(path.t_max)
    expected = path.alpha(end) * data + path.sigma(end) / sigma * (x - alpha * data)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("path", "method", "order"),
    [("linear", "kutta38", 4), ("vp", "euler", 1), ("edm", "heun", 2)],
)
def test_the_flow_map_solves_distillation_to_the_order_of_the_solver(x64, key, path, method, order):
    """Its loss is the error of one step: a squared one goes like h^(2 order), h the interval."""
    path, batch = PATHS[path], data(key)

    @jax.jit
    def loss(count):
        model = consistency(
            exact(path),
            (2,),
            path=path,
            teacher=np.zeros(()),
            solver=runge_kutta(method, 1),
            intervals=lambda done: count,
            huber=None,
        )
        return model.loss(jnp.ones(()), key, batch)

    losses = [loss(count) for count in (64.0, 128.0)]
    assert np.log2(losses[0] / losses[1]) == pytest.approx(2 * order, abs=0.35)


@pytest.mark.parametrize(("path", "steps"), [("linear", 4), ("vp", 2), ("edm", 1), ("edm", 4)])
def test_samples_of_the_flow_map_have_the_right_moments_for_any_number_of_steps(key, path, steps):
    path, num = PATHS[path], 10_000
    model = consistency(exact(path), (1,), path=path, steps=steps)
    x = draw(model, jnp.ones(()), key, num, batch_size=num)
    end = jnp.float32(path.t_max)
    std = float(width(path, end))
    np.testing.assert_allclose(x.mean(), path.alpha(end) * MEAN, atol=4 * std / num**0.5 + 2e-3)
    np.testing.assert_allclose(x.std(), std, atol=4 * std / (2 * num) ** 0.5 + 2e-3)


def test_noise_is_added_as_on_the_path(key):
    """x(t) given x(t_max) has the path's distribution, and at t_max nothing is added."""
    path, t = variance_preserving(), jnp.float32(0.8)
    end = jnp.float32(path.t_max)
    keys = jax.random.split(key, 2)
    x0, noise = (jax.random.normal(k, (20_000,)) for k in keys)
    last = path.alpha(end) * 2.0 + path.sigma(end) * x0
    found = noised(path, t, noise, last)
    np.testing.assert_allclose(found.mean(), 2 * path.alpha(t), atol=4 * path.sigma(t) / 2e4**0.5)
    np.testing.assert_allclose(found.std(), path.sigma(t), rtol=4 / (2 * 2e4) ** 0.5)
    np.testing.assert_allclose(noised(path, end, noise, last), last, rtol=1e-6)


def table(num):
    """A velocity a + b x for each of `num` + 1 times of a linear path, interpolated between."""

    def apply(params, t, x, cond):
        row = t * num
        at = lambda name: jnp.interp(row, jnp.arange(num + 1.0), params[name])
        return at("offset") + at("slope") * x

    return Network(lambda key: {name: jnp.zeros(num + 1) for name in ("offset", "slope")}, apply)


def trained_maps(key, num, steps, rate, **options):
    """Function of a number of intervals, a divisor of `num`: slope and offset of f(0, x) after
    training on the table, in one compiled loop; and the data."""
    network, batch = table(num), data(key)
    batch = batch._replace(x=batch.x.reshape(-1, 1))
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

    @jax.jit
    def run(count):
        model = consistency(network, (1,), intervals=lambda done: count, huber=None, **options)
        step = make_step(model, optimizer, 256)
        update = lambda s, _: step.update(s, key, batch)
        state, metrics = jax.lax.scan(update, step.init(key), length=steps)
        f = lambda x: consistency_function(network, linear())(state.params, jnp.float32(0), x)
        return f(jnp.zeros(1))[0], f(jnp.ones(1))[0], metrics["grad_norm"]

    def trained(count):
        zero, one, gradients = run(jnp.float32(count))
        assert np.all(np.isfinite(gradients))
        return float(one - zero), float(zero)

    return trained, batch.x


def exact_table(num):
    """Parameters of the exact velocity at the times of the table."""
    path, times = linear(), jnp.arange(num + 1.0) / num
    zero, one = (jax.vmap(lambda t: velocity(path, t, jnp.float32(x)))(times) for x in (0, 1))  # noqa: B023
    return {"offset": zero, "slope": one - zero}


def test_distillation_learns_the_solution_of_the_solver_and_so_the_flow_map(key):
    """With N intervals f(0, x) becomes N steps of Heun's method, whose error falls as N^-2."""
    trained, _ = trained_maps(key, 8, 2000, 0.03, teacher=exact_table(8))
    errors = {}
    for num in (4, 8):
        slope, offset = trained(num)
        solver = runge_kutta("heun", num)
        u = lambda t, x: velocity(linear(), t, x)
        expected = [float(solver(u, jnp.float32(x))) for x in (0, 1)]
        np.testing.assert_allclose(offset, expected[0], atol=1e-3)
        np.testing.assert_allclose(slope, expected[1] - expected[0], atol=1e-3)
        errors[num] = abs(slope - STD)
    assert errors[4] > 5e-3
    assert errors[8] < 0.55 * errors[4]  # Heun's error is 0.0069, 0.0033, 0.0010 for N = 4, 8, 16


@pytest.mark.parametrize("huber", [None, 0.05])
def test_distilled_learns_what_the_solver_makes_of_the_noise(key, huber):
    num, solver, network = 4, runge_kutta("heun", 4), table(4)
    teacher = exact_table(num)
    pool = draw(trajectory_ends(network, (1,), solver=solver), teacher, key, 1000)
    u = lambda t, x: velocity(linear(), t, x)
    zero, one = (float(solver(u, jnp.float32(x))) for x in (0, 1))
    np.testing.assert_allclose(pool[1], zero + (one - zero) * pool[0], atol=1e-5)
    np.testing.assert_allclose(pool[0].std(), 1, atol=5 / 2000**0.5)
    model = distilled(network, (1,), teacher=teacher, huber=huber)
    batch = Batch(jax.tree.map(jnp.asarray, pool))
    step = make_step(model, optax.adam(optax.cosine_decay_schedule(0.03, 500)), 256)
    run = lambda s: jax.lax.scan(lambda s, _: step.update(s, key, batch), s, length=500)[0]
    params = jax.jit(run)(step.init(key)).params
    f = jax.jit(lambda x: consistency_function(network, linear())(params, jnp.float32(0), x))
    np.testing.assert_allclose(f(jnp.zeros(1)), zero, atol=1e-3)
    np.testing.assert_allclose(f(jnp.ones(1)), one, atol=1e-3)
    # It samples what it has learnt.
    np.testing.assert_allclose(
        draw(model, params, key, 1000)[:, 0].std(), one - zero, rtol=5 / 2000**0.5
    )


def test_a_distance_of_large_c_has_the_mean_at_its_least_one_of_small_c_the_median():
    """Of ends that are 1 with a probability of 0.3, whatever the noise, and 0 otherwise."""
    network = Network(lambda key: jnp.zeros(()), lambda p, t, x, c: p - x)  # f(0, x) = p
    ends = jnp.asarray(np.arange(10) < 3, jnp.float32)[:, None]
    batch, values = Batch((jnp.zeros((10, 1)), ends)), jnp.linspace(-0.2, 1.2, 141)
    for huber, least in ((None, 0.3), (10.0, 0.3), (1e-3, 0.0)):
        model = distilled(network, (1,), teacher=jnp.zeros(()), huber=huber)
        losses = jax.vmap(lambda p: model.loss(p, jax.random.key(0), batch))(values)  # noqa: B023
        assert values[np.argmin(losses)] == pytest.approx(least, abs=0.011)


def expected_slope(num, std):
    """Of the map that training on data of this width converges to.

    Its best f(t_n) is the mean of f(t_{n+1}) given x(t_n), of pairs with the same x0 and x1, so
    the slopes of these regressions multiply.
    """
    t = np.arange(num + 1) / num
    covariance = t[:-1] * t[1:] * std**2 + (1 - t[:-1]) * (1 - t[1:])
    return np.prod(covariance / ((t[:-1] * std) ** 2 + (1 - t[:-1]) ** 2))


def test_training_learns_the_flow_map_up_to_a_bias_of_the_grid(key):
    """The bias is known, and falls as 1 / N to the exact map's slope, the width of the data."""
    trained, x = trained_maps(key, 16, 4000, 0.03)
    mean, std = float(x.mean()), float(x.std())
    for num in (4, 16):
        slope, offset = trained(num)
        assert slope == pytest.approx(expected_slope(num, std), abs=0.01)
        assert offset == pytest.approx(mean, abs=0.02)
    biases = [STD - expected_slope(num, STD) for num in (256, 512)]
    assert biases[0] == pytest.approx(2 * biases[1], rel=0.02)
    assert abs(biases[0]) < 0.01


def two_modes(num=4000):
    """Two narrow modes under a condition that shifts them."""
    rng = np.random.default_rng(0)
    cond = rng.uniform(-1, 1, size=(num, 1)).astype(np.float32)
    x = rng.choice([-1.0, 1.0], size=(num, 1)) + 0.1 * rng.normal(size=(num, 1)) + cond
    return Batch(jnp.asarray(x, jnp.float32), jnp.asarray(cond))


def distance(model, params, batch, key):
    """W1 of the modes, with the condition taken off, to the exact ones."""
    num = len(batch.cond)
    x = draw(model, params, key, num, batch.cond, batch_size=num) - np.asarray(batch.cond)
    grid = scipy.stats.norm.ppf((np.arange(num // 2) + 0.5) / (num // 2))
    exact = np.concatenate([-1 + 0.1 * grid, 1 + 0.1 * grid])
    return scipy.stats.wasserstein_distance(x[:, 0], exact)


@pytest.mark.study
def test_one_call_makes_both_modes_with_and_without_a_teacher(key):
    """One step of Euler's method makes their mean instead, at a distance of 1."""
    network, data = velocity_mlp(1, 1, hidden=(32, 32)), two_modes()

    def train(model, steps=600):
        optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
        step = make_step(model, optimizer, 128, ema_decay=0.98, steps=steps)
        run = lambda s: jax.lax.scan(lambda s, _: step.update(s, key, data), s, length=steps)[0]
        return jax.jit(run)(step.init(key)).average

    teacher = train(flow_matching(network, (1,)))
    one = flow_matching(network, (1,), solver=runge_kutta("euler", 1))
    assert distance(one, teacher, data, key) > 0.8
    distilled = consistency(network, (1,), teacher=teacher, intervals=doubling(4, 32))
    trained = consistency(network, (1,), intervals=doubling(4, 32))
    # In the few seconds of a test both get more than half way.
    for model in (distilled, trained):
        # Both are sampled alike, and so by one program.
        assert distance(distilled, train(model), data, key) < 0.6


def test_training_is_exact_for_pairs_of_optimal_transport_on_a_line(key):
    """They lie on straight lines that do not cross, but for the fluctuations of a minibatch."""

    def straight(params, t, x, cond):
        x0 = (x - t * MEAN) / (t * STD + 1 - t)
        return MEAN + (STD - 1) * x0

    network, batch = Network(lambda key: {}, straight), data(key, 512)
    batch = batch._replace(x=batch.x[:, :1])
    loss = lambda coupling: jax.jit(
        consistency(network, (1,), coupling=coupling, intervals=8, huber=None).loss
    )({}, key, batch)
    assert loss(optimal_transport()) < 0.05 * loss(None)


def test_the_teacher_is_the_start_and_stays(key):
    network = velocity_mlp(2, hidden=(8,))
    teacher = jax.tree.map(lambda a: a + 1, network.init(key))
    model = consistency(network, (2,), teacher=teacher)
    jax.tree.map(np.testing.assert_array_equal, model.init(jax.random.key(5)), teacher)
    gradient = jax.jit(jax.grad(model.loss))(teacher, key, data(key, 8))
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradient))


def test_intervals_follow_the_progress_of_the_training(key):
    """The loss at a fraction of the training is that of the schedule's number."""
    network = Network(lambda key: jnp.ones(()), lambda p, t, x, c: p * jnp.sin(x) - t)
    batch, made = data(key, 64), lambda count: consistency(network, (2,), intervals=count)
    params = jnp.ones(())
    for options, count in (({"progress": 0.6}, 8), ({}, 16)):
        found = loss_at(made(doubling(4, 16)), params, key, batch, **options)
        np.testing.assert_allclose(found, made(count).loss(params, key, batch), rtol=1e-5)


def test_doubling_ends_at_the_last_number():
    parts = doubling()  # of the paper: 10, 20, ..., 1280 in eight parts
    found = [int(parts(done)) for done in (0.0, 0.124, 0.126, 0.5, 0.874, 0.876, 1.0)]
    assert found == [10, 10, 20, 160, 640, 1280, 1280]
    assert [int(doubling(10, 50)(done)) for done in (0.0, 0.4, 0.9, 1.0)] == [10, 20, 40, 50]


def test_bad_options_are_refused(key):
    network = velocity_mlp(2, hidden=(8,))
    zeros = lambda network: jax.tree.map(
        lambda a: np.zeros(a.shape, a.dtype), jax.eval_shape(network.init, key)
    )
    for options, message in (
        ({"intervals": 0}, "intervals must be a whole number from 1 .*got 0"),
        ({"intervals": 8.5}, "intervals must be a whole number from 1 .*got 8.5"),
        ({"huber": 0.0}, "huber must be positive and finite, got 0"),
        ({"steps": 0}, "steps must be a whole number from 1 .*got 0"),
        ({"steps": 1.5}, "steps must be a whole number from 1 .*got 1.5"),
        ({"solver": runge_kutta("heun", 1)}, "makes the steps of a teacher"),
        ({"teacher": zeros(velocity_mlp(2, hidden=(9,)))}, "do not have the shapes"),
    ):
        with pytest.raises(ValueError, match=message):
            consistency(network, (2,), **options)
    for make in (consistency, trajectory_ends):
        with pytest.raises(ValueError, match="'epsilon'"):
            make(network, (2,), prediction="epsilon")
    with pytest.raises(ValueError, match="alpha is 0 at t_min"):
        trajectory_ends(network, (2,), prediction="noise")
    teacher = zeros(network)
    with pytest.raises(ValueError, match="huber must be positive and finite, got 0"):
        distilled(network, (2,), teacher=teacher, huber=0.0)
    with pytest.raises(ValueError, match=r"draw them from trajectory_ends"):
        distilled(network, (2,), teacher=teacher).loss(teacher, key, data(key, 4))
    with pytest.raises(ValueError, match="must grow from at least 1, got 9 to 8"):
        doubling(9, 8)

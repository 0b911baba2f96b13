"""What every network on sets must do, whatever it is made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import Batch, OptimizerConfig, TrainConfig, draw, fit
from jgen.models import flow_matching
from jgen.nets import (
    EpicConfig,
    Network,
    PointWiseConfig,
    SetTransformerConfig,
    epic,
    epic_critic,
    epic_generator,
    num_parameters,
    point_wise,
    set_transformer,
)
from jgen.nets.sets import NormalizedDense
from jgen.sets import SetCondition, masked
from jgen.solvers import runge_kutta

VELOCITIES = {
    "epic": epic(3, 2, EpicConfig(16, 4, 2)),
    "point-wise": point_wise(3, 2, PointWiseConfig((16, 16), 8)),
    "set transformer": set_transformer(3, 2, SetTransformerConfig(16, 2, 2, 16)),
}
GENERATOR = epic_generator(8, 3, 2, EpicConfig(16, 4, 2))
CRITIC = epic_critic(3, 2, EpicConfig(16, 4, 1))


def generated(params, t, x, cond):
    """Points of the noise x, and of noise of the set that depends on t."""
    return GENERATOR.apply(params, {"points": x, "whole": jnp.sin(t + jnp.arange(4))}, cond)


def verdict(params, t, x, cond):
    """Every point with the critic's number, which no permutation changes."""
    return masked(jnp.full(x.shape, CRITIC.apply(params, x, cond, None)), cond)


NETWORKS = VELOCITIES | {
    "epic generator": Network(GENERATOR.init, generated),
    "epic critic": Network(CRITIC.init, verdict),
}
GIVEN = jnp.array([0.3, -1.0])


@pytest.fixture(scope="module", params=NETWORKS)
def trained(request):
    """Loss, prediction and gradients of a network with parameters that are nowhere zero."""
    network = NETWORKS[request.param]
    leaves, tree = jax.tree.flatten(network.init(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    shaken = [w + 0.3 * jax.random.normal(k, w.shape) for w, k in zip(leaves, keys, strict=True)]
    params = jax.tree.unflatten(tree, shaken)

    @jax.jit
    def evaluate(x, n):
        cond = SetCondition(n, GIVEN)
        apply = lambda p, x: network.apply(p, jnp.float32(0.4), x, cond)
        loss = lambda p, x: jnp.sum(jnp.sin(apply(p, x)))
        return apply(params, x), *jax.grad(loss, (0, 1))(params, x)

    return evaluate


def event(rows, n, filler=0.0):
    points = np.random.default_rng(2).normal(size=(8, 3)).astype(np.float32)
    x = np.full((rows, 3), filler, np.float32)
    x[:n] = points[:n]
    return x


def test_permuted_points_give_permuted_outputs(trained):
    x, order = event(8, 6), np.array([3, 0, 5, 1, 4, 2, 6, 7])
    y, _, _ = trained(x, 6)
    np.testing.assert_allclose(trained(x[order], 6)[0], y[order], atol=2e-6)
    assert np.abs(y[:6]).min() > 1e-4
    assert (np.asarray(y[6:]) == 0).all()


@pytest.mark.parametrize("filler", [0.0, 1e30, np.nan])
def test_padding_changes_no_output_and_no_gradient(trained, filler):
    y, gradient, slope = trained(event(8, 6), 6)
    wider, wider_gradient, wider_slope = trained(event(20, 6, filler), 6)
    np.testing.assert_allclose(wider[:8], y, atol=2e-6)
    assert (np.asarray(wider[6:]) == 0).all()
    assert (np.asarray(wider_slope[6:]) == 0).all()
    np.testing.assert_allclose(wider_slope[:8], slope, rtol=2e-5, atol=2e-5)
    for a, b in zip(jax.tree.leaves(wider_gradient), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [0, 1, 8])
def test_empty_and_full_sets_are_finite(trained, n):
    y, gradient, slope = trained(event(8, n), n)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((y, gradient, slope)))
    if n == 0:
        assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves((gradient, slope)))


def test_published_sizes():
    """CaloClouds II: 128, 256, 512, 256, 128 features with a context of 66 and biases on gates."""
    widths, context = (4, 128, 256, 512, 256, 128, 4), 64
    layers = sum(
        a * b + b + context * b + b + context * b
        for a, b in zip(widths[:-1], widths[1:], strict=True)
    )
    inputs = 16 + 1 + 1
    counted = num_parameters(point_wise(4, 1).init)
    assert counted == layers + inputs * context + context


def test_published_players():
    """EPiC-GAN: 128 features of a point, 10 of the set; one more input, log(1 + n), a map."""
    dense = lambda n_in, n_out: (n_in + 1) * n_out + 2 * n_out
    layer = dense(266, 128) + dense(128, 10) + dense(138, 128) + dense(128, 128)
    generator = dense(3, 128) + dense(10, 128) + dense(128, 10) + 6 * layer + dense(128, 3)
    assert num_parameters(epic_generator(30, 3).init) == generator
    critic = dense(3, 128) + dense(128, 128) + dense(256, 128) + dense(128, 10) + 3 * layer
    # The head is of the set alone, its last two maps without the number of points.
    critic += dense(266, 128) + (128 * 128 + 256) + (128 + 2)
    assert num_parameters(epic_critic(3).init) == critic


def test_members_see_their_own_parameters():
    network = NETWORKS["epic"]
    params = jax.vmap(network.init)(jax.random.split(jax.random.key(3), 2))
    cond = SetCondition(jnp.array(5), GIVEN)
    x = event(8, 5)
    # Compiled: layer by layer their shapes are looked at for half a minute.
    apply = jax.jit(network.apply)
    both = jax.jit(jax.vmap(network.apply, (0, None, None, None)))(params, 0.1, x, cond)
    for i in range(2):
        one = apply(jax.tree.map(lambda leaf: leaf[i], params), 0.1, x, cond)  # noqa: B023
        np.testing.assert_allclose(both[i], one, atol=1e-6)


def test_the_loss_of_full_sets_is_the_one_without_a_number_of_points():
    """A network that knows nothing of sets, on events whose rows are all points."""
    x = np.random.default_rng(4).normal(size=(6, 5, 3)).astype(np.float32)
    network = NETWORKS["point-wise"]
    full = SetCondition(jnp.full(6, 5), jnp.tile(GIVEN, (6, 1)))
    plain = network._replace(
        apply=lambda p, t, x, cond: network.apply(p, t, x, SetCondition(jnp.array(5), cond))
    )
    params = network.init(jax.random.key(5))
    losses = [
        float(jax.jit(flow_matching(net, (5, 3)).loss)(params, jax.random.key(6), Batch(x, cond)))
        for net, cond in ((network, full), (plain, full.cond))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.study
@pytest.mark.parametrize("name", VELOCITIES)
def test_points_with_a_common_mean(name):
    """Ten points N(m, 1) with m ~ N(0, 1): event means have variance 1.1; of points that do not
    see each other, of variance 2, 0.2."""
    network = {
        "epic": epic(1, config=EpicConfig(16, 8, 1, 0.1)),
        "point-wise": point_wise(1, config=PointWiseConfig((32, 32), 16)),
        "set transformer": set_transformer(1, config=SetTransformerConfig(16, 2, 1, 32)),
    }[name]
    rng = np.random.default_rng(7)
    x = rng.normal(size=(20_000, 10, 1)) + rng.normal(size=(20_000, 1, 1))
    model = flow_matching(network, (10, 1), solver=runge_kutta("midpoint", 8))
    config = TrainConfig(
        steps=1200, batch_size=128, ema_decay=0.995, optimizer=OptimizerConfig(3e-3)
    )
    cond = lambda num: SetCondition(np.full(num, 10))
    fitted = fit(model, Batch(x.astype(np.float32), cond(len(x))), jax.random.key(8), config)
    events = draw(model, fitted.one, jax.random.key(9), 10_000, cond(10_000))[..., 0]
    exact = 0.2 if name == "point-wise" else 1.1
    assert events.mean(axis=1).var() == pytest.approx(exact, rel=0.05 + 3 * (2 / 10_000) ** 0.5)
    inside = 2.0 if name == "point-wise" else 1.0
    assert events.var(axis=1, ddof=1).mean() == pytest.approx(inside, rel=0.08)


def test_shared_numbers_are_as_beside_every_row():
    layer, keys = NormalizedDense(4), jax.random.split(jax.random.key(0), 3)
    x, a = jax.random.normal(keys[0], (5, 3)), jax.random.normal(keys[1], (2,))
    params = layer.init(keys[2], x, a, a)
    beside = jnp.concatenate([x, jnp.broadcast_to(jnp.append(a, a), (5, 4))], axis=1)
    np.testing.assert_allclose(
        layer.apply(params, x, a, a), layer.apply(params, beside), rtol=1e-5, atol=1e-6
    )


def test_harmonics_of_the_time_are_those_of_lowest_frequency():
    """Eight are two where the weights of the others vanish; numbers of the condition are last."""
    few, given = epic(3, 2, EpicConfig(16, 4, 2), harmonics=2), 1 + len(GIVEN)
    params = few.init(jax.random.key(0))

    def widened(w):
        *before, sin, cos, numbers = jnp.split(w, np.cumsum([len(w) - 4 - given, 2, 2]))
        rest = jnp.zeros((6, w.shape[1]))
        return jnp.concatenate([*before, sin, rest, cos, rest, numbers])

    wide = jax.tree.map_with_path(
        lambda path, w: widened(w) if path[-1].key == "direction" else w, params
    )
    args = jnp.float32(0.3), event(8, 6), SetCondition(6, GIVEN)
    expected = VELOCITIES["epic"].apply(wide, *args)
    np.testing.assert_allclose(few.apply(params, *args), expected, rtol=1e-5, atol=1e-6)


def test_points_that_do_not_see_each_other_have_as_many_harmonics():
    sizes = PointWiseConfig((16, 16), 8)
    networks = (point_wise(3, 2, sizes, harmonics=k) for k in (2, 8))
    few, many = (num_parameters(network.init) for network in networks)
    assert many - few == 2 * 6 * sizes.context


@pytest.mark.parametrize("network", [epic, point_wise])
def test_no_harmonics_are_refused(network):
    with pytest.raises(ValueError, match="harmonics"):
        network(3, harmonics=0)

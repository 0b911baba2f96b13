"""Neural importance sampling: losses by quadrature, shares, buffers, and external integrands."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import Batch, OptimizerConfig, TrainConfig, fit, models, toys
from jgen.bijectors import Bijector, TrainableBijector, compose, cube_flow, grid
from jgen.inference import (
    adapted_grid,
    buffered,
    channel_weights,
    draw_points,
    effective_sample_size,
    external,
    fit_buffered,
    importance_sampler,
    integral,
    relative_deviation,
)
from jgen.nets import Network

NODES, WEIGHTS = np.polynomial.legendre.leggauss(200)
GRID, STEP = jnp.asarray((NODES + 1) / 2), WEIGHTS / 2
SQUARE = Bijector(
    lambda x, cond=None: (jnp.sqrt(x), -jnp.log(2 * jnp.sqrt(x[0]))),
    lambda u, cond=None: (u**2, jnp.log(2 * u[0])),
)
IDENTITY = grid(np.array([[0.0, 1.0]]))


def tilted():
    """The density 1 + a (2 u - 1) on the unit interval."""

    def forward(params, x, cond=None, key=None):
        return x + params * x * (x - 1), jnp.log1p(params * (2 * x[0] - 1))

    def inverse(params, z, cond=None, key=None):
        x = 2 * z / (1 - params + jnp.sqrt((1 - params) ** 2 + 4 * params * z))
        return x, -jnp.log1p(params * (2 * x[0] - 1))

    start = lambda key: jnp.zeros(())
    return models.flow(
        TrainableBijector(start, forward, inverse, interval=(0, 1)), models.uniform(1)
    )


def value(x):
    return 0.5 + x[0] ** 2


def exact_loss(params, divergence, channels):
    """By quadrature in u; the second channel has x = u^2."""
    maps = [IDENTITY, SQUARE][:channels]
    x, log_det = zip(*[jax.vmap(m.inverse)(GRID[:, None]) for m in maps], strict=True)
    logits = lambda x: jnp.stack([params["shares"] * x[:, 0], jnp.zeros(len(x))], 1)
    deviation, divergences, parts = 0.0, 0.0, []
    for c in range(channels):
        share = jax.nn.softmax(logits(x[c]), -1)[:, c] if channels > 1 else 1.0
        f = share * jax.vmap(value)(x[c]) * jnp.exp(log_det[c])
        q = 1 + params["flow"][c] * (2 * GRID - 1)
        part = jnp.sum(STEP * f)
        deviation += jnp.sqrt(jnp.sum(STEP * f**2 / q) - part**2)
        divergences += jnp.sum(STEP * f * jnp.log(f / q))
        parts.append(part)
    total = sum(parts)
    if divergence == "variance":
        return (deviation / jax.lax.stop_gradient(total)) ** 2
    shares = jnp.stack(parts) / total
    return divergences / total - jnp.log(total) - jnp.sum(shares * jnp.log(shares))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("divergence", ["variance", "kl"])
def test_losses_and_gradients_are_those_of_quadrature(channels, divergence):
    """Of events of the flow itself, and of an earlier one in a buffer."""
    network = Network(lambda key: jnp.zeros(()), lambda p, x, cond: jnp.array([p * x[0], 0.0]))
    shares = {"mappings": (IDENTITY, SQUARE), "network": network} if channels == 2 else {}
    sampler = importance_sampler(tilted(), value, divergence=divergence, **shares)
    params = {"flow": jnp.array([0.3, -0.4])[:channels]}
    earlier = {"flow": jnp.array([-0.2, 0.5])[:channels]}
    if channels == 2:
        params["shares"], earlier["shares"] = jnp.array(0.8), jnp.array(-0.5)
    exact, slopes = jax.value_and_grad(exact_loss)(params, divergence, channels)
    points = draw_points(sampler, earlier, jax.random.key(1), 40_000, batch_size=40_000)
    compiled = jax.jit(jax.value_and_grad(sampler.model.loss))
    for batch in (Batch(None, weight=jnp.ones(40_000)), buffered(points)):
        found, gradients = compiled(params, jax.random.key(2), batch)
        # Up to 2e-3 the arcsinh of soft weights; else some five standard errors.
        np.testing.assert_allclose(found, exact, atol=1e-2)
        for name in params:
            np.testing.assert_allclose(gradients[name], slopes[name], atol=3e-2)


def test_zeros_and_both_signs_of_an_integrand_are_numbers():
    zero = lambda x: jnp.where(x[0] < 0.5, 0.0, -1.0)
    none = lambda x: jnp.zeros(())
    batch, params = Batch(None, weight=jnp.ones(50)), {"flow": jnp.zeros(1)}
    for function in (zero, none):
        for divergence in ("variance", "kl"):
            model = importance_sampler(tilted(), function, divergence=divergence).model
            loss, gradients = jax.jit(jax.value_and_grad(model.loss))(
                params, jax.random.key(0), batch
            )
            assert np.isfinite(loss)
            assert np.isfinite(gradients["flow"]).all()
    sampler = importance_sampler(tilted(), zero)
    estimate = integral(channel_weights(draw_points(sampler, params, jax.random.key(0), 4000)))
    assert abs(estimate.value + 0.5) < 4 * estimate.error
    assert estimate.error == pytest.approx(0.5 / 4000**0.5, rel=0.05)


def test_channels_add_up_whatever_their_shares_and_numbers():
    prior = lambda x: jnp.stack([2 * x[0], jnp.zeros(())])
    sampler = importance_sampler(tilted(), value, (IDENTITY, SQUARE), log_prior=prior)
    params = {"flow": jnp.array([0.3, -0.4])}
    weights = channel_weights(draw_points(sampler, params, jax.random.key(0), (8000, 2000)))
    assert [len(w) for w in weights] == [8000, 2000]
    estimate = integral(weights)
    assert abs(estimate.value - 5 / 6) < 4 * estimate.error
    sample = jax.jit(jax.vmap(sampler.model.sample, (None, 0)))
    x = sample(params, jax.random.split(jax.random.key(1), 4000))
    # Half of them have the density 1 + 0.3 (2 x - 1), half are u^2 with 1 - 0.4 (2 u - 1).
    assert abs(x.mean() - 0.5 * (0.55 + 1 / 3 - 0.4 / 6)) < 4 * 0.3 / 4000**0.5


def test_an_external_integrand_is_called_with_many_events():
    calls = []

    def on_the_host(x):
        calls.append(x.shape)
        return 0.5 + x[:, 0].astype(np.float64) ** 2

    params, batch = {"flow": jnp.array([0.3])}, Batch(None, weight=jnp.ones(64))
    found = []
    for function in (value, external(on_the_host)):
        sampler = importance_sampler(tilted(), function)
        steps = jax.vmap(jax.value_and_grad(sampler.model.loss), (0, None, None))
        members = jax.tree.map(lambda p: jnp.stack([p, -p]), params)
        found.append(jax.jit(steps)(members, jax.random.key(0), batch))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *found)
    assert set(calls) == {(128, 1)}
    # JAX may wrap it in an error of its own.
    refused = ValueError, jax.errors.JaxRuntimeError
    with pytest.raises(refused, match=r"one real number for each of 1 events, got float64"):
        external(lambda x: np.ones((len(x), 2)))(jnp.ones(1)).block_until_ready()


def test_a_grid_makes_a_product_flat_and_starts_a_flow():
    product = lambda x: jnp.prod(2 * x)
    adapted = adapted_grid(product, 3, jax.random.key(0), num_bins=32)
    plain, ready = (
        importance_sampler(models.flow(layers, models.uniform(3)), product)
        for layers in (cube_flow(3, hidden=(4,)), compose(adapted, cube_flow(3, hidden=(4,))))
    )
    deviations = []
    for sampler in (plain, ready):
        params = sampler.model.init(jax.random.key(1))
        weights = channel_weights(draw_points(sampler, params, jax.random.key(2), 4000))
        estimate = integral(weights)
        assert abs(estimate.value - 1) < 4 * estimate.error
        deviations.append(relative_deviation(weights).value)
    assert deviations[0] == pytest.approx((64 / 27 - 1) ** 0.5, rel=0.05)
    assert deviations[1] < 0.35
    with pytest.raises(ValueError, match="not finite at x"):
        adapted_grid(lambda x: 1 / (x[0] - x[0]), 2, jax.random.key(0))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="divergence must be one of variance, kl"):
        importance_sampler(tilted(), value, divergence="chi2")
    with pytest.raises(ValueError, match="shares are for two channels or more"):
        importance_sampler(tilted(), value, log_prior=lambda x: jnp.zeros(1))
    no_density = tilted()._replace(sample_and_log_prob=None)
    with pytest.raises(ValueError, match="needs a model with a sample_and_log_prob"):
        importance_sampler(no_density, value)
    sampler = importance_sampler(tilted(), lambda x: 1 / jnp.maximum(x[0] - 0.5, 0))
    params = {"flow": jnp.zeros(1)}
    points = draw_points(sampler, params, jax.random.key(0), 50)
    with pytest.raises(ValueError, match="weights of channel 0 are not finite, the first at x = "):
        channel_weights(points)
    with pytest.raises(ValueError, match="one number or one for each of 1 channels"):
        draw_points(sampler, params, jax.random.key(0), (5, 6))
    with pytest.raises(ValueError, match="as many points of each channel"):
        buffered((points[0], jax.tree.map(lambda a: a[:3], points[0])))
    with pytest.raises(ValueError, match="one member and a step a round or more"):
        fit_buffered(sampler, jax.random.key(0), TrainConfig(3), rounds=4, num=10)


@pytest.mark.study
def test_a_camel_is_integrated_with_and_without_a_buffer():
    """Exact within the error; an ensemble has a spread; and a buffer saves values of f."""
    camel, calls = toys.camel(2), []

    def on_the_host(x):
        calls.append(len(x))
        values = [np.exp(-((x - c) ** 2).sum(-1) / 0.04) for c in (1 / 3, 2 / 3)]
        return sum(values) / (2 * 0.04 * np.pi)

    flow = models.flow(cube_flow(2, hidden=(16, 16)), models.uniform(2))
    config = functools.partial(TrainConfig, 300, 256, optimizer=OptimizerConfig(5e-3))
    online = importance_sampler(flow, camel.value)
    params = fit(online.model, None, jax.random.key(0), config(ensemble=2), progress=False).params
    trained = [jax.tree.map(lambda p: p[i], params) for i in range(2)]  # noqa: B023
    outside = importance_sampler(flow, external(on_the_host))
    few = fit_buffered(outside, jax.random.key(0), config(), rounds=3, num=1000, progress=False)
    assert sum(calls) == 3000
    values = set()
    for sampler, p in ((online, trained[0]), (online, trained[1]), (outside, few)):
        weights = channel_weights(draw_points(sampler, p, jax.random.key(3), 20_000))
        estimate = integral(weights)
        assert abs(estimate.value - camel.integral) < 4 * estimate.error
        assert relative_deviation(weights).value < 0.6
        assert effective_sample_size(np.log(weights[0])).value > 0.7
        values.add(estimate.value)
    assert len(values) == 3

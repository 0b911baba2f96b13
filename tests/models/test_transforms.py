import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.bijectors import Bijector, compose, log, logit, standardize
from jgen.generative_model import Batch, GenerativeModel, draw, mean_loss
from jgen.models import Autoencoder, bernoulli, gaussian
from jgen.transforms import chain, latent, preprocessed


def normal(shift=lambda cond: 0.0, size=3):
    """x ~ N(params + shift(cond), 1), fitted by maximum likelihood."""
    log_prob = lambda params, key, x, cond=None: jnp.sum(
        jax.scipy.stats.norm.logpdf(x, params + shift(cond))
    )
    return GenerativeModel(
        init=lambda key: jax.random.normal(key),
        loss=lambda params, key, batch: mean_loss(
            lambda k, x, c: -log_prob(params, k, x, c), key, batch
        ),
        sample=lambda params, key, cond=None: (
            params + shift(cond) + jax.random.normal(key, (size,))
        ),
        log_prob=log_prob,
    )


BIJECTORS = {
    "standardize": (standardize(np.array([1.0, 2.0, 3.0]), np.array([0.5, 2.0, 1.0])), 0.3),
    "standardize scalar": (standardize(np.array(1.0), np.array(2.0)), 0.3),
    "logit": (logit(), 0.3),
    "log": (log(), 0.3),
    "compose": (compose(log(), standardize(np.zeros(3), np.full(3, 2.0)), log()), 3.0),
}


@pytest.mark.parametrize("name", BIJECTORS)
def test_round_trip_and_log_det_against_autodiff(x64, name):
    bijector, start = BIJECTORS[name]
    x = start + jnp.array([0.0, 0.1, 0.5])
    z, log_det = bijector.forward(x, None)
    back, inverse_log_det = bijector.inverse(z, None)
    jacobian = jax.jacfwd(lambda y: bijector.forward(y, None)[0])(x)
    np.testing.assert_allclose(back, x, rtol=1e-12)
    np.testing.assert_allclose(log_det, jnp.linalg.slogdet(jacobian)[1], rtol=1e-12)
    np.testing.assert_allclose(inverse_log_det, -log_det, rtol=1e-9)


def test_logit_is_exact_at_both_ends_in_float32():
    z, _ = logit(1e-6).forward(jnp.array([0.0, 1.0], jnp.float32), None)
    np.testing.assert_allclose(z, [-13.81550956, 13.81550956], rtol=1e-6)


def test_preprocessed_density_integrates_to_one(x64, key):
    model = preprocessed(normal(size=1), log())
    grid = jnp.linspace(1e-4, 60, 400_001)
    density = jnp.exp(jax.vmap(lambda x: model.log_prob(0.2, key, x[None], None))(grid))
    np.testing.assert_allclose(np.trapezoid(density, grid), 1, atol=1e-4)


def test_preprocessed_trains_in_the_inner_space_and_samples_in_the_outer(x64, key):
    inner = normal()
    model = preprocessed(inner, log())
    x = jnp.exp(jax.random.normal(key, (7, 3)))
    np.testing.assert_allclose(
        model.loss(0.2, key, Batch(x)), inner.loss(0.2, key, Batch(jnp.log(x))), rtol=1e-12
    )
    np.testing.assert_allclose(model.sample(0.2, key), jnp.exp(inner.sample(0.2, key)))


def test_physical_conditions_are_translated(x64, key):
    inner = normal(shift=lambda cond: cond)
    model = preprocessed(inner, log(), condition=jnp.log)
    x, energy = jnp.ones(3), jnp.array(5.0)
    np.testing.assert_allclose(
        model.log_prob(0.0, key, x, energy),
        inner.log_prob(0.0, key, jnp.zeros(3), jnp.log(5.0)),
        rtol=1e-12,
    )


def test_no_density_without_a_log_det():
    drop = Bijector(lambda x, c: (x, None), lambda z, c: (z, None), has_log_det=False)
    assert preprocessed(normal(), drop).log_prob is None
    assert preprocessed(normal(), compose(log(), drop)).log_prob is None


def test_chain_is_the_product_of_its_factors(x64, key):
    """p(a | c) = N(c, 1), p(b | a, c) = N(a + 2 c, 1) is a joint Gaussian."""
    first = normal(shift=lambda c: c, size=1)
    second = normal(shift=lambda ca: 2 * ca[0] + ca[1][0], size=1)
    model = chain(first, second)
    params, c = {"first": jnp.array(0.0), "second": jnp.array(0.0)}, jnp.array(0.7)
    x = (jnp.array([0.2]), jnp.array([1.5]))
    joint = jax.scipy.stats.multivariate_normal.logpdf(
        jnp.array([0.2, 1.5]), jnp.array([c, 3 * c]), jnp.array([[1.0, 1.0], [1.0, 2.0]])
    )
    np.testing.assert_allclose(model.log_prob(params, key, x, c), joint, rtol=1e-12)
    n = 40_000
    a, b = draw(model, params, key, n, np.full(n, 0.7), batch_size=n)
    np.testing.assert_allclose([a.mean(), b.mean()], [0.7, 2.1], atol=5 * 1.5 / n**0.5)
    np.testing.assert_allclose(np.cov(a[:, 0], b[:, 0]), [[1, 1], [1, 2]], atol=5 * 2.5 / n**0.5)


def test_chain_loss_is_the_sum_of_both(x64, key):
    first, second = normal(), normal(shift=lambda ca: ca[1][0])
    a, b = jax.random.normal(key, (2, 9, 3))
    weight = jnp.linspace(0, 2, 9)
    params = {"first": jnp.array(0.3), "second": jnp.array(-0.2)}
    loss = chain(first, second).loss(params, key, Batch((a, b), weight=weight))
    expected = first.loss(0.3, key, Batch(a, weight=weight)) + second.loss(
        -0.2, key, Batch(b, (None, a), weight=weight)
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-12)


def scaling_autoencoder(likelihood=None):
    """r | x ~ N(x + 10 c, (0.5 scale)^2), and decoded to scale r - 10 c."""
    return Autoencoder(
        lambda key: {"scale": jnp.ones(())},
        lambda p, x, cond=None: (
            x + 10 * cond[0],
            jnp.full(x.shape, 2 * jnp.log(0.5 * p["scale"])),
        ),
        lambda p, r, cond=None: p["scale"] * r - 10 * cond[0],
        bernoulli() if likelihood is None else likelihood,
    )


def test_latent_trains_on_fresh_draws_and_decodes_samples(x64, key):
    inner = normal(shift=lambda cond: cond)
    frozen = {"scale": jnp.array(2.0)}
    # The autoencoder's condition is (c, e), the model's e.
    model = latent(inner, scaling_autoencoder(gaussian()), frozen, condition=lambda c: c[1])
    cond = (jnp.array(0.7), jnp.array(0.2))
    np.testing.assert_allclose(
        model.sample(0.3, key, cond), 2 * inner.sample(0.3, key, cond[1]) - 7, rtol=1e-12
    )
    assert model.log_prob is None
    assert model.init is inner.init

    n = 2000
    x = jax.random.normal(key, (n, 3))
    conds = (jnp.full(n, 0.7), jnp.full(n, 0.2))
    loss = jax.jit(lambda params, key: model.loss(params, key, Batch(x, conds)))
    first, second = loss(7.2, key), loss(7.2, jax.random.key(1))
    assert first != second
    # r - 7 - 0.2 is normal with variance 1 + 1 around x's mean minus 0.2.
    shift = np.asarray(x) + 7 - 7.2 - 0.2
    expected = 0.5 * 3 * np.log(2 * np.pi) + 0.5 * (shift**2 + 1).sum(axis=1).mean()
    spread = np.sqrt(3 * (0.5 + (shift**2).mean()) / n)
    np.testing.assert_allclose([first, second], expected, atol=4 * spread)


def test_latent_draws_follow_weights_and_gradients_stop_at_the_model(x64, key):
    inner = normal()
    autoencoder = scaling_autoencoder(gaussian())
    model = latent(inner, autoencoder, {"scale": np.array(2.0)},
                   condition=lambda cond: None)  # fmt: skip
    x, cond = jnp.zeros((6, 3)), (jnp.zeros(6),)
    loss = lambda weight: model.loss(0.3, key, Batch(x, cond, weight=weight))
    parts = [loss(6 * jnp.eye(6)[i]) for i in range(6)]
    assert len({float(p) for p in parts}) == 6  # every event has a z of its own
    weight = jnp.linspace(0, 2, 6)
    np.testing.assert_allclose(loss(weight), jnp.mean(weight * jnp.array(parts)), rtol=1e-12)
    gradient = jax.grad(model.loss)(0.3, key, Batch(x, cond))
    assert jax.tree.structure(gradient) == jax.tree.structure(0.3)
    assert gradient != 0


def test_latent_is_independent_of_where_the_parameters_live(key):
    """A model on one device closes over parameters that were made on another."""
    devices = jax.devices()
    frozen = jax.device_put({"scale": jnp.array(2.0)}, devices[0])
    model = latent(normal(), scaling_autoencoder(), frozen, condition=lambda cond: None)
    other = jax.device_put((jnp.array(0.3), jax.random.key(0), (jnp.array(0.1),)), devices[1])
    assert model.sample(*other).devices() == {devices[1]}


def test_latent_refuses_stacked_parameters():
    stacked = {"scale": jnp.ones(4)}
    for bad in (stacked, {"other": jnp.ones(())}):
        with pytest.raises(ValueError, match="take those of one member"):
            latent(normal(), scaling_autoencoder(), bad)


def test_bad_input():
    with pytest.raises(ValueError, match="drop constant features"):
        standardize(np.zeros(2), np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 0.5\)"):
        logit(0.7)
    with pytest.raises(ValueError, match="at least one bijector"):
        compose()


def test_standardize_takes_numbers_and_lists_and_refuses_what_is_none():
    x = jnp.array([3.0, 5.0])
    for mean, std in ((1, 2.0), (1.0, [2.0, 4.0]), ([1, 1], (2.0, 4.0)), (np.int32(1), 2)):
        z, log_det = standardize(mean, std).forward(x)
        scale = np.broadcast_to(np.asarray(std), 2)
        np.testing.assert_allclose(z, (x - 1) / scale, rtol=1e-6)
        np.testing.assert_allclose(log_det, -np.log(scale).sum(), rtol=1e-6)
    for bad in (np.inf, np.nan, [1.0, np.nan], "x", None, [[1.0], [1.0, 2.0]], 1j):
        with pytest.raises(ValueError, match="must be (finite real )?numbers"):
            standardize(bad, 1.0)
        with pytest.raises(ValueError, match="must be (finite real )?numbers"):
            standardize(0.0, bad)
    six = standardize(np.zeros(6), np.ones(6))
    for call in (six.forward, six.inverse):
        for shape in ((1,), (5,), ()):
            with pytest.raises(ValueError, match=r"means are of components \(6,\), but x has"):
                call(jnp.zeros(shape))

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jgen.generative_model import Batch, draw, loss_at
from jgen.models import (
    Autoencoder,
    bernoulli,
    elbo,
    elbo_of_events,
    encoder_decoder,
    gaussian,
    log_importance_weights,
    log_importance_weights_of_events,
    reconstruct,
    vae,
    with_width,
)
from jgen.models.vae import kl_to_standard_normal, reparametrize
from jgen.nets import Network

D, Q, SIGMA = 4, 2, 0.6
MODULE = importlib.import_module("jgen.models.vae")  # the package has the function of that name


def linear_autoencoder(likelihood=None):
    """r | x ~ N(a (x - m), exp(s)), x | r ~ N(w r + m + cond, .), the VAE of probabilistic PCA."""
    shift = lambda cond: 0.0 if cond is None else cond
    return Autoencoder(
        lambda key: {
            "w": jax.random.normal(key, (D, Q)),
            "m": jnp.zeros(D),
            "a": jax.random.normal(jax.random.fold_in(key, 1), (Q, D)),
            "s": jnp.zeros(Q),
        },
        lambda p, x, cond=None: (p["a"] @ (x - p["m"] - shift(cond)), p["s"]),
        lambda p, r, cond=None: p["w"] @ r + p["m"] + shift(cond),
        bernoulli() if likelihood is None else likelihood,
    )


def pca_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, Q)) @ (2 * rng.normal(size=(Q, D))) + 0.5 * rng.normal(size=(50, D))
    return x + 1.0


def pca_solution(x, sigma=SIGMA):
    """Maximum of the likelihood at fixed sigma (Tipping and Bishop 1999), and the exact encoder.

    The columns of W are orthogonal, so the exact posterior is the diagonal one that a VAE has.
    """
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    values, vectors = values[::-1][:Q], vectors[:, ::-1][:, :Q]
    params = {
        "w": vectors * np.sqrt(values - sigma**2),
        "m": x.mean(axis=0),
        "a": (vectors * np.sqrt(values - sigma**2) / values).T,
        "s": np.log(sigma**2 / values),
    }
    return jax.tree.map(jnp.asarray, params)


KEYS = jax.vmap(jax.random.key)(np.arange(2 * Q))


def numbered(points):
    """`normal` whose draw with the key of a seed is the point of that number."""
    seed = lambda key: jax.random.key_data(key)[-1]
    return lambda key, shape, dtype: jnp.asarray(points, dtype)[seed(key)]


def average_elbo(params, x, monkeypatch, sigma=SIGMA):
    """Mean over events, exact over r: the points +-sqrt(q) e_i integrate what is quadratic in z."""
    points = np.sqrt(Q) * np.concatenate([np.eye(Q), -np.eye(Q)])
    monkeypatch.setattr(MODULE, "normal", numbered(points))
    one = lambda i, x: elbo(linear_autoencoder(gaussian(sigma)), params, i, x)
    every = jax.vmap(jax.vmap(one, (0, None)), (None, 0))(KEYS, jnp.asarray(x))
    return jnp.mean(every.reconstruction - every.kl)


def exact_log_prob(params, x, sigma=SIGMA):
    """Log-likelihood of probabilistic PCA, x ~ N(m, w w^T + sigma^2)."""
    covariance = np.asarray(params["w"] @ params["w"].T) + sigma**2 * np.eye(D)
    return scipy.stats.multivariate_normal(np.asarray(params["m"]), covariance).logpdf(x)


def test_elbo_is_the_likelihood_of_probabilistic_pca_at_its_maximum(x64, monkeypatch):
    x = pca_data()
    params = pca_solution(x)
    expected = exact_log_prob(params, x).mean()
    value, gradient = jax.value_and_grad(average_elbo)(params, x, monkeypatch)
    np.testing.assert_allclose(value, expected, atol=1e-10)
    for name, part in gradient.items():
        np.testing.assert_allclose(part, 0, atol=1e-9, err_msg=name)
    for name in params:
        moved = {**params, name: params[name] + 0.05}
        assert average_elbo(moved, x, monkeypatch) < value - 1e-5, name


def test_elbo_at_a_wrong_encoder_falls_short_by_the_kl_to_the_posterior(x64, monkeypatch):
    x = pca_data()[:1]
    params = pca_solution(pca_data())
    wrong = {**params, "s": params["s"] + 0.4}
    best = average_elbo(params, x, monkeypatch)
    gap = 0.5 * Q * (np.exp(0.4) - 0.4 - 1)
    np.testing.assert_allclose(best - average_elbo(wrong, x, monkeypatch), gap, rtol=1e-9)


def test_learned_width_is_that_of_probabilistic_pca(x64, monkeypatch):
    """sigma^2 is the mean of the eigenvalues that are left out (Tipping and Bishop 1999, Eq. 8)."""
    x = pca_data()
    values = np.linalg.eigvalsh(np.cov(x.T, bias=True))
    width = values[: D - Q].mean() ** 0.5
    params = pca_solution(x, width)
    points = np.sqrt(Q) * np.concatenate([np.eye(Q), -np.eye(Q)])
    monkeypatch.setattr(MODULE, "normal", numbered(points))

    def bound(log_scale, sigma):
        linear = linear_autoencoder(gaussian(sigma))
        coder = linear._replace(decode=lambda p, r, cond: (linear.decode(p, r), log_scale))
        one = lambda i, x: elbo(coder, params, i, x)
        every = jax.vmap(jax.vmap(one, (0, None)), (None, 0))(KEYS, jnp.asarray(x))
        return jnp.mean(every.reconstruction - every.kl)

    value, slope = jax.value_and_grad(bound)(np.log(width), None)
    expected = exact_log_prob(params, x, width).mean()
    np.testing.assert_allclose(value, expected, atol=1e-10)
    np.testing.assert_allclose(slope, 0, atol=1e-9)


def test_every_weight_of_the_exact_encoder_is_the_likelihood(x64, key):
    x = pca_data()
    params = pca_solution(x)
    coder = linear_autoencoder(gaussian(SIGMA))
    one = lambda k, x: log_importance_weights(coder, params, k, x, num=5)
    found = jax.vmap(one)(jax.random.split(key, len(x)), jnp.asarray(x))
    expected = exact_log_prob(params, x)
    np.testing.assert_allclose(found, np.repeat(expected[:, None], 5, axis=1), atol=1e-9)


def test_samples_of_a_gaussian_decoder_have_its_spread(key):
    params = jax.tree.map(jnp.float32, pca_solution(pca_data()))
    linear, n = linear_autoencoder(), 20_000
    learned = linear._replace(decode=lambda p, r, cond: (linear.decode(p, r), np.log(SIGMA)))
    expected = np.asarray(params["w"] @ params["w"].T) + SIGMA**2 * np.eye(D)
    outer = np.outer(np.sqrt(np.diag(expected)), np.sqrt(np.diag(expected)))
    for coder, likelihood in ((linear, gaussian(SIGMA)), (learned, gaussian(None))):
        model = vae(coder._replace(likelihood=likelihood), (Q,), num_importance=1)
        x = draw(model, params, key, n, batch_size=n)
        np.testing.assert_allclose(np.cov(x.T) / outer, expected / outer, atol=5 * (2 / n) ** 0.5)


def test_random_elbo_is_unbiased(key, monkeypatch):
    x, model = np.float32(pca_data()), linear_autoencoder(gaussian(SIGMA))
    params = jax.tree.map(jnp.float32, pca_solution(pca_data()))
    n = 20_000
    data = Batch(np.repeat(x[:1], n, axis=0))
    terms = elbo_of_events(model, params, key, data)
    assert terms.reconstruction.shape == terms.kl.shape == (n,)
    values = terms.reconstruction - terms.kl
    expected = average_elbo(params, x[:1], monkeypatch)
    np.testing.assert_allclose(values.mean(), expected, atol=4 * values.std() / n**0.5)
    assert values.std() > 0.1


def test_bernoulli_reconstruction_is_the_cross_entropy():
    logits, x = jnp.array([-3.0, 0.2, 5.0, 0.0]), jnp.array([0.0, 0.3, 1.0, 0.9])
    p = 1 / (1 + np.exp(-np.float64(logits)))
    expected = np.sum(x * np.log(p) + (1 - x) * np.log(1 - p))
    np.testing.assert_allclose(bernoulli().log_prob(logits, x), expected, rtol=1e-6)
    np.testing.assert_allclose(bernoulli().mean(logits), p, rtol=1e-6)
    extreme = bernoulli().log_prob(jnp.array([-200.0, 200.0]), jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(extreme, 0, atol=1e-30)
    assert bernoulli().log_prob(jnp.array([-200.0]), jnp.array([1.0])) == -200


def test_gaussian_likelihood_and_kl_against_scipy_and_torch_formulas():
    mean, x = np.array([0.3, -1.0, 2.0]), np.array([0.1, 0.5, 1.0])
    expected = scipy.stats.norm.logpdf(x, mean, 0.7).sum()
    np.testing.assert_allclose(gaussian(0.7).log_prob(mean, x), expected, rtol=1e-6)
    log_scale = np.array([0.5, -1.0, 0.2])
    expected = scipy.stats.norm.logpdf(x, mean, np.exp(log_scale)).sum()
    found = gaussian(None).log_prob((jnp.asarray(mean), jnp.asarray(log_scale)), x)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    log_variance = np.array([0.5, -2.0, 0.0])
    grid = np.linspace(-20, 20, 200_001)[:, None]
    log_q = scipy.stats.norm.logpdf(grid, mean, np.exp(log_variance / 2))
    integrand = np.exp(log_q) * (log_q - scipy.stats.norm.logpdf(grid))
    expected = np.trapezoid(integrand, grid[:, 0], axis=0).sum()
    found = kl_to_standard_normal(jnp.asarray(mean), jnp.asarray(log_variance))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_reparametrized_draws_have_the_moments_of_the_encoder(key):
    mean, log_variance, n = jnp.array([1.0, -2.0]), jnp.array([-1.0, 1.0]), 20_000
    r = jax.vmap(lambda k: reparametrize(k, mean, log_variance))(jax.random.split(key, n))
    std = np.exp(np.asarray(log_variance) / 2)
    np.testing.assert_allclose(r.mean(0), mean, atol=4 * std.max() / n**0.5)
    np.testing.assert_allclose(r.std(0) / std, 1, atol=4 / (2 * n) ** 0.5)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_loss_weighs_both_terms(key, reduction):
    x = jax.random.uniform(key, (5, D))
    model = linear_autoencoder()
    params = model.init(key)
    keys = jax.random.split(key, 5)
    terms = jax.vmap(lambda k, x: elbo(model, params, k, x))(keys, x)
    dims = (D, Q) if reduction == "mean" else (1, 1)
    weight = jnp.array([0.0, 2.0, 1.0, -1.0, 3.0])
    single = -terms.reconstruction / dims[0] + 0.3 * terms.kl / dims[1]
    loss = vae(model, (Q,), beta=0.3, reduction=reduction).loss
    np.testing.assert_allclose(
        loss(params, key, Batch(x, weight=weight)), jnp.mean(weight * single), rtol=1e-5
    )


def test_beta_follows_its_schedule(key):
    x, model = jax.random.uniform(key, (5, D)), linear_autoencoder()
    params, batch = model.init(key), Batch(x)
    warm = vae(model, (Q,), beta=lambda done: jnp.minimum(2 * done, 0.8))
    for progress, beta in ((0.25, 0.5), (0.9, 0.8)):
        expected = vae(model, (Q,), beta=beta).loss(params, key, batch)
        np.testing.assert_allclose(loss_at(warm, params, key, batch, progress), expected, rtol=1e-6)
    end = vae(model, (Q,), beta=0.8).loss(params, key, Batch(x))
    np.testing.assert_allclose(warm.loss(params, key, Batch(x)), end, rtol=1e-6)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_free_bits_are_those_of_the_minibatch_mean_of_each_component(key, reduction):
    x = jax.random.uniform(key, (5, D))
    weight = jnp.array([0.5, 2.0, 1.0, 0.5, 1.0])
    model = linear_autoencoder()
    params = model.init(key) | {"s": jnp.array([-0.3, 0.2])}
    mean, log_variance = jax.vmap(lambda x: model.encode(params, x))(x)
    kl = np.asarray(0.5 * (mean**2 + jnp.exp(log_variance) - log_variance - 1))
    kl = np.mean(np.asarray(weight)[:, None] * kl, axis=0)
    assert kl[0] != pytest.approx(kl[1], rel=0.1)
    free = float(kl.mean())  # one component has more, one has less
    dims = (D, Q) if reduction == "mean" else (1, 1)
    batch = Batch(x, weight=weight)
    options = {"beta": 0.3, "reduction": reduction}
    at = lambda **more: vae(model, (Q,), **options, **more)
    without = vae(model, (Q,), beta=0.0, reduction=reduction).loss(params, key, batch)
    found = at(free_bits=free).loss(params, key, batch) - without
    np.testing.assert_allclose(found, 0.3 * np.maximum(kl, free).sum() / dims[1], rtol=1e-4)
    # Below, the KL has no gradient: that of the reconstruction is left.
    free = 2 * float(kl.max())
    grads = jax.grad(at(free_bits=free).loss)(params, key, batch)
    expected = jax.grad(vae(model, (Q,), beta=0.0, reduction=reduction).loss)(params, key, batch)
    for name, found in grads.items():
        np.testing.assert_allclose(found, expected[name], atol=1e-4, err_msg=name)


def test_samples_are_means_under_normal_latents(key):
    """x = W z + m + cond without the likelihood's noise; conditions reach the decoder."""
    params = jax.tree.map(jnp.float32, pca_solution(pca_data()))
    model, n = vae(linear_autoencoder(gaussian(SIGMA)), (Q,)), 20_000
    cond = np.linspace(-1, 1, n, dtype=np.float32)[:, None] * np.ones(D, np.float32)
    x = draw(model, params, key, n, cond, batch_size=n) - cond
    covariance = np.asarray(params["w"] @ params["w"].T)
    scale = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((x.mean(0) - params["m"]) / scale, 0, atol=4 / n**0.5)
    outer = np.outer(scale, scale)
    np.testing.assert_allclose(np.cov(x.T) / outer, covariance / outer, atol=5 * (2 / n) ** 0.5)
    assert model.log_prob is None


def test_reconstruction_of_a_sharp_encoder_is_the_projection(x64, key):
    x = pca_data()
    params = {**pca_solution(x, 1e-4), "s": jnp.full(Q, -40.0)}
    found = jax.vmap(lambda x: reconstruct(linear_autoencoder(gaussian(1e-4)), params, key, x))(
        jnp.asarray(x)
    )
    _, _, v = np.linalg.svd(x - x.mean(0))
    np.testing.assert_allclose(
        found - x.mean(0)[None], (x - x.mean(0)) @ v[:Q].T @ v[:Q], atol=1e-6
    )


def test_held_out_terms_do_not_depend_on_the_chunks(key):
    model = linear_autoencoder(gaussian())
    params = model.init(key)
    data = Batch(np.float32(pca_data()), cond=np.ones((50, D), np.float32))
    one = elbo_of_events(model, params, key, data)
    many = elbo_of_events(model, params, key, data, batch_size=7)
    for a, b in zip(one, many, strict=True):
        assert a.shape == (50,)
        np.testing.assert_allclose(a, b, rtol=1e-5)
    without = elbo_of_events(model, params, key, Batch(data.x))
    assert not np.allclose(one.kl, without.kl)


def test_training_reaches_the_likelihood_of_probabilistic_pca(key):
    """Width, encoder and decoder are trained; at the maximum the bound is the likelihood."""
    import optax

    from jgen.training import make_step

    x = pca_data()
    width = np.linalg.eigvalsh(np.cov(x.T, bias=True))[: D - Q].mean() ** 0.5
    best = exact_log_prob(pca_solution(x, width), x, width).mean()
    linear = linear_autoencoder()
    decoder = with_width(Network(linear.init, linear.decode), 2.0)
    coder = encoder_decoder(Network(linear.init, linear.encode), decoder, gaussian(None))
    model = vae(coder, (Q,))
    step = make_step(model, optax.adam(optax.cosine_decay_schedule(0.1, 2000)), 64)
    data = Batch(jnp.asarray(x, jnp.float32))

    @jax.jit
    def train(state):
        return jax.lax.scan(lambda s, _: (step.update(s, key, data)[0], None), state, length=2000)

    def shortfall(params):
        one = lambda k, x: log_importance_weights(coder, params, k, x, num=100)
        return best - np.mean(jax.vmap(one)(jax.random.split(key, len(x)), data.x))

    state = step.init(key)
    assert shortfall(state.params) > 5
    params = train(state)[0].params
    # log w has no variance where the encoder is exact, so that this mean has hardly an error.
    assert -0.002 < shortfall(params) < 0.01
    assert np.exp(params["decoder"]["log_scale"]) == pytest.approx(width, rel=0.02)


@pytest.mark.study
def test_shower_autoencoder_trains_and_a_flow_generates_in_its_latent_space(key):
    """The published chain in small: convolutions, mean reduction, flow matching of r, decoding."""
    import optax

    from jgen.models import flow_matching
    from jgen.nets import Network
    from jgen.nets.conv_autoencoder import ConvAutoencoderConfig, conv_autoencoder
    from jgen.training import make_step
    from jgen.transforms import latent

    shape = (3, 4, 2)
    networks = conv_autoencoder(shape, 1, ConvAutoencoderConfig(4, cond_width=4))
    model = encoder_decoder(networks.encoder, networks.decoder)
    published = vae(model, networks.latent_shape, beta=1e-6, reduction="mean")
    step = make_step(published, optax.adam(5e-3), 32)
    state, update = jax.jit(step.init)(key), jax.jit(step.update)
    cond = np.linspace(0, 1, 64, dtype=np.float32)[:, None]
    # A coin says which of both radii is bright. (How bright the whole is, the norms take away.)
    coins = np.random.default_rng(0).integers(0, 2, (64, 1, 1, 1))
    data = Batch(np.float32(0.1 + 0.8 * (coins == np.arange(2)) * np.ones((64, *shape))), cond)
    losses = []
    for _ in range(150):
        state, metrics = update(state, key, data)
        losses.append(float(metrics["loss"]))
    # The voxels' own entropy is the floor; without the latent it is that of a coin, 0.69.
    floor = -(0.1 * np.log(0.1) + 0.9 * np.log(0.9))
    assert floor - 1e-6 < np.mean(losses[-20:]) < 0.5 < np.mean(losses[:5])

    still = Network(lambda key: {}, lambda params, t, r, cond: 0 * r)
    generator = latent(flow_matching(still, networks.latent_shape), model, state.params)
    x = draw(generator, {}, key, 3, cond[:3])
    assert x.shape == (3, *shape)
    assert x.min() > 0
    assert x.max() < 1


def test_two_networks_make_an_autoencoder(key):
    encoder = Network(lambda k: jax.random.normal(k), lambda p, x, cond: (p * x + cond, x - x))
    decoder = Network(lambda k: jax.random.normal(k), lambda p, r, cond: p * r - cond)
    model = encoder_decoder(encoder, decoder)
    params = model.init(key)
    assert params["encoder"] != params["decoder"]
    mean, log_variance = model.encode(params, jnp.ones(2), 3.0)
    np.testing.assert_allclose(mean, params["encoder"] + 3.0)
    np.testing.assert_array_equal(log_variance, 0)
    np.testing.assert_allclose(model.decode(params, jnp.ones(2), 3.0), params["decoder"] - 3.0)


def test_bad_input(key):
    model = linear_autoencoder()
    with pytest.raises(ValueError, match="scale must be positive and finite, got 0"):
        gaussian(0)
    with pytest.raises(ValueError, match="beta must be .*zero or positive and finite, got -1"):
        vae(model, (Q,), beta=-1)
    with pytest.raises(ValueError, match="reduction must be one of sum, mean, got 'max'"):
        vae(model, (Q,), reduction="max")
    with pytest.raises(ValueError, match="free_bits must be .*got -0.1"):
        vae(model, (Q,), free_bits=-0.1)
    with pytest.raises(ValueError, match="num_importance must be a whole number from 0 .*got -5"):
        vae(model, (Q,), num_importance=-5)
    with pytest.raises(ValueError, match="num_importance must be a whole number .*got 2.5"):
        vae(model, (Q,), num_importance=2.5)
    with pytest.raises(ValueError, match="scale must be positive and finite, got 0"):
        with_width(Network(None, None), 0.0)
    x = np.zeros((3, D), np.float32)
    with pytest.raises(ValueError, match="num must be a whole number from 1 .*got 0"):
        log_importance_weights_of_events(model, model.init(key), key, Batch(x), num=0)
    with pytest.raises(ValueError, match="batch_size must be a whole number"):
        elbo_of_events(model, model.init(key), key, Batch(x), batch_size=0)

"""Diffusion models of an exact mixture: predictions, likelihoods, weightings, EDM and guidance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jgen.generative_model import Batch, GenerativeModel, draw
from jgen.models import (
    diffusion,
    flow_matching,
    guided,
    log_normal_times,
    preconditioned,
    preconditioned_weighting,
    variational_bound,
    with_unconditional,
)
from jgen.nets import Network
from jgen.paths import cosine, edm, linear, variance_exploding, variance_preserving
from jgen.random import normal
from jgen.solvers import DDIM, Denoised, EDMHeun, EulerMaruyama, NonStationary, runge_kutta
from jgen.toys import gaussian_mixture, mixture_on_path, mixture_prediction, mixture_toy

MIXTURE = gaussian_mixture([[-1.0, 0.5], [1.0, 1.0]], [[0.3, 0.2], [0.2, 0.5]], [0.6, 0.4])
KINDS = ("noise", "data", "v", "score", "velocity")
VP = variance_preserving()


def exact(path, kind, mixture=MIXTURE):
    """The perfect network of a kind, with one number as parameter that it adds."""
    prediction = mixture_prediction(mixture, path, kind)
    return Network(
        lambda key: {"shift": jnp.zeros(())},
        lambda params, t, x, cond: prediction(t, x) + params.get("shift", 0.0),
    )


def truth_events(key, n):
    return jax.jit(jax.vmap(mixture_toy(MIXTURE).sample))(jax.random.split(key, n))


def test_predictions_are_interchangeable_for_sampling_and_densities(x64, key):
    """One event, whatever the network predicts and whichever sampler it is given."""
    samplers = (DDIM(20, 0.5), runge_kutta("heun", 20), EulerMaruyama(20))

    @jax.jit
    def everything(key, x):
        models = [
            [
                diffusion(exact(VP, kind), (2,), path=VP, prediction=kind, sampler=sampler)
                for kind in KINDS
            ]
            for sampler in samplers
        ]
        events = [jnp.stack([m.sample({}, key, None) for m in same]) for same in models]
        return events, jnp.stack([m.log_prob({}, key, x, None) for m in models[0]])

    events, densities = everything(key, jnp.array([0.9, 0.8]))
    for same in (*events, densities):
        np.testing.assert_allclose(same, np.broadcast_to(same[:1], same.shape), rtol=1e-5)


@pytest.mark.parametrize("name", ["linear", "vp", "edm"])
def test_log_prob_of_the_ode_is_exact(x64, key, name):
    """To 1e-4, where the path forgets the data at t_min, too: its mean over base_std is left."""
    path, kind = {
        "linear": (linear(), "velocity"),
        "vp": (variance_preserving(0.1, 60.0), "v"),
        "edm": (edm(0.002, 3e4), "noise"),
    }[name]
    steps = runge_kutta("rk4", 400)
    model = diffusion(exact(path, kind), (2,), path=path, prediction=kind, likelihood_solver=steps)
    x = truth_events(key, 20)
    found = jax.jit(jax.vmap(lambda x: model.log_prob({}, key, x, None)))(x)
    truth = mixture_toy(mixture_on_path(MIXTURE, path, jnp.asarray(path.t_max)))
    np.testing.assert_allclose(found, jax.vmap(truth.log_prob)(x), atol=1e-4)


def losses(path, events, key, shift=0.0, weights=None):
    """Losses of perfect networks, by kind, in one program."""
    weights = {} if weights is None else weights

    @jax.jit
    def all_kinds(x):
        models = {
            kind: diffusion(
                exact(path, kind), (2,), path=path, prediction=kind, weighting=weights.get(kind)
            )
            for kind in KINDS
        }
        return {k: model.loss({"shift": shift}, key, Batch(x)) for k, model in models.items()}

    return {kind: float(value) for kind, value in all_kinds(events).items()}


def test_losses_are_least_at_the_exact_prediction(key):
    """A shift by 0.3 adds 0.09 times the weight: 1, for the score the mean of sigma^2."""
    events = truth_events(jax.random.fold_in(key, 1), 20_000)
    # A narrower path, whose velocities are moderate.
    path = cosine()._replace(t_min=0.1, t_max=0.9)
    least = losses(path, events, key)
    most = losses(path, events, key, 0.3)
    mean_square = np.mean(np.square(path.sigma(np.linspace(0.1, 0.9, 1001))))
    for kind in KINDS:
        expected = 0.09 * (mean_square if kind == "score" else 1)
        np.testing.assert_allclose(most[kind] - least[kind], expected, atol=0.02, err_msg=kind)


def test_one_loss_in_five_disguises(key):
    """Errors of all kinds are those of the noise, with the weights that their definitions give."""
    events = truth_events(jax.random.fold_in(key, 1), 100)
    path = linear()._replace(t_min=0.05, t_max=0.95)
    alpha, sigma = path.alpha, path.sigma
    # Of a noise too large by e, the data are too small by e sigma / alpha, at the same x.
    weights = {
        "data": lambda t: (alpha(t) / sigma(t)) ** 2,
        "v": lambda t: (alpha(t) / (alpha(t) ** 2 + sigma(t) ** 2)) ** 2,
        "velocity": lambda t: alpha(t) ** 2,  # on the linear path the data's is x1 - x0
    }
    found = losses(path, events, key, weights=weights)
    for kind in KINDS:
        assert found[kind] == pytest.approx(found["noise"], rel=1e-4), kind


def test_preconditioning_of_edm(x64):
    """2206.00364, Table 1, and on any path inputs and targets of unit variance."""
    path, std, t, x = edm(), 0.5, jnp.asarray(0.6), jnp.array([0.7, -0.4])
    sigma = float(path.sigma(t))
    seen = []
    network = Network(lambda key: {}, lambda p, t, x, c: seen.append(x) or jnp.sin(x))
    found = preconditioned(network, path, std).apply({}, t, x, None)
    root = np.sqrt(sigma**2 + std**2)
    np.testing.assert_allclose(seen[0], x / root, rtol=1e-12)
    expected = std**2 / root**2 * x + sigma * std / root * np.sin(x / root)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    weight = preconditioned_weighting(path, std)(t)
    np.testing.assert_allclose(weight, (sigma**2 + std**2) / (sigma * std) ** 2, rtol=1e-12)


@pytest.mark.parametrize("path", [edm(), VP], ids=["edm", "vp"])
def test_preconditioned_targets_have_unit_variance(key, path):
    """A network that says zero has the loss one at every noise level, for normal data."""
    std = 0.5
    zero = Network(lambda key: {}, lambda p, t, x, c: jnp.zeros_like(x))

    @jax.jit
    def loss(t, x):
        model = diffusion(
            preconditioned(zero, path, std),
            (4,),
            path=path,
            prediction="data",
            weighting=preconditioned_weighting(path, std),
            times=lambda key: t,
        )
        return model.loss({}, key, Batch(x))

    x = std * normal(key, (10_000, 4))
    for t in (0.2, 0.9):
        np.testing.assert_allclose(loss(t, x), 1, atol=5 * (2 / 40_000) ** 0.5)


def test_log_normal_noise_levels(key):
    for path in (edm(), VP):
        t = jax.jit(jax.vmap(log_normal_times(path)))(jax.random.split(key, 2000))
        levels = np.log(np.asarray(path.sigma(t) / path.alpha(t), np.float64))
        # VP ends at a level of 0.01, below which are 0.2 % of the law.
        inside = levels > -4.5
        assert inside.mean() > 0.99
        assert stats.kstest(levels, stats.norm(-1.2, 1.2).cdf).pvalue > 1e-3


def test_samplers_share_parameters(key):
    """Samplers are swapped without another training, the network being any."""
    network = Network(lambda key: jax.random.normal(key, (2,)), lambda p, t, x, c: 0.1 * p + x)
    params = network.init(key)
    samplers = (DDIM(5), NonStationary.euler(5), Denoised(EDMHeun(3)))
    models = [diffusion(network, (2,), prediction="v", sampler=s) for s in samplers]
    assert len({np.asarray(draw(m, params, key, 2)).tobytes() for m in models}) == len(samplers)
    batch = Batch(jnp.ones((3, 2)))
    assert len({float(m.loss(params, key, batch)) for m in models}) == 1


def test_guidance_is_the_score_of_a_tilted_density(x64):
    """(1 + w) log p(x | c) - w log p(x) at every time; no guidance and no condition are limits."""
    broad = gaussian_mixture([[0.0, 0.0]], 1.0)
    t, x, null = jnp.asarray(0.6), jnp.array([0.3, -0.7]), jnp.asarray(False)
    conditional, marginal = (exact(VP, "score", m) for m in (MIXTURE, broad))
    pick = lambda p, t, x, c: jnp.where(
        c, conditional.apply(p, t, x, None), marginal.apply(p, t, x, None)
    )
    network = Network(conditional.init, pick)

    def log_density(x, w):
        logs = [mixture_toy(mixture_on_path(m, VP, t)).log_prob(x) for m in (MIXTURE, broad)]
        return (1 + w) * logs[0] - w * logs[1]

    @jax.jit
    def both(w):
        return guided(network, null, w).apply({}, t, x, ~null), jax.grad(log_density)(x, w)

    for w in (2.0, 0.0, -1.0):
        np.testing.assert_allclose(*both(w), rtol=1e-10)


def test_conditions_are_dropped_for_the_unconditional_model(key):
    """A loss that is the mean condition counts them; the rest of the model stays."""
    loss = lambda params, key, batch: jnp.mean(jnp.all(batch.cond["a"] == 7, axis=1))
    model = GenerativeModel(None, loss, sample="kept")
    null, n = {"a": np.full(3, 7.0)}, 20_000
    both = with_unconditional(model, null, 0.2)
    share = both.loss(None, key, Batch(jnp.zeros((n, 2)), {"a": jnp.ones((n, 3))}))
    np.testing.assert_allclose(share, 0.2, atol=5 * (0.16 / n) ** 0.5)
    assert both.sample == "kept"


def test_variational_bound_of_a_gaussian_in_closed_form(key):
    """The mean over data N(0, v): MMSE v / (1 + v SNR) at the left end of each step of the SNR."""
    v, dim, steps, n = 0.25, 2, 10, 20_000
    path = VP._replace(t_max=0.95)
    normal_data = gaussian_mixture([[0.0] * dim], v**0.5)
    bound = variational_bound(
        exact(path, "noise", normal_data), path=path, prediction="noise", steps=steps
    )
    x = v**0.5 * normal(jax.random.fold_in(key, 1), (n, dim))
    found = jax.jit(jax.vmap(lambda k, x: bound({}, k, x)))(jax.random.split(key, n), x)
    t = np.linspace(path.t_min, path.t_max, steps + 1)
    alpha, sigma = (np.asarray(f(t), np.float64) for f in path[:2])
    snr = (alpha / sigma) ** 2
    chain = 0.5 * np.sum(np.diff(snr) * v / (1 + v * snr[:-1]))
    prior = 0.5 * (alpha[0] ** 2 * v + sigma[0] ** 2 - 1 - 2 * np.log(sigma[0]))
    decoder = 0.5 * np.log(2 * np.pi * np.e / snr[-1])
    expected = -dim * (chain + prior + decoder)
    np.testing.assert_allclose(found.mean(), expected, atol=5 * found.std() / n**0.5)
    # It is below the best there is, minus the entropy.
    assert found.mean() < -dim * 0.5 * np.log(2 * np.pi * np.e * v) - 0.1


def test_variational_bound_is_below_the_truth_and_gets_near(key):
    """On a mixture; more steps close the gap, but for the width of the decoder."""
    n, path = 4000, VP
    x = truth_events(jax.random.fold_in(key, 1), n)
    truth = np.asarray(jax.jit(jax.vmap(mixture_toy(MIXTURE).log_prob))(x))
    gaps = []
    for steps in (30, 300):
        bound = variational_bound(exact(path, "v"), path=path, prediction="v", steps=steps)
        one = jax.jit(jax.vmap(lambda k, x: bound({}, k, x)))  # noqa: B023
        gap = truth - np.asarray(one(jax.random.split(key, n), x))
        gaps.append((gap.mean(), gap.std() / n**0.5))
    (coarse, coarse_error), (fine, fine_error) = gaps
    assert coarse > 5 * coarse_error
    assert -3 * fine_error < fine < 0.2 * coarse


def test_base_of_exploding_paths(key):
    """Sampling starts from the width that the path ends its noise with, and so does log_prob."""
    path = variance_exploding(0.01, 30.0)
    nothing = Network(lambda key: {}, lambda p, t, x, c: jnp.zeros_like(x))
    model = flow_matching(nothing, (3,), path=path)
    x = draw(model, {}, key, 5000)
    np.testing.assert_allclose(x.std(), 30.0, rtol=5 / 30_000**0.5)
    found = model.log_prob({}, key, jnp.array([1.0, 20.0, -50.0]), None)
    expected = stats.norm.logpdf([1.0, 20.0, -50.0], 0, 30.0).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_bad_input():
    network = exact(VP, "noise")
    for make, message in (
        (lambda: diffusion(network, (2,), path=linear()), "alpha is 0 at t_min = 0.0"),
        (
            lambda: diffusion(network, (2,), path=linear(), prediction="data"),
            r"sigma is 0 at t_max = 1.0.*path._replace\(t_max=1 - 1e-3\)",
        ),
        (
            lambda: diffusion(network, (2,), prediction="eps"),
            "unknown prediction 'eps'; one of velocity, score, noise, data, v",
        ),
        (
            lambda: with_unconditional(None, None, 0.0),
            "probability must be between 0 and 1",
        ),
        (
            lambda: variational_bound(network, path=VP, prediction="noise", steps=0),
            "steps must be a whole number from 1 .*got 0",
        ),
        (
            lambda: variational_bound(network, path=linear(), prediction="v", steps=5),
            "end the path earlier",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    for sampler in ("ddim", DDIM):  # a name, and a class in the place of one of it
        with pytest.raises(TypeError, match=r"must be one of jgen.solvers, such as DDIM\(50\)"):
            diffusion(network, (2,), sampler=sampler)

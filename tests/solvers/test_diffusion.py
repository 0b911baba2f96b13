"""Samplers of diffusion against closed forms, the papers' algorithms, orders and exact mixtures."""

import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jgen.models import diffusion
from jgen.nets import Network
from jgen.paths import (
    convert,
    cosine,
    edm,
    from_betas,
    linear,
    reverse_sde_noise,
    sub_variance_preserving,
    variance_exploding,
    variance_preserving,
)
from jgen.random import normal
from jgen.solvers import (
    DDIM,
    Ancestral,
    AnnealedLangevin,
    Denoised,
    EDMHeun,
    EulerMaruyama,
    NonStationary,
    PredictorCorrector,
    StepSampler,
    check_sampler,
    langevin,
    run_sampler,
    runge_kutta,
    step_posterior,
)
from jgen.toys import gaussian_mixture, mixture_on_path, mixture_prediction, mixture_toy

MIXTURE = gaussian_mixture(
    [[-1.0, 0.5], [1.0, 1.0], [0.5, -1.5]], [[0.3, 0.2], [0.2, 0.5], [0.4, 0.4]], [0.5, 0.3, 0.2]
)
VP, VE, EDM = variance_preserving(), variance_exploding(0.01, 50.0), edm()


def predict(path, mixture=MIXTURE):
    """Exact predictions of all kinds."""
    return lambda t, x, kind: mixture_prediction(mixture, path, kind)(t, x)


def denoiser(path, mixture=MIXTURE):
    return mixture_prediction(mixture, path, "data")


def samples(sampler, path, key, n):
    def one(key):
        key_x, key_sampler = jax.random.split(key)
        x0 = path.base_std * normal(key_x, (2,))
        return run_sampler(sampler, key_sampler, path, predict(path), x0)

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(key, n)))


def half(path):
    return lambda tau: 0.5 * reverse_sde_noise(path)(tau)


CASES = {
    "ode": (runge_kutta("heun", 60), VP),
    "sde vp": (EulerMaruyama(200, reverse_sde_noise(VP)), VP),
    "sde sub-vp": (
        EulerMaruyama(200, reverse_sde_noise(sub_variance_preserving())),
        sub_variance_preserving(),
    ),
    "sde w = g/2": (EulerMaruyama(200, half(VP)), VP),
    "sde w = sqrt(1 - t)": (EulerMaruyama(200), VP),
    "ancestral": (Ancestral(200), cosine()),
    "ancestral forward": (Ancestral(400, "forward"), from_betas(np.linspace(1e-4, 0.05, 401))),
    "ddim": (DDIM(200), VE),
    "ddim eta": (DDIM(200, 0.5), linear()),
    "edm": (EDMHeun(40), EDM),
    "edm churn": (EDMHeun(80, churn=20.0, churn_range=(0.05, 5.0)), EDM),
    "pc": (PredictorCorrector(Ancestral(200), 1, 0.1), VE),
    "langevin": (AnnealedLangevin(40, 40, 0.16), variance_exploding(0.05, 5.0)),
    "denoised": (Denoised(Ancestral(200)), VP),
}


@pytest.mark.parametrize("name", CASES)
def test_every_sampler_reaches_the_floor(name, key):
    """5000 events are not to be told from the truth, in three directions of the plane.

    That the SDE's noise level does not matter is among it: g of the reverse SDE, half of it, and
    sqrt(1 - t) have one marginal.
    """
    sampler, path = CASES[name]
    x = samples(sampler, path, key, 5000)
    truth = mixture_on_path(MIXTURE, path, jnp.asarray(path.t_max))
    # The last denoising takes the noise of t_max, of width 0.01, away.
    truth = MIXTURE if name == "denoised" else truth
    for direction in np.array([[1.0, 0.0], [0.0, 1.0], [0.6, -0.8]]):
        means, widths = truth.means @ direction, np.sqrt(truth.widths**2 @ direction**2)
        cdf = lambda v: stats.norm.cdf(v[:, None], means, widths) @ truth.fractions  # noqa: B023
        assert stats.kstest(x @ direction, cdf).pvalue > 1e-3
        # Of events that are 5 % and a tenth off the same test says no.
        assert stats.kstest(1.05 * x @ direction + 0.1, cdf).pvalue < 1e-4


def ends(method, path, x0):
    """x(t_max) by the exact probability-flow ODE."""
    one = lambda x: run_sampler(method, jax.random.key(0), path, predict(path), x)
    return np.asarray(jax.jit(jax.vmap(one))(x0))


def test_orders_of_the_ode(x64, key):
    """1, 2, 2 and 4 on an exact mixture; DDIM is Euler's method and EDM's sampler Heun's."""
    path = linear()._replace(t_min=0.05, t_max=0.98)
    x0 = normal(key, (20, 2))
    exact = ends(runge_kutta("rk4", 1000), path, x0)
    methods = {
        "euler": (lambda n: runge_kutta("euler", n), 1),
        "midpoint": (lambda n: runge_kutta("midpoint", n), 2),
        "heun": (lambda n: runge_kutta("heun", n), 2),
        "rk4": (lambda n: runge_kutta("rk4", n), 4),
        "ddim": (DDIM, 1),
        "edm": (EDMHeun, 2),
    }
    for name, (make, order) in methods.items():
        errors = [np.abs(ends(make(n), path, x0) - exact).mean() for n in (128, 256)]
        found = np.log2(errors[0] / errors[1])
        np.testing.assert_allclose(found, order, atol=0.1 * order, err_msg=name)


def test_weak_order_one(key):
    """Means over coupled Brownian paths: halving the steps halves the error of E[x^2].

    The components overlap, so that neighbouring paths stay together.
    """
    n, finest, path = 20_000, 64, linear()
    known = predict(path, gaussian_mixture([[-1.0], [1.0]], 0.7, [1.0, 2.0]))
    velocity = lambda t, x: known(t, x, "velocity")
    score = lambda t, x, u: convert(path, t, x, u, "velocity", "score")

    @jax.jit
    @jax.vmap
    def squares(key):
        x0, increments = normal(key, (1,)), normal(jax.random.fold_in(key, 1), (finest, 1))

        def one(steps):
            coarse = increments.reshape(steps, -1, 1).sum(axis=1) / (finest / steps) ** 0.5
            return EulerMaruyama(steps)(velocity, score, x0, coarse)[0] ** 2

        return jnp.stack([one(steps) for steps in (16, 32, 64)])

    found = np.asarray(squares(jax.random.split(key, n)), np.float64)
    first, second = -np.diff(found, axis=1).T
    ratio = first.mean() / second.mean()
    error = np.std(first / first.mean() - second / second.mean()) / n**0.5 * ratio
    assert error < 0.1
    # 2 up to the next order, which the coarsest steps have.
    np.testing.assert_allclose(ratio, 2, atol=4 * error + 0.15)


def test_ddim_with_eta_one_is_ancestral(x64, key):
    @jax.jit
    def both(x0):
        return [
            [
                run_sampler(sampler, key, path, predict(path), path.base_std * x0)
                for sampler in (DDIM(20, 1.0), Ancestral(20))
            ]
            for path in (VP, VE, linear())
        ]

    for found, expected in both(normal(key, (2,))):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_ddpm_algorithm_2(x64, key):
    """T steps of 2006.11239 with its betas, the last one without noise, as in the paper."""
    steps = 20
    betas = np.linspace(0.01, 0.4, steps)
    path, abar = from_betas(betas), np.cumprod(1 - betas)
    eps = jax.jit(mixture_prediction(MIXTURE, path, "noise"))
    x = x0 = normal(key, (2,))
    for i in range(steps, 0, -1):
        beta, at = betas[i - 1], abar[i - 1]
        mean = (x - beta / np.sqrt(1 - at) * eps(jnp.asarray(1 - i / steps), x)) / np.sqrt(1 - beta)
        if i > 1:
            std = np.sqrt((1 - abar[i - 2]) / (1 - at) * beta)
            mean += std * normal(jax.random.fold_in(key, steps - i), (2,))
        x = mean
    sampler = Denoised(Ancestral(steps - 1))
    assert sampler.n_eval == steps
    found = run_sampler(sampler, key, path, predict(path), x0)
    np.testing.assert_allclose(found, x, rtol=1e-9)
    # The other choice of the paper, sigma^2 = beta.
    t, s = jnp.asarray(0.0), jnp.asarray(1 / steps)
    z = normal(key, (2,))
    step = lambda kind: Ancestral(9, kind).step(path, denoiser(path), x0, t, s, z)
    wider = np.sqrt(betas[-1]) - np.sqrt((1 - abar[-2]) / (1 - abar[-1]) * betas[-1])
    np.testing.assert_allclose(step("forward") - step("posterior"), wider * z, rtol=1e-9)


def test_edm_algorithm_2(x64, key):
    """2206.00364 with churn between two levels, on its grid, the last step to noise zero."""
    steps, path = 12, edm(0.01, 5.0)
    churn, low, high, factor = 4.0, 0.1, 2.0, 1.007
    sampler = EDMHeun(steps, churn, (low, high), factor)
    x0 = 5 * normal(key, (2,))
    sigmas = 5 ** (1 / 7) + np.arange(steps + 1) / steps * (0.01 ** (1 / 7) - 5 ** (1 / 7))
    sigmas = np.append(sigmas**7, 0.0)
    # The denoiser at any sigma, the exact one of the mixture with this much noise.
    noisy = linear()._replace(alpha=jnp.ones_like, sigma=lambda t: t)
    clean = jax.jit(mixture_prediction(MIXTURE, noisy, "data"))
    x = x0
    for i, (now, then) in enumerate(itertools.pairwise(sigmas)):
        gamma = min(churn / steps, 2**0.5 - 1) if low <= now <= high else 0.0
        raised = now * (1 + gamma)
        z = normal(jax.random.fold_in(key, i), (2,))
        x = x + (raised**2 - now**2) ** 0.5 * factor * z
        slope = (x - clean(jnp.asarray(raised), x)) / raised
        new = x + (then - raised) * slope
        if then > 0:
            slope = (slope + (new - clean(jnp.asarray(then), new)) / then) / 2
            new = x + (then - raised) * slope
        x = new
    found = run_sampler(Denoised(sampler), key, path, predict(path), x0)
    np.testing.assert_allclose(found, x, rtol=1e-7)


def test_predictor_corrector_beats_its_predictor_at_equal_network_calls(key):
    """32 calls on the exploding path: half the steps and long Langevin ones after each."""
    truth = mixture_toy(MIXTURE)
    x1 = np.asarray(jax.jit(jax.vmap(truth.sample))(jax.random.split(key, 20_000)))
    pc, p = PredictorCorrector(Ancestral(16), 1, 0.6), Ancestral(32)
    assert pc.n_eval == p.n_eval
    errors = [
        np.mean([stats.wasserstein_distance(a, b) for a, b in zip(x.T, x1.T, strict=True)])
        for x in (samples(sampler, VE, key, 5000) for sampler in (pc, p))
    ]
    assert errors[0] < 0.7 * errors[1]  # 0.3 to 0.5 times over three keys


def test_posterior_by_conditioning(x64):
    """From the covariance of (x_t, x_s) given x1, by the formula for two normal variables."""
    for path in (VP, VE, linear()):
        t, s, data, x = jnp.asarray(0.4), jnp.asarray(0.5), 0.7, jnp.array([0.2])
        alpha_t, alpha_s, sigma_t, sigma_s = (f(a) for f in path[:2] for a in (t, s))
        covariance = alpha_t / alpha_s * sigma_s**2
        mean = alpha_s * data + covariance / sigma_t**2 * (x - alpha_t * data)
        variance = sigma_s**2 - covariance**2 / sigma_t**2
        found = step_posterior(path, t, s, x, jnp.array([data]))
        np.testing.assert_allclose(found[0], mean, rtol=1e-10)
        np.testing.assert_allclose(found[1], np.sqrt(variance), rtol=1e-10)


def test_langevin_steps_are_a_known_autoregression(key):
    """Of data at zero x keeps 1 - 2 r^2 of itself and gains (2 r sigma)^2 of variance a step."""
    r, steps, n, t = 0.3, 5, 20_000, jnp.asarray(0.5)
    point = lambda t, x: jnp.zeros_like(x)
    start = 3 * VE.sigma(t)
    step = lambda key: langevin(normal(key, (steps, 1)), VE, point, jnp.full(1, start), t, r)
    x = np.asarray(jax.jit(jax.vmap(step))(jax.random.split(key, n)))[:, 0] / float(VE.sigma(t))
    kept = 1 - 2 * r**2
    std = 2 * r * np.sqrt((1 - kept ** (2 * steps)) / (1 - kept**2))
    np.testing.assert_allclose(x.mean(), 3 * kept**steps, atol=5 * std / n**0.5)
    np.testing.assert_allclose(x.std(), std, rtol=5 / (2 * n) ** 0.5)


def test_numbers_of_evaluations_are_counted():
    calls = []

    def counting(t, x, kind):
        jax.debug.callback(lambda: calls.append(1))
        return predict(EDM)(t, x, kind)

    for sampler, expected in (
        (PredictorCorrector(EDMHeun(5), 3), 25),
        (PredictorCorrector(DDIM(5)), 10),
        (AnnealedLangevin(5, 4), 20),
        (Denoised(Ancestral(5)), 6),
    ):
        calls.clear()
        jax.block_until_ready(run_sampler(sampler, jax.random.key(0), EDM, counting, jnp.ones(2)))
        jax.effects_barrier()
        assert len(calls) == sampler.n_eval == expected


def test_bespoke_solvers_run_on_every_path(key):
    solver = runge_kutta("rk4", 3)
    x0 = EDM.base_std * normal(key, (4, 2))
    found = ends(NonStationary.from_runge_kutta(solver), EDM, x0)
    np.testing.assert_allclose(found, ends(solver, EDM, x0), rtol=1e-3)


@dataclass(frozen=True)
class Halving(StepSampler):
    """A user's step, nothing of jgen in it but the name of its base: x is halved, noise added."""

    steps: int

    @property
    def n_eval(self):
        return 0

    def step_noise(self, key, shape):
        return jax.random.normal(key, shape)

    def step(self, path, denoiser, x, t, s, noise):
        return x / 2 + (s - t) * noise


class Whole:
    """A user's sampler of no base at all: one DDIM step over all of the path."""

    n_eval = 1

    def noise(self, key, shape):
        return None

    def sample(self, path, predict, x0, noise):
        t = jnp.asarray(path.t_min)
        return path.alpha(path.t_max) * predict(t, x0, "data") + path.sigma(path.t_max) * predict(
            t, x0, "noise"
        )


def test_a_sampler_of_ones_own_is_a_sampler(key):
    x0 = normal(key, (2,))
    path = cosine()
    model = diffusion(
        Network(lambda key: {}, lambda p, t, x, c: jnp.cos(x)), (2,), path=path, sampler=Whole()
    )
    expected = diffusion(
        Network(lambda key: {}, lambda p, t, x, c: jnp.cos(x)), (2,), path=path, sampler=DDIM(1)
    )
    found, expected = (m.sample(None, key, None) for m in (model, expected))
    np.testing.assert_allclose(found, expected, rtol=1e-6)  # in single precision
    z = Halving(3).noise(key, (2,))
    assert z.shape == (3, 2)
    found = run_sampler(Halving(3), key, VP, predict(VP), x0)
    step = (VP.t_max - VP.t_min) / 3
    by_hand = x0 / 8 + step * (z[0] / 4 + z[1] / 2 + z[2])
    np.testing.assert_allclose(found, by_hand, rtol=1e-5)
    assert PredictorCorrector(Halving(3), 2).n_eval == 6
    for bad in ("ddim", DDIM, lambda velocity, x0: x0):
        with pytest.raises(TypeError, match="have n_eval, noise and sample"):
            check_sampler(bad)


@pytest.mark.parametrize("name", CASES)
def test_a_sample_is_a_function_of_its_noise(name, key):
    """Drawn in the steps or ahead of them, the numbers are the same; given them, chance is out."""
    sampler, path = CASES[name]
    known = predict(path, gaussian_mixture([[-1.0, 0.0], [1.0, 0.5]], 0.7, [1.0, 2.0]))
    x0 = path.base_std * normal(key, (2,))
    one = jax.jit(lambda key: run_sampler(sampler, key, path, known, x0))
    given = lambda noise: sampler.sample(path, known, x0, noise)
    noise = jax.jit(lambda key: sampler.noise(key, (2,)))(key)
    np.testing.assert_allclose(one(key), jax.jit(given)(noise), rtol=1e-5, atol=1e-5)
    assert "random" not in str(jax.make_jaxpr(given)(noise))


def test_bad_input(key):
    for make, message in (
        (lambda: DDIM(0), "steps must be a whole number from 1 .*got 0"),
        (lambda: EDMHeun(1.5), "steps must be a whole number from 1 .*got 1.5"),
        (lambda: DDIM(5, 1.5), r"eta must be in \[0, 1\], got 1.5"),
        (lambda: Ancestral(5, "large"), "variance must be one of posterior, forward, got 'large'"),
        (lambda: EDMHeun(5, churn=-1.0), "churn must be .*zero or positive and finite, got -1.0"),
        (lambda: PredictorCorrector(DDIM(5), 0), "num_corrections must be a whole number from 1"),
        (lambda: AnnealedLangevin(5, 5, 1.0), "snr must be between 0 and 1, got 1.0"),
        (lambda: ends(EDMHeun(5), linear(), jnp.ones((1, 2))), "alpha is 0 at t_min = 0.0"),
        (
            lambda: ends(EDMHeun(5), linear()._replace(t_min=0.1), jnp.ones((1, 2))),
            "sigma is 0 at t_max = 1.0",
        ),
        (lambda: ends(AnnealedLangevin(5, 5), linear(), jnp.ones((1, 2))), "begin the path later"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(TypeError, match="predictor must be DDIM.*got RungeKutta"):
        PredictorCorrector(runge_kutta("heun", 5))
    with pytest.raises(TypeError, match="sampler must be one of jgen.solvers.*got 'ddim'"):
        Denoised("ddim")

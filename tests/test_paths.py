import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.paths import (
    coefficients,
    convert,
    cosine,
    edm,
    from_betas,
    interpolate,
    linear,
    on_unit_interval,
    reverse_sde_noise,
    sub_variance_preserving,
    time_of_noise,
    variance_exploding,
    variance_preserving,
)
from jgen.solvers import runge_kutta

BETAS = np.linspace(1e-4, 0.02, 1000)
PATHS = {
    "linear": linear(),
    "sigma_min": linear(0.01),
    "vp": variance_preserving(),
    "sub-vp": sub_variance_preserving(),
    "cosine": cosine(),
    "ddpm": from_betas(BETAS),
    "ve": variance_exploding(),
    "edm": edm(),
}
KINDS = ("velocity", "score", "noise", "data", "v")


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_ends_are_noise_and_data(path):
    x0, x1 = jnp.array([1.0, -2.0]), jnp.array([0.5, 3.0])
    start, _ = interpolate(path, path.t_min, x0, x1)
    end, _ = interpolate(path, path.t_max, x0, x1)
    # VP keeps alpha(0) = 0.0066 of the data, exploding paths keep all, which is little there.
    base = path.base_std
    np.testing.assert_allclose(start / base, x0, atol=0.03 if base == 1 else 3.1 / base)
    np.testing.assert_allclose(end, x1, atol=0.04)  # sigma(t_max) = 0.01


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_velocity_is_the_time_derivative(x64, path):
    # Between two nodes of the discrete chain; sums over s = 1 - t of such paths are not smooth.
    x0, x1, t, h = jnp.array([1.0, -2.0]), jnp.array([0.5, 3.0]), 0.3704, 1e-6
    _, velocity = interpolate(path, t, x0, x1)
    ahead, behind = (interpolate(path, t + s, x0, x1)[0] for s in (h, -h))
    np.testing.assert_allclose(velocity, (ahead - behind) / (2 * h), rtol=1e-8)


def test_variance_preserving_coefficients_against_their_integral(x64):
    """Alpha = exp(-1/2 int beta) of 2011.13456, Eq. 33, by quadrature."""
    path, t = variance_preserving(0.1, 20.0), 0.3
    s = np.linspace(0, 1 - t, 100_001)
    beta = 0.1 + s * 19.9
    expected = np.exp(-0.5 * np.trapezoid(beta, s))
    np.testing.assert_allclose(path.alpha(t), expected, rtol=1e-9)
    np.testing.assert_allclose(path.alpha(t) ** 2 + path.sigma(t) ** 2, 1, rtol=1e-12)


def test_schedules_of_the_papers(x64):
    """Their formulas, at the papers' time s = 1 - t."""
    s = np.linspace(0.01, 0.99, 5)
    integral = 0.1 * s + 0.5 * 19.9 * s**2
    path = sub_variance_preserving()
    np.testing.assert_allclose(path.alpha(1 - s), np.exp(-0.5 * integral), rtol=1e-12)
    np.testing.assert_allclose(path.sigma(1 - s) ** 2, (1 - np.exp(-integral)) ** 2, rtol=1e-12)
    path = variance_exploding(0.01, 50.0)
    np.testing.assert_allclose(path.sigma(1 - s), 0.01 * 5000.0**s, rtol=1e-12)
    path, f = cosine(), lambda s: np.cos((s + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(path.alpha(1 - s) ** 2, f(s) / f(0), rtol=1e-12)
    np.testing.assert_allclose(path.alpha(1 - s) ** 2 + path.sigma(1 - s) ** 2, 1, rtol=1e-12)
    i, rho = np.arange(18), 7
    grid = (80 ** (1 / rho) + i / 17 * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho
    np.testing.assert_allclose(edm().sigma(i / 17), grid, rtol=1e-11)
    assert (edm().base_std, variance_exploding().base_std) == (80.0, 50.0)


def test_ddpm_is_the_discrete_view_of_variance_preserving(x64):
    """Products of 1 - beta at the nodes; betas of the continuous path are those up to 1 / T."""
    path, nodes = from_betas(BETAS), 1 - np.arange(1, 1001) / 1000
    np.testing.assert_allclose(path.alpha(nodes) ** 2, np.cumprod(1 - BETAS), rtol=1e-11)
    assert path.t_max == pytest.approx(1 - 1 / 1000)
    continuous = variance_preserving(0.1, 20.0).alpha(np.append(1.0, nodes)) ** 2
    betas = 1 - continuous[1:] / continuous[:-1]
    np.testing.assert_allclose(betas, BETAS, atol=0.02 / 1000 + 0.02**2 / 2)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_predictions_convert_into_each_other(path, key):
    """For a known pair (x0, x1) all five are known."""
    x0, x1, t = *jax.random.normal(key, (2, 5)), jnp.asarray(0.6)
    x, velocity = interpolate(path, t, x0, x1)
    alpha, sigma = path.alpha(t), path.sigma(t)
    known = {
        "velocity": velocity,
        "noise": x0,
        "data": x1,
        "score": -x0 / sigma,
        "v": alpha * x0 - sigma * x1,
    }
    for source, goal in itertools.product(KINDS, KINDS):
        found = convert(path, t, x, known[source], source, goal)
        scale = float(jnp.max(jnp.abs(known[goal])))
        np.testing.assert_allclose(found, known[goal], rtol=1e-5, atol=1e-5 * max(1, scale))
    for kind in KINDS:
        point, target = interpolate(path, t, x0, x1, kind)
        np.testing.assert_allclose(target, known[kind], rtol=1e-6)
        np.testing.assert_array_equal(point, x)


def test_the_reverse_sde_belongs_to_the_path(x64):
    """Var x_t = sigma^2 grows by d sigma^2 / ds = 2 f sigma^2 + g^2 in the forward SDE."""
    t = jnp.asarray(0.3704)
    for name, path in PATHS.items():
        span = path.t_max - path.t_min
        g2 = reverse_sde_noise(path)((t - path.t_min) / span) ** 2 / span
        alpha, sigma, alpha_dot, sigma_dot = coefficients(path, t)
        f = -alpha_dot / alpha  # s = 1 - t
        grown = 2 * f * sigma**2 + g2
        np.testing.assert_allclose(grown, -2 * sigma * sigma_dot, rtol=1e-10, err_msg=name)


def test_diffusion_coefficients_of_the_papers(x64):
    """2011.13456, Eqs. 29 to 31, with s = 1 - t."""
    t = jnp.asarray(0.3)
    beta = 0.1 + 0.7 * 19.9
    integral = 0.1 * 0.7 + 0.5 * 19.9 * 0.7**2
    for path, expected in (
        (variance_preserving(t_max=1.0), beta),
        (sub_variance_preserving(t_max=1.0), beta * (1 - np.exp(-2 * integral))),
        (variance_exploding(0.01, 50.0), (0.01 * 5000**0.7) ** 2 * 2 * np.log(5000)),
    ):
        np.testing.assert_allclose(reverse_sde_noise(path)(t) ** 2, expected, rtol=1e-10)


def test_times_of_noise_levels(x64):
    for name, path in PATHS.items():
        t = np.array([path.t_min + 0.01, 0.4, path.t_max - 0.01])
        ratios = np.concatenate([path.sigma(t) / path.alpha(t), [1e9, -1.0]])
        found = jax.vmap(lambda r: time_of_noise(path, r))(ratios)  # noqa: B023
        expected = [*t, path.t_min, path.t_max]
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-8, err_msg=name)


def gaussian_velocity(path, mean, std):
    """Marginal velocity when data are N(mean, std^2), from E[x1 | x]."""

    def velocity(t, x):
        variance = (path.alpha(t) * std) ** 2 + path.sigma(t) ** 2
        data = mean + path.alpha(t) * std**2 / variance * (x - path.alpha(t) * mean)
        return convert(path, t, x, data, "data", "velocity")

    return velocity


@pytest.mark.parametrize("path", [PATHS[p] for p in ("linear", "sigma_min", "vp", "edm")])
def test_exact_gaussian_flow(x64, path):
    """The flow of Gaussian data is linear: x0 at t_min goes to the same quantile at t_max."""
    mean, std, x0 = 0.7, 0.4, jnp.linspace(-2, 2, 5)
    moments = lambda t: (path.alpha(t) * mean, np.hypot(path.alpha(t) * std, path.sigma(t)))
    (m0, s0), (m1, s1) = moments(path.t_min), moments(path.t_max)
    velocity = on_unit_interval(path, gaussian_velocity(path, mean, std))
    # Midpoint never evaluates the data end, where sigma = 0 makes this conversion 0/0.
    x1 = runge_kutta("midpoint", 4000)(velocity, x0)
    np.testing.assert_allclose(x1, m1 + s1 * (x0 - m0) / s0, atol=1e-6)


def test_bad_input():
    with pytest.raises(ValueError, match="sigma_min must be in"):
        linear(1.0)
    with pytest.raises(ValueError, match="need 0 < beta_min < beta_max"):
        variance_preserving(2.0, 1.0)
    with pytest.raises(ValueError, match="offset must be zero or positive and finite, got -0.1"):
        cosine(-0.1)
    with pytest.raises(ValueError, match="two or more betas between 0 and 1"):
        from_betas([0.1, 1.0])
    for path in (variance_exploding, edm):
        with pytest.raises(ValueError, match="sigma_min must be positive and finite, got 0.0"):
            path(0.0, 1.0)
    with pytest.raises(ValueError, match="unknown prediction 'eps'; one of velocity, score"):
        convert(linear(), 0.5, jnp.ones(2), jnp.ones(2), "eps", "data")

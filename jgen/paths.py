r"""Probability paths x_t = alpha(t) x1 + sigma(t) x0 from noise x0 (t = 0) to data x1 (t = 1).

A path is two scalar functions. Everything that flow matching and diffusion need follows from them
and their derivatives, which are taken by autodiff: the interpolation, its velocity, and the five
equivalent things a network may predict at (t, x_t), which are linear in one another:

    data      E[x1 | x_t]                       x0-prediction of the diffusion papers
    noise     E[x0 | x_t]                       their epsilon
    score     s = -noise / sigma
    velocity  u = alpha' data + sigma' noise
    v         alpha noise - sigma data          2202.00512

Diffusion papers run from data to noise, mostly over [0, 1]: their time is s = 1 - t.

Sources: flow matching 2210.02747, score SDEs 2011.13456, EDM 2206.00364.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from jgen.checks import check_not_negative, check_positive
from jgen.typing import Velocity

Prediction = Literal["velocity", "score", "noise", "data", "v"]


class Path(NamedTuple):
    """Schedules of a Gaussian path and the interval on which they are used.

    Attributes:
      alpha: t -> coefficient of the data.
      sigma: t -> coefficient of the noise.
      t_min, t_max: training and sampling keep to this interval, the one place where a path with
        a singular end is clipped.
      base_std: standard deviation of the normal distribution that sampling starts from at t_min;
        one but for paths that explode.
    """

    alpha: Callable[[Array], Array]
    sigma: Callable[[Array], Array]
    t_min: float = 0.0
    t_max: float = 1.0
    base_std: float = 1.0


def linear(sigma_min: float = 0.0) -> Path:
    """x_t = t x1 + (1 - (1 - sigma_min) t) x0, the optimal-transport path (2210.02747, Eq. 20).

    With `sigma_min` = 0 this is Eq. 8 of CaloDREAM (2405.09629) and rectified flow.
    """
    if not 0 <= sigma_min < 1:
        raise ValueError(f"sigma_min must be in [0, 1), got {sigma_min}")
    return Path(lambda t: t, lambda t: 1 - (1 - sigma_min) * t)


def variance_preserving(
    beta_min: float = 0.1, beta_max: float = 20.0, t_max: float = 1 - 1e-3
) -> Path:
    """alpha^2 + sigma^2 = 1 with linear beta (2011.13456, Eq. 33), here with t = 0 as noise.

    log alpha = -(beta_max - beta_min) s^2 / 4 - beta_min s / 2 at s = 1 - t. The velocity diverges
    as 1/sigma at the data end, hence `t_max` < 1.
    """
    log_alpha = _log_alpha(beta_min, beta_max)
    return Path(
        alpha=lambda t: jnp.exp(log_alpha(t)),
        # 1 - alpha^2 without cancellation, which matters where sigma is small.
        sigma=lambda t: jnp.sqrt(-jnp.expm1(2 * log_alpha(t))),
        t_max=t_max,
    )


def sub_variance_preserving(
    beta_min: float = 0.1, beta_max: float = 20.0, t_max: float = 1 - 1e-3
) -> Path:
    """The alpha of `variance_preserving` with sigma = 1 - alpha^2 (2011.13456, Eq. 29)."""
    log_alpha = _log_alpha(beta_min, beta_max)
    return Path(
        alpha=lambda t: jnp.exp(log_alpha(t)),
        sigma=lambda t: -jnp.expm1(2 * log_alpha(t)),
        t_max=t_max,
    )


def _log_alpha(beta_min, beta_max):
    """-1/2 times the integral of a linear beta over s = 1 - t."""
    check_positive(beta_min=beta_min, beta_max=beta_max)
    if not beta_min < beta_max:
        raise ValueError(f"need 0 < beta_min < beta_max, got {beta_min} and {beta_max}")

    def log_alpha(t):
        s = 1 - t
        return -0.25 * s**2 * (beta_max - beta_min) - 0.5 * s * beta_min

    return log_alpha


def cosine(offset: float = 0.008, t_min: float = 1e-3, t_max: float = 1 - 1e-3) -> Path:
    """alpha^2 + sigma^2 = 1 with alpha a quarter of a cosine (2102.09672, Eq. 17), s = 1 - t.

    alpha(0) = 0, where the data cannot be told from the noise, and sigma(1) = 0: both ends are
    clipped. (The paper limits its discrete betas to 0.999 instead.)

    Raises:
      ValueError: if `offset` is negative.
    """
    check_not_negative(offset=offset)
    quarter, start = np.pi / 2 / (1 + offset), np.pi / 2 * offset / (1 + offset)

    def sigma(t):
        # 1 - alpha^2 as a product of sines, which do not cancel.
        angle = quarter * (1 - t)
        return jnp.sqrt(jnp.sin(angle) * jnp.sin(angle + 2 * start)) / np.cos(start)

    return Path(lambda t: jnp.sin(quarter * t) / np.cos(start), sigma, t_min, t_max)


def from_betas(betas: Real[np.ndarray, " steps"]) -> Path:
    """The path through a discrete chain q(x_i | x_{i-1}) = N(sqrt(1 - beta_i) x_{i-1}, beta_i).

    DDPM (2006.11239, Eqs. 2-4; there linear from 1e-4 to 0.02 in 1000 steps). Its step i is at
    t = 1 - i / steps, with log alpha linear in between; the path ends at step one, t = 1 - 1/steps,
    so that `steps` - 1 equal steps of a sampler and a last one to the data are the paper's.

    Raises:
      ValueError: for fewer than two betas, or one that is not between zero and one.
    """
    betas = np.asarray(betas, np.float64)
    if betas.ndim != 1 or len(betas) < 2 or not np.all((betas > 0) & (betas < 1)):
        raise ValueError(f"need two or more betas between 0 and 1, got {betas}")
    nodes = np.linspace(0, 1, len(betas) + 1)
    values = np.append(0.0, 0.5 * np.cumsum(np.log1p(-betas)))
    log_alpha = lambda t: jnp.interp(1 - t, nodes, values)
    return Path(
        alpha=lambda t: jnp.exp(log_alpha(t)),
        sigma=lambda t: jnp.sqrt(-jnp.expm1(2 * log_alpha(t))),
        t_max=1 - 1 / len(betas),
    )


def variance_exploding(sigma_min: float = 0.01, sigma_max: float = 50.0) -> Path:
    """Geometric sigma with alpha = 1 (NCSN 1907.05600; 2011.13456, Eq. 31), s = 1 - t.

    sigma_max should be about the largest distance of two events (2006.09011).
    """
    _check_sigmas(sigma_min, sigma_max)
    slope = np.log(sigma_max / sigma_min)
    return Path(
        alpha=jnp.ones_like,
        sigma=lambda t: sigma_min * jnp.exp(slope * (1 - t)),
        base_std=sigma_max,
    )


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Path:
    """Linear sigma^(1/rho) with alpha = 1: equal steps in t are EDM's grid (2206.00364, Eq. 5).

    The paper's own time is sigma. sigma_max should be far above the spread of the data.
    """
    _check_sigmas(sigma_min, sigma_max)
    check_positive(rho=rho)
    start, end = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return Path(
        alpha=jnp.ones_like,
        sigma=lambda t: (start + t * (end - start)) ** rho,
        base_std=sigma_max,
    )


def _check_sigmas(sigma_min, sigma_max):
    check_positive(sigma_min=sigma_min, sigma_max=sigma_max)
    if not sigma_min < sigma_max:
        raise ValueError(f"need 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")


def coefficients(path: Path, t: Float[Array, ""]) -> tuple[Array, Array, Array, Array]:
    """(alpha, sigma, alpha', sigma') at time t."""
    t = jnp.asarray(t, jnp.result_type(float))
    one = jnp.ones_like(t)
    alpha, alpha_dot = jax.jvp(path.alpha, (t,), (one,))
    sigma, sigma_dot = jax.jvp(path.sigma, (t,), (one,))
    return alpha, sigma, alpha_dot, sigma_dot


def interpolate(
    path: Path,
    t: Float[Array, ""],
    x0: Float[Array, "*x"],
    x1: Float[Array, "*x"],
    kind: Prediction = "velocity",
) -> tuple[Float[Array, "*x"], Float[Array, "*x"]]:
    """Point x_t of the path between noise x0 and data x1, and its velocity dx_t/dt.

    With another `kind`, that prediction for the known pair in the velocity's place: what a network
    of this kind is trained on.

    Raises:
      ValueError: for an unknown kind.
    """
    check_kinds(kind)
    c = coefficients(path, t)
    return c[0] * x1 + c[1] * x0, _combine(c, x1, x0, kind)


def convert(
    path: Path,
    t: Float[Array, ""],
    x: Float[Array, "*x"],
    value: Float[Array, "*x"],
    source: Prediction,
    target: Prediction,
) -> Float[Array, "*x"]:
    """Turn one prediction at (t, x_t) into another.

    Singular where alpha = 0 from noise or score, and where sigma = 0 from data or to the score.

    Args:
      path: the path.
      t: time.
      x: the point x_t.
      value: the prediction of kind `source`.
      source: what `value` is: "velocity", "score", "noise", "data" or "v".
      target: what to return.

    Raises:
      ValueError: for an unknown kind.
    """
    check_kinds(source, target)
    if source == target:
        return value
    alpha, sigma, alpha_dot, sigma_dot = c = coefficients(path, t)
    # Two equations for (x0, x1): x = alpha x1 + sigma x0, and the definition of the prediction.
    if source == "velocity":
        wronskian = alpha_dot * sigma - sigma_dot * alpha
        noise = (alpha_dot * x - alpha * value) / wronskian
        data = (sigma * value - sigma_dot * x) / wronskian
    elif source == "v":
        square = alpha**2 + sigma**2
        noise = (sigma * x + alpha * value) / square
        data = (alpha * x - sigma * value) / square
    elif source == "data":
        noise, data = (x - alpha * value) / sigma, value
    else:
        noise = value if source == "noise" else -sigma * value
        data = (x - sigma * noise) / alpha
    return _combine(c, data, noise, target)


def _combine(c, data, noise, kind):
    """A prediction from data and noise, whose coefficients are (alpha, sigma, alpha', sigma')."""
    alpha, sigma, alpha_dot, sigma_dot = c
    if kind == "velocity":
        return alpha_dot * data + sigma_dot * noise
    if kind == "v":
        return alpha * noise - sigma * data
    return -noise / sigma if kind == "score" else {"noise": noise, "data": data}[kind]


def check_kinds(*kinds: str) -> None:
    """Refuse what is no kind of prediction.

    Raises:
      ValueError: naming it and the known ones.
    """
    known = get_args(Prediction)
    for kind in kinds:
        if kind not in known:
            raise ValueError(f"unknown prediction {kind!r}; one of {', '.join(known)}")


def check_ends(path: Path, *, alpha: bool = False, sigma: bool = False) -> None:
    """Refuse a path with alpha = 0 at t_min or sigma = 0 at t_max.

    Raises:
      ValueError: if that which must not vanish does.
    """
    vanishes = lambda f, t: float(f(jnp.asarray(t, float))) <= 0
    with jax.ensure_compile_time_eval():
        zero_alpha = alpha and vanishes(path.alpha, path.t_min)
        zero_sigma = sigma and vanishes(path.sigma, path.t_max)
    if zero_alpha:
        raise ValueError(
            f"alpha is 0 at t_min = {path.t_min}, where nothing can be said about the data: begin "
            "the path later, path._replace(t_min=1e-3)"
        )
    if zero_sigma:
        raise ValueError(
            f"sigma is 0 at t_max = {path.t_max}, where nothing can be said about the noise: end "
            "the path earlier, path._replace(t_max=1 - 1e-3)"
        )


def check_prediction(path: Path, prediction: Prediction) -> None:
    """Refuse what a network cannot predict along a path.

    Raises:
      ValueError: for an unknown prediction, or one that is singular at an end of the path.
    """
    check_kinds(prediction)
    check_ends(path, alpha=prediction in ("noise", "score"), sigma=prediction in ("data", "score"))


def time_of_noise(path: Path, ratio: Float[Array, ""]) -> Float[Array, ""]:
    """The time in [t_min, t_max] at which sigma / alpha, which must fall, is `ratio`; by bisection.

    Ratios beyond the ends give the ends.
    """
    ratio = jnp.asarray(ratio, jnp.result_type(float))

    def halve(_, bracket):
        low, high = bracket
        middle = 0.5 * (low + high)
        noisier = path.sigma(middle) > ratio * path.alpha(middle)
        return jnp.where(noisier, middle, low), jnp.where(noisier, high, middle)

    bracket = (jnp.full_like(ratio, path.t_min), jnp.full_like(ratio, path.t_max))
    return jax.lax.fori_loop(0, jnp.finfo(ratio.dtype).nmant + 2, halve, bracket)[1]


def reverse_sde_noise(path: Path) -> Callable[[Array], Array]:
    """The noise level w(tau) with which `solvers.EulerMaruyama` solves the reverse SDE.

    It is the diffusion coefficient g of the forward SDE dx = f x ds + g dW that has this path,
    g^2 = 2 sigma (alpha' sigma - sigma' alpha) / alpha in t (2011.13456, Eqs. 5, 6 and 29-31), over
    the solvers' time tau in [0, 1]. It diverges where alpha = 0.
    """
    span = path.t_max - path.t_min

    def noise_level(tau):
        alpha, sigma, alpha_dot, sigma_dot = coefficients(path, path.t_min + span * tau)
        return jnp.sqrt(2 * span * sigma * (alpha_dot * sigma - sigma_dot * alpha) / alpha)

    return noise_level


def on_unit_interval(path: Path, velocity: Velocity) -> Velocity:
    """The velocity in tau = (t - t_min) / (t_max - t_min), for solvers, which run over [0, 1]."""
    if path.t_min == 0 and path.t_max == 1:
        return velocity
    span = path.t_max - path.t_min
    return lambda tau, x: span * velocity(path.t_min + span * tau, x)

r"""Probability paths x_t = alpha(t) x1 + sigma(t) x0 from noise x0 (t = 0) to data x1 (t = 1).

A path is two scalar functions. Everything that flow matching and diffusion need follows from them
and their derivatives, which are taken by autodiff: the interpolation, its velocity, and the four
equivalent things a network may predict at (t, x_t), which are linear in one another:

    data      E[x1 | x_t]
    noise     E[x0 | x_t]
    score     s = -noise / sigma
    velocity  u = alpha' data + sigma' noise

Sources: flow matching 2210.02747, score SDEs 2011.13456.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.typing import Velocity

Prediction = Literal["velocity", "score", "noise", "data"]


class Path(NamedTuple):
    """Schedules of a Gaussian path and the interval on which they are used.

    Attributes:
      alpha: t -> coefficient of the data.
      sigma: t -> coefficient of the noise.
      t_min, t_max: training and sampling keep to this interval, the one place where a path with
        a singular end is clipped.
    """

    alpha: Callable[[Array], Array]
    sigma: Callable[[Array], Array]
    t_min: float = 0.0
    t_max: float = 1.0


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
    if not 0 < beta_min < beta_max:
        raise ValueError(f"need 0 < beta_min < beta_max, got {beta_min} and {beta_max}")

    def log_alpha(t):
        s = 1 - t
        return -0.25 * s**2 * (beta_max - beta_min) - 0.5 * s * beta_min

    return Path(
        alpha=lambda t: jnp.exp(log_alpha(t)),
        # 1 - alpha^2 without cancellation, which matters where sigma is small.
        sigma=lambda t: jnp.sqrt(-jnp.expm1(2 * log_alpha(t))),
        t_max=t_max,
    )


def coefficients(path: Path, t: Float[Array, ""]) -> tuple[Array, Array, Array, Array]:
    """(alpha, sigma, alpha', sigma') at time t."""
    t = jnp.asarray(t, jnp.result_type(float))
    one = jnp.ones_like(t)
    alpha, alpha_dot = jax.jvp(path.alpha, (t,), (one,))
    sigma, sigma_dot = jax.jvp(path.sigma, (t,), (one,))
    return alpha, sigma, alpha_dot, sigma_dot


def interpolate(
    path: Path, t: Float[Array, ""], x0: Float[Array, "*x"], x1: Float[Array, "*x"]
) -> tuple[Float[Array, "*x"], Float[Array, "*x"]]:
    """Point x_t of the path between noise x0 and data x1, and its velocity dx_t/dt."""
    alpha, sigma, alpha_dot, sigma_dot = coefficients(path, t)
    return alpha * x1 + sigma * x0, alpha_dot * x1 + sigma_dot * x0


def convert(
    path: Path,
    t: Float[Array, ""],
    x: Float[Array, "*x"],
    value: Float[Array, "*x"],
    source: Prediction,
    target: Prediction,
) -> Float[Array, "*x"]:
    """Turn one prediction at (t, x_t) into another.

    Args:
      path: the path.
      t: time.
      x: the point x_t.
      value: the prediction of kind `source`.
      source: what `value` is: "velocity", "score", "noise" or "data".
      target: what to return.

    Raises:
      ValueError: for an unknown kind.
    """
    kinds = ("velocity", "score", "noise", "data")
    for kind in (source, target):
        if kind not in kinds:
            raise ValueError(f"unknown prediction {kind!r}; one of {', '.join(kinds)}")
    if source == target:
        return value
    alpha, sigma, alpha_dot, sigma_dot = coefficients(path, t)
    # Two equations, x = alpha x1 + sigma x0 and u = alpha' x1 + sigma' x0, for (x0, x1).
    wronskian = alpha_dot * sigma - sigma_dot * alpha
    if source == "velocity":
        noise = (alpha_dot * x - alpha * value) / wronskian
        data = (sigma * value - sigma_dot * x) / wronskian
    elif source == "data":
        noise, data = (x - alpha * value) / sigma, value
    else:
        noise = value if source == "noise" else -sigma * value
        data = (x - sigma * noise) / alpha
    if target == "velocity":
        return alpha_dot * data + sigma_dot * noise
    return {"noise": noise, "data": data, "score": -noise / sigma}[target]


def on_unit_interval(path: Path, velocity: Velocity) -> Velocity:
    """The velocity in tau = (t - t_min) / (t_max - t_min), for solvers, which run over [0, 1]."""
    if path.t_min == 0 and path.t_max == 1:
        return velocity
    span = path.t_max - path.t_min
    return lambda tau, x: span * velocity(path.t_min + span * tau, x)

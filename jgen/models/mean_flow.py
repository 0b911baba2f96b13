"""MeanFlow (2505.13447): learn the average velocity between two times, and draw in one call.

The flow of a path's velocity v carries x(t) to x(s). Its average velocity over the interval,

    (s - t) u(x(t), t, s) = integral_t^s v(x(tau), tau) dtau = x(s) - x(t),

makes a step of any width exact. Differentiated along the trajectory at a fixed end it becomes the
identity that the network is trained on, which needs neither trajectories nor a teacher:

    u = v + (s - t) (v . d_x u + d_t u),

with one forward-mode derivative, and the velocity of the pair of noise and event in the place of v
(Eq. 6, 10). At s = t this is flow matching.

The paper's time runs from data to noise; here t = 0 is noise, as everywhere, and s is behind t.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.checks import check_not_negative, check_shape
from jgen.generative_model import GenerativeModel, from_noise, mean_loss
from jgen.models.parts import applied, check_prediction_network
from jgen.nets.network import Network, NetworkLike, as_network
from jgen.paths import Path, interpolate, linear
from jgen.random import normal
from jgen.sets import SetCondition, event_mean, event_size, masked
from jgen.solvers.sampler import check_steps
from jgen.typing import Cond, Key, Velocity


def with_interval(cond: Cond, width: Float[Array, ""]) -> Cond:
    """The condition with the width of the interval before its numbers, as a vector."""
    if isinstance(cond, SetCondition):
        return cond._replace(cond=with_interval(cond.cond, width))
    width = jnp.reshape(width, 1)
    return width if cond is None else jnp.concatenate([width, jnp.ravel(cond)])


def mean_flow(
    network: NetworkLike,
    shape: int | tuple[int, ...],
    *,
    path: Path | None = None,
    teacher: Velocity | None = None,
    equal: float = 0.5,
    times: Callable[[Key], Array] | None = None,
    power: float = 0.0,
    steps: int = 1,
    condition: Callable[[Cond, Array], Cond] = with_interval,
) -> GenerativeModel:
    """MeanFlow of events of one `shape`: `steps` calls of the network an event.

        model = mean_flow(nets.velocity_mlp(2, 1, time_features=0), (2,))

    The network must be smooth in time, since the target has its slope: networks of fast waves of
    the time learn averages that are far from those of their own velocity. `velocity_mlp` with
    `time_features=0` is smooth, and `epic` with `harmonics=2`; `set_transformer` is not.

    `log_prob` is None; the flow at intervals of width zero, `flow_matching(instantaneous(network),
    shape)`, has the same parameters and a density.

    Deviations: times are dense at both ends of the path, where one call begins and ends, and
    squared errors are not weighted. The weights of few components scatter with the errors, so that
    it is no longer the mean that is learned.

    Args:
      network: apply(params, t, x, cond) -> average velocity, an array of x's shape; its condition
        has the width of the interval, see `condition`.
      shape: of one event.
      path: `linear()` unless given.
      teacher: (t, x, cond) -> velocity of a trained path model, which takes the place of the
        velocity of single pairs; the target then has no noise.
      equal: share of intervals of width zero; 0.75 in the paper on images of 256 pixels.
      times: key -> t; two of them, in their order, are an interval. Unless given, they have the
        arcsine law; the paper's are `lambda key: jax.nn.sigmoid(0.4 + jax.random.normal(key))`.
      power: the squared error D^2 of an event is divided by (D^2 + 0.01)^power, without gradient
        (Eq. 22); one in the paper. The loss then says little about progress.
      steps: equal intervals of the sampling.
      condition: (cond, width) -> what the network sees, for networks whose condition is no vector.

    Raises:
      ValueError: for numbers that are out of their range, or a network of another shape or without
        a condition.
    """
    network, path = as_network(network), linear() if path is None else path
    check_not_negative(equal=equal, power=power)
    if equal > 1:
        raise ValueError(f"equal must be a share of one, got {equal}")
    check_steps(steps)
    shape = check_shape(shape)
    if network.num_cond == 0:
        raise ValueError(
            "the network has no condition, but must see the width of the interval: make it one "
            "with one number more in its condition, num_cond=1"
        )
    check_prediction_network(network, shape)
    span = path.t_max - path.t_min
    times = _arcsine_times(path) if times is None else times

    def average(params, t, s, x, cond):
        return applied(network, params, t, x, condition(cond, s - t))

    def single(params, key, x1, cond):
        key_first, key_second, key_equal, key_x = jax.random.split(key, 4)
        first, second = times(key_first), times(key_second)
        t, s = jnp.minimum(first, second), jnp.maximum(first, second)
        s = jnp.where(jax.random.uniform(key_equal) < equal, t, s)
        x0 = masked(normal(key_x, x1.shape, x1.dtype), cond)
        x, v = interpolate(path, t, x0, masked(x1, cond))
        if teacher is not None:
            v = teacher(t, x, cond)
        u, change = jax.jvp(
            lambda t, x: average(params, t, s, x, cond), (t, x), (jnp.ones_like(t), v)
        )
        error = event_mean((u - jax.lax.stop_gradient(v + (s - t) * change)) ** 2, cond)
        if power == 0:
            return error
        square = jax.lax.stop_gradient(error * event_size(x1, cond))
        return error / (square + 0.01) ** power

    def loss(params, key, batch):
        return mean_loss(lambda key, x, cond: single(params, key, x, cond), key, batch)

    def sample_from(params, noise, cond=None):
        noise = masked(noise, cond)

        def step(x, t):
            return x + span / steps * average(params, t, t + span / steps, x, cond), None

        starts = path.t_min + span / steps * jnp.arange(steps)
        return jax.lax.scan(step, path.base_std * noise, starts)[0]

    return from_noise(network.init, loss, lambda key, cond=None: normal(key, shape), sample_from)


def instantaneous(
    network: NetworkLike, condition: Callable[[Cond, Array], Cond] = with_interval
) -> Network:
    """The velocity field that a network of `mean_flow` is at intervals of width zero."""
    network = as_network(network)

    def apply(params, t, x, cond=None):
        return network.apply(params, t, x, condition(cond, jnp.zeros((), jnp.result_type(t))))

    size = network.num_cond if condition is with_interval else None
    return Network(network.init, apply, size and size - 1)


def _arcsine_times(path: Path) -> Callable[[Key], Array]:
    """Times whose density is that of a pendulum's positions, largest at both ends."""
    span = path.t_max - path.t_min
    return lambda key: path.t_min + span * (1 - jnp.cos(jnp.pi * jax.random.uniform(key))) / 2

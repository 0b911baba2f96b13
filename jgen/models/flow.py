"""Normalizing flows (1505.05770): a bijector from data to a base density, by maximum likelihood."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.bijectors import TrainableBijector
from jgen.bijectors.distrax import density, is_distrax
from jgen.checks import check_finite, check_shape
from jgen.generative_model import GenerativeModel, from_noise, mean_loss
from jgen.models.parts import check_bijector
from jgen.random import normal
from jgen.solvers import normal_log_prob
from jgen.typing import Cond, Key, Params, PyTree


class Base(NamedTuple):
    """A density that is sampled as easily as evaluated, as pure functions of one event.

    Distributions of distrax are bases as they are.

    Attributes:
      sample: (key) -> z.
      log_prob: (z) -> scalar in nats.
      interval: (low, high) outside of which every component has density zero; None for others.
    """

    sample: Callable[[Key], Array]
    log_prob: Callable[[Array], Array]
    interval: tuple[float, float] | None = None


def standard_normal(shape: int | tuple[int, ...]) -> Base:
    """Independent standard normal components."""
    shape = check_shape(shape)

    def log_prob(z: Float[Array, "*z"]) -> Float[Array, ""]:
        _check_shape(z, shape)
        return normal_log_prob(z)

    return Base(lambda key: normal(key, shape), log_prob)


def uniform(shape: int | tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Base:
    """Uniform in a cube: log-density -inf outside of it, where no gradient leads back.

    For flows that map the cube to itself: `jgen.bijectors.cube_flow`, or splines with free edges
    and this interval.

    Raises:
      ValueError: if the edges are not increasing.
    """
    check_finite(low=low, high=high)
    if not low < high:
        raise ValueError(f"low must be below high, got {low} and {high}")
    shape = check_shape(shape)
    log_volume = math.prod(shape) * math.log(high - low)

    def log_prob(z: Float[Array, "*z"]) -> Float[Array, ""]:
        _check_shape(z, shape)
        inside = jnp.all((z >= low) & (z <= high))
        return jnp.where(inside, jnp.asarray(-log_volume, z.dtype), -jnp.inf)

    draw = lambda key: jax.random.uniform(key, shape, minval=low, maxval=high)
    return Base(draw, log_prob, (low, high))


def _check_shape(z, shape):
    if jnp.shape(z) != tuple(shape):
        raise ValueError(
            f"the base has the shape {tuple(shape)}, but the bijector makes z of shape "
            f"{jnp.shape(z)} of an event"
        )


def _check_interval(bijector, base):
    """Events that leave the cube have density zero without a gradient: training fails silently."""
    if base.interval is None or bijector.interval is None:
        return
    (low, high), (least, most) = base.interval, bijector.interval
    if not (low <= least and most <= high):
        raise ValueError(
            f"the base is zero outside of [{low}, {high}], but this bijector maps events to "
            f"[{least}, {most}], such as `plu` in `coupling_flow` does: take `cube_flow`, or "
            "couplings of splines on the base's interval with permutations between"
        )


def flow(
    bijector: TrainableBijector,
    base: Base | int | tuple[int, ...] | Any,
    *,
    first_batch: tuple[PyTree, Cond] | None = None,
) -> GenerativeModel:
    """The density p(x | cond) = base(z) |dz/dx| with z = forward(x, cond).

        model = flow(coupling_flow(2, rational_quadratic(), depth=8), 2)

    The loss is -log p(x) in nats. It and `log_prob` use the key only for a bijector whose
    log-determinant is an estimate; `log_prob` then is one, too.

    Args:
      bijector: from data to base; `compose`, `repeated` and the recipes make one of many.
      base: density of z, a `Base` or a distribution of distrax; or the shape of z for a standard
        normal one.
      first_batch: events (x [n, ...], cond [n, ...] or None) that `init` fits the parameters to
        where the bijector has a `data_init`, such as those of `actnorm`.

    Raises:
      ValueError: if the bijector does not take what the base draws, leaves a cube outside of which
        the base is zero, or there is a first batch and nothing in the bijector to fit to it.
    """
    if is_distrax(base, "Distribution"):
        base = Base(*density(base))
    elif not isinstance(base, Base):
        base = standard_normal(base)
    if first_batch is not None and bijector.data_init is None:
        raise ValueError("no layer of this bijector starts from data; leave first_batch out")
    check_bijector(bijector, base)
    _check_interval(bijector, base)

    def init(key) -> Params:
        params = bijector.init(key)
        return params if first_batch is None else bijector.data_init(params, *first_batch)

    def log_prob(params, key, x, cond=None):
        z, log_det = bijector.forward(params, x, cond, key)
        return base.log_prob(z) + log_det

    def loss(params, key, batch):
        return mean_loss(lambda key, x, cond: -log_prob(params, key, x, cond), key, batch)

    def noise(key, cond=None):
        return base.sample(jax.random.split(key)[0])

    def sample_from(params, z, cond=None):
        return bijector.inverse(params, z, cond)[0]

    both = functools.partial(sample_and_log_prob, bijector, base)
    return from_noise(init, loss, noise, sample_from, log_prob, both)


def sample_and_log_prob(
    bijector: TrainableBijector, base: Base, params: Params, key: Key, cond: Cond = None
) -> tuple[Array, Float[Array, ""]]:
    """One event of a flow and its log-density, by one pass of the inverse.

    Differentiable in `params`: for training without data, and where `forward` is the slow direction
    (inverse autoregressive layers). A `flow` has it bound, as its `sample_and_log_prob`.
    """
    key_base, key_log_det = jax.random.split(key)
    z = base.sample(key_base)
    x, log_det = bijector.inverse(params, z, cond, key_log_det)
    return x, base.log_prob(z) - log_det

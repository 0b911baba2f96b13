"""The two players of EPiC-GAN (2301.08128): sets of points from noise, and their critic.

The condition is a `jgen.sets.SetCondition`, as of the networks in `jgen.nets.sets`, whose layers
these are.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jgen.checks import check_cond, check_sizes
from jgen.nets.network import Generator, Network, from_linen
from jgen.nets.sets import (
    EpicConfig,
    EpicLayer,
    NormalizedDense,
    check_epic,
    epic_features,
    numbers,
    pooled,
)
from jgen.random import normal
from jgen.sets import SetCondition, masked, valid

GENERATOR_CONFIG = EpicConfig(hidden=128, latent=10, layers=6, sum_scale=1.0)
"""The published generator."""
CRITIC_CONFIG = EpicConfig(hidden=128, latent=10, layers=3, sum_scale=1.0)
"""The published critic."""


class _Generator(nn.Module):
    num_features: int
    config: EpicConfig

    @nn.compact
    def __call__(self, noise, cond):
        c, z = self.config, noise["points"]
        mask, context = valid(cond.n, len(z)), numbers(cond)
        points = _act(NormalizedDense(c.hidden)(masked(z, cond), context))
        whole = _act(NormalizedDense(c.hidden)(noise["whole"], context))
        whole = _act(NormalizedDense(c.latent)(whole, context))
        first_points, first_whole = points, whole
        for _ in range(c.layers):
            points, whole = EpicLayer(c.hidden, c.sum_scale)(points, whole, mask, context)
            points, whole = points + first_points, whole + first_whole
        return masked(NormalizedDense(self.num_features)(points, context), cond)


class _Critic(nn.Module):
    config: EpicConfig

    @nn.compact
    def __call__(self, x, cond):
        c, context = self.config, numbers(cond)
        points, whole = epic_features(c, x, cond, context)
        points = pooled(points, valid(cond.n, len(x)), c.sum_scale)
        head = _act(NormalizedDense(c.hidden)(points, whole, context))
        head = _act(head + NormalizedDense(c.hidden)(head))
        return NormalizedDense(1)(head)[0]


def epic_generator(
    num_points: int, num_features: int, num_cond: int = 0, config: EpicConfig = GENERATOR_CONFIG
) -> Generator:
    """EPiC generator (noise, SetCondition) -> points [num_points, num_features].

    Noise of every point has as many numbers as its features, and that of the whole set as many as
    the set's features. What is made of both is added again after every layer. Deviation: the
    condition and log(1 + n) are input of every linear map; the published networks have none.

    Args:
      num_points: rows of an event, the largest number of points.
      num_features: of a point.
      num_cond: numbers of the condition, beside the number of points.
      config: sizes; the published ones unless given.

    Raises:
      ValueError: for sizes that are no positive whole numbers.
    """
    _check(num_features, num_cond, config)
    check_sizes(num_points=num_points)
    shape = num_points, num_features

    def noise(key):
        key_points, key_whole = jax.random.split(key)
        return {"points": normal(key_points, shape), "whole": normal(key_whole, (config.latent,))}

    example = {"points": _number(2, num_features), "whole": _number(config.latent)}
    network = from_linen(_Generator(num_features, config), example, _condition(num_cond))
    return Generator(network.init, noise, network.apply)


def epic_critic(
    num_features: int, num_cond: int = 0, config: EpicConfig = CRITIC_CONFIG
) -> Network:
    """EPiC critic (points [n, num_features], SetCondition, others) -> scalar; others are ignored.

    Deviation: as of `epic_generator`.

    Args:
      num_features: of a point.
      num_cond: numbers of the condition, beside the number of points.
      config: sizes; the published ones unless given.

    Raises:
      ValueError: for sizes that are no positive whole numbers.
    """
    _check(num_features, num_cond, config)
    network = from_linen(_Critic(config), _number(2, num_features), _condition(num_cond))
    return Network(
        network.init, lambda params, x, cond, others=None: network.apply(params, x, cond)
    )


def _check(num_features: int, num_cond: int, config: EpicConfig) -> None:
    check_sizes(num_features=num_features)
    check_cond(num_cond)
    check_epic(config)


def _number(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _condition(num_cond: int) -> SetCondition:
    count = jax.ShapeDtypeStruct((), jnp.int32)
    return SetCondition(count, _number(num_cond) if num_cond else None)


_act = nn.leaky_relu

"""Networks on sets of points, (t, points, condition) -> an array of the points' shape.

The condition is a `jgen.sets.SetCondition`. Permuting the points permutes the output, whatever is
in padded rows changes nothing, and their output is zero. Time is shown by sines and cosines of the
first harmonics, the number of points by log(1 + n).
"""

from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jgen.checks import check_cond, check_depths, check_finite, check_sizes, check_widths
from jgen.nets.dense import Dense, matmul
from jgen.nets.network import Network, from_linen
from jgen.nets.transformers.dit import DiT, check_transformer
from jgen.sets import SetCondition, masked, valid


@dataclass(frozen=True)
class EpicConfig:
    """Sizes of an EPiC network; defaults are those of EPiC-FM (2310.00049)."""

    hidden: int = 128
    """Features of a point."""
    latent: int = 10
    """Features of the set as a whole."""
    layers: int = 6
    """EPiC layers."""
    sum_scale: float = 1e-2
    """Factor on the sum over points, beside their mean."""


@dataclass(frozen=True)
class PointWiseConfig:
    """Sizes of a network without interaction; defaults are those of CaloClouds II (2309.05704)."""

    hidden: tuple[int, ...] = (128, 256, 512, 256, 128)
    """Features of a point after each layer."""
    context: int = 64
    """Features of time and condition."""


@dataclass(frozen=True)
class SetTransformerConfig:
    """Sizes of a transformer on points."""

    width: int = 64
    """Features of a point."""
    heads: int = 4
    """Attention heads."""
    blocks: int = 2
    """Transformer blocks."""
    mlp_width: int = 128
    """Hidden features of a block's dense network."""


class NormalizedDense(nn.Module):
    """Linear layer y = x W + b whose columns are a length times a direction (1602.07868)."""

    features: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "*n n_in"], *shared: Float[Array, " _"]
    ) -> Float[Array, "*n n_out"]:
        """Apply the layer to every row of x with the `shared` numbers beside it.

        What rows share is multiplied once, not row by row.
        """
        own, init = x.shape[-1], nn.initializers.lecun_normal()
        size = own + sum(map(len, shared))
        direction = self.param("direction", init, (size, self.features), jnp.float32)
        norm = jnp.linalg.norm(direction, axis=0)
        length = self.param("length", lambda key: jnp.linalg.norm(direction, axis=0))
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        w = direction * (length / norm)[None]
        if shared:
            bias += matmul(jnp.concatenate(shared), w[own:])
        y = matmul(x, w[:own])
        return y + jnp.broadcast_to(bias, y.shape)


class EpicLayer(nn.Module):
    """Points and the set's features, each updated with the other (2301.08128, Eq. 3 to 5).

    Attributes:
      hidden: features of a point, and of the layer in the middle.
      sum_scale: factor on the sum over points.
    """

    hidden: int
    sum_scale: float

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "n hidden"],
        whole: Float[Array, " latent"],
        mask: Bool[Array, " n"],
        context: Float[Array, " num"],
    ) -> tuple[Float[Array, "n hidden"], Float[Array, " latent"]]:
        """Apply the layer."""
        inner = NormalizedDense(self.hidden)(pooled(x, mask, self.sum_scale), whole, context)
        whole = _act(whole + NormalizedDense(whole.shape[0])(_act(inner), context))
        inner = NormalizedDense(self.hidden)(x, whole, context)
        x = _act(x + NormalizedDense(self.hidden)(_act(inner), context))
        return x, whole


def pooled(
    x: Float[Array, "n d"], mask: Bool[Array, " n"], sum_scale: float = 1.0
) -> Float[Array, " 2*d"]:
    """Mean and scaled sum over the points; zero of an empty set."""
    total = jnp.sum(jnp.where(mask[:, None], x, 0), axis=0)
    return jnp.concatenate([total / jnp.maximum(jnp.sum(mask), 1), sum_scale * total])


def epic_features(
    config: EpicConfig, x: Float[Array, "n d"], cond: SetCondition, context: Float[Array, " num"]
) -> tuple[Float[Array, "n hidden"], Float[Array, " latent"]]:
    """Features of the points and of the set after all layers; to be called within a module."""
    dense, mask = NormalizedDense, valid(cond.n, len(x))
    points = _act(dense(config.hidden)(masked(x, cond), context))
    points = _act(points + dense(config.hidden)(points, context))
    whole = _act(dense(config.hidden)(pooled(points, mask, config.sum_scale), context))
    whole = _act(dense(config.latent)(whole, context))
    for _ in range(config.layers):
        points, whole = EpicLayer(config.hidden, config.sum_scale)(points, whole, mask, context)
    return points, whole


class _Epic(nn.Module):
    config: EpicConfig
    harmonics: int

    @nn.compact
    def __call__(self, t, x, cond):
        context = jnp.concatenate([harmonics(t, self.harmonics), numbers(cond)])
        points, _ = epic_features(self.config, x, cond, context)
        return masked(NormalizedDense(x.shape[1])(points, context), cond)


class _PointWise(nn.Module):
    config: PointWiseConfig
    harmonics: int

    @nn.compact
    def __call__(self, t, x, cond):
        features = jnp.concatenate([harmonics(t, self.harmonics), numbers(cond)])
        context = _act(Dense(self.config.context)(features))
        hidden = masked(x, cond)
        for i, width in enumerate((*self.config.hidden, x.shape[1])):
            gate = jax.nn.sigmoid(Dense(width)(context))
            shift = Dense(width, use_bias=False)(context)
            hidden = Dense(width)(hidden) * gate[None] + shift[None]
            if i < len(self.config.hidden):
                hidden = _act(hidden)
        return masked(hidden, cond)


class _SetTransformer(nn.Module):
    config: SetTransformerConfig

    @nn.compact
    def __call__(self, t, x, cond):
        c = self.config
        tokens = Dense(c.width)(masked(x, cond))
        trunk = DiT(x.shape[1], c.heads, c.blocks, c.mlp_width, time_scale=1000.0)
        return masked(trunk(tokens, t, numbers(cond), valid(cond.n, len(x))), cond)


def epic(
    num_features: int, num_cond: int = 0, config: EpicConfig | None = None, *, harmonics: int = 8
) -> Network:
    """EPiC network (t, points [n, num_features], SetCondition) -> [n, num_features].

    Deep sets with a few features of the whole set that take part in every layer (2301.08128), with
    time and condition as input of every linear map, as in EPiC-FM (2310.00049). Its cost is linear
    in the number of points. Deviations from EPiC-FM: few harmonics of the time, where its
    frequencies grow to e^31 and are noise, no activation on the output, and log(1 + n) beside the
    condition.

    Args:
      num_features: of a point.
      num_cond: numbers of the condition, beside the number of points.
      config: sizes; the published ones unless given.
      harmonics: of the time, of angles pi k t for k = 1, ..., harmonics. Two for
        `jgen.models.mean_flow`, whose target has the slope of the network in time.

    Raises:
      ValueError: for sizes that are no positive whole numbers.
    """
    config = EpicConfig() if config is None else config
    check_epic(config)
    check_sizes(harmonics=harmonics)
    return _network(_Epic(config, harmonics), num_features, num_cond)


def point_wise(
    num_features: int,
    num_cond: int = 0,
    config: PointWiseConfig | None = None,
    *,
    harmonics: int = 8,
) -> Network:
    """The same network for every point, which does not see the others (CaloClouds, 2305.04847).

    Layers (W x + b) sigmoid(G c) + B c of time and condition c. Given the condition its points are
    independent: what they have in common must be in the condition.

    Args:
      num_features: of a point.
      num_cond: numbers of the condition, beside the number of points.
      config: sizes; the published ones unless given.
      harmonics: of the time, as for `epic`.

    Raises:
      ValueError: for sizes that are no positive whole numbers.
    """
    config = PointWiseConfig() if config is None else config
    check_widths(1, hidden=config.hidden)
    check_sizes(context=config.context, harmonics=harmonics)
    return _network(_PointWise(config, harmonics), num_features, num_cond)


def set_transformer(
    num_features: int, num_cond: int = 0, config: SetTransformerConfig | None = None
) -> Network:
    """Transformer without positions: blocks of DiT whose attention is on points alone.

    Args:
      num_features: of a point.
      num_cond: numbers of the condition, beside the number of points.
      config: sizes.

    Raises:
      ValueError: for sizes that are no positive whole numbers.
    """
    config = SetTransformerConfig() if config is None else config
    check_transformer(config.width, config.heads, config.blocks, config.mlp_width, 1.0)
    return _network(_SetTransformer(config), num_features, num_cond)


def check_epic(config: EpicConfig) -> None:
    """Refuse sizes of an EPiC network that cannot be."""
    check_sizes(hidden=config.hidden, latent=config.latent)
    check_depths(layers=config.layers)
    check_finite(sum_scale=config.sum_scale)


def harmonics(t: Float[Array, ""], num: int = 8) -> Float[Array, " features"]:
    """Sines and cosines of pi k t for k = 1, ..., num."""
    phase = np.pi * np.arange(1, num + 1, dtype=np.float32) * t
    return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)])


def numbers(cond: SetCondition) -> Float[Array, " num"]:
    """What networks see of a condition: log(1 + n) and its numbers."""
    count = jnp.log1p(jnp.asarray(cond.n, jnp.float32))
    return jnp.reshape(count, 1) if cond.cond is None else jnp.append(count, jnp.ravel(cond.cond))


def _network(module: nn.Module, num_features: int, num_cond: int) -> Network:
    check_sizes(num_features=num_features)
    check_cond(num_cond)
    number = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    cond = SetCondition(jax.ShapeDtypeStruct((), jnp.int32), number(num_cond) if num_cond else None)
    return from_linen(module, number(), number(2, num_features), cond)


_act: Callable[[Array], Array] = nn.leaky_relu

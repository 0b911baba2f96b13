"""Causal transformer: a context for every component of an event from the components before it.

Its layers serve `transfusion` too. Teacher forcing takes all tokens at once; sampling takes one
token after another and keeps the keys and values of those before it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.checks import check_cond, check_depths, check_sizes
from jgen.nets.dense import Dense, fan_in_uniform
from jgen.nets.network import flat_condition
from jgen.typing import Cond, Key, Params, PyTree

_xavier = nn.initializers.xavier_uniform()
layer_norm = partial(nn.LayerNorm, epsilon=1e-5, use_fast_variance=False)


class CausalNetwork(NamedTuple):
    """Pure functions of one event with `num` components; what every autoregressive family needs.

    An `AutoregressiveNetwork` has these four, too, beside those of its velocity.

    Attributes:
      init: (key) -> params.
      contexts: (params, x [num], cond) -> [num, d]; row i sees x_<i only.
      start: (params, cond) -> cache for `step`.
      step: (params, cache, i, x_{i-1}) -> (context [d] of component i, cache). Its contexts equal
        those of `contexts`, one at a time; x_{-1} is zero.
      num_cond: as of a `Network`.
    """

    init: Callable[[Key], Params]
    contexts: Callable[[Params, Array, Cond], Array]
    start: Callable[[Params, Cond], PyTree]
    step: Callable[[Params, PyTree, Array, Array], tuple[Array, PyTree]]
    num_cond: int | None = None


class Attention(nn.Module):
    """Multi-head attention."""

    width: int
    heads: int

    def setup(self):
        """One product makes queries, keys and values."""
        self.qkv = Dense(3 * self.width, kernel_init=_xavier)
        self.out = Dense(self.width, kernel_init=_xavier)

    def project(self, x: Float[Array, "*n width"]) -> list[Float[Array, "*n heads e"]]:
        """Queries, keys and values of tokens x."""
        parts = jnp.split(self.qkv(x), 3, axis=-1)
        return [a.reshape(*x.shape[:-1], self.heads, -1) for a in parts]

    def attend(self, q, k, v, mask):
        """Queries q [n, h, e] on keys and values [m, h, e] where mask [n, m] is true."""
        out = jax.nn.dot_product_attention(q, k, v, mask=mask[None])
        return self.out(out.reshape(q.shape[0], self.width))

    def single_key(self, memory):
        """Attention to one token: a softmax over one key is one, whatever the query.

        Queries and keys thus have parameters but no effect and no gradient.
        """
        return self.out(self.project(memory)[2].reshape(self.width))


class FeedForward(nn.Module):
    """Dense network of one hidden layer."""

    width: int
    hidden: int

    @nn.compact
    def __call__(self, x):
        """Tokens [..., width] from x [..., n_in]."""
        for n in (self.hidden, self.width):
            x = Dense(n, kernel_init=_xavier, bias_init=fan_in_uniform(x.shape[-1]))(
                x if n == self.hidden else nn.relu(x)
            )
        return x


class CausalLayer(nn.Module):
    """Layer of a transformer's decoder, normalised after every sum (1706.03762).

    Attributes:
      width, heads, feed_forward: features of a token, attention heads, hidden features.
      encoded: whether tokens also attend to the one token of an encoder.
    """

    width: int
    heads: int
    feed_forward: int
    encoded: bool = False

    def setup(self):
        """Make the layer's parts."""
        self.attention = Attention(self.width, self.heads)
        if self.encoded:
            self.cross_attention = Attention(self.width, self.heads)
        self.dense = FeedForward(self.width, self.feed_forward, name="feed_forward")
        self.norms = [layer_norm() for _ in range(3 if self.encoded else 2)]

    def cross(self, memory):
        """What every token receives from the encoder [width], a constant of the event."""
        return self.cross_attention.single_key(memory)

    def full(self, x, cross=None):
        """All tokens x [n, width] at once, each seeing itself and those before it."""
        mask = np.tril(np.ones((x.shape[0], x.shape[0]), bool))
        return self._finish(x, self.attention.attend(*self.attention.project(x), mask), cross)

    def incremental(self, x, i, keys, values, cross=None):
        """Token i alone, x [width], with cached keys and values [n, h, e] of those before it."""
        q, k, v = self.attention.project(x)
        keys, values = keys.at[i].set(k), values.at[i].set(v)
        mask = (jnp.arange(keys.shape[0]) <= i)[None]
        attended = self.attention.attend(q[None], keys, values, mask)[0]
        return self._finish(x, attended, cross), keys, values

    def _finish(self, x, attended, cross):
        first, *second, last = self.norms
        x = first(x + attended)
        if self.encoded:
            x = second[0](x + jnp.broadcast_to(cross, x.shape))
        return last(x + self.dense(x))


def all_tokens(
    layers: Sequence[CausalLayer],
    tokens: Float[Array, "n width"],
    memory: Float[Array, " width"] | None = None,
) -> Float[Array, "n width"]:
    """Tokens after all layers; `memory` is the encoder's token where there is an encoder."""
    for layer in layers:
        tokens = layer.full(tokens, None if memory is None else layer.cross(memory))
    return tokens


def empty_cache(
    layers: Sequence[CausalLayer], num: int, memory: Float[Array, " width"] | None = None
) -> PyTree:
    """Cache of `num` tokens for `next_token`, before the first of them."""
    cross = None if memory is None else jnp.stack([layer.cross(memory) for layer in layers])
    heads, width = layers[0].heads, layers[0].width
    empty = jnp.zeros((len(layers), num, heads, width // heads))
    return cross, empty, empty


def next_token(
    layers: Sequence[CausalLayer], cache: PyTree, i: Array | int, token: Float[Array, " width"]
) -> tuple[Float[Array, " width"], PyTree]:
    """Token i after all layers, given the cache of those before it; and the cache with it."""
    cross, keys, values = cache
    for n, layer in enumerate(layers):
        constant = None if cross is None else cross[n]
        token, k, v = layer.incremental(token, i, keys[n], values[n], constant)
        keys, values = keys.at[n].set(k), values.at[n].set(v)
    return token, (cross, keys, values)


@dataclass(frozen=True)
class CausalConfig:
    """Sizes of the network."""

    width: int = 32
    """Features of a token."""
    heads: int = 4
    """Attention heads."""
    blocks: int = 2
    """Transformer layers."""
    feed_forward: int = 64
    """Hidden features of a layer's dense network."""


class _Causal(nn.Module):
    num: int
    num_outputs: int
    num_cond: int
    config: CausalConfig

    def setup(self):
        cfg = self.config
        # No bias: it would do nothing that the positions do not.
        self.value = Dense(cfg.width, use_bias=False)
        self.positions = self.param("positions", nn.initializers.normal(1.0), (self.num, cfg.width))
        if self.num_cond:
            self.condition = FeedForward(cfg.width, cfg.feed_forward)
        self.blocks = [
            CausalLayer(cfg.width, cfg.heads, cfg.feed_forward) for _ in range(cfg.blocks)
        ]
        # Token by token, so that with weights that are a distribution each component draws its
        # outputs: exact where the loss is a sum over components.
        by_token = nn.vmap(Dense, variable_axes={"params": None}, split_rngs={"params": False})
        self.out = by_token(self.num_outputs)

    def _embedded(self, cond):
        """What every token receives from the condition [width], or None."""
        numbers = flat_condition(cond, self.num_cond)
        return None if numbers is None else self.condition(numbers)

    def _tokens(self, previous, positions, embedded):
        """Value x_{i-1}, position i and condition as tokens [..., width]."""
        tokens = self.value(previous[..., None]) + positions
        return tokens if embedded is None else tokens + jnp.broadcast_to(embedded, tokens.shape)

    def contexts(self, x, cond):
        shifted = jnp.concatenate([jnp.zeros(1, x.dtype), x[:-1]])
        tokens = self._tokens(shifted, self.positions, self._embedded(cond))
        return self.out(all_tokens(self.blocks, tokens))

    def start(self, cond):
        return self._embedded(cond), empty_cache(self.blocks, self.num)

    def step(self, cache, i, previous):
        embedded, cache = cache
        token = self._tokens(previous, self.positions[i], embedded)
        token, cache = next_token(self.blocks, cache, i, token)
        return self.out(token[None])[0], (embedded, cache)


def causal(
    num: int, num_outputs: int, num_cond: int = 0, config: CausalConfig | None = None
) -> CausalNetwork:
    """Transformer whose context of component i are `num_outputs` numbers made of x_<i and cond.

    Token i is the sum of an embedding of x_{i-1} (the start token has x_{-1} = 0), a learned
    position and an embedding of the condition. The output layer's parameters have the paths
    "out/kernel" and "out/bias"; for the kernel it offers local reparameterisation.

    Args:
      num: components of an event.
      num_outputs: outputs a component, those that a head asks for.
      num_cond: numbers in the condition; 0 without one.
      config: sizes, `CausalConfig()` unless given.

    Raises:
      ValueError: if a size is no positive whole number or heads do not divide the width; on a
        call, if the condition has not `num_cond` numbers.
    """
    config = CausalConfig() if config is None else config
    check_sizes(num=num, num_outputs=num_outputs, width=config.width, heads=config.heads)
    check_sizes(feed_forward=config.feed_forward)
    check_depths(blocks=config.blocks)
    check_cond(num_cond)
    if config.width % config.heads:
        raise ValueError(f"width {config.width} must be a multiple of heads, {config.heads}")
    module = _Causal(num, num_outputs, num_cond, config)

    def bind(method):
        return lambda params, *args: module.apply({"params": params}, *args, method=method)

    @jax.jit  # one program, see `from_linen`
    def init(key):
        cond = jnp.zeros(num_cond) if num_cond else None
        return module.init(key, jnp.zeros(num), cond, method="contexts")["params"]

    return CausalNetwork(init, *[bind(name) for name in ("contexts", "start", "step")], num_cond)

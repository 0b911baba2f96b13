"""Encoder-decoder transformer with a small velocity network: CaloDREAM's energy network.

2405.09629, Sec. 3.1, after 2310.07752. Default sizes are those of the published configuration
files, whose 2,384,705 parameters are the ones in the CaloChallenge's tables; the paper's Tab. 1
differs (feed-forward 1024, velocity network 256).
"""

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jgen.nets.dense import Dense, fan_in_uniform, matmul
from jgen.nets.embeddings import gaussian_fourier
from jgen.nets.network import AutoregressiveNetwork

_xavier = nn.initializers.xavier_uniform()
_layer_norm = partial(nn.LayerNorm, epsilon=1e-5, use_fast_variance=False)


@dataclass(frozen=True)
class TransfusionConfig:
    """Sizes of the network."""

    width: int = 64
    """Features of a token; at least the number of components plus two."""
    heads: int = 4
    """Attention heads."""
    layers: int = 4
    """Layers of the encoder and of the decoder."""
    feed_forward: int = 512
    """Hidden features of a layer's dense network."""
    head_width: int = 512
    """Width of the velocity network."""
    head_layers: int = 8
    """Linear layers of the velocity network."""


class _Attention(nn.Module):
    width: int
    heads: int

    def setup(self):
        self.qkv = Dense(3 * self.width, kernel_init=_xavier)
        self.out = Dense(self.width, kernel_init=_xavier)

    def project(self, x):
        """Queries, keys and values [*tokens, heads, head features] of tokens x."""
        parts = self.qkv(x).reshape(*x.shape[:-1], 3, self.heads, self.width // self.heads)
        return jnp.moveaxis(parts, -3, 0)

    def attend(self, q, k, v, mask):
        """Queries q [n, h, e] on keys and values [m, h, e] where mask [n, m] is true."""
        out = jax.nn.dot_product_attention(q, k, v, mask=mask[None])
        return self.out(out.reshape(q.shape[0], self.width))

    def single_key(self, memory):
        """Attention to one token: a softmax over one key is one, whatever the query.

        Queries and keys thus have parameters but no effect and no gradient, as in the reference.
        """
        return self.out(self.project(memory)[2].reshape(self.width))


class _FeedForward(nn.Module):
    width: int
    hidden: int

    @nn.compact
    def __call__(self, x):
        for n in (self.hidden, self.width):
            x = Dense(n, kernel_init=_xavier, bias_init=fan_in_uniform(x.shape[-1]))(
                x if n == self.hidden else nn.relu(x)
            )
        return x


class _EncoderLayer(nn.Module):
    config: TransfusionConfig

    @nn.compact
    def __call__(self, token):
        cfg = self.config
        token = _layer_norm()(token + _Attention(cfg.width, cfg.heads).single_key(token))
        return _layer_norm()(token + _FeedForward(cfg.width, cfg.feed_forward)(token))


class _DecoderLayer(nn.Module):
    config: TransfusionConfig

    def setup(self):
        cfg = self.config
        self.attention = _Attention(cfg.width, cfg.heads)
        self.cross_attention = _Attention(cfg.width, cfg.heads)
        self.feed_forward = _FeedForward(cfg.width, cfg.feed_forward)
        self.norms = [_layer_norm() for _ in range(3)]

    def cross(self, memory):
        """What every token receives from the encoder, a constant of the event."""
        return self.cross_attention.single_key(memory)

    def full(self, x, cross):
        """All tokens x [n, width] at once, each seeing itself and those before it."""
        mask = np.tril(np.ones((x.shape[0], x.shape[0]), bool))
        return self._finish(x, self.attention.attend(*self.attention.project(x), mask), cross)

    def incremental(self, x, cross, i, keys, values):
        """Token i alone, x [width], with cached keys and values [n, h, e] of those before it."""
        q, k, v = self.attention.project(x)
        keys, values = keys.at[i].set(k), values.at[i].set(v)
        mask = (jnp.arange(keys.shape[0]) <= i)[None]
        attended = self.attention.attend(q[None], keys, values, mask)[0]
        return self._finish(x, attended, cross), keys, values

    def _finish(self, x, attended, cross):
        x = self.norms[0](x + attended)
        x = self.norms[1](x + jnp.broadcast_to(cross, x.shape))
        return self.norms[2](x + self.feed_forward(x))


class _Transfusion(nn.Module):
    num: int
    config: TransfusionConfig

    def setup(self):
        cfg = self.config
        self.encoder = [_EncoderLayer(cfg) for _ in range(cfg.layers)]
        self.decoder = [_DecoderLayer(cfg) for _ in range(cfg.layers)]
        self.encoder_norm, self.decoder_norm = _layer_norm(), _layer_norm()
        linear = lambda n, fan_in: Dense(
            n, kernel_init=fan_in_uniform(), bias_init=fan_in_uniform(fan_in)
        )
        self.time = linear(cfg.width, cfg.width)
        num_inputs, width = 1 + 2 * cfg.width, cfg.head_width
        self.head_in = self.param("head_in", fan_in_uniform(), (num_inputs, width))
        self.head_bias = self.param("head_bias", fan_in_uniform(num_inputs), (width,))
        self.head = [linear(width, width) for _ in range(cfg.head_layers - 2)]
        self.head_norms = [_layer_norm() for _ in range(cfg.head_layers - 2)]
        self.head_out = linear(1, width)
        # Fixed random frequencies of scale 30, not trained and therefore no parameters.
        self.frequencies = 30 * np.random.default_rng(0).standard_normal(cfg.width // 2)

    def _memory(self, cond):
        """Output of the encoder [width], whose one source token is (cond, 1, 0 ...)."""
        token = jnp.zeros(self.config.width).at[0].set(cond.reshape(())).at[1].set(1.0)
        for layer in self.encoder:
            token = layer(token)
        return self.encoder_norm(token)

    def _tokens(self, previous, index):
        """Target tokens (x_{i-1}, one-hot of i, 0 ...)."""
        one_hot = jax.nn.one_hot(index, self.config.width - 1)
        return jnp.concatenate([previous[..., None], one_hot], axis=-1)

    def _project_context(self, contexts):
        """The contexts' part of the velocity network's first layer, once a component."""
        return matmul(self.decoder_norm(contexts), self.head_in[1 + self.config.width :])

    def contexts(self, x, cond):
        memory = self._memory(cond)
        shifted = jnp.concatenate([jnp.zeros(1, x.dtype), x[:-1]])
        tokens = self._tokens(shifted, jnp.arange(self.num))
        for layer in self.decoder:
            tokens = layer.full(tokens, layer.cross(memory))
        return self._project_context(tokens)

    def start(self, cond):
        cfg = self.config
        memory = self._memory(cond)
        cross = jnp.stack([layer.cross(memory) for layer in self.decoder])
        empty = jnp.zeros((cfg.layers, self.num, cfg.heads, cfg.width // cfg.heads))
        return cross, empty, empty

    def step(self, cache, i, previous):
        cross, keys, values = cache
        token = self._tokens(previous, i)
        for n, layer in enumerate(self.decoder):
            token, k, v = layer.incremental(token, cross[n], i, keys[n], values[n])
            keys, values = keys.at[n].set(k), values.at[n].set(v)
        return self._project_context(token), (cross, keys, values)

    def embed_time(self, t):
        """The time's part of the velocity network's first layer, with the bias."""
        frequencies = jnp.asarray(self.frequencies, jnp.float32)
        features = self.time(gaussian_fourier(t, frequencies))
        return matmul(features, self.head_in[1 : 1 + self.config.width]) + self.head_bias

    def velocity(self, features, x, context):
        hidden = nn.silu(x * self.head_in[0] + features + context)
        for layer, norm in zip(self.head, self.head_norms, strict=True):
            hidden = nn.silu(norm(layer(hidden)))
        return self.head_out(hidden)[0]

    def __call__(self, t, x, cond):
        return self.velocity(self.embed_time(t), x[0], self.contexts(x, cond)[0])


def transfusion(num: int, config: TransfusionConfig) -> AutoregressiveNetwork:
    """Network of `num` components under one scalar condition.

    Raises:
      ValueError: if a token cannot hold its value and its position, or heads do not divide it.
    """
    if config.width < num + 2:
        raise ValueError(
            f"width {config.width} is too small: a token holds its value and the one-hot position "
            f"of {num} components, so at least {num + 2} features"
        )
    if config.width % config.heads or config.width % 2:
        raise ValueError(
            f"width {config.width} must be even and a multiple of heads, {config.heads}"
        )
    module = _Transfusion(num, config)

    def bind(method):
        return lambda params, *args: module.apply({"params": params}, *args, method=method)

    def init(key):
        return module.init(key, jnp.zeros(()), jnp.zeros(num), jnp.zeros(()))["params"]

    methods = ("contexts", "start", "step", "embed_time", "velocity")
    return AutoregressiveNetwork(init, *[bind(name) for name in methods])

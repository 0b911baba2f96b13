"""Encoder-decoder transformer with a small velocity network: CaloDREAM's energy network.

2405.09629, Sec. 3.1, after 2310.07752. Default sizes are those of the published configuration
files, whose 2,384,705 parameters are the ones in the CaloChallenge's tables; the paper's Tab. 1
differs (feed-forward 1024, velocity network 256).
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jgen.checks import LARGEST_DEPTH, check_depths, check_sizes, check_whole
from jgen.nets.dense import Dense, fan_in_uniform, matmul
from jgen.nets.embeddings import gaussian_fourier
from jgen.nets.network import AutoregressiveNetwork
from jgen.nets.transformers.causal import (
    Attention,
    CausalLayer,
    FeedForward,
    all_tokens,
    empty_cache,
    layer_norm,
    next_token,
)


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


class _EncoderLayer(nn.Module):
    config: TransfusionConfig

    @nn.compact
    def __call__(self, token):
        cfg = self.config
        # Names of the parameters in checkpoints, given by an earlier layout of the code.
        attention = Attention(cfg.width, cfg.heads, name="_Attention_0")
        token = layer_norm(name="LayerNorm_0")(token + attention.single_key(token))
        dense = FeedForward(cfg.width, cfg.feed_forward, name="_FeedForward_0")
        return layer_norm(name="LayerNorm_1")(token + dense(token))


class _Transfusion(nn.Module):
    num: int
    config: TransfusionConfig

    def setup(self):
        cfg = self.config
        self.encoder = [_EncoderLayer(cfg) for _ in range(cfg.layers)]
        self.decoder = [
            CausalLayer(cfg.width, cfg.heads, cfg.feed_forward, encoded=True)
            for _ in range(cfg.layers)
        ]
        self.encoder_norm, self.decoder_norm = layer_norm(), layer_norm()
        linear = lambda n, fan_in: Dense(
            n, kernel_init=fan_in_uniform(), bias_init=fan_in_uniform(fan_in)
        )
        self.time = linear(cfg.width, cfg.width)
        num_inputs, width = 1 + 2 * cfg.width, cfg.head_width
        self.head_in = self.param("head_in", fan_in_uniform(), (num_inputs, width))
        self.head_bias = self.param("head_bias", fan_in_uniform(num_inputs), (width,))
        self.head = [linear(width, width) for _ in range(cfg.head_layers - 2)]
        self.head_norms = [layer_norm() for _ in range(cfg.head_layers - 2)]
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
        return self._project_context(all_tokens(self.decoder, tokens, memory))

    def start(self, cond):
        return empty_cache(self.decoder, self.num, self._memory(cond))

    def step(self, cache, i, previous):
        token, cache = next_token(self.decoder, cache, i, self._tokens(previous, i))
        return self._project_context(token), cache

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
      ValueError: for sizes that are no positive whole numbers, if a token cannot hold its value
        and its position, or heads do not divide it.
    """
    check_sizes(num=num, width=config.width, heads=config.heads)
    check_sizes(feed_forward=config.feed_forward, head_width=config.head_width)
    check_depths(layers=config.layers)
    check_whole(2, LARGEST_DEPTH, head_layers=config.head_layers)
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

    @jax.jit  # one program, see `from_linen`
    def init(key):
        return module.init(key, jnp.zeros(()), jnp.zeros(num), jnp.zeros(()))["params"]

    methods = ("contexts", "start", "step", "embed_time", "velocity")
    return AutoregressiveNetwork(init, *[bind(name) for name in methods], num_cond=1)

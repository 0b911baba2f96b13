"""Generators and critics for adversarial training."""

import math
from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jgen.checks import check_cond, check_known, check_shape, check_sizes, check_widths
from jgen.nets.dense import Dense
from jgen.nets.mlp import MLP, dropout_masks, joined, mlp
from jgen.nets.network import Generator, Network, from_linen


def generator_mlp(
    num_features: int,
    num_cond: int = 0,
    *,
    num_noise: int = 16,
    noise: Literal["normal", "uniform"] = "normal",
    hidden: tuple[int, ...] = (128, 128, 128),
    activation: Callable = nn.silu,
    dropout: float = 0.0,
) -> Generator:
    """Generator (noise, cond [num_cond]) -> x [num_features]; dropout is part of the noise.

    Dropout is active always, in generation too: it is part of the noise (2008.06545).

    Args:
      num_features: numbers that make an event.
      num_cond: numbers in the condition.
      num_noise: random numbers that go in.
      noise: their distribution, standard normal or uniform in [-1, 1].
      hidden: widths of the hidden layers.
      activation: between them.
      dropout: fraction of hidden units dropped.

    Raises:
      ValueError: for an unknown noise or sizes that are no positive whole numbers.
    """
    check_known(("normal", "uniform"), noise=noise)
    check_sizes(num_features=num_features, num_noise=num_noise)
    check_cond(num_cond)
    network = mlp(
        num_noise + num_cond, num_features, hidden=hidden, activation=activation, dropout=dropout
    )

    def draw(key):
        key_noise, key_dropout = jax.random.split(key)
        if noise == "normal":
            z = jax.random.normal(key_noise, (num_noise,))
        else:
            z = jax.random.uniform(key_noise, (num_noise,), minval=-1.0)
        return {"z": z, "kept": dropout_masks(key_dropout, hidden, dropout)}

    def apply(params, noise, cond=None):
        z = noise["z"]
        inputs = z if cond is None else jnp.concatenate([z, jnp.ravel(cond)])
        return network.apply(params, inputs, noise["kept"])

    return Generator(network.init, draw, apply, num_cond)


class _Critic(nn.Module):
    hidden: tuple[int, ...]
    embedding: tuple[int, ...]

    @nn.compact
    def __call__(self, x, cond=None, others=None):
        inputs = [jnp.ravel(a) for a in (x, cond) if a is not None]
        if self.embedding:
            y = others - x[None]
            for width in self.embedding:
                y = nn.leaky_relu(Dense(width)(y), 0.01)
            inputs.append(jnp.mean(y, axis=0))
        head = MLP(self.hidden, 1, lambda a: nn.leaky_relu(a, 0.01))
        return head(jnp.concatenate(inputs))[0]


def critic_mlp(
    num_features: int,
    num_cond: int = 0,
    *,
    hidden: tuple[int, ...] = (128, 128, 128),
    embedding: tuple[int, ...] = (),
) -> Network:
    """Critic (x [num_features], cond [num_cond], others [n, num_features]) -> scalar.

    Without an `embedding` it takes events of any shape and does without the others.

    With an `embedding` it sees batch statistics: the differences of all events of the minibatch to
    x go through layers of these widths and are averaged over the minibatch (deep sets, as in
    2008.06545, Fig. 3, whose widths are 256, 256 and 32). That costs n^2 embeddings a minibatch.

    Args:
      num_features: numbers that make an event.
      num_cond: numbers in the condition.
      hidden: widths of the hidden layers.
      embedding: widths of the layers on differences; none for a critic without batch statistics.

    Raises:
      ValueError: for sizes that are no positive whole numbers.
    """
    check_sizes(num_features=num_features)
    check_cond(num_cond)
    check_widths(hidden=hidden, embedding=embedding)
    example = [jax.ShapeDtypeStruct((num_features,), jnp.float32)]
    example.append(jax.ShapeDtypeStruct((num_cond,), jnp.float32) if num_cond else None)
    example.append(jax.ShapeDtypeStruct((2, num_features), jnp.float32))
    return from_linen(_Critic(tuple(hidden), tuple(embedding)), *example, num_cond=num_cond)


def pair_critic(shape: tuple[int, ...], num_cond: int, *, hidden: tuple[int, ...]) -> Network:
    """Critic (x, y, cond [num_cond]) -> scalar of x, y and x - y, both of `shape` (2005.05334)."""
    check_cond(num_cond)
    network = _plain_critic(3 * math.prod(check_shape(shape)) + num_cond, hidden)
    return Network(
        network.init,
        lambda params, x, y, cond=None: network.apply(params, x, y, x - y, cond),
        num_cond,
    )


def latent_critic(num_latent: int, *, hidden: tuple[int, ...]) -> Network:
    """Critic (r [num_latent]) -> scalar."""
    check_sizes(num_latent=num_latent)
    return _plain_critic(num_latent, hidden)


def _plain_critic(num_inputs, hidden):
    network = mlp(num_inputs, 1, hidden=hidden, activation=lambda a: nn.leaky_relu(a, 0.2))
    apply = lambda params, *inputs: network.apply(params, joined(*inputs))[0]
    return Network(network.init, apply, 0)

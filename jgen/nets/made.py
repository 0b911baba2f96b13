"""Masked autoencoder for distribution estimation: a causal network in one pass (1502.03509)."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.checks import check_cond, check_whole, check_wholes, check_widths
from jgen.nets.dense import Dense, matmul
from jgen.nets.network import flat_condition
from jgen.nets.transformers.causal import CausalNetwork

# Masks are arrays of the host, of as many rows and columns.
_LARGEST_MASK = 10_000


class _Masked(nn.Module):
    """Dense layer y = x (W * mask) + b."""

    mask: tuple[tuple[bool, ...], ...]
    zero: bool = False

    @nn.compact
    def __call__(self, x, rows=None):
        """All outputs, or those in the slice (start, size) of them."""
        mask = np.array(self.mask)
        # Lecun's scale for the inputs that a unit has, not for all.
        fan_in = np.maximum(mask.sum(0, keepdims=True), 1)
        scale = np.zeros_like(mask) if self.zero else mask / np.sqrt(fan_in)
        init = lambda key, shape: jax.random.normal(key, shape) * scale
        kernel = self.param("kernel", init, mask.shape) * mask
        bias = self.param("bias", nn.initializers.zeros, mask.shape[1:])
        if rows is not None:
            kernel = jax.lax.dynamic_slice_in_dim(kernel, *rows, axis=1)
            bias = jax.lax.dynamic_slice_in_dim(bias, *rows)
        return matmul(x, kernel.astype(x.dtype)) + bias


class _Made(nn.Module):
    num: int
    num_outputs: int
    num_cond: int
    hidden: tuple[int, ...]
    activation: Callable[[Array], Array]

    def setup(self):
        # Unit of degree m sees the first m components. Degree 0 sees the condition only and
        # is there for the first component, which otherwise would depend on it linearly.
        first = 0 if self.num_cond or self.num == 1 else 1
        span = max(self.num - first, 1)
        # In order, so that the units of one degree are neighbours.
        self.degrees = [first + np.sort(np.arange(width) % span) for width in self.hidden]
        degrees = [np.arange(1, self.num + 1), *self.degrees]
        masks = [a[:, None] <= b[None] for a, b in zip(degrees[:-1], degrees[1:], strict=True)]
        outputs = np.repeat(np.arange(self.num), self.num_outputs)
        masks.append(degrees[-1][:, None] <= outputs[None])
        as_tuple = lambda mask: tuple(map(tuple, mask.tolist()))
        self.layers = [_Masked(as_tuple(mask)) for mask in masks[:-1]]
        self.out = _Masked(as_tuple(masks[-1]), zero=True)
        if self.num_cond:
            self.condition = Dense(self.hidden[0], use_bias=False)

    def _embedded(self, cond):
        numbers = flat_condition(cond, self.num_cond)
        return None if numbers is None else self.condition(numbers)

    def contexts(self, x, cond):
        embedded = self._embedded(cond)
        for n, layer in enumerate(self.layers):
            x = layer(x)
            x = self.activation(x if n or embedded is None else x + embedded)
        return self.out(x).reshape(self.num, -1)

    def start(self, cond):
        hidden = [jnp.zeros(width) for width in self.hidden]
        return jnp.zeros(self.num), hidden, self._embedded(cond)

    def step(self, cache, i, previous):
        x, hidden, embedded = cache
        # Written before the first component, where there is nothing: no output sees it.
        x = x.at[jnp.maximum(i - 1, 0)].set(previous)
        units, seen = x, []
        for n, (layer, known) in enumerate(zip(self.layers, hidden, strict=True)):
            rows = self._rows(n, i)
            new = layer(units, rows)
            if n == 0 and embedded is not None:
                new = new + jax.lax.dynamic_slice_in_dim(embedded, *rows)
            units = jax.lax.dynamic_update_slice_in_dim(known, self.activation(new), rows[0], 0)
            seen.append(units)
        row = self.out(units, (i * self.num_outputs, self.num_outputs))
        return row, (x, seen, embedded)

    def _rows(self, n, i):
        """Slice (start, size) of the units of layer n that component i is the first to need.

        Those of degree i, each computed once an event. Where it holds others, too, lower degrees
        come out as they were, and higher ones are seen by nothing before their turn.
        """
        size = int(np.bincount(self.degrees[n]).max())
        starts = np.searchsorted(self.degrees[n], np.arange(self.num))
        return jnp.asarray(np.minimum(starts, self.hidden[n] - size))[i], size


def made(
    num: int,
    num_outputs: int,
    num_cond: int = 0,
    *,
    hidden: tuple[int, ...] = (64, 64),
    activation: Callable[[Array], Array] = nn.silu,
) -> CausalNetwork:
    """Dense layers with masks: row i of the outputs [num, num_outputs] sees x_<i and cond.

    All rows take one pass, and so do the `step`s of all rows together: each computes those hidden
    units that it is the first to need. The degrees of hidden units are as equal in number as can
    be. The outputs are zero at the start.

    Args:
      num: components of an event.
      num_outputs: outputs a component.
      num_cond: numbers in the condition; 0 without one.
      hidden: widths; less than `num` of them leave some components unused.
      activation: between the layers.

    Raises:
      ValueError: if a size is no whole number from 1 to 10,000 or there is no hidden layer; on a
        call, if the condition has not `num_cond` numbers.
    """
    check_widths(1, hidden=hidden)
    check_whole(1, _LARGEST_MASK, num=num, num_outputs=num_outputs)
    check_wholes(1, _LARGEST_MASK, hidden=hidden)
    check_cond(num_cond)
    module = _Made(num, num_outputs, num_cond, tuple(hidden), activation)

    def bind(method):
        return lambda params, *args: module.apply({"params": params}, *args, method=method)

    @jax.jit  # one program, see `from_linen`
    def init(key):
        cond = jnp.zeros(num_cond) if num_cond else None
        example: Float[Array, " num"] = jnp.zeros(num)
        return module.init(key, example, cond, method="contexts")["params"]

    return CausalNetwork(init, *[bind(name) for name in ("contexts", "start", "step")], num_cond)

"""L-GATr: a transformer on multivectors that commutes with Lorentz transformations (2405.14806).

Every token has multivectors, see `jgen.nets.lorentz.geometric_algebra`, and scalars. Linear layers,
norms, attention and products treat all components of a grade alike, so it is equivariant under the
connected Lorentz group whatever its parameters; what breaks the symmetry has to come in as a
multivector, a spurion, such as the directions of the beams.

Layers are those of the PyPI package `lgatr` 2.0 without affine norms, with the ratios of its
version 1.3, with which 2509.08048 was made.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.checks import check_depths, check_sizes
from jgen.nets.dense import Dense, is_matmul, matmul
from jgen.nets.lorentz.geometric_algebra import (
    GRADES,
    INNER,
    PSEUDOSCALAR,
    dual,
    geometric_product,
    weighed,
)
from jgen.nets.network import Network, from_linen
from jgen.nets.transformers.attention import attend, layer_norm

_FLOOR, _EPSILON = 0.01, 1e-5  # of squared norms, of multivectors and of scalars
Init = Literal["default", "small", "unit_scalar"]


@dataclass(frozen=True)
class LGATrConfig:
    """Sizes; defaults are those of 2509.08048."""

    multivectors: int = 16
    """Multivectors of a token."""
    scalars: int = 32
    """Scalars of a token."""
    heads: int = 8
    """Attention heads."""
    blocks: int = 6
    """Transformer blocks."""
    attention_ratio: int = 2
    """Channels of all heads together over those of a token."""
    mlp_ratio: int = 2
    """Channels inside a block's MLP over those of a token."""


class EquiLinear(nn.Module):
    """The linear maps of multivectors that commute with Lorentz transformations, and scalars.

    y = sum_g (W_g <x>_g + V_g <x>_g e0123): of a grade only grades g and 4 - g are made, so that
    each grade is one matrix product. Scalars add to the components 0 and 15, which make scalars.

    Attributes:
      multivectors: channels made.
      scalars: scalars made, of which there may be none.
      init: "default", "small" by a tenth, or "unit_scalar", around the multivector 1.
      use_bias: whether scalars come with constants.
    """

    multivectors: int
    scalars: int
    init: Init = "default"
    use_bias: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "n 16 channels"], s: Float[Array, "n num"]
    ) -> tuple[Float[Array, "n 16 out"], Float[Array, "n out_too"]]:
        """Apply the layer."""
        channels, scale = x.shape[-1], _SCALES[self.init]
        init = _uniform(scale * channels**-0.5 * _shares())
        w = self.param("weight", init, (10, channels, self.multivectors), jnp.float32)
        both = jnp.concatenate([x, dual(x)], axis=-1)
        parts = jnp.split(both, [rows.start for rows in GRADES[1:]], axis=1)
        for grade, part in enumerate(parts):
            # What is of this grade after the product with e0123 was of grade 4 - g before.
            kernel = jnp.concatenate([w[grade], w[5 + 4 - grade]])
            parts[grade] = matmul(part, kernel.astype(x.dtype))
        num = s.shape[-1]
        # Pairs for the components 0 and 15 of a channel.
        ends = Dense(
            2 * self.multivectors,
            self.use_bias,
            x.dtype,
            _uniform(scale * (2 * num) ** -0.5),
            _uniform((num + channels) ** -0.5, 1.0 if self.init == "unit_scalar" else 0.0),
            name="to_multivectors",
        )(s).reshape(len(s), 1, self.multivectors, 2)
        parts[0] += ends[..., 0]
        parts[4] += ends[..., 1]
        return jnp.concatenate(parts, axis=1), self._scalars(x, s)

    def _scalars(self, x, s):
        if not self.scalars:
            return s[:, :0]
        seen = jnp.stack([x[:, 0], x[:, PSEUDOSCALAR]], axis=-1).reshape(len(x), -1)
        num, scale = s.shape[-1], 0.1 if self.init == "small" else 1.0
        dense = lambda fan_in, bias, name: Dense(
            self.scalars,
            bias,
            x.dtype,
            _uniform(scale * (2 * fan_in) ** -0.5),
            _uniform(scale * (num + seen.shape[-1]) ** -0.5),
            name=name,
        )
        made = dense(seen.shape[-1], self.use_bias, "from_multivectors")(seen)
        return made + dense(num, False, "from_scalars")(s)


_SCALES = {"default": 1.0, "small": 0.1, "unit_scalar": 0.5}


def _shares() -> np.ndarray:
    """Of the ten maps; those to grades 0 and 4 leave half of the variance to scalars."""
    shares = np.ones((10, 1, 1), np.float32)
    shares[[0, 9]] = 0.5**0.5
    return shares


def _uniform(bound: float | np.ndarray, centre: float = 0.0) -> Callable:
    def init(key, shape, dtype=jnp.float32):
        return centre + bound * jax.random.uniform(key, shape, dtype, -1, 1)

    return init


def equi_norm(x: Float[Array, "*n 16 c"]) -> Float[Array, "*n 16 c"]:
    """Multivectors over the root of their mean sum_g abs(<x, x>_g), a Lorentz invariant."""
    signed = weighed(INNER, x**2)
    squares = sum(jnp.abs(jnp.sum(signed[..., rows, :], axis=-2)) for rows in GRADES)
    square = jnp.mean(squares, axis=-1)
    return x * jax.lax.rsqrt(jnp.maximum(square, _FLOOR))[..., None, None]


class _Attention(nn.Module):
    config: LGATrConfig

    @nn.compact
    def __call__(self, x, s):
        c, n = self.config, len(x)
        of_mv = max(c.attention_ratio * c.multivectors // c.heads, 1)
        of_s = max(c.attention_ratio * c.scalars // c.heads, 4)
        wide = EquiLinear(3 * of_mv * c.heads, 3 * of_s * c.heads, use_bias=False, name="qkv")
        mv, scalars = wide(x, s)
        # Heads are the fastest index before attention, and the slowest after it.
        mv = mv.reshape(n, 16, 3, of_mv, c.heads).transpose(2, 0, 4, 1, 3)
        scalars = scalars.reshape(n, 3, of_s, c.heads).transpose(1, 0, 3, 2)
        mv = equi_norm(mv)  # [qkv, n, heads, 16, of_mv]
        flat = jnp.stack([weighed(INNER, mv[0]), *mv[1:]]).reshape(3, n, c.heads, 16 * of_mv)
        out = attend(*jnp.concatenate([flat, layer_norm(scalars, _EPSILON)], axis=-1))
        mv, scalars = jnp.split(out, [16 * of_mv], axis=-1)
        mv = jnp.moveaxis(mv.reshape(n, c.heads, 16, of_mv), 1, 2).reshape(n, 16, -1)
        last = EquiLinear(c.multivectors, c.scalars, "small", name="out")
        return last(mv, scalars.reshape(n, -1))


class _Mlp(nn.Module):
    config: LGATrConfig

    @nn.compact
    def __call__(self, x, s):
        c = self.config
        inner, scalars = c.mlp_ratio * c.multivectors, c.mlp_ratio * c.scalars
        left, _ = EquiLinear(inner, 0, name="left")(x, s)
        right, _ = EquiLinear(inner, 0, "unit_scalar", name="right")(x, s)
        x, s = EquiLinear(inner, scalars, name="middle")(geometric_product(left, right), s)
        x, s = equi_norm(x), layer_norm(s, _EPSILON)
        x, s = nn.gelu(x[:, :1]) * x, nn.gelu(s)
        return EquiLinear(c.multivectors, c.scalars, name="out")(x, s)


class _Block(nn.Module):
    config: LGATrConfig

    @nn.compact
    def __call__(self, state, _):
        for layer in (_Attention(self.config), _Mlp(self.config)):
            x, s = state
            made = layer(equi_norm(x), layer_norm(s, _EPSILON))
            state = x + made[0], s + made[1]
        return state, None


class _LGATr(nn.Module):
    config: LGATrConfig
    out: tuple[int, int]

    @nn.compact
    def __call__(self, x, s):
        c = self.config
        state = EquiLinear(c.multivectors, c.scalars, name="in")(x, s)
        # As in `jgen.nets.transformers.dit`: only matrix products are kept for the backward pass.
        block = nn.remat(_Block, prevent_cse=False, policy=is_matmul)
        trunk = nn.scan(
            block, variable_axes={"params": 0}, split_rngs={"params": True}, length=c.blocks
        )
        state, _ = trunk(c, name="blocks")(state, None)
        return EquiLinear(*self.out, name="out")(*state)


def lgatr(
    inputs: tuple[int, int], outputs: tuple[int, int], config: LGATrConfig | None = None
) -> Network:
    """L-GATr (multivectors [n, 16, channels], scalars [n, num]) -> the same of other sizes.

    Tokens have no order; permuting them permutes the output. Multivectors transform as the inputs
    do, scalars not at all.

    Args:
      inputs: multivectors and scalars of a token; one scalar at least.
      outputs: those that are made.
      config: sizes; the published ones unless given.

    Raises:
      ValueError: for sizes that are no positive whole numbers.
    """
    config = LGATrConfig() if config is None else config
    for kind, sizes in {"inputs": inputs, "outputs": outputs}.items():
        check_sizes(**{f"multivectors of {kind}": sizes[0], f"scalars of {kind}": sizes[1]})
    sizes = {f.name: getattr(config, f.name) for f in fields(config) if f.name != "blocks"}
    check_sizes(**sizes)
    check_depths(blocks=config.blocks)
    number = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    module = _LGATr(config, tuple(outputs))
    return from_linen(module, number(2, 16, inputs[0]), number(2, inputs[1]))

"""LLoCa: a transformer whose tokens have Lorentz frames of their own (2505.20280, 2508.14898).

A small network makes a frame L_i for every particle out of the momenta of all, such that L_i p is
the same in every inertial system. All else is an ordinary transformer on local numbers, but that
attention carries vectors from the sender's frame to the receiver's. With the frame 1 it is the
plain transformer of the same sizes.

Frames are made in float64, since the invariants that they depend on are small differences; the
transformer is in float32. Deviations from the PyPI package `lloca` 2.0: none of its regularisations
of frames, which break the symmetry where they act, and `preserve_variance` is off, as in the
papers. Frames that are drawn at random, its augmentation, belong in a loss, which has a key.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.arrays import finite_array
from jgen.checks import (
    check_depths,
    check_finite,
    check_known,
    check_positive,
    check_sizes,
    check_widths,
)
from jgen.nets.dense import Dense, fan_in_uniform, is_matmul
from jgen.nets.network import Network, from_linen
from jgen.nets.transformers.attention import attend, layer_norm
from jgen.physics.four_vectors import METRIC, boost, mass_squared

Symmetry = Literal["so13", "so3", "so2", "z", "identity"]
_NUM_LEARNED = {"so13": 3, "so3": 2, "so2": 1, "z": 2, "identity": 0}
_OTHERS = {"so13": 3, "so3": 2, "so2": 1, "z": 1}  # momenta that make a frame
_LEAST = 1e-10  # of squared masses, in units of the momenta
_EPSILON = 1e-5  # of layer norms


@dataclass(frozen=True)
class LLoCaConfig:
    """Sizes; defaults are those of 2509.08048."""

    heads: int = 8
    """Attention heads."""
    scalars: int = 5
    """Scalars of a head."""
    vectors: int = 2
    """Four-vectors of a head."""
    blocks: int = 6
    """Transformer blocks."""
    mlp_ratio: int = 2
    """Width inside a block's MLP over that of a token."""
    symmetry: Symmetry = "so13"
    """Group that the network commutes with: Lorentz (so13), rotations (so3), rotations about the
    beam (so2), those and boosts along it (z), or none (identity), a plain transformer."""
    frames: tuple[int, ...] = (128, 128)
    """Hidden widths of the network of frames."""

    @property
    def width(self) -> int:
        """Features of a token."""
        return self.heads * (self.scalars + 4 * self.vectors)


class _Frames(nn.Module):
    """Frames [n, 4, 4] of the first n of m momenta [m, 4] with scalars [m, num]."""

    hidden: tuple[int, ...]
    symmetry: Symmetry
    edges: tuple[float, float]

    @nn.compact
    def __call__(self, momenta, scalars, num):
        with jax.enable_x64(True):
            sums = momenta[:num, None] + momenta[None]
            square = mass_squared(sums)
            edge = (jnp.log(jnp.maximum(square, _LEAST)) - self.edges[0]) / self.edges[1]
            edge = edge.astype(scalars.dtype)
        weights = self._weights(edge, scalars, num)
        with jax.enable_x64(True):
            weights = weights.astype(jnp.float64)
            lengths = jnp.sqrt(jnp.maximum(jnp.abs(square), 1e-12))
            # Sums and no small matrix products, whose gradients would be of single precision here.
            directions = (sums / lengths[..., None])[:, :, None]
            made = jnp.sum(weights[..., None] * directions, axis=1)
            total = jnp.abs(jnp.sum(mass_squared(made), axis=1))
            made /= jnp.maximum(jnp.sqrt(total), 1e-5)[:, None, None]
            return jax.vmap(_frame, (0, None))(made, self.symmetry)

    def _weights(self, edge, scalars, num):
        """Softmax over all others [n, m, vectors], of a network of both scalars and their edge."""
        m, inputs = len(scalars), 2 * scalars.shape[1] + 1

        def dense(features, name, bias=True, fan_in=inputs):
            init = fan_in_uniform(fan_in)
            return Dense(features, bias, kernel_init=init, bias_init=init, name=name)

        # The first layer of (s_i, s_j, e_ij), multiplied once for each of the three.
        first = self.hidden[0]
        own, other = dense(first, "own")(scalars[:num]), dense(first, "other", False)(scalars)
        hidden = own[:, None] + other[None] + dense(first, "edge", False)(edge[..., None])
        for i, size in enumerate((*self.hidden[1:], _NUM_LEARNED[self.symmetry])):
            hidden = nn.gelu(hidden, approximate=False)
            hidden = dense(size, f"layer_{i + 1}", True, hidden.shape[-1])(hidden)
        itself = jnp.eye(num, m, dtype=bool)[..., None]
        return jax.nn.softmax(jnp.where(itself, -jnp.inf, hidden), axis=1)


def _frame(vectors, symmetry):
    """One frame of its learned vectors [k, 4]."""
    rest, beam = jnp.array([1.0, 0, 0, 0]), jnp.array([0, 0, 0, 1.0])
    if symmetry == "so13":
        time, references = vectors[0], vectors[1:]
    elif symmetry == "z":
        time = vectors[0] * jnp.array([1.0, 0, 0, 1.0])
        references = jnp.stack([vectors[1], beam])
    else:
        time = rest
        references = vectors if symmetry == "so3" else jnp.stack([beam, vectors[0]])
    time /= jnp.sqrt(jnp.maximum(mass_squared(time), _LEAST))
    to_rest = boost(-time[1:])
    first, second = jnp.sum(references[:, None] * to_rest[None], axis=-1)[:, 1:]
    first /= jnp.linalg.norm(first)
    second -= jnp.sum(second * first) * first
    second /= jnp.linalg.norm(second)
    axes = jnp.stack([first, second, jnp.cross(first, second)])
    turned = jnp.sum(axes[:, :, None] * to_rest[None, 1:], axis=1)
    return jnp.concatenate([to_rest[:1], turned])


class _Block(nn.Module):
    config: LLoCaConfig

    @nn.compact
    def __call__(self, x, frames):
        c, n = self.config, len(x)
        qkv = jnp.split(_dense(3 * c.width, "qkv")(layer_norm(x, _EPSILON)), 3, axis=1)
        q, k, v = (jnp.swapaxes(a.reshape(n, -1, c.heads), 1, 2) for a in qkv)
        if frames is not None:
            inverse, lowered, local = frames
            q, v = (_turned(a, inverse, c.scalars) for a in (q, v))
            k = _turned(k, lowered, c.scalars)
        out = attend(q, k, v)
        if frames is not None:
            out = _turned(out, local, c.scalars)
        x = x + _dense(c.width, "out")(out.reshape(n, -1))
        hidden = nn.gelu(
            _dense(c.mlp_ratio * c.width, "mlp_in")(layer_norm(x, _EPSILON)), approximate=False
        )
        return x + _dense(c.width, "mlp_out")(hidden), None


def _turned(x, matrices, num_scalars):
    """Features [n, heads, channels] whose vectors are multiplied by a matrix of each token."""
    scalars, vectors = jnp.split(x, [num_scalars], axis=-1)
    vectors = vectors.reshape(*x.shape[:2], -1, 4)
    vectors = jnp.einsum("nab,nhvb->nhva", matrices, vectors)
    return jnp.concatenate([scalars, vectors.reshape(*x.shape[:2], -1)], axis=-1)


def _dense(features: int, name: str) -> Dense:
    return Dense(features, kernel_init=fan_in_uniform(), name=name)


class _LLoCa(nn.Module):
    config: LLoCaConfig
    outputs: tuple[int, int]
    edges: tuple[float, float]
    spurions: tuple[tuple[float, ...], ...]
    features: Callable | None

    @nn.compact
    def __call__(self, momenta, scalars):
        c, n = self.config, len(momenta)
        if not jnp.issubdtype(scalars.dtype, jnp.floating):
            raise ValueError(f"scalars must be floating-point numbers, got {scalars.dtype}")
        local, frames = momenta, None
        if c.symmetry != "identity":
            local, frames = self._frames(momenta, scalars)
        x = jnp.concatenate([local.astype(scalars.dtype), scalars], axis=1)
        x = _dense(c.width, "in")(x)
        block = nn.remat(_Block, prevent_cse=False, policy=is_matmul)
        trunk = nn.scan(
            block, variable_axes={"params": 0}, split_rngs={"params": True},
            in_axes=nn.broadcast, length=c.blocks,
        )  # fmt: skip
        x, _ = trunk(c, name="blocks")(x, frames)
        x = _dense(4 * self.outputs[0] + self.outputs[1], "last")(x)
        vectors, made = jnp.split(x, [4 * self.outputs[0]], axis=1)
        vectors = vectors.reshape(n, self.outputs[0], 4)
        if frames is not None:
            vectors = jnp.einsum("nab,nvb->nva", frames[0], vectors)
        return vectors, made

    def _frames(self, momenta, scalars):
        """Local momenta, and (inverse, lowered inverse, frame) of each token."""
        c, n = self.config, len(momenta)
        with jax.enable_x64(True):
            momenta = momenta.astype(jnp.float64)
            extra = jnp.asarray(self.spurions, jnp.float64).reshape(-1, 4)
            every = jnp.concatenate([momenta, extra])
        silent = jnp.zeros((len(extra), scalars.shape[1]), scalars.dtype)
        if len(every) <= (others := _OTHERS[c.symmetry]):
            raise ValueError(
                f"a frame of {c.symmetry} needs {others} momenta beside a particle's own, got "
                f"{len(every) - 1}: give spurions, or a smaller symmetry"
            )
        made = _Frames(c.frames, c.symmetry, self.edges, name="frames")
        frames = made(every, jnp.concatenate([scalars, silent]), n)
        with jax.enable_x64(True):
            local = jnp.sum(frames * momenta[:, None], axis=-1)
            metric = jnp.asarray(METRIC, jnp.float64)
            # L^-1 = g L^T g, and g L^-1 for keys.
            lowered = jnp.swapaxes(frames, 1, 2) * metric[None, None]
            inverse = metric[None, :, None] * lowered
            kinds = (a.astype(scalars.dtype) for a in (inverse, lowered, frames))
            local = local if self.features is None else self.features(local)
            return local.astype(scalars.dtype), tuple(kinds)


BEAMS = ((1.0, 0.0, 0.0, 1.0), (1.0, 0.0, 0.0, -1.0))
"""Light-like momenta along both beams."""
TIME = (1.0, 0.0, 0.0, 0.0)
"""The direction of time, in the laboratory."""


def lloca(
    num_scalars: int,
    outputs: tuple[int, int],
    config: LLoCaConfig | None = None,
    *,
    edges: tuple[float, float] = (0.0, 1.0),
    spurions: tuple[tuple[float, ...], ...] = (),
    features: Callable[[Float[Array, "n 4"]], Float[Array, "n k"]] | None = None,
) -> Network:
    """LLoCa-transformer (momenta [n, 4], scalars [n, num]) -> (vectors [n, k, 4], scalars [n, l]).

    Vectors are in the system of the momenta and turn with it, scalars stay. Momenta may be float64,
    in units in which they are of the order of one; their squares (p_i + p_j)^2 must be positive.

    Args:
      num_scalars: of a token, one at least.
      outputs: vectors and scalars that are made of a token.
      config: sizes; the published ones unless given.
      edges: mean and standard deviation of log (p_i + p_j)^2 in the data.
      spurions: momenta that only frames see and that break the symmetry, such as `(*BEAMS, TIME)`.
      features: local momenta [n, 4] of any number n of particles, in float64 -> what the
        transformer sees of them, [n, k]; themselves unless given. Without frames it has no use.

    Raises:
      ValueError: for sizes that are no positive whole numbers, or a symmetry that is not known; the
        network, for too few particles to make frames of.
    """
    config = LLoCaConfig() if config is None else config
    check_known(_NUM_LEARNED, symmetry=config.symmetry)
    sizes = {f.name: getattr(config, f.name) for f in fields(config)}
    widths = sizes.pop("frames")
    check_widths(1, frames=widths)
    check_depths(blocks=sizes.pop("blocks"))
    del sizes["symmetry"]
    check_sizes(num_scalars=num_scalars, vectors_made=outputs[0], scalars_made=outputs[1], **sizes)
    check_finite(**{"the mean of edges": edges[0]})
    check_positive(**{"the standard deviation of edges": edges[1]})
    spurions = _checked_spurions(spurions)
    number = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    if features is not None and config.symmetry == "identity":
        raise ValueError("features are of local momenta, which the symmetry identity has none of")
    module = _LLoCa(config, tuple(outputs), tuple(map(float, edges)), spurions, features)
    return from_linen(module, number(4, 4), number(4, num_scalars))


def _checked_spurions(spurions) -> tuple[tuple[float, ...], ...]:
    if not len(spurions):
        return ()
    momenta = finite_array(spurions, "spurions", 2)
    if momenta.shape[1] != 4:
        raise ValueError(f"spurions are momenta (E, px, py, pz), got the shape {momenta.shape}")
    energy, momentum = momenta[:, 0], np.linalg.norm(momenta[:, 1:], axis=1)
    if (energy <= 0).any() or (energy < momentum * (1 - 1e-6)).any():
        raise ValueError(
            f"spurions must have a positive energy that is not below their momentum, got {spurions}"
        )
    return tuple(tuple(map(float, p)) for p in momenta)

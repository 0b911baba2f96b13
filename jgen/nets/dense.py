"""Dense layer that stays one matrix product under `jax.vmap`.

jgen writes networks for one event and lets `jax.vmap` add the batch. A dense layer over tokens then
becomes a product of a rank-3 array with a matrix, and its weight gradient a contraction over two
axes, which XLA on CPU runs up to twice as slowly as the same product with the axes flattened.
The primitive below flattens all leading axes when it is lowered, however they came about, and so
costs nothing against code batched by hand. It is bilinear: forward and reverse mode both work.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from jgen.random import normal
from jgen.typing import Key


def _flat_matmul(x, w):
    return (x.reshape(-1, x.shape[-1]) @ w).reshape(*x.shape[:-1], w.shape[-1])


_matmul_p = Primitive("jgen_matmul")
_matmul_p.def_impl(jax.jit(_flat_matmul))


@_matmul_p.def_abstract_eval
def _(x, w):
    if x.shape[-1:] != w.shape[:1]:
        raise ValueError(
            f"a layer of {w.shape[0]} inputs does not take an array of shape {x.shape}"
        )
    return x.update(shape=(*x.shape[:-1], w.shape[-1]), weak_type=False)


mlir.register_lowering(_matmul_p, mlir.lower_fun(_flat_matmul, multiple_results=False))


def _transpose_x(ct, x, w):
    return matmul(ct, w.T)


def _transpose_w(ct, x, w):
    return x.reshape(-1, x.shape[-1]).T @ ct.reshape(-1, ct.shape[-1])


ad.defbilinear(_matmul_p, _transpose_x, _transpose_w)


def _batch(args, dims):
    x, w = args
    x_dim, w_dim = dims
    if w_dim is None:
        return matmul(jnp.moveaxis(x, x_dim, 0), w), 0
    # Every member has its own weights: a batched product, one flat matrix product a member.
    out = jax.vmap(_flat_matmul, in_axes=(x_dim, w_dim))(x, w)
    return out, 0


batching.primitive_batchers[_matmul_p] = _batch


def matmul(x: Float[Array, "... n_in"], w: Float[Array, "n_in n_out"]) -> Float[Array, "... n_out"]:
    """Product over the last axis of `x`, all other axes flattened into one, vmapped ones too."""
    return _matmul_p.bind(x, w)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NormalWeights:
    """A `Dense` kernel that is a distribution: independent normal weights.

    It stands for one draw of the weights in one event, which the layer need not make: with one row
    of input its outputs are independent and normal too, and it draws those (local
    reparameterisation, 1506.02557). With more rows (tokens), which share the weights, outputs of
    different rows are correlated; there the layer draws the weights, so that the joint
    distribution of all its outputs is exact either way.

    Attributes:
      mean: of the weights [n_in, n_out].
      scale: their standard deviations.
      key: of the draw.
    """

    mean: Array
    scale: Array
    key: Key

    def draw(self) -> Array:
        """The weights, of any shape."""
        return self.mean + self.scale * normal(self.key, self.mean.shape, self.mean.dtype)

    def __jax_array__(self):
        """Refuse to be an array.

        Raises:
          ValueError: always; only `Dense` knows what to do with a distribution.
        """
        raise ValueError(
            "this model uses a kernel outside of jgen.nets.dense.Dense, and nothing else offers "
            "local reparameterisation: make it Bayesian with local=False, or leave that kernel "
            "without a distribution by `which`"
        )


def _local_product(x: Float[Array, " n_in"], w: NormalWeights) -> Float[Array, " n_out"]:
    """A draw of x W: mean x M and variance x^2 S^2, independent for every output."""
    y, variance = matmul(x, w.mean), matmul(x**2, w.scale**2)
    # Where nothing enters there is no noise, and the root has no derivative.
    deviation = jnp.sqrt(jnp.maximum(variance, jnp.finfo(y.dtype).tiny))
    return y + deviation * normal(w.key, y.shape, y.dtype)


def is_matmul(primitive: Primitive, *_, **__) -> bool:
    """Policy for `jax.checkpoint`: keep the results of `matmul` and of nothing else."""
    return primitive is _matmul_p


def fan_in_uniform(fan_in: int | None = None) -> nn.initializers.Initializer:
    """Uniform in +-1/sqrt(fan_in), PyTorch's default; biases have to be told their fan-in."""

    def init(key, shape, dtype=jnp.float32):
        bound = (shape[0] if fan_in is None else fan_in) ** -0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Dense(nn.Module):
    """Linear layer y = x W + b over the last axis; parameters in float32.

    Its kernel may be given as `NormalWeights`.

    Attributes:
      features: number of outputs.
      use_bias: whether b is there.
      dtype: of the product; None takes that of the input and the parameters.
      kernel_init, bias_init: initialisers.
    """

    features: int
    use_bias: bool = True
    dtype: jnp.dtype | str | None = None
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Float[Array, "... n_in"]) -> Float[Array, "... n_out"]:
        """Apply the layer."""
        w = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        b = None
        if self.use_bias:
            b = self.param("bias", self.bias_init, (self.features,), jnp.float32)
        if isinstance(w, NormalWeights) and x.ndim == 1:
            x, mean, scale, b = promote_dtype(x, w.mean, w.scale, b, dtype=self.dtype)
            y = _local_product(x, NormalWeights(mean, scale, w.key))
        else:
            w = w.draw() if isinstance(w, NormalWeights) else w
            x, w, b = promote_dtype(x, w, b, dtype=self.dtype)
            y = matmul(x, w)
        return y if b is None else y + jnp.broadcast_to(b, y.shape)

"""A sequence of layers, each given those before it, by models of one form that train at once."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.checks import check_shape, check_whole
from jgen.generative_model import Batch, GenerativeModel, loss_at


def causal_layers(
    model: GenerativeModel, num: int, shape: int | tuple[int, ...], before: int
) -> GenerativeModel:
    """p(x_1 ... x_num | c) = prod_n p_n(x_n | x_{n - before} ... x_{n - 1}, c_n) (2302.11594).

    Layer n has parameters of its own, all of one form and stacked on a leading axis. In training
    and in densities every layer sees its true predecessors, so that all of them are one `jax.vmap`;
    a sample is one `jax.lax.scan`, which compiles one layer.

    Args:
      model: of one layer x_n given (previous, c_n), with previous [before, *shape] the layers
        before it, the nearest last, and zeros where there is none.
      num: layers. Events are [num, *shape], and every array of a condition has `num` on its first
        axis.
      shape: of a layer.
      before: predecessors that a layer sees.

    Returns:
      A model whose loss is the sum over layers: training it is training each layer alone.
    """
    check_whole(num=num, before=before)
    shape = check_shape(shape)

    def init(key):
        return jax.vmap(model.init)(jax.random.split(key, num))

    def loss(params, key, batch, progress=1.0):
        one = lambda p, k, b: loss_at(model, p, k, b, progress)
        axes = (0, 0, Batch(0, 0, None))
        keys = jax.random.split(key, num)
        return jnp.sum(jax.vmap(one, axes)(params, keys, by_layer(batch, before)))

    def log_prob(params, key, x, cond=None):
        keys = jax.random.split(key, num)
        given = predecessors(x, before), cond
        return jnp.sum(jax.vmap(model.log_prob)(params, keys, x, given))

    def run(one, params, key, cond):
        """Layer after layer; the first array that `one` returns is the layer."""

        def layer(window, inputs):
            p, k, c = inputs
            out = one(p, k, (window, c))
            return jnp.concatenate([window, jax.tree.leaves(out)[0][None]])[1:], out

        window = jnp.zeros((before, *shape))
        return jax.lax.scan(layer, window, (params, jax.random.split(key, num), cond))[1]

    def sample(params, key, cond=None):
        return run(model.sample, params, key, cond)

    def both(params, key, cond=None):
        x, log_q = run(model.sample_and_log_prob, params, key, cond)
        return x, jnp.sum(log_q)

    return GenerativeModel(
        init,
        loss,
        sample,
        log_prob if model.log_prob else None,
        both if model.sample_and_log_prob else None,
    )


def by_layer(batch: Batch, before: int) -> Batch:
    """Events x_n and conditions (previous, c_n) of each layer, layers on the first axis."""
    previous = jax.vmap(lambda x: predecessors(x, before))(batch.x)
    swapped = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), (batch.x, (previous, batch.cond)))
    return Batch(*swapped, batch.weight)


def predecessors(x: Float[Array, "num ..."], before: int) -> Float[Array, "num before ..."]:
    """The layers before each, the nearest last, and zeros where there is none."""
    padded = jnp.concatenate([jnp.zeros((before, *x.shape[1:]), x.dtype), x])
    return jnp.stack([padded[i : i + len(x)] for i in range(before)], axis=1)

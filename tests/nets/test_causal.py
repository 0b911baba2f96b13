import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from jgen.nets import num_parameters
from jgen.nets.transformers.causal import CausalConfig, causal

SIZES = CausalConfig(width=12, heads=3, blocks=2, feed_forward=20)
NUM, OUTPUTS = 5, 7


def example(key, num_cond):
    network = causal(NUM, OUTPUTS, num_cond, SIZES)
    params, x = network.init(key), jax.random.normal(key, (NUM,))
    return network, params, x, jnp.array([0.4, -1.0])[:num_cond] if num_cond else None


def reference(params, x, cond):
    """The network once more, in numpy, head by head and token by token."""

    def dense(p, x):
        return x @ p["kernel"] + p.get("bias", 0)

    def norm(p, x):
        centred = x - x.mean(-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return centred / deviation * p["scale"] + p["bias"]

    def feed_forward(p, x):
        return dense(p["Dense_1"], np.maximum(dense(p["Dense_0"], x), 0))

    def attention(p, x):
        q, k, v = np.split(dense(p["qkv"], x), 3, axis=-1)
        out, size = np.zeros_like(x), SIZES.width // SIZES.heads
        for h in range(SIZES.heads):
            part = slice(h * size, (h + 1) * size)
            for i in range(len(x)):
                weights = softmax(k[: i + 1, part] @ q[i, part] / np.sqrt(size))
                out[i, part] = weights @ v[: i + 1, part]
        return dense(p["out"], out)

    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    tokens = np.append(0, x[:-1])[:, None] * p["value"]["kernel"] + p["positions"]
    if cond is not None:
        tokens = tokens + feed_forward(p["condition"], np.asarray(cond))
    for n in range(SIZES.blocks):
        layer = p[f"blocks_{n}"]
        tokens = norm(layer["norms_0"], tokens + attention(layer["attention"], tokens))
        tokens = norm(layer["norms_1"], tokens + feed_forward(layer["feed_forward"], tokens))
    return dense(p["out"], tokens)


@pytest.mark.parametrize("num_cond", [0, 2])
def test_contexts_against_plain_numpy(key, num_cond):
    network, params, x, cond = example(key, num_cond)
    found = jax.jit(network.contexts)(params, x, cond)
    np.testing.assert_allclose(found, reference(params, x, cond), atol=5e-6)


@pytest.mark.parametrize("num_cond", [0, 2])
def test_incremental_contexts_equal_teacher_forced_ones(key, num_cond):
    network, params, x, cond = example(key, num_cond)
    cache, previous, rows = jax.jit(network.start)(params, cond), jnp.zeros(()), []
    step = jax.jit(network.step)
    for i in range(NUM):
        context, cache = step(params, cache, i, previous)
        rows.append(context)
        previous = x[i]
    expected = jax.jit(network.contexts)(params, x, cond)
    np.testing.assert_allclose(np.stack(rows), expected, atol=2e-6)


def test_contexts_see_only_what_came_before(key):
    network, params, x, cond = example(key, 2)
    jacobian = jax.jit(jax.jacobian(lambda x: network.contexts(params, x, cond)[:, 0]))(x)
    np.testing.assert_array_equal(np.triu(jacobian), 0)
    assert np.all(np.abs(jacobian[np.tril_indices(NUM, -1)]) > 0)


def test_every_component_sees_the_condition_and_no_parameter_is_idle(key):
    network, params, x, cond = example(key, 2)
    jacobian = jax.jit(jax.jacobian(lambda c: network.contexts(params, x, c)[:, 0]))(cond)
    assert np.all(np.abs(jacobian) > 0)
    grads = jax.jit(jax.grad(lambda p: jnp.sum(network.contexts(p, x, cond) ** 2)))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.abs(leaf).max() > 0, path


def test_paths_of_the_output_layer(key):
    network, params, x, cond = example(key, 2)
    out = {name: jnp.zeros_like(leaf) for name, leaf in params["out"].items()}
    assert {name: leaf.shape for name, leaf in out.items()} == {"kernel": (12, 7), "bias": (7,)}
    found = jax.jit(network.contexts)(params | {"out": out}, x, cond)
    np.testing.assert_array_equal(found, 0)


def test_number_of_parameters():
    """Default sizes, two components, the 63 outputs of 21 Gaussians; counted by hand."""
    width, hidden = 32, 64
    layer = (width + 1) * 4 * width + (width + 1) * hidden + (hidden + 1) * width + 4 * width
    expected = width + 2 * width + 2 * layer + (width + 1) * 63
    assert num_parameters(causal(2, 63).init) == expected


@pytest.mark.parametrize("sizes", [(0, 3), (2, 0), (2, 3, -1)])
def test_sizes_must_be_positive(sizes):
    with pytest.raises(ValueError, match="must be a whole number from"):
        causal(*sizes)


def test_bad_heads_and_conditions(key):
    with pytest.raises(ValueError, match="multiple of heads, 5"):
        causal(2, 3, config=CausalConfig(heads=5))
    network, params, x, cond = example(key, 2)
    with pytest.raises(ValueError, match="cond has 0 numbers, .* num_cond=2"):
        network.contexts(params, x, None)
    with pytest.raises(ValueError, match="cond has 3 numbers"):
        network.start(params, jnp.ones(3))

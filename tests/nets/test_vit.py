import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.nets.network import num_parameters
from jgen.nets.transformers.vit import ViTConfig, patchify, unpatchify, vit
from tests.helpers import random_params

SMALL = ViTConfig(patch=(2, 2, 1), width=12, heads=2, blocks=2, mlp_width=16)


@pytest.mark.parametrize(
    ("shape", "config", "count"),
    [
        ((45, 16, 9), ViTConfig(), 26_042_688),
        ((45, 50, 18), ViTConfig((3, 5, 2), 240, 6, 6, 720), 5_868_870),
        ((2, 15, 9, 9), ViTConfig((3, 1, 1), 240, 6, 10, 960), 10_711_566),
        ((2, 21, 26, 16), ViTConfig((3, 2, 2), 240, 6, 10, 960), 10_720_224),
    ],
)
def test_published_parameter_counts(shape, config, count):
    assert num_parameters(vit(shape, 46, config).init) == count


def test_patches_are_ordered_layer_angle_radius():
    x = jnp.arange(4 * 6 * 2).reshape(4, 6, 2)
    tokens = patchify(x, (2, 3, 1))
    assert tokens.shape == (2 * 2 * 2, 6)
    np.testing.assert_array_equal(tokens[1], x[:2, :3, 1].ravel())  # radius runs fastest
    np.testing.assert_array_equal(tokens[2], x[:2, 3:, 0].ravel())  # then the angle
    np.testing.assert_array_equal(tokens[4], x[2:, :3, 0].ravel())  # then the layer
    np.testing.assert_array_equal(unpatchify(tokens, x.shape, (2, 3, 1)), x)


def test_channels_run_fastest_in_a_patch():
    x = jnp.arange(2 * 4 * 6 * 2).reshape(2, 4, 6, 2)
    tokens = patchify(x, (2, 3, 1))
    assert tokens.shape == (2 * 2 * 2, 12)
    both = np.moveaxis(np.asarray(x), 0, -1)
    np.testing.assert_array_equal(tokens[3], both[:2, 3:, 1].ravel())
    np.testing.assert_array_equal(unpatchify(tokens, x.shape, (2, 3, 1)), x)


def test_output_is_zero_at_initialisation(key):
    network = vit((4, 4, 3), 5, SMALL)
    out = network.apply(network.init(key), 0.3, jax.random.normal(key, (4, 4, 3)), jnp.ones(5))
    np.testing.assert_array_equal(out, 0)


def test_block_against_a_plain_loop(key):
    """The whole network once more in numpy, with loops over heads and tokens."""
    network, cfg = vit((4, 4, 3), 5, SMALL), SMALL
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), random_params(network.init))
    x = np.asarray(jax.random.normal(key, (4, 4, 3)))
    cond, t = np.linspace(-1, 1, 5), 0.3
    silu = lambda a: a / (1 + np.exp(-a))
    dense = lambda p, a: a @ p["kernel"] + p["bias"]
    norm = lambda a: (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + 1e-6)

    frequencies = np.exp(-np.log(1e4) * np.arange(128) / 128)
    time = np.concatenate([np.cos(t * frequencies), np.sin(t * frequencies)])
    trunk = params["trunk"]
    c = dense(trunk["time_out"], silu(dense(trunk["time_in"], time)))
    c = silu(c + dense(trunk["cond_out"], silu(dense(trunk["cond_in"], cond))))
    modulation = dense(trunk["modulation"], c).reshape(6 * cfg.blocks + 2, -1)
    tokens = dense(params["patch_in"], np.asarray(patchify(jnp.asarray(x), cfg.patch)))
    for i, (z, a, r) in enumerate(np.ndindex(2, 2, 3)):
        parts = []
        for name, value in (("radius", r / 3), ("angle", a / 2), ("layer", z / 2)):
            phase = 2 * np.pi * value * params[f"frequencies_{name}"]
            parts += [np.sin(phase), np.cos(phase)]
        tokens[i] += np.concatenate(parts)
    for n in range(cfg.blocks):
        p = jax.tree.map(lambda a: a[n], trunk["blocks"])  # noqa: B023
        m = modulation[6 * n : 6 * n + 6]
        qkv = dense(p["qkv"], norm(tokens) * (1 + m[1]) + m[0]).reshape(-1, 3, cfg.heads, 6)
        out = np.zeros_like(tokens)
        for h in range(cfg.heads):
            q, k, v = (qkv[:, i, h] for i in range(3))
            weights = np.exp(q @ k.T / np.sqrt(6))
            out[:, 6 * h : 6 * h + 6] = weights / weights.sum(1, keepdims=True) @ v
        tokens = tokens + m[2] * dense(p["attention_out"], out)
        hidden = dense(p["mlp_in"], norm(tokens) * (1 + m[4]) + m[3])
        gelu = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
        tokens = tokens + m[5] * dense(p["mlp_out"], gelu)
    shift, scale = modulation[-2:]
    expected = dense(trunk["out"], norm(tokens) * (1 + scale) + shift)
    single = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (params, x, cond))
    found = patchify(network.apply(single[0], t, *single[1:]), cfg.patch)
    # Rounding of two float32 blocks against float64.
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


def test_bfloat16_products_keep_float32_outside(key):
    shape = (4, 4, 3)
    full = vit(shape, 5, SMALL)
    params = random_params(full.init)
    half = vit(shape, 5, ViTConfig((2, 2, 1), 12, 2, 2, 16, dtype="bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(half.init(key))} == {jnp.dtype("float32")}
    x = jax.random.normal(key, shape)
    a, b = (n.apply(params, 0.5, x, jnp.ones(5)) for n in (full, half))
    assert b.dtype == jnp.float32
    np.testing.assert_allclose(a, b, atol=0.03 * float(jnp.abs(a).max()))
    assert not np.array_equal(a, b)


def test_attention_that_the_gpu_library_does_not_have_is_refused():
    good = ViTConfig(width=480, heads=6, attention="cudnn", dtype="bfloat16")
    vit((45, 16, 9), 46, good)
    for change in ({"dtype": "float32"}, {"heads": 3}, {"width": 36, "heads": 3}):
        with pytest.raises(ValueError, match="cudnn attention takes bfloat16"):
            vit((45, 16, 9), 46, dataclasses.replace(good, **change))


def test_bad_sizes():
    with pytest.raises(ValueError, match=r"patch \(3, 2, 1\) does not divide the grid \(4, 4, 3\)"):
        vit((4, 4, 3), 5, ViTConfig(patch=(3, 2, 1)))
    with pytest.raises(ValueError, match="multiple of heads, 5"):
        vit((4, 4, 3), 5, ViTConfig(patch=(2, 2, 1), width=12, heads=5))

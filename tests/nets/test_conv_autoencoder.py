import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.nets.conv_autoencoder import (
    ConvAutoencoderConfig,
    conv_autoencoder,
)
from jgen.nets.convolution import convolve, transposed_convolve
from jgen.nets.network import num_parameters

DS2 = ConvAutoencoderConfig()
DS3 = ConvAutoencoderConfig(kernel=(5, 2, 3), stride=(2, 2, 1))
SMALL = {
    "ds2": ((9, 8, 4), ConvAutoencoderConfig(5, cond_width=6)),
    "ds3": ((7, 6, 4), ConvAutoencoderConfig(5, 2, (5, 2, 3), (2, 2, 1), cond_width=6)),
    "no seam": ((6, 9, 3), ConvAutoencoderConfig(5, 3, (2, 5, 3), (1, 3, 1), 2, 6, False)),
}


@functools.cache
def make(name, num_cond=3):
    """Compiled networks, parameters without zeros, a shower, a latent and a condition."""
    shape, config = SMALL[name]
    networks = conv_autoencoder(shape, num_cond, config)
    rng = np.random.default_rng(0)

    def random(path, leaf):
        noise = jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32)
        return noise + (path[-1].key == "scale")

    params = [
        jax.tree_util.tree_map_with_path(random, jax.eval_shape(network.init, jax.random.key(0)))
        for network in networks[:2]
    ]
    encoder, decoder = (n._replace(apply=jax.jit(n.apply)) for n in networks[:2])
    networks = networks._replace(encoder=encoder, decoder=decoder)
    x = jnp.asarray(rng.uniform(size=shape) ** 4, jnp.float32)
    r = jnp.asarray(rng.normal(size=networks.latent_shape), jnp.float32)
    if config.repeat_seam:
        r = r.at[:, :, -1].set(r[:, :, 0])
    return networks, params, x, r, jnp.asarray(rng.normal(size=num_cond), jnp.float32)


def plain_convolve(x, kernel, stride=(1, 1, 1), padding=(0, 0, 0)):
    """Loops over windows and over the voxels of a window."""
    (n_z, n_a, n_r), size = x.shape[:3], kernel.shape[:3]
    counts = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(x.shape, padding, size, stride)]  # noqa: B905
    counts[1] = n_a // stride[1]
    out = np.zeros((*counts, kernel.shape[-1]))
    for window in np.ndindex(*counts):
        for offset in np.ndindex(*size):
            z, a, r = (
                w * s - p + o for w, s, p, o in zip(window, stride, padding, offset, strict=True)
            )
            if 0 <= z < n_z and 0 <= r < n_r:
                out[window] += x[z, a % n_a, r] @ kernel[offset]
    return out


WINDOWS = {
    "cube": ((5, 4, 3), (3, 3, 3), (1, 1, 1), (1, 1, 1)),
    "ds2": ((9, 8, 4), (3, 2, 1), (3, 2, 1), (0, 1, 0)),
    "ds3": ((9, 10, 5), (5, 2, 3), (2, 2, 1), (0, 1, 0)),
    "long angle": ((4, 6, 4), (2, 5, 2), (2, 3, 1), (0, 2, 0)),
    "beyond the stride": ((4, 6, 4), (1, 2, 1), (1, 2, 3), (0, 3, 0)),
    "gaps": ((5, 6, 4), (1, 1, 2), (2, 3, 2), (0, 1, 0)),
    "once around": ((3, 3, 3), (3, 8, 1), (1, 1, 1), (1, 4, 0)),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_convolution_against_loops_and_its_transpose(x64, key, name):
    shape, size, stride, padding = WINDOWS[name]
    keys = jax.random.split(key, 3)
    x = jax.random.normal(keys[0], (*shape, 2))
    kernel = jax.random.normal(keys[1], (*size, 2, 3))
    forward = lambda x: convolve(x, kernel, stride, padding)
    out = jax.jit(forward)(x)
    np.testing.assert_allclose(out, plain_convolve(x, kernel, stride, padding), rtol=1e-10)
    r = jax.random.normal(keys[2], out.shape)
    found = jax.jit(lambda r: transposed_convolve(r, kernel, stride, padding))(r)
    (expected,) = jax.jit(jax.linear_transpose(forward, x))(r)
    ends = [slice(n) for n in found.shape]  # the transpose knows voxels behind the last window
    np.testing.assert_allclose(found, expected[tuple(ends)], rtol=1e-10, atol=1e-12)
    assert float(jnp.abs(expected).sum()) == pytest.approx(float(jnp.abs(found).sum()))


@pytest.mark.parametrize(
    ("shape", "config", "latent_shape", "count"),
    [
        ((45, 16, 9), DS2, (2, 15, 9, 9), 920_181),
        ((45, 50, 18), DS3, (2, 21, 26, 16), 1_122_933),
    ],
)
def test_published_shapes(shape, config, latent_shape, count):
    """The published networks share one condition network, of 46 x 100 + 100 x 100 numbers."""
    encoder, decoder, found = conv_autoencoder(shape, 46, config)
    assert found == latent_shape
    cond = jax.ShapeDtypeStruct((46,), jnp.float32)
    params = jax.eval_shape(encoder.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    mean, log_variance = jax.eval_shape(encoder.apply, params, x, cond)
    assert mean.shape == log_variance.shape == latent_shape
    params = jax.eval_shape(decoder.init, jax.random.key(0))
    assert jax.eval_shape(decoder.apply, params, mean, cond).shape == shape
    assert num_parameters(encoder.init) + num_parameters(decoder.init) == count


@pytest.mark.parametrize("name", SMALL)
def test_a_rotated_shower_is_encoded_as_the_rotated_latent(name):
    networks, (params, _), x, _, cond = make(name)
    config = SMALL[name][1]
    cells = networks.latent_shape[2] - config.repeat_seam
    plain = networks.encoder.apply(params, x, cond)
    for turns in (1, 2):
        turned = jnp.roll(x, turns * config.stride[1], axis=1)
        for a, b in zip(plain, networks.encoder.apply(params, turned, cond), strict=True):
            expected = jnp.roll(a[:, :, :cells], turns, axis=2)
            np.testing.assert_allclose(b[:, :, :cells], expected, rtol=1e-5, atol=1e-6)
            assert float(jnp.abs(a[:, :, :cells] - expected).max()) > 0.01
            if config.repeat_seam:
                np.testing.assert_array_equal(b[:, :, -1], b[:, :, 0])


@pytest.mark.parametrize("name", SMALL)
def test_a_rotated_latent_is_decoded_as_the_rotated_shower(name):
    networks, (_, params), _, r, cond = make(name)
    config = SMALL[name][1]
    cells = networks.latent_shape[2] - config.repeat_seam
    plain = networks.decoder.apply(params, r, cond)
    turned = jnp.roll(r[:, :, :cells], 1, axis=2)
    if config.repeat_seam:
        # The copy is dropped, so it may hold anything.
        turned = jnp.concatenate([turned, jnp.full_like(turned[:, :, :1], 99.0)], axis=2)
    found = networks.decoder.apply(params, turned, cond)
    expected = jnp.roll(plain, config.stride[1], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert float(jnp.abs(plain - expected).max()) > 0.01


@pytest.mark.parametrize("name", SMALL)
def test_networks_against_plain_loops(name):
    """Both networks once more in numpy, positions concatenated as channels."""
    networks, params, x, r, cond = make(name)
    config = SMALL[name][1]
    pe, pd, x, r, cond = jax.tree.map(lambda a: np.asarray(a, np.float64), (*params, x, r, cond))
    silu = lambda a: a / (1 + np.exp(-a))
    dense = lambda p, a: a @ p["kernel"] + p["bias"]
    norm = lambda p, a: (a - a.mean()) / np.sqrt(a.var() + 1e-5) * p["scale"] + p["bias"]
    embed = lambda p: dense(p["out"], np.maximum(dense(p["in"], cond), 0))

    def with_positions(a):
        z, _, r = np.meshgrid(*(np.linspace(0, 1, n) for n in a.shape[:3]), indexing="ij")
        return np.concatenate([a, z[..., None], r[..., None]], axis=-1)

    def conv(p, a, *window):
        return plain_convolve(with_positions(a), p["kernel"], *window) + p.get("bias", 0)

    def transposed(p, a, shape, *window):
        """The transpose from its definition, one unit vector of x after another."""
        out, a = np.zeros((*shape, p["kernel"].shape[-2])), with_positions(a)
        for voxel in np.ndindex(*out.shape):
            unit = np.zeros(out.shape)
            unit[voxel] = 1
            out[voxel] = np.sum(plain_convolve(unit, p["kernel"], *window) * a)
        return out + p["bias"]

    def features(p, a, c):
        cube = ((1, 1, 1), (1, 1, 1))
        a = silu(norm(p["norm_0"], conv(p["conv_0"], a, *cube) + dense(p["cond"], c)))
        return silu(norm(p["norm_1"], conv(p["conv_1"], a, *cube)))

    window = (config.stride, (0, config.angular_padding, 0))
    c, h = embed(pe["condition"]), x[..., None]
    h = conv(pe["down_0"], features(pe["features_0"], h, c), *window)
    h = conv(pe["bottleneck"], conv(pe["down_1"], features(pe["features_1"], h, c)))
    h = np.moveaxis(dense(pe["latent"], h), -1, 0)
    if config.repeat_seam:
        h = np.concatenate([h, h[:, :, :1]], axis=2)
        r = r[:, :, :-1]
    found = networks.encoder.apply(params[0], jnp.float32(x), jnp.float32(cond))
    np.testing.assert_allclose(jnp.concatenate(found), h, rtol=1e-4, atol=1e-5)

    c = embed(pd["condition"])
    h = conv(pd["up_1"], conv(pd["bottleneck"], np.moveaxis(r, 0, -1)))
    h = transposed(pd["up_0"], features(pd["features_1"], h, c), x.shape, *window)
    h = conv(pd["out"], features(pd["features_0"], h, c))[..., 0]
    if config.repeat_seam:
        r = np.concatenate([r, r[:, :, :1]], axis=2)
    found = networks.decoder.apply(params[1], jnp.float32(r), jnp.float32(cond))
    np.testing.assert_allclose(found, h, rtol=1e-4, atol=2e-5)


def test_condition_changes_both_and_may_be_absent():
    networks, params, x, r, cond = make("ds2")
    for network, p, a in zip(networks[:2], params, (x, r), strict=True):
        one, two = (jax.tree.leaves(network.apply(p, a, c))[0] for c in (cond, cond + 1))
        assert float(jnp.abs(one - two).max()) > 1e-3
    networks, params, x, r, _ = make("ds2", num_cond=0)
    assert networks.decoder.apply(params[1], r, None).shape == x.shape
    assert networks.encoder.apply(params[0], x, None)[0].shape == r.shape


def test_bfloat16_convolutions_keep_float32_outside(key):
    networks, params, x, _, cond = make("ds2")
    shape, config = SMALL["ds2"]
    half = conv_autoencoder(shape, 3, ConvAutoencoderConfig(5, cond_width=6, dtype="bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(half.encoder.init, key))} == {
        jnp.dtype("float32")
    }
    a, b = (jax.jit(n.encoder.apply)(params[0], x, cond)[0] for n in (networks, half))
    assert b.dtype == jnp.float32
    np.testing.assert_allclose(a, b, atol=0.05 * float(jnp.abs(a).max()))
    assert not np.array_equal(a, b)


@pytest.mark.parametrize(
    ("shape", "options", "match"),
    [
        ((44, 16, 9), {}, r"44 layers are not kernel \+ a multiple of stride, with kernel 3"),
        ((2, 16, 9), {}, "2 layers"),
        ((45, 16, 2), {"kernel": (3, 2, 3)}, "2 radii"),
        ((45, 15, 9), {}, "angular stride 2 does not divide 15 angles"),
        ((45, 16), {}, r"axes \(layer, angle, radius\)"),
        ((45, 16, 9), {"stride": (3, 0, 1)}, "stride must be whole numbers from 1"),
        ((45, 16, 9), {"angular_padding": -1}, "angular_padding must be a whole number from 0"),
    ],
)
def test_bad_sizes(shape, options, match):
    with pytest.raises(ValueError, match=match):
        conv_autoencoder(shape, 3, ConvAutoencoderConfig(**options))

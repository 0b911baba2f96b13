import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.nets.convolution import convolve
from jgen.nets.network import num_parameters
from jgen.nets.resnet import ResNetConfig, max_pool, resnet3d
from tests.helpers import random_params

SHAPE = (9, 8, 5)
SMALL = ResNetConfig(planes=(4, 6), blocks=1, groups=2)


def library_conv(x, kernel, stride=1):
    pad = [(len(kernel) // 2,) * 2] * 3
    numbers = ("NDHWC", "DHWIO", "NDHWC")
    return jax.lax.conv_general_dilated(
        x[None], kernel, (stride,) * 3, pad, dimension_numbers=numbers
    )[0]


def test_official_parameter_count():
    convolutions = 343 * 32 + 4 * 27 * 32 * 32  # stem, first stage
    convolutions += 27 * 32 * 64 + 3 * 27 * 64 * 64 + 32 * 64  # second, with its shortcut
    convolutions += 4 * 27 * 64 * 64 + 64 * 64
    convolutions += 27 * 64 * 128 + 3 * 27 * 128 * 128 + 64 * 128
    norms = 2 * 4 * (32 + 64 + 64 + 128)
    biases = 32 + 64 + 64 + 128  # stem and shortcuts
    head = 128 + 1 + 1
    count = num_parameters(resnet3d((45, 16, 9)).init)
    assert count == convolutions + norms + biases + head == 2_516_354
    # The official one has norms with two numbers a channel instead of the biases, and one on E_inc.
    assert count - biases + 2 * biases + 2 == 2_516_644
    assert num_parameters(resnet3d((45, 50, 18)).init) == count


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (7, 2), (1, 2)])
def test_convolution_and_its_gradient_against_the_library(x64, key, size, stride):
    x = jax.random.normal(key, (*SHAPE, 2))
    kernel = jax.random.normal(key, (size, size, size, 2, 3))
    loss = lambda f: lambda *args: jnp.sum(jnp.sin(f(*args)))
    ours = lambda *args: convolve(*args, (stride,) * 3, (size // 2,) * 3, periodic=False)
    library = lambda *args: library_conv(*args, stride)
    found, expected = (
        jax.jit(jax.value_and_grad(loss(f), (0, 1)))(x, kernel) for f in (ours, library)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def library_network(p, x, cond):
    """The small network once more, of the library's convolutions and pooling."""

    def norm(x, p):
        y = x.reshape(-1, 2, x.shape[-1] // 2)
        mean, var = y.mean((0, 2), keepdims=True), y.var((0, 2), keepdims=True)
        y = ((y - mean) / jnp.sqrt(var + 1e-5)).reshape(x.shape)
        return y * p["scale"][None, None, None] + p["bias"][None, None, None]

    bias = lambda p: p["bias"][None, None, None]
    y = jax.nn.relu(library_conv(x[..., None], p["stem"]["kernel"], 2) + bias(p["stem"]))
    pad = [(1, 1)] * 3 + [(0, 0)]
    y = jax.lax.reduce_window(y, -jnp.inf, jax.lax.max, (3, 3, 3, 1), (2, 2, 2, 1), pad)
    for stage, stride in ((0, 1), (1, 2)):
        q = p[f"_Block_{stage}"]
        z = jax.nn.relu(norm(library_conv(y, q["_Conv_0"]["kernel"], stride), q["GroupNorm_0"]))
        z = norm(library_conv(z, q["_Conv_1"]["kernel"]), q["GroupNorm_1"])
        if "shortcut" in q:
            y = library_conv(y, q["shortcut"]["kernel"], stride) + bias(q["shortcut"])
        y = jax.nn.relu(y + z)
    features = jnp.concatenate([y.mean((0, 1, 2)), cond])
    return features @ p["head"]["kernel"] + p["head"]["bias"]


def test_network_against_library_layers(key):
    network = resnet3d(SHAPE, config=SMALL)
    arguments = random_params(network.init), jax.random.normal(key, SHAPE), jnp.array([0.7])
    found, expected = (jax.jit(f)(*arguments) for f in (network.apply, library_network))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_output_depends_on_condition_voxels_and_their_scale(key):
    network = resnet3d(SHAPE, config=SMALL)
    params, x, cond = (
        jax.jit(network.init)(key),
        jnp.abs(jax.random.normal(key, SHAPE)),
        jnp.array([0.5]),
    )
    out = jax.jit(lambda x, cond: network.apply(params, x, cond)[0])
    assert abs(out(x, cond + 1) - out(x, cond)) > 1e-2
    assert abs(out(x[::-1], cond) - out(x, cond)) > 1e-4
    # A network that normalises each event from the start is blind to the total energy.
    assert abs(out(2 * x, cond) - out(x, cond)) > 1e-2


def test_only_the_periodic_network_does_not_see_rotations(key):
    x = jax.random.normal(key, (6, 16, 4))
    for periodic in (True, False):
        network = resnet3d((6, 16, 4), config=ResNetConfig((4, 6), 1, 2, periodic))
        params = random_params(network.init)
        out = jax.jit(lambda x: network.apply(params, x, jnp.ones(1))[0])  # noqa: B023
        a, b = out(x), out(jnp.roll(x, 8, axis=1))
        # Three halvings of the angle leave rotations by multiples of eight bins.
        assert (abs(a - b) < 1e-5) == periodic


def test_max_pool(key):
    x = jnp.abs(jax.random.normal(key, (5, 4, 3, 2)))
    padded = np.pad(x, ((1, 1), (1, 1), (1, 1), (0, 0)))
    expected = [padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3, 2 * k : 2 * k + 3].max((0, 1, 2))
                for i, j, k in np.ndindex(3, 2, 2)]  # fmt: skip
    np.testing.assert_array_equal(max_pool(x).reshape(-1, 2), expected)


def test_bad_sizes():
    with pytest.raises(ValueError, match="multiples of groups, 3"):
        resnet3d(SHAPE, config=ResNetConfig(planes=(3, 4), groups=3))
    for shape, config in (((4, 4), SMALL), ((4, 0, 4), SMALL), (SHAPE, ResNetConfig(planes=()))):
        with pytest.raises(
            ValueError, match="three axes|shape must be whole|planes must be the widths"
        ):
            resnet3d(shape, config=config)

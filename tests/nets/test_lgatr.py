"""The algebra's tables, and L-GATr against the PyPI package and under Lorentz transformations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.nets import LGATrConfig, lgatr, num_parameters
from jgen.nets.lorentz.geometric_algebra import (
    DUAL,
    INNER,
    PRODUCT,
    dual,
    embed_vector,
    extract_vector,
    geometric_product,
)
from jgen.physics.four_vectors import METRIC, boost, four_vector, rotation

SMALL = LGATrConfig(4, 8, 2, 2)
RNG = np.random.default_rng(0)


def test_tables_of_the_algebra():
    assert np.count_nonzero(PRODUCT) == 256
    np.testing.assert_array_equal(INNER, [1, 1, -1, -1, -1, -1, -1, -1, 1, 1, 1, 1, 1, 1, -1, -1])
    basis = PRODUCT[1:5, 1:5]  # e_i e_j + e_j e_i = 2 g_ij
    anticommutator = basis + np.swapaxes(basis, 0, 1)
    expected = np.zeros((4, 4, 16))
    expected[..., 0] = 2 * np.diag(METRIC)
    np.testing.assert_array_equal(anticommutator, expected)
    associated = np.einsum("abc,cde->abde", PRODUCT, PRODUCT)
    np.testing.assert_array_equal(associated, np.einsum("bdc,ace->abde", PRODUCT, PRODUCT))


def test_products_of_arrays():
    x, y = RNG.normal(size=(2, 3, 16, 5)).astype(np.float32)
    exact = np.einsum("abc,nak,nbk->nck", PRODUCT, x, y)
    np.testing.assert_allclose(geometric_product(x, y), exact, atol=1e-5)
    pseudoscalar = np.zeros_like(x)
    pseudoscalar[:, 15] = 1
    np.testing.assert_allclose(dual(x), geometric_product(x, pseudoscalar), atol=1e-6)
    assert set(DUAL) == {-1.0, 1.0}


def transformed(rapidity, rng):
    direction = rng.normal(size=3)
    beta_gamma = np.sinh(rapidity) * direction / np.linalg.norm(direction)
    return boost(jnp.asarray(beta_gamma)) @ rotation(jnp.asarray(rng.normal(size=4)))


def events(rng):
    columns = rng.exponential(1, 6) + 0.2, rng.uniform(-3, 3, 6), rng.normal(size=6)
    return four_vector(*map(jnp.asarray, (*columns, rng.uniform(0.1, 1, 6))))


def outputs(params, network, p, s, spurion=None):
    x = embed_vector(p)
    if spurion is not None:
        x = jnp.concatenate([x, jnp.broadcast_to(spurion, x.shape)], axis=-1)
    y, t = jax.jit(network.apply)(params, x, s)
    return extract_vector(y)[..., 0], t


@pytest.mark.parametrize(
    ("double", "rapidity", "gate"), [(True, 2.0, 1e-10), (True, 4.0, 1e-8), (False, 1.0, 2e-4)]
)
def test_vectors_turn_with_the_event_and_scalars_stay(double, rapidity, gate):
    rng = np.random.default_rng(1)
    with jax.enable_x64(double):
        network = lgatr((1, 3), (1, 2), SMALL)
        kind = jnp.float64 if double else jnp.float32
        params = jax.tree.map(lambda a: a.astype(kind), network.init(jax.random.key(0)))
        p, s = events(rng).astype(kind), jnp.asarray(rng.normal(size=(6, 3)), kind)
        turn = transformed(rapidity, rng).astype(kind)
        (v, t), (w, u) = outputs(params, network, p, s), outputs(params, network, p @ turn.T, s)
        assert float(jnp.abs(v @ turn.T - w).max() / jnp.abs(w).max()) < gate
        assert float(jnp.abs(t - u).max()) < gate * float(jnp.abs(t).max())
        order = rng.permutation(6)
        shuffled = outputs(params, network, p[order], s[order])
        np.testing.assert_allclose(shuffled[0], v[order], rtol=1e-4, atol=1e-5)


def test_a_spurion_breaks_boosts_and_leaves_rotations_about_it():
    rng = np.random.default_rng(2)
    with jax.enable_x64(True):
        network = lgatr((2, 3), (1, 2), SMALL)
        params = network.init(jax.random.key(0))
        p, s = events(rng), jnp.asarray(rng.normal(size=(6, 3)))
        beam = jnp.zeros((16, 1)).at[8].set(1.0)  # the plane of x and y
        along = rotation(jnp.array([0.4, 0.0, 0.0, 0.8]))
        v, _ = outputs(params, network, p, s, beam)
        kept, _ = outputs(params, network, p @ along.T, s, beam)
        np.testing.assert_allclose(v @ along.T, kept, atol=1e-10)
        turn = boost(jnp.array([0.6, 0.0, 0.0]))
        broken, _ = outputs(params, network, p @ turn.T, s, beam)
        assert float(jnp.abs(v @ turn.T - broken).max() / jnp.abs(v).max()) > 1e-3


def test_published_sizes_have_their_numbers_of_parameters():
    assert num_parameters(lgatr((4, 14), (1, 2)).init) == 539_044
    with pytest.raises(ValueError, match="scalars of inputs must be a whole number"):
        lgatr((4, 0), (1, 2))
    with pytest.raises(ValueError, match="heads must be a whole number"):
        lgatr((4, 1), (1, 2), LGATrConfig(heads=0))


_NAMES = {
    "_Attention_0": {
        "qkv": "attention.qkv_module.in_linear.",
        "out": "attention.out_linear.",
    },
    "_Mlp_0": {
        "left": "mlp.layers.0.linear_left.",
        "right": "mlp.layers.0.linear_right.",
        "middle": "mlp.layers.0.linear_out.",
        "out": "mlp.layers.2.",
    },
}
_MAPS = {"to_multivectors": "s2mvs.", "from_multivectors": "mvs2s.", "from_scalars": "s2s."}


def converted(state, prefix):
    layer = {"weight": state[prefix + "weight"].transpose(2, 1, 0)}
    for ours, theirs in _MAPS.items():
        if prefix + theirs + "weight" in state:
            layer[ours] = {"kernel": state[prefix + theirs + "weight"].T}
        if prefix + theirs + "bias" in state:
            layer[ours]["bias"] = state[prefix + theirs + "bias"]
    return layer


def test_the_network_is_that_of_the_package():
    torch, package = pytest.importorskip("torch"), pytest.importorskip("lgatr")
    torch.manual_seed(0)
    theirs = package.LGATr(
        num_blocks=2, in_mv_channels=3, out_mv_channels=1, hidden_mv_channels=4, in_s_channels=5,
        out_s_channels=2, hidden_s_channels=8, attention={"num_heads": 2, "attn_ratio": 2},
        mlp={"mlp_ratio": 2}, norm_elementwise_affine=False,
    ).double()  # fmt: skip
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    blocks = [
        {
            module: {ours: converted(state, f"blocks.{i}.{name}") for ours, name in layers.items()}
            for module, layers in _NAMES.items()
        }
        for i in range(2)
    ]
    params = {name: converted(state, f"linear_{name}.") for name in ("in", "out")}
    x, s = RNG.normal(size=(3, 6, 16, 3)), RNG.normal(size=(3, 6, 5))
    with jax.enable_x64(True):
        params["blocks"] = jax.tree.map(lambda *leaves: np.stack(leaves), *blocks)
        network = lgatr((3, 5), (1, 2), SMALL)
        y, t = jax.jit(jax.vmap(network.apply, (None, 0, 0)))(params, x, s)
    with torch.no_grad():
        mv, scalars = theirs(torch.tensor(np.swapaxes(x, 2, 3)), torch.tensor(s))
    np.testing.assert_allclose(y, np.swapaxes(mv.numpy(), 2, 3), atol=1e-12)
    np.testing.assert_allclose(t, scalars.numpy(), atol=1e-12)

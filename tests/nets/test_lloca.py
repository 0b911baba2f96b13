"""LLoCa against the PyPI package, under Lorentz transformations, and its frames."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.nets import BEAMS, TIME, LLoCaConfig, lloca, num_parameters
from jgen.physics import boost, four_vector, rotation

SMALL = LLoCaConfig(2, 3, 1, 2, 2, frames=(16, 16))


def events(rng, num=6):
    columns = rng.exponential(1, num) + 0.2, rng.uniform(-3, 3, num), rng.normal(size=num)
    return four_vector(*map(jnp.asarray, (*columns, rng.uniform(0.1, 1, num))))


def turns(rng, rapidity=0.7):
    """A transformation of each group."""
    direction, along = rng.normal(size=3), jnp.array([0.4, 0.0, 0.0, 0.8])
    beta_gamma = np.sinh(rapidity) * direction / np.linalg.norm(direction)
    turn, about = rotation(jnp.asarray(rng.normal(size=4))), rotation(along)
    return {
        "so13": boost(jnp.asarray(beta_gamma)) @ turn,
        "so3": turn,
        "so2": about,
        "z": boost(jnp.array([0.0, 0.0, np.sinh(rapidity)])) @ about,
    }


def broken(network, params, p, s, turn):
    """Largest change of vectors and scalars over the largest of them, if the event is turned."""
    apply = jax.jit(network.apply)
    (v, t), (w, u) = apply(params, p, s), apply(params, p @ turn.T, s)
    turned = jnp.einsum("ab,nvb->nva", turn.astype(v.dtype), v)
    one = lambda a, b: float(jnp.abs(a - b).max() / jnp.abs(b).max())
    return max(one(turned, w), one(t, u))


@pytest.mark.parametrize(
    ("kind", "rapidity", "gate"), [("float64", 2.0, 1e-10), ("float32", 1.0, 1e-5)]
)
def test_vectors_turn_with_the_event_and_scalars_stay(kind, rapidity, gate):
    """In float32 the momenta and the frames are in float64 all the same."""
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        network = lloca(3, (1, 2), SMALL)
        params = jax.tree.map(lambda a: a.astype(kind), network.init(jax.random.key(0)))
        p, s = events(rng), jnp.asarray(rng.normal(size=(6, 3)), kind)
        assert broken(network, params, p, s, turns(rng, rapidity)["so13"]) < gate
        order = rng.permutation(6)
        apply = jax.jit(network.apply)
        shuffled, given = apply(params, p[order], s[order]), apply(params, p, s)
        np.testing.assert_allclose(shuffled[1], given[1][order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("symmetry", ["so3", "so2", "z", "identity"])
def test_smaller_groups_hold_and_larger_ones_do_not(symmetry):
    config = LLoCaConfig(2, 3, 1, 1, 2, symmetry, (8,))
    rng = np.random.default_rng(2)
    holds = {"so3": {"so3", "so2"}, "so2": {"so2"}, "z": {"z", "so2"}, "identity": set()}
    with jax.enable_x64(True):
        network = lloca(3, (1, 2), config)
        params = network.init(jax.random.key(0))
        p, s = events(rng), jnp.asarray(rng.normal(size=(6, 3)))
        for group, turn in turns(rng).items():
            change = broken(network, params, p, s, turn)
            assert change < 1e-10 if group in holds[symmetry] else change > 1e-3, (group, change)


def test_spurions_break_what_they_should():
    rng = np.random.default_rng(3)
    with jax.enable_x64(True):
        network = lloca(3, (1, 2), SMALL, spurions=(*BEAMS, TIME))
        params = network.init(jax.random.key(0))
        p, s = events(rng), jnp.asarray(rng.normal(size=(6, 3)))
        groups = turns(rng)
        assert broken(network, params, p, s, groups["so2"]) < 1e-10
        assert broken(network, params, p, s, groups["z"]) > 1e-3


def test_gradients_are_finite_in_single_precision_under_vmap():
    network = lloca(3, (1, 2), SMALL, spurions=(*BEAMS, TIME))
    params = network.init(jax.random.key(0))
    rng = np.random.default_rng(4)
    p = jnp.stack([events(rng) for _ in range(3)])
    s = jnp.asarray(rng.normal(size=(3, 6, 3)), jnp.float32)

    def loss(params):
        v, t = jax.vmap(network.apply, (None, 0, 0))(params, p, s)
        assert v.dtype == t.dtype == jnp.float32
        return jnp.mean(v**2) + jnp.mean(t**2)

    gradients = jax.tree.leaves(jax.jit(jax.grad(loss))(params))
    assert all(np.isfinite(g).all() and g.dtype == jnp.float32 for g in gradients)
    assert sum(float(jnp.abs(g).sum()) for g in gradients) > 0


@pytest.mark.parametrize(("symmetry", "least"), [("so13", 4), ("so3", 3), ("so2", 2), ("z", 2)])
def test_events_of_too_few_particles_are_refused(symmetry, least):
    """With as many as are needed frames are finite."""
    rng = np.random.default_rng(5)
    network = lloca(3, (1, 2), LLoCaConfig(2, 3, 1, 1, 2, symmetry, (8,)))
    params, apply = network.init(jax.random.key(0)), jax.jit(network.apply)
    s = jnp.asarray(rng.normal(size=(least, 3)), jnp.float32)
    p = events(rng, least).astype(jnp.float32)
    assert all(np.isfinite(a).all() for a in apply(params, p, s))
    with pytest.raises(ValueError, match=f"{symmetry} needs {least - 1} momenta beside .* got "):
        apply(params, p[1:], s[1:])


def test_published_sizes_have_their_numbers_of_parameters():
    assert num_parameters(lloca(14, (1, 2)).init) == 546_881
    plain = LLoCaConfig(symmetry="identity")
    assert num_parameters(lloca(14, (1, 2), plain).init) == 526_142
    with pytest.raises(ValueError, match="symmetry"):
        lloca(14, (1, 2), LLoCaConfig(symmetry="so4"))
    with pytest.raises(ValueError, match="heads must be a whole number"):
        lloca(14, (1, 2), LLoCaConfig(heads=0))
    with pytest.raises(ValueError, match="frames must be the widths of 1 to"):
        lloca(14, (1, 2), LLoCaConfig(frames=()))
    with pytest.raises(ValueError, match="standard deviation of edges must be positive"):
        lloca(14, (1, 2), edges=(0.0, 0.0))
    with pytest.raises(ValueError, match="mean of edges"):
        lloca(14, (1, 2), edges=(np.nan, 1.0))
    for spurions, said in (
        (((0, 1, 0, 0),), "not below their momentum"),
        (((1, 2, 3),), r"\(E, px, py, pz\), got the shape"),
        (((np.nan, 0, 0, 1),), "finite"),
    ):
        with pytest.raises(ValueError, match=said):
            lloca(14, (1, 2), spurions=spurions)
    network = lloca(3, (1, 2), SMALL)
    with pytest.raises(ValueError, match="floating-point numbers, got int32"):
        network.apply(network.init(jax.random.key(0)), jnp.ones((6, 4)), jnp.ones((6, 3), int))


def test_the_network_is_that_of_the_package():
    torch = pytest.importorskip("torch")
    pytest.importorskip("lloca")
    from lloca.backbone.transformer import Transformer
    from lloca.equivectors.mlp import MLPVectors
    from lloca.framesnet.equi_frames import LearnedPDFrames

    torch.manual_seed(0)
    make = lambda n_vectors: MLPVectors(
        n_vectors=n_vectors, num_scalars=5, hidden_channels=16, num_layers_mlp=2
    )
    frames_net = LearnedPDFrames(make).double()
    theirs = Transformer(
        in_channels=9, attn_reps="3x0n+1x1n", out_channels=6, num_blocks=2, num_heads=2,
        mlp_factor=2, preserve_variance=False,
    ).double()  # fmt: skip
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        p, s = np.stack([events(rng) for _ in range(3)]), rng.normal(size=(3, 6, 5))
    momenta, scalars = torch.tensor(p), torch.tensor(s)
    frames_net.equivectors.init_standardization(momenta)
    with torch.no_grad():
        frames = frames_net(momenta, scalars=scalars)
        local = torch.einsum("...ab,...b->...a", frames.matrices, momenta)
        out = theirs(torch.cat([local, scalars], -1), frames).numpy()
    state = {k: v.numpy() for net in (frames_net, theirs) for k, v in net.state_dict().items()}
    dense = lambda name: {"kernel": state[f"{name}.weight"].T, "bias": state[f"{name}.bias"]}
    first, *others = (dense(f"equivectors.block.mlp.mlp.{i}") for i in (0, 2, 4))
    own, other, edge = np.split(first["kernel"], [5, 10])
    layers = {"own": {"kernel": own, "bias": first["bias"]}, "other": {"kernel": other}}
    layers |= {"edge": {"kernel": edge}, "layer_1": others[0], "layer_2": others[1]}
    names = {
        "qkv": "attention.qkv_linear.linear", "out": "attention.out_linear",
        "mlp_in": "mlp.0", "mlp_out": "mlp.3",
    }  # fmt: skip
    blocks = [{k: dense(f"blocks.{i}.{name}") for k, name in names.items()} for i in range(2)]
    params = {"frames": layers, "in": dense("linear_in"), "last": dense("linear_out")}
    edges = tuple(float(state[f"equivectors.block.edge_{of}"]) for of in ("mean", "std"))
    with jax.enable_x64(True):
        params["blocks"] = jax.tree.map(lambda *leaves: np.stack(leaves), *blocks)
        network = lloca(5, (1, 2), SMALL, edges=edges)
        v, t = jax.jit(jax.vmap(network.apply, (None, 0, 0)))(params, p, s)
    back = np.einsum("...ab,...b->...a", np.linalg.inv(frames.matrices.numpy()), out[..., :4])
    np.testing.assert_allclose(v[:, :, 0], back, atol=1e-11)
    np.testing.assert_allclose(t, out[..., 4:], atol=1e-11)

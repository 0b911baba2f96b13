"""Modules of other layer libraries: the numbers of the module itself, trained and in ensembles."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jgen import Batch, load, save
from jgen.models import flow_matching
from jgen.nets import from_equinox, from_nnx


class Velocity(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(3, 8, rngs=rngs)
        self.last = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, t, x, cond):
        return self.last(nnx.tanh(self.first(jnp.append(x, t))))


def of_equinox():
    eqx = pytest.importorskip("equinox")

    class Module(eqx.Module):
        layers: eqx.nn.MLP

        def __init__(self, key):
            self.layers = eqx.nn.MLP(3, 2, 8, 1, key=key)

        def __call__(self, t, x, cond):
            return self.layers(jnp.append(x, t))

    return from_equinox(Module, num_cond=0), Module


def of_nnx():
    return from_nnx(Velocity, num_cond=0), lambda key: Velocity(nnx.Rngs(key))


@pytest.mark.parametrize("adapter", [of_nnx, of_equinox], ids=["nnx", "equinox"])
def test_a_module_is_a_network(adapter, tmp_path):
    network, make = adapter()
    key, t, x = jax.random.key(3), jnp.float32(0.3), jnp.array([0.5, -1.0])
    params = network.init(key)
    # Linear layers of the module itself; programs may round differently.
    expected = make(key)(t, x, None)
    np.testing.assert_allclose(network.apply(params, t, x, None), expected, rtol=1e-6)
    assert network.num_cond == 0
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))
    save(tmp_path / "params.npz", params)
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path / "params.npz"), params)

    # A step of gradient descent on two members at once makes the loss of each smaller.
    model = flow_matching(network, (2,))
    members = jax.vmap(network.init)(jax.random.split(key))
    batch = Batch(jnp.ones((16, 2)))

    @jax.jit
    def step(members):
        loss = lambda params: model.loss(params, key, batch)
        before, slope = jax.vmap(jax.value_and_grad(loss))(members)
        after = optax.apply_updates(members, jax.tree.map(lambda g: -0.05 * g, slope))
        return before, jax.vmap(loss)(after)

    before, after = step(members)
    assert (after < before).all()
    single = jax.jit(lambda p: model.loss(p, key, batch))(jax.tree.map(lambda a: a[1], members))
    assert single == pytest.approx(float(before[1]), rel=1e-5)


def test_modules_with_state_are_refused():
    for make, name in (
        (lambda rngs: nnx.BatchNorm(3, rngs=rngs), "BatchStat"),
        (lambda rngs: nnx.Dropout(0.1, rngs=rngs), "RngCount"),
    ):
        with pytest.raises(ValueError, match=f"variables {name}.*LayerNorm"):
            from_nnx(make)
    module = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    for make in (module, 3):
        with pytest.raises(ValueError, match="such as lambda rngs: MyModule.*, not (Linear|int)"):
            from_nnx(make)
    with pytest.raises(ValueError, match="must make a Module of flax, got"):
        from_nnx(lambda rngs: 3)
    eqx = pytest.importorskip("equinox")

    class Labels(eqx.Module):
        order: jax.Array

        def __init__(self, key):
            self.order = jnp.arange(3)

    with pytest.raises(ValueError, match="order cannot be trained"):
        from_equinox(Labels)
    with pytest.raises(ValueError, match="such as lambda key: MyModule.*, not Linear"):
        from_equinox(eqx.nn.Linear(2, 2, key=jax.random.key(0)))
    with pytest.raises(ValueError, match="must make a Module of equinox, got None"):
        from_equinox(lambda key: None)


def test_a_library_that_is_not_there(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "equinox", None)
    with pytest.raises(ValueError, match="pip install equinox"):
        from_equinox(lambda key: None)

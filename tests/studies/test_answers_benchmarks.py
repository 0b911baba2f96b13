import importlib.util
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import showers
from experiments.benchmarks.timing import flops
from experiments.study import execute
from jgen.nets import num_parameters
from jgen.nets.primitives.points import on_points
from jgen.nets.primitives.products import products
from jgen.nets.transformers.transfusion import TransfusionConfig, transfusion
from jgen.nets.transformers.vit import ViTConfig, vit
from tests.helpers import random_params


def counts_of(module, config):
    parts = module.build(config)
    return {name: num_parameters(part.init) for name, part in parts.items()}


HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="compares with PyTorch")


@pytest.mark.study
def test_smoke_measures_everything(tmp_path, capsys):
    metrics = execute(showers.STUDY, showers.SMOKE, tmp_path / "run")
    pairs = [("vit", "forward"), ("vit", "gradient")]
    pairs += [("energy", kind) for kind in ("contexts", "forward", "sample")]
    expected = {"showers_per_second/2", "showers_per_cpu_second/2", "compile_s/showers/2"}
    for network, kind in pairs:
        expected.add(f"compile_s/{network}/{kind}/2")
        expected |= {f"{network}_{clock}/{kind}/2" for clock in ("ms", "wall_ms")}
        if HAS_TORCH:
            expected.add(f"ratio/{network}/{kind}/2")
            expected |= {f"torch_{clock}/{network}/{kind}/2" for clock in ("ms", "wall_ms")}
    expected.add("compile_s/vit_ds3/forward/2")
    expected |= {f"vit_ds3_{clock}/forward/2" for clock in ("ms", "wall_ms")}
    for network in ("vit", "vit_ds3"):
        expected |= {f"gflop_per_shower/{network}", f"utilisation/{network}/2"}
    for how in ("sequential", "vmap", "scan"):
        expected |= {f"ensemble_{clock}/mlp/{how}" for clock in ("ms", "wall_ms")}
        expected.add(f"compile_s/ensemble/mlp/{how}")
    for how in ("vmap", "scan"):
        expected |= {f"ensemble{clock}_ratio/mlp/{how}" for clock in ("", "_wall")}
    for parts in (1, 2):
        expected.add(f"compile_s/accumulate/{parts}")
        expected |= {f"training_{clock}/accumulate/{parts}" for clock in ("ms", "wall_ms")}
    expected |= {f"training{clock}_ratio/accumulate/2" for clock in ("", "_wall")}
    assert set(metrics) == expected
    assert all(np.isfinite(value) and value > 0 for value in metrics.values())
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == metrics
    assert HAS_TORCH or "pip install -e .[benchmarks]" in capsys.readouterr().out

    figure = tmp_path / "run" / "figures" / "ratios.png"
    figure.unlink()
    assert execute(showers.STUDY, showers.SMOKE, tmp_path / "run", plot_only=True) == metrics
    assert figure.exists()


def test_nothing_to_plot_is_said(tmp_path):
    with pytest.raises(ValueError, match="run without --plot-only"):
        execute(showers.STUDY, showers.SMOKE, tmp_path / "new", plot_only=True)


def test_default_measures_the_published_networks():
    counts = counts_of(showers, showers.DEFAULT)
    assert (counts["vit"], counts["energy"]) == (26_042_688, 2_384_705)
    assert counts["vit_ds3"] == 5_868_870


@pytest.mark.parametrize(
    ("shape", "config", "gflop"),
    [((45, 16, 9), showers.DEFAULT.vit, 4.7), ((45, 50, 18), showers.DEFAULT.vit_ds3, 19.9)],
)
def test_operations_of_the_published_networks(shape, config, gflop):
    """4.5 + 0.2 and 9.4 + 10.5 GFLOP a shower, linear layers and attention, counted by hand."""
    network = vit(shape, 46, config)
    arguments = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((), shape, (46,))]
    params = jax.eval_shape(network.init, jax.random.key(0))
    assert 1e-9 * flops(network.apply, params, *arguments) == pytest.approx(gflop, abs=0.05)


def test_operations_within_primitives_count():
    shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.float32)
    turned = partial(products, dtype=jnp.float32, turned=True)
    total = lambda a, b: jnp.sum(turned(a, b))
    a, b, num = shape(5, 3, 4), shape(5, 2, 4), 2 * 5 * 3 * 4 * 2
    assert flops(turned, a, b) == num
    assert flops(jax.grad(total, (0, 1)), a, b) == 3 * num
    on_rows = jax.vmap(partial(on_points, jnp.matmul), (0, 0, None))
    n = jax.ShapeDtypeStruct((5,), jnp.int32)
    assert flops(on_rows, n, a, shape(4, 6)) == 2 * 5 * 3 * 4 * 6


@needs_torch
def test_published_parameter_counts_in_pytorch():
    from experiments.benchmarks import pytorch

    shape_network = pytorch.ViT((45, 16, 9), 46, ViTConfig())
    energy_network = pytorch.EnergyNetwork(45, TransfusionConfig())
    assert pytorch.num_parameters(shape_network) == 26_042_688
    assert pytorch.num_parameters(energy_network) == 2_384_705


def load(module, params):
    """Give a linear or normalisation layer of PyTorch the parameters of one of jgen's."""
    import torch

    weight = params["scale"] if "scale" in params else params["kernel"].T
    module.weight.data = torch.tensor(np.asarray(weight))
    module.bias.data = torch.tensor(np.asarray(params["bias"]))


@needs_torch
def test_shape_network_is_the_same_in_pytorch(key):
    import torch

    from experiments.benchmarks import pytorch

    shape, config = (4, 6, 3), ViTConfig((2, 3, 1), width=14, heads=2, blocks=2, mlp_width=16)
    network, module = vit(shape, 5, config), pytorch.ViT(shape, 5, config)
    params = random_params(network.init)
    trunk = params["trunk"]
    load(module.patch_in, params["patch_in"])
    load(module.patch_out, trunk["out"])
    for mlp, name in ((module.time, "time"), (module.condition, "cond")):
        load(mlp[0], trunk[f"{name}_in"])
        load(mlp[2], trunk[f"{name}_out"])
    # jgen makes all modulations by one product.
    width = config.width
    rows = lambda layer, first, num: {
        name: a[..., first * width : (first + num) * width] for name, a in layer.items()
    }
    load(module.modulation, rows(trunk["modulation"], 6 * config.blocks, 2))
    for i, block in enumerate(module.blocks):
        load(block.modulation, rows(trunk["modulation"], 6 * i, 6))
        for name, layer in jax.tree.map(lambda a: a[i], trunk["blocks"]).items():  # noqa: B023
            load(getattr(block, name), layer)
    for i, name in enumerate(("radius", "angle", "layer")):
        module.frequencies[i].data = torch.tensor(np.asarray(params[f"frequencies_{name}"]))
    rng = np.random.default_rng(1)
    args = [np.float32(rng.uniform(size=s)) for s in ((2,), (2, *shape), (2, 5))]
    expected = jax.jit(jax.vmap(network.apply, (None, 0, 0, 0)))(params, *args)
    found = module(*[torch.tensor(a) for a in args])
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-4, atol=1e-4)


def load_attention(module, params):
    import torch

    module.in_proj_weight.data = torch.tensor(np.asarray(params["qkv"]["kernel"].T))
    module.in_proj_bias.data = torch.tensor(np.asarray(params["qkv"]["bias"]))
    load(module.out_proj, params["out"])


def load_energy_network(module, params):
    import torch

    for i, layer in enumerate(module.transformer.encoder.layers):
        own = params[f"encoder_{i}"]
        load_attention(layer.self_attn, own["_Attention_0"])
        for n in (0, 1):
            load((layer.linear1, layer.linear2)[n], own["_FeedForward_0"][f"Dense_{n}"])
            load((layer.norm1, layer.norm2)[n], own[f"LayerNorm_{n}"])
    for i, layer in enumerate(module.transformer.decoder.layers):
        own = params[f"decoder_{i}"]
        load_attention(layer.self_attn, own["attention"])
        load_attention(layer.multihead_attn, own["cross_attention"])
        for n in (0, 1):
            load((layer.linear1, layer.linear2)[n], own["feed_forward"][f"Dense_{n}"])
        for n, norm in enumerate((layer.norm1, layer.norm2, layer.norm3)):
            load(norm, own[f"norms_{n}"])
    load(module.transformer.encoder.norm, params["encoder_norm"])
    load(module.transformer.decoder.norm, params["decoder_norm"])
    load(module.time, params["time"])
    load(module.head[0], {"kernel": params["head_in"], "bias": params["head_bias"]})
    for n in range((len(module.head) - 3) // 3):
        load(module.head[2 + 3 * n], params[f"head_{n}"])
        load(module.head[3 + 3 * n], params[f"head_norms_{n}"])
    load(module.head[-1], params["head_out"])
    frequencies = 30 * np.random.default_rng(0).standard_normal(module.width // 2)
    module.frequencies = torch.tensor(frequencies, dtype=torch.float32)


@needs_torch
def test_energy_network_is_the_same_in_pytorch(key):
    import torch

    from experiments.benchmarks import pytorch

    num = 4
    config = TransfusionConfig(8, heads=2, layers=2, feed_forward=12, head_width=10, head_layers=4)
    network, module = transfusion(num, config), pytorch.EnergyNetwork(num, config).eval()
    params = random_params(network.init)
    load_energy_network(module, params)
    ratios, x, t = (jax.random.normal(k, (2, num)) for k in jax.random.split(key, 3))
    energy = jnp.array([0.2, 0.9])

    def forward(ratios, energy, t, x):
        features = jax.vmap(network.embed_time, (None, 0))(params, t)
        contexts = network.contexts(params, ratios, energy)
        return jax.vmap(network.velocity, (None, 0, 0, 0))(params, features, x, contexts)

    expected = jax.jit(jax.vmap(forward))(ratios, energy, t, x)
    ratios, energy, t, x = (torch.tensor(np.asarray(a)) for a in (ratios, energy, t, x))
    contexts = module.contexts(ratios[:, :-1], energy)
    found = module.velocity(t[..., None], x[..., None], contexts)[..., 0]
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-3, atol=1e-3)

"""ONNX files: onnxruntime makes the events of JAX of the same random numbers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Primitive

from jgen.bijectors import coupling_flow, rational_quadratic, standardize
from jgen.export import export_onnx, noise_numbers, write_onnx
from jgen.export.plain import plain_program, run
from jgen.generative_model import GenerativeModel, from_noise
from jgen.models import autoregressive, binned, flow, flow_matching, mean_flow
from jgen.nets import PointWiseConfig, SequenceConfig, ViTConfig, made, velocity_mlp
from jgen.showers import Showers, calodream, clouds, get_geometry, read_showers, sample_path
from jgen.showers.calodream.trained import fit_preprocessing
from jgen.showers.clouds import model as clouds_parts
from jgen.showers.par04 import LARGEST_ENERGY, export_par04
from jgen.solvers import SolverConfig, runge_kutta
from jgen.solvers.runge_kutta import looped
from jgen.transforms import preprocessed
from tests.helpers import random_params

DS2 = get_geometry("ds2")
SMALL = clouds.CloudsConfig(
    flow=clouds.FlowConfig(1, 4, (8,)), point_wise=PointWiseConfig((16, 16), 8), steps=1
)


def by_onnxruntime(path, **inputs):
    """Outputs of a file, and what is written in it."""
    session = pytest.importorskip("onnxruntime").InferenceSession(path)
    metadata = session.get_modelmeta().custom_metadata_map
    return session.run(None, inputs), json.loads(metadata["jgen"])


def near(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def models():
    solver = runge_kutta("midpoint", 2)
    path = flow_matching(velocity_mlp(3, 2, hidden=(8,)), (3,), solver=solver)
    spline = coupling_flow(3, rational_quadratic(8, 4.0), depth=2, hidden=(8,))
    return {
        "flow matching": preprocessed(path, standardize([1.0] * 3, [2.0] * 3)),
        "spline flow": flow(spline, 3),
        "mean flow": mean_flow(velocity_mlp(3, 1, hidden=(8,)), (3,)),
    }


@pytest.mark.parametrize("name", ["flow matching", "spline flow", "mean flow"])
def test_onnxruntime_makes_the_same_events(name, tmp_path):
    pytest.importorskip("jax2onnx")
    model, num = models()[name], 3
    params, keys = random_params(model.init), jax.random.split(jax.random.key(1), num)
    cond = jnp.array([[0.5, -1.0], [2.0, 0.0], [-1.0, 1.0]]) if name == "flow matching" else None
    given = [None if cond is None else cond[i] for i in range(num)]
    first = None if cond is None else cond[:1]
    noise = np.stack([noise_numbers(model, k, c) for k, c in zip(keys, given, strict=True)])
    expected = jax.vmap(model.sample, (None, 0, None if cond is None else 0))(params, keys, cond)
    for size in (1, num):
        path = tmp_path / f"{size}.onnx"
        export_onnx(path, model, params, first, batch_size=size, metadata={"units": "GeV"})
        inputs = {"noise": noise[:size]}
        if cond is not None:
            inputs["cond"] = np.asarray(cond[:size])
        (x,), written = by_onnxruntime(path, **inputs)
        near(x, expected[:size])
        assert written["units"] == "GeV"
        assert list(written["noise"].values()) == [[3]]


@pytest.fixture(scope="module")
def showers():
    found = read_showers(sample_path(), DS2, 0, 400)
    return Showers(*(a[found.energies < 4000][:100] for a in found))


def calodream_model(showers):
    config = calodream.CaloDreamConfig(
        energies="parallel",
        energy_solver=SolverConfig("midpoint", 1),
        shape_solver=SolverConfig("midpoint", 1),
        shape_network=ViTConfig(width=24, heads=2, blocks=1, mlp_width=24),
        parallel_network=SequenceConfig(8, 2, 1, 16),
    )
    made = calodream.parts(config)
    fitted = fit_preprocessing(config, showers)
    return calodream.shower_model(made["energy"].model, made["shape"].model, fitted)


def clouds_model(showers):
    fitted = clouds.fit_preprocessing(showers, DS2, jax.random.key(0))
    made = clouds.parts(SMALL, fitted.slots)
    student = clouds_parts.student_model(SMALL, made.network, fitted.slots, None)
    return clouds_parts.shower_model(made.flow, student, fitted)


@pytest.mark.parametrize("make", [calodream_model, clouds_model], ids=["CaloDREAM", "CaloClouds"])
def test_geant4_reads_the_showers_of_jax(make, showers, tmp_path):
    """As Par04OnnxInference does it: one input, the first output flat, ring by ring."""
    pytest.importorskip("jax2onnx")
    session = pytest.importorskip("onnxruntime").InferenceSession
    model, path, energy = make(showers), tmp_path / "showers.onnx", 2345.0
    params = random_params(model.init, 0.1)
    latent = export_par04(path, model, params, DS2)
    # Of another key a point may lie at the border of a voxel, by rounding in one or the next.
    key = jax.random.key(4)
    numbers = noise_numbers(model, key, np.float32(energy))
    assert latent == len(numbers)
    if make is calodream_model:
        assert latent == 45 + 6480
        assert "Loop" not in path.read_bytes().decode("latin1")
    x = np.concatenate([numbers, [energy / LARGEST_ENERGY, 1, 0, 1]]).astype(np.float32)[None]
    opened = session(path)
    assert opened.get_inputs()[-1].shape == [1, latent + 4]
    expected = np.asarray(jax.jit(model.sample)(params, key, np.float32(energy)))
    for _ in range(2):  # the same numbers are the same shower
        out = opened.run(None, {opened.get_inputs()[-1].name: x})[0].ravel()
        cells = np.zeros((9, 16, 45))
        for ring in range(9):
            for angle in range(16):
                for layer in range(45):
                    cells[ring, angle, layer] = out[(ring * 16 + angle) * 45 + layer] * energy
        near(cells, expected.transpose(2, 1, 0))
        assert cells.sum() == pytest.approx(expected.sum(), rel=1e-5)


def test_cells_are_in_the_order_of_par04(tmp_path):
    """Of a model whose cell energies are the places in our order, and the energy in its own."""
    pytest.importorskip("jax2onnx")

    def sample_from(params, noise, energy):
        return jnp.arange(6480.0).reshape(DS2.shape) + noise * energy

    zero = lambda key: {"w": jnp.zeros(1)}
    noise = lambda key, cond=None: jax.random.normal(key)
    model = from_noise(zero, lambda *_: jnp.zeros(()), noise, sample_from)
    path = tmp_path / "order.onnx"
    assert export_par04(path, model, {"w": jnp.zeros(1)}, DS2) == 1
    x = np.array([[0.5, 2000 / LARGEST_ENERGY, 1, 0, 1]], np.float32)
    (out,), written = by_onnxruntime(path, x=x)
    assert written["mesh"] == {"layers": 45, "angles": 16, "rings": 9}
    ours = np.rint(out.ravel() * 2000 - 1000).astype(int)
    layer, angle, ring = np.unravel_index(ours, DS2.shape)
    # The layer is the fastest, the ring the slowest.
    np.testing.assert_array_equal(layer[:46], [*range(45), 0])
    np.testing.assert_array_equal(angle[:91:45], [0, 1, 2])
    np.testing.assert_array_equal(ring[:: 45 * 16], range(9))


def test_plain_programs_are_those_they_were_made_of(showers):
    """Without jax2onnx: calls, loops and primitives are gone, the numbers are not."""
    fitted = clouds.fit_preprocessing(showers, DS2, jax.random.key(0))
    made = clouds.parts(SMALL, fitted.slots)
    model = clouds_parts.shower_model(made.flow, made.teacher, fitted)
    params, energy = random_params(model.init, 0.1), jnp.float32(2000)
    noise = model.noise(jax.random.key(1), energy)
    leaves, tree = jax.tree.flatten(noise)
    function = lambda *z: model.sample_from(params, jax.tree.unflatten(tree, z), energy)
    program = plain_program(function, *leaves)
    names = {eqn.primitive.name for eqn in program.jaxpr.eqns}
    assert not {n for n in names if n.startswith(("jgen", "custom", "random", "triangular"))}
    (found,) = jax.jit(lambda *z: run(program, z))(*leaves)
    expected = jax.jit(model.sample)(params, jax.random.key(1), energy)
    assert expected.sum() > 0
    near(found, expected)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [3, 2000])
def test_loops_are_written_out_or_turned(reverse, length):
    def function(x):
        return jax.lax.scan(lambda c, a: (0.5 * c + a, c - a), 0.0, x, reverse=reverse)

    x = jax.random.normal(jax.random.key(0), (length,))
    program = plain_program(function, x)
    scans = [e for e in program.jaxpr.eqns if e.primitive.name == "scan"]
    assert len(scans) == (length == 2000)
    assert not any(e.params["reverse"] for e in scans)
    for found, expected in zip(run(program, [x]), function(x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("steps", "loops"), [(2, 0), (200, 1)])
def test_operations_of_loops_within_loops_count(steps, loops):
    """Not each loop for itself: 200 steps of four stages would be tens of thousands."""
    solve = lambda x: looped(runge_kutta("rk4", steps), lambda t, x: jnp.tanh(x + t), x)
    program = plain_program(solve, jnp.ones(3))
    assert sum(e.primitive.name == "scan" for e in program.jaxpr.eqns) == loops
    assert len(program.jaxpr.eqns) < 1000
    np.testing.assert_allclose(run(program, [jnp.ones(3)])[0], solve(jnp.ones(3)), rtol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_operations_in_the_place_of_others(reverse):
    x = jnp.array([[0.5, 2.0, -1.0], [3.0, 0.0, 4.0]])
    function = lambda x: jax.lax.cumprod(x, axis=1, reverse=reverse) + x**3
    program = plain_program(function, x)
    assert not {"cumprod", "integer_pow"} & {e.primitive.name for e in program.jaxpr.eqns}
    np.testing.assert_allclose(run(program, [x])[0], function(x), rtol=1e-6)


@pytest.mark.parametrize("axes", [(0, 1), (0, 2), (1, 2)])
@pytest.mark.parametrize("one_by_one", [True, False])
@pytest.mark.parametrize("known", [True, False])
def test_look_ups_at_several_indices_are_rows_of_one_table(axes, one_by_one, known):
    """Of constants and of others, at any axes, and at indices beyond the ends."""
    values = jax.random.normal(jax.random.key(0), (3, 4, 5))
    i, j = jnp.array([[0, 2, 7], [-1, 1, 2]]), jnp.array([[3, 0, 1], [2, 9, 0]])

    def look_up(table, i, j):
        at = [slice(None)] * 3
        at[axes[0]], at[axes[1]] = i, j
        return table[tuple(at)]

    if one_by_one:
        each = jax.vmap(jax.vmap(look_up, (None, 0, 0)), (None, 0, 0))
    else:
        each = look_up
    function, args = (lambda i, j: each(values, i, j), (i, j)) if known else (each, (values, i, j))
    program = plain_program(function, *args)
    gathers = [e for e in program.jaxpr.eqns if e.primitive.name == "gather"]
    assert [e.params["dimension_numbers"].start_index_map for e in gathers] == [(0,)]
    np.testing.assert_array_equal(run(program, args)[0], function(*args))


def test_what_cannot_be_a_file_says_why(tmp_path, monkeypatch):
    bare = GenerativeModel(lambda key: {}, lambda *_: 0.0, lambda p, key, cond=None: 0.0)
    whole = lambda key, cond=None: jax.random.randint(key, (2,), 0, 3)
    counted = from_noise(lambda key: {}, lambda *_: 0.0, whole, lambda p, z, cond=None: z)
    head = binned(np.tile(np.linspace(-3, 3, 5), (2, 1)))
    model = autoregressive(made(2, head.num_outputs), head, 2)
    for wrong, message in ((bare, "has no sample_from"), (counted, "int32 as well")):
        with pytest.raises(ValueError, match=message):
            export_onnx(tmp_path / "x.onnx", wrong, {})
        with pytest.raises(ValueError, match=message):
            noise_numbers(wrong, jax.random.key(0))
    with pytest.raises(ValueError, match="has no sample_from"):
        export_par04(tmp_path / "x.onnx", bare, {}, DS2)
    stacked = jax.tree.map(lambda a: jnp.stack([a, a]), random_params(model.init))
    with pytest.raises(ValueError, match="axis of ensemble members"):
        export_onnx(tmp_path / "x.onnx", model, stacked)
    monkeypatch.setitem(__import__("sys").modules, "jax2onnx", None)
    with pytest.raises(ValueError, match="needs jax2onnx, in an environment of its own"):
        export_onnx(tmp_path / "x.onnx", model, random_params(model.init))
    assert not list(tmp_path.iterdir())


def test_an_operation_that_onnx_does_not_have_is_named(tmp_path):
    pytest.importorskip("jax2onnx")
    shape = {"x": jax.ShapeDtypeStruct((2, 2), np.float32)}

    def random(x):
        key = jax.random.fold_in(jax.random.key(0), x[0, 0].astype(int))
        return x + jax.random.normal(key, x.shape)

    unknown = Primitive("sorcery")
    unknown.def_abstract_eval(lambda x: x)
    for function, operation in ((random, "random numbers [(]random_"), (unknown.bind, "sorcery")):
        with pytest.raises(ValueError, match=f"cannot be an ONNX file: .*{operation}"):
            write_onnx(tmp_path / "x", function, shape, "y")
    assert not list(tmp_path.iterdir())

"""ONNX files of samplers, by `jax2onnx`, for programs that know nothing of JAX.

    export_onnx("banana.onnx", model, fitted.one)

    import onnxruntime
    noise = np.random.default_rng(0).normal(size=(1, 2)).astype("float32")
    (x,) = onnxruntime.InferenceSession("banana.onnx").run(None, {"noise": noise})

A file has no random operations: all random numbers of an event are an input, so that the caller's
generator decides and the same numbers give the same event. `jax2onnx` pins an older orbax than
jgen needs to train; convert in an environment of its own, in which jgen is installed without its
dependencies: pip install jax2onnx optax blackjax distrax jaxtyping h5py tqdm matplotlib
scikit-learn && pip install --no-deps jgen.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.arrays import event_arrays, explained
from jgen.checks import check_whole
from jgen.export.plain import plain_program, run
from jgen.files import atomic_path
from jgen.generative_model import GenerativeModel, check_one_member
from jgen.typing import Cond, Key, Params, PyTree

# What onnxruntime has read for years; jax2onnx writes a later one unless asked.
_OPSET = 17


def export_onnx(
    path: str | os.PathLike,
    model: GenerativeModel,
    params: Params,
    cond: Cond = None,
    *,
    batch_size: int = 1,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write the sampler of a model, with its random numbers as an input.

    Inputs are noise [batch_size, numbers], the numbers of `noise_numbers`, and where there are
    conditions cond [batch_size, ...], or cond_0, cond_1 ... of several arrays. Outputs are x, or
    x_0, x_1 ... All are float32, but conditions that are whole numbers.

    Args:
      path: of the file.
      model: with a `sample_from`.
      params: its parameters (of one member, not a stacked ensemble).
      cond: a condition [1, ...], whose shapes and types are those of all; None without.
      batch_size: events of a call.
      metadata: whatever JSON can hold, kept in the file: units, geometry, how it was trained.

    Raises:
      ValueError: for models without `sample_from`, parameters of an ensemble, or what cannot be
        converted, with the operation; and if jax2onnx is not installed.
    """
    check_whole(batch_size=batch_size)
    check_one_member(model, params)
    if cond is not None:
        cond = jax.tree.map(lambda c: c[0], event_arrays(cond, "cond", integers=True))
    conditions, cond_tree = jax.tree.flatten(cond)
    sampler, layout = flat_sampler(model, params, cond)
    numbers = sum(map(math.prod, layout.values()))

    def one(noise, *cond):
        return tuple(jax.tree.leaves(sampler(noise, jax.tree.unflatten(cond_tree, cond))))

    def batched(*inputs):
        if batch_size > 1:
            return jax.vmap(one)(*inputs)
        return tuple(x[None] for x in one(*(i[0] for i in inputs)))

    names = ["cond"] if len(conditions) == 1 else [f"cond_{i}" for i in range(len(conditions))]
    inputs = {"noise": jax.ShapeDtypeStruct((batch_size, numbers), np.float32)}
    for name, leaf in zip(names, conditions, strict=True):
        inputs[name] = jax.ShapeDtypeStruct((batch_size, *leaf.shape), leaf.dtype)
    write_onnx(path, batched, inputs, "x", {"noise": layout, **(metadata or {})})


def flat_sampler(
    model: GenerativeModel, params: Params, cond: Cond = None
) -> tuple[Callable[[Array, Cond], PyTree], dict[str, list[int]]]:
    """(random numbers of one event in a row, condition) -> event, and the shapes of the numbers.

    Args:
      model: with a `sample_from`.
      params: its parameters (of one member).
      cond: a condition of one event, of which shapes and types are looked at.

    Raises:
      ValueError: if there is no `sample_from`, or random numbers are no floats.
    """
    paths, tree = jax.tree_util.tree_flatten_with_path(_noise_shapes(model, cond))
    shapes = [leaf.shape for _, leaf in paths]
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1].tolist()

    def sampler(numbers, cond):
        parts = jnp.split(numbers, ends)
        parts = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        return model.sample_from(params, jax.tree.unflatten(tree, parts), cond)

    return sampler, {jax.tree_util.keystr(at): list(leaf.shape) for at, leaf in paths}


def noise_numbers(
    model: GenerativeModel, key: Key, cond: Cond = None
) -> Float[np.ndarray, " numbers"]:
    """The random numbers of one event in a row, as files of `export_onnx` take them.

    `model.sample` with this key makes the event that a file makes of them.

    Args:
      model: with a `noise`.
      key: typed PRNG key.
      cond: its condition; None without.
    """
    _noise_shapes(model, cond)
    leaves = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(model.noise(key, cond))]
    return np.concatenate(leaves).astype(np.float32)


def write_onnx(
    path: str | os.PathLike,
    function: Callable[..., Any],
    inputs: Mapping[str, jax.ShapeDtypeStruct],
    output: str,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a function of arrays.

    Loops of few operations in all are written out, longer ones stay loops; an operation of
    parameters alone becomes its result.

    Args:
      path: of the file.
      function: (arrays) -> an array or several.
      inputs: shapes and types by name, in the order of the arguments.
      output: name of the result; NAME_0, NAME_1 ... of several.
      metadata: kept as JSON in the file, under the name "jgen".

    Raises:
      ValueError: for what cannot be converted, with the operation, or if jax2onnx is not installed.
    """
    try:
        import jax2onnx
    except ImportError as error:
        raise ValueError(
            "ONNX needs jax2onnx, in an environment of its own: see the first lines of "
            "jgen/export/onnx_files.py"
        ) from error
    shapes = list(inputs.values())
    with explained("the model", **inputs):
        program = plain_program(function, *shapes)
    chance = {eqn.primitive.name for eqn in program.jaxpr.eqns if "random" in eqn.primitive.name}
    if chance:
        raise ValueError(
            f"this model cannot be an ONNX file: it draws random numbers ({', '.join(chance)}), "
            "which must be arguments"
        )
    names = [output] if len(program.out_avals) == 1 else []
    names = names or [f"{output}_{i}" for i in range(len(program.out_avals))]
    # Operations by their names alone: jax2onnx has put its own in the place of jax.numpy's.
    plain = lambda *args: tuple(run(program, args))
    try:
        made = jax2onnx.to_onnx(
            plain,
            shapes,
            model_name="jgen",
            opset=_OPSET,
            input_names=list(inputs),
            output_names=names,
        )
    except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"this model cannot be an ONNX file: {reason}") from error
    kept = made.metadata_props.add()
    kept.key, kept.value = "jgen", json.dumps(dict(metadata or {}))
    with atomic_path(path) as partial:
        partial.write_bytes(made.SerializeToString())


def _noise_shapes(model, cond):
    """Shapes of the random numbers of one event; refuses what is not made of such."""
    if model.noise is None or model.sample_from is None:
        raise ValueError(
            "this model has no sample_from, which makes events of given random numbers; export it "
            "with export_model"
        )
    shapes = jax.eval_shape(model.noise, jax.random.key(0), cond)
    kinds = {str(leaf.dtype) for leaf in jax.tree.leaves(shapes)} - {"float32"}
    if kinds:
        raise ValueError(
            f"the random numbers of this model are {', '.join(sorted(kinds))} as well, but those "
            "of a file are float32: choose a sampler or a model without them"
        )
    return shapes

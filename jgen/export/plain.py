"""Programs of operations that converters know: no loops that are short, no primitives of jgen."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jgen.nets.primitives import chunks, points
from jgen.nets.primitives.products import plain_products

# Loops of so many operations in all are written out: networks of few steps then have no loop.
_WRITTEN_OUT = 1000
_CALLS = (
    "jit",
    "pjit",
    "closed_call",
    "custom_jvp_call",
    "custom_vjp_call",
    "remat2",
    "checkpoint",
)


def plain_program(function: Callable[..., Any], *shapes: Any) -> ClosedJaxpr:
    """A function of arrays as one list of operations, calls within it written out.

    Args:
      function: (arrays) -> array.
      shapes: of its arguments, or arguments themselves.
    """
    traced = jax.make_jaxpr(function)(*shapes)
    return jax.make_jaxpr(lambda *args: run(traced, args, _replaced))(*shapes)


def run(
    program: ClosedJaxpr,
    args: Sequence[Any],
    rule: Callable[[Any, list[Any]], list[Any] | None] = lambda eqn, values: None,
) -> list[Any]:
    """The results of a program, operation by operation.

    Args:
      program: what is run.
      args: its arguments.
      rule: (equation, values) -> results in the place of the operation, None to run it.
    """
    jaxpr = program.jaxpr
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*program.consts, *args), strict=True))
    read = lambda v: v.val if isinstance(v, Literal) else known[v]
    for eqn in jaxpr.eqns:
        values = [read(v) for v in eqn.invars]
        out = rule(eqn, values)
        if out is None:
            out = eqn.primitive.bind(*values, **eqn.params)
            out = out if eqn.primitive.multiple_results else [out]
        known.update(zip(eqn.outvars, out, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _replaced(eqn, values):
    """Results of an operation by others, or None if it stays."""
    name, params = eqn.primitive.name, eqn.params
    known = not any(isinstance(value, jax.core.Tracer) for value in values)
    if known and all(jnp.issubdtype(v.aval.dtype, jnp.floating) for v in eqn.outvars):
        # Of parameters alone, computed once and for all. Indices stay operations, since jax2onnx
        # does not take all of those that are constant.
        with jax.ensure_compile_time_eval():
            return run(_one(eqn), [jnp.asarray(value) for value in values])
    if name in _CALLS:
        inner = params.get("jaxpr", params.get("call_jaxpr"))
        closed = inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())
        return run(closed, values, _replaced)
    if name == "scan":
        return _loop(values, **params)
    make = _RULES.get(name)
    return None if make is None else make(*values, **params)


def _one(eqn) -> ClosedJaxpr:
    function = lambda *args: eqn.primitive.bind(*args, **eqn.params)
    return jax.make_jaxpr(function)(*(v.aval for v in eqn.invars))


def _loop(values, *, jaxpr, length, reverse, num_consts, num_carry, **_):
    """A scan written out, or forward, of plain operations."""
    consts, carry, rows = np.split(np.arange(len(values)), [num_consts, num_consts + num_carry])
    consts, carry, rows = ([values[i] for i in part] for part in (consts, carry, rows))
    body = lambda carry, row: run(jaxpr, [*consts, *carry, *row], _replaced)
    if length * _operations(jaxpr.jaxpr) > _WRITTEN_OUT:

        def step(carry, row):
            out = body(carry, row)
            return tuple(out[:num_carry]), tuple(out[num_carry:])

        turn = lambda a: lax.rev(jnp.asarray(a), (0,)) if reverse else jnp.asarray(a)
        start = tuple(jnp.asarray(a) for a in carry)
        carry, made = lax.scan(step, start, tuple(map(turn, rows)), length=length)
        return [*carry, *map(turn, made)]
    made = [None] * length
    for i in reversed(range(length)) if reverse else range(length):
        out = body(carry, [_entry(row, i) for row in rows])
        carry, made[i] = out[:num_carry], out[num_carry:]
    return [*carry, *(jnp.stack(column) for column in zip(*made, strict=True))]


def _operations(jaxpr) -> int:
    """Number of operations, those within a loop counted as often as they run."""
    total = 0
    for eqn in jaxpr.eqns:
        inner = [v for v in eqn.params.values() if isinstance(v, ClosedJaxpr | Jaxpr)]
        within = sum(_operations(getattr(body, "jaxpr", body)) for body in inner)
        total += eqn.params.get("length", 1) * within if inner else 1
    return total


def _entry(row, i):
    # Numbers that are known stay known.
    return row[i] if isinstance(row, jax.core.Tracer) else np.asarray(row)[i]


def _matmul(x, w):
    flat = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    return [(flat @ w).reshape(*x.shape[:-1], w.shape[-1])]


def _all_at_once(function):
    """Of all events; what is in it has operations to be replaced, too."""

    def rule(*values, **params):
        shapes = (jax.ShapeDtypeStruct(v.shape, v.dtype) for v in map(jnp.asarray, values))
        return run(jax.make_jaxpr(partial(function, **params))(*shapes), values, _replaced)

    return rule


def _triangular_solve(a, b, *, left_side, **params):
    """A product with the inverse, where the matrix is known: converters write out the solution."""
    if isinstance(a, jax.core.Tracer) or a.ndim != 2:
        return None
    with jax.ensure_compile_time_eval():
        one = jnp.eye(len(a), dtype=a.dtype)
        inverse = lax.linalg.triangular_solve(a, one, left_side=left_side, **params)
    return [inverse @ b if left_side else b @ inverse]


def _power(x, *, y):
    if not 0 < y < 8:
        return None
    out = x
    for _ in range(y - 1):
        out = out * x
    return [out]


def _cumulative_product(x, *, axis, reverse):
    """By doubling, since ONNX has none before opset 26."""
    x = jnp.flip(x, axis) if reverse else x
    num, shift = x.shape[axis], 1
    while shift < num:
        ones = jnp.ones_like(lax.slice_in_dim(x, 0, shift, axis=axis))
        moved = lax.slice_in_dim(x, 0, num - shift, axis=axis)
        x, shift = x * jnp.concatenate([ones, moved], axis), 2 * shift
    return [jnp.flip(x, axis) if reverse else x]


def _gather(x, index, *, dimension_numbers, slice_sizes, mode, **_):
    """Entries at several indices as rows of one table: jax2onnx gives the former wrong shapes."""
    axes = dimension_numbers.start_index_map
    looked_up = [i for i in axes if slice_sizes[i] < x.shape[i]]
    rest = [i for i in range(x.ndim) if i not in looked_up]
    single = all(slice_sizes[i] == 1 for i in looked_up)
    whole = all(slice_sizes[i] == x.shape[i] for i in rest)
    filled = mode == lax.GatherScatterMode.FILL_OR_DROP
    batched = dimension_numbers.operand_batching_dims
    if len(axes) == 1 or not looked_up or not single or not whole or filled or batched:
        return None
    row = 0
    for i in looked_up:
        row = row * x.shape[i] + jnp.clip(index[..., axes.index(i)], 0, x.shape[i] - 1)
    x = x if isinstance(x, jax.core.Tracer) else np.asarray(x)
    table = x.transpose(*looked_up, *rest)
    table = jnp.asarray(table.reshape(-1, *table.shape[len(looked_up) :]))
    rows = table.at[row].get(mode="promise_in_bounds", wrap_negative_indices=False)
    kept = [s for i, s in enumerate(slice_sizes) if i not in dimension_numbers.collapsed_slice_dims]
    rows = rows.reshape(*row.shape, *kept)
    return [jnp.moveaxis(rows, range(row.ndim, rows.ndim), dimension_numbers.offset_dims)]


_RULES = {
    "jgen_matmul": _matmul,
    "jgen_product": lambda *args, **params: [plain_products(*args, **params)],
    "jgen_chunks": _all_at_once(chunks.all_at_once),
    "jgen_points": _all_at_once(points.all_at_once),
    "integer_pow": _power,
    "triangular_solve": _triangular_solve,
    "cumprod": _cumulative_product,
    "gather": _gather,
    # Numbers in order, NaN the last: the same where there is none.
    "lt_to": lambda x, y: [lax.lt(x, y)],
    "le_to": lambda x, y: [lax.le(x, y)],
}

"""Functions of independent points that a CPU computes of the points alone, not of the padding.

Events that are sets are padded to the rows of the longest one, and under `jax.vmap` all rows are
computed: of showers from 1 to 30 GeV a third are points. Where a function takes each point by
itself, the primitive below goes through tiles of rows, those of all mapped events in one list, and
leaves out tiles without any point. A few tiles at a time stay in the cache, too. The numbers of
points are only known when the program runs, so it is a loop of as many turns as there are tiles.
Derivatives, and other devices, take all rows at once.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad
from jaxtyping import Array, Integer

from jgen.nets.primitives.chunks import register
from jgen.typing import PyTree

_TILE, _TILES = 64, 16
"""Rows of a tile, and tiles that are computed at once."""

_points_p = Primitive("jgen_points")
_points_p.multiple_results = True


def on_points(
    function: Callable[..., Array], n: Integer[Array, ""], rows: PyTree, *given: PyTree
) -> Array:
    """function(rows, *given) [rows, ...] of the first n rows, zero of the others.

    Args:
      function: of some rows, to as many. Each row of it depends on the same row alone. Arrays that
        it needs are given, not closed over.
      n: how many rows are points.
      rows: arrays [rows, ...].
      given: arrays of the event, or of all events.
    """
    leaves, tree = jax.tree.flatten((rows, given))
    options = {"function": function, "tree": tree, "num_rows": len(jax.tree.leaves(rows))}
    # Of one type: a number of a short or unsigned one would overflow where tiles are counted, and
    # weak types, which numbers of Python have, are not those of the result.
    n = jnp.asarray(n).astype(jnp.int32)
    leaves = [n, *(jnp.asarray(a, jnp.result_type(a)) for a in leaves)]
    return _points_p.bind(*leaves, **options, mapped=(False,) * len(leaves), depth=0)[0]


def all_at_once(*args: Array, **params) -> list[Array]:
    """What the primitive computes of its arguments and parameters, of all rows."""
    return [_all_events(_every_row, *args, **params)]


def _all_events(compute, *args, function, tree, num_rows, mapped, depth):
    """Apply to events on the first `depth` axes of mapped arguments, which are made one."""
    lead = next((a.shape[:depth] for a, m in zip(args, mapped, strict=True) if m), ())
    one_axis = lambda a: a.reshape(math.prod(lead), *a.shape[depth:])
    args = [one_axis(a) if m else a for a, m in zip(args, mapped, strict=True)]

    def one(n, *leaves):
        rows, given = jax.tree.unflatten(tree, leaves)
        return function(rows, *given)

    out = compute(one, args, num_rows, [m and depth > 0 for m in mapped])
    return out.reshape(*lead, *out.shape[1:])


def _masked(out, n):
    rows = jnp.arange(out.shape[0]) < n
    return jnp.where(rows.reshape(-1, *(1,) * (out.ndim - 1)), out, 0)


def _every_row(one, args, num_rows, mapped):
    full = lambda n, *leaves: _masked(one(n, *leaves), n)
    if not any(mapped):
        return full(*args)[None]
    return jax.vmap(full, [0 if m else None for m in mapped])(*args)


def _tile_by_tile(one, args, num_rows, mapped):
    num = next((len(a) for a, m in zip(args, mapped, strict=True) if m), 1)
    if num == 0 or args[1].shape[int(mapped[1])] == 0:
        return _every_row(one, args, num_rows, mapped)
    in_front = lambda a, m: a if m else jnp.broadcast_to(a, (num, *a.shape))
    n = jnp.maximum(in_front(args[0], mapped[0]), 0)
    rows = list(map(in_front, args[1 : 1 + num_rows], mapped[1 : 1 + num_rows]))
    given, of_event = args[1 + num_rows :], mapped[1 + num_rows :]
    length = rows[0].shape[1]
    per_event = -(-length // _TILE)

    def tiles(a):
        widths = [(0, 0), (0, per_event * _TILE - length), *[(0, 0)] * (a.ndim - 2)]
        return jnp.pad(a, widths).reshape(num * per_event, _TILE, *a.shape[2:])

    rows = list(map(tiles, rows))
    ends = jnp.cumsum(-(-jnp.minimum(n, length) // _TILE))
    axes = [None, *[0] * num_rows, *(0 if m else None for m in of_event)]
    compute = jax.vmap(one, axes)

    def step(state):
        turn, out = state
        # The last turn makes its last tile more than once, and keeps it once.
        wanted = turn * _TILES + jnp.arange(_TILES)
        kept, wanted = wanted < ends[-1], jnp.minimum(wanted, ends[-1] - 1)
        event = jnp.searchsorted(ends, wanted, side="right")
        begin = jnp.where(event > 0, ends[event - 1], 0)
        tile = event * per_event + wanted - begin
        place = jnp.where(kept, tile, num * per_event)  # beyond the last one: not written
        own = [a[event] if m else a for a, m in zip(given, of_event, strict=True)]
        out = out.at[place].set(compute(None, *(a[tile] for a in rows), *own), mode="drop")
        return turn + 1, out

    event = [a[0] if m else a for a, m in zip(given, of_event, strict=True)]
    made = jax.eval_shape(one, None, *(a[0] for a in rows), *event)
    start = jnp.zeros((), ends.dtype), jnp.zeros((len(rows[0]), *made.shape), made.dtype)
    # Counted by ones: of a known end below the step, XLA (of jax 0.10.2) leaves out the only turn.
    turns = -(-ends[-1] // _TILES)
    out = jax.lax.while_loop(lambda state: state[0] < turns, step, start)[1]
    return jax.vmap(_masked)(out.reshape(num, -1, *out.shape[2:])[:, :length], n)


def _on_cpu(*args, **params):
    return [_all_events(_tile_by_tile, *args, **params)]


register(_points_p, all_at_once, _on_cpu)


def _jvp(primals, tangents, **options):
    moving = [i for i, t in enumerate(tangents) if type(t) is not ad.Zero]

    def at(*moved):
        given = dict(zip(moving, moved, strict=True))
        return all_at_once(*(given.get(i, a) for i, a in enumerate(primals)), **options)

    changes = tuple(tangents[i] for i in moving)
    return jax.jvp(at, tuple(primals[i] for i in moving), changes)


ad.primitive_jvps[_points_p] = _jvp

"""Functions of one event that `jax.vmap` runs for a few events at a time on a CPU.

Attention makes an array of scores, far larger than what comes in and goes out. Under `jax.vmap` XLA
writes it for all events before it reads it again: for jets of 150 points most of the time goes into
moving it, and into asking the operating system for its memory. The primitive below is the same
function, but a CPU runs it for as many events as stay in its cache, then for the next ones. Its
derivatives are again such functions, of inputs alone: the backward pass makes the scores again,
also a few events at a time. All of them can be differentiated, forward and in reverse, and mapped.
On other devices it is the vmapped function. Several CPU devices that share a batch each run all of
its chunks.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

_CHUNK, _LARGE = 2**19, 2**22
"""Numbers between, of a chunk of events, and of all events that are worth to be cut into chunks."""

_chunks_p = Primitive("jgen_chunks")
_chunks_p.multiple_results = True


def in_chunks(function: Callable[..., Array], *args: Array, numbers: int) -> Array:
    """function(*args), whose vmapped form never holds what is between for all events on a CPU.

    Args:
      function: of the arrays of one event, to an array.
      args: of the event. Derivatives are those by arrays of real numbers.
      numbers: in the largest array between, of one event.
    """
    flags = (False,) * len(args)
    return _bind(_as_tuple(function), args, flags, 0, 0, numbers)[0]


@lru_cache(maxsize=256)
def _as_tuple(function):
    return lambda *args: (function(*args),)


def is_in_chunks(primitive: Primitive, *_, **__) -> bool:
    """Policy for `jax.checkpoint`: keep what `in_chunks` returns and nothing else."""
    return primitive is _chunks_p


def _bind(function, args, mapped, depth, linear, numbers):
    """Apply the function, linear in the last `linear` arguments together, to all events.

    Events are on the first `depth` axes of `mapped` arguments, and of all results.
    """
    options = {"function": function, "mapped": tuple(mapped), "depth": depth}
    return _chunks_p.bind(*args, **options, linear=linear, numbers=numbers)


def _all_events(map_events, *args, function, mapped, depth, numbers, **_):
    if not depth:
        return function(*args)
    events = [a for a, m in zip(args, mapped, strict=True) if m]
    lead = events[0].shape[:depth]
    events = [a.reshape(-1, *a.shape[depth:]) for a in events]

    def one(events):
        own = iter(events)
        return function(*(next(own) if m else a for a, m in zip(args, mapped, strict=True)))

    out = map_events(one, events, numbers)
    return [a.reshape(*lead, *a.shape[1:]) for a in out]


def _at_once(one, events, numbers):
    return jax.vmap(one)(events)


def all_at_once(*args: Array, **params) -> list[Array]:
    """What the primitive computes of its arguments and parameters, with nothing but vmap."""
    return list(_all_events(_at_once, *args, **params))


def _in_turn(one, events, numbers):
    num = len(events[0])
    if num * numbers <= _LARGE:
        return jax.vmap(one)(events)
    turns = -(-num // max(1, _CHUNK // numbers))
    return jax.lax.map(one, events, batch_size=-(-num // turns))


def _events_in_front(
    args: Sequence[Array], dims: Sequence[int | None], mapped: Sequence[bool], depth: int
) -> tuple[list[Array], tuple[bool, ...]]:
    """Arguments with one more axis of events in front, and which of them have it."""
    size = next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)

    def in_front(a, d, m):
        if d is None:
            return jnp.broadcast_to(a, (size, *a.shape)) if m else a
        return jnp.moveaxis(a, d, 0)

    args = [in_front(*given) for given in zip(args, dims, mapped, strict=True)]
    lead = next((a.shape[1 : 1 + depth] for a, m in zip(args, mapped, strict=True) if m), ())
    flags = tuple(m or d is not None for d, m in zip(dims, mapped, strict=True))
    for i, (now, before) in enumerate(zip(flags, mapped, strict=True)):
        if now and not before:
            a = jnp.expand_dims(args[i], range(1, 1 + depth))
            args[i] = jnp.broadcast_to(a, (size, *lead, *a.shape[1 + depth :]))
    return args, flags


@lru_cache(maxsize=256)
def _compiled(primitive, **options):
    """What runs outside of compiled programs, compiled once for each function."""
    return jax.jit(partial(primitive.bind, **options))


def register(
    primitive: Primitive,
    everywhere: Callable[..., list[Array]],
    on_cpu: Callable[..., list[Array]],
) -> None:
    """Give a primitive of events its programs, the shapes of its results, and its `jax.vmap`.

    Its parameters have `mapped`, which arguments have axes of events in front, and `depth`, how
    many of these.

    Args:
      primitive: of several results.
      everywhere: (*arguments, **parameters) -> results.
      on_cpu: the same, as a CPU likes it.
    """
    primitive.def_impl(lambda *args, **options: _compiled(primitive, **options)(*args))
    for compute, platform in ((everywhere, None), (on_cpu, "cpu")):
        rule = mlir.lower_fun(compute, multiple_results=True)
        mlir.register_lowering(primitive, rule, platform=platform)

    @primitive.def_abstract_eval
    def _(*args, **options):
        shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in args]
        found = jax.eval_shape(partial(everywhere, **options), *shapes)
        return [jax.core.ShapedArray(a.shape, a.dtype) for a in found]

    def batch(args, dims, *, mapped, depth, **options):
        args, mapped = _events_in_front(args, dims, mapped, depth)
        out = primitive.bind(*args, mapped=mapped, depth=depth + 1, **options)
        return out, [0] * len(out)

    batching.primitive_batchers[primitive] = batch


register(_chunks_p, all_at_once, partial(_all_events, _in_turn))


def _jvp(primals, tangents, *, function, mapped, depth, linear, numbers):
    """The derivative is a function of its own, so that its transpose keeps nothing between."""
    out = _bind(function, primals, mapped, depth, linear, numbers)
    moving = [i for i, t in enumerate(tangents) if type(t) is not ad.Zero]
    num = len(primals)

    def change(*args):
        known = args[:num]

        def at(*moved):
            given = dict(zip(moving, moved, strict=True))
            return function(*(given.get(i, a) for i, a in enumerate(known)))

        return jax.jvp(at, tuple(known[i] for i in moving), args[num:])[1]

    flags = [*mapped, *(mapped[i] for i in moving)]
    steps = [tangents[i] for i in moving]
    return out, _bind(change, [*primals, *steps], flags, depth, len(moving), numbers)


ad.primitive_jvps[_chunks_p] = _jvp


def _transpose(cts, *args, function, mapped, depth, linear, numbers):
    first = len(args) - linear
    wanted = [i for i, a in enumerate(args) if ad.is_undefined_primal(a)]
    avals = [a.aval if ad.is_undefined_primal(a) else jax.typeof(a) for a in args]
    events = [
        jax.ShapeDtypeStruct(a.shape[depth if m else 0 :], a.dtype)
        for a, m in zip(avals, mapped, strict=True)
    ]

    def back(*given):
        def part(*steps):
            own = dict(zip(wanted, steps, strict=True))
            tail = [own.get(i, jnp.zeros(e.shape, e.dtype)) for i, e in enumerate(events)]
            return function(*given[:first], *tail[first:])

        return jax.linear_transpose(part, *(events[i] for i in wanted))(tuple(given[first:]))

    cts = [ad.instantiate_zeros(ct) for ct in cts]
    flags = [*mapped[:first], *[depth > 0] * len(cts)]
    found = _bind(back, [*args[:first], *cts], flags, depth, len(cts), numbers)
    out = [None] * len(args)
    for i, ct in zip(wanted, found, strict=True):
        out[i] = ct if mapped[i] else jnp.sum(ct, axis=tuple(range(depth)))
    return out


ad.primitive_transposes[_chunks_p] = _transpose

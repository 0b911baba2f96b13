"""The contract: a generative model is four pure functions."""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
from jaxtyping import Array, Float
from tqdm import tqdm

from jgen.arrays import check_finite_events, event_arrays, explained
from jgen.checks import check_whole
from jgen.random import check_key
from jgen.sets import SetCondition, check_counts
from jgen.typing import Cond, Key, Params, PyTree


class Batch(NamedTuple):
    """Events with a leading batch axis on every array; what is not there is None.

    Attributes:
      x: the data, an array or a pytree of arrays; training makes them floats.
      cond: what the model is conditioned on; integers, such as labels, stay integers. Data of
        variable length are padded, with their number of points in a `jgen.sets.SetCondition`.
      weight: event weights [batch]; mean one over the training set, signs are allowed. Of a model
        that is trained without data they say how many events it shall make; `training.fit` sets
        them to one.
    """

    x: PyTree
    cond: Cond = None
    weight: Array | None = None


class GenerativeModel(NamedTuple):
    """Four pure functions; every family makes one and every transformation returns one.

    The others are there where a family has them. Whoever replaces `sample` replaces them with it.

    Attributes:
      init: (key) -> params.
      loss: (params, key, batch) -> scalar, the mean over the batch of a one-event loss. One that
        changes on the way of a training has a keyword `progress`, the fraction that is done, which
        is one unless given: see `loss_at`.
      sample: (params, key, cond) -> x, one event.
      log_prob: (params, key, x, cond) -> scalar in nats, one event; None without a density.
      sample_and_log_prob: (params, key, cond) -> (x, log p(x)), the event that `sample` makes with
        the same key, where its density comes at no cost; None elsewhere.
      noise: (key, cond) -> all random numbers of one event, a pytree of arrays. The condition is
        looked at for its shapes alone.
      sample_from: (params, noise, cond) -> x, a function without chance: `sample` with a key is
        `sample_from` with its `noise`. For replaying events under other parameters or conditions,
        and for samplers that are exported without random operations.
    """

    init: Callable[[Key], Params]
    loss: Callable[..., Array]
    sample: Callable[[Params, Key, Cond], PyTree]
    log_prob: Callable[[Params, Key, PyTree, Cond], Array] | None = None
    sample_and_log_prob: Callable[[Params, Key, Cond], tuple[PyTree, Array]] | None = None
    noise: Callable[[Key, Cond], PyTree] | None = None
    sample_from: Callable[[Params, PyTree, Cond], PyTree] | None = None


def from_noise(
    init: Callable[[Key], Params],
    loss: Callable[..., Array],
    noise: Callable[[Key, Cond], PyTree],
    sample_from: Callable[[Params, PyTree, Cond], PyTree],
    log_prob: Callable[[Params, Key, PyTree, Cond], Array] | None = None,
    sample_and_log_prob: Callable[[Params, Key, Cond], tuple[PyTree, Array]] | None = None,
) -> GenerativeModel:
    """A model whose `sample` is `sample_from` of its `noise`."""

    def sample(params, key, cond=None):
        return sample_from(params, noise(key, cond), cond)

    return GenerativeModel(init, loss, sample, log_prob, sample_and_log_prob, noise, sample_from)


SampleFunction = Callable[[Params, Key, Cond], PyTree]
"""(params, key, cond) -> anything that is made from a random key for one event."""


def loss_at(
    model: GenerativeModel,
    params: Params,
    key: jaxtyping.Key[Array, "..."],
    batch: Batch,
    progress: float | Float[Array, ""] = 1.0,
) -> Float[Array, ""]:
    """The model's loss at a fraction `progress` of the training, whether it changes or not.

    What training calls, and transformations in the losses they make of others.
    """
    if "progress" in inspect.signature(model.loss).parameters:
        return model.loss(params, key, batch, progress=progress)
    return model.loss(params, key, batch)


def mean_loss(
    single: Callable[[Key, PyTree, Cond], Array], key: jaxtyping.Key[Array, "..."], batch: Batch
) -> Float[Array, ""]:
    """Weighted batch mean of a one-event loss `single(key, x, cond)`, one key an event.

    A key for each event, instead of one that is split into them, is taken as it is.

    Weights enter as they are, sum(w l) / n: with weights of mean one over the training set this
    is unbiased in every minibatch, which sum(w l) / sum(w) is not.

    Raises:
      ValueError: if the batch has no events.
    """
    if batch.x is None:
        raise ValueError(
            "this model learns from events, but the batch has none: give `fit` data, or make the "
            "model one of an energy with jgen.transforms.reverse_kl"
        )
    keys = key if jnp.ndim(key) else jax.random.split(key, num_events(batch))
    losses = jax.vmap(single)(keys, batch.x, batch.cond)
    return jnp.mean(losses if batch.weight is None else batch.weight * losses)


def num_events(data: PyTree) -> int:
    """Length of the leading axis of every array in `data`.

    Raises:
      ValueError: if there is no array or the lengths differ.
    """
    lengths = {np.shape(leaf)[0] if np.ndim(leaf) else None for leaf in jax.tree.leaves(data)}
    if len(lengths) != 1 or None in lengths:
        raise ValueError(
            "every array needs the same number of events on its first axis, got lengths "
            f"{sorted(lengths, key=lambda n: n or 0) or 'of no array at all'}"
        )
    return lengths.pop()


@functools.partial(jax.jit, static_argnames="sample")
def _sample_chunk(sample, params, key, first, cond, indices):
    # Nothing is donated: parameters and indices serve the next chunk, and conditions have in
    # general neither the shape nor the type of an output that could take their place.
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, first + indices)
    return jax.vmap(sample, in_axes=(None, 0, 0))(params, keys, cond)


def draw_chunks(
    model: GenerativeModel | SampleFunction,
    params: Params,
    key: Key,
    num: int,
    cond: Cond = None,
    *,
    batch_size: int = 1000,
    start: int = 0,
    progress: bool = False,
) -> Iterator[PyTree]:
    """Yield events `start` to `num` in chunks of at most `batch_size`, as numpy arrays, in order.

    Event i is a function of (params, key, i, cond[i]) alone: it does not depend on `batch_size`
    or on how many events are drawn. One program is compiled, the last chunk is padded. A chunk is
    started before the one ahead of it is handed out, so the device holds the outputs of two.

    Args:
      model: what to sample from, or a bare function (params, key, cond) -> x of one event, such as
        `model.sample_and_log_prob`.
      params: its parameters (of one member, not a stacked ensemble).
      key: typed PRNG key.
      num: number of events.
      cond: conditions with leading axis `num`, or 1 for one condition of all events, or None.
      batch_size: events computed at once.
      start: first event, to go on where an earlier drawing stopped.
      progress: show a progress bar.

    Raises:
      ValueError: if `num` or `batch_size` is not positive, `start` not below `num`, `cond` does not
        have `num` rows or is none of the model's, or `params` are those of a stacked ensemble.
    """
    check_key(key)
    check_whole(num=num, batch_size=batch_size)
    check_whole(0, start=start)
    if not start < num:
        raise ValueError(f"start must be one of the {num} events, got {start}")
    sample = model
    cond = _rows_of_cond(cond, num, float_type(params))
    if isinstance(model, GenerativeModel):
        check_one_member(model, params)
        check_finite_events(cond, "cond")
        sample = model.sample
    check_counts(cond)
    batch_size = min(batch_size, num)
    indices = jnp.arange(batch_size)
    bar = tqdm(total=num, initial=start, unit="event", desc="sampling", disable=not progress)

    def dispatch(first):
        # The last chunk repeats its last condition, so that it runs in the same program.
        rows = np.minimum(first + np.arange(batch_size), num - 1)
        chunk_cond = jax.tree.map(lambda c: c[rows], cond)
        return _sample_chunk(sample, params, key, first, chunk_cond, indices)

    with explained("the model", conditions=cond):
        chunk = dispatch(start)
    check_counts(cond, chunk)
    for first in range(start, num, batch_size):
        # The device works on the next chunk while the caller has this one, to write it perhaps.
        done, following = chunk, first + batch_size
        chunk = dispatch(following) if following < num else None
        size = min(batch_size, num - first)
        yield jax.tree.map(lambda a: np.asarray(a)[:size], done)  # noqa: B023
        bar.update(size)
    bar.close()


def float_type(params: Params) -> np.dtype:
    """Double precision for parameters that have it, else single."""
    double = any(getattr(x, "dtype", None) == np.float64 for x in jax.tree.leaves(params))
    return np.dtype(np.float64 if double else np.float32)


def _rows_of_cond(cond: Cond, num: int, dtype: np.dtype) -> Cond:
    """Conditions with one row an event on the host; a single row is that of all events."""
    if cond is None:
        return None
    cond = event_arrays(cond, "cond", dtype, integers=True)
    rows = num_events(cond)
    if rows not in (1, num):
        raise ValueError(
            f"cond has {rows} rows, but there are {num} events: give one row an event, or one for "
            "all of them"
        )
    return jax.tree.map(lambda c: np.broadcast_to(c, (num, *np.shape(c)[1:])), cond)


def check_one_member(model: GenerativeModel, params: Params) -> None:
    """Refuse the stacked parameters that a training of several members returns."""
    expected = jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0)))
    leaves = jax.tree.leaves(params)
    pairs = list(zip(leaves, expected, strict=len(leaves) == len(expected)))
    if pairs and all(np.shape(f)[1:] == e.shape and np.ndim(f) == e.ndim + 1 for f, e in pairs):
        raise ValueError(
            "params have an axis of ensemble members; take one of them with "
            "jgen.training.member(params, index)"
        )


def draw(
    model: GenerativeModel | SampleFunction,
    params: Params,
    key: Key,
    num: int,
    cond: Cond = None,
    *,
    batch_size: int = 1000,
    buckets: int = 1,
    progress: bool = False,
) -> PyTree:
    """Draw `num` events into host memory; the device holds `batch_size` of them at a time.

    The one way to get many events, or of whatever else a function (params, key, cond) makes of a
    random key. What does not fit into host memory either is written from
    `draw_chunks`, which has the same arguments. Returns numpy arrays with leading axis `num`.

    With `buckets`, sets of points are sorted into so many groups of like length, each padded no
    further than it needs, which changes the speed and not the events; it compiles a program for
    each.
    """
    check_whole(buckets=buckets)
    if buckets > 1:
        return _draw_buckets(model, params, key, num, cond, batch_size, buckets, progress)
    out, start = None, 0
    for chunk in draw_chunks(
        model, params, key, num, cond, batch_size=batch_size, progress=progress
    ):
        if out is None:
            out = jax.tree.map(lambda c: np.empty((num, *c.shape[1:]), c.dtype), chunk)
        rows = slice(start, start + num_events(chunk))
        jax.tree.map(lambda o, c: o.__setitem__(rows, c), out, chunk)  # noqa: B023
        start = rows.stop
    return out


def _draw_buckets(model, params, key, num, cond, batch_size, buckets, progress):
    """`draw` of sets, one group of events after another, from the shortest to the longest."""
    check_key(key)
    check_whole(num=num, batch_size=batch_size)
    if not isinstance(cond, SetCondition) or getattr(model, "sample_from", None) is None:
        raise ValueError(
            "buckets are for models of sets with a sample_from, drawn with a jgen.sets.SetCondition"
            "; use buckets=1"
        )
    check_one_member(model, params)
    cond = _rows_of_cond(cond, num, float_type(params))
    check_counts(cond)
    check_finite_events(cond, "cond")
    with explained("the model", conditions=cond):
        event = jax.eval_shape(model.sample, params, key, jax.tree.map(lambda c: c[0], cond))
    leaves = jax.tree.leaves(event)
    longest = leaves[0].shape[0] if leaves[0].ndim else 0
    if any(a.shape[:1] != (longest,) for a in leaves) or max(a.ndim for a in leaves) < 2:
        raise ValueError(
            "buckets are for events of points, arrays [rows, ...] of as many rows; use buckets=1"
        )
    out = jax.tree.map(lambda a: np.zeros((num, *a.shape), a.dtype), event)
    check_counts(cond, out)
    step = -(-longest // 16)  # few lengths in all, so that programs serve again
    bar = tqdm(total=num, unit="event", desc="sampling", disable=not progress)
    for group in np.array_split(np.argsort(cond.n, kind="stable"), min(buckets, num)):
        rows = min(step * max(1, -(-int(cond.n[group[-1]]) // step)), longest)
        size = min(batch_size, len(group))
        for first in range(0, len(group), size):
            some = group[np.minimum(first + np.arange(size), len(group) - 1)]
            own = jax.tree.map(lambda c: c[some], cond)  # noqa: B023
            chunk = _set_chunk(
                model.noise, model.sample_from, longest, rows, params, key, some, own
            )
            jax.tree.map(lambda o, c: o.__setitem__((some, slice(rows)), c), out, chunk)  # noqa: B023
            bar.update(min(size, len(group) - first))
    bar.close()
    return out


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _set_chunk(noise, sample_from, longest, rows, params, key, indices, cond):
    """Events of so many rows, of the noise that they have with all rows."""

    def cut(a):
        return a[..., :rows, :] if a.ndim > 1 and a.shape[-2] == longest else a

    def one(index, cond):
        numbers = noise(jax.random.fold_in(key, index), cond)
        return sample_from(params, jax.tree.map(cut, numbers), cond)

    return jax.vmap(one)(indices, cond)


@functools.partial(jax.jit, static_argnames="log_prob")
def _log_prob_chunk(log_prob, params, key, first, x, cond):
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, first + jnp.arange(num_events(x)))
    return jax.vmap(log_prob, in_axes=(None, 0, 0, 0))(params, keys, x, cond)


def log_densities(
    model: GenerativeModel,
    params: Params,
    key: Key,
    x: PyTree,
    cond: Cond = None,
    *,
    batch_size: int = 1000,
) -> Float[np.ndarray, " n"]:
    """Log-densities of many events in nats, float32; the device holds `batch_size` at a time.

    Args:
      model: with a density.
      params: its parameters (of one member, not a stacked ensemble).
      key: typed PRNG key; event i has a key of its own, for densities that are estimated.
      x: events [n, ...], real numbers of any type.
      cond: conditions with leading axis n, or 1 for one condition of all events, or None.
      batch_size: events computed at once.

    Raises:
      ValueError: if the model has no density, or for arguments that do not fit together.
    """
    if model.log_prob is None:
        raise ValueError("this model has no density: its log_prob is None")
    check_key(key)
    check_one_member(model, params)
    x = event_arrays(x, "x", float_type(params))
    num = num_events(x)
    check_whole(batch_size=batch_size)
    if num < 1:
        raise ValueError("there are no events: x is empty")
    cond = _rows_of_cond(cond, num, float_type(params))
    check_counts(cond, x)
    check_finite_events(x, "x")
    check_finite_events(cond, "cond")
    batch_size = min(batch_size, num)
    out = np.empty(num, np.float32)
    for first in range(0, num, batch_size):
        rows = np.minimum(first + np.arange(batch_size), num - 1)  # one program, the end padded
        chunk = jax.tree.map(lambda a: np.asarray(a)[rows], (x, cond))  # noqa: B023
        with explained("the density", x=x, cond=cond):
            values = np.asarray(_log_prob_chunk(model.log_prob, params, key, first, *chunk))
        out[first : first + batch_size] = values[: num - first]
    return out

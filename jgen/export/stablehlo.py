"""Trained models as files that run without the code that made them: StableHLO of `jax.export`.

    export_model("banana.jgen.npz", model, fitted.one)

    events = load_exported("banana.jgen.npz").draw(jax.random.key(1), 100_000)

A file holds the parameters, the compiled form of one batch of `sample` and of `log_prob`, and what
was written beside them, such as units. It needs jax and numpy and this module, and neither the
network's class nor its version. Programs run on the platforms they were exported for.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Float
from tqdm import tqdm

from jgen.arrays import check_finite_events, event_arrays, explained
from jgen.checks import check_known, check_whole
from jgen.files import damage_named, load, load_metadata, save
from jgen.generative_model import GenerativeModel, check_one_member, float_type, num_events
from jgen.random import check_key
from jgen.typing import Cond, Key, Params, PyTree

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
_FORMAT = "jgen-exported-1"


class ExportedModel(NamedTuple):
    """A model without its code; made by `load_exported`.

    Attributes:
      params: leaves of its parameters.
      programs: "sample" and, where it has a density, "log_prob", each of one batch, which are
        compiled when they are first called.
      cond: condition of one event, zeros in its shapes and types; None without.
      event: one event, likewise.
      batch_size: events of a batch.
      metadata: what was given when it was written.
    """

    params: list[np.ndarray]
    programs: dict[str, Callable[..., list[jax.Array]]]
    cond: PyTree
    event: PyTree
    batch_size: int
    metadata: dict[str, Any]

    def draw(self, key: Key, num: int, cond: Cond = None, *, progress: bool = False) -> PyTree:
        """Events, as `jgen.draw` makes them of the same key, up to rounding.

        Args:
          key: typed PRNG key, of JAX's default kind.
          num: of events.
          cond: conditions with leading axis `num`, or 1 for one condition of all events, or None.
          progress: show a progress bar.

        Raises:
          ValueError: for another key, or conditions that do not fit.
        """
        check_whole(num=num)
        cond = self._fitting(cond, self.cond, num, "cond")
        return self._run("sample", key, num, (cond,), self.event, progress)

    def log_densities(self, key: Key, x: PyTree, cond: Cond = None) -> Float[np.ndarray, " n"]:
        """Log-densities of events in nats, as `jgen.log_densities` gives them.

        Args:
          key: typed PRNG key, for densities that are estimated.
          x: events [n, ...].
          cond: conditions with leading axis n, or 1 for one condition of all events, or None.

        Raises:
          ValueError: if the file has no density, or for arguments that do not fit.
        """
        if "log_prob" not in self.programs:
            raise ValueError("this model was exported without a density; use its draw")
        num = num_events(x)
        x = self._fitting(x, self.event, num, "x")
        cond = self._fitting(cond, self.cond, num, "cond")
        return self._run("log_prob", key, num, (x, cond), np.float32(0), False)

    def _fitting(self, given, one, num, name):
        """Leaves with a row an event, in the shapes and types of the program."""
        if (given is None) != (one is None):
            wanted = "none" if one is None else f"one of the shapes {_shapes(one)} an event"
            raise ValueError(f"{name} must be {wanted}, got {'none' if given is None else 'some'}")
        if one is None:
            return []
        given = event_arrays(given, name, np.float64, integers=True)
        check_finite_events(given, name)
        leaves, wanted = jax.tree.leaves(given), jax.tree.leaves(one)
        same = jax.tree.structure(given) == jax.tree.structure(one)
        if not same or [a.shape[1:] for a in leaves] != [a.shape for a in wanted]:
            raise ValueError(
                f"{name} must have the shapes {_shapes(one)} an event, got arrays of shapes "
                f"{_shapes(given)}"
            )
        kinds = [(a.dtype, b.dtype) for a, b in zip(leaves, wanted, strict=True)]
        if any(b.kind in "iu" and a.kind not in "iu" for a, b in kinds):
            raise ValueError(f"{name} has whole numbers, such as labels, but real ones came")
        rows = num_events(given)
        if rows not in (1, num):
            raise ValueError(f"{name} has {rows} rows, but there are {num} events: give 1 or {num}")
        cast = [a.astype(b.dtype) for a, b in zip(leaves, wanted, strict=True)]
        return [np.broadcast_to(a, (num, *a.shape[1:])) for a in cast]

    def _run(self, name, key, num, inputs, like, progress):
        """A program on all events, batch by batch; the last one is padded."""
        data = _key_data(key)
        out = None
        bar = tqdm(total=num, unit="event", desc=name, disable=not progress)
        for first in range(0, num, self.batch_size):
            rows = np.minimum(first + np.arange(self.batch_size), num - 1)
            chunk = jax.tree.map(lambda a: a[rows], inputs)  # noqa: B023
            made = self.programs[name](self.params, data, np.int32(first), *chunk)
            if out is None:
                out = [np.empty((num, *a.shape[1:]), a.dtype) for a in made]
            size = min(self.batch_size, num - first)
            for all_events, some in zip(out, made, strict=True):
                all_events[first : first + size] = np.asarray(some)[:size]
            bar.update(size)
        bar.close()
        return jax.tree.unflatten(jax.tree.structure(like), out)


def export_model(
    path: Any,
    model: GenerativeModel,
    params: Params,
    cond: Cond = None,
    *,
    batch_size: int = 100,
    density: bool = True,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a model as one file that `load_exported` runs without its code.

    Args:
      path: of the file, .npz.
      model: with or without a density; `preprocessed` ones take and give what they do in Python.
      params: its parameters (of one member, not a stacked ensemble).
      cond: a condition [1, ...], whose shapes and types are those of all; None without.
      batch_size: events of a batch; any number can be drawn, in batches of this size.
      density: whether `log_prob` is written where there is one.
      platforms: that the programs run on, of cpu, cuda, rocm and tpu.
      metadata: whatever JSON can hold: units, geometry, how it was trained.

    Raises:
      ValueError: for parameters of an ensemble, conditions that the model does not take, or a
        platform that its operations cannot be exported for.
    """
    check_whole(batch_size=batch_size)
    for platform in platforms:
        check_known(PLATFORMS, platform=platform)
    check_one_member(model, params)
    if cond is not None:
        cond = event_arrays(cond, "cond", float_type(params), integers=True)
        cond = jax.tree.map(lambda c: np.zeros_like(c[0]), cond)
    leaves, tree = jax.tree.flatten(jax.tree.map(np.asarray, params))
    with explained("the model", conditions=cond):
        event = jax.eval_shape(model.sample, params, jax.random.key(0), cond)
    event = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), event)
    functions = {"sample": (model.sample, (cond,))}
    if density and model.log_prob is not None:
        functions["log_prob"] = (model.log_prob, (event, cond))
    programs = {}
    for name, (function, inputs) in functions.items():
        batched = _batched(function, tree, [jax.tree.structure(i) for i in inputs], batch_size)
        number = lambda a: jax.ShapeDtypeStruct((batch_size, *a.shape), a.dtype)
        args = [jax.tree.map(number, jax.tree.leaves(i)) for i in inputs]
        key = jax.ShapeDtypeStruct((2,), jnp.uint32), jax.ShapeDtypeStruct((), jnp.int32)
        try:
            made = export.export(jax.jit(batched), platforms=tuple(platforms))(leaves, *key, *args)
        except (NotImplementedError, ValueError) as error:
            raise ValueError(
                f"{name} cannot be exported for {', '.join(platforms)}: {error}; choose other "
                "platforms, or density=False if it is the density"
            ) from error
        programs[name] = np.frombuffer(bytes(made.serialize()), np.uint8)
    parts = {"params": leaves, "programs": programs, "cond": cond, "event": event}
    own = {"format": _FORMAT, "batch_size": batch_size, "platforms": list(platforms)}
    save(path, parts, {"exported": own, "metadata": dict(metadata or {})})


def load_exported(path: Any) -> ExportedModel:
    """Read what `export_model` wrote.

    Raises:
      ValueError: if the file is none of these, is damaged, or is for other platforms.
    """
    header = load_metadata(path)
    own = header.get("exported", {})
    if own.get("format") != _FORMAT:
        raise ValueError(f"{path} is no file of jgen.export.export_model")
    if jax.default_backend() not in _names(own["platforms"]):
        raise ValueError(
            f"{path} was exported for {', '.join(own['platforms'])}, but this is "
            f"{jax.default_backend()}: export it with platforms that have it"
        )
    parts = load(path)
    with damage_named(path, "export_model"):
        programs = {
            name: jax.jit(export.deserialize(bytearray(data.tobytes())).call)
            for name, data in parts["programs"].items()
        }
    return ExportedModel(
        parts["params"], programs, parts["cond"], parts["event"], own["batch_size"],
        header["metadata"],
    )  # fmt: skip


def _batched(function, tree, structures, batch_size):
    """(leaves, key data, first, leaves of inputs ...) -> leaves of a batch, as `draw` has them."""

    def batched(leaves, data, first, *inputs):
        params, key = jax.tree.unflatten(tree, leaves), jax.random.wrap_key_data(data)
        indices = first + jnp.arange(batch_size)
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices)
        trees = [jax.tree.unflatten(s, i) for s, i in zip(structures, inputs, strict=True)]
        axes = (None, *(0,) * (1 + len(trees)))
        out = jax.vmap(function, in_axes=axes)(params, keys, *trees)
        return jax.tree.leaves(out)

    return batched


def _key_data(key):
    check_key(key)
    data = np.asarray(jax.random.key_data(key))
    if data.shape != (2,):
        raise ValueError(
            f"exported models take keys of JAX's default kind, jax.random.key(seed), got {key}"
        )
    return data


def _names(platforms):
    """As `jax.default_backend` calls them."""
    return {"gpu" if p in ("cuda", "rocm") else p for p in platforms}


def _shapes(tree):
    return [np.shape(a) for a in jax.tree.leaves(tree)]

"""Train one model or an ensemble of them: the loop around the step."""

import functools
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jaxtyping import Array
from tqdm import tqdm

from jgen.arrays import (
    check_finite_events,
    event_arrays,
    explained,
    real_array,
    warn_of_rounding,
)
from jgen.checks import check_memory
from jgen.generative_model import Batch, GenerativeModel, float_type, num_events
from jgen.random import check_key, member_keys, stream
from jgen.sets import check_counts
from jgen.training.accumulation import check_event_keys
from jgen.training.buckets import bucket_rows, check_buckets
from jgen.training.checkpoint import Checkpoints
from jgen.training.config import TrainConfig
from jgen.training.log import MetricsLog
from jgen.training.mesh import fetch, make_layout, put
from jgen.training.optimizer import make_optimizer
from jgen.training.record import check_record, training_record
from jgen.training.repulsion import Function, log_prob_values, repulsion, repulsive_update
from jgen.training.step import TrainState, initial_state, make_step, over_members
from jgen.typing import Key, Params


class Best(NamedTuple):
    """Smallest validation loss so far, with its step and parameters, for each member."""

    loss: jax.Array
    step: jax.Array
    params: Params


class Fitted(NamedTuple):
    """What a training returns; every leaf has a leading axis of members.

    Attributes:
      params: of the last or best step, averaged ones where there is an average.
      state: the full last training state; None where a finished training was read from its file.
      history: the logged metrics, one dictionary a line of the metrics file.
    """

    params: Params
    state: TrainState | None
    history: list[dict]

    @property
    def one(self) -> Params:
        """Parameters of the only member.

        Raises:
          ValueError: if there are several; take one of them with `member(fitted.params, index)`.
        """
        num = num_events(self.params)
        if num != 1:
            raise ValueError(
                f"this training has {num} members; take one with member(fitted.params, index)"
            )
        return jax.tree.map(lambda leaf: leaf[0], self.params)

    @property
    def seconds(self) -> float:
        """What the training took by the clock, with compilation, over all its resumptions."""
        return float(sum(row.get("seconds", 0.0) for row in self.history))


def fit(
    model: GenerativeModel,
    data: Batch | None,
    key: Key,
    config: TrainConfig,
    *,
    validation: Batch | None = None,
    score: Callable[[Params, Key, Batch], Array] | None = None,
    initial: Params | TrainState | None = None,
    function: Function | None = None,
    optimizer: optax.GradientTransformation | None = None,
    folder: Path | None = None,
    extend: bool = False,
    devices: list[jax.Device] | None = None,
    name: str = "training",
    progress: bool = True,
) -> Fitted:
    """Train `config.ensemble` members of a model at once.

    With a `folder`, a training that was interrupted goes on from its last checkpoint and ends
    bitwise where it would have ended. SIGTERM saves a checkpoint and exits with status 143.

    Args:
      model: what to train.
      data: training events, held by every device; weights are scaled to mean one, in each data
        set where there are several. None for a model that is trained without data, such as
        `jgen.transforms.reverse_kl`.
      key: typed PRNG key.
      config: how.
      validation: events for the validation loss, with the same fields as `data` and, of several
        data sets, a set of equal size for each of them, one after another. A bootstrap ensemble
        validates on all of them as they are.
      score: (params, key, validation) -> a number that is smaller for better parameters, which
        takes the place of the validation loss. For games, whose loss does not say which step is
        best. It sees all validation events at once.
      initial: where the training starts instead of `model.init`: parameters of one member, which
        all start from, or stacked ones of as many members; or a training state, such as the `state`
        of an earlier training, which goes on at its step with its optimiser and average, up to
        `config.steps` in all and with the learning rate of that schedule.
      function: (params, key, batch) -> values [batch] of one member, in whose space a repulsive
        ensemble repels; `model.log_prob` unless given.
      optimizer: used instead of `config.optimizer`'s, see `per_player`. A resumed training must be
        given the same again.
      folder: for checkpoints/, metrics.jsonl and training.json; nothing is written without. It
        knows the data, the key and the options that it was made with, and refuses others.
      extend: let a folder's training go on to more steps than it was made for. Its schedule is
        that of the new number from there on, so the result is not that of one training.
      devices: to use, all unless given.
      name: on the progress bar.
      progress: show it.

    Raises:
      ValueError: for data, options or devices that do not fit together.
      FloatingPointError: naming step and members when a loss is not finite.
    """
    check_key(key)
    data = as_batch(Batch(None) if data is None else data, "data", model)
    validation = validation if validation is None else as_batch(validation, "validation", model)
    _check(data, validation, score, config)
    check_memory(jax.eval_shape(model.init, jax.random.key(0)), copies=config.ensemble)
    if folder is not None:
        record = training_record(data, validation, key, config, initial)
        writes = jax.process_index() == 0
        check_record(Path(folder), record, extend=extend, is_writer=writes)
    if function is not None and config.members != "repulsive":
        raise ValueError(
            f'function is for members="repulsive", but members is {config.members!r}; leave it out'
        )
    layout = make_layout(config.ensemble, config.batch_size // config.accumulate, devices)
    data = _unit_weight(data, config.data_sets)
    validation = validation and _unit_weight(validation, config.data_sets)
    optimizer = make_optimizer(config.optimizer, config.steps) if optimizer is None else optimizer
    start = _start(model, initial, config.ensemble)
    loop = _Loop(
        model, data, validation, score, function, optimizer, key, config, layout, folder, start
    )
    with _Sigterm() as sigterm:
        loop.run(sigterm, name, progress)
    state, best = loop.state, loop.best
    chosen = best.params if config.keep == "best" else state.average
    return Fitted(fetch(chosen, layout), fetch(state, layout), loop.history)


class _Loop:
    """The state of a running training, with the compiled functions that advance it."""

    def __init__(
        self,
        model,
        data,
        validation,
        score,
        function,
        optimizer,
        key,
        config,
        layout,
        folder,
        start,
    ):
        self.config, self.layout = config, layout
        axis = config.axis
        if axis == "auto":
            one_cpu = layout.mesh.size == 1 and jax.default_backend() == "cpu"
            axis = "scan" if one_cpu else "vmap"
        step, update = _make_update(
            model, optimizer, function, stream(key, "repulsion"), config, layout, axis, data
        )
        members, shared = layout.members, layout.shared
        self.keys = put(member_keys(stream(key, "train"), config.ensemble), members)
        block = config.ensemble // config.data_sets
        self.data_set = put(np.arange(config.ensemble, dtype=np.int32) // block, members)
        self.data = put(data, shared)
        self.update = jax.jit(update, donate_argnums=0, out_shardings=(members, shared))
        init_keys = put(member_keys(stream(key, "init"), config.ensemble), members)
        if start is None:
            self.state = jax.jit(jax.vmap(step.init), out_shardings=members)(init_keys)
        else:
            begin = jax.vmap(lambda p: initial_state(p, optimizer, config.ema_decay))
            made = jax.eval_shape(begin, jax.eval_shape(jax.vmap(model.init), init_keys))
            if isinstance(start, TrainState):
                _check_state(start, made)
                start = put(jax.tree.map(np.asarray, start), members)
                copy = lambda state: jax.tree.map(jnp.copy, state)  # the first step is given it
                self.state = jax.jit(copy, out_shardings=members)(start)
            else:
                self.state = jax.jit(begin, out_shardings=members)(put(start, members))
        # A copy, since the state that it is taken from is donated to the first step.
        self.best = jax.jit(
            lambda s: Best(
                jnp.full_like(s.step, jnp.inf, jnp.float32),
                jnp.zeros_like(s.step),
                jax.tree.map(jnp.copy, s.params) if config.keep == "best" else None,
            ),
            out_shardings=members,
        )(self.state)
        self.validation = validation
        if validation is not None:
            self._watch(score, model, stream(key, "validation"), axis)
        self._open(folder)

    def _watch(self, score, model, key, axis):
        """Put the validation events in place; a score sees all of them at once."""
        config, layout = self.config, self.layout
        sets = _sets(self.validation, config.data_sets)
        sets = [_stacks(v, num_events(v) if score else config.batch_size) for v in sets]
        self.validation = put(jax.tree.map(lambda *sets: np.stack(sets), *sets), layout.shared)
        own = functools.partial(_validate, score or model.loss, config, key)
        self.validate = jax.jit(
            over_members(own, axis), out_shardings=(layout.members, layout.shared)
        )

    def _open(self, folder):
        """Find the last checkpoint and bring the log to its step."""
        self.checkpoints, self.log, self.history = None, None, []
        if folder is None:
            return
        self.checkpoints = Checkpoints(Path(folder) / "checkpoints")
        self.log = MetricsLog(Path(folder) / "metrics.jsonl", jax.process_index() == 0)
        saved, step = self.checkpoints.newest({"state": self.state, "best": self.best})
        if saved is not None:
            if step > self.config.steps:
                raise ValueError(
                    f"{folder} holds a training of {step} steps, more than {self.config.steps}; "
                    "choose another folder"
                )
            self.state, self.best = saved["state"], saved["best"]
        self.log.truncate(step)
        self.history = self.log.read()

    def run(self, sigterm, name, progress):
        cfg, first = self.config, int(fetch(self.state.step, self.layout)[0])
        bar = tqdm(
            total=cfg.steps,
            initial=first,
            desc=name,
            unit="step",
            mininterval=0.5,
            disable=not progress or jax.process_index() != 0,
        )
        pending, self.clock = None, time.perf_counter()
        for step in range(first + 1, cfg.steps + 1):
            # Whatever does not fit is found when the first step is compiled.
            with explained("the model's loss", **self.data._asdict()):
                self.state, metrics = self.update(self.state, self.keys, self.data_set, self.data)
            # The host reads the metrics of the step before, so that the device never waits.
            if pending is not None:
                self._record(*pending, bar)
            pending = (step, metrics)
            last = step == cfg.steps
            validate = self.validation is not None and (last or step % cfg.validate_every == 0)
            stop = sigterm.received(step, cfg.log_every)
            if last or stop or validate or step % cfg.save_every == 0:
                self._record(*pending, bar)
                pending = None
            if validate:
                self._validate(step)
            save = last or stop or step % cfg.save_every == 0
            if save:
                self._check_params(step)
            if self.checkpoints and save:
                self.checkpoints.save(step, {"state": self.state, "best": self.best})
            if stop:
                self._close(bar)
                where = "its folder resumes it" if self.checkpoints else "nothing was saved"
                print(f"{name}: SIGTERM at step {step}, {where}")
                raise SystemExit(143)
        self._close(bar)

    def _check_params(self, step):
        """The loss of a step is that before its update, which may spoil the parameters itself."""
        params = jax.tree.leaves(fetch(self.state.params, self.layout))
        bad = np.zeros(self.config.ensemble, bool)
        for leaf in params:
            if jnp.issubdtype(leaf.dtype, jnp.inexact):
                bad |= ~np.isfinite(leaf).reshape(len(bad), -1).all(axis=1)
        if bad.any():
            members = ", ".join(map(str, np.flatnonzero(bad)))
            raise FloatingPointError(
                f"parameters of member {members} are not finite after step {step}; lower the "
                "learning rate or clip gradients"
            )

    def _close(self, bar):
        bar.close()
        if self.checkpoints:
            self.checkpoints.close()

    def _record(self, step, metrics, bar):
        """Check and log the metrics of one step."""
        values = {name: np.asarray(value) for name, value in metrics.items()}
        finite = np.isfinite(values["loss"]) & np.isfinite(values["grad_norm"])
        bad = np.flatnonzero(~finite)
        if bad.size:
            members = ", ".join(map(str, bad))
            raise FloatingPointError(
                f"loss of member {members} is not finite at step {step}, or its gradient: "
                f"{values['loss'][bad]} and {values['grad_norm'][bad]}; "
                "lower the learning rate, clip gradients or check the data"
            )
        bar.update(1)
        if step % self.config.log_every == 0 or step == self.config.steps:
            bar.set_postfix(loss=f"{values['loss'].mean():.4g}", refresh=False)
            now = time.perf_counter()
            row = {"step": step, **{name: value.tolist() for name, value in values.items()}}
            self._append(row | {"seconds": now - self.clock})
            self.clock = now

    def _append(self, row):
        self.history.append(row)
        if self.log:
            self.log.append(row)

    def _validate(self, step):
        with explained("the model's loss on validation events", events=self.validation):
            self.best, losses = self.validate(self.state, self.best, self.data_set, self.validation)
        losses = np.asarray(losses)
        if not np.isfinite(losses).all():
            bad = ", ".join(map(str, np.flatnonzero(~np.isfinite(losses))))
            raise FloatingPointError(
                f"validation loss of member {bad} is not finite at step {step}"
            )
        self._append({"step": step, "validation_loss": losses.tolist()})


def _start(model, initial, num: int) -> Params | TrainState | None:
    """Stacked parameters of `num` members, or the state, that a training starts from."""
    if initial is None or isinstance(initial, TrainState):
        return initial
    expected = jax.eval_shape(model.init, jax.random.key(0))
    shapes = lambda tree, *more: jax.tree.map(lambda a: (*more, *np.shape(a)), tree)
    if shapes(initial) == shapes(expected):
        return jax.tree.map(lambda a: np.broadcast_to(a, (num, *np.shape(a))), initial)
    if shapes(initial) == shapes(expected, num):
        return jax.tree.map(np.asarray, initial)
    raise ValueError(
        f"initial must be parameters of one member of this model, or of {num} members stacked; its "
        "tree or its shapes are others"
    )


def _check_state(state: TrainState, expected: TrainState) -> None:
    shapes = lambda tree: jax.tree.map(np.shape, tree)
    if shapes(state) != shapes(expected):
        raise ValueError(
            "initial is the state of another training: of another model, optimiser, number of "
            "members, or with and without an average"
        )


def _make_update(model, optimizer, function, key, config, layout, axis, data):
    """The step of one member and the update of all of them, (states, keys, data_set, data)."""
    penalty, repulsive = None, config.members == "repulsive"
    if repulsive:
        function = log_prob_values(model) if function is None else function
        penalty = repulsion(function, config.repulsion, num_events(data))
    rows, size = (), config.batch_size // config.accumulate
    if config.accumulate > 1:
        some = data if jax.tree.leaves(data) else Batch(None, weight=np.ones(size, np.float32))
        check_event_keys(model, some, "accumulate")
    if config.buckets > 1:
        check_buckets(model, data, axis)
        rows = bucket_rows(data.cond.n, size, config.buckets)
    step = make_step(
        model,
        optimizer,
        config.batch_size,
        ema_decay=config.ema_decay,
        place_batch=layout.place_batch,
        bootstrap=config.members == "bootstrap",
        data_sets=config.data_sets,
        steps=config.steps,
        penalty=penalty,
        bucket_rows=rows,
        accumulate=config.accumulate,
    )
    if repulsive:
        return step, repulsive_update(
            step, function, key, axis, config.batch_size, layout.place_batch
        )

    def own(state, key, data_set, data):
        return step.update(state, key, data, data_set)

    return step, over_members(own, axis)


def _validate(measure, config, key, state, best, data_set, stacks):
    """Validation loss of one member on its data set, and its best parameters so far."""
    # One batch at a time, since under vmap every member gets a copy of what it picks.
    own = data_set if config.data_sets > 1 else 0
    shapes = [jax.tree.leaves(stack)[0].shape[1:3] for stack in stacks]
    # The same noise at every validation.
    keys = jax.random.split(key, sum(batches for batches, _ in shapes))
    total, first = 0.0, 0
    for stack, (batches, size) in zip(stacks, shapes, strict=True):

        def one(n, stack=stack, first=first):
            batch = jax.tree.map(lambda a: a[own, n], stack)
            return measure(state.average, keys[first + n], batch)

        total += size * jnp.sum(jax.lax.map(one, jnp.arange(batches)))
        first += batches
    loss = total / sum(batches * size for batches, size in shapes)
    better = loss < best.loss
    if config.keep != "best":
        return best, loss
    new = Best(loss, state.step, state.average)
    return jax.tree.map(lambda n, b: jnp.where(better, n, b), new, best), loss


def _stacks(data: Batch, batch_size: int) -> list[Batch]:
    """Events as stacks [batches, size, ...] of no more than two sizes, each event in one batch.

    There is no padding, which would need weights: couplings and some games take none.
    """
    num = num_events(data)
    least = -(-num // batch_size)
    # Batches of one size, if there is one that is not much smaller: the loss is compiled once.
    count = next((n for n in range(least, 2 * least) if num % n == 0), least)
    size, larger = divmod(num, count)

    def stack(first, batches, size):
        last = first + batches * size
        cut = lambda a: np.asarray(a)[first:last].reshape(batches, size, *np.shape(a)[1:])
        return jax.tree.map(cut, data)

    rest = stack(larger * (size + 1), count - larger, size)
    return [stack(0, larger, size + 1), rest] if larger else [rest]


def _sets(data: Batch, num: int) -> list[Batch]:
    """The data sets that lie one after another in `data`."""
    size = num_events(data) // num
    return [jax.tree.map(lambda a: a[i * size : (i + 1) * size], data) for i in range(num)]  # noqa: B023


def _unit_weight(data: Batch, data_sets: int) -> Batch:
    if data.weight is None:
        return data
    weight = np.asarray(data.weight, np.float64).reshape(data_sets, -1)
    weight = weight / weight.mean(axis=1, keepdims=True)
    return data._replace(weight=weight.reshape(-1).astype(np.float32))


def as_batch(data: Batch, name: str, model: GenerativeModel) -> Batch:
    """Events and weights in the precision of the model; conditions may be labels."""
    if not isinstance(data, Batch):
        raise ValueError(
            f"{name} must be a Batch, such as Batch(x) or Batch(x, cond), got {type(data).__name__}"
        )
    warn_of_rounding(data, name)
    dtype = np.dtype(np.float32)
    if jax.config.jax_enable_x64:
        dtype = float_type(jax.eval_shape(model.init, jax.random.key(0)))
    weight = None if data.weight is None else real_array(data.weight, f"{name}.weight")
    return Batch(
        event_arrays(data.x, f"{name}.x", dtype),
        event_arrays(data.cond, f"{name}.cond", dtype, integers=True),
        weight,
    )


def _check(data: Batch, validation: Batch | None, score, config: TrainConfig) -> None:
    config.check()
    if not jax.tree.leaves(data):
        if validation is not None or config.members != "plain" or config.data_sets > 1:
            raise ValueError(
                "a training without data has no validation, plain members and no data sets, got "
                f"members {config.members!r} and {config.data_sets} data sets"
            )
        if config.keep == "best":
            raise ValueError('without data nothing says which step is best; use keep="last"')
        return
    for what, batch in (("data", data), ("validation", validation)):
        if batch is None:
            continue
        if num_events(batch) == 0:
            raise ValueError(f"{what} has no events")
        check_counts(batch.cond, batch.x)
        shapes = lambda b: jax.tree.map(lambda a: np.shape(a)[1:], (b.x, b.cond))
        if shapes(batch) != shapes(data):
            raise ValueError(
                f"validation has events and conditions of the shapes {shapes(batch)}, but data of "
                f"{shapes(data)}; they must be the same"
            )
        if num_events(batch) % config.data_sets:
            raise ValueError(
                f"{what} has {num_events(batch)} events, which are not {config.data_sets} data "
                "sets of equal size"
            )
        check_finite_events(batch, what)
        if batch.weight is not None:
            if np.shape(batch.weight) != (num_events(batch),):
                raise ValueError(
                    f"{what}.weight must have the shape ({num_events(batch)},), one number an "
                    f"event, got {np.shape(batch.weight)}"
                )
            weight = np.asarray(batch.weight, np.float64).reshape(config.data_sets, -1)
            # Weights of both signs whose sum is rounding would be divided by that rounding.
            if not np.all(weight.sum(axis=1) > 1e-6 * np.abs(weight).sum(axis=1)):
                raise ValueError(
                    f"{what}.weight must have a positive sum in every data set, that is no tiny "
                    f"fraction of the sum of its absolute values, got the sums {weight.sum(axis=1)}"
                )
    if config.keep == "best" and validation is None:
        raise ValueError('keep="best" needs validation data')
    if score is not None and validation is None:
        raise ValueError("score judges validation data; give some, or leave it out")


class _Sigterm:
    """Notes SIGTERM while open, so that the loop can save before it leaves."""

    def __enter__(self):
        self._flag = False
        try:
            self._old = signal.signal(signal.SIGTERM, self._note)
        except ValueError:  # handlers belong to the main thread; others train without one
            self._old = None
        return self

    def __exit__(self, *_):
        if self._old is not None:
            signal.signal(signal.SIGTERM, self._old)

    def _note(self, *_):
        self._flag = True

    def received(self, step: int, every: int) -> bool:
        """Whether to stop after `step`; hosts agree on it every so many steps."""
        if jax.process_count() == 1:
            return self._flag
        if step % every:
            return False
        return bool(multihost_utils.process_allgather(np.array(self._flag)).any())

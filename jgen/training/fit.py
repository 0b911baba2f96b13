"""Train one model or an ensemble of them: the loop around the step."""

import contextlib
import functools
import itertools
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jaxtyping import Array
from tqdm import tqdm

from jgen.arrays import explained
from jgen.checks import check_memory
from jgen.generative_model import Batch, GenerativeModel, num_events
from jgen.random import check_key, member_keys, stream
from jgen.training.accumulation import check_event_keys
from jgen.training.buckets import bucket_rows, check_buckets
from jgen.training.callbacks import Callback, check_callbacks
from jgen.training.checkpoint import Checkpoints
from jgen.training.config import TrainConfig
from jgen.training.inputs import (
    as_batch,
    check_inputs,
    check_state,
    source_batch,
    starting_point,
    training_data,
    unit_weight,
)
from jgen.training.log import MetricsLog
from jgen.training.mesh import fetch, make_layout, put
from jgen.training.optimizer import make_optimizer
from jgen.training.record import check_record, training_record
from jgen.training.repulsion import Function, log_prob_values, repulsion, repulsive_update
from jgen.training.sources import DataSource, ReadAhead, is_source, probe
from jgen.training.step import TrainState, initial_state, make_step, over_members
from jgen.training.validation import Best, data_sets_of, exhausted, stacks_of, validate
from jgen.typing import Key, Params


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
    data: Batch | DataSource | None,
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
    callbacks: Sequence[Callback] = (),
    devices: list[jax.Device] | None = None,
    name: str = "training",
    progress: bool = True,
) -> Fitted:
    """Train `config.ensemble` members of a model at once.

    With a `folder`, a training that was interrupted goes on from its last checkpoint and ends
    bitwise where it would have ended. SIGTERM saves a checkpoint and exits with status 143. With
    `config.patience` a training may end before its last step.

    Args:
      model: what to train.
      data: training events, held by every device; weights are scaled to mean one, in each data
        set where there are several. Or a source of events that stay where they are, such as
        `jgen.training.HDF5Events`: anything with len(source) and source[rows] -> Batch, read by a
        thread one chunk of steps ahead. The same events in memory give the same training. None
        for a model that is trained without data, such as `jgen.transforms.reverse_kl`.
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
      callbacks: called on the host with (step, metrics) at each line of the log, in the process
        that writes it; see `jgen.training.callbacks` for TensorBoard and Weights & Biases. What is
        logged again after a resumption is told again.
      devices: to use, all unless given.
      name: on the progress bar.
      progress: show it.

    Raises:
      ValueError: for data, options or devices that do not fit together.
      FloatingPointError: naming step and members when a loss is not finite.
    """
    check_key(key)
    data = training_data(data, model)
    validation = validation if validation is None else as_batch(validation, "validation", model)
    source = data if is_source(data) else None
    events = source_batch(probe(source), model) if source is not None else data
    check_inputs(events, validation, score, config, None if source is None else len(source))
    check_callbacks(callbacks)
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
    events = events if source is not None else unit_weight(data, config.data_sets)
    validation = validation and unit_weight(validation, config.data_sets)
    optimizer = make_optimizer(config.optimizer, config.steps) if optimizer is None else optimizer
    start = starting_point(model, initial, config.ensemble)
    given = (events, source, validation, score, function, optimizer)
    # Closed whatever happens: writes that go on after an interrupt would cross those of a second
    # training of the same process in this folder.
    nothing = contextlib.nullcontext()
    opened = nothing if folder is None else Checkpoints(Path(folder) / "checkpoints")
    with _Sigterm() as sigterm, opened as checkpoints:
        loop = _Loop(model, *given, key, config, layout, folder, checkpoints, start)
        loop.callbacks = callbacks if jax.process_index() == 0 else ()
        stopped = loop.run(sigterm, name, progress)
    # What came after the last look ends the process too: in the last step or in the closing, or
    # before a loop that had no step left.
    if stopped is None and sigterm.received(0, 1):
        stopped = int(fetch(loop.state.step, layout)[0])
    if stopped is not None:
        where = "nothing was saved" if folder is None else "its folder resumes it"
        print(f"{name}: SIGTERM at step {stopped}, {where}")
        raise SystemExit(143)
    state, best = loop.state, loop.best
    chosen = best.params if config.keep == "best" else state.average
    return Fitted(fetch(chosen, layout), fetch(state, layout), loop.history)


class _Loop:
    """The state of a running training, with the compiled functions that advance it."""

    def __init__(
        self,
        model,
        events,
        source,
        validation,
        score,
        function,
        optimizer,
        key,
        config,
        layout,
        folder,
        checkpoints,
        start,
    ):
        self.config, self.layout = config, layout
        axis = config.axis
        if axis == "auto":
            one_cpu = layout.mesh.size == 1 and jax.default_backend() == "cpu"
            axis = "scan" if one_cpu else "vmap"
        key_repel, stored = stream(key, "repulsion"), source is not None
        step, update = _make_update(
            model, optimizer, function, key_repel, config, layout, axis, events, stored
        )
        members, shared = layout.members, layout.shared
        keys = member_keys(stream(key, "train"), config.ensemble)
        self.keys = put(keys, members)
        block = config.ensemble // config.data_sets
        data_set = np.arange(config.ensemble, dtype=np.int32) // block
        self.data_set, self.ahead = put(data_set, members), None
        if source is None:
            self.data = put(events, shared)
        else:
            self.ahead = _read_ahead(step, source, events, keys, data_set, model, config)
        self.update = jax.jit(update, donate_argnums=0, out_shardings=(members, shared))
        init_keys = put(member_keys(stream(key, "init"), config.ensemble), members)
        self.state = self._begin(model, step, optimizer, init_keys, start)
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
        self._open(folder, checkpoints)

    def _begin(self, model, step, optimizer, init_keys, start):
        """States of all members before the first step, from what `starting_point` returns."""
        members = self.layout.members
        if start is None:
            return jax.jit(jax.vmap(step.init), out_shardings=members)(init_keys)
        begin = jax.vmap(lambda p: initial_state(p, optimizer, self.config.ema_decay))
        made = jax.eval_shape(begin, jax.eval_shape(jax.vmap(model.init), init_keys))
        if isinstance(start, TrainState):
            check_state(start, made)
            start = put(jax.tree.map(np.asarray, start), members)
            copy = lambda state: jax.tree.map(jnp.copy, state)  # the first step is given it
            return jax.jit(copy, out_shardings=members)(start)
        return jax.jit(begin, out_shardings=members)(put(start, members))

    def _watch(self, score, model, key, axis):
        """Put the validation events in place; a score sees all of them at once."""
        config, layout = self.config, self.layout
        sets = data_sets_of(self.validation, config.data_sets)
        sets = [stacks_of(v, num_events(v) if score else config.batch_size) for v in sets]
        self.validation = put(jax.tree.map(lambda *sets: np.stack(sets), *sets), layout.shared)
        own = functools.partial(validate, score or model.loss, config, key)
        self.validate = jax.jit(
            over_members(own, axis), out_shardings=(layout.members, layout.shared)
        )

    def _open(self, folder, checkpoints):
        """Find the last checkpoint and bring the log to its step."""
        self.checkpoints, self.log, self.history = checkpoints, None, []
        if folder is None:
            return
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
        """Train to the end; the step at which SIGTERM ended it, if it did."""
        cfg, first = self.config, int(fetch(self.state.step, self.layout)[0])
        steps = range(first + 1, cfg.steps + 1)
        if self._is_exhausted(first):  # a training that ended early is resumed at its end
            steps = steps[:0]
        bar = tqdm(
            total=cfg.steps,
            initial=first,
            desc=name,
            unit="step",
            mininterval=0.5,
            disable=not progress or jax.process_index() != 0,
        )
        with bar, contextlib.closing(self._inputs(first)) as inputs:
            return self._advance(zip(steps, inputs, strict=False), sigterm, bar)

    def _advance(self, steps, sigterm, bar):
        cfg, pending, self.clock = self.config, None, time.perf_counter()
        for step, (chosen, data) in steps:
            # Whatever does not fit is found when the first step is compiled.
            with explained("the model's loss", **data._asdict()):
                self.state, metrics = self.update(self.state, self.keys, chosen, data)
            # The host reads the metrics of the step before, so that the device never waits.
            if pending is not None:
                self._record(*pending, bar)
            pending = (step, metrics)
            last = step == cfg.steps
            judge = self.validation is not None and (last or step % cfg.validate_every == 0)
            stop = sigterm.received(step, cfg.log_every)
            if last or stop or judge or step % cfg.save_every == 0:
                self._record(*pending, bar)
                pending = None
            if judge:
                self._validate(step)
                last |= self._is_exhausted(step)
            save = last or stop or step % cfg.save_every == 0
            if save:
                self._check_params(step)
            if self.checkpoints and save:
                self.checkpoints.save(step, {"state": self.state, "best": self.best})
            if stop:
                return step
            if last:
                break
        return None

    def _inputs(self, first):
        """For each step which events it takes, or which data set, and where they are."""
        if self.ahead is None:
            yield from itertools.repeat((self.data_set, self.data))
            return
        for positions, events in self.ahead.chunks(first):
            events = put(events, self.layout.shared)
            for chosen in positions:
                yield put(chosen, self.layout.members), events

    def _is_exhausted(self, step):
        """Whether no member has had a better validation loss for as long as it may take."""
        if not self.config.patience or self.validation is None:
            return False
        best = fetch((self.best.loss, self.best.step), self.layout)
        return exhausted(*best, step, self.config)

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
        for callback in self.callbacks:
            callback(row["step"], {name: v for name, v in row.items() if name != "step"})

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


def _read_ahead(step, source, events, keys, data_set, model, config):
    """What reads the rows of a source that the members draw, each by its own key."""

    @jax.jit
    def rows(steps):
        one = lambda step_, key, own: step.rows(key, step_, len(source), own)
        members = jax.vmap(one, in_axes=(None, 0, 0))
        return jax.vmap(members, in_axes=(0, None, None))(steps, keys, data_set)

    def taken(batch):
        found = source_batch(batch, model)
        same = [jax.tree.map(lambda a: (a.shape[1:], a.dtype), b) for b in (found, events)]
        if jax.tree.structure(found) != jax.tree.structure(events) or same[0] != same[1]:
            raise ValueError(
                f"a source must give the same fields with the same shapes for all rows, got "
                f"{same[0]} after {same[1]}"
            )
        return found

    size = sum(a.nbytes for a in jax.tree.leaves(events)) / num_events(events)
    return ReadAhead(
        source,
        lambda steps: np.asarray(rows(steps)),
        taken,
        size,
        config.steps - 1,
    )


def _make_update(model, optimizer, function, key, config, layout, axis, data, stored):
    """The step of one member and the update of all of them.

    It takes (states, keys, data_set, data), where events come from a source (states, keys, rows,
    data).
    """
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

    def own(state, key, chosen, data):
        if stored:
            return step.learn(state, key, data, chosen)
        return step.update(state, key, data, chosen)

    return step, over_members(own, axis)


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

"""One optimiser step of one member; ensembles are this step mapped over stacked states."""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from jgen.checks import check_fraction, check_known, check_whole
from jgen.generative_model import Batch, GenerativeModel, loss_at, num_events
from jgen.training.accumulation import accumulated
from jgen.training.bootstrap import resampled
from jgen.training.buckets import bucketed_loss
from jgen.typing import Key, Params, PyTree

Axis = Literal["vmap", "scan"]


class TrainState(NamedTuple):
    """Everything training carries; arrays only, so it can be mapped, sharded and saved.

    Attributes:
      step: number of steps done.
      params: parameters.
      opt_state: state of the optimiser.
      ema: exponential moving average of the parameters, None where none is kept.
    """

    step: Array
    params: Params
    opt_state: PyTree
    ema: Params | None

    @property
    def average(self) -> Params:
        """Averaged parameters, the parameters themselves where there is no average."""
        return self.params if self.ema is None else self.ema


class Step(NamedTuple):
    """Training of one member as pure functions.

    Attributes:
      init: (key) -> state.
      update: (state, key, data, data_set=0, common=None) -> (state, metrics). `data_set` says
        which of the data sets is the member's; `common` goes to the penalty.
      rows: (key, step, num, data_set) -> the rows of the minibatch after so many steps, in data of
        `num` events.
      learn: (state, key, data, rows, common=None) -> (state, metrics), `update` from given rows.
    """

    init: Callable[[Key], TrainState]
    update: Callable[..., tuple[TrainState, dict[str, Array]]]
    rows: Callable[..., Int[Array, " batch"]]
    learn: Callable[..., tuple[TrainState, dict[str, Array]]]


def make_step(
    model: GenerativeModel,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    *,
    ema_decay: float = 0.0,
    place_batch: Callable[[Batch], Batch] = lambda batch: batch,
    bootstrap: bool = False,
    data_sets: int = 1,
    steps: int | None = None,
    penalty: Callable[[Params, PyTree], Array] | None = None,
    bucket_rows: tuple[int, ...] = (),
    accumulate: int = 1,
) -> Step:
    """Training step that draws its own minibatch from device-resident data.

    All randomness is a function of (key, state.step). Events are drawn with replacement, so every
    member of an ensemble sees its own sequence and a step costs the same for any size of the set.

    Args:
      model: what to train.
      optimizer: from optax.
      batch_size: events in a minibatch.
      ema_decay: of the parameters' average a step, see `TrainConfig`; 0 keeps none.
      place_batch: sharding hint for the minibatch, see `training.mesh`.
      bootstrap: draw from the member's resampled data, see `training.bootstrap`.
      data_sets: the data are so many sets of equal size, one after another.
      steps: of the whole training, for losses that change on the way; None for their end.
      penalty: (params, common) -> scalar, minimised with the loss. The metrics have the loss
        without it and the gradient norm of both.
      bucket_rows: of the groups of like length that minibatches of sets are computed in, see
        `training.buckets`; without, they are not grouped.
      accumulate: parts of a minibatch that the gradient is summed over, see
        `training.accumulation`.
    """
    check_whole(batch_size=batch_size, data_sets=data_sets, accumulate=accumulate)
    whole = functools.partial(loss_at, model)
    loss = bucketed_loss(model, bucket_rows) if bucket_rows else whole
    if accumulate > 1:
        gradient, place_batch = accumulated(loss, accumulate, place_batch), lambda batch: batch
    else:
        gradient = jax.value_and_grad(loss)
    descend = _descent(gradient, optimizer, ema_decay, penalty)

    def init(key):
        return initial_state(model.init(key), optimizer, ema_decay)

    def rows_of(key, step, num, data_set=0):
        key_rows, _ = jax.random.split(jax.random.fold_in(key, step))
        rows = jax.random.randint(key_rows, (batch_size,), 0, num // data_sets)
        rows = resampled(key, rows, num // data_sets) if bootstrap else rows
        return data_set * (num // data_sets) + rows

    def learn(state, key, data, rows, common=None):
        _, key_loss = jax.random.split(jax.random.fold_in(key, state.step))
        if rows is None:
            batch = Batch(None, weight=jnp.ones(batch_size))
        else:
            batch = jax.tree.map(lambda a: a[rows], data)
        progress = 1.0 if steps is None else state.step / steps
        return descend(state, key_loss, (place_batch(batch), progress), common)

    def update(state, key, data, data_set=0, common=None):
        rows = None
        if jax.tree.leaves(data):
            rows = rows_of(key, state.step, num_events(data), data_set)
        return learn(state, key, data, rows, common)

    return Step(init, update, rows_of, learn)


def initial_state(
    params: Params, optimizer: optax.GradientTransformation, ema_decay: float = 0.0
) -> TrainState:
    """State before the first step."""
    check_fraction(ema_decay=ema_decay)
    ema = params if ema_decay else None
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), ema)


def gradient_step(
    loss: Callable[[Params, Key, PyTree], Array],
    optimizer: optax.GradientTransformation,
    *,
    ema_decay: float = 0.0,
    penalty: Callable[[Params, PyTree], Array] | None = None,
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """The step on a minibatch that the caller has drawn: (state, key, batch, common=None).

    Args:
      loss: (params, key, batch) -> scalar.
      optimizer: from optax.
      ema_decay: of the parameters' average a step, see `TrainConfig`; 0 keeps none.
      penalty: (params, common) -> scalar, minimised with the loss.

    Returns:
      The function, which returns the new state and the metrics of the step.
    """
    descend = _descent(jax.value_and_grad(loss), optimizer, ema_decay, penalty)
    return lambda state, key, batch, common=None: descend(state, key, (batch,), common)


def _descent(gradient, optimizer, ema_decay, penalty):
    """The step with a function (params, key, *given) -> (loss, gradient)."""
    optimizer = optax.with_extra_args_support(optimizer)

    def update(state, key, given, common=None):
        value, grads = gradient(state.params, key, *given)
        if penalty is not None:
            grads = optax.tree.add(grads, jax.grad(penalty)(state.params, common))
        # The value is for schedules that look at the loss.
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params, value=value)
        params = optax.apply_updates(state.params, updates)
        ema = None
        if ema_decay:
            ema = optax.incremental_update(params, state.ema, 1 - _decay(ema_decay, state.step))
        metrics = {"loss": value, "grad_norm": optax.tree.norm(grads)}
        return TrainState(state.step + 1, params, opt_state, ema), metrics

    return update


def _decay(ema_decay: float, step: Array) -> Array:
    """Decay of the average, small at first, or the average of a short training is its start.

    Of t steps the average then is that of the last t / 9 or so; the start has a share of 9! / t^9.
    """
    return jnp.minimum(ema_decay, (1.0 + step) / (10.0 + step))


def over_members(function: Callable, axis: Axis, num_shared: int = 1) -> Callable:
    """Map a function of one member over stacked members.

    Args:
      function: its last `num_shared` arguments are common to all members.
      axis: "vmap" computes members side by side, as accelerators like it and as sharding over
        devices needs it; "scan" one after another in one program, as a CPU likes it.
      num_shared: number of arguments without a member axis.
    """
    check_known(Axis, axis=axis)
    if axis == "vmap":

        def mapped(*args):
            in_axes = (0,) * (len(args) - num_shared) + (None,) * num_shared
            return jax.vmap(function, in_axes, spmd_axis_name="ensemble")(*args)

    else:

        def mapped(*args):
            split = len(args) - num_shared
            return jax.lax.map(lambda own: function(*own, *args[split:]), args[:split])

    return mapped


def member(stacked: PyTree, index: int) -> PyTree:
    """One member of a stacked ensemble of states or parameters."""
    return jax.tree.map(lambda leaf: leaf[index], stacked)

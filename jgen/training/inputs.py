"""What `fit` is given: events, weights and where to start, checked before anything is compiled."""

import jax
import numpy as np

from jgen.arrays import check_finite_events, event_arrays, real_array, warn_of_rounding
from jgen.generative_model import Batch, GenerativeModel, float_type, num_events
from jgen.sets import check_counts
from jgen.training.config import TrainConfig
from jgen.training.sources import DataSource, is_source
from jgen.training.step import TrainState
from jgen.typing import Params


def training_data(data: Batch | DataSource | None, model: GenerativeModel) -> Batch | DataSource:
    """Training events as `as_batch` makes them, a batch of none, or a source as it is."""
    if is_source(data):
        return data
    return as_batch(Batch(None) if data is None else data, "data", model)


def source_batch(events: Batch, model: GenerativeModel) -> Batch:
    """Events that were read from a source, checked, as the training takes them."""
    events = as_batch(events, "data", model)
    check_finite_events(events, "data")
    check_counts(events.cond, events.x)
    if events.weight is None:
        return events
    return events._replace(weight=events.weight.astype(np.float32))


def as_batch(data: Batch, name: str, model: GenerativeModel) -> Batch:
    """Events and weights in the precision of the model; conditions may be labels."""
    if not isinstance(data, Batch):
        more = ", or a source with len(source) and source[rows]" if name == "data" else ""
        raise ValueError(
            f"{name} must be a Batch, such as Batch(x) or Batch(x, cond){more}, got "
            f"{type(data).__name__}; jgen.columns.to_batch makes one of a frame"
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


def unit_weight(data: Batch, data_sets: int) -> Batch:
    """Weights of mean one in each data set."""
    if data.weight is None:
        return data
    weight = np.asarray(data.weight, np.float64).reshape(data_sets, -1)
    weight = weight / weight.mean(axis=1, keepdims=True)
    return data._replace(weight=weight.reshape(-1).astype(np.float32))


def check_inputs(
    data: Batch, validation: Batch | None, score, config: TrainConfig, num: int | None = None
) -> None:
    """Refuse events and options that do not fit together; `data` are a few of a source of `num`."""
    config.check()
    if num is not None and (config.members == "repulsive" or config.buckets > 1):
        raise ValueError(
            "repulsive ensembles and buckets look at all events, so their data are a Batch in "
            f"memory, no source; got members {config.members!r} and {config.buckets} buckets"
        )
    if not jax.tree.leaves(data):
        if validation is not None or config.members != "plain" or config.data_sets > 1:
            raise ValueError(
                "a training without data has no validation, plain members and no data sets, got "
                f"members {config.members!r} and {config.data_sets} data sets"
            )
        if config.keep == "best":
            raise ValueError('without data nothing says which step is best; use keep="last"')
        if config.patience:
            raise ValueError("without data nothing says when to stop early; use patience=0")
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
        from_source = num if batch is data else None
        if (from_source or num_events(batch)) % config.data_sets:
            raise ValueError(
                f"{what} has {from_source or num_events(batch)} events, which are not "
                f"{config.data_sets} data sets of equal size"
            )
        check_finite_events(batch, what)
        if batch.weight is not None:
            _check_weight(batch, what, config.data_sets, from_source is not None)
    if config.keep == "best" and validation is None:
        raise ValueError('keep="best" needs validation data')
    if config.patience and validation is None:
        raise ValueError(
            f"patience={config.patience} counts validations; give validation data, or use 0"
        )
    if score is not None and validation is None:
        raise ValueError("score judges validation data; give some, or leave it out")


def _check_weight(batch: Batch, what: str, data_sets: int, from_source: bool) -> None:
    if np.shape(batch.weight) != (num_events(batch),):
        raise ValueError(
            f"{what}.weight must have the shape ({num_events(batch)},), one number an "
            f"event, got {np.shape(batch.weight)}"
        )
    weight = np.asarray(batch.weight, np.float64)
    if from_source:
        mean, error = weight.mean(), weight.std() / np.sqrt(len(weight))
        if abs(mean - 1) > 5 * error + 1e-3:
            raise ValueError(
                "weights of a source must have a mean of one, which a training cannot see without "
                f"reading all of them; those of {len(weight)} events have {mean:.4g}: divide by "
                "the mean of all weights"
            )
        return
    weight = weight.reshape(data_sets, -1)
    # Weights of both signs whose sum is rounding would be divided by that rounding.
    if not np.all(weight.sum(axis=1) > 1e-6 * np.abs(weight).sum(axis=1)):
        raise ValueError(
            f"{what}.weight must have a positive sum in every data set, that is no tiny "
            f"fraction of the sum of its absolute values, got the sums {weight.sum(axis=1)}"
        )


def starting_point(model, initial, num: int) -> Params | TrainState | None:
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


def check_state(state: TrainState, expected: TrainState) -> None:
    """Refuse the state of another training to start from."""
    shapes = lambda tree: jax.tree.map(np.shape, tree)
    if shapes(state) != shapes(expected):
        raise ValueError(
            "initial is the state of another training: of another model, optimiser, number of "
            "members, or with and without an average"
        )

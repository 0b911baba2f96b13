"""How the classifiers of `classifier.py` are trained and applied, all seeds in one program.

The step is that of all trainings, `jgen.training.gradient_step`. The loop around it is another than
`jgen.training.fit`'s, because published classifiers are: trained in epochs, in which each event
comes once, with the best epoch by loss or accuracy kept, until none has been better for a while;
and without a folder, for a test takes minutes.

Events are scaled on the host and lie once on the device, [events, inputs], whatever the number of
seeds: splits and minibatches are row numbers.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Real
from tqdm import tqdm

from jgen.arrays import real_array
from jgen.metrics.scaling import Scaling, blocks, identity_scaling, image_scaling, robust_scaling
from jgen.nets import Network, mlp
from jgen.nets.mlp import dropout_masks
from jgen.nets.resnet import resnet3d
from jgen.random import member_keys, stream
from jgen.training import TrainState, gradient_step, initial_state, over_members
from jgen.typing import Params

# Events scored at once; a power of two, so that few programs are compiled.
_CHUNK = 2**16


class Part(NamedTuple):
    """A labelled split, as rows of the data."""

    rows: Int[Array, " n"]
    label: Float[Array, " n"]
    weight: Float[Array, " n"]


class Classifier(NamedTuple):
    """Trained networks that tell reference (label 1) from generated events, one a seed.

    Attributes:
      params: parameters, stacked [seeds].
      scaling: what inputs pass through first.
      config: network.
    """

    params: Params
    scaling: Scaling
    config: Any

    def log_ratio(self, events: Real[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """Estimates of log(p_reference / p_generated) in nats, the mean over the seeds' logits.

        Args:
          events: their features, as in training; they pass through the device chunk by chunk.

        Raises:
          ValueError: if they have other columns, or are not finite.
        """
        events = real_array(events, "events")
        if events.ndim != 2 or events.shape[1] != len(self.scaling.centre) or not len(events):
            raise ValueError(
                f"events need the shape [events, {len(self.scaling.centre)}], as in training, got "
                f"{events.shape}"
            )
        out = np.empty(len(events), np.float32)
        size = min(_CHUNK, len(events))
        rows = jnp.arange(size)
        for start in range(0, len(events), size):
            # The last chunk repeats its last event, so that it runs in the same program.
            chunk = events[np.minimum(start + np.arange(size), len(events) - 1)]
            scaled = self.scaling(chunk)
            if not np.isfinite(scaled).all():
                row = start + int(np.argmin(np.isfinite(scaled).all(axis=1)))
                raise ValueError(f"event {row} is not finite: repair or drop it")
            logits = apply_seeds(self.params, scaled, rows, self.config)
            out[start : start + size] = np.mean(logits, axis=0)[: len(events) - start]
        return out


class _State(NamedTuple):
    train: TrainState
    best_params: Params
    best_value: Float[Array, ""]
    best_epoch: Int[Array, ""]


def place(samples, rows, config):
    """Samples one below the other on the device, and the scaling, from their training `rows`.

    They are copied block by block, so that the host needs no second copy of them.
    """
    num, width = sum(map(len, samples)), samples[0].shape[1]
    scaling = identity_scaling(width)
    if config.standardize:
        scale = image_scaling if config.network == "resnet3d" else robust_scaling
        scaling = scale(samples, rows)
    x, start = jnp.zeros((num, width), jnp.float32), 0
    for sample in samples:
        for block in blocks(sample, np.arange(len(sample))):
            x = _write(x, scaling(block), start)
            start += len(block)
    return x, scaling


@functools.partial(jax.jit, donate_argnums=0)
def _write(x, block, start):
    return jax.lax.dynamic_update_slice_in_dim(x, block, start, 0)


def _network(num_inputs, config):
    if config.network == "dense":
        return mlp(
            num_inputs,
            1,
            hidden=config.hidden,
            activation=jax.nn.leaky_relu,
            dropout=config.dropout,
        )
    network = resnet3d(config.shape, config=config.resnet)

    def apply(params, x, kept=()):
        del kept  # nothing is dropped
        return network.apply(params, x[1:].reshape(config.shape), x[:1])

    return Network(network.init, apply)


def _logits(params, data, rows, config, keys=None):
    """Logits of rows of the data; keys switch dropout on."""
    network = _network(data.shape[1], config)

    def single(x, key):
        kept = [] if key is None else dropout_masks(key, config.hidden, config.dropout)
        return network.apply(params, x, kept)[0]

    return jax.vmap(single)(data[rows], keys)


def _all_logits(params, data, rows, config):
    """Logits of many rows, a batch at a time."""
    batches = -(-len(rows) // config.batch_size)
    padded = jnp.resize(rows, (batches, -(-len(rows) // batches)))
    logits = jax.lax.map(lambda batch: _logits(params, data, batch, config), padded)
    return logits.ravel()[: len(rows)]


def _cross_entropy(logits, part):
    return jnp.mean(part.weight * optax.sigmoid_binary_cross_entropy(logits, part.label))


def _over_seeds(function, num_shared, config):
    axis = config.axis
    if axis == "auto":
        # One minibatch of images fills any device, and ten at once need ten times the memory.
        loop = jax.default_backend() == "cpu" or config.network == "resnet3d"
        axis = "scan" if loop else "vmap"
    return over_members(function, axis, num_shared)


@functools.partial(jax.jit, static_argnames=("num_inputs", "config"))
def _init(keys, num_inputs, config):
    def single(key):
        params = _network(num_inputs, config).init(stream(key, "init"))
        state = initial_state(params, optax.adam(config.learning_rate))
        # Copies, because the state is donated and an array cannot be given away twice.
        best = jax.tree.map(jnp.copy, params)
        return _State(state, best, jnp.float32(jnp.inf), jnp.int32(0))

    return jax.vmap(single)(keys)


@functools.partial(jax.jit, static_argnames="config", donate_argnums=0)
def _epoch(state, keys, epoch, data, train, validation, config):
    """One epoch of all seeds: the new states and the (training, validation) losses."""
    num = len(train.label)
    num_batches = -(-num // config.batch_size)

    def single(state, key, epoch, data, train, validation):
        def loss(params, key, part):
            keys = jax.random.split(key, len(part.rows)) if config.dropout > 0 else None
            return _cross_entropy(_logits(params, data, part.rows, config, keys), part)

        descend = gradient_step(loss, optax.adam(config.learning_rate))

        def step(trained, inputs):
            index, key = inputs
            trained, metrics = descend(trained, key, jax.tree.map(lambda a: a[index], train))
            return trained, metrics["loss"]

        key = jax.random.fold_in(stream(key, "epoch"), epoch)
        order = jax.random.permutation(stream(key, "order"), num)
        batches = order[: num // num_batches * num_batches].reshape(num_batches, -1)
        keys = jax.random.split(stream(key, "dropout"), num_batches)
        trained, losses = jax.lax.scan(step, state.train, (batches, keys))
        params = trained.params
        logits = _all_logits(params, data, validation.rows, config)
        validation_loss = _cross_entropy(logits, validation)
        value = validation_loss
        if config.select == "accuracy":
            value = -jnp.mean(validation.weight * ((logits > 0) == (validation.label > 0)))
        better = value < state.best_value
        if config.patience is not None:
            # A seed that has given up stays so, however long the others keep on training.
            better &= epoch - state.best_epoch <= config.patience
        best = (params, value, epoch), (state.best_params, state.best_value, state.best_epoch)
        best = jax.tree.map(functools.partial(jnp.where, better), *best)
        return _State(trained, *best), (jnp.mean(losses), validation_loss)

    return _over_seeds(single, 4, config)(state, keys, epoch, data, train, validation)


def train_seeds(placed, train, validation, key, config, progress):
    """The networks of the best epochs, and (best epochs, losses, validation losses).

    `placed` is what `place` made.
    """
    data, scaling = placed
    keys = member_keys(stream(key, "classifier"), config.num_seeds)
    state = _init(keys, data.shape[1], config)
    history = []
    with tqdm(total=config.epochs, desc="classifier", unit="epoch", disable=not progress) as bar:
        for epoch in range(config.epochs):
            state, losses = _epoch(state, keys, jnp.int32(epoch), data, train, validation, config)
            history.append(_finite_losses(np.asarray(losses), epoch))
            train_loss, validation_loss = history[-1].mean(axis=1)
            bar.set_postfix(train=f"{train_loss:.4f}", validation=f"{validation_loss:.4f}")
            bar.update()
            if config.patience is not None and epoch - state.best_epoch.max() >= config.patience:
                break
    train_loss, validation_loss = np.stack(history, axis=-1)
    classifier = Classifier(state.best_params, scaling, config)
    return classifier, (np.asarray(state.best_epoch), train_loss, validation_loss)


def _finite_losses(losses, epoch):
    if not np.isfinite(losses).all():
        seeds = np.flatnonzero(~np.isfinite(losses).all(axis=0))
        raise FloatingPointError(
            f"the classifier's loss is not finite in epoch {epoch} of seeds {seeds.tolist()}: "
            "lower the learning rate or standardise the inputs"
        )
    return losses


@functools.partial(jax.jit, static_argnames="config")
def apply_seeds(params, data, rows, config):
    """Logits [seeds, rows] of all trained networks."""
    single = functools.partial(_all_logits, config=config)
    return _over_seeds(single, 2, config)(params, data, rows)

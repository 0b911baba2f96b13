"""Classifier two-sample test: can a network tell generated events from true ones?

All trainings ("seeds") run at once under one `jax.vmap`. On two CPU cores that is as fast as
training them one by one, and on an accelerator far faster, so there is one way only.
"""

import functools
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Real
from scipy.optimize import isotonic_regression
from scipy.stats import rankdata
from tqdm import tqdm

from jgen.nets import mlp
from jgen.random import member_keys, stream
from jgen.typing import Key, Params, PyTree


@dataclass(frozen=True)
class ClassifierConfig:
    """Network and training; the defaults are CaloDREAM's (arXiv:2405.09629, Tab. 3).

    The official CaloChallenge script (arXiv:2410.21611) has hidden layers of 2048, 50 epochs, a
    60/20/20 split and `select="accuracy"`, and standardises nothing.
    """

    hidden: tuple[int, ...] = (512, 512, 512)
    """Widths of the hidden layers; leaky ReLU of slope 0.01 between them."""
    dropout: float = 0.0
    """Fraction of hidden units dropped in training; the paper takes 0.2 for weights, else none."""
    learning_rate: float = 2e-4
    """Of Adam, constant."""
    batch_size: int = 1000
    """Largest minibatch. An epoch has as many as needed, of equal size, so less than one event a
    minibatch is left out of it, another one each time."""
    epochs: int = 200
    """Passes over the training split."""
    num_seeds: int = 5
    """Trainings; they share the split and differ in initialisation, shuffles and dropout."""
    train_fraction: float = 0.7
    """Fraction of each sample to train on."""
    validation_fraction: float = 0.1
    """Fraction to choose the epoch and calibrate on; what remains is the test split."""
    select: Literal["loss", "accuracy"] = "loss"
    """What makes an epoch the best on the validation split; the first of equals wins."""
    standardize: bool = True
    """Scale inputs by mean and standard deviation of the training split, to at most ten of them.
    The published low-level classifiers do not; with a few thousand events scaled ones train far
    faster."""
    patience: int | None = None
    """A seed stops to improve after this many epochs without a better one; None never stops."""

    def __post_init__(self):
        rest = 1 - self.train_fraction - self.validation_fraction
        if min(self.train_fraction, self.validation_fraction) <= 0 or rest <= 1e-9:
            raise ValueError(
                "train_fraction and validation_fraction must be positive and leave events to test "
                f"on, got {self.train_fraction} and {self.validation_fraction}"
            )
        if min(self.batch_size, self.epochs, self.num_seeds, self.patience or 1) < 1:
            raise ValueError("batch_size, epochs, num_seeds and patience must be positive")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if self.select not in ("loss", "accuracy"):
            raise ValueError(f"select must be 'loss' or 'accuracy', got {self.select!r}")


class ClassifierResult(NamedTuple):
    """What the trainings found on the test split, one row a seed.

    Attributes:
      auc: area under the ROC curve, 0.5 if the samples cannot be told apart.
      auc_calibrated: the same after isotonic calibration, which merges scores into ties.
      jsd: Jensen-Shannon divergence over ln 2, 1 - BCE / ln 2, of the calibrated classifier. It
        falls below zero if the validation split is too small to calibrate on.
      weights_reference: w = C/(1-C), an estimate of p_reference / p_generated (arXiv:2405.09629,
        Eq. 21) of the uncalibrated classifier, on the reference test events.
      weights_generated: the same on generated test events. Look at both, because failures show
        up in the tails of either (arXiv:2305.16774).
      best_epoch: epoch whose network was kept, counted from zero.
      train_loss: mean over each epoch.
      validation_loss: after each epoch.
    """

    auc: Float[np.ndarray, " seeds"]
    auc_calibrated: Float[np.ndarray, " seeds"]
    jsd: Float[np.ndarray, " seeds"]
    weights_reference: Float[np.ndarray, "seeds n_test"]
    weights_generated: Float[np.ndarray, "seeds m_test"]
    best_epoch: Int[np.ndarray, " seeds"]
    train_loss: Float[np.ndarray, "seeds epochs"]
    validation_loss: Float[np.ndarray, "seeds epochs"]

    def mean(self, name: str) -> float:
        """Mean over seeds of a field, such as "auc"."""
        return float(np.mean(getattr(self, name)))

    def spread(self, name: str) -> float:
        """Standard deviation over seeds of a field; 0 for one seed.

        The seeds share their test events, so this does not contain the statistical error.
        """
        values = getattr(self, name)
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

    @property
    def auc_statistical_error(self) -> float:
        """Error of the mean AUC from the finite test split, `auc_error`."""
        n, m = self.weights_reference.shape[1], self.weights_generated.shape[1]
        return auc_error(self.mean("auc"), n, m)


def classifier_test(
    reference: Real[np.ndarray, "n d"],
    generated: Real[np.ndarray, "m d"],
    key: Key,
    config: ClassifierConfig | None = None,
    *,
    progress: bool = False,
) -> ClassifierResult:
    """Train classifiers of `reference` (label 1) against `generated` (label 0) and test them.

    The split is drawn once from `key` and shared by all seeds, so that their weights belong to
    the same events; seed i depends on (key, i) only, so more seeds leave the old ones as they
    were. If the samples differ in size, the loss, the accuracy and the calibration weight the
    classes to count equally, so w estimates the ratio of normalised densities.

    The calibration follows the CaloChallenge: isotonic regression fitted on the validation split
    (on which the epoch was chosen, too) and evaluated on the test split. Deviations: layers start
    from LeCun-normal weights and zero biases, and float32 is used throughout.

    Raises:
      ValueError: if the shapes do not fit, entries are not finite, or a split is empty.
      FloatingPointError: if a loss is not finite.
    """
    config = config or ClassifierConfig()
    reference, generated = _finite("reference", reference), _finite("generated", generated)
    if reference.shape[1] != generated.shape[1]:
        raise ValueError(
            f"reference has {reference.shape[1]} columns and generated {generated.shape[1]}: "
            "compute the same features for both"
        )
    split_key = stream(key, "split")
    parts = zip(
        _split(reference, jax.random.fold_in(split_key, 1), config),
        _split(generated, jax.random.fold_in(split_key, 0), config),
        strict=True,
    )
    train, validation, test = (_labelled(*part) for part in parts)
    if config.standardize:
        train, validation, test = _standardised(train, validation, test)
    params, history = _train(train, validation, key, config, progress)
    logits = [_logits(params, part.x, config) for part in (validation, test)]
    return _evaluate(validation, test, *logits, *history)


def area_under_curve(
    reference_scores: Real[np.ndarray, " n"], generated_scores: Real[np.ndarray, " m"]
) -> float:
    """Probability that a reference event scores above a generated one; ties count one half."""
    n, m = len(reference_scores), len(generated_scores)
    ranks = rankdata(np.concatenate([reference_scores, generated_scores]))
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def auc_error(auc: float, n: int, m: int) -> float:
    """Statistical error of an AUC of n against m events (Hanley and McNeil, Radiology 143, 29).

    At 0.5 it is sqrt((n + m + 1) / (12 n m)), the exact spread for samples of one distribution.
    """
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (n - 1) * (q1 - auc**2) + (m - 1) * (q2 - auc**2)
    # Rounding can leave a tiny negative number at an AUC of one.
    return float(np.sqrt(max(variance, 0.0) / (n * m)))


class _Part(NamedTuple):
    x: Float[Array, "n d"]
    label: Float[Array, " n"]
    weight: Float[Array, " n"]


class _State(NamedTuple):
    params: Params
    opt_state: PyTree
    best_params: Params
    best_value: Float[Array, ""]
    best_epoch: Int[Array, ""]


def _finite(name, sample):
    sample = np.asarray(sample, np.float32)
    if sample.ndim != 2 or 0 in sample.shape:
        raise ValueError(f"{name} needs the shape [events, features], got {sample.shape}")
    bad = np.flatnonzero(~np.isfinite(sample).all(axis=0))
    if len(bad):
        raise ValueError(
            f"{name} is not finite (as float32) in {len(bad)} of {sample.shape[1]} columns, the "
            f"first is column {bad[0]}: repair the feature or drop the events"
        )
    return sample


def _split(sample, key, config):
    num = len(sample)
    num_train = round(config.train_fraction * num)
    num_validation = round(config.validation_fraction * num)
    if min(num_train, num_validation, num - num_train - num_validation) < 1:
        raise ValueError(f"{num} events are too few for a training, validation and test split")
    order = np.asarray(jax.random.permutation(key, num))
    return [sample[i] for i in np.split(order, [num_train, num_train + num_validation])]


def _labelled(reference, generated):
    n, m = len(reference), len(generated)
    label = np.repeat(np.array([1, 0], np.float32), [n, m])
    # Mean one, and each class adds up to one half of the sum.
    weight = np.repeat(np.array([0.5 / n, 0.5 / m], np.float32) * (n + m), [n, m])
    return _Part(np.concatenate([reference, generated]), label, weight)


def _standardised(train, *others):
    mean = train.x.mean(axis=0, dtype=np.float64).astype(np.float32)
    std = train.x.std(axis=0, dtype=np.float64).astype(np.float32)
    # A column that never changes in training says nothing; one of rounding errors neither.
    std[std <= 1e-6 * np.abs(mean)] = np.inf
    # A voxel that was hit once in training, faintly, would turn an ordinary hit into millions of
    # standard deviations; ten say as much.
    return [part._replace(x=np.clip((part.x - mean) / std, -10, 10)) for part in (train, *others)]


def _network(num_inputs, config):
    return mlp(
        num_inputs, 1, hidden=config.hidden, activation=jax.nn.leaky_relu, dropout=config.dropout
    )


def _loss(params, key, part, network):
    """Mean binary cross-entropy; a key switches dropout on."""

    def single(x, label, weight, key):
        logit = network.apply(params, x, key)[0]
        return weight * optax.sigmoid_binary_cross_entropy(logit, label)

    keys = None if key is None else jax.random.split(key, len(part.label))
    return jnp.mean(jax.vmap(single)(*part, keys))


@functools.partial(jax.jit, static_argnames="config")
def _init(keys, part, config):
    def single(key):
        params = _network(part.x.shape[1], config).init(stream(key, "init"))
        opt_state = optax.adam(config.learning_rate).init(params)
        # Copies, because the state is donated and an array cannot be given away twice.
        best = jax.tree.map(jnp.copy, params)
        return _State(params, opt_state, best, jnp.float32(jnp.inf), jnp.int32(0))

    return jax.vmap(single)(keys)


@functools.partial(jax.jit, static_argnames="config", donate_argnums=0)
def _epoch(state, keys, epoch, train, validation, config):
    """One epoch of all seeds: the new states and the (training, validation) losses."""
    num = len(train.label)
    num_batches = -(-num // config.batch_size)
    network = _network(train.x.shape[1], config)
    optimizer = optax.adam(config.learning_rate)

    def step(carry, inputs):
        params, opt_state = carry
        index, key = inputs
        batch = jax.tree.map(lambda a: a[index], train)
        key = key if config.dropout > 0 else None
        loss, grad = jax.value_and_grad(_loss)(params, key, batch, network)
        updates, opt_state = optimizer.update(grad, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    def single(state, key):
        key = jax.random.fold_in(stream(key, "epoch"), epoch)
        order = jax.random.permutation(stream(key, "order"), num)
        batches = order[: num // num_batches * num_batches].reshape(num_batches, -1)
        keys = jax.random.split(stream(key, "dropout"), num_batches)
        (params, opt_state), losses = jax.lax.scan(
            step, (state.params, state.opt_state), (batches, keys)
        )
        loss = _loss(params, None, validation, network)
        value = loss
        if config.select == "accuracy":
            correct = (_logit(params, validation.x, network) > 0) == (validation.label > 0)
            value = -jnp.mean(validation.weight * correct)
        better = value < state.best_value
        if config.patience is not None:
            # A seed that has given up stays so, however long the others keep on training.
            better &= epoch - state.best_epoch <= config.patience
        best = (params, value, epoch), (state.best_params, state.best_value, state.best_epoch)
        best = jax.tree.map(functools.partial(jnp.where, better), *best)
        return _State(params, opt_state, *best), (jnp.mean(losses), loss)

    return jax.vmap(single)(state, keys)


def _train(train, validation, key, config, progress):
    """Parameters [seeds] of the best epochs, and (best epochs, losses, validation losses)."""
    train, validation = jax.device_put((train, validation))
    keys = member_keys(stream(key, "classifier"), config.num_seeds)
    state = _init(keys, train, config)
    history = []
    with tqdm(total=config.epochs, desc="classifier", unit="epoch", disable=not progress) as bar:
        for epoch in range(config.epochs):
            state, losses = _epoch(state, keys, jnp.int32(epoch), train, validation, config)
            history.append(_finite_losses(np.asarray(losses), epoch))
            train_loss, validation_loss = history[-1].mean(axis=1)
            bar.set_postfix(train=f"{train_loss:.4f}", validation=f"{validation_loss:.4f}")
            bar.update()
            if config.patience is not None and epoch - state.best_epoch.max() >= config.patience:
                break
    train_loss, validation_loss = np.stack(history, axis=-1)
    return state.best_params, (np.asarray(state.best_epoch), train_loss, validation_loss)


def _finite_losses(losses, epoch):
    if not np.isfinite(losses).all():
        seeds = np.flatnonzero(~np.isfinite(losses).all(axis=0))
        raise FloatingPointError(
            f"the classifier's loss is not finite in epoch {epoch} of seeds {seeds.tolist()}: "
            "lower the learning rate or standardise the inputs"
        )
    return losses


def _logit(params, x, network):
    return jax.vmap(network.apply, in_axes=(None, 0))(params, x)[:, 0]


@functools.partial(jax.jit, static_argnames="config")
def _logits(params, x, config):
    network = _network(x.shape[1], config)
    return jax.vmap(_logit, in_axes=(0, None, None))(params, x, network)


def _evaluate(validation, test, validation_logits, logits, best_epoch, train_loss, validation_loss):
    is_reference = test.label > 0
    # In float64 the weights cannot overflow.
    validation_logits, logits = (np.asarray(a, np.float64) for a in (validation_logits, logits))
    auc, auc_calibrated, jsd = [], [], []
    for fitted, score in zip(validation_logits, logits, strict=True):
        c = _calibrated(fitted, validation, score)
        auc.append(area_under_curve(score[is_reference], score[~is_reference]))
        auc_calibrated.append(area_under_curve(c[is_reference], c[~is_reference]))
        bce = -np.average(np.log(np.where(is_reference, c, 1 - c)), weights=test.weight)
        jsd.append(1 - bce / np.log(2))
    weights = np.exp(np.clip(logits, -50, 50))  # a certain classifier must not overflow float32
    return ClassifierResult(
        np.array(auc),
        np.array(auc_calibrated),
        np.array(jsd),
        weights[:, is_reference],
        weights[:, ~is_reference],
        best_epoch,
        train_loss,
        validation_loss,
    )


def _calibrated(scores, part, new_scores):
    """Isotonic probabilities at `new_scores`, fitted to `scores` on a labelled part.

    Equal scores share one probability, between scores it is interpolated, and it stays 1e-6 away
    from 0 and 1 so that the cross-entropy is finite; all as in the CaloChallenge.
    """
    unique, index = np.unique(scores, return_inverse=True)
    weight = np.bincount(index, part.weight)
    label = np.bincount(index, part.weight * part.label) / weight
    fit = isotonic_regression(label, weights=weight).x
    return np.clip(np.interp(new_scores, unique, fit), 1e-6, 1 - 1e-6)

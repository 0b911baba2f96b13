"""Classifier two-sample test: can a network tell generated events from true ones?

All trainings ("seeds") run in one program on one copy of the data.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Real
from scipy.optimize import isotonic_regression

from jgen.arrays import fraction_array, real_array, sample_array
from jgen.checks import (
    check_fraction,
    check_known,
    check_literals,
    check_open_fraction,
    check_positive,
    check_whole,
    check_widths,
)
from jgen.estimate import Estimate
from jgen.metrics.classifier_training import Classifier, Part, apply_seeds, place, train_seeds
from jgen.metrics.distances import event_weights
from jgen.nets.resnet import ResNetConfig
from jgen.random import stream
from jgen.typing import Key


@dataclass(frozen=True)
class ClassifierConfig:
    """Network and training; the defaults are CaloDREAM's (arXiv:2405.09629, Tab. 3).

    `calochallenge_classifier` makes those of the CaloChallenge.
    """

    network: Literal["dense", "resnet3d"] = "dense"
    """Dense layers on any features, or a residual convolutional network of the voxels."""
    shape: tuple[int, int, int] | None = None
    """Grid (layer, angle, radius) of a resnet3d, whose inputs are log10 of the incident energy and
    then the voxels, radius fastest."""
    resnet: ResNetConfig = ResNetConfig()
    """Sizes of a resnet3d."""
    hidden: tuple[int, ...] = (512, 512, 512)
    """Widths of a dense network's hidden layers; leaky ReLU of slope 0.01 between them."""
    dropout: float = 0.0
    """Fraction of a dense network's hidden units dropped in training; the paper takes 0.2 for
    weights, else none."""
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
    """Scale inputs in float64 by median and robust deviation of the training split, compressed
    from ten of them on, so that no outlier sets the scale; for a resnet3d the energy so, and all
    voxels by their common root mean square. The published low-level classifiers do not; with a few
    thousand events scaled ones train far faster."""
    patience: int | None = None
    """A seed stops to improve after this many epochs without a better one; None never stops."""
    axis: Literal["auto", "vmap", "scan"] = "auto"
    """vmap seeds or scan over them; auto vmaps dense networks on an accelerator and scans else."""

    def __post_init__(self):
        check_literals(self)
        check_whole(batch_size=self.batch_size, epochs=self.epochs, num_seeds=self.num_seeds)
        check_whole(patience=1 if self.patience is None else self.patience)
        check_widths(hidden=self.hidden)
        check_positive(learning_rate=self.learning_rate)
        check_fraction(dropout=self.dropout)
        fractions = {"validation_fraction": self.validation_fraction}
        check_open_fraction(train_fraction=self.train_fraction, **fractions)
        rest = 1 - self.train_fraction - self.validation_fraction
        if rest <= 1e-9:
            raise ValueError(
                "train_fraction and validation_fraction must be positive and leave events to test "
                f"on, got {self.train_fraction} and {self.validation_fraction}"
            )
        if self.network == "resnet3d" and (self.shape is None or self.dropout > 0):
            raise ValueError(
                "a resnet3d needs the shape (layers, angles, radii) of the grid and no dropout, "
                f"got {self.shape} and {self.dropout}"
            )


def calochallenge_classifier(
    kind: Literal["low", "high", "resnet"], shape: tuple[int, int, int] | None = None
) -> ClassifierConfig:
    """One of the three official classifiers of the CaloChallenge (arXiv:2410.21611).

    All are trained for 50 epochs of Adam with a learning rate of 2e-4 and batches of 1000, on 60 %
    of the events, best epoch by accuracy on 20 %, tested on the rest; published AUCs are those
    after calibration, mean and standard deviation of 10 trainings, with 100,000 showers a sample.
    "low" (log10 of the incident energy, voxels over it) and "high" (high-level features) are the
    same dense network of three hidden layers of 2048 on inputs as they are; "resnet" is a ResNet-18
    of the low-level inputs.

    Deviations: see `classifier_test`; every minibatch of an epoch has the same size; no batch norm
    in the ResNet, see `jgen.nets.resnet`, so its inputs are brought to order one by constants.

    Args:
      kind: which.
      shape: grid (layers, angles, radii) of the voxels, needed for "resnet", else ignored.

    Raises:
      ValueError: for another kind, or a resnet without a shape.
    """
    check_known(("low", "high", "resnet"), kind=kind)
    protocol = ClassifierConfig(
        hidden=(2048, 2048, 2048),
        learning_rate=2e-4,
        batch_size=1000,
        epochs=50,
        num_seeds=10,
        train_fraction=0.6,
        validation_fraction=0.2,
        select="accuracy",
        standardize=False,
    )
    if kind != "resnet":
        return protocol
    return replace(protocol, network="resnet3d", shape=shape, standardize=True)


class ClassifierResult(NamedTuple):
    """Results of the trainings on the test split, one row a seed.

    Attributes:
      auc: area under the ROC curve, 0.5 if the samples cannot be told apart.
      auc_calibrated: the same after isotonic calibration, which merges scores into ties.
      jsd: Jensen-Shannon divergence over ln 2, 1 - BCE / ln 2, of the calibrated classifier. It
        falls below zero if the validation split is too small to calibrate on.
      weights_reference: w = C/(1-C), an estimate of p_reference / p_generated (arXiv:2405.09629,
        Eq. 21) of the uncalibrated classifier, on the reference test events.
      weights_generated: the same on generated test events. Look at both, because failures show
        up in the tails of either (arXiv:2305.16774).
      num_test: effective numbers of reference and generated test events, those of the events where
        they have no weights.
      covariances: of the seeds' `auc`, `auc_calibrated` and `jsd`, by that name, due to the finite
        test split, which they share; 1/num_seeds of the diagonal's mean is far too small for
        classifiers that agree, and the diagonal's mean too large for those that do not.
      best_epoch: epoch whose network was kept, counted from zero.
      train_loss: mean over each epoch.
      validation_loss: after each epoch.
      notes: of columns that were left out or have far outliers, in sentences.
    """

    auc: Float[np.ndarray, " seeds"]
    auc_calibrated: Float[np.ndarray, " seeds"]
    jsd: Float[np.ndarray, " seeds"]
    weights_reference: Float[np.ndarray, "seeds n_test"]
    weights_generated: Float[np.ndarray, "seeds m_test"]
    num_test: Float[np.ndarray, " two"]
    covariances: dict[str, Float[np.ndarray, "seeds seeds"]]
    best_epoch: Int[np.ndarray, " seeds"]
    train_loss: Float[np.ndarray, "seeds epochs"]
    validation_loss: Float[np.ndarray, "seeds epochs"]
    notes: tuple[str, ...] = ()

    def mean(self, name: str) -> float:
        """Mean over seeds of a field, such as "auc"."""
        return float(np.mean(getattr(self, name)))

    def spread(self, name: str) -> float:
        """Standard deviation over seeds of a field; 0 for one seed.

        This is what papers quote. The seeds share their test events: if they agree it does not
        contain the statistical error, and where there is nothing to learn it is that error.
        """
        values = getattr(self, name)
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

    @property
    def auc_statistical_error(self) -> float:
        """Error of the mean AUC from the finite test split (DeLong et al., Biometrics 44, 837).

        Unlike `auc_error` of one classifier it knows how far the seeds agree: those of one
        distribution against itself have learnt noise, each its own, and the mean of five
        fluctuates up to sqrt(5) less than each.
        """
        return float(np.sqrt(max(np.mean(self.covariances["auc"]), 0.0)))

    @property
    def auc_estimate(self) -> Estimate:
        """Mean AUC over seeds.

        Its error is that of the test split, in quadrature with the part of the spread over seeds
        that the test split does not explain, over the root of their number. It does not contain
        the fluctuation from one training split to another, which is zero for two samples of one
        distribution.
        """
        return self._estimate("auc")

    @property
    def auc_calibrated_estimate(self) -> Estimate:
        """The same of the calibrated AUC."""
        return self._estimate("auc_calibrated")

    @property
    def jsd_estimate(self) -> Estimate:
        """The same of the Jensen-Shannon divergence over ln 2.

        The validation split, on which the classifiers are calibrated, is not in the error.
        """
        return self._estimate("jsd")

    def _estimate(self, name):
        covariance, num = self.covariances[name], len(self.auc)
        variance = np.mean(covariance)
        if num > 1:
            diagonal = np.trace(covariance) / num
            shared = (np.sum(covariance) - num * diagonal) / (num * (num - 1))
            variance += max(self.spread(name) ** 2 - (diagonal - shared), 0.0) / num
        return Estimate(self.mean(name), float(np.sqrt(max(variance, 0.0))))


def classifier_test(
    reference: Real[np.ndarray, "n d"],
    generated: Real[np.ndarray, "m d"],
    key: Key,
    config: ClassifierConfig | None = None,
    *,
    reference_weights: Real[np.ndarray, " n"] | None = None,
    generated_weights: Real[np.ndarray, " m"] | None = None,
    progress: bool = False,
) -> ClassifierResult:
    """Train classifiers of `reference` (label 1) against `generated` (label 0) and test them.

    The split is drawn once from `key` and shared by all seeds, so that their weights belong to
    the same events; seed i depends on (key, i) only, so more seeds leave the old ones as they
    were. If the samples differ in size, the loss, the accuracy and the calibration weight the
    classes to count equally, so w estimates the ratio of normalised densities.

    The calibration follows the CaloChallenge: isotonic regression fitted on the validation split
    (on which the epoch was chosen, too) and evaluated on the test split. Deviations: the layers of
    the dense network start from LeCun-normal weights and zero biases, and float32 is used
    throughout.

    Each sample stays where it is and is copied to the device once, whatever the number of seeds; on
    a CPU the memory needed is so about twice that of the samples, beside that of the network.

    `trained_classifier` does the same and returns the networks as well.

    Args:
      reference: true events, features as columns.
      generated: the same features of generated events.
      key: of the split and the trainings.
      config: network and training.
      reference_weights: event weights, not negative, of any normalisation. They count in the loss,
        the choice of the epoch, the calibration and all numbers.
      generated_weights: the same of generated events.
      progress: show a bar.

    Raises:
      ValueError: if the shapes do not fit, entries are not finite, weights are unusable, or a
        split is empty.
      FloatingPointError: if a loss is not finite.
    """
    weights = {"reference_weights": reference_weights, "generated_weights": generated_weights}
    return trained_classifier(reference, generated, key, config, **weights, progress=progress)[1]


def trained_classifier(
    reference: Real[np.ndarray, "n d"],
    generated: Real[np.ndarray, "m d"],
    key: Key,
    config: ClassifierConfig | None = None,
    *,
    reference_weights: Real[np.ndarray, " n"] | None = None,
    generated_weights: Real[np.ndarray, " m"] | None = None,
    progress: bool = False,
) -> tuple[Classifier, ClassifierResult]:
    """The networks of a `classifier_test` and its result.

    `classifier.log_ratio(events)` then reweights generated events or finds where they fail; of
    events that the networks were trained on it is an overestimate, see `cross_fitted_log_ratio`.
    """
    config = config or ClassifierConfig()
    samples = [
        check_sample(*named, config)
        for named in (("reference", reference), ("generated", generated))
    ]
    reference, generated = samples
    if reference.shape[1] != generated.shape[1]:
        raise ValueError(
            f"reference has {reference.shape[1]} columns and generated {generated.shape[1]}: "
            "compute the same features for both"
        )
    split_key = stream(key, "split")
    splits = list(
        zip(
            _split(len(reference), jax.random.fold_in(split_key, 1), config),
            _split(len(generated), jax.random.fold_in(split_key, 0), config),
            strict=True,
        )
    )
    data, scaling = placed = place(samples, splits[0], config)
    weights = [
        event_weights(w, len(sample))
        for w, sample in zip((reference_weights, generated_weights), samples, strict=True)
    ]
    train, validation, test = (labelled(*rows, *weights) for rows in splits)
    classifier, history = train_seeds(placed, train, validation, key, config, progress)
    logits = [
        apply_seeds(classifier.params, data, part.rows, config) for part in (validation, test)
    ]
    result = _evaluate(validation, test, *logits, *history)
    return classifier, result._replace(notes=scaling.notes(samples))


def area_under_curve(
    reference_scores: Real[np.ndarray, " n"],
    generated_scores: Real[np.ndarray, " m"],
    reference_weights: Real[np.ndarray, " n"] | None = None,
    generated_weights: Real[np.ndarray, " m"] | None = None,
) -> float:
    """Probability that a reference event scores above a generated one; ties count one half.

    Raises:
      ValueError: if a score is NaN, or weights do not fit, are negative or all zero.
    """
    scores = [sample_array(s, "scores") for s in (reference_scores, generated_scores)]
    weights = [
        event_weights(w, len(s))
        for w, s in zip((reference_weights, generated_weights), scores, strict=True)
    ]
    unique, index = np.unique(np.concatenate(scores), return_inverse=True)
    parts = np.split(index, [len(scores[0])])
    of_reference, of_generated = (
        np.bincount(i, w, len(unique)) for i, w in zip(parts, weights, strict=True)
    )
    below = np.cumsum(of_generated) - of_generated / 2
    return float(np.sum(of_reference * below) / (of_reference.sum() * of_generated.sum()))


def auc_error(auc: float, n: float, m: float) -> float:
    """Statistical error of an AUC of n against m events (Hanley and McNeil, Radiology 143, 29).

    At 0.5 it is sqrt((n + m + 1) / (12 n m)), the exact spread for samples of one distribution. Of
    weighted events n and m are the effective numbers, (sum w)^2 / sum w^2.

    Raises:
      ValueError: unless the AUC is in [0, 1] and the numbers are positive.
    """
    check_positive(n=n, m=m)
    fraction_array(auc, "auc", ndim=0)
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (n - 1) * (q1 - auc**2) + (m - 1) * (q2 - auc**2)
    # Rounding can leave a tiny negative number at an AUC of one.
    return float(np.sqrt(max(variance, 0.0) / (n * m)))


def check_sample(name, sample, config):
    """The sample as an array, or a ValueError that names it and what is wrong."""
    sample = real_array(sample, name)
    if sample.ndim != 2 or 0 in sample.shape:
        raise ValueError(f"{name} needs the shape [events, features], got {sample.shape}")
    if config.network == "resnet3d" and sample.shape[1] != 1 + math.prod(config.shape):
        raise ValueError(
            f"{name} has {sample.shape[1]} columns, but the grid {config.shape} needs "
            f"{1 + math.prod(config.shape)}: log10 of the incident energy, then all voxels"
        )
    # Column by column of blocks, so that no mask as large as the sample is needed.
    finite = np.ones(sample.shape[1], bool)
    for block in np.array_split(sample, 1 + len(sample) // 2048):
        # Scaled columns may be beyond single precision.
        block = block if config.standardize else block.astype(np.float32)
        finite &= np.isfinite(block).all(axis=0)
    bad = np.flatnonzero(~finite)
    if len(bad):
        raise ValueError(
            f"{name} is not finite{'' if config.standardize else ' (as float32)'} in {len(bad)} of "
            f"{sample.shape[1]} columns, the first is column {bad[0]}: repair the feature or drop "
            "the events"
        )
    return sample


def _split(num, key, config):
    """Row numbers of the training, validation and test split of `num` events."""
    num_train = round(config.train_fraction * num)
    num_validation = round(config.validation_fraction * num)
    if min(num_train, num_validation, num - num_train - num_validation) < 1:
        raise ValueError(f"{num} events are too few for a training, validation and test split")
    order = np.asarray(jax.random.permutation(key, num))
    return np.split(order, [num_train, num_train + num_validation])


def labelled(reference, generated, reference_weights, generated_weights):
    """A split of rows of the data, in which the reference comes first."""
    n, m = len(reference), len(generated)
    label = np.repeat(np.array([1, 0], np.float32), [n, m])
    # Mean one, and each class adds up to one half of the sum.
    weight = np.repeat(np.array([0.5 / n, 0.5 / m], np.float32) * (n + m), [n, m])
    weights = [reference_weights[reference], generated_weights[generated]]
    if min(w.sum() for w in weights) == 0:
        raise ValueError("a split has no events but of weight zero: pass more events")
    weight *= np.concatenate([w / w.mean() for w in weights]).astype(np.float32)
    rows = np.concatenate([reference, len(reference_weights) + generated]).astype(np.int32)
    return Part(*map(jnp.asarray, (rows, label, weight)))


def _evaluate(validation, test, validation_logits, logits, best_epoch, train_loss, validation_loss):
    validation, test = jax.tree.map(np.asarray, (validation, test))
    is_reference = test.label > 0
    # In float64 the weights cannot overflow.
    validation_logits, logits = (np.asarray(a, np.float64) for a in (validation_logits, logits))
    found = {"auc": [], "auc_calibrated": [], "jsd": []}  # by seed: number, shares of test events
    for fitted, score in zip(validation_logits, logits, strict=True):
        c = _calibrated(fitted, validation, score)
        for name, scores in (("auc", score), ("auc_calibrated", c)):
            found[name].append((_area(scores, test), _area_shares(scores, test)))
        information = 1 + np.log2(np.where(is_reference, c, 1 - c))
        jsd, weight = np.average(information, weights=test.weight), test.weight / test.weight.sum()
        found["jsd"].append((jsd, weight * (information - jsd)))
    covariances = {
        name: (shares := np.array([share for _, share in seeds])) @ shares.T
        for name, seeds in found.items()
    }
    weights = np.exp(np.clip(logits, -50, 50))  # a certain classifier must not overflow float32
    return ClassifierResult(
        *(np.array([number for number, _ in seeds]) for seeds in found.values()),
        weights[:, is_reference],
        weights[:, ~is_reference],
        np.array([_effective(test.weight[which]) for which in (is_reference, ~is_reference)]),
        covariances,
        best_epoch,
        train_loss,
        validation_loss,
    )


def _area(scores, part):
    which = part.label > 0
    parts = [a[rows] for a in (scores, part.weight) for rows in (which, ~which)]
    return area_under_curve(*parts)


def _area_shares(scores, part):
    """Share of each event in an AUC's deviation; the sum of squares is its variance (DeLong)."""
    shares, is_reference = np.empty(len(scores)), part.label > 0
    weight = part.weight.astype(np.float64)
    for which, sign in ((is_reference, 1), (~is_reference, -1)):
        order = np.argsort(scores[~which])
        others, other_weight = scores[~which][order], weight[~which][order]
        total = np.concatenate([[0.0], np.cumsum(other_weight)]) / other_weight.sum()
        # Of the other sample's events: the fraction below, equal ones count one half.
        sides = (total[np.searchsorted(others, scores[which], s)] for s in ("left", "right"))
        below, own = sum(sides) / 2, weight[which] / weight[which].sum()
        shares[which] = sign * own * (below - np.sum(own * below))
    return shares


def _effective(weights):
    """Number of events without weights that would have the same statistical errors."""
    return np.sum(weights, dtype=np.float64) ** 2 / np.sum(weights.astype(np.float64) ** 2)


def _calibrated(scores, part, new_scores):
    """Isotonic probabilities at `new_scores`, fitted to `scores` on a labelled part.

    Equal scores share one probability, between scores it is interpolated, and it stays 1e-6 away
    from 0 and 1 so that the cross-entropy is finite; all as in the CaloChallenge.
    """
    unique, index = np.unique(scores[part.weight > 0], return_inverse=True)
    part = Part(*(None if a is None else a[part.weight > 0] for a in part))
    weight = np.bincount(index, part.weight)
    label = np.bincount(index, part.weight * part.label) / weight
    fit = isotonic_regression(label, weights=weight).x
    return np.clip(np.interp(new_scores, unique, fit), 1e-6, 1 - 1e-6)

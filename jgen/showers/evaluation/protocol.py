"""The CaloChallenge's protocol as one call: every metric beside that of truth against truth."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from scipy.stats import ks_2samp

from jgen.arrays import evenly, quiet_samples
from jgen.estimate import Judged
from jgen.metrics import (
    ClassifierComparison,
    ClassifierConfig,
    Comparison,
    calochallenge_classifier,
    classifier_comparison,
    frechet_physics_distance,
    kernel_physics_distance,
    precision_recall_density_coverage,
)
from jgen.metrics.frechet import scale_notes
from jgen.overlap import COPIES, check_disjoint, largest_share
from jgen.random import stream
from jgen.showers.data.geometry import Geometry
from jgen.showers.data.hdf5 import Showers, check_showers, check_units
from jgen.showers.evaluation.copies import copies, fingerprints
from jgen.showers.evaluation.response import ResponseTest, response_test
from jgen.showers.evaluation.separations import apply_threshold, low_level_inputs, separations
from jgen.showers.evaluation.structure import layer_moments, structure
from jgen.showers.observables.features import compute_high_level_inputs, compute_observables
from jgen.typing import Key

# Of each sample; fewer leave a classifier's splits or a bin of the response empty.
FEWEST_SHOWERS = 20


@dataclass(frozen=True)
class EvaluationConfig:
    """How showers are judged."""

    classifier: ClassifierConfig = ClassifierConfig()
    """Network and training of the classifier tests; a resnet takes the training only."""
    classifiers: tuple[Literal["high", "low", "resnet"], ...] = ("high", "low")
    """Tests: of high-level features, of voxels, of voxels by a convolutional network."""
    protocol: Literal["jgen", "calochallenge"] = "jgen"
    """calochallenge takes the official classifiers with ten trainings each in place of
    `classifier`; they are made for 100,000 showers and a GPU."""
    bootstrap: int = 100
    """Resamplings behind the errors of separation powers and distances."""
    fpd: bool = True
    """Frechet physics distance."""
    fpd_batches: int = 20
    """Batches of each size that it is extrapolated from; 20 as published, a third of a second each
    on one core."""
    kpd: bool = True
    """Kernel physics distance."""
    prdc: bool = True
    """Precision, recall, density and coverage."""
    copies: bool = True
    """Showers that are returned from the training or again and again; of 100,000 showers each it
    takes as long as precision and recall."""
    response: bool = True
    """Energy response in bins of the incident energy."""
    permutations: int = 2000
    """Permutations behind the p-values of the response."""
    threshold: float | None = 1.0
    """Separation powers are also computed with voxels at or below it [MeV] set to zero
    (arXiv:2405.09629, Eq. 20); None leaves that out."""

    def __post_init__(self):
        """Refuse what would leave metrics without an error, and unknown choices."""
        if self.bootstrap < 2:
            raise ValueError(f"bootstrap errors need at least 2 resamplings, got {self.bootstrap}")
        if self.permutations < 1 or self.fpd_batches < 1:
            raise ValueError(
                "p-values need at least 1 permutation and the Frechet distance 1 batch, got "
                f"{self.permutations} and {self.fpd_batches}"
            )
        if unknown := set(self.classifiers) - {"high", "low", "resnet"}:
            raise ValueError(
                f"classifiers must be some of 'high', 'low' and 'resnet', got {sorted(unknown)}"
            )
        if self.protocol not in ("jgen", "calochallenge"):
            raise ValueError(f"protocol must be 'jgen' or 'calochallenge', got {self.protocol!r}")
        if self.threshold is not None and not self.threshold >= 0:
            raise ValueError(f"the threshold must be an energy >= 0 MeV, got {self.threshold}")


class Evaluation(NamedTuple):
    """Results of `evaluate`; `jgen.save` and `jgen.load` keep it in a file.

    Attributes:
      metrics: name -> `Judged`, or a number that has no truth beside it; `jgen.estimate.flatten`
        makes them numbers.
      table: separation powers and distances, also by layer.
      classifiers: tests by tag.
      response: energy responses of generated showers and of the holdout ("generated", "truth").
      notes: what a reader of the numbers has to know, in sentences.
    """

    metrics: dict[str, Judged | float]
    table: Comparison
    classifiers: dict[str, ClassifierComparison]
    response: dict[str, ResponseTest]
    notes: tuple[str, ...]


# What metrics warn of by themselves is among the notes.
@quiet_samples()
def evaluate(
    geometry: Geometry,
    reference: Showers,
    generated: Showers,
    key: Key,
    config: EvaluationConfig | None = None,
    *,
    holdout: Showers | None = None,
    training: Showers | None = None,
    progress: bool = False,
) -> Evaluation:
    """Every metric of generated showers beside that of a second sample of true ones.

    Metrics that depend on the sample size see samples of equal size, showers taken at even
    distances. The response, whose p-values do not, sees all showers.

    The names are `separation/NAME` and `wasserstein/NAME` (means over layers, see `separations`),
    `separation_cut/NAME` after the threshold's cut, `auc_high` and more as
    `jgen.metrics.classifier_comparison` says, `fpd`, `kpd`, `precision`, `recall`, `density`,
    `coverage`, `response/NAME` as in `response_test`, `copies/NAME` as in `copies` and
    `structure/NAME` as in `structure`; each is `Judged`, with the number of
    reference against holdout as its `truth`. Beside them: `num_showers` of each equal sample,
    `incident_energy_p`, the p-value of a Kolmogorov-Smirnov test of both spectra, and
    `shared_energies`, the fraction of generated showers with an incident energy that a reference
    shower has, too.

    `fpd`, `kpd` and the four after them are of all high-level inputs, 362 of datasets 2 and 3,
    log10 E_inc among them:
    the official code removes the class label only. Published tables list FPD and KPD times 1e3,
    these are not multiplied. Geant4 against Geant4 is not zero for finite samples: 10.8e-3 is the
    published FPD of 100,000 showers (arXiv:2410.21611), and the fewer showers, the larger.

    Args:
      geometry: of all showers; a resnet needs a regular grid.
      reference: true showers that the generator has not seen.
      generated: with incident energies of the same spectrum, but not those of `reference`
        themselves, which would hide statistical fluctuations that the truth column has.
      key: PRNG key of the classifiers.
      config: what is done, and sizes.
      holdout: other true showers; the training sample will do, being drawn from the same truth.
        Without them every second reference shower becomes one. Then the response compares the
        whole reference with the generated showers.
      training: what the generator was trained on, all of it, disjoint from the reference; without
        it nobody sees whether these showers are returned.
      progress: show progress bars.

    Raises:
      ValueError: if showers are not usable (NaN, negative, wrong number of voxels, too few), the
        holdout or the training has showers of the reference, or a resnet has no regular grid.
    """
    config = EvaluationConfig() if config is None else config
    whole = reference
    if holdout is None:
        reference, holdout = (_rows(whole, np.s_[i::2]) for i in (0, 1))
    _check(geometry, {"reference": reference, "holdout": holdout, "generated": generated}, config)
    notes = _copy_notes(generated, {"reference": reference, "holdout": holdout})
    notes += _spectrum_notes(spectra := _compare_spectra(whole, generated))
    responses = {}
    if config.response:
        responses = _responses(geometry, whole, reference, holdout, generated, config)
    size = min(len(s.energies) for s in (reference, holdout, generated))
    samples = [Showers(*(evenly(a, size) for a in s)) for s in (reference, holdout, generated)]
    table = separations(geometry, *samples, num_bootstrap=config.bootstrap)
    cut = {}
    if config.threshold is not None:
        kept = [apply_threshold(s, config.threshold) for s in samples]
        notes += _threshold_notes(samples[0], kept[0], config.threshold)
        cut = separations(geometry, *kept, num_bootstrap=config.bootstrap).metrics
    features = [compute_high_level_inputs(geometry, s) for s in samples]
    planted = _structure_metrics(geometry, samples, features, training, config)
    tests = _classifier_tests(geometry, samples, features, key, config, progress)
    metrics = table.metrics | {"num_showers": float(size)} | spectra
    for test in tests.values():
        metrics |= test.metrics
    metrics |= _feature_metrics(*features, config)
    if responses:
        made, true = (responses[name].numbers for name in ("generated", "truth"))
        metrics |= {f"response/{name}": Judged(made[name], true[name]) for name in made}
    for name, value in cut.items():
        if name.startswith("separation/"):
            metrics[name.replace("/", "_cut/")] = value
    metrics |= planted
    notes += _scale_notes(*features, config) + _range_notes(metrics)
    notes += tuple(note for test in tests.values() for note in test.notes)
    return Evaluation(metrics, table, tests, responses, notes)


def _check(geometry: Geometry, samples: Mapping[str, Showers], config: EvaluationConfig) -> None:
    if "resnet" in config.classifiers and not geometry.is_regular:
        raise ValueError(
            f"a resnet needs a regular grid, but the layers of {geometry.name!r} differ in their "
            "binning: leave it out of the classifiers"
        )
    for name, showers in samples.items():
        check_showers(showers, geometry, source=name)
        if len(showers.energies) < FEWEST_SHOWERS:
            raise ValueError(
                f"{name} has {len(showers.energies)} showers, but a comparison needs "
                f"{FEWEST_SHOWERS} at least; without a holdout the reference is cut in two halves"
            )
    for name in ("reference", "holdout"):
        check_units(samples[name], geometry, source=name)
    responses = [
        np.median(s.voxels.sum(axis=1, dtype=np.float64) / s.energies)
        for s in (samples["generated"], samples["reference"])
    ]
    for unit, factor in (("GeV", 1e-3), ("keV", 1e3)):
        if 0.3 * factor < responses[0] / max(responses[1], 1e-300) < 3 * factor:
            raise ValueError(
                f"the median E_tot/E_inc is {responses[0]:.2g} of generated showers and "
                f"{responses[1]:.2g} of the reference; their voxels look like {unit}, but all "
                "energies must be in MeV"
            )
    check_disjoint(*(samples[name]._asdict() for name in ("reference", "holdout")))


def _rows(showers, index):
    return Showers(showers.energies[index], showers.voxels[index])


def _compare_spectra(reference: Showers, generated: Showers) -> dict[str, float]:
    first, second = (np.asarray(s.energies, np.float32) for s in (reference, generated))
    shared = float(np.mean(np.isin(second, first)))
    # Data sets of a few fixed energies share them all, which hides nothing.
    few_energies = len(np.unique(first)) < len(first) / 2
    return {
        "incident_energy_p": float(ks_2samp(first, second, method="asymp").pvalue),
        "shared_energies": 0.0 if few_energies else shared,
    }


def _spectrum_notes(spectra: Mapping[str, float]) -> tuple[str, ...]:
    notes = []
    if (p := spectra["incident_energy_p"]) < 1e-3:
        notes.append(
            f"The spectra of incident energies differ (Kolmogorov-Smirnov p = {p:.1g}): every "
            "metric but the response sees that, too. Generate showers of the reference's spectrum."
        )
    if (shared := spectra["shared_energies"]) > 0.01:
        notes.append(
            f"{100 * shared:.0f} % of the generated showers have an incident energy of the "
            "reference: fluctuations of the spectrum cancel, and generated showers may look "
            "better than truth. Take other energies of the same spectrum."
        )
    return tuple(notes)


def _copy_notes(generated: Showers, truths: Mapping[str, Showers]) -> tuple[str, ...]:
    """Samples of the truth that generated showers are copied from."""
    shares = {name: largest_share(generated._asdict(), s._asdict()) for name, s in truths.items()}
    return tuple(
        f"{100 * share:.3g} % of the generated showers are showers of the {name}, voxel for voxel: "
        "they look better than they are."
        for name, share in shares.items()
        if share > COPIES
    )


def _threshold_notes(reference: Showers, kept: Showers, threshold: float) -> tuple[str, ...]:
    """Whether a cut leaves next to nothing, as one in other units does."""
    removed = 1 - kept.voxels.sum(dtype=np.float64) / reference.voxels.sum(dtype=np.float64)
    if not removed > 0.5:
        return ()
    return (
        f"The threshold of {threshold:g} MeV removes {100 * removed:.0f} % of the energy of the "
        "reference: is it in MeV?",
    )


def _scale_notes(reference, holdout, generated, config) -> tuple[str, ...]:
    """Features that the scale of the Frechet and kernel distances, max |reference|, blows up."""
    if not (config.fpd or config.kpd):
        return ()
    largest = [np.abs(sample).max(axis=0) for sample in (reference, holdout, generated)]
    beyond = [int(np.sum((largest[0] > 0) & (a > 100 * largest[0]))) for a in largest[1:]]
    notes = tuple(f"FPD and KPD: {note}" for note in scale_notes(reference))
    least = min(map(len, (reference, holdout, generated)))
    if config.fpd and least < (num := reference.shape[1]):
        notes += (
            f"FPD: covariances of {num} features are singular with {least} showers; compare it "
            "with the truth's and with nothing else, or take more showers.",
        )
    if not any(beyond):
        return notes
    return (
        *notes,
        f"{beyond[1]} features of the generated showers ({beyond[0]} of truth) exceed 100 times "
        "the largest reference value, by which FPD and KPD divide: these two mean nothing here. "
        "Take more reference showers.",
    )


def _range_notes(metrics: Mapping[str, Judged | float]) -> tuple[str, ...]:
    """Observables with a wrong rate of entries outside of the official histograms."""
    notes = []
    for name, value in metrics.items():
        side, _, observable = name.partition("/")
        if side not in ("underflow", "overflow"):
            continue
        if value.value > max(0.01, 3 * value.truth):
            notes.append(
                f"The fractions of {observable} in the {side} differ by {100 * value.value:.1f} % "
                f"(truth: {100 * value.truth:.1f} %), which its separation power "
                "does not see."
            )
    return tuple(notes)


def _responses(geometry, whole, reference, holdout, generated, config):
    """Responses of all showers, whatever the sample sizes."""
    ratios = lambda s: (s.energies, compute_observables(geometry, s)["E_ratio"])
    test = functools.partial(response_test, num_permutations=config.permutations)
    first, second, made = (ratios(s) for s in (reference, holdout, generated))
    return {
        "generated": test(*(first if whole is reference else ratios(whole)), *made),
        "truth": test(*first, *second),
    }


def _classifier_tests(geometry, samples, features, key, config, progress):
    tests = {}
    for tag in config.classifiers:
        inputs = features if tag == "high" else [low_level_inputs(s) for s in samples]
        protocol = _classifier(tag, geometry, config)
        tests[tag] = classifier_comparison(
            *inputs, stream(key, tag), tag, protocol, progress=progress
        )
    return tests


def _classifier(tag, geometry, config):
    if config.protocol == "calochallenge":
        return calochallenge_classifier(tag, geometry.shape if tag == "resnet" else None)
    if tag == "resnet":
        return replace(config.classifier, network="resnet3d", shape=geometry.shape, dropout=0.0)
    return config.classifier


def _structure_metrics(geometry, samples, features, training, config):
    """What separations of single observables do not see."""
    found = {}
    if config.copies or training is not None:
        known = [fingerprints(geometry, *pair) for pair in zip(samples, features, strict=True)]
        if training is not None:
            check_showers(training, geometry, source="training")
            known.append(fingerprints(geometry, training))
        found = copies(*known)
    moments = [layer_moments(geometry, s) for s in samples]
    return found | structure(*moments, num_bootstrap=config.bootstrap)


def _feature_metrics(reference, holdout, generated, config):
    """Distances of the high-level features and overlaps of their manifolds."""
    metrics, samples = {}, (generated, holdout)
    distances = {
        "fpd": functools.partial(frechet_physics_distance, num_batches=config.fpd_batches),
        "kpd": kernel_physics_distance,
    }
    for name, distance in distances.items():
        if getattr(config, name):
            metrics[name] = Judged(*(distance(reference, sample).estimate for sample in samples))
    if config.prdc:
        made, true = (precision_recall_density_coverage(reference, s) for s in samples)
        names = made._fields
        metrics |= {name: Judged(getattr(made, name), getattr(true, name)) for name in names}
    return metrics

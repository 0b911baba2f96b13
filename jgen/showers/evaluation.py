"""Judge generated showers: separation powers, Wasserstein distances and classifier tests."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jgen.files import atomic_path
from jgen.metrics import (
    ClassifierComparison,
    ClassifierConfig,
    ClassifierResult,
    Comparison,
    classifier_comparison,
    compare,
)
from jgen.random import stream
from jgen.showers.features import (
    compute_high_level_inputs,
    compute_observables,
    official_binning,
)
from jgen.showers.geometry import Geometry
from jgen.showers.hdf5 import Showers
from jgen.typing import Key

# Observables with an official binning, by the name that they have in the metrics. Total energies
# are compared relative to the incident energy.
JUDGED = {"E_tot": "E_ratio"} | {
    name: name
    for name in (
        "E_layer",
        "EC_eta",
        "EC_phi",
        "EC_r",
        "width_eta",
        "width_phi",
        "width_r",
        "sparsity",
    )
}


@dataclass(frozen=True)
class EvaluationConfig:
    """How showers are judged."""

    classifier: ClassifierConfig = ClassifierConfig()
    """Network and training of both classifier tests."""
    bootstrap: int = 100
    """Resamplings behind the errors of separation powers and distances."""

    def __post_init__(self):
        """Refuse what would leave metrics without an error."""
        if self.bootstrap < 2:
            raise ValueError(f"bootstrap errors need at least 2 resamplings, got {self.bootstrap}")


class Evaluation(NamedTuple):
    """What `evaluate` found.

    Attributes:
      metrics: flat dictionary, name -> number.
      table: separation powers and distances, also by layer.
      high: classifier test on the high-level features.
      low: classifier test on the voxels.
    """

    metrics: dict[str, float]
    table: Comparison
    high: ClassifierComparison
    low: ClassifierComparison


def evaluate(
    geometry: Geometry,
    reference: Showers,
    holdout: Showers,
    generated: Showers,
    key: Key,
    config: EvaluationConfig | None = None,
    *,
    progress: bool = False,
) -> Evaluation:
    """Every metric of generated showers beside that of a second sample of true ones.

    Samples are cut to the size of the smallest, so that both columns have the same statistics.

    Args:
      geometry: of all showers; a regular grid.
      reference: true showers that the generator has not seen.
      holdout: other true showers; the training sample will do, being drawn from the same truth.
      generated: with incident energies of the same spectrum, but not those of `reference`
        themselves, which would hide statistical fluctuations that the truth column has.
      key: PRNG key of the classifiers.
      config: sizes.
      progress: show progress bars.

    Returns:
      Metrics `separation/NAME` and `wasserstein/NAME` (mean over layers), `auc_high`, `auc_low`
      and more as `jgen.metrics` names them, with the suffixes `_truth` and `_error`.
    """
    config = EvaluationConfig() if config is None else config
    size = min(len(s.energies) for s in (reference, holdout, generated))
    samples = [Showers(s.energies[:size], s.voxels[:size]) for s in (reference, holdout, generated)]
    observables = [judged_observables(geometry, s) for s in samples]
    table = compare(
        *observables,
        lambda name, values: binning(geometry, name, values),
        num_bootstrap=config.bootstrap,
    )
    metrics = dict(table.numbers)
    tests = {}
    for tag, inputs in (
        ("high", lambda s: compute_high_level_inputs(geometry, s)),
        ("low", low_level_inputs),
    ):
        tests[tag] = classifier_comparison(
            *[inputs(s) for s in samples],
            stream(key, tag),
            tag,
            config.classifier,
            progress=progress,
        )
        metrics |= tests[tag].numbers
    return Evaluation(metrics | {"num_showers": size}, table, tests["high"], tests["low"])


def judged_observables(geometry: Geometry, showers: Showers) -> dict[str, np.ndarray]:
    """Observables [n] or [n, layers] that have an official binning, by metric name."""
    found = compute_observables(geometry, showers)
    return {name: found[key] for name, key in JUDGED.items()}


def binning(
    geometry: Geometry, name: str, reference: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " edges"]:
    """Official edges of a metric's observable, also where no reference shower has any energy."""
    floor = geometry.histogram_floor
    if name == "E_tot" and np.mean((reference > 0.5) & (reference < 1.5)) < 0.5:
        # The official range is that of the CaloChallenge's calibration; this is another one.
        return np.linspace(reference.min(), reference.max(), 101)
    if name == "E_layer" and not np.any(reference > floor):
        # Without an upper edge from the reference, one bin that generated energy falls into.
        return np.array([floor, 1e6])
    return official_binning(geometry, JUDGED.get(name, name), reference)


def low_level_inputs(showers: Showers) -> Float[np.ndarray, "n inputs"]:
    """Inputs of the official low-level classifier: log10 E_inc, then voxels over E_inc."""
    energies = np.asarray(showers.energies, np.float32)[:, None]
    return np.concatenate([np.log10(energies), showers.voxels / energies], axis=1)


def save_evaluation(path: str | os.PathLike, evaluation: Evaluation) -> None:
    """Write an evaluation as one .npz file."""
    arrays = {f"layers/{name}": values for name, values in evaluation.table.columns.items()}
    for tag in ("high", "low"):
        comparison = getattr(evaluation, tag)
        for sample in ("generated", "truth"):
            for field, values in getattr(comparison, sample)._asdict().items():
                arrays[f"{tag}/{sample}/{field}"] = values
    header = {"metrics": evaluation.metrics, "num_events": evaluation.table.num_events}
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, header=json.dumps(header), **arrays)


def load_evaluation(path: str | os.PathLike) -> Evaluation:
    """Read what `save_evaluation` wrote."""
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(arrays.pop("header").item())
    metrics = header["metrics"]
    part = lambda prefix: {
        name.removeprefix(prefix): values
        for name, values in arrays.items()
        if name.startswith(prefix)
    }
    tests = [
        ClassifierComparison(
            {name: value for name, value in metrics.items() if f"_{tag}" in name},
            *[ClassifierResult(**part(f"{tag}/{sample}/")) for sample in ("generated", "truth")],
        )
        for tag in ("high", "low")
    ]
    numbers = {name: value for name, value in metrics.items() if "/" in name}
    table = Comparison(numbers, part("layers/"), header["num_events"])
    return Evaluation(metrics, table, *tests)


def summary_table(metrics: Mapping[str, float]) -> str:
    """The main metrics as text: generated and truth, both against the reference."""
    names = [name for name in metrics if f"{name}_truth" in metrics and f"{name}_error" in metrics]
    lines = [f"{'against the reference':<28}{'generated':>20}{'truth':>20}"]
    for name in names:
        values = [
            f"{metrics[name + suffix]:.4g} +- {metrics[name + suffix + '_error']:.1g}"
            for suffix in ("", "_truth")
        ]
        lines.append(f"{name:<28}{values[0]:>20}{values[1]:>20}")
    return "\n".join(lines)

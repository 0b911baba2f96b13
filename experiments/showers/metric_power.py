"""Which metric sees which fault of a shower generator, and from which size on.

    python -m experiments metric_power

plants faults in Geant4 showers: training showers that are returned, showers that are repeated,
layers turned against each other, a layer that is dropped, a beam spot that is off in the angle.
All metrics without a classifier compare them with other Geant4 showers; a metric sees a fault if it
exceeds the 95 % quantile of truth against truth. --data takes more showers than the bundled ones,
which reach samples of 1500. --auc adds the classifier of high-level features.

Time: 5 minutes of processor time (smoke: 20 s). Numbers: results/showers.md.
"""

import functools
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from experiments.study import Run, Study, at_least, main, table
from jgen import plotting
from jgen.arrays import quiet_samples
from jgen.metrics import (
    ClassifierConfig,
    classifier_test,
    column_separations,
    frechet_distance,
    moments,
    polynomial_mmd,
    precision_recall_density_coverage,
    wasserstein,
)
from jgen.metrics.frechet import scaled_features
from jgen.random import numpy_generator
from jgen.showers import (
    Geometry,
    Showers,
    binning,
    count_showers,
    get_geometry,
    judged_observables,
    read_showers,
    sample_path,
)
from jgen.showers.evaluation import (
    Fingerprints,
    LayerMoments,
    copies,
    fingerprints,
    layer_moments,
    structure,
)

# Fault -> sizes: fractions of the showers, of the beam spot the dipole (1 + size cos alpha) that
# every layer and radius is weighted with.
FAULTS = {
    "none": (0.0,),
    "training returned": (0.005, 0.01, 0.02, 0.1, 1.0),
    "duplicates": (0.005, 0.01, 0.02, 0.1),
    "layers turned": (0.03, 0.1, 0.3, 1.0),
    "layer dropped": (0.01, 0.03, 0.1, 0.3),
    "beam spot": (0.02, 0.05, 0.1, 0.2),
}
CASES = [(fault, size) for fault, sizes in FAULTS.items() for size in sizes]
LEVEL = 0.95


@dataclass(frozen=True)
class Config:
    """Faults against metrics."""

    data: tuple[str, ...] = ()
    """HDF5 files of true showers; the bundled ones without any."""
    geometry: Literal["ds2", "ds3"] = "ds2"
    """Voxels of the files."""
    sizes: tuple[int, ...] = (300, 1000)
    """Showers of each sample; reference and generated showers are disjoint, and what remains, as
    many at most, are training showers. 3200 bundled showers reach 1500."""
    tries: int = 20
    """Samples with each fault."""
    truth_tries: int = 60
    """Samples of truth against truth behind each threshold."""
    num_showers: int = 0
    """Showers that are read; 0 reads all."""
    auc: bool = False
    """Train a classifier of high-level features for every sample, too."""
    seed: int = 0
    """Of the splits and faults."""


DEFAULT = Config()
SMOKE = Config(sizes=(60,), tries=2, truth_tries=6, num_showers=200)
# Of `--auc`: small, since it is trained for every sample.
CLASSIFIER = ClassifierConfig(hidden=(64, 64), learning_rate=1e-3, epochs=20, num_seeds=1)


class Described(NamedTuple):
    """What the metrics look at, one row a shower."""

    observables: dict[str, np.ndarray]
    known: Fingerprints
    layers: LayerMoments


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, tries=1, truth_tries=5, num_showers=0)
    if min(config.sizes, default=0) < 20:
        raise ValueError(f"sizes must be 20 showers or more, got {config.sizes}")


@functools.lru_cache(maxsize=1)
def load(config: Config) -> Showers:
    """The true showers."""
    paths = config.data or (str(sample_path()),)
    num = min(count_showers(paths), config.num_showers or np.inf)
    if num < (needed := round(2.1 * max(config.sizes))):
        raise ValueError(
            f"samples of {max(config.sizes)} need {needed} showers: reference, generated, and a "
            f"tenth as many for training; there are {num}, so take sizes up to "
            f"{int(num / 2.1)} or pass more files by --data"
        )
    return read_showers(paths, get_geometry(config.geometry), 0, num)


def turned(voxels, rng):
    """Every layer of every shower turned by an angle of its own."""
    num, layers, angles, _ = voxels.shape
    rows = (np.arange(angles) + rng.integers(angles, size=(num, layers, 1))) % angles
    return np.take_along_axis(voxels, rows[..., None], axis=2)


def dropped(voxels, rng):
    """One layer of those with energy is empty."""
    filled = voxels.sum(axis=(2, 3)) > 0
    chosen = np.argmax(filled * rng.random(filled.shape), axis=1)
    keep = np.ones(filled.shape, voxels.dtype)
    keep[np.arange(len(keep)), chosen] = 0
    return voxels * keep[..., None, None]


def displaced(voxels, size):
    """More energy at the angle zero, as much in every layer and radius as before."""
    angles = 2 * np.pi * (np.arange(voxels.shape[2]) + 0.5) / voxels.shape[2] - np.pi
    weighted = voxels * (1 + size * np.cos(angles)).astype(voxels.dtype)[:, None]
    before, after = (v.sum(axis=2, keepdims=True) for v in (voxels, weighted))
    return weighted * (before / np.where(after > 0, after, 1))


def describe(geometry: Geometry, showers: Showers, voxels: np.ndarray) -> Described:
    """Everything that the metrics need of showers with other voxels."""
    made = showers._replace(voxels=voxels.reshape(len(voxels), -1))
    known = fingerprints(geometry, made)
    return Described(judged_observables(geometry, made), known, layer_moments(geometry, made))


def pools(config: Config, run: Run) -> dict[str, Described]:
    """All showers as they are and with each fault that changes showers."""
    geometry, showers = get_geometry(config.geometry), load(config)
    voxels, rng = showers.voxels.reshape(-1, *geometry.shape), numpy_generator(run.key("faults"))
    results = {
        "none": describe(geometry, showers, voxels),
        "layers turned": describe(geometry, showers, turned(voxels, rng)),
        "layer dropped": describe(geometry, showers, dropped(voxels, rng)),
    }
    for size in FAULTS["beam spot"]:
        results[f"beam spot {size}"] = describe(geometry, showers, displaced(voxels, size))
    return results


def rows(pool: Described, index) -> Described:
    """Some of the showers."""
    return jax.tree.map(lambda a: a[index], pool)


def joined(*parts: Described) -> Described:
    """All showers of both."""
    return jax.tree.map(lambda *a: np.concatenate(a), *parts)


def plant(pool, fault, size, generated, training, rng) -> Described:
    """A sample of as many showers as `generated` has rows, with a fault."""
    truth, num = pool["none"], round(size * len(generated))
    if fault == "beam spot":
        return rows(pool[f"beam spot {size}"], generated)
    if fault in pool and fault != "none":
        return joined(rows(pool[fault], generated[:num]), rows(truth, generated[num:]))
    if fault == "training returned":
        generated[:num] = rng.choice(training, num, replace=num > len(training))
    if fault == "duplicates":
        generated[:num] = rng.choice(generated[num:], num)
    return rows(truth, generated)


def scores(geometry: Geometry, reference: Described, made: Described, training: Described) -> dict:
    """Metrics, the larger the stranger: distances as they are, p-values and overlaps negative."""
    results = {}
    for name, values in reference.observables.items():
        pair = [v.reshape(len(v), -1) for v in (values, made.observables[name])]
        results[f"wasserstein/{name}"] = float(wasserstein(*pair, num_bootstrap=0).value.mean())
        edges = [binning(geometry, name, column) for column in pair[0].T]
        power = column_separations(*pair, edges, num_bootstrap=0)
        results[f"separation/{name}"] = float(power.value.mean())
    features = reference.known.features, made.known.features
    scaled = scaled_features(*features)
    results["fpd"] = frechet_distance(*map(moments, scaled))
    results["kpd"] = polynomial_mmd(*scaled)
    overlaps = precision_recall_density_coverage(*features)._asdict()
    results |= {name: -value for name, value in overlaps.items()}
    few = np.s_[:50]  # of a truth that nobody looks at
    own = copies(reference.known, reference.known.rows(few), made.known, training.known)
    together = structure(reference.layers, reference.layers.rows(few), made.layers, num_bootstrap=2)
    for name, judged in (own | together).items():
        if name.endswith("_p") and name != "structure/correlation_p":
            results[name.removesuffix("_p")] = -judged.value
    results["structure/correlation"] = together["structure/correlation"].value.value
    return dict(sorted(results.items()))


# The scaling of the distances is said once, in `evaluate`.
@quiet_samples()
def trials(config: Config, run: Run, pool: dict[str, Described], num: int) -> dict:
    """Case -> metric -> scores [tries]."""
    geometry, total = get_geometry(config.geometry), len(load(config).energies)
    rng, results = numpy_generator(run.key(f"splits of {num}")), {}
    cases = [("truth", 0.0)] * config.truth_tries + CASES * config.tries
    bar = tqdm(cases, desc=f"samples of {num}", unit="sample", disable=not run.is_writer)
    for i, (fault, size) in enumerate(bar):
        order = rng.permutation(total)
        reference, generated, training = np.split(order[: 3 * num], [num, 2 * num])
        made = plant(pool, fault, size, generated, training, rng)
        samples = rows(pool["none"], reference), made, rows(pool["none"], training)
        one = scores(geometry, *samples)
        if config.auc:
            features = [s.known.features for s in samples[:2]]
            key = jax.random.fold_in(run.key("auc"), i)
            one["auc_high"] = classifier_test(*features, key, CLASSIFIER).mean("auc")
        results.setdefault(f"{fault} {size}", []).append(one)
    return {
        case: {name: np.array([s[name] for s in tried]) for name in tried[0]}
        for case, tried in results.items()
    }


def compute(config: Config, run: Run) -> dict:
    """power/NUM/FAULT SIZE/METRIC: fraction of samples in which the metric sees the fault."""
    metrics, pool = {}, functools.lru_cache(maxsize=1)(lambda: pools(config, run))
    for num in config.sizes:
        results = run.cached(f"scores_{num}", lambda: trials(config, run, pool(), num))  # noqa: B023
        for name, truth in results["truth 0.0"].items():
            threshold = np.quantile(truth, LEVEL, method="higher")
            for fault, size in CASES:
                power = np.mean(results[f"{fault} {size}"][name] > threshold)
                metrics[f"power/{num}/{fault} {size}/{name}"] = float(power)
    return metrics


def report(config: Config, run: Run, metrics: dict) -> str:
    """Draw the powers and tabulate the smallest faults that are seen in 95 % of the samples."""
    first = f"power/{config.sizes[0]}/none 0.0/"
    names = [name.removeprefix(first) for name in metrics if name.startswith(first)]
    texts = []
    for num in config.sizes:
        power = lambda fault, size, name: metrics[f"power/{num}/{fault} {size}/{name}"]  # noqa: B023
        powers = {
            fault: np.array([[power(fault, size, name) for size in sizes] for name in names])
            for fault, sizes in FAULTS.items()
        }
        labels = {fault: [f"{100 * s:g}%" for s in sizes] for fault, sizes in FAULTS.items()}
        title = f"Samples of {num} showers: faults seen, in % of {config.tries} tries"
        run.save(f"power_{num}", plotting.power_map(powers, names, labels, title=title))
        seen = lambda values, sizes: [s for v, s in zip(values, sizes, strict=True) if v >= LEVEL]
        faults = list(FAULTS)[1:]
        cells = {
            name: [f"{min(s):g}" if (s := seen(powers[f][i], FAULTS[f])) else "-" for f in faults]
            for i, name in enumerate(names)
            if any(seen(powers[f][i], FAULTS[f]) for f in faults)
        }
        blind = [name for name in names if name not in cells]
        texts.append(table(faults, cells, title=f"smallest seen by {num}"))
        texts.append(f"none of them: {', '.join(blind)}\n")
    return "\n".join(texts)


STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, inputs=load)

if __name__ == "__main__":
    main(STUDY)

"""A toy example for the forecast: generators of known amplification, written as a user's files.

The ring of arXiv:2509.08048, Eq. 5. Members are maximum-likelihood fits of the radius to bootstrap
samples of one training set.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jgen.files import atomic_path
from jgen.generative_model import draw
from jgen.random import member_keys, stream
from jgen.toys import bootstrap_weights, ideal_amplification, quantile_edges, radial_fit, ring

NUM_TRAIN = 1000
NUM_HELD_OUT = 2000
NUM_GENERATED = 100_000
MEMBERS = 20
QUANTILES = 20
RADII = tuple(float(r) for r in quantile_edges(ring().marginals[0], QUANTILES))
REGION = RADII[1:3]
"""Radii of the second of 20 regions of equal probability."""


class ExampleFiles(NamedTuple):
    """Paths of what `write_example` writes; columns are x, y and the radius R."""

    train: Path
    held_out: Path
    generated: tuple[Path, ...]


def example_files(folder: Path) -> ExampleFiles:
    """Their names."""
    generated = tuple(folder / f"generated_{i:02d}.npy" for i in range(MEMBERS))
    return ExampleFiles(folder / "train.npy", folder / "held_out.npy", generated)


def write_example(files: ExampleFiles, seed: int) -> None:
    """Write the training set, held-out events and what each member generated, if missing."""
    key, fit = jax.random.key(seed), radial_fit(2)
    sample = jax.jit(jax.vmap(ring().sample))
    train = sample(jax.random.split(stream(key, "train"), NUM_TRAIN))
    held_out = sample(jax.random.split(stream(key, "held out"), NUM_HELD_OUT))
    _write(files.train, train)
    _write(files.held_out, held_out)
    sample_keys = member_keys(stream(key, "sample"), MEMBERS)
    fit_one = jax.jit(lambda k: fit.fit(train, bootstrap_weights(k, NUM_TRAIN)))
    bootstrap_keys = member_keys(stream(key, "bootstrap"), MEMBERS)
    for path, k_fit, k_sample in zip(files.generated, bootstrap_keys, sample_keys, strict=True):
        if not path.exists():
            events = draw(fit.model, fit_one(k_fit), k_sample, NUM_GENERATED, batch_size=50_000)
            _write(path, events)


def exact_amplifications() -> dict[str, float]:
    """Known G of the example, by the name of the selection; averages over training sets."""
    low, high = RADII[:-1], RADII[1:]
    known = lambda rows: ideal_amplification(
        np.array(low)[rows], np.array(high)[rows], 1.0, 0.1, num_train=NUM_TRAIN
    )
    return {
        "region_1": known([1]),
        "quantiles": known(slice(None)),
        "quantiles_inner": known(slice(1, -1)),
        "quantile_lowest": known([0]),
        "quantile_highest": known([-1]),
    }


def _write(path: Path, events) -> None:
    if not path.exists():
        events = np.asarray(events, np.float32)
        radius = np.linalg.norm(events, axis=1, keepdims=True)
        with atomic_path(path) as partial:
            np.save(partial, np.concatenate([events, radius], axis=1))

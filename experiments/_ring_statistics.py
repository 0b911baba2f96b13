"""Summary statistics of generated and true ring events, for ring_differential."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jaxtyping import Float

from experiments._rings import (
    Generators,
    Rings,
    check_rings,
    event_key,
    networks,
    radius,
    region_edges,
    the_ring,
    training_sets,
    true_events,
)
from jgen.amplification import log_density_ratio
from jgen.files import atomic_path
from jgen.generative_model import GenerativeModel, draw_chunks
from jgen.metrics import ClassifierConfig, cross_fitted_log_ratio
from jgen.random import stream
from jgen.toys import Toy
from jgen.training import RunFolder

REFERENCES = ("held-out", "training", "large")
"""What generated events are compared with: true events that nobody saw, as many as were trained on;
the training set itself, as in the paper; and a large sample that only a toy can have."""
STATISTICS = ("R", "LR class", "LR truth")
MAPPED = 10_000
"""Events of each member that are kept, for the map of what the cut removes."""


@dataclass(frozen=True)
class Config:
    """Differential amplification of ring generators."""

    rings: Rings = Rings()
    """Data, networks and members."""
    model: Path | None = None
    """Run folder whose networks are used; they must have the same --rings options."""
    data_set: int = 0
    """Training set whose members are judged."""
    num_draws: int = 10
    """Members judged, each with a classifier of its own."""
    max_gen: int = 100_000
    """Most events that a member generates."""
    num_held_out: int = 1250
    """True events of the reference called held-out. The first of the folds trains classifiers
    only; the others are compared with."""
    num_large: int = 10_000
    """True events of the large reference, which has the same folds."""
    sizes_per_decade: int = 5
    """Points of the scan over n_gen, from 100 events on."""
    tails: bool = False
    """Keep events of the first and last radial region, which the paper removes."""
    cut: tuple[float, float] = (0.95, 1.05)
    """Likelihood ratios of the classifier that the refinement keeps."""
    classifier: ClassifierConfig = ClassifierConfig(
        hidden=(64, 64), learning_rate=1e-3, batch_size=500, epochs=60, num_seeds=1, patience=10
    )
    """Network and training of the classifier."""
    folds: int = 5
    """Folds of its cross-fitting."""
    num_experiments: int = 50
    """Independent training sets of the generators of known amplification."""
    num_control: int = 100_000
    """Events that these generate, and true ones that they are compared with."""
    batch_size: int = 1000
    """Events generated at once."""


def check_options(config: Config) -> None:
    """Refuse bad options before the folder is made."""
    check_rings(config.rings)
    for name, least in (
        ("num_draws", 2),
        ("max_gen", 1000),
        ("num_held_out", 100),
        ("num_large", 100),
        ("sizes_per_decade", 1),
        ("num_experiments", 10),
        ("num_control", 1000),
        ("batch_size", 1),
    ):
        if getattr(config, name) < least:
            raise ValueError(f"{name} must be at least {least}, got {getattr(config, name)}")
    if not 0 <= config.data_set < config.rings.data_sets:
        raise ValueError(
            f"data_set must be one of the {config.rings.data_sets} training sets, counted from "
            f"zero, got {config.data_set}"
        )
    if config.num_draws > config.rings.num_members:
        raise ValueError(
            f"num_draws is {config.num_draws}, but there are {config.rings.num_members} members: "
            "raise --rings.num-members"
        )
    if not 0 < config.cut[0] < 1 < config.cut[1]:
        raise ValueError(f"the cut must be an interval around one, got {config.cut}")
    if config.model is not None and not (config.model / "networks").exists():
        raise ValueError(f"{config.model} holds no networks; give the folder of a ring study")


def inside(config: Config, events: Float[np.ndarray, "num dim"]) -> Float[np.ndarray, "m dim"]:
    """Events without those of the first and last radial region, unless tails are kept."""
    if config.tails:
        return events
    low, high = region_edges(events.shape[1])[[1, -2]]
    return events[(radius(events) >= low) & (radius(events) < high)]


def references(config: Config, dim: int) -> dict[str, Float[np.ndarray, "n_ref dim"]]:
    """True events to compare with, those of REFERENCES."""
    key, toy = jax.random.key(config.rings.seed), the_ring(dim)

    def fresh(name, num):
        # A third more, so that as many as asked for are left.
        events = true_events(toy, stream(key, f"{name} {dim}"), num + num // 3 + 100)
        return inside(config, events)[:num]

    return {
        "held-out": fresh("held out", config.num_held_out),
        "training": inside(config, training_sets(config.rings, dim)[config.data_set]),
        "large": fresh("large", config.num_large),
    }


def num_train(config: Config, dim: int) -> int:
    """Events of the training set, where it is compared."""
    return len(inside(config, training_sets(config.rings, dim)[config.data_set]))


def make_statistics(config: Config, folder: RunFolder) -> None:
    """Statistics of all members, a file each, and of true events in the place of generated ones."""
    for dim in config.rings.dims:
        toy = the_ring(dim)
        made = networks(config.rings, dim, config.model or folder.path)
        if jax.process_index() != 0:
            continue
        known = references(config, dim)
        for kind, generators in (("network", made), ("truth", _truth(config, toy))):
            names = REFERENCES if kind == "network" else ("held-out",)
            for i in range(config.num_draws):
                path = statistics_path(folder, kind, dim, i)
                if path.exists():
                    continue
                used = {name: known[name] for name in names}
                found = _statistics(config, generators, toy, kind, i, used)
                with atomic_path(path) as partial:
                    np.savez(partial, **found)


def statistics_path(folder: RunFolder, kind: Literal["network", "truth"], dim: int, i: int) -> Path:
    """Where the statistics of one member are kept."""
    return folder.path / "statistics" / f"{kind}-{dim}d-{i}.npz"


def _truth(config: Config, toy: Toy) -> Generators:
    """The toy as a generator that nothing is wrong with."""
    model = GenerativeModel(
        init=None,
        loss=None,
        sample=lambda params, key, cond=None: toy.sample(key),
        log_prob=lambda params, key, x, cond=None: toy.log_prob(x),
    )
    params = [[{}] * config.num_draws] * config.rings.data_sets
    return Generators(model, params, stream(jax.random.key(config.rings.seed), f"truth {toy.dim}"))


def _statistics(
    config: Config,
    generators: Generators,
    toy: Toy,
    kind: str,
    index: int,
    known: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Arrays "generated/R", "generated/LR truth", "REFERENCE/..." and those of the classifiers.

    A classifier is trained for each reference, so that there is a "generated/LR class/REFERENCE",
    and rows of the events that it scored, "rows/REFERENCE" and "generated rows/REFERENCE".
    """
    params = generators.params[config.data_set][index]
    key = event_key(generators, config.data_set, index)
    events = draw_inside(config, generators.model, params, key)
    samples = {"generated": events, **known}
    ratios = log_density_ratio(
        toy.log_prob,
        jax.tree_util.Partial(generators.model.log_prob, params, None),
        np.concatenate(list(samples.values())),
    )
    ends = np.cumsum([len(sample) for sample in samples.values()])[:-1]
    found = {}
    for (name, sample), ratio in zip(samples.items(), np.split(ratios, ends), strict=True):
        found |= {f"{name}/R": radius(sample), f"{name}/LR truth": ratio}
    found["generated/events"] = events[:MAPPED]
    for name, reference in known.items():
        fitted = cross_fitted_log_ratio(
            reference,
            events,
            stream(key, f"classifier {kind} {name}"),
            config.classifier,
            folds=config.folds,
        )
        found |= {
            f"{name}/LR class": fitted.reference,
            f"generated/LR class/{name}": fitted.generated,
            f"rows/{name}": fitted.reference_rows,
            f"generated rows/{name}": fitted.generated_rows,
        }
    return found


def draw_inside(
    config: Config, model: GenerativeModel, params, key
) -> Float[np.ndarray, "max_gen dim"]:
    """`max_gen` generated events that `inside` keeps.

    Raises:
      ValueError: if most are outside.
    """
    found, num = [], 0
    # The first events are the same however many are drawn, so it may stop early.
    for chunk in draw_chunks(model, params, key, 2 * config.max_gen, batch_size=config.batch_size):
        found.append(inside(config, chunk))
        num += len(found[-1])
        if num >= config.max_gen:
            return np.concatenate(found)[: config.max_gen]
    raise ValueError(
        f"only {num} of {2 * config.max_gen} generated events are in the radial regions that are "
        "compared: train longer or use --tails"
    )

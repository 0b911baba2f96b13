"""Super-resolution that conserves: fine cells of showers and digits from coarse ones.

    python -m experiments super_resolution

Showers of 45 x 16 x 9 voxels from 15 x 4 x 3 coarse cells: an autoregressive flow draws how each
coarse cell is shared out among its 36 voxels, given the cell, its neighbours and where it is
(SuperCalo, 2308.11700), beside equal shares and average ones. Digits of 8 x 8 from 4 x 4 pixels: a
coupling flow, whose likelihood stands beside that of Gaussians around a linear fit. Adding up gives
the coarse cells back to rounding.

Numbers: results/showers.md.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from experiments.study import Run, Study, at_least, main, metric_table, table, variant
from jgen import (
    Batch,
    GenerativeModel,
    OptimizerConfig,
    TrainConfig,
    bijectors,
    draw,
    log_densities,
    models,
    plotting,
)
from jgen.estimate import Estimate, Judged, mean_estimate
from jgen.metrics import ClassifierConfig, classifier_test, histogram, separation
from jgen.plotting import Panel
from jgen.random import numpy_generator
from jgen.showers import count_showers, get_geometry, read_showers, sample_path
from jgen.showers.super_resolution import (
    coarsened,
    conserving,
    each_cell,
    from_blocks,
    stick_lengths,
    to_blocks,
)
from jgen.transforms import preprocessed

GRID, BLOCK = (45, 16, 9), (3, 4, 3)
"""Layers, angles and radii of a shower, and of a coarse cell."""
THRESHOLD = get_geometry("ds2").threshold
"""Smallest energy of a voxel [MeV]."""
SMALL = 0.3
"""Voxels with less are drawn as empty ones [MeV], 0.7 % of those with energy."""
_SCALES = {"showers": THRESHOLD, "digits": 1.0}  # of the logarithms that the networks see
_FINEST = {"showers": 1e-5, "digits": 1e-4}  # smallest share in training
_BLOCKS = {"showers": BLOCK, "digits": (2, 2)}
_WRAPPED = {"showers": 1, "digits": None}  # the axis of angles
SAMPLERS = ("flow", "equal shares", "average shares")
_EDGES = {
    "voxel": np.geomspace(THRESHOLD, 3e3, 31),
    "hits": np.linspace(0, 1500, 31),
    "largest": np.linspace(1 / 36, 1, 31),
    "radius": np.linspace(0, 20, 31),
}
_LABELS = {
    "voxel": "voxel energy [MeV]",
    "hits": "voxels with energy in a shower",
    "largest": "largest share of a coarse cell above 10 MeV",
    "radius": "mean radius of a shower [mm]",
}


@dataclass(frozen=True)
class Config:
    """Super-resolution of showers and digits."""

    num_train: int = 2400
    """Training showers, of the 3200 bundled ones."""
    num_test: int = 400
    """Test showers, and as many others for truth against truth."""
    hidden: tuple[int, ...] = (128, 128)
    """Widths of the network of showers."""
    training: TrainConfig = TrainConfig(
        2000, 512, ema_decay=0.99, optimizer=OptimizerConfig(2e-3, clip_norm=1.0)
    )
    """Of showers, on coarse cells with energy."""
    digit_training: TrainConfig = TrainConfig(
        3000, 512, ema_decay=0.99, optimizer=OptimizerConfig(2e-3, clip_norm=1.0)
    )
    """Of digits, on coarse pixels."""
    classifier: ClassifierConfig = ClassifierConfig(
        hidden=(64, 64), learning_rate=1e-3, epochs=15, num_seeds=2
    )
    """Of cells, true ones against drawn ones."""
    seed: int = 0
    """Base of all key streams."""


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, num_train=10, num_test=10)
    if config.num_train + 2 * config.num_test > (num := count_showers(sample_path())):
        raise ValueError(
            f"num_train and twice num_test must be at most {num}, the bundled showers, got "
            f"{config.num_train} and {config.num_test}"
        )


def neighbourhood(coarse, name: str):
    """Condition of each cell: logarithms of itself and its neighbours, and where it is."""
    padded = jnp.log1p(coarse / _SCALES[name])
    for axis in range(coarse.ndim):
        width = [(1, 1) if i == axis else (0, 0) for i in range(coarse.ndim)]
        padded = jnp.pad(padded, width, mode="wrap" if axis == _WRAPPED[name] else "constant")
    offsets = np.ndindex(*[3] * coarse.ndim)
    seen = [jax.lax.dynamic_slice(padded, offset, coarse.shape) for offset in offsets]
    places = jnp.meshgrid(*(jnp.linspace(-1.0, 1.0, n) for n in coarse.shape), indexing="ij")
    return jnp.stack([*seen, *places], axis=-1)


def shares_model(config: Config, name: str, u: np.ndarray | None = None) -> GenerativeModel:
    """The model of how one coarse cell is shared out, scaled to these sticks."""
    block = _BLOCKS[name]
    num, num_cond = int(np.prod(block)) - 1, 3 ** len(block) + len(block)
    spline = bijectors.rational_quadratic(8, 5.0)
    if name == "showers":
        flow = bijectors.autoregressive_flow(num, spline, 1, num_cond, hidden=config.hidden)
    else:
        flow = bijectors.coupling_flow(num, spline, 4, num_cond)
    one = models.flow(flow, num)
    if u is None:
        return one
    return preprocessed(one, bijectors.standardize(u.mean(axis=0), u.std(axis=0)))


def whole(name: str, one: GenerativeModel) -> GenerativeModel:
    """The model of fine arrays given coarse ones; its parameters are those of one cell."""
    features = functools.partial(neighbourhood, name=name)
    threshold = SMALL if name == "showers" else 0.0
    cells = each_cell(one)
    return conserving(
        cells, _BLOCKS[name], features=features, least=_FINEST[name], threshold=threshold
    )


def cells_with_energy(fine: np.ndarray, name: str, rng: np.random.Generator) -> Batch:
    """Sticks and conditions of the coarse cells that are not empty, to train on."""
    cond = coarse(fine)
    parts = np.asarray(jax.vmap(lambda x: to_blocks(x, _BLOCKS[name]))(fine))
    total = cond.reshape(-1, 1)
    parts = parts.reshape(len(total), -1)
    # Empty voxels get a little, of the cell and of what is cut off when they are drawn.
    little = np.minimum(1e-3 * total, 0.5 * SMALL) * rng.uniform(0.1, 1, parts.shape)
    filled = np.where(parts > 0, parts, little)
    seen = np.asarray(jax.vmap(functools.partial(neighbourhood, name=name))(cond))
    rows = np.flatnonzero(total > _SCALES[name])
    shares = filled[rows] / filled[rows].sum(axis=1, keepdims=True) + _FINEST[name]
    u = np.asarray(stick_lengths(shares.astype(np.float32)))
    return Batch(u, seen.reshape(len(total), -1)[rows])


def build(config: Config) -> dict[str, GenerativeModel]:
    """The models."""
    return {name: shares_model(config, name) for name in _BLOCKS}


def coarse(fine: np.ndarray) -> np.ndarray:
    """Coarse cells of events."""
    block = _BLOCKS["showers" if fine.ndim == 4 else "digits"]
    return np.asarray(jax.jit(jax.vmap(lambda x: coarsened(x, block)))(fine))


def showers(config: Config) -> dict[str, np.ndarray]:
    """Voxels for training, for the test and for truth against truth [MeV]."""
    last = config.num_train + 2 * config.num_test
    fine = read_showers(sample_path(), get_geometry("ds2"), 0, last).voxels.reshape(-1, *GRID)
    parts = np.split(fine, [config.num_train, config.num_train + config.num_test])
    return dict(zip(("train", "test", "other"), parts, strict=True))


def drawn_showers(config: Config, run: Run) -> dict[str, np.ndarray]:
    """Voxels of the test showers from their coarse cells, of each sampler."""
    samples = showers(config)
    train, cond = samples["train"], coarse(samples["test"])
    batch = cells_with_energy(train, "showers", numpy_generator(run.key("noise")))
    one = shares_model(config, "showers", batch.x)
    params = run.fit("showers", one, batch, config.training).one
    args = (params, run.key("drawn"), len(cond), cond)
    made = {"flow": draw(whole("showers", one), *args, batch_size=50)}
    cells = np.asarray(jax.vmap(lambda x: to_blocks(x, BLOCK))(train)).sum(axis=0)
    # Equal where no training shower has energy.
    average = (cells + 1e-6) / (cells + 1e-6).sum(axis=-1, keepdims=True)
    for label, shares in (("equal", np.full_like(average, 1 / 36)), ("average", average)):
        parts = (cond[..., None] * shares).astype(np.float32)
        made[f"{label} shares"] = np.asarray(jax.vmap(lambda x: from_blocks(x, BLOCK))(parts))
    return made


def observables(fine: np.ndarray) -> dict[str, np.ndarray]:
    """What is compared, see `_LABELS`."""
    parts = np.asarray(jax.vmap(lambda x: to_blocks(x, BLOCK))(fine)).reshape(-1, 36)
    total = parts.sum(axis=1)
    full = total > 10
    radii = np.array(get_geometry("ds2").layers[0].r_edges)
    rings = fine.sum(axis=(1, 2), dtype=np.float64)
    return {
        "voxel": fine[fine >= THRESHOLD].astype(np.float64),
        "hits": (fine >= THRESHOLD).sum(axis=(1, 2, 3)).astype(np.float64),
        "largest": (parts[full].max(axis=1) / total[full]).astype(np.float64),
        "radius": rings @ (0.5 * (radii[1:] + radii[:-1])) / rings.sum(axis=1),
    }


def told_apart(config: Config, run: Run, test: np.ndarray, made: np.ndarray):
    """Area under the curve of a classifier of cells above 1 MeV, their condition given."""
    cond = coarse(test)
    seen = np.asarray(jax.vmap(lambda x: neighbourhood(x, "showers"))(cond)).reshape(cond.size, -1)
    rows = np.flatnonzero(cond.reshape(-1) > 1)
    samples = []
    for fine in (test, made):
        parts = np.asarray(jax.vmap(lambda x: to_blocks(x, BLOCK))(fine)).reshape(cond.size, -1)
        logs = np.log1p(parts[rows] / THRESHOLD)
        samples.append(np.concatenate([logs, seen[rows]], axis=1))
    found = classifier_test(*samples, run.key("classifier"), config.classifier)
    return {"auc": found.auc_estimate}


def digit_likelihoods(config: Config, run: Run) -> dict[str, np.ndarray]:
    """Negative log-likelihoods of held-out digits, and three rows of pictures."""
    rng = numpy_generator(run.key("dequantise"))
    levels = rng.permutation(load_digits().images)
    # Whole numbers get a density; training digits several times with other noise.
    levels = np.concatenate([np.tile(levels[:1400], (5, 1, 1)), levels[1400:]])
    fine = (levels + rng.random(levels.shape)).astype(np.float32)
    train, test = fine[:7000], fine[7000:]
    cond = coarse(test)
    batch = cells_with_energy(train, "digits", rng)
    one = shares_model(config, "digits", batch.x)
    params = run.fit("digits", one, batch, config.digit_training).one
    model = whole("digits", one)
    args = (model, params, run.key("density"), test, cond)
    found = {"flow": -log_densities(*args)}
    inputs, parts = (
        [np.concatenate([a.reshape(len(a), -1), np.ones((len(a), 1))], axis=1), b]
        for a, b in ((coarse(train), train), (cond, test))
    )
    cut = lambda x: np.asarray(jax.vmap(lambda a: to_blocks(a, (2, 2)))(x))[..., :3].reshape(-1, 48)
    fit = np.linalg.lstsq(inputs[0], cut(inputs[1]), rcond=None)[0]
    width = (cut(inputs[1]) - inputs[0] @ fit).std(axis=0)
    pull = (cut(parts[1]) - parts[0] @ fit) / width
    found["Gaussian"] = (0.5 * pull**2 + np.log(width * np.sqrt(2 * np.pi))).sum(axis=1)
    made = draw(model, params, run.key("pictures"), 10, cond[:10], batch_size=10)
    found["pictures"] = np.stack([np.repeat(np.repeat(cond[:10], 2, 1), 2, 2) / 4, made, test[:10]])
    return found


def compute(config: Config, run: Run) -> dict:
    """Train, draw and compare.

    conservation/SAMPLER           largest |sum of a cell's voxels - cell| / cell
    separation/OBSERVABLE/SAMPLER  triangular discriminator of true and drawn test showers, beside
                                   that of other true showers
    auc/SAMPLER                    of a classifier of cells above 1 MeV that sees the coarse ones
    likelihood/flow|Gaussian       mean negative log-likelihood of held-out digits [nats]
    """
    made = run.cached("drawn", drawn_showers, config, run)
    samples, metrics = showers(config), {}
    cond, truth = coarse(samples["test"]), observables(samples["test"])
    other = observables(samples["other"])
    filled = lambda of, name: histogram(of[name], _EDGES[name])
    for sampler, fine in made.items():
        off = np.abs(coarse(fine) - cond) / np.maximum(cond, THRESHOLD)
        metrics[f"conservation/{sampler}"] = float(off.max())
        drawn = observables(fine)
        for name in _EDGES:
            pairs = [
                separation(filled(truth, name), filled(of, name), key=run.key("replicas")).estimate
                for of in (drawn, other)
            ]
            metrics[f"separation/{name}/{sampler}"] = Judged(*pairs)
        auc = run.cached(f"auc/{sampler}", told_apart, config, run, samples["test"], fine)
        metrics[f"auc/{sampler}"] = Estimate(*map(float, auc["auc"]))
    digits = run.cached("digit_likelihoods", digit_likelihoods, config, run)
    for name in ("flow", "Gaussian"):
        metrics[f"likelihood/{name}"] = mean_estimate(digits[name])
    return metrics


def report(config: Config, run: Run, metrics: dict) -> str:
    """Draw observables and digits, and tabulate."""
    made, samples = run.stage("drawn"), showers(config)
    truth = observables(samples["test"])
    drawn = {label: observables(fine) for label, fine in made.items()}
    panels = []
    for name, label in _LABELS.items():
        logs = {"log_x": name == "voxel", "log_y": name in ("voxel", "largest")}
        each = {sampler: of[name] for sampler, of in drawn.items()}
        panels.append(Panel(_EDGES[name], truth[name], each, label, **logs))
    run.save("observables", plotting.histogram_grid(panels, num_columns=2))
    pictures = run.stage("digit_likelihoods")["pictures"]
    rows = dict(zip(("input", "drawn", "truth"), pictures, strict=True))
    run.save("digits", plotting.image_rows(rows))
    rows = {f"separation: {name}": f"separation/{name}" for name in _EDGES}
    rows |= {"AUC of cells": "auc", "conservation": "conservation"}
    text = metric_table(metrics, SAMPLERS, rows, title="showers")
    names = ("flow", "Gaussian")
    values = {"test digits": [metrics[f"likelihood/{name}"] for name in names]}
    return f"{text}\n\n{table(names, values, title='negative log-likelihood [nats]')}"


DEFAULT = Config()
SMOKE = variant(
    DEFAULT,
    num_train=50,
    num_test=20,
    hidden=(16,),
    training={"steps": 10, "batch_size": 16},
    digit_training={"steps": 10, "batch_size": 16},
    classifier={"hidden": (8,), "epochs": 2, "num_seeds": 1},
)
STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, build)

if __name__ == "__main__":
    main(STUDY)

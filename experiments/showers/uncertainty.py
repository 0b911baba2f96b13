"""What a CaloDREAM knows about its own error: an ensemble and Bayesian networks, calibrated.

    python -m experiments uncertainty

takes half an hour of processor time; the preset smoke takes two minutes. Numbers:
results/showers.md.

Trains several CaloDREAMs (2405.09629) with starts and minibatches of their own, and one with
Bayesian networks (variational posterior of the weights, 2509.08048, Eq. 13), on the bundled Geant4
showers. Each member, or draw of the Bayesian weights, generates showers; their spread is drawn
around every observable and compared with the error that is made: pulls of histogram bins against
Geant4 showers that no network has seen, and how often intervals of a claimed level hold the truth.

Energy and shape networks both have members. With one energy network for all, layer and total
energies would have no spread, since the shapes leave them as they are.

What the spreads are. Members of the plain ensemble are trained on the same showers, so their spread
is that of optimisation: starts and order of minibatches, but not the choice of the training
sample. The Bayesian networks' scales follow from the weight of the KL divergence, which is a choice
(`posterior.temperature`), but in a short training they stay near where they start
(`posterior.initial_scale`); the metrics have where they end. No spread holds what all members have
in common: networks that are trained too short, or too small, share a bias, and pulls are wide.

What the spreads are not. All members generate from the same noise at the same incident energies, so
that the fluctuation of a finite sample is not taken for the networks' (`jgen.metrics.members`).
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import jax
import numpy as np

from experiments.showers import presets
from experiments.study import Run, Study, at_least, main, table, variant
from jgen import Batch, GenerativeModel, TrainConfig, member, metrics, plotting
from jgen.metrics.members import ONE_SIGMA
from jgen.random import member_keys
from jgen.showers import (
    Showers,
    binning,
    calodream,
    generate_showers,
    get_geometry,
    judged_observables,
    read_showers,
)
from jgen.transforms import BayesianConfig, draw_weights
from jgen.typing import Params

PARTS = ("energy", "shape")
"""Networks of a member."""
# Showers whose loss is computed at once.
_CHUNK = 50


_BY_ADAMW = variant(
    presets.DEFAULT,
    energy_training={"optimizer": presets.ADAMW},
    shape_training={"optimizer": presets.ADAMW},
)


@dataclass(frozen=True)
class Posterior(BayesianConfig):
    """The Bayesian networks, of the same sizes as the ensemble's."""

    draws: int = 8
    """Draws of the weights; each generates a data set of its own."""
    temperature: float = 1.0
    """Weight of the KL divergence. At 1 the squared error of each voxel or layer ratio counts as
    that of a normal density of width 1; larger ones widen the posterior."""
    energy_training: TrainConfig = _BY_ADAMW.energy_training
    """Training of the energy network."""
    shape_training: TrainConfig = variant(_BY_ADAMW.shape_training, steps=2500, accumulate=1)
    """Training of the shape network; one draw of the weights a minibatch makes it noisier."""


@dataclass(frozen=True)
class Config:
    """One study of uncertainties."""

    calodream: presets.Config = variant(_BY_ADAMW, shape_training={"steps": 1500})
    """Data, networks and solvers, and the training of each member of the ensemble."""
    method: Literal["both", "ensemble", "bayesian"] = "both"
    """What is trained and judged."""
    members: int = 4
    """Members of the ensemble."""
    posterior: Posterior = Posterior()
    """The Bayesian networks."""
    smallest_bin: int = 20
    """Official bins are merged until this many true showers are expected in each."""
    layer: int = 10
    """Layer whose observables are drawn."""
    seed: int = 0
    """Seed of everything random."""

    @property
    def methods(self) -> tuple[str, ...]:
        """All that are trained, in order."""
        return ("ensemble", "bayesian") if self.method == "both" else (self.method,)


def check(config: Config) -> None:
    """Refuse bad options."""
    one = config.calodream
    if one.space != "voxel" or one.num_validation:
        raise ValueError(
            "this study takes networks in voxels and no validation showers; leave "
            "--calodream.space and --calodream.num-validation as they are"
        )
    # The mean width of pulls is finite for four members, not for three; errors are normal.
    at_least(config, members=4, smallest_bin=5)
    at_least(config.posterior, draws=4)
    num = get_geometry(one.geometry).num_layers
    if not 0 <= config.layer < num:
        raise ValueError(f"layer must be one of the {num} layers, 0 to {num - 1}: {config.layer}")
    for method in config.methods:
        trainings = {f"{part}_training": training(config, method, part) for part in PARTS}
        dataclasses.replace(one, **trainings).check()


def inputs(config: Config) -> tuple[Showers, Showers]:
    """Training and reference showers."""
    return presets.load_showers(config.calodream)


def build(config: Config) -> dict[str, GenerativeModel]:
    """The networks as they are trained; Bayesian ones have twice as many parameters."""
    return {
        f"{method}/{part}": trained_model(config, method, part, num_train=1)
        for method in config.methods
        for part in PARTS
    }


def training(config: Config, method: str, part: str) -> TrainConfig:
    """Training of all members, or of the one posterior."""
    ensemble = method == "ensemble"
    one = getattr(config.calodream if ensemble else config.posterior, f"{part}_training")
    return dataclasses.replace(one, ensemble=config.members if ensemble else 1)


def trained_model(config: Config, method: str, part: str, num_train: int) -> GenerativeModel:
    """The model as it is trained, Bayesian or not."""
    one = calodream.parts(config.calodream)[part]
    if method == "ensemble":
        return one.model
    return config.posterior.make(one.model, num_train, features=int(np.prod(one.shape)))


def compute(config: Config, run: Run) -> dict:
    """Train, generate and judge.

    For each METHOD, ensemble or bayesian, and OBSERVABLE or all of them: QUANTITY/METHOD/OBSERVABLE
    with the quantities of `jgen.metrics.MemberBins.metrics`; loss/METHOD/PART on the held-out
    showers, the mean over members or draws, with its standard deviation `_spread`, and
    train_seconds/METHOD/PART. For Bayesian networks also scale/PART, the median posterior width of
    their weights, which started at `posterior.initial_scale`.
    """
    showers, reference = inputs(config)
    preprocessing = calodream.fit_preprocessing(config.calodream, showers, run)
    data, held_out = (
        functools.cache(functools.partial(calodream.training_data, s, preprocessing))
        for s in (showers, reference)
    )
    results = {}
    for method in config.methods:
        fitted = {}
        for part in PARTS:
            fitted[part] = run.fit(
                f"{method}/{part}",
                trained_model(config, method, part, len(showers.energies)),
                lambda: getattr(data(), part),  # noqa: B023
                training(config, method, part),
                # The ensemble's first member is the network of `calodream`.
                key=run.key(part if method == "ensemble" else f"bayesian {part}"),
            )
        params = {part: one.params for part, one in fitted.items()}
        args = (config, method, params)
        losses = run.cached(f"{method}/losses", held_out_losses, *args, held_out, run)
        run.cached(f"{method}/observables", generate, *args, preprocessing, run)
        for name, bins in observable_bins(config, method, run).items():
            results |= {f"{q}/{method}/{name}": value for q, value in bins.metrics().items()}
        for part in PARTS:
            results[f"loss/{method}/{part}"] = np.mean(losses[part])
            results[f"loss/{method}/{part}_spread"] = np.std(losses[part], ddof=1)
            results[f"train_seconds/{method}/{part}"] = fitted[part].seconds
            if method == "bayesian":
                scales = jax.tree.leaves(fitted[part].params["log_scale"])
                median = np.median(np.concatenate([np.ravel(leaf) for leaf in scales]))
                results[f"scale/{part}"] = np.exp(median)
    return results


def members(
    config: Config, method: str, params: dict[str, Params], run: Run
) -> Iterator[dict[str, Params]]:
    """Parameters of both networks, one member or draw after another."""
    if method == "ensemble":
        for i in range(config.members):
            yield {part: member(stacked, i) for part, stacked in params.items()}
        return
    draw_one = jax.jit(draw_weights)
    for i in range(config.posterior.draws):
        keys = member_keys(jax.random.fold_in(run.key("draws"), i), len(PARTS))
        pairs = zip(PARTS, keys, strict=True)
        yield {part: draw_one(member(params[part], 0), key) for part, key in pairs}


def held_out_losses(
    config: Config,
    method: str,
    params: dict[str, Params],
    held_out: Callable[[], calodream.TrainingData],
    run: Run,
) -> dict[str, np.ndarray]:
    """Losses of all members without a KL divergence, at the same times and noise for each."""

    def loss_of(part):
        model, batch = calodream.parts(config.calodream)[part].model, getattr(held_out(), part)
        size = min(_CHUNK, len(batch.x))
        num = len(batch.x) // size
        cut = lambda a: a[: num * size].reshape(num, size, *a.shape[1:])
        pieces: Batch = jax.tree.map(cut, batch)
        keys = jax.random.split(jax.random.key(0), num)

        @jax.jit
        def loss(params, keys, pieces):
            return jax.lax.map(lambda kb: model.loss(params, *kb), (keys, pieces))

        return lambda params: float(np.mean(loss(params, keys, pieces)))

    losses = {part: loss_of(part) for part in PARTS}
    every = members(config, method, params, run)
    rows = [{part: losses[part](one[part]) for part in PARTS} for one in every]
    return {part: np.array([row[part] for row in rows]) for part in PARTS}


def generate(
    config: Config,
    method: str,
    params: dict[str, Params],
    preprocessing: calodream.ShowerPreprocessing,
    run: Run,
) -> dict[str, np.ndarray]:
    """Write METHOD/samples-I.h5 of every member; their observables [members, n, ...]."""
    showers, reference = inputs(config)
    parts, geometry = calodream.parts(config.calodream), preprocessing.geometry
    model = calodream.shower_model(*(parts[part].model for part in PARTS), preprocessing)
    each = []
    for i, one in enumerate(members(config, method, params, run)):
        path = run.path / method / f"samples-{i}.h5"
        run.cached(
            f"{method}/sampling-{i}",
            generate_showers,
            path,
            model,
            one,
            # One stream for all: members differ by their networks, not by their noise.
            run.key("sample"),
            # Of the training sample, as the study `calodream` explains.
            np.resize(showers.energies, len(reference.energies)),
            geometry,
            batch_size=config.calodream.sample_batch,
            progress=True,
        )
        each.append(judged_observables(geometry, read_showers(path, geometry)))
    return {name: np.stack([one[name] for one in each]) for name in each[0]}


@functools.lru_cache(maxsize=2)
def true_observables(config: Config) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Observables of training and reference showers."""
    geometry = get_geometry(config.calodream.geometry)
    return tuple(judged_observables(geometry, s) for s in inputs(config))


def observable_bins(config: Config, method: str, run: Run) -> dict[str, metrics.MemberBins]:
    """Bins of every observable, and of all of them."""
    geometry, made = get_geometry(config.calodream.geometry), run.stage(f"{method}/observables")
    known, true = true_observables(config)
    results = {
        name: metrics.member_bins(
            functools.partial(binning, geometry, name),
            true[name],
            made[name],
            training=known[name],
            smallest=config.smallest_bin,
        )
        for name in true
    }
    return results | {"all": metrics.join_bins(list(results.values()))}


def report(config: Config, run: Run, results: dict) -> str:
    """Draw members, coverage, pulls and trainings; a table of widths, coverage and errors."""
    geometry, (_, true) = get_geometry(config.calodream.geometry), true_observables(config)
    quantities, rows = ("pull_width", "coverage_68", "predicted_error", "actual_error"), {}
    curves, pulls = {}, {}
    for method in config.methods:
        label, made = method.capitalize(), run.stage(f"{method}/observables")
        bins = observable_bins(config, method, run)
        curves[label], pulls[label] = bins["all"].coverage(), bins["all"].pulls
        samples = {
            str(i): {name: values[i] for name, values in made.items()}
            for i in range(len(made["E_tot"]))
        }
        panels = [
            plotting.observable_panel(geometry, true, samples, name, config.layer) for name in true
        ]
        run.save(method, plotting.member_grid(panels, label))
        for part in PARTS:
            history = {f"{part} network": run.history(f"{method}/{part}")}
            figure = plotting.training_curves(history, log_y=True)
            run.save(f"training_{method}_{part}", figure)
        rows |= {
            f"{method} {name}": [results[f"{quantity}/{method}/{name}"] for quantity in quantities]
            for name in bins
        }
        expected = results[f"pull_width/{method}/all"].expected
        rows[f"{method} calibrated"] = [expected, ONE_SIGMA, None, None]
    run.save("coverage", plotting.coverage_curves(curves))
    run.save("pulls", plotting.pull_distribution(pulls, truth="Geant4"))
    return table(quantities, rows)


DEFAULT = Config()
_SHORT = dict.fromkeys(
    ("energy_training", "shape_training"), variant(presets.SMOKE.shape_training, steps=10)
)
# The parallel energy network compiles faster.
SMOKE = Config(
    calodream=variant(presets.SMOKE, energies="parallel", **_SHORT),
    posterior=Posterior(draws=4, **_SHORT),
)
STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, build, inputs)

if __name__ == "__main__":
    main(STUDY)

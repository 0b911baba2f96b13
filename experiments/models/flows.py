"""Every family of bijectors on toys, jets and digits, beside exact entropies and mixtures.

    python -m experiments flows

takes 17 minutes on 2 idle cores: 74 trainings of 2 to 38 seconds, half of that compilation, and
their judgement. The preset smoke takes less than a minute.

Three toys whose entropy is known (moons and circles of noise 0.05, eight Gaussians), four features
of Pythia jets (pT, mass, tau21, tau32) and scikit-learn's digits of 8 x 8 pixels; flows of the same
sizes, one training each, no options tuned for a single family but for the continuous ones.

Digits are (level + noise) / 17. All families train behind a fixed map under which every pixel by
itself is normal, and with other noise at every step; most of what separates them from ten Gaussians
on the pixels is that map. Numbers: results/models.md.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np

from experiments.models import judging
from experiments.models.data import TOYS, DataSet, make_data
from experiments.models.report import jet_figure
from experiments.models.zoo import FLOWS, FlowSizes, make_flow
from experiments.study import Run, Study, at_least, known, main
from jgen import Estimate, GenerativeModel, Judged, OptimizerConfig, TrainConfig, plotting
from jgen.bijectors import standardize
from jgen.metrics import gaussian_mixture_log_prob, wasserstein
from jgen.transforms import preprocessed

DataName = Literal["moons", "circles", "eight-gaussians", "jets", "digits"]
SKIPPED = {
    ("glow", "moons"): "images only",
    ("glow", "circles"): "images only",
    ("glow", "eight-gaussians"): "images only",
    ("glow", "jets"): "images only",
    ("iaf", "digits"): "64 passes a density",
    ("residual", "digits"): "a 64 x 64 Jacobian a layer",
}
"""Pairs of family and data set that make no sense, and why."""
_NUM_IMAGES = 16
# Families whose jets are drawn as histograms, as far as they are there.
_JET_FAMILIES = ("coupling-rqs", "realnvp", "flow-matching")


def _training(
    steps: int, batch_size: int, rate: float, decay: float = 0.0, **options
) -> TrainConfig:
    optimizer = OptimizerConfig(learning_rate=rate, clip_norm=1.0, weight_decay=decay)
    options = {"ema_decay": 0.99, "log_every": 100, "save_every": 2000} | options
    return TrainConfig(steps, batch_size, optimizer=optimizer, **options)


@dataclass(frozen=True)
class Trainings:
    """How the families are trained on one kind of data."""

    usual: TrainConfig = _training(1500, 256, 5e-3, ema_decay=0.995)
    """By likelihood in closed form."""
    continuous: TrainConfig = _training(800, 128, 2e-2)
    """The continuous flow by its likelihood, through the solver."""
    matching: TrainConfig = _training(14_000, 512, 1e-2, ema_decay=0.999)
    """The same velocity by flow matching, whose loss is random in noise and time: its steps are
    fast, and many are needed."""

    def of(self, family: str) -> TrainConfig:
        """Training of a family."""
        special = {"flow-matching": self.matching, "continuous": self.continuous}
        return special.get(family, self.usual)


@dataclass(frozen=True)
class Config:
    """Every family of bijectors on every data set."""

    data: tuple[DataName, ...] = ("moons", "circles", "eight-gaussians", "jets", "digits")
    """Data sets."""
    families: tuple[str, ...] = FLOWS
    """Families, by their names in the tables."""
    num_train: int = 50_000
    """Training events of a toy, and at most of the jets; there are 1294 digits for it."""
    num_test: int = 10_000
    """Test events of a toy, and at most of the jets; of the digits 360, each with five noises."""
    num_draw: int = 5000
    """Events drawn from each model; not more than there are training events are compared."""
    grid: int = 100
    """Points an axis of the density pictures of the toys."""
    sizes: FlowSizes = FlowSizes()
    """Sizes of the flows."""
    toys: Trainings = Trainings()
    """Trainings on the toys."""
    jets: Trainings = Trainings(
        usual=_training(1000, 256, 2e-3, keep="best", validate_every=100),
        continuous=_training(400, 128, 1e-2, keep="best", validate_every=50),
        matching=_training(4000, 512, 1e-2, ema_decay=0.998, keep="best", validate_every=500),
    )
    """Trainings on the jets, stopped where the validation loss is smallest."""
    digits: Trainings = Trainings(
        usual=_training(600, 128, 3e-3, 1e-2, keep="best", validate_every=50),
        continuous=_training(600, 128, 8e-3, 1e-2, keep="best", validate_every=50),
        matching=_training(5000, 128, 6e-3, 1e-2, keep="best", validate_every=250),
    )
    """Trainings on the digits, stopped likewise; weights decay."""
    regularisations: tuple[float, ...] = (1e-4, 1e-3, 3e-3, 1e-2)
    """What the mixture of ten Gaussians may add to the diagonal of its covariances, in units of
    the columns' variances; the validation events choose."""
    seed: int = 0
    """Seed of everything random."""


DEFAULT = Config()


def _short(training: TrainConfig, steps: int) -> TrainConfig:
    return dataclasses.replace(
        training, steps=steps, batch_size=64, ema_decay=0.9, validate_every=steps
    )


_SMALL = Trainings(
    usual=_short(DEFAULT.toys.usual, 150),
    continuous=_short(DEFAULT.toys.continuous, 60),
    matching=_short(DEFAULT.toys.matching, 300),
)
# Families that compile fast, on a data set of every kind.
SMOKE = Config(
    data=("moons", "jets", "digits"),
    families=("linear", "flow-matching"),
    num_train=5000,
    num_test=1000,
    num_draw=1000,
    grid=30,
    sizes=FlowSizes(
        hidden=(16,), depth=2, simple_depth=4, velocity_hidden=(16,), solver_steps=4, fine_steps=4
    ),
    toys=_SMALL,
    jets=_SMALL,
    digits=_SMALL,
    regularisations=(1e-2,),
)


def families_of(config: Config, name: DataName) -> list[str]:
    """The families that are trained on a data set."""
    return [family for family in config.families if (family, name) not in SKIPPED]


def data_names(config: Config) -> list[DataName]:
    """The data sets that there is a family for."""
    return [name for name in config.data if families_of(config, name)]


def check(config: Config) -> None:
    """Refuse bad options."""
    known(config, families=FLOWS)
    at_least(config, num_train=1000, num_test=100, num_draw=100, grid=2)
    if not config.regularisations:
        raise ValueError("regularisations must name at least one")
    if not data_names(config):
        raise ValueError("nothing to train: Glow is for digits, and IAF is not trained on them")


def model_of(config: Config, data: DataSet, family: str, *, judged: bool) -> GenerativeModel:
    """The model in the data's own units, to train or with the solver that it is judged with."""
    return preprocessed(make_flow(family, config.sizes, data.dim, judged=judged), data.bijector)


def build(config: Config) -> dict[str, GenerativeModel]:
    """All models, by family and data set."""
    return {
        f"{family} {name}": model_of(config, make_data(config, name), family, judged=False)
        for name in config.data
        for family in families_of(config, name)
    }


def density_points(config: Config, data: DataSet) -> tuple[np.ndarray, tuple]:
    """Points [grid^2, 2] around the test events, and (left, right, bottom, top)."""
    low, high = data.test.min(axis=0), data.test.max(axis=0)
    margin = 0.08 * (high - low)
    (left, bottom), (right, top) = low - margin, high + margin
    x = np.linspace(left, right, config.grid), np.linspace(bottom, top, config.grid)
    points = np.stack(np.meshgrid(*x), axis=-1).reshape(-1, 2)
    return points.astype(np.float32), (left, right, bottom, top)


def results(config: Config, run: Run, name: DataName) -> dict[str, dict[str, Any]]:
    """Family -> samples, log_prob [test], density [grid^2] of a toy, and times, on a data set."""
    data = make_data(config, name)
    trainings = config.toys if name in TOYS else getattr(config, name)
    grid = [density_points(config, data)[0]] if data.exact else []

    def judged(family):
        model = model_of(config, data, family, judged=False)
        fitted = judging.train(run, name, family, model, trainings.of(family), data)
        model = model_of(config, data, family, judged=True)
        points = np.concatenate([data.test, *grid])
        result = judging.judge(run, name, family, model, fitted.one, config.num_draw, points)
        # Those of the density picture follow, of a toy.
        result["log_prob"], log_density = np.split(result["log_prob"], [len(data.test)])
        result["w1"] = mean_wasserstein(config, data, result["samples"])
        return result | {"train_s": fitted.seconds, "density": np.exp(log_density)}

    return {
        family: run.cached(f"{name}/{family}/results", lambda: judged(family))  # noqa: B023
        for family in families_of(config, name)
    }


def baselines(config: Config, run: Run, name: DataName) -> dict[str, np.ndarray]:
    """Log-densities of the test events that the families are compared with."""
    data = make_data(config, name)
    if data.exact:
        return {"truth": run.cached(f"{name}/truth", lambda: data.log_prob(data.test))}
    mixture = lambda mapped: mixture_log_prob(config, data, mapped=mapped)
    return run.cached(
        f"{name}/mixtures",
        lambda: {"mixture": mixture(False), "mapped_mixture": mixture(True)},
    )


def mixture_log_prob(config: Config, data: DataSet, *, mapped: bool) -> np.ndarray:
    """Log-densities of the test events under a mixture of ten Gaussians.

    Args:
      config: of the study.
      data: the data set.
      mapped: fit behind the map that the flows train behind, its log-determinant included; else
        in units of the standard deviation of each column.
    """
    std = data.train.std(axis=0)
    forward = data.bijector.forward if mapped else standardize(np.zeros_like(std), std).forward
    prepared = jax.jit(jax.vmap(lambda x: forward(x, None)))
    z, z_validation = (np.asarray(prepared(x)[0]) for x in (data.train, data.validation))
    z_test, log_det = (np.asarray(a) for a in prepared(data.test))
    options = {"regularisations": config.regularisations}
    return gaussian_mixture_log_prob(z, z_validation, z_test, **options) + log_det


def mean_wasserstein(config: Config, data: DataSet, samples: np.ndarray) -> Estimate:
    """W1 to the test events in their standard deviations, the mean over columns."""
    num = min(config.num_draw, len(data.train) // data.repeats)
    std = data.test.std(axis=0)
    return wasserstein(data.test / std, samples[:num] / std, num_bootstrap=20).estimate


def compute(config: Config, run: Run) -> dict[str, Any]:
    """Train all families on all data sets and judge them. With f for a family, d for a data set.

    nll/f/d              mean of -log q over the test events, in nats and in the data's own units
    entropy/d            of a toy: the best that can be, by quadrature
    truth/d              of a toy: -log p over the same test events
    mixture/d            of jets and digits: NLL of ten Gaussians in the data's own units, and
    mapped_mixture/d     behind the map that the flows train behind
    gap/f/d              nll minus truth or mapped_mixture, event by event: for toys an estimate of
                         the Kullback-Leibler divergence, with a far smaller error than the NLL
    w1/f/d               mean over columns of the Wasserstein distance to the test events, in their
                         standard deviations; the truth's is that of training events, as many
    continuous_minus_matching/d         difference in NLL of one velocity trained in both ways
    ms_sample/f/d, ms_log_prob/f/d      milliseconds an event in batches of 1000, compiled before
    train_s/f/d, parameters/f/d         seconds of training with compilation, and parameters
    """
    metrics = {}
    for name in data_names(config):
        data, found = make_data(config, name), results(config, run, name)
        baseline = baselines(config, run, name)
        if data.exact:
            metrics[f"entropy/{name}"] = data.exact[0]
        metrics |= {f"{kind}/{name}": data.mean(-values) for kind, values in baseline.items()}
        reference = baseline["truth" if data.exact else "mapped_mixture"]
        distance = lambda: mean_wasserstein(config, data, data.once(data.train))  # noqa: B023
        truth = run.cached(f"{name}/truth_w1", distance)
        for family, result in found.items():
            where, model = f"{family}/{name}", model_of(config, data, family, judged=True)
            metrics |= judging.metrics_of(where, data, result, reference, model)
            metrics[f"w1/{where}"] = Judged(result["w1"], truth)
        if {"continuous", "flow-matching"} <= set(found):
            difference = found["flow-matching"]["log_prob"] - found["continuous"]["log_prob"]
            metrics[f"continuous_minus_matching/{name}"] = data.mean(difference)
    return metrics


def report(config: Config, run: Run, metrics: dict[str, Any]) -> str:
    """Density pictures of toys, histograms of jets, drawn digits, gaps, and all metrics as text."""
    gaps, baseline = {}, {}
    for name in data_names(config):
        found = results(config, run, name)
        _draw_data_set(config, run, name, found)
        gaps[name] = {family: metrics[f"gap/{family}/{name}"] for family in found}
        # Of ten Gaussians behind the same map, see `mapped_mixture` among the metrics.
        baseline[name] = "truth" if name in TOYS else "mapped mixture"
    run.save("gaps", plotting.likelihood_chart(gaps, baseline))
    titles = {
        "nll": "NLL [nats]",
        "gap": "NLL - truth, mapped mix.",
        "w1": "W1 [std]",
        "ms_sample": "ms a sample",
        "ms_log_prob": "ms a log_prob",
        "train_s": "training [s]",
        "parameters": "parameters",
    }
    lines = [judging.tables(metrics, config.data, titles)]
    present = {(f, n): why for (f, n), why in SKIPPED.items() if f in config.families}
    lines += [f"- {f} on {n}: {why}" for (f, n), why in present.items() if n in config.data]
    return "\n".join(lines)


def _draw_data_set(config: Config, run: Run, name: DataName, found: dict) -> None:
    data = make_data(config, name)
    if data.exact:
        points, extent = density_points(config, data)
        pictures = {"truth": np.exp(data.log_prob(points))}
        pictures |= {family: result["density"] for family, result in found.items()}
        pictures = {k: p.reshape(config.grid, config.grid) for k, p in pictures.items()}
        run.save(f"densities-{name}", plotting.density_pictures(pictures, extent))
    elif name == "jets":
        shown = [f for f in _JET_FAMILIES if f in found] or list(found)[:3]
        jet_figure(run, "jets", data.test, {family: found[family]["samples"] for family in shown})
    else:
        rows = {"test digits": data.once(data.test)}
        rows |= {family: result["samples"] for family, result in found.items()}
        images = {label: x[:_NUM_IMAGES].reshape(-1, 8, 8) for label, x in rows.items()}
        run.save("digits", plotting.image_rows(images))


STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, build)

if __name__ == "__main__":
    main(STUDY)

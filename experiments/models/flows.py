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

import functools
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np

from experiments.models import comparison
from experiments.models.comparison import Comparison, build, results
from experiments.models.data import TOYS, DataSet, make_data
from experiments.models.zoo import FLOWS, SKIPPED, FlowSizes, make_flow
from experiments.study import Run, Study, at_least, known, main, variant
from jgen import Estimate, GenerativeModel, TrainConfig, plotting
from jgen.bijectors import standardize
from jgen.metrics import gaussian_mixture_log_prob, wasserstein
from jgen.transforms import preprocessed

DataName = Literal["moons", "circles", "eight-gaussians", "jets", "digits"]
_NUM_IMAGES = 16
# Families whose jets are drawn as histograms, as far as they are there.
_JET_FAMILIES = ("coupling-rqs", "realnvp", "flow-matching")

_clipped = functools.partial(
    comparison.training, clip_norm=1.0, ema_decay=0.99, log_every=100, save_every=2000
)
_best = functools.partial(_clipped, keep="best", validate_every=50)
_decaying = functools.partial(_best, weight_decay=1e-2)


@dataclass(frozen=True)
class Trainings:
    """How the families are trained on one kind of data."""

    usual: TrainConfig = _clipped(1500, 256, 5e-3, ema_decay=0.995)
    """By likelihood in closed form."""
    continuous: TrainConfig = _clipped(800, 128, 2e-2)
    """The continuous flow by its likelihood, through the solver."""
    matching: TrainConfig = _clipped(14_000, 512, 1e-2, ema_decay=0.999)
    """The same velocity by flow matching, whose loss is random in noise and time: its steps are
    fast, and many are needed."""

    def training(self, family: str) -> TrainConfig:
        """Training of a family."""
        special = {"flow-matching": self.matching, "continuous": self.continuous}
        return special.get(family, self.usual)


@dataclass(frozen=True)
class Config(Comparison):
    """Every family of bijectors on every data set."""

    data: tuple[DataName, ...] = ("moons", "circles", "eight-gaussians", "jets", "digits")
    """Data sets."""
    families: tuple[str, ...] = FLOWS
    """Families, by their names in the tables."""
    num_draw: int = 5000
    grid: int = 100
    """Points an axis of the density pictures of the toys."""
    sizes: FlowSizes = FlowSizes()
    """Sizes of the flows."""
    toys: Trainings = Trainings()
    """Trainings on the toys."""
    jets: Trainings = Trainings(
        usual=_best(1000, 256, 2e-3, validate_every=100),
        continuous=_best(400, 128, 1e-2),
        matching=_best(4000, 512, 1e-2, ema_decay=0.998, validate_every=500),
    )
    """Trainings on the jets, which keep the parameters with the smallest validation loss."""
    digits: Trainings = Trainings(
        usual=_decaying(600, 128, 3e-3),
        continuous=_decaying(600, 128, 8e-3),
        matching=_decaying(5000, 128, 6e-3, validate_every=250),
    )
    """Trainings on the digits, likewise; weights decay."""
    regularisations: tuple[float, ...] = (1e-4, 1e-3, 3e-3, 1e-2)
    """What the mixture of ten Gaussians may add to the diagonal of its covariances, in units of
    the columns' variances; the validation events choose."""

    def model(self, family, name, *, judged=False) -> GenerativeModel:
        """With the solver that trains it or the one that it is judged with."""
        data = make_data(self, name)
        return preprocessed(make_flow(family, self.sizes, data.dim, judged=judged), data.bijector)

    def distances(self, run, name, samples) -> dict[str, Estimate]:
        """Wasserstein distance w1 in standard deviations of the test events, mean over columns."""
        data = make_data(self, name)
        num = min(self.num_draw, len(data.train) // data.repeats)
        std = data.test.std(axis=0)
        w1 = wasserstein(data.test / std, samples[:num] / std, num_bootstrap=20)
        return {"w1": w1.estimate}

    def baselines(self, data) -> dict[str, np.ndarray]:
        """Mixtures of ten Gaussians in units of the data and behind the map of the flows."""
        return {
            "mixture": mixture_log_prob(self, data, mapped=False),
            "mapped_mixture": mixture_log_prob(self, data, mapped=True),
        }

    def points(self, data) -> np.ndarray:
        """Test events, and of a toy those of the density picture."""
        return np.concatenate([data.test, *([density_points(self, data)[0]] if data.exact else [])])


DEFAULT = Config()
_SHORT = {"batch_size": 64, "ema_decay": 0.9}
_SMALL = variant(
    DEFAULT.toys,
    usual=_SHORT | {"steps": 150, "validate_every": 150},
    continuous=_SHORT | {"steps": 60, "validate_every": 60},
    matching=_SHORT | {"steps": 300, "validate_every": 300},
)
# Families that compile fast, on a data set of every kind.
SMOKE = variant(
    DEFAULT,
    data=("moons", "jets", "digits"),
    families=("linear", "flow-matching"),
    num_train=5000,
    num_test=1000,
    num_draw=1000,
    grid=30,
    sizes={
        "hidden": (16,),
        "depth": 2,
        "simple_depth": 4,
        "velocity_hidden": (16,),
        "solver_steps": 4,
        "fine_steps": 4,
    },
    toys=_SMALL,
    jets=_SMALL,
    digits=_SMALL,
    regularisations=(1e-2,),
)


def check(config: Config) -> None:
    """Refuse bad options."""
    known(config, families=FLOWS)
    at_least(config, grid=2)
    if not config.regularisations:
        raise ValueError("regularisations must name at least one")


def density_points(config: Config, data: DataSet) -> tuple[np.ndarray, tuple]:
    """Points [grid^2, 2] around the test events, and (left, right, bottom, top)."""
    low, high = data.test.min(axis=0), data.test.max(axis=0)
    margin = 0.08 * (high - low)
    (left, bottom), (right, top) = low - margin, high + margin
    x = np.linspace(left, right, config.grid), np.linspace(bottom, top, config.grid)
    points = np.stack(np.meshgrid(*x), axis=-1).reshape(-1, 2)
    return points.astype(np.float32), (left, right, bottom, top)


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


def compute(config: Config, run: Run) -> dict[str, Any]:
    """Metrics beside those of `comparison.compute`. With f for a family, d for a data set.

    w1/f/d               mean over columns of the Wasserstein distance to the test events, in their
                         standard deviations
    mixture/d            of jets and digits: NLL of ten Gaussians in the data's own units, and
    mapped_mixture/d     behind the map that the flows train behind; gap/f/d is then to this one
    continuous_minus_matching/d         difference in NLL of one velocity trained in both ways
    """
    metrics = comparison.compute(config, run)
    for name in config.names:
        data, each = make_data(config, name), results(config, run, name)
        if {"continuous", "flow-matching"} <= set(each):
            difference = each["flow-matching"]["log_prob"] - each["continuous"]["log_prob"]
            mean = data.mean(difference[: len(data.test)])
            metrics[f"continuous_minus_matching/{name}"] = mean
    return metrics


def report(config: Config, run: Run, metrics: dict[str, Any]) -> str:
    """Density pictures of toys, histograms of jets, drawn digits, gaps, and all metrics as text."""
    gaps, baseline = {}, {}
    for name in config.names:
        _draw_data_set(config, run, name)
        gaps[name] = {f: metrics[f"gap/{f}/{name}"] for f in config.families_of(name)}
        # Of ten Gaussians behind the same map, see `mapped_mixture` among the metrics.
        baseline[name] = "truth" if name in TOYS else "mapped mixture"
    run.save("gaps", plotting.likelihood_chart(gaps, baseline))
    lines = [comparison.tables(metrics, config.data, comparison.TITLES)]
    left_out = {pair: why for pair, why in SKIPPED.items() if pair[0] in config.families}
    lines += [f"- {f} on {n}: {why}" for (f, n), why in left_out.items() if n in config.data]
    return "\n".join(lines)


def _draw_data_set(config: Config, run: Run, name: DataName) -> None:
    data, each = make_data(config, name), results(config, run, name)
    samples = {family: each[family]["samples"] for family in config.families_of(name)}
    if data.exact:
        points, extent = density_points(config, data)
        log_density = {"truth": data.log_prob(points)}
        log_density |= {family: each[family]["log_prob"][len(data.test) :] for family in samples}
        shape = (config.grid, config.grid)
        pictures = {family: np.exp(p).reshape(shape) for family, p in log_density.items()}
        run.save(f"densities-{name}", plotting.density_pictures(pictures, extent))
    elif name == "jets":
        shown = [f for f in _JET_FAMILIES if f in samples] or list(samples)[:3]
        run.save("jets", comparison.jet_figure(data.test, {f: samples[f] for f in shown}))
    else:
        rows = {"test digits": data.once(data.test), **samples}
        images = {label: x[:_NUM_IMAGES].reshape(-1, 8, 8) for label, x in rows.items()}
        run.save("digits", plotting.image_rows(images))


STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, build)

if __name__ == "__main__":
    main(STUDY)

"""Every family of generative models on toys, jets and digits: quality beside cost.

    python -m experiments families

takes 21 minutes of processor time: 45 trainings of 10 to 70 seconds, compilation included. The
preset smoke, all families on eight Gaussians with networks of 16 units, takes about one minute.

GAN, WGAN-GP, VAE, flow (spline couplings; in one dimension autoregressive), diffusion (EDM), flow
matching, consistency and MeanFlow (one call, distilled from flow matching) and an autoregressive
model of bins, on moons of noise 0.05, eight Gaussians, the camel back in one dimension, four
features of Pythia jets and scikit-learn's digits of 8 x 8 pixels. The figures are a page of all
families beside the truth, quality against time, and histograms of the jets. Numbers:
results/models.md.
"""

import functools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from experiments.models import comparison
from experiments.models.comparison import Comparison, build, results
from experiments.models.data import RADIUS, WIDTH, make_data
from experiments.models.zoo import FAMILIES, Sizes, calls_an_event, make_model, players
from experiments.study import Run, Study, at_least, main, variant
from jgen import Estimate, GenerativeModel, Judged, TrainConfig, plotting
from jgen.metrics import ClassifierConfig, classifier_test, sliced_wasserstein
from jgen.plotting.gallery import View

DataName = Literal["moons", "eight-gaussians", "camel", "jets", "digits"]
Family = Literal[FAMILIES]

# Family -> its training, a field of `Kind`, where that has another name.
_TRAININGS = {
    "gan": "adversarial",
    "wgan-gp": "adversarial",
    "diffusion": "paths",
    "flow-matching": "paths",
    "consistency": "distillation",
    "mean-flow": "mean_flow",
}
training = functools.partial(comparison.training, log_every=200, save_every=5000)
_best = functools.partial(training, keep="best")
_decaying = functools.partial(_best, weight_decay=1e-2)
_game = functools.partial(training, ema_decay=0.999, beta1=0.5, beta2=0.9)


@dataclass(frozen=True)
class Kind:
    """How the families are made and trained on one kind of data."""

    sizes: Sizes = Sizes(penalty=0.1)
    """Sizes of the models."""
    adversarial: TrainConfig = _game(15_000, 256, 1e-3)
    """Both GANs."""
    vae: TrainConfig = training(6000, 256, 5e-3, ema_decay=0.998)
    """VAE."""
    flow: TrainConfig = training(2000, 256, 5e-3, ema_decay=0.995)
    """Flow, whose steps take longest."""
    autoregressive: TrainConfig = training(4000, 256, 5e-3, ema_decay=0.998)
    """Autoregressive model."""
    paths: TrainConfig = training(14_000, 512, 1e-2, ema_decay=0.999)
    """Diffusion and flow matching, whose losses are random in noise and time."""
    distillation: TrainConfig = training(12_000, 256, 2e-3, ema_decay=0.999)
    """Consistency model."""
    mean_flow: TrainConfig = training(12_000, 256, 2e-3, ema_decay=0.999)
    """MeanFlow."""

    def training(self, family: Family) -> TrainConfig:
        """Training of a family."""
        return getattr(self, _TRAININGS.get(family, family))


@dataclass(frozen=True)
class Config(Comparison):
    """Every family on every data set."""

    data: tuple[DataName, ...] = ("moons", "eight-gaussians", "camel", "jets", "digits")
    """Data sets."""
    families: tuple[Family, ...] = FAMILIES
    """Families."""
    toys: Kind = Kind()
    """Models and trainings of the toys."""
    jets: Kind = Kind(
        flow=_best(1500, 256, 2e-3, ema_decay=0.99, validate_every=100),
        vae=_best(6000, 256, 2e-3, ema_decay=0.998),
        autoregressive=_best(4000, 256, 5e-3, ema_decay=0.998),
        paths=_best(10_000, 512, 5e-3, ema_decay=0.999, validate_every=500),
    )
    """Those of the jets; a training whose loss tells the quality keeps the parameters with the
    smallest validation loss."""
    digits: Kind = Kind(
        sizes=Sizes(hidden=(128, 128, 128), causal_hidden=(512, 512)),
        adversarial=_game(8000, 128, 5e-4),
        flow=_decaying(600, 128, 3e-3, ema_decay=0.99, validate_every=50),
        vae=_decaying(3000, 128, 2e-3, ema_decay=0.995, validate_every=100),
        autoregressive=_decaying(800, 128, 2e-3, ema_decay=0.99, validate_every=50),
        paths=_decaying(5000, 128, 5e-3, ema_decay=0.998, validate_every=250),
        distillation=training(5000, 128, 1e-3, ema_decay=0.998),
        mean_flow=training(5000, 128, 1e-3, ema_decay=0.998),
    )
    """Those of the digits, likewise; weights decay."""
    num_directions: int = 64
    """Directions of the sliced Wasserstein distance."""
    bootstrap: int = 20
    """Resamplings behind its error."""
    classifier: ClassifierConfig = ClassifierConfig(
        hidden=(64, 64), learning_rate=1e-3, batch_size=256, epochs=20, num_seeds=2
    )
    """Classifier of generated against test events."""

    def model(self, family, name, *, judged=False, teacher=None) -> GenerativeModel:
        """The same to train and to judge, but for the teacher."""
        return make_model(family, self.of(name).sizes, make_data(self, name), teacher)

    def optimizer(self, family, name):
        """That of both players of a GAN."""
        kind = self.of(name)
        return players(family, kind.sizes, kind.training(family))

    def distances(self, run, name, samples) -> dict[str, Estimate]:
        """Sliced Wasserstein distance, sw1, and auc of a classifier.

        Samples are cut to the common size of test, training and drawn events, and are in units of
        the test events' standard deviations; pixels in units of the root mean square of theirs,
        some being dark in all digits but for the noise.
        """
        data = make_data(self, name)
        test = data.once(data.test)
        size = min(len(test), len(data.once(data.train)), self.num_draw)
        std = test.std(axis=0)
        if data.levels is not None:
            std = np.sqrt(np.mean(std**2))
        reference, samples = test[:size] / std, samples[:size] / std
        options = {"num_directions": self.num_directions, "num_bootstrap": self.bootstrap}
        sw1 = sliced_wasserstein(reference, samples, **options)
        auc = classifier_test(reference, samples, run.key(f"classifier {name}"), self.classifier)
        return {"sw1": sw1.estimate, "auc": auc.auc_estimate}


DEFAULT = Config()
_SHORT = {"steps": 200, "batch_size": 64, "ema_decay": 0.9}
_SMALL = variant(
    DEFAULT.toys,
    sizes={
        "hidden": (16,),
        "causal_hidden": (16,),
        "num_importance": 4,
        "flow_hidden": (16,),
        "flow_depth": 2,
        "num_bins": 16,
        "penalty": 10.0,
        "critic_steps": 2,
        "intervals": 4,
        "mean_flow_hidden": (16,),
        "solver_steps": 4,
        "likelihood_steps": 4,
    },
    **dict.fromkeys(("adversarial", "flow", "vae", "autoregressive", "paths"), _SHORT),
    **dict.fromkeys(("distillation", "mean_flow"), _SHORT | {"steps": 100}),
)
# All families on the toy that has a metric of its own.
SMOKE = variant(
    DEFAULT,
    data=("eight-gaussians",),
    num_train=5000,
    num_test=1000,
    num_draw=1000,
    toys=_SMALL,
    jets=_SMALL,
    digits=_SMALL,
    num_directions=8,
    bootstrap=5,
    classifier={"hidden": (16,), "learning_rate": 1e-2, "batch_size": 100, "epochs": 3},
)


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, num_directions=1, bootstrap=2)


def compute(config: Config, run: Run) -> dict[str, Any]:
    """Metrics beside those of `comparison.compute`. With f for a family, d for a data set.

    sw1/f/d         sliced Wasserstein distance, in standard deviations of the test events
    auc/f/d         of a classifier of generated against test events
    modes/f/lowest, modes/f/highest     smallest and largest share of the eight Gaussians over 1/8,
                    by the nearest centre; modes/f/lost, modes with less than half of 1/8, and
                    modes/f/astray, the fraction of events more than four widths from all centres
    calls/f/d       passes through the network an event

    nll/f/d is exact of flow and autoregressive model, by the probability-flow ODE of diffusion and
    flow matching, and of the VAE the bound IWAE_K, which is above.
    """
    metrics = comparison.compute(config, run)
    for name in config.data:
        sizes, dim = config.of(name).sizes, make_data(config, name).dim
        for family in config.families:
            metrics[f"calls/{family}/{name}"] = calls_an_event(family, sizes, dim)
    if "eight-gaussians" in config.data:
        modes = {
            family: mode_metrics(result["samples"])
            for family, result in results(config, run, "eight-gaussians").items()
        }
        truth = modes.pop("truth")
        for family, own in modes.items():
            metrics |= {f"modes/{family}/{k}": Judged(v, truth[k]) for k, v in own.items()}
    return metrics


def mode_metrics(events: np.ndarray) -> dict[str, Estimate | float]:
    """Metrics of the eight Gaussians, see `compute`."""
    shares, astray = mode_shares(events)
    # Of eight times a multinomial's share p: 8 sqrt(p (1 - p) / n).
    share = lambda s: Estimate(float(s), float(np.sqrt(s * (8 - s) / len(events))))
    return {
        "lowest": share(shares.min()),
        "highest": share(shares.max()),
        "lost": int(np.sum(shares < 0.5)),
        "astray": astray,
    }


def mode_shares(events: np.ndarray) -> tuple[np.ndarray, float]:
    """Eight times the share of events nearest to each centre of the eight Gaussians.

    And the fraction of events more than four widths away from it, which of the truth is exp(-8).
    """
    angles = np.pi / 4 * np.arange(8)
    centres = RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    distance = np.linalg.norm(np.asarray(events)[:, None] - centres, axis=-1)
    counts = np.bincount(distance.argmin(axis=1), minlength=8)
    return 8 * counts / len(events), float(np.mean(distance.min(axis=1) > 4 * WIDTH))


# Edges of the histograms of the gallery.
_PLANES = {
    "moons": (np.linspace(-1.3, 2.3, 61), np.linspace(-0.8, 1.3, 61)),
    "eight-gaussians": (np.linspace(-2.8, 2.8, 61),) * 2,
}
_LINES = {"camel": ("$x$", np.linspace(-8, 8, 33)), "jets": comparison.JETS[1]}


def _shown(name: str, events: np.ndarray) -> np.ndarray:
    """What of the events is in the gallery: of the jets their mass."""
    if name in _LINES:
        return events[:, 1 if name == "jets" else 0]
    return events.reshape(-1, 8, 8) if name == "digits" else events


def _view(name: str, truth: np.ndarray) -> View:
    shown = _shown(name, truth)
    if name in _LINES:
        xlabel, edges = _LINES[name]
        return plotting.Line(shown, edges, xlabel)
    return plotting.Images(shown) if name == "digits" else plotting.Plane(shown, _PLANES[name])


def report(config: Config, run: Run, metrics: dict[str, Any]) -> str:
    """The gallery, quality against time and jets, and all metrics as text."""
    samples = {
        name: {family: result["samples"] for family, result in results(config, run, name).items()}
        for name in config.data
    }
    views = {name: _view(name, of["truth"]) for name, of in samples.items()}
    rows = {f: {name: _shown(name, of[f]) for name, of in samples.items()} for f in config.families}
    run.save("gallery", plotting.sample_gallery(views, rows))
    curves, truth = {}, {}
    for name in config.data:
        distances = {f: metrics[f"sw1/{f}/{name}"] for f in config.families}
        curves[name] = {
            f: plotting.Curve.of([metrics[f"ms_sample/{f}/{name}"]], [one.value])
            for f, one in distances.items()
        }
        truth[name] = distances[config.families[0]].truth
    options = {"xlabel": "ms an event", "truth": truth, "log_y": True}
    run.save("quality-time", plotting.quality_curves(curves, "Sliced $W_1$ [std]", **options))
    if "jets" in samples:
        jets = samples["jets"]
        for first in range(0, len(config.families), 4):
            shown = {family: jets[family] for family in config.families[first : first + 4]}
            run.save(f"jets-{first // 4 + 1}", comparison.jet_figure(jets["truth"], shown))
    text = comparison.tables(metrics, config.data, comparison.TITLES)
    if "eight-gaussians" in config.data:
        text += "\n\nEight Gaussians: the smallest and largest share of a mode over 1/8, modes with"
        text += "\nless than half of it, and the fraction of events far from all\n"
        columns = ("lowest", "highest", "lost", "astray")
        text += comparison.tables(metrics, columns, {"modes": ""})
    return text


STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, build)

if __name__ == "__main__":
    main(STUDY)

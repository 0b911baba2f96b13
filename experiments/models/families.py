"""Every family of generative models on toys, jets and digits: quality beside cost.

    python -m experiments families

takes 21 minutes of processor time: 40 trainings of 10 to 70 seconds, compilation included. The
preset smoke, all families on eight Gaussians with networks of 16 units, takes about one minute.

GAN, WGAN-GP, VAE, flow (spline couplings; in one dimension autoregressive), diffusion (EDM), flow
matching, consistency (one call, distilled from flow matching) and an autoregressive model of bins,
on moons of noise 0.05, eight Gaussians, the camel back in one dimension, four features of Pythia
jets and scikit-learn's digits of 8 x 8 pixels. The figures are a page of all families beside the
truth, quality against time, and histograms of the jets. Numbers: results/models.md.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from experiments.models import judging, report
from experiments.models.data import TOYS, DataSet, make_data
from experiments.models.zoo import FAMILIES, Sizes, calls_an_event, make_model, players
from experiments.study import Run, Study, at_least, main
from jgen import Estimate, GenerativeModel, Judged, OptimizerConfig, TrainConfig
from jgen.metrics import ClassifierConfig, classifier_test, sliced_wasserstein
from jgen.training import Fitted

DataName = Literal["moons", "eight-gaussians", "camel", "jets", "digits"]
Family = Literal[FAMILIES]

# Family -> its training, a field of `Kind`, where that has another name.
_TRAININGS = {
    "gan": "adversarial",
    "wgan-gp": "adversarial",
    "diffusion": "paths",
    "flow-matching": "paths",
    "consistency": "distillation",
}


def _training(steps: int, batch_size: int, rate: float, **options) -> TrainConfig:
    adam = ("beta1", "beta2", "weight_decay")
    optimizer = OptimizerConfig(rate, **{n: options.pop(n) for n in adam if n in options})
    return TrainConfig(
        steps, batch_size, optimizer=optimizer, log_every=200, save_every=5000, **options
    )


def _decaying(steps: int, rate: float, **options) -> TrainConfig:
    return _training(steps, 128, rate, weight_decay=1e-2, keep="best", **options)


@dataclass(frozen=True)
class Kind:
    """How the families are made and trained on one kind of data."""

    sizes: Sizes = Sizes()
    """Sizes of the models."""
    adversarial: TrainConfig = _training(15_000, 256, 1e-3, ema_decay=0.999, beta1=0.5, beta2=0.9)
    """Both GANs."""
    vae: TrainConfig = _training(6000, 256, 5e-3, ema_decay=0.998)
    """VAE."""
    flow: TrainConfig = _training(2000, 256, 5e-3, ema_decay=0.995)
    """Flow, whose steps take longest."""
    autoregressive: TrainConfig = _training(4000, 256, 5e-3, ema_decay=0.998)
    """Autoregressive model."""
    paths: TrainConfig = _training(14_000, 512, 1e-2, ema_decay=0.999)
    """Diffusion and flow matching, whose losses are random in noise and time."""
    distillation: TrainConfig = _training(12_000, 256, 2e-3, ema_decay=0.999)
    """Consistency model."""

    def training(self, family: Family) -> TrainConfig:
        """Training of a family."""
        return getattr(self, _TRAININGS.get(family, family))


@dataclass(frozen=True)
class Config:
    """Every family on every data set."""

    data: tuple[DataName, ...] = ("moons", "eight-gaussians", "camel", "jets", "digits")
    """Data sets."""
    families: tuple[Family, ...] = FAMILIES
    """Families."""
    num_train: int = 50_000
    """Training events of a toy, and at most of the jets; there are 1294 digits for it."""
    num_test: int = 10_000
    """Test events of a toy, and at most of the jets; of the digits 360, each with five noises."""
    num_draw: int = 10_000
    """Events drawn from each model."""
    toys: Kind = Kind(sizes=Sizes(penalty=0.1))
    """Models and trainings of the toys."""
    jets: Kind = Kind(
        sizes=Sizes(penalty=0.1),
        flow=_training(1500, 256, 2e-3, ema_decay=0.99, keep="best", validate_every=100),
        vae=_training(6000, 256, 2e-3, ema_decay=0.998, keep="best", validate_every=200),
        autoregressive=_training(4000, 256, 5e-3, ema_decay=0.998, keep="best", validate_every=200),
        paths=_training(10_000, 512, 5e-3, ema_decay=0.999, keep="best", validate_every=500),
    )
    """Those of the jets; what has a loss that says something stops where that of the validation
    events is smallest."""
    digits: Kind = Kind(
        sizes=Sizes(hidden=(128, 128, 128), causal_hidden=(512, 512)),
        adversarial=_training(8000, 128, 5e-4, ema_decay=0.999, beta1=0.5, beta2=0.9),
        flow=_decaying(600, 3e-3, ema_decay=0.99, validate_every=50),
        vae=_decaying(3000, 2e-3, ema_decay=0.995, validate_every=100),
        autoregressive=_decaying(800, 2e-3, ema_decay=0.99, validate_every=50),
        paths=_decaying(5000, 5e-3, ema_decay=0.998, validate_every=250),
        distillation=_training(5000, 128, 1e-3, ema_decay=0.998),
    )
    """Those of the digits, stopped likewise; weights decay."""
    num_directions: int = 64
    """Directions of the sliced Wasserstein distance."""
    bootstrap: int = 20
    """Resamplings behind its error."""
    classifier: ClassifierConfig = ClassifierConfig(
        hidden=(64, 64), learning_rate=1e-3, batch_size=256, epochs=20, num_seeds=2
    )
    """Classifier of generated against test events."""
    seed: int = 0
    """Seed of everything random."""

    def of(self, name: DataName) -> Kind:
        """Models and trainings of a data set."""
        return self.toys if name in TOYS else getattr(self, name)


DEFAULT = Config()


def _short(training: TrainConfig, steps: int = 200) -> TrainConfig:
    return dataclasses.replace(training, steps=steps, batch_size=64, ema_decay=0.9)


_SMALL = Kind(
    sizes=Sizes(
        hidden=(16,),
        causal_hidden=(16,),
        num_importance=4,
        flow_hidden=(16,),
        flow_depth=2,
        num_bins=16,
        critic_steps=2,
        intervals=4,
        solver_steps=4,
        likelihood_steps=4,
    ),
    adversarial=_short(DEFAULT.toys.adversarial),
    flow=_short(DEFAULT.toys.flow),
    vae=_short(DEFAULT.toys.vae),
    autoregressive=_short(DEFAULT.toys.autoregressive),
    paths=_short(DEFAULT.toys.paths),
    distillation=_short(DEFAULT.toys.distillation, 100),
)
# All families on the toy that has a metric of its own.
SMOKE = Config(
    data=("eight-gaussians",),
    num_train=5000,
    num_test=1000,
    num_draw=1000,
    toys=_SMALL,
    jets=_SMALL,
    digits=_SMALL,
    num_directions=8,
    bootstrap=5,
    classifier=ClassifierConfig(
        hidden=(16,), learning_rate=1e-2, batch_size=100, epochs=3, num_seeds=2
    ),
)


def check(config: Config) -> None:
    """Refuse bad options."""
    if not config.data or not config.families:
        raise ValueError("data and families must name at least one each")
    at_least(config, num_train=1000, num_test=100, num_draw=100, num_directions=1, bootstrap=2)


def build(config: Config) -> dict[str, GenerativeModel]:
    """All models, by family and data set."""
    return {
        f"{family} {name}": make_model(family, config.of(name).sizes, make_data(config, name))
        for name in config.data
        for family in config.families
    }


def train(config: Config, run: Run, name: DataName, family: Family) -> Fitted:
    """Train a family; the consistency model after flow matching on the same data, its teacher."""
    kind, data, teacher = config.of(name), make_data(config, name), None
    if family == "consistency":
        teacher = train(config, run, name, "flow-matching").one
    model, training = make_model(family, kind.sizes, data, teacher), kind.training(family)
    optimizer = players(family, kind.sizes, training)
    return judging.train(run, name, family, model, training, data, optimizer=optimizer)


def distances(
    config: Config, run: Run, name: DataName, data: DataSet, samples: np.ndarray
) -> dict[str, Estimate]:
    """sw1 and auc of a sample against the test events.

    Samples are cut to the common size of test, training and drawn events, and are in units of the
    test events' standard deviations; pixels in units of the root mean square of theirs, some being
    dark in all digits but for the noise.
    """
    test = data.once(data.test)
    size = min(len(test), len(data.once(data.train)), config.num_draw)
    std = test.std(axis=0)
    if data.levels is not None:
        std = np.sqrt(np.mean(std**2))
    reference, samples = test[:size] / std, samples[:size] / std
    options = {"num_directions": config.num_directions, "num_bootstrap": config.bootstrap}
    sw1 = sliced_wasserstein(reference, samples, **options)
    auc = classifier_test(reference, samples, run.key(f"classifier {name}"), config.classifier)
    return {"sw1": sw1.estimate, "auc": auc.auc_estimate}


def results(config: Config, run: Run, name: DataName) -> dict[str, dict[str, Any]]:
    """Samples, densities, distances and times of "truth" and of every family on a data set."""
    data = make_data(config, name)

    def truth():
        # Training events in the place of samples.
        samples = data.once(data.train)[: config.num_draw]
        exact = {"log_prob": data.log_prob(data.test)} if data.exact else {}
        return {"samples": samples} | distances(config, run, name, data, samples) | exact

    def judged(family):
        fitted = train(config, run, name, family)
        model = make_model(family, config.of(name).sizes, data)
        result = judging.judge(run, name, family, model, fitted.one, config.num_draw, data.test)
        result["train_s"] = fitted.seconds
        return result | distances(config, run, name, data, result["samples"])

    return {"truth": run.cached(f"{name}/truth", truth)} | {
        family: run.cached(f"{name}/{family}/results", lambda: judged(family))  # noqa: B023
        for family in config.families
    }


def compute(config: Config, run: Run) -> dict[str, Any]:
    """Train all families on all data sets and judge them. With f for a family, d for a data set.

    nll/f/d         mean of -log q over the test events, in nats and in the data's own units: exact
                    of flow and autoregressive model, by the probability-flow ODE of diffusion and
                    flow matching, of the VAE the bound IWAE_K, which is above
    entropy/d       of a toy: the best that can be, by quadrature
    truth/d         of a toy: -log p over the same test events
    gap/f/d         nll minus truth, event by event: an estimate of the Kullback-Leibler divergence
    sw1/f/d         sliced Wasserstein distance to the test events, in their standard deviations;
                    the truth's is that of training events, as many
    auc/f/d         of a classifier of generated against test events, likewise
    modes/f/lowest, modes/f/highest     smallest and largest share of the eight Gaussians over 1/8,
                    by the nearest centre; modes/f/lost, modes with less than half of 1/8, and
                    modes/f/astray, the fraction of events more than four widths from all centres
    ms_sample/f/d, ms_log_prob/f/d      milliseconds an event in batches of 1000, compiled before
    calls/f/d       passes through the network an event
    train_s/f/d     seconds with compilation, of the consistency model without those of its teacher
    parameters/f/d
    """
    metrics = {}
    for name in config.data:
        data, found = make_data(config, name), results(config, run, name)
        truth, sizes = found["truth"], config.of(name).sizes
        if data.exact:
            metrics[f"entropy/{name}"] = data.exact[0]
            metrics[f"truth/{name}"] = data.mean(-truth["log_prob"])
        for family in config.families:
            where, result = f"{family}/{name}", found[family]
            model, exact = make_model(family, sizes, data), truth.get("log_prob")
            metrics |= judging.metrics_of(where, data, result, exact, model)
            metrics[f"calls/{where}"] = calls_an_event(family, sizes, data.dim)
            for kind in ("sw1", "auc"):
                metrics[f"{kind}/{where}"] = Judged(result[kind], truth[kind])
            if name == "eight-gaussians":
                own, true = mode_metrics(result["samples"]), mode_metrics(truth["samples"])
                metrics |= {f"modes/{family}/{k}": Judged(v, true[k]) for k, v in own.items()}
    return metrics


def mode_metrics(events: np.ndarray) -> dict[str, Estimate | float]:
    """Metrics of the eight Gaussians, see `compute`."""
    shares, astray = report.mode_shares(events)
    # Of eight times a multinomial's share p: 8 sqrt(p (1 - p) / n).
    share = lambda s: Estimate(float(s), float(np.sqrt(s * (8 - s) / len(events))))
    return {
        "lowest": share(shares.min()),
        "highest": share(shares.max()),
        "lost": int(np.sum(shares < 0.5)),
        "astray": astray,
    }


def draw_and_tabulate(config: Config, run: Run, metrics: dict[str, Any]) -> str:
    """The figures, and all metrics as text."""
    samples = {
        name: {family: result["samples"] for family, result in results(config, run, name).items()}
        for name in config.data
    }
    families = config.families
    report.gallery(run, samples, families)
    report.quality_figure(run, metrics, config.data, families)
    if "jets" in samples:
        for first in range(0, len(families), 4):
            shown = {family: samples["jets"][family] for family in families[first : first + 4]}
            report.jet_figure(run, f"jets-{first // 4 + 1}", samples["jets"]["truth"], shown)
    titles = {
        "nll": "NLL [nats], VAE: bound",
        "gap": "NLL - truth [nats]",
        "sw1": "sliced W1 [std]",
        "auc": "AUC of a classifier",
        "ms_sample": "ms an event",
        "calls": "network calls an event",
        "train_s": "training [s]",
        "parameters": "parameters",
    }
    text = judging.tables(metrics, config.data, titles)
    if "eight-gaussians" in config.data:
        text += "\n\nEight Gaussians: the smallest and largest share of a mode over 1/8, modes with"
        text += "\nless than half of it, and the fraction of events far from all\n"
        columns = ("lowest", "highest", "lost", "astray")
        text += judging.tables(metrics, columns, {"modes": ""})
    return text


STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, draw_and_tabulate, check, build)

if __name__ == "__main__":
    main(STUDY)

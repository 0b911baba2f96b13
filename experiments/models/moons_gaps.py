"""Likelihood gaps of two families on moons: the study that a new one copies.

    python -m experiments moons_gaps

trains a flow of spline couplings and flow matching on two moons, whose density is known, and takes
the mean of log p - log q over test events: the Kullback-Leibler divergence, which is zero for a
perfect model. Numbers: results/models.md.
"""

from dataclasses import dataclass

import jax
import numpy as np

from experiments.study import Run, Study, at_least, main, table, variant
from jgen import (
    Batch,
    GenerativeModel,
    OptimizerConfig,
    TrainConfig,
    bijectors,
    draw,
    log_densities,
    models,
    nets,
    plotting,
    toys,
)
from jgen.estimate import mean_estimate

MOONS = toys.moons(0.05)


@dataclass(frozen=True)
class Config:
    """Two families on moons."""

    num_train: int = 50_000
    """Training events."""
    num_test: int = 10_000
    """Test events that the gap is averaged over."""
    training: TrainConfig = TrainConfig(4000, 256, ema_decay=0.99, optimizer=OptimizerConfig(5e-3))
    """Training of either family."""
    seed: int = 0
    """Base of all key streams."""


DEFAULT = Config()
SMOKE = variant(DEFAULT, num_train=2000, num_test=500, training={"steps": 60})


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, num_train=100, num_test=100)


def build(config: Config) -> dict[str, GenerativeModel]:
    """The models by name."""
    spline = bijectors.coupling_flow(2, bijectors.rational_quadratic(), 8)
    return {
        "flow": models.flow(spline, 2),
        "flow matching": models.flow_matching(nets.velocity_mlp(2), (2,)),
    }


def compute(config: Config, run: Run) -> dict:
    """gap/MODEL: mean of log p - log q over the test events [nats]."""
    sample = lambda params, key, cond: MOONS.sample(key)
    train = draw(sample, None, run.key("train"), config.num_train)
    test = draw(sample, None, run.key("test"), config.num_test)
    exact = np.asarray(jax.vmap(MOONS.log_prob)(test))
    metrics = {}
    for name, model in build(config).items():
        params = run.fit(name, model, Batch(train), config.training).one
        args = (model, params, run.key(name), test)
        log_q = run.cached(f"{name}/log_q", log_densities, *args)
        metrics[f"gap/{name}"] = mean_estimate(exact - log_q)
    return metrics


def report(config: Config, run: Run, metrics: dict) -> str:
    """Draw the gaps and tabulate them."""
    gaps = {name.removeprefix("gap/"): value for name, value in metrics.items()}
    run.save("gaps", plotting.likelihood_chart({"moons": gaps}, {"moons": "truth"}))
    return table(["NLL - truth [nats]"], {name: [value] for name, value in gaps.items()})


STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, build)

if __name__ == "__main__":
    main(STUDY)

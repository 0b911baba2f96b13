"""Boltzmann generators: numbers against exact events, chains of known kind, the smoke run."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from experiments.energies.boltzmann import report, study
from experiments.study import Run
from jgen import Batch
from jgen.generative_model import loss_at

HARD = study.WELLS["hard"]


@pytest.fixture
def run(tmp_path):
    config = dataclasses.replace(
        study.SMOKE, flow=study.FlowConfig(1, (4,)), num_walk=95, num_corrected=20_000
    )
    with Run(tmp_path / "run", config) as run:
        yield run


def events(num, seed=0):
    """Events of the hard well by its quantiles, without the toy's own sampling."""
    rng = np.random.default_rng(seed)
    x = HARD.toy.marginals[0].quantile(rng.uniform(size=num))
    return np.stack([x, rng.normal(size=num)], axis=1)


def test_exact_events_give_exact_metrics():
    x, none = events(20_000), np.full(20_000, HARD.log_z)
    found = {"x": x, "log_weight": none, "log_weight_exact": none, "log_weight_walks": none}
    metrics = report.flow_metrics("hard", found)
    assert metrics["forward_ess_walks"].value == 1
    for name in ("uncovered", "ess", "forward_ess"):
        assert metrics[name].value.value == metrics[name].truth
    assert metrics["log_Z"].value.value == pytest.approx(HARD.log_z)
    for name in ("dF", "population_right", "population_right_model"):
        (value, error), exact = metrics[name]
        assert abs(value - exact) < 4 * error
        assert error < 0.1 * exact


def test_a_lost_well_is_in_the_forward_size_and_the_populations():
    """A perfect model of the left well alone; its difference is infinite and left out."""
    x = events(20_000)
    left = x[:, 0] < HARD.wall
    flat = np.full(20_000, HARD.log_z)
    gap = np.where(left, flat, flat + 80.0)  # the density right of the wall is e^-80 of the true
    found = {"x": x[left], "log_weight": flat[left], "log_weight_exact": gap}
    metrics = report.flow_metrics("hard", found | {"log_weight_walks": gap})
    assert metrics["ess"].value.value == 1
    assert max(metrics["forward_ess"].value.value, metrics["forward_ess_walks"].value) < 1e-20
    assert metrics["uncovered"].value.value == np.mean(~left)
    assert metrics["population_right"].value.value == 0
    assert "dF" not in metrics
    assert metrics["dF_truth"] == pytest.approx(4.7776, abs=1e-4)


def test_chains_that_never_cross_have_no_error():
    x = np.full((3, 50, 2), -2.0) + np.linspace(0, 0.1, 50)[None, :, None]
    chains = {"x": x, "acceptance": np.full(3, 0.5)}
    metrics = report.chain_metrics("hard", chains)
    assert (metrics["crossings"], metrics["acceptance"]) == (0, 0.5)
    assert metrics["population_right"] == (0.0, HARD.population_right)
    assert "tau" not in metrics
    x[0, 25:, 0] = 2.0
    metrics = report.chain_metrics("hard", chains)
    assert metrics["crossings"] == pytest.approx(1 / 3)
    assert metrics["population_right"].value.value == pytest.approx(1 / 6)
    assert metrics["population_right"].value.error > 0.1


def test_chains_are_binned_with_the_spread_between_them():
    x = np.array([[-2.5, -2.5], [-2.5, 2.0]])[..., None]
    value, error = report.binned_chains("hard", x)
    assert value.max() == 0.75
    assert error[value.argmax()] == pytest.approx(0.25)


def test_short_walks_stay_in_their_wells(run):
    x = study.short_walks(run, "hard")
    assert x.shape == (190, 2)
    assert np.all(x[:95, 0] < HARD.wall)
    assert np.all(x[95:, 0] > HARD.wall)
    # They are chains at equilibrium in each well: v is normal.
    assert abs(x[:, 1].std() - 1) < 0.35


def test_corrected_events_have_the_populations_of_the_target(run):
    """A uniform proposal in place of the annealed flow: weights and walks make it the well."""
    rng = np.random.default_rng(2)
    x = np.stack([rng.uniform(-4, 4, 200_000), rng.normal(size=200_000)], axis=1)
    proposal = {"x": x, "log_weight": -HARD.potential(x[:, 0])}
    found = study.corrected_events(run, proposal, "hard")
    assert found.shape == (20_000, 2)
    right, exact = np.mean(found[:, 0] > HARD.wall), HARD.population_right
    # Drawn with replacement from 200,000 of which 4 % have a weight worth speaking of.
    assert right == pytest.approx(exact, abs=5 * (2 * exact / 20_000) ** 0.5)
    cdf = lambda v: HARD.toy.marginals[0].probability(-np.inf, v)
    assert stats.kstest(found[:4000, 0], cdf).pvalue > 1e-3
    assert abs(found[:, 1].std() - 1) < 0.03


def test_objectives_by_hand(run):
    """An untrained flow permutes a normal variable: divergence and likelihood in closed form."""
    flow, batch = study.make_flow(run.config.flow), Batch(None, weight=jnp.ones(20_000))
    # <log q> = -1 - log 2 pi, and <U> = 3 / 4 - 3 + 1 / 2 for x and v normal.
    entropy, energy = 1 + np.log(2 * np.pi), 3 / 4 - 3 + 1 / 2
    key, params = jax.random.key(0), flow.init(jax.random.key(1))
    for method, points in (
        ("plain", {0.0: 1.0}),
        ("annealed", {0.0: 5.0, 0.25: 3.0, 0.5: 1.0, 1.0: 1.0}),
    ):
        model, data = study.objective(run, flow, "hard", method)
        assert data is None
        loss = jax.jit(lambda done: loss_at(model, params, key, batch, done))  # noqa: B023
        for done, temperature in points.items():
            assert float(loss(done)) == pytest.approx(energy / temperature - entropy, abs=0.06)
    model, data = study.objective(run, flow, "hard", "mixed")
    minus_log_q = np.log(2 * np.pi) + 0.5 * np.mean(np.sum(data.x**2, axis=1))
    found = jax.jit(loss_at, static_argnums=0)(model, params, key, data, 0.0)
    assert float(found) == pytest.approx((energy - entropy + minus_log_q) / 2, abs=0.5)


@pytest.mark.study
def test_a_rough_flow_is_right_within_its_errors(smoke):
    metrics = json.loads((smoke("boltzmann") / "metrics.json").read_text())
    assert metrics["dF_truth"] == pytest.approx(1.3222, abs=1e-4)
    assert metrics["log_Z_truth"] == pytest.approx(5.4269, abs=1e-4)
    assert 0.02 < metrics["ess"] < 1
    for name in ("dF", "log_Z"):
        value, error, exact = (metrics[f"{name}{end}"] for end in ("", "_error", "_truth"))
        assert abs(value - exact) < 5 * error
        assert error < 0.3
    assert metrics["tilted/walk/crossings"] < metrics["tilted/metropolis_plain/crossings"]
    bounds = [metrics[f"tilted/vae/{name}"] for name in ("elbo", "iwae", "iwae_truth")]
    assert bounds == sorted(bounds)


def test_bad_options():
    for options, message in (
        ({"wells": ()}, "wells must be of tilted, hard, got ()"),
        ({"num_gen": 100}, "num_gen must be at least 4000"),
        ({"num_walk": 5}, "num_walk must be at least 10"),
    ):
        with pytest.raises(ValueError, match=message):
            study.check(dataclasses.replace(study.SMOKE, **options))
    with pytest.raises(ValueError, match=r"annealing must be in \(0, 1\]"):
        study.FlowConfig(annealing=0.0).check()


def test_parameters_of_one_flow():
    size = sum(a.size for a in jax.tree.leaves(jax.eval_shape(
        study.build(study.SMOKE)["flow"].init, jax.random.key(0)
    )))  # fmt: skip
    # One hidden layer of 16: 2 x 16 + 34 numbers a coupling, and a matrix of 4 with a shift or not.
    assert 4 * (32 + 34) <= size <= 4 * (32 + 34 + 8)

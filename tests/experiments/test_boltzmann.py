"""Boltzmann generators: numbers against exact events and chains of known kind, a small run."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from experiments import _boltzmann as parts
from experiments import _boltzmann_report as report
from experiments import boltzmann as study
from experiments._command_line import run
from jgen.generative_model import Batch, loss_at
from jgen.plotting import Counted

SMALL = study.SMOKE
HARD = parts.WELLS["hard"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, study.main(SMALL, out)


def events(num, seed=0):
    """Events of the hard well by its quantiles, without the toy's own sampling."""
    rng = np.random.default_rng(seed)
    x = HARD.toy.marginals[0].quantile(rng.uniform(size=num))
    return np.stack([x, rng.normal(size=num)], axis=1)


def test_exact_events_give_exact_metrics():
    x, none = events(20_000), np.full(20_000, HARD.log_z)
    found = {"x": x, "log_weight": none, "log_weight_exact": none, "log_weight_walks": none}
    metrics = report.flow_metrics("hard", found)
    assert metrics["uncovered"] == 0
    assert metrics["ess"] == metrics["forward_ess"] == metrics["forward_ess_walks"] == 1
    assert metrics["log_Z"] == pytest.approx(HARD.log_z)
    for name in ("dF", "population_right", "population_right_model"):
        value, error, exact = (metrics[f"{name}{end}"] for end in ("", "_error", "_exact"))
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
    assert metrics["ess"] == 1
    assert max(metrics["forward_ess"], metrics["forward_ess_walks"]) < 1e-20
    assert metrics["uncovered"] == np.mean(~left)
    assert metrics["population_right"] == 0
    assert "dF" not in metrics
    assert metrics["dF_exact"] == pytest.approx(4.7776, abs=1e-4)


def test_chains_that_never_cross_have_no_error():
    x = np.full((3, 50, 2), -2.0) + np.linspace(0, 0.1, 50)[None, :, None]
    metrics = report.chain_metrics("hard", x, np.full(3, 0.5))
    assert (metrics["crossings"], metrics["population_right"], metrics["acceptance"]) == (0, 0, 0.5)
    assert not {"population_right_error", "tau"} & set(metrics)
    x[0, 25:, 0] = 2.0
    metrics = report.chain_metrics("hard", x, np.full(3, 0.5))
    assert metrics["crossings"] == pytest.approx(1 / 3)
    assert metrics["population_right"] == pytest.approx(1 / 6)
    assert metrics["population_right_error"] > 0.1


def test_counts_have_the_errors_of_repetitions():
    """Weighted counts of a wrong proposal: exact probabilities, within errors that are right."""
    rng, found = np.random.default_rng(1), []
    for _ in range(100):
        x = rng.uniform(-3.6, 3.4, 3000)
        found.append(report.counted("hard", x, -HARD.potential(x)))
    values, errors = np.array(found).swapaxes(0, 1)
    exact = report.marginal("hard", {}).exact
    likely = exact > 0.02
    np.testing.assert_allclose(errors.mean(axis=0)[likely], values.std(axis=0)[likely], rtol=0.35)
    pulls = (values.mean(axis=0) - exact)[likely] / (errors.mean(axis=0)[likely] / 10)
    assert np.abs(pulls).max() < 4
    plain = report.counted("hard", np.array([-2.5, -2.5, 2.0, 99.0]))
    assert plain.value.max() == 0.5
    assert plain.error[plain.value.argmax()] == pytest.approx((0.5 * 0.5 / 4) ** 0.5)
    chains = report.counted_chains("hard", np.array([[-2.5, -2.5], [-2.5, 2.0]]))
    assert isinstance(chains, Counted)
    assert chains.value.max() == 0.75
    assert chains.error[chains.value.argmax()] == pytest.approx(0.25)


def test_short_walks_stay_in_their_wells():
    config = dataclasses.replace(SMALL, num_walk=95)
    x = parts.short_walks(config, "hard")
    assert x.shape == (190, 2)
    assert np.all(x[:95, 0] < HARD.wall)
    assert np.all(x[95:, 0] > HARD.wall)
    # They are chains at equilibrium in each well: v is normal.
    assert abs(x[:, 1].std() - 1) < 0.35


def test_corrected_events_have_the_populations_of_the_target(tmp_path):
    """A uniform proposal in place of the annealed flow: weights and walks make it the well."""
    rng, config = np.random.default_rng(2), dataclasses.replace(SMALL, num_corrected=20_000)
    x = np.stack([rng.uniform(-4, 4, 200_000), rng.normal(size=200_000)], axis=1)
    np.savez(tmp_path / "hard-annealed.npz", x=x, log_weight=-HARD.potential(x[:, 0]))
    found = parts.corrected_events(config, "hard", tmp_path)
    assert found.shape == (20_000, 2)
    right, exact = np.mean(found[:, 0] > HARD.wall), HARD.population_right
    # Drawn with replacement from 200,000 of which 4 % have a weight worth speaking of.
    assert right == pytest.approx(exact, abs=5 * (2 * exact / 20_000) ** 0.5)
    cdf = lambda v: HARD.toy.marginals[0].probability(-np.inf, v)
    assert stats.kstest(found[:4000, 0], cdf).pvalue > 1e-3
    assert abs(found[:, 1].std() - 1) < 0.03


def test_objectives_by_hand(tmp_path):
    """An untrained flow permutes a normal variable: divergence and likelihood in closed form."""
    config = dataclasses.replace(SMALL, flow=parts.FlowConfig(depth=1, hidden=(4,)))
    batch = Batch(None, weight=jnp.ones(20_000))
    # <log q> = -1 - log 2 pi, and <U> = 3 / 4 - 3 + 1 / 2 for x and v normal.
    entropy, energy = 1 + np.log(2 * np.pi), 3 / 4 - 3 + 1 / 2
    key, params = jax.random.key(0), parts.make_flow(config.flow).init(jax.random.key(1))
    for method, points in (
        ("plain", {0.0: 1.0}),
        ("annealed", {0.0: 5.0, 0.25: 3.0, 0.5: 1.0, 1.0: 1.0}),
    ):
        model, data = parts.objective(config, "hard", method, tmp_path)
        assert data is None
        loss = jax.jit(partial(loss_at, model))
        for done, temperature in points.items():
            found = loss(params, key, batch, done)
            assert float(found) == pytest.approx(energy / temperature - entropy, abs=0.06)
    model, data = parts.objective(config, "hard", "mixed", tmp_path)
    minus_log_q = np.log(2 * np.pi) + 0.5 * np.mean(np.sum(data.x**2, axis=1))
    found = jax.jit(partial(loss_at, model))(params, key, data, 0.0)
    assert float(found) == pytest.approx((energy - entropy + minus_log_q) / 2, abs=0.5)


def test_small_run_leaves_metrics_and_figures(finished):
    out, metrics = finished
    written = json.loads((out / "metrics.json").read_text())
    assert written == metrics
    for name in ("ess", "dF", "log_Z"):
        for end in ("", "_error", "_exact"):
            assert metrics[f"{name}{end}"] == metrics[f"tilted/{name}{end}"]
    assert metrics["dF_exact"] == pytest.approx(1.3222, abs=1e-4)
    assert metrics["log_Z_exact"] == pytest.approx(5.4269, abs=1e-4)
    # A rough flow, but events with weights: what they say is right within its error.
    assert 0.02 < metrics["ess"] < 1
    for quantity in ("dF", "log_Z"):
        value, error, exact = (metrics[f"{quantity}{e}"] for e in ("", "_error", "_exact"))
        assert abs(value - exact) < 5 * error
        assert error < 0.3
    assert metrics["tilted/walk/crossings"] < metrics["tilted/metropolis_plain/crossings"]
    bounds = [metrics[f"tilted/vae/{name}"] for name in ("elbo", "iwae", "iwae_exact")]
    assert bounds == sorted(bounds)
    for name in ("landscapes", "marginals", "free-energy", "traces"):
        for suffix in (".pdf", ".png"):
            assert (out / "figures" / f"{name}{suffix}").stat().st_size > 1000


def test_the_same_folder_is_read_again_and_another_refuses(finished, tmp_path, capsys, monkeypatch):
    out, metrics = finished
    monkeypatch.setattr(study, "_plot", lambda *arguments: None)
    assert study.main(SMALL, out, plot_only=True) == metrics
    assert "forward ESS" in capsys.readouterr().out
    with pytest.raises(ValueError, match="without --plot-only first"):
        study.main(SMALL, tmp_path / "none", plot_only=True)


def test_bad_options(tmp_path):
    replace = lambda **fields: dataclasses.replace(SMALL, **fields)
    for config, message in (
        (replace(wells=()), "at least one of tilted and hard"),
        (replace(num_gen=100), "num_gen must be at least 4000"),
        (replace(num_walk=5), "num_walk must be at least 10"),
        (replace(flow=parts.FlowConfig(annealing=0.0)), r"annealing must be in \(0, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            study.main(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_dry_run_counts_parameters(capsys):
    arguments = ["--preset", "smoke", "--dry-run"]
    run("boltzmann", study.__doc__, study.PRESETS, study.main, study.count_parameters, arguments)
    parameters = json.loads(capsys.readouterr().out)["parameters"]
    # One hidden layer of 16: 2 x 16 + 34 numbers a coupling, and a matrix of 4 with a shift or not.
    assert 4 * (32 + 34) <= parameters["flow"] <= 4 * (32 + 34 + 8)

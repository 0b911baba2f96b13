"""The fitted Gaussian: a small run against known values, and that its shortcut is none."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from experiments import gaussian_fit as study
from jgen.amplification import region_fractions
from jgen.generative_model import draw
from jgen.toys import normal_fit

SMALL = study.SMOKE


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, study.main(SMALL, out)


def test_pseudo_experiments_find_the_exact_value(finished):
    _, metrics = finished
    exact = metrics["G_exact"]
    assert (metrics["G_linear"], exact) == pytest.approx((70.45, 69.91), abs=0.005)
    error = exact * (2 / SMALL.num_experiments) ** 0.5
    assert abs(metrics["G/experiments"] - exact) < 3 * error
    half_width = (metrics["G/experiments_high"] - metrics["G/experiments_low"]) / 2
    assert half_width == pytest.approx(error, rel=0.1)
    assert metrics["G/paper_low"] < exact < 2 * metrics["G/paper_high"]


def test_the_bootstrap_succeeds_and_the_plain_ensemble_fails(finished):
    _, metrics = finished
    assert abs(metrics["G/bootstrap"] - metrics["G_exact"]) < 3 * metrics["G/bootstrap_error"]
    assert metrics["G/bootstrap_error"] < 0.1 * metrics["G_exact"]
    expected, error = (metrics[f"coverage/bootstrap_{n}"] for n in ("expected", "error"))
    assert abs(metrics["coverage/bootstrap"] - expected) < 3 * error
    assert metrics["coverage/plain_exact"] == 0
    assert 0.25 < metrics["negative/plain"] < 0.8
    assert metrics["limit/plain"] > 20 * metrics["G_exact"]
    assert metrics["limit/bootstrap"] < metrics["G_exact"] * 1.5


def test_binomial_counts_are_those_of_drawn_events():
    """Mean, variance and correlation of nested prefixes, of events that the model draws."""
    config = dataclasses.replace(SMALL, max_gen=1000, sizes_per_decade=1)
    model, mean = normal_fit(1.0).model, 0.3
    params = {"mean": np.float32(mean), "width": np.float32(1)}
    events = draw(model, params, jax.random.key(0), 400_000, batch_size=100_000)[:, 0]
    drawn = np.stack(
        [region_fractions(v, [0, 0.5], [100, 1000])[:, 0] for v in events.reshape(400, 1000)]
    )
    fractions, sizes = study._generate(config, np.full(400, mean), np.random.default_rng(1))
    np.testing.assert_array_equal(sizes, [100, 1000])
    found = fractions[..., 0]
    error = np.hypot(drawn.std(axis=0), found.std(axis=0)) / 20
    np.testing.assert_array_less(np.abs(drawn.mean(axis=0) - found.mean(axis=0)), 4 * error)
    np.testing.assert_allclose(drawn.std(axis=0), found.std(axis=0), rtol=4 / 400**0.5)
    correlations = [np.corrcoef(one.T)[0, 1] for one in (drawn, found)]
    np.testing.assert_allclose(correlations, 0.1**0.5, atol=4 / 20)


def test_a_run_leaves_its_files_and_can_be_drawn_again(finished, capsys):
    out, metrics = finished
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert all(math.isfinite(value) for value in metrics.values())
    figure = out / "figures" / "variances.png"
    figure.unlink()
    capsys.readouterr()
    assert study.main(SMALL, out, plot_only=True) == metrics
    assert figure.stat().st_size > 1000
    table = capsys.readouterr().out
    assert f"{metrics['G_exact']:.2f}" in table
    assert table.splitlines()[0].split() == ["paper", "exact", "ours"]
    other = study._table(dataclasses.replace(SMALL, num_train=500), metrics)
    assert "0.154 " not in other  # the paper's numbers are those of its own region and 1000 events


def test_bad_options(tmp_path):
    for options, message in (
        ({"low": 1.0}, "low must be below high"),
        ({"members": 1}, "members must be at least 2"),
        ({"num_experiments": 10}, "num_experiments must be at least 50"),
    ):
        with pytest.raises(ValueError, match=message):
            study.main(dataclasses.replace(SMALL, **options), tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
    with pytest.raises(ValueError, match="run without --plot-only"):
        study.main(SMALL, tmp_path / "none", plot_only=True)

"""The fitted Gaussian: a small run against known values, and that its shortcut is none."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.amplification import gaussian_fit as study
from jgen import draw
from jgen.amplification import region_fractions
from jgen.toys import normal_fit

SMALL = study.SMOKE


@pytest.fixture(scope="module")
def metrics(smoke, command):
    return command("gaussian_fit", "--out", smoke("gaussian_fit"), "--plot-only")


@pytest.mark.study
def test_pseudo_experiments_find_the_exact_value(metrics):
    exact = metrics["G_exact"]
    assert (metrics["G_linear"], exact) == pytest.approx((70.45, 69.91), abs=0.005)
    error = exact * (2 / SMALL.num_experiments) ** 0.5
    assert abs(metrics["G/experiments"] - exact) < 3 * error
    half_width = (metrics["G/experiments_high"] - metrics["G/experiments_low"]) / 2
    assert half_width == pytest.approx(error, rel=0.1)
    assert metrics["G/paper_low"] < exact < 2 * metrics["G/paper_high"]


@pytest.mark.study
def test_the_bootstrap_succeeds_and_the_plain_ensemble_fails(metrics):
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
    sample, mean = normal_fit(1.0).sample, 0.3
    params = {"mean": np.float32(mean), "width": np.float32(1)}
    events = draw(sample, params, jax.random.key(0), 400_000, batch_size=100_000)[:, 0]
    drawn = np.stack(
        [region_fractions(v, [0, 0.5], [100, 1000])[:, 0] for v in events.reshape(400, 1000)]
    )
    fractions, sizes = study.generate(config, np.full(400, mean), np.random.default_rng(1))
    np.testing.assert_array_equal(sizes, [100, 1000])
    found = fractions[..., 0]
    error = np.hypot(drawn.std(axis=0), found.std(axis=0)) / 20
    np.testing.assert_array_less(np.abs(drawn.mean(axis=0) - found.mean(axis=0)), 4 * error)
    np.testing.assert_allclose(drawn.std(axis=0), found.std(axis=0), rtol=4 / 400**0.5)
    correlations = [np.corrcoef(one.T)[0, 1] for one in (drawn, found)]
    np.testing.assert_allclose(correlations, 0.1**0.5, atol=4 / 20)


@pytest.mark.study
def test_the_papers_numbers_stand_beside_its_own_region_only(smoke, command, tmp_path, capsys):
    command("gaussian_fit", "--out", smoke("gaussian_fit"), "--plot-only")
    assert capsys.readouterr().out.splitlines()[0].split() == ["paper", "exact", "ours"]
    command("gaussian_fit", "--out", tmp_path, "--num-train", 500, "--num-experiments", 50)
    shown = capsys.readouterr().out
    assert shown.splitlines()[0].split() == ["exact", "ours"]
    assert "0.154 " not in shown


def test_the_region_has_two_ends(command, tmp_path):
    with pytest.raises(SystemExit, match="low must be below high"):
        command("gaussian_fit", "--out", tmp_path / "bad", "--low", 1.0)
    assert not (tmp_path / "bad").exists()

"""Exact answers of the study of samplers."""

import json

import jax
import numpy as np
import pytest

from experiments import study as harness
from experiments.models import diffusion_samplers as study


@pytest.mark.study
def test_exact_scores_reach_the_floor(smoke):
    metrics = json.loads((smoke("diffusion_samplers") / "metrics.json").read_text())
    for sampler in ("heun", "edm_heun"):
        error = metrics[f"error/exact/{sampler}/64"]
        floor, spread = (metrics[f"floor/exact{end}"] for end in ("", "_error"))
        assert error < floor + 4 * spread
    # A network trained for a second is far from it.
    assert metrics["error/trained/heun/64"] > 2 * metrics["floor/trained"]
    # By quadrature; halving its points changes 1e-5.
    assert metrics["nll/exact"] == pytest.approx(0.28923, abs=1e-4)
    for name in ("vp/v", "edm/data"):
        assert metrics[f"nll/{name}"] == pytest.approx(
            0.28923 + metrics[f"excess/{name}"], abs=1e-4
        )
        assert metrics[f"excess/{name}"] > 0


def test_every_sampler_has_the_calls_that_it_is_plotted_at():
    for calls in study.DEFAULT.calls:
        assert {make(calls).n_eval for _, make in study.SAMPLERS.values()} == {calls}


def test_standardisation_is_that_of_moons():
    x = study.true_events(study.MOONS, 20_000, jax.random.key(0))
    np.testing.assert_allclose(x.mean(axis=0), study.MEAN, atol=0.03)
    np.testing.assert_allclose(x.std(axis=0), study.SCALE, rtol=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--calls 12", r"calls must be multiples of 8, got \(12,\)"),
        ("--samplers Heun heun", "samplers must be of Euler, Heun"),
        (("--trained", "edm data"), 'trained must have "vp v"'),
        ("--num-floor 1", "num_floor must be at least 2, got 1"),
    ],
)
def test_bad_options(options, message):
    options = options.split() if isinstance(options, str) else options
    with pytest.raises(SystemExit, match=message):
        harness.run(study.STUDY, ["--preset", "smoke", "--dry-run", *options])

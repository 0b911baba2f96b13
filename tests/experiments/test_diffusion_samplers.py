"""The study of samplers as a user runs it, on a still smaller preset than smoke."""

import dataclasses
import json
import math

import numpy as np
import pytest

from experiments import _diffusion_samplers as parts
from experiments import diffusion_samplers as study
from experiments._command_line import run

SMALL = dataclasses.replace(
    study.SMOKE, samplers=("Heun", "EDM Heun"), trained=("vp v",), calls=(64,)
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The study without its figures, which are drawn from the folder later."""
    out = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "_plot", lambda *args: None)
        return out, study.main(SMALL, out)


def test_exact_scores_reach_the_floor(finished):
    _, metrics = finished
    for sampler in ("heun", "edm_heun"):
        error = metrics[f"error/exact/{sampler}/64"]
        floor, spread = (metrics[f"floor/exact{end}"] for end in ("", "_error"))
        assert error < floor + 4 * spread
    # A network trained for a second is far from it.
    assert metrics["error/trained/heun/64"] > 2 * metrics["floor/trained"]
    # By quadrature; halving its points changes 1e-5.
    assert metrics["nll/exact"] == pytest.approx(0.28923, abs=1e-4)
    assert metrics["nll/vp/v"] > metrics["nll/exact"]


def test_every_sampler_has_the_calls_that_it_is_plotted_at():
    for calls in study.DEFAULT.calls:
        assert {make(calls).n_eval for _, make in parts.SAMPLERS.values()} == {calls}


def test_standardisation_is_that_of_moons():
    x = parts._truth(parts.MOONS, 20_000, parts._key(SMALL, "test"))
    np.testing.assert_allclose(x.mean(axis=0), parts._MEAN, atol=0.03)
    np.testing.assert_allclose(x.std(axis=0), parts._SCALE, rtol=0.02)


def test_a_run_can_be_drawn_from_its_folder(finished, capsys):
    out, metrics = finished
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert all(math.isfinite(value) for value in metrics.values())
    names = ("exact-vp", "exact-ve-edm", "trained-vp")
    assert study.main(SMALL, out, plot_only=True) == metrics
    assert all((out / "figures" / f"{name}.png").stat().st_size > 1000 for name in names)
    assert capsys.readouterr().out.startswith("error / floor, calls")


def test_bad_options(tmp_path, capsys):
    for options, message in (
        ({"calls": (12,)}, r"calls must be multiples of 8, got \(12,\)"),
        ({"samplers": ("Heun", "heun")}, r"unknown samplers \['heun'\]"),
        ({"trained": ("edm data",)}, 'trained must have "vp v"'),
        ({"num_floor": 1}, "needs two samples or more, got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            study.main(dataclasses.replace(SMALL, **options), tmp_path / "bad")
    with pytest.raises(ValueError, match="run without --plot-only"):
        study.main(SMALL, tmp_path / "none", plot_only=True)
    run("diffusion_samplers", study.__doc__, study.PRESETS, study.main, study.count_parameters,
        ["--dry-run", "--preset", "smoke"])  # fmt: skip
    assert json.loads(capsys.readouterr().out)["parameters"]["vp v"] > 0

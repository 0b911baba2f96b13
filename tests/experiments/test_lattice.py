import dataclasses
import json
import math

import numpy as np
import pytest

from experiments import _lattice as parts
from experiments import lattice as study
from experiments._command_line import run
from jgen.lattice import free_log_z, free_propagator

# A free field, of which everything is known, on the smallest lattice with two momenta.
FREE = dataclasses.replace(
    study.SMOKE,
    m_squared=1.0,
    lam=0.0,
    flows=("equivariant",),
    equivariant=dataclasses.replace(
        study.SMOKE.equivariant,
        num_frequencies=1,
        training=dataclasses.replace(study.SMOKE.equivariant.training, steps=200, batch_size=64),
    ),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "free"
    return out, study.main(FREE, out)


def test_free_field_is_found_exactly(finished):
    _, metrics = finished
    exact = free_log_z(4, 1.0)
    propagator = free_propagator(4, 1.0)
    assert metrics["reference/log_Z"] == exact
    assert metrics["reference/phi_squared"] == pytest.approx(propagator[0, 0])
    assert metrics["reference/V_M_squared"] == pytest.approx(0.5)
    assert metrics["equivariant/ess"] > 0.95
    assert metrics["equivariant/forward_ess"] > 0.95
    assert metrics["equivariant/acceptance"] > 0.9
    assert 0 < metrics["equivariant/solver_error"] < 0.01
    assert abs(metrics["equivariant/log_Z"] - exact) < 3 * metrics["equivariant/log_Z_error"]
    bound, error = (metrics[f"equivariant/log_Z_bound{end}"] for end in ("", "_error"))
    assert exact - 0.05 < bound < exact + 3 * error
    for sampler in ("hmc", "equivariant"):
        for name in ("phi_squared", "V_M_squared", "action_density"):
            value, error = metrics[f"{sampler}/{name}"], metrics[f"{sampler}/{name}_error"]
            assert error < 0.1 * value
            assert abs(value - metrics[f"reference/{name}"]) < 3.5 * error, (sampler, name)
    length, error = (metrics[f"hmc/correlation_length{end}"] for end in ("", "_error"))
    # The second moment of the free propagator is exact: xi = 1 / m.
    assert abs(length - 1) < 3.5 * error < 0.35


def test_a_run_leaves_its_files_and_can_be_drawn_again(finished, capsys):
    out, metrics = finished
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert all(math.isfinite(value) for value in metrics.values())
    names = ["configurations", "two-point", "magnetization", "weights", "training"]
    for name in names:
        (out / "figures" / f"{name}.png").unlink()
    capsys.readouterr()
    assert study.main(FREE, out, plot_only=True) == metrics
    assert all((out / "figures" / f"{name}.png").stat().st_size > 1000 for name in names)
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["reference", "hmc", "equivariant"]
    assert table[1].split()[:2] == ["log_Z", f"{free_log_z(4, 1.0):.5g}"]


def test_what_is_measured_is_read_back(tmp_path):
    found = parts.Found(
        {"a": np.arange(4.0)}, np.zeros((1, 2, 2)), 0.5, np.ones(3), np.ones(2), 0.1, 0.9
    )
    parts.write_found(tmp_path / "x.npz", found)
    back = parts.read_found(tmp_path / "x.npz")
    np.testing.assert_array_equal(back.values["a"], found.values["a"])
    assert (back.seconds, back.solver_error, back.acceptance) == (0.5, 0.1, 0.9)


def test_presets_and_bad_options(tmp_path, capsys):
    for options, message in (
        ({"flows": ("spline",)}, "flows are one or more of affine, equivariant, got"),
        ({"num_events": 50}, "errors need 100 or more configurations, got num_events 50"),
        ({"lam": -1.0}, "needs lam > 0"),
    ):
        with pytest.raises(ValueError, match=message):
            study.main(dataclasses.replace(FREE, **options), tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
    with pytest.raises(ValueError, match="run without --plot-only"):
        study.main(FREE, tmp_path / "none", plot_only=True)
    run("lattice", study.__doc__, study.PRESETS, study.main, study.count_parameters,
        ["--dry-run", "--preset", "default"])  # fmt: skip
    assert json.loads(capsys.readouterr().out)["parameters"]["equivariant"] == 1 + 5 * 6 * 15

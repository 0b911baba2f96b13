"""The lattice study on a free field, of which everything is known."""

import dataclasses
import json

import pytest

from experiments.energies import lattice as study
from experiments.study import run
from jgen.lattice import free_log_z, free_propagator


@pytest.mark.study
def test_free_field_is_found_exactly(tmp_path, capsys):
    """On the smallest lattice with two momenta."""
    options = "--preset smoke --m-squared 1 --lam 0 --flows equivariant".split()
    options += "--equivariant.num-frequencies 1 --equivariant.training.steps 200".split()
    options += ["--equivariant.training.batch-size", "64", "--out", tmp_path / "free"]
    metrics = run(study.STUDY, options)
    exact, propagator = free_log_z(4, 1.0), free_propagator(4, 1.0)
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
    table = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert table[0].split() == ["reference", "hmc", "equivariant"]
    assert table[1].split()[:2] == ["log_Z", f"{exact:.6g}"]


def test_bad_options():
    for options, message in (
        ({"flows": ("spline",)}, "flows must be of affine, equivariant, got"),
        ({"num_events": 50}, "num_events must be at least 100, got 50"),
        ({"hmc": study.HmcConfig(chains=2, num=10)}, "need 100 or more configurations"),
        ({"lam": -1.0}, "needs lam > 0"),
    ):
        with pytest.raises(ValueError, match=message):
            study.check(dataclasses.replace(study.SMOKE, **options))
    with pytest.raises(ValueError, match="closes on lattices of even length"):
        study.build(dataclasses.replace(study.SMOKE, length=5))


def test_parameters_of_the_default(capsys):
    run(study.STUDY, ["--dry-run"])
    assert json.loads(capsys.readouterr().out)["parameters"]["equivariant"] == 1 + 5 * 6 * 15

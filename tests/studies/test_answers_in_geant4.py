"""A model in the place of the calorimeter: what Geant4 hands over, and what is made of showers."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import study
from experiments.showers import in_geant4
from experiments.simulate import physics
from jgen.showers import Showers, get_geometry, read_showers, sample_path

ROOT = Path(__file__).parents[2]
DS2 = get_geometry("ds2")


def test_profiles_hold_all_energy_and_errors_are_those_of_showers():
    showers = read_showers(sample_path(), DS2, 0, 50)
    cells = showers.voxels.reshape(-1, *DS2.shape).astype(float)
    for axis, others in ((0, (2, 3)), (2, (1, 2))):
        found = in_geant4.profile(showers, axis)
        np.testing.assert_allclose(found.counts, cells.sum(axis=(0, *others)), rtol=1e-6)
        spread = cells.sum(axis=others).std(axis=0)
        np.testing.assert_allclose(np.sqrt(found.variances / 50), spread, rtol=1e-6)
    seen = in_geant4.observables(Showers(showers.energies[:3], showers.voxels[:3]))
    total = cells[:3].sum(axis=(1, 2, 3))
    np.testing.assert_allclose(seen["response"], total / showers.energies[:3], rtol=1e-6)
    np.testing.assert_allclose(seen["hits"], (showers.voxels[:3] > DS2.threshold).sum(axis=1))
    depth = cells[:3].sum(axis=(2, 3)) @ np.arange(45) / total
    np.testing.assert_allclose(seen["depth"], depth, rtol=1e-6)


def test_what_is_missing_is_said(tmp_path, monkeypatch):
    out = ("--out", str(tmp_path / "out"))
    with pytest.raises(SystemExit, match="error: .*none"):
        study.run(in_geant4.STUDY, [*out, "--model", str(tmp_path / "none")])
    monkeypatch.setattr(physics.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="Geant4 is not installed; run `pip install"):
        in_geant4.inputs(in_geant4.Config(model="x"))
    assert not (tmp_path / "out").exists()


SCRIPT = """
import json
from experiments.simulate.detector import Detector
from experiments.simulate.geant4 import Simulation

simulation = Simulation(Detector(), "e-", "G4EmStandardPhysics", 0.7, replaced=True)
found = []
for seeds in ((5, 7), (5, 7), (6, 7)):
    simulation.replace(1500.0, seeds, found.append)
deposits = len(simulation._calorimeter.sensor.deposits)
after = simulation.shower(1500.0, (5, 7))[:, 0].sum()
print(json.dumps([found, deposits, after]))
"""


@pytest.mark.study
def test_geant4_stops_the_particle_at_the_surface():
    try:
        physics.choose_physics("auto", "e-")
    except ValueError as error:
        pytest.skip(str(error))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], check=True, capture_output=True, cwd=ROOT, text=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    found, deposits, after = json.loads(done.stdout.splitlines()[-1])
    for energy, position, direction, random in found:
        assert energy == pytest.approx(1500.0)
        np.testing.assert_allclose(position, [800.0, 0, 0], atol=1e-6)
        np.testing.assert_allclose(direction, [1.0, 0, 0])
        assert 0 <= random < 2**31
    # A shower is one of Geant4's seeds, and nothing reaches the calorimeter.
    assert found[0][3] == found[1][3] != found[2][3]
    assert deposits == 0
    assert after / 0.033 / 1500 == pytest.approx(0.96, abs=0.3)

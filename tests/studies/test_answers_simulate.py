"""Simulated showers: voxels exactly, options, and Geant4 itself where it and its data are."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from experiments.simulate import geant4_showers as study
from experiments.simulate import physics as physics_lists
from experiments.simulate.detector import Detector
from experiments.simulate.processes import gather
from experiments.study import execute
from jgen.showers import (
    GRIDS,
    Grid,
    get_geometry,
    read_showers,
    sample_path,
    shower_coordinates,
    voxelise,
)
from jgen.training import RunFolder

ROOT = Path(__file__).parents[2]


def main(config, out, **options):
    return execute(study.STUDY, config, out, **options)


# Voxels.


@pytest.mark.parametrize("name", ["ds2", "ds3"])
def test_grids_are_those_of_the_calochallenge(name):
    geometry = study.Config().geometry(name)
    assert geometry.layers == get_geometry(name).layers
    # The published threshold, 15.15 keV, is rounded.
    np.testing.assert_allclose(geometry.threshold, get_geometry(name).threshold, rtol=2e-4)


@pytest.mark.parametrize("name", ["ds2", "ds3"])
def test_a_deposit_at_a_voxels_centre_is_in_that_voxel(name):
    """Centres by jgen.showers.Geometry, an independent statement of the order."""
    grid, geometry = GRIDS[name], get_geometry(name)
    layer = np.repeat(np.arange(grid.num_z), grid.num_alpha * grid.num_r)
    energies = np.random.default_rng(0).uniform(1, 2, grid.num_voxels)
    alpha = np.arctan2(geometry.phi, geometry.eta)
    voxels = voxelise(energies, 3.4 * (layer + 0.5), alpha, geometry.r, grid)
    np.testing.assert_array_equal(voxels, energies)


def one(depth, alpha, radius, grid=GRIDS["ds2"], **options):
    """Index of the voxel of a single deposit, None if it is lost."""
    arrays = (np.array([float(v)]) for v in (1.0, depth, alpha, radius))
    (found,) = np.nonzero(voxelise(*arrays, grid, **options))
    return int(found[0]) if len(found) else None


def test_edges():
    assert one(0, -np.pi, 0) == 0
    assert one(0, np.pi, 0) == 0
    assert one(0, np.pi - 1e-9, 0) == 15 * 9
    assert one(0, -np.pi, 4.65) == 1
    assert one(3.4, -np.pi, 0) == 16 * 9
    assert one(3.39, 0, 9 * 4.65 - 1e-9) == 8 * 9 + 8
    assert one(-1e-9, 0, 0) is None
    assert one(0, 0, 9 * 4.65) is None
    assert one(45 * 3.4 + 1e-9, 0, 0) is None
    assert one(45 * 3.4 - 1e-9, 0, 0) == 44 * 144 + 8 * 9


def test_directions_are_those_of_par04():
    """Along x the particle; y and -z are the two transverse directions."""
    positions = np.array([[805.0, 0, -2.0], [805.0, 3.0, 0], [810.0, 0, 4.0], [801.0, -5.0, 0]])
    depth, alpha, radius = shower_coordinates(positions, 800.0)
    np.testing.assert_allclose(depth, [5, 5, 10, 1])
    np.testing.assert_allclose(alpha, [0, np.pi / 2, np.pi, -np.pi / 2])
    np.testing.assert_allclose(radius, [2, 3, 4, 5])


def random_deposits(num=5000):
    rng = np.random.default_rng(1)
    energies = rng.exponential(0.01, num)
    return (
        energies,
        rng.uniform(0, 153, num),
        rng.uniform(-np.pi, np.pi, num),
        rng.exponential(10, num),
    )


def test_energy_inside_is_kept():
    energies, depth, alpha, radius = random_deposits()
    inside = radius < 9 * 4.65
    assert 0 < inside.sum() < len(inside)
    voxels = voxelise(energies, depth, alpha, radius, GRIDS["ds2"], sampling_fraction=0.033)
    np.testing.assert_allclose(voxels.sum() * 0.033, energies[inside].sum(), rtol=1e-12)


def test_threshold_is_on_the_energy_of_a_voxel_before_the_sampling_fraction():
    place = (np.zeros(3), np.array([0.1, 0.1, 2.0]), np.ones(3))
    options = {"threshold": 0.5, "sampling_fraction": 0.1}
    voxels = voxelise(np.array([0.3, 0.3, 0.5]), *place, GRIDS["ds2"], **options)
    # Two deposits pass together, one of just the threshold does not.
    assert np.count_nonzero(voxels) == 1
    np.testing.assert_allclose(voxels.max(), 6.0)


def test_no_deposits():
    assert not voxelise(*np.zeros((4, 0)), GRIDS["ds2"]).any()


@pytest.mark.parametrize("grid", [*GRIDS.values(), Grid(10, 7, 3, 8.0, 5.1)])
def test_turning_by_one_bin_rolls_the_grid(grid):
    energies, depth, alpha, radius = random_deposits()
    turned = alpha + 2 * np.pi / grid.num_alpha
    turned = np.where(turned > np.pi, turned - 2 * np.pi, turned)
    shape = (grid.num_z, grid.num_alpha, grid.num_r)
    before = voxelise(energies, depth, alpha, radius, grid).reshape(shape)
    after = voxelise(energies, depth, turned, radius, grid).reshape(shape)
    np.testing.assert_allclose(after, np.roll(before, 1, axis=1), rtol=1e-12)


def test_radial_bins_of_dataset_3_nest_in_those_of_dataset_2():
    deposits = random_deposits()
    ds2, ds3 = (voxelise(*deposits, grid) for grid in GRIDS.values())
    rings = ds3.reshape(45, 50, 9, 2).sum((1, 3))
    np.testing.assert_allclose(rings, ds2.reshape(45, 16, 9).sum(1), rtol=1e-12)


# Events, options, and what must be installed.


def test_events_depend_on_seed_and_number_alone():
    config = study.Config(energy_range=(1e3, 1e5))
    events = [study.draw_event(config, i) for i in range(2000)]
    parts = [dataclasses.replace(config, first=700, num=9, processes=3), config]
    assert study.draw_event(parts[0], 703) == events[703] == study.draw_event(parts[1], 703)
    assert study.draw_event(dataclasses.replace(config, seed=1), 703)[1] != events[703][1]
    assert len({seeds for _, seeds in events}) == len(events)
    assert all(0 < s < 2**32 for _, seeds in events for s in seeds)
    # Log-uniform: the logarithms' mean and its error.
    u = (np.log([e for e, _ in events]) - math.log(1e3)) / math.log(100)
    assert 0 <= u.min() < 0.01
    assert 0.99 < u.max() <= 1 + 1e-7
    assert abs(u.mean() - 0.5) < 4 / math.sqrt(12 * len(u))


def test_given_energies_are_taken_in_turn():
    config = study.Config(energies=(1e3, 5e3, 2e4))
    assert [study.draw_event(config, i)[0] for i in range(4)] == [1e3, 5e3, 2e4, 1e3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num": 0}, "num must be positive and finite, got 0"),
        ({"first": -1}, "first must be at least 0, got -1"),
        ({"energy_range": (5.0, 1.0)}, "energies must be positive"),
        ({"energies": (1.0, math.nan)}, "energies must be a number, got nan"),
        ({"grids": ()}, "grids must be different ones"),
        ({"grids": ("ds2", "ds2")}, "grids must be different ones"),
        ({"detector": Detector(num_layers=80)}, "ds2 is 153 mm deep, the detector only 136 mm"),
        ({"detector": Detector(opening=0.1)}, "ds2 reaches to r = 41.85 mm"),
        ({"detector": Detector(opening=7.0)}, "detector.opening must be in"),
        ({"detector": Detector(active_thickness=0.0)}, "detector.active_thickness must be"),
        ({"grids": ("custom",), "custom": Grid(z_step=3.0)}, "not a whole number of pairs"),
        ({"grids": ("custom",), "custom": Grid(num_r=0)}, "custom.num_r must be positive"),
    ],
)
def test_bad_options_are_refused_before_the_folder_is_made(tmp_path, changes, message):
    config = dataclasses.replace(study.SMOKE, **changes)
    with pytest.raises(ValueError, match=message):
        main(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_missing_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(physics_lists.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'run `pip install -e "\.\[simulation\]"` first'):
        main(study.SMOKE, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Make folders of data sets; returns the environment that leads to them."""
    monkeypatch.setattr(physics_lists.importlib.util, "find_spec", lambda name: name)

    def install(*names, where="HOME"):
        folder = tmp_path / ".geant4_pybind" if where == "HOME" else tmp_path / "data"
        for name in names:
            (folder / f"{name}8.1" / "x").mkdir(parents=True)
        (folder / "G4PARTICLEXS9.9").mkdir(parents=True, exist_ok=True)  # empty: does not count
        return {"HOME": str(tmp_path)} | ({} if where == "HOME" else {where: str(folder)})

    return install


@pytest.mark.parametrize("where", ["HOME", "GEANT4_DATA_DIR"])
def test_physics_follows_the_data(install, where):
    choose = physics_lists.choose_physics
    with pytest.raises(ValueError, match="G4EMLOW was not found; run `python -c .*GEANT4_DATA_DIR"):
        choose("auto", "e-", install(where=where))
    environment = install("G4EMLOW", where=where)
    assert choose("auto", "e-", environment) == "G4EmStandardPhysics"
    for wanted, particle in (("FTFP_BERT", "e-"), ("auto", "pi+")):
        with pytest.raises(ValueError, match="FTFP_BERT needs .* G4PARTICLEXS, PhotonEvap"):
            choose(wanted, particle, environment)
    environment = install("G4PARTICLEXS", "PhotonEvaporation", "G4ENSDFSTATE", where=where)
    assert choose("auto", "pi+", environment) == "FTFP_BERT"
    assert choose("G4EmStandardPhysics", "gamma", environment) == "G4EmStandardPhysics"
    with pytest.raises(ValueError, match=r"pi\+ needs hadronic physics"):
        choose("G4EmStandardPhysics", "pi+", environment)


def test_variables_of_single_data_sets_count(install, tmp_path):
    folder = tmp_path / "elsewhere"
    (folder / "x").mkdir(parents=True)
    environment = {variable: str(folder) for variable in physics_lists.DATA.values()}
    assert physics_lists.choose_physics("auto", "e-", environment) == "FTFP_BERT"


# Processes.


def test_gather_yields_everything_and_raises_what_happened():
    assert sorted(gather(range, [(0, 3), (3, 5)])) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="arg 3 must not be zero"):
        list(gather(range, [(0, 1), (0, 1, 0)]))
    with pytest.raises(ChildProcessError, match=f"exit code -{int(signal.SIGABRT)}"):
        list(gather(os.abort, [()]))


# Geant4.


@pytest.fixture(scope="module")
def geant4():
    # Not imported here: without data the package asks for a download.
    try:
        return physics_lists.choose_physics("auto", "e-")
    except ValueError as error:
        pytest.skip(str(error))


def rows(folder, name="ds2"):
    return read_showers(folder / f"{name}.h5", get_geometry(name))


BOTH = dataclasses.replace(
    study.SMOKE, num=30, chunk=2, energy_range=(1e3, 2e3), grids=("ds2", "ds3")
)


@pytest.fixture(scope="module")
def whole(geant4, tmp_path_factory):
    """A run that nobody disturbed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    main(BOTH, out)
    return out


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_goes_on_to_the_same_file(geant4, whole, tmp_path, how):
    out = tmp_path / "stopped"
    command = "-m experiments.simulate.geant4_showers --preset smoke --num 30 --chunk 2".split()
    command += f"--energy-range 1e3 2e3 --grids ds2 ds3 --out {out}".split()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, **quiet)
    while len(list(out.glob("parts/ds3-*.h5"))) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(how)
    assert process.wait() != 0
    assert not (out / "ds2.h5").exists()
    main(dataclasses.replace(BOTH, processes=2), out)
    for name in ("ds2.h5", "ds3.h5"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert not (out / "parts").exists()


def test_a_finished_run_is_not_run_again(geant4, whole):
    log, metrics = (whole / "metrics.jsonl").read_text(), (whole / "metrics.json").read_text()
    figure = whole / "figures" / "ds3.png"
    figure.unlink()
    found = main(BOTH, whole, plot_only=True)
    assert figure.exists()
    assert json.loads(metrics) == found == main(BOTH, whole)
    assert (whole / "metrics.jsonl").read_text() == log
    assert len(log.splitlines()) == 15
    response = rows(whole).voxels.sum(1) / rows(whole).energies
    np.testing.assert_allclose(found["response/ds2"], response.mean(), rtol=1e-5)
    with pytest.raises(ValueError, match=r"another configuration \(seed: 0 -> 3\)"):
        main(dataclasses.replace(BOTH, seed=3), whole)


def test_a_range_is_a_part_of_the_sample(geant4, whole, tmp_path):
    main(dataclasses.replace(BOTH, first=23, num=7, chunk=4, grids=("ds2",)), tmp_path / "x")
    for part, all_of_them in zip(rows(tmp_path / "x"), rows(whole), strict=True):
        np.testing.assert_array_equal(part, all_of_them[23:])
    assert len(np.unique(rows(whole).energies)) == 30


def test_other_physics_is_refused_in_the_middle_of_a_run(geant4, tmp_path):
    with RunFolder(tmp_path / "run", study.SMOKE) as folder:
        folder.write_json("physics.json", {"physics": "another", "geant4_pybind": "0"})
    with pytest.raises(ValueError, match="began with {'physics': 'another'"):
        main(study.SMOKE, tmp_path / "run")


def test_a_custom_grid_is_read_by_its_attributes(geant4, tmp_path):
    grid = Grid(num_z=15, num_alpha=5, z_step=10.2)
    main(
        dataclasses.replace(
            study.SMOKE,
            num=2,
            energies=(2e3,),
            particle="gamma",
            grids=("custom", "ds2"),
            custom=grid,
        ),
        tmp_path / "x",
    )
    path = tmp_path / "x" / "custom.h5"
    geometry = study.file_geometry(path)
    assert geometry.shape == (15, 5, 9)
    assert geometry.layers[0].r_edges == get_geometry("ds2").layers[0].r_edges
    custom, ds2 = (
        s.voxels.reshape(2, 15, -1).sum(2)
        for s in (read_showers(path, geometry), rows(tmp_path / "x"))
    )
    # The same energy, other seeds.
    assert not np.any(np.isclose(ds2[0], ds2[1]) & (ds2[0] > 0))
    # Three layers each; small voxels pass the threshold in one grid and fail in the other.
    assert ds2.max() > 50
    np.testing.assert_allclose(custom, ds2, atol=2.0)
    with h5py.File(path) as file:
        assert json.loads(file.attrs["config"])["particle"] == "gamma"
        assert file.attrs["physics_list"] == geant4
        assert file.attrs["geant4"].startswith("11.")
    with pytest.raises(ValueError, match="was not written by this study"):
        study.file_geometry(sample_path())


def test_response_and_shape_are_those_of_the_bundled_sample(geant4, tmp_path):
    """Made by another program; each quantity within four standard errors."""
    config = dataclasses.replace(
        study.SMOKE, num=60, energy_range=(1e3, 5e3), physics="G4EmStandardPhysics"
    )
    main(config, tmp_path / "x")
    old = read_showers(sample_path(), get_geometry("ds2"))

    def quantities(showers):
        chosen = showers.energies < 5e3
        energy = showers.voxels[chosen].reshape(-1, 45, 16, 9).astype(np.float64)
        total = energy.sum((1, 2, 3))
        response = total / showers.energies[chosen]
        centre = energy.sum((2, 3)) @ np.arange(45) / total
        radius = energy.sum((1, 2)) @ get_geometry("ds2").r[:9] / total
        return np.stack([response, centre, radius])

    a, b = quantities(rows(tmp_path / "x")), quantities(old)
    error = np.sqrt(a.var(1) / a.shape[1] + b.var(1) / b.shape[1])
    assert np.all(np.abs(a.mean(1) - b.mean(1)) < 4 * error)
    assert error[0] < 0.02


def test_unknown_material_is_an_error(geant4, tmp_path):
    detector = Detector(absorber="G4_Unobtainium")
    with pytest.raises(ValueError, match="Geant4 knows no material 'G4_Unobtainium'"):
        main(dataclasses.replace(study.SMOKE, detector=detector), tmp_path / "x")

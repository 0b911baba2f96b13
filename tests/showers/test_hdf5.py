import warnings
from dataclasses import replace

import h5py
import numpy as np
import pytest

from jgen.arrays import SampleWarning
from jgen.showers.data.geometry import get_geometry
from jgen.showers.data.hdf5 import (
    Showers,
    check_showers,
    check_units,
    count_showers,
    iterate_showers,
    read_showers,
    sample_path,
    write_showers,
)

PHOTONS = get_geometry("ds1-photons")


def make_showers(num, seed=0, width=368):
    rng = np.random.default_rng(seed)
    voxels = rng.exponential(size=(num, width)) * (rng.random((num, width)) < 0.2)
    return Showers(rng.uniform(256, 1e6, num), voxels.astype(np.float32))


def write_raw(path, **datasets):
    with h5py.File(path, "w") as file:
        for key, value in datasets.items():
            file[key] = value
    return path


def assert_equal(found, expected):
    np.testing.assert_array_equal(found.energies, expected.energies)
    np.testing.assert_array_equal(found.voxels, expected.voxels)


def rows(showers, start, stop):
    return Showers(*(a[start:stop] for a in showers))


def test_written_files_read_back_bitwise_in_the_official_layout(tmp_path):
    showers = make_showers(7)
    assert write_showers(tmp_path / "a.h5", showers, PHOTONS) == 7
    found = read_showers(tmp_path / "a.h5", PHOTONS)
    assert_equal(found, showers)
    assert (found.energies.dtype, found.voxels.dtype) == (np.float64, np.float32)
    with h5py.File(tmp_path / "a.h5") as file:
        assert sorted(file) == ["incident_energies", "showers"]
        assert file["incident_energies"].shape == (7, 1)
        assert file["showers"].compression == "gzip"
        assert file["showers"].shuffle
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_a_stream_of_chunks_makes_the_same_file(tmp_path):
    showers = make_showers(50)
    stream = (rows(showers, i, i + 8) for i in range(0, 50, 8))
    assert write_showers(tmp_path / "a.h5", stream, PHOTONS) == 50
    assert_equal(read_showers(tmp_path / "a.h5", PHOTONS), showers)


@pytest.mark.parametrize(
    ("start", "stop"), [(0, None), (0, 5), (3, 12), (10, 11), (9, 20), (19, 20)]
)
def test_ranges_across_files_equal_one_file(tmp_path, start, stop):
    showers = make_showers(20)
    paths = [tmp_path / name for name in ("a.h5", "b.h5", "c.h5")]
    for path, first, last in zip(paths, (0, 10, 11), (10, 11, 20), strict=True):
        write_showers(path, rows(showers, first, last), PHOTONS)
    assert count_showers(paths) == 20
    assert_equal(read_showers(paths, PHOTONS, start, stop), rows(showers, start, stop))


def test_iterating_runs_across_file_borders(tmp_path):
    showers = make_showers(20)
    paths = [tmp_path / "a.h5", tmp_path / "b.h5"]
    write_showers(paths[0], rows(showers, 0, 9), PHOTONS)
    write_showers(paths[1], rows(showers, 9, 20), PHOTONS)
    chunks = list(iterate_showers(paths, PHOTONS, 6))
    assert [len(chunk.energies) for chunk in chunks] == [6, 6, 6, 2]
    for i, chunk in enumerate(chunks):
        assert_equal(chunk, rows(showers, 6 * i, 6 * i + 6))


def test_flat_energies_and_other_float_types_are_accepted(tmp_path):
    showers = make_showers(4)
    flat = write_raw(
        tmp_path / "a.h5",
        incident_energies=showers.energies.astype(np.float32),
        showers=showers.voxels.astype(np.float64),
    )
    found = read_showers(str(flat), PHOTONS)
    assert (found.energies.dtype, found.voxels.dtype) == (np.float32, np.float32)
    np.testing.assert_array_equal(found.voxels, showers.voxels)


def broken(kind):
    s = make_showers(3)
    energies, voxels = s.energies.copy(), s.voxels.copy()
    match kind:
        case "key":
            return {"energy": energies, "showers": voxels}
        case "width":
            return {"incident_energies": energies, "showers": np.zeros((3, 6480), np.float32)}
        case "unknown width":
            return {"incident_energies": energies, "showers": np.zeros((3, 77), np.float32)}
        case "lengths":
            return {"incident_energies": energies[:2], "showers": voxels}
        case "block":
            return {"incident_energies": energies, "showers": voxels.reshape(3, 8, 46)}
        case "energy shape":
            return {"incident_energies": np.ones((3, 2)), "showers": voxels}
        case "empty":
            return {"incident_energies": energies[:0], "showers": voxels[:0]}
        case "nan":
            voxels[2, 5] = np.nan
        case "inf":
            voxels[0, 7] = np.inf
        case "negative":
            voxels[1, 3] = -0.5
        case "zero energy":
            energies[1] = 0
        case "nan energy":
            energies[2] = np.nan
    return {"incident_energies": energies, "showers": voxels}


BROKEN = {
    "key": r"'incident_energies' is missing; found \['energy', 'showers'\]",
    "width": r"6480 voxels per shower, but geometry 'ds1-photons' has 368; this is 'ds2'",
    "unknown width": "77 voxels.*no known geometry",
    "lengths": "2 incident energies but 3 showers",
    "block": r"shape \(3, 8, 46\)",
    "energy shape": r"shape \(3, 2\); it must be \(n, 1\) or \(n,\)",
    "empty": "holds no showers",
    "nan": "voxel 5 of shower 2 is nan",
    "inf": "voxel 7 of shower 0 is inf",
    "negative": "voxel 3 of shower 1 is negative, -0.5 MeV",
    "group": r"'showers' is a group, with \['a'\] in it, and no dataset",
    "null": "'showers' is a dataset without any values",
    "lists": "'showers' holds lists of different lengths, but events must be real numbers",
    "compound": "'showers' holds .*, but events must be real numbers",
    "complex": "'showers' holds complex128, but events must be real numbers",
    "text": "'incident_energies' holds text, but events must be real numbers",
    "booleans": "'showers' holds bool, but events must be real numbers",
    "soft link": "'showers' is a link to '/gone' of .*bad.h5, which is not there",
    "external link": "'showers' is a link to 'x' of gone.h5, which is not there",
    "virtual": "'showers' takes its values from gone.h5, which is not there",
    "virtual dataset": "'showers' takes its values from 'x' of other.h5, which is not there",
    "raw": "'showers' takes its values from gone.raw, which is not there",
    "raw cut": "'showers' takes its values from short.raw, which is shorter than 4416 bytes",
    "virtual shrunk": r"from 'x' of other.h5, which has the shape \(2, 368\) and is too small",
    "virtual part": "takes its values from files that it names for 736 of 1104 only",
    "virtual twice": "'showers' takes its values from gone.h5, which is not there",
    "unwritten": r"'showers' has the shape \(3, 368\), but no values were ever written",
    "zero energy": "incident energy of shower 1 is 0.0",
    "nan energy": "incident energy of shower 2 is nan",
}


def virtual(name):
    layout = h5py.VirtualLayout((3, 368), np.float32)
    layout[:] = h5py.VirtualSource(name, "x", (3, 368))
    return layout


def write_odd(path, kind):
    """A good file whose voxels are replaced by what h5py opens but nobody can use."""
    s = make_showers(3)
    with h5py.File(path, "w") as file:
        file["incident_energies"] = ["a", "b", "c"] if kind == "text" else s.energies
        match kind:
            case "group":
                file["showers/a"] = s.voxels
            case "null":
                file["showers"] = h5py.Empty("f4")
            case "lists":
                file.create_dataset("showers", (3,), h5py.vlen_dtype(np.float32))
            case "compound":
                file["showers"] = np.zeros((3, 368), [("x", "f4"), ("y", "f4")])
            case "complex":
                file["showers"] = s.voxels.astype(complex)
            case "booleans":
                file["showers"] = s.voxels > 0
            case "soft link":
                file["showers"] = h5py.SoftLink("/gone")
            case "external link":
                file["showers"] = h5py.ExternalLink("gone.h5", "x")
            case "virtual":
                file.create_virtual_dataset("showers", virtual("gone.h5"))
            case "virtual dataset":
                write_raw(path.parent / "other.h5", y=s.voxels)
                file.create_virtual_dataset("showers", virtual("other.h5"))
            case "raw":
                external = [("gone.raw", 0, h5py.h5f.UNLIMITED)]
                file.create_dataset("showers", (3, 368), "f4", external=external)
            case "raw cut":
                s.voxels[:2].tofile(path.parent / "short.raw")
                external = [("short.raw", 0, h5py.h5f.UNLIMITED)]
                file.create_dataset("showers", (3, 368), "f4", external=external)
            case "virtual shrunk":
                write_raw(path.parent / "other.h5", x=s.voxels[:2])
                file.create_virtual_dataset("showers", virtual("other.h5"))
            case "virtual part":
                write_raw(path.parent / "other.h5", x=s.voxels[:2])
                layout = h5py.VirtualLayout((3, 368), np.float32)
                layout[:2] = h5py.VirtualSource("other.h5", "x", (2, 368))
                file.create_virtual_dataset("showers", layout)
            case "virtual twice":
                with h5py.File(path.parent / "other.h5", "w") as other:
                    other.create_virtual_dataset("x", virtual("gone.h5"))
                file.create_virtual_dataset("showers", virtual("other.h5"))
            case "unwritten":
                file.create_dataset("showers", (3, 368), "f4")
            case "text":
                file["showers"] = s.voxels
    return path


def test_links_and_virtual_files_that_are_whole_are_read(tmp_path):
    s = make_showers(3)
    write_raw(tmp_path / "other.h5", x=s.voxels, e=s.energies.astype(">f8"))
    with h5py.File(tmp_path / "links.h5", "w") as file:
        file["incident_energies"] = h5py.ExternalLink("other.h5", "e")
        file["group/showers"] = h5py.ExternalLink("other.h5", "x")
        file["showers"] = h5py.SoftLink("/group/showers")
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file["incident_energies"] = s.energies
        file.create_virtual_dataset("showers", virtual("other.h5"))
    s.voxels.tofile(tmp_path / "whole.raw")
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["incident_energies"] = s.energies
        external = [(str(tmp_path / "whole.raw"), 0, 4416)]
        file.create_dataset("showers", (3, 368), "f4", external=external)
    for name in ("links.h5", "virtual.h5", "raw.h5"):
        found = read_showers(tmp_path / name, PHOTONS)
        assert_equal(found, s)
        # In the machine's order, and still double precision.
        assert found.energies.dtype == np.float64


ODD = ("group", "null", "lists", "compound", "complex", "text", "booleans", "soft link")
ODD += ("external link", "virtual", "virtual dataset", "raw", "raw cut", "virtual shrunk")
ODD += ("virtual part", "virtual twice", "unwritten")


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_refused_by_name(tmp_path, kind):
    path = tmp_path / "bad.h5"
    write_odd(path, kind) if kind in ODD else write_raw(path, **broken(kind))
    with pytest.raises(ValueError, match=BROKEN[kind]) as error:
        read_showers(path, PHOTONS)
    assert str(path) in str(error.value)


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.h5: no such file"):
        read_showers(tmp_path / "nowhere.h5", PHOTONS)
    (tmp_path / "text.h5").write_text("pid,energy\n11,3\n")
    with pytest.raises(ValueError, match=r"text\.h5: not a readable HDF5 file"):
        count_showers(tmp_path / "text.h5")
    with pytest.raises(ValueError, match="no shower file given"):
        count_showers([])


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (2, 2), (4, 3), (0, 6), (5, None)])
def test_bad_ranges(tmp_path, start, stop):
    write_showers(tmp_path / "a.h5", make_showers(5), PHOTONS)
    with pytest.raises(ValueError, match=r"a\.h5 holds 5 showers; choose 0 <= start < stop <= 5"):
        read_showers(tmp_path / "a.h5", PHOTONS, start, stop)


def test_iterating_checks_before_the_first_chunk(tmp_path):
    with pytest.raises(FileNotFoundError):
        iterate_showers(tmp_path / "nowhere.h5", PHOTONS, 10)
    with pytest.raises(ValueError, match="chunk_size must be at least 1, got 0"):
        iterate_showers(sample_path(), get_geometry("ds2"), 0)


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    old = make_showers(3)
    write_showers(tmp_path / "a.h5", old, PHOTONS)

    def stream():
        yield make_showers(4, seed=1)
        yield Showers(np.ones(2), np.full((2, 368), np.nan, np.float32))

    with pytest.raises(ValueError, match="from row 4 on: voxel 0 of shower 0 is nan"):
        write_showers(tmp_path / "a.h5", stream(), PHOTONS)
    assert_equal(read_showers(tmp_path / "a.h5", PHOTONS), old)
    with pytest.raises(ValueError, match="no showers to write"):
        write_showers(tmp_path / "b.h5", iter([]), PHOTONS)
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]
    write_showers(tmp_path / "new" / "a.h5", old, PHOTONS)  # folders are made
    assert_equal(read_showers(tmp_path / "new" / "a.h5", PHOTONS), old)


UNITS = {"TeV": 1e-6, "GeV": 1e-3, "keV": 1e3, "eV": 1e6}


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize("range_", [(256, 4.2e6), (1e3, 1e6), (1e3, 3e4)], ids=str)
def test_other_units_are_recognised(name, range_):
    energies = np.geomspace(*range_, 50)
    showers = Showers(energies, np.repeat(energies[:, None] / 500, 368, axis=1))
    check_showers(showers, PHOTONS)
    check_units(showers, PHOTONS)
    other = Showers(*(a * UNITS[name] for a in showers))
    with pytest.raises(ValueError, match=f"these look like {name}, but all energies must be in"):
        check_showers(other, PHOTONS)
    if name in ("GeV", "keV"):
        mixed = showers._replace(voxels=other.voxels)
        check_showers(mixed, PHOTONS)  # a generator may do so
        with pytest.raises(ValueError, match=f"these look like voxels in {name} beside"):
            check_units(mixed, PHOTONS)


@pytest.mark.parametrize("energy", [256.0, 5e4, 4.2e6])
def test_showers_of_one_energy_and_without_calibration_are_fine(energy):
    showers = Showers(np.full(30, energy), np.full((30, 368), 0.025 * energy / 368))
    check_showers(showers, PHOTONS)
    check_units(showers, PHOTONS)


def test_showers_that_were_never_written_are_noticed():
    showers = read_showers(sample_path(), get_geometry("ds2"), 0, 40)
    showers.voxels[15:] = 0
    with pytest.raises(ValueError, match="25 of 40 showers have no energy at all"):
        check_units(showers, get_geometry("ds2"))


def test_a_threshold_in_other_units_is_noticed():
    geometry = get_geometry("ds2")
    showers = read_showers(sample_path(), geometry, 0, 100)
    check_units(showers, geometry)
    with pytest.raises(ValueError, match="these look like keV"):
        check_units(Showers(*(a * np.float32(1000) for a in showers)), geometry)
    other = replace(geometry, threshold=500.0)
    with pytest.raises(ValueError, match="of the energy is in voxels below the threshold of 500"):
        check_units(showers, other)


@pytest.mark.parametrize("energy", [1.5e5, 3e5])
def test_showers_of_one_possible_energy_in_other_units_are_recognised(energy):
    """In GeV 150 is a possible number of MeV; so is 1.5e6 keV, of a shower of 1.5 GeV."""
    geometry = get_geometry("ds2")
    showers = read_showers(sample_path(), geometry, 0, 3000)
    some = (showers.energies > 2e4) & (showers.energies < 2.8e4)
    # What scales with the energy; more cells are hit in truth, which is easier to see.
    factor = (energy / showers.energies[some])[:, None]
    high = Showers(np.full(some.sum(), energy), np.where(some[:, None], showers.voxels, 0)[some])
    high = high._replace(voxels=high.voxels * factor)
    check_showers(high, geometry)
    check_units(high, geometry)
    giga = Showers(high.energies / 1e3, high.voxels / 1e3)
    check_showers(giga, geometry)  # of generated ones nobody knows
    with pytest.raises(ValueError, match="are below the threshold of 0.01515 MeV, .* like GeV"):
        check_units(giga, geometry)
    some = np.argsort(np.abs(showers.energies - 1500))[:10]
    kilo = Showers(np.full(10, 1.5e6), showers.voxels[some] * 1e3)
    check_showers(kilo, geometry)
    with pytest.raises(ValueError, match="a thousand times the threshold .* look like keV"):
        check_units(kilo, geometry)


@pytest.mark.parametrize(
    ("energy", "resolution", "unit"),
    [(256e3, 0.013, "GeV"), (256e3, 0.07, "GeV"), (1e6, 0.01, "GeV"), (256, 0.2, "keV")],
)
def test_without_a_threshold_the_resolution_tells_units(energy, resolution, unit):
    """Photons and pions of dataset 1, of a resolution as published for ATLAS."""
    rng = np.random.default_rng(0)

    def made(energy, resolution):
        total = energy * (1 + resolution * rng.normal(size=(200, 1)))
        return Showers(np.full(200, float(energy)), np.repeat(total / 368, 368, axis=1))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for true in ((energy, resolution), (256, 0.25), (256, 0.9), (4e6, 0.008), (1e6, 0.08)):
            check_units(made(*true), PHOTONS)
    factor = UNITS[unit]
    other = Showers(*(a * factor for a in made(energy, resolution)))
    check_showers(other, PHOTONS)
    with pytest.warns(SampleWarning, match=f"has a resolution of .*; are these {unit}"):
        check_units(other, PHOTONS)


def test_a_file_counts_once(tmp_path):
    write_showers(tmp_path / "a.h5", make_showers(3), PHOTONS)
    with pytest.raises(ValueError, match="a file is given twice"):
        read_showers([tmp_path / "a.h5", tmp_path / "." / "a.h5"], PHOTONS)


def test_showers_in_memory_are_checked_too():
    showers = make_showers(3)
    check_showers(showers, PHOTONS)
    masked = np.ma.array(showers.voxels, mask=np.arange(3)[:, None] == [1] * 368)
    with pytest.raises(ValueError, match="368 of 1104 entries of showers: voxels are masked"):
        check_showers(showers._replace(voxels=masked), PHOTONS)
    with pytest.raises(ValueError, match="showers: voxels must be an array of real .* booleans"):
        check_showers(showers._replace(voxels=showers.voxels > 0), PHOTONS)
    with pytest.raises(ValueError, match="do not belong together"):
        check_showers(Showers(showers.energies[:, None], showers.voxels), PHOTONS)
    with pytest.raises(ValueError, match="no showers; at least one"):
        check_showers(rows(showers, 0, 0), PHOTONS)


def test_the_bundled_sample_is_what_its_readme_says():
    g = get_geometry("ds2")
    assert count_showers(sample_path()) == 3200
    showers = read_showers(sample_path(), g, 0, 500)
    assert showers.energies.min() >= 1000
    assert showers.energies.max() <= 30000
    hit = showers.voxels[showers.voxels > 0]
    assert hit.min() >= g.threshold
    response = showers.voxels.sum(axis=1) / showers.energies
    assert abs(response.mean() - 0.95) < 5 * response.std() / np.sqrt(500)

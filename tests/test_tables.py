"""Tables in files of both kinds, and files that are none."""

import h5py
import numpy as np
import pytest

from jgen import tables
from jgen.tables import open_table


def test_files_of_both_kinds_give_the_same_events(tmp_path, monkeypatch):
    events = np.random.default_rng(0).normal(size=(1000, 5)).astype(np.float32)
    np.save(tmp_path / "a.npy", events)
    np.save(tmp_path / "one.npy", events[:, 2].astype(np.float64))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("ttbar/0j", data=events, chunks=(64, 5), compression="gzip")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["x"], file["y"] = events, np.arange(3)
    monkeypatch.setattr(tables, "_CHUNK", 7 * 5)  # chunks of seven events do not divide a thousand
    for name, dataset in (("a.npy", ""), ("b.h5", ""), ("b.h5", "/ttbar/0j"), ("c.h5", "x")):
        table = open_table(tmp_path / name, dataset)
        assert (len(table), table.num_columns) == table.shape == (1000, 5)
        few = table.select((3, 0))
        assert few.shape == (1000, 2)
        np.testing.assert_array_equal(few[:500], events[:500, [3, 0]])
        np.testing.assert_array_equal(few[995:], events[995:, [3, 0]])
        assert few[:2].dtype == np.float32
        assert few[5:5].shape == (0, 2)
    one = open_table(tmp_path / "one.npy")
    assert one.shape == (1000, 1)
    np.testing.assert_array_equal(one[:][:, 0], events[:, 2])
    with pytest.raises(ValueError, match="has 5 columns, counted from 0, but column 5"):
        open_table(tmp_path / "a.npy").select((5,))
    with pytest.raises(ValueError, match="columns must be different"):
        open_table(tmp_path / "a.npy").select((1, 1))
    with pytest.raises(ValueError, match="neighbouring events"):
        one[::2]


def test_unreadable_files(tmp_path):
    np.save(tmp_path / "cube.npy", np.zeros((10, 2, 4)))
    np.save(tmp_path / "none.npy", np.zeros((0, 4)))
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    np.savez(tmp_path / "archive.npz", a=np.zeros(3))
    (tmp_path / "text.csv").write_text("1,2\n3,4\n")
    np.save(tmp_path / "whole.npy", np.zeros(1000))
    (tmp_path / "half.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:4000])
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["train"], file["test"] = np.zeros(3), np.zeros(3)
    bytes_of = (tmp_path / "two.h5").read_bytes()
    (tmp_path / "broken.h5").write_bytes(bytes_of[: len(bytes_of) // 2])
    for name, dataset, message in (
        ("cube.npy", "", r"it must be \[events\] or \[events, columns\]"),
        ("none.npy", "", "there are no events"),
        ("words.npy", "", "events must be real numbers"),
        ("archive.npz", "", "is a .npz archive"),
        ("text.csv", "", "a text file, but .* numpy.loadtxt"),
        ("half.npy", "", "neither HDF5 nor a readable .npy file"),
        ("two.h5", "", "holds 2 datasets; choose one dataset of: test, train"),
        ("two.h5", "val", "has no dataset 'val'; choose one dataset of: test, train"),
        ("broken.h5", "", "not a readable HDF5 file"),
    ):
        with pytest.raises(ValueError, match=message):
            open_table(tmp_path / name, dataset)
    with pytest.raises(FileNotFoundError, match="no such file"):
        open_table(tmp_path / "missing.npy")
    with pytest.raises(FileNotFoundError, match="a folder; name a file in it"):
        open_table(tmp_path)


def test_links_are_followed_and_aliases_are_no_second_dataset(tmp_path):
    events = np.random.default_rng(0).normal(size=(20, 2))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["events"] = events.astype(">f8")
        file["alias"] = h5py.SoftLink("/events")
        file["loop/back"] = h5py.SoftLink("/")
        file["broken"] = h5py.SoftLink("/gone")
        file["null"] = h5py.Empty("f4")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["group/outside"] = h5py.ExternalLink("a.h5", "events")
    for name, dataset in (
        ("a.h5", "events"),
        ("a.h5", "alias"),
        ("b.h5", ""),
        ("b.h5", "group/outside"),
    ):
        table = open_table(tmp_path / name, dataset)
        assert table[:].dtype == np.float64
        np.testing.assert_array_equal(table[:], events)
    for dataset, message in (
        ("", "a.h5 holds 2 datasets; choose one dataset of: events, null"),
        ("broken", "'broken' is a link to '/gone' of .*a.h5, which is not there"),
        ("null", "'null' is a dataset without any values"),
        ("loop", "'loop' is a group, with .* and no dataset"),
    ):
        with pytest.raises(ValueError, match=message):
            open_table(tmp_path / "a.h5", dataset)

"""Events that stay in files give the training that they give in memory."""

import dataclasses
import threading

import h5py
import jax
import numpy as np
import pytest

from jgen import Batch, TrainConfig, fit
from jgen.models import flow_matching
from jgen.nets import velocity_mlp
from jgen.training import HDF5Events, Records, RunFolder, sources

KEY = jax.random.key(0)
RNG = np.random.default_rng(1)
NUM = 64
DATA = Batch(
    RNG.normal(size=(NUM, 2)).astype(np.float32),
    RNG.normal(size=(NUM, 1)).astype(np.float32),
    np.tile(np.float32([0.5, 1.5]), NUM // 2),
)
MODEL = flow_matching(velocity_mlp(2, 1, hidden=(8,)), (2,))
CONFIG = TrainConfig(steps=20, batch_size=8, ensemble=2, save_every=5, log_every=1)


NOT_FINITE = DATA._replace(x=np.where(np.arange(NUM)[:, None] == 17, np.nan, DATA.x))


class Source:
    """Events in memory that note what they are asked for."""

    def __init__(self, data=DATA):
        self.data, self.asked = data, []

    def __len__(self):
        return len(self.data.x)

    def __getitem__(self, rows):
        assert (np.diff(rows) > 0).all()
        self.asked.append((threading.current_thread(), len(rows)))
        return jax.tree.map(lambda a: a[rows], self.data)


@pytest.fixture(autouse=True)
def three_steps_at_once(monkeypatch):
    monkeypatch.setattr(sources, "_STEPS", 3)


def train(data, folder=None, devices=1, callbacks=(), **changes):
    config = dataclasses.replace(CONFIG, **changes)
    options = {"devices": jax.devices()[:devices], "progress": False, "callbacks": callbacks}
    return fit(MODEL, data, KEY, config, folder=folder, **options)


@pytest.fixture(scope="module")
def in_memory():
    return train(DATA)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(
    "options",
    [{}, {"members": "bootstrap", "data_sets": 2, "accumulate": 2, "devices": 8}],
    ids=["plain", "resampled data sets, in parts, on a mesh"],
)
def test_a_source_gives_the_training_of_its_events_in_memory(options, in_memory):
    source = Source()
    found, expected = train(source, **options), train(DATA, **options) if options else in_memory
    assert_equal(found.state, expected.state)
    assert [r["loss"] for r in found.history] == [r["loss"] for r in expected.history]
    asked = [n for thread, n in source.asked if thread is not threading.main_thread()]
    assert len(asked) == 7  # three steps at once
    assert max(asked) <= 3 * 2 * 8


def test_a_training_from_a_file_resumes_bit_for_bit(tmp_path, in_memory):
    with h5py.File(tmp_path / "events.h5", "w") as file:
        file.create_dataset("x", data=DATA.x, chunks=(1, 2))
        file.create_dataset("e", data=DATA.cond)
        file.create_dataset("w", data=DATA.weight)
    source = HDF5Events([tmp_path / "events.h5"], "x", "e", "w")

    def stop(step, metrics):
        if step == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(source, tmp_path / "run", callbacks=[stop])
    assert_equal(train(source, tmp_path / "run").state, in_memory.state)
    other = dataclasses.replace(source, prepare=lambda b: b._replace(x=2 * b.x))
    with pytest.raises(ValueError, match="other data;"):
        train(other, tmp_path / "run")


def test_a_run_folder_knows_its_source(tmp_path, in_memory):
    @dataclasses.dataclass(frozen=True)
    class Config:
        seed: int = 0

    with RunFolder(tmp_path / "run", Config()) as run:
        for _ in range(2):
            options = {"key": KEY, "progress": False, "devices": jax.devices()[:1]}
            fitted = run.fit("net", MODEL, Source(), CONFIG, **options)
            assert_equal(fitted.params, in_memory.params)
        with pytest.raises(ValueError, match="other data;"):
            run.fit("net", MODEL, Source(DATA._replace(x=DATA.x + 1)), CONFIG, **options)


@pytest.mark.parametrize("layout", [{}, {"chunks": (1, 2)}, {"chunks": (7, 1)}])
def test_rows_of_files_are_those_of_the_array(tmp_path, layout):
    for name, part in (("a", DATA.x[:40]), ("b", DATA.x[40:])):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset("x", data=part.astype(">f4"), **layout)
    source = HDF5Events([tmp_path / "a.h5", tmp_path / "b.h5"], "x")
    assert len(source) == NUM
    for rows in ([0], [0, 1, 2, 5, 6, 13, 39, 40, 63], [3, 21, 30], [41, 42], list(range(NUM))):
        np.testing.assert_array_equal(source[np.array(rows)].x, DATA.x[rows])


def test_records_of_single_events_are_stacked():
    rows = np.array([2, 3, 40])
    expected = jax.tree.map(lambda a: a[rows], DATA)
    one = lambda i: jax.tree.map(lambda a: a[i], DATA)
    assert_equal(Records([one(i) for i in range(NUM)])[rows], expected)
    grain = pytest.importorskip("grain")
    assert_equal(Records(grain.MapDataset.range(NUM).map(one))[rows], expected)


class Dictionaries(Source):
    def __getitem__(self, rows):
        return {"x": self.data.x[rows]}


class Forgetful(Source):
    """No weights but the first time."""

    def __getitem__(self, rows):
        found = super().__getitem__(rows)
        return found if len(self.asked) == 1 else found._replace(weight=None)


class Frame(Source):
    columns = ("a", "b")


@pytest.mark.parametrize(
    ("data", "changes", "message"),
    [
        (Source(), {"members": "repulsive"}, "their data are a Batch in memory, no source"),
        (Source(), {"buckets": 2}, "no source; got members 'plain' and 2 buckets"),
        (Source(), {"data_sets": 3, "ensemble": 3}, "64 events, which are not 3 data sets"),
        (Source(DATA._replace(weight=3 * DATA.weight)), {}, "weights of a source must have a mean"),
        (Source(Batch(DATA.x[:0])), {}, "a source without events"),
        (Dictionaries(), {}, "a source must give a Batch of 64 events .* got dict"),
        (np.zeros((4, 2)), {}, r"must be a Batch, .* or a source with len.*got ndarray"),
        (Forgetful(), {}, "a source must give the same fields with the same shapes for all rows"),
        (Frame(), {}, "got Frame; jgen.columns.to_batch makes one"),
        (Source(NOT_FINITE), {}, "data.x holds values that are not finite numbers"),
    ],
)
def test_sources_that_make_no_sense_are_refused(data, changes, message):
    with pytest.raises(ValueError, match=message):
        train(data, **changes)


def test_what_fails_in_the_thread_is_said():
    class Broken(Source):
        def __getitem__(self, rows):
            if len(self.asked) == 5:
                raise OSError("the disk is gone")
            return super().__getitem__(rows)

    before = threading.active_count()
    with pytest.raises(OSError, match="the disk is gone"):
        train(Broken())
    assert threading.active_count() == before


def test_files_that_make_no_sense_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["e"] = DATA.x, DATA.cond[1:]
    with pytest.raises(ValueError, match="datasets of other lengths, {'x': 64, 'e': 63}"):
        HDF5Events([tmp_path / "a.h5"], "x", "e")
    for name, dataset in (("b", DATA.cond), ("c", 3.0)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["x"] = dataset
        with pytest.raises(ValueError, match="one shape in all files"):
            HDF5Events([tmp_path / "a.h5", tmp_path / f"{name}.h5"], "x")
    source = HDF5Events([tmp_path / "a.h5", tmp_path / "a.h5"], "x")
    for rows in ([NUM + 5, 3], [-1, 2], [3, 2 * NUM], []):
        with pytest.raises(ValueError, match="^rows must"):
            source[np.array(rows, int)]
    with pytest.raises(ValueError, match="paths must be a list of files"):
        HDF5Events(str(tmp_path / "a.h5"), "x")
    with pytest.raises(ValueError, match="dataset 'y' is missing"):
        HDF5Events([tmp_path / "a.h5"], "y")

"""Events in files: layouts, and what is refused."""

import h5py
import numpy as np
import pytest

from jgen.events import check_events, read_events, sample_path, write_events


@pytest.fixture(scope="module")
def events():
    return read_events()[:50]


def test_bundled_events_have_their_cuts_and_resonances():
    for num_jets, num in ((0, 40_797), (1, 18_000)):
        events = read_events(num_jets=num_jets)
        assert events.shape == (num, 6 + num_jets, 4)
        assert events.dtype == np.float32
        assert np.hypot(events[..., 1], events[..., 2]).min() > 22
        top, w = (events[:, :k].astype(float)[:, -j:].sum(axis=1) for k, j in ((3, 3), (3, 2)))
        mass = lambda p: np.sqrt(p[:, 0] ** 2 - (p[:, 1:] ** 2).sum(axis=1))
        assert 160 < np.median(mass(top)) < 190
        assert 75 < np.median(mass(w)) < 90
    assert sample_path().stat().st_size < 6e6


def test_public_layouts_are_read_alike(tmp_path, events):
    flat = events.reshape(50, 24)
    np.save(tmp_path / "flat.npy", flat)
    np.save(tmp_path / "deep.npy", events)
    with h5py.File(tmp_path / "own.h5", "w") as file:
        file["jets"] = events
    write_events(tmp_path / "all.h5", {0: events, 1: np.concatenate([events, events[:, :1]], 1)})
    for name in ("flat.npy", "deep.npy", "own.h5", "all.h5"):
        np.testing.assert_array_equal(read_events(tmp_path / name), events, err_msg=name)
    more = read_events(tmp_path / "all.h5", 1)
    np.testing.assert_array_equal(more[:, 6], events[:, 0])


def test_files_of_other_events_are_refused(tmp_path, events):
    np.save(tmp_path / "a.npy", events.reshape(50, 24))
    with pytest.raises(ValueError, match=r"\(50, 24\).*2 extra jets are \[events, 32\]"):
        read_events(tmp_path / "a.npy", 2)
    with pytest.raises(FileNotFoundError, match="b.npy"):
        read_events(tmp_path / "b.npy")
    with pytest.raises(ValueError, match=r"ttbar\+3jet"):
        read_events(num_jets=3)
    with pytest.raises(ValueError, match="num_jets"):
        read_events(num_jets=-1)
    with h5py.File(tmp_path / "none.h5", "w") as file:
        file["jets"] = np.empty((0, 6, 4))
    with pytest.raises(ValueError, match="no events|without any|no values"):
        read_events(tmp_path / "none.h5")
    with pytest.raises(ValueError, match="number of extra jets: events"):
        write_events(tmp_path / "c.h5", [events])
    with pytest.raises(ValueError, match="extra jets are"):
        write_events(tmp_path / "c.h5", {1: events})
    assert not (tmp_path / "c.h5").exists()
    (tmp_path / "d.npy").write_text("no numbers")
    with pytest.raises(ValueError, match="d.npy"):
        read_events(tmp_path / "d.npy")
    objects = np.empty(3, object)
    np.save(tmp_path / "e.npy", objects, allow_pickle=True)
    with pytest.raises(ValueError, match="e.npy"):
        read_events(tmp_path / "e.npy")


def test_what_is_no_event_is_refused(events):
    wrong = {
        r"shape \(50, 24\): reshape them": events.reshape(50, 24),
        "looks like MeV": events * 1000,
        r"looks like \(E, pT, eta, phi\)": np.abs(events),
        r"\(E, px, py, pz\)": events[..., :3],
        "order must be": events[..., [1, 2, 3, 0]],
        "finite": np.where(np.arange(50)[:, None, None] == 7, np.nan, events),
        "along the beam": events * [1, 0, 0, 1],
        "some numbers": events[:0],
    }
    for message, bad in wrong.items():
        with pytest.raises(ValueError, match=message):
            check_events(bad)
    with pytest.raises(ValueError, match="in 50 of 50 events, first event 0; drop them"):
        check_events(events * [1, 0, 0, 1])
    low = events.astype(float)
    low[3, 2, 0] *= 0.9
    with pytest.raises(ValueError, match="1 of 50 events.*particle 2 of event 3"):
        check_events(low)


@pytest.mark.parametrize("num_jets", [0, 1])
@pytest.mark.parametrize(
    ("order", "found"),
    [((0, 3, 1, 2, 4, 5), "2 and 3"), ((1, 2, 0, 4, 5, 3), "0 and 1|3 and 4")],
)
def test_particles_in_another_order_are_refused(num_jets, order, found):
    """Without a word the masses of the top quarks would be those of other particles."""
    events = read_events(num_jets=num_jets)[:1000]
    other = events[:, [*order, *range(6, 6 + num_jets)]]
    with pytest.raises(ValueError, match=f"particles ({found}), .* the order must be b1, q1, q2"):
        check_events(other)
    turned = events[:, [3, 5, 4, 0, 1, 2, *range(6, 6 + num_jets)]]
    for fine in (turned, other[:50]):
        np.testing.assert_array_equal(check_events(fine), fine)

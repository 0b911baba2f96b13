"""Dijets: files, what is refused, and the physics of the bundled ones."""

import h5py
import numpy as np
import pytest

from jgen.jets import (
    DIJET_FEATURES,
    Dijets,
    check_dijets,
    read_dijets,
    sample_dijets_path,
    write_dijets,
)

GOOD = np.float32([[3.1, 0.1, 0.2, 0.5, 0.4], [3.4, 0.0, 0.0, 0.0, 1.0], [2.9, 0.3, 0.5, 0.9, 0.1]])


def with_value(column, value):
    features = GOOD.copy()
    features[1, column] = value
    return features


def test_events_are_written_and_read(tmp_path):
    events = Dijets(GOOD, np.array([0, 1, 0], np.int8))
    write_dijets(tmp_path / "a.h5", events)
    back = read_dijets(tmp_path / "a.h5")
    np.testing.assert_array_equal(back.features, GOOD)
    np.testing.assert_array_equal(back.labels, events.labels)
    write_dijets(tmp_path / "b.h5", events, bits=10)
    rounded = read_dijets(tmp_path / "b.h5").features
    assert (rounded != GOOD).any()
    np.testing.assert_allclose(rounded, GOOD, rtol=2**-10)
    with pytest.raises(ValueError, match="bits"):
        write_dijets(tmp_path / "c.h5", events, bits=25)


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (GOOD[:, :4], [0, 1, 0], r"features \(3, 4\) and labels \(3,\).*\(n, 5\)"),
        (GOOD, [0, 1], "do not belong together"),
        (GOOD[:0], [], "no events; at least one"),
        (with_value(0, np.nan), [0, 1, 0], "mjj of event 1 is nan"),
        (with_value(2, -0.1), [0, 1, 0], "dm of event 1 is -0.1.* heavier jet above the lighter"),
        (with_value(4, 1.5), [0, 1, 0], "tau21_2 of event 1 is 1.5.* tau21 from 0 to 1"),
        (GOOD * [1e3, 1e3, 1e3, 1, 1], [0, 1, 0], "median m_jj is 3100, which looks like GeV"),
        (GOOD, [0, 2, 0], "labels must be 0 of background and 1 of signal, got 2"),
        (GOOD, [0, np.nan, 0], "labels must be 0 of background and 1 of signal, got nan"),
    ],
)
def test_what_cannot_be_right_is_refused(features, labels, message):
    with pytest.raises(ValueError, match=message):
        check_dijets(Dijets(features, np.array(labels)), "x.h5")


def test_other_files_are_refused_by_name(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["features"] = GOOD
    with pytest.raises(ValueError, match="x.h5.*label"):
        read_dijets(tmp_path / "x.h5")


def test_the_bundled_events_are_what_the_readme_says():
    events = read_dijets(sample_dijets_path())
    background, signal = (events.features[events.labels == k].astype(float) for k in (0, 1))
    assert (len(background), len(signal)) == (54_940, 8680)
    for features in (background, signal):
        # But for rounding to 12 bits.
        assert features[:, 0].min() > 2.7995
        assert features[:, 0].max() < 4.6005
    # The resonance, and the particles that it decays to.
    mjj, mj1, dm = signal[:, :3].T
    assert np.median(mjj) == pytest.approx(3.5, rel=0.01)
    assert np.subtract(*np.percentile(mjj, [84, 16])) < 0.4
    assert np.median(mj1) == pytest.approx(0.1, rel=0.1)
    assert np.median(mj1 + dm) == pytest.approx(0.5, rel=0.05)
    # Two prongs against one.
    for column in (3, 4):
        assert np.median(signal[:, column]) < np.median(background[:, column]) - 0.15
    # The background falls.
    counts, _ = np.histogram(background[:, 0], np.linspace(2.8, 4.6, 10))
    assert (np.diff(counts) < 3 * np.sqrt(counts[1:])).all()
    assert counts[0] > 4 * counts[-1]
    # No bump in its spectrum: a cubic describes the logarithm.
    counts, edges = np.histogram(background[:, 0], np.linspace(2.8, 4.6, 37))
    middle = 0.5 * (edges[1:] + edges[:-1])
    fit = np.polynomial.Polynomial.fit(middle, np.log(counts), 3, w=np.sqrt(counts))
    chi2 = (counts * (np.log(counts) - fit(middle)) ** 2).sum()
    assert chi2 < 32 + 4 * np.sqrt(2 * 32)
    # What a search without labels needs: features in and around the window hardly tell the mass.
    near = background[(background[:, 0] > 3.1) & (background[:, 0] < 3.9)]
    correlation = np.corrcoef(near.T)[0, 1:]
    assert np.abs(correlation).max() < 0.15
    assert len(DIJET_FEATURES) == 5

import h5py
import numpy as np
import pytest

from jgen.jets import (
    FEATURES,
    LABELS,
    JetFeatures,
    check_features,
    compute_features,
    n_subjettiness,
    read_features,
    sample_path,
    write_features,
)


def write_raw(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values
    return path


def constituents(num=5):
    rng = np.random.default_rng(0)
    kin = np.zeros((num, 40, 3), np.float16)
    for i, count in enumerate([3, 6, 33, 40, 10][:num]):
        kin[i, :count, 0] = np.sort(rng.exponential(30, count))[::-1]
        kin[i, :count, 1:] = rng.uniform(-0.5, 0.5, (count, 2))
    jet = np.stack([np.full(num, v, np.float32) for v in (600, 0, 0, 90, 5)], axis=1)
    return {"kin": kin, "jet": jet, "label": np.arange(num, dtype=np.int8)}


def test_features_are_made_of_constituents(tmp_path):
    raw = constituents()
    path = write_raw(tmp_path / "jets.h5", **raw)
    jets = compute_features(path, progress=False)
    # The first jet has three constituents, and so no tau_3.
    np.testing.assert_array_equal(jets.labels, [1, 2, 3, 4])
    np.testing.assert_array_equal(jets.features[:, :2], [[600, 90]] * 4)
    tau1, tau2, tau3 = np.asarray(n_subjettiness(raw["kin"][2].astype(np.float32)))
    np.testing.assert_allclose(jets.features[1, 2:], [tau2 / tau1, tau3 / tau2], rtol=1e-4)
    write_features(tmp_path / "features.h5", jets)
    back = read_features(tmp_path / "features.h5")
    np.testing.assert_array_equal(back.features, jets.features)
    np.testing.assert_array_equal(back.labels, jets.labels)


def test_the_bundled_jets_are_what_the_readme_says():
    jets = read_features(sample_path())
    assert len(jets.labels) == 40167
    np.testing.assert_array_equal(np.unique(jets.labels), np.arange(len(LABELS)))
    pt, mass, tau21, tau32 = jets.features.T
    assert pt.min() > 500
    assert pt.max() < 1000
    of = lambda values, name: np.median(values[jets.labels == LABELS.index(name)])
    # Masses of the particles, and prongs: two of a W, three of a top, one of a quark.
    for name, expected in (("W", 80.4), ("Z", 91.2), ("H->bb", 125), ("top", 173)):
        assert abs(of(mass, name) - expected) < 0.08 * expected
    assert of(tau21, "W") < of(tau21, "light quark") - 0.1
    assert of(tau32, "top") < of(tau32, "W") - 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.ones((3, 3))}, r"features \(3, 3\) and labels \(3,\).*\(n, 4\)"),
        ({"features": np.ones((0, 4)), "label": np.ones(0)}, "no jets; at least one"),
        ({"features": np.full((3, 4), np.nan)}, "pt of jet 0 is nan"),
        ({"features": np.array([[600, 90, 0.5, -1.0]] * 3)}, "tau32 of jet 0 is -1.0"),
        ({"features": np.array([[6e5, 9e4, 0.5, 0.5]] * 3)}, "pT is 6e.05, .* looks like MeV"),
        ({"features": np.array([[0.6, 0.09, 0.5, 0.5]] * 3)}, "pT is 0.6, .* looks like TeV"),
        ({"label": np.array([0, 6, 1])}, "labels must be 0 to 5.*got 6"),
        # All of these would be classes after a cast to bytes.
        ({"label": np.array([0, 256, 1])}, "labels must be 0 to 5.*got 256"),
        ({"label": np.array([0, -255, 1])}, "labels must be 0 to 5.*got -255"),
        ({"label": np.array([0, 0.9, 1])}, "labels must be 0 to 5.*got 0.9"),
        ({"label": np.array([0, np.nan, 1])}, "labels must be 0 to 5.*got nan"),
        ({"label": np.array([True, False, True])}, "labels must be 0 to 5.*got bool"),
    ],
)
def test_bad_files_are_refused(tmp_path, change, message):
    good = {"features": np.full((3, len(FEATURES)), 90.0), "label": np.zeros(3, np.int8)}
    path = write_raw(tmp_path / "bad.h5", **(good | change))
    with pytest.raises(ValueError, match=message) as error:
        read_features(path)
    assert str(path) in str(error.value)


def test_missing_foreign_and_other_layouts(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_features(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("pt,mass\n")
    with pytest.raises(ValueError, match="not a readable HDF5 file"):
        read_features(tmp_path / "text.h5")
    with pytest.raises(ValueError, match="dataset 'kin' is missing; found"):
        compute_features(sample_path())
    raw = constituents() | {"jet": np.ones((5, 4))}
    with pytest.raises(ValueError, match=r"must be \(n, constituents, 3\) and \(n, 5\)"):
        compute_features(write_raw(tmp_path / "raw.h5", **raw))
    raw = constituents() | {"label": np.array([0, 1, 259, 3, 4])}
    with pytest.raises(ValueError, match="labels must be 0 to 5.*got 259"):
        compute_features(write_raw(tmp_path / "label.h5", **raw))
    raw = constituents()
    raw["jet"] = raw["jet"] / 1e3 * [1e6, 1, 1, 1e6, 1]
    with pytest.raises(ValueError, match=r"pT is 6e\+05, .* looks like MeV"):
        compute_features(write_raw(tmp_path / "mev.h5", **raw))
    raw = constituents()
    raw["kin"] = raw["kin"].astype(np.float32) * [1e3, 1, 1]
    with pytest.raises(ValueError, match="constituents have .* of the jets' pT in the median"):
        compute_features(write_raw(tmp_path / "mixed.h5", **raw))
    with pytest.raises(ValueError, match="mass of jet 0 is 0.0"):
        check_features(JetFeatures(np.array([[600, 0, 0.5, 0.5]]), np.zeros(1, int)))

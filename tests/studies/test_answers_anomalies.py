"""The study of anomalies with files of the LHC Olympics' layout."""

import numpy as np
import pytest

from experiments.inference import anomalies
from experiments.study import variant

NAMES = ("train", "val", "extrasig_train", "test")


@pytest.fixture
def folder(tmp_path):
    """Features that tell signal from background by the first of them."""
    rng = np.random.default_rng(0)
    for name in NAMES:
        signal = np.arange(400) % 2 if name != "extrasig_train" else np.ones(400)
        features = rng.normal(size=(400, 4)) + 3 * signal[:, None] * [1, 0, 0, 0]
        array = np.column_stack([rng.uniform(3.3, 3.7, 400), features, signal])
        np.save(tmp_path / f"innerdata_{name}.npy", array)
    return tmp_path


def test_files_are_dealt_out_by_their_labels(folder):
    config = variant(anomalies.SMOKE, data=str(folder), methods=("supervised", "idealised"))
    anomalies.check(config)
    found = anomalies.samples(config, None, "LHC Olympics")
    sizes = {name: len(events.masses) for name, events in found.items()}
    assert sizes == {"data": 400, "true": 200, "labelled": 400, "background": 200, "signal": 200}
    assert abs(found["true"].features[:, 0].mean()) < 0.3
    assert found["labelled"].features[:, 0].mean() > 2.5


def test_other_files_are_refused(folder):
    with pytest.raises(ValueError, match="--data has no sidebands"):
        anomalies.check(variant(anomalies.SMOKE, data=str(folder), methods=("CATHODE",)))
    np.save(folder / "innerdata_val.npy", np.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"innerdata_val.npy needs 6 columns, got .* \(5, 3\)"):
        anomalies.olympics(str(folder))
    (folder / "innerdata_test.npy").unlink()
    with pytest.raises(ValueError, match="innerdata_test.npy is not there"):
        anomalies.olympics(str(folder))

"""The study of anomalies with files of the LHC Olympics' layout."""

import numpy as np
import pytest

from experiments.inference import anomalies
from experiments.study import variant
from jgen import draw, log_densities

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


def rows(events):
    return {row.tobytes() for row in np.column_stack([events.masses, events.features])}


def test_dijets_are_dealt_out_once():
    config = anomalies.PRESETS["dijets"]
    found = anomalies.samples(config, None, "independent")
    data, rest = found["data"], [found[k] for k in ("true", "labelled", "background", "signal")]
    assert len(data.masses) == config.num_background + config.num_signal
    for events in rest:
        assert anomalies.REGION.holds(events.masses).all()
        assert len(events.masses) > 1000
    together = set().union(*map(rows, rest))
    assert len(together) == sum(len(events.masses) for events in rest)
    assert not rows(data) & together
    moved = anomalies.samples(config, None, "correlated")["data"]
    shift = moved.features - data.features
    np.testing.assert_allclose(shift, 0.1 * data.masses[:, None] * [1, 1, 0, 0], atol=1e-6)
    empty = anomalies.samples(config, None, "no signal")["data"]
    assert len(empty.masses) == config.num_background


def test_dijets_that_leave_nothing_to_judge_with_are_refused(command):
    with pytest.raises(SystemExit, match="of background leave 0 in the window .* smaller --num-ba"):
        command("anomalies", "--data", "dijets", "--num-background", 10**7)


def test_densities_of_jets_stay_inside_of_their_range(key):
    """At whatever parameters; and they are normalised: the mean of 1 / (q V) over draws is one."""
    rng = np.random.default_rng(0)
    x = rng.beta(2, 3, (400, 4)).astype(np.float32)
    events = anomalies.Events(np.full(400, 3.0), x)
    model = anomalies.density(variant(anomalies.SMOKE, data="dijets"), events)
    params = model.init(key)
    cond = np.full((2000, 1), 3.5, np.float32)
    drawn = draw(model, params, key, 2000, cond, batch_size=2000)
    low, high = anomalies.limits(x)
    assert (drawn >= low).all()
    assert (drawn <= high).all()
    uniform = rng.uniform(low, high, (20_000, 4)).astype(np.float32)
    log_q = log_densities(model, params, key, uniform, np.full((20_000, 1), 3.5, np.float32))
    mass = np.exp(log_q.astype(np.float64)) * np.prod(high - low)
    assert mass.mean() == pytest.approx(1, abs=5 * mass.std() / len(mass) ** 0.5)

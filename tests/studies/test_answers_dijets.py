"""Simulated dijets: options, chunks, and Pythia itself where it is installed."""

import importlib.util

import numpy as np
import pytest

from experiments.simulate import pythia_dijets as study
from experiments.study import execute, variant
from jgen.jets import read_dijets

FEW = variant(study.SMOKE, num_background=120, num_signal=90, chunk=50)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunk": 0}, "chunk must be positive and finite, got 0"),
        ({"masses": (500.0, 400.0, 100.0)}, "W' must be heavier than X and Y together"),
        ({"masses": (3500.0, 500.0, -1.0)}, "masses must be positive"),
        ({"edges": (4.6, 2.8)}, "edges must be increasing, from 2.4 TeV"),
        ({"edges": (1.0, 4.6)}, "edges must be increasing, from 2.4 TeV"),
        ({"flattening": 9.0}, "flattening must be at most 8"),
    ],
)
def test_bad_options_are_refused_before_the_folder_is_made(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        execute(study.STUDY, variant(study.SMOKE, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_missing_packages_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(study.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pythia8mc, fastjet not installed; run `pip install"):
        execute(study.STUDY, study.SMOKE, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_chunks_depend_on_the_seed_and_their_number_alone():
    few, many = (study.chunks(variant(FEW, num_background=n)) for n in (120, 500))
    names = [f"background-00000{i}" for i in range(3)] + [f"signal-00000{i}" for i in range(2)]
    assert list(few) == names
    assert few["background-000001"] == many["background-000001"]
    assert few["background-000002"][1] == 20
    later = study.chunks(variant(FEW, first=1, num_signal=10))
    assert list(later) == [f"background-00000{i}" for i in (1, 2, 3)] + ["signal-000001"]
    assert later["background-000001"] == few["background-000001"]
    seeds = [seed for *_, seed in many.values()]
    assert len(set(seeds)) == len(seeds)
    other = study.chunks(variant(FEW, seed=1))
    assert other["signal-000000"][2] != few["signal-000000"][2]
    assert all(0 < seed <= 900_000_000 for seed in seeds)  # what Pythia takes


needs_pythia = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in study.PACKAGES),
    reason="the extra simulation is not installed",
)


@pytest.mark.study
@needs_pythia
def test_a_run_goes_on_to_the_same_events(tmp_path, monkeypatch):
    whole, begun = tmp_path / "whole", tmp_path / "begun"
    metrics = execute(study.STUDY, FEW, whole)
    events = read_dijets(whole / "dijets.h5")
    assert metrics["kept/signal"] == (events.labels == 1).sum() > 20
    assert metrics["kept/background"] == (events.labels == 0).sum() > 20
    assert not (whole / "parts").exists()

    def stop(config, run):
        raise ValueError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(study, "_merge", stop)
        with pytest.raises(ValueError, match="stopped"):
            execute(study.STUDY, FEW, begun)
    lost, kept = (begun / "parts" / f"{name}-000001.npy" for name in study.NAMES)
    lost.unlink()
    time = kept.stat().st_mtime_ns
    monkeypatch.setattr(study.shutil, "rmtree", lambda *args, **options: None)
    execute(study.STUDY, variant(FEW, processes=2), begun)
    assert kept.stat().st_mtime_ns == time
    assert (begun / "dijets.h5").read_bytes() == (whole / "dijets.h5").read_bytes()


@pytest.mark.study
@needs_pythia
def test_the_particles_have_the_masses_asked_for():
    from experiments.simulate import pythia

    made = pythia.features(pythia.signal_settings(4000.0, 500.0, 200.0), 1, 300, 1.0)
    mjj, mj1, mj2, *ratios = np.median(made + made[:, 1:2] * [0, 0, 1, 0, 0], axis=0)
    assert mjj == pytest.approx(4.0, rel=0.03)
    assert mj1 == pytest.approx(0.2, rel=0.06)
    assert mj2 == pytest.approx(0.5, rel=0.03)
    assert max(ratios) < 0.5
    with pytest.raises(ValueError, match="Pythia does not know the setting 'Wrong:setting = 1'"):
        pythia.features(["Wrong:setting = 1"], 1, 10, 1.0)

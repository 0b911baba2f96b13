"""The forecast for anybody's files: known amplification, cautions, and what users get wrong."""

import dataclasses
import json
import math

import h5py
import jax
import numpy as np
import pytest
from scipy import stats

from experiments import _forecast as measuring
from experiments import _forecast_files as files
from experiments import forecast_amplification as study
from experiments._command_line import run
from experiments._forecast_report import gather, metrics, table
from experiments._forecast_verdict import _number, _with_interval, verdict
from jgen.toys import bootstrap_weights, normal_probability, radial_fit
from jgen.training import RunFolder

SMOKE = study.SMOKE


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, study.main(SMOKE, out)


def data_set_amplification(train, edges):
    """G of very many bootstrap members of this training set without noise of generated events."""
    weights = jax.vmap(bootstrap_weights, (0, None))(
        jax.random.split(jax.random.key(1), 1500), len(train)
    )
    fit = jax.vmap(lambda w: radial_fit(2).fit(train, w))(weights)
    mean, width = (np.asarray(fit[k], np.float64)[:, None] for k in ("mean", "width"))
    p = normal_probability(edges[:-1], edges[1:], mean, width)
    model = p.var(axis=0, ddof=1)
    p = p.mean(axis=0)
    return lambda rows: np.sum((p * (1 - p))[rows]) / np.sum(model[rows]) / len(train)


def test_the_example_recovers_its_amplification(finished):
    out, found = finished
    train = np.load(out / "example" / "train.npy")
    edges = np.quantile(train[:, 2], np.arange(21) / 20)
    edges[[0, -1]] = -np.inf, np.inf
    known = data_set_amplification(train[:, :2], edges)
    # The ratio of variances of 20 members is chi-square with 19 degrees of freedom or more.
    low, high = 19 / stats.chi2.ppf([0.9985, 0.0015], 19)
    for name, rows in (
        ("quantiles", slice(None)),
        ("quantiles_inner", slice(1, -1)),
        ("quantile_lowest", [0]),
        ("quantile_2", [1]),
        ("quantile_highest", [-1]),
    ):
        assert low < found[f"G/{name}"] / known(rows) < high, name
        assert found[f"G/{name}_low"] < found[f"G/{name}"] < found[f"G/{name}_high"]
    assert found["n_equiv/quantiles"] == pytest.approx(1000 * found["G/quantiles"])
    assert found["share_train/quantiles_inner"] == pytest.approx(0.9)
    # Directions are exact, the radius of a bootstrap member is not.
    assert found["distance/R"] > found["distance/x"]
    assert found["G_ks/R"] < 10
    assert "G_uncalibrated/R" not in found
    assert all(math.isfinite(value) for value in found.values())


def test_a_run_leaves_its_files_and_goes_on(finished, capsys, monkeypatch):
    out, found = finished
    assert json.loads((out / "metrics.json").read_text()) == found
    text = (out / "verdict.txt").read_text()
    assert f"amplification G = {_number(found['G/region_1'])} (+" in text
    for name in ("variances", "variances_2", "distances", "distances_classifier", "columns"):
        for suffix in (".png", ".pdf"):
            assert (out / "figures" / f"{name}{suffix}").stat().st_size > 1000
    stored = sorted((out / "members").iterdir())
    times = [path.stat().st_mtime_ns for path in stored]
    stored[3].unlink()
    with pytest.raises(ValueError, match="run without --plot-only"):
        study.main(SMOKE, out, plot_only=True)
    capsys.readouterr()
    draw = study.figures
    wanted = lambda *args: {k: f for k, f in draw(*args).items() if k == "distances_classifier"}
    monkeypatch.setattr(study, "figures", wanted)  # one takes a second
    assert study.main(SMOKE, out) == found
    (out / "figures" / "distances_classifier.png").unlink()
    assert study.main(SMOKE, out, plot_only=True) == found
    assert (out / "figures" / "distances_classifier.png").exists()
    again = [path.stat().st_mtime_ns for path in stored]
    assert [i for i, (a, b) in enumerate(zip(times, again, strict=True)) if a != b] == [3]
    header, first = capsys.readouterr().out.splitlines()[:2]
    assert header.split()[:2] == ["exact", "G"]
    assert first.split()[4:5] == ["7.0"]


def judge(tmp_path, true, held_out, drawn, **options):
    """Metrics and verdict of arrays, by way of files, without figures."""
    paths = {}
    for name, array in {"train": true, "held_out": held_out}.items():
        if array is not None:
            np.save(tmp_path / f"{name}.npy", array)
            paths[name] = str(tmp_path / f"{name}.npy")
    for i, array in enumerate(drawn):
        np.save(tmp_path / f"g{i}.npy", array)
    generated = tuple(str(tmp_path / f"g{i}.npy") for i in range(len(drawn)))
    config = study.Config(
        **paths,
        generated=generated,
        **({"classifier_members": 0, "members": "bootstrap"} | options),
    )
    inputs = measuring.load_inputs(config)
    intervals = measuring.regions(config, inputs)
    measured = measuring.measure(config, inputs, intervals, RunFolder(tmp_path / "run", config))
    found = gather(config, inputs, intervals, measured)
    table(inputs, found, {})
    text = " ".join(verdict(config, inputs, found).split())
    return metrics(config, inputs, found), text


def normal(rng, num=1000, shift=0.0):
    return rng.normal(size=num) + shift


def test_the_memoriser_is_worth_its_training_set_and_fools_the_training_set(tmp_path):
    rng = np.random.default_rng(0)
    train, held_out = normal(rng), normal(rng, 4000)
    members = [rng.choice(rng.choice(train, 1000), 30_000) for _ in range(40)]
    (tmp_path / "a").mkdir()
    found, text = judge(tmp_path / "a", train, held_out, members, quantiles=10)
    # Forty members in ten regions know the variance to 7 % or worse.
    assert found["G/quantiles"] == pytest.approx(1, abs=0.25)
    assert "your generator is worth" in text
    assert "Generating more than about" in text
    # A bootstrap of the training set has twice its error.
    assert found["G_ks/column 0_low"] < 0.5 < found["G_ks/column 0_high"]
    plain = [rng.choice(train, 30_000) for _ in range(2)]
    (tmp_path / "b").mkdir()
    found, text = judge(tmp_path / "b", train, None, plain)
    assert "G_uncalibrated/column 0" not in found
    # The printed band of Eq. 37 reaches below zero, so that nothing is excluded from below.
    assert found["G_uncalibrated/column 0_low"] == 0
    assert found["probability/column 0"] < 1e-6
    assert not any(name.startswith("G_ks") for name in found)
    assert "DO NOT QUOTE" in text
    assert "uncalibrated G infinite" in text
    assert "Nothing was asked for: give --region" in text


def test_what_members_are_is_said(tmp_path):
    rng = np.random.default_rng(1)
    train, held_out = normal(rng), normal(rng)
    members = [normal(rng, 5000) for _ in range(3)]
    texts = {}
    for kind in ("unknown", "plain", "repulsive", "bootstrap", "bayesian"):
        (tmp_path / kind).mkdir()
        _, texts[kind] = judge(
            tmp_path / kind, train, held_out, members, region=((0.0, 0.5),), members=kind
        )
    assert "You did not say what the members are" in texts["unknown"]
    for kind in ("plain", "repulsive"):
        assert "CAUTION" in texts[kind]
        averaging = texts[kind].split("FULL RESOLUTION")[0]
        assert "amplification G" not in averaging
        assert "generator is worth" not in averaging
    assert "CAUTION" not in texts["bootstrap"]
    assert "a training on all events is worth twice" in texts["bootstrap"]
    assert "prior and the temperature" in texts["bayesian"]
    (tmp_path / "one").mkdir()
    found, text = judge(tmp_path / "one", train, held_out, members[:1], region=((0.0, 0.5),))
    assert "One member has no spread" in text
    assert not any(name.startswith("G/") for name in found)


def test_biased_members_and_leaked_events_are_noticed(tmp_path):
    rng = np.random.default_rng(2)
    train, held_out = normal(rng), normal(rng, 3000)
    for name, shift in (("fair", 0.0), ("shifted", 0.3)):
        (tmp_path / name).mkdir()
        members = [normal(rng, 5000, shift + rng.normal() * 0.03) for _ in range(10)]
        found, text = judge(
            tmp_path / name, train, held_out, members, region=((1.0, np.inf), (-np.inf, 0.0))
        )
        assert (abs(found["pull/region_2"]) > 3) == (name == "shifted")
        assert ("BIAS" in text) == (name == "shifted")
        assert "SUSPICIOUS" not in text
        # Two that do not overlap are taken together, too.
        assert found["share/regions"] == pytest.approx(
            found["share/region_1"] + found["share/region_2"]
        )
    (tmp_path / "leak").mkdir()
    _, text = judge(tmp_path / "leak", train, held_out, [rng.choice(held_out, 60_000)])
    assert "SUSPICIOUS" in text
    assert "give --region LOW HIGH" in text


def test_regions_are_half_open_for_whole_numbers(tmp_path):
    rng = np.random.default_rng(3)
    counts = [rng.poisson(3.0, num) for num in (1000, 1000, 5000, 4000)]
    found, _ = judge(tmp_path, *counts[:2], counts[2:], region=((2, 4), (4, np.inf)))
    # As many events of each member as the smaller file has.
    jets = np.stack([counts[2][:4000], counts[3]])
    assert found["num_generated"] == 4000
    assert found["share/region_1"] == pytest.approx(np.mean((jets >= 2) & (jets < 4)))
    assert found["share/region_2"] == pytest.approx(np.mean(jets >= 4))
    variance = np.mean((jets >= 4), axis=1).var(ddof=1)
    binomial = found["share/region_2"] * (1 - found["share/region_2"])
    expected = variance - binomial / 4000
    if expected > 0:
        assert found["n_equiv/region_2"] == pytest.approx(binomial / expected)
    else:
        assert "n_equiv/region_2" not in found
        assert found["n_equiv/region_2_low"] > 0


def test_files_of_both_kinds_give_the_same_events(tmp_path, monkeypatch):
    events = np.random.default_rng(0).normal(size=(1000, 5)).astype(np.float32)
    np.save(tmp_path / "a.npy", events)
    np.save(tmp_path / "one.npy", events[:, 2].astype(np.float64))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("ttbar/0j", data=events, chunks=(64, 5), compression="gzip")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["x"], file["y"] = events, np.arange(3)
    monkeypatch.setattr(files, "_CHUNK", 7 * 5)  # chunks of seven events do not divide a thousand
    for name, dataset in (("a.npy", ""), ("b.h5", ""), ("b.h5", "/ttbar/0j"), ("c.h5", "x")):
        opened = files.open_events(tmp_path / name, dataset)
        assert opened[2:] == (1000, 5)
        found = files.read_columns(opened, (3, 0), 500)
        np.testing.assert_array_equal(found, events[:500, [3, 0]])
        assert found.dtype == np.float32
    one = files.open_events(tmp_path / "one.npy")
    assert one[2:] == (1000, 1)
    np.testing.assert_array_equal(files.read_columns(one, (0,))[:, 0], events[:, 2])


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
        ("text.csv", "", "neither HDF5 nor a readable .npy file"),
        ("half.npy", "", "neither HDF5 nor a readable .npy file"),
        ("two.h5", "", "holds 2 datasets; choose one with --dataset: test, train"),
        ("two.h5", "val", "has no dataset 'val'; choose one with --dataset: test, train"),
        ("broken.h5", "", "not a readable HDF5 file"),
    ):
        with pytest.raises(ValueError, match=message):
            files.open_events(tmp_path / name, dataset)
    with pytest.raises(FileNotFoundError, match="no such file"):
        files.open_events(tmp_path / "missing.npy")


def test_what_cannot_be_forecast_is_refused_and_leaves_nothing(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "train": rng.normal(size=(500, 2)),
        "held": rng.normal(size=(300, 2)),
        "g": rng.normal(size=(2000, 2)),
        "g2": rng.normal(size=(2000, 2)),
        "few": rng.normal(size=(400, 2)),
        "wide": rng.normal(size=(2000, 3)),
        "tiny": rng.normal(size=(50, 2)),
        "many": rng.normal(size=(600, 30)),
    }
    arrays["sorted"] = np.sort(arrays["g"], axis=0)
    arrays["nan"] = arrays["g"].copy()
    arrays["nan"][7, 1] = np.nan
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    path = lambda name: str(tmp_path / f"{name}.npy")
    good = study.Config(
        train=path("train"),
        generated=(path("g"), path("g2")),
        held_out=path("held"),
        region=((0.0, 1.0),),
        classifier_members=0,
    )
    for options, message in (
        ({"train": ""}, "give --train FILE and --generated"),
        ({"example": True}, "the example brings its own files"),
        ({"generated": (path("few"),)}, "400 events, fewer than the 500 of training"),
        ({"num_train": 5000}, "fewer than the 5000 of training"),
        ({"generated": (path("wide"),)}, "3 columns and .* 2: all files need the same columns"),
        ({"held_out": path("tiny")}, "a distance to them says nothing below 100"),
        ({"column": (2,)}, "has 2 columns, counted from 0, but column 2"),
        ({"column": (1, 1)}, "columns must differ"),
        ({"column": (1,), "region_column": 0}, r"must be one of the columns \(1,\)"),
        ({"names": ("pt",)}, "2 columns need as many different names"),
        ({"train": path("many"), "generated": (path("many"),), "held_out": ""}, "has 30 columns"),
        ({"region": ((1.0, 0.0),)}, "a region needs low < high"),
        ({"region": ((8.0, 9.0),)}, r"0 of 2000 generated and 0 of 500 .* in \[8, 9\)"),
        ({"region": ((-99.0, 99.0),)}, "inside and outside"),
        ({"quantiles": 100}, "too few for 100 quantiles; take 50"),
        ({"quantiles": 1}, "take two or more"),
        ({"train": path("nan"), "num_train": 10}, "column 1 of event 7 is nan"),
        ({"sizes_per_decade": 0}, "sizes_per_decade must be at least 1"),
    ):
        config = dataclasses.replace(good, **options)
        if options.get("example"):
            with pytest.raises(ValueError, match=message):
                study.main(config, tmp_path / "out")
            continue
        with pytest.raises(ValueError, match=message):
            study.main(config, tmp_path / "out")
    with pytest.raises(ValueError, match="run without --plot-only first"):
        study.main(good, tmp_path / "out", plot_only=True)
    assert not (tmp_path / "out").exists()
    for i, (options, message) in enumerate(
        (
            ({"generated": (path("g"), path("sorted"))}, "sorted.npy: column 0 .* shuffle them"),
            ({"generated": (path("g"), path("nan"))}, "nan.npy: column 1 of event 7 is nan"),
            ({"held_out": path("train")}, "hold the same events; held-out events must be others"),
            ({"generated": (path("g"), path("g"))}, "each member needs its own random numbers"),
        )
    ):
        with pytest.raises(ValueError, match=message):
            study.main(dataclasses.replace(good, **options), tmp_path / f"out{i}")


def test_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(study, "figures", lambda *_: {})  # drawn in tests above
    rng = np.random.default_rng(4)
    for name, num in (("t", 500), ("h", 500), ("g0", 3000), ("g1", 3000)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["events"], file["other"] = rng.normal(size=(num, 3)), np.zeros(3)
    path = lambda name: str(tmp_path / f"{name}.h5")
    arguments = [
        *("--train", path("t"), "--generated", path("g0"), path("g1"), "--held-out", path("h")),
        *("--dataset", "events", "--column", "2", "0", "--names", "m", "pt", "--quantiles", "5"),
        *("--region", "-inf", "0", "--region", "-1", "1.5", "--members", "bootstrap"),
        *("--classifier-members", "0", "--out", str(tmp_path / "run")),
    ]
    parts = ("forecast_amplification", study.__doc__, study.PRESETS, study.main)
    found = run(*parts, study.count_parameters, arguments)
    assert {"G_ks/m_low", "G_ks/pt_low", "share/region_2", "share/quantile_3"} <= set(found)
    # The column of regions is the first one asked for, here the last of the file.
    with h5py.File(path("g0")) as a, h5py.File(path("g1")) as b:
        m = np.concatenate([a["events"][:, 2], b["events"][:, 2]])
    assert found["share/region_2"] == pytest.approx(np.mean((m >= -1) & (m < 1.5)))
    assert "share/regions" not in found  # they overlap
    assert "m in [-1, 1.5)" in capsys.readouterr().out
    with h5py.File(path("g1"), "r+") as file:
        file["events"][0, 0] += 1
    with pytest.raises(SystemExit, match=r"g1.h5, or a file of true events, changed since"):
        run(*parts, study.count_parameters, [*arguments, "--plot-only"])


def test_numbers_in_words():
    cases = {0.0123: "0.012", 1.96: "2", 7.44: "7.4", 99.6: "100", 2649: "2600", 99_900: "1e5"}
    cases |= {123_456: "1.2e5", 9.99e6: "1e7", 0.0: "0"}
    assert {x: _number(x) for x in cases} == cases
    assert _with_interval(2600, 1900, 3800) == "2600 (+1200 -700)"
    assert _with_interval(2600, 1900, np.inf).startswith("at least 1900 (best estimate 2600")
    assert _with_interval(np.inf, 1900, np.inf) == "at least 1900"

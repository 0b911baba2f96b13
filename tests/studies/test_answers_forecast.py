"""The forecast for anybody's files: the example's known worth, and what files get wrong."""

import h5py
import jax
import numpy as np
import pytest
from scipy import stats

from experiments import study
from experiments.amplification.forecast import STUDY
from jgen import load, plotting
from jgen.toys import bootstrap_weights, normal_probability, radial_fit


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


@pytest.mark.study
def test_the_example_recovers_its_amplification(smoke, command, capsys):
    out = smoke("forecast")
    found = command("forecast", "--out", out, "--plot-only")
    shown = capsys.readouterr().out
    train = load(out / "example.npz")["train"]
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
    header, first = shown.splitlines()[:2]
    assert header.split()[:2] == ["exact", "G"]
    assert first.split()[4:5] == ["7.0"]
    assert (out / "verdict.txt").read_text() in shown


def write(path, events):
    with h5py.File(path, "w") as file:
        file["events"], file["other"] = events, np.zeros(3)
    return str(path)


def test_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(plotting, "forecast_figures", lambda result: {})  # drawn in other tests
    rng = np.random.default_rng(4)
    sizes = {"t": 500, "h": 500, "g0": 3000, "g1": 3000}
    path = {n: write(tmp_path / f"{n}.h5", rng.normal(size=(m, 3))) for n, m in sizes.items()}
    arguments = [
        *("--train", path["t"], "--generated", path["g0"], path["g1"], "--held-out", path["h"]),
        *("--dataset", "events", "--column", "2", "0", "--names", "m", "pt", "--quantiles", "5"),
        *("--region", "-inf", "0", "--region", "-1", "1.5", "--kind", "bootstrap"),
        *("--classifiers.members", "0", "--out", str(tmp_path / "run")),
    ]
    found = study.run(STUDY, arguments)
    assert {"G_ks/m_low", "G_ks/pt_low", "share/region_2", "share/quantile_3"} <= set(found)
    # The column of regions is the first one asked for, here the last of the file.
    with h5py.File(path["g0"]) as a, h5py.File(path["g1"]) as b:
        m = np.concatenate([a["events"][:, 2], b["events"][:, 2]])
    assert found["share/region_2"] == pytest.approx(np.mean((m >= -1) & (m < 1.5)))
    assert "share/regions" not in found  # they overlap
    assert "m in [-1, 1.5)" in capsys.readouterr().out
    assert study.run(STUDY, [*arguments, "--plot-only"]) == found
    with h5py.File(path["g1"], "r+") as file:
        file["events"][0, 0] += 1
    with pytest.raises(SystemExit, match=r"generated \(.*g1.h5\) .*has changed since"):
        study.run(STUDY, [*arguments, "--plot-only"])


def test_files_that_cannot_be_forecast_leave_no_folder(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "train": rng.normal(size=(500, 2)),
        "held": rng.normal(size=(300, 2)),
        "g": rng.normal(size=(2000, 2)),
        "few": rng.normal(size=(400, 2)),
        "wide": rng.normal(size=(2000, 3)),
        "many": rng.normal(size=(600, 30)),
    }
    arrays["nan"] = arrays["g"].copy()
    arrays["nan"][7, 1] = np.nan
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    path = {name: str(tmp_path / f"{name}.npy") for name in arrays}
    good = {"train": path["train"], "generated": path["g"], "held-out": path["held"]}
    for options, message in (
        ({"train": ""}, "give --train FILE and --generated"),
        ({"example": None}, "the example brings its own files"),
        ({"generated": path["few"]}, r"few.npy has 400 events, fewer than the 500 of training"),
        ({"generated": path["wide"]}, "3 columns and .* 2: all files need the same columns"),
        ({"generated": path["nan"]}, r"nan.npy: column 1 of event 7 is nan"),
        ({"train": path["many"], "generated": path["many"], "held-out": ""}, "has 30 columns"),
        ({"held-out": path["train"]}, "a file is given twice"),
        ({"column": 2}, "has 2 columns, counted from 0, but column 2"),
        ({"column": 1, "region-column": 0}, r"must be one of the columns \(1,\)"),
        ({"train": str(tmp_path / "none.npy")}, "no such file"),
    ):
        pairs = [(f"--{name}", value) for name, value in (good | options).items()]
        arguments = [str(part) for pair in pairs for part in pair if part is not None]
        with pytest.raises(SystemExit, match=message):
            study.run(STUDY, [*arguments, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()

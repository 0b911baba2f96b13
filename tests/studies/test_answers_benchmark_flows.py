"""The benchmark of flows: it measures all it says, of programs that compute what they should."""

import dataclasses
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import flows as benchmark
from experiments.benchmarks import timing
from experiments.benchmarks.rivals import RIVALS, Contestant, Sizes
from experiments.benchmarks.timing import Times, measure
from experiments.study import execute
from jgen.nets import num_parameters


def sizes_of(config):
    return Sizes(config.dim, config.depth, config.bins, config.bound, config.hidden)


def counts_of(module, config):
    parts = module.build(config)
    return {name: num_parameters(part.init) for name, part in parts.items()}


KINDS = ("coupling", "maf")
PROGRAMS = ("gradient", "log_prob", "sample")
INSTALLED = [name for name in RIVALS if importlib.util.find_spec(name)]


@pytest.fixture(autouse=True)
def rank_promotion():
    """As flowjax needs it."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.study
def test_smoke_measures_programs_that_agree_with_each_other(tmp_path, monkeypatch, capsys):
    """All numbers are there; the loss is the mean of the densities, and samples are events."""
    results = []

    def keep(programs, repeats):
        results.append({name: program() for name, program in programs.items()})
        return measure(programs, repeats)

    monkeypatch.setattr(benchmark, "measure", keep)
    metrics = execute(benchmark.STUDY, benchmark.SMOKE, tmp_path / "run")
    expected = set()
    for library in ("jgen", *INSTALLED):
        for kind in KINDS:
            expected.add(f"parameters/{library}/{kind}")
            clocks = ["ms", "wall_ms"]
            clocks += ["compile_s"] if library in ("jgen", "flowjax") else []
            if library != "jgen":
                clocks += ["ratio", "ratio_low", "ratio_high", "wall_ratio"]
            expected |= {f"{c}/{library}/{kind}/{p}/5" for c in clocks for p in PROGRAMS}
    assert set(metrics) == expected
    assert all(np.isfinite(value) and value > 0 for value in metrics.values())
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == metrics
    said = capsys.readouterr().out
    for name in set(RIVALS) - set(INSTALLED):
        assert f"{name} is left out: pip install -e .[benchmarks]" in said

    assert len(results) == len(KINDS) * len(PROGRAMS)
    for gradient, log_prob, sample in zip(*[results[i::3] for i in range(3)], strict=True):
        for library in ("jgen", *INSTALLED):
            loss, leaves = gradient[library]
            assert log_prob[library].shape == (5,)
            np.testing.assert_allclose(loss, -np.mean(log_prob[library]), rtol=1e-5)
            assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(leaves))
            assert sample[library].shape == (5, 4)
            assert len(np.unique(sample[library])) > 15


@pytest.mark.parametrize("library", RIVALS)
def test_rivals_have_the_sizes_of_the_default(library):
    pytest.importorskip(library)
    config = dataclasses.replace(benchmark.DEFAULT, batches=(2,), depth=1)
    own = counts_of(benchmark, config)
    # Hidden layers 64, 64; 23 numbers for each of 4 components, and 2 for each of 8.
    assert own["coupling"] == 4 * 64 + 64 + 64 * 64 + 64 + 65 * 4 * 23
    assert own["maf"] == 8 * 64 + 64 + 64 * 64 + 64 + 65 * 8 * 2
    for kind in KINDS:
        found = RIVALS[library](kind, sizes_of(config), np.zeros((2, 8))).parameters
        if library == "flowjax":  # free slopes at both ends; and start values of a transformer
            assert own[kind] <= found <= own[kind] + 65 * 4 * 2 + 25
        else:
            assert found == own[kind]


@pytest.mark.study
def test_ratios_and_figure_of_made_up_times(tmp_path, monkeypatch):
    """Of two rivals, neither of which is installed, that take twice the time of jgen."""
    times = 1.0 + np.arange(7.0)

    def made_up(programs, repeats):
        found = {name: Times(2 * times, 2 * times) for name in programs}
        return found | {"jgen": Times(times, times)}

    make = lambda *_: Contestant(dict.fromkeys(PROGRAMS, lambda: None), 3, {})
    monkeypatch.setattr(benchmark, "installed", lambda libraries: tuple(libraries))
    monkeypatch.setattr(benchmark, "measure", made_up)
    monkeypatch.setattr(benchmark, "own", make)
    for name in RIVALS:
        monkeypatch.setitem(benchmark.RIVALS, name, make)
    config = dataclasses.replace(benchmark.SMOKE, libraries=("zuko", "flowjax"))
    metrics = execute(benchmark.STUDY, config, tmp_path / "run")
    ratios = [value for name, value in metrics.items() if "ratio" in name]
    assert ratios == [0.5] * (4 * 2 * 2 * 3)
    assert (metrics["ms/jgen/maf/sample/5"], metrics["ms/zuko/maf/sample/5"]) == (4, 8)
    figure = tmp_path / "run" / "figures" / "flow_ratios.png"
    figure.unlink()
    assert execute(benchmark.STUDY, config, tmp_path / "run", plot_only=True) == metrics
    assert figure.exists()


def test_default_and_what_missing_libraries_say(monkeypatch, capsys):
    assert benchmark.DEFAULT.batches == (1024,)
    assert benchmark.DEFAULT.libraries == ("zuko", "nflows", "flowjax")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert timing.installed(("zuko", "flowjax")) == ()
    said = capsys.readouterr().out
    for name in ("zuko", "flowjax"):
        assert f"{name} is left out: pip install -e .[benchmarks]" in said
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert timing.installed(("nflows", "flowjax")) == ("flowjax",)
    assert "nflows is left out: compared with on a CPU only" in capsys.readouterr().out


def test_bad_options(tmp_path):
    for options, message in (
        ({"batches": ()}, "must be"),
        ({"repeats": 0}, "must be"),
        ({"dim": 3}, "dim must be even"),
        ({"libraries": ("normflows",)}, "libraries must be of"),
    ):
        with pytest.raises(ValueError, match=message):
            execute(
                benchmark.STUDY, dataclasses.replace(benchmark.SMOKE, **options), tmp_path / "bad"
            )
    assert not (tmp_path / "bad").exists()
    with pytest.raises(ValueError, match="run without --plot-only"):
        execute(benchmark.STUDY, benchmark.SMOKE, tmp_path / "none", plot_only=True)
    for library in ("nflows", "flowjax"):
        if importlib.util.find_spec(library):
            sizes = sizes_of(dataclasses.replace(benchmark.SMOKE, hidden=(4, 5)))
            with pytest.raises(ValueError, match="hidden widths must be equal"):
                RIVALS[library]("maf", sizes, jnp.zeros((2, 4)))

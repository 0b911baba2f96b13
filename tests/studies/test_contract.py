"""What holds of every study, on its preset smoke."""

import dataclasses
import importlib
import importlib.util
import json
import math
import re
import shutil

import pytest

from experiments.__main__ import studies

# Studies that draw nothing.
WITHOUT_FIGURES = {"benchmarks.files", "generate"}
# Packages of an extra that a study cannot do without.
NEEDS = {
    "in_geant4": "geant4_pybind",
    "simulate.geant4_showers": "geant4_pybind",
    "simulate.pythia_dijets": "pythia8mc",
}
# What is quick for the example that a new study copies is tested with the library.
QUICK = {"moons_gaps"}
ALL = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.study)
    for name in sorted(studies())
]


def files(folder, pattern="**/*"):
    """Path -> time of its last change, without figures and the lock."""
    inside = lambda p: p.relative_to(folder).parts[0] not in ("figures", ".lock")
    return {p: p.stat().st_mtime_ns for p in folder.glob(pattern) if p.is_file() and inside(p)}


def seed_option(name):
    """The seed of a study, or of the block that its data and networks are options of."""
    config = importlib.import_module(studies()[name][0]).STUDY.presets["smoke"]
    fields = [field.name for field in dataclasses.fields(config)]
    if "seed" in fields:
        return "seed"
    (block,) = [name for name in fields if hasattr(getattr(config, name), "seed")]
    return f"{block}.seed"


def refuse_to_train(*args, **options):
    raise AssertionError("a finished training runs again")


def of_showers(name):
    """Whether a study is among those of showers, which take half of the time: see the next file."""
    return studies()[name][0].startswith("experiments.showers.")


@pytest.mark.study
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", sorted(n for n in studies() if not of_showers(n)))
def test_a_smoke_run_resumes_and_is_drawn_again(name, command, smoke, tmp_path, monkeypatch):
    resumes_and_is_drawn_again(name, command, smoke, tmp_path, monkeypatch)


def resumes_and_is_drawn_again(name, command, smoke, tmp_path, monkeypatch):
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    finished = smoke(name)
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics
    assert all(math.isfinite(value) for value in metrics.values())
    figures = sorted(p.name for p in (finished / "figures").glob("*"))
    assert {p.rsplit(".")[0] + s for p in figures for s in (".pdf", ".png")} == set(figures)
    assert bool(figures) == (name not in WITHOUT_FIGURES)

    # The same command trains nothing, computes no stage again and comes to the same numbers.
    out = tmp_path / "copy"
    shutil.copytree(finished, out)
    monkeypatch.setattr("jgen.training.runs.fit", refuse_to_train)
    stages = files(out, "**/*.npz")
    with monkeypatch.context() as patch:
        patch.setattr("experiments.study.Run.save", lambda run, name, figure: None)  # drawn below
        assert command(name, "--out", out) == metrics
    assert files(out, "**/*.npz") == stages

    before = files(out)
    shutil.rmtree(out / "figures", ignore_errors=True)
    assert command(name, "--out", out, "--plot-only") == metrics
    assert sorted(p.name for p in (out / "figures").glob("*")) == figures
    assert files(out) == before

    seed = seed_option(name)
    changed = rf"another configuration \({re.escape(seed)}: \d+ -> 987654"
    with pytest.raises(SystemExit, match=changed):
        command(name, "--out", out, f"--{seed}", 987654)
    assert files(out) == before


@pytest.mark.parametrize("name", ALL)
def test_what_is_refused_leaves_no_folder(name, command, tmp_path):
    out = tmp_path / "none"
    with pytest.raises(SystemExit, match="run without --plot-only first"):
        command(name, "--out", out, "--plot-only")
    config = importlib.import_module(studies()[name][0]).STUDY.presets["smoke"]
    fields = [f.name for f in dataclasses.fields(config)]
    numbers = [f for f in fields if f != "seed" and type(getattr(config, f)) is int]
    numbers += [f"{f}.steps" for f in fields if hasattr(getattr(config, f), "steps")]
    for number in numbers:
        with pytest.raises(SystemExit, match="error: "):
            command(name, "--out", out, f"--{number.replace('_', '-')}", -1, "--dry-run")
    if numbers:
        with pytest.raises(SystemExit, match="error: "):
            command(name, "--out", out, f"--{numbers[0].replace('_', '-')}", -1)
    assert not out.exists()


@pytest.mark.parametrize("name", ALL)
def test_a_dry_run_prints_the_configuration_and_the_parameters(name, command, tmp_path, capsys):
    out = tmp_path / "none"
    capsys.readouterr()
    assert command(name, "--out", out, "--dry-run") is None
    resolved = json.loads(capsys.readouterr().out)
    config = importlib.import_module(studies()[name][0]).STUDY.presets["smoke"]
    assert resolved["preset"] == "smoke"
    assert list(resolved["config"]) == [f.name for f in dataclasses.fields(config)]
    assert all(type(n) is int and n > 0 for n in resolved["parameters"].values())
    assert not out.exists()


@pytest.mark.parametrize("name", ALL)
def test_help_fits_two_screens_and_names_all_options(name, command, capsys):
    capsys.readouterr()  # what the trainings of the fixture printed
    with pytest.raises(SystemExit) as ended:
        command(name, "--help")
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 110
    assert max(map(len, lines)) <= 120
    assert f"python -m experiments {name}" in "\n".join(lines)
    config = importlib.import_module(studies()[name][0]).STUDY.presets["smoke"]
    for field in dataclasses.fields(config):
        option, positional = f"--{field.name.replace('_', '-')}", f"  {field.name.upper()} "
        assert any(option in line or positional in line for line in lines), field.name

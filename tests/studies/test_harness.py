"""The harness of the studies on answers that are known."""

import json
import sys
from dataclasses import dataclass

import jax.numpy as jnp
import pytest
from jax.errors import JaxRuntimeError

from experiments import study
from experiments.__main__ import main, studies
from jgen import GenerativeModel, TrainConfig
from jgen.estimate import Estimate, Judged


@dataclass(frozen=True)
class Part:
    """Options of a part."""

    width: int = 3
    """Its width."""

    def check(self):
        if self.width < 1:
            raise ValueError(f"width must be positive, got {self.width}")


@dataclass(frozen=True)
class Config:
    """Options."""

    num: int = 2
    """How many; more is better."""
    names: tuple[str, ...] = ("a", "b")
    """Which
    of them."""
    parts: tuple[Part, ...] = (Part(), Part(4))
    """Parts."""
    network: Part = Part()
    """A block of options."""
    share: float = 0.5
    """A part."""
    seed: int = 0
    """Seed."""


def check(config):
    study.at_least(config, num=1)
    study.known(config, names=("a", "b", "c"))


def compute(config, run):
    """A stage that counts how often it was computed."""

    def stage():
        calls.append(config.num)
        return {"value": 0.5 * config.num}

    value = float(run.cached("stage", stage)["value"])
    judged = Judged(Estimate(value, 0.25), Estimate(0.125, 0.0625))
    return {"plain": 7, "judged/a": judged, "pair": {"b": Estimate(2.0, 1.0)}}


def report(config, run, metrics):
    return study.metric_table(metrics, ["a", "z"], {"first": "judged"}, title="x")


calls = []
STUDY = study.Study(
    {"default": Config(), "smoke": Config(num=6)},
    compute,
    report,
    check,
    lambda config: {"model": lambda key: {"w": key, "b": (key, key)}},
)


def run(*arguments):
    return study.run(STUDY, list(map(str, arguments)))


@pytest.fixture(autouse=True)
def forget_calls():
    calls.clear()


def test_metrics_are_flat_and_stages_are_computed_once(tmp_path, capsys):
    out = tmp_path / "run"
    expected = {
        "plain": 7.0,
        "judged/a": 3.0,
        "judged/a_error": 0.25,
        "judged/a_truth": 0.125,
        "judged/a_truth_error": 0.0625,
        "pair/b": 2.0,
        "pair/b_error": 1.0,
    }
    assert run("--preset", "smoke", "--out", out) == expected
    assert json.loads((out / "metrics.json").read_text()) == expected
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["x", "a", "z"]
    assert printed[1].split() == ["first", "3.0(2)", "[truth", "0.12(6)]", "-"]
    assert run("--preset=smoke", "--out", out) == expected
    assert run("--preset", "smoke", "--out", out, "--plot-only") == expected
    assert calls == [6]
    (out / "stage.npz").unlink()
    with pytest.raises(SystemExit, match="stage.npz is not there to plot"):
        run("--preset", "smoke", "--out", out, "--plot-only")
    with pytest.raises(SystemExit, match=r"another configuration \(num: 6 -> 2\)"):
        run("--out", out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--num", 0), "error: num must be at least 1, got 0"),
        (("--names", "a", "d"), r"error: names must be of a, b, c, got \('a', 'd'\)"),
        (("--names",), r"error: names must be of a, b, c, got \(\)"),
        (("--parts.1.width", 0), "error: width must be positive, got 0"),
        (("--parts.1.width", 10**14), "error: width must not be larger than 2147483647"),
        (("--num", 10**14), "error: num must not be larger than 2147483647, got 100000000000000"),
        (("--share", "nan"), "error: share must be a number, got nan"),
        (("--plot-only",), "holds no run to read; run without --plot-only first"),
    ],
)
def test_what_a_user_can_mend_is_said_in_a_sentence(arguments, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        run("--out", tmp_path / "none", *arguments)
    with pytest.raises(ValueError, match=message.removeprefix("error: ")):
        run("--out", tmp_path / "none", *arguments, "--traceback")
    assert not (tmp_path / "none").exists()
    assert not calls


def test_a_dry_run_counts_parameters(capsys):
    run("--dry-run", "--num", 5)
    resolved = json.loads(capsys.readouterr().out)
    assert resolved["config"]["num"] == 5
    assert resolved["config"]["parts"] == [{"width": 3}, {"width": 4}]
    assert resolved["parameters"] == {"model": 3}


def test_bad_arguments_end_with_two(capsys):
    for option, value, named in (("--preset", "smok", "smok"), ("--nun", 3, "--nun")):
        with pytest.raises(SystemExit, match="2"):
            run(option, value)
        assert named in capsys.readouterr().err


def test_help_has_the_first_sentence_of_an_option(capsys):
    with pytest.raises(SystemExit, match="0"):
        run("--help")
    lines = capsys.readouterr().out.splitlines()
    assert "  --num                    How many (2)" in lines
    assert "  --names                  Which of them (a b)" in lines
    assert "  --preset {default,smoke}" in lines
    assert lines[-1] == "blocks of options (--help-all): --network.*"
    with pytest.raises(SystemExit, match="0"):
        run("--help-all")
    assert "--network.width" in capsys.readouterr().out


def test_cells_of_a_table():
    text = study.table(["value", "b"], {"row": [Estimate(0.0183, 0.0021), 12345.0], "c": [None, 2]})
    assert [line.split() for line in text.splitlines()] == [
        ["value", "b"],
        ["row", "0.018(2)", "12345"],
        ["c", "-", "2"],
    ]
    assert len(set(map(len, text.splitlines()))) == 1


def test_names_of_studies():
    assert study.short_name("experiments.models.flows") == "flows"
    assert study.short_name("experiments.showers.calodream.study") == "calodream"
    assert study.short_name("experiments.showers.calodream.__main__") == "calodream"
    assert study.short_name("experiments.benchmarks.flows") == "benchmarks.flows"
    assert study.short_name("experiments.simulate.geant4.study") == "simulate.geant4"


def test_the_list_of_studies_and_an_unknown_one(capsys):
    main([])
    lines = capsys.readouterr().out.splitlines()
    assert "models" in lines
    for name, (module, line) in studies().items():
        assert module.startswith("experiments.")
        assert any(row.split()[:1] == [name] and line in row for row in lines)
    with pytest.raises(SystemExit, match="no study 'moon_gaps'; did you mean moons_gaps"):
        main(["moon_gaps"])


def test_a_seed_may_be_large_and_infinite_counts_are_refused():
    run("--seed", 10**14, "--dry-run")
    with pytest.raises(ValueError, match="num must be finite, got inf"):
        study.at_least(Config(num=float("inf")), num=1)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            MemoryError("Unable to allocate 728 TiB"),
            r"out of memory \(Unable to allocate 728 TiB\)",
        ),
        (MemoryError(), r"out of memory \(the host has no more\); choose smaller"),
        (JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GB\nmore"), r"memory \(RESOURCE_EXHAUSTED: 9 GB\)"),
    ],
)
def test_too_little_memory_is_said_in_a_sentence(error, message, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(study, "execute", fail)
    with pytest.raises(SystemExit, match=message):
        run("--out", tmp_path / "none")


def test_other_errors_of_the_device_are_raised(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise JaxRuntimeError("INTERNAL: a fault")

    monkeypatch.setattr(study, "execute", fail)
    with pytest.raises(JaxRuntimeError, match="a fault"):
        run("--out", tmp_path / "none")


def test_parameters_that_no_memory_holds_are_refused_by_a_dry_run():
    huge = study.Study(STUDY.presets, compute, report, build=lambda config: {"net": init})
    with pytest.raises(SystemExit, match=r"error: net has 1e\+12 parameters, 4e\+12 bytes"):
        study.run(huge, ["--dry-run"])


def init(key):
    return jnp.zeros((10**6, 10**6))


def test_trainings_are_logged_where_it_is_asked_those_of_parts_too(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    model = GenerativeModel(lambda key: jnp.zeros(()), lambda p, key, batch: p**2, None)
    training, options = TrainConfig(2, 8, log_every=1), {"progress": False}
    with study.Run(tmp_path / "run", Config()) as run:
        run.log = "tensorboard"
        with run.part("part", Config()) as part:
            part.fit("small", model, None, training, **options)
        run.fit("first", model, None, training, **options)
        written = lambda: {p.parent for p in (tmp_path / "run").rglob("events.out.*")}
        folders = {
            tmp_path / "run" / name for name in ("tensorboard/first", "part/tensorboard/small")
        }
        assert written() == folders
        # A finished one is read, and begins no log.
        monkeypatch.setattr(study, "tensorboard", None)
        assert run.fit("first", model, None, training, **options).state is None
        run.log = "wandb"
        monkeypatch.setitem(sys.modules, "wandb", None)
        with pytest.raises(ValueError, match="need wandb: pip install wandb"):
            run.fit("other", model, None, training, **options)


def test_the_log_is_an_option_of_all_studies(command, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        study.Run, "fit", lambda run, *args, **options: seen.append(run.log) or 1 / 0
    )
    for options in ((), ("--log", "tensorboard")):
        with pytest.raises(ZeroDivisionError):
            command(
                "moons_gaps", *options, "--preset", "smoke", "--out", tmp_path / str(len(options))
            )
    assert seen == ["none", "tensorboard"]

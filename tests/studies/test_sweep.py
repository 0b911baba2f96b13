"""No option of a study ends in a raw error or hangs, whatever is typed, as --dry-run shows."""

import contextlib
import dataclasses
import importlib
import io
import math
import signal
import typing
from types import SimpleNamespace

import pytest
import tyro

from experiments import study
from experiments.__main__ import studies
from jgen.models import parts

pytestmark = pytest.mark.study

# The command line refuses what is of another type by itself, see the last test.
VALUES = {
    int: (0, -1, 10**14),
    float: (0.0, -1.0, math.nan, math.inf, 1e14),
    str: ("", "x"),
}
SECONDS = 10
# Options of a block of the library are the same in all studies that have it: those that came
# before get one value only, which shows that the study lets the block check itself.
SEEN = set()
# Where they cost little they are met first, and networks of published sizes come last.
FIRST = ("moons_gaps", "evaluate", "rings.averaging")
LAST = (
    "benchmarks.showers",
    "bespoke_solvers",
    "bib_ae",
    "calodream",
    "consistency",
    "uncertainty",
)
ORDER = sorted(studies(), key=lambda name: (name not in FIRST, name in LAST, name))


class HangsError(BaseException):
    """Not an Exception, so that nothing on the way catches it."""


def ring(*_):
    raise HangsError


def cases(config, prefix=""):
    """(option, value to try) of all fields, those of blocks within included."""
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            yield from cases(value, f"{name}.")
            continue
        owner = type(config), field.name
        tried = tuple(wrong(value))
        if owner in SEEN and owner[0].__module__.startswith("jgen."):
            tried = tried[1:2]
        SEEN.add(owner)
        yield from ((name, one) for one in tried)


def wrong(value):
    """Values to try in the place of an option's."""
    if isinstance(value, tuple):
        yield from [(*value[:-1], last) for last in wrong(value[-1])] if value else ()
        yield ()
    elif not isinstance(value, bool):
        yield from VALUES.get(type(value), ())


def changed(config, option, value):
    """The configuration with one option changed."""
    first, _, rest = option.partition(".")
    if rest:
        value = changed(getattr(config, first), rest, value)
    return dataclasses.replace(config, **{first: value})


def outcome(made, config, option, value, monkeypatch):
    """What a dry run with a changed option ends in: None, a sentence, or what must not be."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        try:
            config = changed(config, option, value)
        except ValueError as error:  # of a block that checks itself when it is made
            return f"error: {error}"
        flags = {"preset": "smoke", "out": None, "dry_run": True, "plot_only": False}
        flags |= {"distributed": False, "traceback": False, "config": config}
        monkeypatch.setattr(study, "_parse", lambda *_: SimpleNamespace(**flags))
        with contextlib.redirect_stdout(io.StringIO()):
            study.run(made, [])
        return None
    except SystemExit as error:
        return str(error.code)
    except HangsError:
        return f"more than {SECONDS} s"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def runnable(made, smoke, name):
    """The preset smoke, with what the study needs; a dry run does not read a user's files."""
    config = made.presets["smoke"]
    if name == "generate":
        return dataclasses.replace(config, model=str(smoke("calodream")), num=20)
    missing = [
        f.name for f in dataclasses.fields(config) if getattr(config, f.name) is tyro.MISSING
    ]
    return dataclasses.replace(config, **dict.fromkeys(missing, "showers.h5"))


@pytest.mark.parametrize("name", ORDER)
def test_a_dry_run_takes_an_option_or_says_what_is_wrong(name, smoke, monkeypatch):
    made = importlib.import_module(studies()[name][0]).STUDY
    config = runnable(made, smoke, name)
    # Tracing networks would take most of the time; sizes are checked where networks are made.
    monkeypatch.setattr(parts, "ask", lambda *_, **__: None)
    monkeypatch.setattr(study, "_parameter_counts", lambda made: {})
    old, raw = signal.signal(signal.SIGALRM, ring), []
    try:
        for option, value in cases(config):
            found = outcome(made, config, option, value, monkeypatch)
            if found is not None and not found.startswith("error: "):
                raw.append(f"--{option} {value!r}: {found}")
    finally:
        signal.signal(signal.SIGALRM, old)
    assert not raw, "\n".join(raw)


def numbers(config):
    """(option, its annotation) of all fields that are numbers, blocks included."""
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from ((f"{field.name}.{name}", kind) for name, kind in numbers(value))
        elif type(value) in (int, float):
            yield field.name, hints[field.name]


@pytest.mark.parametrize("name", sorted(set(studies()) - {"evaluate", "generate"}))
def test_what_is_no_number_is_refused_by_the_command_line(name, command, capsys):
    config, tried = importlib.import_module(studies()[name][0]).STUDY.presets["smoke"], set()
    for option, kind in numbers(config):
        # Parsing goes by the annotation alone, so that one option of each kind stands for all.
        if kind in tried:
            continue
        tried.add(kind)
        for text in ("x",) if float in (kind, *typing.get_args(kind)) else ("x", "nan", "1.5"):
            with pytest.raises(SystemExit) as ended:
                command(name, f"--{option.replace('_', '-')}", text, "--dry-run")
            assert ended.value.code == 2

"""The house rules: rooms import from floors below, and each library has one room."""

import ast
import functools
import io
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {
    "typing": 0, "arrays": 0, "checks": 0, "overlap": 0, "random": 0, "files": 0, "tables": 0,
    "columns": 0, "estimate": 0, "generative_model": 0, "sets": 0, "physics": 0,
    "export": 1, "paths": 1, "couplings": 1, "solvers": 1, "bijectors": 1, "nets": 1,
    "models": 2, "transforms": 2,
    "training": 3, "metrics": 3, "amplification": 3,
    "toys": 4, "lattice": 4, "showers": 4, "jets": 4, "events": 4, "inference": 4,
    "plotting": 5,
}  # fmt: skip
LIBRARIES = {
    "flax": "nets", "equinox": "nets", "orbax": "training", "blackjax": "inference",
    "matplotlib": "plotting",
}  # fmt: skip
# Of code: docstrings, comments, blank lines and imports are free.
LINES_OF_A_FILE, LINES_OF_A_FUNCTION = 400, 55
FILES = sorted((ROOT / "jgen").rglob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path):
    return path.relative_to(ROOT / "jgen").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_come_from_below(path):
    here = room(path)
    if here == "__init__":
        return  # the front door, which may import from every floor but plotting
    for name in imports(path):
        top, *rest = name.split(".")
        if top == "jgen" and rest and rest[0] in FLOORS:
            assert FLOORS[rest[0]] <= FLOORS[here], f"{here} imports {name} from a floor above"
        assert top != "experiments", f"{here} imports {name}"
        assert LIBRARIES.get(top, here) == here, f"{name} belongs in {LIBRARIES.get(top)} only"


def test_the_rules_are_about_rooms_and_libraries_that_exist():
    assert {room(path) for path in FILES} - {"__init__"} == set(FLOORS)
    used = {name.split(".")[0] for path in FILES for name in imports(path)}
    assert set(LIBRARIES) <= used


def test_rooms_of_one_floor_do_not_import_in_a_circle():
    graph = {name: set() for name in FLOORS}
    for path in FILES:
        here = room(path)
        if here == "__init__":
            continue
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "jgen" and len(parts) > 1 and parts[1] in FLOORS and parts[1] != here:
                graph[here].add(parts[1])

    def reaches(start, goal, seen):
        return any(
            n == goal or (n not in seen and reaches(n, goal, seen | {n})) for n in graph[start]
        )

    assert not [name for name in graph if reaches(name, name, {name})]


def code_lines(path):
    """Numbers of the lines that hold code: no docstrings, comments, blank lines and imports."""
    source = path.read_text()
    skip = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in (*skip, tokenize.ENDMARKER):
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.Import | ast.ImportFrom) or (text and node.value.value is not ...):
            lines.difference_update(range(node.lineno, node.end_lineno + 1))
    return lines


@pytest.mark.parametrize("root", ["jgen", "experiments"])
def test_files_and_functions_stay_small(root):
    long = []
    for path in sorted((ROOT / root).rglob("*.py")):
        lines = code_lines(path)
        if len(lines) > LINES_OF_A_FILE:
            long.append(f"{path}: {len(lines)} lines of code")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                own = sum(node.lineno <= line <= node.end_lineno for line in lines)
                if own > LINES_OF_A_FUNCTION:
                    long.append(f"{path}: {node.name} has {own} lines of code")
    assert not long, "\n".join(long)


def test_lines_of_code_are_counted_as_said(tmp_path):
    path = tmp_path / "module.py"
    path.write_text('''"""Two
lines."""

import os
from sys import (
    path,
)


def f(x):
    """One line."""
    # A comment.
    return """a string

    of three lines""" + str(x)  # another
''')
    assert code_lines(path) == {10, 13, 14, 15}


FRONT_DOOR = "from jgen import Batch, GenerativeModel, TrainConfig, draw, fit, load, save"
ROOMS = (
    "import jgen.models, jgen.training, jgen.showers, jgen.metrics, jgen.toys, jgen.amplification\n"
    "import jgen.transforms, jgen.bijectors"
)


@functools.cache
def imported(statement):
    """Names of the modules that a statement imports, and of the backends that it starts."""
    code = (
        f"{statement}\nimport sys\nmodules = list(sys.modules)\n"
        "from jax._src import xla_bridge\nprint(modules, list(xla_bridge._backends), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True
    )
    return [ast.literal_eval(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("statement", [FRONT_DOOR, ROOMS], ids=["front door", "rooms"])
def test_importing_starts_no_backend_and_no_plotting(statement):
    modules, backends = imported(statement)
    assert not backends, "a backend was started"
    assert "matplotlib" not in modules, "plotting was imported"
    assert "torch" not in modules, "another framework was imported"


def test_the_front_door_costs_less_than_flax_and_optax():
    """In modules that are imported, since times on busy machines say little."""
    own, theirs = (imported(s)[0] for s in (FRONT_DOOR, "import flax, flax.linen, optax"))
    assert len(own) < len(theirs)

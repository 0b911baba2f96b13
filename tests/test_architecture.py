"""The house rules: rooms import from floors below, and each library has one room."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {
    "typing": 0, "random": 0, "files": 0, "tables": 0, "estimate": 0, "generative_model": 0,
    "paths": 1, "couplings": 1, "solvers": 1, "bijectors": 1, "nets": 1,
    "models": 2, "transforms": 2,
    "training": 3, "metrics": 3, "amplification": 3,
    "toys": 4, "lattice": 4, "showers": 4, "jets": 4, "events": 4, "inference": 4,
    "plotting": 5,
}  # fmt: skip
LIBRARIES = {
    "flax": "nets", "distrax": "bijectors", "orbax": "training", "blackjax": "inference",
    "matplotlib": "plotting",
}  # fmt: skip
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


def test_files_and_functions_stay_small():
    for path in [*FILES, *(ROOT / "experiments").rglob("*.py")]:
        tree = ast.parse(path.read_text())
        assert len(path.read_text().splitlines()) <= 410, path
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                doc = ast.get_docstring(node, clean=False) or ""
                lines = node.end_lineno - node.lineno + 1 - len(doc.splitlines())
                assert lines <= 60, f"{path}:{node.name} has {lines} lines"


def test_importing_starts_no_backend_and_no_plotting():
    code = (
        "import jgen, jgen.models, jgen.training, jgen.showers, jgen.metrics, sys\n"
        "import jgen.toys, jgen.amplification, jgen.transforms, jgen.bijectors\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge._backends, 'a backend was started'\n"
        "assert 'matplotlib' not in sys.modules, 'plotting was imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)

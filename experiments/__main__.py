"""List the studies, one line each: `python -m experiments`."""

import ast
import pkgutil
from pathlib import Path


def studies() -> dict[str, str]:
    """Names and first lines of the studies' docstrings, read without importing them."""
    folder = Path(__file__).parent
    found = {}
    for module in pkgutil.iter_modules([str(folder)]):
        path = folder / f"{module.name}.py"
        if module.name.startswith("_") or not path.exists():
            continue
        tree = ast.parse(path.read_text())
        if any(isinstance(n, ast.FunctionDef) and n.name == "main" for n in tree.body):
            found[module.name] = ast.get_docstring(tree).splitlines()[0]
    return found


def list_studies() -> None:
    """Print the table."""
    rows = studies()
    width = max(map(len, rows))
    for name, line in rows.items():
        print(f"python -m experiments.{name:<{width}}  {line}")
    print("\nEach takes --help, --preset, --out DIR, --dry-run and --plot-only.")


if __name__ == "__main__":
    list_studies()

"""List the studies, one line each: `python -m experiments`."""

import ast
from pathlib import Path


def studies() -> dict[str, str]:
    """Names and first lines of the studies' docstrings, read without importing them."""
    folder = Path(__file__).parent
    found = {}
    for path in sorted(folder.rglob("[!_]*.py")):
        tree = ast.parse(path.read_text())
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
            name = ".".join(path.relative_to(folder).with_suffix("").parts)
            found[name] = ast.get_docstring(tree).splitlines()[0]
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

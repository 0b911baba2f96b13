"""List the studies or run one: `python -m experiments [NAME ...]`."""

import ast
import difflib
import importlib
import sys
from pathlib import Path

from experiments.scan import scan
from experiments.study import run, short_name


def studies() -> dict[str, tuple[str, str]]:
    """Name -> (module, first line of its docstring) of all studies, none of them imported."""
    folder, known = Path(__file__).parent, {}
    for path in sorted(folder.glob("*/**/*.py")):
        text = path.read_text()
        if "STUDY = Study(" in text:
            module = ".".join(("experiments", *path.relative_to(folder).with_suffix("").parts))
            line = ast.get_docstring(ast.parse(text)).splitlines()[0]
            known[short_name(module)] = (module, line)
    return known


def list_studies() -> None:
    """Print the studies by topic."""
    rows, topic = studies(), None
    width = max(map(len, rows))
    for name, (module, line) in sorted(rows.items(), key=lambda row: row[1][0].split(".")[1]):
        if module.split(".")[1] != topic:
            topic = module.split(".")[1]
            print(f"\n{topic}")
        print(f"  {name:<{width}}  {line}")
    print(
        "\npython -m experiments NAME runs one; each takes --help, --preset, --out DIR, --dry-run"
    )
    print("and --plot-only; --scan FIELD=VALUE,VALUE makes jobs of many runs.")


def main(argv: list[str]) -> None:
    """The command line."""
    if not argv or argv[0] in ("-h", "--help"):
        list_studies()
        return
    known = studies()
    if argv[0] not in known:
        close = difflib.get_close_matches(argv[0], known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        sys.exit(f"there is no study {argv[0]!r}{hint} python -m experiments lists them")
    study = importlib.import_module(known[argv[0]][0]).STUDY
    if any(arg.partition("=")[0] == "--scan" for arg in argv):
        scan(study, argv[0], argv[1:])
    else:
        run(study, argv[1:])


if __name__ == "__main__":
    main(sys.argv[1:])

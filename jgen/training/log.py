"""The log of a training: JSON lines that a resumed run cuts and continues."""

import json
import warnings
from pathlib import Path

from jgen.files import atomic_path, make_folder


class MetricsLog:
    """A JSON-lines file with one object a logged step."""

    def __init__(self, path: Path, is_writer: bool = True):
        """Open the log at `path`; only a writer writes."""
        self.path, self.is_writer = Path(path), is_writer

    def read(self) -> list[dict]:
        """All complete lines; damaged ones are left out, with a warning."""
        if not self.path.exists():
            return []
        lines, rows, bad = self.path.read_text(errors="replace").splitlines(), [], []
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                rows.append(row | {"step": int(row["step"])})
            except (ValueError, TypeError, KeyError, RecursionError):
                bad.append(number)
        # A process that was killed while it wrote leaves half a line at the end.
        if bad and bad != [len(lines)]:
            warnings.warn(
                f"{len(bad)} lines of {self.path} are damaged, the first is line {bad[0]}; they "
                "are left out of the history, the training itself is not in this file",
                stacklevel=2,
            )
        return rows

    def truncate(self, step: int) -> None:
        """Drop what was logged after `step`: a resumed run will log it again."""
        if self.is_writer:
            rows = [row for row in self.read() if row["step"] <= step]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            with atomic_path(self.path) as partial:
                partial.write_text(text)

    def append(self, row: dict) -> None:
        """Add one line."""
        if self.is_writer:
            make_folder(self.path.parent)
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")

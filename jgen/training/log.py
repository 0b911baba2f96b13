"""The log of a training: JSON lines that a resumed run cuts and continues."""

import json
from pathlib import Path

from jgen.files import atomic_path


class MetricsLog:
    """A JSON-lines file with one object a logged step."""

    def __init__(self, path: Path, is_writer: bool = True):
        """Open the log at `path`; only a writer writes."""
        self.path, self.is_writer = Path(path), is_writer

    def read(self) -> list[dict]:
        """All complete lines."""
        if not self.path.exists():
            return []
        rows = []
        for line in self.path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break  # a process killed while it wrote leaves half a line at the end
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
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")

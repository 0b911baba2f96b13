"""Trained models that can be sent to other processes."""

import dataclasses
from typing import Any


class Portable:
    """A dataclass whose pickles and copies have its fields, not what a first use has compiled."""

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

"""Run folders: what was run, on what, and what came out; every write is atomic.

config.json  env.json  metrics.jsonl  metrics.json  checkpoints/  figures/  samples.h5
"""

import dataclasses
import json
import math
import platform
import subprocess
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, get_type_hints

import jax
import numpy as np
from jax.experimental import multihost_utils

from jgen.files import atomic_path
from jgen.typing import Key, Params


class RunFolder:
    """A folder that holds one run. On several hosts only process 0 writes."""

    def __init__(self, path: Path, config: Any):
        """Open a run folder; the same configuration resumes it.

        Args:
          path: the folder, made if missing.
          config: a frozen dataclass.

        Raises:
          ValueError: if the folder holds a run with another configuration; names the fields.
        """
        self.path = Path(path)
        self.is_writer = jax.process_index() == 0
        self._open(config)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("run folder")

    def _open(self, config: Any) -> None:
        stored, new = self.path / "config.json", _as_json(config)
        if stored.exists():
            old = _with_defaults(config, json.loads(stored.read_text()))
            _refuse_changes(self.path, old, new)
        elif self.is_writer and self.path.is_dir() and any(self.path.iterdir()):
            raise ValueError(
                f"{self.path} is not empty and holds no config.json; choose another --out"
            )
        else:
            self.write_json("config.json", new)
            self.write_json("env.json", environment())

    def write_json(self, name: str, content: Any) -> None:
        """Write a file of the folder atomically."""
        if self.is_writer:
            with atomic_path(self.path / name) as partial:
                partial.write_text(json.dumps(content, indent=2) + "\n")

    def read_json(self, name: str) -> Any:
        """A file that `write_json` wrote, None if there is none."""
        path = self.path / name
        return json.loads(path.read_text()) if path.exists() else None

    def write_metrics(self, metrics: dict[str, float]) -> None:
        """Write metrics.json: flat, name -> number.

        Raises:
          ValueError: if a value is no finite number; names it.
        """
        bad = {k: v for k, v in metrics.items() if not math.isfinite(v)}
        if bad:
            raise ValueError(f"metrics must be finite numbers, got {bad}")
        self.write_json("metrics.json", {k: float(v) for k, v in metrics.items()})

    def figure(self, name: str) -> Path:
        """Path without suffix for a figure."""
        folder = self.path / "figures"
        folder.mkdir(exist_ok=True)
        return folder / name


def load_config(kind: type, path: Path) -> Any:
    """The configuration of a run folder, as an instance of the dataclass `kind`.

    Raises:
      ValueError: if the folder holds no run, or one of another kind.
    """
    stored = Path(path) / "config.json"
    if not stored.exists():
        raise ValueError(f"{path} holds no run: there is no config.json in it")
    try:
        return _build(kind, json.loads(stored.read_text()))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{stored} is not a configuration of this study: {error}") from error


def _build(kind: Any, value: Any) -> Any:
    """A dataclass from nested dictionaries; JSON has lists where tuples were."""
    if dataclasses.is_dataclass(kind):
        kinds = get_type_hints(kind)
        return kind(**{name: _build(kinds[name], v) for name, v in value.items()})
    return tuple(value) if isinstance(value, list) else value


def save_params(path: Path, params: Params) -> None:
    """Write the parameters of one model as one .npz file, an array a leaf, named by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez(file, **{_leaf_name(name): np.asarray(leaf) for name, leaf in leaves})


def load_params(path: Path, init: Callable[[Key], Params]) -> Params:
    """Read what `save_params` wrote.

    Args:
      path: of the file.
      init: of the model, (key) -> params; it is not run, but says what there has to be.

    Raises:
      ValueError: if the file holds the parameters of another model.
    """
    expected = jax.eval_shape(init, jax.random.key(0))
    shapes = {_leaf_name(n): a.shape for n, a in jax.tree_util.tree_leaves_with_path(expected)}
    with np.load(path) as file:
        found = dict(file)
    if {name: a.shape for name, a in found.items()} != shapes:
        raise ValueError(f"{path} holds parameters of another model; train this one anew")
    return jax.tree_util.tree_map_with_path(lambda n, _: found[_leaf_name(n)], expected)


def _leaf_name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


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


def environment() -> dict[str, Any]:
    """Versions, devices and commit of this process."""
    packages = {}
    for name in ("jgen", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "python": platform.python_version(),
        "packages": packages,
        "devices": [device.device_kind for device in jax.devices()],
        "processes": jax.process_count(),
        "commit": _commit(Path(__file__).parents[2]),
    }


def _commit(root: Path) -> str | None:
    """Commit of the source tree; None if this is no checkout or there is no git."""
    if not (root / ".git").exists():
        return None
    command = ["git", "rev-parse", "HEAD"]
    try:
        git = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return git.stdout.strip() or None


def _as_json(value: Any) -> Any:
    """A dataclass, or a value of a field of one, as it is read back from a JSON file."""
    plain = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value
    return json.loads(json.dumps(plain, default=str))


def _with_defaults(config: Any, stored: dict) -> dict:
    """Options that the version which wrote `stored` did not have were at their defaults."""
    complete = dict(stored)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name not in stored and field.default is not dataclasses.MISSING:
            complete[field.name] = _as_json(field.default)
        elif dataclasses.is_dataclass(value) and isinstance(stored.get(field.name), dict):
            complete[field.name] = _with_defaults(value, stored[field.name])
    return complete


def _refuse_changes(path: Path, old: dict, new: dict) -> None:
    flat_old, flat_new = _flatten(old), _flatten(new)
    names = sorted(n for n in flat_old | flat_new if flat_old.get(n) != flat_new.get(n))
    if names:
        changes = "; ".join(f"{n}: {flat_old.get(n)!r} -> {flat_new.get(n)!r}" for n in names)
        raise ValueError(
            f"{path} holds a run with another configuration ({changes}); "
            "choose another --out or go back to the stored options"
        )


def _flatten(tree: dict, prefix: str = "") -> dict:
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat

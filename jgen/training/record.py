"""What a training or a run was made of, so that nothing else is taken for it when it is resumed."""

import dataclasses
import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jgen.files import atomic_path, read_json
from jgen.generative_model import Batch
from jgen.training.config import TrainConfig
from jgen.training.sources import DataSource, is_source, probe
from jgen.typing import Key, PyTree

# What changes a training's course by no more than rounding, or only what is written of it.
_FREE = ("log_every", "save_every", "axis", "buckets", "accumulate")


def tree_digest(tree: PyTree) -> str | None:
    """SHA-256 of all arrays of a tree with their paths, shapes and types; None of no array."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if not leaves:
        return None
    digest = hashlib.sha256()
    for path, leaf in leaves:
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def source_digest(source: DataSource) -> str:
    """What tells a source from others without reading all of it: its length and a few events."""
    return f"{len(source)} events, {tree_digest(probe(source))}"


def file_digest(path: Path) -> str:
    """SHA-256 of a file; of a run folder, of its configuration and trained parameters."""
    digest = hashlib.sha256()
    files = [path]
    if path.is_dir():
        files = [
            p for p in (path / "config.json", *sorted(path.glob("*/params.npz"))) if p.exists()
        ]
    for file in files:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def training_record(
    data: Batch | DataSource,
    validation: Batch | None,
    key: Key,
    config: TrainConfig,
    initial: PyTree = None,
) -> dict[str, Any]:
    """What determines a training, flat: digests, the key, and all options."""
    numbers = np.asarray(jax.random.key_data(key)).ravel().tolist()
    record = {
        "data": source_digest(data) if is_source(data) else tree_digest(data),
        "validation": tree_digest(validation),
        "initial": tree_digest(initial),
        "key": f"{jax.random.key_impl(key)} {numbers}",
    }
    return record | _options(config)


def _options(config: TrainConfig) -> dict[str, Any]:
    options, flat = json.loads(json.dumps(dataclasses.asdict(config), default=str)), {}
    for name, value in options.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": v for inner, v in value.items()}
        elif name not in _FREE:
            flat[name] = value
    return flat


def check_record(folder: Path, record: dict[str, Any], *, extend: bool, is_writer: bool) -> None:
    """Refuse a folder that holds another training, and write the record of this one.

    Raises:
      ValueError: naming what differs.
    """
    path = folder / "training.json"
    if path.exists():
        # Options that the version which wrote it did not have were at their defaults.
        old = _options(TrainConfig()) | read_json(path, "restore it, or choose another folder")
        names = [n for n in sorted(old.keys() | record.keys()) if old.get(n) != record.get(n)]
        if extend and "steps" in names and record["steps"] > (old.get("steps") or 0):
            names.remove("steps")
        if names:
            shown = [_change(n, old, record) for n in names]
            raise ValueError(
                f"{folder} holds a training with other {', '.join(shown)}; choose another folder"
                + (", or continue it with extend=True" if names == ["steps"] else "")
            )
    elif (folder / "checkpoints").exists() and any((folder / "checkpoints").glob("[0-9]*")):
        warnings.warn(
            f"{folder} has checkpoints but does not say of which data, key and options; they are "
            "taken for those given",
            stacklevel=4,
        )
    if is_writer:
        with atomic_path(path) as partial:
            partial.write_text(json.dumps(record, indent=2) + "\n")


def _change(name: str, old: dict, new: dict) -> str:
    if name in ("data", "validation", "key"):
        return name
    return f"{name} ({old.get(name)!r} -> {new.get(name)!r})"

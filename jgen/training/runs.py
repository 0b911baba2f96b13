"""Run folders: what was run, on what, and what came out; every write is atomic.

config.json  env.json  metrics.json  STAGE.npz  TRAINING/{checkpoints/ metrics.jsonl params.npz}
figures/
"""

import dataclasses
import json
import math
import os
import platform
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, get_type_hints

import jax
import numpy as np
from jax.experimental import multihost_utils

from jgen.estimate import flatten
from jgen.files import atomic_path, load, make_folder, read_json, save
from jgen.generative_model import Batch, GenerativeModel
from jgen.random import stream
from jgen.training.config import TrainConfig
from jgen.training.fit import Fitted, fit
from jgen.training.inputs import as_batch, training_data
from jgen.training.log import MetricsLog
from jgen.training.record import check_record, file_digest, training_record, tree_digest
from jgen.training.sources import DataSource
from jgen.typing import Key, PyTree

try:
    import fcntl
except ImportError:  # not on Windows, where nothing stops two processes on one folder
    fcntl = None


class RunFolder:
    """A folder that holds one run, locked while it is open. On several hosts process 0 writes.

    What is done stays done: `fit` and `cached` compute a stage once and read it ever after, so the
    same program goes on where an interrupted one stopped.
    """

    def __init__(self, path: str | os.PathLike, config: Any, *, read_only: bool = False):
        """Open a run folder; the same configuration resumes it.

        Args:
          path: the folder, made if missing.
          config: a frozen dataclass; its field `seed` is the base of all keys.
          read_only: the run must be there, stages that are not there are an error, and nothing but
            figures is written.

        Raises:
          ValueError: if the folder holds a run with another configuration, or of files or models
            that have changed since, naming the fields; or if another process has it open.
        """
        self.path, self.config, self.read_only = Path(path), config, read_only
        self.is_writer = jax.process_index() == 0
        self._lock = None
        if read_only and not (self.path / "config.json").exists():
            raise ValueError(f"{path} holds no run to read; run without --plot-only first")
        if self.is_writer and not read_only:
            self._lock = _lock(self.path)
        try:
            self._open(config)
        except BaseException:
            self.close()
            raise
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("run folder")

    def __enter__(self) -> "RunFolder":
        """The folder itself, closed at the end of the block."""
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Let others have the folder; the end of the process does so, too."""
        if self._lock is not None:
            _unlock(self._lock)
            self._lock = None

    def key(self, name: str) -> Key:
        """The key stream called `name` of the configuration's seed."""
        if not hasattr(self.config, "seed"):
            raise ValueError(f"{type(self.config).__name__} has no field seed; give it one")
        return stream(jax.random.key(self.config.seed), name)

    def cached(
        self, name: str, compute: Callable[..., PyTree], *args: Any, **options: Any
    ) -> PyTree:
        """A stage of the run: what `compute` returns, from NAME.npz if it is there.

        Args:
          name: of the file, without its suffix; "moons/flow" is in a folder of its own.
          compute: -> dictionaries, lists, tuples and jgen's NamedTuples of arrays and numbers.
          *args: its arguments.
          **options: those with names.

        Raises:
          ValueError: if the folder is read only and the stage is not there.
        """
        path = self.path / f"{name}.npz"
        if not self._is_there(path):
            result = compute(*args, **options)
            if not self.is_writer:
                return jax.tree.map(lambda a: a if isinstance(a, str) else np.asarray(a), result)
            save(path, result)  # keeps the order of dictionaries, which `jax.tree.map` sorts
        return self.stage(name)

    def stage(self, name: str) -> PyTree:
        """What `cached` has kept under a name."""
        return _load_stage(self.path / f"{name}.npz", None, "delete it, to compute it again")

    def history(self, name: str) -> list[dict]:
        """What a training that `fit` ran has logged so far.

        Raises:
          ValueError: if the training is finished and nothing is left of its log.
        """
        path = self.path / name / "metrics.jsonl"
        rows = MetricsLog(path, False).read()
        if not rows and (path.parent / "params.npz").exists():
            raise ValueError(
                f"{path}, the log of a finished training, is empty or damaged; restore it, or "
                f"delete {path.parent} to train again"
            )
        return rows

    def fit(
        self,
        name: str,
        model: GenerativeModel,
        data: Batch | DataSource | None | Callable[[], Batch | DataSource],
        config: TrainConfig,
        *,
        key: Key | None = None,
        **options: Any,
    ) -> Fitted:
        """A training that is a stage of the run, in the folder NAME; see `fit` for the arguments.

        A finished one is read: its `state` is then None.

        Args:
          name: of the training.
          model: what to train.
          data: training events or a source of them, or a function that makes these when they are
            needed, as the option `validation` may be.
          config: how.
          key: typed PRNG key, `self.key(name)` unless given.
          options: of `fit`.
        """
        folder = self.path / name
        key = self.key(name) if key is None else key
        if self._is_there(folder / "params.npz"):
            if not self.read_only:  # it may be of other data, which are then refused
                data, validation = _made(data), _made(options.get("validation"))
                # As `fit` takes them, whatever precision they came in.
                data = training_data(data, model)
                validation = validation and as_batch(validation, "validation", model)
                record = training_record(data, validation, key, config, options.get("initial"))
                check_record(folder, record, extend=False, is_writer=self.is_writer)
            advice = "delete it, and the training ends again from its last checkpoint"
            params = _load_stage(folder / "params.npz", model, advice)
            return Fitted(params, None, MetricsLog(folder / "metrics.jsonl", False).read())
        options = {"name": name} | options
        if "validation" in options:
            options["validation"] = _made(options["validation"])
        fitted = fit(model, _made(data), key, config, folder=folder, **options)
        if self.is_writer:
            save(folder / "params.npz", fitted.params)
        return fitted

    def _is_there(self, path: Path) -> bool:
        """Whether a stage is done; all processes get the answer of process 0."""
        there = path.exists()
        if jax.process_count() > 1:
            there = bool(multihost_utils.broadcast_one_to_all(np.array(there)))
        if self.read_only and not there:
            raise ValueError(f"{path} is not there to plot; run without --plot-only first")
        return there

    def _open(self, config: Any) -> None:
        stored, new = self.path / "config.json", _as_json(config)
        if stored.exists():
            old = _with_defaults(config, _read_config(stored))
            _refuse_changes(self.path, old, new)
            self._check_inputs(new)
        elif self.is_writer and any(p.name != _LOCK for p in self.path.glob("*")):
            raise ValueError(
                f"{self.path} is not empty and holds no config.json; choose another --out"
            )
        else:
            self.write_json("config.json", new)
            self.write_json("inputs.json", _input_digests(new))
            self.write_json("env.json", environment())

    def _check_inputs(self, config: dict) -> None:
        """Refuse files that the configuration names and that are others than they were."""
        old, new = self.read_json("inputs.json") or {}, _input_digests(config)
        changed = [name for name in old if new.get(name) not in (old[name], None)]
        if changed:
            raise ValueError(
                f"{', '.join(changed)} of {self.path} has changed since the run began; choose "
                "another --out, or restore the file"
            )

    def write_text(self, name: str, text: str) -> None:
        """Write a file of the folder atomically."""
        if self.is_writer and not self.read_only:
            with atomic_path(self.path / name) as partial:
                partial.write_text(text)

    def write_json(self, name: str, content: Any) -> None:
        """Write what JSON can hold into a file of the folder."""
        self.write_text(name, json.dumps(content, indent=2) + "\n")

    def begin(
        self, name: str, kind: type, config: Any, data: Mapping[str, PyTree], **of: Any
    ) -> None:
        """Keep what a training of several parts is of; afterwards refuse another.

        Args:
          name: of the file with the options, which `load_config` reads.
          kind: dataclass whose fields are the options; `config` may have more.
          config: the options.
          data: samples by name, of which digests are kept in sample.json.
          of: what else makes the sample, numbers and tuples of them.

        Raises:
          ValueError: if the folder was begun with others; names them.
        """
        fields = {f.name for f in dataclasses.fields(kind)}
        self.keep(name, {k: v for k, v in dataclasses.asdict(config).items() if k in fields})
        self.keep("sample.json", {k: tree_digest(v) for k, v in data.items()} | of)

    def keep(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file once; afterwards refuse other content.

        Raises:
          ValueError: naming the entries that are others than those of the file.
        """
        stored = self.read_json(name)
        if stored is not None:
            new, old = _flatten(json.loads(json.dumps(content))), _flatten(stored)
            changed = [n for n in new if n in old and new[n] != old[n]]
            if changed:
                changes = "; ".join(f"{n}: {old[n]!r:.80} -> {new[n]!r:.80}" for n in changed)
                raise ValueError(
                    f"{self.path} was begun with another {Path(name).stem} ({changes}); give the "
                    "same, or choose another folder"
                )
        elif self.is_writer and not self.read_only:
            self.write_json(name, content)

    def read_json(self, name: str) -> Any:
        """A file that `write_json` wrote, None if there is none."""
        path = self.path / name
        advice = "restore it, or choose another --out"
        return read_json(path, advice) if path.exists() else None

    def write_metrics(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """Write metrics.json: flat, name -> number, as `jgen.estimate.flatten` names them.

        Raises:
          ValueError: if a value is no finite number; names it.
        """
        flat = flatten(metrics)
        bad = {k: v for k, v in flat.items() if not math.isfinite(v)}
        if bad:
            raise ValueError(f"metrics must be finite numbers, got {bad}")
        self.write_json("metrics.json", flat)
        return flat

    def figure(self, name: str) -> Path:
        """Path without suffix for a figure."""
        return make_folder(self.path / "figures") / name


_LOCK = ".lock"
# Folders that this process has open: path -> (file, how often).
_OPEN: dict[Path, tuple[Any, int]] = {}


def _made(
    data: Batch | DataSource | None | Callable[[], Batch | DataSource],
) -> Batch | DataSource | None:
    return data() if callable(data) else data


def _lock(path: Path) -> Path:
    """Lock a folder for this process, which may open it several times."""
    path = path.resolve()
    file, count = _OPEN.get(path, (None, 0))
    if file is None:
        make_folder(path)
        file = (path / _LOCK).open("a+")
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            file.close()
            raise ValueError(
                f"{path} is in use by {owner}; wait for it, or choose another --out"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
    _OPEN[path] = (file, count + 1)
    return path


def _unlock(path: Path) -> None:
    file, count = _OPEN.pop(path)
    if count > 1:
        _OPEN[path] = (file, count - 1)
    else:
        file.close()


def load_config(kind: type, path: str | os.PathLike, name: str = "config.json") -> Any:
    """The configuration of a run folder, as an instance of the dataclass `kind`.

    `name` is another file of the folder that holds one.

    Raises:
      ValueError: if the folder holds no run, or one of another kind.
    """
    stored = Path(path) / name
    if not stored.exists():
        raise ValueError(f"{path} holds no run: there is no {name} in it")
    try:
        return _build(kind, _read_config(stored))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{stored} is not a configuration of this study: {error}") from error


def check_finished(folder: Path, stages: Sequence[str], trainings: Sequence[str]) -> None:
    """Refuse a run folder that lacks a stage of `cached` or a training of `fit`.

    Raises:
      ValueError: naming the first file that is missing.
    """
    files = *(f"{name}.npz" for name in stages), *(f"{name}/params.npz" for name in trainings)
    if missing := [file for file in files if not (folder / file).exists()]:
        raise ValueError(
            f"{folder} has not finished its training ({missing[0]} is missing); run the command "
            "that started it again"
        )


def _read_config(path: Path) -> dict:
    return read_json(path, "restore it, or choose another --out")


def _load_stage(path: Path, model: GenerativeModel | None, advice: str) -> PyTree:
    try:
        return load(path, model)
    except ValueError as error:
        raise ValueError(f"{error}; {advice}") from error


def _build(kind: Any, value: Any) -> Any:
    """A dataclass from nested dictionaries; JSON has lists where tuples were."""
    if dataclasses.is_dataclass(kind):
        kinds = get_type_hints(kind)
        return kind(**{name: _build(kinds[name], v) for name, v in value.items()})
    return tuple(value) if isinstance(value, list) else value


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


def _input_digests(config: dict) -> dict[str, str]:
    """Digests of all files and run folders that a configuration names."""
    digests = {}
    for name, value in _flatten(config).items():
        for text in value if isinstance(value, list) else [value]:
            if not isinstance(text, str) or not text:
                continue
            if Path(text).is_file() or (Path(text) / "config.json").is_file():
                digests[f"{name} ({text})"] = file_digest(Path(text))
    return digests


def _flatten(tree: dict, prefix: str = "") -> dict:
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat

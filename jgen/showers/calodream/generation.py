"""Generate showers straight into a file, in parts that survive an interruption."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float

from jgen.files import atomic_path, make_folder, read_json
from jgen.generative_model import GenerativeModel, SampleFunction, draw, draw_chunks
from jgen.showers.data.geometry import Geometry
from jgen.showers.data.hdf5 import Showers, read_showers, write_showers
from jgen.typing import Key, Params


class Generated(NamedTuple):
    """What one call of `generate_showers` did.

    Attributes:
      num: showers that it made; those that an earlier call had made are not among them.
      seconds: by the clock, with writing, from the first batch, which waits for the compiler.
      num_timed: showers made in `seconds`, those of all batches but the first.
    """

    num: int
    seconds: float
    num_timed: int


def generate_showers(
    path: str | os.PathLike,
    model: GenerativeModel,
    params: Params,
    key: Key,
    energies: Float[np.ndarray, " n"],
    geometry: Geometry,
    *,
    batch_size: int = 1000,
    start: int = 0,
    progress: bool = False,
) -> Generated:
    """Write one shower for each incident energy to a CaloChallenge file.

    The host holds one batch at a time. Every batch is kept in `<path>.parts/` until all are there
    and become one file; the same call after an interruption goes on from the last of them. Shower
    i depends on (params, key, i, energies[i]) alone, so the file is then bitwise the same. On
    several hosts process 0 makes and writes all of them, and the others wait.

    Args:
      path: of the file.
      model: of showers [*geometry.shape] in MeV given an incident energy in MeV.
      params: its parameters.
      key: typed PRNG key.
      energies: incident energies [MeV].
      geometry: of the showers.
      batch_size: showers made at once.
      start: first shower that is made and written, with `energies` those of all showers from 0 on:
        for a sample whose parts are made by jobs of their own. Parts that begin at multiples of
        the batch size hold bit by bit what one job makes of all energies.
      progress: show a progress bar.

    Raises:
      ValueError: if the folder of parts belongs to another generation, for energies that are not
        positive numbers, or a batch size below one.
    """
    path, energies = Path(path), np.asarray(energies, np.float32)
    _check(energies, batch_size, start)
    done = Generated(0, 0.0, 0)
    if jax.process_index() == 0:
        done = _write(path, model, params, key, energies, geometry, batch_size, start, progress)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("showers")
    return done


def _write(path, model, params, key, energies, geometry, batch_size, start, progress) -> Generated:
    parts = path.with_name(path.name + ".parts")
    _open(
        parts, _fingerprint(params, key, energies, batch_size) | ({"start": start} if start else {})
    )
    names = [parts / f"{first:09d}.h5" for first in range(start, len(energies), batch_size)]
    done = next((i for i, name in enumerate(names) if not name.exists()), len(names))
    num = seconds = num_timed = 0
    if done < len(names):
        start, begin = start + done * batch_size, None
        chunks = draw_chunks(
            model,
            params,
            key,
            len(energies),
            energies,
            batch_size=batch_size,
            start=start,
            progress=progress,
        )
        for name, chunk in zip(names[done:], chunks, strict=True):
            if begin is None:
                begin = time.perf_counter()
            else:
                num_timed += len(chunk)
            rows = slice(start + num, start + num + len(chunk))
            write_showers(name, Showers(energies[rows], chunk.reshape(len(chunk), -1)), geometry)
            num += len(chunk)
        seconds = time.perf_counter() - begin
    write_showers(path, (read_showers(name, geometry) for name in names), geometry)
    shutil.rmtree(parts)
    return Generated(num, float(seconds), num_timed)


def _check(energies, batch_size, start) -> None:
    """Refuse what would fail only after a folder was made."""
    if energies.ndim != 1 or not len(energies):
        raise ValueError(f"energies must be one or more numbers [n], got shape {energies.shape}")
    bad = np.flatnonzero(~(np.isfinite(energies) & (energies > 0)))
    if bad.size:
        raise ValueError(
            f"incident energies must be positive and finite, in MeV, but number {bad[0]} is "
            f"{energies[bad[0]]}"
        )
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if not 0 <= start < len(energies):
        raise ValueError(f"start must be one of the {len(energies)} showers, got {start}")


def _fingerprint(params, key, energies, batch_size) -> dict:
    """What tells one generation from another, except for the model's functions."""
    digest = hashlib.sha256(energies.tobytes())
    for leaf in (jax.random.key_data(key), *jax.tree.leaves(params)):
        digest.update(np.asarray(leaf).tobytes())
    return {"num": len(energies), "batch_size": batch_size, "digest": digest.hexdigest()}


def _open(parts: Path, fingerprint: dict) -> None:
    """Make the folder of parts, or refuse one of another generation."""
    stored = parts / "generation.json"
    advice = "delete the folder, to generate anew"
    if stored.exists() and read_json(stored, advice) != fingerprint:
        raise ValueError(
            f"{parts} holds an unfinished generation of other showers, parameters, seed or batch "
            "size; finish that one with the same options, or delete the folder"
        )
    make_folder(parts)
    with atomic_path(stored) as partial:
        partial.write_text(json.dumps(fingerprint) + "\n")


def milliseconds_per_shower(
    model: GenerativeModel | SampleFunction,
    params: Params,
    key: Key,
    energies: Float[np.ndarray, " n"],
    batch_sizes: Sequence[int] = (1, 100, 10_000),
    *,
    repeats: int = 3,
) -> dict[int, float]:
    """Wall-clock milliseconds a shower for each batch size: the CaloChallenge's timing protocol.

    A time is the median of `repeats` batches, from incident energies on the host to showers on the
    host. Compilation is not in it: each size runs once before.

    Args:
      model: what to sample from, or a bare sample function.
      params: its parameters.
      key: typed PRNG key.
      energies: incident energies [MeV], repeated where a batch has more.
      batch_sizes: showers made at once.
      repeats: timed batches of each size.
    """
    by_size = {}
    for size in batch_sizes:
        batch, times = np.resize(energies, size).astype(np.float32), []
        for i in range(repeats + 1):
            begin = time.perf_counter()
            draw(model, params, jax.random.fold_in(key, i), size, batch, batch_size=size)
            times.append(time.perf_counter() - begin)
        by_size[size] = 1e3 * float(np.median(times[1:])) / size
    return by_size

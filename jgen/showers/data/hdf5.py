"""Showers in the HDF5 layout of the CaloChallenge (arXiv:2410.21611), in and out.

A file holds `incident_energies` (n, 1) and `showers` (n, num_voxels), both in MeV, the voxels in
the order of `geometry.Geometry`. A data set may be spread over several files, and files may be
larger than memory. Every refusal names the file and says what to do.
"""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from jaxtyping import Float

from jgen.arrays import SampleWarning, cast_array, real_array
from jgen.files import atomic_path
from jgen.showers.data.geometry import GEOMETRIES, Geometry
from jgen.tables import hdf5_dataset, open_hdf5, read_rows

ENERGIES = "incident_energies"
VOXELS = "showers"
# Bounds [MeV] of the incident energies that showers are made of.
_LOWEST_ENERGY, _HIGHEST_ENERGY = 100.0, 1e7
# Median E_tot / E_inc of showers, of sampling calorimeters without calibration, too.
_RESPONSES, _FEWEST_FOR_UNITS = (2e-3, 10.0), 20
# A minimum-ionising particle leaves about 200 thresholds in a cell, so that cells with energy have
# 300 and more on average; in GeV, showers of 100 GeV to a few TeV have fewer than 60.
_FEWEST_THRESHOLDS, _FEWEST_HITS = 60, 1000
# Resolution a / sqrt(E / GeV) + b of E_tot: nothing that samples is better than the first, and no
# shower that is contained worse than the second.
_SHARPEST, _WIDEST = 0.05, (0.5, 0.1)
_CHUNK_VOXELS = 720  # per HDF5 chunk: whole layers of DS2, and the best compression measured

Paths = str | os.PathLike | Sequence[str | os.PathLike]


class Showers(NamedTuple):
    """A set of showers on the host.

    Attributes:
      energies: incident energies [MeV], float32 or float64 as stored.
      voxels: deposited energies [MeV].
    """

    energies: Float[np.ndarray, " n"]
    voxels: Float[np.ndarray, "n num_voxels"]


def sample_path() -> Path:
    """Path of the bundled Geant4 electron showers in DS2 voxels; see `data/README.md`."""
    return Path(str(files("jgen.showers.data").joinpath("geant4_electrons_ds2.h5")))


def count_showers(paths: Paths) -> int:
    """Number of showers in one file or in a list of files."""
    return sum(_num_rows(path) for path in _as_list(paths))


def read_showers(
    paths: Paths, geometry: Geometry, start: int = 0, stop: int | None = None
) -> Showers:
    """Read rows `start` to `stop` of one file, or of several files one after the other.

    Args:
      paths: one path, or a list read as one long file.
      geometry: what the voxels must be; nothing in the file says so.
      start: first row.
      stop: row after the last one; None reads to the end.

    Returns:
      The showers, voxels in float32.

    Raises:
      FileNotFoundError: if a file does not exist.
      ValueError: if a file or the range is not usable; the message says why.
    """
    paths = _as_list(paths)
    lengths = [_num_rows(path, geometry) for path in paths]
    total = sum(lengths)
    stop = total if stop is None else stop
    if not 0 <= start < stop <= total:
        raise ValueError(
            f"cannot read rows {start} to {stop}: {_join(paths)} holds {total} showers; choose "
            f"0 <= start < stop <= {total}"
        )
    parts, offset = [], 0
    for path, length in zip(paths, lengths, strict=True):
        first, last = max(start - offset, 0), min(stop - offset, length)
        if first < last:
            parts.append(_read_rows(path, geometry, first, last))
        offset += length
    if len(parts) == 1:
        return parts[0]
    return Showers(*(np.concatenate(field) for field in zip(*parts, strict=True)))


def iterate_showers(paths: Paths, geometry: Geometry, chunk_size: int) -> Iterator[Showers]:
    """Read any number of showers in chunks that fit in memory.

    The files are checked at once, their values chunk by chunk. Chunks run across file borders:
    all have `chunk_size` rows but the last.

    Args:
      paths: one path, or a list read as one long file.
      geometry: what the voxels must be.
      chunk_size: showers per chunk.

    Returns:
      An iterator of showers.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    paths = _as_list(paths)
    total = sum(_num_rows(path, geometry) for path in paths)
    starts = range(0, total, chunk_size)
    return (read_showers(paths, geometry, i, min(i + chunk_size, total)) for i in starts)


def in_chunks(showers: Showers) -> Iterator[Showers]:
    """Pieces of a sample in memory, of 500 showers: small enough for what works in float64."""
    for i in range(0, len(showers.energies), 500):
        yield Showers(showers.energies[i : i + 500], showers.voxels[i : i + 500])


def write_showers(
    path: str | os.PathLike,
    showers: Showers | Iterable[Showers],
    geometry: Geometry,
    compression_level: int = 4,
) -> int:
    """Write showers, or a stream of chunks, as one file; an older file is replaced at the end.

    The file appears under its name only when it is complete. gzip and the byte shuffle are
    lossless and every HDF5 reader knows them.

    Args:
      path: where to write; the folder must exist.
      showers: one set, or an iterable of sets, of which only one is held at a time.
      geometry: what the voxels must be.
      compression_level: gzip level, 1 to 9.

    Returns:
      The number of showers written.

    Raises:
      ValueError: if a chunk fails `check_showers`, or if there is none.
    """
    chunks = [showers] if isinstance(showers, Showers) else showers
    total = 0
    with atomic_path(path) as partial, h5py.File(partial, "w") as file:
        for chunk in chunks:
            check_showers(chunk, geometry, source=f"{path}: showers from row {total} on")
            if total == 0:
                _create(file, chunk, compression_level)
            rows = slice(total, total + len(chunk.energies))
            file[ENERGIES].resize(rows.stop, axis=0)
            file[VOXELS].resize(rows.stop, axis=0)
            file[ENERGIES][rows] = np.asarray(chunk.energies)[:, None]
            file[VOXELS][rows] = chunk.voxels
            total = rows.stop
        if total == 0:
            raise ValueError(f"{path}: no showers to write; the stream of chunks is empty")
    return total


def shower_arrays(showers: Showers, source: object = "showers") -> Showers:
    """Showers as arrays on the host that belong together.

    Raises:
      ValueError: for a wrong shape, an empty set, masked entries, no numbers or no `Showers`.
    """
    if not (hasattr(showers, "energies") and hasattr(showers, "voxels")):
        raise ValueError(
            f"{source} must be Showers(energies, voxels), got {type(showers).__name__}"
        )
    energies = real_array(showers.energies, f"{source}: energies", booleans=False)
    voxels = real_array(showers.voxels, f"{source}: voxels", booleans=False)
    if voxels.ndim != 2 or energies.shape != voxels.shape[:1]:
        raise ValueError(
            f"{source}: energies {energies.shape} and voxels {voxels.shape} do not belong "
            "together; they must be (n,) and (n, number of voxels)"
        )
    if len(voxels) == 0:
        raise ValueError(f"{source}: no showers; at least one is needed")
    return Showers(energies, voxels)


def check_showers(showers: Showers, geometry: Geometry, source: object = "showers") -> None:
    """Refuse showers that cannot be right.

    Args:
      showers: the showers to check.
      geometry: what the voxels must be.
      source: how to call them in the message, such as the file they came from.

    Raises:
      ValueError: for a wrong shape, an empty set, masked entries or no numbers, NaN, infinite or
        negative voxels, an incident energy that is not positive and finite, or energies that look
        like those of other units.
    """
    _check_num_voxels(shower_arrays(showers, source).voxels.shape[1], geometry, source)
    check_deposits(showers, source)


def check_deposits(showers: Showers, source: object = "showers") -> None:
    """Refuse showers that cannot be right, of any number of voxels.

    Raises:
      ValueError: as `check_showers`.
    """
    energies, voxels = shower_arrays(showers, source)
    # Two reductions without temporaries; a NaN goes through both and a search follows only then.
    lowest, highest = voxels.min(), voxels.max()
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        row, voxel = np.argwhere(~np.isfinite(voxels))[0]
        raise ValueError(
            f"{source}: voxel {voxel} of shower {row} is {voxels[row, voxel]}; remove showers "
            "with NaN or infinite energies first"
        )
    if lowest < 0:
        row, voxel = np.argwhere(voxels < 0)[0]
        raise ValueError(
            f"{source}: voxel {voxel} of shower {row} is negative, {voxels[row, voxel]} MeV; "
            "deposited energies must be >= 0"
        )
    bad = np.flatnonzero(~(np.isfinite(energies) & (energies > 0)))
    if bad.size:
        raise ValueError(
            f"{source}: the incident energy of shower {bad[0]} is {energies[bad[0]]}; incident "
            "energies must be positive and finite, in MeV"
        )
    _check_incident_energies(energies, source)


def check_units(showers: Showers, geometry: Geometry, source: object = "showers") -> None:
    """Refuse true showers of other units than MeV, as far as they can be told.

    Voxels of other units than the incident energies: a sampling calorimeter sees a few per cent of
    these at least, without any calibration, and never ten times as much. It takes 20 showers with
    energy to tell.

    Both in other units, where `check_showers` finds the incident energies possible: voxels of
    datasets 2 and 3 begin at the threshold of the read-out, so in keV at a thousand of it and in
    GeV at a thousandth, from where on those with energy have 60 thresholds on average or less
    (1000 of them tell). Dataset 1 has no threshold. There the resolution tells, and is only warned
    of: less than 5 % / sqrt(E / GeV) is too sharp for a sampling calorimeter, as showers in GeV
    seem to be, and more than 50 % / sqrt(E / GeV) + 10 % is too wide, as those in keV seem to be.
    Not seen are, on dataset 1, photons in keV from 1 GeV on, showers in GeV of more than a few TeV,
    and responses that do not scatter at all; on datasets 2 and 3, showers in GeV of more than a few
    TeV or that were read out without a threshold.

    Also refused are showers half of which are empty, as those are that were never written.

    Args:
      showers: true ones; a bad generator may make anything.
      geometry: of the showers.
      source: how to call them in the message.

    Raises:
      ValueError: with what the units look like.
    """
    check_response(showers, geometry.threshold, source)


def check_response(showers: Showers, threshold: float, source: object = "showers") -> None:
    """The same of showers of any voxels that were read out above a threshold [MeV]; 0 is none.

    Raises:
      ValueError: as `check_units`.
    """
    energies, voxels = np.asarray(showers.energies), np.asarray(showers.voxels)
    total = np.sum(voxels, axis=1, dtype=np.float64)
    some = total > 0
    enough = some.sum() >= _FEWEST_FOR_UNITS
    response = float(np.median(total[some] / energies[some])) if enough else 1.0
    if not _RESPONSES[0] < response < _RESPONSES[1]:
        raise ValueError(
            f"{source}: the median E_tot/E_inc is {response:.2g}; these look like voxels in "
            f"{'GeV' if response < 1 else 'keV'} beside incident energies in MeV, or the other way "
            "round; both must be in MeV"
        )
    if len(some) >= _FEWEST_FOR_UNITS and np.mean(some) < 0.5:
        raise ValueError(
            f"{source}: {np.sum(~some)} of {len(some)} showers have no energy at all; was the file "
            "written to its end?"
        )
    if threshold > 0:
        _check_hits(voxels, threshold, source)
    elif enough:
        _warn_of_resolution(energies[some], total[some], source)


def _check_hits(voxels: np.ndarray, threshold: float, source: object) -> None:
    """Refuse voxels that begin elsewhere than at the threshold of the read-out [MeV]."""
    hit, below = voxels > 0, voxels < threshold
    num, total = int(hit.sum()), float(np.sum(voxels, dtype=np.float64))
    # Voxels reach down to the threshold. In keV they end at a thousand of it, but for rounding.
    lowest = float(np.min(voxels, where=hit, initial=np.inf))
    if num and lowest > 990 * threshold:
        raise ValueError(
            f"{source}: no voxel has less than {lowest:.3g}, a thousand times the threshold of "
            f"{threshold:g} MeV; these look like keV, but energies must be in MeV"
        )
    if num < _FEWEST_HITS:
        return
    faint = float(np.sum(voxels, where=below, dtype=np.float64)) / total
    if faint > 0.5:
        raise ValueError(
            f"{source}: {100 * faint:.0f} % of the energy is in voxels below the threshold of "
            f"{threshold:g} MeV, which are read as empty; these look like GeV, or the threshold is "
            "of other units"
        )
    share = float(np.sum(hit & below)) / num
    begins = lowest > 0.99e-3 * threshold
    if begins and share > 0.01 and total < _FEWEST_THRESHOLDS * threshold * num:
        raise ValueError(
            f"{source}: {100 * share:.0f} % of the voxels with energy are below the threshold of "
            f"{threshold:g} MeV, and on average they have {total / num:.3g}; these look like GeV, "
            "but energies must be in MeV"
        )


def _warn_of_resolution(energies: np.ndarray, total: np.ndarray, source: object) -> None:
    """Warn where the response scatters as it does at other energies; both in MeV."""
    response = total / energies
    off = response / np.median(response) - 1
    root = np.sqrt(energies / 1e3)
    # Robust standard deviations.
    sharp, wide = (1.48 * float(np.median(np.abs(z))) for z in (off * root, off / _wide(root)))
    if 1e-4 < sharp < _SHARPEST:
        found, unit = f"{100 * sharp:.2g} % / sqrt(E / GeV), sharper than any calorimeter,", "GeV"
    elif wide > 1:
        found, unit = f"{wide:.2g} times as wide as a calorimeter's at these energies", "keV"
    else:
        return
    warnings.warn(
        f"{source}: E_tot/E_inc has a resolution of {found}; are these {unit}? All energies must "
        "be in MeV",
        SampleWarning,
        stacklevel=3,
    )


def _wide(root):
    stochastic, constant = _WIDEST
    return stochastic / root + constant


def _check_incident_energies(energies: np.ndarray, source: object) -> None:
    """Particles below 0.1 GeV make no showers, and none has more than 10 TeV."""
    lowest, middle, highest = (float(f(energies)) for f in (np.min, np.median, np.max))
    guess = ""
    if middle < _LOWEST_ENERGY or (lowest < 0.1 * _LOWEST_ENERGY and highest < 1e4):
        guess = "TeV" if highest < 0.1 * _LOWEST_ENERGY and middle < 0.1 else "GeV"
    elif highest > _HIGHEST_ENERGY or middle > 0.5 * _HIGHEST_ENERGY:
        guess = "eV" if middle > 50 * _HIGHEST_ENERGY else "keV"
    if guess:
        raise ValueError(
            f"{source}: incident energies go from {lowest:.4g} to {highest:.4g} with a median of "
            f"{middle:.4g}; these look like {guess}, but all energies must be in MeV"
        )


def _create(file: h5py.File, first: Showers, compression_level: int) -> None:
    options = {"compression": "gzip", "compression_opts": compression_level, "shuffle": True}
    num, width = np.shape(first.voxels)
    rows = min(max(num, 16), 1024)
    dtype = np.float64 if np.asarray(first.energies).dtype == np.float64 else np.float32
    file.create_dataset(ENERGIES, (0, 1), dtype, maxshape=(None, 1), chunks=(rows, 1), **options)
    chunks = (rows, min(width, _CHUNK_VOXELS))
    file.create_dataset(
        VOXELS, (0, width), np.float32, maxshape=(None, width), chunks=chunks, **options
    )


def _as_list(paths: Paths) -> list[Path]:
    paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not paths:
        raise ValueError("no shower file given; pass a path or a list of at least one path")
    paths = [Path(path) for path in paths]
    if len({path.resolve() for path in paths}) < len(paths):
        raise ValueError(f"a file is given twice: {_join(paths)}; its showers would count twice")
    return paths


def _join(paths: list[Path]) -> str:
    return " + ".join(str(path) for path in paths)


def _datasets(file: h5py.File) -> tuple[h5py.Dataset, h5py.Dataset]:
    """Incident energies and voxels; booleans are neither."""
    names = (ENERGIES, VOXELS)
    return tuple(hdf5_dataset(file, name, names, booleans=False) for name in names)


def _num_rows(path: Path, geometry: Geometry | None = None) -> int:
    """Check the layout of one file, not its values, and return its number of showers."""
    with open_hdf5(path) as file:
        energies, voxels = (dataset.shape for dataset in _datasets(file))
    if len(energies) not in (1, 2) or energies[1:] not in ((), (1,)):
        raise ValueError(f"{path}: {ENERGIES} has shape {energies}; it must be (n, 1) or (n,)")
    if len(voxels) != 2:
        raise ValueError(f"{path}: {VOXELS} has shape {voxels}; it must be (n, num_voxels)")
    if energies[0] != voxels[0]:
        raise ValueError(
            f"{path}: {energies[0]} incident energies but {voxels[0]} showers; the file is "
            "inconsistent and has to be written again"
        )
    if voxels[0] == 0:
        raise ValueError(f"{path}: the file holds no showers")
    if geometry is not None:
        _check_num_voxels(voxels[1], geometry, path)
    return voxels[0]


def _check_num_voxels(num: int, geometry: Geometry, source: object) -> None:
    if num == geometry.num_voxels:
        return
    fits = [name for name, known in GEOMETRIES.items() if known.num_voxels == num]
    hint = f"this is {fits[0]!r}" if fits else "no known geometry has that many"
    raise ValueError(
        f"{source}: {num} voxels per shower, but geometry {geometry.name!r} has "
        f"{geometry.num_voxels}; {hint}"
    )


def _read_rows(path: Path, geometry: Geometry, start: int, stop: int) -> Showers:
    with open_hdf5(path) as file:
        energies, voxels = (read_rows(dataset, start, stop) for dataset in _datasets(file))
    # Double precision stays, and so do integers that single precision does not hold.
    if energies.dtype.itemsize <= 2 or energies.dtype == np.float32:
        energies = energies.astype(np.float32, copy=False)
    else:
        energies = energies.astype(np.float64, copy=False)
    showers = Showers(energies.reshape(-1), cast_array(voxels, f"{path}: {VOXELS}"))
    check_showers(showers, geometry, source=f"{path} (rows counted from {start})")
    return showers
